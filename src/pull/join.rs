//! Joining a thin archive and its base to the full archive: a pull whose blobs are all local.

use super::state::Shared;
use super::{Pull, reuse};
use crate::archive::plan::Plan;
use crate::archive::rebuild::{Documents, rebuild};
use crate::archive::source::Existing;
use crate::error::{Error, Result};
use crate::registry::Client;
use std::io;
use std::path::{Path, PathBuf};

/// The memory for a thin archive's documents and what becomes of them.
const ROOM: usize = 3 << 20;

impl<'c> Pull<'c> {
    /// Makes the full archive of a thin one and of the archives or directories that have what it
    /// lacks, without a registry: the bytes that a full pull gives.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] and [`Error::Malformed`] for what cannot be read, [`Error::Mismatch`] for a
    /// full archive that is not the one the thin archive names, [`Error::Thin`] where a layer is in
    /// neither.
    pub fn join(client: &Client, thin: impl AsRef<Path>, bases: &[PathBuf]) -> Result<Self> {
        let thin = thin.as_ref();
        let existing = Existing::open(thin)?;
        let name = thin.display().to_string();
        let documents = OfThin {
            existing: &existing,
            name: &name,
        };
        let rebuilt = rebuild(&documents, ROOM, true)?;
        let plan = rebuilt.full()?;
        if let Some(whole) = rebuilt.whole.filter(|whole| *whole != plan.identity()) {
            return Err(Error::Mismatch {
                blob: format!("the full archive of {name}"),
                digest: Box::new(whole.digest),
                expected: format!("{} bytes, plan {}", whole.size, whole.digest),
                found: format!("{} bytes, plan {}", plan.size(), plan.identity().digest),
            });
        }
        drop(existing);
        let mut pull = Self::new(client, plan).reuse(thin);
        for base in bases {
            pull = pull.reuse(base);
        }
        pull.check_joined(&name)?;
        pull.joined = Some(name);
        Ok(pull)
    }

    /// Checks, by names, that every blob is in one of the archives, before anything is written.
    fn check_joined(&self, archive: &str) -> Result<()> {
        let existing = reuse::open(&self.reuse, &self.lenders, None, &self.client)?;
        let blobs = self.plan.blobs().iter();
        let missing = blobs.filter(|blob| {
            blob.descriptor.size > 0 && reuse::candidates(&existing, blob).next().is_none()
        });
        let sizes: Vec<u64> = missing.map(|blob| blob.descriptor.size).collect();
        match sizes.len() {
            0 => Ok(()),
            layers => Err(Error::Thin {
                archive: archive.to_owned(),
                layers,
                size: sizes.iter().sum(),
            }),
        }
    }
}

/// The error if a blob is in none of the archives, or has changed.
pub(super) fn unavailable(archive: &str, plan: &Plan, blob: usize) -> Error {
    Error::Mismatch {
        blob: format!("a layer that {archive} needs"),
        digest: Box::new(plan.blobs()[blob].descriptor.digest),
        expected: plan.blobs()[blob].descriptor.digest.to_string(),
        found: "other bytes under its name".to_owned(),
    }
}

impl Shared<'_> {
    /// Of an archive that is joined, nothing but an empty blob may be left to be fetched.
    pub fn check_empty(&self, blob: usize, archive: &str) -> Result<()> {
        match self.plan.blobs()[blob].descriptor.size {
            0 => Ok(()),
            _ => Err(unavailable(archive, self.plan, blob)),
        }
    }
}

struct OfThin<'e> {
    existing: &'e Existing,
    name: &'e str,
}

impl Documents for OfThin<'_> {
    fn size(&self, name: &str) -> Option<u64> {
        self.existing.size(name)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let bytes = self.existing.document(name, ROOM as u64);
        let wrong = || {
            Error::input(
                Path::new(self.name),
                "reading",
                io::Error::other(format!("{name} cannot be read")),
            )
        };
        bytes.ok_or_else(wrong)
    }
}
