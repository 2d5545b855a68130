//! A pull of an archive that is already there: nothing is written, and inode and time stay.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
use crate::util::{Dir, Run};
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

fn pushed() -> (Registry, Dir, Image) {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 700_000), Blob::layer(2, 5_000)]);
    image.push(&registry, "r", "latest");
    (registry, dir, image)
}

/// Inode, size and time of all files below a path, and of the path itself.
fn state(path: &Path) -> Vec<(String, u64, u64, i64, i64)> {
    let about = fs::symlink_metadata(path).unwrap();
    let mut all = vec![(
        path.display().to_string(),
        about.ino(),
        about.size(),
        about.mtime(),
        about.mtime_nsec(),
    )];
    if about.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        all.extend(entries.flat_map(|entry| state(&entry.unwrap().path())));
    }
    all.sort();
    all
}

/// As if it had been made an hour ago.
fn age(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(3600);
    let file = File::open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(then)).unwrap();
}

#[test]
fn in_every_form_a_second_pull_changes_nothing() {
    for args in [
        &[][..],
        &["--quick-check"],
        &["--format", "oci"],
        &["--gunzip"],
        &["--no-tar"],
        &["--no-tar", "--gunzip"],
        &["--no-rm"],
        &["--no-rm", "--gunzip"],
        &["--xz"],
        &["--gunzip", "--xz"],
    ] {
        let (registry, dir, image) = pushed();
        let run = || {
            let run = Run::pull(&dir, &registry.name("r")).args(args);
            run.args(&["--progress", "plain"]).status(0)
        };
        let first = run();
        for name in dir.names() {
            age(&dir.join(&name));
        }
        age(dir.path());
        let before = state(dir.path());
        registry.forget();
        let second = run();
        let after = state(dir.path());
        if args.contains(&"--xz") {
            // It is made anew, and not put in the place of the same.
            assert_eq!(before[1..], after[1..], "{args:?}");
        } else {
            assert_eq!(before, after, "{args:?}");
            assert_eq!(registry.count(&image.layers[0].digest), 0, "{args:?}");
        }
        assert_eq!(first.stdout, second.stdout, "{args:?}");
        assert!(
            second.stderr.contains("unchanged"),
            "{args:?}: {}",
            second.stderr
        );
        assert!(
            !first.stderr.contains("unchanged"),
            "{args:?}: {}",
            first.stderr
        );
    }
}

#[test]
fn what_differs_in_a_byte_is_made_anew() {
    let (registry, dir, image) = pushed();
    let name = registry.name("r");
    let whole = Run::pull(&dir, &name).archive();
    let size = whole.bytes.len();
    for at in [0, 600, 3000, size / 2, size - 1] {
        let mut bytes = whole.bytes.clone();
        bytes[at] ^= 1;
        fs::write(&whole.path, bytes).unwrap();
        Run::pull(&dir, &name)
            .archive()
            .holds(&image, Some(&format!("{name}:latest")));
        assert_eq!(fs::read(&whole.path).unwrap(), whole.bytes, "byte {at}");
    }
    for length in [0, size - 1, size - 512, size + 1] {
        let mut bytes = whole.bytes.clone();
        bytes.resize(length, 0);
        fs::write(&whole.path, bytes).unwrap();
        Run::pull(&dir, &name).archive();
        assert_eq!(
            fs::read(&whole.path).unwrap(),
            whole.bytes,
            "{length} bytes"
        );
    }
}

#[test]
fn a_restart_makes_it_anew() {
    let (registry, dir, _) = pushed();
    let run = || Run::pull(&dir, &registry.name("r")).archive();
    let first = run();
    age(&first.path);
    let before = state(&first.path);
    let again = Run::pull(&dir, &registry.name("r"))
        .arg("--restart")
        .archive();
    assert_ne!(before, state(&first.path));
    assert_eq!(first.bytes, again.bytes);
}

#[test]
fn a_quick_check_reads_no_layer() {
    let (registry, dir, _) = pushed();
    let name = registry.name("r");
    let whole = Run::pull(&dir, &name).archive();
    let mut bytes = whole.bytes.clone();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(&whole.path, &bytes).unwrap();
    Run::pull(&dir, &name).arg("--quick-check").status(0);
    assert!(fs::read(&whole.path).unwrap() == bytes, "it was looked at");
    // Documents are compared all the same.
    bytes[3000] ^= 1;
    fs::write(&whole.path, &bytes).unwrap();
    Run::pull(&dir, &name).arg("--quick-check").status(0);
    assert!(fs::read(&whole.path).unwrap() == whole.bytes);
}

#[test]
fn another_image_or_name_is_a_change() {
    let (registry, dir, image) = pushed();
    image.push(&registry, "r", "other");
    let to = |tag: &str| {
        let run = Run::pull(&dir, &registry.name(&format!("r:{tag}")));
        run.args(&["-o", "x.tar"]).archive()
    };
    to("latest");
    to("other").holds(&image, Some(&registry.name("r:other")));
    let new = Image::new(vec![Blob::layer(1, 700_000), Blob::layer(3, 5_000)]);
    new.push(&registry, "r", "other");
    to("other").holds(&new, Some(&registry.name("r:other")));
}

#[test]
fn a_directory_with_more_or_less_in_it_is_a_change() {
    let (registry, dir, image) = pushed();
    let run = || {
        Run::pull(&dir, &registry.name("r"))
            .arg("--no-tar")
            .status(0)
    };
    run();
    let place = dir.join("r-latest");
    let more = place.join("blobs/sha256").join("0".repeat(64));
    fs::write(&more, "x").unwrap();
    run();
    assert!(!more.exists());
    let layer = place.join(image.layers[0].path());
    let mut bytes = fs::read(&layer).unwrap();
    bytes[9] ^= 1;
    fs::write(&layer, bytes).unwrap();
    run();
    assert_eq!(fs::read(&layer).unwrap(), image.layers[0].data());
    fs::remove_file(place.join("index.json")).unwrap();
    run();
    assert!(place.join("index.json").exists());
}

#[test]
fn what_a_link_leads_to_is_left_too() {
    let (registry, dir, _) = pushed();
    let run = || {
        Run::pull(&dir, &registry.name("r"))
            .args(&["-o", "link.tar"])
            .status(0)
    };
    std::os::unix::fs::symlink("real.tar", dir.join("link.tar")).unwrap();
    run();
    age(&dir.join("real.tar"));
    let before = state(dir.path());
    run();
    assert_eq!(before, state(dir.path()));
}

#[test]
fn json_has_the_sum_of_the_archive_and_says_what_changed() {
    let (registry, dir, _) = pushed();
    let name = registry.name("r");
    for (args, file) in [
        (&[][..], "r-latest.tar"),
        (&["--gunzip", "-o", "g.tar"], "g.tar"),
        (&["--xz"], "r-latest.tar.xz"),
    ] {
        for unchanged in [false, true] {
            let run = Run::pull(&dir, &name).args(args).arg("--json");
            let answer = run.status(0).stdout;
            let sum = crate::registry::image::sha256(&fs::read(dir.join(file)).unwrap());
            let sum = sum.strip_prefix("sha256:").unwrap();
            assert!(
                answer.contains(&format!(r#""sha256":"{sum}""#)),
                "{args:?}: {answer}"
            );
            let told = format!(r#""unchanged":{unchanged}"#);
            assert!(answer.contains(&told), "{args:?}: {answer}");
        }
    }
    let directory = Run::pull(&dir, &name)
        .args(&["--no-tar", "--json"])
        .status(0);
    assert!(
        directory.stdout.contains(r#""sha256":null"#),
        "{}",
        directory.stdout
    );
}

#[test]
fn a_dry_run_counts_documents_and_says_what_is_unchanged() {
    let (registry, dir, image) = pushed();
    let name = registry.name("r");
    let ask = |name: &str| {
        let run = Run::pull(&dir, name).args(&["--dry-run", "--json", "-o", "x.tar"]);
        run.status(0).stdout
    };
    let documents = (image.manifest().len() + image.config.data().len()) as u64;
    let layers: u64 = image
        .layers
        .iter()
        .map(|layer| layer.data().len() as u64)
        .sum();
    let answer = ask(&name);
    let all = format!(
        r#""unchanged":false,"download":{},"here":0"#,
        layers + documents
    );
    assert!(answer.contains(&all), "{all}: {answer}");
    Run::pull(&dir, &name).args(&["-o", "x.tar"]).status(0);
    let answer = ask(&name);
    let none = format!(
        r#""unchanged":true,"download":0,"here":{}"#,
        layers + documents
    );
    assert!(answer.contains(&none), "{none}: {answer}");
    // Another digest with the same layers, and the same digest under another name.
    let mut new = image.clone();
    new.more = r#""annotations":{"a":"b"},"#.into();
    new.push(&registry, "r", "new");
    image.push(&registry, "r", "named");
    let answer = ask(&registry.name("r:new"));
    assert!(answer.contains(r#""unchanged":false"#), "{answer}");
    assert!(!answer.contains(r#""download":0"#), "{answer}");
    let answer = ask(&registry.name("r:named"));
    assert!(
        answer.contains(r#""unchanged":false,"download":0"#),
        "{answer}"
    );
}
