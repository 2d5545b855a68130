//! The order of credential sources, and the forms of entries. `credentials` tests each source.

use crate::registry::image::Image;
use crate::registry::proxy::{Manner, Proxy};
use crate::registry::tls::{Authority, Leaf};
use crate::registry::{Registry, Reply};
use crate::util::{Dir, Run};
use std::os::unix::fs::PermissionsExt;

/// `me:hunter2`.
const BASIC: &str = "Basic bWU6aHVudGVyMg==";
const RIGHT: &str = r#"{"auth":"bWU6aHVudGVyMg=="}"#;
/// `me:wrong`.
const WRONG: &str = r#"{"auth":"bWU6d3Jvbmc="}"#;

/// A registry for those who know the password.
fn private() -> Registry {
    let registry = public();
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

/// A configuration with one entry.
fn auths(key: &str, entry: &str) -> String {
    format!(r#"{{"auths":{{"{key}":{entry}}}}}"#)
}

fn pull<'d>(dir: &'d Dir, registry: &Registry) -> Run<'d> {
    Run::pull(dir, &registry.name("ns/r")).args(&["-o", "x.tar"])
}

/// The same with a configuration of Docker's.
fn configured<'d>(dir: &'d Dir, registry: &Registry, config: &str) -> Run<'d> {
    dir.write("docker/config.json", config);
    pull(dir, registry).env("DOCKER_CONFIG", "docker")
}

/// A credential helper, and the path to find it by.
fn helper(dir: &Dir, script: &str) -> String {
    let path = dir.write(
        "bin/docker-credential-test",
        format!("#!/bin/sh\n{script}\n"),
    );
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", dir.join("bin").display())
}

#[test]
fn keys_and_forms_of_an_entry() {
    let registry = private();
    let host = registry.address.to_string();
    for config in [
        auths(&host, RIGHT),
        auths(&format!("http://{host}"), RIGHT),
        auths(&format!("https://{host}/v1/"), RIGHT),
        auths(&format!("https://{host}/v2/"), RIGHT),
        auths(&format!("{host}/ns"), RIGHT),
        auths(&format!("{host}/ns/r"), RIGHT),
        format!(r#"{{"auths":{{"{host}":{WRONG},"{host}/ns/r":{RIGHT},"{host}/ns":{WRONG}}}}}"#),
        format!(r#"{{"auths":{{"{host}/other":{WRONG},"{host}/n":{WRONG},"{host}":{RIGHT}}}}}"#),
        format!(r#"{{"auths":{{"https://{host}/v1/":{WRONG},"{host}":{RIGHT}}}}}"#),
        auths(&host, r#"{"auth":"bWU6\r\naHVudGVyMg==\r\n"}"#),
        // Docker pads passwords with zero bytes.
        auths(&host, r#"{"auth":"bWU6aHVudGVyMgAA"}"#),
        auths(&host, r#"{"username":"me","password":"hunter2"}"#),
        format!(
            r#"{{"HttpHeaders":{{"x":"y"}},"credsStore":"","auths":{{"{host}":{RIGHT}}},"plugins":[1,{{}}]}}"#
        ),
        format!("\u{feff}{}", auths(&host, RIGHT)).replace('\u{feff}', " \r\n\t"),
    ] {
        let dir = Dir::new();
        let outcome = configured(&dir, &registry, &config).outcome();
        assert!(outcome.status.success(), "{config}\n{}", outcome.stderr);
        outcome.keeps_secrets();
    }
}

#[test]
fn what_is_no_credential_is_as_good_as_none() {
    let (closed, open) = (private(), public());
    for entry in [
        "{}",
        r#"{"auth":""}"#,
        r#"{"auth":"!!!"}"#,
        r#"{"auth":"bWU="}"#,
        r#"{"auth":7}"#,
        "null",
    ] {
        let dir = Dir::new();
        configured(&dir, &open, &auths(&open.address.to_string(), entry)).archive();
        let dir = Dir::new();
        configured(&dir, &closed, &auths(&closed.address.to_string(), entry)).fails(3, "refused");
    }
    let mut seen = open.seen().into_iter();
    assert!(seen.all(|seen| seen.header("authorization").is_none()));
}

/// Every source, from the one that is asked first to the last.
const SOURCES: [&str; 8] = [
    "flags",
    "variables",
    "authfile",
    "DOCKER_AUTH_CONFIG",
    "REGISTRY_AUTH_FILE",
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
];

/// A pull with this password at one source.
fn with_source<'d>(run: Run<'d>, dir: &Dir, source: &str, host: &str, right: bool) -> Run<'d> {
    let config = auths(host, if right { RIGHT } else { WRONG });
    let password = if right { "hunter2" } else { "wrong" };
    match source {
        "flags" => run.args(&["--user", "me", "--password", password]),
        "variables" => run
            .env("DOCKERSAVE_USER", "me")
            .env("DOCKERSAVE_PASSWORD", password),
        "authfile" => run.args(&["--authfile", &dir.write("auth.json", config)]),
        "DOCKER_AUTH_CONFIG" => run.env(source, &config),
        "REGISTRY_AUTH_FILE" => run.env(source, &dir.write("registry.json", config)),
        "HOME" => {
            dir.write(".docker/config.json", config);
            run
        }
        _ => {
            dir.write(&format!("{source}/containers/auth.json"), config);
            run.env(source, source)
        }
    }
}

#[test]
fn the_earlier_source_wins() {
    let registry = private();
    let host = registry.address.to_string();
    for (at, source) in SOURCES.iter().enumerate() {
        let dir = Dir::new();
        let mut run = with_source(pull(&dir, &registry), &dir, source, &host, true);
        for later in &SOURCES[at + 1..] {
            run = with_source(run, &dir, later, &host, false);
        }
        let outcome = run.outcome();
        assert!(outcome.status.success(), "{source}: {}", outcome.stderr);
    }
    // DOCKER_CONFIG stands for the place in HOME.
    let dir = Dir::new();
    let run = configured(&dir, &registry, &auths(&host, RIGHT));
    with_source(run, &dir, "HOME", &host, false).archive();
}

#[test]
fn a_source_for_another_registry_is_passed_over() {
    let (registry, dir) = (private(), Dir::new());
    let run = pull(&dir, &registry).env("DOCKER_AUTH_CONFIG", &auths("ghcr.io", WRONG));
    with_source(run, &dir, "HOME", &registry.address.to_string(), true).archive();
}

#[test]
fn hubs_keys() {
    let authority = Authority::new();
    let leaf = Leaf {
        names: vec!["registry-1.docker.io".into()],
        ..Leaf::default()
    };
    let registry = Registry::start_tls(authority.server(&leaf));
    Image::small(1).push(&registry, "library/debian", "latest");
    registry.route(|seen| {
        (seen.header("authorization") != Some(BASIC)).then(|| Reply::unauthorized("Basic realm=x"))
    });
    let proxy = Proxy::start(registry.address, Manner::Open);
    for key in [
        "https://index.docker.io/v1/",
        "index.docker.io",
        "docker.io",
        "docker.io/library",
    ] {
        let dir = Dir::new();
        let ca = dir.write("ca.pem", &authority.pem);
        // What Docker Desktop leaves behind is no password.
        let more = r#""https://index.docker.io/v1/access-token":{"auth":"bWU6d3Jvbmc="},"#;
        let config = format!(r#"{{"auths":{{{more}"{key}":{RIGHT}}}}}"#);
        dir.write(".docker/config.json", config);
        let outcome = Run::new(&dir, &["--cacert", &ca, "debian"])
            .env("https_proxy", &proxy.address.to_string())
            .outcome();
        assert!(outcome.status.success(), "{key}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "library-debian-latest.tar\n");
    }
}

#[test]
fn an_identity_token_that_nobody_takes_is_refused() {
    let (registry, dir) = (public(), Dir::new());
    let address = registry.address;
    registry.route(move |seen| {
        Some(match seen.target.starts_with("/token") {
            true => Reply::new(400, r#"{"error":"invalid_grant"}"#),
            false => Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#)),
        })
    });
    let entry = r#"{"identitytoken":"t0ken"}"#;
    let outcome = configured(&dir, &registry, &auths(&address.to_string(), entry)).outcome();
    assert!(
        matches!(outcome.status.code(), Some(3 | 5)),
        "{}",
        outcome.stderr
    );
    outcome.keeps_secrets();
}

#[test]
fn a_registry_token_is_sent_as_it_is() {
    let (registry, dir) = (public(), Dir::new());
    registry.route(|seen| {
        (seen.header("authorization") != Some("Bearer t0ken"))
            .then(|| Reply::unauthorized(r#"Bearer realm="http://127.0.0.1:1/""#))
    });
    let entry = r#"{"registrytoken":"t0ken"}"#;
    configured(
        &dir,
        &registry,
        &auths(&registry.address.to_string(), entry),
    )
    .archive();
}

#[test]
fn a_helper_goes_before_the_file_and_is_told_the_registry() {
    let registry = private();
    let host = registry.address.to_string();
    let answer = r#"cat >asked; test "$1" = get && echo '{"Username":"me","Secret":"hunter2"}'"#;
    for config in [
        format!(r#"{{"credHelpers":{{"{host}":"test"}},"auths":{{"{host}":{WRONG}}}}}"#),
        format!(r#"{{"credHelpers":{{"{host}":"test"}},"credsStore":"missing"}}"#),
        format!(r#"{{"credsStore":"test","auths":{{"{host}":{{}}}}}}"#),
    ] {
        let dir = Dir::new();
        let path = helper(&dir, answer);
        let outcome = configured(&dir, &registry, &config)
            .env("PATH", &path)
            .outcome();
        assert!(outcome.status.success(), "{config}\n{}", outcome.stderr);
        let asked = std::fs::read_to_string(dir.join("asked")).unwrap();
        assert_eq!(asked.trim_end(), host);
    }
}

#[test]
fn a_missing_helper_leaves_the_file() {
    let (registry, dir) = (private(), Dir::new());
    let host = registry.address.to_string();
    let config = format!(r#"{{"credsStore":"desktop","auths":{{"{host}":{RIGHT}}}}}"#);
    configured(&dir, &registry, &config).archive();
    // A name with a path is not a helper's name.
    let open = public();
    let dir = Dir::new();
    let path = helper(&dir, "touch was-run");
    for suffix in [
        "../bin/docker-credential-test",
        "test x",
        "/bin/sh",
        "test/../test",
    ] {
        let config = format!(r#"{{"credsStore":"{suffix}"}}"#);
        configured(&dir, &open, &config)
            .env("PATH", &path)
            .archive();
    }
    assert!(!dir.names().contains(&"was-run".to_owned()));
}

#[test]
fn where_post_is_unknown_the_password_is_used() {
    for status in [404, 405, 400, 401] {
        let (registry, dir) = (public(), Dir::new());
        let address = registry.address;
        registry.route(move |seen| {
            if seen.target.starts_with("/token") {
                let known = (seen.method.as_str(), seen.header("authorization"));
                return Some(match known {
                    ("POST", _) => Reply::new(status, ""),
                    (_, Some(BASIC)) => Reply::new(200, r#"{"token":"right"}"#),
                    _ => Reply::new(401, ""),
                });
            }
            (seen.header("authorization") != Some("Bearer right")).then(|| {
                Reply::unauthorized(&format!(
                    r#"Bearer realm="http://{address}/token",service="s""#
                ))
            })
        });
        let entry = r#"{"auth":"bWU6aHVudGVyMg==","identitytoken":"t0ken"}"#;
        let outcome = configured(
            &dir,
            &registry,
            &auths(&registry.address.to_string(), entry),
        )
        .outcome();
        assert!(outcome.status.success(), "{status}: {}", outcome.stderr);
    }
}

#[test]
fn an_entry_that_is_no_base64_is_named() {
    let (registry, dir) = (private(), Dir::new());
    let config = auths(&registry.address.to_string(), r#"{"auth":"!!!"}"#);
    configured(&dir, &registry, &config).fails(3, "config.json");
}

fn asks_for_basic(repository: &str) -> Registry {
    let registry = Registry::start();
    Image::small(1).push(&registry, repository, "latest");
    registry.route(|seen| {
        let none = seen.header("authorization").is_none();
        none.then(|| Reply::unauthorized("Basic realm=x"))
    });
    registry
}

fn was_told(registry: &Registry) -> bool {
    let seen = registry.seen();
    seen.iter()
        .any(|seen| seen.header("authorization").is_some())
}

#[test]
fn a_password_belongs_to_one_registry() {
    let (one, two, dir) = (asks_for_basic("r"), asks_for_basic("r"), Dir::new());
    let names = [one.name("r"), two.name("r")];
    let both = |args: &[&str]| {
        Run::new(
            &dir,
            &[
                "--insecure",
                "--retries",
                "0",
                "-o",
                "x.tar",
                &names[0],
                &names[1],
            ],
        )
        .args(args)
    };
    for args in [
        &["--user", "me", "--password", "hunter2"][..],
        &["--user", "me", "--password-stdin"],
        &["--ilogin"],
    ] {
        both(args).stdin("hunter2\n").fails(2, "--authfile");
    }
    assert!(one.seen().is_empty() && two.seen().is_empty());
    let variables = |run: Run<'_>| {
        let run = run
            .env("DOCKERSAVE_USER", "me")
            .env("DOCKERSAVE_PASSWORD", "hunter2");
        run.fails(3, "DOCKERSAVE_REGISTRY");
    };
    // The first image's registry, or the one that is named.
    variables(both(&[]));
    assert!(was_told(&one) && !was_told(&two));
    one.forget();
    two.forget();
    variables(both(&[]).env("DOCKERSAVE_REGISTRY", "registry.example"));
    assert!(!was_told(&one) && !was_told(&two));
    let address = two.address.to_string();
    variables(both(&[]).env("DOCKERSAVE_REGISTRY", &address));
    assert!(!was_told(&one));
    Run::pull(&dir, &two.name("r"))
        .env("DOCKERSAVE_USER", "me")
        .env("DOCKERSAVE_PASSWORD", "hunter2")
        .env("DOCKERSAVE_REGISTRY", &format!("https://{address}/"))
        .archive();
    // Two images of one registry are no trouble, and a file holds credentials for both.
    let same = one.name("r:latest");
    Run::pull(&dir, &names[0])
        .args(&[
            &same,
            "-o",
            "y.tar",
            "--user",
            "me",
            "--password",
            "hunter2",
        ])
        .archive();
    let file = format!(
        r#"{{"auths":{{"{}":{RIGHT},"{address}":{RIGHT}}}}}"#,
        one.address
    );
    both(&["--authfile", &dir.write("auth.json", file)]).archive();
}

#[test]
fn a_password_of_the_command_line_goes_to_no_mirror() {
    let (registry, mirror, dir) = (asks_for_basic("r"), asks_for_basic("r"), Dir::new());
    for variables in [false, true] {
        let run = Run::pull(&dir, &registry.name("r")).args(&[
            "-o",
            "x.tar",
            "--restart",
            "--mirror",
            &mirror.address.to_string(),
        ]);
        let run = match variables {
            true => run
                .env("DOCKERSAVE_USER", "me")
                .env("DOCKERSAVE_PASSWORD", "hunter2"),
            false => run.args(&["--user", "me", "--password", "hunter2"]),
        };
        run.archive();
        assert!(!was_told(&mirror));
    }
}

#[test]
fn one_bad_entry_does_not_spoil_a_file() {
    let registry = asks_for_basic("r");
    let ours = format!(r#""{}":{RIGHT}"#, registry.address);
    for config in [
        format!(r#"{{"auths":{{"other.example":null,{ours}}}}}"#),
        format!(r#"{{"auths":{{"other.example":"x",{ours}}}}}"#),
        format!(r#"{{"auths":{{"other.example":[7],{ours}}}}}"#),
        format!(r#"{{"auths":{{"other.example":{{"auth":null,"email":null}},{ours}}}}}"#),
        format!(r#"{{"Auths":{{{ours}}},"credSstore":""}}"#),
        format!(r#"{{"auths":{{{}}}}}"#, ours.replace("auth", "Auth")),
        format!(r#"{{"auths":{{{ours}}},"credHelpers":null,"credsStore":null}}"#),
        format!(r#"{{"auths":{{{ours}}},"credHelpers":[],"credsStore":{{}},"HttpHeaders":"x"}}"#),
    ] {
        let dir = Dir::new();
        dir.write(".docker/config.json", config);
        Run::pull(&dir, &registry.name("r")).archive();
    }
    // A null entry for this registry is mentioned if access is refused.
    let dir = Dir::new();
    dir.write(
        ".docker/config.json",
        format!(r#"{{"auths":{{"{}":null}}}}"#, registry.address),
    );
    Run::pull(&dir, &registry.name("r")).fails(3, "is empty");
}
