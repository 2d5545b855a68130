//! Queries: their output as text and as JSON, and how few requests they take.

use crate::registry::image::{Blob, Image, OCI_INDEX, platform, push_index};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};
use miniserde::json::{Object, Value};
use std::collections::BTreeMap;

fn small() -> (Registry, Dir, Image) {
    let (registry, image) = (Registry::start(), Image::small(1));
    image.push(&registry, "r", "latest");
    (registry, Dir::new(), image)
}

/// Two platforms and an attestation; the index's digest.
fn multi(registry: &Registry) -> (Image, Image, String) {
    let amd64 = Image::small(1);
    let arm = Image::for_platform("arm", "v7", vec![Blob::layer(7, 5000)]);
    for image in [&amd64, &arm] {
        image.push_untagged(registry, "r");
    }
    let attestation = Image::new(vec![]).entry(&platform("unknown", "unknown", ""));
    let entries = [
        amd64.entry(&platform("linux", "amd64", "")),
        arm.entry(&platform("linux", "arm", "v7")),
        attestation,
    ];
    let digest = push_index(registry, "r", "latest", OCI_INDEX, &entries);
    (amd64, arm, digest)
}

/// What was asked for, in order: method and the end of the path.
fn asked(registry: &Registry) -> Vec<String> {
    let seen = registry.seen();
    let ends = seen.iter().map(|seen| {
        let end = seen.target.rsplit('/').next().unwrap();
        format!("{} {}", seen.method, end.split('?').next().unwrap())
    });
    ends.collect()
}

#[track_caller]
fn object(text: &str) -> Object {
    match miniserde::json::from_str(text) {
        Ok(Value::Object(object)) => object,
        other => panic!("no object but {other:?}: {text}"),
    }
}

fn text(object: &Object, key: &str) -> Option<String> {
    match &object[key] {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => panic!("{key} is {other:?}"),
    }
}

fn number(object: &Object, key: &str) -> u64 {
    match &object[key] {
        Value::Number(miniserde::json::Number::U64(number)) => *number,
        other => panic!("{key} is {other:?}"),
    }
}

fn list<'o>(object: &'o Object, key: &str) -> Vec<&'o Object> {
    let Value::Array(array) = &object[key] else {
        panic!("{key} is no array")
    };
    array
        .iter()
        .map(|item| match item {
            Value::Object(object) => object,
            other => panic!("{key} holds {other:?}"),
        })
        .collect()
}

#[test]
fn the_digest_is_asked_for_by_head_and_costs_no_pull() {
    let (registry, dir, image) = small();
    let run = Run::pull(&dir, &registry.name("r")).arg("--sha");
    let outcome = run.status(0);
    assert_eq!(outcome.stdout, format!("{}\n", image.digest()));
    assert_eq!(asked(&registry), ["HEAD latest"]);
    registry.forget();
    let pinned = registry.name(&format!("r@{}", image.digest()));
    let outcome = Run::pull(&dir, &pinned).arg("--sha").status(0);
    assert_eq!(outcome.stdout, format!("{}\n", image.digest()));
    assert_eq!(asked(&registry), [format!("HEAD {}", image.digest())]);
}

#[test]
fn what_head_does_not_answer_get_does() {
    let (registry, dir, image) = small();
    for status in [400, 403, 404, 405, 500, 501] {
        registry.faults(Fault::new(
            "/manifests/",
            Action::Reply(Reply::new(status, "")),
        ));
        let outcome = Run::pull(&dir, &registry.name("r")).arg("--sha").status(0);
        assert_eq!(outcome.stdout, format!("{}\n", image.digest()), "{status}");
        assert_eq!(asked(&registry), ["HEAD latest", "GET latest"], "{status}");
        registry.forget();
    }
    // A connection that ends instead of an answer.
    registry.fault("/manifests/", Action::Raw(Vec::new()));
    let outcome = Run::pull(&dir, &registry.name("r")).arg("--sha").status(0);
    assert_eq!(outcome.stdout, format!("{}\n", image.digest()));
}

#[test]
fn a_header_that_is_no_digest_is_not_believed() {
    let (registry, dir, image) = small();
    let hex = &image.digest()[7..];
    for field in [
        "",
        "Docker-Content-Digest: ",
        "Docker-Content-Digest: latest",
        &format!("Docker-Content-Digest: {hex}"),
        &format!("Docker-Content-Digest: sha256:{}", hex.to_uppercase()),
        &format!("Docker-Content-Digest: sha256:{}", &hex[1..]),
        &format!("Docker-Content-Digest: sha256:{}", "../".repeat(21)),
        &format!("Docker-Content-Digest: md5:{}", &hex[32..]),
        // Right, but not what a GET would come to.
        &format!("Docker-Content-Digest: sha512:{hex}{hex}"),
    ] {
        let reply = match field {
            "" => Reply::new(200, ""),
            field => Reply::new(200, "").with(field),
        };
        registry.fault("/manifests/", Action::Reply(reply));
        let outcome = Run::pull(&dir, &registry.name("r")).arg("--sha").status(0);
        assert_eq!(outcome.stdout, format!("{}\n", image.digest()), "{field}");
        assert_eq!(asked(&registry), ["HEAD latest", "GET latest"], "{field}");
        registry.forget();
    }
    // Another digest than the one in the reference.
    let other = Image::small(2);
    let field = format!("Docker-Content-Digest: {}", other.digest());
    registry.fault(
        "/manifests/",
        Action::Reply(Reply::new(200, "").with(field)),
    );
    let pinned = registry.name(&format!("r@{}", image.digest()));
    let outcome = Run::pull(&dir, &pinned).arg("--sha").status(0);
    assert_eq!(outcome.stdout, format!("{}\n", image.digest()));
}

#[test]
fn too_many_requests_are_waited_for_and_not_answered_with_more() {
    let (registry, dir, image) = small();
    let reply = Reply::new(429, "").with("Retry-After: 1");
    registry.fault("/manifests/", Action::Reply(reply));
    let outcome = Run::pull(&dir, &registry.name("r")).arg("--sha").status(0);
    assert_eq!(outcome.stdout, format!("{}\n", image.digest()));
    assert_eq!(asked(&registry), ["HEAD latest", "HEAD latest"]);
}

#[test]
fn a_digest_behind_a_token_takes_one_token() {
    let (registry, dir, image) = small();
    let realm = format!("http://{}/token", registry.address);
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            return Some(Reply::new(200, r#"{"token":"t0ken"}"#));
        }
        (seen.header("authorization") != Some("Bearer t0ken"))
            .then(|| Reply::unauthorized(&format!(r#"Bearer realm="{realm}",service="s""#)))
    });
    let outcome = Run::pull(&dir, &registry.name("r")).arg("--sha").status(0);
    assert_eq!(outcome.stdout, format!("{}\n", image.digest()));
    assert_eq!(
        asked(&registry),
        ["HEAD latest", "GET token", "HEAD latest"]
    );
}

#[test]
fn what_is_missing_is_told_in_the_registrys_words() {
    let (registry, dir, _) = small();
    Run::pull(&dir, &registry.name("r:2"))
        .arg("--sha")
        .fails(4, "MANIFEST_UNKNOWN");
    assert_eq!(asked(&registry), ["HEAD 2", "GET 2"]);
}

#[test]
fn a_platforms_digest_takes_the_index_alone() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (_, arm, index) = multi(&registry);
    let ask = |args: &[&str]| {
        registry.forget();
        let run = Run::pull(&dir, &registry.name("r")).args(args);
        let outcome = run.status(0);
        assert_eq!(outcome.stderr, "");
        (outcome.stdout, asked(&registry))
    };
    let (out, requests) = ask(&["--sha"]);
    assert_eq!((out, requests.len()), (format!("{index}\n"), 1));
    let (out, requests) = ask(&["--sha", "--arch", "arm"]);
    assert_eq!(out, format!("{}\n", arm.digest()));
    assert_eq!(requests, ["GET latest"]);
    let (out, requests) = ask(&["--metadata", "--arch", "arm"]);
    assert_eq!(out, format!("{}\n", arm.manifest()));
    assert_eq!(
        requests,
        ["GET latest".to_owned(), format!("GET {}", arm.digest())]
    );
    let (out, _) = ask(&["--config", "--arch", "arm"]);
    assert_eq!(out.trim_end().as_bytes(), arm.config.data());
    let (out, requests) = ask(&["--platforms"]);
    assert!(
        out.contains(&format!("linux/arm/v7\t{}\t", arm.digest())),
        "{out}"
    );
    assert_eq!((out.lines().count(), requests.len()), (2, 3));
    Run::pull(&dir, &registry.name("r"))
        .args(&["--sha", "--arch", "s390x"])
        .fails(4, "available: linux/amd64, linux/arm/v7");
}

#[test]
fn a_single_manifests_platform_is_held_to() {
    let (registry, dir, image) = small();
    let run = |arch: &str| Run::pull(&dir, &registry.name("r")).args(&["--sha", "--arch", arch]);
    assert_eq!(
        run("amd64").status(0).stdout,
        format!("{}\n", image.digest())
    );
    run("arm64").fails(4, "linux/amd64");
}

#[test]
fn platforms_that_a_registry_lacks_have_no_size() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (here, missing) = (Image::small(1), Image::small(2));
    here.push_untagged(&registry, "r");
    // The same manifest for two platforms is asked for once.
    let entries = [
        here.entry(&platform("linux", "amd64", "")),
        missing.entry(&platform("linux", "arm64", "")),
        here.entry(&platform("linux", "riscv64", "")),
        here.entry(""),
    ];
    push_index(&registry, "r", "latest", OCI_INDEX, &entries);
    let out = Run::pull(&dir, &registry.name("r"))
        .arg("--platforms")
        .status(0)
        .stdout;
    let size: usize = here.layers.iter().map(|layer| layer.data().len()).sum();
    let line = |platform: &str| format!("{platform}\t{}\t{size}\n", here.digest());
    let expected = [
        line("linux/amd64"),
        format!("linux/arm64\t{}\t-\n", missing.digest()),
        line("linux/riscv64"),
        line("unknown"),
    ];
    assert_eq!(out, expected.concat());
    assert_eq!(registry.seen().len(), 3);
    let run = Run::pull(&dir, &registry.name("r")).args(&["--platforms", "--json"]);
    let answer = object(&run.status(0).stdout);
    let platforms = list(&answer, "platforms");
    assert!(matches!(platforms[1]["size"], Value::Null));
    assert_eq!(text(platforms[3], "platform"), None);
}

#[test]
fn the_reader_of_tags_may_go() {
    let (registry, dir) = (Registry::start(), Dir::new());
    for tag in 0..100_000 {
        registry.put_tag("r", &format!("tag-{tag:06}"));
    }
    for flags in [&["--tags"][..], &["--tags", "--json"]] {
        let run = Run::pull(&dir, &registry.name("r")).args(flags);
        let run = run.within("{ \"$@\"; echo $? >status; } | head -n 1");
        let outcome = run.status(0);
        assert!(outcome.stdout.contains("tag-000000"), "{}", outcome.stdout);
        assert_eq!(outcome.stderr, "");
        assert_eq!(std::fs::read_to_string(dir.join("status")).unwrap(), "7\n");
        assert!(registry.seen().len() < 50, "{}", registry.seen().len());
        registry.forget();
    }
    // All of them, without the memory of all of them.
    let run = Run::pull(&dir, &registry.name("r")).args(&["--tags", "--json"]);
    let outcome = run.status(0);
    let answer = object(&outcome.is_small().stdout);
    let Value::Array(tags) = &answer["tags"] else {
        panic!()
    };
    assert_eq!(tags.len(), 100_000);
    assert_eq!(text(&answer, "repository").unwrap(), registry.name("r"));
}

#[test]
fn a_reader_that_is_gone_ends_every_answer_quietly() {
    let (registry, dir, _) = small();
    for flag in [
        "--sha",
        "--metadata",
        "--platforms",
        "--dry-run",
        "--json",
        "--help",
        "--man",
    ] {
        let run = Run::pull(&dir, &registry.name("r")).args(&["-q", flag]);
        let run = run.within("{ sleep 0.2; \"$@\"; echo $? >status; } | :");
        assert_eq!(run.status(0).stderr, "", "{flag}");
        let status = std::fs::read_to_string(dir.join("status")).unwrap();
        assert_eq!(status, "7\n", "{flag}");
    }
    // Another failure of the output is told.
    let run = Run::pull(&dir, &registry.name("r")).arg("--sha");
    run.within("exec \"$@\" >/dev/full")
        .fails(7, "standard output: No space left");
}

#[test]
fn an_answer_that_breaks_off_is_no_json() {
    let (registry, dir) = (Registry::start(), Dir::new());
    registry.route(|seen| match seen.target.contains("last=") {
        true => Some(Reply::new(404, "")),
        false => Some(
            Reply::new(200, r#"{"tags":["a","b"]}"#)
                .with(r#"Link: </v2/r/tags/list?last=b>; rel="next""#),
        ),
    });
    let run = Run::pull(&dir, &registry.name("r")).args(&["--tags", "--json"]);
    let outcome = run.outcome();
    assert_eq!(outcome.status.code(), Some(4), "{}", outcome.stderr);
    assert!(miniserde::json::from_str::<Value>(&outcome.stdout).is_err());
    assert!(
        outcome.stdout.contains("\"a\",\n\"b\""),
        "{}",
        outcome.stdout
    );
}

#[test]
fn a_dry_run_says_what_is_there_and_touches_nothing() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let layers = vec![
        Blob::layer(1, 3 << 20),
        Blob::layer(2, 100_000),
        Blob::layer(3, 2 << 20),
    ];
    let image = Image::new(layers);
    image.push(&registry, "r", "latest");
    let name = registry.name("r");
    let ask = |args: &[&str]| {
        Run::pull(&dir, &name)
            .arg("--dry-run")
            .args(args)
            .status(0)
            .stdout
    };
    let before = ask(&[]);
    for blob in &image.layers {
        let line = format!("download\t{}\t{}\n", blob.content.len(), blob.path());
        assert!(before.contains(&line), "{before}");
    }
    assert!(before.contains("known\t30\toci-layout\n"), "{before}");
    assert!(
        before.ends_with("5.3 MB to download, an archive of 5.4 MB: r-latest.tar\n"),
        "{before}"
    );
    assert!(dir.names().is_empty());

    // The largest layer comes whole, of the next one a part.
    let digest = |number: usize| image.layers[number].digest.clone();
    registry.fault(&digest(2), Action::Reset((1 << 20) + 5000));
    let refused = Action::Reply(Reply::new(403, ""));
    registry.faults(Fault::new(&digest(2), refused).skip(1).always());
    let _ = Run::pull(&dir, &name).args(&["--jobs", "1"]).outcome();
    assert_eq!(dir.names(), ["r-latest.tar.partial"]);
    let partial = std::fs::read(dir.join("r-latest.tar.partial")).unwrap();
    let asked = registry.blob_bytes();
    let after = ask(&[]);
    for (what, blob) in ["here", "download", "partly"].iter().zip(&image.layers) {
        let line = format!("{what}\t{}\t{}", blob.content.len(), blob.path());
        assert!(after.contains(&line), "{after}");
    }
    let run = Run::pull(&dir, &name).args(&["--dry-run", "--json"]);
    let answer = object(&run.status(0).stdout);
    let layers = list(&answer, "layers");
    let here: Vec<u64> = layers.iter().map(|layer| number(layer, "here")).collect();
    assert_eq!(here, [image.layers[0].content.len(), 0, (1 << 20) + 5000]);
    assert_eq!(number(&answer, "here"), here.iter().sum());
    let all: u64 = image.layers.iter().map(|layer| layer.content.len()).sum();
    let documents = image.manifest().len() as u64 + image.config.content.len();
    let left = all + documents - number(&answer, "here");
    assert_eq!(number(&answer, "download"), left);
    assert_eq!(text(&answer, "path").unwrap(), "r-latest.tar");
    assert!(ask(&["--restart"]).contains("\n5.3 MB to download, an archive"));
    // Neither the file nor the registry was touched, and a pull keeps what was promised.
    assert_eq!(
        std::fs::read(dir.join("r-latest.tar.partial")).unwrap(),
        partial
    );
    assert_eq!(
        registry.blob_bytes(),
        asked + 3 * image.config.content.len()
    );
    let other = Registry::start();
    image.push(&other, "r", "latest");
    let run = Run::pull(&dir, &other.name("r")).args(&["--json", "-o", "r-latest.tar"]);
    let done = object(&run.status(0).stdout);
    assert_eq!(number(&done, "kept"), here.iter().sum());
}

#[test]
fn a_dry_run_looks_at_a_file_that_is_being_written() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 4 << 20)]);
    image.push(&registry, "r", "latest");
    registry.pace(1 << 20);
    let mut child = Run::pull(&dir, &registry.name("r")).spawn();
    while registry.blob_bytes() < 2 << 20 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let run = Run::pull(&dir, &registry.name("r")).args(&["--dry-run", "--json"]);
    let answer = object(&run.status(0).stdout);
    assert!((1..4 << 20).contains(&number(&answer, "here")));
    assert!(child.wait().unwrap().success());
    assert_eq!(dir.names(), ["r-latest.tar"]);
}

#[test]
fn a_dry_run_counts_what_another_image_lends() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let shared = Blob::layer(1, 3 << 20);
    let old = Image::new(vec![shared.clone(), Blob::layer(2, 1 << 20)]);
    let new = Image::new(vec![shared.clone(), Blob::layer(3, 200_000)]);
    old.push(&registry, "r", "latest");
    let failing = Fault::new(&old.layers[1].digest, Action::Reply(Reply::new(403, ""))).always();
    registry.faults(failing);
    Run::pull(&dir, &registry.name("r"))
        .args(&["--jobs", "1"])
        .outcome();
    new.push(&registry, "r", "latest");
    let args = ["--dry-run", "--json"];
    let mut told = Vec::new();
    for _ in 0..2 {
        let answer = object(
            &Run::pull(&dir, &registry.name("r"))
                .args(&args)
                .status(0)
                .stdout,
        );
        told.push(number(&answer, "here"));
    }
    let archive = Run::pull(&dir, &registry.name("r")).arg("--json").status(0);
    let done = object(&archive.stdout);
    assert_eq!(told, [number(&done, "kept"); 2]);
    assert!(told[0] > 0);
}

#[test]
fn a_dry_run_counts_what_archives_have() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let shared = Blob::layer(1, 100_000);
    let old = Image::new(vec![shared.clone(), Blob::layer(2, 50_000)]);
    let new = Image::new(vec![shared.clone(), Blob::layer(3, 70_000)]);
    old.push(&registry, "r", "old");
    new.push(&registry, "r", "latest");
    Run::pull(&dir, &registry.name("r:old"))
        .args(&["-q", "-o", "old.tar"])
        .status(0);
    let size = shared.content.len();
    let here = |args: &[&str]| {
        let args = [&["--dry-run", "--json"][..], args].concat();
        let answer = object(
            &Run::pull(&dir, &registry.name("r"))
                .args(&args)
                .status(0)
                .stdout,
        );
        let there = Run::pull(&dir, &registry.name("r")).args(&args[1..]);
        (number(&answer, "here"), answer, there)
    };
    assert_eq!(here(&[]).0, 0);
    // The archive that is named, the archive that would be replaced, and what goes elsewhere.
    for args in [
        &["--reuse", "old.tar"][..],
        &["-o", "old.tar"],
        &["--no-tar", "--layers-dir", "d", "--reuse", "old.tar"],
        &["--gunzip", "--reuse", "old.tar", "-o", "raw.tar"],
        &["--xz", "--reuse", "old.tar"],
    ] {
        let (here, answer, pull) = here(args);
        assert_eq!(here, size, "{args:?}");
        let unknown = args.contains(&"--gunzip") || args.contains(&"--xz");
        assert_eq!(matches!(answer["size"], Value::Null), unknown);
        if args[0] != "-o" {
            let done = object(&pull.status(0).stdout);
            assert_eq!(
                (number(&done, "kept"), text(&done, "path")),
                (size, text(&answer, "path"))
            );
        }
    }
    // A directory that is there, layers that are there uncompressed, and a stream.
    for args in [
        &["--no-tar", "--layers-dir", "d"][..],
        &["--gunzip", "-o", "raw.tar"],
    ] {
        assert_eq!(number(&here(args).1, "download"), 0, "{args:?}");
    }
    let (here, answer, _) = here(&["-o", "-", "--reuse", "old.tar"]);
    assert_eq!(
        (here, text(&answer, "path").unwrap()),
        (size, "-".to_owned())
    );
    let run = Run::pull(&dir, &registry.name("r")).args(&["--dry-run", "--reuse", "none.tar"]);
    run.fails(1, "none.tar");
    let run = Run::pull(&dir, &registry.name("r")).args(&["--json", "-o", "-"]);
    run.fails(2, "--json: prints to standard output");
}

#[test]
fn a_dry_run_looks_into_a_directory_that_is_under_way() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 2 << 20), Blob::layer(2, 1 << 20)]);
    image.push(&registry, "r", "latest");
    let refused = Action::Reply(Reply::new(403, ""));
    registry.faults(Fault::new(&image.layers[1].digest, refused).always());
    let run = || Run::pull(&dir, &registry.name("r")).args(&["--no-tar", "--jobs", "1"]);
    run().outcome();
    let answer = object(&run().args(&["--dry-run", "--json"]).status(0).stdout);
    assert_eq!(number(&answer, "here"), image.layers[0].content.len());
    assert_eq!(dir.names(), ["r-latest.partial"]);
}

#[test]
fn a_dry_run_fails_as_the_pull_would() {
    let (registry, dir, _) = small();
    let dry = |args: &[&str]| {
        Run::pull(&dir, &registry.name("r"))
            .arg("--dry-run")
            .args(args)
    };
    dry(&["--arch", "s390x"]).fails(4, "linux/amd64");
    dry(&["-o", "missing/x.tar"]).fails(7, "the directory must exist");
    std::fs::create_dir(dir.join("d")).unwrap();
    dry(&["-o", "d"]).fails(7, "directory");
    Run::pull(&dir, &registry.name("none"))
        .arg("--dry-run")
        .fails(4, "MANIFEST_UNKNOWN");
    // A working directory is made by the pull, not by the dry run.
    dry(&["--working-dir", "a/b"]).status(0);
    assert_eq!(dir.names(), ["d"]);
}

#[test]
fn a_dry_run_of_several_images_has_each_layer_once() {
    let (registry, dir, image) = small();
    let other = Image::new(vec![image.layers[0].clone(), Blob::layer(9, 1000)]);
    other.push(&registry, "other", "latest");
    let run = Run::pull(&dir, &registry.name("r")).args(&[
        &registry.name("other"),
        "--dry-run",
        "--json",
        "-o",
        "both.tar",
    ]);
    let answer = object(&run.status(0).stdout);
    assert_eq!(list(&answer, "layers").len(), 4);
    assert_eq!(list(&answer, "images").len(), 2);
}

/// The members that a section of the manual page lists, by item: what stands before an item's first
/// full stop, without explanations in parentheses.
fn documented(section: &str) -> BTreeMap<String, Vec<String>> {
    let page = Run::new(&Dir::new(), &["--man"]).status(0).stdout;
    let page = page.replace("\\-", "-");
    let (_, text) = page.split_once(&format!(".SH {section}\n")).unwrap();
    let text = text.split("\n.SH ").next().unwrap();
    let item = |item: &str| {
        let (name, text) = item.split_once('\n').unwrap();
        let mut text = text.replace('\n', " ");
        while let (Some(begin), Some(end)) = (text.find('('), text.find(')')) {
            text.replace_range(begin..=end, "");
        }
        let members = text.split('.').next().unwrap().split(',');
        let members = members.map(|member| member.trim().to_owned());
        let members = members.filter(|member| !member.is_empty()).collect();
        (name.to_owned(), members)
    };
    text.split(".TP\n.B ").skip(1).map(item).collect()
}

fn keys(object: &Object) -> Vec<String> {
    object.keys().cloned().collect()
}

#[test]
fn json_answers_have_the_members_that_the_manual_page_lists() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let (amd64, _, _) = multi(&registry);
    registry.put_tag("r", "latest");
    let documented = documented("JSON OUTPUT");
    let same = |what: &str, object: &Object| {
        let mut listed = documented[what].clone();
        listed.sort();
        let mut found = keys(object);
        found.sort();
        assert_eq!(found, listed, "{what}");
    };
    let ask = |args: &[&str]| {
        let args = [&["--json", "--platform", "linux/amd64"][..], args].concat();
        let outcome = Run::pull(&dir, &registry.name("r")).args(&args).status(0);
        assert!(outcome.stdout.is_ascii() && outcome.stdout.ends_with("}\n"));
        object(&outcome.stdout)
    };
    let plain = |flag: &str| {
        object(
            &Run::pull(&dir, &registry.name("r"))
                .args(&["--json", flag])
                .status(0)
                .stdout,
        )
    };
    let dry = ask(&["--dry-run"]);
    same("--dry-run", &dry);
    same("layers", list(&dry, "layers")[0]);
    let sha = ask(&["--sha"]);
    same("--sha", &sha);
    assert_eq!(text(&sha, "digest").unwrap(), amd64.digest());
    assert_eq!(text(&sha, "platform").unwrap(), "linux/amd64");
    assert_eq!(text(&plain("--sha"), "platform"), None);
    let metadata = ask(&["--metadata"]);
    same("--metadata", &metadata);
    let Value::Object(manifest) = &metadata["manifest"] else {
        panic!()
    };
    assert_eq!(list(manifest, "layers").len(), amd64.layers.len());
    assert_eq!(number(&metadata, "size"), amd64.manifest().len() as u64);
    let config = ask(&["--config"]);
    same("--config", &config);
    let Value::Object(found) = &config["config"] else {
        panic!()
    };
    assert_eq!(text(found, "architecture").unwrap(), "amd64");
    assert_eq!(text(&config, "digest").unwrap(), amd64.config.digest);
    let platforms = plain("--platforms");
    same("--platforms", &platforms);
    same("platforms", list(&platforms, "platforms")[0]);
    same("--tags", &plain("--tags"));
    assert!(dir.names().is_empty());
    let pull = ask(&["-q"]);
    same("pull", &pull);
    let image = list(&pull, "images")[0];
    same("images", image);
    assert_eq!(text(image, "digest").unwrap(), amd64.digest());
    assert_eq!(text(image, "reference").unwrap(), registry.name("r:latest"));
    let path = text(&pull, "path").unwrap();
    let size = std::fs::metadata(dir.join(&path)).unwrap().len();
    assert_eq!(
        (path.as_str(), number(&pull, "size")),
        ("r-latest.tar", size)
    );
    let bytes: u64 = amd64.layers.iter().map(|layer| layer.content.len()).sum();
    assert_eq!(
        (number(&pull, "downloaded"), number(&pull, "kept")),
        (bytes, 0)
    );
    // A flipped bit in a layer is one defect; the archive before is sound.
    let whole = std::fs::read(dir.join(&path)).unwrap();
    let verify = |status: i32| {
        let run = Run::new(&dir, &["--json", "-q", "--verify", &path]);
        object(&run.status(status).stdout)
    };
    let sound = verify(0);
    same("--verify", &sound);
    assert!(matches!(sound["sound"], Value::Bool(true)));
    assert_eq!(
        (number(&sound, "images"), list(&sound, "defects").len()),
        (1, 0)
    );
    let mut damaged = whole;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(dir.join(&path), damaged).unwrap();
    let unsound = verify(6);
    assert!(matches!(unsound["sound"], Value::Bool(false)));
    same("defects", list(&unsound, "defects")[0]);
    ask(&["--lock", "r.lock"]);
    same("--check", &ask(&["--lock", "r.lock", "--check"]));
    assert_eq!(documented.len(), 14);
}

#[test]
fn json_stays_whole_with_a_path_that_looks_like_an_address() {
    let (registry, dir) = (Registry::start(), Dir::new());
    multi(&registry);
    registry.put_tag("r", "latest");
    for name in ["a@b.tar", "u:p@h.tar", "x://u@h?q.tar"] {
        let path = dir
            .path()
            .join(name.replace('/', "_"))
            .display()
            .to_string();
        for flags in [&["--dry-run"][..], &[]] {
            let answer = Run::pull(&dir, &registry.name("r"))
                .args(&["--json", "--platform", "linux/amd64", "-o", &path])
                .args(flags)
                .status(0);
            let start = format!("{{\"path\":{:?},", path);
            assert!(answer.stdout.starts_with(&start), "{}", answer.stdout);
        }
    }
}

#[test]
fn progress_in_json_has_the_events_that_the_manual_page_lists() {
    let (registry, dir, _) = small();
    // One that says not for which platform it is, which is worth a note.
    let silent = Image::small(3).with_config(r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#);
    let silent = Image {
        layers: Vec::new(),
        ..silent
    };
    silent.push(&registry, "silent", "latest");
    let documented = documented("JSON PROGRESS");
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (image, args, status) in [
        ("r", &[][..], 0),
        ("silent", &["--verbose"][..], 0),
        ("r", &["--gunzip", "-o", "raw.tar"], 0),
        ("none", &[], 4),
        ("r", &["-o", "missing/x"], 7),
        ("r", &["--mirror-tags"], 2),
    ] {
        let run = Run::pull(&dir, &registry.name(image)).args(&["--progress", "json"]);
        let outcome = run.args(args).status(status);
        let mut last = String::new();
        for line in outcome.stderr.lines() {
            let object = object(line);
            last = text(&object, "event").unwrap();
            assert!(
                line.starts_with(&format!("{{\"event\":\"{last}\"")),
                "{line}"
            );
            let mut members = keys(&object);
            members.retain(|key| key != "event");
            members.sort();
            let earlier = seen.entry(last.clone()).or_insert_with(|| members.clone());
            assert_eq!(*earlier, members, "{line}");
        }
        assert_eq!(
            last,
            if status == 0 { "done" } else { "failed" },
            "{}",
            outcome.stderr
        );
    }
    let sorted = documented.into_iter().map(|(event, mut members)| {
        members.sort();
        (event, members)
    });
    assert_eq!(seen, sorted.collect());
}
