//! The choice for an idle worker: a whole blob, a piece of one, the rest of a slow transfer, or
//! hashing behind a fast one.

use super::segment::{Segment, YOUNG};
use super::{BlobState, Check, State};
use std::sync::Arc;
use std::time::Duration;

/// The smallest piece worth its own request, in bytes.
pub(super) const LEAST: u64 = 1 << 20;
/// The pieces of idle workers, in bytes: small enough to stay near the front, large enough that a
/// round trip in between costs little.
const PIECE: u64 = 8 << 20;
const LARGEST_PIECE: u64 = 64 << 20;
/// The rate in bytes per second from which a transfer is left alone: more than a gigabit line
/// carries, so more connections would not help, and their data would have to be read again for
/// hashing.
pub(super) const FAST: f64 = 160e6;
/// If at least this many bytes of such a transfer are left, an idle worker hashes them (read from
/// the page cache), because its own worker is busy enough.
pub(crate) const FOLLOWED: u64 = 64 << 20;
/// Transfers that will end within this time are left alone.
const SOON: Duration = Duration::from_millis(600);
/// A transfer that would need longer than this for its last piece may lose it to an idle worker.
pub(super) const SLOW: Duration = Duration::from_secs(2);

impl State {
    /// The largest blob that no worker has.
    pub(super) fn untouched(&self) -> Option<(Arc<Segment>, bool)> {
        let free = |blob: &&usize| {
            let blob = &self.blobs[**blob];
            blob.check == Check::Over && blob.left > 0 && blob.segments.is_empty()
        };
        let number = *self.order.iter().find(free)?;
        let blob = &self.blobs[number];
        let first = blob.done.iter().position(|done| !done)?;
        let end = if blob.ranges {
            blob.end_from(first)
        } else {
            blob.done.len()
        };
        Some((
            Segment::new(number, first, end),
            first == 0 && end == blob.done.len(),
        ))
    }

    /// A free piece of a blob that others are working on.
    pub(super) fn gap(&self, jobs: usize) -> Option<(Arc<Segment>, bool)> {
        self.order.iter().find_map(|number| {
            let blob = &self.blobs[*number];
            if !blob.ranges || blob.check != Check::Over {
                return None;
            }
            let free = |chunk: &usize| {
                !blob.done[*chunk]
                    && !blob
                        .segments
                        .iter()
                        .any(|s| (s.cursor()..s.end()).contains(chunk))
            };
            let first = (0..blob.done.len()).find(free)?;
            let claimed = blob
                .segments
                .iter()
                .map(|s| s.cursor())
                .filter(|cursor| *cursor > first)
                .min();
            let end = blob.end_from(first).min(claimed.unwrap_or(usize::MAX));
            let piece = blob.piece(blob.left, jobs);
            Some((Segment::new(*number, first, end.min(first + piece)), false))
        })
    }

    /// Part of the transfer that would take longest, if that is long enough.
    pub(super) fn share(&self, jobs: usize) -> Option<(Arc<Segment>, bool)> {
        let (victim, left) = self.longest()?;
        let blob = &self.blobs[victim.blob];
        if (left as u64) < 2 * blob.chunks.in_bytes(LEAST) as u64 {
            return None;
        }
        // A crawling transfer keeps its current chunk.
        let crawls = victim.window().is_some_and(|window| {
            self.pace.crawls(window.rate, self.active)
                && window.length > window.waited.unwrap_or(YOUNG) * 2
        });
        let keeps = match crawls {
            true => 1,
            false => blob.piece(left, jobs).min(left / 2).max(1),
        };
        let (start, end) = (victim.cursor() + keeps, victim.end());
        // The old segment ends where the new one begins; what follows both is a gap.
        victim.end_at(start);
        Some((
            Segment::new(
                victim.blob,
                start,
                end.min(start + keeps.max(left - keeps).min(blob.piece(left, jobs))),
            ),
            false,
        ))
    }

    /// A transfer that can only be helped by hashing.
    pub(super) fn follow(&self) -> Option<Arc<Segment>> {
        let segments = self.blobs.iter().flat_map(|blob| {
            let chunk = blob.chunks.range(0).end;
            blob.segments.iter().map(move |segment| (segment, chunk))
        });
        let mut long = segments.filter(|(segment, chunk)| {
            let left = segment.end().saturating_sub(segment.cursor()) as u64;
            segment.rate().is_some_and(|rate| rate >= FAST) && left * chunk >= FOLLOWED
        });
        let (segment, _) = long.find(|(segment, _)| segment.follow())?;
        Some(segment.clone())
    }

    /// Among those served in ranges, the transfer with the most time left, and its remaining
    /// chunks.
    fn longest(&self) -> Option<(Arc<Segment>, usize)> {
        let all = self
            .blobs
            .iter()
            .filter(|blob| blob.ranges)
            .flat_map(|blob| blob.segments.iter().map(move |s| (blob, s)));
        let timed = all.filter_map(|(blob, segment)| {
            let left = segment.end().saturating_sub(segment.cursor());
            let bytes = left as f64 * blob.chunks.range(0).end as f64;
            let rate = segment.rate().filter(|rate| *rate < FAST)?;
            Some((segment, left, bytes / rate.max(1.0)))
        });
        let (segment, left, _) = timed
            .filter(|(_, _, time)| *time > SOON.as_secs_f64())
            .max_by(|a, b| a.2.total_cmp(&b.2))?;
        Some((segment.clone(), left))
    }

    /// Takes over the rest of a transfer that is far slower than the best.
    pub(super) fn rescue(&self) -> Option<(Arc<Segment>, bool)> {
        let best = self
            .blobs
            .iter()
            .flat_map(|blob| &blob.segments)
            .filter_map(|s| s.rate())
            .fold(0.0, f64::max);
        let (victim, left) = self.longest()?;
        let bytes = left as f64 * self.blobs[victim.blob].chunks.range(0).end as f64;
        let rate = victim.rate()?;
        let hopeless = rate < LEAST as f64 && victim.age() > victim.patience;
        if bytes / rate.max(1.0) < SLOW.as_secs_f64()
            || !(rate < best / 4.0 || hopeless)
            || victim.age() < SLOW.max(victim.patience / 2)
        {
            return None;
        }
        // Workers lock the owner first and this queue second, so never wait for an owner here.
        let mut owner = victim.owner.try_lock().ok()?;
        if !owner.revoke() {
            return None;
        }
        let segment = Segment::taken_over(&victim, owner.part.take());
        victim.end_at(segment.first);
        Some((segment, false))
    }
}

impl BlobState {
    /// The end of a segment that begins at this chunk: the next chunk that is present, completely
    /// or in part.
    fn end_from(&self, from: usize) -> usize {
        let done = self.done[from..].iter().position(|done| *done);
        let done = done.map_or(self.done.len(), |at| from + at);
        let part = self.parts.range(from + 1..).next();
        part.map_or(done, |(chunk, _)| done.min(*chunk))
    }

    /// The size of a piece in chunks, given how many are left.
    fn piece(&self, left: usize, jobs: usize) -> usize {
        let least = self.chunks.in_bytes(PIECE);
        (left / (4 * jobs)).clamp(least, self.chunks.in_bytes(LARGEST_PIECE).max(least))
    }
}
