//! An image: its manifest, its config and its layers; or all images of an index.

use crate::budget::Lease;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hint::Hint;
use crate::manifest::{
    Content, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, IndexEntry, OCI_INDEX,
    OCI_MANIFEST, bare,
};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::signature::Verified;
use std::sync::Arc;

/// Limits for indexes: nesting depth, number of documents, and their bytes together, all of which
/// are held until the archive is laid out.
const DEPTH: usize = 4;
const DOCUMENTS: usize = 1024;
const BYTES: usize = 2 << 20;

/// An image that can be pulled: manifest, config and layers; or all images of an index.
#[derive(Clone, Debug)]
pub struct Image {
    pub(crate) reference: Reference,
    /// The name that it has in an archive instead.
    pub(crate) alias: Option<Reference>,
    /// The manifest; for several platforms, the index.
    pub(crate) manifest: Document,
    /// The manifests and indexes that the index leads to.
    pub(crate) documents: Vec<Document>,
    pub(crate) config: Descriptor,
    /// `None` if the config is among the layers.
    pub(crate) config_bytes: Option<Arc<Vec<u8>>>,
    /// Everything to download, lowest layer first.
    pub(crate) layers: Arc<[Descriptor]>,
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) platform: Option<Platform>,
    pub(crate) warnings: Vec<String>,
    pub(crate) companions: Companions,
}

/// What comes with an image: the indexes that name it, signatures, other referrers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Companions {
    /// The indexes that lead to the manifest, the outermost first.
    pub indexes: Vec<Digest>,
    /// The signatures that count.
    pub verified: Vec<Verified>,
    /// What goes into the archive behind the layers, and is in memory.
    pub documents: Vec<(Digest, Arc<Vec<u8>>)>,
    /// What is downloaded as layers are.
    pub blobs: Vec<Descriptor>,
    /// The room that the documents take.
    pub leases: Vec<Arc<Lease>>,
}

impl Companions {
    /// The digests of all that goes into the archive, each once, in order.
    pub fn digests<'i>(images: impl Iterator<Item = &'i Self> + Clone) -> Vec<Digest> {
        let documents = images
            .clone()
            .flat_map(|one| one.documents.iter().map(|(d, _)| *d));
        let blobs = images.flat_map(|one| one.blobs.iter().map(|blob| blob.digest));
        let mut found = Vec::new();
        for digest in documents.chain(blobs) {
            if !found.contains(&digest) {
                found.push(digest);
            }
        }
        found
    }
}

impl Image {
    /// The reference it was requested by.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The same image with another name in the archive, as `docker tag` would give it.
    pub fn named(mut self, name: Reference) -> Self {
        self.alias = Some(name);
        self
    }

    /// The name that it has in an archive.
    pub fn name(&self) -> &Reference {
        self.alias.as_ref().unwrap_or(&self.reference)
    }

    /// Its manifest; for several platforms, the index.
    pub fn manifest(&self) -> &Document {
        &self.manifest
    }

    /// The digest of the index that its reference named, if it was one that led to this image.
    pub fn index(&self) -> Option<&Digest> {
        self.companions.indexes.first()
    }

    /// The bytes of its config; `None` for several platforms.
    pub fn config(&self) -> Option<&[u8]> {
        self.config_bytes.as_ref().map(|bytes| bytes.as_slice())
    }

    /// Its layers, lowest first; for several platforms, all their configs and layers.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// The platform in its config, if there is one.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }

    /// The digests of its uncompressed layers, as its config names them.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }

    /// Its manifest or index, and what lies below that.
    pub(crate) fn tree(&self) -> impl Iterator<Item = &Document> {
        std::iter::once(&self.manifest).chain(&self.documents)
    }

    /// A blob that a descriptor of its documents embeds.
    pub(crate) fn embedded(&self, descriptor: &Descriptor) -> Option<Vec<u8>> {
        let mut found = self
            .tree()
            .filter_map(|one| one.embedded(&descriptor.digest));
        found.next()
    }

    /// The signatures that were demanded and found to count, one for each demand.
    pub fn signatures(&self) -> &[Verified] {
        &self.companions.verified
    }

    /// Warnings about the choice of this image.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// Fetches the document of a descriptor in an index.
type Fetch<'f> = &'f mut dyn FnMut(&Document, &Descriptor) -> Result<Document>;

impl Image {
    /// All images of an index; `fetch` gets their documents.
    pub(crate) fn of_index(
        reference: Reference,
        index: Document,
        fetch: Fetch<'_>,
    ) -> Result<Self> {
        let mut found = Found::default();
        found.gather(&reference, &index, 1, fetch)?;
        let Some(config) = found.blobs.first().cloned() else {
            return Err(Error::not_found(
                format!("the index of {reference} names no image"),
                Vec::new(),
            ));
        };
        Ok(Self {
            reference,
            alias: None,
            manifest: index,
            documents: found.documents,
            config,
            config_bytes: None,
            layers: found.blobs.into(),
            diff_ids: Vec::new(),
            platform: None,
            warnings: found.warnings,
            companions: Companions::default(),
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
            return Err(
                Error::malformed(format!("the index of {reference}"), one.why.clone())
                    .with_hint(Hint::Platform),
            );
        }
        for entry in entries {
            let digest = &entry.descriptor.digest;
            if self.documents.iter().any(|known| known.digest() == digest) {
                continue;
            }
            if !is_index(entry) && !is_manifest(entry) {
                self.warnings.push(format!(
                    "{digest} in the index of {reference} is neither an index nor a manifest ({}); skipped",
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

pub(crate) fn is_index(entry: &IndexEntry) -> bool {
    matches!(bare(&entry.descriptor.media_type), OCI_INDEX | DOCKER_LIST)
}

/// Entries of unknown types are not errors (image-index.md), but they are not images either.
pub(crate) fn is_manifest(entry: &IndexEntry) -> bool {
    matches!(
        bare(&entry.descriptor.media_type),
        OCI_MANIFEST | DOCKER_MANIFEST
    )
}
