//! The directory output: the archive's entries as files, an OCI layout plus `manifest.json`. It
//! grows in `NAME.partial` with a journal in it, and gets its name when everything is verified.
//!
//! An existing directory is replaced only if every file in it is of a kind that is written here.
//! Everything below the directory's name is opened through descriptors, so a planted link leads
//! nowhere.

use super::file::read_journal;
use super::fs::{self, check_room, copy, hasten, open_locked, reserve, sync_folder, with_suffix};
use super::journal::{self, Chunks, Claim, JOURNAL, Journal, Marks, Record};
use super::owned::{self, Handle, Trust};
use super::replace::{self, BLOBS};
use super::stream::{self, Layers};
use super::{Opened, Store};
use crate::archive::plan::{Entry, Plan, Source};
use crate::archive::source::Place;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::sync::lock;
use rustix::fs::RenameFlags;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A partial directory, locked.
pub(crate) struct Directory {
    journal: File,
    path: PathBuf,
    target: PathBuf,
    names: Names,
    /// Its parent directory, its own, and those of its blobs.
    parent: Handle,
    own: Handle,
    folders: Folders,
    marks: Marks,
    blobs: Vec<Blob>,
    /// What is known already: path and content.
    documents: Vec<(String, Arc<Vec<u8>>)>,
    /// The file system does not support fsync.
    unsynced: AtomicBool,
}

/// The names of a directory: final, partial, and of the one it replaced.
struct Names {
    target: PathBuf,
    partial: PathBuf,
    old: PathBuf,
}

/// `blobs`, and for each algorithm in use the directory below it.
struct Folders {
    all: Handle,
    sha256: Handle,
    sha512: Option<Handle>,
}

struct Blob {
    digest: Digest,
    size: u64,
    /// Open only while a worker uses it: an image may have more layers than a process may have open
    /// files.
    file: Mutex<Option<Arc<File>>>,
}

impl Names {
    fn of(target: &Path) -> Result<Self> {
        let Some(name) = target.file_name() else {
            let why = io::Error::other("this path does not name a directory to create");
            return Err(Error::output(target, "making", why));
        };
        let target = PathBuf::from(name);
        let partial = with_suffix(&target, ".partial");
        Ok(Self {
            old: with_suffix(&partial, ".old"),
            target,
            partial,
        })
    }
}

impl Folders {
    fn make(own: &Handle, plan: &Plan) -> io::Result<Self> {
        let all = own.make(BLOBS)?;
        let long = format!("{BLOBS}/sha512/");
        let wanted = plan.entries().iter().any(|e| e.path().starts_with(&long));
        Ok(Self {
            sha256: all.make("sha256")?,
            sha512: wanted.then(|| all.make("sha512")).transpose()?,
            all,
        })
    }

    fn of(&self, algorithm: Algorithm) -> io::Result<&Handle> {
        match algorithm {
            Algorithm::Sha512 => self.sha512.as_ref().ok_or(io::ErrorKind::NotFound.into()),
            _ => Ok(&self.sha256),
        }
    }
}

impl Directory {
    /// Opens or creates the partial directory of `target`, locks it, and reads its journal. With
    /// `restart`, what is there is discarded.
    pub fn open(target: &Path, plan: &Plan, restart: bool) -> Result<Opened> {
        check_target(target)?;
        let names = Names::of(target)?;
        let path = with_suffix(target, ".partial");
        let failed =
            |doing: &'static str| move |error: io::Error| Error::output(target, doing, error);
        let parent = Handle::above(target).map_err(failed("opening the directory of"))?;
        let failed = |doing: &'static str| |error: io::Error| Error::output(&path, doing, error);
        let own = parent.make(&names.partial).map_err(failed("making"))?;
        replace::check(&own, Trust::Alone).map_err(failed("resuming"))?;
        let folders = Folders::make(&own, plan).map_err(failed("making"))?;
        let journal = open_locked(own.fd(), Path::new(JOURNAL), &path.join(JOURNAL))?;
        if restart {
            journal.set_len(0).map_err(failed("creating"))?;
        }
        let found = read_journal(&journal, plan);
        let claims = claims(found.as_ref(), plan);
        check_room(&journal, target, missing(plan, &claims))?;
        let directory = Self {
            marks: Marks::new(plan, 0),
            blobs: plan.blobs().iter().map(Blob::new).collect(),
            documents: plan.entries().iter().filter_map(document).collect(),
            journal,
            path: path.clone(),
            target: target.to_owned(),
            names,
            parent,
            own,
            folders,
            unsynced: AtomicBool::new(false),
        };
        if found.is_none_or(|found| !found.is_of(plan)) {
            directory
                .lay_out(plan, &claims)
                .map_err(failed("creating"))?;
        } else {
            directory.marks.keep();
        }
        Ok(Opened {
            store: Box::new(directory),
            claims,
            lender: None,
        })
    }

    /// Starts a new journal; the claims of an earlier one for the same blobs are kept.
    fn lay_out(&self, plan: &Plan, claims: &[Vec<Record>]) -> io::Result<()> {
        self.journal.set_len(0)?;
        self.journal.set_len(journal::size(plan))?;
        for (blob, records) in claims.iter().enumerate() {
            let claims = records.iter().flatten().enumerate();
            for (number, claim) in claims.filter(|(_, claim)| **claim != Claim::default()) {
                self.marks.keep();
                let place = self.marks.at(blob, number / 2, number % 2);
                self.journal.write_all_at(&claim.to_bytes(), place)?;
            }
        }
        let mut wanted = BTreeSet::new();
        wanted.extend(self.blobs.iter().map(|blob| blob.digest));
        self.folders.all.list(|algorithm| {
            let Some(folder) = self.folders.all.find(algorithm, Trust::Alone)? else {
                return Ok(());
            };
            folder.list(|name| {
                let digest = format!("{}:{}", algorithm.display(), name.display());
                match digest.parse::<Digest>() {
                    Ok(digest) if !wanted.contains(&digest) => folder.remove(name).map(|_| ()),
                    _ => Ok(()),
                }
            })
        })?;
        journal::write(&self.journal, plan, 0)
    }

    fn file(&self, blob: usize) -> Result<Arc<File>> {
        let blob = &self.blobs[blob];
        let mut file = lock(&blob.file);
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let open = || {
            let folder = self.folders.of(blob.digest.algorithm())?;
            let opened = owned::open_or_make(folder.fd(), Path::new(&blob.digest.hex()))?;
            opened.set_len(blob.size)?;
            Ok(Arc::new(opened))
        };
        let opened = open().map_err(|error| self.failed(blob, "making", error))?;
        *file = Some(opened.clone());
        Ok(opened)
    }

    fn failed(&self, blob: &Blob, doing: &str, error: io::Error) -> Error {
        Error::output(&self.path.join(blob.digest.path()), doing, error)
    }

    /// Writes a file whose content is already known, and syncs it.
    fn write_document(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let (folder, name) = match path.rsplit_once('/') {
            None => (&self.own, path),
            Some((folder, name)) if folder.ends_with("/sha512") => {
                (self.folders.of(Algorithm::Sha512)?, name)
            }
            Some((_, name)) => (&self.folders.sha256, name),
        };
        folder.remove(name)?;
        let file = owned::make_new(folder.fd(), Path::new(name))?;
        file.write_all_at(bytes, 0)?;
        self.sync(&file)
    }

    fn sync_folders(&self) {
        let folders = &self.folders;
        [&folders.sha256, &folders.all, &self.own]
            .into_iter()
            .chain(&folders.sha512)
            .for_each(Handle::sync);
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if !fs::sync(file)? {
            self.unsynced.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Renames the directory to its final name, replacing an existing one.
    fn name(&self) -> io::Result<()> {
        let (parent, names) = (&self.parent, &self.names);
        // An earlier run may have been killed before it could do so.
        replace::remove(parent, &names.old)?;
        let (fd, flags) = (parent.fd(), RenameFlags::EXCHANGE);
        match rustix::fs::renameat_with(fd, &names.partial, fd, &names.target, flags) {
            Ok(()) => parent.rename(&names.partial, &names.old)?,
            Err(rustix::io::Errno::NOENT) => return parent.rename(&names.partial, &names.target),
            // Not all kernels and file systems support RENAME_EXCHANGE.
            Err(_) => {
                match parent.rename(&names.target, &names.old) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                parent.rename(&names.partial, &names.target)?;
            }
        }
        // Files that are not part of an image stay.
        let _ = replace::remove(parent, &names.old);
        Ok(())
    }
}

impl Blob {
    fn new(blob: &crate::archive::plan::Blob) -> Self {
        Self {
            digest: blob.descriptor.digest,
            size: blob.descriptor.size,
            file: Mutex::default(),
        }
    }
}

impl Store for Directory {
    fn write_at(&self, blob: usize, bytes: &[u8], at: u64) -> Result<()> {
        self.file(blob)?
            .write_all_at(bytes, at)
            .map_err(|error| self.failed(&self.blobs[blob], "writing", error))
    }

    fn read_at(&self, blob: usize, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file(blob)?
            .read_exact_at(bytes, at)
            .map_err(|error| self.failed(&self.blobs[blob], "reading back", error))
    }

    fn copy_from(&self, blob: usize, at: u64, from: &Place, length: u64) -> Result<bool> {
        copy(from, at, &*self.file(blob)?, at, length)
            .map_err(|error| self.failed(&self.blobs[blob], "writing", error))
    }

    fn reserve(&self, blob: usize, size: u64) -> Result<()> {
        let path = self.path.join(self.blobs[blob].digest.path());
        reserve(&*self.file(blob)?, &path, 0, size)
    }

    fn hasten(&self, blob: usize, bytes: Range<u64>) {
        if let Ok(file) = self.file(blob) {
            hasten(&file, 0, bytes);
        }
    }

    fn mark(&self, blob: usize, chunk: usize, slot: usize, claim: Claim) -> Result<()> {
        self.marks.keep();
        self.record(&claim.to_bytes(), self.marks.at(blob, chunk, slot))
    }

    fn unmark(&self, blob: usize, chunk: usize) -> Result<()> {
        self.record(&[0; journal::RECORD], self.marks.at(blob, chunk, 0))
    }

    /// The blobs in progress; finished ones are already synced.
    fn sync_all(&self) -> Result<()> {
        const DOING: &str = "syncing";
        for blob in &self.blobs {
            let file = lock(&blob.file);
            let file = file.clone();
            if let Some(file) = file {
                let synced = self.sync(&file);
                synced.map_err(|error| self.failed(blob, DOING, error))?;
            }
        }
        self.sync(&self.journal)
            .map_err(|error| Error::output(&self.path, DOING, error))?;
        if !self.marks.named.swap(true, Ordering::Relaxed) {
            self.sync_folders();
            sync_folder(&self.path);
        }
        Ok(())
    }

    /// Syncs the blob now, while others are still arriving.
    fn settle(&self, blob: usize) -> Result<()> {
        let file = self.file(blob)?;
        let failed = |error| self.failed(&self.blobs[blob], "syncing", error);
        self.sync(&file).map_err(failed)?;
        *lock(&self.blobs[blob].file) = None;
        Ok(())
    }

    fn finish(&self) -> Result<bool> {
        for (path, bytes) in &self.documents {
            self.write_document(path, bytes)
                .map_err(|error| Error::output(&self.path.join(path), "writing", error))?;
        }
        self.own
            .remove(JOURNAL)
            .map_err(|error| Error::output(&self.path.join(JOURNAL), "removing", error))?;
        self.sync_folders();
        self.name()
            .map_err(|error| Error::output(&self.target, "naming", error))?;
        sync_folder(&self.target);
        Ok(!self.unsynced.load(Ordering::Relaxed))
    }

    fn discard(&self) {
        let _ = replace::remove(&self.parent, &self.names.partial);
    }

    fn give_up(&self) {
        if !self.marks.worth() {
            self.discard();
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Directory {
    fn record(&self, record: &[u8], place: u64) -> Result<()> {
        self.journal
            .write_all_at(record, place)
            .map_err(|error| Error::output(&self.path, "writing the journal in", error))
    }
}

/// Makes the directory of a plan, whose blobs `fill` writes.
pub(crate) fn write(
    plan: &Plan,
    target: &Path,
    fill: &mut dyn FnMut(&dyn Store) -> Result<()>,
) -> Result<bool> {
    let store = Directory::open(target, plan, true)?.store;
    let written = fill(&*store).and_then(|()| store.finish());
    if written.is_err() {
        store.discard();
    }
    written
}

/// Writes the blobs of a plan to a store, one after the other. `passed` is told how many bytes
/// went through.
pub(crate) fn write_blobs(
    plan: &Plan,
    layers: &mut dyn Layers,
    store: &dyn Store,
    passed: &mut dyn FnMut(u64),
) -> Result<()> {
    for (number, blob) in plan.blobs().iter().enumerate() {
        let mut at = 0;
        stream::copy(
            &mut *layers.layer(number)?,
            blob.descriptor.size,
            &mut |bytes| {
                store.write_at(number, bytes, at)?;
                at += bytes.len() as u64;
                passed(bytes.len() as u64);
                Ok(())
            },
        )?;
        store.settle(number)?;
    }
    Ok(())
}

/// Checks that [`crate::Pull::to_directory`] can create a directory of this name, or replace the
/// existing one.
///
/// # Errors
///
/// [`Error::Output`] with the reason if it cannot.
pub fn check_directory(target: impl AsRef<Path>) -> Result<()> {
    check_target(target.as_ref())
}

pub(crate) fn check_target(target: &Path) -> Result<()> {
    super::file::check_folder(target)?;
    let names = Names::of(target)?;
    let check = |name: &Path, trust| -> io::Result<()> {
        let found = Handle::above(target)?.find(name, trust)?;
        found.map_or(Ok(()), |directory| replace::check(&directory, trust))
    };
    let beside = |suffix| with_suffix(target, suffix);
    check(&names.target, Trust::Ours).map_err(|error| Error::output(target, "replacing", error))?;
    check(&names.partial, Trust::Alone)
        .map_err(|error| Error::output(&beside(".partial"), "resuming", error))?;
    check(&names.old, Trust::Ours)
        .map_err(|error| Error::output(&beside(".partial.old"), "removing", error))
}

fn document(entry: &Entry) -> Option<(String, Arc<Vec<u8>>)> {
    match entry.source() {
        Source::Memory(bytes) => Some((entry.path().to_owned(), bytes.clone())),
        Source::Blob(_) => None,
    }
}

/// What a journal, of this plan or of another one, claims about this plan's blobs.
fn claims(journal: Option<&Journal>, plan: &Plan) -> Vec<Vec<Record>> {
    let rows = journal.map_or(&[][..], |journal| &journal.rows);
    let claimed = |blob: &crate::archive::plan::Blob| {
        let own = |row: &&journal::Row| {
            row.digest == blob.descriptor.digest && row.size == blob.descriptor.size
        };
        let row = rows.iter().find(own);
        row.map_or_else(Vec::new, |row| row.claims.clone())
    };
    plan.blobs().iter().map(claimed).collect()
}

/// The bytes that need space.
fn missing(plan: &Plan, claims: &[Vec<Record>]) -> u64 {
    let mut sum = 0;
    for (blob, records) in plan.blobs().iter().zip(claims) {
        let chunks = Chunks::of(blob.descriptor.size);
        let records = records.iter().enumerate();
        let here = records.map(|(chunk, record)| journal::claimed(*record, chunks.length(chunk)));
        sum += blob.descriptor.size.saturating_sub(here.sum());
    }
    sum
}
