//! File operations of all outputs: locking, free space, durable names. Knows nothing about
//! archives.

use super::owned;
use crate::archive::plan::Plan;
use crate::archive::source::Place;
use crate::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, FlockOperation};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// No system has larger pages.
const PAGE: u64 = 64 << 10;

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Fails early if there is no space for `whole` bytes at `target`.
pub(super) fn check_room(file: &File, target: &Path, whole: u64) -> Result<()> {
    let Ok(room) = rustix::fs::fstatvfs(file) else {
        return Ok(());
    };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if room.f_blocks == 0 || free >= whole {
        return Ok(());
    }
    let why = format!("the archive needs {whole} bytes, {free} are free");
    Err(Error::output(
        target,
        "reserving space for",
        io::Error::new(io::ErrorKind::StorageFull, why),
    ))
}

/// Allocates space, so that the bytes are contiguous and the disk cannot fill up meanwhile. Some
/// file systems cannot; the bytes are then written without it.
pub(super) fn reserve(file: &File, path: &Path, offset: u64, size: u64) -> Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, size) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => {
            Err(Error::output(path, "allocating space in", error))
        }
        _ => Ok(()),
    }
}

/// Starts writeback of bytes that will not change or be read again soon. Only a hint: everything is
/// synced at the end anyway.
pub(super) fn hasten(file: &File, offset: u64, bytes: Range<u64>) {
    // Whole pages: a page under writeback may block a write to it.
    let page = |place: u64| (offset + place) / PAGE * PAGE;
    let (start, end) = (page(bytes.start), page(bytes.end));
    // This drops only pages that are already on the disk.
    let advice = rustix::fs::Advice::DontNeed;
    if let Some(length) = NonZeroU64::new(end - start) {
        let _ = rustix::fs::fadvise(file, start, Some(length), advice);
    }
}

/// Copies bytes from another archive, in the kernel or by reflink where possible. `false` if the
/// source cannot be read; an error is a write error.
pub(super) fn copy(
    from: &Place,
    at: u64,
    to: &File,
    mut place: u64,
    length: u64,
) -> io::Result<bool> {
    let Ok(source) = from.file() else {
        return Ok(false);
    };
    let (mut offset, mut left) = (from.offset() + at, length);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(&source, Some(&mut offset), to, Some(&mut place), most) {
            // An unexpected end of file, or a kernel or file system without support.
            Ok(0) => break,
            Ok(copied) => left -= copied as u64,
            Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => {
                return Err(error.into());
            }
            Err(_) => break,
        }
    }
    let mut buffer = vec![0; (64 << 10).min(left) as usize];
    while left > 0 {
        let room = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        if from
            .read_at(&mut buffer[..room], at + (length - left))
            .is_err()
        {
            return Ok(false);
        }
        to.write_all_at(&buffer[..room], place)?;
        place += room as u64;
        left -= room as u64;
    }
    Ok(true)
}

/// A name is durable once its directory is synced. Some file systems cannot do that.
pub(super) fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(owned::directory_of(path)) {
        let _ = folder.sync_all();
    }
}

/// Syncs a file; `false` if its file system does not support fsync (some network and shared file
/// systems, FUSE). Any other failure may mean lost data.
pub(crate) fn sync(file: &File) -> io::Result<bool> {
    use rustix::io::Errno;
    match rustix::io::retry_on_intr(|| rustix::fs::fsync(file)) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The warning when [`sync`] returned `false`.
pub(crate) const UNSYNCED: &str = "this file system does not support fsync: everything was written and checked, but the system decides when it reaches the disk";

/// Opens or creates a file and locks it; fails if it is not this user's alone, or if another
/// process has it locked. `path` is its name in messages.
pub(super) fn open_locked(at: BorrowedFd<'_>, name: &Path, path: &Path) -> Result<File> {
    let failed = |doing: &'static str, why: &'static str| {
        Err(Error::output(path, doing, io::Error::other(why)))
    };
    for _ in 0..16 {
        let file =
            owned::open_or_make(at, name).map_err(|error| Error::output(path, "opening", error))?;
        let about = file
            .metadata()
            .map_err(|error| Error::output(path, "looking at", error))?;
        // File systems without locks are no reason to refuse.
        let lock = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        if lock == Err(rustix::io::Errno::WOULDBLOCK) {
            let why = "another dockersave is writing it; wait for it, or choose another path";
            return failed("locking", why);
        }
        // Between opening and locking the other process may have finished and renamed it.
        if let Ok(named) = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
            && about.ino() == into_u64(named.st_ino)
        {
            return Ok(file);
        }
    }
    failed("locking", "it keeps being replaced")
}

/// How many links are followed from an output's name (the limit of path_resolution(7)).
const LINKS: usize = 40;

/// The file to replace: if the path is a link, its target, so that the link stays. Another user's
/// link is not followed.
pub(crate) fn resolve(target: &Path) -> io::Result<PathBuf> {
    let mut path = target.to_owned();
    for _ in 0..LINKS {
        match path.symlink_metadata() {
            Ok(about) if about.is_symlink() => {
                let user = rustix::process::geteuid().as_raw();
                if about.uid() != user && about.uid() != 0 {
                    let why = "it is a symbolic link owned by another user, which is not followed";
                    return Err(io::Error::other(why));
                }
                path = owned::directory_of(&path).join(std::fs::read_link(&path)?);
            }
            _ => return Ok(path),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// Inode numbers have different widths on different targets.
fn into_u64(number: impl Into<u64>) -> u64 {
    number.into()
}

/// A file that is written sequentially and then renamed; dropped before that, it is removed. Its
/// creator holds the lock of the partial file beside it.
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl NewFile {
    /// Creates a file that will become `target`.
    pub fn create(target: &Path) -> Result<Self> {
        let path = with_suffix(target, ".partial.new");
        let create = || {
            if owned::check(CWD, &path, FileType::RegularFile, owned::Trust::Alone)? {
                std::fs::remove_file(&path)?;
            }
            owned::make_new(CWD, &path)
        };
        let file = create().map_err(|error| Error::output(&path, "making", error))?;
        Ok(Self {
            file,
            path,
            target: target.to_owned(),
            finished: false,
        })
    }

    /// Where it is until it is finished.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it as long as a plan's archive, and writes all but the blobs.
    pub fn lay_out(&self, plan: &Plan) -> Result<()> {
        let laid_out = self.file.set_len(plan.size());
        laid_out.map_err(|error| Error::output(&self.path, "creating", error))?;
        for (at, bytes) in plan.pieces() {
            self.write_at(&bytes, at)?;
        }
        Ok(())
    }

    /// Writes at a place.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|error| Error::output(&self.path, "writing", error))
    }

    /// Whether the file to be replaced already has the same bytes.
    pub fn is_target(&self) -> bool {
        let same = || {
            let size = self.file.metadata().ok()?.len();
            let about = self.target.metadata().ok()?;
            (about.is_file() && about.len() == size).then_some(())?;
            let there = File::open(&self.target).ok()?;
            let mut buffers = [[0; 16 << 10]; 2];
            let [own, other] = &mut buffers;
            let mut at = 0;
            while at < size {
                let length = (size - at).min(own.len() as u64) as usize;
                let (own, other) = (&mut own[..length], &mut other[..length]);
                self.file.read_exact_at(own, at).ok()?;
                there.read_exact_at(other, at).ok()?;
                (own == other).then_some(())?;
                at += length as u64;
            }
            Some(())
        };
        same().is_some()
    }

    /// Syncs and renames it; returns whether the file system supports fsync.
    pub fn finish(mut self) -> Result<bool> {
        let synced =
            sync(&self.file).map_err(|error| Error::output(&self.path, "syncing", error))?;
        std::fs::rename(&self.path, &self.target)
            .map_err(|error| Error::output(&self.target, "naming", error))?;
        self.finished = true;
        sync_folder(&self.target);
        Ok(synced)
    }
}

impl io::Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
