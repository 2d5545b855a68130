//! Renewal of a lock: the rows of this run, and the old ones of images whose pull failed.

use super::error::{Error, Result};
use super::list::lock::{self, Row};
use super::list::{self, is_file_name};
use super::output::with_suffix;
use super::place::{Goal, Target, Wanted};
use dockersave::{Algorithm, Client, Digest, Platform, check_file};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// A lock that is being renewed.
#[derive(Clone)]
pub(super) struct Book {
    path: PathBuf,
    /// What is in the file.
    text: String,
    options: String,
    pub old: Vec<Row>,
    new: Vec<Row>,
}

impl Book {
    /// Reads the lock if it is there; `options` are the flags that change an archive.
    pub fn open(path: &Path, options: String) -> Result<Self> {
        let mut own = Self {
            path: path.to_owned(),
            text: String::new(),
            options,
            old: Vec::new(),
            new: Vec::new(),
        };
        match list::content(path) {
            Ok(text) => own.text = text,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::input(path, "reading", error)),
        }
        if own.text.is_empty() {
            return Ok(own);
        }
        let name = own.name();
        if !lock::is_lock(&own.text) {
            let why = format!("{name} is not a lock; choose another name, or move it away");
            return Err(Error::usage("--lock", why));
        }
        let read = lock::parse(&own.text);
        let lock = read.map_err(|(line, why)| Error::usage(format!("{name}, line {line}"), why))?;
        if lock.options != own.options {
            let with = match &*lock.options {
                "" => "no flags that change archives",
                options => options,
            };
            let why = format!("{name} was made with {with}; use the same flags, or remove it");
            return Err(Error::usage("--lock", why));
        }
        own.old = lock.rows.into_iter().map(|(_, row)| row).collect();
        Ok(own)
    }

    /// Its file, for messages.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Checks before the first request that the lock can be written, and can hold these archives.
    pub fn check(&self, goals: &[Goal], new: Option<&Path>) -> Result<()> {
        for goal in goals {
            if goal.target.path() == Some(&self.path) {
                return Err(Error::usage("--lock", "is the name of an archive, too"));
            }
            if archive(goal).is_none() {
                let why = "needs an archive with a printable file name of UTF-8";
                return Err(Error::usage("--lock", why));
            }
        }
        // A directory that does not exist yet is fine.
        if new.is_none_or(|new| new.exists() || !self.path.starts_with(new)) {
            check_file(&self.path)?;
        }
        Ok(())
    }

    /// The old row of an image in an archive.
    pub fn row(&self, archive: &str, wanted: &Wanted) -> Option<&Row> {
        self.old
            .iter()
            .find(|row| row.archive == archive && is_of(row, wanted))
    }

    pub fn add(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.new.extend(rows);
    }

    /// Writes the lock if it changes: to a new file, which is synced and renamed.
    pub fn write(&self, goals: &[Goal]) -> Result<()> {
        let mut rows = Vec::new();
        for goal in goals {
            let archive = archive(goal).unwrap_or_default();
            let mut own = self
                .new
                .iter()
                .filter(|row| row.archive == archive)
                .peekable();
            if own.peek().is_some() {
                rows.extend(own.cloned());
            } else {
                let old = goal
                    .images
                    .iter()
                    .filter_map(|wanted| self.row(archive, wanted));
                rows.extend(old.cloned());
            }
        }
        let text = lock::text(&self.options, &rows);
        if text == self.text || rows.is_empty() && self.text.is_empty() {
            return Ok(());
        }
        self.replace(&text)
            .map_err(|error| Error::output(&self.path, "writing", error))
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        // A link stays.
        let place = self
            .path
            .canonicalize()
            .unwrap_or_else(|_| self.path.clone());
        let new = with_suffix(&place, ".partial.new");
        let _ = std::fs::remove_file(&new);
        let written = (|| {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
            if let Ok(about) = place.metadata() {
                file.set_permissions(about.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            match file.sync_all() {
                // Some file systems cannot do that.
                Err(error) if error.kind() != ErrorKind::InvalidInput => return Err(error),
                _ => {}
            }
            std::fs::rename(&new, &place)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        let folder = place
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if let Ok(folder) = File::open(folder.unwrap_or(Path::new("."))) {
            let _ = folder.sync_all();
        }
        written
    }
}

/// The archive's file name, if a lock can have it.
pub(super) fn archive(goal: &Goal) -> Option<&str> {
    let name = goal.target.path()?.file_name()?.to_str()?;
    is_file_name(name).then_some(name)
}

/// Whether a row is of this image, as it was asked for.
pub(super) fn is_of(row: &Row, wanted: &Wanted) -> bool {
    row.reference == wanted.reference && row.name == wanted.name
}

/// The digest that an image stands for now; a registry is asked with HEAD.
pub(super) fn named_now(client: &Client, wanted: &Wanted) -> Result<Digest> {
    match (&wanted.locked, wanted.reference.digest()) {
        (Some(row), _) => Ok(*row.named()),
        (None, Some(digest)) => Ok(*digest),
        (None, None) => Ok(client.repository(&wanted.reference)?.digest(None)?),
    }
}

/// The rows of a goal whose archive is here as the lock says, and whose images are still those: then
/// nothing else needs to be asked for. `platform` is what images without their own are for.
pub(super) fn settled(
    client: &Client,
    goal: &Goal,
    book: Option<&Book>,
    platform: Option<&Platform>,
    quick: bool,
) -> Result<Option<Vec<Row>>> {
    let (Target::File(path, None), Some(archive)) = (&goal.target, archive(goal)) else {
        return Ok(None);
    };
    let row = |wanted: &Wanted| match &wanted.locked {
        Some(row) => Some((**row).clone()),
        None => {
            let row = book?.row(archive, wanted)?;
            let platform = wanted.platform.as_ref().or(platform);
            row.is_for(platform).then(|| row.clone())
        }
    };
    let rows: Option<Vec<Row>> = goal.images.iter().map(row).collect();
    let rows = rows.filter(|rows| {
        let locked = goal.images.iter().all(|wanted| wanted.locked.is_some());
        let old = book.map_or(0, |book| {
            book.old.iter().filter(|row| row.archive == archive).count()
        });
        locked || old == rows.len()
    });
    let here = |size| {
        path.metadata()
            .is_ok_and(|about| about.is_file() && about.len() == size)
    };
    let Some(rows) = rows.filter(|rows| here(rows[0].size)) else {
        return Ok(None);
    };
    for (wanted, row) in goal.images.iter().zip(&rows) {
        if named_now(client, wanted)? != *row.named() {
            return Ok(None);
        }
    }
    if !quick && sha256(path, client)? != Some(rows[0].sha256) {
        return Ok(None);
    }
    Ok(Some(rows))
}

/// The SHA-256 of a file, unless it cannot be read.
fn sha256(path: &Path, client: &Client) -> Result<Option<Digest>> {
    let Ok(file) = File::open(path) else {
        return Ok(None);
    };
    let mut watched = Watched { file, client };
    let digest = Digest::of_reader(Algorithm::Sha256, &mut watched);
    if client.is_cancelled() {
        return Err(dockersave::Error::Cancelled.into());
    }
    Ok(digest.ok())
}

/// A file that is read until the run is cancelled.
struct Watched<'c> {
    file: File,
    client: &'c Client,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.client.is_cancelled() {
            true => Ok(0),
            false => self.file.read(buffer),
        }
    }
}
