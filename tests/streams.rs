//! Outputs that are not regular files get the archive in order and are not replaced. A link stays,
//! and its target is replaced.

use crate::registry::image::{Blob, Image};
use crate::registry::{Action, Fault, Registry};
use crate::util::{Dir, Run};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::{Duration, Instant};

/// An image, and the bytes of its archive.
fn pushed(registry: &Registry) -> Vec<u8> {
    let image = Image::new(vec![Blob::layer(1, 1 << 20), Blob::layer(2, 3000)]);
    image.push(registry, "r", "latest");
    Run::pull(&Dir::new(), &registry.name("r")).archive().bytes
}

fn fifo(dir: &Dir, name: &str) {
    assert!(
        Command::new("mkfifo")
            .arg(dir.join(name))
            .status()
            .unwrap()
            .success()
    );
}

fn reader(dir: &Dir, name: &str) -> std::thread::JoinHandle<Vec<u8>> {
    let path = dir.join(name);
    std::thread::spawn(move || std::fs::read(path).unwrap())
}

#[test]
fn standard_output_by_any_name() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let whole = pushed(&registry);
    symlink("/proc/self/fd/1", dir.join("stdout")).unwrap();
    symlink("stdout", dir.join("again")).unwrap();
    for name in [
        "/dev/stdout",
        "/dev/fd/1",
        "/proc/self/fd/1",
        "stdout",
        "again",
    ] {
        for script in [
            "exec \"$@\" > out",
            "{ \"$@\"; } | cat > out",
            "exec \"$@\" >> out",
        ] {
            dir.write("out", "");
            let outcome = Run::pull(&dir, &registry.name("r"))
                .args(&["-o", name])
                .within(script)
                .env("PATH", "/usr/bin:/bin")
                .status(0);
            assert_eq!(outcome.stderr.matches("failed").count(), 0);
            assert!(
                std::fs::read(dir.join("out")).unwrap() == whole,
                "{name}, {script}"
            );
        }
    }
    assert!(dir.join("stdout").symlink_metadata().unwrap().is_symlink());
    // What is there already stays, in front.
    dir.write("out", "before ");
    for script in [
        "exec \"$@\" >> out",
        "{ printf 'before '; exec \"$@\"; } > out",
    ] {
        Run::pull(&dir, &registry.name("r"))
            .args(&["-o", "/dev/stdout"])
            .within(script)
            .status(0);
        let bytes = std::fs::read(dir.join("out")).unwrap();
        assert!(
            bytes.starts_with(b"before ") && bytes[7..] == whole[..],
            "{script}"
        );
    }
    assert_eq!(dir.names(), ["again", "out", "stdout"]);
    for (args, told) in [
        (&["--json"][..], "--json"),
        (&["--restart"], "--restart"),
        (&["--no-rm"], "--no-rm"),
    ] {
        Run::pull(&dir, &registry.name("r"))
            .args(&["-o", "/dev/stdout"])
            .args(args)
            .fails(2, told);
    }
}

#[test]
fn any_other_descriptor() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let whole = pushed(&registry);
    for script in [
        "exec \"$@\" 3> out > path",
        "{ printf before >&3; \"$@\"; printf after >&3; } 3> out > path",
        "exec \"$@\" 3>> out > path",
    ] {
        dir.write("out", "");
        Run::pull(&dir, &registry.name("r"))
            .args(&["-o", "/dev/fd/3", "-q"])
            .within(script)
            .status(0);
        let bytes = std::fs::read(dir.join("out")).unwrap();
        let bytes = match script.contains("before") {
            true => bytes
                .strip_prefix(b"before")
                .and_then(|bytes| bytes.strip_suffix(b"after"))
                .expect("what was written before and after"),
            false => &bytes,
        };
        assert!(bytes == whole, "{script}");
        assert_eq!(std::fs::read(dir.join("path")).unwrap(), b"/dev/fd/3\n");
    }
    // The same file as standard output: no path after the archive.
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "/dev/fd/3", "-q"])
        .within("exec \"$@\" > out 3>&1")
        .status(0);
    assert!(std::fs::read(dir.join("out")).unwrap() == whole);
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "/dev/fd/3", "-q", "--json"])
        .within("exec \"$@\" > out 3>&1")
        .status(2);
    for script in ["exec \"$@\" 3>&-", "exec \"$@\" 3< /etc/passwd"] {
        registry.forget();
        Run::pull(&dir, &registry.name("r"))
            .args(&["-o", "/dev/fd/3"])
            .within(script)
            .fails(7, "not open for writing");
        assert!(registry.seen().is_empty());
    }
}

#[test]
fn a_fifo_and_who_reads_it() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let whole = pushed(&registry);
    fifo(&dir, "fifo");
    symlink("fifo", dir.join("link")).unwrap();
    for name in ["fifo", "link"] {
        // The reader comes first, or last.
        for late in [false, true] {
            let child = |dir| {
                Run::pull(dir, &registry.name("r"))
                    .args(&["-o", name])
                    .spawn()
            };
            let (mut child, reader) = if late {
                let child = child(&dir);
                std::thread::sleep(Duration::from_millis(200));
                (child, reader(&dir, "fifo"))
            } else {
                let reader = reader(&dir, "fifo");
                (child(&dir), reader)
            };
            assert!(child.wait().unwrap().success());
            assert!(reader.join().unwrap() == whole, "{name}");
            let mut path = String::new();
            child
                .stdout
                .take()
                .unwrap()
                .read_to_string(&mut path)
                .unwrap();
            assert_eq!(path, format!("{name}\n"));
        }
    }
    let kind = dir.join("fifo").symlink_metadata().unwrap().file_type();
    assert!(kind.is_fifo());
    assert_eq!(dir.names(), ["fifo", "link"]);
    // Nobody reads it.
    let begin = Instant::now();
    registry.forget();
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "fifo", "--timeout", "1"])
        .fails(7, "nothing is reading from it");
    assert!(begin.elapsed() < Duration::from_secs(5) && registry.seen().is_empty());
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..8).map(|seed| Blob::layer(seed, 2 << 20)).collect());
    image.push(&registry, "r", "latest");
    registry.pace(4 << 20);
    fifo(&dir, "fifo");
    let mut child = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "fifo"])
        .spawn();
    let mut file = std::fs::File::open(dir.join("fifo")).unwrap();
    file.read_exact(&mut [0; 100_000]).unwrap();
    drop(file);
    let begin = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(7));
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_socket() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let whole = pushed(&registry);
    let listener = UnixListener::bind(dir.join("socket")).unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_end(&mut bytes)
            .unwrap();
        bytes
    });
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "socket"])
        .status(0);
    assert!(reader.join().unwrap() == whole);
    assert_eq!(dir.names(), ["socket"]);
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "socket"])
        .fails(7, "Connection refused");
}

#[test]
fn a_device_stays_a_device() {
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry);
    let made = Command::new("mknod")
        .arg(dir.join("null"))
        .args(["c", "1", "3"])
        .status();
    if !made.is_ok_and(|status| status.success())
        || std::fs::OpenOptions::new()
            .write(true)
            .open(dir.join("null"))
            .is_err()
    {
        eprintln!("skipped: no device can be made here");
        return;
    }
    for args in [&[][..], &["--xz"], &["--gunzip"]] {
        Run::pull(&dir, &registry.name("r"))
            .args(&["-o", "null"])
            .args(args)
            .status(0);
        let kind = dir.join("null").symlink_metadata().unwrap().file_type();
        assert!(kind.is_char_device());
    }
    assert_eq!(dir.names(), ["null"]);
    // Full, always.
    let _ = Command::new("mknod")
        .arg(dir.join("full"))
        .args(["c", "1", "7"])
        .status();
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "full"])
        .fails(7, "writing to full: No space left on device");
    assert!(!outcome.stderr.contains("kept"), "{}", outcome.stderr);
}

#[test]
fn a_disk_gets_the_archive_from_its_first_byte_on() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let whole = pushed(&registry);
    let disk = dir.join("disk");
    std::fs::File::create(&disk)
        .unwrap()
        .set_len(4 << 20)
        .unwrap();
    let made = Command::new("losetup")
        .args(["-f", "--show"])
        .arg(&disk)
        .output();
    let Some(device) = made.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: no loop device here");
        return;
    };
    let device = String::from_utf8(device.stdout).unwrap().trim().to_owned();
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", &device])
        .outcome();
    let mut bytes = vec![0; whole.len()];
    let read = std::fs::File::open(&device).and_then(|mut file| file.read_exact(&mut bytes));
    let _ = Command::new("losetup").args(["-d", &device]).status();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert!(read.is_ok() && bytes == whole);
}

#[test]
fn a_link_to_a_file_stays_a_link() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let whole = pushed(&registry);
    dir.write("there/old.tar", "old");
    symlink("there/old.tar", dir.join("link.tar")).unwrap();
    symlink("link.tar", dir.join("chain.tar")).unwrap();
    symlink("there/new.tar", dir.join("new.tar")).unwrap();
    symlink("there", dir.join("way")).unwrap();
    for (name, file) in [
        ("link.tar", "old.tar"),
        ("chain.tar", "old.tar"),
        // Not there yet.
        ("new.tar", "new.tar"),
        // Only the way leads through a link.
        ("way/x.tar", "x.tar"),
    ] {
        dir.write("there/old.tar", "old");
        let archive = Run::pull(&dir, &registry.name("r"))
            .args(&["-o", name])
            .archive();
        assert!(archive.bytes == whole && archive.outcome.stdout == format!("{name}\n"));
        let path = dir.join("there").join(file);
        assert!(std::fs::read(path).unwrap() == whole, "{name}");
    }
    for name in ["link.tar", "chain.tar", "new.tar", "way"] {
        assert!(
            dir.join(name).symlink_metadata().unwrap().is_symlink(),
            "{name}"
        );
    }
    assert_eq!(
        dir.names(),
        ["chain.tar", "link.tar", "new.tar", "there", "way"]
    );
    // Compressed, and beside a directory.
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "link.tar", "--xz", "--no-rm", "--layers-dir", "l"])
        .status(0);
    assert!(
        dir.join("link.tar")
            .symlink_metadata()
            .unwrap()
            .is_symlink()
    );
    let bytes = std::fs::read(dir.join("there/old.tar")).unwrap();
    assert!(bytes.starts_with(b"\xfd7zXZ"));
}

#[test]
fn a_partial_file_grows_beside_what_a_link_points_to() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let whole = pushed(&registry);
    dir.write("there/old.tar", "old");
    symlink("there/old.tar", dir.join("link.tar")).unwrap();
    registry.forget();
    registry.pace(200_000);
    let mut child = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "link.tar"])
        .spawn();
    while registry.blob_bytes() < 100_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(dir.join("there/old.tar.partial").exists());
    assert!(!dir.join("link.tar.partial").exists());
    let _ = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    child.wait().unwrap();
    registry.pace(0);
    let archive = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "link.tar"])
        .archive();
    assert!(archive.bytes == whole);
}

#[test]
fn a_link_that_cannot_be_followed_is_told_before_the_download() {
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry);
    registry.forget();
    symlink("loop.tar", dir.join("loop.tar")).unwrap();
    symlink("no/such/x.tar", dir.join("far.tar")).unwrap();
    symlink("here", dir.join("dir.tar")).unwrap();
    std::fs::create_dir(dir.join("here")).unwrap();
    for (name, told) in [
        ("loop.tar", "symbolic links"),
        ("far.tar", "the directory must exist"),
        ("dir.tar", "s a directory"),
        ("here", "s a directory"),
    ] {
        Run::pull(&dir, &registry.name("r"))
            .args(&["-o", name])
            .fails(7, told);
    }
    assert!(registry.seen().is_empty());
    // Another user's, who may have put it there for this.
    symlink("x.tar", dir.join("planted.tar")).unwrap();
    if std::os::unix::fs::lchown(dir.join("planted.tar"), Some(65534), None).is_ok() {
        Run::pull(&dir, &registry.name("r"))
            .args(&["-o", "planted.tar"])
            .fails(7, "link owned by another user");
    }
    assert!(registry.seen().is_empty() && !dir.join("x.tar").exists());
}

#[test]
fn a_place_in_a_file_is_kept() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let whole = pushed(&registry);
    let mut file = std::fs::File::create(dir.join("out")).unwrap();
    file.write_all(&[b'x'; 1000]).unwrap();
    file.seek(SeekFrom::Start(500)).unwrap();
    drop(file);
    // A shell that has read so far leaves its descriptor there.
    Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "/dev/fd/3", "-q"])
        .within("exec 3<> out; head -c 500 <&3 > /dev/null; exec \"$@\"")
        .env("PATH", "/usr/bin:/bin")
        .status(0);
    let bytes = std::fs::read(dir.join("out")).unwrap();
    assert!(bytes[..500] == [b'x'; 500] && bytes[500..] == whole[..]);
}

/// Streams an image over slow connections; gives the archive.
fn streamed(registry: &Registry, image: &Image) -> Vec<u8> {
    image.push(registry, "r", "latest");
    let dir = Dir::new();
    let expected = Run::pull(&Dir::new(), &registry.name("r")).archive().bytes;
    registry.pace(2 << 20).forget();
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["-o", "-"])
        .within("exec \"$@\" > out")
        .status(0);
    outcome.is_small();
    let bytes = std::fs::read(dir.join("out")).unwrap();
    assert!(bytes == expected);
    bytes
}

#[test]
fn a_large_layer_comes_over_several_slow_connections() {
    let registry = Registry::start();
    let layers = [9 << 20, 3000, 3 << 20, 100].into_iter().zip(1..);
    let image = Image::new(layers.map(|(size, seed)| Blob::layer(seed, size)).collect());
    let archive = streamed(&registry, &image);
    let seen = registry.seen();
    let ranges = seen.iter().filter(|seen| seen.status == 206);
    let connections: std::collections::BTreeSet<u64> =
        ranges.clone().map(|seen| seen.connection).collect();
    assert!(ranges.count() > 15, "{seen:?}");
    assert!(connections.len() > 3, "{connections:?}");
    // What a connection had sent when the blob was divided is lost.
    assert!(registry.blob_bytes() < archive.len() as u64 + (6 << 20));
}

#[test]
fn without_ranges_a_slow_layer_comes_over_one_connection() {
    let registry = Registry::start();
    registry.faults(Fault::new("/blobs/", Action::NoRange).always());
    let image = Image::new(vec![Blob::layer(1, 4 << 20), Blob::layer(2, 2 << 20)]);
    let archive = streamed(&registry, &image);
    assert!(registry.blob_bytes() < archive.len() as u64 + (4 << 20));
}

#[test]
fn a_divided_layer_survives_broken_connections() {
    let registry = Registry::start();
    let image = Image::new(vec![Blob::layer(1, 6 << 20), Blob::layer(2, 2 << 20)]);
    let layer = &image.layers[0].digest;
    registry.faults(Fault::new(layer, Action::Reset(100_000)).ranges().every(3));
    streamed(&registry, &image);
}

#[test]
fn a_wrong_byte_in_a_piece_is_a_digest_mismatch() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 6 << 20)]);
    image.push(&registry, "r", "latest");
    let layer = &image.layers[0].digest;
    registry.faults(Fault::new(layer, Action::Flip(1000)).ranges());
    let outcome = Run::pull(&dir, &registry.pace(2 << 20).name("r"))
        .args(&["-o", "-"])
        .within("exec \"$@\" > out")
        .status(6);
    assert!(outcome.stderr.contains(layer), "{}", outcome.stderr);
    assert!(registry.seen().iter().any(|seen| seen.status == 206));
}

#[test]
fn the_first_signal_ends_a_stream_that_nobody_reads() {
    let (registry, dir) = (Registry::start(), Dir::new());
    pushed(&registry);
    let run = Run::pull(&dir, &registry.name("r")).args(&["-o", "-"]);
    let mut child = run.spawn();
    // Its pipe is full by now: the archive is larger.
    let begin = Instant::now();
    while registry.blob_bytes() < 100_000 {
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(300));
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begin.elapsed() > Duration::from_secs(20) => {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(15)
    );
}
