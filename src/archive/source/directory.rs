//! A directory with an image in it: an OCI layout or an unpacked docker-archive.
//!
//! Nothing leads out of it: each component of a name is opened separately, and links are not
//! followed. Only blobs are listed, below blobs/ and, for skopeo's `dir:`, at the top; other files
//! are looked up by the name that a document gives.

use super::table::Table;
use crate::archive::tar::header::Kind;
use crate::error::{Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(crate) struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// An open directory.
    pub fn new(descriptor: OwnedFd, path: &Path) -> Self {
        let path = path.to_owned();
        Self { descriptor, path }
    }

    /// Opens a file in it by a clean name.
    pub fn open(&self, name: &str) -> io::Result<File> {
        let (folder, last) = self.parent(name)?;
        let below = folder.as_ref().unwrap_or(&self.descriptor);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(below, last, flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is not a regular file")),
        }
    }

    /// The parent directory of a name (`None`: this one), and the name's last component.
    fn parent<'n>(&self, name: &'n str) -> io::Result<(Option<OwnedFd>, &'n str)> {
        let (folder, last) = name.rsplit_once('/').unwrap_or(("", name));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut found: Option<OwnedFd> = None;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            let from = found.as_ref().unwrap_or(&self.descriptor);
            found = Some(rustix::fs::openat(from, part, flags, Mode::empty())?);
        }
        Ok((found, last))
    }

    /// The table of its files, as far as it is known without reading documents.
    pub fn list(&self) -> Result<Table> {
        let mut table = Table::default();
        for name in ["oci-layout", "index.json", "manifest.json"] {
            self.add(name, &mut table)?;
        }
        for algorithm in ["sha256", "sha512"] {
            self.list_blobs(&format!("blobs/{algorithm}/"), &mut table)?;
        }
        self.list_blobs("", &mut table)?;
        table.seal();
        Ok(table)
    }

    /// The files of the directory named by `prefix`; at the top only those named by a digest.
    fn list_blobs(&self, prefix: &str, table: &mut Table) -> Result<()> {
        let failed = |error: io::Error| Error::input(&self.path.join(prefix), "listing", error);
        let inside = format!("{prefix}x");
        let folder = match self.parent(&inside) {
            Ok((Some(folder), _)) => folder,
            Ok((None, _)) => self.descriptor.try_clone().map_err(failed)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) => return Ok(()),
        };
        let is_hex = |c: &u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        for entry in Dir::read_from(&folder).map_err(|error| failed(error.into()))? {
            let entry = entry.map_err(|error| failed(error.into()))?;
            let last = entry.file_name().to_bytes();
            let named = last.len() == 64 && last.iter().all(is_hex);
            let wanted = !prefix.is_empty() || (named && entry.file_type() != FileType::Directory);
            if wanted && last != b"." && last != b".." {
                let name = [prefix.as_bytes(), last].concat();
                self.push(folder.as_fd(), last, &name, table)?;
            }
        }
        Ok(())
    }

    /// Adds the files that a document names to the table, and the targets of links.
    pub fn add_named(&self, names: &BTreeSet<String>, table: &mut Table) -> Result<()> {
        let old = table.rows().len();
        for name in names {
            if table.find(name).is_none() {
                self.add(name, table)?;
            }
        }
        table.seal();
        let new = old..table.rows().len();
        let mut targets = BTreeSet::new();
        targets.extend(new.filter_map(|number| table.target(number)));
        for name in &targets {
            if table.find(name).is_none() {
                self.add(name, table)?;
            }
        }
        table.seal();
        Ok(())
    }

    /// Missing files are not added.
    fn add(&self, name: &str, table: &mut Table) -> Result<()> {
        match self.parent(name) {
            Ok((folder, last)) => {
                let below = folder.as_ref().unwrap_or(&self.descriptor).as_fd();
                self.push(below, last.as_bytes(), name.as_bytes(), table)
            }
            Err(_) => Ok(()),
        }
    }

    fn push(
        &self,
        folder: std::os::fd::BorrowedFd<'_>,
        last: &[u8],
        name: &[u8],
        table: &mut Table,
    ) -> Result<()> {
        let Ok(about) = rustix::fs::statat(folder, last, AtFlags::SYMLINK_NOFOLLOW) else {
            return Ok(());
        };
        let mut link = Vec::new();
        let kind = match FileType::from_raw_mode(about.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                if let Ok(target) = rustix::fs::readlinkat(folder, last, Vec::new()) {
                    link = target.into_bytes();
                }
                Kind::Symlink
            }
            _ => Kind::Special,
        };
        let size = u64::try_from(about.st_size).unwrap_or(0);
        table.push(name, &link, (kind, 0, size), &self.path)?;
        Ok(())
    }
}
