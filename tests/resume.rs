//! Ended at any moment, run again: the same bytes as never ended, and little downloaded twice.

use crate::registry::image::{Blob, Image};
use crate::registry::{Action, Fault, Registry};
use crate::util::{Dir, Run};
use std::os::unix::fs::FileExt;
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
        // At most 1 MiB a worker and kill; configs come again with each run.
        let allowed = size + runs * 4 * MIB + 10_000;
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
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
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
    registry.faults(Fault::new(&image.layers[0].digest, Action::Reset(3 * MIB)).times(1));
    registry.faults(
        Fault::new(&image.layers[0].digest, Action::Reset(0))
            .skip(1)
            .times(1),
    );
    Run::new(&dir, &["--insecure", "--retries", "0", &registry.name("r")])
        .fails(5, "downloading layer");
    assert_eq!(dir.names(), ["r-latest.tar.partial"]);
    registry.forget();
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert!(registry.blob_bytes() < 4 * MIB, "{}", registry.blob_bytes());
}
