//! Pulls an image to an archive, as another program would: with progress, credentials and a way to
//! cancel.
//!
//!     cargo run --example pull -- debian:12 debian.tar

use dockersave::{CancelToken, Client, ClientBuilder, Event, Plan, PlanOptions, Pull, Reference};
use std::path::Path;

#[allow(dead_code, clippy::print_stdout)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(image), Some(path)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull IMAGE ARCHIVE".into());
    };
    let size = pull(
        Client::builder(),
        &image,
        path.as_ref(),
        &CancelToken::new(),
    )?;
    println!("{path}: {size} bytes");
    Ok(())
}

/// The archive's size. `token` ends it from another thread; the next call goes on from there.
pub fn pull(
    builder: ClientBuilder,
    image: &str,
    path: &Path,
    token: &CancelToken,
) -> dockersave::Result<u64> {
    let client = builder.build()?.cancelled_by(token);
    let reference: Reference = image.parse()?;
    let image = client.repository(&reference)?.image(None)?;
    let plan = Plan::new(&[image], &PlanOptions::default())?;
    let mut percent = 0;
    let report = Pull::new(&client, plan)
        .observer(|event| {
            if let Event::Progress { done, total, .. } = event {
                percent = done.saturating_mul(100).checked_div(*total).unwrap_or(100);
            }
        })
        .to_file(path)?;
    assert_eq!(percent, 100);
    Ok(report.size)
}
