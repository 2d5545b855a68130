//! Lists and locks on the command line: what they add to it, and what goes with them.

use super::error::{Error, Result};
use super::flags::{Low, Query};
use super::list;
use super::parse::parse;
use super::place::{Target, Wanted};
use dockersave::{Format, text};
use std::path::Path;

/// The images that files list. A lock's flags become those of the command line.
pub(super) fn listed(low: &mut Low, notes: &mut Vec<String>) -> Result<Vec<Wanted>> {
    let wrong = |what: &str, why: &str| Err(Error::usage(what, why));
    let pipes = low.from.iter().filter(|path| *path == Path::new("-"));
    if pipes.count() + usize::from(low.password_stdin) > 1 {
        return wrong(
            "--from -",
            "reads standard input, which can be read only once",
        );
    }
    let mut listed = Vec::new();
    let mut made_with: Option<String> = None;
    let mut other = !low.images.is_empty();
    for path in &low.from {
        let list = list::read(path, notes)?;
        listed.extend(list.images);
        match (list.options, &made_with) {
            (None, _) => other = true,
            (Some(options), Some(before)) if options != *before => {
                return wrong(
                    "--from",
                    "has locks that were made with different flags; pull from one at a time",
                );
            }
            (options, _) => made_with = options,
        }
    }
    if listed.len() > list::MOST {
        let why = format!(
            "lists {} images; at most {} are supported",
            listed.len(),
            list::MOST
        );
        return wrong("--from", &why);
    }
    let given = shape(low);
    if let Some(options) = made_with.filter(|options| *options != given) {
        if other || !given.is_empty() {
            let with = match &*options {
                "" => "no flag that changes archives",
                options => options,
            };
            let why = format!(
                "has a lock that was made with {with}; pull from it alone, without such flags"
            );
            return wrong("--from", &why);
        }
        let words = std::iter::once("dockersave").chain(options.split(' '));
        let with = parse(words.map(Into::into)).unwrap_or_default();
        if shape(&with) != options {
            let why = format!(
                "has a lock that was made with {}, which is not supported",
                text::printable(&options, 100)
            );
            return wrong("--from", &why);
        }
        (low.gunzip, low.xz, low.format) = (with.gunzip, with.xz, with.format);
    }
    Ok(listed)
}

/// The flags that change an archive's bytes, as a lock has them.
pub(super) fn shape(low: &Low) -> String {
    let flags = [
        (low.gunzip, "--gunzip"),
        (low.xz, "--xz"),
        (low.format == Some(Format::Oci), "--format oci"),
    ];
    let given = flags.iter().filter(|(given, _)| *given);
    given.map(|(_, flag)| *flag).collect::<Vec<_>>().join(" ")
}

/// Refuses what a lock cannot say, or would silently overrule.
pub(super) fn check_lock(low: &Low, wanted: &[Wanted], target: &Target) -> Result<()> {
    let locked = wanted.iter().any(|image| image.locked.is_some());
    if locked && (low.platform.is_some() || low.all_platforms) {
        let why = "is not used with a lock, which says which platform each image is for";
        return Err(Error::usage("--platform", why));
    }
    if low.query == Some(Query::Check) && low.lock.is_none() {
        return Err(Error::usage("--check", "requires --lock"));
    }
    let unfit = low.all_platforms
        || low.keep_signatures
        || low.keep_referrers.is_some()
        || low.no_tar
        || low.rootfs
        || !low.base.is_empty()
        || target.is_stream();
    if unfit && (locked || low.lock.is_some()) {
        let why = "is for archives in files; omit --all-platforms, --keep-signatures, --keep-referrers, --no-tar, --format rootfs, --base and --output -";
        return Err(Error::usage("a lock", why));
    }
    Ok(())
}
