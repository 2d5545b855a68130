//! Runs the workers of a pull, and reports their progress to the observer.

use super::event::{Event, TICK};
use super::state::Shared;
use super::worker::Worker;
use crate::error::Error;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

/// A worker's stack size. Its buffers are on the heap; a TLS handshake takes most of it.
pub(super) const STACK: usize = 512 << 10;

impl Shared<'_> {
    /// Runs the workers and reports to the observer, until everything is done or has failed.
    pub fn work(
        &self,
        jobs: usize,
        events: &Receiver<Option<Event>>,
        observer: &mut dyn FnMut(&Event),
    ) {
        // Small images need no more workers than blobs or shareable pieces.
        let useful = self.plan.blobs().len() as u64 + self.plan.download_size() / (4 << 20);
        let workers = (useful.min(jobs as u64) as usize).max(1);
        std::thread::scope(|scope| {
            for number in 0..workers {
                let builder = std::thread::Builder::new()
                    .name(format!("worker {number}"))
                    .stack_size(STACK);
                let running = Running::new(self);
                let spawned = builder.spawn_scoped(scope, move || {
                    let _running = running;
                    Worker::new(self).run();
                });
                match spawned {
                    Ok(_) => {}
                    Err(error) if number == 0 => {
                        self.fail(Error::output(
                            self.store.path(),
                            "starting a thread for",
                            error,
                        ));
                    }
                    // A system short of threads does the work with those it has.
                    Err(_) => break,
                }
            }
            self.attend(events, observer);
        });
        observer(&self.snapshot());
    }

    fn attend(&self, events: &Receiver<Option<Event>>, observer: &mut dyn FnMut(&Event)) {
        let mut next = Instant::now() + TICK;
        loop {
            match events.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Some(event)) => observer(&event),
                Ok(None) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if self.client.is_cancelled() {
                        self.fail(Error::Cancelled);
                    }
                    // With a rate limit, the rate says nothing about the line.
                    if !self.client.agent().is_limited() && self.queue.give_up_slow() > 0 {
                        let note = "a connection is nearly stalled; opening a new one";
                        self.client.note(note);
                    }
                    if let Err(error) = self.note_old() {
                        self.fail(error);
                    }
                    observer(&self.snapshot());
                    next = Instant::now() + TICK;
                }
            }
            if self.progress.running.load(Ordering::SeqCst) == 0 {
                // No worker is left to send events: only the queued ones remain.
                events
                    .try_iter()
                    .flatten()
                    .for_each(|event| observer(&event));
                return;
            }
        }
    }
}

/// Counts its worker in, and out again even if it panics.
struct Running<'p>(&'p Shared<'p>);

impl<'p> Running<'p> {
    fn new(shared: &'p Shared<'p>) -> Self {
        shared.progress.running.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.0.progress.running.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.wake();
        }
    }
}
