//! What a reference stands for, with as few requests as it takes and no pull where that is
//! possible: whoever asks for a digest only needs no manifest.

use super::best;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::manifest::{Content, Document, Kinds};
use crate::net::error::Failure;
use crate::platform::Platform;
use crate::registry::{Ask, MANIFEST_TYPES, Repository, manifest_path};

impl Repository<'_> {
    /// The digest of what the reference names; with a platform, of that platform's manifest.
    ///
    /// Without a platform the registry is asked by HEAD, which Docker Hub does not count as a
    /// pull, and only where that is of no use by GET.
    ///
    /// # Errors
    ///
    /// As [`Repository::manifest`]; with a platform, as [`Repository::image`].
    pub fn digest(&self, platform: Option<&Platform>) -> Result<Digest> {
        let Some(platform) = platform else {
            return match self.stated_digest()? {
                Some(digest) => Ok(digest),
                None => Ok(*self.manifest()?.digest()),
            };
        };
        let document = self.manifest()?;
        // An index names its manifests by digest: none of them is needed.
        match best(&self.candidates(&document)?, platform) {
            Some(entry) => Ok(entry.descriptor.digest),
            None => Ok(*self.image_of(document, Some(platform))?.manifest.digest()),
        }
    }

    /// The manifest for a platform.
    ///
    /// # Errors
    ///
    /// As [`Repository::image`].
    pub fn manifest_for(&self, platform: &Platform) -> Result<Document> {
        let document = self.manifest()?;
        match best(&self.candidates(&document)?, platform) {
            Some(entry) => match self.child(&document, &entry.descriptor, Kinds::Images)? {
                child if matches!(child.content(), Content::Manifest { .. }) => Ok(child),
                index => Ok(self.image_of(index, Some(platform))?.manifest),
            },
            None => Ok(self.image_of(document, Some(platform))?.manifest),
        }
    }

    /// What the registry says the digest is, where it says so. Nexus answers HEAD with 404, GitHub
    /// Enterprise with 405, signed addresses with 403, and ECR leaves the field out: whatever is
    /// no proper answer is left to a GET, which has an error's words, too.
    pub(crate) fn stated_digest(&self) -> Result<Option<Digest>> {
        let expected = self.reference.digest();
        // Mirrors are asked by GET: what they say a tag is may be wrong, and costs nobody a pull.
        if self.client.mirrors(expected).next().is_some() {
            return Ok(None);
        }
        let url = self.url(&manifest_path(&self.reference.target()));
        let ask = Ask {
            accept: &MANIFEST_TYPES,
            method: Some("HEAD"),
            ..Ask::default()
        };
        let doing = format!("requesting the digest of {}", self.reference);
        self.client.again(&doing, || match self.send(&url, ask) {
            Ok(response) => Ok(response
                .field("docker-content-digest")
                .and_then(|text| text.trim().parse::<Digest>().ok())
                .filter(|digest| match expected {
                    Some(expected) => digest == expected,
                    // What a GET would come to.
                    None => digest.algorithm() == Algorithm::Sha256,
                })),
            // Asking once more at once is not what this answer wants, and wrong credentials that
            // are sent twice may lock somebody out.
            Err(Failure::Status(failure))
                if failure.status == 429
                    || failure.status == 401 && self.credential().is_some() =>
            {
                Err(Failure::Status(failure))
            }
            Err(Failure::Final(Error::Interrupted(signal))) => {
                Err(Failure::Final(Error::Interrupted(signal)))
            }
            Err(_) => Ok(None),
        })
    }
}
