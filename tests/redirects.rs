//! Redirects: followed without credentials.

use crate::registry::image::Image;
use crate::registry::tls::{Authority, Leaf};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const BASIC: &str = "Basic bWU6aHVudGVyMg==";
const LOGIN: [&str; 4] = ["--user", "me", "--password", "hunter2"];

/// A registry that wants Basic and sends blobs to a store of its own.
fn with_store(status: u16) -> (Registry, Registry, Image) {
    let (registry, store) = (Registry::start(), Registry::start());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    image.push(&store, "r", "latest");
    let target = store.address;
    registry.route(move |seen| {
        if seen.header("authorization") != Some(BASIC) {
            return Some(Reply::unauthorized("Basic realm=x"));
        }
        seen.target.contains("/blobs/").then(|| {
            Reply::redirect(
                status,
                &format!("http://{target}{}?X-Amz-Signature=sesame", seen.target),
            )
        })
    });
    store.route(|seen| {
        seen.header("authorization")
            .is_some()
            .then(|| Reply::new(400, "Only one auth mechanism allowed"))
    });
    (registry, store, image)
}

#[test]
fn another_host_gets_no_authorization() {
    for status in [301, 302, 303, 307, 308] {
        let (registry, store, image) = with_store(status);
        let dir = Dir::new();
        let run = Run::pull(&dir, &registry.name("r"))
            .args(&LOGIN)
            .arg("--verbose");
        let archive = run.archive();
        archive.holds(&image, Some(&registry.name("r:latest")));
        assert_eq!(store.seen().len(), 4);
        assert!(
            !archive.outcome.stderr.contains("sesame"),
            "a signature was shown"
        );
        assert!(!archive.outcome.stderr.contains("hunter2"));
    }
}

#[test]
fn the_same_origin_keeps_it() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    for blob in image.layers.iter().chain([&image.config]) {
        registry.put(
            &format!("/downloads/{}", blob.digest),
            "",
            blob.content.clone(),
        );
    }
    registry.route(|seen| {
        if seen.header("authorization") != Some(BASIC) {
            return Some(Reply::unauthorized("Basic realm=x"));
        }
        let digest = seen.target.strip_prefix("/v2/r/blobs/")?;
        Some(Reply::redirect(
            302,
            &format!("../../../downloads/{digest}"),
        ))
    });
    Run::pull(&dir, &registry.name("r"))
        .args(&LOGIN)
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn scheme_relative() {
    let (registry, store, dir) = (Registry::start(), Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    image.push(&store, "r", "latest");
    let target = store.address;
    registry.route(move |seen| {
        seen.target
            .contains("/blobs/")
            .then(|| Reply::redirect(307, &format!("//{target}{}#part", seen.target)))
    });
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn redirects_that_lead_nowhere() {
    for (location, words) in [
        (Some("/v2/r/manifests/latest"), "in a circle"),
        (Some("file:///etc/passwd"), "not an http or https"),
        (Some("http://user:pw@h/x"), "user or password"),
        (Some(""), "in a circle"),
        (None, "has no Location"),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.route(move |_| {
            Some(location.map_or(Reply::new(307, ""), |location| {
                Reply::redirect(307, location)
            }))
        });
        Run::pull(&dir, &registry.name("r")).fails(1, words);
    }
    let (registry, dir) = (Registry::start(), Dir::new());
    let hops = Arc::new(AtomicU32::new(0));
    registry.route(move |_| {
        Some(Reply::redirect(
            302,
            &format!("/hop/{}", hops.fetch_add(1, Ordering::SeqCst)),
        ))
    });
    Run::pull(&dir, &registry.name("r")).fails(1, "more than 10");
    assert!(registry.seen().len() <= 12);
}

#[test]
fn a_manifest_from_a_store() {
    let (registry, store, dir) = (Registry::start(), Registry::start(), Dir::new());
    let mut image = Image::small(1);
    image.body_type = String::new();
    image.push(&registry, "r", "latest");
    image.media_type = "application/octet-stream".into();
    image.push(&store, "r", "latest");
    let target = store.address;
    registry.route(move |seen| {
        seen.target
            .contains("/manifests/")
            .then(|| Reply::redirect(307, &format!("http://{target}{}", seen.target)))
    });
    image.media_type = crate::registry::image::OCI_MANIFEST.into();
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn a_registry_behind_the_registry_gets_an_anonymous_token() {
    let (front, registry, dir) = (Registry::start(), Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    let (target, address) = (registry.address, registry.address);
    front.route(move |seen| {
        if seen.header("authorization") != Some(BASIC) {
            return Some(Reply::unauthorized("Basic realm=x"));
        }
        Some(Reply::redirect(
            307,
            &format!("http://{target}{}", seen.target),
        ))
    });
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            return Some(Reply::new(200, r#"{"token":"anonymous"}"#));
        }
        (seen.header("authorization") != Some("Bearer anonymous")).then(|| {
            Reply::unauthorized(&format!(
                r#"Bearer realm="http://{address}/token",service="s",scope="repository:r:pull""#
            ))
        })
    });
    Run::pull(&dir, &front.name("r"))
        .args(&LOGIN)
        .archive()
        .holds(&image, Some(&front.name("r:latest")));
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| seen.header("authorization") != Some(BASIC))
    );
}

#[test]
fn an_expired_signature_is_replaced_by_asking_the_registry() {
    for status in [403, 400] {
        let (registry, store, image) = with_store(307);
        let dir = Dir::new();
        let digest = &image.layers[0].digest;
        store.faults(Fault::new(digest, Action::Reset(9000)));
        let expired = Reply::new(
            status,
            "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
        );
        store.faults(Fault::new(digest, Action::Reply(expired)).skip(1));
        Run::pull(&dir, &registry.name("r"))
            .args(&LOGIN)
            .archive()
            .holds(&image, Some(&registry.name("r:latest")));
        let ranges: Vec<_> = store
            .seen()
            .iter()
            .filter_map(|seen| seen.header("range").map(str::to_owned))
            .collect();
        assert!(
            ranges
                .iter()
                .all(|range| range == &format!("bytes=9000-{}", image.layers[0].content.len() - 1)),
            "{ranges:?}"
        );
        assert!(
            store
                .seen()
                .iter()
                .all(|seen| seen.header("authorization").is_none())
        );
    }
}

#[test]
fn a_name_below_the_registrys_is_another_host() {
    let (registry, store) = (Registry::start(), Registry::start());
    let image = Image::small(36);
    image.push(&registry, "r", "latest");
    image.push(&store, "r", "latest");
    let port = store.address.port();
    registry.route(move |seen| {
        if seen.header("authorization") != Some(BASIC) {
            return Some(Reply::unauthorized("Basic realm=x"));
        }
        seen.target.contains("/blobs/").then(|| {
            Reply::redirect(
                307,
                &format!("http://store.localhost:{port}{}", seen.target),
            )
        })
    });
    let dir = Dir::new();
    let name = format!("localhost:{}/r", registry.address.port());
    Run::pull(&dir, &name)
        .args(&LOGIN)
        .archive()
        .holds(&image, Some(&format!("{name}:latest")));
    let seen = store.seen();
    assert_eq!(seen.len(), 4);
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[test]
fn the_same_address_by_another_name_is_another_host() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(35);
    image.push(&registry, "r", "latest");
    let port = registry.address.port();
    registry.route(move |seen| {
        let host = seen.header("host").unwrap_or_default().to_owned();
        if !host.starts_with("127.") {
            return seen
                .header("authorization")
                .map(|_| Reply::new(400, "Only one auth mechanism allowed"));
        }
        if seen.header("authorization") != Some(BASIC) {
            return Some(Reply::unauthorized("Basic realm=x"));
        }
        seen.target
            .contains("/blobs/")
            .then(|| Reply::redirect(307, &format!("http://LOCALHOST:{port}{}", seen.target)))
    });
    Run::pull(&dir, &registry.name("r"))
        .args(&LOGIN)
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn from_https_to_plain_http_is_refused() {
    let (authority, store, dir) = (Authority::new(), Registry::start(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let image = Image::small(39);
    image.push(&registry, "r", "latest");
    image.push(&store, "r", "latest");
    let target = store.address;
    registry.route(move |seen| {
        seen.target
            .contains("/blobs/")
            .then(|| Reply::redirect(307, &format!("http://{target}{}", seen.target)))
    });
    let ca = dir.write("ca.pem", &authority.pem);
    let outcome = Run::new(
        &dir,
        &["--cacert", &ca, "--retries", "0", &registry.name("r")],
    )
    .fails(1, "http");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(store.seen().is_empty());
}

#[test]
fn a_store_that_wants_a_password_gets_none() {
    let (registry, store, _) = with_store(307);
    store.route(|_| Some(Reply::unauthorized("Basic realm=\"store\"")));
    let dir = Dir::new();
    let outcome = Run::pull(&dir, &registry.name("r")).args(&LOGIN).outcome();
    assert!(
        matches!(outcome.status.code(), Some(3 | 5)),
        "{}",
        outcome.stderr
    );
    assert!(
        store
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

/// A front that sends each document of `r` to `real` at another registry, or at its own.
fn front(other: bool) -> (Registry, Registry) {
    let (front, back) = (Registry::start(), Registry::start());
    let host = match other {
        true => format!("http://localhost:{}", back.address.port()),
        false => String::new(),
    };
    front.route(move |seen| {
        let rest = seen.target.strip_prefix("/v2/r/")?;
        Some(Reply::redirect(307, &format!("{host}/v2/real/{rest}")))
    });
    (front, back)
}

#[test]
fn what_a_registry_behind_a_redirect_refuses_is_refused_at_once() {
    for (status, code, exit) in [
        (404, "MANIFEST_UNKNOWN", 4),
        (404, "NAME_UNKNOWN", 4),
        (403, "DENIED", 3),
        (401, "UNAUTHORIZED", 3),
        (400, "MANIFEST_UNKNOWN", 4),
    ] {
        let ((front, back), dir) = (front(true), Dir::new());
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"so it is"}}]}}"#);
        back.route(move |_| Some(Reply::new(status, body.clone())));
        for question in [&["-q"][..], &["--tags"]] {
            let run = Run::pull(&dir, &front.name("r")).args(question);
            let outcome = run.fails(exit, "so it is");
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
            assert!(outcome.stderr.contains("localhost:"), "{}", outcome.stderr);
        }
        // Tags are asked for once more without a number, which may be what is bad about it.
        let number = usize::from(status == 400);
        assert_eq!(back.seen().len(), 2 + number, "{status} {code}");
    }
    // At the registry itself, even without a code.
    let ((front, _back), dir) = (front(false), Dir::new());
    front.route(|seen| {
        seen.target
            .contains("/real/")
            .then(|| Reply::new(404, "no"))
    });
    Run::pull(&dir, &front.name("r")).fails(4, "404");
    assert_eq!(front.seen().len(), 2);
}

#[test]
fn a_store_behind_a_redirect_is_asked_again() {
    // A signed address of a manifest has ended.
    let ((front, back), dir) = (front(true), Dir::new());
    let image = Image::small(1);
    image.push(&back, "real", "latest");
    let ended = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>";
    back.fault("/manifests/", Action::Reply(Reply::new(403, ended)));
    Run::pull(&dir, &front.name("r"))
        .archive()
        .holds(&image, Some(&front.name("r:latest")));
}

#[test]
fn a_registry_that_moved_to_https_is_named_at_once() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let secure = Registry::start_tls(authority.server(&Leaf::default()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    for target in [secure.address, nobody] {
        let registry = Registry::start();
        registry.route(move |seen| {
            let location = format!("https://{target}{}", seen.target);
            Some(Reply::redirect(301, &location))
        });
        for question in [&["-q"][..], &["--tags"]] {
            let run = Run::pull(&dir, &registry.name("r")).args(question);
            let outcome = run.fails(1, "without --insecure");
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        }
        assert_eq!(registry.seen().len(), 2);
    }
}

#[test]
fn a_registry_that_moved_to_https_may_want_credentials_there() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let secure = Registry::start_tls(authority.server(&Leaf::default()));
    secure.route(|_| Some(Reply::unauthorized("Basic realm=x")));
    let (registry, target) = (Registry::start(), secure.address);
    registry.route(move |seen| {
        let location = format!("https://{target}{}", seen.target);
        Some(Reply::redirect(308, &location))
    });
    let ca = dir.write("ca.pem", &authority.pem);
    Run::pull(&dir, &registry.name("r"))
        .env("SSL_CERT_FILE", &ca)
        .args(&LOGIN)
        .fails(3, "without --insecure");
    assert_eq!(secure.seen().len(), 1);
    assert!(secure.seen()[0].header("authorization").is_none());
}

#[test]
fn fronts_as_they_are() {
    // zot sends blobs to its store, and answers manifests itself.
    let (registry, store, image) = with_store(307);
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r"))
        .args(&LOGIN)
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert_eq!(store.count("/blobs/"), 4);
    // registry.k8s.io sends manifests and tags to a registry nearby, which has its own token, and
    // blobs to a store that has neither tokens nor queries in its addresses.
    let (front, near, store) = (Registry::start(), Registry::start(), Registry::start());
    image.push(&near, "k8s/r", "latest");
    near.put_tag("k8s/r", "latest");
    for blob in image.layers.iter().chain([&image.config]) {
        let target = format!("/containers/images/{}", blob.digest);
        store.put(&target, "", blob.content.clone());
    }
    let (nearby, stored) = (near.address.port(), store.address);
    front.route(move |seen| {
        let rest = seen.target.strip_prefix("/v2/r/")?;
        Some(match rest.strip_prefix("blobs/") {
            Some(digest) => {
                Reply::redirect(307, &format!("http://{stored}/containers/images/{digest}"))
            }
            None => Reply::redirect(307, &format!("http://localhost:{nearby}/v2/k8s/r/{rest}")),
        })
    });
    near.route(move |seen| {
        if seen.target.starts_with("/token") {
            return Some(Reply::new(200, r#"{"token":"anonymous"}"#));
        }
        (seen.header("authorization") != Some("Bearer anonymous")).then(|| {
            Reply::unauthorized(&format!(
                r#"Bearer realm="http://localhost:{nearby}/token",service="s",scope="repository:k8s/r:pull""#
            ))
        })
    });
    let dir = Dir::new();
    Run::pull(&dir, &front.name("r"))
        .archive()
        .holds(&image, Some(&front.name("r:latest")));
    let tags = Run::pull(&dir, &front.name("r")).arg("--tags").status(0);
    assert_eq!(tags.stdout, "latest\n");
    Run::pull(&dir, &front.name("r:missing")).fails(4, "not known here");
    // Harbor answers in its own project's name for another registry, with a token of its own, and
    // asks for patience while it is busy there.
    let (harbor, dir) = (Registry::start(), Dir::new());
    image.push(&harbor, "proxy/library/r", "latest");
    let address = harbor.address;
    harbor.route(move |seen| {
        if seen.target.starts_with("/service/token") {
            let scoped = seen.target.contains("proxy%2Flibrary%2Fr")
                || seen.target.contains("proxy/library/r");
            return scoped.then(|| Reply::new(200, r#"{"token":"t","access_token":""}"#));
        }
        (seen.header("authorization") != Some("Bearer t")).then(|| {
            let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"unauthorized to access repository: proxy/library/r, action: pull"}]}"#;
            let challenge = format!(
                r#"Bearer realm="http://{address}/service/token",service="harbor-registry",scope="repository:proxy/library/r:pull""#
            );
            Reply::new(401, body).with(format!("Www-Authenticate: {challenge}"))
        })
    });
    let busy =
        r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"too many requests to upstream"}]}"#;
    let digest = &image.layers[0].digest;
    harbor.fault(
        digest,
        Action::Reply(Reply::new(429, busy).with("Retry-After: 1")),
    );
    harbor.fault(&image.layers[1].digest, Action::Chunked(9000));
    Run::pull(&dir, &harbor.name("proxy/library/r"))
        .archive()
        .holds(&image, Some(&harbor.name("proxy/library/r:latest")));
}
