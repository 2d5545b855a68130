//! Parallel inflation of layers, each to its place in an output whose plan is known.

use super::event::TICK;
use super::inflate::{Inflate, Inflated, Stored};
use super::run::STACK;
use super::teller::Teller;
use crate::archive::plan::Plan;
use crate::archive::sink::Store;
use crate::archive::sink::stream::{changed, unwrap};
use crate::archive::source::Place;
use crate::codec::inflate::{MAGIC, format};
use crate::counter::Counter;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::order::largest_first;
use crate::sync::lock;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};

/// The size of a piece that is inflated, hashed and written, and how many pieces are queued between
/// a layer's two threads.
const BUFFER: usize = 32 << 10;
const QUEUE: usize = 8;
/// The most layers inflated at once: each takes memory.
const MOST: usize = 4;

/// The layers of an inflated plan, and their sources.
pub(super) struct Work<'w> {
    pub inflate: Inflate,
    /// The pulled plan, and the store with its blobs.
    pub pulled: &'w Plan,
    pub store: &'w dyn Store,
    /// Layers of that plan that already exist uncompressed.
    pub raw: &'w [Option<Place>],
    /// For each blob of the inflated plan, its source blob.
    pub origin: &'w [usize],
    /// The inflated plan.
    pub plan: &'w Plan,
}

/// Writes bytes of a blob at an offset.
pub(super) type Write<'o> = dyn Fn(usize, &[u8], u64) -> Result<()> + Sync + 'o;
/// Called for each complete blob.
pub(super) type Settle<'o> = dyn Fn(usize) -> Result<()> + Sync + 'o;

/// The destination of layers.
pub(super) struct Output<'o> {
    pub write: &'o Write<'o>,
    pub settle: &'o Settle<'o>,
}

/// The state shared by the threads.
struct Shared<'s> {
    work: &'s Work<'s>,
    output: &'s Output<'s>,
    /// The blobs, largest first, and the index of the next one.
    order: Vec<usize>,
    next: AtomicUsize,
    written: Counter,
    stopped: AtomicBool,
    error: Mutex<Option<Error>>,
    /// A zstd window may take several megabytes: only one at a time.
    window: Mutex<()>,
}

impl Work<'_> {
    /// Inflates all layers, one per processor at a time.
    ///
    /// Fails if one does not have the size and digest of its plan.
    pub fn run(
        &self,
        output: &Output<'_>,
        teller: &Teller<'_>,
        is_cancelled: &dyn Fn() -> bool,
        name: &Path,
    ) -> Result<()> {
        let blobs = self.plan.blobs();
        let order = largest_first(blobs.iter().map(|blob| blob.descriptor.size));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.min(order.len()).clamp(1, MOST);
        let shared = &Shared {
            work: self,
            output,
            order,
            next: AtomicUsize::new(0),
            written: Counter::new(0),
            stopped: AtomicBool::new(false),
            error: Mutex::default(),
            window: Mutex::default(),
        };
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            for number in 0..threads {
                let alive = alive.clone();
                let builder = std::thread::Builder::new()
                    .name(format!("inflating {number}"))
                    .stack_size(STACK);
                let spawned = builder.spawn_scoped(scope, move || {
                    let _alive = alive;
                    shared.work_off();
                });
                if let (Err(error), 0) = (spawned, number) {
                    shared.fail(Error::output(name, "starting a thread for", error));
                }
            }
            drop(alive);
            let mut told = 0;
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let written = shared.written.get();
                teller.passed(written - told);
                told = written;
                if is_cancelled() {
                    shared.fail(Error::Cancelled);
                }
            }
            teller.passed(shared.written.get() - told);
        });
        let mut error = lock(&shared.error);
        error.take().map_or(Ok(()), Err)
    }
}

impl Shared<'_> {
    fn work_off(&self) {
        while let Some(blob) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.layer(*blob) {
                self.fail(error);
            }
        }
    }

    /// The first failure is reported; the others follow from it.
    fn fail(&self, error: Error) {
        let mut first = lock(&self.error);
        first.get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn layer(&self, blob: usize) -> Result<()> {
        let work = self.work;
        let origin = work.origin[blob];
        let mut target = Target::new(self, blob);
        if let Some(place) = &work.raw[origin] {
            target.copy(place)?;
            return target.finish();
        }
        let mut magic = [0; MAGIC];
        let length = work.pulled.blobs()[origin]
            .descriptor
            .size
            .min(MAGIC as u64) as usize;
        work.store.read_at(origin, &mut magic[..length], 0)?;
        let wide = format(&magic[..length]) == Some("zstd");
        let _window = wide.then(|| lock(&self.window));
        let mut stored = Stored {
            store: work.store,
            plan: work.pulled,
            // The digest of its output is checked.
            check: false,
        };
        target.inflate(|| work.inflate.open(work.pulled, origin, &mut stored))?;
        target.finish()
    }
}

/// One layer: hashed, counted and written.
struct Target<'t> {
    shared: &'t Shared<'t>,
    blob: usize,
    hasher: Hasher,
    at: u64,
}

impl<'t> Target<'t> {
    fn new(shared: &'t Shared<'t>, blob: usize) -> Self {
        let digest = shared.work.plan.blobs()[blob].descriptor.digest;
        Self {
            shared,
            blob,
            hasher: Hasher::new(digest.algorithm()),
            at: 0,
        }
    }

    /// Another thread inflates while this one hashes and writes.
    fn inflate<'l>(&mut self, open: impl FnOnce() -> Result<Inflated<'l>> + Send) -> Result<()> {
        let (full, filled) = mpsc::sync_channel::<Result<Vec<u8>>>(QUEUE);
        let (back, free) = mpsc::channel::<Vec<u8>>();
        std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().stack_size(STACK);
            let spawned = builder.spawn_scoped(scope, move || {
                let outcome = open().and_then(|mut inflated| {
                    loop {
                        let mut buffer = free.try_recv().unwrap_or_default();
                        buffer.resize(BUFFER, 0);
                        let read = inflated.read_plain(&mut buffer).map_err(unwrap)?;
                        buffer.truncate(read);
                        // There is no receiver if the other thread has failed.
                        if read == 0 || full.send(Ok(buffer)).is_err() {
                            return Ok(());
                        }
                    }
                });
                if let Err(error) = outcome {
                    let _ = full.send(Err(error));
                }
            });
            if let Err(error) = spawned {
                return Err(Error::output(
                    self.shared.work.store.path(),
                    "starting a thread for",
                    error,
                ));
            }
            // Dropped at the first failure, which ends the other thread.
            for bytes in filled {
                let bytes = bytes?;
                self.take(&bytes)?;
                let _ = back.send(bytes);
            }
            Ok(())
        })
    }

    /// Copies a layer that is here uncompressed already.
    fn copy(&mut self, place: &Place) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        while self.at < place.size() {
            let length = (place.size() - self.at).min(BUFFER as u64) as usize;
            let bytes = &mut buffer[..length];
            place.read_at(bytes, self.at).map_err(unwrap)?;
            self.take(bytes)?;
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        if self.shared.stopped.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let size = self.shared.work.plan.blobs()[self.blob].descriptor.size;
        // The bytes after it belong to another layer.
        if bytes.len() as u64 > size - self.at {
            return Err(changed());
        }
        self.hasher.update(bytes);
        (self.shared.output.write)(self.blob, bytes, self.at)?;
        self.at += bytes.len() as u64;
        self.shared.written.add(bytes.len() as u64);
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let descriptor = &self.shared.work.plan.blobs()[self.blob].descriptor;
        if self.at != descriptor.size {
            return Err(changed());
        }
        let found = self.hasher.finish();
        if found != descriptor.digest {
            return Err(Error::Mismatch {
                blob: "a layer, inflated,".into(),
                digest: Box::new(descriptor.digest),
                expected: descriptor.digest.to_string(),
                found: found.to_string(),
            });
        }
        (self.shared.output.settle)(self.blob)
    }
}
