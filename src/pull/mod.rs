//! From a plan to a finished archive: workers, their progress, and the end of all.

mod event;
mod queue;
mod transfer;
mod worker;

pub use event::{Event, LayerProgress};

use crate::archive::file::{Lender, Opened, Partial};
use crate::archive::journal::Chunks;
use crate::archive::layout::Plan;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::registry::{Client, Repository};
use queue::Queue;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use worker::{Front, Worker};

/// A worker's stack. Its buffers are on the heap; a TLS handshake takes the most of this.
const STACK: usize = 512 << 10;
/// How often an observer is told where all stands.
const TICK: Duration = Duration::from_millis(100);

type Observer<'c> = Box<dyn FnMut(&Event) + 'c>;

/// A pull that is about to begin.
pub struct Pull<'c> {
    client: &'c Client,
    plan: Plan,
    jobs: usize,
    restart: bool,
    observer: Option<Observer<'c>>,
}

/// What a finished pull did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The archive.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of blobs that came from the network in this run.
    pub downloaded: u64,
    /// Bytes of blobs that were there already, or came from another file.
    pub kept: u64,
}

impl<'c> Pull<'c> {
    /// A pull of a plan's images through a client.
    pub fn new(client: &'c Client, plan: Plan) -> Self {
        Self {
            client,
            plan,
            jobs: 6,
            restart: false,
            observer: None,
        }
    }

    /// The most connections at once (default 6).
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.clamp(1, 64);
        self
    }

    /// Forgets what an earlier run left.
    pub fn restart(mut self, restart: bool) -> Self {
        self.restart = restart;
        self
    }

    /// Is told what happens, on the thread that calls the pull.
    pub fn observer(mut self, observer: impl FnMut(&Event) + 'c) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Makes the archive. It grows in `PATH.partial`, from which a later call goes on after any
    /// failure, and gets its name when every byte of it is verified.
    ///
    /// # Errors
    ///
    /// [`Error::Output`] for the disk, [`Error::Network`] and [`Error::Refused`] for the registry,
    /// [`Error::Mismatch`] for wrong content, [`Error::Interrupted`] after [`Client::cancel`].
    pub fn to_file(mut self, path: &Path) -> Result<Report> {
        crate::archive::file::check_target(path)?;
        let Opened {
            partial,
            claims,
            lender,
        } = Partial::open(path, &self.plan, self.restart)?;
        let (sender, receiver) = channel();
        let shared = Shared::new(
            self.client,
            &self.plan,
            partial,
            claims,
            lender,
            sender,
            self.jobs,
        );
        let mut observer = self.observer.take().unwrap_or_else(|| Box::new(|_| {}));
        observer(&Event::Started {
            total: self.plan.download_size(),
            layers: self.plan.blobs().len(),
        });
        shared.work(self.jobs, &receiver, &mut *observer);
        let outcome = match shared.error() {
            Some(error) => Err(error),
            None => {
                observer(&Event::Finishing);
                shared.file.finish()
            }
        };
        if let Err(error) = outcome {
            shared.file.give_up();
            return Err(error);
        }
        if let Some(lender) = &shared.lender {
            lender.remove();
        }
        Ok(Report {
            path: path.to_owned(),
            size: self.plan.size(),
            downloaded: shared.progress.downloaded.load(Ordering::Relaxed),
            kept: shared
                .progress
                .blobs
                .iter()
                .map(|blob| blob.kept.load(Ordering::Relaxed))
                .sum(),
        })
    }
}

/// What the workers of a pull have in common.
struct Shared<'p> {
    client: &'p Client,
    plan: &'p Plan,
    file: Partial,
    queue: Queue,
    fronts: Vec<Mutex<Front>>,
    claims: Vec<Vec<Option<u32>>>,
    lender: Option<Lender>,
    progress: Progress,
    error: Mutex<Option<Error>>,
    stop: crate::net::retry::Stop,
    events: Mutex<Option<Sender<Option<Event>>>>,
}

impl<'p> Shared<'p> {
    fn new(
        client: &'p Client,
        plan: &'p Plan,
        file: Partial,
        claims: Vec<Vec<Option<u32>>>,
        lender: Option<Lender>,
        events: Sender<Option<Event>>,
        jobs: usize,
    ) -> Self {
        let sizes: Vec<u64> = plan
            .blobs()
            .iter()
            .map(|blob| blob.descriptor.size)
            .collect();
        let lent = |digest| {
            lender
                .as_ref()
                .is_some_and(|lender| lender.rows.iter().any(|row| row.digest == digest))
        };
        let check: Vec<bool> = plan
            .blobs()
            .iter()
            .zip(&claims)
            .map(|(blob, claims)| {
                claims.iter().any(Option::is_some) || lent(blob.descriptor.digest)
            })
            .collect();
        let front = |blob: &crate::archive::layout::Blob| {
            Mutex::new(Front::new(Hasher::new(blob.descriptor.digest.algorithm())))
        };
        Self {
            client,
            plan,
            file,
            queue: Queue::new(&sizes, &check, jobs),
            fronts: plan.blobs().iter().map(front).collect(),
            claims,
            lender,
            progress: Progress::new(sizes.len()),
            error: Mutex::default(),
            stop: crate::net::retry::Stop::default(),
            events: Mutex::new(Some(events)),
        }
    }

    /// Runs the workers and tells the observer, until all is done or has failed.
    fn work(
        &self,
        jobs: usize,
        events: &Receiver<Option<Event>>,
        observer: &mut dyn FnMut(&Event),
    ) {
        // Small images need no more workers than they have blobs or shareable pieces.
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
                            self.file.path(),
                            "starting a thread for",
                            error,
                        ));
                    }
                    // A system short of threads gets the work done with those it has.
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
                        self.fail(Error::Interrupted(0));
                    }
                    observer(&self.snapshot());
                    next = Instant::now() + TICK;
                }
            }
            if self.progress.running.load(Ordering::SeqCst) == 0 {
                // No worker is left to send anything: what waits is all there is.
                events
                    .try_iter()
                    .flatten()
                    .for_each(|event| observer(&event));
                return;
            }
        }
    }

    fn snapshot(&self) -> Event {
        let count = |atomic: &AtomicU64| atomic.load(Ordering::Relaxed);
        let blobs = self
            .plan
            .blobs()
            .iter()
            .zip(&self.progress.blobs)
            .enumerate();
        let active = blobs.clone().filter(|(_, (blob, progress))| {
            let done = count(&progress.done);
            progress.open.load(Ordering::Relaxed) && done > 0 && done <= blob.descriptor.size
        });
        Event::Progress {
            done: self
                .progress
                .blobs
                .iter()
                .map(|blob| count(&blob.done))
                .sum(),
            total: self.plan.download_size(),
            downloaded: count(&self.progress.downloaded),
            active: active
                .map(|(layer, (blob, progress))| LayerProgress {
                    layer,
                    digest: blob.descriptor.digest,
                    done: count(&progress.done),
                    size: blob.descriptor.size,
                })
                .collect(),
        }
    }

    fn chunks(&self, blob: usize) -> Chunks {
        Chunks::of(self.plan.blobs()[blob].descriptor.size)
    }

    fn reference(&self, blob: usize) -> &Reference {
        &self.plan.references()[self.plan.blobs()[blob].reference]
    }

    fn repository(&self, blob: usize) -> Result<Repository<'p>> {
        self.client.repository(self.reference(blob))
    }

    fn host(&self, blob: usize) -> String {
        self.reference(blob).registry()
    }

    /// The CRC-32 and place of a chunk in the lender's file.
    fn lent(&self, blob: usize, chunk: usize) -> Option<(u32, u64)> {
        let descriptor = &self.plan.blobs()[blob].descriptor;
        let rows = &self.lender.as_ref()?.rows;
        let row = rows
            .iter()
            .find(|row| row.digest == descriptor.digest && row.size == descriptor.size)?;
        Some(((*row.claims.get(chunk)?)?, row.offset))
    }

    fn tell(&self, event: Event) {
        if let Some(events) = &*self.events.lock().unwrap_or_else(PoisonError::into_inner) {
            // Nobody listening is no failure of the pull.
            let _ = events.send(Some(event));
        }
    }

    /// Lets whoever waits for events look whether there is still anybody to wait for.
    fn wake(&self) {
        if let Some(events) = &*self.events.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = events.send(None);
        }
    }

    /// The first failure is the pull's; all others follow from it.
    fn fail(&self, error: Error) {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.queue.stop();
        self.stop.set();
        self.client.agent().hang_up();
    }

    fn error(&self) -> Option<Error> {
        self.error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Counts its worker in, and out again, also when that panics.
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

/// Counters that workers write and the observer's snapshot reads.
struct Progress {
    downloaded: AtomicU64,
    blobs: Vec<BlobProgress>,
    running: AtomicUsize,
}

#[derive(Default)]
struct BlobProgress {
    done: AtomicU64,
    kept: AtomicU64,
    open: AtomicBool,
}

impl Progress {
    fn new(blobs: usize) -> Self {
        let open = || BlobProgress {
            open: AtomicBool::new(true),
            ..BlobProgress::default()
        };
        Self {
            downloaded: AtomicU64::new(0),
            blobs: (0..blobs).map(|_| open()).collect(),
            running: 0.into(),
        }
    }

    fn received(&self, bytes: u64) {
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
    }

    fn done(&self, blob: usize, bytes: u64) {
        self.blobs[blob].done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn kept(&self, blob: usize, bytes: u64) {
        self.done(blob, bytes);
        self.blobs[blob].kept.fetch_add(bytes, Ordering::Relaxed);
    }

    fn reset(&self, blob: usize) {
        self.blobs[blob].done.store(0, Ordering::Relaxed);
        self.blobs[blob].kept.store(0, Ordering::Relaxed);
    }

    fn is_open(&self, blob: usize) -> bool {
        self.blobs[blob].open.load(Ordering::Relaxed)
    }

    /// The blob is finished; says how many of its bytes were kept.
    fn close(&self, blob: usize) -> u64 {
        self.blobs[blob].open.store(false, Ordering::Relaxed);
        self.blobs[blob].kept.load(Ordering::Relaxed)
    }
}
