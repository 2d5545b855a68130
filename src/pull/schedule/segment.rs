//! A run of chunks that one worker fetches, and what its transfer has brought so far. Which run
//! that is, and who loses it, is decided in [`crate::pull::schedule`].

use crate::counter::Counter;
use crate::pull::noted::Noted;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A transfer younger than this has no rate that could be judged.
pub(super) const YOUNG: Duration = Duration::from_millis(100);
/// Bytes after which a transfer has left its slow start.
const STARTED: u64 = 256 << 10;
/// Bytes a second from which a buffer is full within ten milliseconds.
const BRISK: f64 = 16e6;
/// How long a transfer is given where no other one tells what the line can do.
const ALONE: Duration = Duration::from_secs(4);
/// How long any transfer is given at most.
pub(super) const LONGEST: Duration = Duration::from_secs(32);

/// The beginning of a chunk that is written already: whoever fetches the chunk goes on behind it.
#[derive(Clone)]
pub(crate) struct Part {
    /// The blob's next byte that is wanted.
    pub at: u64,
    /// Of the chunk's bytes before that.
    pub crc: crc32fast::Hasher,
    /// What the journal says of it.
    pub noted: Noted,
    /// How many of them were there before this run.
    pub kept: u64,
}

impl Part {
    /// Of a chunk of which nothing is there, that begins at this byte.
    pub fn nothing(at: u64) -> Self {
        Self {
            at,
            crc: crc32fast::Hasher::new(),
            noted: Noted::nothing(),
            kept: 0,
        }
    }
}

/// A run of chunks of one blob that one worker fetches.
pub(crate) struct Segment {
    pub blob: usize,
    pub first: usize,
    /// The next chunk to be completed.
    cursor: AtomicUsize,
    /// Where it ends by now; idle workers may move it forward.
    end: AtomicUsize,
    started: Instant,
    received: Counter,
    flow: Mutex<Flow>,
    /// Another worker hashes behind it.
    followed: AtomicBool,
    /// How long it is given when no other transfer tells what the line can do.
    pub(super) patience: Duration,
    /// Held while its worker writes: who takes the segment away knows that nothing is written
    /// after that.
    pub owner: Mutex<Owner>,
}

/// What one answer has brought: looked at in windows, so that a transfer that has become slow is
/// not judged by what it was.
#[derive(Clone, Copy)]
struct Flow {
    asked: Instant,
    /// When its first bytes came.
    first: Option<Instant>,
    /// The window's beginning, and what had come before it.
    begin: Instant,
    before: u64,
}

/// A window of a transfer.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// Bytes a second.
    pub rate: f64,
    pub length: Duration,
    /// It begins with the answer's first bytes, for which so long was waited: that tells how far
    /// away the other end is.
    pub waited: Option<Duration>,
}

/// Who a segment belongs to.
#[derive(Default)]
pub(crate) struct Owner {
    pub revoked: bool,
    pub socket: Option<Arc<TcpStream>>,
    /// What is there of the chunk at the cursor.
    pub part: Option<Part>,
}

impl Flow {
    fn new(asked: Instant) -> Self {
        Self {
            asked,
            first: None,
            begin: asked,
            before: 0,
        }
    }
}

impl Owner {
    /// Takes the segment from its worker, whose read ends at once. `false`: it was taken already.
    pub(super) fn revoke(&mut self) -> bool {
        if let Some(socket) = self.socket.take() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        !std::mem::replace(&mut self.revoked, true)
    }
}

impl Segment {
    pub(super) fn new(blob: usize, first: usize, end: usize) -> Arc<Self> {
        Arc::new(Self::of(blob, first, end))
    }

    fn of(blob: usize, first: usize, end: usize) -> Self {
        let now = Instant::now();
        Self {
            blob,
            first,
            cursor: AtomicUsize::new(first),
            end: AtomicUsize::new(end),
            started: now,
            received: Counter::new(0),
            flow: Mutex::new(Flow::new(now)),
            followed: AtomicBool::new(false),
            patience: ALONE,
            owner: Mutex::default(),
        }
    }

    /// A segment whose first chunk is there in part, taken from a transfer that was too slow. Each
    /// further time it is given twice as long: a line that is slow for all would otherwise spend
    /// its time on new connections.
    pub(super) fn taken_over(from: &Self, part: Option<Part>) -> Arc<Self> {
        let owner = Owner {
            part,
            ..Owner::default()
        };
        Arc::new(Self {
            patience: (from.patience * 2).min(LONGEST),
            owner: Mutex::new(owner),
            ..Self::of(from.blob, from.cursor(), from.end())
        })
    }

    pub fn end(&self) -> usize {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn end_at(&self, chunk: usize) {
        self.end.store(chunk, Ordering::Release);
    }

    pub(super) fn cursor(&self) -> usize {
        self.cursor.load(Ordering::Acquire)
    }

    /// The chunk at the cursor is there.
    pub(super) fn advance(&self) {
        self.cursor.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on another worker hashes what comes. `false`: one did already.
    pub(super) fn follow(&self) -> bool {
        !self.followed.swap(true, Ordering::AcqRel)
    }

    pub(super) fn unfollow(&self) {
        self.followed.store(false, Ordering::Release);
    }

    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Acquire)
    }

    /// A request is about to be made: what was before it tells nothing of the answer.
    pub fn ask(&self) {
        *self.flow() = Flow::new(Instant::now());
    }

    /// So many bytes came.
    pub fn receive(&self, bytes: u64) {
        let before = self.received.add(bytes);
        let mut flow = self.flow();
        if flow.first.is_none() {
            flow.begin = Instant::now();
            flow.first = Some(flow.begin);
            flow.before = before;
        }
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The window that is open; `None` while nothing has come.
    pub(super) fn window(&self) -> Option<Window> {
        let flow = *self.flow();
        let first = flow.first?;
        let length = flow.begin.elapsed().max(Duration::from_millis(1));
        let received = self.received.get() - flow.before;
        Some(Window {
            rate: received as f64 / length.as_secs_f64(),
            length,
            waited: (first == flow.begin).then(|| first - flow.asked),
        })
    }

    /// Begins the next window.
    pub(super) fn turn(&self) {
        let mut flow = self.flow();
        flow.begin = Instant::now();
        flow.before = self.received.get();
    }

    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn is_younger_than(&self, then: Instant) -> bool {
        self.started > then
    }

    /// Bytes a second since it was asked for; `None` while that is too early to tell.
    pub(super) fn rate(&self) -> Option<f64> {
        let age = self.age();
        (age >= YOUNG).then(|| self.received.get() as f64 / age.as_secs_f64())
    }

    /// Does it fill a buffer in so little time that nothing is lost by waiting until it is full?
    pub fn is_brisk(&self) -> bool {
        let received = self.received.get();
        received > STARTED && received as f64 > BRISK * self.age().as_secs_f64()
    }

    pub fn lock(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As if its worker had been at it for so many seconds, at so many bytes a second, of which
    /// the first came after `waited`.
    #[cfg(test)]
    pub(super) fn aged(&self, seconds: u64, rate: u64, waited: Duration) -> Arc<Self> {
        let started = Instant::now() - Duration::from_secs(seconds);
        let first = started + waited;
        let flow = Flow {
            asked: started,
            first: Some(first),
            begin: first,
            before: 0,
        };
        Arc::new(Self {
            cursor: AtomicUsize::new(self.cursor()),
            started,
            flow: Mutex::new(flow),
            received: Counter::new(rate * seconds),
            patience: self.patience,
            ..Self::of(self.blob, self.first, self.end())
        })
    }
}
