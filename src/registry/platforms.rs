//! All images of an index: every platform's, and the attestations and other companions that stand
//! beside them, for an archive that keeps the index as it is.

use super::Repository;
use super::image::{Image, is_index, is_manifest};
use crate::error::{Error, Result};
use crate::manifest::{Content, Descriptor, Document, Kinds};

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
        let mut found = Found::default();
        self.gather(&document, 1, &mut found)?;
        let Some(config) = found.blobs.first().cloned() else {
            return Err(Error::NotFound {
                what: format!("the index of {} names no image", self.reference),
                available: Vec::new(),
            });
        };
        Ok(Image {
            reference: self.reference.clone(),
            manifest: document,
            documents: found.documents,
            config,
            config_bytes: None,
            layers: found.blobs,
            diff_ids: Vec::new(),
            platform: None,
            warnings: found.warnings,
        })
    }

    fn gather(&self, index: &Document, depth: usize, found: &mut Found) -> Result<()> {
        let Content::Index(entries) = index.content() else {
            return Ok(());
        };
        for entry in entries {
            let digest = &entry.descriptor.digest;
            if found.documents.iter().any(|known| known.digest() == digest) {
                continue;
            }
            if !is_index(entry) && !is_manifest(entry) {
                found.warnings.push(format!(
                    "{digest} in the index of {} is neither index nor manifest ({}) and was left out",
                    self.reference,
                    crate::error::printable(&entry.descriptor.media_type, 120)
                ));
                continue;
            }
            let child = self.child(&entry.descriptor, Kinds::All)?;
            found.bytes += child.bytes().len();
            if depth > DEPTH || found.documents.len() >= DOCUMENTS || found.bytes > BYTES {
                return Err(Error::malformed(
                    format!("the index of {}", self.reference),
                    format!(
                        "is nested deeper than {DEPTH} levels, or leads to more than {DOCUMENTS} documents or {BYTES} bytes of them"
                    ),
                ));
            }
            found.documents.push(child.clone());
            match child.content() {
                Content::Index(_) => self.gather(&child, depth + 1, found)?,
                Content::Manifest { config, layers } => {
                    found.blobs.push(config.clone());
                    found.blobs.extend_from_slice(layers);
                }
            }
        }
        Ok(())
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
