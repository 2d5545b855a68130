//! Tars of all dialects, at random: what `--verify` calls sound is the same to every reader.

use crate::registry::image::{noise, sha256};
use crate::util::Dir;
use dockersave::verify_reader;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

/// Pseudorandom numbers from a seed.
struct Random(Vec<u8>, usize);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.1 += 2;

        (usize::from(self.0[self.1 - 2]) << 8 | usize::from(self.0[self.1 - 1])) % most
    }

    fn of<'t, T: ?Sized>(&mut self, these: &[&'t T]) -> &'t T {
        these[self.below(these.len())]
    }

    /// The first of them nearly always.
    fn seldom<'t, T: ?Sized>(&mut self, these: &[&'t T]) -> &'t T {
        match self.below(8) {
            0 => self.of(these),
            _ => these[0],
        }
    }
}

fn pad(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A header block; `size` as written in it.
fn head(random: &mut Random, name: &[u8], kind: u8, size: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    put(&mut block, 0, &name[..name.len().min(100)]);
    put(
        &mut block,
        100,
        random.seldom(&[b"0000644\0", b"000644 \0", b"zzzzzzz\0", b"       \0"]),
    );
    put(&mut block, 108, b"0000000\x000000000\0");
    put(&mut block, 124, size);
    let times: [&[u8]; 4] = [
        b"00000000000\0",
        b"14523537300 ",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0",
        b"\x81",
    ];
    put(&mut block, 136, random.seldom(&times));
    block[156] = kind;
    let magics = [
        b"ustar\x0000",
        b"ustar  \0",
        b"\0\0\0\0\0\0\0\0",
        b"ustar\0\0\0",
        b"ustarx00",
        b"USTAR\x0000",
    ];
    put(
        &mut block,
        257,
        [magics[random.below(3)], random.seldom(&magics)][random.below(2)],
    );
    if random.below(12) == 0 {
        put(
            &mut block,
            345,
            random.of(&[&b"blobs"[..], b"p", b"00000000000\0", b"a\0b"]),
        );
    }
    if random.below(40) == 0 {
        put(&mut block, 508, b"tar\0");
    }
    if random.below(40) == 0 {
        put(&mut block, 98, b"\0x");
    }
    summed(block, random.below(60) == 0)
}

/// With its checksum; optionally of signed bytes, as in some old programs.
fn summed(mut block: Vec<u8>, signed: bool) -> Vec<u8> {
    put(&mut block, 148, b"        ");
    let sum: i64 = block
        .iter()
        .map(|byte| {
            if signed {
                i64::from(*byte as i8)
            } else {
                i64::from(*byte)
            }
        })
        .sum();
    put(&mut block, 148, format!("{:06o}\0 ", sum.max(0)).as_bytes());
    block
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length = length.to_string().len() + rest.len();
    }
    format!("{length}{rest}").into_bytes()
}

/// What may precede an entry.
fn before(random: &mut Random, name: &str, size: usize) -> Vec<u8> {
    let long = |random: &mut Random, kind: u8, text: &[u8]| {
        let size = format!("{:011o}\0", text.len());
        let mut block = head(random, b"././@LongLink", kind, size.as_bytes());
        block.extend(pad(text));
        block
    };
    let size = size.to_string();
    let other = *random.of(&[&"0", &"1", &"512", &"+3"]);
    let key = *random.of(&[&"path", &"size", &"linkpath"]);
    match random.below(16) {
        0 => long(random, b'x', &record("mtime", "1700000000.5")),
        1 => long(random, b'x', &record("path", name)),
        2 => long(random, b'x', &record("path", "other")),
        3 => long(random, b'x', &record("path", "manifest.json")),
        4 => long(random, b'x', &record("size", &size)),
        5 => long(random, b'x', &record("size", other)),
        6 => long(
            random,
            b'x',
            &[record("path", name), record("path", "b")].concat(),
        ),
        7 => long(random, b'x', &record(key, "")),
        8 => long(random, b'x', &record("linkpath", "a")),
        9 => long(random, b'L', format!("{name}\0").as_bytes()),
        10 => long(random, b'L', b"manifest.json\0x"),
        11 => long(random, b'K', b"a\0"),
        12 => long(random, b'g', &record("comment", "x")),
        13 => long(random, b'g', &record(key, "1")),
        14 => long(random, b'x', &record("GNU.sparse.name", "manifest.json")),
        _ => long(random, b'x', &record("path", &"n".repeat(120))),
    }
}

/// An entry, or several in one for readers that interpret its size differently.
fn entry(random: &mut Random, evil: &[u8]) -> Vec<u8> {
    let long = format!("long/{}", "n".repeat(110));
    let names = [
        "a",
        "b",
        "c",
        "d/e",
        "./f",
        "g/",
        "manifest.json",
        "h//i",
        "/j",
        "a/k",
        "oci-layout",
        &long,
    ];
    let name = random.of(&names);
    let data = match random.below(3) {
        0 => b"data".to_vec(),
        1 => evil.to_vec(),
        _ => Vec::new(),
    };
    let kind = random.seldom(&[&b'0', &0, &b'5', &b'2', &b'1', &b'7', &b'S', &b'X', &b'Z']);
    let mut bytes = Vec::new();
    for _ in 0..random.below(6).saturating_sub(3) {
        bytes.extend(before(random, name, data.len()));
    }
    let octal = format!("{:011o}\0", data.len());
    let binary = [&b"\x80\0\0\0"[..], &(data.len() as u64).to_be_bytes()].concat();
    let blanks = format!("{:>10o} \0", data.len());
    let junk = format!("{:010o}\09", data.len());
    let sizes = [
        octal.as_bytes(),
        &binary,
        blanks.as_bytes(),
        junk.as_bytes(),
        b"00000000000\0",
    ];
    let size = random.seldom(&sizes);
    bytes.extend(head(random, name.as_bytes(), *kind, size));
    if name.len() > 100 && random.below(2) == 0 {
        let text = format!("{name}\0");
        let size = format!("{:011o}\0", text.len());
        let name = [
            head(random, b"././@LongLink", b'L', size.as_bytes()),
            pad(text.as_bytes()),
        ];
        bytes = [name.concat(), bytes].concat();
    }
    bytes.extend(pad(&data));
    bytes
}

/// The files of an image; `cmd` is what it runs.
fn image(cmd: &str) -> Vec<Vec<u8>> {
    let layer = [0; 1024];
    let id = sha256(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["{cmd}"]}},"rootfs":{{"type":"layers","diff_ids":["{id}"]}}}}"#
    );
    let name = sha256(config.as_bytes()).replace("sha256:", "");
    let item = format!(r#"[{{"Config":"{name}.json","RepoTags":["x:1"],"Layers":["layer.tar"]}}]"#);
    let files = [
        ("layer.tar", &layer[..]),
        (&format!("{name}.json"), config.as_bytes()),
        ("manifest.json", item.as_bytes()),
    ];
    let plain = |(name, data): (&str, &[u8])| {
        let mut block = vec![0; 512];
        put(&mut block, 0, name.as_bytes());
        put(&mut block, 100, b"0000644\x000000000\x000000000\0");
        put(
            &mut block,
            124,
            format!("{:011o}\x0000000000000\0", data.len()).as_bytes(),
        );
        block[156] = b'0';
        put(&mut block, 257, b"ustar\x0000");
        [summed(block, false), pad(data)].concat()
    };
    files.into_iter().map(plain).collect()
}

type Files = BTreeMap<String, Vec<u8>>;

/// A name as it is unpacked.
fn cleaned(name: &str) -> String {
    let parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

fn below(root: &Path, at: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let about = path.symlink_metadata().unwrap();
        if about.is_dir() {
            below(root, &path, files);
        } else if about.is_file() {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            files.insert(name.to_owned(), std::fs::read(&path).unwrap());
        }
    }
}

/// What a program makes of the archive on the disk.
fn unpacked(dir: &Dir, program: &str, args: &[&str]) -> Files {
    let target = dir.join(program);
    let _ = std::fs::remove_dir_all(&target);
    std::fs::create_dir(&target).unwrap();
    let done = Command::new(program)
        .args(args)
        .current_dir(&target)
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let mut files = Files::new();
    below(&target, &target, &mut files);
    files
}

const PYTHON: &str = r#"
import json, sys, tarfile
with tarfile.open(sys.argv[1], "r:") as tar:
    files = [(m.name, tar.extractfile(m).read().hex()) for m in tar if m.isreg()]
print("\n".join(name + "\t" + data for name, data in files))
"#;

fn python(path: &str) -> Files {
    let done = Command::new("python3")
        .args(["-c", PYTHON, path])
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "python: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, data)| {
            let data = data.as_bytes().chunks(2).map(byte).collect();
            (cleaned(name), data)
        })
        .collect()
}

/// The `tar` crate's view.
fn rust(bytes: &[u8]) -> Files {
    let mut files = Files::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            files.insert(cleaned(&name), data);
        }
    }
    files
}

fn is_here(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        eprintln!("SKIPPED: {program} is not installed, and not compared with");
    }
    found.is_ok()
}

#[test]
fn what_is_sound_is_the_same_to_every_reader() {
    let seed: u64 = std::env::var("DOCKERSAVE_SEED").map_or(7, |seed| seed.parse().unwrap());
    let rounds: u64 = std::env::var("DOCKERSAVE_ROUNDS").map_or(300, |n| n.parse().unwrap());
    let here = ["tar", "bsdtar", "python3", "skopeo"].map(is_here);
    let dir = Dir::new();
    let mut sound = 0;
    for round in 0..rounds {
        let mut random = Random(noise(seed * 100_000 + round, 4096), 0);
        let evil = image("evil").concat();
        let mut parts = image("good");
        for _ in 0..random.below(3) + 1 {
            let at = random.below(parts.len() + 1);
            parts.insert(at, entry(&mut random, &evil));
        }
        let end = random.seldom(&[&[0_u8; 1024][..], &[0; 512], &[0; 10240], &[]]);
        let bytes = [parts.concat(), end.to_vec()].concat();
        let is_sound = verify_reader(&mut &bytes[..], "x").is_ok_and(|found| found.is_sound());
        if !is_sound {
            continue;
        }
        sound += 1;
        let path = dir.write("x.tar", &bytes);
        let expected = rust(&bytes);
        let mut views = Vec::new();
        if here[0] {
            views.push(("GNU tar", unpacked(&dir, "tar", &["-xf", &path])));
        }
        if here[1] {
            views.push(("libarchive", unpacked(&dir, "bsdtar", &["-xf", &path])));
        }
        if here[2] {
            views.push(("Python", python(&path)));
        }
        for (reader, files) in views {
            assert!(
                files == expected,
                "round {round}, seed {seed}: {reader} sees {:?}, others {:?}",
                files.keys(),
                expected.keys()
            );
        }
        // Go's reader: the image that is loaded.
        if here[3] {
            let archive = format!("docker-archive:{path}");
            let done = Command::new("skopeo")
                .args(["inspect", "--config", &archive])
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&done.stdout);
            let error = String::from_utf8_lossy(&done.stderr);
            assert!(
                text.contains("good"),
                "round {round}, seed {seed}: {text}{error}"
            );
        }
    }
    assert!(sound * 20 > rounds, "only {sound} of {rounds} were sound");
}
