//! Challenges, tokens, credentials: the right ones, to the right host only.

use crate::registry::image::{Blob, Image};
use crate::registry::tls::{Authority, Leaf};
use crate::registry::{Action, Fault, Registry, Reply, Seen};
use crate::util::{Dir, Run, can_mount};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const BASIC: &str = "Basic bWU6aHVudGVyMg==";

/// A registry whose `/v2/` requires a Bearer token from its own `/token`; tokens are numbered.
struct Guarded {
    registry: Registry,
    tokens: Arc<AtomicU32>,
}

/// The token endpoint's response for this token.
type Endpoint = fn(&Seen, u32) -> Reply;

fn plain(_: &Seen, number: u32) -> Reply {
    Reply::new(200, format!(r#"{{"access_token":"t{number}"}}"#))
}

fn guarded(challenge: &'static str, endpoint: Endpoint, accepts: fn(&str) -> bool) -> Guarded {
    let registry = Registry::start();
    Image::small(1).push(&registry, "r", "latest");
    let tokens = Arc::new(AtomicU32::new(0));
    let (count, address) = (tokens.clone(), registry.address);
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            return Some(endpoint(seen, count.fetch_add(1, Ordering::SeqCst) + 1));
        }
        let token = seen
            .header("authorization")
            .and_then(|field| field.strip_prefix("Bearer "));
        if token.is_some_and(accepts) {
            return None;
        }
        Some(Reply::unauthorized(
            &challenge.replace("REALM", &format!("http://{address}/token")),
        ))
    });
    Guarded { registry, tokens }
}

const CHALLENGE: &str = r#"Bearer realm="REALM",service="s",scope="repository:r:pull""#;

impl Guarded {
    fn pull<'d>(&self, dir: &'d Dir) -> Run<'d> {
        Run::pull(dir, &self.registry.name("r"))
    }

    fn tokens(&self) -> u32 {
        self.tokens.load(Ordering::SeqCst)
    }
}

#[test]
fn an_anonymous_token_is_asked_for_once() {
    let (guarded, dir) = (guarded(CHALLENGE, plain, |token| token == "t1"), Dir::new());
    guarded.pull(&dir).archive();
    assert_eq!(guarded.tokens(), 1);
    // One 401, one token, then five requests that succeed.
    assert_eq!(guarded.registry.seen().len(), 7);
    let token = guarded
        .registry
        .seen()
        .iter()
        .find(|seen| seen.target.starts_with("/token"))
        .cloned()
        .unwrap();
    assert!(
        token.target.contains("service=s") && token.target.contains("scope=repository:r:pull"),
        "{}",
        token.target
    );
    assert_eq!(token.header("authorization"), None);
}

/// The requests of a public pull with TLS and a token server: n + 2, the refused one, and the
/// token. Before the first layer, in sequence: connection and TLS, challenge, connection and TLS,
/// token, manifest, config.
#[test]
fn a_public_pull_with_a_token_takes_no_more_than_it_needs() {
    let (authority, dir) = (Authority::new(), Dir::new());
    let ca = dir.write("ca.pem", &authority.pem);
    let start = || Registry::start_tls(authority.server(&Leaf::default()));
    let (registry, tokens) = (start(), start());
    let image = Image::new((0..9).map(|seed| Blob::layer(seed, 30_000)).collect());
    image.push(&registry, "r", "latest");
    let address = tokens.address;
    registry.route(move |seen| {
        let challenge = CHALLENGE.replace("REALM", &format!("https://{address}/token"));
        let none = seen.header("authorization").is_none();
        none.then(|| Reply::unauthorized(&challenge))
    });
    tokens.route(|_| Some(Reply::new(200, r#"{"token":"t"}"#)));
    Run::new(&dir, &["--cacert", &ca, &registry.name("r")])
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    let seen = registry.seen();
    assert_eq!(seen.len(), 9 + 2 + 1);
    assert_eq!((tokens.seen().len(), tokens.connections()), (1, 1));
    let first: Vec<_> = seen[..3].iter().map(|s| (s.status, s.connection)).collect();
    assert_eq!(first, [(401, 0), (200, 0), (200, 0)]);
    assert!(seen[0].target.ends_with("/manifests/latest"));
    assert!(seen[2].target.ends_with(&image.config.digest));
    // Six at once, by default.
    assert!(registry.connections() <= 6, "{}", registry.connections());
}

#[test]
fn a_token_that_ends_between_layers_is_renewed_once() {
    let (guarded, dir) = (guarded(CHALLENGE, plain, |_| true), Dir::new());
    let used = Arc::new(AtomicU32::new(0));
    let registry = &guarded.registry;
    let layer = Image::small(1).layers[2].digest.clone();
    registry.faults(Fault::new(&layer, Action::Reply(Reply::new(401, ""))).times(1));
    drop(used);
    // The 401 has no challenge: it is requested from /v2/.
    let outcome = guarded.pull(&dir).args(&["--jobs", "1"]).outcome();
    assert!(outcome.status.success(), "{}", outcome.stderr);
    assert_eq!(registry.count(&layer), 2);
}

#[test]
fn an_expired_token_is_renewed_and_the_layer_goes_on() {
    let (guarded, dir) = (guarded(CHALLENGE, plain, |_| true), Dir::new());
    let layer = Image::small(1).layers[1].digest.clone();
    let challenge = CHALLENGE.replace(
        "REALM",
        &format!("http://{}/token", guarded.registry.address),
    );
    guarded
        .registry
        .faults(Fault::new(&layer, Action::Reply(Reply::unauthorized(&challenge))).times(1));
    guarded.pull(&dir).archive();
}

#[test]
fn a_token_that_never_pleases_is_asked_for_twice_at_most() {
    let challenge = r#"Bearer realm="REALM",service="s",error="invalid_token""#;
    let (guarded, dir) = (guarded(challenge, plain, |_| false), Dir::new());
    guarded.pull(&dir).fails(3, "refused: HTTP 401");
    assert_eq!(guarded.tokens(), 1);
    assert_eq!(guarded.registry.count("/manifests/"), 2);
}

#[test]
fn a_wider_scope_is_asked_for_once() {
    let registry = Registry::start();
    Image::small(1).push(&registry, "r", "latest");
    let address = registry.address;
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            let wide = seen.target.contains("scope=repository:base:pull");
            return Some(Reply::new(200, format!(r#"{{"token":"{}"}}"#, if wide { "wide" } else { "narrow" })));
        }
        match seen.header("authorization") {
            Some("Bearer wide") => None,
            Some(_) => Some(Reply::unauthorized(&format!(
                r#"Bearer realm="http://{address}/token",error="insufficient_scope",scope="repository:r:pull repository:base:pull""#
            ))),
            None => Some(Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token",scope="repository:r:pull""#))),
        }
    });
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r")).archive();
    assert_eq!(registry.count("/token"), 2);
}

#[test]
fn bearer_among_other_challenges() {
    for challenge in [
        r#"Negotiate, Bearer realm="REALM",service="s", Basic realm="x""#,
        "Negotiate oYG2==\r\nWWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Bearer realm=\"REALM\"",
    ] {
        let (guarded, dir) = (guarded(challenge, plain, |token| token == "t1"), Dir::new());
        guarded.pull(&dir).archive();
        // No scope was named: ours is requested.
        assert_eq!(guarded.registry.count("scope=repository:r:pull"), 1);
    }
}

#[test]
fn odd_but_legal_challenges() {
    for challenge in [
        r#"BEARER   Realm = "REALM" , SERVICE="a\"b,c",scope="repository:r:pull,push""#,
        r#"bearer realm="REALM?already=there",service="""#,
    ] {
        let (guarded, dir) = (guarded(challenge, plain, |token| token == "t1"), Dir::new());
        guarded.pull(&dir).archive();
    }
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    registry.route(|seen| {
        (seen.header("authorization") != Some(BASIC))
            .then(|| Reply::unauthorized("BASIC realm=nexus"))
    });
    Run::pull(&dir, &registry.name("r"))
        .args(&["--user", "me", "--password", "hunter2"])
        .archive();
}

#[test]
fn broken_challenges_end_in_one_line() {
    for challenge in [
        r#"Bearer realm="x"#,
        "Bearer",
        r#"Bearer service="s""#,
        "",
        "Digest realm=x",
        ",",
    ] {
        let (guarded, dir) = (guarded(challenge, plain, |_| true), Dir::new());
        let outcome = guarded.pull(&dir).fails(3, "refused: HTTP 401");
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
    let (guarded, dir) = (
        guarded(r#"Bearer realm="ftp://h/t""#, plain, |_| true),
        Dir::new(),
    );
    guarded.pull(&dir).fails(1, "realm");
}

#[test]
fn a_realms_own_query_is_kept() {
    let (guarded, dir) = (
        guarded(r#"Bearer realm="REALM?a=b",service="s""#, plain, |_| true),
        Dir::new(),
    );
    guarded.pull(&dir).archive();
    assert_eq!(guarded.registry.count("/token?a=b&service=s&scope="), 1);
}

#[test]
fn realms_that_are_not_safe_are_told_nothing() {
    for realm in [
        "http://169.254.169.254/t",
        "http://u:p@127.0.0.1:1/t",
        "http://[fd00:ec2::254]/t",
        "http://0.0.0.0/t",
    ] {
        let registry = Registry::start();
        registry.route(move |_| {
            Some(Reply::unauthorized(&format!(
                r#"Bearer realm="{realm}",service="s""#
            )))
        });
        let dir = Dir::new();
        let run = Run::pull(&dir, &registry.name("r"))
            .args(&["--user", "me", "--password", "hunter2"])
            .limit(5);
        run.fails(1, "nothing was sent to it");
        assert!(
            registry
                .seen()
                .iter()
                .all(|seen| seen.header("authorization").is_none())
        );
    }
}

#[test]
fn a_realm_on_another_host() {
    let (tokens, registry, dir) = (Registry::start(), Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    tokens.route(|seen| Some(plain(seen, 1)));
    let realm = tokens.address;
    registry.route(move |seen| {
        seen.header("authorization")
            .is_none()
            .then(|| Reply::unauthorized(&format!(r#"Bearer realm="http://{realm}/t""#)))
    });
    Run::pull(&dir, &registry.name("r"))
        .args(&["--user", "me", "--password", "hunter2"])
        .archive();
    assert_eq!(tokens.seen()[0].header("authorization"), Some(BASIC));
    assert!(tokens.seen()[0].target.contains("account=me"));
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| seen.header("authorization") != Some(BASIC))
    );
}

#[test]
fn a_token_endpoint_that_redirects_elsewhere() {
    let (other, dir) = (Registry::start(), Dir::new());
    let registry = Registry::start();
    let (address, away) = (registry.address, other.address);
    registry.route(move |seen| {
        Some(match seen.target.starts_with("/token") {
            true => Reply::redirect(307, &format!("http://{away}/token")),
            false => Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#)),
        })
    });
    Run::pull(&dir, &registry.name("r"))
        .args(&["--user", "me", "--password", "hunter2"])
        .fails(1, "another host");
    assert!(other.seen().is_empty());
}

#[test]
fn what_token_endpoints_may_answer() {
    let cases: [(Endpoint, i32, &str); 4] = [
        (|_, _| Reply::new(200, "<html>login</html>"), 1, "HTML"),
        (
            |_, _| Reply::new(200, vec![b' '; 2 << 20]),
            1,
            "limit of 1048576 bytes",
        ),
        (
            |_, _| Reply::new(200, "{}"),
            1,
            "is missing from the response",
        ),
        (
            |_, _| Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
            3,
            "DENIED",
        ),
    ];
    for (endpoint, status, words) in cases {
        let (guarded, dir) = (guarded(CHALLENGE, endpoint, |_| true), Dir::new());
        guarded.pull(&dir).fails(status, words);
    }
    let twice: Endpoint = |seen, number| {
        if number < 3 {
            Reply::new(503, "")
        } else {
            plain(seen, number)
        }
    };
    let (guarded, dir) = (guarded(CHALLENGE, twice, |_| true), Dir::new());
    guarded.pull(&dir).archive();
    assert_eq!(guarded.tokens(), 3);
}

#[test]
fn a_challenge_only_on_the_base() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let address = registry.address;
    registry.route(move |seen| {
        if seen.target == "/v2/" {
            return Some(Reply::unauthorized(&format!(
                r#"Bearer realm="http://{address}/token""#
            )));
        }
        if seen.target.starts_with("/token") {
            return Some(plain(seen, 1));
        }
        seen.header("authorization")
            .is_none()
            .then(|| Reply::new(401, ""))
    });
    Run::pull(&dir, &registry.name("r")).archive();
}

#[test]
fn and_27_the_base_is_not_asked_before_it_is_needed() {
    let (guarded, dir) = (guarded(CHALLENGE, plain, |_| true), Dir::new());
    guarded.pull(&dir).archive();
    assert!(
        guarded
            .registry
            .seen()
            .iter()
            .all(|seen| seen.target != "/v2/")
    );
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    registry.route(|seen| (seen.target == "/v2/").then(|| Reply::unauthorized("Basic realm=x")));
    Run::pull(&dir, &registry.name("r")).archive();
}

#[test]
fn a_repository_that_denies_itself_to_strangers() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    registry.route(
        |seen| match (seen.header("authorization"), seen.target.as_str()) {
            (Some(BASIC), _) => None,
            (_, "/v2/") => Some(Reply::unauthorized("Basic realm=x")),
            _ => Some(Reply::new(404, r#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#)),
        },
    );
    Run::pull(&dir, &registry.name("r"))
        .args(&["--user", "me", "--password", "hunter2"])
        .archive();
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r")).fails(4, "NAME_UNKNOWN");
}

#[test]
fn wrong_credentials_are_sent_once() {
    // Twice might lock the account.
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    registry.route(|_| Some(Reply::unauthorized(r#"Basic realm="x""#)));
    for more in [&["--sha"][..], &["--mirror", "127.0.0.1:9"], &[]] {
        registry.forget();
        Run::pull(&dir, &registry.name("r"))
            .args(&["--user", "me", "--password", "wrong"])
            .args(more)
            .fails(3, "refused");
        let seen = registry.seen();
        let sent = seen
            .iter()
            .filter(|seen| seen.header("authorization").is_some());
        assert_eq!(sent.count(), 1, "{more:?}");
    }
}

#[test]
fn passwords_keep_every_byte() {
    use base64::Engine as _;
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    let expected = format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode("robot$x:p:\u{e4} \"\\")
    );
    registry.route(move |seen| {
        (seen.header("authorization") != Some(&expected))
            .then(|| Reply::unauthorized("Basic realm=x"))
    });
    let run = Run::pull(&dir, &registry.name("r")).args(&["--user", "robot$x", "--password-stdin"]);
    run.stdin("p:\u{e4} \"\\\n").archive();
}

#[test]
fn credentials_that_are_refused_are_named_by_their_source() {
    let (registry, dir) = (Registry::start(), Dir::new());
    registry.route(|_| Some(Reply::unauthorized("Basic realm=x")));
    let outcome = Run::pull(&dir, &registry.name("r"))
        .args(&["--user", "me", "--password", "hunter2"])
        .fails(3, "the command line (--user, --password)");
    assert!(!outcome.stderr.contains("hunter2"));
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r")).fails(3, "see --user");
}

#[test]
fn many_workers_renew_a_token_once() {
    let (guarded, dir) = (guarded(CHALLENGE, plain, |token| token != "t1"), Dir::new());
    // The first token is refused at once; after that, one renewal serves all workers.
    let begin = Instant::now();
    let outcome = guarded.pull(&dir).outcome();
    assert_eq!(
        outcome.status.code(),
        Some(3),
        "a fresh token that is refused is final: {}",
        outcome.stderr
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn tokens_that_serve_three_requests_each() {
    let registry = Registry::start();
    let image = Image::new((0..12).map(|seed| Blob::layer(seed, 30_000)).collect());
    image.push(&registry, "r", "latest");
    let (issued, used) = (AtomicU32::new(0), AtomicU32::new(0));
    let address = registry.address;
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            used.store(0, Ordering::SeqCst);
            return Some(plain(seen, issued.fetch_add(1, Ordering::SeqCst) + 1));
        }
        let current = format!("Bearer t{}", issued.load(Ordering::SeqCst));
        let good = seen.header("authorization") == Some(&current)
            && used.fetch_add(1, Ordering::SeqCst) < 3;
        (!good).then(|| {
            Reply::unauthorized(&format!(
                r#"Bearer realm="http://{address}/token",service="s",error="invalid_token""#
            ))
        })
    });
    let dir = Dir::new();
    Run::pull(&dir, &registry.name("r"))
        .args(&["--jobs", "1"])
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert!(
        registry.count("/token") <= 7,
        "{}",
        registry.count("/token")
    );
}

#[test]
fn a_token_that_ends_in_a_body_that_is_cut() {
    let (guarded, dir) = (guarded(CHALLENGE, plain, |_| true), Dir::new());
    let registry = &guarded.registry;
    let image = Image::small(1);
    let layer = &image.layers[1];
    let challenge = CHALLENGE.replace("REALM", &format!("http://{}/token", registry.address));
    registry.fault(&layer.digest, Action::Reset(9000));
    registry.faults(
        Fault::new(
            &layer.digest,
            Action::Reply(Reply::unauthorized(&challenge)),
        )
        .ranges(),
    );
    guarded
        .pull(&dir)
        .archive()
        .holds(&image, Some(&registry.name("r:latest")));
    assert_eq!(guarded.tokens(), 2);
    let ranges: Vec<_> = registry
        .seen()
        .iter()
        .filter_map(|seen| seen.header("range").map(str::to_owned))
        .collect();
    let expected = format!("bytes=9000-{}", layer.content.len() - 1);
    assert_eq!(
        ranges,
        [expected.clone(), expected],
        "before and after the new token"
    );
}

#[test]
fn a_plain_realm_of_a_tls_registry_is_told_nothing() {
    let (authority, tokens, dir) = (Authority::new(), Registry::start(), Dir::new());
    let registry = Registry::start_tls(authority.server(&Leaf::default()));
    let realm = tokens.address;
    registry.route(move |_| {
        Some(Reply::unauthorized(&format!(
            r#"Bearer realm="http://{realm}/token",service="s""#
        )))
    });
    let ca = dir.write("ca.pem", &authority.pem);
    Run::new(&dir, &["--cacert", &ca, &registry.name("r")])
        .args(&["--user", "me", "--password", "hunter2"])
        .fails(1, "nothing was sent to it");
    assert!(tokens.seen().is_empty());
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

#[test]
fn a_token_endpoint_that_is_busy_is_waited_for() {
    let busy: Endpoint = |seen, number| match number {
        1 => Reply::new(429, "").with("Retry-After: 1"),
        _ => plain(seen, number),
    };
    let (guarded, dir) = (guarded(CHALLENGE, busy, |_| true), Dir::new());
    let time = guarded.pull(&dir).archive().outcome.time;
    assert!(time >= Duration::from_secs(1), "{time:?}");
    assert_eq!(guarded.tokens(), 2);
}

#[test]
fn forms_of_a_token() {
    let cases: [Endpoint; 7] = [
        |_, _| {
            Reply::new(
                200,
                r#"{"token":"right","expires_in":300,"issued_at":"1970-01-01T00:00:00Z"}"#,
            )
        },
        |_, _| Reply::new(200, r#"{"access_token":"right","token":"wrong"}"#),
        |_, _| Reply::new(200, r#"{"token":"right","expires_in":"300"}"#),
        |_, _| Reply::new(200, r#"{"token":"right","expires_in":-1}"#),
        |_, _| Reply::new(200, r#"{"token":"right","expires_in":1e30}"#),
        |_, _| {
            Reply::new(
                200,
                r#"{"token":"right","access_token":null,"expires_in":null}"#,
            )
        },
        |_, _| Reply::new(200, r#"{"token":"right","access_token":"","expires_in":0}"#),
    ];
    for (number, endpoint) in cases.into_iter().enumerate() {
        let (guarded, dir) = (
            guarded(CHALLENGE, endpoint, |token| token == "right"),
            Dir::new(),
        );
        let outcome = guarded.pull(&dir).outcome();
        assert!(
            outcome.status.success(),
            "case {number}: {}",
            outcome.stderr
        );
        assert_eq!(guarded.tokens(), 1, "case {number}");
    }
}

#[test]
fn a_token_endpoint_that_knows_no_such_password() {
    let refuses: Endpoint = |seen, _| match seen.header("authorization") {
        Some(_) => Reply::new(401, r#"{"details":"incorrect username or password"}"#),
        None => Reply::new(403, r#"{"errors":[{"code":"DENIED","message":"private"}]}"#),
    };
    let (guarded, dir) = (guarded(CHALLENGE, refuses, |_| true), Dir::new());
    let outcome = guarded
        .pull(&dir)
        .args(&["--user", "me", "--password", "hunter2"])
        .fails(3, "incorrect username or password");
    assert!(outcome.stderr.contains("--password"), "{}", outcome.stderr);
    assert_eq!(
        guarded.tokens(),
        1,
        "a password that is wrong is not tried again"
    );
    guarded.pull(&dir).fails(3, "DENIED");
}

/// A private registry whose `/v2/` names another repository, as GHCR's does.
fn placeholder(status: u16, strict: bool) -> Registry {
    let registry = Registry::start();
    Image::small(1).push(&registry, "org/app", "latest");
    let address = registry.address;
    registry.route(move |seen| {
        let challenge =
            format!(r#"Bearer realm="http://{address}/token",service="s",scope="repository:user/image:pull""#);
        if seen.target.starts_with("/token") {
            let ours = seen.target.contains("scope=repository:org/app:pull");
            let others = seen.target.contains("user/image");
            return Some(match seen.header("authorization") {
                Some(BASIC) if !(strict && others) => {
                    Reply::new(200, format!(r#"{{"token":"{}"}}"#, if ours { "good" } else { "bad" }))
                }
                _ => Reply::new(403, r#"{"errors":[{"code":"DENIED"}]}"#),
            });
        }
        match (seen.target.as_str(), seen.header("authorization")) {
            (_, Some("Bearer good")) => None,
            ("/v2/", _) => Some(Reply::unauthorized(&challenge)),
            _ if status == 0 => Some(Reply::unauthorized(&challenge)),
            _ => Some(Reply::new(status, r#"{"errors":[{"code":"DENIED"}]}"#)),
        }
    });
    registry
}

#[test]
fn a_placeholder_repository_never_replaces_ours() {
    for status in [404, 403, 401, 0] {
        for strict in [false, true] {
            let (registry, dir) = (placeholder(status, strict), Dir::new());
            Run::pull(&dir, &registry.name("org/app"))
                .args(&["--user", "me", "--password", "hunter2"])
                .archive();
            assert_eq!(registry.count("/token"), 1, "{status} {strict}");
        }
    }
}

#[test]
fn a_repository_behind_another_name_is_asked_for_when_ours_is_not_enough() {
    for strict in [false, true] {
        let (registry, dir) = (Registry::start(), Dir::new());
        Image::small(1).push(&registry, "r", "latest");
        let address = registry.address;
        registry.route(move |seen| {
            if seen.target.starts_with("/token") {
                let real = seen.target.contains("scope=repository:real/name:pull");
                let token = if real { "good" } else { "bad" };
                return Some(match strict && !real {
                    true => Reply::new(404, ""),
                    false => Reply::new(200, format!(r#"{{"token":"{token}"}}"#)),
                });
            }
            (seen.header("authorization") != Some("Bearer good")).then(|| {
                Reply::unauthorized(&format!(
                    r#"Bearer realm="http://{address}/token",scope="repository:real/name:pull""#
                ))
            })
        });
        Run::pull(&dir, &registry.name("r")).archive();
        assert_eq!(registry.count("/token"), 2);
    }
}

/// A registry whose token endpoint redirects to `to`, and the registry of the tests' own there.
fn moved(to: impl Fn() -> String + Send + Sync + 'static) -> Registry {
    let registry = Registry::start();
    Image::small(1).push(&registry, "r", "latest");
    let address = registry.address;
    registry.route(move |seen| {
        if seen.target.starts_with("/token") {
            return Some(Reply::redirect(301, &to()));
        }
        (seen.header("authorization") != Some("Bearer t1"))
            .then(|| Reply::unauthorized(&format!(r#"Bearer realm="http://{address}/token""#)))
    });
    registry
}

#[test]
fn an_anonymous_token_request_follows_redirects() {
    let authority = Authority::new();
    let dir = Dir::new();
    let ca = dir.write("ca.pem", &authority.pem);
    for secure in [false, true] {
        let config = secure.then(|| authority.server(&Leaf::default()));
        let there = Registry::start_with(config, 0);
        there.route(|seen| Some(plain(seen, 1)));
        let (port, scheme) = (there.address.port(), if secure { "https" } else { "http" });
        // Nothing is sent, so any name is allowed.
        for host in ["127.0.0.1", "localhost"] {
            let registry = moved(move || format!("{scheme}://{host}:{port}/token"));
            Run::pull(&dir, &registry.name("r"))
                .args(&["-o", "x.tar", "--restart"])
                .env("SSL_CERT_FILE", &ca)
                .archive();
            // A password goes to https on the same host, and nowhere else.
            let before = there.seen().len();
            let run = Run::pull(&dir, &registry.name("r"))
                .args(&[
                    "-o",
                    "x.tar",
                    "--restart",
                    "--user",
                    "me",
                    "--password",
                    "hunter2",
                ])
                .env("SSL_CERT_FILE", &ca);
            if secure && host == "127.0.0.1" {
                run.archive();
                assert_eq!(there.seen()[before].header("authorization"), Some(BASIC));
            } else {
                run.fails(1, "another host");
                assert_eq!(there.seen().len(), before);
            }
        }
    }
    let registry = moved(|| "http://169.254.169.254/token".into());
    Run::pull(&dir, &registry.name("r"))
        .limit(5)
        .fails(1, "nothing was sent to it");
    let registry = moved(|| "/token?again".into());
    Run::pull(&dir, &registry.name("r")).fails(1, "too often");
}

#[test]
fn a_realm_in_disguise_is_told_no_password() {
    let tokens = Registry::start();
    tokens.route(|seen| Some(plain(seen, 1)));
    let port = tokens.address.port();
    for host in [
        "localhost",
        "127.0.0.2",
        "[::1]",
        "0.0.0.0",
        "0",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "localhost.",
        "127.0.0.2.",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "a.localhost",
        "127.0.0.1.localhost",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "[64:ff9b::a9fe:a9fe]",
    ] {
        let registry = Registry::start();
        registry.route(move |_| {
            Some(Reply::unauthorized(&format!(
                r#"Bearer realm="http://{host}:{port}/t",service="s""#
            )))
        });
        let dir = Dir::new();
        Run::pull(&dir, &registry.name("r"))
            .args(&["--user", "me", "--password", "hunter2"])
            .limit(5)
            .fails(1, "nothing was sent to it");
        assert!(tokens.seen().is_empty(), "{host}: {:?}", tokens.seen());
    }
}

/// A registry elsewhere whose realm's name resolves to this machine.
#[test]
fn a_realms_name_is_looked_at_once_it_is_resolved() {
    if !can_mount() {
        return;
    }
    let tokens = Registry::start();
    tokens.route(|seen| Some(plain(seen, 1)));
    let port = tokens.address.port();
    let dir = Dir::new();
    let hosts = dir.write(
        "hosts",
        "127.0.0.1 evil.example\n169.254.169.254 meta.example\n127.0.0.1 registry.example\n",
    );
    for (registry_host, realm, told) in [
        ("127.0.0.1", "evil.example", false),
        ("127.0.0.1", "meta.example", false),
        ("registry.example", "registry.example", true),
        ("registry.example", "evil.example", false),
    ] {
        let registry = Registry::start();
        Image::small(1).push(&registry, "r", "latest");
        registry.route(move |seen| {
            let challenge = format!(r#"Bearer realm="http://{realm}:{port}/t",service="s""#);
            seen.header("authorization")
                .is_none()
                .then(|| Reply::unauthorized(&challenge))
        });
        let before = tokens.seen().len();
        let name = format!("{registry_host}:{}/r", registry.address.port());
        let run = Run::pull(&dir, &name)
            .args(&[
                "-o",
                "x.tar",
                "--restart",
                "--user",
                "me",
                "--password",
                "hunter2",
            ])
            .with_files(&[("/etc/hosts", &hosts)]);
        if told {
            run.archive();
        } else {
            run.fails(1, "nothing was sent to it");
            assert_eq!(tokens.seen().len(), before, "{realm}");
        }
    }
}
