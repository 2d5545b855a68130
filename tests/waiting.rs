//! Waiting: how long, and what is said meanwhile.

use crate::registry::image::Image;
use crate::registry::{Action, Registry, Reply};
use crate::util::{Dir, Run};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// An address of this machine where nothing listens.
fn nobody() -> String {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().to_string()
}

#[test]
fn nobody_there_is_told_after_one_short_second_try() {
    let dir = Dir::new();
    for args in [
        &[][..],
        &["--tags"],
        &["--sha"],
        &["--platforms"],
        &["--dry-run"],
        &["--output", "/dev/stdout"],
        &["--retries", "50"],
    ] {
        let name = format!("{}/r", nobody());
        let outcome = Run::new(&dir, &["--insecure", &name])
            .args(args)
            .fails(5, "nothing listens");
        assert!(
            outcome.stderr.contains("after 2 attempts"),
            "{}",
            outcome.stderr
        );
        assert!(
            outcome.time < Duration::from_secs(3),
            "{args:?}: {:?}",
            outcome.time
        );
    }
}

#[test]
fn a_proxy_where_nobody_listens_is_told_as_soon() {
    let dir = Dir::new();
    let proxy = format!("http://{}", nobody());
    let outcome = Run::new(&dir, &["--insecure", "registry.example/r"])
        .env("http_proxy", &proxy)
        .fails(5, "nothing listens");
    assert!(outcome.time < Duration::from_secs(3), "{:?}", outcome.time);
}

#[test]
fn a_registry_that_starts_meanwhile_is_found_by_the_second_try() {
    let (dir, name) = (Dir::new(), nobody());
    let port: u16 = name.rsplit(':').next().unwrap().parse().unwrap();
    let run = Run::new(&dir, &["--insecure", &format!("{name}/r")]);
    let child = run.spawn();
    std::thread::sleep(Duration::from_millis(150));
    let registry = Registry::start_with(None, port);
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn a_registry_that_was_there_is_waited_for_as_ever() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    // It hangs up on the layers, and its port is closed for a moment.
    let address = registry.address;
    let name = registry.name("r");
    registry.pace(2_000);
    let run = Run::new(&dir, &["--insecure", "--retries", "3", &name]);
    let child = run.spawn();
    while registry.blob_bytes() == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(registry);
    std::thread::sleep(Duration::from_millis(1200));
    let registry = Registry::start_with(None, address.port());
    image.push(&registry, "r", "latest");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// The lines of standard error, each with when it came.
fn lines(run: &Run<'_>) -> (Vec<(Duration, String)>, Duration) {
    let begin = Instant::now();
    let mut child = run.spawn();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let lines = lines.map(|line| (begin.elapsed(), line.unwrap())).collect();
    child.wait().unwrap();
    (lines, begin.elapsed())
}

#[test]
fn a_slow_answer_is_named_after_a_second() {
    for (what, args) in [
        ("/manifests/", &[][..]),
        ("/manifests/", &["--sha"]),
        ("/tags/", &["--tags"]),
        ("/blobs/", &[]),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        Image::small(1).push(&registry, "r", "latest");
        registry.fault(what, Action::Delay(Duration::from_secs(3)));
        let run = Run::pull(&dir, &registry.name("r")).args(args);
        let (lines, time) = lines(&run.args(&["--progress", "plain"]));
        assert!(time > Duration::from_secs(3), "{time:?}");
        let told = lines
            .iter()
            .find(|(_, line)| line.contains("waiting for an answer from 127.0.0.1"));
        let (at, _) = told.unwrap_or_else(|| panic!("{what} {args:?}: {lines:?}"));
        assert!(*at < Duration::from_millis(2500), "{what}: {lines:?}");
    }
}

#[test]
fn a_slow_answer_is_named_in_json_and_on_the_bar_and_not_where_quiet_is_asked_for() {
    for (how, text) in [
        (
            "json",
            r#"{"event":"note","level":"info","text":"waiting for an answer from 127.0.0.1"#,
        ),
        ("bar", "waiting for an answer from 127.0.0.1"),
        ("none", ""),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        Image::small(1).push(&registry, "r", "latest");
        registry.fault("/manifests/", Action::Delay(Duration::from_secs(2)));
        let run = Run::pull(&dir, &registry.name("r")).args(&["--progress", how]);
        let outcome = run.outcome();
        assert!(outcome.status.success());
        match text {
            "" => assert_eq!(outcome.stderr, ""),
            text => assert!(outcome.stderr.contains(text), "{}", outcome.stderr),
        }
    }
}

#[test]
fn the_next_try_is_named_where_it_is_far() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let busy = Reply::new(503, "").with("Retry-After: 2");
    registry.fault("/manifests/", Action::Reply(busy));
    let run = Run::pull(&dir, &registry.name("r"));
    let (lines, _) = lines(&run.args(&["--progress", "plain"]));
    assert!(
        lines[0].1.contains("503") && lines[0].1.contains("retrying in "),
        "{lines:?}"
    );
    assert!(lines[0].0 < Duration::from_secs(1), "{lines:?}");
}

#[test]
fn a_transfer_that_stands_is_named_on_the_bar_and_in_lines() {
    for how in ["plain", "bar"] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let image = Image::new(vec![crate::registry::image::Blob::layer(1, 300_000)]);
        image.push(&registry, "r", "latest");
        let stall = Action::Stall(100_000, Duration::from_secs(3));
        registry.fault(&image.layers[0].digest, stall);
        let run = Run::pull(&dir, &registry.name("r"));
        let outcome = run.args(&["--progress", how, "--jobs", "1"]).outcome();
        assert!(outcome.status.success(), "{}", outcome.stderr);
        let named = outcome
            .stderr
            .contains("waiting for an answer from 127.0.0.1");
        assert!(named, "{how}: {}", outcome.stderr);
    }
}

#[test]
fn a_pipe_without_a_reader_is_named() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let path = dir.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let run = Run::pull(&dir, &registry.name("r")).args(&["--timeout", "2", "-o", "pipe"]);
    let outcome = run.fails(7, "nothing is reading from it");
    assert!(
        outcome.stderr.contains("waiting for a reader of pipe"),
        "{}",
        outcome.stderr
    );
}
