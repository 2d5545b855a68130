//! Files that change while they are read: no archive is ever wrong.

use crate::registry::image::{Blob, Image};
use crate::registry::{Action, Fault, Registry};
use crate::util::{Dir, Run};
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Bytes that a process has read so far, from files and sockets.
fn bytes_read(child: &Child) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", child.id())).ok()?;
    let count = text.lines().next()?.strip_prefix("rchar: ")?;
    count.parse().ok()
}

/// Waits until this holds, or the process has ended.
fn wait(child: &mut Child, mut so: impl FnMut(&Child) -> bool) {
    while !so(child) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn writable(path: &std::path::Path) -> std::fs::File {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).open(path).unwrap()
}

#[test]
fn a_reused_file_that_changes_spoils_no_chunk_that_is_there() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 96 << 20)]);
    image.push(&registry, "r", "latest");
    registry.faults(Fault::new(&image.layers[0].digest, Action::Close(2 << 20)).always());
    Run::pull(&dir, &registry.name("r"))
        .args(&["--jobs", "1", "--retries", "0"])
        .status(5);
    registry.behave();
    // A directory that has the layer, until a part that was already copied changes.
    let place = dir.write(
        &format!("old/{}", image.layers[0].path()),
        image.layers[0].data(),
    );
    dir.write("old/index.json", "{}");
    let file = writable(place.as_ref());
    let mut child = Run::pull(&dir, &registry.name("r"))
        .args(&["--jobs", "1", "--reuse", "old"])
        .spawn();
    wait(&mut child, |child| {
        bytes_read(child).is_some_and(|bytes| bytes > 20 * MIB)
    });
    file.write_all_at(b"EVIL", 1000).unwrap();
    assert!(child.wait().unwrap().success());
    let bytes = std::fs::read(dir.join("r-latest.tar")).unwrap();
    let data = image.layers[0].data();
    // It is somewhere after the documents, at a multiple of 512.
    let at = (0..bytes.len() - data.len())
        .step_by(512)
        .find(|at| bytes[*at..].starts_with(&data[..64]))
        .expect("the layer");
    assert!(bytes[at..at + data.len()] == data[..], "a wrong layer");
}

#[test]
fn what_is_compressed_or_inflated_is_what_was_checked() {
    for more in [&["--xz"][..], &["--xz", "--gunzip"]] {
        compressed(more);
    }
}

/// Changes the archive that was pulled while it is compressed.
fn compressed(more: &[&str]) {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 24 << 20)]);
    image.push(&registry, "r", "latest");
    let run = || Run::pull(&dir, &registry.name("r")).args(more);
    let mut child = run().spawn();
    wait(&mut child, |_| {
        dir.join("r-latest.tar.xz.partial.new").exists()
    });
    let file = writable(&dir.join("r-latest.tar.xz.partial"));
    file.write_all_at(b"EVIL", 20 * MIB).unwrap();
    let status = child.wait().unwrap().code();
    // The decoder may notice it before the digest does.
    let noticed = status == Some(6) || (more.contains(&"--gunzip") && status == Some(1));
    assert!(noticed, "{more:?}: {status:?}");
    assert!(!dir.join("r-latest.tar.xz").exists());
    // And it is found the next time.
    run().status(0);
    assert_eq!(dir.names(), ["r-latest.tar.xz"]);
}
