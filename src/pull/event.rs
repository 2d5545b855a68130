//! What an observer of a pull is told.

use crate::digest::Digest;
use crate::error::count;
use std::fmt;
use std::time::Duration;

/// How often an observer learns how far a pull has come.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// One layer's state while a pull is under way.
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

/// Something happened; told on the thread that called the pull.
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
    /// Ten times a second, and once at the end: where all stands.
    Progress {
        /// Bytes that are in the archive.
        done: u64,
        /// Bytes of all blobs together.
        total: u64,
        /// Bytes that came from the network in this run.
        downloaded: u64,
        /// The blobs under way.
        active: Vec<LayerProgress>,
    },
    /// A blob is in the archive, and true.
    Layer {
        /// Its number in the plan, from 0.
        layer: usize,
        /// Its digest.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many of its bytes were there already, or were copied from another file.
        kept: u64,
    },
    /// Something that a person may want to know; the pull goes on.
    Note(String),
    /// What was pulled is brought into another form, beginning now.
    Stage {
        /// What is done: `inflating`, `compressing`, `writing`.
        doing: &'static str,
        /// Bytes of blobs that have to go through; [`Event::Progress`] counts them from zero.
        total: u64,
    },
    /// All blobs are there; the archive is brought to the disk.
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
