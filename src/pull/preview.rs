//! Previews: what a pull would download, without requests and without changing files.

use super::{Pull, reuse};
use crate::archive::sink::file::claimed;
use crate::archive::sink::fs::{resolve, with_suffix};
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
    /// The manifests, indexes and configs, which a pull has to ask for in any case.
    pub documents: Vec<BlobPreview>,
    /// The archive or directory is already what is asked for: see [`crate::Report::unchanged`].
    pub unchanged: bool,
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
    /// The document that has this path in the archive.
    pub fn document(&self, path: &str) -> Option<&BlobPreview> {
        let mut documents = self.documents.iter();
        documents.find(|one| one.digest.path() == path)
    }

    fn all(&self) -> impl Iterator<Item = &BlobPreview> {
        self.blobs.iter().chain(&self.documents)
    }

    /// The bytes that are already here.
    pub fn here(&self) -> u64 {
        self.all().map(|blob| blob.here).sum()
    }

    /// The bytes that would be downloaded.
    pub fn download(&self) -> u64 {
        self.all().map(|blob| blob.size - blob.here).sum()
    }
}

impl Pull<'_> {
    /// What [`Pull::to_file`] would download for this path.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Input`] for an archive that cannot be reused.
    pub fn preview_file(&mut self, path: impl AsRef<Path>) -> Result<Preview> {
        let path = path.as_ref();
        let place = resolve(path).unwrap_or_else(|_| path.to_owned());
        let unchanged = self.unchanged_file(&place, path)?.is_some();
        self.preview(Some(path), Some(path), unchanged)
    }

    /// What [`Pull::to_directory`] would download for this path.
    ///
    /// # Errors
    ///
    /// As [`Pull::preview_file`].
    pub fn preview_directory(&mut self, path: impl AsRef<Path>) -> Result<Preview> {
        let path = path.as_ref();
        let unchanged = self.unchanged_directory(path)?.is_some();
        match self.inflate {
            Some(_) => self.preview(Some(&with_suffix(path, ".tar")), Some(path), unchanged),
            None => self.preview(Some(path), Some(path), unchanged),
        }
    }

    /// What [`Pull::to_writer`] would download.
    ///
    /// # Errors
    ///
    /// As [`Pull::preview_file`].
    pub fn preview_writer(&self) -> Result<Preview> {
        self.preview(None, None, false)
    }

    fn preview(
        &self,
        grows: Option<&Path>,
        replaced: Option<&Path>,
        unchanged: bool,
    ) -> Result<Preview> {
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
        let named: Vec<PathBuf> = self.reuse.iter().cloned().chain(bases).collect();
        let existing = reuse::open(&named, &self.lenders, replaced, &self.client)?;
        let reused = reuse::claims(&existing, plan, self.inflate.is_some());
        let blobs = blobs.iter().zip(claimed).zip(reused);
        let blobs = blobs.map(|((blob, claimed), reused)| BlobPreview {
            digest: blob.descriptor.digest,
            size: blob.descriptor.size,
            here: if reused || unchanged {
                blob.descriptor.size
            } else {
                claimed
            },
        });
        let documents = plan.entries().iter();
        let documents = documents.filter(|entry| !entry.is_downloaded());
        let documents = documents.filter_map(|entry| {
            let digest = entry.path().strip_prefix("blobs/")?.replacen('/', ":", 1);
            let (digest, size) = (digest.parse().ok()?, entry.size());
            let there = existing.iter().any(|one| one.names(&digest, size));
            let here = if there || unchanged { size } else { 0 };
            Some(BlobPreview { digest, size, here })
        });
        Ok(Preview {
            documents: documents.collect(),
            blobs: blobs.collect(),
            unchanged,
        })
    }
}
