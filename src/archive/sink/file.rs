//! The file output: an archive grows in `NAME.partial`, at full length from the start, followed by
//! a journal, and locked. It gets its name when everything is verified.
//!
//! Blobs in an earlier partial file of another plan are lent to the new one by digest. The writer
//! decides which bytes are right.

use super::fs::{
    check_room, copy, hasten, open_locked, reserve, resolve, sync, sync_folder, with_suffix,
};
use super::journal::{self, Chunks, Claim, Journal, Marks, Row};
use super::owned::{self, Trust};
use super::{Opened, Store};
use crate::archive::plan::Plan;
use crate::archive::source::Place;
use crate::error::{Error, Result};
use crate::sync::lock;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// A partial archive, locked.
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    size: u64,
    /// The offset of each blob.
    offsets: Vec<u64>,
    marks: Marks,
    /// The kernel writes to a file from one thread at a time and lets the others spin, which costs
    /// a sixth of the time on two processors.
    writing: Mutex<()>,
}

/// Another plan's partial file, whose blobs may be reused.
pub(crate) struct Lender {
    file: File,
    path: PathBuf,
    pub rows: Vec<Row>,
}

/// The path where [`crate::Pull::to_file`] keeps an archive until it is finished: `PATH.partial`,
/// beside a link's target. A directory also grows under such a name, and with
/// [`crate::Pull::inflate`] under that of `PATH.tar`.
pub fn partial_path(target: impl AsRef<Path>) -> PathBuf {
    let target = target.as_ref();
    let place = resolve(target);
    with_suffix(place.as_deref().unwrap_or(target), ".partial")
}

/// Checks that [`crate::Pull::to_file`] can create a file of this name. The pull checks it, too;
/// checking before the first request avoids a download that has nowhere to go.
///
/// # Errors
///
/// [`Error::Output`] with the reason if it cannot.
pub fn check_file(target: impl AsRef<Path>) -> Result<()> {
    check_target(target.as_ref())
}

pub(crate) fn check_target(target: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::output(target, "writing", error);
    let place = resolve(target).map_err(failed)?;
    let about = place.metadata().ok();
    // A name with a trailing slash is a directory's.
    let slash = place.as_os_str().as_encoded_bytes().ends_with(b"/");
    if slash || about.as_ref().is_some_and(std::fs::Metadata::is_dir) {
        return Err(failed(rustix::io::Errno::ISDIR.into()));
    }
    if about.is_some_and(|about| !about.is_file()) {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    check_folder(&place)?;
    for suffix in [".partial", ".partial.old", ".partial.new"] {
        let path = with_suffix(&place, suffix);
        owned::check(CWD, &path, FileType::RegularFile, Trust::Alone)
            .map_err(|error| Error::output(&path, "opening", error))?;
    }
    Ok(())
}

/// Checks that files can be created beside this name.
pub(super) fn check_folder(target: &Path) -> Result<()> {
    let folder = owned::directory_of(target);
    if folder.exists() && !folder.is_dir() {
        return Err(Error::output(target, "writing", rustix::io::Errno::NOTDIR));
    }
    rustix::fs::access(
        folder,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )
    .map_err(|error| Error::output(folder, "writing to", error))
}

/// How many bytes of each blob of a plan an earlier run's files claim to hold. Read-only: nothing
/// is locked, changed or verified.
pub(crate) fn claimed(target: &Path, plan: &Plan) -> Vec<u64> {
    let path = partial_path(target);
    let mut own = None;
    let look = |path: &Path| look(path, plan);
    let mut lent = look(&with_suffix(&path, ".old"));
    let journal = look(&path).or_else(|| look(&path.join(super::journal::JOURNAL)));
    match journal {
        Some(journal) if journal.is_of(plan) => own = Some(journal),
        // What a pull would set aside.
        Some(journal) => lent = Some(journal),
        None => {}
    }
    let own = own.map_or_else(Vec::new, |journal| journal.rows);
    let lent = lent.map_or_else(Vec::new, |journal| journal.rows);
    let blobs = plan.blobs().iter().enumerate();
    blobs
        .map(|(number, blob)| {
            let of = &blob.descriptor;
            let other = lent
                .iter()
                .find(|row| row.digest == of.digest && row.size == of.size);
            let chunks = Chunks::of(of.size);
            let holds = |row: Option<&Row>, chunk: usize| {
                let record = row.and_then(|row| row.claims.get(chunk));
                record.map_or(0, |record| journal::claimed(*record, chunks.length(chunk)))
            };
            (0..chunks.count())
                .map(|chunk| holds(own.get(number), chunk).max(holds(other, chunk)))
                .sum()
        })
        .collect()
}

/// The journal of this file, if it has one.
fn look(path: &Path, plan: &Plan) -> Option<Journal> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    file.metadata().ok()?.is_file().then_some(())?;
    read_journal(&file, plan)
}

impl Partial {
    /// Opens or creates the partial file of `target`, locks it, and reads its journal. With
    /// `restart`, what is there is discarded.
    pub fn open(target: &Path, plan: &Plan, restart: bool) -> Result<Opened> {
        let path = partial_path(target);
        let old = with_suffix(&path, ".old");
        let file = open_locked(CWD, &path, &path)?;
        let there = owned::check(CWD, &old, FileType::RegularFile, Trust::Alone)
            .map_err(|error| Error::output(&old, "opening", error))?;
        if restart {
            file.set_len(0)
                .map_err(|error| Error::output(&path, "emptying", error))?;
            if there {
                let _ = std::fs::remove_file(&old);
            }
        }
        let found = read_journal(&file, plan);
        let file = match &found {
            // Another image under this name, or an older journal: it lends the blobs that both
            // have.
            Some(journal) if !journal.is_of(plan) => {
                std::fs::rename(&path, &old)
                    .map_err(|error| Error::output(&path, "setting aside", error))?;
                open_locked(CWD, &path, &path)?
            }
            _ => file,
        };
        let lender = Lender::open(&old, plan);
        let partial = Self {
            file,
            path,
            target: target.to_owned(),
            size: plan.size(),
            offsets: plan.blobs().iter().map(|blob| blob.offset).collect(),
            marks: Marks::new(plan, plan.size()),
            writing: Mutex::default(),
        };
        let claims = match found {
            Some(journal) if journal.is_of(plan) => {
                partial.marks.keep();
                // Small, and without records of their own: rewritten rather than trusted.
                partial.write_pieces(plan)?;
                journal.rows.into_iter().map(|row| row.claims).collect()
            }
            _ => {
                if let Err(error) = partial.lay_out(plan) {
                    partial.give_up();
                    return Err(error);
                }
                vec![Vec::new(); plan.blobs().len()]
            }
        };
        Ok(Opened {
            store: Box::new(partial),
            claims,
            lender,
        })
    }

    /// Sets the file's final length and writes what is already known.
    fn lay_out(&self, plan: &Plan) -> Result<()> {
        let whole = plan.size() + journal::size(plan);
        check_room(&self.file, &self.target, whole)?;
        let failed = |error: io::Error| Error::output(&self.path, "creating", error);
        self.file.set_len(0).map_err(failed)?;
        self.file.set_len(whole).map_err(failed)?;
        self.write_pieces(plan)?;
        journal::write(&self.file, plan, plan.size()).map_err(failed)
    }

    fn write_pieces(&self, plan: &Plan) -> Result<()> {
        plan.pieces()
            .try_for_each(|(offset, piece)| self.write(&piece, offset))
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let _turn = lock(&self.writing);
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| Error::output(&self.path, "writing", error))
    }
}

impl Store for Partial {
    fn write_at(&self, blob: usize, bytes: &[u8], at: u64) -> Result<()> {
        self.write(bytes, self.offsets[blob] + at)
    }

    fn read_at(&self, blob: usize, bytes: &mut [u8], at: u64) -> Result<()> {
        self.file
            .read_exact_at(bytes, self.offsets[blob] + at)
            .map_err(|error| Error::output(&self.path, "reading back", error))
    }

    fn copy_from(&self, blob: usize, at: u64, from: &Place, length: u64) -> Result<bool> {
        let place = self.offsets[blob] + at;
        copy(from, at, &self.file, place, length)
            .map_err(|error| Error::output(&self.path, "writing", error))
    }

    fn reserve(&self, blob: usize, size: u64) -> Result<()> {
        reserve(&self.file, &self.path, self.offsets[blob], size)
    }

    fn hasten(&self, blob: usize, bytes: Range<u64>) {
        hasten(&self.file, self.offsets[blob], bytes);
    }

    fn mark(&self, blob: usize, chunk: usize, slot: usize, claim: Claim) -> Result<()> {
        self.marks.keep();
        self.write(&claim.to_bytes(), self.marks.at(blob, chunk, slot))
    }

    fn unmark(&self, blob: usize, chunk: usize) -> Result<()> {
        self.write(&[0; journal::RECORD], self.marks.at(blob, chunk, 0))
    }

    fn sync_all(&self) -> Result<()> {
        sync(&self.file).map_err(|error| Error::output(&self.path, "syncing", error))?;
        if !self.marks.named.swap(true, Ordering::Relaxed) {
            sync_folder(&self.path);
        }
        Ok(())
    }

    fn settle(&self, _blob: usize) -> Result<()> {
        Ok(())
    }

    /// Truncates the journal, syncs, and renames.
    fn finish(&self) -> Result<bool> {
        let failed =
            |doing: &'static str| move |error: io::Error| Error::output(&self.path, doing, error);
        self.file.set_len(self.size).map_err(failed("finishing"))?;
        let synced = sync(&self.file).map_err(failed("syncing"))?;
        std::fs::rename(&self.path, &self.target)
            .map_err(|error| Error::output(&self.target, "naming", error))?;
        sync_folder(&self.target);
        Ok(synced)
    }

    fn discard(&self) {
        let _ = std::fs::remove_file(&self.path);
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

impl Lender {
    fn open(path: &Path, plan: &Plan) -> Option<Self> {
        let file = owned::open(CWD, path, OFlags::RDONLY).ok()??;
        let rows = read_journal(&file, plan)?.rows;
        Some(Self {
            file,
            path: path.to_owned(),
            rows,
        })
    }

    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, offset)
    }

    /// Its work is done.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The journal of a file, if it has a complete one: its claims about a plan's blobs.
pub(super) fn read_journal(file: &File, plan: &Plan) -> Option<Journal> {
    let size = file.metadata().ok()?.len();
    let mut trailer = [0; journal::TRAILER_SIZE as usize];
    file.read_exact_at(&mut trailer, size.checked_sub(journal::TRAILER_SIZE)?)
        .ok()?;
    let place = journal::place(&trailer, size)?;
    let blobs = plan.blobs();
    journal::read(
        &|bytes, at| file.read_exact_at(bytes, place.start + at),
        place.end - place.start,
        &trailer,
        &|digest, size| {
            let mut descriptors = blobs.iter().map(|blob| &blob.descriptor);
            descriptors.any(|of| of.digest == *digest && of.size == size)
        },
        blobs.len(),
    )
}
