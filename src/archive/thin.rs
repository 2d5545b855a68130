//! Thin archives: archives without layers that the target already has, and their annotations in
//! index.json.
//!
//! The full archive follows from the documents, and a thin archive has all of them. So it is
//! identified by its size and the digest of its plan (the list of its entries with their digests),
//! byte for byte, before any layer arrives. A SHA-256 of the file is not known then.

use crate::digest::Digest;
use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// Names the layers that are missing: `DIGEST,SIZE,DIFF-ID`, separated by blanks. Shells split that.
pub(crate) const MISSING: &str = "io.github.antmicro.dockersave.missing";
/// Names the full archive: `SIZE,DIGEST` of its plan.
pub(crate) const WHOLE: &str = "io.github.antmicro.dockersave.whole";

/// The placeholder for an unknown diff ID: an index has no config of its own.
const UNKNOWN: &str = "-";

/// A layer that a thin archive lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// The blob's digest, as the manifest has it.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The digest of its uncompressed content, if the config is in the archive.
    pub diff_id: Option<Digest>,
}

/// The value of [`MISSING`].
pub(crate) fn missing_text(missing: &[Missing]) -> String {
    let mut text = String::new();
    for one in missing {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&format!("{},{},", one.digest, one.size));
        match one.diff_id {
            Some(id) => text.push_str(&id.to_string()),
            None => text.push_str(UNKNOWN),
        }
    }
    text
}

/// Reads the value of [`MISSING`]; an empty one names nothing.
pub(crate) fn read_missing(text: &str) -> Result<Vec<Missing>> {
    let wrong = || Error::malformed("index.json", "has an invalid annotation of missing layers");
    let one = |item: &str| {
        let (digest, rest) = item.split_once(',')?;
        let (size, diff_id) = rest.split_once(',')?;
        let diff_id = match diff_id {
            UNKNOWN => None,
            id => Some(id.parse().ok()?),
        };
        Some(Missing {
            digest: digest.parse().ok()?,
            size: size.parse().ok()?,
            diff_id,
        })
    };
    let items = text.split(' ').filter(|item| !item.is_empty());
    items.map(|item| one(item).ok_or_else(wrong)).collect()
}

/// The identity of a full archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whole {
    pub size: u64,
    /// Of its plan.
    pub digest: Digest,
}

impl Whole {
    pub(super) fn text(self) -> String {
        format!("{},{}", self.size, self.digest)
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let (size, digest) = text.split_once(',')?;
        Some(Self {
            size: size.parse().ok()?,
            digest: digest.parse().ok()?,
        })
    }
}

/// The thin part of a plan.
#[derive(Clone, Debug)]
pub(super) struct Thin {
    /// The layers that are left out.
    pub left_out: BTreeSet<Digest>,
    pub whole: Whole,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    #[test]
    fn annotations_are_read_as_they_were_written() {
        let digest = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        let all = [
            Missing {
                digest: digest("a"),
                size: 7,
                diff_id: Some(digest("b")),
            },
            Missing {
                digest: Digest::of(Algorithm::Sha512, b"c"),
                size: u64::MAX,
                diff_id: None,
            },
        ];
        assert_eq!(read_missing(&missing_text(&all)).unwrap(), all);
        assert!(read_missing("").unwrap().is_empty());
        let a = digest("a");
        for text in [
            "x".to_owned(),
            format!("{a}"),
            format!("{a},5"),
            format!("{a},-5,-"),
            format!("{a},5,x"),
            format!("{a},5,-,"),
            format!("{a}, 5,-"),
        ] {
            assert!(read_missing(&text).is_err(), "{text}");
        }
        let whole = Whole { size: 5, digest: a };
        assert_eq!(Whole::read(&whole.text()), Some(whole));
        assert_eq!(Whole::read("5"), None);
    }
}
