//! Images of all shapes from a well-behaved registry.

use crate::registry::image::{self, Blob, Image, platform};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};

#[test]
fn single_manifest_with_gzip_layers() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "demo/hello", "latest");
    let archive = Run::pull(&dir, &registry.name("demo/hello")).archive();
    archive.holds(&image, Some(&registry.name("demo/hello:latest")));
    assert_eq!(archive.name(), "demo-hello-latest.tar");
    assert_eq!(dir.names(), ["demo-hello-latest.tar"]);
    assert_eq!(
        archive.names[..3],
        ["oci-layout", "index.json", "manifest.json"]
    );
    assert_eq!(
        registry.seen().len(),
        2 + 3,
        "a manifest, a config and three layers are five requests"
    );
    archive.outcome.is_small();
}

fn multi(registry: &Registry, media_type: &str) -> Vec<(&'static str, Image)> {
    let variants = [
        ("amd64", ""),
        ("arm", "v5"),
        ("arm", "v6"),
        ("arm", "v7"),
        ("arm64", "v8"),
    ];
    let mut images = Vec::new();
    let mut entries = Vec::new();
    for (seed, (architecture, variant)) in variants.into_iter().enumerate() {
        let made = Image::for_platform(architecture, variant, vec![Blob::layer(seed as u64, 1000)]);
        made.push_untagged(registry, "multi");
        entries.push(made.entry(&platform("linux", architecture, variant)));
        images.push((
            [
                "linux/amd64",
                "linux/arm/v5",
                "linux/arm/v6",
                "linux/arm/v7",
                "linux/arm64",
            ][seed],
            made,
        ));
    }
    image::push_index(registry, "multi", "latest", media_type, &entries);
    images
}

#[test]
fn index_gives_the_right_child_for_every_platform() {
    let registry = Registry::start();
    for (name, image) in multi(&registry, image::OCI_INDEX) {
        let dir = Dir::new();
        Run::pull(&dir, &registry.name("multi"))
            .args(&["--platform", name])
            .archive()
            .holds(&image, Some(&registry.name("multi:latest")));
    }
    let dir = Dir::new();
    let archive = Run::pull(&dir, &registry.name("multi"))
        .args(&["--platform=linux/arm/v8"])
        .archive();
    assert!(
        archive
            .outcome
            .stderr
            .contains("linux/arm/v7, which runs there too"),
        "{}",
        archive.outcome.stderr
    );
}

#[test]
fn docker_list() {
    let registry = Registry::start();
    let images = multi(&registry, image::DOCKER_LIST);
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("multi"))
        .args(&["--arch", "arm64"])
        .archive()
        .holds(&images[4].1, Some(&registry.name("multi:latest")));
}

#[test]
fn by_digest_without_an_invented_tag() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(4).docker();
    image.push_untagged(&registry, "r");
    let archive = Run::pull(&dir, &registry.name(&format!("r@{}", image.digest()))).archive();
    archive.holds(&image, None);
    assert!(!archive.text("index.json").contains("annotations"));
    assert_eq!(archive.name(), format!("r-{}.tar", &image.digest()[7..19]));
}

#[test]
fn tag_and_digest_asks_for_the_digest_and_keeps_the_tag() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(5);
    image.push_untagged(&registry, "r");
    let name = registry.name(&format!("r:1.2@{}", image.digest()));
    Run::pull(&dir, &name)
        .archive()
        .holds(&image, Some(&registry.name("r:1.2")));
    assert_eq!(registry.count("/manifests/1.2"), 0);
}

#[test]
fn sha512() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut image = Image::small(6);
    for layer in &mut image.layers {
        layer.digest = image::sha512(&layer.data());
    }
    image.push(&registry, "r", "latest");
    let archive = Run::pull(&dir, &registry.name("r")).archive();
    archive.holds(&image, Some(&registry.name("r:latest")));
    let pinned = image::sha512(image.manifest().as_bytes());
    image::put_manifest(
        &registry,
        "r",
        &pinned,
        &image.media_type,
        &image.manifest(),
    );
    let archive = Run::pull(&dir, &registry.name(&format!("r@{pinned}"))).archive();
    assert!(
        archive
            .files
            .contains_key(&format!("blobs/{}", pinned.replace(':', "/")))
    );
}

#[test]
fn many_layers_over_kept_connections() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new((0..200).map(|seed| Blob::layer(seed, 500)).collect());
    image.push(&registry, "r", "latest");
    let run = Run::pull(&dir, &registry.name("r")).args(&["--jobs", "1"]);
    run.archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert_eq!(registry.connections(), 1);
    let second = Dir::new();
    Run::pull(&second, &registry.name("r"))
        .args(&["--jobs", "4"])
        .archive();
    assert!(
        registry.connections() <= 1 + 4 + 1,
        "{} connections",
        registry.connections()
    );
}

#[test]
fn chunked_body() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(8, 300_000)]);
    image.push(&registry, "r", "latest");
    registry.faults(Fault::new("/v2/r/", Action::Chunked(7001)).always());
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn body_that_ends_with_the_connection() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(9);
    image.push(&registry, "r", "latest");
    registry.faults(Fault::new("/v2/r/", Action::Old).always());
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn tags_over_three_pages() {
    let (registry, dir) = (Registry::start(), Dir::new());
    registry.route(|seen| {
        let page = |tags: &str, next: &str| {
            let reply = Reply::new(200, format!(r#"{{"name":"r","tags":{tags}}}"#));
            Some(if next.is_empty() {
                reply
            } else {
                reply.with(format!("Link: <{next}>; rel=\"next\""))
            })
        };
        match seen.target.as_str() {
            "/v2/r/tags/list?n=1000" => page(r#"["a","b"]"#, "/v2/r/tags/list?last=b&n=1000"),
            "/v2/r/tags/list?last=b&n=1000" => page(r#"["c"]"#, "list?last=c"),
            "/v2/r/tags/list?last=c" => page("null", ""),
            _ => None,
        }
    });
    let outcome = Run::pull(&dir, &registry.name("r")).arg("--tags").status(0);
    assert_eq!(outcome.stdout, "a\nb\nc\n");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn two_runs_give_the_same_bytes() {
    let registry = Registry::start();
    Image::small(12).push(&registry, "r", "latest");
    let (one, two) = (Dir::new(), Dir::new());
    let first = Run::pull(&one, &registry.name("r"))
        .args(&["--jobs", "1"])
        .archive();
    let second = Run::pull(&two, &registry.name("r"))
        .args(&["--jobs", "9"])
        .archive();
    assert!(first.bytes == second.bytes);
}
