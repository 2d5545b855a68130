//! Checks before a directory is replaced, resumed or removed: only files of an image are ever
//! removed.

use super::owned::{self, Handle, Trust};
use crate::digest::Digest;
use rustix::fs::FileType;
use std::io;
use std::path::Path;

/// The files of an image's directory, and the journal of a partial one.
const FILES: [&str; 4] = [
    "oci-layout",
    "index.json",
    "manifest.json",
    super::journal::JOURNAL,
];
pub(super) const BLOBS: &str = "blobs";

/// Refuses a directory that contains anything but the files of a pull.
pub(super) fn check(directory: &Handle, trust: Trust) -> io::Result<()> {
    directory.list(|name| {
        let text = name.to_str().unwrap_or("");
        let journal = text == super::journal::JOURNAL && trust == Trust::Ours;
        if text == BLOBS {
            return Ok(());
        }
        if journal || !FILES.contains(&text) {
            return Err(foreign(directory, name));
        }
        file(directory, name, trust)
    })?;
    let Some(blobs) = find(directory, Path::new(BLOBS), trust)? else {
        return Ok(());
    };
    blobs.list(|name| {
        let algorithm = name.to_str().unwrap_or("");
        if owned::check(blobs.fd(), name, FileType::RegularFile, Trust::Ours).is_ok() {
            return Err(foreign(&blobs, name));
        }
        let Some(below) = find(&blobs, name, trust)? else {
            return Ok(());
        };
        below.list(|name| match is_blob(algorithm, name) {
            true => file(&below, name, trust),
            false => Err(foreign(&below, name)),
        })
    })
}

/// Whether a file of this name is a blob of this algorithm.
pub(super) fn is_blob(algorithm: &str, name: &Path) -> bool {
    let hex = name.to_str().unwrap_or("");
    format!("{algorithm}:{hex}").parse::<Digest>().is_ok()
}

fn file(directory: &Handle, name: &Path, trust: Trust) -> io::Result<()> {
    let checked = owned::check(directory.fd(), name, FileType::RegularFile, trust);
    checked
        .map(|_| ())
        .map_err(|error| of(directory, name, &error))
}

fn find(directory: &Handle, name: &Path, trust: Trust) -> io::Result<Option<Handle>> {
    let found = directory.find(name, trust);
    found.map_err(|error| of(directory, name, &error))
}

fn foreign(directory: &Handle, name: &Path) -> io::Error {
    let name = shown(directory, name);
    io::Error::other(format!(
        "it holds {name}, which is not part of an image; move it away, or choose another directory"
    ))
}

/// Says which part of a directory is meant.
fn of(directory: &Handle, name: &Path, error: &io::Error) -> io::Error {
    let name = shown(directory, name);
    io::Error::other(format!("{name}: {}", crate::error::plain(error)))
}

fn shown(directory: &Handle, name: &Path) -> String {
    crate::error::printable(&directory.join(name).to_string_lossy(), 200)
}

/// Removes the image's files from a directory, and the directory if nothing else is in it.
pub(super) fn remove(parent: &Handle, name: &Path) -> io::Result<()> {
    let Some(directory) = parent.find(name, Trust::Ours)? else {
        return Ok(());
    };
    for file in FILES {
        directory.remove(file)?;
    }
    if let Some(blobs) = directory.find(BLOBS, Trust::Ours)? {
        blobs.list(|algorithm| {
            let Ok(Some(below)) = blobs.find(algorithm, Trust::Ours) else {
                return Ok(());
            };
            let text = algorithm.to_str().unwrap_or("");
            below.list(|name| {
                if is_blob(text, name) {
                    below.remove(name)?;
                }
                Ok(())
            })?;
            blobs.remove_directory(algorithm)
        })?;
        directory.remove_directory(BLOBS)?;
    }
    parent.remove_directory(name)
}
