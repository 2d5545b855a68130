//! Images from lists, compose files, manifests and locks; what a lock pins, and what renews it.

use crate::registry::image::{Blob, Image, OCI_INDEX, platform, push_index};
use crate::registry::{Action, Fault, Registry, Reply};
use crate::util::{Dir, Run};
use std::fs;

/// Two images with a layer in common, as `one:1` and `two:2`.
fn two() -> (Registry, Dir, [Image; 2]) {
    let (registry, dir) = (Registry::start(), Dir::new());
    let shared = Blob::layer(1, 50_000);
    let images = [2, 3].map(|seed| Image::new(vec![shared.clone(), Blob::layer(seed, 5_000)]));
    images[0].push(&registry, "one", "1");
    images[1].push(&registry, "two", "2");
    (registry, dir, images)
}

/// Writes a list whose `@/` is the registry.
fn list(registry: &Registry, dir: &Dir, name: &str, text: &str) {
    dir.write(name, text.replace("@/", &registry.name("")));
}

fn from<'d>(dir: &'d Dir, file: &str) -> Run<'d> {
    Run::new(dir, &["--insecure", "--retries", "1", "--from", file])
}

#[test]
fn a_list_gives_each_image_an_archive() {
    let (registry, dir, images) = two();
    let text = "\u{feff}# Nightly\r\n\r\n@/one:1 # the first\r\n@/two:2\tlinux/amd64 second.tar\n  @/one:1\n";
    list(&registry, &dir, "images.txt", text);
    let outcome = from(&dir, "images.txt").status(0);
    assert_eq!(outcome.stdout, "one-1.tar\nsecond.tar\n");
    assert_eq!(dir.names(), ["images.txt", "one-1.tar", "second.tar"]);
    assert_eq!(registry.count(&images[0].layers[0].digest), 1);
    for (file, name, image) in [
        ("one-1.tar", "one:1", &images[0]),
        ("second.tar", "two:2", &images[1]),
    ] {
        let own = Dir::new();
        let whole = Run::pull(&own, &registry.name(name)).archive();
        whole.holds(image, Some(&registry.name(name)));
        assert!(fs::read(dir.join(file)).unwrap() == whole.bytes, "{file}");
    }
}

#[test]
fn lists_come_from_pipes_and_several_files_and_beside_names() {
    let (registry, dir, _) = two();
    list(&registry, &dir, "a", "@/one:1");
    let both = from(&dir, "-")
        .args(&["--from", "a", "--json", "--working-dir", "new/w"])
        .stdin(&registry.name("two:2"))
        .status(0);
    assert_eq!(
        both.stdout.matches(r#""path":"new/w/"#).count(),
        2,
        "{}",
        both.stdout
    );
    let beside = from(&dir, "a").arg(&registry.name("two:2")).status(0);
    assert_eq!(beside.stdout, "two-2.tar\none-1.tar\n");
    let together = from(&dir, "a")
        .args(&[&registry.name("two:2"), "-o", "both.tar"])
        .status(0);
    assert_eq!(together.stdout, "both.tar\n");
    // The same as with names.
    let names = [registry.name("two:2"), registry.name("one:1")];
    let own = Run::new(
        &dir,
        &["--insecure", &names[0], &names[1], "-o", "same.tar"],
    )
    .archive();
    assert!(own.bytes == fs::read(dir.join("both.tar")).unwrap());
    let dry = from(&dir, "a").arg("--dry-run").status(0);
    assert!(
        dry.stdout.ends_with("one-1.tar is unchanged\n"),
        "{}",
        dry.stdout
    );
}

#[test]
fn compose_files_and_manifests_are_lists() {
    let (registry, dir, images) = two();
    let other = Image::for_platform("arm64", "", vec![Blob::layer(9, 3_000)]);
    for image in [&images[0], &other] {
        image.push_untagged(&registry, "multi");
    }
    let entries = [
        images[0].entry(&platform("linux", "amd64", "")),
        other.entry(&platform("linux", "arm64", "")),
    ];
    push_index(&registry, "multi", "3", OCI_INDEX, &entries);
    let compose = "services:\n  a:\n    image: \"@/one:1\"\n    command: [x, '${Y}']\n  b:\n    platform: linux/arm64\n    image: @/multi:3 # c\n";
    list(&registry, &dir, "compose.yaml", compose);
    let pod = "apiVersion: v1\nspec:\n  containers:\n  - name: c\n    image: @/two:2\n  - image: @/one:1\n";
    list(&registry, &dir, "pod.yaml", pod);
    let outcome = from(&dir, "compose.yaml")
        .args(&["--from", "pod.yaml"])
        .status(0);
    assert_eq!(outcome.stdout, "one-1.tar\nmulti-3.tar\ntwo-2.tar\n");
    let bytes = fs::read(dir.join("multi-3.tar")).unwrap();
    let digest = other.digest();
    let (_, hex) = digest.split_once(':').unwrap();
    assert!(bytes.windows(64).any(|window| window == hex.as_bytes()));
}

#[test]
fn a_wrong_line_is_named_and_nothing_is_pulled() {
    let (registry, dir, images) = two();
    let long = format!("@/one:1\n@/{}", "a".repeat(5000));
    let many = "@/one:1\n".repeat(1001);
    for (text, words) in [
        ("@/one:1\n@/Two:2", "images.txt, line 2: image"),
        ("@/one:1\n@/two:2 @/one:1", "line 2: "),
        ("@/one:1 debian", "line 1: debian is neither a platform"),
        ("@/one:1 amd64", "line 1: amd64 is neither"),
        (
            "@/one:1 linux/amd64 linux/arm64",
            "line 1: linux/arm64 is a second platform",
        ),
        ("@/one:1 a.tar b.tar", "line 1: b.tar is a second file name"),
        ("@/one:1 ../a.tar", "line 1: ../a.tar is not a file name"),
        ("@/one:1 .tar", "line 1: .tar is not a file name"),
        ("@/one:1\nu:hunter2@h.x/a", "line 2: image"),
        ("@/one:1\n@/two:2 one-1.tar", "line 1) and"),
        (
            "@/one:1\n\n@/one:1 linux/arm64",
            "(images.txt, line 3) would both be written to one-1.tar",
        ),
        (
            "services:\n  a:\n    image: @/one:1\n  b:\n    image: @/two:${V}",
            "images.txt, line 5: has a variable",
        ),
        (
            "services:\n  a: {image: @/one:1}",
            "line 2: has an image in flow style",
        ),
        ("a:\n  image: @/one:1\n  platform: l/i/n/u/x", "line 2: "),
        ("services:\n", "images.txt: names no image"),
        ("# nothing\n", "images.txt: names no image"),
        ("", "images.txt: names no image"),
        (&long, "line 2: is longer than"),
        (&many, "names 1001 images; at most 1000"),
    ] {
        list(&registry, &dir, "images.txt", text);
        let outcome = from(&dir, "images.txt").fails(2, words);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        if words.contains("and") {
            assert!(
                outcome.stderr.contains("line 2) would both be"),
                "{}",
                outcome.stderr
            );
        }
    }
    for (content, words) in [
        (vec![0xff; 10], "it is not UTF-8"),
        (vec![b'\n'; (1 << 20) + 1], "larger than 1 MiB"),
    ] {
        fs::write(dir.join("images.txt"), content).unwrap();
        from(&dir, "images.txt").fails(1, words);
    }
    from(&dir, "none.txt").fails(1, "none.txt");
    list(&registry, &dir, "images.txt", "@/one:1 linux/amd64 x.tar");
    for (args, words) in [
        (&["-o", "b.tar"][..], "images.txt, line 1: names an archive"),
        (&["--all-platforms"], "line 1: has a platform"),
        (&["--sha"], "only one image"),
        (&["--as", "a"], "--as"),
        (&["--verify", "x.tar"], "--verify"),
        (&["--from", "-", "--from", "-"], "only once"),
        (
            &["--from", "-", "--password-stdin", "--user", "u"],
            "only once",
        ),
    ] {
        from(&dir, "images.txt").args(args).fails(2, words);
    }
    assert!(registry.seen().is_empty());
    drop(images);
}

#[test]
fn of_twenty_images_no_blob_comes_twice() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let base = Blob::layer(1, 60_000);
    let mut text = String::new();
    let mut digests = vec![base.digest.clone()];
    for number in 0..20 {
        // Some layers are shared by neighbours, some by images far apart.
        let far = Blob::layer(100 + number % 10, 20_000);
        let near = Blob::layer(200 + number / 2, 20_000);
        let own = Blob::layer(300 + number, 1_000);
        digests.extend([&far, &near, &own].map(|blob| blob.digest.clone()));
        let image = Image::new(vec![base.clone(), far, near, own]);
        image.push(&registry, &format!("r{number}"), "1");
        text += &format!("@/r{number}:1\n");
    }
    list(&registry, &dir, "images.txt", &text);
    let outcome = from(&dir, "images.txt").args(&["--jobs", "1"]).status(0);
    assert_eq!(outcome.is_small().stdout.lines().count(), 20);
    for digest in &digests {
        assert_eq!(registry.count(digest), 1, "{digest}");
    }
    assert_eq!(registry.connections(), 1, "one pool of connections");
    assert_eq!(registry.seen().len(), 20 * 2 + 1 + 10 + 10 + 20);
}

#[test]
fn a_thousand_images_take_no_more_memory() {
    let (registry, dir, _) = two();
    let mut text = String::from("@/one:1\n");
    for number in 0..999 {
        let long = "a".repeat(100);
        text += &format!("@/{long}/none:{number} linux/arm64 {long}-{number}.tar\n");
    }
    list(&registry, &dir, "images.txt", &text);
    let run = from(&dir, "images.txt").args(&["--lock", "images.lock", "--json"]);
    let outcome = run.limit(120).status(4);
    outcome.is_small();
    assert!(outcome.stderr.ends_with("999 of 1000 archives failed\n"));
    assert_eq!(rows(&dir, "images.lock").len(), 1);
}

#[test]
fn one_that_fails_or_fills_the_disk_does_not_end_the_others() {
    let (registry, dir, _) = two();
    list(
        &registry,
        &dir,
        "images.txt",
        "@/one:1\n@/gone:1\n@/two:2\n",
    );
    let outcome = from(&dir, "images.txt").status(4);
    assert_eq!(outcome.stdout, "one-1.tar\ntwo-2.tar\n");
    assert_eq!(
        outcome.stderr.matches("dockersave: ").count(),
        2,
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.ends_with("1 of 3 archives failed\n"),
        "{}",
        outcome.stderr
    );
    let json = from(&dir, "images.txt").args(&["--json"]).status(4).stdout;
    assert_eq!(json.matches(r#""unchanged":true"#).count(), 2, "{json}");
    assert!(json.contains(r#"gone:1","status":4,"error""#), "{json}");
    // A file may not grow beyond what the first archive takes.
    let large = Image::new(vec![Blob::layer(7, 3_000_000)]);
    large.push(&registry, "large", "1");
    let fresh = Dir::new();
    list(
        &registry,
        &fresh,
        "images.txt",
        "@/one:1\n@/large:1\n@/two:2\n",
    );
    let run = || from(&fresh, "images.txt").args(&["--lock", "images.lock"]);
    let full = run()
        .within("ulimit -f 2000; trap '' XFSZ; exec \"$@\"")
        .status(7);
    assert_eq!(full.stdout, "one-1.tar\ntwo-2.tar\n");
    assert_eq!(rows(&fresh, "images.lock").len(), 2);
    let again = run().status(0);
    assert_eq!(again.stdout, "one-1.tar\nlarge-1.tar\ntwo-2.tar\n");
    assert_eq!(rows(&fresh, "images.lock").len(), 3);
}

#[test]
fn an_interrupted_list_goes_on() {
    let (registry, dir, images) = two();
    let slow = &images[1].layers[1].digest;
    let pause = std::time::Duration::from_secs(30);
    registry.faults(Fault::new(slow, Action::Stall(100, pause)).times(9));
    list(&registry, &dir, "images.txt", "@/one:1\n@/two:2\n");
    let mut child = from(&dir, "images.txt").spawn();
    while registry.count(slow) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    child.wait().unwrap();
    assert!(dir.names().contains(&"one-1.tar".to_owned()));
    registry.behave();
    registry.forget();
    let outcome = from(&dir, "images.txt").status(0);
    assert_eq!(outcome.stdout, "one-1.tar\ntwo-2.tar\n");
    assert_eq!(registry.count(&images[0].layers[0].digest), 0);
    let _ = Reply::new(200, "");
}

/// The rows of a lock, in fields.
fn rows(dir: &Dir, name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(dir.join(name)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}

fn sum(dir: &Dir, name: &str) -> String {
    let sum = crate::registry::image::sha256(&fs::read(dir.join(name)).unwrap());
    sum.strip_prefix("sha256:").unwrap().to_owned()
}

/// As if it had been written an hour ago; the time.
fn age(dir: &Dir, name: &str) -> std::time::SystemTime {
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let file = fs::File::open(dir.join(name)).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(then))
        .unwrap();
    time(dir, name)
}

fn time(dir: &Dir, name: &str) -> std::time::SystemTime {
    fs::metadata(dir.join(name)).unwrap().modified().unwrap()
}

/// `multi:3` for two platforms; the digest of its index, and its images.
fn multi(registry: &Registry, seed: u64) -> (String, [Image; 2]) {
    let images = ["amd64", "arm64"].map(|architecture| {
        let own = Blob::layer(seed + architecture.len() as u64, 3_000);
        Image::for_platform(architecture, "", vec![Blob::layer(1, 50_000), own])
    });
    let entries = images.each_ref().map(|image| {
        image.push_untagged(registry, "multi");
        let config = String::from_utf8(image.config.data()).unwrap();
        let architecture = if config.contains("arm64") {
            "arm64"
        } else {
            "amd64"
        };
        image.entry(&platform("linux", architecture, ""))
    });
    let digest = push_index(registry, "multi", "3", OCI_INDEX, &entries);
    (digest, images)
}

const THREE: &str = "@/one:1\n@/multi:3 linux/arm64 m.tar\n@/two:2\n";

/// Three images, pulled with a lock.
fn locked(args: &[&str]) -> (Registry, Dir, [Image; 2], Image) {
    let (registry, dir, images) = two();
    let (_, [_, arm]) = multi(&registry, 20);
    let text = match args {
        ["-o", ..] => THREE.replace(" m.tar", ""),
        _ => THREE.to_owned(),
    };
    list(&registry, &dir, "images.txt", &text);
    let run = from(&dir, "images.txt").args(&["--lock", "images.lock"]);
    run.args(args).status(0);
    (registry, dir, images, arm)
}

#[test]
fn a_lock_says_what_was_pulled() {
    let (registry, dir, images, arm) = locked(&[]);
    let rows = rows(&dir, "images.lock");
    assert_eq!(rows.len(), 3);
    for (row, (name, manifest, file, platform)) in rows.iter().zip([
        ("one:1", images[0].digest(), "one-1.tar", "linux/amd64"),
        ("multi:3", arm.digest(), "m.tar", "linux/arm64"),
        ("two:2", images[1].digest(), "two-2.tar", "linux/amd64"),
    ]) {
        let size = fs::metadata(dir.join(file)).unwrap().len().to_string();
        let index = if name == "multi:3" {
            row[2].clone()
        } else {
            "-".to_owned()
        };
        let right = [
            &registry.name(name),
            platform,
            &index,
            &manifest,
            &size,
            &sum(&dir, file),
            file,
            "-",
        ];
        assert_eq!(row, &right);
    }
    assert!(rows[1][2].starts_with("sha256:"));
    // Readable by the shell.
    let script = "awk -F'\\t' '!/^#/{print $6\" *\"$7}' images.lock | sha256sum -c";
    let mut shell = std::process::Command::new("sh");
    let output = shell
        .args(["-c", script])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // Also of images on the command line, and all in one archive.
    let name = registry.name("one:1");
    let args = [
        "--insecure",
        &name,
        "--as",
        "mine:2",
        "--lock",
        "own.lock",
        "-o",
        "x.tar",
    ];
    Run::new(&dir, &args).status(0);
    assert_eq!(
        self::rows(&dir, "own.lock")[0][6..],
        ["x.tar", "docker.io/library/mine:2"]
    );
}

#[test]
fn from_a_lock_comes_the_same_elsewhere() {
    for args in [
        &[][..],
        &["--gunzip"],
        &["--format", "oci"],
        &["--gunzip", "--xz"],
        &["-o", "all.tar"],
    ] {
        let (registry, dir, images, _) = locked(args);
        let all: Vec<Vec<String>> = rows(&dir, "images.lock");
        // The tags mean something else by now, or nothing.
        images[0].push(&registry, "two", "2");
        multi(&registry, 40);
        registry
            .faults(Fault::new("/one/manifests/1", Action::Reply(Reply::new(404, ""))).always());
        let registry = registry.lenient();
        registry.forget();
        let other = Dir::new();
        fs::copy(dir.join("images.lock"), other.join("images.lock")).unwrap();
        let run = || from(&other, "images.lock").args(&["--working-dir", "deep/er"]);
        run().env("TZ", "Asia/Tokyo").status(0);
        let place = Dir::new();
        for row in &all {
            let (was, is) = (dir.join(&row[6]), other.join("deep/er").join(&row[6]));
            assert!(
                fs::read(was).unwrap() == fs::read(&is).unwrap(),
                "{args:?}: {}",
                row[6]
            );
        }
        drop(place);
        let by_tag = |seen: &crate::registry::Seen| {
            seen.target.contains("/manifests/") && !seen.target.contains("/manifests/sha256:")
        };
        assert!(!registry.seen().iter().any(by_tag), "{args:?}");
        // Once it is all here, no registry is needed.
        registry.forget();
        let again = run().status(0);
        assert!(again.stderr.contains("is unchanged"), "{}", again.stderr);
        assert!(registry.seen().is_empty(), "{args:?}");
    }
}

#[test]
fn with_nothing_new_a_list_takes_one_head_an_image() {
    let (registry, dir, images, _) = locked(&[]);
    let files = ["one-1.tar", "m.tar", "two-2.tar", "images.lock"];
    let before = files.map(|file| age(&dir, file));
    for args in [&[][..], &["--quick-check"], &["--json"]] {
        registry.forget();
        let run = from(&dir, "images.txt").args(&["--lock", "images.lock"]);
        let outcome = run.args(args).status(0);
        let seen = registry.seen();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|seen| seen.method == "HEAD"));
        assert_eq!(files.map(|file| time(&dir, file)), before);
        assert_eq!(dir.names().len(), files.len() + 1);
        match args {
            ["--json"] => assert_eq!(
                outcome
                    .stdout
                    .matches(r#""unchanged":true,"downloaded":0"#)
                    .count(),
                3
            ),
            _ => assert_eq!(outcome.stdout, "one-1.tar\nm.tar\ntwo-2.tar\n"),
        }
    }
    // What is damaged is made anew, unless only sizes are compared.
    let whole = fs::read(dir.join("two-2.tar")).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(dir.join("two-2.tar"), &bytes).unwrap();
    let run = || from(&dir, "images.txt").args(&["--lock", "images.lock"]);
    run().arg("--quick-check").status(0);
    assert!(fs::read(dir.join("two-2.tar")).unwrap() == bytes);
    run().status(0);
    assert!(fs::read(dir.join("two-2.tar")).unwrap() == whole);
    assert_eq!(time(&dir, "images.lock"), before[3]);
    drop(images);
}

#[test]
fn a_renewal_changes_only_what_changed() {
    let (registry, dir, images, _) = locked(&[]);
    let old = rows(&dir, "images.lock");
    let new = Image::new(vec![Blob::layer(1, 50_000), Blob::layer(9, 5_000)]);
    new.push(&registry, "two", "2");
    registry.faults(Fault::new("/multi/", Action::Reply(Reply::new(403, ""))).always());
    let run = from(&dir, "images.txt").args(&["--lock", "images.lock"]);
    let outcome = run.status(3);
    assert_eq!(outcome.stdout, "one-1.tar\ntwo-2.tar\n");
    let now = rows(&dir, "images.lock");
    assert_eq!(now[..2], old[..2], "also of the one that failed");
    assert_eq!(now[2][3], new.digest());
    assert_eq!(now[2][5], sum(&dir, "two-2.tar"));
    registry.behave();
    // An image is dropped and one is added.
    list(
        &registry,
        &dir,
        "images.txt",
        "@/two:2\n@/two:2 new.tar\n@/gone:1\n",
    );
    from(&dir, "images.txt")
        .args(&["--lock", "images.lock"])
        .status(4);
    let then = rows(&dir, "images.lock");
    assert_eq!(then.len(), 2);
    assert_eq!(then[0], now[2]);
    assert_eq!((&then[1][3], &*then[1][6]), (&new.digest(), "new.tar"));
    // If nothing can be pulled, all stays.
    let before = fs::read(dir.join("images.lock")).unwrap();
    registry.faults(Fault::new("/v2/", Action::Reply(Reply::new(404, ""))).always());
    from(&dir, "images.txt")
        .args(&["--lock", "images.lock"])
        .status(4);
    assert_eq!(fs::read(dir.join("images.lock")).unwrap(), before);
    from(&dir, "images.txt")
        .args(&["--lock", "other.lock"])
        .status(4);
    assert!(!dir.join("other.lock").exists());
    let _ = registry.lenient();
    drop(images);
}

#[test]
fn a_check_says_what_a_renewal_would_change() {
    let (registry, dir, _, _) = locked(&[]);
    let check = || from(&dir, "images.txt").args(&["--lock", "images.lock", "--check"]);
    let before = dir.names();
    registry.forget();
    let none = check().status(0);
    assert_eq!(none.stdout.matches("unchanged\t").count(), 3);
    assert_eq!(none.stderr, "");
    let (index, _) = multi(&registry, 40);
    list(
        &registry,
        &dir,
        "images.txt",
        "@/one:1 linux/arm64\n@/multi:3 linux/arm64 m.tar\n@/two:2 x.tar\n",
    );
    let some = check().status(10);
    let states: Vec<&str> = some
        .stdout
        .lines()
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    assert_eq!(states, ["removed", "changed", "changed", "new"]);
    assert!(
        some.stdout.contains(&format!("\t{index}\n")),
        "{}",
        some.stdout
    );
    assert!(
        some.stderr
            .ends_with("a renewal of images.lock would change 4 images\n"),
        "{}",
        some.stderr
    );
    let json = check().arg("--json").status(10).stdout;
    assert!(
        json.starts_with(r#"[{"reference":""#) && json.ends_with("\"}]\n"),
        "{json}"
    );
    assert!(
        json.contains(r#""state":"removed","locked":"sha256:"#),
        "{json}"
    );
    assert!(registry.seen().iter().all(|seen| seen.method == "HEAD"));
    assert_eq!(dir.names(), before);
    // A failure is graver.
    list(&registry, &dir, "images.txt", "@/gone:1\n@/two:2\n");
    check().status(4);
    // By digest, nobody has to be asked.
    registry.forget();
    let run = from(&dir, "images.lock").args(&["--lock", "images.lock", "--check"]);
    run.status(0);
    assert!(registry.seen().is_empty());
    from(&dir, "images.txt")
        .arg("--check")
        .fails(2, "requires --lock");
}

#[test]
fn an_archive_that_a_lock_does_not_mean_is_not_kept() {
    let (registry, dir, images, _) = locked(&[]);
    let lock = fs::read_to_string(dir.join("images.lock")).unwrap();
    let all = rows(&dir, "images.lock");
    let zeros = "0".repeat(64);
    let size = format!("1{}\t{}", all[2][4], all[2][5]);
    let right = format!("{}\t{}", all[2][4], all[2][5]);
    for (old, new, words) in [
        (&all[2][5], &zeros, "would have sha256:"),
        (&right, &size, "would have another size"),
    ] {
        let other = Dir::new();
        other.write("images.lock", lock.replace(old.as_str(), new));
        let outcome = from(&other, "images.lock").status(6);
        assert_eq!(outcome.stdout, "one-1.tar\nm.tar\n");
        assert!(
            outcome.stderr.contains(words) && outcome.stderr.contains("images.lock, line 5"),
            "{}",
            outcome.stderr
        );
        assert_eq!(other.names(), ["images.lock", "m.tar", "one-1.tar"]);
        // One that was there stays as it was.
        other.write("two-2.tar", "mine");
        from(&other, "images.lock").status(6);
        assert_eq!(fs::read(other.join("two-2.tar")).unwrap(), b"mine");
    }
    for args in [&["--gunzip"][..], &["--xz"]] {
        let (_registry, dir, _, _) = locked(args);
        let lock = fs::read_to_string(dir.join("images.lock")).unwrap();
        let sum = rows(&dir, "images.lock")[2][5].clone();
        let other = Dir::new();
        other.write("images.lock", lock.replace(&sum, &zeros));
        from(&other, "images.lock").status(6);
        assert_eq!(other.names().len(), 3, "{args:?}: {:?}", other.names());
    }
    drop((registry, images));
}

#[test]
fn a_damaged_lock_pulls_nothing() {
    let (registry, dir, _, _) = locked(&[]);
    let lock = fs::read_to_string(dir.join("images.lock")).unwrap();
    registry.forget();
    list(&registry, &dir, "plain", "@/one:1\n");
    for (args, words) in [
        (
            &["--lock", "x.lock", "-o", "x.lock"][..],
            "is the name of an archive",
        ),
        (&["-o", "plain"], "would replace plain"),
    ] {
        from(&dir, "plain").args(args).fails(2, words);
    }
    for (old, new, words) in [
        ("lock 1", "lock 9", "bad.lock, line 1: "),
        ("m.tar\t", "../m.tar\t", "bad.lock, line 4: "),
        (
            "m.tar\t",
            "one-1.tar\t",
            "bad.lock, line 4: has another size",
        ),
        ("\tlinux/arm64\t", " linux/arm64 ", "line 4: has 6 fields"),
        ("two-2.tar\t-\n", "two-2.tar", "line 5: is cut off"),
        ("sha256:", "sha256:0", "line 3: "),
    ] {
        dir.write("bad.lock", lock.replacen(old, new, 1));
        for args in [
            &["--from", "bad.lock"][..],
            &["--from", "images.txt", "--lock", "bad.lock"],
        ] {
            let outcome = Run::new(&dir, args).arg("--insecure").fails(2, words);
            assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        }
    }
    let odd = lock.replacen("# reference", "# options: --help\n# reference", 1);
    dir.write("odd.lock", odd);
    from(&dir, "odd.lock").fails(2, "which is not supported");
    // A list is no lock to be overwritten.
    for (args, words) in [
        (&["--lock", "images.txt"][..], "is not a lock"),
        (
            &["--lock", "images.lock", "--gunzip"],
            "was made with no flags",
        ),
        (&["--lock", "none/images.lock"], "none"),
        (&["--lock", "x.lock", "--no-tar"], "omit --all-platforms"),
        (&["--lock", "x.lock", "-o", "-"], "omit --all-platforms"),
        (&["--from", "images.lock", "--gunzip"], "made with no flag"),
        (
            &["--from", "images.lock", "--platform", "linux/arm64"],
            "--platform: ",
        ),
        (
            &["--from", "images.lock", "-o", "all.tar"],
            "names an archive of its own",
        ),
        (
            &["--from", "plain", "--tarname", "x"],
            "images.txt, line 2: names an archive",
        ),
    ] {
        let outcome = from(&dir, "images.txt").args(args).outcome();
        assert!(matches!(outcome.status.code(), Some(2 | 7)), "{args:?}");
        assert!(
            outcome.stderr.contains(words),
            "{args:?}: {}",
            outcome.stderr
        );
        assert_eq!(
            outcome.stderr.lines().count(),
            1,
            "{args:?}: {}",
            outcome.stderr
        );
    }
    assert!(registry.seen().is_empty());
    assert!(
        fs::read_to_string(dir.join("images.txt"))
            .unwrap()
            .contains("/one:1")
    );
}

#[test]
fn an_interrupt_keeps_what_the_lock_can_say() {
    let (registry, dir, images) = two();
    let slow = &images[1].layers[1].digest;
    let pause = std::time::Duration::from_secs(30);
    registry.faults(Fault::new(slow, Action::Stall(100, pause)).times(9));
    list(&registry, &dir, "images.txt", "@/one:1\n@/two:2\n");
    let run = || from(&dir, "images.txt").args(&["--lock", "images.lock"]);
    let mut child = run().spawn();
    while registry.count(slow) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    child.wait().unwrap();
    assert_eq!(rows(&dir, "images.lock").len(), 1);
    registry.behave();
    run().status(0);
    assert_eq!(rows(&dir, "images.lock").len(), 2);
}

#[test]
fn a_lock_that_cannot_be_written_stays_as_it_was() {
    let (registry, dir, images, _) = locked(&[]);
    let before = fs::read(dir.join("images.lock")).unwrap();
    images[0].push(&registry, "two", "2");
    let run = from(&dir, "images.txt").args(&["--lock", "images.lock"]);
    fs::create_dir(dir.join("images.lock.partial.new")).unwrap();
    let outcome = run.outcome();
    assert_eq!(outcome.status.code(), Some(7), "{}", outcome.stderr);
    assert_eq!(fs::read(dir.join("images.lock")).unwrap(), before);
}
