//! Hosts and users named one by one: which host gets plain HTTP, and which password; and hints about
//! what was typed.

use crate::registry::image::Image;
use crate::registry::tls::{Authority, Leaf};
use crate::registry::{Registry, Reply};
use crate::util::{Dir, Run};

/// A registry that takes one user, by Basic.
fn guarded(field: &'static str) -> Registry {
    let registry = Registry::start();
    Image::small(1).push(&registry, "r", "latest");
    registry.route(move |seen| {
        let right = seen.header("authorization") == Some(field);
        (!right).then(|| Reply::unauthorized("Basic realm=x"))
    });
    registry
}

const ME: &str = "Basic bWU6aHVudGVyMg==";
const YOU: &str = "Basic eW91OnNlc2FtZQ==";

#[test]
fn one_host_by_plain_http_and_another_by_tls() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let ca = dir.write("ca.pem", &authority.pem);
    let plain = Registry::start();
    let secure = Registry::start_tls(authority.server(&Leaf::default()));
    for registry in [&plain, &secure] {
        Image::small(1).push(registry, "r", "latest");
    }
    let host = format!("--insecure={}", plain.address);
    let names = [plain.name("r"), secure.name("r")];
    let args = [&host, "--cacert", &ca, "-o", "x.tar", &names[0], &names[1]];
    Run::new(&dir, &args).status(0);
    // The other one is not asked by plain HTTP.
    let other = format!("--insecure={}", secure.address);
    let args = [&other, "--retries", "0", &names[0]];
    Run::new(&dir, &args).status(1);
    assert!(plain.seen().iter().all(|seen| seen.status == 200));
}

#[test]
fn docker_hub_is_never_asked_by_plain_http() {
    let dir = Dir::new();
    for args in [
        &["--insecure", "debian"][..],
        &["--insecure", "docker.io/a/b", "debian"],
        &["--insecure", "--tags", "index.docker.io/a/b"],
        &["--insecure=docker.io", "h:1/r"],
        &["--insecure=registry-1.docker.io", "h:1/r"],
    ] {
        Run::new(&dir, args).fails(2, "Docker Hub speaks HTTPS only");
    }
    // Beside another one it is asked by HTTPS, through a proxy that sees which it is.
    let (proxy, registry) = (Registry::start(), Registry::start());
    Image::small(1).push(&registry, "r", "latest");
    let name = registry.name("r");
    let args = ["--insecure", "--retries", "0", &name, "debian"];
    let run = Run::new(&dir, &args);
    let run = run.env("https_proxy", &format!("http://{}", proxy.address));
    run.env("http_proxy", "").outcome();
    let seen = proxy.seen();
    assert!(seen.iter().all(|seen| seen.method == "CONNECT"), "{seen:?}");
    assert!(dir.names().contains(&"r-latest.tar".to_owned()));
}

#[test]
fn a_registry_behind_insecure_takes_an_equals_sign() {
    let dir = Dir::new();
    let args = ["--insecure", "localhost:5000", "localhost:5000/app"];
    Run::new(&dir, &args).fails(2, "--insecure=localhost:5000");
    for wrong in [
        "--insecure=nas",
        "--insecure=http://h:1",
        "--insecure=h:1/r",
    ] {
        Run::new(&dir, &[wrong, "h:1/r"]).fails(2, "not a registry such as");
    }
}

#[test]
fn each_registry_is_told_its_own_user() {
    let (one, two, dir) = (guarded(ME), guarded(YOU), Dir::new());
    let (me, you) = (
        format!("{}=me", one.address),
        format!("{}=you", two.address),
    );
    let names = [one.name("r"), two.name("r")];
    let run = |args: &[&str]| {
        let all = [
            &["--insecure", "-o", "x.tar", &names[0], &names[1]][..],
            args,
        ]
        .concat();
        Run::new(&dir, &all)
    };
    for users in [[&me, &you], [&you, &me]] {
        let passwords = if users[0] == &me {
            "hunter2\nsesame\n"
        } else {
            "sesame\nhunter2\n"
        };
        let args = ["--user", users[0], "--user", users[1], "--password-stdin"];
        run(&args).stdin(passwords).status(0);
        std::fs::remove_file(dir.join("x.tar")).unwrap();
    }
    // One has a user of its own, and what names no registry is for the other.
    let args = ["--user", "me", "--user", &you, "--password-stdin"];
    run(&args).stdin("hunter2\nsesame\n").status(0);
    let told = |registry: &Registry, field: &str| {
        let seen = registry.seen();
        seen.iter()
            .any(|seen| seen.header("authorization") == Some(field))
    };
    assert!(
        !told(&one, YOU) && !told(&two, ME),
        "each was told its own alone"
    );
}

#[test]
fn a_mirror_is_told_a_user_that_is_named_for_it() {
    let (mirror, registry, dir) = (guarded(ME), Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    let user = format!("{}=me", mirror.address);
    let address = format!("http://{}", mirror.address);
    let run = Run::pull(&dir, &registry.name("r")).args(&["--mirror", &address]);
    run.args(&["--user", &user, "--password-stdin"])
        .stdin("hunter2\n")
        .status(0);
    assert_eq!(registry.count(&image.layers[0].digest), 0);
}

#[test]
fn users_that_make_no_sense_are_refused() {
    let dir = Dir::new();
    for (args, words) in [
        (
            &["--user", "h.x=me", "--password", "p", "h.y/r"][..],
            "h.x is not a registry or mirror",
        ),
        (
            &["--user", "a", "--user", "b", "--password-stdin", "h.y/r"],
            "--user HOST=NAME",
        ),
        (
            &[
                "--user",
                "h.x=a",
                "--user",
                "h.y=b",
                "--password",
                "p",
                "h.x/r",
                "h.y/s",
            ],
            "--password-stdin, with a line for each",
        ),
        (
            &[
                "--user",
                "h.x=a",
                "--user",
                "b",
                "--password-stdin",
                "h.x/r",
            ],
            "has no registry",
        ),
        (
            &["--user", "a", "--password", "p", "h.x/r", "h.y/s"],
            "--user HOST=NAME",
        ),
        (
            &["--user", "h.x=", "--password", "p", "h.x/r"],
            "needs a name",
        ),
        (
            &[
                "--user",
                "h.x=a",
                "--user",
                "h.y=b",
                "--password-stdin",
                "h.x/r",
                "h.y/s",
            ],
            "there are fewer",
        ),
    ] {
        Run::new(&dir, args).stdin("hunter2\n").fails(2, words);
    }
}

#[test]
fn a_wrong_password_is_called_so_and_whose_it_is() {
    let (registry, dir) = (guarded(YOU), Dir::new());
    let name = registry.name("r");
    let run = Run::pull(&dir, &name).args(&["--user", "me", "--password", "hunter2"]);
    run.fails(3, "wrong user or password: user me, from the command line");
    let auth = r#"{"auths":{"HOST":{"auth":"bWU6aHVudGVyMg=="}}}"#;
    let auth = auth.replace("HOST", &registry.address.to_string());
    let file = dir.write("auth.json", auth);
    let run = Run::pull(&dir, &name).args(&["--authfile", &file]);
    run.fails(3, &format!("wrong user or password: user me, from {file}"));
    // A token endpoint that knows the password, and a registry that wants more.
    let registry = Registry::start();
    Image::small(1).push(&registry, "r", "latest");
    let address = registry.address;
    registry.route(move |seen| {
        Some(match seen.target.starts_with("/token") {
            true => Reply::new(200, r#"{"token":"t0ken"}"#),
            false => Reply::unauthorized(&format!(
                r#"Bearer realm="http://{address}/token",service="s""#
            )),
        })
    });
    let run = Run::pull(&dir, &registry.name("r")).args(&["--user", "me", "--password", "hunter2"]);
    let outcome = run.fails(3, "user me, from the command line");
    assert!(
        outcome.stderr.contains("lack the right"),
        "{}",
        outcome.stderr
    );
    assert!(!outcome.stderr.contains("wrong user"), "{}", outcome.stderr);
}

#[test]
fn hints_repeat_the_flags_that_were_given() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let (name, host) = (registry.name("r"), registry.address);
    let gone = format!("{name}:gone");
    let hint = format!("dockersave --insecure --tags {name} lists");
    Run::new(&dir, &["--insecure", &gone]).fails(4, &hint);
    let file = dir.write("my auth.json", "{}");
    let hint = format!("dockersave --insecure={host} --authfile '{file}' --tags {name} lists");
    let args = [&format!("--insecure={host}"), "--authfile", &file, &gone];
    Run::new(&dir, &args).fails(4, &hint);
    let args = ["--insecure", "--user", "me", "--password", "hunter2", &gone];
    let hint = format!("dockersave --insecure --user me --password-stdin --tags {name}");
    Run::new(&dir, &args).fails(4, &hint);
}

#[test]
fn what_other_tools_take_is_understood_or_answered() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    let name = registry.name("r");
    let archive = Run::pull(&dir, &format!("docker://{name}")).archive();
    archive.holds(&image, Some(&format!("{name}:latest")));
    assert!(archive.outcome.stderr.contains("docker:// is not needed"));
    for (args, words) in [
        (
            &["https://ghcr.io/o/r"][..],
            "has no https://: dockersave ghcr.io/o/r",
        ),
        (&["http://h:1/r"], "dockersave --insecure h:1/r"),
        (&["https://hub.docker.com/r/o/r"], "dockersave o/r"),
        (&["https://me:hunter2@h.x/r"], "no user or password"),
        (&["pull", "debian"], "no subcommands: dockersave debian"),
        (
            &["save", "debian", "-o", "x.tar"],
            "no subcommands: dockersave debian",
        ),
        (&["login"], "--password-stdin"),
        (&["--insec", "h:1/r"], "did you mean --insecure?"),
        (&["--meta", "debian"], "did you mean --metadata?"),
        (&["-insecure", "h:1/r"], "did you mean --insecure?"),
        (&["-phunter2", "debian"], "no such flag"),
    ] {
        let outcome = Run::new(&dir, args).fails(2, words);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
}

#[test]
fn notes_have_a_level() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let run = Run::pull(&dir, &format!("docker://{}", registry.name("r")));
    let run = run.args(&[
        "--progress",
        "json",
        "-v",
        "--user",
        "me",
        "--password",
        "hunter2",
    ]);
    let text = run.status(0).stderr;
    for (level, words) in [
        ("warning", "other users of this machine can see --password"),
        ("info", "docker:// is not needed"),
        ("debug", "GET http://"),
    ] {
        let begin = format!(r#"{{"event":"note","level":"{level}","text":"{words}"#);
        assert!(text.contains(&begin), "{begin}: {text}");
    }
    assert!(!text.contains("dockersave: warning"), "{text}");
    // For people it is a prefix.
    let run = Run::pull(&dir, &registry.name("r"));
    let plain = run
        .args(&["--user", "me", "--password", "hunter2"])
        .status(0)
        .stderr;
    assert!(
        plain.contains("dockersave: warning: other users"),
        "{plain}"
    );
}
