//! The library as another program uses it.

use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
use crate::util::Dir;
use dockersave::{Client, Error, Event, Plan, PlanOptions, Pull, Reference};
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
fn cancel_from_another_thread_and_go_on_with_another_client() {
    let (registry, dir) = (Registry::start(), Dir::new());
    Image::new(vec![Blob::layer(1, 8 << 20)]).push(&registry, "r", "latest");
    registry.pace(4 << 20);
    let name: Reference = registry.name("r").parse().unwrap();
    let build = || Client::builder().insecure(true).build().unwrap();
    let plan = |client: &Client| {
        Plan::new(
            &[client.repository(&name).unwrap().image(None).unwrap()],
            &PlanOptions::default(),
        )
        .unwrap()
    };
    let client = build();
    let own = plan(&client);
    let outcome = std::thread::scope(|scope| {
        scope.spawn(|| {
            while registry.blob_bytes() < 2 << 20 {
                std::thread::sleep(Duration::from_millis(5));
            }
            client.cancel();
        });
        Pull::new(&client, own).to_file(&dir.join("x.tar"))
    });
    assert!(matches!(outcome, Err(Error::Interrupted(_))), "{outcome:?}");
    registry.pace(0);
    let client = build();
    let report = Pull::new(&client, plan(&client))
        .to_file(&dir.join("x.tar"))
        .unwrap();
    assert!(report.kept >= 1 << 20, "{report:?}");
}

#[test]
fn failures_can_be_told_apart() {
    let registry = Registry::start();
    let client = Client::builder().insecure(true).retries(0).build().unwrap();
    let missing: Reference = registry.name("no/such").parse().unwrap();
    assert!(matches!(
        client.repository(&missing).unwrap().image(None),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        "Debian".parse::<Reference>(),
        Err(Error::Usage { .. })
    ));
}
