//! Scheduling: which worker fetches what. Pure decisions under one lock, without I/O.
//!
//! Blobs are first requested whole, largest first. When no whole blob is left, an idle worker takes
//! a later piece of one in progress, by a closed range, near its front, so that the data is still
//! in the page cache when it is hashed in order. A connection much slower than the others loses its
//! rest to an idle worker. If a single one is as fast as a line can be, an idle worker hashes
//! behind it. [`choose`] makes the choice; [`pace`] defines crawling.

mod choose;
mod pace;
pub(in crate::pull) mod segment;

use crate::archive::sink::journal::Chunks;
use crate::order::largest_first;
use crate::sync::lock;
use segment::{Part, Segment, YOUNG};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use choose::FAST;
pub(crate) use choose::FOLLOWED;
use pace::Pace;

/// A task for a worker.
pub(crate) enum Task {
    /// Check how much of a blob is already there.
    Check(usize),
    /// Fetch a segment; the flag: request the whole blob, without a range.
    Fetch(Arc<Segment>, bool),
    /// Hash the data of a segment, behind its worker.
    Follow(Arc<Segment>),
    /// Everything is done, or has failed.
    End,
}

struct State {
    blobs: Vec<BlobState>,
    /// Blob numbers, the largest first.
    order: Vec<usize>,
    stopped: bool,
    /// How many may fetch at once: fewer after "too many requests".
    allowed: usize,
    active: usize,
    raised: Instant,
    pace: Pace,
}

struct BlobState {
    chunks: Chunks,
    done: Vec<bool>,
    left: usize,
    segments: Vec<Arc<Segment>>,
    /// Partial chunks that no worker has.
    parts: BTreeMap<usize, Part>,
    /// The state of its first check.
    check: Check,
    /// The registry serves ranges of it, as far as known.
    ranges: bool,
    /// It had the wrong digest once.
    second: bool,
    finished: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Wanted,
    Running,
    Over,
}

/// The queue shared by all workers of a pull.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// A followed segment has grown, or has ended.
    grown: Condvar,
    jobs: usize,
    /// This machine has several processors.
    parallel: bool,
}

impl Queue {
    /// `check`: which blobs may already be there, in part or whole; `parallel`: whether this
    /// machine has several processors.
    pub fn new(sizes: &[u64], check: &[bool], jobs: usize, parallel: bool) -> Self {
        let order = largest_first(sizes.iter().copied());
        let blobs = sizes.iter().zip(check).map(|(size, check)| {
            let chunks = Chunks::of(*size);
            BlobState {
                chunks,
                done: vec![false; chunks.count()],
                left: chunks.count(),
                segments: Vec::new(),
                parts: BTreeMap::new(),
                // An empty blob is complete without a request; its check finds out.
                check: if *check || *size == 0 {
                    Check::Wanted
                } else {
                    Check::Over
                },
                ranges: true,
                second: false,
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
            pace: Pace::default(),
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
        lock(&self.state)
    }

    /// Ends the work of all workers.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// The next task; waits for one.
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
            // Rates change without notification, so not for long.
            let wait = YOUNG / 2;
            state = self
                .changed
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Has a blob checked before it is fetched, because it may already be there. Called before the
    /// workers start.
    pub fn look_at(&self, blob: usize) {
        self.lock().blobs[blob].check = Check::Wanted;
    }

    /// A blob was checked: the chunks that are present, and the partial ones.
    pub fn checked(&self, blob: usize, present: &[usize], parts: BTreeMap<usize, Part>) {
        let mut state = self.lock();
        let state_of = &mut state.blobs[blob];
        for chunk in present {
            if !std::mem::replace(&mut state_of.done[*chunk], true) {
                state_of.left -= 1;
            }
        }
        state_of.parts = parts;
        state_of.check = Check::Over;
        self.changed.notify_all();
    }

    /// The chunk at the segment's cursor is written. Returns whether the segment has more.
    ///
    /// Called with the segment's owner locked, so that a chunk is never counted for one worker
    /// while another is about to write it again.
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

    /// The worker has left the segment: the rest is free again.
    pub fn release(&self, segment: &Arc<Segment>) {
        let part = segment.lock().part.take();
        let mut state = self.lock();
        if segment.cursor() >= segment.end() {
            let active = state.active;
            state.pace.note(segment, active);
        }
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

    /// Waits until more than `seen` of the blob's first chunks are there; `None` if the segment
    /// ended or is too slow to wait for.
    pub fn grows(&self, segment: &Arc<Segment>, seen: usize) -> Option<usize> {
        let mut state = self.lock();
        loop {
            let segments = &state.blobs[segment.blob].segments;
            if state.stopped || !segments.iter().any(|other| Arc::ptr_eq(other, segment)) {
                return None;
            }
            let slowed = |rate| rate < FAST / 2.0;
            if segment.window().is_some_and(|window| slowed(window.rate)) {
                segment.unfollow();
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

    /// Gives up transfers so much slower than earlier ones that new connections are worth a try;
    /// returns their number. Their rest is free again.
    pub fn give_up_slow(&self) -> usize {
        let mut state = self.lock();
        let slow = state.slow();
        state.pace.give_up(&slow);
        slow.len()
    }

    /// The registry does not serve ranges of this blob. Returns whether the segment is its only
    /// one, so that a whole response can be used; otherwise the segment before it gets it back.
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

    /// Drops partial chunks that no worker has: without ranges they cannot be continued.
    pub fn drop_parts(&self, blob: usize) -> BTreeMap<usize, Part> {
        std::mem::take(&mut self.lock().blobs[blob].parts)
    }

    /// The segments in progress.
    pub fn under_way(&self) -> Vec<Arc<Segment>> {
        let state = self.lock();
        let segments = state.blobs.iter().flat_map(|blob| &blob.segments);
        segments.cloned().collect()
    }

    /// Whether the registry serves ranges of this blob, as far as known.
    pub fn serves_ranges(&self, blob: usize) -> bool {
        self.lock().blobs[blob].ranges
    }

    /// Whether this blob had the wrong digest once.
    pub fn is_second(&self, blob: usize) -> bool {
        self.lock().blobs[blob].second
    }

    /// The registry answered "too many requests": uses one worker less, as long as others get
    /// through. `false` if there are no others.
    pub fn fewer(&self) -> bool {
        let mut state = self.lock();
        if state.active < 2 {
            return false;
        }
        state.allowed = state.allowed.min(state.active - 1).max(1);
        state.raised = Instant::now();
        true
    }

    /// Whether this chunk is present.
    pub fn has(&self, blob: usize, chunk: usize) -> bool {
        self.lock().blobs[blob].done[chunk]
    }

    /// Whether all chunks of this blob are present.
    pub fn is_complete(&self, blob: usize) -> bool {
        self.lock().blobs[blob].left == 0
    }

    /// The blob is verified. Returns whether it was the last one while other workers still wait for
    /// bytes that are no longer needed.
    pub fn finish(&self, blob: usize) -> bool {
        let mut state = self.lock();
        state.blobs[blob].finished = true;
        self.changed.notify_all();
        state.active > 0 && state.blobs.iter().all(|blob| blob.finished)
    }

    /// The blob had the wrong digest: fetch it once more from zero, in one piece and without
    /// ranges.
    pub fn again(&self, blob: usize) {
        let mut state = self.lock();
        let blob = &mut state.blobs[blob];
        blob.done.fill(false);
        blob.parts.clear();
        blob.left = blob.done.len();
        blob.ranges = false;
        blob.second = true;
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

    /// The transfers that have crawled for long enough, each taken from its worker.
    fn slow(&mut self) -> Vec<Arc<Segment>> {
        let (pace, active) = (&mut self.pace, self.active);
        for segment in self.blobs.iter().flat_map(|blob| &blob.segments) {
            pace.note_open(segment, active);
        }
        // Without ranges, a new connection would start from zero.
        let segments = self.blobs.iter().filter(|blob| blob.ranges);
        let slow = segments.flat_map(|blob| &blob.segments);
        let slow = slow.filter(|segment| pace.is_over(segment, active));
        // Workers lock their segment first and this queue second, so never wait for a segment here.
        let taken = slow.filter(|segment| {
            let owner = segment.owner.try_lock();
            owner.is_ok_and(|mut owner| owner.socket.is_some() && owner.revoke())
        });
        taken.cloned().collect()
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
        queue.checked(0, &[0, 1, 5], BTreeMap::new());
        let (segment, whole) = fetch(&queue);
        assert_eq!((segment.first, segment.end(), whole), (2, 5, false));
        let (segment, _) = fetch(&queue);
        assert_eq!((segment.first, segment.end()), (6, 10));
    }

    #[test]
    fn each_chunk_that_is_there_in_part_begins_a_segment() {
        let queue = Queue::new(&[5 * MIB], &[true], 6, true);
        assert!(matches!(queue.next(), Task::Check(0)));
        let parts = [0, 3, 4, 9].map(|chunk| (chunk, Part::nothing(chunk as u64 * MIB / 2 + 7)));
        queue.checked(0, &[6], BTreeMap::from(parts));
        let mut taken = Vec::new();
        while taken.len() < 5 {
            let (segment, _) = fetch(&queue);
            let part = segment.lock().part.as_ref().map(|part| part.at);
            taken.push((segment.first, segment.end(), part));
        }
        let at = |chunk| Some(chunk * MIB / 2 + 7);
        let expected = [
            (0, 3, at(0)),
            (3, 4, at(3)),
            (4, 6, at(4)),
            (7, 9, None),
            (9, 10, at(9)),
        ];
        assert_eq!(taken, expected);
        assert!(queue.drop_parts(0).is_empty());
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
        let _far = connect(&slow);
        // As long as nothing was faster, nothing tells that it could be.
        assert_eq!(queue.give_up_slow(), 0);
        let slow = run_at(&queue, &slow, 1000);
        let mut far = connect(&slow);
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
            queue.lock().pace.given_up = Some(Instant::now() - Duration::from_secs(10));
        }
        assert_eq!(times, [1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
        // One that is as fast as any tells that it was worth it.
        queue.lock().blobs[one.blob].segments[0] = one.aged(5, 10 * MIB, Duration::ZERO);
        assert_eq!(queue.give_up_slow(), 1);
    }

    #[test]
    fn transfers_that_are_given_up_one_by_one_count_as_in_vain_too() {
        let queue = Queue::new(&[100 * MIB; 3], &[false; 3], 3, true);
        let [fast, one, two] = [0; 3].map(|_| fetch(&queue).0);
        run_at(&queue, &fast, 10 * MIB);
        let slow = run_at(&queue, &one, 1000);
        let _far = connect(&slow);
        assert_eq!(queue.give_up_slow(), 1);
        // The next one begins, and then the other one is given up.
        let next = replace(&queue, &slow, Segment::new(0, 0, 1));
        next.receive(1);
        let _far = connect(&next);
        let slow = run_at(&queue, &two, 1000);
        let _far = connect(&slow);
        assert_eq!((queue.give_up_slow(), queue.lock().pace.in_vain), (1, 0));
        std::thread::sleep(Duration::from_millis(350));
        assert_eq!((queue.give_up_slow(), queue.lock().pace.in_vain), (1, 1));
    }

    #[test]
    fn one_of_many_that_share_a_line_does_not_crawl() {
        let queue = Queue::new(&[100 * MIB; 33], &[false; 33], 33, true);
        let (one, other) = (fetch(&queue).0, fetch(&queue).0);
        replace(&queue, &one, one.aged(60, 10 * MIB, Duration::ZERO));
        let slow = run_at(&queue, &other, 10 * MIB / 40);
        let _far = connect(&slow);
        queue.lock().active = 33;
        assert_eq!(queue.give_up_slow(), 0);
        let slow = run_at(&queue, &slow, 10 * MIB / 200);
        let _far = connect(&slow);
        assert_eq!(queue.give_up_slow(), 1);
    }

    #[test]
    fn a_transfer_that_has_become_slow_is_given_up() {
        let queue = Queue::new(&[1 << 30; 2], &[false; 2], 2, true);
        let (one, two) = (fetch(&queue).0, fetch(&queue).0);
        run_at(&queue, &one, 10 * MIB);
        let slow = run_at(&queue, &two, 10 * MIB);
        let _far = connect(&slow);
        assert_eq!(queue.give_up_slow(), 0);
        // A new window is open, in which nothing comes.
        assert_eq!(slow.window().map(|window| window.waited), Some(None));
        std::thread::sleep(choose::SLOW + YOUNG);
        one.receive(100 * MIB);
        assert_eq!(queue.give_up_slow(), 1);
    }

    #[test]
    fn a_request_that_was_made_again_is_judged_by_its_own_answer() {
        let queue = Queue::new(&[100 * MIB; 2], &[false; 2], 2, true);
        let (one, two) = (fetch(&queue).0, fetch(&queue).0);
        run_at(&queue, &one, 10 * MIB);
        let slow = run_at(&queue, &two, 1000);
        let _far = connect(&slow);
        slow.ask();
        assert!(slow.window().is_none() && queue.give_up_slow() == 0);
        slow.receive(1);
        assert!(slow.window().is_some() && queue.give_up_slow() == 0);
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
        let part = |at| Some(Part::nothing(at));
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
