//! What the journal has recorded about unfinished chunks, and which syncs made that durable.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What the journal has recorded about an unfinished chunk.
#[derive(Clone, Copy)]
pub(crate) struct Noted {
    /// The blob's first byte that is not recorded.
    pub at: u64,
    pub when: Instant,
    pub begun: Instant,
    /// The claim to be written next.
    pub slot: usize,
    /// How many syncs had started when the last one was written.
    pub syncs: usize,
}

impl Noted {
    /// Nothing yet.
    pub fn nothing() -> Self {
        let now = Instant::now();
        Self {
            at: 0,
            when: now,
            begun: now,
            slot: 0,
            syncs: usize::MAX,
        }
    }

    /// One of a record's claims was right up to this byte: the next one must not overwrite it.
    pub fn found(at: u64, slot: usize) -> Self {
        Self {
            at,
            slot: 1 - slot,
            ..Self::nothing()
        }
    }
}

/// The syncs of a pull, one after the other.
pub(super) struct Syncs {
    pub begun: AtomicUsize,
    pub done: AtomicUsize,
    pub last: Mutex<Instant>,
}

impl Syncs {
    pub fn new() -> Self {
        Self {
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
        }
    }

    /// Which claim to write next: not one that a sync made durable.
    pub fn slot(&self, noted: &Noted) -> usize {
        if self.done.load(Ordering::SeqCst) > noted.syncs {
            1 - noted.slot
        } else {
            noted.slot
        }
    }
}
