//! Credential sources: files, helpers, the environment. A broken one never fails a public pull, and
//! is named when it matters.

use crate::registry::image::Image;
use crate::registry::{Registry, Reply, Seen};
use crate::util::{Dir, Run};
use std::os::unix::fs::PermissionsExt;

const BASIC: &str = "Basic bWU6aHVudGVyMg==";
/// `me:hunter2`.
const AUTH: &str = "bWU6aHVudGVyMg==";

fn private() -> Registry {
    let registry = Registry::start();
    Image::small(1).push(&registry, "ns/r", "latest");
    registry.route(|seen| {
        (seen.header("authorization") != Some(BASIC)).then(|| Reply::unauthorized("Basic realm=x"))
    });
    registry
}

fn public() -> Registry {
    let registry = Registry::start();
    Image::small(1).push(&registry, "ns/r", "latest");
    registry
}

fn entry(key: &str) -> String {
    format!(r#"{{"auths":{{"{key}":{{"auth":"{AUTH}"}}}}}}"#)
}

fn script(dir: &Dir, name: &str, text: &str) {
    let path = dir.write(name, format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_source_serves() {
    let registry = private();
    let host = registry.address.to_string();
    let pull = |dir: &Dir, environment: &[(&str, &str)], args: &[&str]| {
        let run = Run::pull(dir, &registry.name("ns/r"))
            .args(args)
            .args(&["-o", "x.tar"]);
        environment
            .iter()
            .fold(run, |run, (name, value)| run.env(name, value))
            .archive();
    };
    let dir = Dir::new();
    pull(
        &dir,
        &[
            ("DOCKERSAVE_USER", "me"),
            ("DOCKERSAVE_PASSWORD", "hunter2"),
        ],
        &[],
    );
    pull(&dir, &[("DOCKER_AUTH_CONFIG", &entry(&host))], &[]);
    let file = dir.write("some/auth.json", entry(&host));
    pull(&dir, &[], &["--authfile", &file]);
    pull(&dir, &[("REGISTRY_AUTH_FILE", &file)], &[]);
    dir.write("docker/config.json", entry(&format!("https://{host}/v1/")));
    pull(&dir, &[("DOCKER_CONFIG", "docker")], &[]);
    dir.write("run/containers/auth.json", entry(&format!("{host}/ns")));
    pull(&dir, &[("XDG_RUNTIME_DIR", "run")], &[]);
    dir.write("config/containers/auth.json", entry(&host));
    pull(&dir, &[("XDG_CONFIG_HOME", "config")], &[]);
    dir.write(".docker/config.json", entry(&host));
    pull(&dir, &[], &[]);
    let dir = Dir::new();
    dir.write(".config/containers/auth.json", entry(&host));
    pull(&dir, &[], &[]);
    // Another registry's credentials do not matter here.
    let dir = Dir::new();
    dir.write(".docker/config.json", entry("other.example"));
    Run::pull(&dir, &registry.name("ns/r")).fails(3, "refused");
}

#[test]
fn verbose_names_the_source_and_not_the_secret() {
    let (registry, dir) = (private(), Dir::new());
    dir.write(".docker/config.json", entry(&registry.address.to_string()));
    let archive = Run::pull(&dir, &registry.name("ns/r"))
        .arg("--verbose")
        .archive();
    let text = archive.outcome.stderr;
    assert!(text.contains(".docker/config.json"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains(AUTH), "{text}");
    assert!(
        !archive
            .bytes
            .windows(AUTH.len())
            .any(|window| window == AUTH.as_bytes())
    );
}

#[test]
fn helpers_of_all_kinds() {
    let registry = private();
    let host = registry.address.to_string();
    let path = |dir: &Dir| format!("{}:/usr/bin:/bin", dir.path().display());
    let answer = r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"me\",\"Secret\":\"hunter2\"}""#;
    for config in [
        format!(r#"{{"credHelpers":{{"{host}":"good"}},"credsStore":"bad"}}"#),
        r#"{"credsStore":"good"}"#.to_owned(),
        // Docker reads a helper's answer in any case, too.
        r#"{"credsStore":"low"}"#.to_owned(),
    ] {
        let dir = Dir::new();
        script(&dir, "docker-credential-good", answer);
        let low = answer.replace("Username", "username");
        let low = low.replace("Secret", "SECRET");
        script(&dir, "docker-credential-low", &low);
        dir.write(".docker/config.json", config);
        Run::pull(&dir, &registry.name("ns/r"))
            .env("PATH", &path(&dir))
            .archive();
    }
    for (name, text, words) in [
        ("missing", None, "cannot be started"),
        (
            "none",
            Some("echo 'credentials not found in native keychain'; exit 1"),
            "see --user",
        ),
        ("fails", Some("echo 'no such bus'; exit 3"), "no such bus"),
        (
            "talks",
            Some("head -c 1000000000 /dev/zero"),
            "printed more than",
        ),
        ("killed", Some("kill -9 $$"), "failed"),
        ("html", Some("echo '<html>'"), "HTML"),
        ("../evil", None, "not a helper name"),
    ] {
        let dir = Dir::new();
        if let Some(text) = text {
            script(&dir, &format!("docker-credential-{name}"), text);
        }
        dir.write(
            ".docker/config.json",
            format!(r#"{{"credsStore":"{name}"}}"#),
        );
        let outcome = Run::pull(&dir, &registry.name("ns/r"))
            .env("PATH", &path(&dir))
            .fails(3, words);
        assert_eq!(outcome.stderr.lines().count(), 1);
        assert!(outcome.peak < 8 << 20, "{} bytes resident", outcome.peak);
        // And none of it concerns a public image.
        Run::pull(&dir, &public().name("ns/r"))
            .env("PATH", &path(&dir))
            .archive();
    }
}

#[test]
fn a_helper_that_hangs_is_left() {
    let (registry, dir) = (private(), Dir::new());
    script(
        &dir,
        "docker-credential-slow",
        "echo $$ >number; exec sleep 100",
    );
    dir.write(".docker/config.json", r#"{"credsStore":"slow"}"#);
    let run = Run::pull(&dir, &registry.name("ns/r"))
        .env("PATH", &format!("{}:/usr/bin:/bin", dir.path().display()));
    run.limit(40).fails(3, "did not answer within 20 s");
    let number = std::fs::read_to_string(dir.join("number")).unwrap();
    let left = std::path::Path::new("/proc").join(number.trim()).exists();
    assert!(!left, "the helper runs on");
}

#[test]
fn files_that_cannot_be_used() {
    let registry = private();
    for make in [
        (|dir| drop(dir.write(".docker/config.json", "{"))) as fn(&Dir),
        |dir| drop(dir.write(".docker/config.json", "[".repeat(100_000))),
        |dir| std::fs::create_dir_all(dir.join(".docker/config.json")).unwrap(),
        |dir| drop(dir.write(".docker/config.json", vec![b' '; 2 << 20])),
        |dir| {
            std::fs::create_dir_all(dir.join(".docker")).unwrap();
            let status = std::process::Command::new("mkfifo")
                .arg(dir.join(".docker/config.json"))
                .status();
            assert!(status.unwrap().success());
        },
    ] {
        let dir = Dir::new();
        make(&dir);
        let outcome = Run::pull(&dir, &registry.name("ns/r"))
            .limit(10)
            .fails(3, ".docker/config.json");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
        Run::pull(&dir, &public().name("ns/r")).archive();
    }
}

/// A registry that accepts a token from its own endpoint.
fn with_tokens(endpoint: fn(&Seen) -> Reply) -> Registry {
    let registry = Registry::start();
    Image::small(1).push(&registry, "ns/r", "latest");
    let address = registry.address;
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            return Some(endpoint(seen));
        }
        (seen.header("authorization") != Some("Bearer good")).then(|| {
            Reply::unauthorized(&format!(
                r#"Bearer realm="http://{address}/token",service="s""#
            ))
        })
    });
    registry
}

#[test]
fn identity_tokens() {
    let config = |registry: &Registry| {
        format!(
            r#"{{"auths":{{"{}":{{"identitytoken":"secret+id"}}}}}}"#,
            registry.address
        )
    };
    let by_post = with_tokens(|seen| {
        let good = seen.method == "POST"
            && seen
                .body
                .contains("grant_type=refresh_token&refresh_token=secret%2Bid&service=s");
        if good {
            Reply::new(200, r#"{"access_token":"good"}"#)
        } else {
            Reply::new(401, "")
        }
    });
    let dir = Dir::new();
    dir.write(".docker/config.json", config(&by_post));
    Run::pull(&dir, &by_post.name("ns/r")).archive();
    assert!(
        by_post
            .seen()
            .iter()
            .all(|seen| !seen.target.contains("secret")),
        "a token in an address"
    );
    for status in [404, 405, 400, 401] {
        let by_get = match status {
            404 => with_tokens(|seen| {
                if seen.method == "POST" {
                    Reply::new(404, "")
                } else {
                    Reply::new(200, r#"{"token":"good"}"#)
                }
            }),
            405 => with_tokens(|seen| {
                if seen.method == "POST" {
                    Reply::new(405, "")
                } else {
                    Reply::new(200, r#"{"token":"good"}"#)
                }
            }),
            _ => with_tokens(|seen| {
                if seen.method == "POST" {
                    Reply::new(400, "")
                } else {
                    Reply::new(200, r#"{"token":"good"}"#)
                }
            }),
        };
        let dir = Dir::new();
        dir.write(".docker/config.json", config(&by_get));
        Run::pull(&dir, &by_get.name("ns/r")).archive();
    }
}

#[test]
fn an_identity_token_follows_its_endpoint_to_where_it_is_safe() {
    for (location, works) in [
        ("/token/new", true),
        ("http://localhost:PORT/token/new", false),
    ] {
        let registry = Registry::start();
        Image::small(1).push(&registry, "r", "latest");
        let address = registry.address;
        let location = location.replace("PORT", &address.port().to_string());
        registry.route(move |seen| {
            let moved = seen.target == "/token/new";
            if moved || seen.target == "/token" {
                let sent = seen.method == "POST" && seen.body.contains("refresh_token=secret");
                return Some(match (moved, sent) {
                    (true, true) => Reply::new(200, r#"{"access_token":"good"}"#),
                    (true, false) => Reply::new(401, ""),
                    _ => Reply::redirect(308, &location),
                });
            }
            (seen.header("authorization") != Some("Bearer good"))
                .then(|| Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#)))
        });
        let dir = Dir::new();
        let config = format!(r#"{{"auths":{{"{address}":{{"identitytoken":"secret"}}}}}}"#);
        dir.write(".docker/config.json", config);
        let run = Run::pull(&dir, &registry.name("r"));
        match works {
            true => drop(run.archive()),
            false => drop(run.fails(1, "another host")),
        }
        let told = registry.count("/token/new");
        assert_eq!(told, usize::from(works));
    }
}

#[test]
fn stale_credentials_are_named_by_their_file() {
    let registry = with_tokens(|seen| {
        if seen.header("authorization").is_some() {
            Reply::new(401, r#"{"details":"incorrect username or password"}"#)
        } else {
            Reply::new(200, r#"{"token":"good"}"#)
        }
    });
    let dir = Dir::new();
    dir.write(".docker/config.json", entry(&registry.address.to_string()));
    let outcome = Run::pull(&dir, &registry.name("ns/r")).fails(3, ".docker/config.json");
    assert!(
        outcome.stderr.contains("incorrect username"),
        "{}",
        outcome.stderr
    );
}
