//! What every output does with files: locking, room, names that last. Knows nothing of archives.

use crate::error::{Error, Result};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
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
    let why = format!("the archive takes {whole} bytes, {free} are free");
    Err(Error::output(
        target,
        "making room for",
        io::Error::new(io::ErrorKind::StorageFull, why),
    ))
}

/// Gives bytes their room on the disk, so that they lie in one piece and the disk cannot fill up
/// under them. Not all file systems can; then they are written all the same.
pub(super) fn reserve(file: &File, path: &Path, offset: u64, size: u64) -> Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, size) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => {
            Err(Error::output(path, "making room in", error))
        }
        _ => Ok(()),
    }
}

/// A name is on the disk once its directory is. Some file systems cannot say so.
pub(super) fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(folder(path)) {
        let _ = folder.sync_all();
    }
}

/// Opens or makes a file and locks it; fails where another process has it locked.
pub(super) fn open_locked(path: &Path) -> Result<File> {
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
