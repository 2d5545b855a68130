//! Trickling servers: every wait ends, because only a body's own bytes count, not its framing.

use crate::registry::image::Image;
use crate::registry::tls::{Authority, Leaf};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Outcome, Run};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(300);
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn trickle(first: impl Into<Vec<u8>>, then: impl Into<Vec<u8>>) -> Action {
    Action::Trickle(first.into(), then.into(), PAUSE)
}

/// With `--timeout 1` and no retries: a small multiple of it, although bytes still come.
#[track_caller]
fn ends(dir: &Dir, args: &[&str], words: &str) -> Outcome {
    let outcome = Run::new(dir, &["--retries", "0", "--timeout", "1"])
        .args(args)
        .limit(60)
        .fails(5, words);
    assert!(outcome.time < Duration::from_secs(12), "{:?}", outcome.time);
    outcome
}

/// A registry with an image whose requests for `path` are answered so.
fn answering(path: &str, action: Action) -> Registry {
    let registry = Registry::start().lenient();
    Image::small(1).push(&registry, "r", "latest");
    registry.faults(Fault::new(path, action).always());
    registry
}

/// All of them at once: each takes seconds, of which the processor needs none.
fn each<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| check(case));
        }
    });
}

#[test]
fn what_surrounds_a_body_is_no_data() {
    let cases = [
        (format!("{CHUNKED}1;"), "a"),
        (CHUNKED.to_owned(), "0"),
        (format!("{CHUNKED}0\r\n"), "a"),
        (format!("{CHUNKED}0\r\n"), "X: y\r\n"),
        (format!("{CHUNKED}0\r\nX: "), "y"),
        // A byte of the body in each chunk, with an extension around it.
        (CHUNKED.to_owned(), "1;extension=value\r\n \r\n"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_owned(),
            " ",
        ),
        ("HTTP/1.0 200 OK\r\n\r\n".to_owned(), " "),
    ];
    each(&cases, |(first, then)| {
        let registry = answering("/r/", trickle(first.clone(), *then));
        let name = registry.name("r");
        let questions = [
            &["--metadata"][..],
            &["--platforms"],
            &["--sha", "--arch", "amd64"],
            &["--tags"],
        ];
        each(&questions, |question| {
            let dir = Dir::new();
            let args = [&["--insecure", &name], *question].concat();
            let outcome = ends(&dir, &args, "almost no data");
            assert!(outcome.time < Duration::from_secs(9), "{:?}", outcome.time);
        });
    });
}

#[test]
fn what_surrounds_a_layer_is_no_data() {
    let digest = Image::small(1).layers[0].digest.clone();
    let cases = [
        (format!("{CHUNKED}1;"), "a"),
        (format!("{CHUNKED}2\r\nab\r\n"), "0"),
        (CHUNKED.to_owned(), "1;extension=value\r\na\r\n"),
    ];
    each(&cases, |(first, then)| {
        let registry = answering(&digest, trickle(first.clone(), *then));
        let name = registry.name("r");
        let outputs = [
            &["-o", "x.tar"][..],
            &["--no-tar"],
            &["--gunzip"],
            &["-o", "-"],
        ];
        each(&outputs, |more| {
            let dir = Dir::new();
            let outcome = Run::new(&dir, &["--retries", "0", "--timeout", "1"])
                .args(&["--insecure", &name])
                .args(more)
                .within("exec \"$@\" >/dev/null")
                .limit(60)
                .fails(5, "almost no data");
            assert!(outcome.time < Duration::from_secs(9), "{:?}", outcome.time);
        });
    });
}

/// Blocks of deflate without a byte in them come fast, and nothing comes of them.
#[test]
fn gzip_that_comes_to_nothing_ends() {
    let head = b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\n";
    let first = [&head[..], b"\x1f\x8b\x08\0\0\0\0\0\0\x03"].concat();
    let blocks = [0, 0, 0, 0xff, 0xff].repeat(200_000);
    let registry = answering("/manifests/", trickle(first, blocks));
    ends(&Dir::new(), &["--insecure", &registry.name("r")], "gzip");
}

#[test]
fn heads_and_interim_answers_have_one_end_together() {
    let cases = [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("HTTP/1.1 102 Processing\r\n", "X: y\r\n"),
        ("HTTP/1.1 200 OK\r\nX: ", "y"),
        ("", "\r"),
    ];
    each(&cases, |(first, then)| {
        let registry = answering("/manifests/", trickle(*first, *then));
        let name = registry.name("r");
        each(&["--metadata", "--sha"], |question| {
            ends(&Dir::new(), &["--insecure", &name, question], "");
        });
    });
}

#[test]
fn redirects_that_are_slow_each_end_together() {
    let registry = Registry::start().lenient();
    registry.faults(Fault::new("/manifests/", Action::Delay(Duration::from_secs(3))).always());
    registry.route(|seen| {
        let hop = seen.target.matches("x").count();
        let more = "x".repeat(hop + 1);
        Some(Reply::redirect(307, &format!("/v2/r/manifests/{more}")))
    });
    let name = registry.name("r");
    ends(
        &Dir::new(),
        &["--insecure", "--metadata", &name],
        "no answer",
    );
}

#[test]
fn bodies_that_nobody_wants_are_not_waited_for() {
    for status in [404, 500, 307] {
        let head = format!(
            "HTTP/1.1 {status} X\r\nLocation: /v2/r/manifests/x\r\nTransfer-Encoding: chunked\r\n\r\n1;"
        );
        let registry = answering("/manifests/", trickle(head, "a"));
        let dir = Dir::new();
        let args = [
            "--retries",
            "0",
            "--timeout",
            "1",
            "--insecure",
            "--metadata",
        ];
        let outcome = Run::new(&dir, &args)
            .arg(&registry.name("r"))
            .limit(60)
            .outcome();
        assert!(matches!(outcome.status.code(), Some(1 | 4 | 5)));
        assert!(outcome.time < Duration::from_secs(14), "{:?}", outcome.time);
    }
}

#[test]
fn a_token_that_trickles_is_not_waited_for() {
    let head = format!("{CHUNKED}1;");
    for (first, then) in [(head.as_str(), "a"), (CHUNKED, "1\r\n \r\n")] {
        let registry = answering("/token", trickle(first, then));
        let address = registry.address;
        registry.route(move |_| {
            let realm = format!(r#"Bearer realm="http://{address}/token""#);
            Some(Reply::unauthorized(&realm))
        });
        let name = registry.name("r");
        ends(&Dir::new(), &["--insecure", "--metadata", &name], "");
    }
}

/// A line that passes so many bytes of each connection's answers at once, and all further ones
/// one at a time.
fn narrow(target: SocketAddr, at_once: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut near in listener.incoming().flatten() {
            let mut far = TcpStream::connect(target).unwrap();
            let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let (mut passed, mut byte) = (0, [0]);
                while far.read(&mut byte).is_ok_and(|read| read > 0) {
                    passed += 1;
                    if passed > at_once {
                        std::thread::sleep(PAUSE);
                    }
                    if near.write_all(&byte).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn records_of_tls_that_trickle_are_no_data() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let mut image = Image::small(1);
    image.more = format!(r#""annotations":{{"x":"{}"}},"#, "y".repeat(50_000));
    image.push(&registry, "r", "latest");
    let ca = dir.write("ca.pem", &authority.pem);
    // In the handshake, in the head, and in a record of the body, of which nothing can be used
    // before all of it is there.
    for (at_once, words) in [(300, ""), (2500, ""), (8000, "almost no data")] {
        let line = narrow(registry.address, at_once);
        let name = format!("localhost:{}/r", line.port());
        ends(&Dir::new(), &["--cacert", &ca, "--metadata", &name], words);
    }
}

#[test]
fn a_proxy_that_trickles_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX: ");
            while socket.write_all(b"y").is_ok() {
                std::thread::sleep(PAUSE);
            }
        }
    });
    let dir = Dir::new();
    let outcome = Run::new(&dir, &["--retries", "0", "--timeout", "1", "--metadata"])
        .env("https_proxy", &format!("http://{address}"))
        .arg("registry.invalid/r")
        .limit(60)
        .fails(5, "no answer");
    assert!(outcome.time < Duration::from_secs(12), "{:?}", outcome.time);
}

/// Two thousand bytes a second are little, but they come.
#[test]
fn a_slow_line_that_brings_data_is_waited_for() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut image = Image::small(1);
    image.more = format!(r#""annotations":{{"x":"{}"}},"#, "y".repeat(8000));
    image.push(&registry, "r", "latest");
    registry.faults(Fault::new("/r/", Action::Chunked(200)).always());
    registry.pace(2000);
    Run::new(&dir, &["--insecure", "--retries", "0", "--timeout", "1"])
        .arg(&registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

/// What waits for the reader of a pipe does not wait for the registry.
#[test]
fn a_reader_that_pauses_is_not_the_registrys_fault() {
    let registry = Registry::start();
    let image = Image::new(vec![crate::registry::image::Blob::layer(1, 3_000_000)]);
    image.push(&registry, "r", "latest");
    registry.pace(2_000_000);
    let dir = Dir::new();
    Run::new(&dir, &["--insecure", "--retries", "0", "--timeout", "1"])
        .args(&["--jobs", "1", "-o", "-", &registry.name("r")])
        .within(r#"PATH=/usr/bin:/bin; { "$@"; echo $? >status; } | { sleep 6; cat >/dev/null; }"#)
        .limit(60)
        .status(0);
    let status = std::fs::read_to_string(dir.join("status")).unwrap();
    assert_eq!(status.trim(), "0");
}
