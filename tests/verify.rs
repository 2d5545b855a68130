//! `--verify`: archives of all tools, damaged ones, hostile ones.

use crate::registry::Registry;
use crate::registry::image::{
    Blob, GZIP, Image, OCI_INDEX, gzip, layer_tar, noise, platform, push_index, sha256, sha512,
};
use crate::util::{Dir, Run};
use dockersave::{verify, verify_reader};
use std::io::Read;

/// A small archive made by dockersave.
fn small(name: &str) -> Vec<u8> {
    pulled(&few_bytes(), &[name], &[])
}

fn few_bytes() -> Image {
    let layers = (1..4).map(|seed| Blob::layer(seed, 100 * seed as usize));
    Image::new(layers.collect())
}

fn pulled(image: &Image, names: &[&str], flags: &[&str]) -> Vec<u8> {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut run = Run::new(&dir, &["--insecure"]).args(flags);
    for name in names {
        let (repository, tag) = name.split_once(['@', ':']).unwrap();
        match tag {
            "DIGEST" => image.push_untagged(&registry, repository),
            tag => image.push(&registry, repository, tag),
        }
        run = run.arg(&registry.name(&name.replace("DIGEST", &image.digest())));
    }
    if names.len() > 1 {
        run = run.args(&["-o", "all.tar"]);
    }
    run.archive().bytes
}

/// As [`push_index`] makes it.
fn index(entries: &[String]) -> String {
    let entries = entries.join(",");
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}"#)
}

/// All platforms of an index, with an attestation and an index in the index.
fn platforms(name: &str) -> Vec<u8> {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (repository, tag) = name.split_once(':').unwrap();
    let one = |seed: u64| Image::for_platform("arm", "v7", vec![Blob::layer(seed, 10)]);
    let statement = Blob::bytes(
        "application/vnd.in-toto+json",
        b"{}".to_vec(),
        String::new(),
    );
    let attestation = Image::new(vec![statement]).with_config(r#"{"rootfs":{"diff_ids":[]}}"#);
    for image in [&few_bytes(), &one(1), &one(2), &attestation] {
        image.push_untagged(&registry, repository);
    }
    let inner = [one(2).entry(&platform("linux", "arm", "v7"))];
    let nested = push_index(&registry, repository, "inner", OCI_INDEX, &inner);
    let entries = [
        few_bytes().entry(&platform("linux", "amd64", "")),
        one(1).entry(&platform("linux", "arm", "v6")),
        attestation.entry(&platform("unknown", "unknown", "")),
        format!(
            r#"{{"mediaType":"{OCI_INDEX}","digest":"{nested}","size":{}}}"#,
            index(&inner).len()
        ),
    ];
    push_index(&registry, repository, tag, OCI_INDEX, &entries);
    let name = registry.name(name);
    Run::pull(&dir, &name)
        .arg("--all-platforms")
        .archive()
        .bytes
}

/// The defects, or that it is not an archive.
fn defects(bytes: &[u8]) -> Vec<String> {
    match verify_reader(&mut &bytes[..], "x.tar") {
        Err(error) => vec![error.to_string()],
        Ok(findings) => {
            let defects = findings.defects.iter().map(ToString::to_string);
            defects.chain(findings.unchecked).collect()
        }
    }
}

/// Nothing is wrong with it, in a stream and in a file, and it has this many images.
#[track_caller]
fn is_sound(bytes: &[u8], images: usize) {
    assert_eq!(defects(bytes), [""; 0]);
    let dir = Dir::new();
    let path = dir.write("x.tar", bytes);
    let findings = verify(path).unwrap();
    assert!(findings.is_sound(), "{findings:?}");
    assert_eq!(findings.images, images);
}

/// Something is wrong with it, in a stream and in a file, and the message contains these words.
#[track_caller]
fn is_told(bytes: &[u8], words: &str) {
    let dir = Dir::new();
    let path = dir.write("x.tar", bytes);
    let from_file = match verify(path) {
        Err(error) => vec![error.to_string()],
        Ok(findings) => findings.defects.iter().map(ToString::to_string).collect(),
    };
    for told in [defects(bytes), from_file] {
        assert!(
            told.iter().any(|line| line.contains(words)),
            "no {words:?} in {told:#?}"
        );
        let bad = |line: &String| line.chars().any(char::is_control) || line.len() > 900;
        assert!(!told.iter().any(bad), "{told:#?}");
    }
}

// ---- damage -------------------------------------------------------------------------------------

#[test]
fn every_flipped_byte_is_found() {
    let oci = &["--format", "oci"][..];
    for (what, images, mut bytes) in [
        ("a tag", 1, small("demo/hello:1.2")),
        ("a digest", 1, small("demo/hello@DIGEST")),
        (
            "OCI",
            1,
            pulled(&few_bytes(), &["demo/hello:1.2", "b:3"], oci),
        ),
        ("OCI, a digest", 1, pulled(&few_bytes(), &["b@DIGEST"], oci)),
        ("inflated", 1, pulled(&few_bytes(), &["b:3"], &["--gunzip"])),
        ("all platforms", 3, platforms("demo/hello:1.2")),
    ] {
        is_sound(&bytes, images);
        for at in 0..bytes.len() {
            // All bits, the case of a letter, NUL and blank, the smallest change.
            let flips = [0xff, 0x20, 1];
            let some = if what == "a tag" {
                0..3
            } else {
                at % 3..at % 3 + 1
            };
            for flip in &flips[some] {
                bytes[at] ^= flip;
                assert!(!defects(&bytes).is_empty(), "byte {at} ^ {flip}, {what}");
                bytes[at] ^= flip;
            }
        }
    }
}

#[test]
fn random_flips_of_a_larger_archive_are_found() {
    let layers = (0..5).map(|seed| Blob::layer(seed, 50_000 * seed as usize));
    let mut image = Image::new(layers.collect());
    // A long name takes more than one header.
    image.layers[2].digest = sha512(&image.layers[2].data());
    let mut bytes = pulled(&image, &["a/b:1", "c:2", "a/b:3"], &[]);
    is_sound(&bytes, 1);
    let seed = std::env::var("DOCKERSAVE_SEED").map_or(7, |seed| seed.parse().unwrap());
    for (round, word) in noise(seed, 16_000).as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (at, flip) = ((word >> 8) as usize % bytes.len(), (word as u8).max(1));
        bytes[at] ^= flip;
        assert!(
            !defects(&bytes).is_empty(),
            "byte {at} ^ {flip}, round {round}, seed {seed}"
        );
        bytes[at] ^= flip;
    }
}

#[test]
fn every_truncation_is_found() {
    let bytes = small("demo/hello:1.2");
    for length in 0..bytes.len() {
        assert!(!defects(&bytes[..length]).is_empty(), "{length}");
    }
}

/// The entries of an archive made by dockersave, each with its header and padding, and the end.
fn parts(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut parts = Vec::new();
    let mut at = 0;
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let entry = entry.unwrap();
        let end = (entry.raw_file_position() + entry.size()).next_multiple_of(512) as usize;
        parts.push(bytes[at..end].to_vec());
        at = end;
    }
    (parts, bytes[at..].to_vec())
}

#[test]
fn entries_are_neither_exchanged_nor_left_out_nor_added() {
    let (parts, end) = parts(&small("demo/hello:1.2"));
    let (others, _) = self::parts(&pulled(&Image::small(9), &["other:1"], &[]));
    let whole = |parts: Vec<Vec<u8>>| [parts.concat(), end.clone()].concat();
    is_sound(&whole(parts.clone()), 1);
    for a in 0..parts.len() {
        for b in 0..a {
            let mut swapped = parts.clone();
            swapped.swap(a, b);
            assert!(
                !defects(&whole(swapped)).is_empty(),
                "{a} and {b} exchanged"
            );
        }
        let mut fewer = parts.clone();
        fewer.remove(a);
        assert!(!defects(&whole(fewer)).is_empty(), "without {a}");
        let mut twice = parts.clone();
        twice.insert(a, parts[a].clone());
        is_told(&whole(twice), "more than once");
    }
    for (number, other) in others.iter().enumerate() {
        let mut exchanged = parts.clone();
        if other != &exchanged[number] {
            exchanged[number] = other.clone();
            assert!(
                !defects(&whole(exchanged)).is_empty(),
                "{number} of another archive"
            );
        }
        let mut more = parts.clone();
        more.push(other.clone());
        assert!(
            !defects(&whole(more)).is_empty(),
            "{number} of another archive added"
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    let bytes = small("demo/hello:1.2");
    let (parts, end) = parts(&bytes);
    let place = |part: usize| parts[..part].concat().len();
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    let name = |part: usize| std::str::from_utf8(&parts[part][..77]).unwrap().to_owned();
    is_told(
        &flipped(place(5) + 600),
        &format!("{}: does not have the digest", name(5)),
    );
    is_told(&flipped(place(4) + 3), "is damaged: its checksum is wrong");
    is_told(&flipped(place(0) + 512 + 40), "oci-layout: is padded");
    is_told(&flipped(place(1) - 1), "oci-layout: is padded");
    is_told(&flipped(bytes.len() - 600), "the end: nonzero bytes");
    is_told(&[&bytes[..], &[0; 512]].concat(), "the end: is at");
    is_told(&bytes[..bytes.len() - 512], "the archive is truncated");
    is_told(
        &bytes[..place(5) + 700],
        &format!("{}: the archive is truncated here", name(5)),
    );
    let without = |part: usize| {
        [
            parts[..part].concat(),
            parts[part + 1..].concat(),
            end.clone(),
        ]
        .concat()
    };
    is_told(
        &without(5),
        &format!("demo/hello:1.2: layer 1 is missing: {}", name(5)),
    );
    is_told(&without(4), "its config is missing");
    is_told(&without(3), "its manifest is missing");
    is_told(&without(1), "index.json: is missing");
    // Without manifest.json it is an OCI layout, which says so.
    is_told(
        &without(2),
        "index.json: differs from what follows from the images",
    );
    is_told(&without(0), "oci-layout: is missing");
    is_told(&end, "neither index.json nor manifest.json");
    is_told(b"", "is not a tar archive");
    is_told(&b"no tar\n".repeat(1000), "is not a tar archive");
}

#[test]
fn the_next_pull_fetches_only_what_is_bad() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..5).map(|seed| Blob::layer(seed, 30_000)).collect());
    image.push(&registry, "r", "1");
    let pull = || {
        Run::pull(&dir, &registry.name("r:1"))
            .args(&["-o", "x.tar"])
            .archive()
    };
    let sound = pull().bytes;
    let (parts, _) = parts(&sound);
    let place = |part: usize| parts[..part].concat().len();
    let flipped = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x11;
        bytes
    };
    for (what, bad, bytes) in [
        ("a layer", 1, flipped(place(6) + 900)),
        ("a layer's name", 0, flipped(place(6) + 20)),
        ("a layer's size", 0, flipped(place(6) + 130)),
        ("the first size", 0, flipped(130)),
        ("index.json", 0, flipped(place(1) + 700)),
        ("a manifest", 0, flipped(place(3) + 600)),
        ("the end", 0, flipped(sound.len() - 3)),
        ("the last two layers", 2, sound[..place(8) + 1000].to_vec()),
    ] {
        dir.write("x.tar", &bytes);
        Run::new(&dir, &["--verify", "x.tar"]).status(6);
        let before = registry.seen().len();
        assert!(pull().bytes == sound, "{what}");
        let seen = registry.seen();
        let layers = seen[before..].iter().filter(|seen| {
            image
                .layers
                .iter()
                .any(|layer| seen.target.contains(&layer.digest))
        });
        assert_eq!(layers.count(), bad, "{what}");
        Run::new(&dir, &["--verify", "x.tar"]).status(0);
    }
}

// ---- the archives of others -----------------------------------------------------------------------

/// A tar as Go programs write them.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn header(kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o444);
        header.set_mtime(1_700_000_000);
        header
    }

    fn file(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        let mut header = Self::header(tar::EntryType::Regular, content.len() as u64);
        self.0.append_data(&mut header, name, content).unwrap();
        self
    }

    fn blob(self, content: impl AsRef<[u8]>) -> Self {
        let name = path(&sha256(content.as_ref()));
        self.file(&name, content)
    }

    fn link(mut self, kind: tar::EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, 0);
        self.0.append_link(&mut header, name, target).unwrap();
        self
    }

    /// An entry whose header the library would not write.
    fn raw(mut self, name: &[u8], content: &[u8], change: impl FnOnce(&mut tar::Header)) -> Self {
        let mut header = Self::header(tar::EntryType::Regular, content.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn hex(digest: &str) -> &str {
    digest.split_once(':').unwrap().1
}

const LAYOUT: &str = r#"{"imageLayoutVersion": "1.0.0"}"#;

fn config(layers: &[Vec<u8>]) -> String {
    let ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("{:?}", sha256(layer)))
        .collect();
    format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        ids.join(",")
    )
}

fn tars() -> Vec<Vec<u8>> {
    (0..3).map(|seed| layer_tar(seed, 700)).collect()
}

/// `docker save` until version 24; the second image shares a layer with the first by a link.
fn docker_20() -> Vec<u8> {
    let layers = tars();
    let (config, other) = (
        config(&layers[..2]),
        config(&[layers[2].clone(), layers[1].clone()]),
    );
    let (name, other_name) = (sha256(config.as_bytes()), sha256(other.as_bytes()));
    let manifest = format!(
        r#"[{{"Config":"{0}.json","RepoTags":["x:1"],"Layers":["aa/layer.tar","bb/layer.tar"]}},
        {{"Config":"{1}.json","RepoTags":null,"Layers":["cc/layer.tar","dd/layer.tar"]}}]"#,
        hex(&name),
        hex(&other_name)
    );
    let directory = |tar: Tar, name: &str| {
        tar.raw(name.as_bytes(), b"", |header| {
            header.set_entry_type(tar::EntryType::Directory)
        })
        .file(&format!("{name}VERSION"), "1.0")
    };
    let tar = directory(Tar::new(), "aa/").file("aa/layer.tar", &layers[0]);
    let tar = directory(tar, "bb/").file("bb/layer.tar", &layers[1]);
    let tar = directory(tar, "cc/").file("cc/layer.tar", &layers[2]);
    directory(tar, "dd/")
        .link(tar::EntryType::Symlink, "dd/layer.tar", "../bb/layer.tar")
        .file(&format!("{}.json", hex(&name)), config)
        .file(&format!("{}.json", hex(&other_name)), other)
        .file("manifest.json", manifest)
        .file("repositories", r#"{"x":{"1":"bb"}}"#)
        .done()
}

/// `docker save` from version 25 on, of the classic store: both layouts, plain layers.
fn docker_25(tag: &str, index_name: &str) -> Vec<u8> {
    let layers = tars();
    let config = config(&layers);
    let blobs: Vec<Blob> = layers
        .iter()
        .map(|layer| {
            Blob::bytes(
                "application/vnd.oci.image.layer.v1.tar",
                layer.clone(),
                sha256(layer),
            )
        })
        .collect();
    let image = Image::new(blobs).with_config(&config);
    let entry = image.entry("").replacen(
        '}',
        &format!(r#","annotations":{{"io.containerd.image.name":"{index_name}","org.opencontainers.image.ref.name":"1"}}}}"#),
        1,
    );
    let list: Vec<String> = image
        .layers
        .iter()
        .map(|layer| format!("{:?}", layer.path()))
        .collect();
    let tar = Tar::new().raw(b"blobs/", b"", |header| {
        header.set_entry_type(tar::EntryType::Directory)
    });
    let tar = layers.iter().fold(tar, Tar::blob);
    tar.blob(&config)
        .blob(image.manifest())
        .file(
            "index.json",
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entry}]}}"#),
        )
        .file(
            "manifest.json",
            format!(
                r#"[{{"Config":"{}","RepoTags":["{tag}"],"Layers":[{}],"LayerSources":{{}}}}]"#,
                path(&sha256(config.as_bytes())),
                list.join(",")
            ),
        )
        .file("oci-layout", LAYOUT)
        .done()
}

/// `docker save` of the containerd store, `ctr export`: an index whose other platforms are absent,
/// and an attestation.
fn containerd(with: &[&str]) -> Vec<u8> {
    let here = Image::small(1);
    let (gone, bare) = (
        Image::for_platform("arm", "v7", vec![Blob::layer(7, 10)]),
        Image::small(2),
    );
    let statement = Blob::bytes(
        "application/vnd.in-toto+json",
        b"{}".to_vec(),
        String::new(),
    );
    let attestation = Image::new(vec![statement]).with_config(r#"{"rootfs":{"diff_ids":[]}}"#);
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{},{},{},{}]}}"#,
        here.entry(&platform("linux", "amd64", "")),
        gone.entry(&platform("linux", "arm", "v7")),
        bare.entry(&platform("linux", "s390x", "")),
        attestation.entry(&platform("unknown", "unknown", "")),
    );
    let entry = format!(
        r#"{{"mediaType":"{OCI_INDEX}","digest":"{}","size":{},"annotations":{{"io.containerd.image.name":"docker.io/library/x:1"}}}}"#,
        sha256(index.as_bytes()),
        index.len()
    );
    let mut tar = Tar::new()
        .file("oci-layout", LAYOUT)
        .file(
            "index.json",
            format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#),
        )
        .blob(index);
    for (name, image) in [("here", &here), ("attestation", &attestation)] {
        if with.contains(&name) {
            tar = tar.blob(image.manifest()).blob(image.config.data());
            tar = image
                .layers
                .iter()
                .fold(tar, |tar, layer| tar.blob(layer.data()));
        }
    }
    if with.contains(&"bare") {
        // Its manifest alone: what an engine that pulled another platform has.
        tar = tar.blob(bare.manifest());
    }
    if with.contains(&"part") {
        tar = tar.blob(bare.manifest()).blob(bare.config.data());
    }
    tar.done()
}

/// crane, kaniko: named by digests, outside `blobs/`.
fn crane() -> Vec<u8> {
    let layers = tars();
    let packed: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
    let config = config(&layers);
    let names: Vec<String> = packed
        .iter()
        .map(|layer| format!("{}.tar.gz", hex(&sha256(layer))))
        .collect();
    let tar = Tar::new().file(&sha256(config.as_bytes()), &config);
    let tar = names
        .iter()
        .zip(&packed)
        .fold(tar, |tar, (name, layer)| tar.file(name, layer));
    tar.file(
        "manifest.json",
        format!(
            r#"[{{"Config":"{}","RepoTags":["x:1"],"Layers":{names:?}}}]"#,
            sha256(config.as_bytes())
        ),
    )
    .done()
}

#[test]
fn archives_of_other_writers_are_sound() {
    is_sound(&docker_20(), 2);
    is_sound(&docker_25("x:1", "docker.io/library/x:1"), 1);
    is_sound(&containerd(&["here", "attestation"]), 1);
    is_sound(&containerd(&["here", "bare"]), 1);
    is_sound(&crane(), 1);
    let bytes = containerd(&["here", "bare"]);
    let findings = verify_reader(&mut &bytes[..], "x").unwrap();
    let absent = findings.absent.join("\n");
    assert!(
        absent.contains("linux/arm/v7") && absent.contains("linux/s390x"),
        "{absent}"
    );
    is_told(&containerd(&[]), "nothing that its index names is there");
    is_told(
        &containerd(&["bare"]),
        "only images of which nothing is there",
    );
    is_told(
        &containerd(&["here", "part"]),
        "(linux/s390x): layer 1 is missing",
    );
    is_told(
        &docker_25("y:1", "docker.io/library/x:1"),
        "names docker.io/library/y:1, but index.json does not",
    );
    is_told(
        &docker_25("x", "docker.io/library/x:1"),
        "not a name with a tag",
    );
}

#[test]
fn damage_in_the_archives_of_others_is_found() {
    // Where only the config knows what a layer is.
    let mut bytes = docker_20();
    let at = bytes.windows(6).position(|part| part == b"file-1").unwrap();
    bytes[at + 700] ^= 1;
    is_told(
        &bytes,
        "x:1: layer 2 (bb/layer.tar) does not match its diff ID",
    );
    // Where its own name says what it is.
    let mut bytes = crane();
    let at = bytes.windows(6).position(|part| part == b"file-1").unwrap();
    bytes[at + 700] ^= 1;
    is_told(&bytes, ".tar.gz does not have the digest in its name");
    let mut bytes = crane();
    let at = bytes.windows(5).position(|part| part == b"amd64").unwrap();
    bytes[at] ^= 1;
    is_told(&bytes, "does not have the digest in its name");
}

#[test]
fn compressed_layers_are_compared_with_their_diff_ids() {
    let tar = layer_tar(1, 5000);
    let other = sha256(&layer_tar(2, 5000));
    let packed = gzip(&tar);
    let mut cut = packed.clone();
    cut.truncate(3000);
    let mut damaged = packed.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let layer = |bytes: &[u8], id: &str| {
        let image = Image::new(vec![Blob::bytes(GZIP, bytes.to_vec(), id.to_owned())]);
        let index = format!(r#"{{"manifests":[{}]}}"#, image.entry(""));
        let tar = Tar::new()
            .file("oci-layout", LAYOUT)
            .file("index.json", index);
        let tar = tar.blob(image.manifest()).blob(image.config.data());
        tar.blob(image.layers[0].data()).done()
    };
    is_sound(&layer(&packed, &sha256(&tar)), 1);
    is_told(&layer(&packed, &other), "does not match its diff ID");
    is_told(&layer(&cut, &sha256(&tar)), "its gzip data is truncated");
    is_told(
        &layer(&damaged, &sha256(&tar)),
        "does not match its checksum",
    );
    is_told(
        &layer(&[&packed[..], b"x"].concat(), &sha256(&tar)),
        "other data follows",
    );
    // A layer that needs too much memory is not inflated, and the output says so.
    let window = [&b"\x28\xb5\x2f\xfd\x00\x70\x01\x00\x00"[..], b"xx"].concat();
    let dir = Dir::new();
    dir.write("x.tar", layer(&window, &other));
    let outcome = Run::new(&dir, &["--verify", "x.tar"]).status(8);
    assert_eq!(
        outcome.stdout,
        "x.tar: sound, 1 layer not inflated; 1 image, 3 blobs\n"
    );
    assert!(outcome.stderr.contains("1 layer was not inflated"));
    // With more memory it is known for what it is: damaged.
    let more = ["--verify", "x.tar", "--inflate-memory", "16M"];
    let outcome = Run::new(&dir, &more).status(6);
    assert!(
        outcome.stdout.contains("its zstd data"),
        "{}",
        outcome.stdout
    );
    let alone = ["--inflate-memory", "16M", "debian"];
    Run::new(&dir, &alone).fails(2, "requires --verify");
}

#[test]
fn links_within_the_archive_are_followed_once() {
    let layer = layer_tar(1, 10);
    let config = config(std::slice::from_ref(&layer));
    let manifest = r#"[{"Config":"config.json","RepoTags":["x:1"],"Layers":["link"]}]"#;
    let tar = |links: &[(tar::EntryType, &str, &str)]| {
        let tar = Tar::new()
            .file("d/layer.tar", &layer)
            .file("config.json", &config);
        let links = links
            .iter()
            .fold(tar, |tar, (kind, name, to)| tar.link(*kind, name, to));
        links.file("manifest.json", manifest).done()
    };
    is_sound(&tar(&[(tar::EntryType::Symlink, "link", "d/layer.tar")]), 1);
    // skopeo reads a hard link as an empty file.
    is_told(
        &tar(&[(tar::EntryType::Link, "link", "d/layer.tar")]),
        "x:1: layer 1 is a hard link",
    );
    let two = [
        (tar::EntryType::Symlink, "link", "other"),
        (tar::EntryType::Symlink, "other", "d/layer.tar"),
    ];
    is_told(&tar(&two), "x:1: layer 1 is missing: link");
    for target in ["../d/layer.tar", "/etc/passwd"] {
        is_told(
            &tar(&[(tar::EntryType::Symlink, "link", target)]),
            "leads out of the archive",
        );
    }
}

#[test]
fn directories_are_checked_like_archives() {
    let dir = Dir::new();
    let unpack = |bytes: &[u8], name: &str| {
        tar::Archive::new(bytes).unpack(dir.join(name)).unwrap();
        dir.join(name)
    };
    let ours = unpack(&small("demo/hello:1.2"), "ours");
    for path in [
        &ours,
        &unpack(&docker_20(), "docker"),
        &unpack(&containerd(&["here"]), "oci"),
    ] {
        let findings = verify(path).unwrap();
        assert!(findings.is_sound() && findings.images > 0, "{findings:?}");
    }
    let blobs = ours.join("blobs/sha256");
    let first = std::fs::read_dir(&blobs)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mut content = std::fs::read(&first).unwrap();
    content[7] ^= 1;
    std::fs::write(&first, content).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", blobs.join("a".repeat(64))).unwrap();
    std::fs::write(blobs.join("strange"), "").unwrap();
    let outcome = Run::new(&dir, &["--verify", "ours"]).status(6);
    for words in [
        "does not have the digest",
        "leads out of the archive",
        "its name is not a digest",
    ] {
        assert!(outcome.stdout.contains(words), "{}", outcome.stdout);
    }
    Run::new(&dir, &["--verify", "."]).status(6);
}

// ---- the command line -------------------------------------------------------------------------------

#[test]
fn the_answer_is_on_standard_output_and_in_the_status() {
    let dir = Dir::new();
    let bytes = small("demo/hello:1.2");
    dir.write("x.tar", &bytes);
    let outcome = Run::new(&dir, &["--verify", "x.tar"]).status(0);
    assert_eq!(outcome.stdout, "x.tar: sound, 1 image, 5 blobs\n");
    assert_eq!(outcome.stderr, "");
    let mut damaged = bytes.clone();
    damaged[512 * 10] ^= 1;
    dir.write("y.tar", &damaged);
    let outcome = Run::new(&dir, &["--verify", "y.tar"]).status(6);
    assert_eq!(outcome.stdout.lines().count(), 1, "{}", outcome.stdout);
    assert!(
        outcome.stderr.contains("y.tar has 1 defect; pull"),
        "{}",
        outcome.stderr
    );
    for (args, status) in [
        (&["--verify", "missing.tar"][..], 1),
        (&["--verify", "x.tar", "debian"], 2),
        (&["--verify", "x.tar", "--tags"], 2),
    ] {
        Run::new(&dir, args).fails(status, "");
    }
    assert_eq!(dir.names(), ["x.tar", "y.tar"]);
}

#[test]
fn a_pipe_is_checked_in_one_pass_and_little_memory() {
    let dir = Dir::new();
    let layers = (0..4).map(|seed| Blob::layer(seed, 5_000_000));
    dir.write(
        "x.tar",
        pulled(&Image::new(layers.collect()), &["demo/hello:1.2"], &[]),
    );
    for script in ["cat x.tar | \"$@\"", "exec \"$@\" < x.tar"] {
        let outcome = Run::new(&dir, &["--verify", "-"]).within(script).status(0);
        assert_eq!(outcome.stdout, "standard input: sound, 1 image, 6 blobs\n");
        outcome.is_small();
    }
    Run::new(&dir, &["--verify", "x.tar"]).status(0).is_small();
    let cut = "head -c 9000000 x.tar | \"$@\"";
    let outcome = Run::new(&dir, &["--verify", "-"]).within(cut).status(6);
    assert!(
        outcome.stdout.contains("the archive is truncated here"),
        "{}",
        outcome.stdout
    );
    Run::new(&dir, &["--verify", "-"]).status(1);
    let outcome = Run::new(&dir, &["--verify", "-"])
        .within("exec \"$@\" < /dev/zero")
        .status(6);
    assert!(outcome.stdout.contains("follow it"), "{}", outcome.stdout);
}

#[test]
fn a_compressed_archive_is_inflated_on_the_way() {
    let dir = Dir::new();
    let bytes = small("demo/hello:1.2");
    let packed = gzip(&bytes);
    let zstd = zstd_of(&bytes);
    let skippable = [&b"\x5f\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd].concat();
    for packed in [&packed, &zstd, &skippable] {
        dir.write("x", packed);
        for (script, name) in [("\"$@\" x", "x"), ("\"$@\" - < x", "standard input")] {
            let outcome = Run::new(&dir, &["--verify"]).within(script).status(0);
            assert_eq!(outcome.stdout, format!("{name}: sound, 1 image, 5 blobs\n"));
            outcome.is_small();
        }
    }
    let mut damaged = packed.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let unsound = gzip(&bytes[..bytes.len() - 512]);
    for (bytes, words) in [
        (&packed[..packed.len() - 9], "its gzip data is truncated"),
        (&damaged[..], "does not match its checksum"),
        (&[&packed[..], b"x"].concat()[..], "other data follows"),
        (&unsound[..], "the archive is truncated"),
        (&gzip(&vec![0; 300 << 20])[..], "bytes follow it"),
    ] {
        dir.write("x", bytes);
        let outcome = Run::new(&dir, &["--verify", "x"]).status(6);
        assert!(
            outcome.stdout.contains(words),
            "{words}: {}",
            outcome.stdout
        );
    }
    // Unsupported compression is undone by a pipe.
    for (magic, with) in [
        (&b"\xfd7zXZ\0"[..], "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ] {
        dir.write("x", [magic, &noise(1, 2000)].concat());
        for script in ["\"$@\"", "\"$@\" < x"] {
            let path = if script.contains('<') { "-" } else { "x" };
            let outcome = Run::new(&dir, &["--verify", path]).within(script).status(1);
            let hint = format!("{with} -dc FILE | dockersave --verify -");
            assert!(outcome.stderr.contains(&hint), "{}", outcome.stderr);
        }
    }
}

/// A zstd frame of raw blocks.
fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    let mut frame = b"\x28\xb5\x2f\xfd\x00\x50".to_vec();
    let blocks = bytes.chunks(100_000);
    let last = blocks.len() - 1;
    for (number, block) in blocks.enumerate() {
        let head = (block.len() as u32) << 3 | u32::from(number == last);
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

// ---- hostile ones ------------------------------------------------------------------------------------

#[test]
fn strange_entries_are_told_one_by_one() {
    let sound = || containerd(&["here"]);
    let with = |tar: Tar| {
        let (extra, bytes) = (tar.done(), sound());
        [&extra[..extra.len() - 1024], &bytes].concat()
    };
    is_sound(&with(Tar::new().file("repositories", "x")), 1);
    for name in [
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../b",
        "a\x1b[2J/../b",
    ] {
        is_told(
            &with(Tar::new().raw(name.as_bytes(), b"x", |_| {})),
            "leads out of the archive",
        );
    }
    is_told(
        &with(Tar::new().raw(b"\xff\xfe", b"x", |_| {})),
        "is not UTF-8",
    );
    for kind in [
        tar::EntryType::Char,
        tar::EntryType::Block,
        tar::EntryType::Fifo,
    ] {
        is_told(
            &with(Tar::new().raw(b"dev", b"", |h| h.set_entry_type(kind))),
            "a device or a FIFO",
        );
    }
    is_told(
        &with(Tar::new().raw(b"x", b"", |h| h.set_entry_type(tar::EntryType::new(b'Z')))),
        "no loader knows",
    );
    is_told(
        &with(Tar::new().raw(b"x", b"", |h| h.set_entry_type(tar::EntryType::GNUSparse))),
        "sparse",
    );
    is_told(
        &with(Tar::new().raw(b"blobs/sha256/x", b"y", |_| {})),
        "its name is not a digest",
    );
    is_told(
        &with(Tar::new().file("index.json", "{}")),
        "index.json: is in the archive more than once",
    );
    is_told(
        &with(Tar::new().file("./index.json", "{}")),
        "index.json: is in the archive more than once",
    );
    let directory = |h: &mut tar::Header| {
        h.set_entry_type(tar::EntryType::Directory);
        h.set_size(512);
    };
    is_told(
        &with(Tar::new().raw(b"d", b"", directory)),
        "but has a size",
    );
    let end = vec![0; 1024];
    is_told(
        &[sound(), Tar::new().file("late", "x").done()].concat(),
        "the end: nonzero bytes",
    );
    is_told(&[end, sound()].concat(), "the end: nonzero bytes");
    is_told(&[sound(), vec![0; 2 << 20]].concat(), "bytes follow it");
}

fn pax(kind: u8, records: &[u8]) -> Tar {
    Tar::new().raw(b"pax", records, |h| {
        h.set_entry_type(tar::EntryType::new(kind))
    })
}

#[test]
fn extended_headers_cannot_say_two_things() {
    let bytes = containerd(&["here"]);
    let with = |tar: Tar| {
        let extra = tar.done();
        [&extra[..extra.len() - 1024], &bytes].concat()
    };
    is_sound(&with(pax(b'x', b"20 mtime=1700000000\n")), 1);
    is_sound(
        &with(pax(
            b'g',
            b"52 comment=0123456789012345678901234567890123456789\n",
        )),
        1,
    );
    // The first entry after them is oci-layout.
    is_told(
        &with(pax(b'x', b"14 path=../ab\n")),
        "leads out of the archive",
    );
    is_told(
        &with(pax(b'x', b"14 path=../ab\n")),
        "oci-layout: is missing",
    );
    is_told(
        &with(pax(b'x', b"28 size=9223372036854775807\n")),
        "that no file can have",
    );
    is_told(
        &with(pax(b'x', b"28 size=9223372036854775808\n")),
        "cannot be read",
    );
    is_told(&with(pax(b'x', b"22 GNU.sparse.major=1\n")), "sparse");
    is_told(
        &with(pax(b'x', b"99 path=x\n")),
        "PAX records that cannot be read",
    );
    is_told(&with(pax(b'x', b"10 size=1\n")), "oci-layout");
    is_told(
        &with(pax(b'g', b"10 path=x\n")),
        "gives all entries the same name",
    );
    is_told(&with(pax(b'L', b"../x\0")), "leads out of the archive");
    for record in [
        // libarchive leaves the holes out.
        &b"22 SUN.holesdata= 0 1\n"[..],
        // GNU tar skips the blank, others make it part of the key.
        b"15  path=manif\n",
        b"18 uid=4294967296\n",
    ] {
        is_told(&with(pax(b'x', record)), "differently");
    }
    let last = [&bytes[..bytes.len() - 1024], &pax(b'x', b"").done()].concat();
    is_told(&last, "that does not follow");
    for id in [
        b"        ",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\x01\0\0\0\0\0",
    ] {
        let odd = |h: &mut tar::Header| h.as_old_mut().uid.copy_from_slice(id);
        is_told(
            &with(Tar::new().raw(b"x", b"", odd)),
            "that is not a number",
        );
    }
    let large = |h: &mut tar::Header| {
        h.set_entry_type(tar::EntryType::XHeader);
        h.set_size(1 << 30);
    };
    is_told(&with(Tar::new().raw(b"x", b"", large)), "has more than");
    for size in [
        &b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"-0000000012\0",
    ] {
        let wrong = |h: &mut tar::Header| h.as_old_mut().size.copy_from_slice(size);
        is_told(
            &with(Tar::new().raw(b"x", b"", wrong)),
            "has a size that is not a number",
        );
    }
    let beyond = |h: &mut tar::Header| h.set_size(1 << 40);
    is_told(
        &with(Tar::new().raw(b"x", b"", beyond)),
        "bytes of its data are missing",
    );
}

#[test]
fn hostile_files_are_bounded_and_told_in_one_line() {
    let dir = Dir::new();
    let run = |path: &str, status: i32, words: &str| {
        let outcome = Run::new(&dir, &["--verify", path]).limit(60).status(status);
        outcome.is_small();
        let all = outcome.stdout.clone() + &outcome.stderr;
        assert!(all.contains(words), "no {words:?} in {all}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    };
    std::process::Command::new("mkfifo")
        .arg(dir.join("fifo"))
        .status()
        .unwrap();
    run("fifo", 1, "neither a regular file");
    run("/dev/zero", 1, "neither a regular file");
    run("/dev/tty", 1, "");
    // A manifest.json, and an index.json, of 1 GB, most of it holes.
    for name in ["manifest.json", "index.json"] {
        let head = Tar::new()
            .file("oci-layout", LAYOUT)
            .raw(name.as_bytes(), b"", |h| h.set_size(1 << 30));
        let head = head.done();
        dir.write("big.tar", &head[..head.len() - 1024]);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(dir.join("big.tar"))
            .unwrap();
        file.set_len(head.len() as u64 + (1 << 30)).unwrap();
        run(
            "big.tar",
            if name == "index.json" { 1 } else { 6 },
            "the limit for checking is",
        );
    }
    let many = |name: &dyn Fn(usize) -> String| {
        let tar = (0..20_000).fold(Tar::new(), |tar, number| tar.file(&name(number), ""));
        dir.write("many.tar", tar.done());
    };
    many(&|number| number.to_string());
    run("many.tar", 1, "more than 16384 entries");
    many(&|number| format!("{number}{}", "x".repeat(90)));
    run("many.tar", 1, "bytes of names");
}

#[test]
fn hostile_documents_are_bounded() {
    let dir = Dir::new();
    let padding = " ".repeat(1000);
    for (index, words) in [
        ("[".repeat(100_000), "nested deeper"),
        (format!("[{}]", "{},".repeat(20_000)), "has more than"),
        (
            format!(r#"{{"manifests":["{}"]}}"#, r#"","#.repeat(100_000)),
            "has more than",
        ),
        ("{}".to_owned(), "neither an index nor a manifest"),
        (
            r#"{"manifests":[],"layers":[]}"#.to_owned(),
            "both an index and a manifest",
        ),
        (
            r#"{"manifests":[{"mediaType":"x","digest":"sha256:../../x","size":1}]}"#.to_owned(),
            "digest",
        ),
        (
            r#"{"manifests":[{"mediaType":"x","digest":"md5:0","size":1}]}"#.to_owned(),
            "not supported",
        ),
        (format!("{{\"manifests\":[]}}{padding}x"), "is not JSON"),
    ] {
        dir.write(
            "x.tar",
            Tar::new()
                .file("oci-layout", LAYOUT)
                .file("index.json", &index)
                .done(),
        );
        let outcome = Run::new(&dir, &["--verify", "x.tar"]).status(6);
        outcome.is_small();
        assert!(
            outcome.stdout.contains(words),
            "{words}: {}",
            outcome.stdout
        );
    }
    for (manifest, words) in [
        ("[]", "names no image"),
        ("{}", "is not JSON"),
        (
            r#"[{"Config":"../../etc/passwd","Layers":["/etc/passwd"]}]"#,
            "its config is missing",
        ),
        (
            r#"[{"Config":"manifest.json","Layers":[]}]"#,
            "index.json: names no image",
        ),
        (r#"[{}]"#, "its config is missing"),
    ] {
        dir.write(
            "x.tar",
            Tar::new()
                .file("oci-layout", LAYOUT)
                .file("index.json", r#"{"manifests":[]}"#)
                .file("manifest.json", manifest)
                .done(),
        );
        let outcome = Run::new(&dir, &["--verify", "x.tar"]).status(6);
        assert!(
            outcome.stdout.contains(words),
            "{words}: {}",
            outcome.stdout
        );
    }
}

/// What Go reads as a different image than others do, because of a key's case or repetition.
#[test]
fn documents_that_are_read_in_two_ways_are_told() {
    let files = || {
        let bytes = docker_25("x:1", "docker.io/library/x:1");
        let files: Vec<(String, Vec<u8>)> = tar::Archive::new(&bytes[..])
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut text = Vec::new();
                entry.read_to_end(&mut text).unwrap();
                (name, text)
            })
            .collect();
        files
    };
    let changed = |name: &str, from: &str, to: &str| {
        let tar = files().iter().fold(Tar::new(), |tar, (file, text)| {
            if file.ends_with('/') {
                return tar;
            }
            if file != name {
                return tar.file(file, text);
            }
            let text = std::str::from_utf8(text).unwrap();
            assert!(text.contains(from), "{text}");
            tar.file(file, text.replacen(from, to, 1))
        });
        tar.done()
    };
    is_sound(&changed("index.json", "{", "{\"x\":{\"Manifests\":1},"), 1);
    for (name, from, to, words) in [
        ("index.json", "{", r#"{"Manifests":[],"#, "\"Manifests\""),
        (
            "index.json",
            "{",
            r#"{"manifests":[],"#,
            "\"manifests\" twice",
        ),
        (
            "index.json",
            r#""digest":"#,
            r#""Digest":"x","digest":"#,
            "\"Digest\"",
        ),
        (
            "index.json",
            r#""io.containerd.image.name":"#,
            r#""io.containerd.image.name":"a:1","io.containerd.image.name":"#,
            "twice",
        ),
        ("manifest.json", "[{", r#"[{"layers":[],"#, "\"layers\""),
        (
            "manifest.json",
            "[{",
            r#"[{"Config":"x","#,
            "\"Config\" twice",
        ),
        ("oci-layout", "{", r#"{"imageLayoutVersion":"0","#, "twice"),
        ("index.json", "{", r#"{"fsLayers":[],"#, "schema 1"),
    ] {
        is_told(&changed(name, from, to), words);
    }
    for (more, words) in [
        (r#""rootfs":{"diff_ids":[]},"#, "\"rootfs\" twice"),
        (r#""config":{"cmd":["evil"]},"#, "read as \"Cmd\""),
    ] {
        let text = config(&tars()[..1]).replacen('{', &format!("{{{more}"), 1);
        let layer = &tars()[0];
        let item = r#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]}]"#;
        let tar = Tar::new().file("c.json", text).file("l.tar", layer);
        is_told(&tar.file("manifest.json", item).done(), words);
    }
}

#[test]
fn the_largest_archives_that_are_taken_are_checked_in_little_memory() {
    let dir = Dir::new();
    let config = config(&[]);
    let config = format!("{{\"x\":\"{}\",{}", "x".repeat(3 << 20), &config[1..]);
    let heavy = Image::new(Vec::new()).with_config(&config);
    let blob = |n: u32| Blob::bytes(GZIP, n.to_le_bytes().to_vec(), sha256(&n.to_le_bytes()));
    let broad = Image::new((0..2500).map(blob).collect());
    let more: Vec<Image> = (0..3)
        .map(|number| {
            let mut image = broad.clone();
            image.more = format!(r#""annotations":{{"n":"{number}"}},"#);
            image
        })
        .collect();
    let write = |images: &[&Image], names: usize| {
        let entries: Vec<String> = images.iter().map(|image| image.entry("")).collect();
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        let mut tar = Tar::new()
            .file("oci-layout", LAYOUT)
            .file("index.json", index);
        let mut written = std::collections::BTreeSet::new();
        for image in images {
            tar = tar.blob(image.manifest());
            for blob in image.layers.iter().chain([&image.config]) {
                if written.insert(blob.digest.clone()) {
                    tar = tar.blob(blob.data());
                }
            }
        }
        let tar = (0..names).fold(tar, |tar, n| tar.file(&format!("{n:0>100}"), ""));
        dir.write("x.tar", tar.done());
    };
    let run = |path: &str, status: i32| {
        let outcome = Run::new(&dir, &["--verify", path])
            .within("exec \"$@\" < x.tar")
            .status(status);
        outcome.is_small();
        outcome.stdout
    };
    write(&[&heavy], 0);
    assert_eq!(run("x.tar", 0), "x.tar: sound, 1 image, 2 blobs\n");
    // A stream has less room, and says so.
    assert!(run("-", 1).contains("check a file instead"));
    let [one, two, three] = &more[..] else {
        panic!()
    };
    write(&[&broad, one, two, three], 5000);
    assert_eq!(run("x.tar", 0), "x.tar: sound, 4 images, 2505 blobs\n");
    run("-", 1);
    write(&[one, &heavy], 6000);
    assert!(run("x.tar", 1).contains("the limit for checking is"));
}

#[test]
fn large_archives_of_this_program_are_compared_in_little_memory() {
    let broad = Image::new((0..1000).map(|seed| Blob::layer(seed, 50)).collect());
    let config = broad.config.data();
    let config = String::from_utf8(config).unwrap();
    let heavy = Image::new(Vec::new());
    let text = String::from_utf8(heavy.config.data()).unwrap();
    let text = format!("{{\"x\":\"{}\",{}", "x".repeat(3 << 20), &text[1..]);
    for image in [broad.with_config(&config), heavy.with_config(&text)] {
        let dir = Dir::new();
        let mut bytes = pulled(&image, &["demo/hello:1.2"], &[]);
        dir.write("x.tar", &bytes);
        Run::new(&dir, &["--verify", "x.tar"]).status(0).is_small();
        let at = bytes
            .windows(10)
            .position(|part| part == b"image.name")
            .unwrap();
        bytes[at] ^= 1;
        dir.write("x.tar", &bytes);
        let outcome = Run::new(&dir, &["--verify", "x.tar"]).status(6);
        assert!(outcome.stdout.contains("index.json"), "{}", outcome.stdout);
        outcome.is_small();
    }
}

#[test]
fn a_stream_that_comes_in_pieces_is_the_same() {
    struct Pieces<'b>(&'b [u8], usize);
    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.1 = self.1 % 700 + 1;
            let part = self.1.min(buffer.len()).min(self.0.len());
            buffer[..part].copy_from_slice(&self.0[..part]);
            self.0 = &self.0[part..];
            Ok(part)
        }
    }
    let bytes = small("demo/hello:1.2");
    assert!(
        verify_reader(&mut Pieces(&bytes, 0), "x")
            .unwrap()
            .is_sound()
    );
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let broken = verify_reader(&mut (&bytes[..3000]).chain(Broken), "x").unwrap_err();
    assert!(broken.to_string().contains("the disk is gone"), "{broken}");
}
