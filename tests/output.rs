//! Disk and directory failures: a clear message, exit 7, and a later run resumes.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
use crate::util::{Dir, Run};
use std::process::Command;

fn pushed(registry: &Registry, mib: usize) -> Image {
    let image = Image::new(vec![Blob::layer(1, mib << 20), Blob::layer(2, 1 << 20)]);
    image.push(registry, "r", "latest");
    image
}

/// A file system of its own, where this process may mount one; unmounted at the end.
struct Mount(Dir);

impl Mount {
    fn tmpfs(options: &str) -> Option<Self> {
        Self::new(&["-t", "tmpfs", "-o", options, "none"])
    }

    fn new(args: &[&str]) -> Option<Self> {
        let dir = Dir::new();
        let status = Command::new("mount").args(args).arg(dir.path()).status();
        match status {
            Ok(status) if status.success() => Some(Self(dir)),
            _ => {
                eprintln!("skipped: mount {args:?} is not permitted here");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_disk_that_is_too_small_is_told_before_the_first_layer() {
    let Some(mount) = Mount::tmpfs("size=4m") else {
        return;
    };
    let registry = Registry::start();
    let image = pushed(&registry, 6);
    let outcome = Run::pull(&mount.0, &registry.name("r")).fails(7, "are free");
    assert!(
        outcome.stderr.contains("free some space") || outcome.stderr.contains("takes"),
        "{}",
        outcome.stderr
    );
    assert_eq!(registry.count(&image.layers[0].digest), 0);
    assert!(mount.0.names().is_empty());
}

#[test]
fn a_disk_that_fills_up_on_the_way() {
    let Some(mount) = Mount::tmpfs("size=12m") else {
        return;
    };
    let registry = Registry::start();
    let image = pushed(&registry, 8);
    registry.pace(6 << 20);
    let run = Run::pull(&mount.0, &registry.name("r")).args(&["--jobs", "2"]);
    let mut child = run.spawn();
    while registry.blob_bytes() < 2 << 20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let _ = std::fs::write(mount.0.join("other"), vec![1; 12 << 20]);
    let status = child.wait().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
    // A reserved blob may have had its room already; then nothing is wrong.
    if status.code() != Some(0) {
        assert_eq!(status.code(), Some(7), "{text}");
        assert!(
            text.contains("No space left on device; free some space and run it again"),
            "{text}"
        );
        assert!(!mount.0.names().contains(&"r-latest.tar".to_owned()));
        std::fs::remove_file(mount.0.join("other")).unwrap();
        registry.pace(0);
        Run::pull(&mount.0, &registry.name("r"))
            .archive()
            .holds(&image, Some(&registry.name("r:latest")));
    }
}

#[test]
fn a_read_only_directory() {
    let Some(mount) = Mount::tmpfs("size=4m,ro") else {
        return;
    };
    let registry = Registry::start();
    pushed(&registry, 1);
    let dir = Dir::new();
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["--working-dir", &mount.0.path().display().to_string()])
        .fails(7, "Read-only file system");
    assert!(
        outcome.stderr.contains("--working-dir"),
        "{}",
        outcome.stderr
    );
    assert!(
        registry.seen().is_empty(),
        "nobody was asked for what cannot be stored"
    );
}

#[test]
fn a_directory_that_is_not_there_or_is_a_file() {
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry, 1);
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "no/such/x.tar"])
        .fails(7, "the directory must exist");
    dir.write("file", "x");
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "file/x.tar"])
        .fails(7, "Not a directory");
    std::fs::create_dir(dir.join("d")).unwrap();
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "d"])
        .fails(7, "s a directory");
}

#[test]
fn a_directory_that_vanishes_on_the_way() {
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry, 6);
    std::fs::create_dir(dir.join("d")).unwrap();
    registry.pace(6 << 20);
    let run = Run::pull(&dir, &registry.name("r")).args(&["--working-dir", "d"]);
    let mut child = run.spawn();
    while registry.blob_bytes() < 1 << 20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::fs::remove_dir_all(dir.join("d")).unwrap();
    registry.pace(0);
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(dir.names().is_empty());
}

#[test]
fn an_existing_file_stays_until_the_new_one_is_whole() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = pushed(&registry, 1);
    dir.write("r-latest.tar", "old");
    registry.faults(
        crate::registry::Fault::new(
            &image.layers[1].digest,
            crate::registry::Action::Reply(crate::registry::Reply::new(404, "")),
        )
        .times(1),
    );
    Run::pull(&dir, &registry.name("r")).status(4);
    assert_eq!(std::fs::read(dir.join("r-latest.tar")).unwrap(), b"old");
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn a_link_in_the_partial_files_place_is_not_followed() {
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry, 1);
    let victim = dir.write("victim", "precious");
    std::os::unix::fs::symlink(&victim, dir.join("r-latest.tar.partial")).unwrap();
    Run::pull(&dir, &registry.name("r")).fails(7, "symbolic link");
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn vfat_takes_an_archive_and_tells_its_limit() {
    let place = Dir::new();
    let disk = place.join("disk");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    match Command::new("mkfs.vfat").arg(&disk).output() {
        Ok(output) if output.status.success() => {}
        _ => {
            eprintln!("skipped: there is no mkfs.vfat here");
            return;
        }
    }
    let Some(mount) = Mount::new(&["-t", "vfat", "-o", "loop", disk.to_str().unwrap()]) else {
        return;
    };
    let registry = Registry::start();
    let image = pushed(&registry, 6);
    Run::pull(&mount.0, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn a_limit_on_file_sizes_is_told() {
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry, 6);
    let image = registry.name("r");
    let binary = std::env::var("DOCKERSAVE_TEST_BINARY")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_dockersave").to_owned());
    if std::env::var_os("DOCKERSAVE_TEST_RUNNER").is_some() {
        eprintln!("skipped: the limit would hold for the runner");
        return;
    }
    // The same error as a file system's own limit gives: EFBIG, with SIGXFSZ ignored.
    let script = format!("ulimit -f 1000; trap '' XFSZ; exec {binary} --insecure {image}");
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("does not allow files of that size"), "{text}");
    assert!(dir.names().is_empty());
}

#[test]
fn a_closed_standard_output_is_told_by_the_status() {
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry, 1);
    let mut child = Run::pull(&dir, &registry.name("r"))
        .arg("--metadata")
        .spawn();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(7));
}
