//! Who fetches what next? Pure decisions under one lock: no input or output happens here.
//!
//! A blob is asked for whole first, the largest ones first. When no whole blob is left, an idle
//! worker takes a later piece of one that others are at work on, by a closed range, near its
//! front, so that what is hashed in order was written a moment ago. A connection much slower than
//! the others loses its rest to an idle worker. Where one alone is as fast as a line can be, an idle
//! worker hashes behind it.

use super::segment::{Part, Segment, YOUNG};
use crate::archive::journal::Chunks;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The smallest piece that is worth a request of its own, in bytes.
const LEAST: u64 = 1 << 20;
/// Pieces that idle workers take, in bytes: small enough to stay near the front, large enough
/// that a round trip between two of them costs little.
const PIECE: u64 = 8 << 20;
const LARGEST_PIECE: u64 = 64 << 20;
/// Bytes a second with which a transfer is left alone: more than a line of a gigabit carries, so
/// that further connections would only cost, and what they bring would have to be read again to be
/// hashed in order.
const FAST: f64 = 160e6;
/// Such a transfer's worker is busy enough without hashing, if at least so many bytes are left of
/// it: an idle worker reads them again (from the page cache), and hashes them.
pub(super) const FOLLOWED: u64 = 64 << 20;
/// What will be over within this time is left alone.
const SOON: Duration = Duration::from_millis(600);
/// A transfer that would need longer than this for its last piece may lose all of it to a worker
/// that has nothing else to do.
const SLOW: Duration = Duration::from_secs(2);
/// A transfer that brings less than this share of what the best one brought, and less than
/// [`LEAST`] a second, is given up for a new one: where all crawl, no worker is idle to take it.
const SHARE: f64 = 1.0 / 16.0;
/// How long it is given at first, and at most, however often a new one was no better.
const PATIENCE: Duration = Duration::from_millis(300);
const LONGEST: Duration = Duration::from_secs(32);

/// What a worker is to do.
pub(crate) enum Task {
    /// See what of a blob is there already.
    Check(usize),
    /// Fetch a segment; the flag: ask for the whole blob, without a range.
    Fetch(Arc<Segment>, bool),
    /// Hash what comes of a segment, behind its worker.
    Follow(Arc<Segment>),
    /// All is done, or has failed.
    End,
}

struct State {
    blobs: Vec<BlobState>,
    /// Blob numbers, the largest first.
    order: Vec<usize>,
    stopped: bool,
    /// How many may fetch at once: fewer after the registry said "too many".
    allowed: usize,
    active: usize,
    raised: Instant,
    /// Bytes a second of the best transfer so far.
    best: f64,
    /// How often in a row transfers far slower than that were given up in vain: each time the
    /// next ones are given longer, since the line itself may have become slow.
    in_vain: u32,
    given_up: Option<Instant>,
}

struct BlobState {
    chunks: Chunks,
    done: Vec<bool>,
    left: usize,
    segments: Vec<Arc<Segment>>,
    /// Chunks that nobody is at work on and that are there in part.
    parts: BTreeMap<usize, Part>,
    /// Its first check is to be made, is made, or is over.
    check: Check,
    /// The registry serves ranges of it, as far as is known.
    ranges: bool,
    finished: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Wanted,
    Running,
    Over,
}

/// The queue that all workers of a pull share.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// A segment that is followed has grown, or is over.
    grown: Condvar,
    jobs: usize,
    /// This machine does two things at once.
    parallel: bool,
}

impl Queue {
    /// `check` says which blobs may be there already, in part or whole; `parallel`, whether this
    /// machine does two things at once.
    pub fn new(sizes: &[u64], check: &[bool], jobs: usize, parallel: bool) -> Self {
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|blob| std::cmp::Reverse(sizes[*blob]));
        let blobs = sizes.iter().zip(check).map(|(size, check)| {
            let chunks = Chunks::of(*size);
            BlobState {
                chunks,
                done: vec![false; chunks.count()],
                left: chunks.count(),
                segments: Vec::new(),
                parts: BTreeMap::new(),
                // An empty blob is complete without a request; the check finds that out.
                check: if *check || *size == 0 {
                    Check::Wanted
                } else {
                    Check::Over
                },
                ranges: true,
                finished: false,
            }
        });
        let state = State {
            blobs: blobs.collect(),
            order,
            stopped: false,
            allowed: jobs,
            active: 0,
            raised: Instant::now(),
            best: 0.0,
            in_vain: 0,
            given_up: None,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            grown: Condvar::new(),
            jobs,
            parallel,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the work of all workers.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// The next task; waits until there is one.
    pub fn next(&self) -> Task {
        let mut state = self.lock();
        loop {
            if state.stopped || state.blobs.iter().all(|blob| blob.finished) {
                self.changed.notify_all();
                return Task::End;
            }
            if let Some(task) = state.take(self.jobs) {
                return task;
            }
            if self.parallel
                && let Some(segment) = state.follow()
            {
                return Task::Follow(segment);
            }
            // Rates change without anybody telling, therefore not for long.
            let wait = YOUNG / 2;
            state = self
                .changed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A blob may be there already, in part or whole: it is checked before it is fetched. Said
    /// before the workers begin.
    pub fn look_at(&self, blob: usize) {
        self.lock().blobs[blob].check = Check::Wanted;
    }

    /// A blob was checked; these chunks of it are there.
    pub fn checked(&self, blob: usize, present: &[usize]) {
        let mut state = self.lock();
        let state_of = &mut state.blobs[blob];
        for chunk in present {
            if !std::mem::replace(&mut state_of.done[*chunk], true) {
                state_of.left -= 1;
            }
        }
        state_of.check = Check::Over;
        self.changed.notify_all();
    }

    /// A chunk at the segment's cursor is written. Is there more of the segment to do?
    ///
    /// Called with the segment's owner locked, so that a chunk is never counted for one worker
    /// while another one is about to write it again.
    pub fn complete(&self, segment: &Segment) -> bool {
        let mut state = self.lock();
        let chunk = segment.cursor();
        let blob = &mut state.blobs[segment.blob];
        if !std::mem::replace(&mut blob.done[chunk], true) {
            blob.left -= 1;
        }
        segment.advance();
        if segment.is_followed() {
            self.grown.notify_all();
        }
        !state.stopped && chunk + 1 < segment.end()
    }

    /// The worker has left the segment: what it did not do is free again.
    pub fn release(&self, segment: &Arc<Segment>) {
        let part = segment.lock().part.take();
        let mut state = self.lock();
        let blob = &mut state.blobs[segment.blob];
        blob.segments.retain(|other| !Arc::ptr_eq(other, segment));
        let chunk = segment.cursor();
        if let Some(part) = part.filter(|part| blob.chunks.at(part.at) == chunk)
            && blob.done.get(chunk) == Some(&false)
        {
            blob.parts.insert(chunk, part);
        }
        state.active -= 1;
        self.changed.notify_all();
        self.grown.notify_all();
    }

    /// Waits until more than `seen` chunks of the blob's first ones are there; `None` when nothing
    /// more comes of the segment.
    pub fn grows(&self, segment: &Arc<Segment>, seen: usize) -> Option<usize> {
        let mut state = self.lock();
        loop {
            let segments = &state.blobs[segment.blob].segments;
            if state.stopped || !segments.iter().any(|other| Arc::ptr_eq(other, segment)) {
                return None;
            }
            if segment.cursor() > seen {
                return Some(segment.cursor());
            }
            state = self
                .grown
                .wait_timeout(state, YOUNG)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Gives up transfers that are so much slower than others were that new connections are worth
    /// a try; says how many those were. What they did not bring is free again.
    pub fn give_up_slow(&self) -> usize {
        let mut state = self.lock();
        state.note_best();
        let slow = state.slow();
        // Once for all that were under way together.
        let now = Instant::now();
        if let Some(then) = state.given_up
            && slow.iter().any(|segment| segment.is_younger_than(then))
        {
            state.in_vain += 1;
        }
        if !slow.is_empty() {
            state.given_up = Some(now);
        }
        slow.len()
    }

    /// The registry does not serve ranges of this blob. Is the segment the only one of its blob,
    /// so that a whole answer may serve it? If not, the one before it gets it back.
    pub fn no_ranges(&self, segment: &Segment) -> bool {
        let mut state = self.lock();
        let blob = &mut state.blobs[segment.blob];
        blob.ranges = false;
        if blob.segments.len() == 1 {
            return true;
        }
        let first = segment.cursor();
        if let Some(before) = blob
            .segments
            .iter()
            .find(|other| other.end() == first && other.cursor() < first)
        {
            let next = blob
                .segments
                .iter()
                .map(|other| other.first)
                .filter(|other| *other > first)
                .min();
            before.end_at(next.unwrap_or(blob.done.len()));
            segment.end_at(first);
        }
        false
    }

    /// Does the registry serve ranges of this blob, as far as is known?
    pub fn serves_ranges(&self, blob: usize) -> bool {
        self.lock().blobs[blob].ranges
    }

    /// The registry said that this is too many at once: one worker fewer, as long as others get
    /// through. `false` where there are no others.
    pub fn fewer(&self) -> bool {
        let mut state = self.lock();
        if state.active < 2 {
            return false;
        }
        state.allowed = state.allowed.min(state.active - 1).max(1);
        state.raised = Instant::now();
        true
    }

    /// Is this chunk there?
    pub fn has(&self, blob: usize, chunk: usize) -> bool {
        self.lock().blobs[blob].done[chunk]
    }

    /// Are all chunks of this blob there?
    pub fn is_complete(&self, blob: usize) -> bool {
        self.lock().blobs[blob].left == 0
    }

    /// The blob is there and true.
    pub fn finish(&self, blob: usize) {
        let mut state = self.lock();
        state.blobs[blob].finished = true;
        self.changed.notify_all();
    }

    /// The blob came wrong: once more from zero, in one piece and without ranges.
    pub fn again(&self, blob: usize) {
        let mut state = self.lock();
        let blob = &mut state.blobs[blob];
        blob.done.fill(false);
        blob.parts.clear();
        blob.left = blob.done.len();
        blob.ranges = false;
        self.changed.notify_all();
    }
}

impl State {
    fn take(&mut self, jobs: usize) -> Option<Task> {
        if let Some(number) =
            (0..self.blobs.len()).find(|blob| self.blobs[*blob].check == Check::Wanted)
        {
            self.blobs[number].check = Check::Running;
            return Some(Task::Check(number));
        }
        if self.allowed < jobs && self.raised.elapsed() > Duration::from_secs(10) {
            self.allowed += 1;
            self.raised = Instant::now();
        }
        if self.active >= self.allowed {
            return None;
        }
        let (segment, whole) = self
            .untouched()
            .or_else(|| self.gap(jobs))
            .or_else(|| self.share(jobs))
            .or_else(|| self.rescue())?;
        let blob = &mut self.blobs[segment.blob];
        if let Some(part) = blob.parts.remove(&segment.first) {
            segment.lock().part = Some(part);
        }
        blob.segments.push(segment.clone());
        self.active += 1;
        Some(Task::Fetch(segment, whole))
    }

    /// The largest blob that nobody is at work on.
    fn untouched(&self) -> Option<(Arc<Segment>, bool)> {
        let free = |blob: &&usize| {
            let blob = &self.blobs[**blob];
            blob.check == Check::Over && blob.left > 0 && blob.segments.is_empty()
        };
        let number = *self.order.iter().find(free)?;
        let blob = &self.blobs[number];
        let first = blob.done.iter().position(|done| !done)?;
        let end = if blob.ranges {
            blob.next_done(first)
        } else {
            blob.done.len()
        };
        Some((
            Segment::new(number, first, end),
            first == 0 && end == blob.done.len(),
        ))
    }

    /// A piece of a blob that is free beside those others are at work on.
    fn gap(&self, jobs: usize) -> Option<(Arc<Segment>, bool)> {
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
            let end = blob.next_done(first).min(claimed.unwrap_or(usize::MAX));
            let piece = blob.piece(blob.left, jobs);
            Some((Segment::new(*number, first, end.min(first + piece)), false))
        })
    }

    /// A part of the transfer that would take longest, if that is long enough.
    fn share(&self, jobs: usize) -> Option<(Arc<Segment>, bool)> {
        let (victim, left) = self.longest(|blob| blob.ranges)?;
        let blob = &self.blobs[victim.blob];
        if (left as u64) < 2 * blob.chunks.in_bytes(LEAST) as u64 {
            return None;
        }
        // One that crawls keeps what it is at: the less it has, the fewer will have to ask again.
        let crawls = victim.rate().is_some_and(|rate| rate < self.best * SHARE);
        let keeps = match crawls {
            true => 1,
            false => blob.piece(left, jobs).min(left / 2).max(1),
        };
        let (start, end) = (victim.cursor() + keeps, victim.end());
        // The victim ends where the new segment begins; what lies behind both is a gap.
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

    /// A transfer that nobody can help with but by hashing.
    fn follow(&self) -> Option<Arc<Segment>> {
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

    /// The transfer with the most time left, and how many chunks that are.
    fn longest(&self, fit: impl Fn(&BlobState) -> bool) -> Option<(Arc<Segment>, usize)> {
        let all = self
            .blobs
            .iter()
            .filter(|blob| fit(blob))
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

    /// Takes note of what the best transfer brings, and of whether it was worth it to give others up.
    fn note_best(&mut self) {
        let segments = self.blobs.iter().flat_map(|blob| &blob.segments);
        let flows = segments.filter_map(|segment| Some((segment, segment.flow()?.0)));
        let Some((segment, rate)) = flows.max_by(|a, b| a.1.total_cmp(&b.1)) else {
            return;
        };
        self.best = self.best.max(rate);
        let after = |then| segment.is_younger_than(then);
        if rate > self.best / 4.0 && self.given_up.is_some_and(after) {
            self.in_vain = 0;
        }
    }

    /// How long a transfer that brings next to nothing is given. Twice in vain is bad luck where
    /// every second one is slow.
    fn patience(&self) -> Duration {
        let doubled = self.in_vain.saturating_sub(2).min(16);
        (PATIENCE * (1 << doubled)).min(LONGEST)
    }

    /// The transfers that bring next to nothing, each taken from its worker.
    fn slow(&self) -> Vec<Arc<Segment>> {
        let patience = self.patience();
        // Without ranges, another connection would begin with what is there already.
        let segments = self.blobs.iter().filter(|blob| blob.ranges);
        let slow = segments.flat_map(|blob| &blob.segments).filter(|segment| {
            segment.flow().is_some_and(|(rate, since, waited)| {
                rate < self.best * SHARE
                    && rate < LEAST as f64
                    // Far away, a transfer takes several round trips to get up to speed.
                    && since > patience.max(waited * 2)
            })
        });
        // A worker locks its segment first and this queue second: never wait for it here.
        let taken = slow.filter(|segment| {
            let owner = segment.owner.try_lock();
            owner.is_ok_and(|mut owner| owner.socket.is_some() && owner.revoke())
        });
        taken.cloned().collect()
    }

    /// Takes the whole rest of a transfer that is far slower than the best.
    fn rescue(&self) -> Option<(Arc<Segment>, bool)> {
        let best = self
            .blobs
            .iter()
            .flat_map(|blob| &blob.segments)
            .filter_map(|s| s.rate())
            .fold(0.0, f64::max);
        let (victim, left) = self.longest(|blob| blob.ranges)?;
        let bytes = left as f64 * self.blobs[victim.blob].chunks.range(0).end as f64;
        let rate = victim.rate()?;
        let hopeless = rate < LEAST as f64 && victim.age() > victim.patience;
        if bytes / rate.max(1.0) < SLOW.as_secs_f64()
            || !(rate < best / 4.0 || hopeless)
            || victim.age() < SLOW
        {
            return None;
        }
        // Its worker locks the owner first and this queue second: never wait for it here.
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
    fn next_done(&self, from: usize) -> usize {
        self.done[from..]
            .iter()
            .position(|done| *done)
            .map_or(self.done.len(), |at| from + at)
    }

    /// How many chunks a piece has when so many are left.
    fn piece(&self, left: usize, jobs: usize) -> usize {
        let least = self.chunks.in_bytes(PIECE);
        (left / (4 * jobs)).clamp(least, self.chunks.in_bytes(LARGEST_PIECE).max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    const MIB: u64 = 1 << 20;

    fn fetch(queue: &Queue) -> (Arc<Segment>, bool) {
        match queue.next() {
            Task::Fetch(segment, whole) => (segment, whole),
            _ => panic!("a segment was expected"),
        }
    }

    /// As if the segment's worker had been at it for five seconds, at so many bytes a second.
    fn run_at(queue: &Queue, segment: &Arc<Segment>, rate: u64) -> Arc<Segment> {
        replace(queue, segment, segment.aged(5, rate, Duration::ZERO))
    }

    fn replace(queue: &Queue, segment: &Arc<Segment>, by: Arc<Segment>) -> Arc<Segment> {
        let mut state = queue.lock();
        for other in &mut state.blobs[segment.blob].segments {
            if Arc::ptr_eq(other, segment) {
                *other = by.clone();
            }
        }
        by
    }

    #[test]
    fn whole_blobs_come_first_and_the_largest_before_all() {
        let queue = Queue::new(&[MIB, 5 * MIB, 0], &[false; 3], 4, true);
        assert!(matches!(queue.next(), Task::Check(2)));
        let (one, whole) = fetch(&queue);
        assert_eq!((one.blob, one.first, one.end(), whole), (1, 0, 10, true));
        assert_eq!(fetch(&queue).0.blob, 0);
    }

    #[test]
    fn what_is_there_is_not_fetched() {
        let queue = Queue::new(&[5 * MIB], &[true], 4, true);
        let Task::Check(0) = queue.next() else {
            panic!()
        };
        queue.checked(0, &[0, 1, 5]);
        let (segment, whole) = fetch(&queue);
        assert_eq!((segment.first, segment.end(), whole), (2, 5, false));
        let (segment, _) = fetch(&queue);
        assert_eq!((segment.first, segment.end()), (6, 10));
    }

    #[test]
    fn a_long_transfer_is_shared_without_overlap() {
        let queue = Queue::new(&[100 * MIB], &[false], 4, true);
        let (first, _) = fetch(&queue);
        let first = run_at(&queue, &first, 4 * MIB);
        let mut taken = vec![(0, first.end())];
        for _ in 0..3 {
            let (segment, whole) = fetch(&queue);
            assert!(!whole);
            taken.push((segment.first, segment.end()));
        }
        taken[0].1 = first.end();
        taken.sort_unstable();
        for pair in taken.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{taken:?}");
        }
        assert_eq!(taken[0], (0, 16));
    }

    #[test]
    fn what_comes_as_fast_as_a_line_can_is_left_alone() {
        let queue = Queue::new(&[4096 * MIB], &[false], 4, true);
        let (first, _) = fetch(&queue);
        let fast = run_at(&queue, &first, 200 * MIB);
        assert!(queue.lock().take(4).is_none());
        run_at(&queue, &fast, 100 * MIB);
        assert!(queue.lock().take(4).is_some());
    }

    #[test]
    fn what_comes_as_fast_as_that_is_hashed_by_one_that_is_idle() {
        for (parallel, rate) in [(true, 200 * MIB), (false, 200 * MIB), (true, 100 * MIB)] {
            let queue = Queue::new(&[200 * MIB], &[false], 4, parallel);
            let segment = run_at(&queue, &fetch(&queue).0, rate);
            std::thread::scope(|scope| {
                let next = scope.spawn(|| queue.next());
                std::thread::sleep(YOUNG);
                let followed = segment.is_followed();
                assert_eq!(followed, parallel && rate > 160 * MIB);
                if followed {
                    assert!(matches!(next.join(), Ok(Task::Follow(_))));
                    // By one alone.
                    assert!(queue.lock().follow().is_none());
                }
                queue.stop();
            });
        }
    }

    #[test]
    fn who_follows_waits_for_more_and_ends_with_the_segment() {
        let queue = Queue::new(&[200 * MIB], &[false], 4, true);
        let (segment, _) = fetch(&queue);
        assert!(segment.follow());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| (queue.grows(&segment, 0), queue.grows(&segment, 1)));
            std::thread::sleep(YOUNG);
            assert!(!waits.is_finished());
            assert!(queue.complete(&segment));
            std::thread::sleep(YOUNG);
            assert!(!waits.is_finished());
            queue.release(&segment);
            assert_eq!(waits.join().unwrap(), (Some(1), None));
        });
    }

    #[test]
    fn only_a_brisk_transfer_holds_bytes_back() {
        let queue = Queue::new(&[100 * MIB], &[false], 1, true);
        let (segment, _) = fetch(&queue);
        segment.receive(1000);
        assert!(!segment.is_brisk(), "too early to tell");
        assert!(run_at(&queue, &segment, 20 * MIB).is_brisk());
        assert!(!run_at(&queue, &segment, 10 * MIB).is_brisk());
    }

    /// A segment's connection, and its other end.
    fn connect(segment: &Arc<Segment>) -> TcpStream {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        segment.lock().socket = Some(Arc::new(near));
        listener.accept().unwrap().0
    }

    #[test]
    fn a_transfer_far_slower_than_the_best_is_given_up() {
        let queue = Queue::new(&[100 * MIB, 100 * MIB], &[false; 2], 2, true);
        let (one, two) = (fetch(&queue).0, fetch(&queue).0);
        let slow = run_at(&queue, &two, 1000);
        let mut far = connect(&slow);
        // As long as nothing was faster, nothing tells that it could be.
        assert_eq!(queue.give_up_slow(), 0);
        let fast = run_at(&queue, &one, 10 * MIB);
        let _near = connect(&fast);
        assert_eq!(queue.give_up_slow(), 1);
        assert!(slow.lock().revoked && !fast.lock().revoked);
        // Whoever reads from it need not wait for the next byte.
        assert_eq!(std::io::Read::read(&mut far, &mut [0]).unwrap(), 0);
        assert_eq!(queue.give_up_slow(), 0);
    }

    #[test]
    fn transfers_that_are_given_up_in_vain_get_longer() {
        let queue = Queue::new(&[100 * MIB, 100 * MIB], &[false; 2], 2, true);
        let (one, mut slow) = (fetch(&queue).0, fetch(&queue).0);
        replace(&queue, &one, one.aged(20, 10 * MIB, Duration::ZERO));
        let mut times = Vec::new();
        for _ in 0..10 {
            slow = run_at(&queue, &slow, 1000);
            let _far = connect(&slow);
            times.push(queue.give_up_slow());
            // The next one begins after that.
            queue.lock().given_up = Some(Instant::now() - Duration::from_secs(10));
        }
        assert_eq!(times, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
        // One that is as fast as any tells that it was worth it.
        queue.lock().blobs[one.blob].segments[0] = one.aged(5, 10 * MIB, Duration::ZERO);
        assert_eq!(queue.give_up_slow(), 1);
    }

    #[test]
    fn a_distant_transfer_is_given_time_to_get_up_to_speed() {
        let queue = Queue::new(&[100 * MIB, 100 * MIB], &[false; 2], 2, true);
        let (one, two) = (fetch(&queue).0, fetch(&queue).0);
        run_at(&queue, &one, 10 * MIB);
        let slow = replace(&queue, &two, two.aged(5, 1000, Duration::from_millis(1800)));
        let _far = connect(&slow);
        assert_eq!(queue.give_up_slow(), 0);
        let slow = replace(
            &queue,
            &slow,
            two.aged(5, 1000, Duration::from_millis(1500)),
        );
        let _far = connect(&slow);
        assert_eq!(queue.give_up_slow(), 1);
    }

    #[test]
    fn a_crawling_transfer_loses_its_rest() {
        let queue = Queue::new(&[MIB, 100 * MIB], &[false; 2], 3, true);
        let (large, _) = fetch(&queue);
        let (small, _) = fetch(&queue);
        run_at(&queue, &large, 500 * MIB);
        let small = run_at(&queue, &small, 10);
        // Nothing is left to be shared of the large one: it will be over soon.
        let (rescued, _) = fetch(&queue);
        assert_eq!((rescued.blob, rescued.first, rescued.end()), (0, 0, 2));
        drop(rescued);
        assert_eq!(small.end(), 0);
    }

    #[test]
    fn what_came_of_a_chunk_is_handed_on() {
        let part = |at| {
            Some(Part {
                at,
                crc: crc32fast::Hasher::new(),
            })
        };
        let handed = |segment: &Arc<Segment>| segment.lock().part.as_ref().map(|part| part.at);
        let queue = Queue::new(&[MIB, 100 * MIB], &[false; 2], 3, true);
        let (large, _) = fetch(&queue);
        let (small, _) = fetch(&queue);
        run_at(&queue, &large, 500 * MIB);
        let small = run_at(&queue, &small, 10);
        small.lock().part = part(1000);
        let (rescued, _) = fetch(&queue);
        assert_eq!((rescued.blob, handed(&rescued)), (0, Some(1000)));
        assert!(rescued.patience > small.patience);
        // Its worker leaves it, too: the next one goes on from there.
        rescued.lock().part = part(2000);
        queue.release(&rescued);
        queue.release(&small);
        let (next, whole) = fetch(&queue);
        assert_eq!((next.blob, whole, handed(&next)), (0, true, Some(2000)));
    }

    #[test]
    fn every_chunk_is_fetched_once_whatever_the_order() {
        let queue = Queue::new(&[70 * MIB, 3 * MIB, 1], &[false; 3], 3, true);
        let mut seen = vec![vec![0; 140], vec![0; 6], vec![0; 1]];
        let mut held: Vec<Arc<Segment>> = Vec::new();
        let mut turn = 0_usize;
        loop {
            while held.len() < 3 && !queue.lock().blobs.iter().all(|b| b.left == 0 || b.finished) {
                let task = queue.lock().take(3);
                match task {
                    Some(Task::Fetch(segment, _)) => {
                        let aged = run_at(&queue, &segment, MIB / 10);
                        held.push(aged);
                    }
                    _ => break,
                }
            }
            if held.is_empty() {
                break;
            }
            turn = turn.wrapping_mul(31).wrapping_add(7);
            let at = turn % held.len();
            let segment = held[at].clone();
            let more = !segment.lock().revoked && segment.cursor() < segment.end() && {
                seen[segment.blob][segment.cursor()] += 1;
                queue.complete(&segment)
            };
            if !more {
                queue.release(&segment);
                held.remove(at);
            }
        }
        assert!(seen.iter().flatten().all(|count| *count == 1), "{seen:?}");
    }
}
