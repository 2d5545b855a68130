//! Transfer of one segment from the registry to its place: requests, ranges, and broken
//! connections.
//!
//! A transfer resumes at the byte where a connection broke, with its checksum and hash state.
//! [`super::worker`] checks a blob's digest.

use super::checkpoint::place;
use super::schedule::segment::{Part, Segment};
use super::state::{Front, Shared};
use super::worker::{BUFFER, Worker};
use crate::archive::sink::journal::{Chunks, Claim};
use crate::digest::Hasher;
use crate::error::Result;
use crate::registry::blob::body::Flow;
use crate::registry::blob::{Answer, Attempt, Failure, Tries};
use std::sync::{Arc, MutexGuard};

/// How much of an unwanted rest is drained to keep the connection.
const KEEP_REST: u64 = 32 << 10;

/// The largest read from a socket and the largest write, in bytes. For large writes the kernel
/// allocates large pages, which a virtual machine that was idle has to fetch from its host. One
/// layer of 512 MB took, with 256 KiB, 0.65 s (0.81 s of processor time) right after another pull
/// and 1.06 s (1.26 s) after a rest; with 32 KiB, 0.51 s (0.65 s) and 0.58 s (0.66 s).
const UNIT: usize = 32 << 10;

/// The state of a segment's transfer; it survives a broken connection.
struct Transfer<'p> {
    segment: Arc<Segment>,
    chunks: Chunks,
    /// The blob's next missing byte.
    at: u64,
    crc: crc32fast::Hasher,
    /// Held while this worker is at the front, with the running hash.
    front: Option<(MutexGuard<'p, Front>, Hasher)>,
    /// The whole blob is wanted: its first request has no range.
    whole: bool,
    /// Whether a mirror sends it.
    mirrored: bool,
}

enum Outcome {
    Done,
    /// Another worker has the segment now.
    Lost,
}

impl<'p> Worker<'p> {
    /// Fetches a segment's chunks, over as many connections as it takes.
    pub(super) fn fetch(&mut self, segment: &Arc<Segment>, whole: bool) -> Result<()> {
        let outcome = match self.shared.joined {
            None => self.fetch_segment(segment, whole),
            Some(archive) => self.shared.check_empty(segment.blob, archive),
        };
        let noted = self.shared.note_last(segment);
        self.shared.queue.release(segment);
        outcome?;
        noted?;
        self.advance(segment.blob)
    }

    fn fetch_segment(&mut self, segment: &Arc<Segment>, whole: bool) -> Result<()> {
        let shared: &'p Shared<'p> = self.shared;
        let chunks = shared.chunks(segment.blob);
        let start = chunks.range(segment.first).start;
        let part = segment.lock().part.clone();
        let part = part.unwrap_or_else(|| Part::nothing(start));
        // The front still has to hash the written part of a chunk.
        let front = shared.fronts[segment.blob]
            .try_lock()
            .ok()
            .filter(|front| front.next == segment.first && part.at == start);
        let mut transfer = Transfer {
            segment: segment.clone(),
            chunks,
            at: part.at,
            crc: part.crc,
            front: front.map(|front| {
                let hasher = front.hasher.clone();
                (front, hasher)
            }),
            whole,
            mirrored: false,
        };
        let descriptor = &shared.plan.blobs()[segment.blob].descriptor;
        let mut tries = Tries::new(shared.client, &shared.stop, descriptor);
        while !segment.lock().revoked {
            segment.ask();
            let before = transfer.at;
            let failure = match self.stream(&mut transfer) {
                Ok(Outcome::Done | Outcome::Lost) => return Ok(()),
                Err(failure) => failure,
            };
            // The connection is over, so there is nothing to abort.
            segment.lock().socket = None;
            if shared.queue.is_stopped() || segment.lock().revoked {
                break;
            }
            tries.progress(transfer.at - before);
            if failure.is_of_load() && shared.queue.fewer() {
                shared
                    .client
                    .note(&format!("{failure}; continuing with fewer connections"));
                return Ok(());
            }
            if !tries.again(failure, transfer.mirrored)? {
                break;
            }
        }
        Ok(())
    }

    /// One request for the rest of a segment, and its response.
    fn stream(&mut self, transfer: &mut Transfer<'p>) -> Attempt<Outcome> {
        let shared = self.shared;
        let blob = transfer.segment.blob;
        let descriptor = &shared.plan.blobs()[blob].descriptor;
        let end = transfer.end();
        if transfer.at >= end {
            return Ok(Outcome::Done);
        }
        let whole = (transfer.whole && transfer.at == 0) || !shared.queue.serves_ranges(blob);
        let range = (!whole).then_some((transfer.at, end - 1));
        transfer.mirrored = false;
        let (answer, mirrored) =
            shared
                .repository(blob)?
                .answer(descriptor, range, shared.queue.is_second(blob))?;
        transfer.mirrored = mirrored;
        match answer {
            Answer::NoRange => self.without_range(transfer),
            Answer::Part(flow) => self.receive(transfer, flow, None),
            Answer::Whole(flow) => {
                if range.is_some() && !self.no_ranges(&transfer.segment) {
                    return Ok(Outcome::Lost);
                }
                self.receive(transfer, flow, Some(descriptor.size))
            }
        }
    }

    /// Continues with a response that contains the whole blob, if possible.
    fn without_range(&mut self, transfer: &mut Transfer<'p>) -> Attempt<Outcome> {
        if !self.no_ranges(&transfer.segment) {
            return Ok(Outcome::Lost);
        }
        self.stream(transfer)
    }

    /// The registry does not serve ranges: whether this segment may use a whole response. Later
    /// partial chunks are downloaded again with it.
    fn no_ranges(&self, segment: &Segment) -> bool {
        let (shared, blob) = (self.shared, segment.blob);
        for part in shared.queue.drop_parts(blob).values() {
            let (_, length) = place(shared.chunks(blob), part.at);
            shared.progress.lost(blob, length, part.kept);
        }
        let whole = shared.queue.no_ranges(segment);
        // Another segment's response brings its chunks, all of them once more.
        if !whole && let Some(part) = segment.lock().part.take() {
            let (_, length) = place(shared.chunks(blob), part.at);
            shared.progress.lost(blob, length, part.kept);
        }
        whole
    }

    /// Writes a response's body to its place. `whole`: it starts at the blob's first byte, has this
    /// length, and the bytes before the wanted one are skipped.
    fn receive(
        &mut self,
        transfer: &mut Transfer<'p>,
        mut flow: Flow<'_>,
        whole: Option<u64>,
    ) -> Attempt<Outcome> {
        let shared = self.shared;
        let blob = transfer.segment.blob;
        let descriptor = &shared.plan.blobs()[blob].descriptor;
        if whole.is_some() && transfer.at == 0 && flow.length().is_some() {
            // Only now the registry confirms the size.
            shared.store.reserve(blob, descriptor.size)?;
        }
        let segment = transfer.segment.clone();
        segment.lock().socket = flow.socket();
        let mut skip = whole.map_or(0, |_| transfer.at);
        while skip > 0 {
            let room = skip.min(BUFFER as u64) as usize;
            let read = flow.read(&mut self.buffer[..room])?;
            if read == 0 {
                return Err(flow.short(descriptor, &shared.host(blob)));
            }
            shared.progress.received(read as u64);
            skip -= read as u64;
        }
        let place = shared.plan.blobs()[blob].offset;
        loop {
            let wanted = transfer
                .end()
                .saturating_sub(transfer.at)
                .min(to_boundary(place + transfer.at, UNIT as u64))
                as usize;
            if wanted == 0 {
                return self.end(transfer, flow, descriptor);
            }
            let (filled, failure) = self.fill(&segment, &mut flow, wanted);
            if filled > 0 {
                let mut owner = segment.lock();
                if owner.revoked {
                    return Ok(Outcome::Lost);
                }
                let at = transfer.at;
                let part = owner.part.get_or_insert_with(|| Part::nothing(at));
                shared.take(transfer, &self.buffer[..filled], part)?;
                shared.note_much(blob, part)?;
                let noted = part.noted;
                drop(owner);
                shared.sync(&noted)?;
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            if shared.queue.is_stopped() {
                return Ok(Outcome::Lost);
            }
        }
    }

    /// Reads into the buffer: once, or on a fast link until it has the wanted amount. Bytes before
    /// a failure count.
    fn fill(
        &mut self,
        segment: &Segment,
        flow: &mut Flow<'_>,
        wanted: usize,
    ) -> (usize, Option<Failure>) {
        let mut filled = 0;
        loop {
            let read = match flow.read(&mut self.buffer[filled..wanted]) {
                Ok(0) => {
                    let shared = self.shared;
                    let descriptor = &shared.plan.blobs()[segment.blob].descriptor;
                    let short = flow.short(descriptor, &shared.host(segment.blob));
                    return (filled, Some(short));
                }
                Ok(read) => read,
                Err(failure) => return (filled, Some(failure)),
            };
            filled += read;
            self.shared.progress.received(read as u64);
            segment.receive(read as u64);
            if filled == wanted || !segment.is_brisk() {
                return (filled, None);
            }
        }
    }

    /// Everything wanted is there. A body that continues after the blob's end is hostile; one whose
    /// rest another worker has is abandoned.
    fn end(
        &mut self,
        transfer: &mut Transfer<'p>,
        mut flow: Flow<'_>,
        descriptor: &crate::Descriptor,
    ) -> Attempt<Outcome> {
        transfer.segment.lock().socket = None;
        if transfer.at == descriptor.size && flow.length().is_none() {
            let more = flow.read(&mut self.buffer[..1])?;
            if more > 0 {
                return Err(flow.long(descriptor));
            }
        } else if flow.length().is_some_and(|length| length <= KEEP_REST) {
            flow.drain();
        }
        Ok(Outcome::Done)
    }
}

/// How many bytes to write at this offset, at most `most`, so that the next write is page-aligned,
/// which costs the kernel a third less.
fn to_boundary(place: u64, most: u64) -> u64 {
    most - place % most
}

impl Transfer<'_> {
    /// The segment's current end, in bytes.
    fn end(&self) -> u64 {
        match self.segment.end() {
            0 => 0,
            end => self.chunks.range(end - 1).end,
        }
    }
}

impl Shared<'_> {
    /// Writes received bytes and records each chunk that they complete. Bytes of a chunk that is
    /// already there are skipped.
    fn take(
        &self,
        transfer: &mut Transfer<'_>,
        mut bytes: &[u8],
        under_way: &mut Part,
    ) -> Result<()> {
        let blob = transfer.segment.blob;
        let from = transfer.at;
        let last = transfer.chunks.at(from + bytes.len() as u64 - 1);
        let absent = (transfer.chunks.at(from)..=last).all(|chunk| !self.queue.has(blob, chunk));
        if absent {
            self.store.write_at(blob, bytes, from)?;
        }
        while !bytes.is_empty() {
            let chunk = transfer.chunks.at(transfer.at);
            let range = transfer.chunks.range(chunk);
            let (part, rest) = bytes.split_at(bytes.len().min((range.end - transfer.at) as usize));
            bytes = rest;
            let present = self.queue.has(blob, chunk);
            if present {
                // Its bytes are in the file; the front reads them from there.
                transfer.front = None;
            } else {
                if !absent {
                    self.store.write_at(blob, part, transfer.at)?;
                }
                transfer.crc.update(part);
                if let Some((_, hasher)) = &mut transfer.front {
                    hasher.update(part);
                }
                self.progress.done(blob, part.len() as u64);
            }
            transfer.at += part.len() as u64;
            if transfer.at < range.end {
                continue;
            }
            let crc = std::mem::take(&mut transfer.crc).finalize();
            if !present {
                let slot = self.syncs.slot(&under_way.noted);
                self.store.mark(blob, chunk, slot, Claim::whole(crc))?;
                if let Some((front, hasher)) = &mut transfer.front {
                    front.hasher = hasher.clone();
                    front.next = chunk + 1;
                    self.passed(blob, front.next);
                }
                if transfer.segment.is_followed() {
                    transfer.front = None;
                }
            }
            self.queue.complete(&transfer.segment);
            *under_way = Part::nothing(transfer.at);
        }
        under_way.at = transfer.at;
        under_way.crc = transfer.crc.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_end_where_whole_pages_do() {
        let buffer = UNIT as u64;
        for place in [0, 1, 5632, buffer - 1, buffer, (8 << 30) + 512] {
            let length = to_boundary(place, buffer);
            assert!((1..=buffer).contains(&length), "{place}");
            assert_eq!((place + length) % buffer, 0, "{place}");
        }
    }
}
