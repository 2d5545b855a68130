//! The check command: what a renewal of a lock would change.

use super::error::{Error, Result};
use super::json::Object;
use super::list::lock::Row;
use super::options::Options;
use super::renew::{archive, is_of, named_now};
use super::{Shown, print, pull};
use dockersave::{Client, Digest, Reference};

/// Prints a line for each image: what became of it, its reference, the digest in the lock, and the
/// one that it stands for now.
pub(super) fn run(client: &Client, options: &Options, shown: &Shown) -> Result<()> {
    let Some(book) = &options.lock else {
        return Ok(());
    };
    let json = options.low.json;
    let mut changes = 0;
    let mut removed = Vec::new();
    let listed = |row: &&Row| {
        let mut goals = options.goals.iter();
        goals.any(|goal| {
            archive(goal) == Some(&row.archive)
                && goal.images.iter().any(|wanted| is_of(row, wanted))
        })
    };
    for row in book.old.iter().filter(|row| !listed(row)) {
        changes += 1;
        let digests = (Some(row.named()), None);
        removed.extend(tell(
            "removed",
            &row.reference,
            &row.archive,
            digests,
            json,
        )?);
    }
    pull::each(options, shown, removed, &mut |goal| {
        let mut answers = Vec::new();
        for wanted in &goal.images {
            let archive = archive(goal).unwrap_or_default();
            let platform = wanted.platform.as_ref().or(options.platform.as_ref());
            let row = book.row(archive, wanted);
            let found = named_now(client, wanted)?;
            let state = match row {
                None => "new",
                Some(row) if *row.named() == found && row.is_for(platform) => "unchanged",
                Some(_) => "changed",
            };
            changes += usize::from(state != "unchanged");
            let digests = (row.map(Row::named), Some(&found));
            answers.extend(tell(state, &wanted.reference, archive, digests, json)?);
        }
        Ok(answers)
    })?;
    match changes {
        0 => Ok(()),
        _ => Err(Error::Outdated {
            lock: book.name(),
            changes,
        }),
    }
}

/// Prints a line, or returns it as JSON.
fn tell(
    state: &str,
    reference: &Reference,
    archive: &str,
    (old, new): (Option<&Digest>, Option<&Digest>),
    json: bool,
) -> Result<Option<String>> {
    let (old, new) = (old.map(Digest::to_string), new.map(Digest::to_string));
    let reference = reference.to_string();
    if json {
        let object = Object::new().text("reference", &reference);
        let object = object.text("archive", archive).text("state", state);
        let object = object.maybe("locked", old.as_deref());
        return Ok(Some(object.maybe("found", new.as_deref()).finish()));
    }
    let fields = [
        state,
        &reference,
        old.as_deref().unwrap_or("-"),
        new.as_deref().unwrap_or("-"),
    ];
    print(&(fields.join("\t") + "\n")).map(|()| None)
}
