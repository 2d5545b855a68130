//! Blobs in order for a sequential output: the next ones are requested ahead, within a fixed memory
//! budget. Several threads read; one consumer takes.
//!
//! Data ahead waits in its connection once its share is full. A connection that breaks, even from
//! waiting too long, resumes at its byte.

use crate::cancel::Stop;
use crate::counter::Counter;
use crate::error::{Error, Result};
use crate::registry::blob::Reader;
use crate::registry::{Client, Repository};
use crate::sync::lock;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of one buffer.
const BUFFER: usize = 32 << 10;
/// Buffers that a blob may fill before its turn.
const DEPTH: usize = 4;
/// Buffers that all of them may fill together.
const BUDGET: usize = 24;
/// The most concurrent readers: they feed a single writer.
pub(super) const READERS: usize = 8;

/// A blob to read.
pub(super) struct Wanted<'p> {
    pub repository: Repository<'p>,
    pub descriptor: &'p crate::Descriptor,
}

struct Slot {
    parts: VecDeque<Vec<u8>>,
    end: Option<Result<()>>,
}

struct State {
    /// The current blob, and the started ones ahead of it.
    slots: VecDeque<Slot>,
    /// The number of the first slot's blob.
    first: usize,
    /// Filled buffers, in all slots.
    filled: usize,
    spare: Vec<Vec<u8>>,
}

/// The queue of blobs between readers and the consumer.
pub(super) struct Ahead<'p> {
    client: &'p Client,
    wanted: Vec<Wanted<'p>>,
    budget: usize,
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
            budget: (readers * DEPTH).min(BUDGET),
            state: Mutex::new(State {
                slots: VecDeque::new(),
                first: 0,
                filled: 0,
                spare: Vec::new(),
            }),
            changed: Condvar::new(),
            stop: Stop::default(),
            downloaded,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Ends all reading.
    pub fn stop(&self) {
        self.stop.set();
        self.client.agent().hang_up();
        self.changed.notify_all();
    }

    /// A reader thread: reads blobs until there are none left.
    pub fn read(&self) {
        while let Some(number) = self.begin() {
            let wanted = &self.wanted[number];
            let mut reader = Reader::new(&wanted.repository, wanted.descriptor, &self.stop);
            let end = loop {
                let Some(mut buffer) = self.room(number) else {
                    return;
                };
                buffer.resize(BUFFER, 0);
                match reader.read(&mut buffer) {
                    Ok(0) => break Ok(()),
                    Ok(read) => {
                        self.downloaded.add(read as u64);
                        buffer.truncate(read);
                        self.put(number, buffer);
                    }
                    Err(error) => break Err(error),
                }
            };
            let mut state = self.lock();
            let at = number - state.first;
            state.slots[at].end = Some(end);
            self.changed.notify_all();
        }
    }

    /// The next blob without a reader, once there is room for its data.
    fn begin(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            let number = state.first + state.slots.len();
            if number >= self.wanted.len() || self.stop.is_set() {
                return None;
            }
            if state.filled < self.budget || state.slots.is_empty() {
                state.slots.push_back(Slot {
                    parts: VecDeque::new(),
                    end: None,
                });
                return Some(number);
            }
            state = self.wait(state);
        }
    }

    /// A buffer to fill, once this blob may have one more.
    fn room(&self, number: usize) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if self.stop.is_set() {
                return None;
            }
            let own = state.slots[number - state.first].parts.len();
            // The current blob never waits for those after it.
            if own < DEPTH && (number == state.first || state.filled < self.budget) {
                return Some(state.spare.pop().unwrap_or_default());
            }
            state = self.wait(state);
        }
    }

    fn put(&self, number: usize, buffer: Vec<u8>) {
        let mut state = self.lock();
        let at = number - state.first;
        state.slots[at].parts.push_back(buffer);
        state.filled += 1;
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
            if let Some(slot) = state.slots.front_mut() {
                if let Some(part) = slot.parts.pop_front() {
                    state.filled -= 1;
                    self.changed.notify_all();
                    return Ok(Some(part));
                }
                if let Some(end) = slot.end.take() {
                    state.slots.pop_front();
                    state.first += 1;
                    self.changed.notify_all();
                    return end.map(|()| None);
                }
            }
            drop(state);
            waiting();
            state = self.wait(self.lock());
        }
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
