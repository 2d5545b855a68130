//! The directory: the archive's entries as files, an OCI layout with `manifest.json` beside it. It
//! grows in `NAME.partial` with a journal in it, and gets its name when all is true.
//!
//! A directory that stands there already is replaced only when every file in it is of the kind
//! that is written here.

use super::disk::{check_room, copy, hasten, open_locked, reserve, sync_folder, with_suffix};
use super::file::read_journal;
use super::journal::{self, Chunks, Journal, Marks};
use super::layout::{Entry, Plan, Source};
use super::read::Place;
use super::store::{Opened, Store};
use super::stream::{self, Layers};
use crate::digest::Digest;
use crate::error::{Error, Result};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The journal's name in a directory under way.
pub(super) const JOURNAL: &str = "journal";

/// A directory under way, locked.
pub(crate) struct Directory {
    journal: File,
    path: PathBuf,
    target: PathBuf,
    marks: Marks,
    blobs: Vec<Blob>,
    /// What is known already: path and content.
    documents: Vec<(String, Arc<Vec<u8>>)>,
}

struct Blob {
    path: PathBuf,
    size: u64,
    /// Open while somebody is at work on it: an image may have more layers than a process files.
    file: Mutex<Option<Arc<File>>>,
}

impl Directory {
    /// Opens or makes the partial directory of `target`, locks it, and reads its journal. With
    /// `restart`, what is there is forgotten.
    pub fn open(target: &Path, plan: &Plan, restart: bool) -> Result<Opened> {
        check_target(target)?;
        let path = with_suffix(target, ".partial");
        make(&path)?;
        let journal = open_locked(&path.join(JOURNAL))?;
        let failed = |error: io::Error| Error::output(&path, "laying out", error);
        if restart {
            journal.set_len(0).map_err(failed)?;
        }
        let found = read_journal(&journal);
        let claims = claims(found.as_ref(), plan);
        check_room(&journal, target, missing(plan, &claims))?;
        let directory = Self {
            marks: Marks::new(plan, 0),
            blobs: plan
                .blobs()
                .iter()
                .map(|blob| Blob::new(&path, blob))
                .collect(),
            documents: plan.entries().iter().filter_map(document).collect(),
            journal,
            path: path.clone(),
            target: target.to_owned(),
        };
        if found.is_none_or(|found| found.plan != *plan.digest()) {
            directory.lay_out(plan, &claims).map_err(failed)?;
        } else {
            directory.marks.keep();
        }
        Ok(Opened {
            store: Box::new(directory),
            claims,
            lender: None,
        })
    }

    /// Begins a new journal; what an earlier one claimed of the same blobs stays claimed.
    fn lay_out(&self, plan: &Plan, claims: &[Vec<Option<u32>>]) -> io::Result<()> {
        self.journal.set_len(0)?;
        self.journal.set_len(journal::size(plan))?;
        for (blob, claims) in claims.iter().enumerate() {
            for (chunk, claim) in claims.iter().enumerate() {
                if let Some(crc) = claim {
                    self.marks.keep();
                    let place = self.marks.at(blob, chunk);
                    self.journal.write_all_at(&journal::record(*crc), place)?;
                }
            }
        }
        let wanted: BTreeSet<&Path> = self.blobs.iter().map(|blob| blob.path.as_path()).collect();
        for file in blob_files(&self.path)? {
            if !wanted.contains(file.as_path()) {
                std::fs::remove_file(file)?;
            }
        }
        journal::write(&self.journal, plan, 0)
    }

    fn file(&self, blob: usize) -> Result<Arc<File>> {
        let blob = &self.blobs[blob];
        let mut file = blob.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &*file {
            return Ok(file.clone());
        }
        let opened = create(&blob.path, OFlags::empty())
            .and_then(|opened| {
                opened.set_len(blob.size)?;
                Ok(Arc::new(opened))
            })
            .map_err(|error| Error::output(&blob.path, "making", error))?;
        *file = Some(opened.clone());
        Ok(opened)
    }

    /// Gives the directory its name, in the place of one that stood there.
    fn name(&self) -> io::Result<()> {
        let old = with_suffix(&self.path, ".old");
        let exchanged =
            rustix::fs::renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::EXCHANGE);
        match exchanged {
            Ok(()) => std::fs::rename(&self.path, &old)?,
            Err(rustix::io::Errno::NOENT) => return std::fs::rename(&self.path, &self.target),
            // Neither all kernels nor all file systems can exchange.
            Err(_) => {
                match std::fs::rename(&self.target, &old) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
                std::fs::rename(&self.path, &self.target)?;
            }
        }
        let _ = std::fs::remove_dir_all(old);
        Ok(())
    }
}

impl Blob {
    fn new(path: &Path, blob: &super::layout::Blob) -> Self {
        Self {
            path: path.join(blob.descriptor.digest.path()),
            size: blob.descriptor.size,
            file: Mutex::default(),
        }
    }
}

impl Store for Directory {
    fn write_at(&self, blob: usize, bytes: &[u8], at: u64) -> Result<()> {
        self.file(blob)?
            .write_all_at(bytes, at)
            .map_err(|error| Error::output(&self.blobs[blob].path, "writing", error))
    }

    fn read_at(&self, blob: usize, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file(blob)?
            .read_exact_at(bytes, at)
            .map_err(|error| Error::output(&self.blobs[blob].path, "reading back", error))
    }

    fn copy_from(&self, blob: usize, at: u64, from: &Place, length: u64) -> Result<bool> {
        copy(from, at, &*self.file(blob)?, at, length)
            .map_err(|error| Error::output(&self.blobs[blob].path, "writing", error))
    }

    fn reserve(&self, blob: usize, size: u64) -> Result<()> {
        reserve(&*self.file(blob)?, &self.blobs[blob].path, 0, size)
    }

    fn hasten(&self, blob: usize, bytes: Range<u64>) {
        if let Ok(file) = self.file(blob) {
            hasten(&file, 0, bytes);
        }
    }

    fn mark(&self, blob: usize, chunk: usize, crc: u32) -> Result<()> {
        self.marks.keep();
        self.record(&journal::record(crc), blob, chunk)
    }

    fn unmark(&self, blob: usize, chunk: usize) -> Result<()> {
        self.record(&[0; journal::RECORD], blob, chunk)
    }

    /// Brings the blob to the disk now, while others still come.
    fn settle(&self, blob: usize) -> Result<()> {
        let file = self.file(blob)?;
        file.sync_all().map_err(|error| {
            Error::output(&self.blobs[blob].path, "bringing to the disk", error)
        })?;
        *self.blobs[blob]
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        for (path, bytes) in &self.documents {
            let path = self.path.join(path);
            create(&path, OFlags::TRUNC)
                .and_then(|file| {
                    file.write_all_at(bytes, 0)?;
                    file.sync_all()
                })
                .map_err(|error| Error::output(&path, "writing", error))?;
        }
        let journal = self.path.join(JOURNAL);
        std::fs::remove_file(&journal)
            .map_err(|error| Error::output(&journal, "removing", error))?;
        let folders = self.blobs.iter().map(|blob| blob.path.clone());
        let folders = folders.chain([journal, self.path.join("blobs")]);
        // Of each directory one file: the last of those that share it.
        let mut last: Vec<PathBuf> = folders.collect();
        last.sort();
        last.dedup_by(|a, b| a.parent() == b.parent());
        last.iter().for_each(|file| sync_folder(file));
        self.name()
            .map_err(|error| Error::output(&self.target, "naming", error))?;
        sync_folder(&self.target);
        Ok(())
    }

    fn discard(&self) {
        let _ = std::fs::remove_dir_all(&self.path);
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
    fn record(&self, record: &[u8], blob: usize, chunk: usize) -> Result<()> {
        self.journal
            .write_all_at(record, self.marks.at(blob, chunk))
            .map_err(|error| Error::output(&self.path, "writing the journal in", error))
    }
}

/// Makes the directory of a plan whose layers come in order. `passed` is told how many bytes went
/// through.
pub(crate) fn write(
    plan: &Plan,
    layers: &mut dyn Layers,
    target: &Path,
    passed: &mut dyn FnMut(u64),
) -> Result<()> {
    let store = Directory::open(target, plan, true)?.store;
    let written = write_blobs(plan, layers, &*store, passed).and_then(|()| store.finish());
    if written.is_err() {
        store.discard();
    }
    written
}

fn write_blobs(
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

/// Can a directory of this name be made, or the one that is there be replaced?
pub(crate) fn check_target(target: &Path) -> Result<()> {
    super::file::check_folder(target)?;
    let Ok(about) = target.symlink_metadata() else {
        return Ok(());
    };
    let why = if !about.is_dir() {
        "it is no directory".to_owned()
    } else {
        match foreign(target).map_err(|error| Error::output(target, "looking into", error))? {
            None => return Ok(()),
            Some(name) => format!(
                "it holds {}, which is none of an image's files; move it away, or choose another --layers-dir",
                crate::error::printable(&name.to_string_lossy(), 200)
            ),
        }
    };
    Err(Error::output(target, "replacing", io::Error::other(why)))
}

/// The first file in a directory that no pull has left there.
fn foreign(directory: &Path) -> io::Result<Option<PathBuf>> {
    const OWN: [&str; 4] = ["oci-layout", "index.json", "manifest.json", "blobs"];
    let strange = |path: &Path, own: &dyn Fn(&str) -> bool| -> io::Result<Option<PathBuf>> {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(own) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    };
    if let Some(path) = strange(directory, &|name| OWN.contains(&name))? {
        return Ok(Some(path));
    }
    let blobs = directory.join("blobs");
    if !blobs.is_dir() {
        return Ok(None);
    }
    for entry in std::fs::read_dir(blobs)? {
        let path = entry?.path();
        let algorithm = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or("");
        let digest = |name: &str| format!("{algorithm}:{name}").parse::<Digest>().is_ok();
        if !path.is_dir() {
            return Ok(Some(path));
        }
        if let Some(path) = strange(&path, &digest)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// A directory of our own, not a link to somebody else's.
fn make(path: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::output(path, "making", error);
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !path.symlink_metadata().map_err(failed)?.is_dir() {
                return Err(failed(io::Error::other("it is there, and no directory")));
            }
        }
        other => other.map_err(failed)?,
    }
    for folder in ["blobs", "blobs/sha256"] {
        make_once(&path.join(folder)).map_err(failed)?;
    }
    Ok(())
}

/// Makes a directory, unless somebody has made it already.
fn make_once(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn create(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
    let open = || rustix::fs::open(path, flags, Mode::from_raw_mode(0o644));
    match open() {
        // Blobs of another algorithm than most; several workers may come to the first of them.
        Err(rustix::io::Errno::NOENT) => {
            if let Some(parent) = path.parent() {
                make_once(parent)?;
            }
            Ok(open()?.into())
        }
        other => Ok(other?.into()),
    }
}

/// The files below `blobs`.
fn blob_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in std::fs::read_dir(path.join("blobs"))? {
        for file in std::fs::read_dir(folder?.path())? {
            files.push(file?.path());
        }
    }
    Ok(files)
}

fn document(entry: &Entry) -> Option<(String, Arc<Vec<u8>>)> {
    match entry.source() {
        Source::Memory(bytes) => Some((entry.path().to_owned(), bytes.clone())),
        Source::Blob(_) => None,
    }
}

/// What a journal, be it of this plan or of another one, claims of this plan's blobs.
fn claims(journal: Option<&Journal>, plan: &Plan) -> Vec<Vec<Option<u32>>> {
    let Some(journal) = journal else {
        return journal::no_claims(plan);
    };
    let claimed = |blob: &super::layout::Blob| {
        let own = |row: &&journal::Row| {
            row.digest == blob.descriptor.digest && row.size == blob.descriptor.size
        };
        match journal.rows.iter().find(own) {
            Some(row) => row.claims.clone(),
            None => vec![None; Chunks::of(blob.descriptor.size).count()],
        }
    };
    plan.blobs().iter().map(claimed).collect()
}

/// The bytes for which there has to be room.
fn missing(plan: &Plan, claims: &[Vec<Option<u32>>]) -> u64 {
    let mut sum = 0;
    for (blob, claims) in plan.blobs().iter().zip(claims) {
        let chunks = Chunks::of(blob.descriptor.size);
        let open = claims
            .iter()
            .enumerate()
            .filter(|(_, claim)| claim.is_none());
        sum += open
            .map(|(chunk, _)| chunks.range(chunk))
            .map(|range| range.end - range.start)
            .sum::<u64>();
    }
    sum
}
