//! Counters that workers write and that the observer's snapshot reads.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// How far a pull has come.
pub(super) struct Progress {
    pub downloaded: AtomicU64,
    pub blobs: Vec<BlobProgress>,
    pub running: AtomicUsize,
}

#[derive(Default)]
pub(super) struct BlobProgress {
    pub done: AtomicU64,
    pub kept: AtomicU64,
    pub open: AtomicBool,
}

impl Progress {
    pub fn new(blobs: usize) -> Self {
        let open = || BlobProgress {
            open: AtomicBool::new(true),
            ..BlobProgress::default()
        };
        Self {
            downloaded: AtomicU64::new(0),
            blobs: (0..blobs).map(|_| open()).collect(),
            running: 0.into(),
        }
    }

    pub fn received(&self, bytes: u64) {
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn done(&self, blob: usize, bytes: u64) {
        self.blobs[blob].done.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn kept(&self, blob: usize, bytes: u64) {
        self.done(blob, bytes);
        self.blobs[blob].kept.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of a blob that are there.
    pub fn of(&self, blob: usize) -> u64 {
        self.blobs[blob].done.load(Ordering::Relaxed)
    }

    /// So many bytes of a blob are there, and none of them came from the network.
    pub fn set(&self, blob: usize, bytes: u64) {
        self.blobs[blob].done.store(bytes, Ordering::Relaxed);
        self.blobs[blob].kept.store(bytes, Ordering::Relaxed);
    }

    pub fn reset(&self, blob: usize) {
        self.blobs[blob].done.store(0, Ordering::Relaxed);
        self.blobs[blob].kept.store(0, Ordering::Relaxed);
    }

    pub fn is_open(&self, blob: usize) -> bool {
        self.blobs[blob].open.load(Ordering::Relaxed)
    }

    /// The blob is finished; says how many of its bytes were kept.
    pub fn close(&self, blob: usize) -> u64 {
        self.blobs[blob].open.store(false, Ordering::Relaxed);
        self.blobs[blob].kept.load(Ordering::Relaxed)
    }
}
