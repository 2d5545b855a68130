//! Previews: what a pull would download, without requests and without changing files.

use super::{Pull, reuse};
use crate::archive::sink::file::claimed;
use crate::archive::sink::fs::with_suffix;
use crate::digest::Digest;
use crate::error::Result;
use std::path::{Path, PathBuf};

/// What a pull would download. Journals and digests in names are believed: the pull itself checks
/// what it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preview {
    /// The blobs, in the order of the plan's entries that are downloaded.
    pub blobs: Vec<BlobPreview>,
}

/// A blob of a [`Preview`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobPreview {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How many of its bytes need not be downloaded.
    pub here: u64,
}

impl Preview {
    /// The bytes that are already here.
    pub fn here(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.here).sum()
    }

    /// The bytes that would be downloaded.
    pub fn download(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size - blob.here).sum()
    }
}

impl Pull<'_> {
    /// What [`Pull::to_file`] would download for this path.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Input`] for an archive that cannot be reused.
    pub fn preview_file(&self, path: &Path) -> Result<Preview> {
        self.preview(Some(path), Some(path))
    }

    /// What [`Pull::to_directory`] would download for this path.
    ///
    /// # Errors
    ///
    /// As [`Pull::preview_file`].
    pub fn preview_directory(&self, path: &Path) -> Result<Preview> {
        match self.inflate {
            Some(_) => self.preview(Some(&with_suffix(path, ".tar")), Some(path)),
            None => self.preview(Some(path), Some(path)),
        }
    }

    /// What [`Pull::to_writer`] would download.
    ///
    /// # Errors
    ///
    /// As [`Pull::preview_file`].
    pub fn preview_writer(&self) -> Result<Preview> {
        self.preview(None, None)
    }

    fn preview(&self, grows: Option<&Path>, replaced: Option<&Path>) -> Result<Preview> {
        let whole;
        let plan = match self.inflate {
            // All layers are measured, also those that are left out.
            Some(_) => {
                whole = self.plan.whole()?;
                &whole
            }
            None => &self.plan,
        };
        let blobs = plan.blobs();
        let claimed = match grows {
            Some(path) if !self.restart => claimed(path, plan),
            _ => vec![0; blobs.len()],
        };
        let bases = self.plan.bases().map(Path::to_owned);
        let lenders: Vec<PathBuf> = self.reuse.iter().cloned().chain(bases).collect();
        let existing = reuse::open(&lenders, replaced, &self.client)?;
        let reused = reuse::claims(&existing, plan, self.inflate.is_some());
        let blobs = blobs.iter().zip(claimed).zip(reused);
        let blobs = blobs.map(|((blob, claimed), reused)| BlobPreview {
            digest: blob.descriptor.digest,
            size: blob.descriptor.size,
            here: if reused {
                blob.descriptor.size
            } else {
                claimed
            },
        });
        Ok(Preview {
            blobs: blobs.collect(),
        })
    }
}
