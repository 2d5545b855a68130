//! `--mirror`: asked first, trusted only by digest.

use crate::registry::image::Image;
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};

const BASIC: &str = "Basic bWU6aHVudGVyMg==";

/// A registry and its mirror, both with the image.
fn pair() -> (Registry, Registry, Image) {
    let (registry, mirror) = (Registry::start().lenient(), Registry::start().lenient());
    let image = Image::small(1);
    image.push(&registry, "ns/app", "1.0");
    image.push(&mirror, "ns/app", "1.0");
    (registry, mirror, image)
}

fn pull<'d>(dir: &'d Dir, registry: &Registry, mirror: &str) -> Run<'d> {
    Run::pull(dir, &registry.name("ns/app:1.0")).args(&["--mirror", mirror])
}

fn blobs(registry: &Registry) -> usize {
    let seen = registry.seen();
    seen.iter()
        .filter(|seen| seen.target.contains("/blobs/"))
        .count()
}

#[test]
fn the_mirror_serves_blobs_and_the_registry_the_tag() {
    let (registry, mirror, image) = pair();
    let dir = Dir::new();
    pull(&dir, &registry, &mirror.address.to_string())
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
    // By HEAD, which registries that count pulls do not count.
    let asked = registry.seen();
    let asked: Vec<_> = asked.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(asked, ["HEAD"]);
    assert_eq!(blobs(&mirror), 1 + image.layers.len());
    assert_eq!(mirror.seen().len(), 1 + blobs(&mirror));
}

#[test]
fn a_registry_that_answers_no_head_is_asked_for_the_tag_by_get() {
    for reply in [
        Reply::new(404, ""),
        Reply::new(405, ""),
        Reply::new(200, ""),
    ] {
        let (registry, mirror, image) = pair();
        registry.route(move |request| (request.method == "HEAD").then(|| reply.clone()));
        let dir = Dir::new();
        pull(&dir, &registry, &mirror.address.to_string())
            .archive()
            .holds(&image, Some(&registry.name("ns/app:1.0")));
        assert_eq!((registry.seen().len(), blobs(&registry)), (2, 0));
    }
}

#[test]
fn a_manifest_that_the_mirror_has_not_is_got_from_the_registry() {
    let (registry, _, image) = pair();
    let (mirror, dir) = (Registry::start().lenient(), Dir::new());
    pull(&dir, &registry, &mirror.address.to_string())
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
    assert_eq!(blobs(&registry), 1 + image.layers.len());
}

#[test]
fn a_tag_that_the_mirror_has_moved_changes_nothing() {
    let (registry, mirror, image) = pair();
    Image::small(7).push(&mirror, "ns/app", "1.0");
    let dir = Dir::new();
    pull(&dir, &registry, &mirror.address.to_string())
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
}

#[test]
fn a_digest_is_asked_of_the_mirror_alone() {
    let (registry, mirror, image) = pair();
    let dir = Dir::new();
    let name = registry.name(&format!("ns/app@{}", image.digest()));
    Run::pull(&dir, &name)
        .args(&["--mirror", &mirror.address.to_string(), "-o", "x.tar"])
        .archive()
        .holds(&image, None);
    assert!(registry.seen().is_empty());
}

#[test]
fn a_mirror_below_a_prefix_is_named_with_it() {
    let (registry, mirror, image) = pair();
    image.push(&mirror, "cache/hub/ns/app", "1.0");
    let dir = Dir::new();
    for form in ["/cache/hub", "/v2/cache/hub/"] {
        mirror.forget();
        let address = format!("http://{}{form}", mirror.address);
        pull(&dir, &registry, &address)
            .args(&["-o", "x.tar"])
            .archive()
            .holds(&image, Some(&registry.name("ns/app:1.0")));
        assert!(
            mirror
                .seen()
                .iter()
                .all(|seen| { seen.target.starts_with("/v2/cache/hub/ns/app/") })
        );
        std::fs::remove_file(dir.join("x.tar")).unwrap();
    }
    assert_eq!(blobs(&registry), 0);
}

#[test]
fn a_mirror_that_fails_is_left_for_the_registry() {
    for status in [400, 401, 403, 404, 416, 429, 500, 503] {
        let (registry, mirror, image) = pair();
        mirror.route(move |_| Some(Reply::new(status, "no")));
        let dir = Dir::new();
        pull(&dir, &registry, &mirror.address.to_string())
            .limit(10)
            .archive()
            .holds(&image, Some(&registry.name("ns/app:1.0")));
        // Each blob may be asked for once where it is only missing.
        assert!(
            mirror.seen().len() <= 2 * (1 + image.layers.len()),
            "{status}: {}",
            mirror.seen().len()
        );
    }
}

#[test]
fn a_mirror_that_is_not_there_costs_a_moment() {
    let (registry, _, image) = pair();
    let dir = Dir::new();
    // Nothing listens on port 1.
    pull(&dir, &registry, "127.0.0.1:1")
        .limit(10)
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
}

#[test]
fn the_second_mirror_is_asked_where_the_first_has_nothing() {
    let (registry, mirror, image) = pair();
    let empty = Registry::start();
    let dir = Dir::new();
    pull(&dir, &registry, &empty.address.to_string())
        .args(&["--mirror", &mirror.address.to_string()])
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
    assert_eq!(blobs(&registry), 0);
}

#[test]
fn a_mirror_that_lies_does_not_change_the_image() {
    let (registry, mirror, image) = pair();
    let layer = &image.layers[0];
    for (path, size) in [
        (&layer.digest, layer.data().len()),
        (&image.config.digest, image.config.data().len()),
    ] {
        for length in [size, size / 2, size * 2, 0] {
            let wrong = Reply::new(200, "x".repeat(length));
            let path = path.clone();
            mirror.route(move |seen| seen.target.ends_with(&path).then(|| wrong.clone()));
            let dir = Dir::new();
            let outcome = pull(&dir, &registry, &mirror.address.to_string())
                .limit(20)
                .archive();
            outcome.holds(&image, Some(&registry.name("ns/app:1.0")));
        }
    }
}

#[test]
fn a_mirror_that_always_breaks_off_is_left() {
    let (registry, mirror, image) = pair();
    mirror.faults(Fault::new("/blobs/", Action::Close(100)).always());
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("ns/app:1.0"))
        .args(&["--retries", "0", "--mirror", &mirror.address.to_string()])
        .limit(20)
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
}

#[test]
fn each_host_is_told_its_own_credentials() {
    let (registry, mirror, image) = pair();
    for (site, field) in [(&registry, BASIC), (&mirror, "Basic eW91OnMzY3JldA==")] {
        site.route(move |seen| {
            (seen.header("authorization") != Some(field))
                .then(|| Reply::unauthorized("Basic realm=x"))
        });
    }
    let dir = Dir::new();
    let config = format!(
        r#"{{"auths":{{"{}":{{"auth":"eW91OnMzY3JldA=="}}}}}}"#,
        mirror.address
    );
    let file = dir.write("auth.json", &config);
    pull(&dir, &registry, &mirror.address.to_string())
        .args(&["--user", "me", "--password", "hunter2"])
        .env("REGISTRY_AUTH_FILE", &file)
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
    for (site, field) in [
        (&registry, "eW91OnMzY3JldA=="),
        (&mirror, "bWU6aHVudGVyMg=="),
    ] {
        assert!(
            site.seen()
                .iter()
                .all(|seen| { !seen.header("authorization").unwrap_or("").contains(field) })
        );
    }
    assert_eq!(blobs(&registry), 0);
}

#[test]
fn a_mirror_without_credentials_of_its_own_gets_none() {
    let (registry, mirror, image) = pair();
    mirror.route(|_| Some(Reply::unauthorized("Basic realm=x")));
    for variables in [false, true] {
        let dir = Dir::new();
        let mut run = pull(&dir, &registry, &mirror.address.to_string());
        run = if variables {
            run.env("DOCKERSAVE_USER", "me")
                .env("DOCKERSAVE_PASSWORD", "hunter2")
        } else {
            run.args(&["--user", "me", "--password", "hunter2"])
        };
        run.archive()
            .holds(&image, Some(&registry.name("ns/app:1.0")));
    }
    assert!(
        mirror
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[test]
fn tags_come_from_the_mirror_only_when_that_is_asked_for() {
    let (registry, mirror, image) = pair();
    let name = registry.name("ns/app:1.0");
    registry.route(|_| Some(Reply::new(403, "")));
    let dir = Dir::new();
    let address = mirror.address.to_string();
    pull(&dir, &registry, &address).fails(3, "refused");
    pull(&dir, &registry, &address)
        .arg("--mirror-tags")
        .archive()
        .holds(&image, Some(&name));
}

#[test]
fn an_address_that_is_none_is_told() {
    let (registry, dir) = (Registry::start(), Dir::new());
    for address in ["", "ftp://m", "http://u:p@m", "m?x=y"] {
        pull(&dir, &registry, address).fails(2, "mirror");
    }
    assert!(registry.seen().is_empty());
}

/// A mirror for many registries, like Spegel and Dragonfly: it answers only requests with
/// `?ns=HOST`, as containerd sends them.
fn for_many(registry: &Registry, status: u16) -> (Registry, Image) {
    let (mirror, image) = (Registry::start(), Image::small(1));
    image.push(&mirror, "ns/app", "1.0");
    let namespace = format!("?ns={}", registry.address);
    mirror.route(move |seen| {
        (!seen.target.ends_with(&namespace)).then(|| Reply::new(status, "whose is it?"))
    });
    (mirror, image)
}

#[test]
fn a_mirror_for_many_registries_is_told_which() {
    for status in [400, 404] {
        let (registry, _, _) = pair();
        let (mirror, image) = for_many(&registry, status);
        for (form, more) in [("", 1), ("?ns", 0)] {
            let dir = Dir::new();
            registry.forget();
            mirror.forget();
            pull(&dir, &registry, &format!("http://{}{form}", mirror.address))
                .archive()
                .holds(&image, Some(&registry.name("ns/app:1.0")));
            assert_eq!((registry.seen().len(), blobs(&registry)), (1, 0));
            // It is asked once without, unless its URL says so.
            assert_eq!(mirror.seen().len(), 2 + image.layers.len() + more);
        }
    }
}

#[test]
fn a_mirror_that_has_nothing_is_told_once_whose_it_is() {
    let (registry, _, image) = pair();
    let (mirror, dir) = (Registry::start().lenient(), Dir::new());
    pull(&dir, &registry, &mirror.address.to_string())
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
    let told = mirror
        .seen()
        .iter()
        .filter(|seen| seen.target.contains("?ns="))
        .count();
    assert_eq!(told, 1);
}

#[test]
fn a_mirror_below_a_prefix_may_be_for_many() {
    let (registry, mirror, image) = pair();
    image.push(&mirror, "p2p/ns/app", "1.0");
    let dir = Dir::new();
    let address = format!("http://{}/p2p?ns", mirror.address);
    pull(&dir, &registry, &address)
        .archive()
        .holds(&image, Some(&registry.name("ns/app:1.0")));
    let namespace = format!("?ns={}", registry.address);
    assert!(mirror.seen().iter().all(
        |seen| seen.target.starts_with("/v2/p2p/ns/app/") && seen.target.ends_with(&namespace)
    ));
    Run::pull(&dir, &registry.name("ns/app:1.0"))
        .args(&["--mirror", "http://127.0.0.1:1/?x=y"])
        .fails(2, "?ns");
}
