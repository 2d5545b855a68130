//! Blobs in order for a sequential output: the next ones are requested ahead, within a fixed memory
//! budget. Several threads read; one consumer takes.
//!
//! At first each blob is requested whole, and data ahead waits in its connection once its share is
//! full. Where connections are slow, the consumer waits for one of them while the others stand
//! still. Then blobs are read in pieces, each over any connection.
//!
//! A connection that breaks, even from waiting too long, resumes at its byte.

use crate::cancel::Stop;
use crate::counter::Counter;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::registry::blob::{Reader, verify};
use crate::registry::{Client, Repository};
use crate::sync::lock;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of one buffer.
const BUFFER: usize = 32 << 10;
/// Buffers that a blob may fill before its turn.
const DEPTH: usize = 4;
/// Buffers that all of them may fill together.
const BUDGET: usize = 24;
/// Buffers of a piece.
const PIECE: usize = 12;
/// The most concurrent readers: they feed a single writer.
pub(super) const READERS: usize = 8;
/// A blob is read on by its reader for so long when it is divided: that one may be reading now.
const LEAD: u64 = 2 * BUFFER as u64;
/// The size of a blob that several readers may share.
pub(super) const LARGE: u64 = 4 << 20;
/// How long the consumer waits for a connection before it is slow.
const WATCHED: Duration = Duration::from_millis(300);
/// Bytes per second of a slow connection.
const SLOW: u64 = 32 << 20;

/// A blob to read.
pub(super) struct Wanted<'p> {
    pub repository: Repository<'p>,
    pub descriptor: &'p crate::Descriptor,
}

/// Consecutive bytes of a blob, which one thread reads.
struct Slot {
    blob: usize,
    from: u64,
    /// The next byte to read.
    at: u64,
    until: u64,
    parts: VecDeque<Vec<u8>>,
    end: Option<Result<()>>,
    /// The hash of a blob's first part, when it has ended.
    hasher: Option<Hasher>,
}

/// How blobs are divided.
#[derive(Clone, Copy, PartialEq)]
enum Division {
    /// Each is requested whole.
    Whole,
    /// One piece is requested, to see whether the registry serves ranges.
    Trial,
    Pieces,
    /// The registry serves none.
    Never,
}

struct State {
    /// The current blob's slots, then those of the blobs after it.
    slots: VecDeque<Slot>,
    /// The consumer's slot: the current blob, and where in it the slot begins.
    blob: usize,
    from: u64,
    /// The hash of the current blob up to what was taken, if it is divided.
    hasher: Option<Hasher>,
    /// How long the consumer has waited for the current blob, and for its bytes from where.
    waited: Duration,
    start: u64,
    /// The next blob that is not begun.
    next: usize,
    /// Filled buffers, in all slots.
    filled: usize,
    spare: Vec<Vec<u8>>,
    division: Division,
}

impl State {
    fn slot(&mut self, blob: usize, from: u64) -> Option<&mut Slot> {
        let mut slots = self.slots.iter_mut();
        slots.find(|slot| slot.blob == blob && slot.from == from)
    }

    /// Divides a blob where its reader is now.
    fn cut(slot: &mut Slot) {
        if slot.end.is_none() {
            slot.until = slot.until.min(slot.at + LEAD);
        }
    }

    /// Starts to divide blobs, if the consumer waits for a slow connection.
    fn judge(&mut self, blob: usize, from: u64, readers: usize) {
        if self.division != Division::Whole || readers < 2 || blob != self.blob {
            return;
        }
        let (waited, start) = (self.waited, self.start);
        let Some(slot) = self.slot(blob, from) else {
            return;
        };
        let rate = u128::from(slot.at - start) * 1000 / waited.as_millis().max(1);
        let left = slot.until - slot.at;
        let slow = waited >= WATCHED && rate < u128::from(SLOW);
        if slow && left > LEAD + (PIECE * BUFFER) as u64 {
            Self::cut(slot);
            self.division = Division::Trial;
        }
    }

    /// The first answer to a range: from now on all blobs are divided, or none.
    fn tried(&mut self, blob: usize, from: u64, size: u64, ranges: bool) {
        if self.division != Division::Trial || from == 0 {
            return;
        }
        if ranges {
            self.division = Division::Pieces;
            let whole = self.slots.iter_mut().filter(|slot| slot.from == 0);
            whole.for_each(Self::cut);
        } else {
            self.division = Division::Never;
            if let Some(slot) = self.slot(blob, from) {
                slot.until = size;
            }
        }
    }
}

/// The queue of blobs between readers and the consumer.
pub(super) struct Ahead<'p> {
    client: &'p Client,
    wanted: Vec<Wanted<'p>>,
    readers: usize,
    state: Mutex<State>,
    changed: Condvar,
    stop: Stop,
    downloaded: &'p Counter,
}

impl<'p> Ahead<'p> {
    pub fn new(
        client: &'p Client,
        wanted: Vec<Wanted<'p>>,
        readers: usize,
        downloaded: &'p Counter,
    ) -> Self {
        Self {
            client,
            wanted,
            readers,
            state: Mutex::new(State {
                slots: VecDeque::new(),
                blob: 0,
                from: 0,
                hasher: None,
                waited: Duration::ZERO,
                start: 0,
                next: 0,
                filled: 0,
                spare: Vec::new(),
                division: Division::Whole,
            }),
            changed: Condvar::new(),
            stop: Stop::default(),
            downloaded,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn size(&self, blob: usize) -> u64 {
        self.wanted[blob].descriptor.size
    }

    /// Ends all reading.
    pub fn stop(&self) {
        self.stop.set();
        self.client.agent().hang_up();
        self.changed.notify_all();
    }

    /// A reader thread: reads blobs, and pieces of them, until there are none left.
    pub fn read(&self) {
        while let Some((blob, from)) = self.begin() {
            let wanted = &self.wanted[blob];
            let mut reader = Reader::new(&wanted.repository, wanted.descriptor, from, &self.stop);
            let end = loop {
                let Some((mut buffer, until, full)) = self.room(blob, from) else {
                    return;
                };
                match self.fill(&mut reader, &mut buffer, until, full) {
                    Ok(()) if buffer.is_empty() => break Ok(()),
                    Ok(()) => self.put(blob, from, buffer, reader.has_ranges()),
                    Err(error) => break Err(error),
                }
            };
            let mut state = self.lock();
            if let Some(slot) = state.slot(blob, from) {
                slot.hasher = (from == 0).then(|| reader.hasher().clone());
                slot.end = Some(end);
            }
            self.changed.notify_all();
        }
    }

    /// Reads once, or until the buffer is full: buffers of a piece are counted as full ones.
    fn fill(
        &self,
        reader: &mut Reader<'_>,
        buffer: &mut Vec<u8>,
        until: u64,
        full: bool,
    ) -> Result<()> {
        buffer.resize(BUFFER, 0);
        let mut length = 0;
        loop {
            let read = reader.read(&mut buffer[length..], until)?;
            self.downloaded.add(read as u64);
            length += read;
            if read == 0 || length == BUFFER || !full {
                buffer.truncate(length);
                return Ok(());
            }
        }
    }

    /// The next blob, or piece of one, without a reader, once there is room for its data.
    fn begin(&self) -> Option<(usize, u64)> {
        let mut state = self.lock();
        loop {
            if self.stop.is_set() {
                return None;
            }
            if let Some(slot) = self.piece(&state).or_else(|| self.whole(&state)) {
                let begun = (slot.blob, slot.from);
                state.next = state.next.max(slot.blob + 1);
                let at = state
                    .slots
                    .partition_point(|own| (own.blob, own.from) < begun);
                state.slots.insert(at, slot);
                return Some(begun);
            }
            if state.blob >= self.wanted.len() {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// The next blob as a whole, or its first piece.
    fn whole(&self, state: &State) -> Option<Slot> {
        let blob = state.next;
        let room = match state.division {
            Division::Pieces => state.slots.len() <= self.readers,
            _ => state.filled < self.budget(),
        };
        if blob >= self.wanted.len() || !room && !state.slots.is_empty() {
            return None;
        }
        Some(self.slot(state, blob, 0))
    }

    /// The next piece of a blob that is divided.
    fn piece(&self, state: &State) -> Option<Slot> {
        let full = match state.division {
            Division::Whole | Division::Never => true,
            Division::Trial => state.slots.iter().any(|slot| slot.from > 0),
            Division::Pieces => state.slots.len() > self.readers,
        };
        // What the consumer waits for is always read.
        let begun = state.slots.front();
        let begun = begun.is_some_and(|slot| (slot.blob, slot.from) == (state.blob, state.from));
        if full && (begun || state.division != Division::Pieces) {
            return None;
        }
        (state.blob..state.next).find_map(|blob| {
            let last = state.slots.iter().rfind(|slot| slot.blob == blob);
            let until = last.map_or(state.from, |slot| slot.until);
            (until < self.size(blob)).then(|| self.slot(state, blob, until))
        })
    }

    fn slot(&self, state: &State, blob: usize, from: u64) -> Slot {
        let size = self.size(blob);
        Slot {
            blob,
            from,
            at: from,
            until: match state.division {
                Division::Whole | Division::Never => size,
                Division::Trial if from == 0 => size,
                _ => size.min(from + (PIECE * BUFFER) as u64),
            },
            parts: VecDeque::new(),
            end: None,
            hasher: None,
        }
    }

    /// A buffer to fill, once there is room for one more; how far to read, and whether to fill it
    /// in any case.
    fn room(&self, blob: usize, from: u64) -> Option<(Vec<u8>, u64, bool)> {
        let mut state = self.lock();
        loop {
            if self.stop.is_set() {
                return None;
            }
            let current = (blob, from) == (state.blob, state.from);
            let pieces = state.division == Division::Pieces;
            let some = state.filled < self.budget();
            let slot = state.slot(blob, from)?;
            let until = slot.until;
            // The consumer's slot never waits for those after it.
            if pieces || slot.parts.len() < DEPTH && (current || some) {
                return Some((state.spare.pop().unwrap_or_default(), until, pieces));
            }
            state = self.wait(state);
        }
    }

    fn budget(&self) -> usize {
        (self.readers * DEPTH).min(BUDGET)
    }

    fn put(&self, blob: usize, from: u64, buffer: Vec<u8>, ranges: bool) {
        let mut state = self.lock();
        state.judge(blob, from, self.readers);
        state.tried(blob, from, self.size(blob), ranges);
        state.filled += 1;
        if let Some(slot) = state.slot(blob, from) {
            slot.at += buffer.len() as u64;
            slot.parts.push_back(buffer);
        }
        self.changed.notify_all();
    }

    fn wait<'s>(&'s self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        // Stopping does not take this lock, hence the timeout.
        self.changed
            .wait_timeout(state, Duration::from_millis(100))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// The next bytes of the current blob; `None` at its end, and the next blob becomes current.
    fn take(&self, used: Vec<u8>, waiting: &dyn Fn()) -> Result<Option<Vec<u8>>> {
        let mut state = self.lock();
        if used.capacity() > 0 {
            state.spare.push(used);
        }
        loop {
            if self.client.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let (blob, from) = (state.blob, state.from);
            if let Some(slot) = state.slot(blob, from) {
                if let Some(part) = slot.parts.pop_front() {
                    state.filled -= 1;
                    if let (Some(hasher), true) = (&mut state.hasher, from > 0) {
                        hasher.update(&part);
                    }
                    self.changed.notify_all();
                    return Ok(Some(part));
                }
                if let Some(end) = slot.end.take() {
                    end?;
                    if self.advance(&mut state)? {
                        return Ok(None);
                    }
                    continue;
                }
            }
            drop(state);
            waiting();
            let since = Instant::now();
            state = self.wait(self.lock());
            state.waited += since.elapsed();
        }
    }

    /// Removes the consumer's slot, which has ended; says whether the blob has. One that was
    /// divided is checked here.
    fn advance(&self, state: &mut State) -> Result<bool> {
        let slot = state.slots.pop_front();
        self.changed.notify_all();
        let Some(slot) = slot.filter(|slot| slot.until < self.size(slot.blob)) else {
            if let Some(hasher) = state.hasher.take() {
                let wanted = &self.wanted[state.blob];
                verify(&wanted.repository, wanted.descriptor, &hasher)?;
            }
            state.blob += 1;
            state.from = 0;
            state.waited = Duration::ZERO;
            state.start = state.slots.front().map_or(0, |slot| slot.at);
            return Ok(true);
        };
        state.from = slot.until;
        state.hasher = slot.hasher.or(state.hasher.take());
        Ok(false)
    }

    /// A reader for the current blob. `waiting` is called now and then while nothing arrives.
    pub fn blob<'s>(&'s self, waiting: &'s dyn Fn()) -> Box<dyn BufRead + 's> {
        Box::new(InOrder {
            ahead: self,
            waiting,
            part: Vec::new(),
            at: 0,
            ended: false,
        })
    }
}

struct InOrder<'s> {
    ahead: &'s Ahead<'s>,
    waiting: &'s dyn Fn(),
    part: Vec<u8>,
    at: usize,
    ended: bool,
}

impl BufRead for InOrder<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.part.len() && !self.ended {
            let used = std::mem::take(&mut self.part);
            self.at = 0;
            match self
                .ahead
                .take(used, self.waiting)
                .map_err(io::Error::other)?
            {
                Some(part) => self.part = part,
                None => self.ended = true,
            }
        }
        Ok(&self.part[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = (self.at + amount).min(self.part.len());
    }
}

impl Read for InOrder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        self.consume(length);
        Ok(length)
    }
}
