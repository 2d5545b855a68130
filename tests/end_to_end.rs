//! End-to-end tests for every static build, native or under qemu-user: `.ci/run` runs these by name
//! with `DOCKERSAVE_TEST_BINARY` and `DOCKERSAVE_TEST_RUNNER`. Each prints the program's peak
//! memory, without the emulator's.

use crate::registry::image::{self, Blob, Image};
use crate::registry::tls::{Authority, Leaf};
use crate::registry::{Action, Registry, Reply};
use crate::util::{Dir, Outcome, Run};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::version::{TLS12, TLS13};
use std::io::Read;
use std::time::Duration;

/// Layers of 20 MB in all, one large enough for several connections.
fn image() -> Image {
    let sizes = [9_000_000, 5_000_000, 3_000_000, 2_000_000, 900_000, 40_000];
    Image::new(
        (0..)
            .zip(sizes)
            .map(|(n, size)| Blob::layer(n, size))
            .collect(),
    )
}

#[track_caller]
fn small(outcome: &Outcome) {
    outcome.is_small();
    assert!(outcome.peak > 0, "its memory was never seen");
    eprintln!("{} KiB of its own memory", outcome.peak / 1024);
}

#[test]
fn a_pull_over_tls() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let image = image();
    image.push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", &authority.pem);
    // Slow enough to measure its memory, and broken once in the middle.
    registry.pace(8_000_000);
    registry.fault(&image.layers[0].digest, Action::Reset(4_000_000));
    let archive = Run::new(&dir, &["--cacert", &ca, &registry.name("r")]).archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    small(&archive.outcome);
}

#[test]
fn resumed_after_a_kill() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let image = image();
    image.push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", &authority.pem);
    let run = || Run::new(&dir, &["--cacert", &ca, &registry.name("r"), "--jobs", "4"]);
    registry.pace(8_000_000);
    let mut child = run().spawn();
    while registry.blob_bytes() < 10_000_000 {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it ended before it was killed"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(dir.names(), ["ca.pem", "r-latest.tar.partial"]);
    registry.forget();
    let archive = run().archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    assert_eq!(dir.names(), ["ca.pem", "r-latest.tar"]);
    let again = registry.blob_bytes();
    assert!(again < 16_000_000, "{again} bytes after 10 MB were there");
    small(&archive.outcome);
}

#[test]
fn a_stream_is_the_archive_and_verify_finds_it_sound() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let image = image();
    image.push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", &authority.pem);
    let run = || Run::new(&dir, &["--cacert", &ca, &registry.name("r")]);
    let archive = run().archive();
    registry.pace(8_000_000);
    registry.fault(&image.layers[1].digest, Action::Reset(2_000_000));
    let streamed = run()
        .args(&["-o", "-"])
        .within("exec \"$@\" > out.tar")
        .status(0);
    assert!(std::fs::read(dir.join("out.tar")).unwrap() == archive.bytes);
    small(&streamed);
    let verified = Run::new(&dir, &["--verify", "out.tar"]).status(0);
    assert!(
        verified.stdout.contains("sound, 1 image"),
        "{}",
        verified.stdout
    );
    let mut damaged = archive.bytes;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    dir.write("out.tar", &damaged);
    Run::new(&dir, &["--verify", "out.tar"]).status(6);
}

#[test]
fn gunzip_stores_what_the_diff_ids_name() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let image = image();
    image.push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", &authority.pem);
    registry.pace(8_000_000);
    let run = Run::new(&dir, &["--cacert", &ca, "--gunzip", &registry.name("r")]);
    // Each blob of an archive is hashed where it is read back: here they are the diff IDs.
    let archive = run.archive();
    for layer in &image.layers {
        let path = format!("blobs/{}", layer.diff_id.replace(':', "/"));
        assert!(archive.files.contains_key(&path), "{path}");
    }
    small(&archive.outcome);
}

#[test]
fn every_way_to_shake_hands() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let ca = dir.write("ca.pem", &authority.pem);
    let image = Image::small(7);
    let pull = |what: &str, server| {
        let registry = Registry::start_tls(server);
        image.push(&registry, "r", "latest");
        let run = Run::new(&dir, &["--cacert", &ca, "--retries", "0", "--jobs", "1"]);
        let archive = run.arg(&registry.name("r")).archive();
        archive.holds(&image, Some(&registry.name("r:latest")));
        std::fs::remove_file(&archive.path).unwrap();
        eprintln!("{what}");
    };
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    for (version, suite) in [
        (&TLS13, cipher_suite::TLS13_AES_256_GCM_SHA384),
        (&TLS13, cipher_suite::TLS13_AES_128_GCM_SHA256),
        (&TLS13, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256),
        (
            &TLS12,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        ),
        (
            &TLS12,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ),
        (
            &TLS12,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ),
    ] {
        let mut provider = default_provider();
        provider.cipher_suites = vec![suite];
        let what = format!("{:?}", suite.suite());
        // There is another one for these processors on every server.
        let emulated =
            std::env::var_os("DOCKERSAVE_TEST_RUNNER").is_some_and(|own| !own.is_empty());
        if cfg!(target_arch = "x86_64") && !emulated && what.contains("CHACHA20") {
            continue;
        }
        pull(&what, authority.server_by(provider, version, p256));
    }
    for group in default_provider().kx_groups {
        let mut provider = default_provider();
        provider.kx_groups = vec![group];
        let what = format!("{:?}", group.name());
        pull(&what, authority.server_by(provider, &TLS13, p256));
    }
    for (what, kind) in [
        ("P-384", &rcgen::PKCS_ECDSA_P384_SHA384),
        ("Ed25519", &rcgen::PKCS_ED25519),
    ] {
        pull(what, authority.server_by(default_provider(), &TLS13, kind));
    }
}

#[test]
fn a_layer_of_more_than_4_gib() {
    // Takes minutes under emulation: .ci/run enables it on a 32-bit target.
    if std::env::var_os("DOCKERSAVE_TEST_LARGE").is_none() {
        eprintln!("skipped: DOCKERSAVE_TEST_LARGE is not set");
        return;
    }
    let (registry, dir) = (Registry::start(), Dir::new());
    let size = (4 << 30) + 12_345;
    let image = Image::new(vec![Blob::zeros(size)]);
    image.push(&registry, "r", "latest");
    let outcome = Run::pull(&dir, &registry.name("r")).limit(900).status(0);
    small(&outcome);
    assert!(std::fs::metadata(dir.join("r-latest.tar")).unwrap().len() > size);
}

#[test]
fn a_document_that_inflates_without_end_takes_no_more_memory_than_a_large_one() {
    let (registry, dir) = (Registry::start(), Dir::new());
    for tag in ["latest", "slow"] {
        Image::small(65).push(&registry, "r", tag);
    }
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut std::io::repeat(0).take(64 << 20), &mut bomb).unwrap();
    let reply = Reply::new(200, bomb.finish().unwrap())
        .with(format!("Content-Type: {}", image::OCI_MANIFEST))
        .with("Content-Encoding: gzip");
    registry.route(move |seen| seen.target.ends_with("/latest").then(|| reply.clone()));
    // The program lives on for a moment, so that its peak is seen.
    registry.fault("/manifests/slow", Action::Delay(Duration::from_millis(500)));
    let names = [registry.name("r"), registry.name("r:slow")];
    let outcome = Run::pull(&dir, &names[0]).arg(&names[1]).status(1);
    assert!(
        outcome
            .stderr
            .contains("larger than the limit of 4194304 bytes")
    );
    assert_eq!(dir.names(), ["r-slow.tar"]);
    small(&outcome);
}
