//! A run of chunks that one worker fetches, and what its transfer has brought so far. Which run
//! that is, and who loses it, is decided in [`super::queue`].

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A transfer younger than this has no rate that could be judged.
pub(super) const YOUNG: Duration = Duration::from_millis(100);
/// Bytes after which a transfer has left its slow start.
const STARTED: u64 = 256 << 10;
/// Bytes a second from which a buffer is full within ten milliseconds.
const BRISK: f64 = 16e6;
/// How long a transfer is given where no other one tells what the line can do.
const ALONE: Duration = Duration::from_secs(4);

/// The beginning of a chunk that is written already: whoever fetches the chunk goes on behind it.
#[derive(Clone)]
pub(crate) struct Part {
    /// The blob's next byte that is wanted.
    pub at: u64,
    /// Of the chunk's bytes before that.
    pub crc: crc32fast::Hasher,
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
    /// When its first bytes came.
    answered: OnceLock<Instant>,
    received: AtomicU64,
    /// Another worker hashes behind it.
    followed: AtomicBool,
    /// How long it is given when no other transfer tells what the line can do.
    pub(super) patience: Duration,
    /// Held while its worker writes: who takes the segment away knows that nothing is written
    /// after that.
    pub owner: Mutex<Owner>,
}

/// Who a segment belongs to.
#[derive(Default)]
pub(crate) struct Owner {
    pub revoked: bool,
    pub socket: Option<Arc<TcpStream>>,
    /// What is there of the chunk at the cursor.
    pub part: Option<Part>,
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
        Self {
            blob,
            first,
            cursor: AtomicUsize::new(first),
            end: AtomicUsize::new(end),
            started: Instant::now(),
            answered: OnceLock::new(),
            received: AtomicU64::new(0),
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
            patience: from.patience * 2,
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

    pub fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Acquire)
    }

    /// So many bytes came.
    pub fn receive(&self, bytes: u64) {
        self.answered.get_or_init(Instant::now);
        self.received.fetch_add(bytes, Ordering::Relaxed);
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
        (age >= YOUNG).then(|| self.received.load(Ordering::Relaxed) as f64 / age.as_secs_f64())
    }

    /// Bytes a second since the first ones came, for how long that is, and what was waited before
    /// that, which tells how far away the other end is; `None` while that is too early to tell.
    pub(super) fn flow(&self) -> Option<(f64, Duration, Duration)> {
        let first = *self.answered.get()?;
        let (since, waited) = (first.elapsed(), first - self.started);
        let received = self.received.load(Ordering::Relaxed) as f64;
        (since >= YOUNG).then(|| (received / since.as_secs_f64(), since, waited))
    }

    /// Does it fill a buffer in so little time that nothing is lost by waiting until it is full?
    pub fn is_brisk(&self) -> bool {
        let received = self.received.load(Ordering::Relaxed);
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
        Arc::new(Self {
            cursor: AtomicUsize::new(self.cursor()),
            started,
            answered: OnceLock::from(started + waited),
            received: AtomicU64::new(rate * seconds),
            patience: self.patience,
            ..Self::of(self.blob, self.first, self.end())
        })
    }
}
