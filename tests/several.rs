//! Several images in one run, each in its own archive or all in one; other names in the archive.

use crate::registry::image::{Blob, Image};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Outcome, Run};
use std::fs;

/// Two images with a layer in common, as `one:1` and `two:2`.
fn two() -> (Registry, Dir, [Image; 2]) {
    let (registry, dir) = (Registry::start(), Dir::new());
    let shared = Blob::layer(1, 200_000);
    let images = [2, 3].map(|seed| Image::new(vec![shared.clone(), Blob::layer(seed, 5_000)]));
    images[0].push(&registry, "one", "1");
    images[1].push(&registry, "two", "2");
    (registry, dir, images)
}

fn pull<'d>(registry: &Registry, dir: &'d Dir, names: &[&str]) -> Run<'d> {
    let mut run = Run::new(dir, &["--insecure", "--retries", "1"]);
    for name in names {
        run = run.arg(&registry.name(name));
    }
    run
}

/// The tags that an archive's manifest.json gives.
fn tags(dir: &Dir, file: &str) -> Vec<String> {
    let bytes = fs::read(dir.join(file)).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entries = entries.filter(|entry| entry.path().unwrap().ends_with("manifest.json"));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut entries.next().unwrap(), &mut text).unwrap();
    let lists = text.split(r#""RepoTags":["#).skip(1);
    lists
        .flat_map(|list| list.split(']').next().unwrap().split(','))
        .map(|tag| tag.trim_matches('"').to_owned())
        .collect()
}

#[test]
fn each_image_gets_an_archive_of_its_own() {
    let (registry, dir, images) = two();
    let outcome = pull(&registry, &dir, &["one:1", "two:2"]).status(0);
    assert_eq!(outcome.stdout, "one-1.tar\ntwo-2.tar\n");
    assert_eq!(dir.names(), ["one-1.tar", "two-2.tar"]);
    for (name, image) in ["one:1", "two:2"].iter().zip(&images) {
        let own = Run::pull(&dir, &registry.name(name)).archive();
        own.holds(image, Some(&registry.name(name)));
    }
    assert_eq!(
        registry.count(&images[0].layers[0].digest),
        1,
        "shared, so downloaded once"
    );
}

#[test]
fn a_name_or_a_directory_says_where_they_go() {
    let (registry, dir, _) = two();
    for (args, paths) in [
        (&["-o", "both.tar"][..], &["both.tar"][..]),
        (&["--tarname", "b.tar", "--working-dir", "w"], &["w/b.tar"]),
        (&["-o", "d/"], &["d/one-1.tar", "d/two-2.tar"]),
        (
            &["--working-dir", "e/f"],
            &["e/f/one-1.tar", "e/f/two-2.tar"],
        ),
        (&["--no-tar"], &["one-1", "two-2"]),
        (&["--no-tar", "--layers-dir", "both"], &["both"]),
        (&["--xz"], &["one-1.tar.xz", "two-2.tar.xz"]),
        (&["--no-rm", "-o", "g/"], &["g/one-1.tar", "g/two-2.tar"]),
    ] {
        let outcome = pull(&registry, &dir, &["one:1", "two:2"])
            .args(args)
            .status(0);
        let told: Vec<&str> = outcome.stdout.lines().collect();
        let whole: Vec<String> = paths.iter().map(|path| path.to_string()).collect();
        assert_eq!(told, whole, "{args:?}");
        assert!(whole.iter().all(|path| dir.join(path).exists()), "{args:?}");
    }
    // Of one image, too.
    let one = pull(&registry, &dir, &["one:1"])
        .args(&["-o", "h/"])
        .status(0);
    assert_eq!(one.stdout, "h/one-1.tar\n");
}

#[test]
fn names_that_collide_are_refused_before_the_first_request() {
    let (registry, dir, _) = two();
    let other = Registry::start();
    for (names, args) in [
        (&["a/b:1", "a-b:1"][..], &[][..]),
        (&["a/b:1", "a-b:1"], &["--no-tar"]),
        (&["a/b:1", "a-b:1"], &["-o", "d/"]),
        // A directory's name and another's partial one.
        (&["a:1", "a:1.partial"], &["--no-tar"]),
        (&["one:1", "two:2"], &["--no-rm", "--layers-dir", "l"]),
    ] {
        let outcome = pull(&registry, &dir, names).args(args).status(2);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    let run = pull(&registry, &dir, &["one:1"]).arg(&other.name("one:1"));
    run.fails(2, "would both be written to one-1.tar");
    assert!(registry.seen().is_empty() && other.seen().is_empty());
    assert!(dir.names().is_empty());
    // The same image twice is one.
    let twice = pull(&registry, &dir, &["one:1", "one:1"]).status(0);
    assert_eq!(twice.stdout, "one-1.tar\n");
}

#[test]
fn one_that_fails_does_not_end_the_others() {
    let (registry, dir, _) = two();
    let names = ["one:1", "none:1", "two:2"];
    let outcome = pull(&registry, &dir, &names).status(4);
    assert_eq!(outcome.stdout, "one-1.tar\ntwo-2.tar\n");
    assert!(outcome.stderr.contains("dockersave: ") && outcome.stderr.contains("none:1"));
    assert!(
        outcome
            .stderr
            .ends_with("dockersave: 1 of 3 archives failed\n"),
        "{}",
        outcome.stderr
    );
    let json = pull(&registry, &dir, &names)
        .args(&["--json", "-q"])
        .status(4)
        .stdout;
    assert!(json.starts_with(r#"[{"path":"one-1.tar","#), "{json}");
    let failed = format!(
        r#"{{"reference":"{}","status":4,"error":""#,
        registry.name("none:1")
    );
    assert!(json.contains(&failed) && json.ends_with("}]\n"), "{json}");
    let events = pull(&registry, &dir, &names)
        .args(&["--progress", "json"])
        .status(4);
    let failures = events
        .stderr
        .matches(r#"{"event":"failed","status":4"#)
        .count();
    assert_eq!(
        (
            failures,
            events.stderr.matches(r#"{"event":"done""#).count()
        ),
        (2, 2)
    );
    let dry = pull(&registry, &dir, &names).args(&["--dry-run"]).status(4);
    assert_eq!(
        dry.stdout.matches("is unchanged").count(),
        2,
        "{}",
        dry.stdout
    );
}

#[test]
fn the_gravest_failure_is_the_status() {
    let (registry, dir, images) = two();
    let digest = &images[0].layers[1].digest;
    registry.faults(Fault::new(digest, Action::Flip(100)).always());
    registry.faults(Fault::new("/gone/", Action::Reply(Reply::new(503, ""))).always());
    for (names, status) in [
        (&["none:1", "gone:1"][..], 4),
        (&["gone:1", "one:1", "none:1"], 6),
        (&["gone:1", "two:2"], 5),
    ] {
        pull(&registry, &dir, names)
            .args(&["--retries", "0"])
            .status(status);
    }
}

#[test]
fn a_place_that_cannot_be_is_told_before_the_first_request() {
    let (registry, dir, _) = two();
    fs::create_dir(dir.join("two-2.tar")).unwrap();
    pull(&registry, &dir, &["one:1", "two:2"]).status(7);
    assert!(registry.seen().is_empty());
}

#[test]
fn another_name_in_the_archive() {
    let (registry, dir, images) = two();
    let name = "registry.lan:5000/app:7";
    let outcome = pull(&registry, &dir, &["one:1"])
        .args(&["--as", name])
        .status(0);
    assert_eq!(outcome.stdout, "app-7.tar\n");
    assert_eq!(tags(&dir, "app-7.tar"), [name]);
    // By digest alone it has no name but this.
    let pinned = format!("one@{}", images[0].digest());
    let run = pull(&registry, &dir, &[&pinned]).args(&["--as", "mine", "-o", "x.tar", "--json"]);
    let json = run.status(0).stdout;
    assert_eq!(tags(&dir, "x.tar"), ["mine:latest"]);
    assert!(
        json.contains(r#""name":"docker.io/library/mine:latest""#),
        "{json}"
    );
    assert!(
        json.contains(&format!(r#""reference":"{}""#, registry.name(&pinned))),
        "{json}"
    );
    // Of several each has one, in their order.
    let names = ["--as", "a:1", "--as", "b:2", "-o", "y.tar"];
    pull(&registry, &dir, &["one:1", "two:2"])
        .args(&names)
        .status(0);
    assert_eq!(tags(&dir, "y.tar"), ["a:1", "b:2"]);
    let own = pull(&registry, &dir, &["one:1", "two:2"])
        .args(&names[..4])
        .status(0);
    assert_eq!(own.stdout, "library-a-1.tar\nlibrary-b-2.tar\n");
    // The archive is sound, and a name that was not chosen protects it.
    Run::new(&dir, &["--verify", "y.tar"]).status(0);
    pull(&registry, &dir, &["one:1"])
        .args(&["--as", "h.x/library/a:1"])
        .fails(7, "it holds");
}

#[test]
fn another_name_that_makes_no_sense_is_refused() {
    let (registry, dir, images) = two();
    let digest = format!("x@{}", images[0].digest());
    for args in [
        &["--as", "A"][..],
        &["--as", &digest],
        &["--as", "a", "--as", "b"],
        &["--as", "a", "--sha"],
        &["--as", "a", "--tags"],
    ] {
        pull(&registry, &dir, &["one:1"])
            .args(args)
            .fails(2, "--as");
    }
    pull(&registry, &dir, &["one:1", "two:2"])
        .args(&["--as", "a"])
        .fails(2, "--as");
    assert!(registry.seen().is_empty());
}

#[test]
fn an_interrupted_one_of_several_goes_on() {
    let (registry, dir, images) = two();
    let digest = &images[1].layers[1].digest;
    registry.fault(digest, Action::Reset(2_000));
    registry.faults(
        Fault::new(digest, Action::Reply(Reply::new(403, "")))
            .skip(1)
            .times(3),
    );
    let names = ["one:1", "two:2"];
    let failed: Outcome = pull(&registry, &dir, &names).outcome();
    assert!(!failed.status.success());
    assert!(dir.names().contains(&"one-1.tar".to_owned()));
    registry.behave();
    let outcome = pull(&registry, &dir, &names).status(0);
    assert_eq!(outcome.stdout, "one-1.tar\ntwo-2.tar\n");
    assert_eq!(dir.names(), ["one-1.tar", "two-2.tar"]);
}
