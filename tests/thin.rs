//! Thin archives: making, verifying, joining and loading them.

use crate::registry::Registry;
use crate::registry::image::{
    Blob, GZIP, Image, OCI_INDEX, gzip, layer_tar, platform, push_index, sha256,
};
use crate::util::{Archive, Dir, Run};
use std::collections::BTreeSet;
use std::time::Duration;

const MISSING: &str = "io.github.antmicro.dockersave.missing";

/// Layers of these seeds, of 20 kB and more.
fn layers(seeds: &[u64]) -> Vec<Blob> {
    let layer = |seed: &u64| Blob::layer(*seed, 20_000 + *seed as usize);
    seeds.iter().map(layer).collect()
}

fn image(seeds: &[u64]) -> Image {
    Image::new(layers(seeds))
}

/// Two releases of one image: 1 2 3, and 1 2 4 3.
struct Releases {
    registry: Registry,
    dir: Dir,
    old: Image,
    new: Image,
}

impl Releases {
    fn new() -> Self {
        let (registry, dir) = (Registry::start(), Dir::new());
        let (old, new) = (image(&[1, 2, 3]), image(&[1, 2, 4, 3]));
        old.push(&registry, "r", "1");
        new.push(&registry, "r", "2");
        let releases = Self {
            registry,
            dir,
            old,
            new,
        };
        releases.pull("1").args(&["-o", "old.tar"]).status(0);
        releases.pull("2").args(&["-o", "full.tar"]).status(0);
        releases.registry.forget();
        releases
    }

    fn pull(&self, tag: &str) -> Run<'_> {
        Run::pull(&self.dir, &self.registry.name(&format!("r:{tag}")))
    }

    fn thin(&self, base: &[&str]) -> Archive {
        self.pull("2").args(base).archive()
    }

    fn join(&self, thin: &str, args: &[&str]) -> Run<'_> {
        Run::new(&self.dir, &["--join", thin]).args(args)
    }

    fn verify(&self, args: &[&str]) -> Run<'_> {
        Run::new(&self.dir, &["--verify"]).args(args)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.join(name)).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        self.dir.join(name).exists()
    }
}

fn blobs(archive: &Archive) -> BTreeSet<String> {
    let names = archive.names.iter();
    names.filter(|n| n.starts_with("blobs/")).cloned().collect()
}

#[test]
fn an_archive_leaves_out_what_its_base_has() {
    let releases = Releases::new();
    let (old, new) = (&releases.old, &releases.new);
    let thin = releases.thin(&["--base", "old.tar"]);
    let stem = format!("r-2-from-{}.tar", &old.digest()[7..19]);
    assert_eq!(thin.name(), stem);
    thin.outcome.is_small();
    // The upper layer that the base has lies on a new one: it stays, and comes from the base.
    assert!(!blobs(&thin).contains(&new.layers[0].path()));
    assert!(!blobs(&thin).contains(&new.layers[1].path()));
    let downloaded = releases.registry.blob_bytes();
    let (config, layer) = (new.config.data().len(), new.layers[2].data().len());
    assert_eq!(downloaded, (config + layer) as u64);
    // Documents are what they are in the full archive, but for what index.json adds.
    let full = releases.pull("2").args(&["-o", "full.tar"]).archive();
    for (name, bytes) in &thin.files {
        if name != "index.json" {
            assert_eq!(bytes, &full.files[name], "{name}");
        }
    }
    let index = thin.text("index.json");
    for layer in &new.layers[..2] {
        let item = format!("{},{},{}", layer.digest, layer.size, layer.diff_id);
        assert!(index.contains(&item), "{index}");
    }
    assert!(!index.contains(&new.layers[2].digest));
    assert!(index.contains(&format!(r#".whole":"{},sha256:"#, full.bytes.len())));
    assert!(
        thin.outcome
            .stderr
            .contains("thin: left out 2 layers of 44.1 kB; 22.0 kB more")
    );
    // Any tool's form of the same base gives the same bytes.
    let ids: Vec<String> = old
        .layers
        .iter()
        .map(|l| format!("{:?}", l.diff_id))
        .collect();
    let (dir, list) = (&releases.dir, ids.join(","));
    dir.write(
        "docker.json",
        format!(r#"[{{"Id":"x","RootFS":{{"Type":"layers","Layers":[{list}]}}}}]"#),
    );
    dir.write(
        "crictl.json",
        format!(r#"{{"info":{{"imageSpec":{{"rootfs":{{"diff_ids":[{list}]}}}}}}}}"#),
    );
    dir.write("ids.txt", list.replace(',', "\n").replace('"', ""));
    let content = |layer: &Blob| format!("{}\t20 kB\t1 hour\tcontainerd.io/x=y\n", layer.digest);
    let content: String = old.layers.iter().map(content).collect();
    dir.write("ctr.txt", format!("DIGEST\tSIZE\tAGE\tLABELS\n{content}"));
    releases
        .pull("1")
        .args(&["--no-tar", "--layers-dir", "old"])
        .status(0);
    for base in ["old", "docker.json", "crictl.json", "ids.txt", "ctr.txt"] {
        let again = releases
            .pull("2")
            .args(&["--base", base, "-o", "again.tar"])
            .archive();
        assert!(again.bytes == thin.bytes, "{base}");
    }
    // A stream and a directory, too.
    let script = "exec \"$@\" >stream.tar";
    releases
        .pull("2")
        .args(&["--base", "old.tar", "-o", "-"])
        .within(script)
        .status(0);
    assert!(releases.bytes("stream.tar") == thin.bytes);
    releases
        .pull("2")
        .args(&["--base", "old", "--no-tar"])
        .status(0);
    assert!(
        dir.join(stem.strip_suffix(".tar").unwrap())
            .join("index.json")
            .exists()
    );
}

#[test]
fn a_containerd_store_needs_no_layer_twice() {
    let releases = Releases::new();
    let thin = releases.thin(&["--base", "old.tar", "--base-any", "-o", "x.tar"]);
    let new = &releases.new;
    let kept = [&new.config.path(), &new.layers[2].path()];
    let manifest = format!("blobs/{}", new.digest().replace(':', "/"));
    assert!(
        kept.iter().all(|path| blobs(&thin).contains(*path)) && blobs(&thin).contains(&manifest)
    );
    assert_eq!(blobs(&thin).len(), 3);
    releases
        .join("x.tar", &["--base", "old.tar", "-o", "y.tar"])
        // It needs no network: what the environment says of it does not count.
        .env("HTTPS_PROXY", "socks5://nowhere.example:1")
        .status(0);
    assert!(releases.bytes("y.tar") == releases.bytes("full.tar"));
}

#[test]
fn a_dry_run_says_what_is_left_out() {
    let releases = Releases::new();
    let run = |args: &[&str]| {
        releases
            .pull("2")
            .args(&["--dry-run", "--base", "old.tar"])
            .args(args)
            .status(0)
            .stdout
    };
    let text = run(&[]);
    assert_eq!(text.matches("left out\t").count(), 2, "{text}");
    assert_eq!(text.matches("download\t22").count(), 1, "{text}");
    assert!(text.contains("-from-"));
    let json = run(&["--json"]);
    let new = &releases.new;
    let layer = &new.layers[0];
    let missing = format!(
        r#""missing":[{{"digest":"{}","size":{},"diffId":"{}"}},"#,
        layer.digest, layer.size, layer.diff_id
    );
    assert!(json.contains(&missing), "{json}");
    assert!(
        json.contains(&format!(r#""above":{}}}"#, new.layers[3].size)),
        "{json}"
    );
    assert!(!run(&["--base-any"]).contains("here\t"));
    let told = releases
        .pull("2")
        .args(&["--base", "old.tar", "--json"])
        .status(0)
        .stdout;
    assert!(told.contains(&missing), "{told}");
}

#[test]
fn where_nothing_can_be_left_out_the_archive_is_the_full_one() {
    let releases = Releases::new();
    image(&[9]).push(&releases.registry, "r", "9");
    releases.pull("9").args(&["-o", "other.tar"]).status(0);
    let archive = releases.thin(&["--base", "other.tar"]);
    assert_eq!(archive.name(), "r-2.tar");
    assert!(archive.bytes == releases.bytes("full.tar"));
    assert!(archive.outcome.stderr.contains("nothing can be left out"));
}

#[test]
fn a_thin_base_counts_for_what_it_holds() {
    let releases = Releases::new();
    releases.thin(&["--base", "old.tar", "-o", "thin.tar"]);
    image(&[1, 2, 4, 3, 5]).push(&releases.registry, "r", "3");
    let run = |args: &[&str]| {
        releases
            .pull("3")
            .args(args)
            .args(&["-o", "third.tar"])
            .archive()
    };
    let alone = run(&["--base", "thin.tar"]);
    assert!(alone.outcome.stderr.contains("is itself thin"));
    assert!(alone.outcome.stderr.contains("nothing can be left out"));
    let both = run(&["--base", "thin.tar", "--base", "old.tar"]);
    assert_eq!(blobs(&both).len(), 3);
    // To be reused, it lends what it has.
    releases.registry.forget();
    run(&["--reuse", "thin.tar", "--reuse", "old.tar"]);
    let new = Blob::layer(5, 20_005).data().len() as u64;
    assert!(releases.registry.blob_bytes() < new + 1000);
}

#[test]
fn a_thin_archive_is_verified_with_its_base() {
    let releases = Releases::new();
    releases.thin(&["--base", "old.tar", "-o", "thin.tar"]);
    let alone = releases.verify(&["thin.tar"]).status(9);
    assert_eq!(
        alone.stdout,
        "thin.tar: thin: needs 2 layers of 44.1 kB, sound otherwise, 1 image, 4 blobs\n"
    );
    assert!(alone.stderr.contains("--base"), "{}", alone.stderr);
    let with = releases
        .verify(&["thin.tar", "--base", "old.tar"])
        .status(0);
    assert_eq!(
        with.stdout,
        "thin.tar: sound with 2 layers of its base, 1 image, 4 blobs\n"
    );
    with.is_small();
    let id = format!("{}\n", releases.old.layers[1].diff_id);
    releases.dir.write("one.txt", id);
    let one = releases
        .verify(&["thin.tar", "--base", "one.txt", "--json"])
        .status(9);
    assert!(one.stdout.contains(r#""needed":1}"#), "{}", one.stdout);
    assert!(
        one.stdout
            .contains(&format!(r#""diffId":"{}""#, releases.old.layers[0].diff_id))
    );
    let both = releases
        .verify(&["thin.tar", "--base", "old.tar", "--json"])
        .status(0);
    assert!(both.stdout.contains(r#""needed":0}"#), "{}", both.stdout);
    // A pipe, and a directory.
    releases
        .verify(&["-"])
        .within("exec \"$@\" <thin.tar")
        .status(9);
    releases
        .pull("2")
        .args(&["--base", "old.tar", "--no-tar", "--layers-dir", "d"])
        .status(0);
    releases.verify(&["d"]).status(9);
    releases.verify(&["d", "--base", "old.tar"]).status(0);
    // What is there is checked as ever.
    let mut bytes = releases.bytes("thin.tar");
    let at = bytes.len() - 5000;
    bytes[at] ^= 1;
    releases.dir.write("bad.tar", &bytes);
    releases.verify(&["bad.tar", "--base", "old.tar"]).status(6);
    // And so is what the base lends.
    let mut bytes = releases.bytes("old.tar");
    let at = bytes.windows(6).position(|at| at == b"file-1").unwrap();
    bytes[at] ^= 1;
    releases.dir.write("worn.tar", &bytes);
    releases
        .verify(&["thin.tar", "--base", "worn.tar"])
        .status(9);
}

/// The archive with this in place of that in index.json, of the same length.
fn edited(releases: &Releases, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = releases.bytes("thin.tar");
    let at = bytes
        .windows(from.len())
        .position(|at| at == from.as_bytes())
        .unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    releases.dir.write("lie.tar", &bytes);
}

#[test]
fn an_annotation_that_lies_is_a_defect() {
    let releases = Releases::new();
    releases.thin(&["--base", "old.tar", "-o", "thin.tar"]);
    let (old, new) = (&releases.old, &releases.new);
    let layer = &old.layers[0];
    let lie = |from: &str, to: &str| {
        edited(&releases, from, to);
        let outcome = releases.verify(&["lie.tar", "--base", "old.tar"]).status(6);
        let joined = releases
            .join("lie.tar", &["--base", "old.tar", "-o", "joined.tar"])
            .outcome();
        (outcome.stdout, joined.status.code(), joined.stderr)
    };
    // The first of each in the file is that of index.json.
    let (size, other) = (
        format!(",{},", layer.size),
        format!(",{},", "9".repeat(layer.size.len())),
    );
    let (text, ..) = lie(&size, &other);
    assert!(text.contains("is missing"), "{text}");
    let (text, ..) = lie(&layer.diff_id, &sha256(b"x"));
    assert!(text.contains("diff ID"), "{text}");
    let (text, ..) = lie(&layer.digest, &sha256(b"x"));
    assert!(text.contains("that is not one of its layers"), "{text}");
    let (text, ..) = lie(&layer.digest, &new.layers[2].digest);
    assert!(text.contains("but it is there"), "{text}");
    let (text, ..) = lie(&format!("{},", layer.digest), &format!("{};", layer.digest));
    assert!(text.contains("invalid annotation"), "{text}");
    let (text, ..) = lie(MISSING, &MISSING.replace("missing", "mizzing"));
    assert!(text.contains("is missing"), "{text}");
    let full = releases.bytes("full.tar").len().to_string();
    let (text, status, error) = lie(
        &format!(r#".whole":"{full},"#),
        &format!(r#".whole":"{},"#, "1".repeat(full.len())),
    );
    assert!(!text.is_empty());
    assert!(
        status == Some(6) && error.contains("the full archive of lie.tar"),
        "{error}"
    );
    assert!(!releases.has("joined.tar.partial"));
}

#[test]
fn joined_archives_are_those_of_full_pulls() {
    // Seeds of layers; a layer's seed says how it is packed, too.
    type Release<'r> = &'r [&'r [u64]];
    let releases: [(Release<'_>, Release<'_>); 5] = [
        (&[&[1, 2, 3]], &[&[1, 2, 4]]),
        (&[&[1, 2]], &[&[1, 2]]),
        (&[&[1, 2, 3], &[1, 5]], &[&[1, 2, 6], &[1, 5, 3, 7], &[8]]),
        (&[&[1, 1, 2]], &[&[1, 1, 2, 1, 9]]),
        (&[&[2, 1]], &[&[2, 3, 1], &[2, 1]]),
    ];
    let forms: &[&[&str]] = &[
        &[],
        &["--format", "oci"],
        &["--gunzip"],
        &["--gunzip", "--format", "oci"],
        &["--base-any"],
    ];
    for (old, new) in releases {
        let registry = Registry::start();
        let push = |release: &str, images: &[&[u64]]| -> Vec<String> {
            let named = images.iter().enumerate().map(|(number, seeds)| {
                let repository = format!("image{number}");
                image(seeds).push(&registry, &repository, release);
                registry.name(&format!("{repository}:{release}"))
            });
            named.collect()
        };
        let (old, new) = (push("1", old), push("2", new));
        for form in forms {
            let dir = Dir::new();
            let plain: Vec<&str> = form
                .iter()
                .copied()
                .filter(|flag| *flag != "--base-any")
                .collect();
            let pull = |images: &[String], args: &[&str]| {
                let mut run = Run::new(&dir, &["--insecure"]).args(args);
                for image in images {
                    run = run.arg(image);
                }
                run.archive()
            };
            pull(&old, &[&plain[..], &["-o", "old.tar"]].concat());
            let full = pull(&new, &[&plain[..], &["-o", "full.tar"]].concat());
            let thin = pull(
                &new,
                &[*form, &["--base", "old.tar", "-o", "thin.tar"]].concat(),
            );
            assert!(thin.bytes.len() < full.bytes.len(), "{old:?} {form:?}");
            Run::new(&dir, &["--verify", "thin.tar"]).status(9);
            Run::new(&dir, &["--verify", "thin.tar", "--base", "old.tar"]).status(0);
            let join = ["--join", "thin.tar", "--base", "old.tar", "-o"];
            let joined = Run::new(&dir, &join).arg("joined.tar").archive();
            assert!(joined.bytes == full.bytes, "{old:?} {form:?}");
            joined.outcome.is_small();
            Run::new(&dir, &join)
                .arg("-")
                .within("exec \"$@\" >stream.tar")
                .status(0);
            assert!(std::fs::read(dir.join("stream.tar")).unwrap() == full.bytes);
        }
    }
}

/// The trailer of gzip gives the size of its last member alone; what is left out is not written,
/// which would show that.
#[test]
fn the_size_of_what_is_left_out_is_measured() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let tar = layer_tar(1, 50_000);
    let members = [gzip(&tar[..1000]), gzip(&tar[1000..])].concat();
    let layer = Blob::bytes(GZIP, members, sha256(&tar));
    Image::new(vec![layer.clone()]).push(&registry, "r", "1");
    Image::new(vec![layer, Blob::layer(2, 9000)]).push(&registry, "r", "2");
    let pull = |tag: &str, args: &[&str]| {
        let run = Run::pull(&dir, &registry.name(&format!("r:{tag}")));
        run.arg("--gunzip").args(args).archive()
    };
    let id = sha256(&tar);
    dir.write("ids.txt", &id);
    pull("1", &["-o", "old.tar"]);
    let full = pull("2", &["-o", "full.tar"]);
    let thin = pull("2", &["--base", "ids.txt", "-o", "thin.tar"]);
    assert!(thin.bytes.len() + 40_000 < full.bytes.len());
    let join = [
        "--join",
        "thin.tar",
        "--base",
        "old.tar",
        "-o",
        "joined.tar",
    ];
    assert!(Run::new(&dir, &join).archive().bytes == full.bytes);
}

#[test]
fn all_platforms_are_thin_and_joined() {
    let (registry, dir) = (Registry::start(), Dir::new());
    for (tag, top) in [("1", 3), ("2", 4)] {
        let entries: Vec<String> = ["amd64", "arm64"]
            .iter()
            .enumerate()
            .map(|(number, architecture)| {
                let seeds = [1, 2, top + 10 * number as u64];
                let image = Image::for_platform(architecture, "", layers(&seeds));
                image.push_untagged(&registry, "r");
                image.entry(&platform("linux", architecture, ""))
            })
            .collect();
        push_index(&registry, "r", tag, OCI_INDEX, &entries);
    }
    let pull = |tag: &str, args: &[&str]| {
        let run = Run::pull(&dir, &registry.name(&format!("r:{tag}")));
        run.arg("--all-platforms").args(args).archive()
    };
    pull("1", &["-o", "old.tar"]);
    let full = pull("2", &["-o", "full.tar"]);
    let thin = pull("2", &["--base", "old.tar", "-o", "thin.tar"]);
    assert_eq!(blobs(&thin).len() + 2, blobs(&full).len());
    assert!(thin.text("index.json").contains(MISSING));
    Run::new(&dir, &["--verify", "thin.tar"]).status(9);
    Run::new(&dir, &["--verify", "thin.tar", "--base", "old.tar"]).status(0);
    let joined = Run::new(
        &dir,
        &["--join", "thin.tar", "--base", "old.tar", "-o", "j.tar"],
    )
    .archive();
    assert!(joined.bytes == full.bytes);
}

#[test]
fn what_cannot_be_joined_is_told_and_leaves_nothing() {
    let releases = Releases::new();
    let thin = releases.thin(&["--base", "old.tar"]).name();
    let dir = &releases.dir;
    dir.write("ids.txt", &releases.old.layers[0].digest);
    image(&[9]).push(&releases.registry, "r", "9");
    releases.pull("9").args(&["-o", "other.tar"]).status(0);
    let mut bytes = releases.bytes("old.tar");
    dir.write("cut.tar", &bytes[..bytes.len() / 2]);
    let at = bytes.windows(6).position(|at| at == b"file-1").unwrap();
    bytes[at] ^= 1;
    dir.write("worn.tar", &bytes);
    std::fs::copy(dir.join(&thin), dir.join("thin.tar")).unwrap();
    for (args, status, text) in [
        (&[][..], 9, "needs 2 layers ("),
        (&["--base", "other.tar"], 9, "needs 2 layers ("),
        (&["--base", "thin.tar"], 9, "needs 2 layers ("),
        (
            &["--base", "cut.tar"],
            9,
            "give an archive that has them with --base",
        ),
        (&["--base", "worn.tar"], 6, "other bytes"),
        (&["--base", "ids.txt"], 1, "ids.txt"),
        (&["--base", "none.tar"], 1, "none.tar"),
    ] {
        for out in ["joined.tar", "-"] {
            let run = releases.join("thin.tar", args).args(&["-o", out]);
            run.fails(status, text);
            assert!(!releases.has("joined.tar"));
        }
    }
    // Other runs go on from what was right.
    releases
        .join("thin.tar", &["--base", "old.tar", "-o", "joined.tar"])
        .status(0);
    assert!(releases.bytes("joined.tar") == releases.bytes("full.tar"));
    // The name without what made it thin.
    releases.join(&thin, &["--base", "old.tar"]).status(0);
    assert!(releases.bytes("r-2.tar") == releases.bytes("full.tar"));
    // What is not thin is copied, and checked.
    releases.join("full.tar", &["-o", "copy.tar"]).status(0);
    assert!(releases.bytes("copy.tar") == releases.bytes("full.tar"));
    releases
        .join("worn.tar", &["-o", "copy2.tar"])
        .fails(6, "other bytes");
    releases
        .join("ids.txt", &["-o", "copy2.tar"])
        .fails(1, "ids.txt");
}

#[test]
fn a_base_that_says_nothing_is_told_before_anything_is_asked() {
    let releases = Releases::new();
    let bytes = releases.bytes("old.tar");
    releases.dir.write("cut.tar", &bytes[..bytes.len() / 2]);
    releases.dir.write(
        "images.txt",
        "REPOSITORY TAG IMAGE ID CREATED SIZE\nr 1 0123456789ab 1 day 5MB\n",
    );
    releases
        .dir
        .write("other.json", r#"[{"Id":"sha256:x","RepoTags":[]}]"#);
    releases
        .dir
        .write("half.json", r#"[{"RootFS":{"Layers":["sha256:"#);
    releases.dir.write("empty.txt", "");
    releases.dir.write("noise", [7; 700]);
    for (base, text) in [
        ("cut.tar", "is damaged or truncated"),
        ("images.txt", "line 1"),
        ("other.json", "object without layers"),
        ("half.json", "half.json"),
        ("empty.txt", "empty.txt"),
        ("noise", "noise"),
        ("none.tar", "No such file"),
    ] {
        let outcome = releases.pull("2").args(&["--base", base]).fails(1, text);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        assert_eq!(releases.registry.seen().len(), 0, "{base}");
    }
    // A download that has not ended.
    let mut bytes = bytes;
    bytes.truncate(0);
    releases.registry.pace(30_000);
    let mut child = releases.pull("1").args(&["-o", "part.tar"]).spawn();
    while !releases.has("part.tar.partial") || releases.registry.blob_bytes() < 20_000 {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    releases.registry.pace(0);
    releases
        .pull("2")
        .args(&["--base", "part.tar.partial"])
        .fails(1, "is not finished");
}

#[test]
fn a_thin_pull_goes_on_after_a_kill() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let big = |seeds: &[u64]| {
        Image::new(
            seeds
                .iter()
                .map(|seed| Blob::layer(*seed, 3 << 20))
                .collect(),
        )
    };
    big(&[1, 2]).push(&registry, "r", "1");
    big(&[1, 2, 3, 4, 5]).push(&registry, "r", "2");
    Run::pull(&dir, &registry.name("r:1"))
        .args(&["-o", "old.tar"])
        .status(0);
    let run =
        || Run::pull(&dir, &registry.name("r:2")).args(&["--base", "old.tar", "-o", "thin.tar"]);
    let whole = run().archive().bytes;
    registry.pace(12 << 20);
    for share in 1..=4 {
        std::fs::remove_file(dir.join("thin.tar")).unwrap();
        registry.forget();
        let mut child = run().spawn();
        while registry.blob_bytes() < share << 21 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(run().archive().bytes == whole);
        // Of the three new layers, at most what was under way comes twice.
        let sent = registry.blob_bytes();
        assert!(sent < (9 << 20) + (3 << 20), "{sent}");
        assert_eq!(dir.names(), ["old.tar", "thin.tar"]);
    }
}

#[test]
fn joining_goes_on_after_a_kill() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let big = |seeds: &[u64]| {
        let layer = |seed: &u64| Blob::layer(*seed, 12 << 20);
        Image::new(seeds.iter().map(layer).collect())
    };
    big(&[1, 2]).push(&registry, "r", "1");
    big(&[1, 2, 3]).push(&registry, "r", "2");
    for (tag, args) in [
        ("1", &["-o", "old.tar"][..]),
        ("2", &["-o", "full.tar"]),
        ("2", &["--base", "old.tar", "-o", "thin.tar"]),
    ] {
        let name = registry.name(&format!("r:{tag}"));
        Run::pull(&dir, &name).args(args).status(0);
    }
    let whole = std::fs::read(dir.join("full.tar")).unwrap();
    let args = ["--join", "thin.tar", "--base", "old.tar", "-o", "out.tar"];
    let partial = || {
        let found = std::fs::metadata(dir.join("out.tar.partial"));
        found.map_or(0, |found| found.len())
    };
    let mut killed = 0;
    for millis in [0, 2, 5, 10, 20, 40] {
        let mut child = Run::new(&dir, &args).spawn();
        while partial() == 0 && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        killed += i32::from(child.wait().unwrap().code().is_none());
        assert_eq!(dir.join("out.tar").exists(), partial() == 0);
        Run::new(&dir, &args).status(0);
        assert!(std::fs::read(dir.join("out.tar")).unwrap() == whole);
        assert_eq!(partial(), 0);
        std::fs::remove_file(dir.join("out.tar")).unwrap();
    }
    assert!(killed > 0);
}
