//! A segment: a run of chunks that one worker fetches, and the progress of its transfer.
//! [`crate::pull::schedule`] decides who gets which segment.

use crate::counter::Counter;
use crate::pull::noted::Noted;
use crate::sync::lock;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A transfer younger than this has no meaningful rate.
pub(super) const YOUNG: Duration = Duration::from_millis(100);
/// Bytes after which TCP slow start is over.
const STARTED: u64 = 256 << 10;
/// The rate in bytes per second that fills a buffer within ten milliseconds.
const BRISK: f64 = 16e6;
/// How long a transfer is given if no other shows what the line can do.
const ALONE: Duration = Duration::from_secs(4);
/// The longest time that a transfer is given.
pub(super) const LONGEST: Duration = Duration::from_secs(32);

/// The written part of an unfinished chunk, which the next worker continues.
#[derive(Clone)]
pub(crate) struct Part {
    /// The blob's next missing byte.
    pub at: u64,
    /// The CRC-32 of the chunk's bytes before that.
    pub crc: crc32fast::Hasher,
    /// What the journal has recorded about it.
    pub noted: Noted,
    /// How many of them were there before this run.
    pub kept: u64,
}

impl Part {
    /// An empty chunk that starts at this byte.
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
    /// Its current end; idle workers may move it forward.
    end: AtomicUsize,
    started: Instant,
    received: Counter,
    flow: Mutex<Flow>,
    /// Another worker hashes its data.
    followed: AtomicBool,
    /// How long it is given if no other transfer shows what the line can do.
    pub(super) patience: Duration,
    /// Held while its worker writes, so that nothing is written after the segment was taken away.
    pub owner: Mutex<Owner>,
}

/// The progress of one response, in windows, so that a transfer is judged by its current rate.
#[derive(Clone, Copy)]
struct Flow {
    asked: Instant,
    /// When its first bytes arrived.
    first: Option<Instant>,
    /// The window's start, and the bytes before it.
    begin: Instant,
    before: u64,
}

/// A window of a transfer.
#[derive(Clone, Copy)]
pub(super) struct Window {
    /// Bytes a second.
    pub rate: f64,
    pub length: Duration,
    /// It starts with the response's first bytes, after this wait, which shows how far away the
    /// peer is.
    pub waited: Option<Duration>,
}

/// The owner of a segment.
#[derive(Default)]
pub(crate) struct Owner {
    pub revoked: bool,
    pub socket: Option<Arc<TcpStream>>,
    /// The written part of the chunk at the cursor.
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
    /// Takes the segment from its worker, whose read ends immediately. `false`: already taken.
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

    /// A segment with a partial first chunk, taken from a transfer that was too slow. Each time it
    /// is given twice as long: otherwise a slow line would spend its time on new connections.
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

    /// Has another worker hash the data from now on. `false`: one already does.
    pub(super) fn follow(&self) -> bool {
        !self.followed.swap(true, Ordering::AcqRel)
    }

    pub(super) fn unfollow(&self) {
        self.followed.store(false, Ordering::Release);
    }

    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Acquire)
    }

    /// A request is about to be made: earlier measurements do not apply to its response.
    pub fn ask(&self) {
        *self.flow() = Flow::new(Instant::now());
    }

    /// Accounts for received bytes.
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
        lock(&self.flow)
    }

    /// The open window; `None` while nothing has arrived.
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

    /// Starts the next window.
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

    /// Bytes per second since the request; `None` if it is too early to tell.
    pub(super) fn rate(&self) -> Option<f64> {
        let age = self.age();
        (age >= YOUNG).then(|| self.received.get() as f64 / age.as_secs_f64())
    }

    /// Whether it fills a buffer so fast that waiting for a full one costs nothing.
    pub fn is_brisk(&self) -> bool {
        let received = self.received.get();
        received > STARTED && received as f64 > BRISK * self.age().as_secs_f64()
    }

    pub fn lock(&self) -> MutexGuard<'_, Owner> {
        lock(&self.owner)
    }

    /// As if its worker had been at it for this many seconds at this rate, after waiting for the
    /// first byte.
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
