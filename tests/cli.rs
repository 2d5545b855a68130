//! The command line itself: flags, messages, exit statuses, progress.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
use crate::util::{Dir, Run};
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

fn small() -> (Registry, Dir, Image) {
    let (registry, image) = (Registry::start(), Image::small(1));
    image.push(&registry, "ns/app", "1.0");
    (registry, Dir::new(), image)
}

#[test]
fn help_and_version_need_nothing() {
    let dir = Dir::new();
    let help = Run::new(&dir, &["--help"]).status(0);
    for flag in [
        "--output",
        "--platform",
        "--password-stdin",
        "--cacert",
        "--progress",
        "Exit status",
    ] {
        assert!(help.stdout.contains(flag), "{flag}");
    }
    let short = Run::new(&dir, &["-h"]).status(0);
    assert!(short.stdout.len() < help.stdout.len() && short.stderr.is_empty());
    let version = Run::new(&dir, &["--version"]).status(0).stdout;
    assert!(
        version.starts_with(&format!("dockersave {} (", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
}

#[test]
fn wrong_usage_is_told_with_status_2() {
    let dir = Dir::new();
    for (args, words) in [
        (&["--tagz", "debian"][..], "did you mean --tags?"),
        (&[], "an image name is required"),
        (&["Debian"], "must be lowercase"),
        (&["https://h/x"], "has no https://"),
        (
            &["debian", "--jobs", "many"],
            "--jobs: \"many\" is not a number",
        ),
        (&["debian", "--platform", "linux"], "a platform is OS/ARCH"),
        (&["debian", "--user", "u"], "requires --password-stdin"),
        (&["host:99999/x"], "port out of range"),
        (&["debian", "-o", "x", "--tarname", "y"], "omit --tarname"),
    ] {
        let outcome = Run::new(&dir, args).fails(2, words);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
}

#[test]
fn the_archives_place() {
    let (registry, dir, image) = small();
    std::fs::create_dir(dir.join("sub")).unwrap();
    let name = registry.name("ns/app:1.0");
    for (args, path) in [
        (&[][..], "ns-app-1.0.tar"),
        (&["--working-dir", "sub"], "sub/ns-app-1.0.tar"),
        (&["--working-dir", "new/sub"], "new/sub/ns-app-1.0.tar"),
        (&["--tarname=x.tar"], "x.tar"),
        (&["--tarname", "y.tar", "--working-dir=sub"], "sub/y.tar"),
        (&["-o", "sub/z.tar"], "sub/z.tar"),
        (&["--output=w"], "w"),
    ] {
        let archive = Run::pull(&dir, &name).args(args).archive();
        assert_eq!(archive.path, dir.join(path));
        archive.holds(&image, Some(&name));
    }
}

#[test]
fn queries_print_what_was_asked_for_and_nothing_else() {
    let (registry, dir, image) = small();
    let name = registry.name("ns/app:1.0");
    let ask = |flag: &str| {
        let outcome = Run::pull(&dir, &name).arg(flag).status(0);
        assert_eq!(outcome.stderr, "");
        outcome.stdout
    };
    assert_eq!(ask("--sha"), format!("{}\n", image.digest()));
    assert_eq!(ask("--metadata"), format!("{}\n", image.manifest()));
    assert_eq!(ask("--tags"), "1.0\n");
    assert!(ask("--platforms").starts_with(&format!("linux/amd64\t{}\t", image.digest())));
    let plan = ask("--dry-run");
    assert!(
        image
            .layers
            .iter()
            .all(|layer| plan.contains(&layer.path())),
        "{plan}"
    );
    assert!(dir.names().is_empty());
}

#[test]
fn progress_in_every_form() {
    let (registry, dir, image) = small();
    let name = registry.name("ns/app:1.0");
    let told = |how: &str| {
        Run::pull(&dir, &name)
            .args(&["--progress", how])
            .archive()
            .outcome
            .stderr
    };
    let plain = told("plain");
    assert_eq!(plain.lines().count(), 1 + image.layers.len(), "{plain}");
    assert_eq!(told("none"), "");
    let json = told("json");
    assert!(
        json.lines()
            .all(|line| line.starts_with("{\"event\":\"") && line.ends_with('}')),
        "{json}"
    );
    for event in ["started", "layer", "progress", "finishing", "done"] {
        assert!(
            json.contains(&format!("{{\"event\":\"{event}\"")),
            "{event}: {json}"
        );
    }
    assert_eq!(
        Run::pull(&dir, &name).arg("-q").archive().outcome.stderr,
        ""
    );
}

#[test]
fn plain_progress_says_at_least_every_ten_seconds_where_it_is() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![Blob::layer(1, 400_000)]);
    image.push(&registry, "r", "latest");
    registry.pace(20_000);
    let mut child = Run::pull(&dir, &registry.name("r"))
        .args(&["--progress", "plain"])
        .spawn();
    let begin = Instant::now();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let lines: Vec<(Duration, String)> =
        lines.map(|line| (begin.elapsed(), line.unwrap())).collect();
    assert!(child.wait().unwrap().success());
    let end = begin.elapsed();
    assert!(end > Duration::from_secs(18), "{end:?}");
    let mut last = Duration::ZERO;
    for at in lines.iter().map(|(at, _)| *at).chain([end]) {
        assert!(at - last < Duration::from_secs(10), "{lines:?}");
        last = at;
    }
    assert!(lines[0].1.starts_with("1 layer, 40"), "{lines:?}");
    let standing = lines[1].1.contains(" kB of 40") && lines[1].1.contains(" left");
    assert!(standing, "{lines:?}");
}

#[test]
fn a_bar_is_drawn_when_asked_for() {
    let (registry, dir, _) = small();
    let outcome = Run::pull(&dir, &registry.name("ns/app:1.0"))
        .args(&["--progress", "bar"])
        .outcome();
    assert!(outcome.status.success());
    assert!(
        outcome.stderr.contains("3/3 layers") && outcome.stderr.contains("\x1b[J"),
        "{:?}",
        outcome.stderr
    );
}

#[test]
fn verbose_names_requests_and_no_secret() {
    let (registry, dir, _) = small();
    let run = Run::pull(&dir, &registry.name("ns/app:1.0")).args(&[
        "--verbose",
        "--user",
        "me",
        "--password-stdin",
    ]);
    let text = run.stdin("hunter2\n").archive().outcome.stderr;
    assert!(text.contains("/v2/ns/app/manifests/1.0: 200"), "{text}");
    assert!(!text.contains("hunter2"));
}

#[test]
fn what_is_not_there_is_status_4() {
    let (registry, dir, _) = small();
    Run::pull(&dir, &registry.name("ns/app:2.0")).fails(4, "MANIFEST_UNKNOWN");
    assert!(dir.names().is_empty());
}

#[test]
fn nobody_there_is_status_5() {
    let dir = Dir::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    Run::new(
        &dir,
        &["--insecure", "--retries", "0", &format!("{free}/r")],
    )
    .fails(5, "nothing listens");
    Run::new(
        &dir,
        &["--insecure", "--retries", "0", "no-such-host.invalid/r"],
    )
    .status(5);
}

#[test]
fn several_images_share_an_archive() {
    let (registry, dir, image) = small();
    let mut layers = image.layers.clone();
    layers.truncate(2);
    let other = Image::new(layers);
    other.push(&registry, "other", "latest");
    let archive = Run::pull(&dir, &registry.name("ns/app:1.0"))
        .args(&[&registry.name("other"), "-o", "both.tar"])
        .archive();
    assert_eq!(
        archive.text("manifest.json").matches("\"Config\"").count(),
        2
    );
    assert_eq!(registry.count(&image.layers[0].digest), 1);
}

#[test]
fn the_help_lists_every_flag_and_every_status() {
    let dir = Dir::new();
    let help = Run::new(&dir, &["--help"]).status(0).stdout;
    for flag in [
        "user",
        "password",
        "password-stdin",
        "ilogin",
        "insecure",
        "cacert",
        "cert",
        "key",
        "tls-skip-verify",
        "working-dir",
        "tarname",
        "output",
        "platform",
        "arch",
        "jobs",
        "retries",
        "timeout",
        "restart",
        "verbose",
        "quiet",
        "progress",
        "version",
        "help",
        "tags",
        "metadata",
        "sha",
        "platforms",
        "dry-run",
    ] {
        assert!(help.contains(&format!("--{flag}")), "--{flag}");
    }
    let (_, statuses) = help.split_once("Exit status:\n").unwrap();
    for status in 0..=7 {
        assert!(
            statuses.contains(&format!("  {status}  ")),
            "status {status}"
        );
    }
    let long = help.lines().find(|line| line.chars().count() > 79);
    assert!(long.is_none(), "{long:?}");
}

#[test]
fn every_flag_has_a_test() {
    let dir = Dir::new();
    let help = Run::new(&dir, &["--help"]).status(0).stdout;
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let sources: String = std::fs::read_dir(tests)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let mut flags = 0;
    for line in help.lines().filter(|line| line.starts_with("  ")) {
        let mut names = line.split([' ', ',']).filter(|word| word.starts_with('-'));
        let Some(name) = names.next().filter(|_| !line.starts_with("       ")) else {
            continue;
        };
        let name = name.split('[').next().unwrap();
        let used = |name: &str| {
            ["\"", "="]
                .iter()
                .any(|end| sources.contains(&format!("\"{name}{end}")))
        };
        assert!(used(name) || names.any(used), "no test uses {name}");
        flags += 1;
    }
    assert!(flags > 40, "only {flags} flags were found in the help");
}

#[test]
fn values_in_both_forms_and_short_flags() {
    let (registry, dir, image) = small();
    let name = registry.name("ns/app:1.0");
    for args in [
        &[
            "--platform=linux/amd64",
            "--jobs=2",
            "--retries=0",
            "--timeout=5",
            "-q",
        ][..],
        &[
            "--platform",
            "linux/amd64",
            "-j",
            "2",
            "--progress=none",
            "--restart",
        ],
        &["-j2", "-q", "-o", "w"],
        &["--arch=x86_64", "-o=v"],
    ] {
        Run::pull(&dir, &name)
            .args(args)
            .archive()
            .holds(&image, Some(&name));
    }
    // Nothing after two hyphens is a flag.
    Run::new(&dir, &["--insecure", "--", "--tags"]).fails(2, "");
    for args in [
        &["--jobs=0"][..],
        &["--jobs=65"],
        &["--timeout=0"],
        &["--retries=-1"],
        &["--progress=x"],
        &["--jobs"],
        &["--insecure=yes"],
        &["--output="],
        &["--arch="],
        &["-x"],
    ] {
        Run::new(&dir, &["debian"])
            .args(args)
            .fails(2, args[0].split('=').next().unwrap());
    }
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::new(vec![crate::registry::image::Blob::layer(1, 4 << 20)]);
    image.push(&registry, "r", "latest");
    registry.pace(1 << 20);
    let mut child = Run::pull(&dir, &registry.name("r")).spawn();
    while registry.blob_bytes() < 5 << 19 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let process = rustix::process::Pid::from_child(&child);
    let begin = std::time::Instant::now();
    for _ in 0..2 {
        let _ = rustix::process::kill_process(process, rustix::process::Signal::INT);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let status = child.wait().unwrap();
    assert!(begin.elapsed() < std::time::Duration::from_secs(1));
    assert!(!status.success());
    assert_eq!(dir.names(), ["r-latest.tar.partial"]);
}

/// Runs the program on its own terminal with this input; returns what the terminal showed.
pub fn on_a_terminal(dir: &Dir, command: &str, typed: &str) -> Option<String> {
    use std::io::Write;
    let binary = std::env::var("DOCKERSAVE_TEST_BINARY")
        .unwrap_or_else(|_| env!("CARGO_BIN_EXE_dockersave").to_owned());
    if std::env::var_os("DOCKERSAVE_TEST_RUNNER").is_some_and(|runner| !runner.is_empty()) {
        eprintln!("skipped: no terminal for a runner");
        return None;
    }
    let script = command.replace("DOCKERSAVE", &binary);
    let mut words = crate::util::default_signals();
    words.extend(["script", "-qec", &script, "/dev/null"].map(str::to_owned));
    let spawned = std::process::Command::new(&words[0])
        .args(&words[1..])
        .current_dir(dir.path())
        .env("HOME", dir.path())
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = spawned else {
        eprintln!("skipped: there is no script(1) here");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    for line in typed.split_inclusive('\n') {
        std::thread::sleep(std::time::Duration::from_millis(400));
        let _ = stdin.write_all(line.as_bytes());
        let _ = stdin.flush();
    }
    std::thread::sleep(std::time::Duration::from_millis(400));
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_password_is_asked_for_unseen() {
    let (registry, dir, _) = small();
    registry.route(|seen| {
        (seen.header("authorization") != Some("Basic bWU6aHVudGVyMg=="))
            .then(|| crate::registry::Reply::unauthorized("Basic realm=x"))
    });
    let name = registry.name("ns/app:1.0");
    let command = format!("DOCKERSAVE --insecure --ilogin -q {name}; stty -a");
    let Some(shown) = on_a_terminal(&dir, &command, "me\nhunter2\n") else {
        return;
    };
    assert!(
        dir.names().contains(&"ns-app-1.0.tar".to_owned()),
        "{shown}"
    );
    assert!(
        !shown.contains("hunter2"),
        "the password was shown: {shown}"
    );
    assert!(
        shown.contains(" echo ") && shown.contains(" icanon "),
        "{shown}"
    );
}

#[test]
fn no_terminal_to_ask_on_is_told() {
    let dir = Dir::new();
    // In its own session there is no terminal.
    let outcome = Run::new(&dir, &["--ilogin", "debian"])
        .within("exec /usr/bin/setsid -w \"$@\"")
        .stdin("me\nhunter2\n")
        .limit(5)
        .outcome();
    assert!(outcome.status.code().is_some_and(|code| code > 0));
    assert_eq!(
        outcome.keeps_secrets().stderr.lines().count(),
        1,
        "{}",
        outcome.stderr
    );
}

#[test]
fn an_interrupt_at_the_password_leaves_the_terminal_as_it_was() {
    let (registry, dir, _) = small();
    let name = registry.name("ns/app:1.0");
    let command =
        format!("trap : INT; DOCKERSAVE --insecure --ilogin {name}; echo status $?; stty -a");
    let Some(shown) = on_a_terminal(&dir, &command, "me\n\u{3}\n") else {
        return;
    };
    assert!(
        shown.contains(" echo ") && shown.contains(" icanon "),
        "{shown}"
    );
    assert!(shown.contains("status 130"), "{shown}");
    assert!(registry.seen().is_empty());
}

#[test]
fn a_bar_on_a_terminal_ends_in_the_archives_path() {
    let (registry, dir, _) = small();
    let command = format!("DOCKERSAVE --insecure {}", registry.name("ns/app:1.0"));
    let Some(shown) = on_a_terminal(&dir, &command, "") else {
        return;
    };
    assert!(shown.contains("3/3 layers"), "{shown:?}");
    assert!(shown.trim_end().ends_with("ns-app-1.0.tar"), "{shown:?}");
}

#[test]
fn short_flags_may_stand_together() {
    let (registry, dir, image) = small();
    let name = registry.name("ns/app:1.0");
    let archive = Run::pull(&dir, &name).args(&["-qo", "w"]).archive();
    archive.holds(&image, Some(&name));
    assert_eq!(archive.outcome.stderr, "");
}

#[test]
fn the_changelog_answers_for_every_flag_of_the_python_program() {
    let changelog = include_str!("../CHANGELOG.md");
    let (_, rest) = changelog
        .split_once("The flags of the Python program")
        .unwrap();
    let table = rest.split("\n## ").next().unwrap();
    for flag in [
        "user",
        "password",
        "working-dir",
        "layers-dir",
        "no-rm",
        "ilogin",
        "no-tar",
        "insecure",
        "tarname",
        "gunzip",
        "xz",
        "verbose",
        "metadata",
        "sha",
        "tags",
        "arch",
        "version",
    ] {
        let row = |line: &str| {
            let first = line
                .strip_prefix("| ")
                .and_then(|line| line.split('|').next());
            first.is_some_and(|cell| cell.contains(&format!("`--{flag}`")))
        };
        assert!(table.lines().any(row), "--{flag}");
    }
}

#[test]
fn the_calls_of_the_python_program_give_what_they_gave() {
    let (registry, _, image) = small();
    let name = registry.name("ns/app:1.0");
    let archive = "ns-app-1.0.tar";
    for (args, made) in [
        (&[][..], &[archive][..]),
        (&["--arch", "amd64", "--verbose"], &[archive]),
        (&["--tarname", "t"], &["t"]),
        // That directory was never to be seen.
        (&["--layers-dir", "y"], &[archive]),
        (&["--no-tar"], &["ns-app-1.0/"]),
        (&["--no-tar", "--no-rm"], &["ns-app-1.0/"]),
        (&["--no-tar", "--layers-dir", "sub/x"], &["sub/x/"]),
        (&["--no-rm"], &[archive, "ns-app-1.0/"]),
        (
            &["--no-rm", "--layers-dir", "sub/x", "--tarname", "t.tar"],
            &["t.tar", "sub/x/"],
        ),
        (&["--working-dir", "new/dir"], &["new/dir/ns-app-1.0.tar"]),
        (
            &["--working-dir", "new", "--no-rm", "--layers-dir", "a/b"],
            &["new/ns-app-1.0.tar", "new/a/b/"],
        ),
        (&["--gunzip"], &[archive]),
        (&["--gunzip", "--no-rm"], &[archive, "ns-app-1.0/"]),
        (&["--no-tar", "--tarname", "q.tar"], &["q/"]),
        (&["--no-tar", "--xz"], &["ns-app-1.0/"]),
        (&["--xz", "--tarname", "t"], &["t"]),
        (&["--xz"], &["ns-app-1.0.tar.xz"]),
        (&["--xz", "--no-rm"], &["ns-app-1.0.tar.xz", "ns-app-1.0/"]),
    ] {
        let dir = Dir::new();
        Run::pull(&dir, &name).args(args).status(0);
        for path in made {
            let path = dir.join(path.strip_suffix('/').unwrap_or(path));
            assert!(path.exists(), "{args:?}: no {}", path.display());
        }
        let top: Vec<&str> = made
            .iter()
            .map(|path| path.split('/').next().unwrap())
            .collect();
        assert!(
            dir.names().iter().all(|name| top.contains(&name.as_str())),
            "{args:?}: {:?}",
            dir.names()
        );
    }
    // A failed pull had a nonzero status and left no archive.
    for (image, args) in [
        ("ns/app:2", &[][..]),
        ("none", &["--no-tar"]),
        ("ns/app:2", &["--working-dir", "new"]),
    ] {
        let dir = Dir::new();
        let outcome = Run::pull(&dir, &registry.name(image)).args(args).outcome();
        assert!(
            !outcome.status.success() && dir.names().is_empty(),
            "{:?}",
            dir.names()
        );
    }
    drop(image);
}
