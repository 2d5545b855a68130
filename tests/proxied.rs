//! Proxies and caches in between: ranges with the wrong status, and unrequested encodings.

use crate::registry::image::{self, Blob, Image};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};
use std::time::Duration;

const SIZE: usize = 1_500_000;
const CUT: usize = 700_000;
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

/// Pulls it twice: into a file, and as a stream, in which nothing can be mended.
#[track_caller]
fn comes_through(prepare: impl Fn() -> (Registry, Image)) -> (Registry, Registry) {
    let (registry, image) = prepare();
    let dir = Dir::new();
    let run = || ["--retries", "1", "--progress", "none"];
    let archive = Run::pull(&dir, &registry.name("r")).args(&run()).archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    let (streaming, image) = prepare();
    let run = Run::pull(&dir, &streaming.name("r"))
        .args(&run())
        .args(&["-o", "-"]);
    run.within("exec \"$@\" >stream.tar").status(0);
    let stream = std::fs::read(dir.join("stream.tar")).unwrap();
    for blob in image.layers.iter().chain([&image.config]) {
        let data = blob.data();
        assert!(
            stream
                .windows(data.len())
                .step_by(512)
                .any(|part| part == data)
        );
    }
    (registry, streaming)
}

fn range(seen: &crate::registry::Seen) -> Option<(usize, usize)> {
    let (first, last) = seen
        .header("range")?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    Some((first.parse().unwrap(), last.parse().unwrap()))
}

/// A registry whose connection breaks once, and which then answers a range with what `reply` makes
/// of the blob, the range's first byte and its last.
fn ranged(
    actions: &[Action],
    reply: impl Fn(&[u8], usize, usize) -> Reply + Send + Sync + 'static,
) -> (Registry, Image) {
    let registry = Registry::start().lenient();
    let image = Image::new(vec![Blob::layer(43, SIZE)]);
    image.push(&registry, "r", "latest");
    let (digest, data) = (image.layers[0].digest.clone(), image.layers[0].data());
    registry.fault(&digest, Action::Reset(CUT as u64));
    for action in actions {
        registry.faults(Fault::new(&digest, action.clone()).ranges());
    }
    registry.route(move |seen| {
        let (first, last) = range(seen).filter(|_| seen.target.contains(&digest))?;
        Some(reply(&data, first, last))
    });
    (registry, image)
}

fn field(first: usize, last: usize, total: impl std::fmt::Display) -> String {
    format!("Content-Range: bytes {first}-{last}/{total}")
}

fn requests(registry: &Registry) -> usize {
    registry.count("/blobs/") - 1
}

#[test]
fn a_part_that_is_called_the_whole() {
    for form in 0..4 {
        let (registry, streaming) = comes_through(|| {
            ranged(&[], move |data, first, last| {
                let reply = Reply::new(if form == 3 { 206 } else { 200 }, &data[first..=last]);
                match form {
                    0 => reply.with(field(first, last, data.len())),
                    1 => reply.with(field(first, last, "*")),
                    // Its length alone tells.
                    _ => reply,
                }
            })
        });
        // The part was taken: nothing was asked for a third time.
        assert_eq!(
            (requests(&registry), requests(&streaming)),
            (2, 2),
            "{form}"
        );
    }
}

#[test]
fn the_whole_that_is_called_a_part() {
    for form in 0..4 {
        let (registry, streaming) = comes_through(|| {
            ranged(&[], move |data, first, last| {
                let reply = Reply::new(206, data);
                match form {
                    0 => reply.with(field(0, data.len() - 1, data.len())),
                    1 => reply.with(field(0, data.len() - 1, "*")),
                    2 => reply.with(field(first, last, data.len())),
                    _ => reply,
                }
            })
        });
        assert_eq!(
            (requests(&registry), requests(&streaming)),
            (2, 2),
            "{form}"
        );
    }
}

#[test]
fn a_part_in_chunks_tells_by_its_field_or_by_its_bytes() {
    for with_field in [true, false] {
        comes_through(|| {
            ranged(&[Action::Chunked(9000)], move |data, first, last| {
                let reply = Reply::new(200, &data[first..=last]);
                match with_field {
                    true => reply.with(field(first, last, data.len())),
                    false => reply,
                }
            })
        });
    }
}

#[test]
fn neither_the_part_nor_the_whole_is_not_believed() {
    for status in [200, 206] {
        comes_through(|| {
            ranged(&[], move |data, first, last| {
                Reply::new(status, &data[first..last]).with(field(first, last - 1, data.len()))
            })
        });
        comes_through(|| ranged(&[], move |data, _, _| Reply::new(status, &data[..9000])));
    }
}

#[test]
fn a_part_that_is_another_one_is_fetched_again_whole() {
    // Of the right length, but from the beginning: only the digest tells.
    let (registry, image) = ranged(&[], |data, first, last| {
        Reply::new(200, &data[..=last - first])
    });
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert_eq!(requests(&registry), 3);
}

#[test]
fn ranges_that_are_refused_are_not_needed() {
    for (status, behind) in [
        (400, false),
        (405, false),
        (501, false),
        (405, true),
        (416, true),
    ] {
        comes_through(|| {
            let store = Registry::start().lenient();
            store.route(move |_| Some(Reply::new(status, "")));
            let to = format!("http://localhost:{}/", store.address.port());
            ranged(&[], move |_, _, _| {
                // It lives as long as the registry that leads to it.
                let _ = &store;
                match behind {
                    true => Reply::redirect(307, &to),
                    false => Reply::new(status, ""),
                }
            })
        });
    }
}

#[test]
fn pieces_that_are_called_the_whole() {
    let registry = Registry::start();
    let image = Image::new(vec![Blob::layer(44, 24 << 20)]);
    image.push(&registry, "r", "latest");
    let (digest, data) = (image.layers[0].digest.clone(), image.layers[0].data());
    registry.route(move |seen| {
        let (first, last) = range(seen).filter(|_| seen.target.contains(&digest))?;
        Some(Reply::new(200, &data[first..=last]))
    });
    registry.pace(8 << 20);
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    let ranges = registry
        .seen()
        .iter()
        .filter(|seen| range(seen).is_some())
        .count();
    assert!(ranges > 0, "no piece was asked for");
    assert!(
        registry.blob_bytes() < 30 << 20,
        "{}",
        registry.blob_bytes()
    );
}

// ---- encodings -------------------------------------------------------------------------------------

/// An image with one layer; its requests for it are answered with `body` under this encoding.
fn encoded(layer: &Blob, coding: &str, body: &[u8], chunked: bool) -> (Registry, Image) {
    let (registry, image) = (Registry::start().lenient(), Image::new(vec![layer.clone()]));
    image.push(&registry, "r", "latest");
    let digest = layer.digest.clone();
    let reply = Reply::new(200, body).with(format!("Content-Encoding: {coding}"));
    let own = digest.clone();
    registry.route(move |seen| seen.target.contains(&own).then(|| reply.clone()));
    if chunked {
        registry.faults(Fault::new(&digest, Action::Chunked(9000)).always());
    }
    (registry, image)
}

fn layers() -> [Blob; 2] {
    let tar = image::layer_tar(15, 300_000);
    let diff_id = image::sha256(&tar);
    let gzip = image::gzip(&tar);
    [
        Blob::bytes(TAR, tar, diff_id.clone()),
        Blob::bytes(image::GZIP, gzip, diff_id),
    ]
}

#[test]
fn gzip_around_a_layer_is_undone_and_a_false_name_for_it_is_not() {
    for layer in layers() {
        for chunked in [false, true] {
            for coding in ["gzip", "X-Gzip"] {
                let body = image::gzip(&layer.data());
                comes_through(|| encoded(&layer, coding, &body, chunked));
            }
            let (registry, streaming) =
                comes_through(|| encoded(&layer, "gzip", &layer.data(), chunked));
            assert_eq!((requests(&registry), requests(&streaming)), (1, 1));
        }
    }
}

#[test]
fn gzip_around_a_layer_that_breaks_off_goes_on() {
    let [tar, _] = layers();
    let body = image::gzip(&image::noise(15, 300_000));
    let layer = Blob::bytes(TAR, image::noise(15, 300_000), tar.digest);
    let (registry, image) = encoded(&layer, "gzip", &body, false);
    registry.fault(&layer.digest, Action::Reset(100_000));
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn other_encodings_are_named() {
    for coding in ["br", "zstd", "deflate", "gzip, br"] {
        for layer in layers() {
            for (length, chunked) in [(9000, false), (9000, true), (400_000, true)] {
                let body = image::noise(16, length);
                for stream in [&[][..], &["-o", "-"]] {
                    let (registry, _) = encoded(&layer, coding, &body, chunked);
                    let dir = Dir::new();
                    let run = Run::pull(&dir, &registry.name("r")).args(stream);
                    let run = run.within("exec \"$@\" >stdout").limit(10);
                    let told = format!("Content-Encoding {coding}, which was not requested");
                    run.fails(1, &told);
                    assert_eq!(requests(&registry), 1);
                }
            }
            // With the blob's own length, only its digest tells.
            let body = image::noise(16, layer.data().len());
            let (registry, _) = encoded(&layer, coding, &body, false);
            let dir = Dir::new();
            Run::pull(&dir, &registry.name("r")).fails(1, &format!("Content-Encoding {coding}"));
            // A false name for the blob itself does no harm.
            comes_through(|| encoded(&layer, coding, &layer.data(), false));
        }
    }
}

#[test]
fn documents_are_decoded_or_their_encoding_is_named() {
    for target in ["/manifests/latest", "/blobs/", "/tags/"] {
        for (coding, status) in [("gzip", 0), ("x-gzip", 0), ("br", 1)] {
            let registry = Registry::start();
            let image = Image::small(65);
            image.push(&registry, "r", "latest");
            let document = match target {
                "/blobs/" => image.config.data(),
                "/tags/" => br#"{"tags":["a"]}"#.to_vec(),
                _ => image.manifest().into_bytes(),
            };
            let body = match status {
                0 => image::gzip(&document),
                _ => image::noise(1, 200),
            };
            let path = match target {
                "/blobs/" => format!("/blobs/{}", image.config.digest),
                other => other.to_owned(),
            };
            let reply = Reply::new(200, body)
                .with(format!("Content-Type: {}", image.media_type))
                .with(format!("Content-Encoding: {coding}"));
            registry.route(move |seen| seen.target.contains(&path).then(|| reply.clone()));
            let dir = Dir::new();
            let run = Run::pull(&dir, &registry.name("r"));
            match (target, status) {
                ("/tags/", 0) => assert_eq!(run.arg("--tags").status(0).stdout, "a\n"),
                (_, 0) => drop(
                    run.archive()
                        .holds(&image, Some(&registry.name("r:latest"))),
                ),
                ("/tags/", _) => drop(run.arg("--tags").fails(1, "Content-Encoding br")),
                _ => drop(run.fails(1, "Content-Encoding br")),
            }
        }
    }
}

#[test]
fn errors_and_tokens_are_decoded_too() {
    let error = r#"{"errors":[{"code":"DENIED","message":"pay first"}]}"#;
    for (coding, body, words) in [
        ("gzip", image::gzip(error.as_bytes()), "DENIED: pay first"),
        ("gzip", error.into(), "DENIED: pay first"),
        ("br", error.into(), "DENIED: pay first"),
        (
            "br",
            image::noise(2, 90),
            "refused: HTTP 403, it requires credentials",
        ),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let reply = Reply::new(403, body).with(format!("Content-Encoding: {coding}"));
        registry.route(move |_| Some(reply.clone()));
        Run::pull(&dir, &registry.name("r")).fails(3, words);
    }
    for (coding, body, status) in [
        ("x-gzip", image::gzip(br#"{"token":"t1"}"#), 0),
        ("gzip", br#"{"token":"t1"}"#.to_vec(), 0),
        ("br", image::noise(3, 90), 1),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        Image::small(67).push(&registry, "r", "latest");
        let address = registry.address;
        let reply = Reply::new(200, body).with(format!("Content-Encoding: {coding}"));
        registry.route(move |seen| {
            if seen.target.starts_with("/token") {
                return Some(reply.clone());
            }
            (seen.header("authorization") != Some("Bearer t1"))
                .then(|| Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#)))
        });
        let run = Run::pull(&dir, &registry.name("r"));
        match status {
            0 => drop(run.archive()),
            _ => drop(run.fails(1, "Content-Encoding br")),
        }
    }
}

#[test]
fn gzip_that_grows_without_end_is_bounded() {
    let bomb = image::gzip(&vec![b' '; 64 << 20]);
    for target in ["/manifests/latest", "/blobs/", "/tags/"] {
        let registry = Registry::start();
        let image = Image::small(66);
        image.push(&registry, "r", "latest");
        let reply = Reply::new(200, bomb.clone()).with("Content-Encoding: gzip");
        registry.route(move |seen| seen.target.contains(target).then(|| reply.clone()));
        let dir = Dir::new();
        let run = Run::pull(&dir, &registry.name("r")).args(&["--timeout", "5"]);
        let outcome = match target {
            "/tags/" => run.arg("--tags").outcome(),
            _ => run.outcome(),
        };
        assert!(
            matches!(outcome.status.code(), Some(1 | 6)),
            "{}",
            outcome.stderr
        );
        outcome.is_small();
        assert!(outcome.time < Duration::from_secs(20));
    }
}
