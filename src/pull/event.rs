//! Events for the observer of a pull.

use crate::digest::Digest;
use crate::error::count;
use std::fmt;
use std::time::Duration;

/// The interval of progress events.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// The progress of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerProgress {
    /// Its number in the plan, from 0.
    pub layer: usize,
    /// Its digest.
    pub digest: Digest,
    /// How many of its bytes are in the archive.
    pub done: u64,
    /// How many it has.
    pub size: u64,
}

/// An event, delivered on the thread that called the pull.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The plan is laid out.
    Started {
        /// Bytes of all blobs together.
        total: u64,
        /// Number of blobs.
        layers: usize,
    },
    /// The overall progress, ten times a second and once at the end.
    Progress {
        /// Bytes that are in the archive.
        done: u64,
        /// Bytes of all blobs together.
        total: u64,
        /// Bytes that came from the network in this run.
        downloaded: u64,
        /// The blobs in progress.
        active: Vec<LayerProgress>,
    },
    /// A blob has been written and its digest verified.
    Layer {
        /// Its number in the plan, from 0.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many of its bytes were already there, or were copied from another file.
        kept: u64,
    },
    /// A message for people; the pull continues.
    Note(String),
    /// The conversion of the downloaded layers begins.
    Stage {
        /// What is done: `inflating`, `compressing`, `writing`, `checking`, `hashing`.
        doing: &'static str,
        /// Bytes of blobs to process; [`Event::Progress`] counts them from zero.
        total: u64,
    },
    /// All blobs are there; the archive is being synced.
    Finishing,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { total, layers } => {
                write!(f, "{}, {total} bytes", count(*layers, "layer"))
            }
            Self::Progress { done, total, .. } => write!(f, "{done} of {total} bytes"),
            Self::Layer { digest, size, .. } => write!(f, "{digest}: {size} bytes"),
            Self::Note(text) => f.write_str(&crate::error::line(text)),
            Self::Stage { doing, total } => write!(f, "{doing} {total} bytes"),
            Self::Finishing => f.write_str("syncing the archive to disk"),
        }
    }
}
