//! Messages: no text from a registry controls the terminal or fakes a line, and no secret is in any
//! text.

use crate::registry::image::{DOCKER_MANIFEST, Image, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, sha256};
use crate::registry::{Content, Registry, Reply};
use crate::util::{Dir, Outcome, Run};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

/// A title, a clear, right to left, a line separator, a second line, an invisible tag.
const EVIL: &str = "\x1b]0;owned\x07\u{9b}2J\u{202e}\u{2028}\r\nfake-line\x7f\u{e0041}\u{ad}";
/// The same as a JSON string's content.
const QUOTED: &str =
    r"\u001b]0;owned\u0007\u009b2J\u202e\u2028\r\nfake-line\u007f\udb40\udc41\u00ad";

fn bytes(text: &str) -> Content {
    Content::Bytes(Arc::new(text.as_bytes().to_vec()))
}

#[track_caller]
fn harmless(outcome: &Outcome, what: &str) {
    for text in [&outcome.stdout, &outcome.stderr] {
        let bad = EVIL
            .chars()
            .filter(|c| *c != '\n' && !c.is_ascii_graphic())
            .find(|c| text.contains(*c));
        assert!(bad.is_none(), "{what}: {bad:?} in {text:?}");
        assert!(!text.contains("\nfake-line"), "{what}: {text:?}");
        assert!(!text.contains("panicked"), "{what}: {text}");
    }
}

/// An image whose platform is hostile, alone (`single`), in an index (`latest`), and artifacts.
fn hostile() -> Registry {
    let registry = Registry::start();
    let layer = Image::small(1).layers[0].clone();
    layer_of(&registry, &layer.digest, layer.data());
    let config = format!(
        r#"{{"architecture":"arm{QUOTED}","os":"lin{QUOTED}","variant":"{QUOTED}","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        layer.diff_id
    );
    let config_digest = sha256(config.as_bytes());
    registry.put(&format!("/v2/r/blobs/{config_digest}"), "x", bytes(&config));
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{{"mediaType":"{OCI_CONFIG}","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"{}","digest":"{}","size":{}}}],"annotations":{{"a":"{}"}}}}"#,
        config.len(),
        layer.media_type,
        layer.digest,
        layer.data().len(),
        "\u{9b}2J\u{202e}\u{7f}\u{e4}",
    );
    let digest = sha256(manifest.as_bytes());
    for target in ["single", &digest] {
        registry.put(
            &format!("/v2/r/manifests/{target}"),
            OCI_MANIFEST,
            bytes(&manifest),
        );
    }
    let entry = |platform: &str| {
        format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":{},"platform":{platform}}}"#,
            manifest.len()
        )
    };
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{},{}]}}"#,
        entry(r#"{"os":"linux","architecture":"amd64"}"#),
        entry(&format!(
            r#"{{"os":"linux{QUOTED}","architecture":"x{QUOTED}","variant":"{QUOTED}"}}"#
        )),
    );
    registry.put("/v2/r/manifests/latest", OCI_INDEX, bytes(&index));
    let artifact = manifest.replace(OCI_CONFIG, &format!("x/{QUOTED}"));
    registry.put("/v2/r/manifests/artifact", OCI_MANIFEST, bytes(&artifact));
    registry.put(
        "/v2/r/manifests/type",
        DOCKER_MANIFEST,
        bytes(&manifest.replace(&layer.media_type, &format!("y/{QUOTED}"))),
    );
    registry.route(|seen| {
        let tags = seen.target.contains("/tags/list");
        let answer = format!(r#"{{"tags":["a{QUOTED}b","ok"]}}"#);
        let warning = "Warning: 299 - \"w\x1b[2J\u{9b}\u{202e}\"";
        let gone = seen.target.ends_with("/gone");
        let body = format!(
            r#"{{"errors":[{{"code":"{QUOTED}","message":"m{QUOTED}","detail":"{QUOTED}"}}]}}"#
        );
        match (tags, gone) {
            (true, _) => Some(Reply::new(200, answer).with(warning)),
            (_, true) => Some(Reply::new(404, body).with(warning)),
            _ => None,
        }
    });
    registry
}

fn layer_of(registry: &Registry, digest: &str, data: Vec<u8>) {
    let target = format!("/v2/r/blobs/{digest}");
    registry.put(&target, "x", Content::Bytes(Arc::new(data)));
}

#[test]
fn a_registrys_characters_reach_no_terminal_by_any_command() {
    let registry = hostile();
    for (tag, args) in [
        ("", &["--tags"][..]),
        ("", &["--tags", "-v"]),
        ("", &["--tags", "--json"]),
        ("", &["--platforms"]),
        ("", &["--platforms", "--json"]),
        ("", &["--metadata", "--json"]),
        ("", &["--sha", "-v", "--platform", "linux/s390x"]),
        ("", &["--platform", "linux/amd64"]),
        ("", &["-v", "--json", "--platform", "linux/amd64"]),
        ("", &["--platform", "linux/amd64", "--progress", "json"]),
        ("", &["--platform", "linux/s390x", "--progress", "json"]),
        ("", &["--all-platforms", "-v"]),
        ("", &["--dry-run", "--platform", "linux/amd64"]),
        (":single", &[]),
        (":single", &["--progress", "json", "--json"]),
        (":single", &["--platform", "linux/amd64"]),
        (":artifact", &[]),
        (":type", &[]),
        (":gone", &["-v"]),
        (":gone", &["--progress", "json"]),
    ] {
        let dir = Dir::new();
        let outcome = Run::pull(&dir, &format!("{}{tag}", registry.name("r")))
            .args(args)
            .outcome();
        harmless(&outcome, &args.join(" "));
        if args.contains(&"--json") {
            assert!(outcome.stdout.is_ascii(), "{}", outcome.stdout);
        }
        if args.contains(&"json") {
            assert!(outcome.stderr.is_ascii(), "{}", outcome.stderr);
        }
    }
}

#[test]
fn metadata_is_the_registrys_own_for_programs_and_ascii_in_json() {
    let (registry, dir) = (hostile(), Dir::new());
    let name = format!("{}:single", registry.name("r"));
    let raw = Run::pull(&dir, &name).arg("--metadata").outcome().stdout;
    assert!(raw.contains('\u{9b}') && raw.contains('\u{e4}'), "{raw:?}");
    let json = Run::pull(&dir, &name)
        .args(&["--metadata", "--json"])
        .status(0)
        .stdout;
    assert!(json.is_ascii(), "{json}");
    assert!(json.contains(r"\u009b2J\u202e\u007f\u00e4"), "{json}");
}

#[test]
fn metadata_keeps_addresses_so_that_its_digest_holds() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let address = "https://git.example/a?ref=v1 git@git.example:a/b.git https://u@h/x";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[],"annotations":{{"a":"{address}"}}}}"#
    );
    registry.put("/v2/r/manifests/1", OCI_INDEX, bytes(&manifest));
    let name = format!("{}:1", registry.name("r"));
    let metadata = |flags: &[&str]| Run::pull(&dir, &name).args(flags).status(0).stdout;
    assert_eq!(metadata(&["--metadata"]), manifest.clone() + "\n");
    let json = metadata(&["--metadata", "--json"]);
    assert!(json.contains(&manifest), "{json}");
}

const PASSWORD: &str = "s3cret-w/rd";
const BASE64: &str = "bWU6czNjcmV0LXcvcmQ";

#[track_caller]
fn silent(outcome: &Outcome, what: &str) {
    for text in [&outcome.stdout, &outcome.stderr] {
        let plain = text.replace("%2F", "/").replace("%2f", "/");
        for secret in [PASSWORD, BASE64, "czNjcmV0LXcvcm", "s3cret"] {
            assert!(!plain.contains(secret), "{what}: {secret} in {text}");
        }
        assert!(!text.contains("panicked"), "{what}: {text}");
    }
}

#[test]
fn a_server_that_echoes_a_secret_is_not_repeated() {
    type Echo = fn(&str) -> Reply;
    let echoes: [(&str, Echo); 12] = [
        ("message", |a| {
            Reply::new(
                403,
                format!(r#"{{"errors":[{{"code":"DENIED","message":"bad: {a}"}}]}}"#),
            )
        }),
        ("code", |a| {
            Reply::new(403, format!(r#"{{"errors":[{{"code":"{a}"}}]}}"#))
        }),
        ("text", |a| Reply::new(500, format!("no: {a}"))),
        ("cut", |a| {
            Reply::new(403, format!("{}{a}", "x".repeat(190)))
        }),
        ("xml", |a| {
            Reply::new(403, format!("<Error><Code>{a}</Code></Error>"))
        }),
        ("password", |_| {
            Reply::new(403, format!("user me:{PASSWORD}"))
        }),
        ("percent", |_| Reply::new(403, "user me:s3cret-w%2frd")),
        ("unicode", |_| {
            Reply::new(403, r#"{"message":"me:s3cret-w\\u002frd"}"#)
        }),
        ("address", |_| {
            Reply::new(403, format!("see https://me:{PASSWORD}@h/x?token=1"))
        }),
        ("warning", |a| {
            Reply::new(404, "").with(format!("Warning: 299 - \"{a}\""))
        }),
        ("location", |_| {
            Reply::redirect(
                302,
                &format!("http://s3cret-w.invalid/{PASSWORD}/x?{PASSWORD}"),
            )
        }),
        ("location with a user", |_| {
            Reply::redirect(302, &format!("http://me:{PASSWORD}@127.0.0.1:1/x"))
        }),
    ];
    for (name, echo) in echoes {
        let (registry, dir) = (Registry::start(), Dir::new());
        registry.route(move |seen| {
            Some(match seen.header("authorization") {
                Some(field) => echo(field),
                None => Reply::unauthorized("Basic realm=x"),
            })
        });
        let outcome = Run::new(&dir, &["--insecure", "--retries", "0", "-v"])
            .args(&["--user", "me", "--password", PASSWORD, &registry.name("r")])
            .outcome();
        assert!(!outcome.status.success());
        // A host's name is what the redirect is about; the password's beginning may be one.
        if name != "location" {
            silent(&outcome, name);
        }
        assert!(
            !outcome.stderr.contains(PASSWORD),
            "{name}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn tokens_are_not_repeated_either() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let address = registry.address;
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            return Some(Reply::new(200, r#"{"token":"eyJhbGciOi.payload"}"#));
        }
        Some(match seen.header("authorization") {
            Some(field) => Reply::new(403, format!("this is no good: {field}")),
            None => Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#)),
        })
    });
    let outcome = Run::pull(&dir, &registry.name("r")).fails(3, "this is no good: Bearer ***");
    assert!(!outcome.stderr.contains("payload"), "{}", outcome.stderr);
}

#[test]
fn what_precedes_an_at_sign_is_left_out_of_every_message() {
    let at = |scheme: &str| format!("{scheme}me:{PASSWORD}@host.example");
    let spaced = "https://me:s3cret w@host.example".to_owned();
    for (name, value) in [
        ("--mirror", at("https://")),
        ("--mirror", at("ftp://")),
        ("--mirror", at("")),
        ("--mirror", "s3cret@host.example".into()),
        ("--mirror", "https://me:s3cret?x@host.example".into()),
        ("--mirror", spaced.clone()),
        ("", at("https://") + "/app"),
        ("", at("") + "/app"),
        ("", "s3cret@host.example/app".into()),
        ("", "me:s3cret@x@host.example/app".into()),
        ("", spaced),
        ("HTTP_PROXY", at("socks5://")),
        ("HTTP_PROXY", "http://me:s3cret-w@bad host".into()),
        ("HTTP_PROXY", "me:s3cret-w://x@p".into()),
        ("HTTP_PROXY", "http://me:a@s3cret/w@127.0.0.2:1".into()),
        ("--password-stdin=", "s3cret".into()),
        ("-q=", "s3cret".into()),
        ("--pasword=", "s3cret".into()),
    ] {
        let dir = Dir::new();
        let run = Run::new(&dir, &["--insecure", "--retries", "0", "--sha"]);
        let run = match name {
            "" => run.arg(&value),
            "HTTP_PROXY" => run.env(name, &value).arg("host.example/app"),
            "--mirror" => run.args(&[name, &value, "host.example/app"]),
            _ => run.arg(&format!("{name}{value}")),
        };
        let outcome = run.outcome();
        assert!(!outcome.status.success(), "{name} {value}");
        silent(&outcome, &format!("{name} {value}"));
    }
}

#[test]
fn a_helpers_words_are_shown_only_where_they_hold_no_secret() {
    let registry = Registry::start();
    registry.route(|seen| {
        let none = seen.header("authorization").is_none();
        none.then(|| Reply::unauthorized("Basic realm=x"))
    });
    for text in [
        r#"printf '{"Username":"me","Secret":"s3cret-w/rd"}'; exit 1"#,
        r#"echo warning; printf '{"Username":"me","Secret":"s3cret-w/rd"}'; exit 1"#,
        r#"printf '{"Username":"me","Secret":"s3cret-w/rd"'"#,
        "printf 'Secret: s3cret-w/rd'",
        "echo s3cret-w/rd; exit 1",
        "echo the password is s3cret-w/rd; exit 1",
        "echo the token is s3cret >&2; echo s3cret; exit 1",
        "echo bWU6czNjcmV0LXcvcmQ=; exit 1",
    ] {
        let dir = Dir::new();
        let path = dir.write("docker-credential-odd", format!("#!/bin/sh\n{text}\n"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        dir.write(".docker/config.json", r#"{"credsStore":"odd"}"#);
        let outcome = Run::pull(&dir, &registry.name("r"))
            .arg("-v")
            .env("PATH", &format!("{}:/usr/bin:/bin", dir.path().display()))
            .status(3);
        silent(&outcome, text);
    }
}
