//! Conventions: inherited signal settings, file systems without fsync, default names that never
//! replace another repository's archive.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
use crate::util::{Dir, Run};
use std::process::Command;
use std::time::Duration;

fn signal(child: &std::process::Child, name: &str) {
    let name = format!("-{name}");
    let status = Command::new("kill")
        .args([&name, &child.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 2 << 20)]);
    image.push(&registry, "r", "latest");
    for (ignored, sent, survives) in [
        ("HUP", "HUP", true),
        ("INT", "INT", true),
        ("TERM", "TERM", true),
        ("HUP INT TERM", "TERM", true),
        // Only those.
        ("HUP", "TERM", false),
        ("INT", "HUP", false),
    ] {
        registry.pace(1 << 20);
        let before = registry.blob_bytes();
        let script = format!("trap '' {ignored}; exec \"$@\"");
        let mut child = Run::pull(&dir, &registry.name("r")).within(&script).spawn();
        while registry.blob_bytes() - before < 200_000 {
            if let Some(status) = child.try_wait().unwrap() {
                let mut told = String::new();
                std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut told)
                    .unwrap();
                panic!("{ignored}, {sent}: {status}: {told}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        signal(&child, sent);
        signal(&child, sent);
        std::thread::sleep(Duration::from_millis(50));
        registry.pace(0);
        let status = child.wait().unwrap();
        assert_eq!(status.success(), survives, "{ignored}, {sent}: {status}");
        assert_eq!(dir.join("r-latest.tar").exists(), survives);
        for name in dir.names() {
            std::fs::remove_file(dir.join(&name)).unwrap();
        }
    }
}

/// Makes system calls fail, if processes may be traced.
fn failing(error: &str) -> Option<String> {
    let script = format!(
        "exec strace -qq -f -o trace -e trace=fsync,fdatasync,syncfs -e inject=fsync,fdatasync,syncfs:error={error} \"$@\""
    );
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no strace here");
        return None;
    }
    Some(script)
}

#[test]
fn a_file_system_without_fsync_is_noted_and_one_that_fails_is_a_failure() {
    let registry = Registry::start();
    Image::small(1).push(&registry, "r", "latest");
    for (error, text) in [
        ("EINVAL", None),
        ("EOPNOTSUPP", None),
        ("ENOSYS", None),
        ("EIO", Some("Input/output error")),
        ("ENOSPC", Some("No space left")),
    ] {
        let Some(script) = failing(error) else { return };
        for args in [
            &["-o", "x.tar"][..],
            &["-o", "x.tar", "--xz"],
            &["-o", "x.tar", "--no-rm"],
            &["--no-tar", "--layers-dir", "x"],
        ] {
            let dir = Dir::new();
            let outcome = Run::pull(&dir, &registry.name("r"))
                .args(args)
                .within(&script)
                .env("PATH", "/usr/bin:/bin")
                .outcome();
            let told = &outcome.stderr;
            let code = outcome.status.code();
            match text {
                None => {
                    assert_eq!(code, Some(0), "{error} {args:?}: {told}");
                    assert!(
                        told.contains("does not support fsync"),
                        "{error} {args:?}: {told}"
                    );
                }
                Some(text) => {
                    assert_eq!(code, Some(7), "{error} {args:?}: {told}");
                    assert!(told.contains(text), "{error} {args:?}: {told}");
                    assert!(!dir.join("x.tar").exists() && !dir.join("x").exists());
                }
            }
        }
    }
}

#[test]
fn a_name_that_was_not_chosen_replaces_no_other_repository() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (one, two) = (Image::small(1), Image::small(2));
    one.push(&registry, "co-l", "1");
    two.push(&registry, "co/l", "1");
    one.push(&registry, "co/l", "2");
    let pull = |name: &str| Run::pull(&dir, &registry.name(name));
    for (more, name) in [
        (&[][..], "co-l-1.tar"),
        (&["--format", "oci"], "co-l-1.tar"),
        (&["--no-tar"], "co-l-1"),
    ] {
        pull("co-l:1").args(more).status(0);
        registry.forget();
        let outcome = pull("co/l:1").args(more).fails(7, "co-l:1");
        assert!(
            outcome.stderr.contains("choose another name"),
            "{}",
            outcome.stderr
        );
        pull("co/l:1")
            .args(more)
            .arg("--dry-run")
            .fails(7, "co-l:1");
        assert!(registry.seen().is_empty());
        // The same repository, and an explicit name.
        pull("co-l:1").args(more).status(0);
        match more {
            ["--no-tar"] => pull("co/l:1")
                .args(more)
                .args(&["--layers-dir", name])
                .status(0),
            _ => pull("co/l:1")
                .args(more)
                .args(&["--tarname", name])
                .status(0),
        };
        pull("co/l:1").args(more).status(0);
        assert_eq!(dir.names(), [name]);
        let path = dir.join(name);
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
    }
    // A file without an image name is replaced.
    dir.write("co-l-1.tar", "no archive");
    pull("co/l:1")
        .archive()
        .holds(&two, Some(&registry.name("co/l:1")));
    // Two that would have the same name are refused before anybody is asked.
    for (one, other) in [("co-l:1", "co/l:1"), ("co/l:1", "co-l:1")] {
        registry.forget();
        let other = registry.name(other);
        pull(one)
            .arg(&other)
            .fails(2, "would both be written to co-l-1.tar");
        assert!(registry.seen().is_empty());
    }
    pull("co/l:1").status(0);
}

#[test]
fn a_platform_is_given_once() {
    let dir = Dir::new();
    for args in [
        ["--platform", "linux/arm64", "--platform", "linux/amd64"],
        ["--platform", "linux/arm64", "--arch", "amd64"],
        ["--arch", "arm64", "--arch", "amd64"],
    ] {
        Run::pull(&dir, "r").args(&args).fails(2, "--all-platforms");
    }
}
