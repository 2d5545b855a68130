//! Pulls: from a plan to a finished archive. [`to_file`] and [`to_writer`] make the outputs,
//! [`worker`] and [`schedule`] fill a file or directory in place, [`prefetch`] reads ahead for a
//! writer.

mod checkpoint;
mod event;
mod inflate;
mod join;
mod noted;
mod prefetch;
mod preview;
mod progress;
mod reuse;
mod rootfs;
mod run;
mod schedule;
mod side_by_side;
mod state;
mod stated;
mod teller;
mod to_file;
mod to_writer;
mod transfer;
mod transform;
mod unchanged;
mod worker;

pub use event::{Event, LayerProgress};
pub use preview::{BlobPreview, Preview};
pub use reuse::image_names;

use crate::archive::plan::Plan;
use crate::cancel::CancelToken;
use crate::digest::Digest;
use crate::error::Result;
use crate::registry::Client;
use inflate::Inflate;
use std::fmt;
use std::path::{Path, PathBuf};

type Observer<'c> = Box<dyn FnMut(&Event) + Send + 'c>;

/// A pull, configured and then started. It can be sent to another thread, and borrows only what its
/// observer borrows.
pub struct Pull<'c> {
    client: Client,
    plan: Plan,
    jobs: usize,
    restart: bool,
    inflate: Option<Inflate>,
    /// Instead of the archive, the image's final files.
    rootfs: Option<Inflate>,
    xz: bool,
    beside: Option<PathBuf>,
    reuse: Vec<PathBuf>,
    /// How many of `reuse` the caller named: those are told if they serve nothing.
    named: usize,
    lenders: Vec<PathBuf>,
    quick_check: bool,
    sha256: bool,
    /// What the archive's SHA-256 must be.
    expected: Option<Digest>,
    /// The thin archive that is joined with its base: nothing is downloaded then.
    joined: Option<String>,
    observer: Option<Observer<'c>>,
}

impl fmt::Debug for Pull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull")
            .field("client", &self.client)
            .field("jobs", &self.jobs)
            .finish_non_exhaustive()
    }
}

/// The result of a finished pull.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The archive or the directory; empty where the archive went to a writer.
    pub path: PathBuf,
    /// The archive's size in bytes; for a directory, the size of an archive of it.
    pub size: u64,
    /// Bytes of blobs that came from the network in this run.
    pub downloaded: u64,
    /// Bytes of blobs that were already there, or came from another file.
    pub kept: u64,
    /// The existing output was already what was requested, and was left as it is.
    pub unchanged: bool,
    /// The archive's SHA-256, where [`Pull::sha256`] asks for it; a directory has none.
    pub sha256: Option<Digest>,
}

impl<'c> Pull<'c> {
    /// A pull of a plan's images through a client.
    pub fn new(client: &Client, plan: Plan) -> Self {
        Self {
            client: client.clone(),
            jobs: 6.min(most_jobs(&plan)),
            plan,
            restart: false,
            inflate: None,
            rootfs: None,
            xz: false,
            beside: None,
            reuse: Vec::new(),
            lenders: Vec::new(),
            quick_check: false,
            sha256: false,
            expected: None,
            named: 0,
            joined: None,
            observer: None,
        }
    }

    /// Lets this token end the pull; a later one goes on with what has arrived.
    pub fn cancelled_by(mut self, token: &CancelToken) -> Self {
        self.client = self.client.cancelled_by(token);
        self
    }

    /// The most connections at once (default 6).
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.jobs = jobs.clamp(1, 64).min(most_jobs(&self.plan));
        self
    }

    /// Discards what an earlier run left, and writes an existing archive again.
    pub fn restart(mut self, restart: bool) -> Self {
        self.restart = restart;
        self
    }

    /// Stores layers uncompressed (gzip and zstd), each checked against its diff ID. The image's
    /// manifest changes, and so does its digest.
    ///
    /// `limit`: the most bytes of an inflated layer; by default a hundred times its compressed
    /// size, but at least 1 GiB.
    ///
    /// The archive's size is known only after each layer was inflated once. A file or a directory
    /// also needs disk for the compressed layers until it is finished; for a writer, they are
    /// downloaded twice.
    pub fn inflate(mut self, limit: Option<u64>) -> Self {
        self.inflate = Some(Inflate {
            limit,
            optional: true,
        });
        self
    }

    /// Makes a tar of the image's final files instead of an archive: its layers put together, each
    /// checked against its diff ID. The plan must have one image for one platform.
    ///
    /// `limit`: as for [`Pull::inflate`].
    ///
    /// A file also needs disk for the layers until it is finished. Memory grows with the number of
    /// paths, from 50 000 on beyond the usual. A million are the most.
    pub fn rootfs(mut self, limit: Option<u64>) -> Self {
        self.rootfs = Some(Inflate {
            limit,
            optional: false,
        });
        self
    }

    /// Compresses the archive with xz, which takes up to 40 MiB of memory. A file also needs disk
    /// for the uncompressed archive until it is finished.
    pub fn xz(mut self, xz: bool) -> Self {
        self.xz = xz;
        self
    }

    /// Leaves the archive's entries as files in a directory, too.
    pub fn directory(mut self, path: impl AsRef<Path>) -> Self {
        self.beside = Some(path.as_ref().to_owned());
        self
    }

    /// Reuses blobs from an archive or directory, each verified, and downloads only the rest. May
    /// be called repeatedly.
    ///
    /// A file or directory that is about to be replaced is always reused.
    pub fn reuse(mut self, path: impl AsRef<Path>) -> Self {
        self.reuse.push(path.as_ref().to_owned());
        self
    }

    /// Also reuses blobs of these archives, such as those made a moment ago; one that cannot be
    /// used is not an error. Only the last eight are opened.
    pub fn lenders(mut self, paths: &[PathBuf]) -> Self {
        self.lenders = paths[paths.len().saturating_sub(8)..].to_owned();
        self
    }

    /// Compares only size, headers and documents of an existing archive to see if it is unchanged,
    /// without hashing its layers.
    pub fn quick_check(mut self, quick: bool) -> Self {
        self.quick_check = quick;
        self
    }

    /// Reports the SHA-256 of the archive, for which a file is read once more.
    pub fn sha256(mut self, sha256: bool) -> Self {
        self.sha256 = sha256;
        self
    }

    /// Requires the archive to have this SHA-256. A file with another never gets its name: it is
    /// discarded, with [`crate::Error::Mismatch`]. For [`Pull::to_file`].
    pub fn expect_sha256(mut self, expected: Digest) -> Self {
        self.expected = Some(expected);
        self.sha256(true)
    }

    /// Sets a callback for events, called on the thread that calls the pull.
    pub fn observer(mut self, observer: impl FnMut(&Event) + Send + 'c) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// The plan of what it pulls.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Makes the archive. It grows in `PATH.partial`, from which a later call resumes after any
    /// failure, and is renamed when every byte is verified. A file that is already the archive is
    /// left as it is.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Output`] for the disk, [`crate::Error::Network`] and
    /// [`crate::Error::Refused`] for the registry, [`crate::Error::Mismatch`] for wrong content,
    /// [`crate::Error::Input`] for an archive to be reused that cannot be,
    /// [`crate::Error::Cancelled`] where a token ended it.
    pub fn to_file(self, path: impl AsRef<Path>) -> Result<Report> {
        to_file::to_file(self.prepared()?, path.as_ref())
    }

    /// Makes a directory: an OCI layout, with `manifest.json` unless the plan omits it. It grows in
    /// `PATH.partial` and resumes like [`Pull::to_file`]. A directory of that name is replaced if
    /// it contains only an image.
    ///
    /// # Errors
    ///
    /// As [`Pull::to_file`].
    pub fn to_directory(self, path: impl AsRef<Path>) -> Result<Report> {
        to_file::to_directory(self.prepared()?, path.as_ref())
    }

    /// Writes the archive in order, the same bytes as in the file. Nothing can be resumed: each
    /// blob is verified as it is written, and after a failure the archive is incomplete.
    ///
    /// # Errors
    ///
    /// As [`Pull::to_file`]; [`crate::Error::Output`] if the writer fails.
    pub fn to_writer(self, out: &mut dyn std::io::Write) -> Result<Report> {
        to_writer::to_writer(self.prepared()?, out)
    }

    /// Checks, before anything is downloaded, that the requested form can be made of these images.
    fn prepared(mut self) -> Result<Self> {
        self.named = self.reuse.len();
        // What the target has, but what cannot be left out, is here all the same.
        self.reuse.extend(self.plan.bases().map(Path::to_owned));
        if self.rootfs.is_some() {
            rootfs::check(&self.plan)?;
            // These have no blobs, either.
            self.lenders.clear();
            self.plan = self.plan.whole()?;
        }
        if self.inflate.is_some() {
            self.plan.check_inflatable()?;
            // How large a layer is uncompressed is known only once it was inflated, and a manifest
            // gives the sizes of those that are left out, too.
            self.plan = self.plan.whole()?;
        }
        Ok(self)
    }
}

/// How many connections fit in memory besides the plan.
fn most_jobs(plan: &Plan) -> usize {
    const CONNECTION: u64 = 400 << 10;
    const TOGETHER: u64 = 4800 << 10;
    match plan.documents_size() {
        held if held <= 2 << 20 => 64,
        held => (TOGETHER.saturating_sub(held) / CONNECTION).max(1) as usize,
    }
}
