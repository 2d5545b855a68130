//! Queries for a reference's digest, with as few requests as possible and without a counted pull.

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
    /// Without a platform the registry is asked with HEAD, which Docker Hub does not count as a
    /// pull, and with GET only if that does not help.
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
        // An index names its manifests by digest, so none has to be fetched.
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

    /// The digest from a HEAD response, if there is one. Nexus answers HEAD with 404, GitHub
    /// Enterprise with 405, signed URLs with 403, and ECR omits the field: in all such cases use
    /// GET, which also has the error message.
    pub(crate) fn stated_digest(&self) -> Result<Option<Digest>> {
        let expected = self.reference.digest();
        // Mirrors are asked with GET: their answer for a tag may be wrong, and is not a counted
        // pull.
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
                    // A GET would fail the same way.
                    None => digest.algorithm() == Algorithm::Sha256,
                })),
            // Retrying at once would be wrong after this status, and wrong credentials sent twice
            // may lock the account.
            Err(Failure::Status(failure))
                if failure.status == 429
                    || failure.status == 401 && self.credential().is_some() =>
            {
                Err(Failure::Status(failure))
            }
            Err(Failure::Final(Error::Cancelled)) => Err(Failure::Final(Error::Cancelled)),
            Err(_) => Ok(None),
        })
    }
}
