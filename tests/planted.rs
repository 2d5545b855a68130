//! Planted files, links, directories, FIFOs and journals of other users: refused in one line, and
//! nothing is changed.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
use crate::util::{Dir, Run};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn pushed(registry: &Registry) -> Image {
    let image = Image::new(vec![Blob::layer(1, 1 << 20), Blob::layer(2, 3000)]);
    image.push(registry, "r", "latest");
    image
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Every file below a directory, with its content, mode and kind; links as they are.
fn snapshot(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let about = path.symlink_metadata().unwrap();
        let content = match about.is_file() {
            true => std::fs::read(&path).unwrap(),
            false => Vec::new(),
        };
        found.push(format!("{path:?} {:o} {content:?}", about.mode()));
        if about.is_dir() {
            found.extend(snapshot(&path));
        }
    }
    found.sort();
    found
}

type Planted = (&'static str, fn(&Dir), &'static str);

/// Plants each of these, pulls with these flags, and expects a refusal before the first request.
fn refused(args: &[&str], planted: &[Planted]) {
    let registry = Registry::start();
    pushed(&registry);
    for (what, plant, told) in planted {
        let dir = Dir::new();
        let victim = dir.write("victim/letter", "mine");
        dir.write("victim/photo", "mine, too");
        plant(&dir);
        let before = snapshot(dir.path());
        let outcome = Run::pull(&dir, &registry.name("r"))
            .args(args)
            .limit(10)
            .outcome();
        let text = &outcome.stderr;
        assert_eq!(outcome.status.code(), Some(7), "{what}: {text}");
        assert!(text.contains(told), "{what}: no {told:?} in {text}");
        assert_eq!(text.trim().lines().count(), 1, "{what}: {text}");
        assert_eq!(snapshot(dir.path()), before, "{what}: {text}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
        assert!(registry.seen().is_empty(), "{what}: the registry was asked");
    }
}

#[test]
fn a_partial_directory_that_leads_elsewhere() {
    refused(
        &["--no-tar", "--layers-dir", "out"],
        &[
            (
                "a link in its place",
                |dir| symlink("victim", dir.join("out.partial")).unwrap(),
                "symbolic link",
            ),
            (
                "a link for blobs",
                |dir| {
                    std::fs::create_dir(dir.join("out.partial")).unwrap();
                    symlink("../victim", dir.join("out.partial/blobs")).unwrap();
                },
                "out.partial/blobs: it is a symbolic link",
            ),
            (
                "a link for an algorithm",
                |dir| {
                    std::fs::create_dir_all(dir.join("out.partial/blobs")).unwrap();
                    symlink("../../victim", dir.join("out.partial/blobs/sha512")).unwrap();
                },
                "blobs/sha512: it is a symbolic link",
            ),
            (
                "a link for the journal",
                |dir| {
                    std::fs::create_dir(dir.join("out.partial")).unwrap();
                    symlink("../victim/letter", dir.join("out.partial/journal")).unwrap();
                },
                "journal: it is a symbolic link",
            ),
            (
                "a hard link for a document",
                |dir| {
                    std::fs::create_dir(dir.join("out.partial")).unwrap();
                    let to = dir.join("out.partial/index.json");
                    std::fs::hard_link(dir.join("victim/letter"), to).unwrap();
                },
                "hard links",
            ),
            (
                "a FIFO for a document",
                |dir| {
                    std::fs::create_dir(dir.join("out.partial")).unwrap();
                    fifo(&dir.join("out.partial/manifest.json"));
                },
                "not a regular file",
            ),
            (
                "somebody's files in it",
                |dir| drop(dir.write("out.partial/blobs/sha256/letter", "mine")),
                "not part of an image",
            ),
            (
                "a directory that others may write",
                |dir| {
                    std::fs::create_dir(dir.join("out.partial")).unwrap();
                    mode(&dir.join("out.partial"), 0o775);
                },
                "other users can write to it",
            ),
            (
                "what an earlier run replaced, as a link",
                |dir| symlink("victim", dir.join("out.partial.old")).unwrap(),
                "symbolic link",
            ),
            (
                "what an earlier run replaced, with somebody's files",
                |dir| drop(dir.write("out.partial.old/letter", "mine")),
                "not part of an image",
            ),
            (
                "a link for blobs in what is to be replaced",
                |dir| {
                    std::fs::create_dir(dir.join("out")).unwrap();
                    symlink("../victim", dir.join("out/blobs")).unwrap();
                },
                "out/blobs: it is a symbolic link",
            ),
            (
                "a link for a document in what is to be replaced",
                |dir| {
                    std::fs::create_dir(dir.join("out")).unwrap();
                    symlink("../victim/letter", dir.join("out/index.json")).unwrap();
                },
                "out/index.json: it is a symbolic link",
            ),
        ],
    );
}

#[test]
fn a_link_for_a_blob_in_a_partial_directory() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = pushed(&registry);
    let victim = dir.write("victim", "mine");
    for hard in [false, true] {
        let place = dir.join("out.partial").join(image.layers[0].path());
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        match hard {
            true => std::fs::hard_link(&victim, &place).unwrap(),
            false => symlink(&victim, &place).unwrap(),
        }
        Run::pull(&dir, &registry.name("r"))
            .args(&["--no-tar", "--layers-dir", "out"])
            .fails(7, "link");
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
        std::fs::remove_file(&place).unwrap();
    }
    // Without them it goes on in the same directory.
    Run::pull(&dir, &registry.name("r"))
        .args(&["--no-tar", "--layers-dir", "out"])
        .status(0);
    assert_eq!(dir.names(), ["out", "victim"]);
}

#[test]
fn a_partial_file_that_is_somebody_elses() {
    let more: &[Planted] = &[
        (
            "a hard link",
            |dir| {
                let to = dir.join("x.tar.partial");
                std::fs::hard_link(dir.join("victim/letter"), to).unwrap();
            },
            "hard links",
        ),
        (
            "a FIFO",
            |dir| fifo(&dir.join("x.tar.partial")),
            "not a regular file",
        ),
        (
            "a file that others may write",
            |dir| mode(dir.write("x.tar.partial", "x").as_ref(), 0o664),
            "other users can write to it",
        ),
        (
            "a link in the lender's place",
            |dir| symlink("victim/letter", dir.join("x.tar.partial.old")).unwrap(),
            "symbolic link",
        ),
        (
            "a hard link in the lender's place",
            |dir| {
                let to = dir.join("x.tar.partial.old");
                std::fs::hard_link(dir.join("victim/letter"), to).unwrap();
            },
            "hard links",
        ),
    ];
    refused(&["-o", "x.tar"], more);
    refused(&["-o", "x.tar", "--restart"], more);
    refused(
        &["-o", "x.tar", "--xz"],
        &[
            (
                "a hard link in the new file's place",
                |dir| {
                    let to = dir.join("x.tar.partial.new");
                    std::fs::hard_link(dir.join("victim/letter"), to).unwrap();
                },
                "hard links",
            ),
            (
                "a link in the new file's place",
                |dir| symlink("victim/letter", dir.join("x.tar.partial.new")).unwrap(),
                "symbolic link",
            ),
            (
                "a FIFO in the new file's place",
                |dir| fifo(&dir.join("x.tar.partial.new")),
                "not a regular file",
            ),
        ],
    );
    if is_root() {
        refused(
            &["-o", "x.tar"],
            &[(
                "another user's file",
                |dir| {
                    let path = dir.write("x.tar.partial", "");
                    std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
                },
                "belongs to another user",
            )],
        );
        refused(
            &["--no-tar", "--layers-dir", "out"],
            &[
                (
                    "another user's directory",
                    |dir| {
                        std::fs::create_dir(dir.join("out.partial")).unwrap();
                        let path = dir.join("out.partial");
                        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
                    },
                    "belongs to another user",
                ),
                (
                    "another user's directory to be replaced",
                    |dir| {
                        std::fs::create_dir(dir.join("out")).unwrap();
                        let path = dir.join("out");
                        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
                    },
                    "belongs to another user",
                ),
            ],
        );
    }
}

/// In a shared directory such as /tmp, another user may have created this user's output.
#[test]
fn an_unprivileged_user_in_a_directory_for_all() {
    if !is_root() {
        return;
    }
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry);
    let binary = dir.join("dockersave");
    std::fs::copy(env!("CARGO_BIN_EXE_dockersave"), &binary).unwrap();
    mode(dir.path(), 0o1777);
    let pull = || {
        Run::pull(&dir, &registry.name("r"))
            .arg("-o")
            .arg("x.tar")
            .within("setpriv=$(command -v setpriv) && exec \"$setpriv\" --reuid 65534 --regid 65534 --clear-groups \"$@\"")
            .env("PATH", "/usr/bin:/bin")
            .outcome()
    };
    let path = dir.write("x.tar.partial", "root's");
    for bits in [0o644, 0o666] {
        mode(path.as_ref(), bits);
        let outcome = pull();
        if outcome.status.code() == Some(126) {
            eprintln!(
                "skipped: no setpriv, or the program cannot be run: {}",
                outcome.stderr
            );
            return;
        }
        assert_eq!(outcome.status.code(), Some(7), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains("belongs to another user"),
            "{}",
            outcome.stderr
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"root's");
    }
    std::fs::remove_file(&path).unwrap();
    let outcome = pull();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert_eq!(std::fs::metadata(dir.join("x.tar")).unwrap().uid(), 65534);
}

#[test]
fn a_file_system_without_owners_and_modes_is_no_reason_to_refuse() {
    let place = Dir::new();
    let disk = place.join("disk");
    let file = std::fs::File::create(&disk).unwrap();
    file.set_len(64 << 20).unwrap();
    let made = Command::new("mkfs.vfat").arg(&disk).output();
    let dir = Dir::new();
    let mounted = made.is_ok_and(|output| output.status.success())
        && Command::new("mount")
            .args(["-t", "vfat", "-o", "loop,uid=12345,umask=000"])
            .arg(&disk)
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
    if !mounted {
        eprintln!("skipped: no vfat here");
        return;
    }
    let registry = Registry::start();
    pushed(&registry);
    let outcomes: Vec<_> = [&["-o", "x.tar"][..], &["--no-tar", "--layers-dir", "out"]]
        .into_iter()
        .map(|args| {
            // What an earlier run left there.
            std::fs::write(dir.join("x.tar.partial"), "").unwrap();
            std::fs::create_dir_all(dir.join("out.partial")).unwrap();
            Run::pull(&dir, &registry.name("r")).args(args).outcome()
        })
        .collect();
    let _ = Command::new("umount").arg(dir.path()).status();
    for outcome in outcomes {
        assert!(outcome.status.success(), "{}", outcome.stderr);
    }
}

#[test]
fn a_planted_journal_costs_no_memory() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = pushed(&registry);
    // One blob of 8000 chunks of 4 GiB each, of which none is there: a journal of 64 MB.
    let (mut head, size) = (Vec::new(), 64_u64 << 20);
    head.extend_from_slice(b"dockersave\0jnl1\0");
    head.extend_from_slice(&[7; 32]);
    head.extend_from_slice(&(u64::MAX / 2).to_le_bytes());
    let rows = 120_u64;
    head.extend_from_slice(&rows.to_le_bytes());
    for _ in 0..rows {
        let mut row = [0; 88];
        row[0] = 1;
        row[80..].copy_from_slice(&((32_u64 << 30) - 1).to_le_bytes());
        head.extend_from_slice(&row);
    }
    let crc = crc32(&head);
    head.resize((size - 32) as usize, 0);
    let mut trailer = [0; 32];
    trailer[..16].copy_from_slice(b"dockersave\0jnl1\0");
    trailer[24..28].copy_from_slice(&crc.to_le_bytes());
    head.extend_from_slice(&trailer);
    for name in ["r-latest.tar.partial", "r-latest.tar.partial.old"] {
        dir.write(name, &head);
    }
    Run::pull(&dir, &registry.name("r"))
        .arg("--dry-run")
        .status(0)
        .is_small();
    let archive = Run::pull(&dir, &registry.name("r")).archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    archive.outcome.is_small();
}

/// CRC-32 (ISO 3309), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
