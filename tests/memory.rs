//! Memory: each command against a registry that sends the largest of everything stays below 8 MiB,
//! or fails with one line.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image, OCI_INDEX, platform, push_index};
use crate::registry::tls::{Authority, Leaf};
use crate::util::{Dir, Outcome, Run};

/// What asks for one image, or makes something of it.
const COMMANDS: [&[&str]; 12] = [
    &["--metadata"],
    &["--metadata", "--json"],
    &["--metadata", "--arch", "amd64"],
    &["--sha"],
    &["--sha", "--arch", "amd64"],
    &["--platforms"],
    &["--dry-run"],
    &["-o", "x.tar"],
    &["-o", "-"],
    &["--no-tar"],
    &["--gunzip"],
    &["--all-platforms"],
];

/// Runs every command on an image; each succeeds, or fails in one line.
fn all(registry: &Registry, args: &[&str], must: impl Fn(&[&str]) -> bool) {
    let name = registry.name("r");
    for command in COMMANDS {
        let dir = Dir::new();
        let outcome = Run::new(&dir, &["-q", "--retries", "0", &name])
            .args(args)
            .args(command)
            .within("exec \"$@\" >/dev/null")
            .limit(60)
            .outcome();
        judge(&outcome, command);
        if must(command) {
            assert!(outcome.status.success(), "{command:?}: {}", outcome.stderr);
        }
    }
}

#[track_caller]
fn judge(outcome: &Outcome, command: &[&str]) {
    let code = outcome.status.code();
    assert!(
        matches!(code, Some(0 | 1 | 4 | 6)),
        "{command:?}: {code:?} {}",
        outcome.stderr
    );
    assert!(outcome.stderr.lines().count() <= 1, "{}", outcome.stderr);
    eprintln!("{command:?}: {} KiB, {code:?}", outcome.peak >> 10);
    assert!(
        outcome.peak <= 8 << 20,
        "{command:?}: {} bytes resident",
        outcome.peak
    );
}

/// An image whose manifest has about so many bytes.
fn padded(layers: Vec<Blob>, bytes: usize) -> Image {
    let mut image = Image::new(layers);
    let rest = bytes - image.manifest().len() - 30;
    image.more = format!(r#""annotations":{{"x":"{}"}},"#, "y".repeat(rest));
    image
}

fn layers() -> Vec<Blob> {
    (0..6).map(|seed| Blob::layer(seed, 3_000_000)).collect()
}

#[test]
fn the_largest_manifest_over_tls() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    padded(layers(), 4 << 20).push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", &authority.pem);
    all(&registry, &["--cacert", &ca], |command| {
        command != ["--gunzip"]
    });
}

#[test]
fn the_largest_manifest_and_config() {
    let registry = Registry::start().lenient();
    let image = padded(layers(), 4 << 20);
    let config = String::from_utf8(image.config.data()).unwrap();
    let rest = "z".repeat((4 << 20) - config.len() - 20);
    let image = image.with_config(&config.replacen('{', &format!(r#"{{"x":"{rest}","#), 1));
    image.push(&registry, "r", "latest");
    all(&registry, &["--insecure"], |_| false);
}

#[test]
fn the_most_layers() {
    let registry = Registry::start().lenient();
    let image = Image::new((0..1024).map(|seed| Blob::layer(seed, 50)).collect());
    image.push(&registry, "r", "latest");
    all(&registry, &["--insecure"], |_| true);
}

#[test]
fn the_most_values() {
    for text in [
        format!(r#"{{"layers":[{}{{}}]}}"#, "{},".repeat(16_000)),
        format!(r#"{{"manifests":[{}{{}}]}}"#, "{},".repeat(16_000)),
        format!(
            r#"{{"layers":[{{"urls":[{}""]}}]}}"#,
            "\"\",".repeat(190_000)
        ),
        format!(r#"{{"fsLayers":[{}""]}}"#, "\"\",".repeat(190_000)),
        format!(r#"{{"mediaType":"{}"}}"#, "y".repeat(4_190_000)),
        format!(r#"{{"x":"\n{}"}}"#, "y".repeat(4_190_000)),
        format!(r#"{{"\n{}":1}}"#, "y".repeat(4_190_000)),
        format!(
            r#"{{"manifests":[{{"platform":{{"os":"{0}","architecture":"{0}","variant":"{0}"}}}}]}}"#,
            "y".repeat(1_390_000)
        ),
    ] {
        let registry = Registry::start().lenient();
        registry.route(move |seen| {
            let asked = seen.target.contains("/manifests/");
            asked.then(|| crate::registry::Reply::new(200, text.clone()))
        });
        all(&registry, &["--insecure"], |_| false);
    }
}

/// Indexes of `entries` platforms and about so many bytes, so many of them in one.
fn nest(registry: &Registry, indexes: usize, entries: usize, bytes: usize) {
    let image = Image::small(1);
    image.push_untagged(registry, "r");
    let inner = |number: usize| {
        let entry = |cpu: usize| image.entry(&platform("linux", &format!("c{number}x{cpu}"), ""));
        let mut list: Vec<String> = (0..entries).map(entry).collect();
        let rest = bytes.saturating_sub(list.iter().map(String::len).sum::<usize>() + 1000);
        if rest > 0 {
            let more = format!(r#"{{"annotations":{{"x":"{}"}},"#, "y".repeat(rest));
            list[0] = list[0].replacen('{', &more, 1);
        }
        let digest = push_index(registry, "r", "inner", OCI_INDEX, &list);
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#,
            list.join(",")
        );
        format!(
            r#"{{"mediaType":"{OCI_INDEX}","digest":"{digest}","size":{}}}"#,
            text.len()
        )
    };
    let list: Vec<String> = (0..indexes).map(inner).collect();
    push_index(registry, "r", "latest", OCI_INDEX, &list);
}

#[test]
fn the_largest_indexes() {
    for (indexes, entries, bytes) in [(8, 1000, 4_190_000), (30, 30, 4_190_000), (8, 4000, 0)] {
        let registry = Registry::start().lenient();
        nest(&registry, indexes, entries, bytes);
        all(&registry, &["--insecure"], |_| false);
    }
}

#[test]
fn many_images_in_one_run() {
    // Of some size each, and as many as fit.
    for (bytes, fits) in [(20_000, true), (1_000_000, false)] {
        let registry = Registry::start().lenient();
        let names: Vec<String> = (0..50).map(|n| format!("r{n}")).collect();
        for (seed, name) in (0..).zip(&names) {
            let layers = (0..20).map(|n| Blob::layer(seed * 20 + n, 50)).collect();
            padded(layers, bytes).push(&registry, name, "latest");
        }
        let names: Vec<String> = names.iter().map(|name| registry.name(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let dry = &["--dry-run", "-o", "x.tar"][..];
        for command in [dry, &["-o", "x.tar"], &["-o", "-"]] {
            let dir = Dir::new();
            let outcome = Run::new(&dir, &["-q", "--insecure", "--retries", "0"])
                .args(&names)
                .args(command)
                .within("exec \"$@\" >/dev/null")
                .outcome();
            judge(&outcome, command);
            assert_eq!(outcome.status.success(), fits, "{}", outcome.stderr);
            assert!(fits || outcome.stderr.contains("of this run"));
        }
        // In an archive each they need not be in memory together.
        let dir = Dir::new();
        let run = Run::new(&dir, &["-q", "--insecure", "--retries", "0"]);
        let outcome = run.args(&names).outcome();
        judge(&outcome, &["an archive each"]);
        assert!(outcome.status.success(), "{}", outcome.stderr);
        assert_eq!(dir.names().len(), names.len());
    }
}
