//! A worker: takes tasks, checks what is already there, hashes in order, and verifies each blob.
//! [`super::transfer`] fetches the bytes.
//!
//! Each blob has a front: how far it has been hashed, in order. A worker whose segment begins there
//! hashes what it receives. What others write after it is read again (from the page cache) when the
//! front gets there, and so is data that arrives faster than one worker can receive and hash. Only
//! data hashed in this run counts.

use super::event::Event;
use super::noted::Noted;
use super::schedule::Task;
use super::schedule::segment::{Part, Segment};
use super::state::{Front, Shared};
use crate::archive::sink::journal::{Claim, Record, claimed};
use crate::archive::source::Place;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::sync::lock;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, MutexGuard};

/// The largest read from the file, in bytes.
pub(super) const BUFFER: usize = 128 << 10;

/// The verified part of a chunk.
struct Found {
    /// As if it had been received up to this point.
    part: Part,
    /// The blob's hash up to the chunk's end, if the hash before it was known.
    hasher: Option<Hasher>,
}

pub(super) struct Worker<'p> {
    pub(super) shared: &'p Shared<'p>,
    pub(super) buffer: Vec<u8>,
}

impl<'p> Worker<'p> {
    pub fn new(shared: &'p Shared<'p>) -> Self {
        Self {
            shared,
            buffer: vec![0; BUFFER],
        }
    }

    /// Works until there is nothing to do, or the pull has failed.
    pub fn run(mut self) {
        loop {
            let outcome = match self.shared.queue.next() {
                Task::Check(blob) => self.check(blob),
                Task::Fetch(segment, whole) => self.fetch(&segment, whole),
                Task::Follow(segment) => self.follow(&segment),
                Task::End => return,
            };
            if let Err(error) = outcome {
                self.shared.fail(error);
                return;
            }
        }
    }

    fn front(&self, blob: usize) -> MutexGuard<'p, Front> {
        let shared: &'p Shared<'p> = self.shared;
        lock(&shared.fronts[blob])
    }

    /// Reads what the journal claims or another file lends, and keeps what matches.
    fn check(&mut self, blob: usize) -> Result<()> {
        let shared = self.shared;
        let chunks = shared.chunks(blob);
        if let Some(Some(_)) = shared.raw().get(blob) {
            let size = shared.plan.blobs()[blob].descriptor.size;
            shared.progress.kept(blob, size);
            self.finish(blob);
            return Ok(());
        }
        let mut front = self.front(blob);
        let (mut present, mut parts) = (Vec::new(), BTreeMap::new());
        for chunk in 0..chunks.count() {
            if shared.queue.is_stopped() {
                return Ok(());
            }
            let hasher = (front.next == chunk).then_some(&front.hasher);
            let Some(found) = self.check_chunk(blob, chunk, hasher)? else {
                continue;
            };
            shared.progress.kept(blob, found.part.kept);
            if found.part.at < chunks.range(chunk).end {
                parts.insert(chunk, found.part);
                continue;
            }
            if let Some(hasher) = found.hasher {
                front.hasher = hasher;
                front.next += 1;
            }
            present.push(chunk);
        }
        if present.len() < chunks.count() && !shared.places(blob).is_empty() {
            if let Some(hasher) = self.take_over(blob, &present)? {
                parts.clear();
                present = (0..chunks.count()).collect();
                front.hasher = hasher;
                front.next = chunks.count();
            }
            // A wrong copy has overwritten the partial chunks.
            for (chunk, part) in std::mem::take(&mut parts) {
                shared.progress.lost(blob, part.kept, part.kept);
                if let Some(found) = self.check_chunk(blob, chunk, None)? {
                    shared.progress.kept(blob, found.part.kept);
                    match found.part.at < chunks.range(chunk).end {
                        true => drop(parts.insert(chunk, found.part)),
                        false => present.push(chunk),
                    }
                }
            }
        }
        drop(front);
        shared.queue.checked(blob, &present, parts);
        self.advance(blob)
    }

    /// How much of this chunk is there or can be taken from the lender. Hashes it while reading.
    fn check_chunk(
        &mut self,
        blob: usize,
        chunk: usize,
        hasher: Option<&Hasher>,
    ) -> Result<Option<Found>> {
        let shared = self.shared;
        let size = shared.chunks(blob).length(chunk);
        let own = shared.claims[blob].get(chunk).copied().unwrap_or_default();
        let (own_size, lent) = (claimed(own, size), shared.lent(blob, chunk));
        let lent = lent.map(|(record, place)| (record, Some(place)));
        let mut tries = [Some((own, None)), lent];
        // Our own claim first, unless the other file has more.
        if lent.is_some_and(|(record, _)| claimed(record, size) > own_size) {
            tries.swap(0, 1);
        }
        for (record, from) in tries.into_iter().flatten() {
            if claimed(record, size) == 0 {
                continue;
            }
            let found = self.check_record(blob, chunk, record, from, hasher.cloned())?;
            if found.is_some() {
                return Ok(found);
            }
        }
        if own_size > 0 {
            shared.store.unmark(blob, chunk)?;
        }
        Ok(None)
    }

    /// Reads what a record claims, and copies it if it is `from` that offset of the lender's file.
    /// The longer claim counts if it matches, otherwise the shorter one.
    fn check_record(
        &mut self,
        blob: usize,
        chunk: usize,
        record: Record,
        from: Option<u64>,
        mut hasher: Option<Hasher>,
    ) -> Result<Option<Found>> {
        let shared = self.shared;
        let range = shared.chunks(blob).range(chunk);
        let size = range.end - range.start;
        let ends = record.map(|claim| range.start + claim.length(size));
        let mut crc = crc32fast::Hasher::new();
        let mut found = None;
        let mut at = range.start;
        while let Some(end) = ends.into_iter().filter(|end| *end > at).min() {
            let length = (end - at).min(BUFFER as u64) as usize;
            let part = &mut self.buffer[..length];
            match (from, &shared.lender) {
                (Some(offset), Some(lender)) => {
                    if lender.read_at(part, offset + at).is_err() {
                        break;
                    }
                    shared.store.write_at(blob, part, at)?;
                }
                _ => shared.store.read_at(blob, part, at)?,
            }
            crc.update(part);
            if let Some(hasher) = &mut hasher {
                hasher.update(part);
            }
            at += length as u64;
            let sum = crc.clone().finalize();
            let right = |slot: &usize| ends[*slot] == at && record[*slot].crc == sum;
            if let Some(slot) = (0..2).find(right) {
                found = Some((at, slot, crc.clone()));
            }
        }
        let Some((at, slot, crc)) = found else {
            return Ok(None);
        };
        let slot = match from {
            Some(_) => {
                shared.store.mark(blob, chunk, 0, record[slot])?;
                0
            }
            None => slot,
        };
        let part = Part {
            at,
            crc,
            noted: Noted::found(at, slot),
            kept: at - range.start,
        };
        Ok(Some(Found { part, hasher }))
    }

    /// Copies the missing parts of a blob from another archive; `present` chunks, in ascending
    /// order, are never overwritten.
    fn take_over(&mut self, blob: usize, present: &[usize]) -> Result<Option<Hasher>> {
        let shared = self.shared;
        for place in shared.places(blob) {
            if shared.queue.is_stopped() {
                break;
            }
            if let Some(hasher) = self.copy(blob, place, present)? {
                return Ok(Some(hasher));
            }
        }
        Ok(None)
    }

    /// Completes a blob from another archive. The other archive may change at any time, so our own
    /// file is hashed; the copied chunks count only if the digest matches.
    fn copy(&mut self, blob: usize, from: &Place, present: &[usize]) -> Result<Option<Hasher>> {
        let shared = self.shared;
        let (chunks, before) = (shared.chunks(blob), shared.progress.of(blob));
        let digest = shared.plan.blobs()[blob].descriptor.digest;
        let mut hasher = Hasher::new(digest.algorithm());
        let mut copied = Vec::with_capacity(chunks.count() - present.len());
        for chunk in 0..chunks.count() {
            let range = chunks.range(chunk);
            let length = range.end - range.start;
            let missing = present.binary_search(&chunk).is_err();
            if shared.queue.is_stopped()
                || (missing && !shared.store.copy_from(blob, range.start, from, length)?)
            {
                shared.progress.set(blob, before);
                return Ok(None);
            }
            let crc = self.read_back(blob, range, &mut hasher)?;
            if missing {
                copied.push((chunk, crc));
                shared.progress.kept(blob, length);
            }
        }
        let right = hasher.clone().finish() == digest;
        shared.progress.set(blob, before);
        if !right {
            return Ok(None);
        }
        for (chunk, crc) in copied {
            shared.store.mark(blob, chunk, 0, Claim::whole(crc))?;
        }
        let size = shared.plan.blobs()[blob].descriptor.size;
        shared.progress.set(blob, size);
        Ok(Some(hasher))
    }

    /// Hashes written bytes of a blob; returns their CRC-32.
    fn read_back(&mut self, blob: usize, range: Range<u64>, hasher: &mut Hasher) -> Result<u32> {
        let mut crc = crc32fast::Hasher::new();
        self.read(blob, range, |part| {
            crc.update(part);
            hasher.update(part);
        })?;
        Ok(crc.finalize())
    }

    /// Reads written bytes of a blob.
    fn read(&mut self, blob: usize, range: Range<u64>, mut each: impl FnMut(&[u8])) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(BUFFER as u64) as usize;
            let part = &mut self.buffer[..length];
            self.shared.store.read_at(blob, part, at)?;
            each(part);
            at += length as u64;
        }
        Ok(())
    }

    /// Hashes what another worker has written, while it continues.
    fn follow(&mut self, segment: &Arc<Segment>) -> Result<()> {
        let mut seen = 0;
        while let Some(more) = self.shared.queue.grows(segment, seen) {
            seen = more;
            self.advance(segment.blob)?;
        }
        self.advance(segment.blob)
    }

    /// Hashes from the front as far as chunks are present, and finishes the blob at its end.
    pub(super) fn advance(&mut self, blob: usize) -> Result<()> {
        let shared = self.shared;
        let chunks = shared.chunks(blob);
        loop {
            // Only the worker that completes the blob has to wait for the front; others leave it.
            let mut front = if shared.queue.is_complete(blob) {
                self.front(blob)
            } else {
                match shared.fronts[blob].try_lock() {
                    Ok(front) => front,
                    Err(_) => return Ok(()),
                }
            };
            while front.next < chunks.count() && shared.queue.has(blob, front.next) {
                if shared.queue.is_stopped() {
                    return Ok(());
                }
                let range = chunks.range(front.next);
                self.read(blob, range, |part| front.hasher.update(part))?;
                front.next += 1;
                shared.passed(blob, front.next);
            }
            if front.next == chunks.count() {
                return self.judge(blob, front);
            }
            drop(front);
            // The last chunk may have arrived just before the front was released.
            if !shared.queue.is_complete(blob) {
                return Ok(());
            }
        }
    }

    /// Finishes a blob.
    fn finish(&self, blob: usize) {
        let shared = self.shared;
        let descriptor = &shared.plan.blobs()[blob].descriptor;
        shared.tell(Event::Layer {
            layer: blob,
            digest: descriptor.digest,
            size: descriptor.size,
            kept: shared.progress.close(blob),
        });
        if shared.queue.finish(blob) {
            shared.client.agent().hang_up();
        }
    }

    /// A blob is completely hashed: compares it with its descriptor.
    fn judge(&self, blob: usize, mut front: MutexGuard<'_, Front>) -> Result<()> {
        let shared = self.shared;
        let descriptor = &shared.plan.blobs()[blob].descriptor;
        if !shared.progress.is_open(blob) {
            return Ok(());
        }
        let found = front.hasher.clone().finish();
        if found == descriptor.digest {
            shared.store.settle(blob)?;
            self.finish(blob);
            return Ok(());
        }
        let chunks = shared.chunks(blob);
        for chunk in 0..chunks.count() {
            shared.store.unmark(blob, chunk)?;
        }
        let mirrored = shared.client.leave_mirrors();
        if !mirrored && (front.second || chunks.count() == 0) {
            let error = Error::Mismatch {
                blob: format!(
                    "layer {} of {}",
                    descriptor.digest,
                    shared.reference(blob).name()
                ),
                digest: Box::new(descriptor.digest),
                expected: descriptor.digest.to_string(),
                found: found.to_string(),
            };
            return Err(shared.client.blame_coding(&descriptor.digest, error));
        }
        shared.tell(Event::Note(format!(
            "layer {}: digest mismatch: got {found}; downloading it again",
            descriptor.digest
        )));
        *front = Front {
            // A mirror's mistake does not count against the registry.
            second: !mirrored,
            ..Front::new(Hasher::new(descriptor.digest.algorithm()))
        };
        shared.progress.reset(blob);
        shared.queue.again(blob);
        Ok(())
    }
}
