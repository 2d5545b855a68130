//! From what was asked for to images, and what a lock says of them.

use super::error::{Error, Result, STANDARD_OUTPUT};
use super::flags::Low;
use super::list::lock::Row;
use super::options::{self, Options};
use super::place::Goal;
use super::progress::Level;
use super::{Shown, lock};
use dockersave::{Client, Image, Plan, Platform, Policy, Requirements};
use std::path::Path;

/// What the images have to come with.
fn requirements(low: &Low) -> Result<Requirements> {
    let mut wanted = Requirements::default().keep_signatures(low.keep_signatures);
    for key in options::keys(low)? {
        wanted = wanted.signed_by(key);
    }
    if let Some(path) = &low.policy {
        wanted = wanted.policy(Policy::read(path)?);
    }
    if let Some(kind) = &low.keep_referrers {
        wanted = wanted.keep_referrers(kind);
    }
    Ok(wanted)
}

pub(super) fn resolve(
    client: &Client,
    options: &Options,
    goal: &Goal,
    progress: &Shown,
) -> Result<Vec<Image>> {
    let required = requirements(&options.low)?;
    let mut images = Vec::new();
    for wanted in &goal.images {
        let locked = wanted.locked.as_deref();
        let signed = !options.low.signed_by.is_empty() || options.low.policy.is_some();
        let asked = match locked {
            Some(row) => &row.pinned(signed)?,
            None => &wanted.reference,
        };
        let repository = client.repository(asked)?;
        let image = if options.low.all_platforms {
            repository.all_platforms_with(&required)?
        } else {
            let own = locked
                .filter(|_| signed)
                .and_then(|row| row.platform.as_ref());
            let platform = wanted
                .platform
                .as_ref()
                .or(own)
                .or(options.platform.as_ref());
            repository.image_with(platform, &required)?
        };
        // Which platform a lock is for was decided before.
        for warning in image.warnings().iter().filter(|_| locked.is_none()) {
            lock(progress).note(Level::Warning, warning);
        }
        images.push(match locked.is_some() || wanted.name.is_some() {
            true => image.named(wanted.name().clone()),
            false => image,
        });
    }
    Ok(images)
}

/// An archive that cannot be what a lock says.
pub(super) fn differs(goal: &Goal, row: &Row, found: &str) -> Error {
    let path = goal.target.path().unwrap_or(Path::new(STANDARD_OUTPUT));
    Error::Differs(format!(
        "{} would have {found}, but {} says {} bytes with {}; it is not kept",
        path.display(),
        goal.images[0].origin,
        row.size,
        row.sha256
    ))
}

/// What a lock will say of a plan's images, but for the archive.
pub(super) fn rows(plan: &Plan, options: &Options, goal: &Goal) -> Vec<Row> {
    let pairs = goal.images.iter().zip(plan.images());
    let rows = pairs.map(|(wanted, image)| {
        let manifest = *image.manifest().digest();
        if let Some(row) = wanted.locked.as_deref() {
            return Row {
                manifest,
                ..row.clone()
            };
        }
        let asked = wanted.platform.as_ref().or(options.platform.as_ref());
        let platform = asked.or(image.platform()).cloned();
        Row {
            reference: wanted.reference.clone(),
            // One that cannot be read again is left out.
            platform: platform.filter(|one| {
                one.to_string()
                    .parse()
                    .is_ok_and(|read: Platform| read == *one)
            }),
            index: image.index().copied(),
            manifest,
            size: 0,
            sha256: manifest,
            archive: String::new(),
            name: wanted.name.clone(),
        }
    });
    rows.collect()
}
