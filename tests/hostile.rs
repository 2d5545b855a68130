//! Hostile or very broken servers: each is bounded in time and memory, and reported in one
//! printable line. (Documents are in `manifests`, connections in `transfer`.)

use crate::registry::image::{self, Blob, Image, OCI_INDEX, OCI_MANIFEST};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Outcome, Run};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

/// Terminal controls: CSI in 7 and in 8 bits, an operating system command, a bell, a delete, and a
/// line end.
const EVIL: &str = "\u{1b}[2J\u{9b}31m\u{1b}]0;owned\u{7}\u{7f}\r\nroot#";

/// The same in JSON.
fn evil_json() -> String {
    EVIL.chars()
        .map(|c| format!("\\u{:04x}", c as u32))
        .collect()
}

/// Pulls from a registry that has an image, but answers so; expects one line and a small program.
#[track_caller]
fn told(status: i32, words: &str, prepare: impl FnOnce(&Registry)) -> Outcome {
    let (registry, dir) = (Registry::start().lenient(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    prepare(&registry);
    let outcome = Run::new(
        &dir,
        &[
            "--insecure",
            "--retries",
            "0",
            "--timeout",
            "1",
            &registry.name("r"),
        ],
    )
    .limit(20)
    .fails(status, words);
    outcome.is_small();
    let lines = outcome.stderr.lines();
    let said: Vec<_> = lines
        .filter(|line| line.starts_with("dockersave: "))
        .collect();
    assert_eq!(said.len(), 1, "{}", outcome.stderr);
    assert!(dir.names().iter().all(|name| !name.ends_with(".tar")));
    outcome
}

// ---- without end ------------------------------------------------------------------------------

#[test]
fn interim_answers_without_end() {
    told(5, "interim", |registry| {
        registry.fault(
            "/manifests/",
            Action::Before(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000)),
        );
    });
    told(5, "", |registry| {
        registry.fault(
            "/manifests/",
            Action::Raw(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n".repeat(50_000)),
        );
    });
}

#[test]
fn trailers_and_chunk_lines_without_end() {
    let chunked = |rest: &[u8]| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        Action::Raw([head, rest].concat())
    };
    for rest in [
        [
            b"0\r\n".to_vec(),
            b"X-Trailer: and more\r\n".repeat(100_000),
        ]
        .concat(),
        [b"5;".to_vec(), b"extension=".repeat(200_000)].concat(),
        b"ffffffffffffffffff\r\nx".to_vec(),
        b"-1\r\nx".to_vec(),
        b"8000000000000000\r\nx".to_vec(),
        b"0x5\r\nhello\r\n0\r\n\r\n".to_vec(),
        b"\r\n".repeat(100_000),
    ] {
        told(5, "", |registry| {
            registry.fault("/manifests/", chunked(&rest));
        });
    }
}

#[test]
fn bodies_without_end_behind_every_status() {
    for (status, exit) in [(500, 5), (404, 4), (400, 5), (429, 5)] {
        told(exit, &status.to_string(), |registry| {
            registry.fault("/manifests/", Action::EndlessBody);
            registry.route(move |seen| {
                seen.target
                    .contains("/manifests/")
                    .then(|| Reply::new(status, "{"))
            });
        });
    }
    // A redirect's body is not read to its end; the image is at the other place.
    let (registry, dir) = (Registry::start().lenient(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    image.push(&registry, "other", "latest");
    registry.fault("/v2/r/manifests/", Action::EndlessBody);
    registry.route(|seen| {
        (seen.target == "/v2/r/manifests/latest")
            .then(|| Reply::redirect(307, "/v2/other/manifests/latest"))
    });
    let archive = Run::pull(&dir, &registry.name("r")).limit(20).archive();
    archive.outcome.is_small();
}

#[test]
fn a_list_of_tags_without_end() {
    let (registry, dir) = (Registry::start().lenient(), Dir::new());
    registry.fault("/tags/", Action::EndlessBody);
    registry.route(|_| Some(Reply::new(200, "{\"tags\":[\"")));
    let outcome = Run::pull(&dir, &registry.name("r"))
        .arg("--tags")
        .limit(20)
        .status(1);
    outcome.is_small();
}

#[test]
fn ever_new_tags_without_end() {
    let (registry, dir) = (Registry::start(), Dir::new());
    registry.route(|seen| {
        let last = seen
            .target
            .rsplit_once("last=")
            .map_or("", |(_, last)| last);
        let page: u32 = last.parse().unwrap_or(0) + 1;
        let mut body = String::from("{\"tags\":[\"x\"");
        for tag in 0..190_000 {
            body.push_str(&format!(",\"{page}-{tag}\""));
        }
        let link = format!("Link: </v2/r/tags/list?n=1&last={page}>; rel=\"next\"");
        Some(Reply::new(200, body + "]}").with(link))
    });
    for flag in ["-q", "--json"] {
        let run = Run::pull(&dir, &registry.name("r")).args(&["--tags", flag]);
        let outcome = run.within("exec \"$@\" >/dev/null").status(1);
        outcome.is_small();
        assert!(outcome.stderr.contains("truncated"), "{}", outcome.stderr);
    }
}

#[test]
fn a_head_that_comes_a_byte_at_a_time() {
    // Each byte is a sign of life, but a header has a deadline.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nX: ");
            while socket.write_all(b"y").is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    let dir = Dir::new();
    Run::new(
        &dir,
        &[
            "--insecure",
            "--retries",
            "0",
            "--timeout",
            "1",
            &format!("{address}/r"),
        ],
    )
    .limit(12)
    .fails(5, "no answer");
}

#[test]
fn a_handshake_that_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for mut socket in listener.incoming().flatten() {
            let _ = socket.read(&mut [0; 1]);
            held.push(socket);
        }
    });
    let dir = Dir::new();
    Run::new(
        &dir,
        &["--retries", "0", "--timeout", "1", &format!("{address}/r")],
    )
    .limit(12)
    .fails(5, &address.to_string());
}

#[test]
fn a_token_endpoint_without_end() {
    for (action, status) in [
        (Action::EndlessBody, 1),
        (Action::EndlessHead, 5),
        (Action::Drip(Duration::from_millis(300)), 5),
    ] {
        told(status, "", |registry| {
            let address = registry.address;
            registry.fault("/token", action.clone());
            registry.route(move |seen| {
                Some(match seen.target.starts_with("/token") {
                    true => Reply::new(200, format!("{{\"token\":\"{}", "a".repeat(1000))),
                    false => {
                        Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#))
                    }
                })
            });
        });
    }
}

// ---- lies ---------------------------------------------------------------------------------------

#[test]
fn lengths_that_are_lies() {
    for (length, status) in [
        ("18446744073709551615", 1),
        ("9223372036854775807", 1),
        ("99999999999999999999999", 5),
        ("-1", 5),
        ("+5", 5),
        ("0x10", 5),
        ("5, 6", 5),
        ("", 5),
    ] {
        told(status, "", |registry| {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{{}}");
            registry.fault("/manifests/", Action::Raw(head.into_bytes()));
        });
    }
    let digest = Image::small(1).layers[0].digest.clone();
    for length in ["18446744073709551615", "99999999999999999999999", "-1"] {
        let (registry, dir) = (Registry::start().lenient(), Dir::new());
        Image::small(1).push(&registry, "r", "latest");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nxx");
        registry.faults(Fault::new(&digest, Action::Raw(head.into_bytes())).always());
        let outcome = Run::new(&dir, &["--insecure", "--retries", "0", &registry.name("r")])
            .limit(20)
            .outcome();
        assert!(
            matches!(outcome.status.code(), Some(5 | 6)),
            "{}",
            outcome.stderr
        );
        outcome.is_small();
    }
}

#[test]
fn statuses_that_are_none() {
    for line in [
        "HTTP/1.1 000 x",
        "HTTP/1.1 999 x",
        "HTTP/1.1 20 x",
        "HTTP/1.1 2000 x",
        "HTTP/1.1 -20 x",
        "HTTP/1.1  200 OK",
        "HTTP/9.9 200 OK",
        "HTTP/1.1 204 none",
        "HTTP/1.1 304 same",
        "HTTP/1.1 206 part",
        "HTTP/1.1 101 other",
        "HTTP/1.1",
        "ICY 200 OK",
        "SSH-2.0-x",
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.fault(
            "/",
            Action::Raw(format!("{line}\r\nContent-Length: 0\r\n\r\n").into_bytes()),
        );
        let outcome = Run::new(
            &dir,
            &[
                "--insecure",
                "--retries",
                "0",
                "--timeout",
                "1",
                &registry.name("r"),
            ],
        )
        .limit(20)
        .outcome();
        assert!(
            matches!(outcome.status.code(), Some(1 | 5)),
            "{line}: {}",
            outcome.stderr
        );
        assert_eq!(
            outcome.stderr.lines().count(),
            1,
            "{line}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn a_page_for_people_in_every_place() {
    let page = "<!DOCTYPE html><html>\u{1b}[1mPlease log in to the hotel's network</html>";
    let image = Image::small(1);
    for (path, status) in [
        ("/manifests/", 1),
        (image.config.digest.as_str(), 6),
        (image.layers[1].digest.as_str(), 6),
    ] {
        told(status, "", |registry| {
            let reply = Reply::new(200, page).with("Content-Type: text/html");
            registry.faults(Fault::new(path, Action::Reply(reply)).always());
        });
    }
    let (registry, dir) = (Registry::start(), Dir::new());
    registry.route(move |_| Some(Reply::new(200, page)));
    Run::pull(&dir, &registry.name("r"))
        .arg("--tags")
        .fails(1, "HTML");
}

#[test]
fn deep_json_in_every_place() {
    let deep = "[".repeat(100_000);
    let image = Image::small(1);
    let (registry, dir) = (Registry::start(), Dir::new());
    let bad = image.clone().with_config(&format!("{{\"rootfs\":{deep}"));
    bad.push(&registry, "config", "latest");
    Run::pull(&dir, &registry.name("config"))
        .fails(1, "nested")
        .is_small();
    let text = deep.clone();
    registry.route(move |seen| {
        seen.target
            .contains("/tags/")
            .then(|| Reply::new(200, text.clone()))
    });
    Run::pull(&dir, &registry.name("r"))
        .arg("--tags")
        .fails(1, "nested")
        .is_small();
    for status in [401, 404, 500] {
        let text = format!("{{\"errors\":{deep}");
        told(
            if status == 401 {
                3
            } else if status == 404 {
                4
            } else {
                5
            },
            &status.to_string(),
            |registry| {
                registry.fault("/manifests/", Action::Reply(Reply::new(status, text)));
            },
        );
    }
    let text = format!("{{\"token\":{deep}");
    told(1, "nested", |registry| {
        let address = registry.address;
        registry.route(move |seen| {
            Some(match seen.target.starts_with("/token") {
                true => Reply::new(200, text.clone()),
                false => Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#)),
            })
        });
    });
}

// ---- large, but legal -----------------------------------------------------------------------------

#[test]
fn many_layers_and_many_platforms_fit_into_little_memory() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..1000).map(|seed| Blob::layer(seed, 50)).collect());
    image.push(&registry, "layers", "latest");
    Run::pull(&dir, &registry.name("layers"))
        .archive()
        .holds(&image, Some(&registry.name("layers:latest")))
        .outcome
        .is_small();
    let entry = |number: usize| {
        Image::small(1).entry(&image::platform("linux", &format!("cpu{number}"), ""))
    };
    let entries: Vec<String> = (0..900).map(entry).collect();
    image::push_index(&registry, "r", "latest", OCI_INDEX, &entries);
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["--arch", "amd64"])
        .status(4);
    outcome.is_small();
    assert!(
        outcome.stderr.len() < 20_000,
        "{} bytes of message",
        outcome.stderr.len()
    );
}

// ---- terminals --------------------------------------------------------------------------------------

#[test]
fn control_characters_in_an_error_stay_there() {
    let evil = evil_json();
    for body in [
        format!(r#"{{"errors":[{{"code":"{evil}","message":"{evil}","detail":"{evil}"}}]}}"#),
        format!(r#"{{"error":"{evil}","error_description":"{evil}"}}"#),
        format!(r#"{{"details":"{evil}","message":"{evil}"}}"#),
        format!("<Error><Code>{EVIL}</Code><Message>{EVIL}</Message></Error>"),
        EVIL.to_owned(),
    ] {
        for (status, exit) in [(400, 5), (401, 3), (403, 3), (404, 4), (500, 5)] {
            // `fails` looks for control characters.
            told(exit, &status.to_string(), |registry| {
                registry.fault(
                    "/manifests/",
                    Action::Reply(Reply::new(status, body.clone())),
                );
            });
        }
    }
}

#[test]
fn control_characters_in_a_head_stay_there() {
    // A field may hold tabs and bytes from 0x80 on; what it may not hold is a broken head.
    let evil = "a\u{9b}31m\tb\u{1b}[2Jc\u{7f}";
    for line in [
        format!("HTTP/1.1 404 {evil}\r\n"),
        format!("HTTP/1.1 401 x\r\nWWW-Authenticate: Bearer realm=\"http://{evil}/\"\r\n"),
        format!("HTTP/1.1 401 x\r\nWWW-Authenticate: {evil} realm=\"x\"\r\n"),
        format!("HTTP/1.1 307 x\r\nLocation: http://{evil}/x\r\n"),
        format!("HTTP/1.1 307 x\r\nLocation: {evil}\r\n"),
        format!("HTTP/1.1 429 x\r\nRateLimit-Limit: {evil};w=5\r\nRetry-After: {evil}\r\n"),
        format!("HTTP/1.1 200 x\r\nContent-Type: {evil}\r\n"),
        format!("HTTP/1.1 200 x\r\nTransfer-Encoding: {evil}\r\n"),
        format!("HTTP/1.1 200 x\r\nWarning: 299 - \"{evil}\"\r\nDocker-Content-Digest: {evil}\r\n"),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let raw = format!("{line}Content-Length: 2\r\n\r\n{{}}");
        registry.faults(Fault::new("/manifests/", Action::Raw(raw.into_bytes())).always());
        let run = Run::new(
            &dir,
            &[
                "--insecure",
                "--retries",
                "0",
                "--verbose",
                &registry.name("r"),
            ],
        );
        let outcome = run.limit(20).outcome();
        assert!(
            outcome.status.code().is_some_and(|code| code > 0),
            "{line:?}"
        );
        let bad = outcome
            .stderr
            .chars()
            .find(|c| c.is_control() && *c != '\n');
        assert!(bad.is_none(), "{line:?}: {:?}", outcome.stderr);
    }
}

#[test]
fn control_characters_in_listings_stay_there() {
    let evil = evil_json();
    let (registry, dir) = (Registry::start(), Dir::new());
    let tags = format!(r#"{{"name":"r","tags":["good","{evil}"]}}"#);
    registry.route(move |seen| {
        seen.target
            .contains("/tags/")
            .then(|| Reply::new(200, tags.clone()))
    });
    let printed = Run::pull(&dir, &registry.name("r"))
        .arg("--tags")
        .outcome()
        .stdout;
    assert!(
        printed.chars().all(|c| !c.is_control() || c == '\n'),
        "{printed:?}"
    );
    // A listing that is read by a script has a line for each tag.
    assert_eq!(printed, "good\n");
    let image = Image::small(1);
    image.push_untagged(&registry, "r");
    let entry = image.entry(&image::platform(&evil, &evil, &evil));
    image::push_index(&registry, "r", "latest", OCI_INDEX, &[entry]);
    Run::pull(&dir, &registry.name("r"))
        .args(&["--arch", "amd64"])
        .fails(4, "");
    let bad = image.with_config(&format!(
        r#"{{"architecture":"{evil}","os":"{evil}","variant":"{evil}","rootfs":{{"type":"{evil}","diff_ids":["{evil}"]}}}}"#
    ));
    bad.push(&registry, "config", "latest");
    Run::pull(&dir, &registry.name("config")).fails(1, "");
    let mut types = Image::small(1);
    types.layers[0].media_type = format!("{evil}+encrypted");
    types.config.media_type = evil.clone();
    image::put_manifest(&registry, "r", "types", OCI_MANIFEST, &types.manifest());
    Run::pull(&dir, &registry.name("r:types")).fails(1, "");
    let mut digest = Image::small(1);
    digest.layers[0].digest = evil;
    image::put_manifest(&registry, "r", "digest", OCI_MANIFEST, &digest.manifest());
    Run::pull(&dir, &registry.name("r:digest")).fails(1, "");
}

#[test]
fn control_characters_in_a_name_are_not_echoed() {
    let dir = Dir::new();
    for args in [
        &["deb\u{1b}[2Jian"][..],
        &["--\u{1b}[2J"],
        &["debian", "--platform", "\u{9b}2J/x"],
        &["debian", "--jobs", "\u{1b}c"],
        &["\u{1b}[2J.io/x"],
    ] {
        Run::new(&dir, args).fails(2, "");
    }
}

// ---- requests that are not ours ---------------------------------------------------------------------

#[test]
fn no_server_adds_lines_to_our_requests() {
    let registry = Registry::start();
    let address = registry.address;
    Image::small(1).push(&registry, "r", "latest");
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            return Some(Reply::new(200, r#"{"token":"abc\r\nX-Evil: 1\r\n\r\n"}"#));
        }
        (seen.header("authorization").is_none()).then(|| {
            Reply::unauthorized(&format!(
                r#"Bearer realm="http://{address}/token",service="a b&c=d#e\"",scope="x&y=z""#
            ))
        })
    });
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r")).outcome();
    let seen = registry.seen();
    assert!(seen.iter().all(|seen| seen.header("x-evil").is_none()));
    let token = seen
        .iter()
        .find(|seen| seen.target.starts_with("/token"))
        .unwrap();
    assert!(
        token.target.contains("service=a%20b%26c%3Dd%23e%22")
            || token.target.contains("service=a+b%26c%3Dd%23e%22"),
        "{}",
        token.target
    );
    assert!(!token.target.contains("y=z"), "{}", token.target);
    for location in [
        "/x y HTTP/1.1",
        "/x\ty",
        "http://h x/",
        "/\u{e4}",
        "http://127.0.0.1:99999/",
        "http:///x",
        "http://[::1/x",
        "http://127.0.0.1:0/",
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.route(move |seen| {
            (seen.target == "/v2/r/manifests/latest").then(|| Reply::redirect(307, location))
        });
        let outcome =
            Run::new(&dir, &["--insecure", "--retries", "0", &registry.name("r")]).outcome();
        assert!(
            outcome.status.code().is_some_and(|code| code > 0),
            "{location}"
        );
        for seen in registry.seen() {
            assert!(
                !seen.target.contains(' ') && seen.target.is_ascii(),
                "{:?}",
                seen.target
            );
        }
    }
}

#[test]
fn a_large_config_fits_into_little_memory() {
    let (registry, dir) = (Registry::start(), Dir::new());
    // A config of 3.4 MB, as a history of long steps makes.
    let image = Image::small(1);
    let ids: Vec<String> = image
        .layers
        .iter()
        .map(|layer| format!("{:?}", layer.diff_id))
        .collect();
    let step = format!(
        r#"{{"created_by":"{}","empty_layer":true}}"#,
        "x".repeat(1000)
    );
    let history = vec![step; 3300].join(",");
    let large = image.with_config(&format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}},"history":[{history}]}}"#,
        ids.join(",")
    ));
    large.push(&registry, "config", "latest");
    Run::pull(&dir, &registry.name("config"))
        .archive()
        .holds(&large, Some(&registry.name("config:latest")))
        .outcome
        .is_small();
}

#[test]
fn a_large_manifest_fits_into_little_memory() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut image = Image::small(1);
    image.more = format!(r#""annotations":{{"x":"{}"}},"#, "y".repeat(3_500_000));
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")))
        .outcome
        .is_small();
}

#[test]
fn a_large_page_of_tags_fits_into_little_memory() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let tags: Vec<String> = (0..57_000).map(|n| format!("\"tag-{n:036}\"")).collect();
    let page = format!(r#"{{"tags":[{}]}}"#, tags.join(","));
    registry.route(move |_| Some(Reply::new(200, page.clone())));
    let outcome = Run::pull(&dir, &registry.name("r")).arg("--tags").outcome();
    assert_eq!(outcome.status.code(), Some(0), "{}", outcome.stderr);
    outcome.is_small();
}

#[test]
fn a_config_longer_than_its_descriptor_says_is_not_what_was_named() {
    let config = Image::small(1).config.digest;
    told(6, "", |registry| {
        registry.faults(Fault::new(&config, Action::EndlessBody).always());
    });
}

#[test]
fn control_characters_in_platforms_stay_there() {
    let evil = evil_json();
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push_untagged(&registry, "r");
    let entry = image.entry(&image::platform(&evil, &evil, &evil));
    image::push_index(&registry, "r", "latest", OCI_INDEX, &[entry]);
    let listed = Run::pull(&dir, &registry.name("r"))
        .arg("--platforms")
        .outcome()
        .stdout;
    assert!(
        listed
            .chars()
            .all(|c| !c.is_control() || "\n\t".contains(c)),
        "{listed:?}"
    );
    assert!(listed.lines().count() <= 1, "{listed:?}");
}
