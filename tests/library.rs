//! The library as another program uses it.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
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
    let report = pull.to_file(&dir.join("x.tar")).unwrap();
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
            .to_file(&dir.join("x.tar"))
    });
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    registry.pace(0);
    // The token stays cancelled; the client goes on.
    let cancelled = client.cancelled_by(&token);
    let outcome = cancelled.repository(&name).unwrap().manifest();
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    let report = Pull::new(&client, plan())
        .to_file(&dir.join("x.tar"))
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
