//! Good and bad documents: a result, or one line and nothing left behind.

use crate::registry::image::{self, Blob, Image, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, platform};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};

/// Puts a text as the manifest of `r:latest`, and expects the pull to fail so, without a layer
/// having been asked for.
#[track_caller]
fn refused(text: &str, media_type: &str, status: i32, words: &str) {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push_untagged(&registry, "r");
    image::put_manifest(&registry, "r", "latest", media_type, text);
    let outcome = Run::pull(&dir, &registry.name("r")).fails(status, words);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert_eq!(registry.count("/blobs/"), 0);
    assert!(dir.names().is_empty(), "{:?}", dir.names());
    outcome.is_small();
}

#[test]
fn the_linux_image_among_others() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let wanted = Image::small(67);
    let other = Image::small(68);
    wanted.push_untagged(&registry, "r");
    other.push_untagged(&registry, "r");
    let attestation = other.entry(&platform("linux", "amd64", "")).replacen(
        '{',
        r#"{"annotations":{"vnd.docker.reference.type":"attestation-manifest"},"#,
        1,
    );
    let odd = other
        .entry(&platform("linux", "amd64", ""))
        .replace(OCI_MANIFEST, "application/vnd.example.other+json");
    let entries = [
        other.entry(&platform("unknown", "unknown", "")),
        attestation,
        odd,
        other.entry(&platform("windows", "amd64", "")),
        wanted.entry(&platform("linux", "amd64", "")),
    ];
    image::push_index(&registry, "r", "latest", OCI_INDEX, &entries);
    Run::pull(&dir, &registry.name("r"))
        .args(&["--platform", "linux/amd64"])
        .archive()
        .holds(&wanted, Some(&registry.name("r:latest")));
}

#[test]
fn entries_without_a_platform_are_told_by_their_config() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let arm = Image::for_platform("arm64", "", vec![Blob::layer(1, 100)]);
    let amd = Image::for_platform("amd64", "", vec![Blob::layer(2, 100)]);
    arm.push_untagged(&registry, "r");
    amd.push_untagged(&registry, "r");
    image::push_index(
        &registry,
        "r",
        "latest",
        OCI_INDEX,
        &[arm.entry(""), amd.entry("")],
    );
    Run::pull(&dir, &registry.name("r"))
        .args(&["--arch", "amd64"])
        .archive()
        .holds(&amd, Some(&registry.name("r:latest")));
}

#[test]
fn arm_variants_and_the_list_of_what_there_is() {
    let registry = Registry::start();
    let make = |variant: &str| {
        let image =
            Image::for_platform("arm", variant, vec![Blob::layer(variant.len() as u64, 100)]);
        image.push_untagged(&registry, "r");
        (image.entry(&platform("linux", "arm", variant)), image)
    };
    let ((v5, old), (v6, _), (v7, new)) = (make("v5"), make("v6"), make("v7"));
    image::push_index(&registry, "r", "both", OCI_INDEX, &[v6, v7]);
    image::push_index(&registry, "r", "old", OCI_INDEX, &[v5]);
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r:both"))
        .args(&["--arch", "arm"])
        .archive()
        .holds(&new, Some(&registry.name("r:both")));
    Run::pull(&dir, &registry.name("r:old"))
        .args(&["--platform", "linux/arm/v7"])
        .archive()
        .holds(&old, Some(&registry.name("r:old")));
    let dir = Dir::new();
    let outcome = Run::pull(&dir, &registry.name("r:both"))
        .args(&["--arch", "riscv64"])
        .fails(4, "linux/riscv64");
    assert!(
        outcome
            .stderr
            .contains("available: linux/arm/v6, linux/arm/v7"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn nested_indexes() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(69);
    image.push_untagged(&registry, "r");
    let nest = |registry: &Registry, entry: String| {
        let digest = image::push_index(
            registry,
            "r",
            "inner",
            OCI_INDEX,
            std::slice::from_ref(&entry),
        );
        let size =
            format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entry}]}}"#)
                .len();
        format!(r#"{{"mediaType":"{OCI_INDEX}","digest":"{digest}","size":{size}}}"#)
    };
    let mut entry = nest(&registry, image.entry(&platform("linux", "amd64", "")));
    image::push_index(&registry, "r", "latest", OCI_INDEX, &[entry.clone()]);
    Run::pull(&dir, &registry.name("r"))
        .args(&["--arch", "amd64"])
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    for _ in 0..50 {
        entry = nest(&registry, entry);
    }
    image::push_index(&registry, "r", "deep", OCI_INDEX, &[entry]);
    Run::pull(&dir, &registry.name("r:deep")).fails(1, "nested deeper");
}

#[test]
fn ten_thousand_entries_and_none() {
    let entry = Image::small(1).entry(&platform("linux", "s390x", ""));
    let many = vec![entry.as_str(); 10_000].join(",");
    refused(
        &format!(r#"{{"manifests":[{many}]}}"#),
        OCI_INDEX,
        1,
        "more than",
    );
    refused(r#"{"manifests":[]}"#, OCI_INDEX, 4, "has no image for");
}

#[test]
fn what_is_no_image_is_named() {
    refused(
        r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:0"}]}"#,
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        1,
        "schema 1",
    );
    refused(
        r#"{"schemaVersion":1,"name":"x"}"#,
        "application/vnd.docker.distribution.manifest.v1+json",
        1,
        "schema 1",
    );
    let mut helm = Image::small(1);
    helm.config.media_type = "application/vnd.cncf.helm.config.v1+json".into();
    refused(&helm.manifest(), OCI_MANIFEST, 1, "helm.config");
    let mut empty = Image::small(1);
    empty.config.media_type = "application/vnd.oci.empty.v1+json".into();
    empty.more = r#""artifactType":"application/vnd.example\u001b[31m","#.into();
    refused(
        &empty.manifest(),
        OCI_MANIFEST,
        1,
        "artifact type application/vnd.example?[31m",
    );
    let mut encrypted = Image::small(1);
    encrypted.layers[1].media_type.push_str("+encrypted");
    refused(
        &encrypted.manifest(),
        OCI_MANIFEST,
        1,
        "layer 2 is encrypted",
    );
}

#[test]
fn documents_that_can_be_read_two_ways() {
    let mut both = Image::small(1);
    both.more = r#""manifests":[],"#.into();
    refused(
        &both.manifest(),
        OCI_MANIFEST,
        1,
        "both an index and a manifest",
    );
    refused(&Image::small(1).manifest(), OCI_INDEX, 1, "was served as");
}

#[test]
fn documents_without_measure() {
    refused(&"[".repeat(100_000), OCI_MANIFEST, 1, "nested deeper");
    refused(
        &format!("{{\"a\":{}}}", "[".repeat(1 << 20)),
        OCI_MANIFEST,
        1,
        "nested deeper",
    );
    refused(
        &format!("{{\"layers\":[{}{{}}]}}", "{},".repeat(900_000)),
        OCI_MANIFEST,
        1,
        "more than",
    );
    refused("\u{feff}{}", OCI_MANIFEST, 1, "is not JSON");
    refused("{\"layers\":\0}", OCI_MANIFEST, 1, "is not JSON");
    refused("", OCI_MANIFEST, 1, "is empty");
    refused("<html>\x1b[2Jcaptive portal</html>", "text/html", 1, "HTML");
    let mut padded = Image::small(1);
    padded.more = format!(r#""annotations":{{"x":"{}"}},"#, "y".repeat(4 << 20));
    refused(
        &padded.manifest(),
        OCI_MANIFEST,
        1,
        "limit of 4194304 bytes",
    );
}

#[test]
fn an_endless_manifest() {
    let (registry, dir) = (Registry::start(), Dir::new());
    registry.fault("/manifests/", Action::EndlessBody);
    registry.route(|seen| {
        seen.target
            .contains("/manifests/")
            .then(|| Reply::new(200, "{"))
    });
    let outcome = Run::pull(&dir, &registry.name("r")).fails(1, "limit of 4194304 bytes");
    outcome.is_small();
}

#[test]
fn a_member_twice_is_refused() {
    // Whichever counts here, another program may use the other one for the same digest.
    let text = Image::small(72)
        .manifest()
        .replacen('{', r#"{"layers":[],"#, 1);
    refused(&text, OCI_MANIFEST, 1, r#"the key "layers" twice"#);
}

#[test]
fn digests_that_are_paths_or_no_digests() {
    for (wrong, words) in [
        ("sha256:../../../../../../etc/passwd", "hexadecimal"),
        (&format!("sha256:{}", "A".repeat(64)), "hexadecimal"),
        (&format!("sha256:{}", "a".repeat(63)), "hexadecimal"),
        (&format!("sha1:{}", "a".repeat(40)), "sha1 is not supported"),
        ("", "has no algorithm"),
    ] {
        let mut image = Image::small(1);
        image.layers[2].digest = wrong.to_owned();
        refused(&image.manifest(), OCI_MANIFEST, 1, words);
        let mut image = Image::small(1);
        image.config.digest = wrong.to_owned();
        refused(&image.manifest(), OCI_MANIFEST, 1, words);
    }
}

#[test]
fn sizes_that_are_none() {
    for wrong in ["-1", "9223372036854775808", "1e3", "\"20\"", "{}", "true"] {
        let mut image = Image::small(1);
        image.layers[0].size = wrong.to_owned();
        refused(&image.manifest(), OCI_MANIFEST, 1, "layer 1: its size");
    }
    let mut image = Image::small(1);
    image.layers[0].size = "null".into();
    refused(&image.manifest(), OCI_MANIFEST, 1, "layer 1: has no size");
    let mut image = Image::small(1);
    image.layers[0].size = "9223372036854775807".into();
    image.layers[1].size = "9223372036854775807".into();
    let (registry, dir) = (Registry::start(), Dir::new());
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r")).fails(1, "add up to more");
}

#[test]
fn a_size_of_10_tb_allocates_nothing() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut image = Image::small(1);
    image.layers[0].size = "10995116277760".into();
    image.push(&registry, "r", "latest");
    let outcome = Run::pull(&dir, &registry.name("r")).outcome();
    assert!(
        matches!(outcome.status.code(), Some(6 | 7)),
        "{}",
        outcome.stderr
    );
    outcome.is_small();
    assert!(dir.names().iter().all(|name| !name.ends_with(".tar")));
}

#[test]
fn another_manifest_than_the_digest_names() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (wanted, other) = (Image::small(1), Image::small(2));
    other.push_untagged(&registry, "r");
    image::put_manifest(
        &registry,
        "r",
        &wanted.digest(),
        OCI_MANIFEST,
        &other.manifest(),
    );
    Run::pull(&dir, &registry.name(&format!("r@{}", wanted.digest()))).fails(6, &other.digest());
}

#[test]
fn children_that_are_not_what_the_index_says() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (wanted, other) = (Image::small(1), Image::small(2));
    wanted.push_untagged(&registry, "r");
    other.push_untagged(&registry, "r");
    let entry = wanted.entry(&platform("linux", "amd64", ""));
    let size = format!(r#""size":{}"#, wanted.manifest().len());
    image::push_index(
        &registry,
        "r",
        "size",
        OCI_INDEX,
        &[entry.replace(&size, r#""size":7"#)],
    );
    Run::pull(&dir, &registry.name("r:size"))
        .args(&["--arch", "amd64"])
        .fails(6, "7 bytes");
    image::push_index(&registry, "r", "digest", OCI_INDEX, &[entry]);
    image::put_manifest(
        &registry,
        "r",
        &wanted.digest(),
        OCI_MANIFEST,
        &other.manifest(),
    );
    Run::pull(&dir, &registry.name("r:digest"))
        .args(&["--arch", "amd64"])
        .fails(6, &wanted.digest());
}

#[test]
fn equal_and_empty_layers() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let same = Blob::layer(77, 5000);
    let empty_tar = vec![0; 1024];
    let tiny = Blob::bytes(
        image::GZIP,
        image::gzip(&empty_tar),
        image::sha256(&empty_tar),
    );
    let nothing = Blob::bytes(
        "application/vnd.oci.image.layer.v1.tar",
        Vec::new(),
        image::sha256(b""),
    );
    let image = Image::new(vec![
        same.clone(),
        tiny.clone(),
        same.clone(),
        nothing,
        same.clone(),
        tiny,
        same.clone(),
        same,
    ]);
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert_eq!(
        registry.count("/blobs/"),
        3,
        "config, one large and one small layer; an empty one needs no request"
    );
}

#[test]
fn a_blob_of_no_bytes_has_only_one_digest() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut image = Image::small(1);
    image.layers[0].size = "0".into();
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r")).fails(6, "e3b0c442");
}

#[test]
fn more_or_fewer_diff_ids_than_layers() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(78)
        .with_config(r#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}"#);
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r"))
        .fails(1, "names 0 diff IDs, but the manifest has 3 layers");
}

#[test]
fn foreign_layers_without_credentials() {
    let (registry, store, dir) = (Registry::start(), Registry::start(), Dir::new());
    let mut image = Image::small(79);
    let path = format!("/store/{}", &image.layers[1].digest[7..]);
    store.put(
        &path,
        "application/octet-stream",
        image.layers[1].content.clone(),
    );
    image.layers[1].urls = vec![
        "ftp://h/x".into(),
        format!("http://{}{path}", store.address),
    ];
    image.layers[1].media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    image.push(&registry, "r", "latest");
    registry
        .faults(Fault::new(&image.layers[1].digest, Action::Reply(Reply::new(404, ""))).always());
    Run::pull(&dir, &registry.name("r"))
        .args(&["--user", "u", "--password", "secret"])
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert!(
        store
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
    store.route(|_| Some(Reply::unauthorized("Basic realm=\"x\"")));
    let before = store.seen().len();
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r"))
        .args(&["--user", "u", "--password", "secret"])
        .status(5);
    assert!(
        store.seen()[before..]
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[test]
fn layers_stay_as_they_came_whatever_they_are_called() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let tar = image::layer_tar(80, 2000);
    let id = image::sha256(&tar);
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], &image::noise(1, 500)].concat();
    let image = Image::new(vec![
        Blob::bytes(
            "application/vnd.oci.image.layer.v1.tar+zstd",
            zstd,
            image::sha256(b"x"),
        ),
        Blob::bytes(image::GZIP, tar.clone(), id.clone()),
        Blob::bytes(
            "application/vnd.oci.image.layer.v1.tar",
            image::gzip(&tar),
            id,
        ),
    ]);
    image.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r"))
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
}

#[test]
fn a_config_for_another_platform_warns_and_is_refused_when_asked_otherwise() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::for_platform("s390x", "", vec![Blob::layer(1, 100)]);
    image.push(&registry, "r", "latest");
    let archive = Run::pull(&dir, &registry.name("r")).archive();
    assert!(
        archive.outcome.stderr.contains("for linux/s390x only"),
        "{}",
        archive.outcome.stderr
    );
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r"))
        .args(&["--arch", "amd64"])
        .fails(4, "available: linux/s390x");
    let silent = Image::new(Vec::new()).with_config("{}");
    silent.push(&registry, "silent", "latest");
    let archive = Run::pull(&dir, &registry.name("silent"))
        .args(&["--arch", "arm"])
        .archive();
    assert!(
        archive
            .outcome
            .stderr
            .contains("does not say which platform"),
        "{}",
        archive.outcome.stderr
    );
}

#[test]
fn a_missing_media_type_and_a_charset_are_no_trouble() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let mut image = Image::small(1);
    image.body_type = String::new();
    for (number, header) in [
        "application/json",
        "text/html",
        &format!("{OCI_MANIFEST}; charset=utf-8"),
    ]
    .iter()
    .enumerate()
    {
        image.media_type = (*header).to_owned();
        image.push(&registry, "r", &format!("t{number}"));
        Run::pull(&dir, &registry.name(&format!("r:t{number}"))).archive();
    }
    assert!(image.config.media_type == OCI_CONFIG);
}

/// Go reads keys in any case and takes the last of several: a document that another program reads
/// as another image has the same digest all the same.
#[test]
fn documents_that_are_read_in_two_ways_are_refused() {
    let image = Image::small(1);
    let (text, other) = (image.manifest(), Image::small(2));
    let with = |more: &str| format!("{},{more}}}", &text[..text.len() - 1]);
    let layers = format!("[{}]", other.layers[0].descriptor());
    for (more, words) in [
        (format!(r#""Layers":{layers}"#), r#"the key "Layers""#),
        (format!(r#""layer\u017f":{layers}"#), r#"read as "layers""#),
        (format!(r#""layers":{layers}"#), r#"the key "layers" twice"#),
        (
            format!(r#""Config":{}"#, other.config.descriptor()),
            r#"the key "Config""#,
        ),
        (
            r#""MediaType":"application/x""#.to_owned(),
            r#"read as "mediaType""#,
        ),
    ] {
        refused(&with(&more), OCI_MANIFEST, 1, words);
    }
    let sized = text.replacen(r#""size":"#, r#""Size":1,"size":"#, 1);
    refused(&sized, OCI_MANIFEST, 1, r#"read as "size""#);
    let index = format!(r#"{{"manifests":[],"Manifests":[{}]}}"#, image.entry(""));
    refused(&index, OCI_INDEX, 1, "Manifests");
    // Every program reads these alike.
    let annotations = r#""annotations":{"Layers":"a","layers":"b"},"x":{"Config":1,"config":2}"#;
    let (registry, dir) = (Registry::start(), Dir::new());
    image.push_untagged(&registry, "r");
    image::put_manifest(&registry, "r", "latest", OCI_MANIFEST, &with(annotations));
    Run::pull(&dir, &registry.name("r")).archive();
    // Labels have any names, and so have keys that nobody reads.
    let text = String::from_utf8(Image::small(1).config.data()).unwrap();
    let within = r#""config":{"Labels":{"Cmd":"a","cmd":"b"}}"#;
    let first = |more: &str| format!("{{{more},{}", &text[1..]);
    for (config, status) in [
        (text.replacen(r#""config":{}"#, within, 1), 0),
        (
            first(r#""container_config":{"Cmd":["a"]},"x":{"OS":"a","OS":"b"}"#),
            0,
        ),
        (first(r#""config":{}"#), 1),
        (
            text.replacen(r#""config":{}"#, r#""config":{"cmd":["b"]}"#, 1),
            1,
        ),
        (first(r#""rootfs":{"diff_ids":[]}"#), 1),
        (first(r#""RootFS":{"diff_ids":[]}"#), 1),
        (first(r#""OS":"linux""#), 1),
    ] {
        assert_ne!(config, text);
        let (registry, dir) = (Registry::start(), Dir::new());
        let image = Image::small(1).with_config(&config);
        image.push(&registry, "r", "latest");
        let outcome = Run::pull(&dir, &registry.name("r")).status(status);
        let told = outcome.stderr.contains("the key");
        assert_eq!(told, status == 1, "{config}: {}", outcome.stderr);
    }
}
