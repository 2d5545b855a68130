//! All images of an index: every platform's, and the attestations and other companions that stand
//! beside them, for an archive that keeps the index as it is.

use super::{Image, is_index, is_manifest};
use crate::error::{Error, Result};
use crate::manifest::{Content, Descriptor, Document, Kinds};
use crate::reference::Reference;
use crate::registry::Repository;

/// How deep indexes may be nested, how many documents they may lead to, and how many bytes these
/// may have together: all of them are held until the archive is laid out.
const DEPTH: usize = 4;
const DOCUMENTS: usize = 1024;
const BYTES: usize = 2 << 20;

impl Repository<'_> {
    /// The images of all platforms, their companions kept. A reference to a single manifest gives
    /// that image, whatever its platform.
    ///
    /// # Errors
    ///
    /// As [`Repository::manifest`]; [`Error::Malformed`] for an index without end.
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
}

/// Gets the document of a descriptor in an index.
type Fetch<'f> = &'f mut dyn FnMut(&Document, &Descriptor) -> Result<Document>;

impl Image {
    /// All images of an index, whose documents `fetch` gets.
    pub(crate) fn of_index(
        reference: Reference,
        index: Document,
        fetch: Fetch<'_>,
    ) -> Result<Self> {
        let mut found = Found::default();
        found.gather(&reference, &index, 1, fetch)?;
        let Some(config) = found.blobs.first().cloned() else {
            return Err(Error::NotFound {
                what: format!("the index of {reference} names no image"),
                available: Vec::new(),
            });
        };
        Ok(Self {
            reference,
            manifest: index,
            documents: found.documents,
            config,
            config_bytes: None,
            layers: found.blobs.into(),
            diff_ids: Vec::new(),
            platform: None,
            warnings: found.warnings,
        })
    }
}

#[derive(Default)]
struct Found {
    documents: Vec<Document>,
    bytes: usize,
    /// Configs and layers.
    blobs: Vec<Descriptor>,
    warnings: Vec<String>,
}

impl Found {
    fn gather(
        &mut self,
        reference: &Reference,
        index: &Document,
        depth: usize,
        fetch: Fetch<'_>,
    ) -> Result<()> {
        let Content::Index(entries) = index.content() else {
            return Ok(());
        };
        if let Some(one) = index.passed_over().first() {
            return Err(Error::malformed(
                format!("the index of {reference}"),
                format!("{}; choose an image with --platform", one.why),
            ));
        }
        for entry in entries {
            let digest = &entry.descriptor.digest;
            if self.documents.iter().any(|known| known.digest() == digest) {
                continue;
            }
            if !is_index(entry) && !is_manifest(entry) {
                self.warnings.push(format!(
                    "{digest} in the index of {reference} is neither index nor manifest ({}) and was left out",
                    crate::error::printable(&entry.descriptor.media_type, 120)
                ));
                continue;
            }
            let child = fetch(index, &entry.descriptor)?;
            self.bytes += child.bytes().len();
            if depth > DEPTH || self.documents.len() >= DOCUMENTS || self.bytes > BYTES {
                return Err(Error::malformed(
                    format!("the index of {reference}"),
                    format!(
                        "is nested deeper than {DEPTH} levels, or leads to more than {DOCUMENTS} documents or {BYTES} bytes of them"
                    ),
                ));
            }
            self.documents.push(child.clone());
            match child.content() {
                Content::Index(_) => self.gather(reference, &child, depth + 1, fetch)?,
                Content::Manifest { config, layers } => {
                    self.blobs.push(config.clone());
                    self.blobs.extend_from_slice(layers);
                }
            }
        }
        Ok(())
    }
}
