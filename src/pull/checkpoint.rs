//! Checkpoints: records the progress of unfinished chunks in the journal
//! ([`crate::archive::sink::journal`]), so that little has to be downloaded again after any end.
//!
//! A worker records its chunk when it leaves it, and on a line of some MB/s every few hundred KiB.
//! On a slow line the supervising thread does it, because a worker may be waiting for bytes. A fast
//! line completes chunks before any of that happens.

use super::noted::Noted;
use super::schedule::segment::{Part, Segment};
use super::state::Shared;
use crate::archive::sink::journal::{Chunks, Claim};
use crate::error::Result;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The most bytes of a chunk that a kill loses, besides those in flight.
const MANY: u64 = 128 << 10;
/// A chunk that gets [`MANY`] bytes in less than this is finished soon enough without a checkpoint.
const BRISK: Duration = Duration::from_millis(10);
/// How old a slow line's bytes may become before they are recorded.
const NOTED: Duration = Duration::from_millis(500);
/// How old they may become before they are synced.
const SYNCED: Duration = Duration::from_secs(5);

impl Shared<'_> {
    /// Records the progress of a chunk, if the journal does not have it yet.
    pub fn note(&self, blob: usize, part: &mut Part) -> Result<()> {
        let chunks = self.chunks(blob);
        let (chunk, length) = place(chunks, part.at);
        let noted = &mut part.noted;
        if length == 0 || part.at <= noted.at || self.queue.has(blob, chunk) {
            return Ok(());
        }
        let Some(claim) = Claim::part(length, part.crc.clone().finalize()) else {
            return Ok(());
        };
        noted.slot = self.syncs.slot(noted);
        self.store.mark(blob, chunk, noted.slot, claim)?;
        // Only a sync that starts from now on covers it.
        noted.syncs = self.syncs.begun.load(Ordering::SeqCst);
        noted.at = part.at;
        noted.when = Instant::now();
        Ok(())
    }

    /// The same, if enough arrived since the last time, and not too fast.
    pub fn note_much(&self, blob: usize, part: &mut Part) -> Result<()> {
        let before = part
            .noted
            .at
            .max(part.at - place(self.chunks(blob), part.at).1);
        if part.at - before < MANY || part.noted.when.elapsed() < BRISK {
            return Ok(());
        }
        self.note(blob, part)
    }

    /// The same for all chunks that were not recorded for some time.
    pub fn note_old(&self) -> Result<()> {
        for segment in self.queue.under_way() {
            // A worker that is writing records its chunk by itself.
            if let Ok(mut owner) = segment.owner.try_lock()
                && let Some(part) = &mut owner.part
                && part.noted.when.elapsed() >= NOTED
            {
                self.note(segment.blob, part)?;
            }
        }
        Ok(())
    }

    /// The same for a segment that its worker leaves.
    pub fn note_last(&self, segment: &Segment) -> Result<()> {
        match &mut segment.lock().part {
            Some(part) => self.note(segment.blob, part),
            None => Ok(()),
        }
    }

    /// Syncs everything, if chunks take so long that a power cut would lose much time.
    pub fn sync(&self, noted: &Noted) -> Result<()> {
        if noted.begun.elapsed() < SYNCED {
            return Ok(());
        }
        let Ok(mut last) = self.syncs.last.try_lock() else {
            return Ok(());
        };
        if last.elapsed() < SYNCED {
            return Ok(());
        }
        let number = self.syncs.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.store.sync_all()?;
        self.syncs.done.store(number, Ordering::SeqCst);
        *last = Instant::now();
        Ok(())
    }
}

/// The chunk at this byte of a blob, and how much of it is there.
pub(super) fn place(chunks: Chunks, at: u64) -> (usize, u64) {
    let chunk = chunks.at(at);
    if chunk == chunks.count() {
        return (chunk, 0);
    }
    (chunk, at - chunks.range(chunk).start)
}
