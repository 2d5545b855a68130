//! Partly bad input: unused entries of an index, data embedded in descriptors, and error messages
//! wherever a registry puts them.

use crate::registry::image::{
    Image, OCI_INDEX, OCI_MANIFEST, platform, push_index, put_manifest, sha256,
};
use crate::registry::{Registry, Reply};
use crate::util::{Dir, Run};
use base64::Engine as _;

const AMD64: [&str; 2] = ["--platform", "linux/amd64"];

fn pull<'d>(dir: &'d Dir, registry: &Registry) -> Run<'d> {
    Run::pull(dir, &registry.name("r")).args(&AMD64)
}

fn amd64(seed: u64) -> (Image, String) {
    let image = Image::small(seed);
    let entry = image.entry(&platform("linux", "amd64", ""));
    (image, entry)
}

#[test]
fn entries_that_nobody_wants_need_not_be_right() {
    let digest = sha256(b"x");
    let odd = |text: &str| {
        text.replace("TYPE", &format!(r#""mediaType":"{OCI_MANIFEST}""#))
            .replace("DIGEST", &format!(r#""digest":"{digest}""#))
    };
    for entry in [
        "null",
        "7",
        "\"text\"",
        "[]",
        "{}",
        "{TYPE,DIGEST}",
        r#"{TYPE,DIGEST,"size":null}"#,
        r#"{TYPE,DIGEST,"size":"12"}"#,
        r#"{TYPE,DIGEST,"size":-1}"#,
        r#"{TYPE,DIGEST,"size":1.5}"#,
        r#"{TYPE,"size":7}"#,
        r#"{TYPE,"digest":null,"size":7}"#,
        r#"{TYPE,"digest":[],"size":7}"#,
        r#"{TYPE,"digest":"sha384:aa","size":7}"#,
        r#"{TYPE,"digest":"sha256:short","size":7}"#,
        r#"{TYPE,"digest":"blake3:00","size":7}"#,
        r#"{DIGEST,"size":7}"#,
        r#"{"mediaType":null,DIGEST,"size":7}"#,
        r#"{"mediaType":{},DIGEST,"size":7}"#,
        r#"{TYPE,DIGEST,"size":7,"platform":"linux/amd64"}"#,
        r#"{TYPE,DIGEST,"size":7,"platform":null}"#,
        r#"{TYPE,DIGEST,"size":7,"platform":{"os":7,"architecture":null}}"#,
        r#"{TYPE,DIGEST,"size":7,"annotations":[1]}"#,
        r#"{TYPE,DIGEST,"size":7,"annotations":{"vnd.docker.reference.type":null}}"#,
        r#"{TYPE,DIGEST,"size":7,"urls":"http://h/"}"#,
        r#"{TYPE,DIGEST,"size":7,"urls":{}}"#,
        r#"{TYPE,DIGEST,"size":7,"urls":[null,7,{}]}"#,
        r#"{TYPE,DIGEST,"size":7,"data":7}"#,
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let (image, ours) = amd64(1);
        image.push_untagged(&registry, "r");
        for (tag, entries) in [
            ("latest", [odd(entry), ours.clone()]),
            ("last", [ours, odd(entry)]),
        ] {
            push_index(&registry, "r", tag, OCI_INDEX, &entries);
            let archive = Run::pull(&dir, &format!("{}:{tag}", registry.name("r")))
                .args(&AMD64)
                .arg("--restart")
                .archive();
            archive.holds(&image, Some(&format!("{}:{tag}", registry.name("r"))));
        }
    }
}

#[test]
fn what_is_passed_over_is_said_with_verbose_and_where_it_was_wanted() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (image, ours) = amd64(1);
    image.push_untagged(&registry, "r");
    let odd = format!(
        r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","platform":{}}}"#,
        sha256(b"x"),
        platform("linux", "s390x", "")
    );
    push_index(&registry, "r", "latest", OCI_INDEX, &[odd, ours]);
    let verbose = pull(&dir, &registry).arg("-v").archive();
    let text = &verbose.outcome.stderr;
    assert!(text.contains("entry 1: has no size; skipped"), "{text}");
    let dir = Dir::new();
    let quiet = pull(&dir, &registry).archive();
    assert!(
        !quiet.outcome.stderr.contains("entry 1"),
        "{}",
        quiet.outcome.stderr
    );
    // If it is wanted, the error says what is wrong with it.
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r"))
        .args(&["--platform", "linux/s390x"])
        .fails(1, "entry 1: has no size");
    Run::pull(&dir, &registry.name("r"))
        .arg("--all-platforms")
        .fails(1, "entry 1: has no size");
    let listed = Run::pull(&dir, &registry.name("r"))
        .arg("--platforms")
        .status(0);
    assert_eq!(listed.stdout.lines().count(), 1, "{}", listed.stdout);
}

/// A manifest of something that is no image, and its entry.
fn artifact(registry: &Registry, platform: &str) -> String {
    let empty = "application/vnd.oci.empty.v1+json";
    let part = format!(
        r#"{{"mediaType":"{empty}","digest":"{}","size":2}}"#,
        sha256(b"{}")
    );
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","artifactType":"application/vnd.example.sbom","config":{part},"layers":[{part}]}}"#
    );
    put_manifest(registry, "r", &sha256(text.as_bytes()), OCI_MANIFEST, &text);
    format!(
        r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{}{platform}}}"#,
        sha256(text.as_bytes()),
        text.len()
    )
}

#[test]
fn artifacts_in_an_index_are_passed_over() {
    let registry = Registry::start();
    let image = Image::small(1);
    image.push_untagged(&registry, "r");
    let (bare, named) = (image.entry(""), amd64(1).1);
    let with_platform = format!(r#","platform":{}"#, platform("linux", "amd64", ""));
    let gone = format!(
        r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":7}}"#,
        sha256(b"gone")
    );
    for entries in [
        [artifact(&registry, ""), bare.clone()],
        [bare.clone(), artifact(&registry, "")],
        [artifact(&registry, &with_platform), named],
        [gone.clone(), bare],
    ] {
        let dir = Dir::new();
        push_index(&registry, "r", "latest", OCI_INDEX, &entries);
        pull(&dir, &registry)
            .archive()
            .holds(&image, Some(&registry.name("r:latest")));
    }
    let dir = Dir::new();
    let other = image.entry(&platform("linux", "s390x", ""));
    push_index(
        &registry,
        "r",
        "latest",
        OCI_INDEX,
        &[artifact(&registry, ""), other],
    );
    pull(&dir, &registry).fails(4, "available: linux/s390x");
    push_index(
        &registry,
        "r",
        "latest",
        OCI_INDEX,
        &[artifact(&registry, "")],
    );
    pull(&dir, &registry).fails(1, "is not a container image");
    push_index(&registry, "r", "latest", OCI_INDEX, &[gone]);
    pull(&dir, &registry).fails(4, &sha256(b"gone"));
}

#[test]
fn a_nested_index_that_nobody_can_have_is_passed_over() {
    let registry = Registry::start();
    let (image, ours) = amd64(1);
    image.push_untagged(&registry, "r");
    let broken = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}"}}"#);
    let digest = sha256(broken.as_bytes());
    put_manifest(&registry, "r", &digest, OCI_INDEX, &broken);
    let entry = |digest: &str, size: usize| {
        format!(r#"{{"mediaType":"{OCI_INDEX}","digest":"{digest}","size":{size}}}"#)
    };
    for (other, status, why) in [
        (entry(&sha256(b"gone"), 4), 4, sha256(b"gone")),
        (entry(&digest, broken.len()), 1, "no manifests".to_owned()),
    ] {
        let dir = Dir::new();
        let entries = [other.clone(), ours.clone()];
        push_index(&registry, "r", "latest", OCI_INDEX, &entries);
        let archive = pull(&dir, &registry).arg("-v").archive();
        archive.holds(&image, Some(&registry.name("r:latest")));
        assert!(archive.outcome.stderr.contains(&why));
        let listed = Run::pull(&dir, &registry.name("r"))
            .arg("--platforms")
            .status(0);
        assert_eq!(listed.stdout.lines().count(), 1, "{}", listed.stdout);
        // It may have contained the wanted one.
        Run::pull(&dir, &registry.name("r"))
            .args(&["--platform", "linux/s390x"])
            .fails(status, &why);
        push_index(&registry, "r", "latest", OCI_INDEX, &[other]);
        pull(&dir, &registry).fails(status, &why);
    }
}

#[test]
fn platforms_are_listed_whatever_one_of_them_is() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (image, ours) = amd64(1);
    image.push_untagged(&registry, "r");
    let broken = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}"}}"#);
    let digest = sha256(broken.as_bytes());
    put_manifest(&registry, "r", &digest, OCI_MANIFEST, &broken);
    let other = format!(
        r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":{},"platform":{}}}"#,
        broken.len(),
        platform("linux", "s390x", "")
    );
    push_index(&registry, "r", "latest", OCI_INDEX, &[other, ours]);
    let listed = Run::pull(&dir, &registry.name("r")).arg("--platforms");
    let listed = listed.status(0).stdout;
    assert!(listed.contains("linux/s390x") && listed.contains("linux/amd64"));
}

#[test]
fn a_missing_child_of_an_index_hints_at_platforms() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (_, entry) = amd64(1);
    push_index(&registry, "r", "latest", OCI_INDEX, &[entry]);
    let outcome = pull(&dir, &registry).fails(4, "--platforms");
    assert!(!outcome.stderr.contains("--tags"), "{}", outcome.stderr);
    let outcome = Run::pull(&dir, &registry.name("r:missing")).fails(4, "--tags");
    assert!(
        !outcome.stderr.contains("--platforms"),
        "{}",
        outcome.stderr
    );
}

fn embed(descriptor: &str, data: &[u8]) -> String {
    let data = base64::engine::general_purpose::STANDARD.encode(data);
    format!(
        r#"{},"data":"{data}"}}"#,
        descriptor.strip_suffix('}').unwrap()
    )
}

#[test]
fn embedded_data_serves_where_the_registry_lacks_it() {
    let (image, entry) = amd64(1);
    let manifest = image.manifest();
    let config = image.config.descriptor();
    let with_data = manifest.replace(&config, &embed(&config, &image.config.data()));
    let false_data = manifest.replace(&config, &embed(&config, b"{}"));
    for (text, works) in [(&with_data, true), (&false_data, false)] {
        let (registry, dir) = (Registry::start(), Dir::new());
        image.push_untagged(&registry, "r");
        put_manifest(&registry, "r", "latest", OCI_MANIFEST, text);
        let digest = image.config.digest.clone();
        registry.route(move |seen| seen.target.ends_with(&digest).then(|| Reply::new(404, "")));
        let run = pull(&dir, &registry);
        match works {
            true => drop(run.archive()),
            false => drop(run.status(4)),
        }
    }
    let layer = image.layers[0].descriptor();
    let with_data = manifest.replace(&layer, &embed(&layer, &image.layers[0].data()));
    let false_data = manifest.replace(&layer, &embed(&layer, b"{}"));
    for (text, works) in [(&with_data, true), (&false_data, false)] {
        let (registry, dir) = (Registry::start(), Dir::new());
        image.push_untagged(&registry, "r");
        put_manifest(&registry, "r", "latest", OCI_MANIFEST, text);
        let digest = image.layers[0].digest.clone();
        registry.route(move |seen| seen.target.ends_with(&digest).then(|| Reply::new(404, "")));
        for stream in [&[][..], &["-o", "-"]] {
            let run = pull(&dir, &registry).args(stream);
            let run = run.within("exec \"$@\" >stdout");
            run.status(if works { 0 } else { 4 });
        }
    }
    for (data, works) in [(manifest.as_bytes(), true), (b"{}", false)] {
        let (registry, dir) = (Registry::start(), Dir::new());
        image.push_untagged(&registry, "r");
        let entries = [embed(&entry, data)];
        push_index(&registry, "r", "latest", OCI_INDEX, &entries);
        let target = format!("manifests/{}", image.digest());
        registry.route(move |seen| seen.target.ends_with(&target).then(|| Reply::new(404, "")));
        match works {
            true => drop(
                pull(&dir, &registry)
                    .archive()
                    .holds(&image, Some(&registry.name("r:latest"))),
            ),
            false => drop(pull(&dir, &registry).fails(4, "--platforms")),
        }
    }
}

#[test]
fn a_registrys_own_words_are_shown_wherever_they_are() {
    for (status, body, exit, words) in [
        (
            200,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such tag"}]}"#,
            4,
            "no such tag",
        ),
        (
            200,
            r#"{"errors":[{"code":"DENIED","message":"pay first"}]}"#,
            3,
            "pay first",
        ),
        (
            200,
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"log in first"}]}"#,
            3,
            "log in first",
        ),
        (200, r#"{"error":"out of order"}"#, 1, "out of order"),
        (200, r#"{"message":"out of order"}"#, 1, "out of order"),
        (200, "out of order", 1, "out of order"),
        (404, r#"{"detail":"out of order"}"#, 4, "out of order"),
        (403, r#"{"errors":"out of order"}"#, 3, "out of order"),
        (
            403,
            r#"{"errors":{"code":"X","message":"out of order"}}"#,
            3,
            "X: out of order",
        ),
        (
            403,
            r#"{"title":"Forbidden here","reason":"out of order"}"#,
            3,
            "out of order",
        ),
        (
            403,
            r#"{"error":{"code":"X","message":"out of order"}}"#,
            3,
            "out of order",
        ),
        (
            500,
            r#"{"detail":[{"msg":"out of order"}]}"#,
            5,
            "out of order",
        ),
        (503, "out of order\n", 5, "out of order"),
        (
            503,
            r#"{"message":"out of \u001b[2J\u202eorder"}"#,
            5,
            "out of ?[2J?order",
        ),
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.route(move |_| Some(Reply::new(status, body)));
        let outcome = Run::new(&dir, &["--insecure", "--retries", "0", &registry.name("r")])
            .fails(exit, words);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        // By digest, it is no less an error.
        if body.starts_with('{') {
            let name = registry.name(&format!("r@{}", sha256(b"x")));
            Run::new(&dir, &["--insecure", "--retries", "0", &name]).fails(exit, words);
        }
    }
    for body in ["<html><body>words</body></html>", "<!DOCTYPE html>words"] {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.route(move |_| Some(Reply::new(403, body)));
        let outcome = Run::pull(&dir, &registry.name("r")).status(3);
        assert!(!outcome.stderr.contains("words"), "{}", outcome.stderr);
    }
}

#[test]
fn words_in_place_of_a_blob_are_shown() {
    for body in [
        r#"{"errors":[{"code":"DENIED","message":"out of order"}]}"#,
        r#"{"detail":"out of order"}"#,
        "out of order\n",
    ] {
        for layer in [false, true] {
            let (registry, dir) = (Registry::start(), Dir::new());
            let image = amd64(1).0;
            image.push(&registry, "r", "latest");
            let blob = if layer {
                &image.layers[0]
            } else {
                &image.config
            };
            let digest = blob.digest.clone();
            registry.route(move |seen| {
                let own = seen.target.ends_with(&digest);
                own.then(|| Reply::new(200, body))
            });
            let outcome = pull(&dir, &registry).arg("-q").fails(6, "out of order");
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        }
    }
}

#[test]
fn a_token_servers_own_words_are_shown() {
    for body in [
        r#"{"errors":[{"code":"X","message":"out of order"}]}"#,
        r#"{"error":"x","error_description":"out of order"}"#,
        r#"{"detail":"out of order"}"#,
    ] {
        let (registry, dir) = (Registry::start(), Dir::new());
        let address = registry.address;
        registry.route(move |seen| {
            Some(match seen.target.starts_with("/token") {
                true => Reply::new(200, body),
                false => Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#)),
            })
        });
        Run::pull(&dir, &registry.name("r")).fails(1, "out of order");
    }
}
