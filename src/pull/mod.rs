//! From a plan to a finished archive: workers, their progress, and the end of all.

mod event;
mod progress;
mod queue;
mod shared;
mod transfer;
mod worker;

pub use event::{Event, LayerProgress};

use crate::archive::file::{Partial, check_target};
use crate::archive::layout::Plan;
use crate::error::Result;
use crate::registry::Client;
use shared::Shared;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

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
    /// [`crate::Error::Output`] for the disk, [`crate::Error::Network`] and [`crate::Error::Refused`] for the registry,
    /// [`crate::Error::Mismatch`] for wrong content, [`crate::Error::Interrupted`] after [`Client::cancel`].
    pub fn to_file(mut self, path: &Path) -> Result<Report> {
        check_target(path)?;
        let opened = Partial::open(path, &self.plan, self.restart)?;
        let (sender, receiver) = channel();
        let shared = Shared::new(self.client, &self.plan, opened, sender, self.jobs);
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
                shared.store.finish()
            }
        };
        if let Err(error) = outcome {
            shared.store.give_up();
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
