//! Resolution of a reference and a platform to one manifest with its config.
//!
//! Never silently another architecture: an index gives the matching entry, or an error with the
//! platforms that exist; a single manifest for another platform is accepted with a warning only if
//! no platform was requested.

mod named;
mod platforms;

pub use platforms::{PlatformImage, Platforms};

use super::Repository;
use crate::budget::Lease;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::{Companions, Image, is_index, is_manifest};
use crate::manifest::{
    CONFIG_LIMIT, Config, Content, Descriptor, Document, Kinds, MOST, PassedOver,
};
use crate::order::ascending;
use crate::platform::Platform;
use std::sync::Arc;

/// The deepest nesting of indexes, and the most documents for one image.
const DEPTH: usize = 4;
const FETCHES: usize = 64;

/// A manifest of an index, wherever it is nested.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
    /// The indexes that lead to it, the outermost first.
    indexes: Arc<[Digest]>,
    /// Its share of the budget.
    _lease: Arc<Lease>,
}

impl Repository<'_> {
    /// The image for a platform; without one, the image for this machine.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] with the existing platforms if none fits; otherwise as
    /// [`Repository::manifest`], and errors of manifest or config.
    pub fn image(&self, platform: Option<&Platform>) -> Result<Image> {
        let document = self.manifest()?;
        self.image_of(document, platform)
    }

    /// The images of all platforms, including their companions. A reference to a single manifest
    /// gives that image, whatever its platform.
    ///
    /// # Errors
    ///
    /// As [`Repository::manifest`]; [`Error::Malformed`] for an endless index.
    pub fn all_platforms(&self) -> Result<Image> {
        let document = self.manifest()?;
        let Content::Index(_) = document.content() else {
            return self.complete(document);
        };
        Image::of_index(
            self.reference.clone(),
            document,
            &mut |index, descriptor| self.child(index, descriptor, Kinds::All),
        )
    }

    pub(crate) fn image_of(
        &self,
        document: Document,
        platform: Option<&Platform>,
    ) -> Result<Image> {
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        if let Content::Manifest { .. } = document.content() {
            let mut image = self.complete(document)?;
            self.judge_single(&mut image, &wanted, platform.is_some())?;
            return Ok(image);
        }
        let (candidates, lost) = self.found_in(&document)?;
        let ranked = candidates
            .iter()
            .filter_map(|one| Some((u64::from(wanted.rank(one.platform.as_ref()?)?), one)));
        let (ranks, ranked): (Vec<u64>, Vec<&Candidate>) = ranked.unzip();
        let mut unsupported = None;
        for at in ascending(&ranks).into_iter().take(FETCHES) {
            let candidate = ranked[at];
            match self.of_entry(&document, candidate) {
                // An artifact may name a platform, too.
                Err(error @ Error::Unsupported { .. }) => {
                    self.client.note(&format!("{error}; skipped"));
                    unsupported.get_or_insert(error);
                }
                image => {
                    let mut image = image?;
                    self.judge_entry(&mut image, candidate, &wanted);
                    return Ok(image);
                }
            }
        }
        match unsupported {
            Some(error) => Err(error),
            None => match (self.unnamed(&document, &candidates, &wanted), lost) {
                // It may have contained the wanted one.
                (Err(Error::NotFound { .. }), Some(error)) => Err(error),
                (other, _) => other,
            },
        }
    }

    fn of_entry(&self, index: &Document, candidate: &Candidate) -> Result<Image> {
        let mut image =
            self.complete(self.child(index, &candidate.descriptor, Kinds::Images)?)?;
        image.companions.indexes = candidate.indexes.to_vec();
        Ok(image)
    }

    /// Entries without a platform are legal; their configs state it. Those that are not images or
    /// are gone are skipped.
    fn unnamed(
        &self,
        index: &Document,
        candidates: &[Candidate],
        wanted: &Platform,
    ) -> Result<Image> {
        let mut available: Vec<String> = Vec::new();
        let mut failed = None;
        for candidate in candidates.iter().take(FETCHES) {
            if let Some(platform) = &candidate.platform {
                available.push(platform.to_string());
                continue;
            }
            match self.of_entry(index, candidate) {
                Ok(image) => match &image.platform {
                    Some(platform) if wanted.rank(platform).is_some() => return Ok(image),
                    Some(platform) => available.push(platform.to_string()),
                    None => {}
                },
                Err(error) if is_of_one_entry(&error) => {
                    self.client.note(&format!("{error}; skipped"));
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let fits = |one: &&PassedOver| {
            one.platform
                .as_ref()
                .is_some_and(|platform| wanted.rank(platform).is_some())
        };
        if let Some(one) = index.passed_over().iter().find(fits) {
            return Err(Error::malformed(
                format!("the index of {}", self.reference),
                format!("{}, and no other is for {wanted}", one.why),
            ));
        }
        match failed {
            Some(error) if available.is_empty() => return Err(error),
            _ => available.dedup(),
        }
        Err(Error::not_found(
            format!("{} has no image for {wanted}", self.reference),
            available,
        ))
    }

    /// The manifests of an index and of those nested in it, in order.
    pub(crate) fn candidates(&self, document: &Document) -> Result<Vec<Candidate>> {
        match self.found_in(document)? {
            (found, Some(error)) if found.is_empty() => Err(error),
            (found, _) => Ok(found),
        }
    }

    /// The same, and why nested indexes were skipped.
    fn found_in(&self, document: &Document) -> Result<(Vec<Candidate>, Option<Error>)> {
        let (mut found, mut lost) = (Vec::new(), None);
        let mut seen = vec![*document.digest()];
        let (mut total, path) = (0, seen.clone());
        self.flatten(
            document, &path, &mut total, &mut seen, &mut found, &mut lost,
        )?;
        Ok((found, lost))
    }

    fn flatten(
        &self,
        document: &Document,
        path: &[Digest],
        total: &mut usize,
        seen: &mut Vec<Digest>,
        found: &mut Vec<Candidate>,
        lost: &mut Option<Error>,
    ) -> Result<()> {
        let Content::Index(entries) = document.content() else {
            return Ok(());
        };
        *total += entries.len();
        if *total > MOST {
            return Err(Error::malformed(
                format!("the index of {}", self.reference),
                format!("lists more than {MOST} manifests, those of nested indexes included"),
            ));
        }
        // The result outlives a nested index.
        let what = format!("the index of {}", self.reference);
        let lease = self.client.room().take(0, entries.len(), &what)?;
        for one in document.passed_over() {
            self.client.note(&format!(
                "the index of {}: {}; skipped",
                self.reference, one.why
            ));
        }
        let indexes: Arc<[Digest]> = path.into();
        for entry in entries.iter().filter(|entry| !entry.companion) {
            if is_index(entry) {
                if seen.contains(&entry.descriptor.digest) {
                    continue;
                }
                if path.len() >= DEPTH || seen.len() >= FETCHES {
                    return Err(Error::malformed(
                        format!("the index of {}", self.reference),
                        format!(
                            "is nested deeper than {DEPTH} levels, or in more than {FETCHES} parts"
                        ),
                    ));
                }
                seen.push(entry.descriptor.digest);
                match self.child(document, &entry.descriptor, Kinds::Images) {
                    Ok(nested) => {
                        let path = [path, &[entry.descriptor.digest]].concat();
                        self.flatten(&nested, &path, total, seen, found, lost)?;
                    }
                    Err(error) if is_of_one_entry(&error) => {
                        self.client.note(&format!("{error}; skipped"));
                        lost.get_or_insert(error);
                    }
                    Err(error) => return Err(error),
                }
            } else if is_manifest(entry) {
                found.push(Candidate {
                    descriptor: entry.descriptor.clone(),
                    platform: entry.platform.clone(),
                    indexes: indexes.clone(),
                    _lease: lease.clone(),
                });
            }
        }
        Ok(())
    }

    /// A manifest with its config.
    pub(crate) fn complete(&self, mut document: Document) -> Result<Image> {
        let Content::Manifest { config, layers } = document.content().clone() else {
            return Err(Error::malformed(
                format!("manifest {}", document.digest()),
                "is an index, but its entry calls it a manifest",
            ));
        };
        let what = format!("the config of {}", self.reference);
        let bytes = match self.small_blob(&config, CONFIG_LIMIT, &what) {
            Err(error @ Error::NotFound { .. }) => {
                document.embedded(&config.digest).ok_or(error)?
            }
            other => other?,
        };
        document.hold(self.client.room().take(config.size, 0, &what)?);
        let parsed = Config::parse(&bytes, layers.len(), &what)?;
        Ok(Image {
            reference: self.reference.clone(),
            alias: None,
            manifest: document,
            documents: Vec::new(),
            config,
            config_bytes: Some(bytes.into()),
            layers,
            diff_ids: parsed.diff_ids,
            platform: parsed.platform,
            warnings: Vec::new(),
            companions: Companions::default(),
        })
    }

    fn judge_single(&self, image: &mut Image, wanted: &Platform, asked: bool) -> Result<()> {
        match &image.platform {
            Some(platform) if wanted.rank(platform).is_some() => {}
            Some(platform) if asked => {
                return Err(Error::not_found(
                    format!("{} has no image for {wanted}", self.reference),
                    vec![platform.to_string()],
                ));
            }
            Some(platform) => image.warnings.push(format!(
                "{} is an image for {platform} only; this machine is {wanted}",
                self.reference
            )),
            None => image.warnings.push(format!(
                "{} does not say which platform it is for",
                self.reference
            )),
        }
        Ok(())
    }

    fn judge_entry(&self, image: &mut Image, entry: &Candidate, wanted: &Platform) {
        if let (Some(said), Some(found)) = (&entry.platform, &image.platform) {
            if wanted.rank(found).is_none() {
                image.warnings.push(format!(
                    "the index of {} calls this image {said}, but its config says {found}",
                    self.reference
                ));
            } else if said != wanted && wanted.rank(said) != Some(0) {
                image.warnings.push(format!(
                    "{} has no image for {wanted}; using the one for {said}, which runs there too",
                    self.reference
                ));
            }
        }
    }
}

/// The candidate that serves a platform best.
pub(super) fn best<'c>(candidates: &'c [Candidate], wanted: &Platform) -> Option<&'c Candidate> {
    candidates
        .iter()
        .filter_map(|candidate| Some((wanted.rank(candidate.platform.as_ref()?)?, candidate)))
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, candidate)| candidate)
}

/// Whether this error concerns only one entry of an index.
fn is_of_one_entry(error: &Error) -> bool {
    matches!(
        error,
        Error::Unsupported { .. } | Error::Malformed { .. } | Error::NotFound { .. }
    )
}
