//! Ownership checks: what an earlier run left is used only if it is this user's alone.
//!
//! Names are looked up below an open directory, and a link as the last component is never followed.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The bits of a mode that let others write.
const OTHERS: u32 = 0o022;
/// How new files are made; directories may be entered, too.
pub(super) const FILE: Mode = Mode::from_raw_mode(0o644);
pub(super) const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// How strictly ownership is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Its content counts: nobody else may write to it.
    Alone,
    /// It will be replaced: it only has to belong to this user.
    Ours,
}

/// Whether there is a file or directory of this user's. An error says what is wrong with it.
pub(super) fn check(
    at: BorrowedFd<'_>,
    name: &Path,
    kind: FileType,
    trust: Trust,
) -> io::Result<bool> {
    match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
        Ok(about) => judge(at, name, (kind, trust), &about).map(|()| true),
    }
}

fn judge(
    at: BorrowedFd<'_>,
    name: &Path,
    (kind, trust): (FileType, Trust),
    about: &Stat,
) -> io::Result<()> {
    let directory = kind == FileType::Directory;
    let found = FileType::from_raw_mode(about.st_mode);
    let why = if found == FileType::Symlink && directory {
        "it is a symbolic link, not a directory"
    } else if found == FileType::Symlink {
        "it is a symbolic link, which is not followed"
    } else if found != kind && directory {
        "it is not a directory"
    } else if found != kind {
        "it is not a regular file"
    } else if !directory && about.st_nlink > 1 {
        "it has several hard links"
    } else {
        let others = |about: &Stat| match trust {
            Trust::Alone => about.st_mode & OTHERS,
            Trust::Ours => 0,
        };
        if about.st_uid == rustix::process::geteuid().as_raw() && others(about) == 0 {
            return Ok(());
        }
        // Some file systems keep no owners and modes (vfat, NTFS, some network shares): there
        // everything looks like a new file.
        match made_now(at, name, directory) {
            Some(new) if about.st_uid != new.st_uid => "it belongs to another user",
            Some(new) if others(about) & !others(&new) != 0 => "other users can write to it",
            Some(_) => return Ok(()),
            None => "it belongs to another user, or others can write to it",
        }
    };
    let why = format!("{why}; remove it, or choose another output");
    Err(io::Error::other(why))
}

/// The owner and mode of a file or directory created in the same place now.
fn made_now(at: BorrowedFd<'_>, name: &Path, directory: bool) -> Option<Stat> {
    let mut probe = name.as_os_str().to_owned();
    probe.push(".probe");
    let remove = if directory {
        rustix::fs::mkdirat(at, &probe, DIRECTORY).ok()?;
        AtFlags::REMOVEDIR
    } else {
        make_new(at, Path::new(&probe)).ok()?;
        AtFlags::empty()
    };
    let about = rustix::fs::statat(at, &probe, AtFlags::SYMLINK_NOFOLLOW);
    let _ = rustix::fs::unlinkat(at, &probe, remove);
    about.ok()
}

/// Creates a file that must not exist yet.
pub(super) fn make_new(at: BorrowedFd<'_>, name: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, name, flags, FILE)?.into())
}

/// Opens a file of this user's alone, if there is one.
pub(super) fn open(at: BorrowedFd<'_>, name: &Path, access: OFlags) -> io::Result<Option<File>> {
    let wanted = (FileType::RegularFile, Trust::Alone);
    // Checked before it is opened: opening a device may have side effects.
    if !check(at, name, wanted.0, wanted.1)? {
        return Ok(None);
    }
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(at, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        other => File::from(other?),
    };
    judge(at, name, wanted, &rustix::fs::fstat(&file)?)?;
    Ok(Some(file))
}

/// Opens or creates a file of this user's alone for reading and writing.
pub(super) fn open_or_make(at: BorrowedFd<'_>, name: &Path) -> io::Result<File> {
    loop {
        if let Some(file) = open(at, name, OFlags::RDWR)? {
            return Ok(file);
        }
        match make_new(at, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
}

/// A directory to work in. It is opened once, and everything below it is opened through its
/// descriptor, one component at a time.
pub(super) struct Handle {
    descriptor: OwnedFd,
    /// For messages.
    path: PathBuf,
}

impl Handle {
    /// The parent directory of a name. Links on the way to it are the user's choice.
    pub fn above(target: &Path) -> io::Result<Self> {
        let path = directory_of(target);
        // It need not be readable.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            descriptor: rustix::fs::open(path, flags, Mode::empty())?,
            path: path.to_owned(),
        })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a directory in it, if there is one.
    pub fn find(&self, name: impl AsRef<Path>, trust: Trust) -> io::Result<Option<Self>> {
        let name = name.as_ref();
        let wanted = (FileType::Directory, trust);
        if !check(self.fd(), name, wanted.0, trust)? {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = rustix::fs::openat(self.fd(), name, flags, Mode::empty())?;
        judge(self.fd(), name, wanted, &rustix::fs::fstat(&descriptor)?)?;
        let path = self.join(name);
        Ok(Some(Self { descriptor, path }))
    }

    /// Opens or creates a directory of this user's alone in it.
    pub fn make(&self, name: impl AsRef<Path>) -> io::Result<Self> {
        let name = name.as_ref();
        match rustix::fs::mkdirat(self.fd(), name, DIRECTORY) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let found = self.find(name, Trust::Alone)?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Calls `each` with the name of everything in it.
    pub fn list(&self, mut each: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        for entry in rustix::fs::Dir::read_from(self.fd())? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                each(std::ffi::OsStr::from_bytes(name).as_ref())?;
            }
        }
        Ok(())
    }

    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat(self.fd(), from, self.fd(), to)?)
    }

    /// Removes a file, or a link itself; `true` if there was one.
    pub fn remove(&self, name: impl AsRef<Path>) -> io::Result<bool> {
        match rustix::fs::unlinkat(self.fd(), name.as_ref(), AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, name: impl AsRef<Path>) -> io::Result<()> {
        let flags = AtFlags::REMOVEDIR;
        Ok(rustix::fs::unlinkat(self.fd(), name.as_ref(), flags)?)
    }

    /// Names are durable once their directory is synced. Some file systems cannot do that.
    pub fn sync(&self) {
        let _ = rustix::fs::fsync(self.fd());
    }
}

/// The parent directory of a path.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
