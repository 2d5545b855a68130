//! Progress counters, written by workers and read for the observer.

use crate::counter::Counter;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How far a pull has come.
pub(super) struct Progress {
    pub downloaded: Counter,
    pub blobs: Vec<BlobProgress>,
    pub running: AtomicUsize,
}

#[derive(Default)]
pub(super) struct BlobProgress {
    pub done: Counter,
    pub kept: Counter,
    pub open: AtomicBool,
}

impl Progress {
    pub fn new(blobs: usize) -> Self {
        let open = || BlobProgress {
            open: AtomicBool::new(true),
            ..BlobProgress::default()
        };
        Self {
            downloaded: Counter::new(0),
            blobs: (0..blobs).map(|_| open()).collect(),
            running: 0.into(),
        }
    }

    pub fn received(&self, bytes: u64) {
        self.downloaded.add(bytes);
    }

    pub fn done(&self, blob: usize, bytes: u64) {
        self.blobs[blob].done.add(bytes);
    }

    pub fn kept(&self, blob: usize, bytes: u64) {
        self.done(blob, bytes);
        self.blobs[blob].kept.add(bytes);
    }

    /// Bytes of a blob must be downloaded again, of which this many were there before this run.
    pub fn lost(&self, blob: usize, bytes: u64, kept: u64) {
        // Counters wrap around.
        self.blobs[blob].done.add(bytes.wrapping_neg());
        self.blobs[blob].kept.add(kept.wrapping_neg());
    }

    /// Bytes of a blob that are there.
    pub fn of(&self, blob: usize) -> u64 {
        self.blobs[blob].done.get()
    }

    /// Counts bytes of a blob that did not come from the network.
    pub fn set(&self, blob: usize, bytes: u64) {
        self.blobs[blob].done.set(bytes);
        self.blobs[blob].kept.set(bytes);
    }

    pub fn reset(&self, blob: usize) {
        self.blobs[blob].done.set(0);
        self.blobs[blob].kept.set(0);
    }

    pub fn is_open(&self, blob: usize) -> bool {
        self.blobs[blob].open.load(Ordering::Relaxed)
    }

    /// Marks the blob as finished; returns how many of its bytes were kept.
    pub fn close(&self, blob: usize) -> u64 {
        self.blobs[blob].open.store(false, Ordering::Relaxed);
        self.blobs[blob].kept.get()
    }
}
