//! Waiting: how long, and what is said meanwhile.

use crate::registry::Registry;
use crate::registry::image::Image;
use crate::util::{Dir, Run};
use std::net::TcpListener;
use std::time::Duration;

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
            outcome.stderr.contains("after 2 tries"),
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
