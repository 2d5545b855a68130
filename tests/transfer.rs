//! Connection faults: the archive is right or there is none, and nothing is downloaded twice
//! without need.

use crate::registry::image::{self, Blob, Image};
use crate::registry::tls::{Authority, Leaf};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One layer of about 1.5 MB, so that there are several chunks.
fn one(registry: &Registry) -> (Image, String) {
    let image = Image::new(vec![Blob::layer(43, 1_500_000)]);
    image.push(registry, "r", "latest");
    let digest = image.layers[0].digest.clone();
    (image, digest)
}

#[track_caller]
fn comes_through(registry: &Registry, image: &Image) {
    let dir = Dir::new();
    let run = Run::pull(&dir, &registry.name("r")).args(&["--timeout", "1"]);
    run.archive().holds(image, Some(&registry.name("r:latest")));
}

fn ranges(registry: &Registry) -> Vec<String> {
    registry
        .seen()
        .iter()
        .filter_map(|seen| seen.header("range").map(str::to_owned))
        .collect()
}

#[test]
fn reset_in_the_body_resumes_with_a_closed_range() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    registry.fault(&digest, Action::Reset(700_000));
    comes_through(&registry, &image);
    assert_eq!(
        ranges(&registry),
        [format!(
            "bytes=700000-{}",
            image.layers[0].content.len() - 1
        )]
    );
}

#[test]
fn a_range_that_is_answered_with_the_whole() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    registry.fault(&digest, Action::Reset(700_000));
    registry.faults(Fault::new(&digest, Action::NoRange).ranges());
    comes_through(&registry, &image);
}

#[test]
fn ranges_that_are_not_what_was_asked_for() {
    let size = Blob::layer(43, 1_500_000).content.len();
    for fields in [
        vec![format!("bytes 0-{}/{size}", size - 1)],
        vec![format!("bytes 700001-{}/{size}", size - 1)],
        vec![format!("bytes 700000-{}/{size}", size - 2)],
        vec![format!("bytes 700000-{}/{}", size - 1, size + 1)],
        vec!["bytes */5".into()],
        vec![],
        vec![format!("bytes 700000-{}/{size}", size - 1); 2],
    ] {
        let registry = Registry::start();
        let (image, digest) = one(&registry);
        registry.fault(&digest, Action::Reset(700_000));
        registry.faults(Fault::new(&digest, Action::ContentRange(fields)).ranges());
        comes_through(&registry, &image);
    }
}

#[test]
fn statuses_that_ranges_get() {
    for status in [416, 400] {
        let registry = Registry::start();
        let (image, digest) = one(&registry);
        registry.fault(&digest, Action::Reset(700_000));
        registry.faults(Fault::new(&digest, Action::Reply(Reply::new(status, ""))).ranges());
        comes_through(&registry, &image);
        assert_eq!(registry.count(&digest), 3);
    }
}

#[test]
fn a_clean_close_before_the_end_is_too_short() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    registry.faults(Fault::new(&digest, Action::Close(700_000)));
    comes_through(&registry, &image);
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    registry.fault(&digest, Action::Old);
    registry.fault(&digest, Action::Close(700_000));
    comes_through(&registry, &image);
}

#[test]
fn a_stall_in_the_body_ends() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    registry.fault(&digest, Action::Stall(700_000, Duration::from_secs(20)));
    comes_through(&registry, &image);
}

#[test]
fn a_stall_before_the_head_ends() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    registry.fault(&digest, Action::Delay(Duration::from_secs(20)));
    comes_through(&registry, &image);
}

#[test]
fn a_byte_now_and_then_is_no_transfer() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (_, digest) = one(&registry);
    registry.faults(Fault::new(&digest, Action::Drip(Duration::from_millis(300))).always());
    let run = Run::new(
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
    .limit(15);
    run.fails(5, "almost no data");
}

#[test]
fn progress_refills_the_tries() {
    let registry = Registry::start();
    let image = Image::new(vec![Blob::layer(52, 13 << 20)]);
    image.push(&registry, "r", "latest");
    registry.faults(Fault::new(&image.layers[0].digest, Action::Reset((1 << 20) + 10)).times(11));
    let dir = Dir::new();
    let run = Run::new(&dir, &["--insecure", "--retries", "1", &registry.name("r")]);
    run.archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert!(
        registry.blob_bytes() < 14 << 20,
        "{}",
        registry.blob_bytes()
    );
}

#[test]
fn resets_without_progress_end() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (_, digest) = one(&registry);
    registry.faults(Fault::new(&digest, Action::Reset(0)).always());
    let outcome = Run::pull(&dir, &registry.name("r")).fails(5, "after 3 attempts");
    assert_eq!(registry.count(&digest), 3);
    assert!(
        dir.names().is_empty(),
        "{:?}: {}",
        dir.names(),
        outcome.stderr
    );
}

#[test]
fn a_body_that_goes_on() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (_, digest) = one(&registry);
    registry.fault(&digest, Action::Longer(1));
    Run::pull(&dir, &registry.name("r")).fails(6, "bytes");
    let (registry, dir) = (Registry::start().lenient(), Dir::new());
    let (_, digest) = one(&registry);
    registry.fault(&digest, Action::EndlessBody);
    Run::pull(&dir, &registry.name("r")).fails(6, "bytes");
}

#[test]
fn a_content_length_that_is_not_the_size() {
    for wrong in [7, 2_000_000] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let (_, digest) = one(&registry);
        registry.fault(&digest, Action::Length(wrong));
        Run::pull(&dir, &registry.name("r")).fails(6, &format!("{wrong} bytes"));
    }
}

#[test]
fn a_flipped_bit_is_fetched_again_once() {
    for at in [0, 700_000, 1_499_999] {
        let registry = Registry::start();
        let (image, digest) = one(&registry);
        registry.fault(&digest, Action::Flip(at));
        comes_through(&registry, &image);
        assert_eq!(registry.count(&digest), 2);
        assert!(
            ranges(&registry).is_empty(),
            "the second try takes the whole, without a range"
        );
    }
    let (registry, dir) = (Registry::start(), Dir::new());
    let (_, digest) = one(&registry);
    registry.faults(Fault::new(&digest, Action::Flip(1000)).always());
    let outcome = Run::pull(&dir, &registry.name("r")).fails(6, &digest);
    assert!(outcome.stderr.contains("got sha256:"), "{}", outcome.stderr);
    assert_eq!(registry.count(&digest), 2);
    Run::pull(&dir, &registry.name("r")).fails(6, &digest);
}

#[test]
fn a_flipped_bit_behind_a_resumed_byte() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    registry.fault(&digest, Action::Reset(700_000));
    registry.faults(Fault::new(&digest, Action::Flip(1000)).ranges());
    comes_through(&registry, &image);
}

#[test]
fn retry_after() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    for value in ["1", "Sun, 06 Nov 1994 08:49:37 GMT", "985.86\u{b5}s"] {
        registry.forget();
        registry.fault(
            &digest,
            Action::Reply(Reply::new(429, "").with(format!("Retry-After: {value}"))),
        );
        let dir = Dir::new();
        let archive = Run::pull(&dir, &registry.name("r")).archive();
        archive.holds(&image, Some(&registry.name("r:latest")));
        assert!(
            archive.outcome.time >= Duration::from_millis(450),
            "{value}: {:?}",
            archive.outcome.time
        );
    }
}

#[test]
fn a_used_up_quota_is_told_and_not_hammered() {
    let (registry, dir) = (Registry::start(), Dir::new());
    registry.route(|_| {
        let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
        Some(Reply::new(429, body).with("ratelimit-limit: 100;w=21600").with("ratelimit-remaining: 0;w=21600"))
    });
    let outcome = Run::pull(&dir, &registry.name("r")).fails(5, "pull rate limit");
    assert!(
        outcome.stderr.contains("100 pulls in 6 h, 0 left"),
        "{}",
        outcome.stderr
    );
    assert_eq!(registry.seen().len(), 1);
}

#[test]
fn a_limit_of_a_moment_is_waited_for() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    for fields in [
        // GitLab
        &[
            "RateLimit-Limit: 2000",
            "RateLimit-Remaining: 0",
            "RateLimit-Reset: 1",
            "Retry-After: 1",
        ][..],
        // Envoy
        &[
            "RateLimit-Limit: 10, 10;w=1",
            "RateLimit-Remaining: 0",
            "RateLimit-Reset: 1",
        ],
        &["RateLimit-Limit: 10;w=1", "RateLimit-Remaining: 0;w=1"],
        &["X-RateLimit-Remaining: 0"],
    ] {
        for path in ["/manifests/", &digest] {
            let busy = fields
                .iter()
                .fold(Reply::new(429, "Retry later\n"), |reply, field| {
                    reply.with(*field)
                });
            registry.fault(path, Action::Reply(busy));
            comes_through(&registry, &image);
        }
    }
}

#[test]
fn statuses_that_pass_and_statuses_that_stay() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    for status in [500, 502, 503, 504, 520, 523, 525, 527, 530] {
        registry.fault(&digest, Action::Reply(Reply::new(status, "")));
        comes_through(&registry, &image);
    }
    for (status, exit) in [(501, 5), (400, 5), (403, 3), (404, 4)] {
        let dir = Dir::new();
        registry.forget();
        registry.fault(&digest, Action::Reply(Reply::new(status, "")));
        Run::pull(&dir, &registry.name("r")).fails(exit, &status.to_string());
        assert_eq!(registry.count(&digest), 1);
    }
}

#[test]
fn a_kept_connection_that_was_closed_is_no_failure() {
    let registry = Registry::start();
    let image = Image::new((0..20).map(|seed| Blob::layer(seed, 100)).collect());
    image.push(&registry, "r", "latest");
    registry.faults(Fault::new("/v2/r/", Action::CloseAfter).always());
    let dir = Dir::new();
    Run::new(
        &dir,
        &[
            "--insecure",
            "--retries",
            "0",
            "--jobs",
            "2",
            &registry.name("r"),
        ],
    )
    .archive()
    .holds(&image, Some(&registry.name("r:latest")));
    assert_eq!(registry.count("/v2/r/"), 22, "nothing was asked for twice");
}

#[test]
fn closes_interim_answers_and_odd_heads() {
    let registry = Registry::start();
    let image = Image::small(63);
    image.push(&registry, "r", "latest");
    for action in [
        Action::SayClose,
        Action::Before(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec(),
        ),
        Action::Header("X-Folded: a\r\n b".into()),
        Action::Header("no colon here".into()),
        Action::Header("Content-Encoding: x-gzip".into()),
        Action::Header("X-Latin: caf\u{e9}".into()),
    ] {
        registry.faults(Fault::new("/v2/r/", action).times(5));
        comes_through(&registry, &image);
    }
    registry.fault(
        &image.layers[0].digest,
        Action::Raw(b"garbage\r\n\r\n".to_vec()),
    );
    registry.fault(
        &image.layers[1].digest,
        Action::Raw(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".to_vec(),
        ),
    );
    registry.fault(
        &image.layers[2].digest,
        Action::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".to_vec()),
    );
    comes_through(&registry, &image);
}

#[test]
fn both_framings_at_once() {
    let registry = Registry::start();
    let (image, digest) = one(&registry);
    registry.fault(&digest, Action::Chunked(5000));
    registry.faults(Fault::new(
        &digest,
        Action::Header("Content-Length: 3".into()),
    ));
    comes_through(&registry, &image);
}

#[test]
fn ports_that_speak_something_else() {
    let authority = Authority::new();
    let secure = Registry::start_tls(authority.server(&Leaf::default()));
    let dir = Dir::new();
    Run::new(&dir, &["--insecure", "--retries", "0", &secure.name("r")]).outcome();
    let plain = Registry::start();
    Run::new(&dir, &["--retries", "0", &plain.name("r")]).fails(1, "use --insecure");
    let strange = Registry::start();
    strange.fault("/", Action::Raw(vec![0, 0, 18, 4, 0, 0, 0, 0, 0]));
    Run::new(&dir, &["--insecure", "--retries", "0", &strange.name("r")]).fails(5, "only HTTP/2");
    let alert = Registry::start();
    alert.fault("/", Action::Raw(vec![0x15, 3, 1, 0, 2, 2, 70]));
    Run::new(&dir, &["--insecure", "--retries", "0", &alert.name("r")])
        .fails(1, "run without --insecure");
}

#[test]
fn endless_heads_and_lines_are_bounded() {
    for action in [
        Action::EndlessHead,
        Action::Raw([b"HTTP/1.1 200 ".to_vec(), vec![b'x'; 1 << 20]].concat()),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.fault("/manifests/", action);
        let outcome = Run::new(&dir, &["--insecure", "--retries", "0", &registry.name("r")])
            .limit(20)
            .fails(5, "more than");
        outcome.is_small();
    }
}

#[test]
fn cut_at_every_byte_of_a_small_exchange() {
    let image = Image::new(vec![Blob::bytes(
        "application/vnd.oci.image.layer.v1.tar",
        b"tiny".to_vec(),
        image::sha256(b"tiny"),
    )]);
    let registry = Registry::start();
    image.push(&registry, "r", "latest");
    let answer = |body: &[u8]| {
        [
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: x\r\nContent-Length: {}\r\n\r\n",
                body.len()
            )
            .as_bytes(),
            body,
        ]
        .concat()
    };
    for (path, whole) in [
        ("/manifests/", answer(image.manifest().as_bytes())),
        (image.config.digest.as_str(), answer(&image.config.data())),
        (image.layers[0].digest.as_str(), answer(b"tiny")),
    ] {
        // With no retries it ends with a message.
        for cut in 0..whole.len() {
            let dir = Dir::new();
            registry.fault(path, Action::Raw(whole[..cut].to_vec()));
            let outcome =
                Run::new(&dir, &["--insecure", "--retries", "0", &registry.name("r")]).outcome();
            // The downloaded part of the layer is kept.
            let kept = path == image.layers[0].digest && cut > whole.len() - b"tiny".len();
            // A layer's connection may have been a kept one: then the request is made again.
            match outcome.status.code() {
                Some(0) => {}
                Some(5) => assert_eq!(dir.names().len(), usize::from(kept), "{cut}"),
                other => panic!("{path} cut at {cut}: {other:?} {}", outcome.stderr),
            }
        }
    }
}

#[test]
fn a_mixture_of_faults_comes_through_in_one_run() {
    let registry = Registry::start();
    let image = Image::new((0..12).map(|seed| Blob::layer(seed, 400_000)).collect());
    image.push(&registry, "r", "latest");
    for (layer, action) in [
        (0, Action::Reset(100_000)),
        (2, Action::Reply(Reply::new(429, "").with("Retry-After: 1"))),
        (4, Action::Reply(Reply::new(503, ""))),
        (6, Action::Close(399_000)),
        (8, Action::Flip(17)),
        (10, Action::Stall(5, Duration::from_secs(9))),
    ] {
        registry.fault(&image.layers[layer].digest, action);
    }
    comes_through(&registry, &image);
    assert!(
        registry.seen().len() <= 2 * 14,
        "{} requests",
        registry.seen().len()
    );
}

/// Everything at once: tokens for five requests, signed URLs for one response, and cuts, 429 and
/// 503 in between.
#[test]
fn everything_at_once_comes_through_in_one_run() {
    let (registry, store) = (Registry::start(), Registry::start());
    let image = Image::new((0..12).map(|seed| Blob::layer(seed, 900_000)).collect());
    image.push(&registry, "r", "latest");
    image.push(&store, "r", "latest");
    let (address, place) = (registry.address, store.address);
    let tokens = Arc::new(Mutex::new(Vec::<u32>::new()));
    let signed = Arc::new(AtomicU32::new(0));
    let (issued, number) = (tokens.clone(), signed.clone());
    registry.route(move |seen| {
        let mut issued = issued.lock().unwrap();
        if seen.target.starts_with("/token") {
            issued.push(5);
            return Some(Reply::new(
                200,
                format!(r#"{{"token":"t{}"}}"#, issued.len() - 1),
            ));
        }
        let token = seen
            .header("authorization")
            .and_then(|field| field.strip_prefix("Bearer t"));
        let left = token.and_then(|token| issued.get_mut(token.parse::<usize>().ok()?));
        match left {
            Some(left) if *left > 0 => *left -= 1,
            _ => {
                return Some(Reply::unauthorized(&format!(
                    r#"Bearer realm="http://{address}/token",service="s""#
                )));
            }
        }
        seen.target.contains("/blobs/").then(|| {
            let number = number.fetch_add(1, Ordering::SeqCst);
            let location = format!("Location: http://{place}{}?sig={number}", seen.target);
            Reply::new(307, "").with(location)
        })
    });
    let used = Mutex::new(std::collections::HashSet::new());
    store.route(move |seen| {
        let sign = seen
            .target
            .split_once("?sig=")
            .map(|(_, sign)| sign.to_owned());
        let fresh = sign.is_some_and(|sign| used.lock().unwrap().insert(sign));
        (!fresh).then(|| Reply::new(403, "<Error><Code>ExpiredToken</Code></Error>"))
    });
    for (layer, action) in [
        (1, Action::Reset(200_000)),
        (3, Action::Reply(Reply::new(429, "").with("Retry-After: 1"))),
        (5, Action::Reply(Reply::new(503, ""))),
        (7, Action::Close(899_000)),
        (9, Action::Flip(17)),
        (11, Action::Reply(Reply::new(403, ""))),
    ] {
        store.fault(&image.layers[layer].digest, action);
    }
    comes_through(&registry, &image);
    // Manifest, config and layers, each with its redirect; three requests for the first token.
    let needed = 1 + 2 * 13 + 2;
    let asked = registry.seen().len() + store.seen().len();
    assert!(asked <= 2 * needed, "{asked} requests instead of {needed}");
}

/// A line to a registry that is dead for a while, again and again: everything on it breaks, and
/// nothing new comes up.
fn outages(target: SocketAddr, up: Duration, down: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let line = Arc::new(Mutex::new((true, Vec::<TcpStream>::new())));
    let ends = line.clone();
    std::thread::spawn(move || {
        loop {
            for (alive, time) in [(true, up), (false, down)] {
                let mut line = ends.lock().unwrap();
                line.0 = alive;
                for socket in line.1.drain(..) {
                    let _ = socket.shutdown(Shutdown::Both);
                }
                drop(line);
                std::thread::sleep(time);
            }
        }
    });
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let mut line = line.lock().unwrap();
            let Ok(far) = TcpStream::connect(target) else {
                continue;
            };
            if !line.0 {
                continue;
            }
            for (mut from, mut to) in [(&near, &far), (&far, &near)]
                .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
            line.1.push(near);
            line.1.push(far);
        }
    });
    address
}

#[test]
fn a_line_with_outages_brings_each_byte_about_once() {
    // At full length 106 MB over a line that is dead for 3 of every 13 seconds.
    let full = std::env::var_os("DOCKERSAVE_TEST_LARGE").is_some();
    let (length, up, down) = if full {
        (9_267_200, 10_000, 3000)
    } else {
        (500_000, 700, 300)
    };
    let registry = Registry::start();
    registry.pace(length as u64 / if full { 8 } else { 2 });
    let image = Image::new((0..12).map(|seed| Blob::layer(seed, length)).collect());
    image.push(&registry, "r", "latest");
    let line = outages(
        registry.address,
        Duration::from_millis(up),
        Duration::from_millis(down),
    );
    let dir = Dir::new();
    let name = format!("{line}/r:latest");
    let archive = Run::pull(&dir, &name)
        .args(&[
            "--retries",
            if full { "5" } else { "20" },
            "--progress",
            "json",
        ])
        .limit(300)
        .archive();
    archive.holds(&image, Some(&name)).outcome.is_small();
    let (size, downloaded) = (image.size(), archive.outcome.downloaded());
    assert!(registry.connections() > 12, "no connection ever broke");
    assert!(
        downloaded >= size && downloaded <= size + size / 10,
        "{downloaded} bytes for {size}"
    );
}

#[test]
fn a_slow_line_loses_nothing_to_connections_that_take_over() {
    let registry = Registry::start();
    registry.pace(50_000);
    let image = Image::new(
        [(1, 400_000), (2, 1000), (3, 1000)]
            .map(|(seed, length)| Blob::layer(seed, length))
            .into(),
    );
    image.push(&registry, "r", "latest");
    let dir = Dir::new();
    let archive = Run::pull(&dir, &registry.name("r"))
        .args(&["--progress", "json"])
        .archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    let (size, downloaded) = (image.size(), archive.outcome.downloaded());
    assert!(
        downloaded <= size + size / 20,
        "{downloaded} bytes for {size}"
    );
}

#[test]
fn ranges_that_crawl_are_given_up_for_others() {
    let registry = Registry::start().lenient();
    registry.pace(8_000_000);
    let image = Image::new(vec![Blob::layer(1, 24_000_000)]);
    image.push(&registry, "r", "latest");
    let crawl = Action::Drip(Duration::from_secs(1));
    registry.faults(Fault::new(&image.layers[0].digest, crawl).ranges().every(2));
    let dir = Dir::new();
    // At a byte a second a piece of it would take weeks.
    let archive = Run::pull(&dir, &registry.name("r"))
        .args(&["--progress", "json"])
        .limit(90)
        .archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    let (size, downloaded) = (image.size(), archive.outcome.downloaded());
    assert!(
        downloaded <= size + size / 10,
        "{downloaded} bytes for {size}"
    );
}

#[test]
fn a_layer_that_comes_fast_is_as_right_as_any() {
    // Where another worker hashes behind the transfer: a break, and a bit that nobody would see.
    let registry = Registry::start().lenient();
    let image = Image::new(vec![Blob::layer(1, 160_000_000)]);
    image.push(&registry, "r", "latest");
    let faults = [
        (Action::Reset(80_000_000), ""),
        (Action::Flip(150_000_000), "downloading it again"),
    ];
    for (action, note) in faults {
        registry.forget();
        registry.fault(&image.layers[0].digest, action);
        let dir = Dir::new();
        let archive = Run::pull(&dir, &registry.name("r"))
            .arg("--verbose")
            .archive();
        archive.holds(&image, Some(&registry.name("r:latest")));
        let told = &archive.outcome.stderr;
        assert!(told.contains(note), "{told}");
        archive.outcome.is_small();
    }
}

#[test]
fn a_layer_that_is_no_gzip_but_what_was_named() {
    // Layers are kept as they came: what the registry calls a layer is what is stored.
    let registry = Registry::start();
    let mut bytes = image::gzip(&image::layer_tar(58, 5000));
    bytes.truncate(3000);
    let image = Image::new(vec![Blob::bytes(image::GZIP, bytes, image::sha256(b"x"))]);
    image.push(&registry, "r", "latest");
    comes_through(&registry, &image);
}

#[test]
fn a_wait_of_a_day_is_not_waited_for_in_silence() {
    let (registry, dir) = (Registry::start(), Dir::new());
    one(&registry);
    registry.fault(
        "/manifests/",
        Action::Reply(Reply::new(429, "").with("Retry-After: 99999")),
    );
    let run = Run::pull(&dir, &registry.name("r")).arg("--verbose");
    let mut child = run.spawn();
    std::thread::sleep(Duration::from_secs(2));
    assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    assert_eq!(registry.seen().len(), 1);
    // An interrupt ends the wait.
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let begin = std::time::Instant::now();
    child.wait().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3));
    let mut text = String::new();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
    assert!(
        text.contains("429") && text.contains("retrying in 6"),
        "{text}"
    );
}

#[test]
fn documents_that_were_compressed_though_nobody_asked() {
    let registry = Registry::start();
    let image = Image::small(65);
    image.push(&registry, "r", "latest");
    assert!(registry.seen().is_empty());
    let manifest = Reply::new(200, image::gzip(image.manifest().as_bytes()))
        .with(format!("Content-Type: {}", image.media_type))
        .with("Content-Encoding: gzip");
    registry.fault("/manifests/", Action::Reply(manifest));
    let dir = Dir::new();
    let outcome = Run::pull(&dir, &registry.name("r")).outcome();
    // Decoded, or refused in one line: never taken for something else.
    match outcome.status.code() {
        Some(0) => assert!(dir.names() == ["r-latest.tar"]),
        Some(1) => assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr),
        other => panic!("{other:?}: {}", outcome.stderr),
    }
    let seen = registry.seen();
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
}

#[test]
fn cuts_within_tls() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let (image, digest) = one(&registry);
    let ca = dir.write("ca.pem", &authority.pem);
    // A close without TLS's own farewell is a cut, whatever HTTP makes of it.
    for action in [
        vec![Action::Reset(700_000)],
        vec![Action::Close(700_000)],
        vec![Action::Old, Action::Close(700_000)],
        vec![Action::Chunked(9000), Action::Close(700_000)],
        vec![Action::Stall(700_000, Duration::from_secs(20))],
        vec![Action::Flip(700_000)],
    ] {
        for action in action {
            registry.fault(&digest, action);
        }
        registry.forget();
        let place = Dir::new();
        let args = ["--cacert", &ca, "--retries", "2", "--timeout", "1"];
        Run::new(&place, &args)
            .arg(&registry.name("r"))
            .archive()
            .holds(&image, Some(&registry.name("r:latest")));
        assert!(registry.count(&digest) <= 3, "{}", registry.count(&digest));
    }
}
