//! Outputs that are not regular files: descriptors (`/dev/stdout`, `/dev/fd/N`, `>(command)`),
//! FIFOs, sockets, devices. The archive is written to them in order; they are not replaced.

use super::error::{Error, Result, plain};
use dockersave::Client;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many links are followed, as path_resolution(7) allows.
const LINKS: usize = 40;

/// The type of an output that is not a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outlet {
    /// A descriptor of this process.
    Descriptor(i32),
    /// A FIFO, a socket or a device.
    Special(PathBuf),
}

impl Outlet {
    /// Finds out what a path is. Descriptors are recognised by name, because opening the link in
    /// `/proc` is not the same as writing to the descriptor, and `/proc` may be missing.
    pub fn of(path: &Path) -> Option<Self> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            if let Some(number) = descriptor(&path) {
                return Some(Self::Descriptor(number));
            }
            let kind = path.metadata().ok().map(|about| about.file_type());
            if kind.is_some_and(|kind| !kind.is_file() && !kind.is_dir()) {
                return Some(Self::Special(path));
            }
            let next = std::fs::read_link(&path).ok()?;
            path = path.parent().unwrap_or(Path::new("")).join(next);
        }
        None
    }
}

/// The descriptor of this process that a path names.
fn descriptor(path: &Path) -> Option<i32> {
    let text = path.to_str()?;
    match text {
        "/dev/stdin" => return Some(0),
        "/dev/stdout" => return Some(1),
        "/dev/stderr" => return Some(2),
        _ => {}
    }
    let own = format!("/proc/{}/fd/", std::process::id());
    let heads = ["/dev/fd/", "/proc/self/fd/", "/proc/thread-self/fd/", &own];
    let number = heads.iter().find_map(|head| text.strip_prefix(head))?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| digits)
}

/// The same name with a suffix.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// An output that is written in order.
pub(super) struct Stream {
    file: File,
    path: PathBuf,
}

impl Stream {
    /// Opens an output; waits for a FIFO's reader, at most as long as for a registry. After a
    /// second, `waits` is called.
    pub fn open(
        outlet: &Outlet,
        path: &Path,
        client: &Client,
        wait: Duration,
        waits: &dyn Fn(),
    ) -> Result<Self> {
        let failed = |error: io::Error| Error::output(path, "opening", error);
        let file = match outlet {
            Outlet::Descriptor(number) => own(*number).map_err(failed)?,
            Outlet::Special(special) => {
                let begin = Instant::now();
                let end = begin + wait;
                let mut told = false;
                loop {
                    match special_file(special) {
                        Err(error) if is_unread(&error, special) && Instant::now() < end => {
                            if client.is_cancelled() {
                                return Err(dockersave::Error::Cancelled.into());
                            }
                            if !told && begin.elapsed() > Duration::from_secs(1) {
                                told = true;
                                waits();
                            }
                            std::thread::sleep(Duration::from_millis(20));
                        }
                        Err(error) if is_unread(&error, special) => {
                            return Err(failed(io::Error::other("nothing is reading from it")));
                        }
                        other => break other.map_err(failed)?,
                    }
                }
            }
        };
        if file.is_terminal() {
            return Err(Error::usage(path.display().to_string(), TERMINAL));
        }
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// Whether standard output is the same file, so that nothing else may be written there.
    pub fn is_standard_output(&self) -> bool {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        match (stdout.and_then(|out| out.metadata()), self.file.metadata()) {
            // It does not matter for a device.
            (Ok(out), Ok(own)) => {
                (out.dev(), out.ino()) == (own.dev(), own.ino())
                    && !own.file_type().is_char_device()
            }
            _ => false,
        }
    }

    /// Syncs, if it is on a disk.
    pub fn finish(&self) -> Result<()> {
        let synced = match rustix::io::retry_on_intr(|| rustix::fs::fsync(&self.file)) {
            // Some file systems cannot be asked, and a pipe has no disk.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => other,
        };
        synced.map_err(|error| Error::output(&self.path, "syncing", error))
    }

    /// A write error with this output's name; a stream keeps nothing.
    pub fn name(&self, error: Error) -> Error {
        match error {
            Error::Library(dockersave::Error::Output { doing, source, .. }) => {
                let source = match source.kind() {
                    ErrorKind::BrokenPipe => source,
                    _ => io::Error::other(plain(&source)),
                };
                Error::output(&self.path, &doing, source)
            }
            other => other,
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why an archive is not written to a terminal.
pub(super) const TERMINAL: &str = "would write an archive to a terminal; redirect it to a file or a program: dockersave debian -o - | docker load";

/// A FIFO without a reader cannot be opened for writing (open(2), ENXIO).
fn is_unread(error: &io::Error, path: &Path) -> bool {
    error.raw_os_error() == Some(Errno::NXIO.raw_os_error())
        && path
            .metadata()
            .is_ok_and(|about| about.file_type().is_fifo())
}

/// Opens a FIFO, a socket or a device for writing, without creating or truncating anything.
fn special_file(path: &Path) -> io::Result<File> {
    if path.metadata()?.file_type().is_socket() {
        let socket = std::os::unix::net::UnixStream::connect(path)?;
        return Ok(OwnedFd::from(socket).into());
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    // From here on writes block.
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
    Ok(file)
}

/// Duplicates an inherited descriptor.
fn own(number: i32) -> io::Result<File> {
    let closed = || io::Error::other("that descriptor is not open for writing");
    let file = match number {
        0 => io::stdin().as_fd().try_clone_to_owned()?.into(),
        1 => io::stdout().as_fd().try_clone_to_owned()?.into(),
        2 => io::stderr().as_fd().try_clone_to_owned()?.into(),
        _ => {
            let (flags, position) = about(number).ok_or_else(closed)?;
            // Descriptors opened by this process are close-on-exec; inherited ones are not.
            if flags.contains(OFlags::CLOEXEC) {
                return Err(closed());
            }
            match duplicate(number) {
                Ok(file) => file.into(),
                Err(_) => reopen(number, flags, position)?,
            }
        }
    };
    match rustix::fs::fcntl_getfl(&file)? & OFlags::RWMODE {
        OFlags::RDONLY => Err(closed()),
        _ => Ok(file),
    }
}

/// The flags and the position of a descriptor (proc_pid_fdinfo(5)).
fn about(number: i32) -> Option<(OFlags, u64)> {
    let mut text = String::new();
    let file = File::open(format!("/proc/self/fdinfo/{number}")).ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let flags = u32::from_str_radix(field("flags:")?.trim(), 8).ok()?;
    let position = field("pos:")?.trim().parse().ok()?;
    Some((OFlags::from_bits_retain(flags), position))
}

fn duplicate(number: i32) -> rustix::io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    pidfd_getfd(process, number, PidfdGetfdFlags::empty())
}

/// If the kernel cannot duplicate it (before 5.6, or forbidden in a container): opens the same file
/// again, at the same offset.
fn reopen(number: i32, flags: OFlags, position: u64) -> io::Result<File> {
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let about = rustix::fs::stat(&path)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return special_file(&path);
    }
    let mode = OFlags::WRONLY | OFlags::CLOEXEC | (flags & OFlags::APPEND);
    let mut file = File::from(rustix::fs::open(&path, mode, Mode::empty())?);
    file.seek(SeekFrom::Start(position))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_known_by_their_names() {
        let own = format!("/proc/{}/fd/7", std::process::id());
        for (path, number) in [
            ("/dev/stdout", Some(1)),
            ("/dev/fd/63", Some(63)),
            ("/proc/self/fd/1", Some(1)),
            (&own, Some(7)),
            ("/proc/1/fd/x", None),
            ("/dev/fd/-1", None),
            ("/dev/fd/", None),
            ("/dev/fd/1/2", None),
            ("dev/stdout", None),
            ("/dev/null", None),
        ] {
            assert_eq!(descriptor(Path::new(path)), number, "{path}");
        }
    }

    #[test]
    fn a_descriptor_of_our_own_is_not_open_for_the_user() {
        use std::os::fd::AsRawFd;
        let file = File::open("/dev/null").unwrap();
        assert!(own(file.as_raw_fd()).is_err());
    }
}
