//! The image's final files as one tar: `--format rootfs`, compared with a model of its own.

use crate::registry::Registry;
use crate::registry::image::{Blob, GZIP, Image, noise, sha256};
use crate::util::{Dir, Run};
use dockersave::{Client, Error, Event, Plan, PlanOptions, Pull, Reference};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

/// An entry of a layer as its tar has it.
#[derive(Clone, Debug)]
struct Entry {
    kind: u8,
    name: String,
    link: String,
    content: Vec<u8>,
    mode: u32,
    mtime: u64,
    /// PAX records.
    pax: Vec<(&'static str, String)>,
}

fn entry(kind: u8, name: &str, link: &str) -> Entry {
    Entry {
        kind,
        name: name.into(),
        link: link.into(),
        content: Vec::new(),
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        mtime: 7,
        pax: Vec::new(),
    }
}

fn directory(name: &str) -> Entry {
    entry(b'5', name, "")
}

fn file(name: &str, content: &str) -> Entry {
    Entry {
        content: content.into(),
        ..entry(b'0', name, "")
    }
}

fn hard(name: &str, target: &str) -> Entry {
    entry(b'1', name, target)
}

fn soft(name: &str, target: &str) -> Entry {
    entry(b'2', name, target)
}

fn block(name: &[u8], link: &[u8], kind: u8, size: u64, mode: u32, mtime: u64) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(mtime);
    header.set_uid(0);
    header.set_gid(0);
    let old = header.as_old_mut();
    old.name[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    old.linkname[..link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
    header.set_cksum();
    *header.as_bytes()
}

fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn tar_of(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in entries {
        let (name, link) = (one.name.as_bytes(), one.link.as_bytes());
        let mut pax = one.pax.clone();
        if name.len() > 100 {
            pax.push(("path", one.name.clone()));
        }
        if link.len() > 100 {
            pax.push(("linkpath", one.link.clone()));
        }
        let mut records = Vec::new();
        for (key, value) in &pax {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|all| rest + all.to_string().len() == *all);
            records.extend_from_slice(format!("{} {key}={value}\n", length.unwrap()).as_bytes());
        }
        if !records.is_empty() {
            out.extend(block(b"pax", b"", b'x', records.len() as u64, 0o644, 0));
            padded(&mut out, &records);
        }
        let size = one.content.len() as u64;
        out.extend(block(name, link, one.kind, size, one.mode, one.mtime));
        padded(&mut out, &one.content);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn blob(tar: &[u8]) -> Blob {
    Blob::bytes(GZIP, gzipped(tar), sha256(tar))
}

fn image(layers: &[Vec<Entry>]) -> Image {
    Image::new(layers.iter().map(|layer| blob(&tar_of(layer))).collect())
}

/// Pulls through the library: the tar, or why there is none; and how often a layer was read again.
fn flattened(registry: &Registry, repository: &str) -> (Result<Vec<u8>, Error>, usize) {
    let mut again = 0;
    let client = Client::builder().insecure(true).build().unwrap();
    let made = made(&client, registry, repository, &mut again);
    (made, again)
}

fn made(
    client: &Client,
    registry: &Registry,
    repository: &str,
    again: &mut usize,
) -> Result<Vec<u8>, Error> {
    let name: Reference = registry.name(repository).parse().unwrap();
    let image = client.repository(&name)?.image(None)?;
    let plan = Plan::new(&[image], &PlanOptions::default())?;
    let mut bytes = Vec::new();
    let pull = Pull::new(client, plan).rootfs(None).observer(|event| {
        *again += usize::from(matches!(event, Event::Note(_)));
    });
    pull.to_writer(&mut bytes)?;
    Ok(bytes)
}

/// A file of the final tree, whatever its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    kind: u8,
    link: String,
    content: Vec<u8>,
    mode: u32,
    mtime: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Directory(u32),
    /// By number, so that hard links can be told from copies.
    File(usize),
}

type Tree = BTreeMap<String, Item>;

/// The parents of a path, the highest first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn remove(tree: &mut Tree, path: &str, itself: bool) {
    let below = format!("{path}/");
    tree.retain(|one, _| {
        !(one.starts_with(&below) || path.is_empty() && !one.is_empty() || itself && one == path)
    });
}

fn clean(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The model: layers applied to a tree from the bottom up, as layer.md says. `None` where an image
/// has to be refused. Files without a number in `files` are hard links to nothing.
fn model(layers: &[Vec<Entry>]) -> Option<(Tree, Vec<Option<File>>)> {
    let mut tree = Tree::new();
    let mut files: Vec<Option<File>> = Vec::new();
    for layer in layers {
        let lower = tree.clone();
        let mut own: BTreeMap<String, bool> = BTreeMap::new();
        for one in layer {
            let path = clean(&one.name)?;
            let (dir, base) = path.rsplit_once('/').unwrap_or(("", &path));
            if base == ".wh..wh..opq" {
                remove(&mut tree, dir, false);
            } else if let Some(name) = base.strip_prefix(".wh.") {
                let gone = clean(&format!("{dir}/{name}"))?;
                remove(&mut tree, &gone, true);
            }
        }
        for one in layer {
            let path = clean(&one.name)?;
            if path.rsplit('/').next().unwrap().starts_with(".wh.") {
                continue;
            }
            let is_directory = one.kind == b'5';
            if path.is_empty() {
                if !is_directory {
                    return None;
                }
                tree.insert(path, Item::Directory(one.mode));
                continue;
            }
            let target = match one.kind == b'1' {
                true => Some(clean(&one.link)?),
                false => None,
            };
            // What a hard link is to: a name that this layer had before it, or one below.
            let linked = target.map(|target| match own.get(&target) {
                Some(true) => None,
                Some(false) => Some(tree.get(&target).cloned()),
                None => Some(lower.get(&target).cloned()),
            });
            for parent in parents(&path) {
                if own.insert(parent.to_owned(), true) == Some(false) {
                    return None;
                }
                if !matches!(tree.get(parent), Some(Item::Directory(_))) {
                    remove(&mut tree, parent, true);
                    tree.insert(parent.to_owned(), Item::Directory(0o755));
                }
            }
            if own.insert(path.clone(), is_directory) == Some(!is_directory) {
                return None;
            }
            if is_directory {
                if !matches!(tree.get(&path), Some(Item::Directory(_))) {
                    remove(&mut tree, &path, true);
                }
                tree.insert(path, Item::Directory(one.mode));
                continue;
            }
            let number = match linked {
                Some(None) => return None,
                Some(Some(Some(Item::File(number)))) => number,
                Some(Some(_)) => {
                    files.push(None);
                    files.len() - 1
                }
                None => {
                    files.push(Some(File {
                        kind: one.kind,
                        link: one.link.clone(),
                        content: one.content.clone(),
                        mode: one.mode,
                        mtime: one.mtime,
                    }));
                    files.len() - 1
                }
            };
            remove(&mut tree, &path, true);
            tree.insert(path, Item::File(number));
        }
    }
    let lost = |item: &Item| matches!(item, Item::File(number) if files[*number].is_none());
    (!tree.values().any(lost)).then_some((tree, files))
}

/// What unpacking a tar in order gives, where every directory comes before what is in it.
#[track_caller]
fn unpacked(bytes: &[u8]) -> (Tree, Vec<Option<File>>) {
    let (mut tree, mut files) = (Tree::new(), Vec::new());
    for one in tar::Archive::new(bytes).entries().unwrap() {
        let mut one = one.unwrap();
        let name = String::from_utf8(one.path_bytes().into_owned()).unwrap();
        let path = clean(&name).unwrap();
        let kind = one.header().entry_type().as_byte();
        let plain = match kind {
            b'5' if path.is_empty() => "./".to_owned(),
            b'5' => format!("{path}/"),
            _ => path.clone(),
        };
        assert_eq!(name, plain);
        for parent in parents(&path) {
            assert!(
                matches!(tree.get(parent), Some(Item::Directory(_))),
                "{name}: no {parent}"
            );
        }
        let link = one
            .link_name_bytes()
            .map(|link| String::from_utf8(link.into_owned()).unwrap());
        let link = link.unwrap_or_default();
        let mode = one.header().mode().unwrap();
        let mtime = one.header().mtime().unwrap();
        let mut content = Vec::new();
        one.read_to_end(&mut content).unwrap();
        let old = tree.get(&path);
        if kind == b'5' {
            assert!(
                !matches!(old, Some(Item::File(_))),
                "{name} was no directory"
            );
            tree.insert(path, Item::Directory(mode));
            continue;
        }
        assert!(
            !matches!(old, Some(Item::Directory(_))),
            "{name} was a directory"
        );
        let number = if kind == b'1' {
            match tree.get(&link) {
                Some(Item::File(number)) => *number,
                other => panic!("{name} -> {link}: {other:?}"),
            }
        } else {
            files.push(Some(File {
                kind,
                link,
                content,
                mode,
                mtime,
            }));
            files.len() - 1
        };
        tree.insert(path, Item::File(number));
    }
    (tree, files)
}

/// A tree without numbers: for each path its directory's mode, or its file and all its names.
fn plain(
    tree: &Tree,
    files: &[Option<File>],
) -> BTreeMap<String, (u32, Option<File>, Vec<String>)> {
    let names = |number| {
        let same = tree
            .iter()
            .filter(move |(_, item)| **item == Item::File(number));
        same.map(|(path, _)| path.clone()).collect::<Vec<_>>()
    };
    tree.iter()
        .map(|(path, item)| {
            let about = match item {
                Item::Directory(mode) => (*mode, None, Vec::new()),
                Item::File(number) => (0, files[*number].clone(), names(*number)),
            };
            (path.clone(), about)
        })
        .collect()
}

/// Pseudorandom numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn path(&mut self) -> String {
        let depth = 1 + self.below(3);
        let parts: Vec<&str> = (0..depth)
            .map(|_| ["a", "b", "A", "cc"][self.below(4)])
            .collect();
        parts.join("/")
    }

    /// The same path in another form, seldom one that climbs.
    fn form(&mut self, path: &str) -> String {
        match self.below(60) {
            0..8 => format!("./{path}"),
            8..14 => format!("/{path}"),
            14..18 => format!("x/../{path}"),
            18..20 => path.replace('/', "//./"),
            20 => format!("../{path}"),
            _ => path.to_owned(),
        }
    }
}

/// A layer that is nearly always sound.
fn layer(random: &mut Random, known: &mut BTreeSet<String>, number: usize) -> Vec<Entry> {
    let mut own: BTreeMap<String, bool> = BTreeMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    for at in 0..random.below(12) {
        let path = random.path();
        let kind = random.below(12);
        let is_directory = kind < 3;
        let unsound = parents(&path).any(|parent| own.get(parent) == Some(&false))
            || own.get(&path) == Some(&!is_directory);
        if unsound && random.below(40) > 0 {
            continue;
        }
        let name = random.form(&path);
        let mut one = match kind {
            0..3 => directory(&name),
            3..6 => file(&name, &format!("{number}.{at}")),
            6 => soft(&name, "../x/./y"),
            7 => entry(b'6', &name, ""),
            8 | 9 => {
                let these: Vec<&String> = match random.below(3) {
                    0 => known.iter().collect(),
                    _ => own
                        .iter()
                        .filter(|(_, directory)| !**directory)
                        .map(|(path, _)| path)
                        .collect(),
                };
                if these.is_empty() {
                    continue;
                }
                let target = match random.below(40) {
                    0 => random.path(),
                    _ => these[random.below(these.len())].clone(),
                };
                hard(&name, &random.form(&target))
            }
            10 => {
                let (dir, base) = path.rsplit_once('/').unwrap_or(("", &path));
                entries.push(file(&random.form(&format!("{dir}/.wh.{base}")), ""));
                continue;
            }
            _ => {
                let (dir, _) = path.rsplit_once('/').unwrap_or(("a", ""));
                entries.push(file(&random.form(&format!("{dir}/.wh..wh..opq")), ""));
                continue;
            }
        };
        one.mode = 0o700 + random.below(64) as u32;
        one.mtime = random.below(1000) as u64;
        for parent in parents(&path) {
            own.insert(parent.to_owned(), true);
        }
        own.insert(path.clone(), is_directory);
        if !is_directory {
            known.insert(path);
        }
        entries.push(one);
    }
    entries
}

#[test]
fn the_tree_is_that_of_the_model() {
    let cases: u64 = std::env::var("DOCKERSAVE_ROOTFS").map_or(300, |cases| cases.parse().unwrap());
    let registry = Registry::start();
    let client = Client::builder().insecure(true).build().unwrap();
    let (mut sound, mut linked, mut rereads) = (0, 0, 0);
    for seed in 0..cases {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut known = BTreeSet::new();
        let layers: Vec<Vec<Entry>> = (0..1 + random.below(5))
            .map(|number| layer(&mut random, &mut known, number))
            .collect();
        let repository = format!("c{seed}");
        image(&layers).push(&registry, &repository, "latest");
        let mut again = 0;
        let made = made(&client, &registry, &repository, &mut again);
        let context = || {
            let mut text = format!("seed {seed}");
            for (number, layer) in layers.iter().enumerate() {
                for one in layer {
                    let kind = char::from(one.kind);
                    text += &format!("\n{number} {kind} {} {}", one.name, one.link);
                }
            }
            text
        };
        match (made, model(&layers)) {
            (Ok(bytes), Some((tree, files))) => {
                let found = unpacked(&bytes);
                assert_eq!(
                    plain(&found.0, &found.1),
                    plain(&tree, &files),
                    "{}",
                    context()
                );
                sound += 1;
                linked += usize::from(
                    plain(&tree, &files)
                        .values()
                        .any(|(_, _, names)| names.len() > 1),
                );
                rereads += again;
            }
            (Err(Error::Malformed { .. }), None) => {}
            // The one thing that only the program refuses: a name that waits for its file.
            (Err(error), Some(_)) if error.to_string().contains("that the same layer replaces") => {
                let twice = |layer: &Vec<Entry>| {
                    let mut names = BTreeSet::new();
                    layer.iter().any(|one| !names.insert(clean(&one.name)))
                };
                assert!(layers.iter().any(twice), "{}", context());
            }
            (made, model) => panic!("{}\n{made:?}\n{model:?}", context()),
        }
    }
    eprintln!("{sound} sound, {linked} with hard links, {rereads} read again");
    assert!(sound > cases / 2 && linked > 20 && rereads > 3);
}

fn upper_and_lower() -> Image {
    image(&[
        vec![
            directory("etc"),
            file("etc/a", "lower"),
            hard("etc/b", "etc/a"),
            directory("opt"),
            file("opt/x", "hidden"),
            Entry {
                content: noise(1, 300_000),
                ..file("usr/lib/big", "")
            },
        ],
        vec![
            directory("etc"),
            file("etc/a", "upper"),
            hard("usr/lib/c", "usr/lib/big"),
            file("opt/.wh..wh..opq", ""),
        ],
    ])
}

#[test]
fn file_and_stream_are_the_same_and_a_second_run_changes_nothing() {
    let (registry, dir) = (Registry::start(), Dir::new());
    upper_and_lower().push(&registry, "r", "latest");
    let rootfs = |args: &[&str]| {
        Run::pull(&dir, &registry.name("r"))
            .args(&["--format", "rootfs"])
            .args(args)
    };
    let outcome = rootfs(&[]).status(0);
    assert_eq!(outcome.stdout, "r-latest.rootfs.tar\n");
    assert!(
        outcome.stderr.contains("read once more"),
        "{}",
        outcome.stderr
    );
    outcome.is_small();
    assert_eq!(dir.names(), ["r-latest.rootfs.tar"]);
    let bytes = std::fs::read(dir.join("r-latest.rootfs.tar")).unwrap();
    let (library, again) = flattened(&registry, "r");
    assert!(library.unwrap() == bytes);
    assert_eq!(again, 1);
    let outcome = rootfs(&["-o", "-"]).within("exec \"$@\" >out").status(0);
    outcome.is_small();
    assert!(std::fs::read(dir.join("out")).unwrap() == bytes);
    let outcome = rootfs(&["--json"]).status(0);
    let sum = sha256(&bytes);
    for part in [r#""unchanged":true"#, &sum[7..], "r-latest.rootfs.tar"] {
        assert!(outcome.stdout.contains(part), "{}", outcome.stdout);
    }
    let outcome = rootfs(&["--xz"]).status(0);
    assert_eq!(outcome.stdout, "r-latest.rootfs.tar.xz\n");
    let mut unpacked = Vec::new();
    let packed = std::fs::read(dir.join("r-latest.rootfs.tar.xz")).unwrap();
    lzma_rust2::XzReader::new(&packed[..], true)
        .read_to_end(&mut unpacked)
        .unwrap();
    assert!(unpacked == bytes);
    // Layers of an archive that is here need no download.
    Run::pull(&dir, &registry.name("r")).status(0);
    registry.forget();
    rootfs(&["--reuse", "r-latest.tar", "-o", "again.tar"]).status(0);
    // The config alone.
    assert!(registry.blob_bytes() < 1000);
    assert!(std::fs::read(dir.join("again.tar")).unwrap() == bytes);
}

#[test]
fn what_makes_no_root_file_system_is_refused() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let name = registry.name("r");
    for args in [
        &["--all-platforms"][..],
        &["--gunzip"],
        &["--no-tar"],
        &["--no-rm"],
        &["--keep-signatures"],
        &["--base", "x.tar"],
        &["--tarname", "x.tar", "other"],
    ] {
        let run = Run::pull(&dir, &name)
            .args(&["--format", "rootfs"])
            .args(args);
        run.fails(2, "--format rootfs: is a tar of one image's files");
    }
    let outcome = Run::pull(&dir, &name)
        .args(&["--format", "rootfs", "--dry-run"])
        .status(0);
    assert!(
        outcome
            .stdout
            .ends_with("of unknown size: r-latest.rootfs.tar\n"),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.stdout.contains("oci-layout"), "{}", outcome.stdout);
}

/// A link, PAX records, and the header.
type About = (String, Vec<(String, Vec<u8>)>, tar::Header);

/// The entries of a tar, by name.
fn entries(bytes: &[u8]) -> BTreeMap<String, About> {
    let mut found = BTreeMap::new();
    for one in tar::Archive::new(bytes).entries().unwrap() {
        let mut one = one.unwrap();
        let name = String::from_utf8(one.path_bytes().into_owned()).unwrap();
        let link = one.link_name_bytes().unwrap_or_default().into_owned();
        let mut records = Vec::new();
        for record in one.pax_extensions().unwrap().into_iter().flatten() {
            // The crate takes a line feed in a value for the record's end.
            let Ok(record) = record else { continue };
            records.push((
                record.key().unwrap().to_owned(),
                record.value_bytes().to_vec(),
            ));
        }
        let about = (
            String::from_utf8(link).unwrap(),
            records,
            one.header().clone(),
        );
        found.insert(name, about);
    }
    found
}

#[test]
fn attributes_times_devices_and_long_names_are_kept() {
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(200));
    let target = "../".repeat(60);
    let capability = "SCHILY.xattr.security.capability";
    let mut device = entry(b'3', "dev/null", "");
    device.mode = 0o4666;
    let mut tar = tar_of(&[
        Entry {
            pax: vec![
                // A line feed is part of it.
                ("SCHILY.xattr.user.a", "x\ny=z".into()),
                (capability, "\u{1}\0\0\u{2}\0 \0=\0".into()),
                ("mtime", "1700000000.123456789".into()),
                ("size", "5".into()),
                ("comment", "x".into()),
            ],
            ..file("bin/ping", "12345")
        },
        file(&long, "long"),
        soft("link", &target),
        hard("hard", &long),
        device,
    ]);
    // Major and minor numbers of the device, whose block is the last before the end.
    let at = tar.len() - 1024 - 512;
    tar[at + 329..at + 345].copy_from_slice(b"0000001\x000000003\0");
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes().copy_from_slice(&tar[at..at + 512]);
    header.set_cksum();
    tar[at..at + 512].copy_from_slice(header.as_bytes());
    let registry = Registry::start();
    Image::new(vec![blob(&tar)]).push(&registry, "r", "latest");
    let bytes = flattened(&registry, "r").0.unwrap();
    let found = entries(&bytes);
    let records = |name: &str| -> BTreeMap<_, _> { found[name].1.iter().cloned().collect() };
    let ping = records("bin/ping");
    assert_eq!(ping[capability], b"\x01\0\0\x02\0 \0=\0");
    assert_eq!(ping["mtime"], b"1700000000.123456789");
    let record = b" SCHILY.xattr.user.a=x\ny=z\n";
    assert!(bytes.windows(record.len()).any(|window| window == record));
    assert_eq!(found[&long].2.mode().unwrap(), 0o644);
    assert_eq!(found["link"].0, target);
    assert_eq!(found["hard"].0, long);
    let device = &found["dev/null"].2;
    assert_eq!(
        (
            device.device_major().unwrap(),
            device.device_minor().unwrap()
        ),
        (Some(1), Some(3))
    );
    assert_eq!(
        (device.mode().unwrap(), device.entry_type().as_byte()),
        (0o4666, b'3')
    );
}

#[test]
fn sparse_files_stay_what_they_are() {
    let dir = Dir::new();
    for format in ["gnu", "posix"] {
        let script = "truncate -s 3M holes && printf end >>holes && printf x | dd of=holes bs=1 seek=1000000 conv=notrunc status=none \
            && seq 0 40 | while read at; do printf y | dd of=holes bs=1 seek=$((at * 65536)) conv=notrunc status=none; done \
            && tar --sparse --format=$0 -cf layer.tar holes";
        let made = Command::new("sh")
            .args(["-c", script, format])
            .current_dir(dir.path())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: no GNU tar here");
            return;
        }
        let (tar, content) = (
            dir.join("layer.tar"),
            std::fs::read(dir.join("holes")).unwrap(),
        );
        let tar = std::fs::read(tar).unwrap();
        assert!(tar.len() < 1 << 20);
        let registry = Registry::start();
        let over = blob(&tar_of(&[file("other", "")]));
        Image::new(vec![blob(&tar), over]).push(&registry, "r", "latest");
        let bytes = flattened(&registry, "r").0.unwrap();
        assert!(bytes.len() < 1 << 20);
        std::fs::create_dir_all(dir.join("out")).unwrap();
        dir.write("out.tar", bytes);
        let status = Command::new("tar")
            .args(["-xf", "out.tar", "-C", "out"])
            .current_dir(dir.path())
            .status();
        assert!(status.unwrap().success());
        assert!(
            std::fs::read(dir.join("out/holes")).unwrap() == content,
            "{format}"
        );
        std::fs::remove_file(dir.join("holes")).unwrap();
    }
}

#[test]
fn files_of_aufs_are_left_out_but_linked_to() {
    let registry = Registry::start();
    let layers = [vec![
        directory(".wh..wh.plnk"),
        file(".wh..wh.plnk/1.2", "shared"),
        entry(b'0', ".wh..wh.aufs", ""),
        hard("a", ".wh..wh.plnk/1.2"),
        hard("b", ".wh..wh.plnk/1.2"),
    ]];
    image(&layers).push(&registry, "r", "latest");
    let (tree, files) = unpacked(&flattened(&registry, "r").0.unwrap());
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(tree["a"], tree["b"]);
    assert_eq!(files[0].as_ref().unwrap().content, b"shared");
}

#[test]
fn hostile_layers_are_refused_with_layer_and_path() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let long = "n".repeat(5000);
    for (number, (entries, why)) in [
        (
            vec![file("../x", "")],
            "../x climbs out of the root directory",
        ),
        (vec![file("a/../../x", "")], "a/../../x climbs out"),
        (
            vec![hard("a", "../../etc/passwd")],
            "a is a hard link to ../../etc/passwd, which climbs",
        ),
        (
            vec![hard("a", "b")],
            "a is a hard link to b, which is no file in the layers below",
        ),
        (
            vec![hard("a", "b"), hard("b", "a")],
            "a is a hard link to b, which is no file",
        ),
        (
            vec![hard("a", "a")],
            "a is a hard link to a, which is no file",
        ),
        (
            vec![directory("d"), hard("a", "d")],
            "a is a hard link to a directory",
        ),
        (
            vec![file("a", ""), file("a/b", "")],
            "a/b is below something that is no directory",
        ),
        (
            vec![soft("a", "/etc"), file("a/b", "")],
            "a/b is below something that is no directory",
        ),
        (
            vec![file("a/b", ""), file("a", "")],
            "a is both a directory and something else",
        ),
        (
            vec![file(".wh.", "")],
            ".wh. is a whiteout of a directory itself",
        ),
        (
            vec![file("a/.wh...", "")],
            "is a whiteout of a directory itself",
        ),
        (vec![file(".wh.a/b", "")], ".wh.a/b is in a whiteout"),
        (
            vec![soft(".", "x")],
            "is the root directory, but no directory",
        ),
        (vec![file(&long, "")], "is longer than any path can be"),
        (
            vec![Entry {
                pax: vec![("GNU.sparse.major", "1".into())],
                ..directory("a")
            }],
            "a is a sparse file to some readers",
        ),
        (
            vec![entry(b'Z', "a", "")],
            "a is of a type that no standard defines",
        ),
        (
            vec![file("a\x1b[1m\n", ""), file("a\x1b[1m\n/b", "")],
            "a?[1m /b is below",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let image = image(&[vec![directory("etc")], entries]);
        let repository = format!("r{number}");
        image.push(&registry, &repository, "latest");
        let digest = &image.layers[1].digest;
        for output in [&[][..], &["-o", "-"]] {
            let outcome = Run::pull(&dir, &registry.name(&repository))
                .args(&["-q", "--format", "rootfs"])
                .args(output)
                .within("exec \"$@\" >/dev/null")
                .status(1);
            assert!(outcome.stderr.contains(why), "{why}: {}", outcome.stderr);
            assert!(
                outcome.stderr.contains(digest.as_str()),
                "{}",
                outcome.stderr
            );
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        }
        let left = dir
            .names()
            .into_iter()
            .find(|name| name.ends_with(".tar") || name.ends_with(".new"));
        assert_eq!(left, None);
    }
}

#[test]
fn damaged_layers_are_refused() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let tar = tar_of(&[file("a", "1"), file("b", "2")]);
    let mut damaged = tar.clone();
    damaged[1024 + 3] ^= 1;
    let cut = &tar[..1024 + 512 + 1];
    let mut wrong = blob(&tar);
    wrong.diff_id = sha256(b"another");
    for (number, (blob, status, why)) in [
        (blob(&damaged), 1, "its checksum is wrong"),
        (blob(cut), 1, "truncated"),
        (wrong, 6, "content mismatch"),
        (
            Blob::bytes(GZIP, gzipped(&tar)[..90].to_vec(), sha256(&tar)),
            1,
            "layer",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let repository = format!("r{number}");
        Image::new(vec![blob]).push(&registry, &repository, "latest");
        for output in [&[][..], &["-o", "-"]] {
            let outcome = Run::pull(&dir, &registry.name(&repository))
                .args(&["-q", "--format", "rootfs"])
                .args(output)
                .within("exec \"$@\" >/dev/null")
                .status(status);
            assert!(outcome.stderr.contains(why), "{why}: {}", outcome.stderr);
            assert!(!outcome.stderr.contains("--gunzip"), "{}", outcome.stderr);
        }
    }
    // Some writers leave the end out, and an empty layer may have nothing at all.
    Image::new(vec![blob(&tar[..2048]), blob(b"")]).push(&registry, "good", "latest");
    let (tree, _) = unpacked(&flattened(&registry, "good").0.unwrap());
    assert_eq!(tree.len(), 2);
}

#[test]
fn bombs_and_a_million_paths_are_stopped() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let zeros = vec![0; 3 << 20];
    let bomb = Entry {
        content: zeros,
        ..file("a", "")
    };
    image(&[vec![bomb]]).push(&registry, "bomb", "latest");
    let outcome = Run::pull(&dir, &registry.name("bomb"))
        .args(&["--format", "rootfs", "--inflate-limit", "1M"])
        .fails(1, "--inflate-limit");
    outcome.is_small();
    // Forty directories for each entry, none of which has an entry of its own.
    let deep = |number| file(&format!("{number}{}", "/a".repeat(40)), "");
    let many: Vec<Entry> = (0..26_000).map(deep).collect();
    image(&[many]).push(&registry, "many", "latest");
    let error = flattened(&registry, "many").0.unwrap_err().to_string();
    assert!(error.contains("more than 1000000 paths"), "{error}");
}

#[test]
fn fifty_thousand_files_fit_in_the_usual_memory() {
    let registry = Registry::start();
    let mut layer = Vec::new();
    for at in 0..50_000 {
        if at % 100 == 0 {
            layer.push(directory(&format!("usr/share/directory-{}", at / 100)));
        }
        layer.push(file(
            &format!("usr/share/directory-{}/file-{at}.txt", at / 100),
            "",
        ));
    }
    let upper = layer.iter().step_by(3).cloned().collect();
    image(&[layer, upper]).push(&registry, "r", "latest");
    let dir = Dir::new();
    // The second time there is one already.
    for output in ["-", "x.tar", "x.tar"] {
        let outcome = Run::pull(&dir, &registry.name("r"))
            .args(&["-q", "--format", "rootfs", "-o", output])
            .within("exec \"$@\" >out")
            .status(0);
        eprintln!("{output}: {} KiB, {:?}", outcome.peak >> 10, outcome.time);
        outcome.is_small();
    }
}

#[test]
fn a_killed_pull_goes_on_with_what_has_arrived() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let tar = |seed| {
        tar_of(&[Entry {
            content: noise(seed, 4 << 20),
            ..file(&format!("file-{seed}"), "")
        }])
    };
    Image::new((0..3).map(|seed| blob(&tar(seed))).collect()).push(&registry, "r", "latest");
    registry.pace(4 << 20);
    let run = || Run::pull(&dir, &registry.name("r")).args(&["--format", "rootfs"]);
    let mut child = run().spawn();
    while registry.blob_bytes() < 8 << 20 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(dir.names(), ["r-latest.rootfs.tar.partial"]);
    registry.pace(0).forget();
    run().status(0);
    assert!(registry.blob_bytes() < 8 << 20, "{}", registry.blob_bytes());
    assert_eq!(dir.names(), ["r-latest.rootfs.tar"]);
    let bytes = std::fs::read(dir.join("r-latest.rootfs.tar")).unwrap();
    assert!(flattened(&registry, "r").0.unwrap() == bytes);
}
