//! The list of a reference's images with their sizes.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{Content, Document, Kinds};
use crate::platform::Platform;
use crate::registry::Repository;

/// The images of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Platforms {
    /// The digest of the index, or of the only manifest.
    pub digest: Digest,
    /// The images, in the index's order.
    pub images: Vec<PlatformImage>,
}

/// One platform's image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlatformImage {
    /// The platform, where index or config names one.
    pub platform: Option<Platform>,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The bytes of its layers as they are downloaded; none where the registry lacks the manifest.
    pub size: Option<u64>,
}

impl Repository<'_> {
    /// Lists the images. Takes one request for the index and one for each manifest in it, each of
    /// which may count as a pull.
    ///
    /// # Errors
    ///
    /// As [`Repository::manifest`].
    pub fn platforms(&self) -> Result<Platforms> {
        let document = self.manifest()?;
        let digest = *document.digest();
        let images = match document.content() {
            Content::Index(_) => self.listed(&document)?,
            content => {
                let size = Some(total(content));
                let platform = self.complete(document)?.platform;
                vec![PlatformImage {
                    platform,
                    digest,
                    size,
                }]
            }
        };
        Ok(Platforms { digest, images })
    }

    /// The manifests of an index, each requested once; artifacts are not images.
    fn listed(&self, index: &Document) -> Result<Vec<PlatformImage>> {
        let mut list: Vec<PlatformImage> = Vec::new();
        for candidate in self.candidates(index)? {
            let digest = candidate.descriptor.digest;
            let known = list.iter().find(|one| one.digest == digest);
            let size = match known {
                Some(known) => known.size,
                None => match self.child(index, &candidate.descriptor, Kinds::Images) {
                    Ok(child) => Some(total(child.content())),
                    // Mirrors may have only some platforms, and a bad one does not affect the
                    // others.
                    Err(Error::NotFound { .. } | Error::Malformed { .. }) => None,
                    Err(Error::Unsupported { .. }) => continue,
                    Err(error) => return Err(error),
                },
            };
            list.push(PlatformImage {
                platform: candidate.platform,
                digest,
                size,
            });
        }
        Ok(list)
    }
}

fn total(content: &Content) -> u64 {
    match content {
        Content::Manifest { layers, .. } => layers.iter().map(|layer| layer.size).sum(),
        Content::Index(_) => 0,
    }
}
