//! The layers of `src`: which module may import which, and no circle of files.
//!
//! Read from the imports and paths in the code itself; unit tests may import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const LIBRARY: &str = "src";
const PROGRAM: &str = "src/bin/dockersave";

/// Values: each may import those before it.
const VALUES: [&str; 20] = [
    "sync",
    "order",
    "cancel",
    "counter",
    "time",
    "files",
    "secret",
    "hint",
    "text",
    "digest",
    "error",
    "budget",
    "platform",
    "json",
    "reference",
    "manifest",
    "signature",
    "image",
    "codec",
    "fuzzing",
];

/// Rooms: what each may import besides the values and itself.
const ROOMS: [(&str, &[&str]); 4] = [
    ("net", &[]),
    ("archive", &[]),
    ("registry", &["net"]),
    ("pull", &["archive", "registry"]),
];

/// A module: its path below the crate, and its code without unit tests and comments.
struct Module {
    path: Vec<String>,
    code: String,
}

#[test]
fn modules_import_only_from_the_layers_below_them() {
    let modules = modules(LIBRARY);
    let mut wrong = Vec::new();
    for module in &modules {
        let Some(own) = module.path.first() else {
            continue;
        };
        for target in imports(module, &modules) {
            let Some(other) = target.first() else {
                continue;
            };
            if other != own && !may_import(own, other) {
                wrong.push(format!(
                    "{} imports {}",
                    module.path.join("::"),
                    target.join("::")
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Messages of the library name no flags: the program adds what its user can do.
#[test]
fn no_message_of_the_library_names_a_flag() {
    for module in modules(LIBRARY) {
        for line in module.code.lines() {
            let flag = line.split("--").skip(1).any(|rest| {
                let word = rest.bytes().take_while(u8::is_ascii_lowercase);
                word.count() > 1
            });
            assert!(!flag, "{}: {}", module.path.join("::"), line.trim());
        }
    }
}

fn may_import(own: &str, other: &str) -> bool {
    let value = |name: &str| VALUES.iter().position(|value| *value == name);
    match (value(own), value(other)) {
        (Some(_), _) if own == "fuzzing" => true,
        (Some(own), Some(other)) => other < own,
        (Some(_), None) => false,
        (None, Some(_)) => other != "fuzzing",
        (None, None) => ROOMS
            .iter()
            .any(|(room, below)| *room == own && below.contains(&other)),
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    no_circles(LIBRARY);
    no_circles(PROGRAM);
}

fn no_circles(root: &str) {
    let modules = modules(root);
    assert!(modules.len() > 10, "{root}");
    // A `mod.rs` and its children belong together.
    let leaf = |path: &[String]| {
        !modules
            .iter()
            .any(|module| module.path.len() > path.len() && module.path.starts_with(path))
    };
    let graph: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = modules
        .iter()
        .filter(|module| leaf(&module.path))
        .map(|module| {
            let targets = imports(module, &modules).into_iter();
            (
                module.path.clone(),
                targets.filter(|target| leaf(target)).collect(),
            )
        })
        .collect();
    for start in graph.keys() {
        let mut reached = BTreeSet::new();
        let mut open: Vec<_> = graph[start].iter().collect();
        while let Some(next) = open.pop() {
            assert!(
                next != start,
                "{} imports itself through others: {reached:?}",
                start.join("::")
            );
            if reached.insert(next.join("::")) {
                open.extend(graph.get(next).into_iter().flatten());
            }
        }
    }
}

/// All modules of the library, or of the program.
fn modules(root: &str) -> Vec<Module> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(root);
    let mut found = Vec::new();
    let mut open = vec![(root, Vec::new())];
    while let Some((directory, path)) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let mut path: Vec<String> = path.clone();
            if entry.path().is_dir() {
                if name != "bin" {
                    path.push(name);
                    open.push((entry.path(), path));
                }
            } else if let Some(name) = name.strip_suffix(".rs") {
                if !matches!(name, "mod" | "lib" | "main") {
                    path.push(name.to_owned());
                }
                let text = fs::read_to_string(entry.path()).unwrap();
                let code = text.split("\n#[cfg(test)]\n").next().unwrap_or("");
                let lines = code
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                found.push(Module {
                    path,
                    code: lines.collect::<Vec<_>>().join("\n"),
                });
            }
        }
    }
    found
}

/// The modules that a module names by `crate::`, `super::`, or as children of its own.
fn imports(module: &Module, modules: &[Module]) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    for name in paths(&module.code) {
        let mut parts = name.as_slice();
        let mut path = module.path.clone();
        match parts[0].as_str() {
            "crate" => path.clear(),
            "super" => {}
            _ => continue,
        }
        if parts[0] == "crate" {
            parts = &parts[1..];
        }
        while parts.first().is_some_and(|part| part == "super") {
            path.pop();
            parts = &parts[1..];
        }
        path.extend_from_slice(parts);
        // The longest prefix that is a module; what is left names an item in it.
        let longest = (1..=path.len())
            .rev()
            .map(|length| &path[..length])
            .find(|path| modules.iter().any(|module| module.path == *path));
        if let Some(path) = longest
            && *path != module.path
        {
            found.insert(path.to_vec());
        }
    }
    found
}

/// Every path in the code that begins with `crate` or `super`, groups in braces expanded.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code
        .match_indices("crate::")
        .chain(code.match_indices("super::"))
    {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
            expand(&code[at..], &mut Vec::new(), &mut found);
        }
    }
    found
}

/// Reads one path or group; returns what follows it.
fn expand<'c>(code: &'c str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'c str {
    let length = prefix.len();
    let mut rest = code.trim_start();
    loop {
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        if end > 0 {
            prefix.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix("::") {
            Some(more) => rest = more,
            None => break,
        }
        if let Some(group) = rest.strip_prefix('{') {
            rest = group;
            while !rest.starts_with('}') && !rest.is_empty() {
                rest = expand(rest, prefix, found).trim_start();
                rest = rest.strip_prefix("as ").map_or(rest, |alias| {
                    alias.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
                });
                rest = rest
                    .trim_start()
                    .strip_prefix(',')
                    .unwrap_or(rest)
                    .trim_start();
                rest = rest.trim_start_matches('*');
            }
            rest = rest.strip_prefix('}').unwrap_or(rest);
            prefix.truncate(length);
            return rest;
        }
    }
    if prefix.len() > length {
        found.push(prefix.clone());
    }
    prefix.truncate(length);
    rest
}
