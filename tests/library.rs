//! The library as another program uses it.

#[path = "examples/inspect.rs"]
mod inspect;
#[path = "examples/pull.rs"]
mod pull;

use crate::registry::image::{Blob, Image};
use crate::registry::{Registry, Reply};
use crate::util::Dir;
use dockersave::{CancelToken, Client, Error, Event, Hint, Plan, PlanOptions, Pull, Reference};
use std::time::Duration;

#[test]
fn resolve_plan_and_pull_with_an_observer() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    let name: Reference = registry.name("r").parse().unwrap();
    let client = Client::builder().insecure(true).build().unwrap();
    let found = client.repository(&name).unwrap().image(None).unwrap();
    assert_eq!(found.manifest().digest().to_string(), image.digest());
    assert_eq!((found.layers().len(), found.diff_ids().len()), (3, 3));
    let plan = Plan::new(&[found], &PlanOptions::default()).unwrap();
    let size = plan.size();
    let mut layers = 0;
    let pull = Pull::new(&client, plan)
        .jobs(2)
        .observer(|event| layers += u32::from(matches!(event, Event::Layer { .. })));
    let report = pull.to_file(dir.join("x.tar")).unwrap();
    assert_eq!(layers, 3);
    assert_eq!(std::fs::metadata(&report.path).unwrap().len(), size);
    assert_eq!(
        report.downloaded,
        image
            .layers
            .iter()
            .map(|layer| layer.content.len())
            .sum::<u64>()
    );
}

#[test]
fn cancel_a_pull_from_another_thread_and_go_on_with_the_same_client() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::new(vec![Blob::layer(1, 8 << 20)]).push(&registry, "r", "latest");
    registry.pace(4 << 20);
    let name: Reference = registry.name("r").parse().unwrap();
    let client = Client::builder().insecure(true).build().unwrap();
    let plan = || {
        Plan::new(
            &[client.repository(&name).unwrap().image(None).unwrap()],
            &PlanOptions::default(),
        )
        .unwrap()
    };
    let (token, own) = (CancelToken::new(), plan());
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while registry.blob_bytes() < 2 << 20 {
                std::thread::sleep(Duration::from_millis(5));
            }
            token.cancel();
        });
        Pull::new(&client, own)
            .cancelled_by(&token)
            .to_file(dir.join("x.tar"))
    });
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    registry.pace(0);
    // The token stays cancelled; the client goes on.
    let cancelled = client.cancelled_by(&token);
    let outcome = cancelled.repository(&name).unwrap().manifest();
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    let report = Pull::new(&client, plan())
        .to_file(dir.join("x.tar"))
        .unwrap();
    assert!(report.kept >= 1 << 20, "{report:?}");
}

#[test]
fn cancelling_one_pull_leaves_another_of_the_same_client_alone() {
    let (registry, dir) = (Registry::start(), Dir::new());
    for (number, name) in ["a", "b"].iter().enumerate() {
        Image::new(vec![Blob::layer(number as u64 + 1, 4 << 20)]).push(&registry, name, "latest");
    }
    registry.pace(4 << 20);
    // Without retries: a connection that is ended from elsewhere would be a failure.
    let client = Client::builder().insecure(true).retries(0).build().unwrap();
    let pull = |name: &str| {
        let name: Reference = registry.name(name).parse().unwrap();
        let image = client.repository(&name).unwrap().image(None).unwrap();
        Pull::new(
            &client,
            Plan::new(&[image], &PlanOptions::default()).unwrap(),
        )
    };
    let token = CancelToken::new();
    let (cancelled, other) = (pull("a").cancelled_by(&token), pull("b"));
    let (path, other_path) = (dir.join("a.tar"), dir.join("b.tar"));
    // A pull can be sent to another thread.
    let cancelled = std::thread::scope(|scope| {
        let running = scope.spawn(|| cancelled.to_file(&path));
        scope.spawn(|| {
            while registry.blob_bytes() < 1 << 20 {
                std::thread::sleep(Duration::from_millis(5));
            }
            token.cancel();
        });
        other.to_file(&other_path).unwrap();
        running.join().unwrap()
    });
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
}

#[test]
fn failures_can_be_told_apart() {
    let registry = Registry::start();
    let client = Client::builder().insecure(true).retries(0).build().unwrap();
    let missing: Reference = registry.name("no/such").parse().unwrap();
    let error = client.repository(&missing).unwrap().image(None);
    let error = error.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    // What may help is a value; its words are the program's.
    assert!(matches!(error.hint(), Some(Hint::Tags(name)) if name.ends_with("no/such")));
    assert!(matches!(
        "Debian".parse::<Reference>(),
        Err(Error::Usage { .. })
    ));
}

#[test]
fn the_examples_do_what_they_say() {
    let (registry, dir) = (Registry::start(), Dir::new());
    let image = Image::small(1);
    image.push(&registry, "r", "latest");
    let (name, path) = (registry.name("r"), dir.join("x.tar"));
    let insecure = || Client::builder().insecure(true);
    let size = pull::pull(insecure(), &name, &path, &CancelToken::new()).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), size);
    let token = CancelToken::new();
    token.cancel();
    let outcome = pull::pull(insecure(), &name, &path, &token);
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    let lines = inspect::inspect(Client::bare().insecure(true), &name).unwrap();
    let bytes: u64 = image.layers.iter().map(|layer| layer.content.len()).sum();
    assert_eq!(lines, [format!("linux/amd64: {bytes} bytes")]);
}

#[test]
fn what_is_public_can_be_sent_and_shown() {
    fn sent<T: Send + std::fmt::Debug>() {}
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    sent::<Pull<'static>>();
    shared::<Client>();
    shared::<CancelToken>();
    shared::<Plan>();
    shared::<Error>();
    shared::<Event>();
    let builder = Client::builder().credentials("me", "correct-horse", "a test");
    let mut shown = format!("{builder:?}");
    shown += &format!("{:?}", builder.build().unwrap());
    assert!(!shown.contains("correct-horse"), "{shown}");
}

#[test]
fn a_mismatch_names_the_digest_as_a_value() {
    let registry = Registry::start();
    Image::small(1).push(&registry, "r", "latest");
    let wrong = dockersave::Digest::of(dockersave::Algorithm::Sha256, b"other");
    let name: Reference = registry.name(&format!("r@{wrong}")).parse().unwrap();
    registry.route(|seen| {
        seen.target
            .contains("/manifests/")
            .then(|| Reply::new(200, "{}"))
    });
    let client = Client::builder().insecure(true).retries(0).build().unwrap();
    let error = client.repository(&name).unwrap().manifest().unwrap_err();
    assert!(
        matches!(&error, Error::Mismatch { digest, .. } if **digest == wrong),
        "{error}"
    );
    assert!("sha256:x".parse::<dockersave::Digest>().is_err());
}

/// Run by the next test, with an environment of its own.
#[test]
#[ignore = "only with an environment of its own"]
fn a_bare_client_in_a_strange_environment() {
    let name: Reference = std::env::var("BARE_TEST_NAME").unwrap().parse().unwrap();
    // No address of a proxy.
    assert!(Client::builder().build().is_err());
    let client = Client::bare().insecure(true).retries(0).build().unwrap();
    let outcome = client.repository(&name).unwrap().manifest();
    assert!(matches!(outcome, Err(Error::Refused { .. })), "{outcome:?}");
}

#[test]
fn a_bare_client_knows_no_environment() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::small(1).push(&registry, "r", "latest");
    registry.route(|seen| {
        let known = seen.header("authorization") == Some("Basic bWU6aHVudGVyMg==");
        (!known).then(|| Reply::unauthorized("Basic realm=x"))
    });
    let test = "library::a_bare_client_in_a_strange_environment";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", test])
        .env("BARE_TEST_NAME", registry.name("r"))
        .env("HTTPS_PROXY", "ftp://127.0.0.1:1")
        .env("DOCKERSAVE_USER", "me")
        .env("DOCKERSAVE_PASSWORD", "hunter2")
        .env("HOME", dir.path())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && shown.contains("1 passed"),
        "{shown}"
    );
    let seen = registry.seen();
    assert!(!seen.is_empty() && seen.iter().all(|one| one.header("authorization").is_none()));
}
