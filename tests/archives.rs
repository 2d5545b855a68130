//! Archives as people have them (compressed, reproducible, from Buildpacks), and which of them can
//! be reused.

use crate::registry::image::{Blob, Image, gzip, layer_tar, noise, sha256};
use crate::registry::{Action, Fault, Registry};
use crate::util::{Dir, Outcome, Run};
use std::process::{Command, Stdio};

fn image() -> Image {
    Image::new((1..4).map(|seed| Blob::layer(seed, 3000)).collect())
}

fn directory(dir: &Dir) {
    let registry = Registry::start();
    image().push(&registry, "r", "1");
    Run::pull(dir, &registry.name("r:1"))
        .args(&["--no-tar", "--layers-dir", "x"])
        .status(0);
}

fn is_here(program: &str) -> bool {
    let mut command = Command::new(program);
    let found = command.arg("--version").stdout(Stdio::null()).status();
    if found.is_err() {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found.is_ok()
}

/// However a directory is made into a tar, it is sound, and is not mistaken for dockersave's own.
#[test]
fn a_tar_of_the_directory_is_sound_however_it_is_made() {
    let dir = Dir::new();
    directory(&dir);
    let reproducible = "--sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner";
    let files = "oci-layout index.json manifest.json blobs";
    let flat = "$(cd x; find . -type f | sort -r)";
    for (program, args) in [
        ("tar", format!("{reproducible} {files}")),
        ("tar", format!("{reproducible} .")),
        ("tar", format!("{reproducible} --mode=0644 {flat}")),
        ("tar", format!("{reproducible} --format=pax .")),
        ("tar", format!("--format=pax {files}")),
        ("tar", "--format=v7 .".to_owned()),
        ("tar", "--format=ustar .".to_owned()),
        ("tar", "--format=oldgnu .".to_owned()),
        ("bsdtar", "--format=pax .".to_owned()),
        ("bsdtar", "--format=gnutar .".to_owned()),
        ("bsdtar", "--format=v7tar .".to_owned()),
        ("bsdtar", format!("--format=ustar {files}")),
    ] {
        if !is_here(program) {
            continue;
        }
        let line = format!("{program} -C x -cf x.tar {args}");
        let made = Command::new("sh")
            .args(["-c", &line])
            .current_dir(dir.path())
            .status();
        assert!(made.unwrap().success(), "{line}");
        let outcome = Run::new(&dir, &["--verify", "x.tar"]).outcome();
        assert_eq!(outcome.stdout, "x.tar: sound, 1 image, 5 blobs\n", "{line}");
    }
}

/// A docker-archive of one layer, each part under its own name.
fn archive(config: &str, parts: &[(&str, &[u8])], item: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let item = format!("[{item}]");
    let all = [
        &[
            ("manifest.json", item.as_bytes()),
            ("c.json", config.as_bytes()),
        ],
        parts,
    ];
    for (name, bytes) in all.concat() {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn config(layers: &[&[u8]]) -> String {
    let ids: Vec<String> = layers.iter().map(|l| format!("{:?}", sha256(l))).collect();
    format!(r#"{{"rootfs":{{"diff_ids":[{}]}}}}"#, ids.join(","))
}

fn verified(dir: &Dir, bytes: &[u8], status: i32) -> Outcome {
    dir.write("x.tar", bytes);
    Run::new(dir, &["--verify", "x.tar"]).status(status)
}

/// pack and lifecycle name layers by a path's digest, or by the diff ID, after a slash.
#[test]
fn archives_of_buildpacks_are_sound() {
    let dir = Dir::new();
    let layer = layer_tar(1, 10);
    for name in [
        format!("/{}.tar", &sha256(b"a path")[7..]),
        format!("/{}.tar", sha256(&layer)),
    ] {
        let item = format!(r#"{{"Config":"c.json","RepoTags":["x:1"],"Layers":["{name}"]}}"#);
        let bytes = archive(&config(&[&layer]), &[(&name, &layer)], &item);
        verified(&dir, &bytes, 0);
    }
    // Loaders do not find their files after a slash.
    let item = r#"{"Config":"c.json","RepoTags":["x:1"],"Layers":["l"]}"#;
    let bytes = archive(
        &config(&[&layer]),
        &[("l", &layer), ("/oci-layout", b"x")],
        item,
    );
    let outcome = verified(&dir, &bytes, 6);
    assert!(outcome.stdout.contains("not all of them find it"));
    assert!(outcome.stderr.contains("get a new copy"));
}

/// RLE blocks of zstd: four bytes become 128 KiB.
fn bomb(blocks: usize, window: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    for number in 0..blocks {
        let head = u32::from(number == blocks - 1) | 1 << 1 | (128 << 10) << 3;
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[test]
fn an_archive_has_one_budget_for_what_its_layers_inflate_to() {
    let dir = Dir::new();
    let item = r#"{"Config":"c.json","RepoTags":["x:1"],"Layers":["a","b","c"]}"#;
    let within = vec![0; 100 << 17];
    let ids = [&within[..], &within, &within];
    // 12 MiB each: within what every archive may have.
    let small = bomb(100, 0x38);
    let bytes = archive(
        &config(&ids),
        &[("a", &small), ("b", &small), ("c", &small)],
        item,
    );
    verified(&dir, &bytes, 0);
    // A gigabyte each.
    let large = bomb(8000, 0x38);
    let bytes = archive(
        &config(&ids),
        &[("a", &large), ("b", &large), ("c", &large)],
        item,
    );
    let start = std::time::Instant::now();
    let outcome = verified(&dir, &bytes, 8);
    assert!(
        outcome.stdout.contains("sound, 3 layers not inflated"),
        "{}",
        outcome.stdout
    );
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    // The same in an archive that is compressed itself.
    dir.write("x.tar.gz", gzip(&bytes));
    Run::new(&dir, &["--verify", "x.tar.gz"]).status(8);
    // Windows up to 8 MiB are inflated; larger ones need a flag.
    let item = r#"{"Config":"c.json","RepoTags":["x:1"],"Layers":["a"]}"#;
    for (window, memory, status) in [
        (0x68, "8M", 0),
        (0x68, "4M", 8),
        (0x70, "8M", 8),
        (0x70, "16M", 0),
    ] {
        let bytes = archive(&config(&[&within]), &[("a", &bomb(100, window))], item);
        dir.write("x.tar", bytes);
        let args = ["--verify", "x.tar", "--inflate-memory", memory];
        Run::new(&dir, &args).status(status);
    }
}

#[test]
fn an_archive_without_an_image_is_a_defect() {
    let dir = Dir::new();
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    let tar = |files: &[(&str, &str)]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            builder
                .append_data(&mut header, name, text.as_bytes())
                .unwrap();
        }
        builder.into_inner().unwrap()
    };
    let blob = "hello";
    let path = format!("blobs/{}", sha256(blob.as_bytes()).replace(':', "/"));
    let artifact = format!(
        r#"{{"manifests":[{{"mediaType":"application/x","digest":"{}","size":5}}]}}"#,
        sha256(blob.as_bytes())
    );
    for files in [
        &[("manifest.json", "[]")][..],
        &[("manifest.json", "null")],
        &[("manifest.json", "[null]")],
        &[
            ("oci-layout", layout),
            ("index.json", r#"{"manifests":[]}"#),
        ],
        &[
            ("oci-layout", layout),
            ("index.json", r#"{"manifests":null}"#),
        ],
        &[("oci-layout", layout), ("index.json", "{}")],
        &[
            ("oci-layout", layout),
            ("index.json", &artifact),
            (&path, blob),
        ],
        &[("oci-layout", layout)],
        &[("x", "y")],
        &[],
    ] {
        let outcome = verified(&dir, &tar(files), 6);
        assert!(!outcome.stdout.contains("sound"), "{files:?}");
    }
}

#[test]
fn a_name_belongs_to_one_image() {
    let dir = Dir::new();
    let layers = [layer_tar(1, 10), layer_tar(2, 10)];
    let (one, two) = (config(&[&layers[0]]), config(&[&layers[1]]));
    for (name, status) in [("x:2", 0), ("x:1", 6)] {
        let items = format!(
            r#"{{"Config":"c.json","RepoTags":["x:1"],"Layers":["a"]}},{{"Config":"d.json","RepoTags":["{name}"],"Layers":["b"]}}"#
        );
        let parts = [
            ("d.json", two.as_bytes()),
            ("a", &layers[0][..]),
            ("b", &layers[1][..]),
        ];
        let outcome = verified(&dir, &archive(&one, &parts, &items), status);
        assert_eq!(outcome.stdout.contains("the name x:1 twice"), status == 6);
    }
    let layout = r#"{"imageLayoutVersion":"1.0.0"}"#;
    let images = [Image::small(1), Image::small(2)];
    for (second, status) in [("b:1", 0), ("a:1", 6)] {
        let entry = |image: &Image, name: &str| {
            let note = format!(r#"{{"annotations":{{"io.containerd.image.name":"{name}"}},"#);
            image.entry("").replacen('{', &note, 1)
        };
        let entries = [entry(&images[0], "a:1"), entry(&images[1], second)];
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        let folder = format!("layout-{status}");
        dir.write(&format!("{folder}/oci-layout"), layout);
        dir.write(&format!("{folder}/index.json"), index);
        for image in &images {
            let blobs = image.layers.iter().chain([&image.config]);
            for blob in blobs {
                let path = blob.digest.replace(':', "/");
                dir.write(&format!("{folder}/blobs/{path}"), blob.data());
            }
            let path = image.digest().replace(':', "/");
            dir.write(&format!("{folder}/blobs/{path}"), image.manifest());
        }
        let outcome = Run::new(&dir, &["--verify", &folder]).status(status);
        assert_eq!(outcome.stdout.contains("to two images"), status == 6);
    }
}

#[test]
fn an_archive_that_is_not_there_yet_is_named() {
    let dir = Dir::new();
    dir.write("x.tar.partial", "x");
    Run::new(&dir, &["--verify", "x.tar"])
        .fails(1, "x.tar.partial does: the download is not finished");
    Run::new(&dir, &["--verify", "y.tar"]).fails(1, "No such file");
}

/// The verified part of an unfinished download is reported.
#[test]
fn an_unfinished_archive_says_how_much_of_it_is_true() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let layers = [700_000, 700_000, 400_000].into_iter().enumerate();
    let image = Image::new(
        layers
            .map(|(n, size)| Blob::layer(n as u64, size))
            .collect(),
    );
    image.push(&registry, "r", "1");
    // The smallest is the last.
    registry.faults(Fault::new(&image.layers[2].digest, Action::Close(0)).always());
    Run::pull(&dir, &registry.name("r:1"))
        .args(&["-o", "x.tar", "--jobs", "1"])
        .status(5);
    let length = |number: usize| image.layers[number].data().len();
    let arrived = length(0) + length(1);
    let verified = || {
        let outcome = Run::new(&dir, &["--verify", "x.tar.partial"]).status(6);
        outcome.is_small();
        let text = outcome.stdout.clone();
        let here = text.split("finished: ").nth(1).unwrap();
        let number = here.split(' ').next().unwrap();
        (number.parse::<usize>().unwrap(), text)
    };
    let (before, text) = verified();
    assert_eq!(before, arrived, "{text}");
    let words = format!(
        "of {} bytes are here and verified, 2 of 3 blobs complete",
        arrived + length(2)
    );
    assert!(text.contains(&words), "{text}");
    // A byte in the first layer is damaged.
    let path = dir.join("x.tar.partial");
    let mut bytes = std::fs::read(&path).unwrap();
    let layer = image.layers[0].data();
    let at = bytes
        .windows(64)
        .position(|part| part == &layer[..64])
        .unwrap();
    bytes[at + 100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (after, text) = verified();
    assert!(after < before && text.contains("1 of 3 blobs"), "{text}");
}

/// skopeo's `dir:` and containerd's content store can be reused; a source that cannot says why.
#[test]
fn a_source_that_serves_nothing_says_why() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = image();
    image.push(&registry, "r", "1");
    let blobs: Vec<&Blob> = image.layers.iter().chain([&image.config]).collect();
    for (place, name) in [("dir", ""), ("store", "blobs/sha256/")] {
        for blob in &blobs {
            dir.write(&format!("{place}/{name}{}", &blob.digest[7..]), blob.data());
        }
        dir.write(&format!("{place}/manifest.json"), image.manifest());
        dir.write(
            &format!("{place}/version"),
            "Directory Transport Version: 1.1\n",
        );
        let before = registry.count("/blobs/sha256:");
        let outcome = Run::pull(&dir, &registry.name("r:1"))
            .args(&["--reuse", place, "-o", &format!("{place}.tar")])
            .status(0);
        assert!(
            !outcome.stderr.contains("nothing reused"),
            "{}",
            outcome.stderr
        );
        let layers = registry.count("/blobs/sha256:") - before;
        assert!(layers <= 1, "{place}: {layers} blobs were asked for");
    }
    std::fs::create_dir(dir.join("empty")).unwrap();
    dir.write("other.tar", archive("{}", &[("l", &noise(1, 10))], "{}"));
    let layers: Vec<Vec<u8>> = (1..4).map(|seed| layer_tar(seed, 3000)).collect();
    let parts = ["a", "b", "c"].map(|name| (name, ""));
    let parts: Vec<(&str, &[u8])> = parts
        .iter()
        .zip(&layers)
        .map(|(p, l)| (p.0, &l[..]))
        .collect();
    let ids: Vec<&[u8]> = layers.iter().map(|layer| &layer[..]).collect();
    let item = r#"{"Config":"c.json","RepoTags":["x:1"],"Layers":["a","b","c"]}"#;
    dir.write("saved.tar", archive(&config(&ids), &parts, item));
    for (source, why) in [
        ("empty", "it holds no blobs"),
        ("other.tar", "none of its files is a blob"),
        ("saved.tar", "which only a pull that gunzips layers can use"),
    ] {
        for output in ["y.tar", "-"] {
            let outcome = Run::pull(&dir, &registry.name("r:1"))
                .args(&["--reuse", source, "-o", output])
                .within("\"$@\" > out")
                .status(0);
            let line = format!("nothing reused from {source}: ");
            assert!(
                outcome.stderr.contains(&line) && outcome.stderr.contains(why),
                "{}",
                outcome.stderr
            );
            let _ = std::fs::remove_file(dir.join("y.tar"));
        }
    }
    dir.write("b.tar.gz", gzip(b"x"));
    Run::pull(&dir, &registry.name("r:1"))
        .args(&["--reuse", "b.tar.gz"])
        .fails(1, "decompress it first: gzip -dk b.tar.gz");
}

/// Memory with a secret in it never ends up on the disk.
#[test]
fn there_are_no_core_files() {
    let dir = Dir::new();
    let script = "ulimit -S -c unlimited; sleep 2 | \"$@\" & sleep 1; grep 'core file' /proc/$!/limits; wait";
    let outcome = Run::new(&dir, &["--verify", "-"]).within(script).outcome();
    assert!(
        outcome.stdout.contains("Max core file size        0"),
        "{}{}",
        outcome.stdout,
        outcome.stderr
    );
}
