//! Resuming: killed at any moment and run again, the same bytes, and little downloaded twice.

use crate::registry::image::{Blob, Image};
use crate::registry::{Action, Fault, Registry};
use crate::util::{Dir, Run};
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Several large layers and a few small ones, 26 MB in all.
fn image() -> Image {
    let sizes = [9, 6, 5, 3, 2];
    let mut layers: Vec<Blob> = sizes
        .iter()
        .enumerate()
        .map(|(seed, mib)| Blob::layer(seed as u64, mib << 20))
        .collect();
    layers.extend((100..110).map(|seed| Blob::layer(seed, 30_000)));
    Image::new(layers)
}

#[test]
fn killed_at_random_moments() {
    let kills: u64 = std::env::var("DOCKERSAVE_CRASHES").map_or(20, |kills| kills.parse().unwrap());
    // Two in a row, then the run that gets through.
    let rounds = kills.div_ceil(2);
    let registry = Registry::start();
    let image = image();
    image.push(&registry, "r", "latest");
    let whole = Run::pull(&Dir::new(), &registry.name("r")).archive().bytes;
    let size: u64 = image.layers.iter().map(|layer| layer.content.len()).sum();
    registry.pace(12 * MIB);
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut again = 0;
    for round in 0..rounds {
        let dir = Dir::new();
        registry.forget();
        let mut runs = 0;
        // Kill until a run gets through; each kill at another share of the image.
        let mut random = (seed + round).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for _ in 0..2 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let goal = registry.blob_bytes() + (random >> 33) % (size / 2);
            let run = Run::pull(&dir, &registry.name("r")).args(&["--jobs", "4", "-q"]);
            let mut child = run.spawn();
            let begin = Instant::now();
            while registry.blob_bytes() < goal
                && child.try_wait().unwrap().is_none()
                && begin.elapsed() < Duration::from_secs(30)
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            runs += 1;
            if let Ok(bytes) = std::fs::read(dir.join("r-latest.tar")) {
                assert!(bytes == whole, "a wrong file under the final name");
            }
        }
        let archive = Run::pull(&dir, &registry.name("r"))
            .args(&["--jobs", "4"])
            .archive();
        assert!(
            archive.bytes == whole,
            "round {round}: other bytes than without a kill"
        );
        assert_eq!(dir.names(), ["r-latest.tar"]);
        let sent = registry.blob_bytes();
        again += sent.saturating_sub(size);
        // At most 256 KiB a worker and kill, and what is on its way; configs come again each time.
        let allowed = size + runs * 4 * ((256 + 64) << 10) + 10_000;
        assert!(
            sent <= allowed,
            "round {round}: {sent} bytes for an image of {size}"
        );
    }
    eprintln!(
        "{} kills, {} bytes downloaded twice, a kill",
        rounds * 2,
        again / (rounds * 2)
    );
}

/// Runs until about half of the image is there, and kills.
fn half(registry: &Registry, dir: &Dir, jobs: &str) {
    registry.pace(20 * MIB);
    let before = registry.blob_bytes();
    let mut child = Run::pull(dir, &registry.name("r"))
        .args(&["--jobs", jobs])
        .spawn();
    while registry.blob_bytes() - before < 13 * MIB {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it was killed"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    registry.pace(0);
    assert_eq!(dir.names(), ["r-latest.tar.partial"]);
}

#[test]
fn damage_in_a_partial_file_is_found_and_fetched_again() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = image();
    image.push(&registry, "r", "latest");
    half(&registry, &dir, "1");
    // What a power cut may leave: a note in the journal, and zeros where the chunk should be.
    let partial = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.join("r-latest.tar.partial"))
        .unwrap();
    let size: u64 = image.layers.iter().map(|layer| layer.content.len()).sum();
    // The largest layer comes first, and stands first.
    partial.write_all_at(&[0; 4096], 2 * MIB).unwrap();
    drop(partial);
    registry.forget();
    let archive = Run::pull(&dir, &registry.name("r")).archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    let sent = registry.blob_bytes();
    assert!(
        sent < size - 11 * MIB,
        "{sent} bytes came again for one damaged chunk"
    );
}

#[test]
fn a_broken_journal_means_starting_anew() {
    let registry = Registry::start();
    let image = image();
    image.push(&registry, "r", "latest");
    for (offset_from_end, junk) in [
        (1_u64, vec![0xff]),
        (32, vec![0; 32]),
        (2000, vec![7; 2000]),
        (5_000_000, vec![0xd0; 5_000_000]),
    ] {
        let dir = Dir::new();
        half(&registry, &dir, "4");
        let path = dir.join("r-latest.tar.partial");
        let size = std::fs::metadata(&path).unwrap().len();
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all_at(&junk, size - offset_from_end)
            .unwrap();
        Run::pull(&dir, &registry.name("r"))
            .archive()
            .holds(&image, Some(&registry.name("r:latest")));
        assert_eq!(dir.names(), ["r-latest.tar"]);
    }
}

#[test]
fn a_partial_file_of_another_image_lends_what_both_have() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let old = image();
    old.push(&registry, "r", "latest");
    half(&registry, &dir, "1");
    let mut layers = old.layers.clone();
    layers.insert(0, Blob::layer(777, 40_000));
    let new = Image::new(layers);
    new.push(&registry, "r", "latest");
    registry.forget();
    let archive = Run::pull(&dir, &registry.name("r")).archive();
    archive.holds(&new, Some(&registry.name("r:latest")));
    let size: u64 = new.layers.iter().map(|layer| layer.content.len()).sum();
    assert!(
        registry.blob_bytes() < size - 11 * MIB,
        "{} of {size} bytes came again",
        registry.blob_bytes()
    );
    assert_eq!(dir.names(), ["r-latest.tar"]);
}

#[test]
fn restart_forgets() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = image();
    image.push(&registry, "r", "latest");
    half(&registry, &dir, "2");
    registry.forget();
    Run::pull(&dir, &registry.name("r"))
        .arg("--restart")
        .archive();
    let size: u64 = image.layers.iter().map(|layer| layer.content.len()).sum();
    assert!(registry.blob_bytes() >= size);
}

#[test]
fn two_runs_on_one_output() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = image();
    image.push(&registry, "r", "latest");
    registry.pace(4 * MIB);
    let mut first = Run::pull(&dir, &registry.name("r"))
        .args(&["--jobs", "2"])
        .spawn();
    while registry.blob_bytes() < MIB {
        std::thread::sleep(Duration::from_millis(5));
    }
    Run::pull(&dir, &registry.name("r")).fails(7, "another dockersave is writing it");
    registry.pace(0);
    assert!(first.wait().unwrap().success());
    assert_eq!(dir.names(), ["r-latest.tar"]);
}

#[test]
fn an_interrupt_says_how_to_go_on() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = image();
    image.push(&registry, "r", "latest");
    registry.pace(4 * MIB);
    let mut child = Run::pull(&dir, &registry.name("r")).spawn();
    while registry.blob_bytes() < 4 * MIB {
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, Signal::INT);
    let status = child.wait().unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
    if std::env::var_os("DOCKERSAVE_TEST_RUNNER").is_none() {
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(2),
            "{text}"
        );
    }
    assert!(
        text.contains("r-latest.tar.partial is kept: run the same command again"),
        "{text}"
    );
    registry.pace(0);
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn what_the_network_broke_goes_on_in_the_next_run() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 6 << 20)]);
    image.push(&registry, "r", "latest");
    // Closed, not reset: a reset discards what has arrived and was not read yet, as much as a busy
    // machine has left in the socket.
    registry.faults(Fault::new(&image.layers[0].digest, Action::Close(3 * MIB)).times(1));
    registry.faults(
        Fault::new(&image.layers[0].digest, Action::Reset(0))
            .skip(1)
            .times(1),
    );
    // One connection: another one's piece would meet the second fault, and end the pull before
    // the first one has brought its part.
    Run::new(&dir, &["--insecure", "--retries", "0", "--jobs", "1"])
        .arg(&registry.name("r"))
        .fails(5, "downloading layer");
    assert_eq!(dir.names(), ["r-latest.tar.partial"]);
    registry.forget();
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert!(registry.blob_bytes() < 4 * MIB, "{}", registry.blob_bytes());
}

fn send(child: &Child, signal: Signal) {
    let process = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(process, signal).unwrap();
}

/// A line of 16 kB/s per connection, with the program killed every second by each of these signals
/// in turn.
fn cut_again_and_again(signals: &[Signal], flags: &[&str]) {
    let (registry, dir) = (Registry::start(), Dir::new());
    let layers: Vec<Blob> = (0..3).map(|seed| Blob::layer(seed, 100_000)).collect();
    let size: u64 = layers.iter().map(|layer| layer.content.len()).sum();
    let image = Image::new(layers);
    image.push(&registry, "r", "latest");
    registry.pace(16_000);
    let mut cuts = 0;
    let mut child = loop {
        let mut child = Run::pull(&dir, &registry.name("r")).args(flags).spawn();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(1300) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(10));
        }
        if child.try_wait().unwrap().is_some() {
            break child;
        }
        send(&child, signals[cuts % signals.len()]);
        child.wait().unwrap();
        cuts += 1;
        assert!(
            cuts < 10,
            "no end of it: {} bytes came",
            registry.blob_bytes()
        );
    };
    assert!(child.wait().unwrap().success());
    assert!(cuts > 2, "it was not cut");
    // The server sends 16 KiB at once: what a kill meets on its way, or not half a second old.
    let kills = signals.contains(&Signal::KILL);
    let allowed = size + cuts as u64 * 3 * if kills { 32 << 10 } else { 16 << 10 } + 10_000;
    let sent = registry.blob_bytes();
    eprintln!("{cuts} cuts, {sent} bytes for {size}");
    assert!(sent <= allowed, "{sent} bytes for {size}, cut {cuts} times");
    registry.pace(0);
    let again = Run::pull(&dir, &registry.name("r")).args(flags).status(0);
    assert_eq!(dir.names().len(), 1, "{:?}", again.stderr);
}

#[test]
fn a_slow_line_that_is_stopped_again_and_again_comes_to_an_end() {
    cut_again_and_again(&[Signal::INT, Signal::TERM], &["--jobs", "3"]);
}

#[test]
fn a_slow_line_that_is_killed_again_and_again_comes_to_an_end() {
    cut_again_and_again(&[Signal::KILL], &["--jobs", "3"]);
}

#[test]
fn a_directory_on_a_slow_line_that_is_killed_again_and_again_comes_to_an_end() {
    cut_again_and_again(&[Signal::KILL, Signal::TERM], &["--no-tar"]);
}

#[test]
fn a_connection_that_breaks_after_ten_kilobytes_gets_a_layer_through() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 65_000)]);
    let size = image.layers[0].content.len();
    image.push(&registry, "r", "latest");
    registry.faults(Fault::new(&image.layers[0].digest, Action::Close(10_000)).always());
    for run in 1..=size / 10_000 {
        Run::new(&dir, &["--insecure", "--retries", "0", &registry.name("r")])
            .fails(5, "downloading layer");
        let json = Run::new(
            &dir,
            &["--insecure", "--dry-run", "--json", &registry.name("r")],
        );
        let here = format!("\"here\":{},", run * 10_000);
        let said = json.status(0).stdout;
        assert!(said.contains(&here), "{here} {said}");
    }
    let archive = Run::pull(&dir, &registry.name("r")).arg("--json").status(0);
    let kept = size / 10_000 * 10_000;
    assert!(
        archive.stdout.contains(&format!("\"kept\":{kept}")),
        "{}",
        archive.stdout
    );
    let came = format!("\"downloaded\":{}", size - kept);
    assert!(archive.stdout.contains(&came), "{}", archive.stdout);
}

/// Stops in the middle of several chunks of one layer; returns how many bytes were sent.
fn in_the_middle(registry: &Registry, dir: &Dir, flags: &[&str]) -> u64 {
    registry.pace(100_000);
    let mut child = Run::pull(dir, &registry.name("r")).args(flags).spawn();
    while registry.blob_bytes() < 600_000 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, Signal::TERM);
    child.wait().unwrap();
    registry.pace(0);
    let sent = registry.blob_bytes();
    registry.forget();
    sent
}

#[test]
fn several_chunks_of_one_layer_go_on_in_their_middle() {
    for flags in [&["--jobs", "4"][..], &["--jobs", "4", "--no-tar"]] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let image = Image::new(vec![Blob::layer(1, 40 << 20)]);
        let size = image.layers[0].content.len();
        image.push(&registry, "r", "latest");
        let sent = in_the_middle(&registry, &dir, flags);
        let ranges = || {
            registry
                .seen()
                .iter()
                .filter(|seen| seen.header("range").is_some())
                .count()
        };
        Run::pull(&dir, &registry.name("r")).args(flags).status(0);
        let again = (sent + registry.blob_bytes()).saturating_sub(size);
        assert!(again < 4 * (32 << 10), "{again} bytes came again");
        assert!(ranges() >= 4, "{}", ranges());
    }
}

#[test]
fn a_registry_without_ranges_is_asked_again_and_the_numbers_are_right() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 40 << 20)]);
    let size = image.layers[0].content.len();
    image.push(&registry, "r", "latest");
    in_the_middle(&registry, &dir, &["--jobs", "4"]);
    registry.faults(Fault::new("/blobs/", Action::NoRange).always());
    let run = Run::pull(&dir, &registry.name("r")).args(&["--progress", "json"]);
    let said = run.status(0).stderr;
    let last = said
        .lines()
        .rfind(|line| line.contains("\"progress\""))
        .unwrap();
    assert!(
        last.contains(&format!("\"done\":{size},\"total\":{size},")),
        "{last}"
    );
}

fn number(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

/// A partial file's bytes, and where the journal's records begin in it.
fn records(path: &Path) -> (Vec<u8>, usize, usize) {
    let bytes = std::fs::read(path).unwrap();
    let start = number(&bytes[bytes.len() - 16..]);
    let rows = number(&bytes[start + 56..]);
    (bytes, start, start + 64 + rows * 88)
}

#[test]
fn what_a_power_cut_took_back_is_not_believed_and_what_it_left_is() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 400_000)]);
    let size = image.layers[0].content.len();
    image.push(&registry, "r", "latest");
    registry.pace(100_000);
    let child = Run::pull(&dir, &registry.name("r")).spawn();
    while registry.blob_bytes() < 200_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    send(&child, Signal::TERM);
    assert!({ child }.wait().is_ok());
    registry.pace(0);
    let path = dir.join("r-latest.tar.partial");
    let (bytes, _, at) = records(&path);
    // An earlier note, of what is on the disk, beside the later one, of what is not.
    let mut note = crc32fast::hash(&image.layers[0].content.part(0, 100_000))
        .to_le_bytes()
        .to_vec();
    note.extend_from_slice(&100_000_u32.to_le_bytes());
    let later = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
    assert!(later > 150_000, "{later}");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&note, at as u64 + 8).unwrap();
    let place = bytes
        .windows(64)
        .position(|part| part == &image.layers[0].content.part(0, 64)[..]);
    file.write_all_at(&[0; 4096], place.unwrap() as u64 + 120_000)
        .unwrap();
    registry.forget();
    let archive = Run::pull(&dir, &registry.name("r")).archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    let layer = |seen: &&crate::registry::Seen| seen.target.contains(&image.layers[0].digest);
    let sent: u64 = registry
        .seen()
        .iter()
        .filter(layer)
        .map(|seen| seen.sent)
        .sum();
    assert_eq!(sent, size - 100_000);
}

#[test]
fn a_partial_file_of_the_first_format_lends_its_whole_chunks() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = image();
    image.push(&registry, "r", "latest");
    half(&registry, &dir, "1");
    let path = dir.join("r-latest.tar.partial");
    let (bytes, start, at) = records(&path);
    let end = bytes.len() - 32;
    let mut old = bytes[..at].to_vec();
    old[start..start + 16].copy_from_slice(b"dockersave\0jnl1\0");
    let crc = crc32fast::hash(&old[start..]);
    for record in bytes[at..end].chunks_exact(16) {
        old.extend_from_slice(&record[..8]);
    }
    old.extend_from_slice(b"dockersave\0jnl1\0");
    old.extend_from_slice(&(start as u64).to_le_bytes());
    old.extend_from_slice(&crc.to_le_bytes());
    old.extend_from_slice(&[0; 4]);
    std::fs::write(&path, old).unwrap();
    registry.forget();
    let archive = Run::pull(&dir, &registry.name("r")).archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    let size: u64 = image.layers.iter().map(|layer| layer.content.len()).sum();
    assert!(
        registry.blob_bytes() < size - 11 * MIB,
        "{}",
        registry.blob_bytes()
    );
    assert_eq!(dir.names(), ["r-latest.tar"]);
}
