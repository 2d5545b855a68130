//! What every output does with files: locking, room, names that last. Knows nothing of archives.

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

/// No system has larger ones.
const PAGE: u64 = 64 << 10;

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Refuses at once what cannot end well: `whole` bytes that are to become `target`.
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

/// Gives bytes their room on the disk, so that they lie in one piece and the disk cannot fill up
/// under them. Not all file systems can; then they are written all the same.
pub(super) fn reserve(file: &File, path: &Path, offset: u64, size: u64) -> Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, size) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => {
            Err(Error::output(path, "allocating space in", error))
        }
        _ => Ok(()),
    }
}

/// Has the system begin to bring bytes to the disk that nobody will change or read again soon.
/// Whether it does is its own affair: it has to be asked for all of them at the end anyway.
pub(super) fn hasten(file: &File, offset: u64, bytes: Range<u64>) {
    // Whole pages: one that is on its way may have to arrive before it can be written to.
    let page = |place: u64| (offset + place) / PAGE * PAGE;
    let (start, end) = (page(bytes.start), page(bytes.end));
    // What is in memory alone is not given up by this, only what is on the disk already.
    let advice = rustix::fs::Advice::DontNeed;
    if let Some(length) = NonZeroU64::new(end - start) {
        let _ = rustix::fs::fadvise(file, start, Some(length), advice);
    }
}

/// Copies bytes from a place in another archive, within the kernel or without a copy where file
/// systems can. `false` where the place cannot be read; a failure is the writing's.
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
            // An end where there should be none, or a kernel or a file system that cannot.
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

/// A name is on the disk once its directory is. Some file systems cannot say so.
pub(super) fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(owned::directory_of(path)) {
        let _ = folder.sync_all();
    }
}

/// Brings a file to the disk; `false` where its file system cannot be asked to (some network and
/// shared file systems, FUSE). Any other failure may mean lost data.
pub(crate) fn sync(file: &File) -> io::Result<bool> {
    use rustix::io::Errno;
    match rustix::io::retry_on_intr(|| rustix::fs::fsync(file)) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What is said where [`sync`] could not ask.
pub(crate) const UNSYNCED: &str = "this file system does not support fsync: everything was written and checked, but the system decides when it reaches the disk";

/// Opens or makes a file and locks it; fails where it is not this user's alone, or another process
/// has it locked. `path` is its name in messages.
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
        // File systems without locks cannot tell; they are no reason to refuse.
        let lock = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        if lock == Err(rustix::io::Errno::WOULDBLOCK) {
            let why = "another dockersave is writing it; wait for it, or choose another --output";
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

/// How many links are followed from an output's name (path_resolution(7) allows as many).
const LINKS: usize = 40;

/// The file that is to be replaced: where the path is a link, what it points to, so that the link
/// stays. A link of another user's is not followed.
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

/// The kernel's inode numbers are of different widths on different targets.
fn into_u64(number: impl Into<u64>) -> u64 {
    number.into()
}

/// A file that is written from its beginning to its end and gets its name then; given up before
/// that, it is gone. Whoever makes it holds the lock of the partial file beside it.
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    finished: bool,
}

impl NewFile {
    /// Begins a file that is to become `target`.
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

    /// Makes it as long as a plan's archive, and writes all but the blobs.
    pub fn lay_out(&self, plan: &Plan) -> Result<()> {
        let laid_out = self.file.set_len(plan.size());
        laid_out.map_err(|error| Error::output(&self.path, "laying out", error))?;
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

    /// Has the file that it is to replace the same bytes already?
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

    /// Brings it to the disk and gives it its name; says whether the file system could be asked
    /// for the former.
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
