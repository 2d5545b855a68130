//! The outputs: file, stream and directory have the same content, whatever the image.

use crate::registry::image::{self, Blob, Image, gzip, layer_tar, noise, sha256};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Sends standard output to a file.
const TO_FILE: &str = "exec \"$@\" > out.tar";

/// Pseudorandom numbers.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % sides
    }

    fn layers(&mut self) -> Vec<Blob> {
        let count = [0, 1, 2, 3, 7, 40][self.roll(6) as usize];
        let mut layers: Vec<Blob> = Vec::new();
        for _ in 0..count {
            let seed = self.roll(1000);
            let layer = match self.roll(6) {
                0 if !layers.is_empty() => layers[self.roll(layers.len() as u64) as usize].clone(),
                1 => Blob::bytes(image::GZIP, Vec::new(), sha256(b"")),
                2 => {
                    // A path of more than 100 bytes.
                    let mut layer = Blob::layer(seed, 700);
                    layer.digest = image::sha512(&layer.data());
                    layer
                }
                3 => Blob::layer(seed, 600_000),
                _ => Blob::layer(seed, self.roll(5000) as usize),
            };
            layers.push(layer);
        }
        layers
    }
}

fn tar_of(directory: &Path, names: &[String]) -> Vec<u8> {
    let output = Command::new("tar")
        .args([
            "--format=gnu",
            "-b",
            "1",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
        ])
        .args(["--mtime=@0", "--mode=0644", "-cf", "-", "-C"])
        .arg(directory)
        .args(names)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Pulls these images in every way, and compares.
#[track_caller]
fn the_same_in_every_way(names: &[String], more: &[&str], what: &str) {
    let dir = Dir::new();
    let run = || {
        let mut run = Run::new(&dir, &["--insecure"]).args(more);
        for name in names {
            run = run.arg(name);
        }
        run
    };
    let file = run().args(&["--tarname", "f.tar", "--no-rm"]).archive();
    run()
        .args(&["-o", "-"])
        .within(TO_FILE)
        .status(0)
        .is_small();
    assert!(
        std::fs::read(dir.join("out.tar")).unwrap() == file.bytes,
        "stream of {what}"
    );
    let mut sorted = file.names.clone();
    sorted.sort();
    assert_eq!(files_below(&dir.join("f")), sorted, "directory of {what}");
    assert!(
        tar_of(&dir.join("f"), &file.names) == file.bytes,
        "tar of the directory of {what}"
    );
    run()
        .args(&["--no-tar", "--layers-dir", "d"])
        .status(0)
        .is_small();
    assert!(
        tar_of(&dir.join("d"), &file.names) == file.bytes,
        "directory alone of {what}"
    );
    assert_eq!(files_below(&dir.join("d")), sorted);
    // And from the directory again, without a layer's byte from the registry.
    let from = dir.join("d").display().to_string();
    let again = run()
        .args(&["-o", "again.tar", "--reuse", &from, "--progress", "json"])
        .archive();
    assert!(
        again.bytes == file.bytes,
        "archive made from the directory of {what}"
    );
    assert_eq!(again.outcome.downloaded(), 0, "{what}");
    assert_eq!(dir.names(), ["again.tar", "d", "f", "f.tar", "out.tar"]);
}

#[test]
fn file_stream_and_directory_hold_the_same() {
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let registry = Registry::start();
        let mut names = Vec::new();
        for number in 0..1 + dice.roll(3) {
            let image = Image::new(dice.layers());
            let image = if dice.roll(2) == 0 {
                image.docker()
            } else {
                image
            };
            image.push(&registry, "some/repository", &format!("t{number}"));
            names.push(registry.name(&format!("some/repository:t{number}")));
        }
        let more: &[&str] = match dice.roll(3) {
            0 => &["--format", "oci"],
            1 => &["--gunzip"],
            _ => &[],
        };
        the_same_in_every_way(&names, more, &format!("seed {seed}"));
    }
}

/// An index of two platforms, one of them nested, with an attestation beside each.
fn index(registry: &Registry) -> (String, Vec<String>) {
    let mut digests = Vec::new();
    let mut entries = Vec::new();
    for (seed, architecture) in [(1, "amd64"), (2, "arm64")] {
        let made = Image::for_platform(
            architecture,
            "",
            vec![Blob::layer(9, 2000), Blob::layer(seed, 1000)],
        );
        made.push_untagged(registry, "multi");
        digests.extend([made.digest(), made.config.digest.clone()]);
        digests.extend(made.layers.iter().map(|layer| layer.digest.clone()));
        let statement = Blob::bytes(
            "application/vnd.in-toto+json",
            noise(seed + 10, 300),
            sha256(b"x"),
        );
        let attestation = Image::for_platform("unknown", "", vec![statement]);
        attestation.push_untagged(registry, "multi");
        digests.extend([&attestation.config, &attestation.layers[0]].map(|b| b.digest.clone()));
        digests.push(attestation.digest());
        let platform = image::platform("linux", architecture, "");
        let both = [
            made.entry(&platform),
            attestation.entry(&image::platform("unknown", "unknown", "")),
        ];
        if seed == 2 {
            let nested = image::push_index(registry, "multi", "nested", image::OCI_INDEX, &both);
            let size = format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
                image::OCI_INDEX,
                both.join(",")
            )
            .len();
            entries.push(format!(
                r#"{{"mediaType":"{}","digest":"{nested}","size":{size}}}"#,
                image::OCI_INDEX
            ));
            digests.push(nested);
        } else {
            entries.extend(both);
        }
    }
    let top = image::push_index(registry, "multi", "latest", image::OCI_INDEX, &entries);
    digests.push(top.clone());
    digests.sort();
    digests.dedup();
    (top, digests)
}

#[test]
fn all_platforms_with_their_attestations_and_the_index_as_it_is() {
    let registry = Registry::start();
    let (top, digests) = index(&registry);
    let dir = Dir::new();
    let archive = Run::pull(&dir, &registry.name("multi"))
        .arg("--all-platforms")
        .archive();
    let mut blobs: Vec<String> = archive
        .names
        .iter()
        .filter_map(|name| name.strip_prefix("blobs/"))
        .map(|name| name.replace('/', ":"))
        .collect();
    blobs.sort();
    assert_eq!(blobs, digests);
    assert!(!archive.names.contains(&"manifest.json".to_owned()));
    let entry = format!(r#""digest":"{top}""#);
    assert!(archive.text("index.json").contains(&entry));
    assert_eq!(archive.text("index.json").matches("digest").count(), 1);
    the_same_in_every_way(
        &[registry.name("multi")],
        &["--all-platforms"],
        "all platforms",
    );
}

#[test]
fn all_platforms_of_a_single_manifest_are_that_one() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r"))
        .arg("--all-platforms")
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn an_index_without_end_is_refused() {
    let (registry, dir) = (Registry::start(), Dir::new());
    // Each index leads to the next.
    let mut inner = String::new();
    for level in 0..8 {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{inner}]}}"#,
            image::OCI_INDEX
        );
        let digest = sha256(text.as_bytes());
        image::put_manifest(&registry, "r", &digest, image::OCI_INDEX, &text);
        image::put_manifest(&registry, "r", "latest", image::OCI_INDEX, &text);
        inner = format!(
            r#"{{"mediaType":"{}","digest":"{digest}","size":{}}}"#,
            image::OCI_INDEX,
            text.len()
        );
        assert!(level < 8);
    }
    Run::pull(&dir, &registry.name("r"))
        .arg("--all-platforms")
        .fails(1, "nested deeper than 4 levels");
}

#[test]
fn a_stream_goes_on_at_the_byte_where_a_connection_broke() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..6).map(|seed| Blob::layer(seed, 300_000)).collect());
    image.push(&registry, "r", "latest");
    let name = registry.name("r");
    let whole = Run::pull(&dir, &name).archive();
    for (layer, action) in [
        (0, Action::Reset(100_000)),
        (1, Action::Close(299_999)),
        (2, Action::Reply(Reply::new(503, ""))),
        (3, Action::Stall(70_000, Duration::from_secs(20))),
        (4, Action::Reset(0)),
    ] {
        registry.fault(&image.layers[layer].digest, action);
    }
    registry.faults(Fault::new(&image.layers[1].digest, Action::NoRange).ranges());
    registry.forget();
    let outcome = Run::pull(&dir, &name)
        .args(&["-o", "-", "--timeout", "1", "--progress", "json"])
        .within(TO_FILE)
        .status(0);
    outcome.is_small();
    assert!(std::fs::read(dir.join("out.tar")).unwrap() == whole.bytes);
    let ranges = registry
        .seen()
        .iter()
        .filter(|seen| seen.header("range").is_some())
        .count();
    assert!(ranges >= 3, "{ranges} requests went on at their byte");
}

#[test]
fn a_stream_of_wrong_bytes_ends_without_an_end() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..3).map(|seed| Blob::layer(seed, 200_000)).collect());
    image.push(&registry, "r", "latest");
    registry.faults(Fault::new(&image.layers[1].digest, Action::Flip(1000)).always());
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "-"])
        .within(TO_FILE)
        .status(6);
    assert!(
        outcome.stderr.contains(&image.layers[1].digest),
        "{}",
        outcome.stderr
    );
    // What came out is no archive for anybody.
    let written = std::fs::read(dir.join("out.tar")).unwrap();
    assert!(!written.ends_with(&[0; 1024]));
}

#[test]
fn a_reader_that_goes_away_ends_the_stream_quietly() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..6).map(|seed| Blob::layer(seed, 500_000)).collect());
    image.push(&registry, "r", "latest");
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "-", "--progress", "none"])
        .within("( \"$@\"; echo $? > status ) | head -c 100000 > part; exec true")
        .outcome();
    assert_eq!(outcome.stderr, "");
    assert_eq!(std::fs::read_to_string(dir.join("status")).unwrap(), "7\n");
}

#[test]
fn no_archive_is_written_to_a_terminal() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "-"])
        .within("exec script -qec \"$(printf '%s ' \"$@\")\" /dev/null")
        .outcome();
    assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("to a terminal"),
        "{}",
        outcome.stdout
    );
    assert!(registry.seen().is_empty());
}

#[test]
fn a_full_disk_behind_a_stream_is_told() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "-"])
        .within("exec \"$@\" > /dev/full")
        .status(7);
    assert!(
        outcome
            .stderr
            .ends_with("writing to standard output: No space left on device\n"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn small_blobs_ahead_of_a_slow_reader_stay_small() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut layers = vec![Blob::layer(1000, 3_000_000)];
    layers.extend((0..300).map(|seed| Blob::layer(seed, 30_000)));
    layers.push(Blob::layer(1001, 3_000_000));
    let image = Image::new(layers);
    image.push(&registry, "r", "latest");
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "-", "--jobs", "16", "--progress", "none"])
        .within("mkfifo pipe; (sleep 1; cat > out.tar) < pipe & exec \"$@\" > pipe")
        .status(0);
    outcome.is_small();
}

#[test]
fn a_directory_goes_on_where_it_was() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..4).map(|seed| Blob::layer(seed, 1_500_000)).collect());
    image.push(&registry, "r", "latest");
    let name = registry.name("r");
    registry.faults(Fault::new(&image.layers[2].digest, Action::Close(1_200_000)).always());
    let run = || {
        Run::new(
            &dir,
            &["--insecure", "--retries", "0", "--no-tar", "--jobs", "1"],
        )
        .args(&["--progress", "json", &name])
    };
    run().status(5);
    assert_eq!(dir.names(), ["r-latest.partial"]);
    // A second one at the same time says so.
    let lock = std::fs::File::open(dir.join("r-latest.partial/journal")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(run().status(7).stderr.contains("another dockersave"));
    drop(lock);
    registry.behave();
    let outcome = run().status(0);
    assert!(
        outcome.downloaded() < image.size() / 2,
        "{}",
        outcome.downloaded()
    );
    assert_eq!(dir.names(), ["r-latest"]);
    for layer in &image.layers {
        let path = dir.join("r-latest").join(layer.path());
        assert!(std::fs::read(path).unwrap() == layer.data());
    }
}

#[test]
fn a_directory_lends_its_blobs_to_the_next_tag() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut layers: Vec<Blob> = (0..4).map(|seed| Blob::layer(seed, 100_000)).collect();
    Image::new(layers.clone()).push(&registry, "r", "latest");
    let run = || Run::pull(&dir, &registry.name("r")).args(&["--no-tar", "--progress", "json"]);
    run().status(0);
    layers[3] = Blob::layer(77, 90_000);
    let image = Image::new(layers);
    image.push(&registry, "r", "latest");
    let outcome = run().status(0);
    assert_eq!(outcome.downloaded(), image.layers[3].data().len() as u64);
    let mut expected: Vec<String> = image.layers.iter().map(Blob::path).collect();
    expected.extend([
        image.config.path(),
        format!("blobs/{}", image.digest().replace(':', "/")),
        "oci-layout".into(),
        "index.json".into(),
        "manifest.json".into(),
    ]);
    expected.sort();
    assert_eq!(files_below(&dir.join("r-latest")), expected);
    assert_eq!(dir.names(), ["r-latest"]);
}

#[test]
fn a_directory_with_other_files_is_not_replaced() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    for name in ["thesis.txt", "blobs/thesis.txt", "blobs/sha256/thesis.txt"] {
        dir.write(&format!("l/{name}"), "three years");
        for flag in ["--no-tar", "--no-rm"] {
            let outcome = Run::pull(&dir, &registry.name("r"))
                .args(&[flag, "--layers-dir", "l"])
                .status(7);
            assert!(outcome.stderr.contains("thesis.txt"), "{}", outcome.stderr);
        }
        assert_eq!(dir.names(), ["l"]);
        assert!(dir.join("l").join(name).exists());
        std::fs::remove_dir_all(dir.join("l")).unwrap();
    }
    dir.write("l", "a file");
    Run::pull(&dir, &registry.name("r"))
        .args(&["--no-tar", "--layers-dir", "l"])
        .fails(7, "not a directory");
    std::fs::remove_file(dir.join("l")).unwrap();
    std::os::unix::fs::symlink("/tmp", dir.join("l")).unwrap();
    Run::pull(&dir, &registry.name("r"))
        .args(&["--no-tar", "--layers-dir", "l"])
        .fails(7, "not a directory");
    assert!(registry.seen().is_empty());
}

#[test]
fn a_limited_rate_is_kept_and_interrupted_by_nothing() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..4).map(|seed| Blob::layer(seed, 250_000)).collect());
    image.push(&registry, "r", "latest");
    let archive = Run::pull(&dir, &registry.name("r"))
        .args(&["--limit-rate", "400k", "--timeout", "1"])
        .archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    // A megabyte takes two and a half seconds then: not one, whatever the machine.
    assert!(
        archive.outcome.time > Duration::from_millis(1500),
        "{:?}",
        archive.outcome.time
    );
}

#[test]
fn a_new_tag_downloads_only_what_an_older_archive_has_not() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut layers: Vec<Blob> = (0..12).map(|seed| Blob::layer(seed, 50_000)).collect();
    let old = Image::new(layers.clone());
    old.push(&registry, "r", "old");
    layers[11] = Blob::layer(99, 50_000);
    let new = Image::new(layers);
    new.push(&registry, "r", "new");
    let archive = Run::pull(&dir, &registry.name("r:old")).archive();
    let from = archive.path.display().to_string();
    let fetched = |registry: &Registry| -> Vec<String> {
        let seen = registry.seen();
        let layers = seen.iter().filter(|seen| seen.target.contains("/blobs/"));
        layers
            .map(|seen| seen.target.rsplit('/').next().unwrap().to_owned())
            .collect()
    };
    for more in [&["-o", "new.tar"][..], &["--no-tar"], &["-o", "-"]] {
        registry.forget();
        let outcome = Run::pull(&dir, &registry.name("r:new"))
            .args(&["--reuse", &from])
            .args(more)
            .within(TO_FILE)
            .status(0);
        outcome.is_small();
        let mut expected = vec![new.config.digest.clone(), new.layers[11].digest.clone()];
        let mut found = fetched(&registry);
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{more:?}");
    }
    // The archive that is about to be replaced is reused.
    registry.forget();
    std::fs::rename(&archive.path, dir.join("r-new.tar")).unwrap();
    Run::pull(&dir, &registry.name("r:new"))
        .archive()
        .holds(&new, Some(&registry.name("r:new")));
    assert_eq!(fetched(&registry).len(), 2);
}

#[test]
fn what_an_archive_only_claims_to_have_is_downloaded() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..3).map(|seed| Blob::layer(seed, 700_000)).collect());
    image.push(&registry, "r", "latest");
    let name = registry.name("r");
    let whole = Run::pull(&dir, &name).archive();
    // One layer is damaged in the archive, and the same command repairs it.
    let mut bytes = whole.bytes.clone();
    let noise = &image.layers[1].data()[300_000..300_032];
    let at = bytes
        .windows(32)
        .position(|window| window == noise)
        .unwrap();
    bytes[at] ^= 1;
    std::fs::write(&whole.path, &bytes).unwrap();
    registry.forget();
    let again = Run::pull(&dir, &name)
        .args(&["--progress", "json"])
        .archive();
    assert!(again.bytes == whole.bytes);
    assert_eq!(
        again.outcome.downloaded(),
        image.layers[1].data().len() as u64
    );
    assert_eq!(registry.count("/blobs/"), 2);
}

#[test]
fn an_archive_to_be_reused_has_to_be_one() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let name = registry.name("r");
    Run::pull(&dir, &name)
        .args(&["--reuse", "none.tar"])
        .fails(1, "none.tar");
    dir.write("x.tar", "no archive at all");
    Run::pull(&dir, &name)
        .args(&["--reuse", "x.tar"])
        .fails(1, "x.tar");
    // A file that will be replaced may be anything.
    dir.write("r-latest.tar", "no archive at all");
    Run::pull(&dir, &name).archive();
}

fn inflated(image: &Image) -> Vec<(String, Vec<u8>)> {
    let layers = image.layers.iter().map(|layer| {
        let mut plain = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::MultiGzDecoder::new(&layer.data()[..]),
            &mut plain,
        )
        .unwrap();
        (layer.diff_id.clone(), plain)
    });
    layers.collect()
}

#[test]
fn uncompressed_layers_are_what_the_config_calls_them() {
    for docker in [false, true] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let mut layers: Vec<Blob> = (0..3).map(|seed| Blob::layer(seed, 200_000)).collect();
        layers.push(layers[0].clone());
        let image = Image::new(layers);
        let image = if docker { image.docker() } else { image };
        image.push(&registry, "r", "latest");
        let name = registry.name("r");
        let archive = Run::pull(&dir, &name).arg("--gunzip").archive();
        archive.outcome.is_small();
        for (diff_id, plain) in inflated(&image) {
            let path = format!("blobs/{}", diff_id.replace(':', "/"));
            assert!(archive.files[&path] == plain);
            assert!(archive.text("manifest.json").contains(&path));
        }
        let index = archive.text("index.json");
        let manifest = archive
            .names
            .iter()
            .find(|name| {
                name.strip_prefix("blobs/sha256/")
                    .is_some_and(|hex| index.contains(hex))
            })
            .unwrap();
        let manifest = archive.text(manifest);
        assert_eq!(manifest.matches(".tar\"").count(), 4, "{manifest}");
        assert!(!manifest.contains("gzip"), "{manifest}");
        assert_eq!(dir.names(), ["r-latest.tar"]);
        // The replaced archive is reused here, too.
        registry.forget();
        let again = Run::pull(&dir, &name).arg("--gunzip").archive();
        assert!(again.bytes == archive.bytes);
        assert_eq!(registry.count("/blobs/"), 1, "only the config is asked for");
    }
}

#[test]
fn layers_that_inflate_to_something_else_are_refused() {
    let cases: [(&str, Vec<u8>, String, i32, &str); 5] = [
        (
            "another diff ID",
            gzip(&layer_tar(1, 1000)),
            sha256(b"x"),
            6,
            "diff ID",
        ),
        (
            "truncated",
            gzip(&layer_tar(1, 9000))[..5000].to_vec(),
            sha256(b"x"),
            1,
            "is truncated",
        ),
        (
            "data after it",
            [gzip(&layer_tar(1, 1000)), b"more".to_vec()].concat(),
            sha256(&layer_tar(1, 1000)),
            1,
            "other data follows",
        ),
        ("xz", b"\xfd7zXZ\0and so on".to_vec(), sha256(b"x"), 1, "xz"),
        (
            "a bomb",
            bomb(10 << 30),
            sha256(b"x"),
            1,
            "raise the limit with --inflate-limit",
        ),
    ];
    for (what, bytes, diff_id, status, text) in cases {
        let registry = Registry::start();
        Image::new(vec![Blob::bytes(image::GZIP, bytes, diff_id)]).push(&registry, "r", "latest");
        for more in [&["-o", "x.tar"][..], &["--no-tar"], &["-o", "-"]] {
            let dir = Dir::new();
            let outcome = Run::pull(&dir, &registry.name("r"))
                .arg("--gunzip")
                .args(more)
                .within(TO_FILE)
                .status(status);
            assert!(outcome.stderr.contains(text), "{what}: {}", outcome.stderr);
            assert_eq!(
                outcome
                    .stderr
                    .lines()
                    .filter(|line| line.starts_with("dockersave: "))
                    .count(),
                1
            );
            outcome.is_small();
            let left = dir.names();
            let finished = left
                .iter()
                .find(|name| name.as_str() == "x.tar" || name.as_str() == "r-latest");
            assert!(finished.is_none(), "{what} left {left:?}");
        }
    }
}

/// Compressed zeros.
fn bomb(length: u64) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![0; 1 << 20];
    for _ in 0..length >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    encoder.finish().unwrap()
}

#[test]
fn a_limit_that_is_raised_lets_a_layer_of_zeros_through() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let plain = vec![0; 64 << 20];
    let layer = Blob::bytes(image::GZIP, bomb(64 << 20), sha256(&plain));
    Image::new(vec![layer]).push(&registry, "r", "latest");
    let run = || Run::pull(&dir, &registry.name("r")).arg("--gunzip");
    run()
        .args(&["--inflate-limit", "63M"])
        .fails(1, "more than 66060288 bytes");
    run().args(&["--inflate-limit", "64M"]).status(0).is_small();
}

fn unxz(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut child = match Command::new("xz")
        .arg("-dc")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => {
            eprintln!("skipped: xz cannot be run: {error}");
            return None;
        }
    };
    let (mut stdin, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "xz says that it is damaged");
    Some(output.stdout)
}

#[test]
fn an_archive_in_xz_is_the_archive() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let zeros = vec![0; 3 << 20];
    let image = Image::new(vec![
        Blob::layer(1, 300_000),
        Blob::bytes(
            "application/vnd.oci.image.layer.v1.tar",
            zeros.clone(),
            sha256(&zeros),
        ),
    ]);
    image.push(&registry, "r", "latest");
    let name = registry.name("r");
    let plain = Run::pull(&dir, &name).archive();
    let outcome = Run::pull(&dir, &name)
        .args(&["--xz", "--no-rm", "--progress", "json"])
        .status(0);
    assert_eq!(outcome.stdout, "r-latest.tar.xz\n");
    for doing in ["compressing", "writing"] {
        let stage = format!(r#"{{"event":"stage","doing":"{doing}""#);
        assert_eq!(outcome.stderr.matches(&stage).count(), 1, "{doing}");
    }
    assert!(outcome.peak <= 40 << 20, "{} bytes resident", outcome.peak);
    let compressed = std::fs::read(dir.join("r-latest.tar.xz")).unwrap();
    assert!(compressed.len() < 500_000);
    if let Some(bytes) = unxz(&compressed) {
        assert!(bytes == plain.bytes);
    }
    Run::pull(&dir, &name)
        .args(&["--xz", "-o", "-"])
        .within(TO_FILE)
        .status(0);
    assert!(
        std::fs::read(dir.join("out.tar")).unwrap() == compressed,
        "the same in a stream"
    );
    assert!(tar_of(&dir.join("r-latest"), &plain.names) == plain.bytes);
    assert_eq!(
        dir.names(),
        ["out.tar", "r-latest", "r-latest.tar", "r-latest.tar.xz"]
    );
}

#[test]
fn what_is_made_of_a_pull_goes_on_where_the_pull_was() {
    for more in [&["--xz"][..], &["--gunzip"], &["--gunzip", "--no-tar"]] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let image = Image::new((0..3).map(|seed| Blob::layer(seed, 900_000)).collect());
        image.push(&registry, "r", "latest");
        registry.faults(Fault::new(&image.layers[2].digest, Action::Close(10)).always());
        let run = || {
            Run::new(&dir, &["--insecure", "--retries", "0", "--jobs", "1"])
                .args(&["--progress", "json", &registry.name("r")])
                .args(more)
        };
        run().status(5);
        assert_eq!(dir.names().len(), 1, "{:?}", dir.names());
        registry.behave();
        let outcome = run().status(0);
        assert!(
            outcome.downloaded() < 1_000_000,
            "{more:?}: {}",
            outcome.downloaded()
        );
        assert_eq!(dir.names().len(), 1, "{:?}", dir.names());
    }
}

#[test]
fn what_is_kept_of_a_stream_counts_once() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let plain = layer_tar(1, 70_000);
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let image = Image::new(vec![Blob::bytes(kind, plain.clone(), sha256(&plain))]);
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r")).archive();
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["--gunzip", "--reuse", "r-latest.tar"])
        .args(&["-o", "-", "--progress", "json"])
        .within(TO_FILE)
        .status(0);
    let last = outcome.stderr.lines().last().unwrap();
    let kept = format!(r#""downloaded":0,"kept":{}}}"#, plain.len());
    assert!(last.ends_with(&kept), "{last}");
}

/// The plain bytes of a layer as one zstd frame, which says so many bytes of itself.
fn zstd_frame(plain: &[u8], says: u64) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x58];
    frame.extend_from_slice(&says.to_le_bytes());
    let blocks: Vec<&[u8]> = plain.chunks(100_000).collect();
    for (number, block) in blocks.iter().enumerate() {
        let last = u32::from(number + 1 == blocks.len());
        frame.extend_from_slice(&(((block.len() as u32) << 3) | last).to_le_bytes()[..3]);
        frame.extend_from_slice(block);
    }
    frame
}

#[test]
fn sizes_that_layers_state_are_believed_only_as_far_as_they_are_true() {
    let tars: Vec<Vec<u8>> = (0..9).map(|seed| layer_tar(seed, 300_000)).collect();
    let whole = |seed: usize| gzip(&tars[seed]);
    let parts = |seed: usize, at: usize| {
        let (first, second) = tars[seed].split_at(at);
        [gzip(first), gzip(second)].concat()
    };
    const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    let right = [
        (image::GZIP, whole(0), 0),
        (ZSTD, zstd_frame(&tars[1], tars[1].len() as u64), 1),
        ("application/vnd.oci.image.layer.v1.tar", tars[2].clone(), 2),
        (image::GZIP, gzip(b""), 9),
    ];
    let wrong: [(&str, Vec<u8>, usize); 6] = [
        // Members: the last one is nearly all, next to nothing, and nothing.
        (image::GZIP, parts(3, 700), 3),
        (image::GZIP, parts(4, tars[4].len() - 700), 4),
        (image::GZIP, [whole(5), gzip(b"")].concat(), 5),
        // What stands behind it is no trailer.
        (image::GZIP, [whole(6), vec![0; 4]].concat(), 6),
        (image::GZIP, [whole(7), vec![0; 1]].concat(), 7),
        // Frames: each counts itself alone.
        (
            ZSTD,
            [
                zstd_frame(&tars[8][..5000], 5000),
                zstd_frame(&tars[8][5000..], tars[8].len() as u64 - 5000),
            ]
            .concat(),
            8,
        ),
    ];
    let blob = |(media, bytes, seed): &(&str, Vec<u8>, usize)| {
        let plain = tars.get(*seed).map_or(&[][..], Vec::as_slice);
        Blob::bytes(media, bytes.clone(), sha256(plain))
    };
    let mut cases = vec![(right.iter().map(blob).collect::<Vec<_>>(), false)];
    for one in &wrong {
        cases.push((right[..2].iter().chain([one]).map(blob).collect(), true));
    }
    for (number, (layers, measured)) in cases.into_iter().enumerate() {
        let (registry, dir) = (Registry::start(), Dir::new());
        Image::new(layers).push(&registry, "r", "latest");
        let run = |more: &[&str]| {
            Run::pull(&dir, &registry.name("r"))
                .arg("--gunzip")
                .args(more)
        };
        // A stream cannot be taken back: its layers are measured.
        run(&["-o", "-"]).within(TO_FILE).status(0);
        let expected = std::fs::read(dir.join("out.tar")).unwrap();
        std::fs::remove_file(dir.join("out.tar")).unwrap();
        let outcome = run(&["-o", "x.tar", "--progress", "json"]).status(0);
        outcome.is_small();
        let stage = r#"{"event":"stage","doing":"inflating""#;
        assert_eq!(outcome.stderr.contains(stage), measured, "case {number}");
        assert!(
            std::fs::read(dir.join("x.tar")).unwrap() == expected,
            "case {number}"
        );
        run(&["-o", "x.tar.xz", "--xz"]).status(0);
        if let Some(bytes) = unxz(&std::fs::read(dir.join("x.tar.xz")).unwrap()) {
            assert!(bytes == expected, "case {number}, compressed");
        }
        run(&["--no-tar"]).status(0);
        let names = |bytes: &[u8]| -> Vec<String> {
            let mut tar = tar::Archive::new(bytes);
            let entries = tar.entries().unwrap();
            entries
                .map(|entry| entry.unwrap().path().unwrap().to_str().unwrap().to_owned())
                .collect()
        };
        let directory = tar_of(&dir.join("r-latest"), &names(&expected));
        assert!(directory == expected, "case {number}, a directory");
    }
}

#[test]
fn a_layer_that_is_not_what_its_size_says_leaves_nothing_behind() {
    let plain = layer_tar(1, 200_000);
    let mut lies = gzip(&plain);
    let end = lies.len();
    for says in [
        0u32,
        1,
        plain.len() as u32 + 1,
        plain.len() as u32 - 1,
        u32::MAX,
    ] {
        lies[end - 4..].copy_from_slice(&says.to_le_bytes());
        let registry = Registry::start();
        Image::new(vec![Blob::bytes(image::GZIP, lies.clone(), sha256(&plain))])
            .push(&registry, "r", "latest");
        let dir = Dir::new();
        let outcome = Run::pull(&dir, &registry.name("r"))
            .arg("--gunzip")
            .status(1);
        assert!(
            outcome.stderr.contains("does not match its checksum"),
            "{says}: {}",
            outcome.stderr
        );
        assert_eq!(dir.names(), ["r-latest.tar.partial"], "{says}");
    }
}
