//! The file that an archive grows in: `NAME.partial`, laid out in full from the start, with a
//! journal behind it, locked while somebody works on it. It gets its name when all is true.
//!
//! What is worth keeping of an earlier file of another plan is lent to the new one by digest.
//! Which bytes are right is decided by whoever writes them.

use super::journal::{self, Journal, Row};
use super::layout::Plan;
use crate::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// A partial archive, locked.
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    target: PathBuf,
    size: u64,
    journal: u64,
    records: Vec<u64>,
    /// Something in it is worth keeping.
    worth: AtomicBool,
}

/// An earlier file whose blobs may serve: another plan's partial file.
pub(crate) struct Lender {
    file: File,
    path: PathBuf,
    pub rows: Vec<Row>,
}

/// What a partial file holds when it is opened.
pub(crate) struct Opened {
    pub partial: Partial,
    /// For each blob, the CRC-32 of each chunk that its journal claims.
    pub claims: Vec<Vec<Option<u32>>>,
    pub lender: Option<Lender>,
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Where an archive of this name grows.
pub(crate) fn partial_path(target: &Path) -> PathBuf {
    with_suffix(target, ".partial")
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Can a file of this name be made? Asked before the first request, so that nobody waits for a
/// download that has nowhere to go.
pub(crate) fn check_target(target: &Path) -> Result<()> {
    let folder = folder(target);
    if target.is_dir() {
        return Err(Error::output(target, "writing", rustix::io::Errno::ISDIR));
    }
    if folder.exists() && !folder.is_dir() {
        return Err(Error::output(target, "writing", rustix::io::Errno::NOTDIR));
    }
    rustix::fs::access(
        folder,
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
    )
    .map_err(|error| Error::output(folder, "writing to", error))
}

impl Partial {
    /// Opens or makes the partial file of `target`, locks it, and reads its journal. With
    /// `restart`, what is there is forgotten.
    pub fn open(target: &Path, plan: &Plan, restart: bool) -> Result<Opened> {
        let path = partial_path(target);
        let old = with_suffix(&path, ".old");
        let file = open_locked(&path)?;
        if restart {
            file.set_len(0)
                .map_err(|error| Error::output(&path, "emptying", error))?;
            let _ = std::fs::remove_file(&old);
        }
        let found = read_journal(&file);
        let file = match &found {
            // Another image under this name: it lends what both have in common.
            Some(journal) if journal.plan != *plan.digest() => {
                std::fs::rename(&path, &old)
                    .map_err(|error| Error::output(&path, "setting aside", error))?;
                open_locked(&path)?
            }
            _ => file,
        };
        let lender = Lender::open(&old);
        let mut partial = Self {
            file,
            path,
            target: target.to_owned(),
            size: plan.size(),
            journal: plan.size(),
            records: journal::record_offsets(plan.blobs()),
            worth: AtomicBool::new(false),
        };
        let claims = match found {
            Some(journal) if journal.plan == *plan.digest() => {
                partial.worth = AtomicBool::new(true);
                // Small, and without records of their own: written again rather than trusted.
                partial.write_pieces(plan)?;
                journal.rows.into_iter().map(|row| row.claims).collect()
            }
            _ => {
                if let Err(error) = partial.lay_out(plan) {
                    partial.give_up();
                    return Err(error);
                }
                plan.blobs()
                    .iter()
                    .map(|blob| vec![None; journal::Chunks::of(blob.descriptor.size).count()])
                    .collect()
            }
        };
        Ok(Opened {
            partial,
            claims,
            lender,
        })
    }

    /// Makes the file as long as it will be, and writes what is known already.
    fn lay_out(&self, plan: &Plan) -> Result<()> {
        let whole = plan.size() + journal::size(plan);
        self.check_room(whole)?;
        let failed = |error: io::Error| Error::output(&self.path, "laying out", error);
        self.file.set_len(0).map_err(failed)?;
        self.file.set_len(whole).map_err(failed)?;
        self.write_pieces(plan)?;
        let (head, trailer) = journal::begin(plan);
        self.file
            .write_all_at(&head, self.journal)
            .map_err(failed)?;
        // The trailer comes last: a file that has one is laid out.
        self.file
            .write_all_at(&trailer, whole - journal::TRAILER_SIZE)
            .map_err(failed)
    }

    fn write_pieces(&self, plan: &Plan) -> Result<()> {
        plan.pieces()
            .try_for_each(|(offset, piece)| self.write_at(&piece, offset))
    }

    /// Refuses at once what cannot end well.
    fn check_room(&self, whole: u64) -> Result<()> {
        let Ok(room) = rustix::fs::fstatvfs(&self.file) else {
            return Ok(());
        };
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if room.f_blocks == 0 || free >= whole {
            return Ok(());
        }
        let why = format!("the archive takes {whole} bytes, {free} are free");
        Err(Error::output(
            &self.target,
            "making room for",
            io::Error::new(io::ErrorKind::StorageFull, why),
        ))
    }

    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| Error::output(&self.path, "writing", error))
    }

    pub fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        self.file
            .read_exact_at(bytes, offset)
            .map_err(|error| Error::output(&self.path, "reading back", error))
    }

    /// Gives a blob its room on the disk, so that it lies in one piece and the disk cannot fill up
    /// under it. Not all file systems can; then it is written all the same.
    pub fn reserve(&self, offset: u64, size: u64) -> Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, size) {
            Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => {
                Err(Error::output(&self.path, "making room in", error))
            }
            _ => Ok(()),
        }
    }

    /// Notes that a chunk is written.
    pub fn mark(&self, blob: usize, chunk: usize, crc: u32) -> Result<()> {
        self.worth.store(true, Ordering::Relaxed);
        self.write_at(&journal::record(crc), self.record(blob, chunk))
    }

    /// Takes a note back.
    pub fn unmark(&self, blob: usize, chunk: usize) -> Result<()> {
        self.write_at(&[0; journal::RECORD], self.record(blob, chunk))
    }

    fn record(&self, blob: usize, chunk: usize) -> u64 {
        self.journal + self.records[blob] + (chunk * journal::RECORD) as u64
    }

    /// Everything is true: takes the journal off, brings all to the disk, and gives the name.
    pub fn finish(&self) -> Result<()> {
        let failed =
            |doing: &'static str| move |error: io::Error| Error::output(&self.path, doing, error);
        self.file.set_len(self.size).map_err(failed("finishing"))?;
        self.file
            .sync_all()
            .map_err(failed("bringing to the disk"))?;
        std::fs::rename(&self.path, &self.target)
            .map_err(|error| Error::output(&self.target, "naming", error))?;
        // The name itself is on the disk once its directory is. Some file systems cannot say so.
        if let Ok(folder) = File::open(folder(&self.target)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }

    /// After a failure: the file stays if anything in it is worth going on from.
    pub fn give_up(&self) -> bool {
        let worth = self.worth.load(Ordering::Relaxed);
        if !worth {
            let _ = std::fs::remove_file(&self.path);
        }
        worth
    }

    /// How many bytes of the disk it takes, where that is known.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Lender {
    fn open(path: &Path) -> Option<Self> {
        let file = File::from(
            rustix::fs::open(
                path,
                OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .ok()?,
        );
        let rows = read_journal(&file)?.rows;
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

/// Opens or makes a file and locks it; fails where another process has it locked.
fn open_locked(path: &Path) -> Result<File> {
    let failed = |error: rustix::io::Errno| match error {
        rustix::io::Errno::LOOP => Error::output(
            path,
            "opening",
            io::Error::other("it is a symbolic link, which is not followed"),
        ),
        error => Error::output(path, "making", error),
    };
    for _ in 0..16 {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map_err(failed)?);
        let about = file
            .metadata()
            .map_err(|error| Error::output(path, "looking at", error))?;
        if !about.is_file() {
            return Err(Error::output(
                path,
                "opening",
                io::Error::other("it is no regular file"),
            ));
        }
        // File systems without locks cannot tell; they are no reason to refuse.
        let lock = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        if lock == Err(rustix::io::Errno::WOULDBLOCK) {
            let why = "another dockersave is writing it; let it finish, or choose another --output";
            return Err(Error::output(path, "locking", io::Error::other(why)));
        }
        // Between opening and locking the other process may have finished and renamed it.
        if let Ok(named) = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
            && about.ino() == into_u64(named.st_ino)
        {
            return Ok(file);
        }
    }
    Err(Error::output(
        path,
        "locking",
        io::Error::other("it is being replaced all the time"),
    ))
}

/// The kernel's inode numbers are of different widths on different targets.
fn into_u64(number: impl Into<u64>) -> u64 {
    number.into()
}

/// The journal of a file, if it has a whole one.
fn read_journal(file: &File) -> Option<Journal> {
    let size = file.metadata().ok()?.len();
    let mut trailer = [0; journal::TRAILER_SIZE as usize];
    file.read_exact_at(&mut trailer, size.checked_sub(journal::TRAILER_SIZE)?)
        .ok()?;
    let place = journal::place(&trailer, size)?;
    let mut bytes = vec![0; usize::try_from(place.end - place.start).ok()?];
    file.read_exact_at(&mut bytes, place.start).ok()?;
    journal::read(&bytes, &trailer)
}
