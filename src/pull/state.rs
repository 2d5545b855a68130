//! The shared state of a pull's workers. [`super::schedule`] decides on the work, [`super::worker`]
//! does it.

use super::event::{Event, LayerProgress};
use super::noted::Syncs;
use super::progress::Progress;
use super::schedule::{FOLLOWED, Queue};
use super::{Pull, Report, reuse};
use crate::archive::plan::{Blob, Plan};
use crate::archive::sink::file::Lender;
use crate::archive::sink::journal::{Chunks, Claim, Record};
use crate::archive::sink::{Opened, Store};
use crate::archive::source::{Existing, Place};
use crate::cancel::Stop;
use crate::digest::Hasher;
use crate::error::{Error, Result};
use crate::reference::Reference;
use crate::registry::{Client, Repository};
use crate::sync::lock;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, OnceLock};

/// How many bytes are written back at once.
const RUN: u64 = 8 << 20;

/// How far a blob has been hashed.
pub(super) struct Front {
    pub hasher: Hasher,
    /// The first chunk that is not hashed.
    pub next: usize,
    /// It already had the wrong digest once.
    pub second: bool,
}

impl Front {
    pub fn new(hasher: Hasher) -> Self {
        Self {
            hasher,
            next: 0,
            second: false,
        }
    }
}

/// The shared state of a pull's workers.
pub(super) struct Shared<'p> {
    pub client: &'p Client,
    pub plan: &'p Plan,
    /// The thin archive that is joined: nothing is downloaded then.
    pub joined: Option<&'p str>,
    pub store: Box<dyn Store>,
    pub queue: Queue,
    pub fronts: Vec<Mutex<Front>>,
    pub claims: Vec<Vec<Record>>,
    pub lender: Option<Lender>,
    /// For each blob, places in other archives that may have it.
    places: OnceLock<Vec<Vec<Place>>>,
    /// For each blob, a place in another archive that has it uncompressed: then it is not
    /// downloaded.
    raw: OnceLock<Vec<Option<Place>>>,
    pub progress: Progress,
    pub syncs: Syncs,
    pub stop: Stop,
    error: Mutex<Option<Error>>,
    events: Mutex<Option<Sender<Option<Event>>>>,
}

impl<'p> Shared<'p> {
    pub fn new(pull: &'p Pull<'_>, opened: Opened, events: Sender<Option<Event>>) -> Self {
        let (client, plan, jobs) = (&pull.client, &pull.plan, pull.jobs);
        let Opened {
            store,
            claims,
            lender,
        } = opened;
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
                claims
                    .iter()
                    .flatten()
                    .any(|claim| *claim != Claim::default())
                    || lent(blob.descriptor.digest)
            })
            .collect();
        // Skips the system calls if nobody needs the answer.
        let parallel = sizes.iter().any(|size| *size > FOLLOWED)
            && std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
        let front =
            |blob: &Blob| Mutex::new(Front::new(Hasher::new(blob.descriptor.digest.algorithm())));
        Self {
            client,
            plan,
            joined: pull.joined.as_deref(),
            store,
            queue: Queue::new(&sizes, &check, jobs, parallel),
            fronts: plan.blobs().iter().map(front).collect(),
            claims,
            lender,
            places: OnceLock::new(),
            raw: OnceLock::new(),
            progress: Progress::new(sizes.len()),
            syncs: Syncs::new(),
            error: Mutex::default(),
            stop: Stop::default(),
            events: Mutex::new(Some(events)),
        }
    }

    /// Finds the blobs that other archives may have; `inflated`: also uncompressed.
    pub fn look(&self, existing: &[Existing], inflated: bool) {
        let raw = reuse::layers(existing, self.plan, inflated);
        let blobs = self.plan.blobs().iter().zip(&raw).enumerate();
        let places = blobs.map(|(number, (blob, raw))| {
            let descriptor = &blob.descriptor;
            let places: Vec<Place> = match raw {
                None if descriptor.size > 0 => reuse::candidates(existing, blob).collect(),
                _ => Vec::new(),
            };
            if raw.is_some() || !places.is_empty() {
                self.queue.look_at(number);
            }
            places
        });
        let _ = self.places.set(places.collect());
        let _ = self.raw.set(raw);
    }

    /// The other places of a blob.
    pub fn places(&self, blob: usize) -> &[Place] {
        self.places.get().map_or(&[], |places| &places[blob])
    }

    /// For each blob, its uncompressed place.
    pub fn raw(&self) -> &[Option<Place>] {
        self.raw.get().map_or(&[], Vec::as_slice)
    }

    /// The result of a finished pull.
    pub fn report(&self, path: &Path, size: u64) -> Report {
        let kept = self.progress.blobs.iter();
        Report {
            path: path.to_owned(),
            size,
            downloaded: self.progress.downloaded.get(),
            kept: kept.map(|blob| blob.kept.get()).sum(),
            unchanged: false,
            sha256: None,
        }
    }

    pub fn snapshot(&self) -> Event {
        let blobs = self
            .plan
            .blobs()
            .iter()
            .zip(&self.progress.blobs)
            .enumerate();
        let active = blobs.clone().filter(|(_, (blob, progress))| {
            let done = progress.done.get();
            progress.open.load(Ordering::Relaxed) && done > 0 && done <= blob.descriptor.size
        });
        Event::Progress {
            done: self.progress.blobs.iter().map(|blob| blob.done.get()).sum(),
            total: self.plan.download_size(),
            downloaded: self.progress.downloaded.get(),
            active: active
                .map(|(layer, (blob, progress))| LayerProgress {
                    layer,
                    digest: blob.descriptor.digest,
                    done: progress.done.get(),
                    size: blob.descriptor.size,
                })
                .collect(),
        }
    }

    pub fn chunks(&self, blob: usize) -> Chunks {
        Chunks::of(self.plan.blobs()[blob].descriptor.size)
    }

    /// All chunks before `next` are hashed and no longer needed: starts their writeback while
    /// others arrive, many at once.
    pub fn passed(&self, blob: usize, next: usize) {
        let chunks = self.chunks(blob);
        let run = chunks.in_bytes(RUN);
        if next.is_multiple_of(run) || next == chunks.count() {
            let first = (next - 1) / run * run;
            let bytes = chunks.range(first).start..chunks.range(next - 1).end;
            if bytes.end - bytes.start >= RUN / 8 {
                self.store.hasten(blob, bytes);
            }
        }
    }

    pub fn reference(&self, blob: usize) -> &Reference {
        self.plan.reference(blob)
    }

    pub fn repository(&self, blob: usize) -> Result<Repository<'p>> {
        Repository::of_image(self.client, self.plan.image(blob))
    }

    pub fn host(&self, blob: usize) -> String {
        self.reference(blob).registry()
    }

    /// The lender's claim about a chunk, and the blob's offset in its file.
    pub fn lent(&self, blob: usize, chunk: usize) -> Option<(Record, u64)> {
        let descriptor = &self.plan.blobs()[blob].descriptor;
        let rows = &self.lender.as_ref()?.rows;
        let row = rows
            .iter()
            .find(|row| row.digest == descriptor.digest && row.size == descriptor.size)?;
        Some((*row.claims.get(chunk)?, row.offset))
    }

    pub fn tell(&self, event: Event) {
        if let Some(events) = &*lock(&self.events) {
            // A missing listener is not an error.
            let _ = events.send(Some(event));
        }
    }

    /// Wakes the event loop so that it checks whether workers are left.
    pub fn wake(&self) {
        if let Some(events) = &*lock(&self.events) {
            let _ = events.send(None);
        }
    }

    /// The first failure is the pull's; the others follow from it.
    pub fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.queue.stop();
        self.stop.set();
        self.client.agent().hang_up();
    }

    pub fn error(&self) -> Option<Error> {
        lock(&self.error).take()
    }
}
