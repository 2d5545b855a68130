//! Referrers of a manifest: signatures, SBOMs, attestations (distribution-spec, "Listing
//! Referrers"), from the referrers API or the fallback tag.

use super::error::disguised;
use super::{Ask, MANIFEST_TYPES, Repository, Wanted, content_encoding, manifest_path};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::json::{self, Loose, Number, Text, keys};
use crate::manifest::{Descriptor, Kinds, MOST, OCI_INDEX, bare};
use crate::net::error::Failure;
use crate::net::url::Url;
use miniserde::Deserialize;
use std::collections::BTreeMap;

/// The most bytes of a page, and the most pages.
const PAGE: u64 = 1 << 20;
const PAGES: usize = 64;
/// The limit for the text of all of them.
const TEXTS: usize = 512 << 10;

/// A manifest that refers to another one, as its registry lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Referrer {
    /// The manifest.
    pub descriptor: Descriptor,
    /// Its artifact type; registries differ about this, and it may be empty.
    pub artifact_type: String,
    /// The annotations, sorted by name.
    pub annotations: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Wire {
    manifests: Option<Vec<Loose<WireReferrer>>>,
}

#[derive(Deserialize)]
struct WireReferrer {
    #[serde(rename = "mediaType")]
    media_type: Text,
    digest: Text,
    size: Number,
    #[serde(rename = "artifactType")]
    artifact_type: Text,
    annotations: Loose<BTreeMap<String, Text>>,
}

type Outcome<T> = std::result::Result<T, Failure>;

impl Repository<'_> {
    /// The manifests that refer to this one, in the registry's order.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] for more than a thousand or an endless list; otherwise as
    /// [`Repository::manifest`]. A registry without referrers returns none.
    pub fn referrers(&self, digest: &Digest) -> Result<Vec<Referrer>> {
        let what = format!("the referrers of {}@{digest}", self.reference.name());
        let mut list = List {
            what: &what,
            found: Vec::new(),
            texts: 0,
        };
        let api = self.lookup(None, &what, |there| {
            let path = format!("/referrers/{digest}");
            let mut url = there.url(&path);
            list.clear();
            for _ in 0..PAGES {
                match there.page(&url, &mut list)? {
                    Some(next) if next != url => url = next,
                    _ => return Ok(()),
                }
            }
            let why = format!("do not end after {PAGES} pages");
            Err(Error::malformed(&*what, why).into())
        })?;
        if api.is_none() {
            // At most 64 digits (distribution-spec, "Referrers Tag Schema").
            let tag = format!("{}-{:.64}", digest.algorithm().name(), digest.hex());
            list.clear();
            if let Some(bytes) = self.bytes_of(&tag, None, &what, PAGE)? {
                list.take(&bytes)?;
            }
        }
        Ok(list.found)
    }

    /// The result from a mirror or the registry; `None` if neither has it.
    fn lookup<T>(
        &self,
        digest: Option<&Digest>,
        what: &str,
        mut once: impl FnMut(&Self) -> Outcome<T>,
    ) -> Result<Option<T>> {
        let doing = format!("requesting {what}");
        for mirror in self.client.mirrors(digest) {
            match once(&self.at(mirror, mirror.wants_namespace())) {
                Ok(found) => return Ok(Some(found)),
                // That it lacks a tag or the API says nothing about its layers.
                Err(failure) if digest.is_none() && is_absent(&failure) => {}
                Err(failure) => self
                    .client
                    .pass_over(mirror, digest, &failure)
                    .map_err(|failure| failure.into_error(&doing, 1))?,
            }
        }
        self.client.again(&doing, || match once(self) {
            Ok(found) => Ok(Some(found)),
            Err(failure) if is_absent(&failure) => Ok(None),
            Err(failure) => Err(failure),
        })
    }

    /// A page of referrers; gives the address of the next one.
    fn page(&self, url: &Url, list: &mut List<'_>) -> Outcome<Option<Url>> {
        let ask = Ask {
            accept: &[OCI_INDEX],
            ..Ask::default()
        };
        let (response, answered) = self.follow(url, ask, true)?;
        let status = response.status();
        let media_type = response.field("content-type").unwrap_or_default();
        // A server that answers every URL with a page has no referrers.
        let is_index = [OCI_INDEX, "application/json", ""].contains(&bare(media_type));
        let next = super::tags::link::next(response.head.fields.all("link"));
        let next = next.map(|next| self.next_page(&answered, &next, "of referrers"));
        let bytes = content_encoding::document(response, PAGE, list.what)?;
        if let Some(failure) = disguised(url, status, &bytes, false) {
            return Err(Failure::Status(Box::new(failure)));
        }
        if !is_index {
            return Err(Failure::Final(Error::not_found(
                format!("{}: the response is not an index", list.what),
                Vec::new(),
            )));
        }
        list.take(&bytes)?;
        Ok(next.transpose()?)
    }

    /// The bytes of a manifest by tag or digest, at most `limit`; `None` if it does not exist.
    pub(super) fn bytes_of(
        &self,
        target: &str,
        expected: Option<&Digest>,
        what: &str,
        limit: u64,
    ) -> Result<Option<Vec<u8>>> {
        let wanted = Wanted {
            target,
            expected,
            what,
            kinds: Kinds::All,
        };
        let ask = Ask {
            accept: &MANIFEST_TYPES,
            ..Ask::default()
        };
        self.lookup(expected, what, |there| {
            let url = there.url(&manifest_path(target));
            let (bytes, _) = there.document_within(&url, ask, wanted, limit)?;
            match expected {
                Some(digest) if !digest.matches(&bytes) => Err(Error::Mismatch {
                    blob: what.to_owned(),
                    digest: Box::new(*digest),
                    expected: digest.to_string(),
                    found: Digest::of(digest.algorithm(), &bytes).to_string(),
                }
                .into()),
                _ => Ok(bytes),
            }
        })
    }
}

/// Whether there is nothing at this URL, or no such API.
fn is_absent(failure: &Failure) -> bool {
    match failure {
        Failure::Status(status) => {
            matches!(status.status, 400 | 404 | 405 | 406 | 501) && !status.redirected
        }
        Failure::Final(Error::NotFound { .. }) => true,
        _ => false,
    }
}

/// Referrers as they come, within limits.
struct List<'w> {
    what: &'w str,
    found: Vec<Referrer>,
    texts: usize,
}

impl List<'_> {
    fn clear(&mut self) {
        self.found.clear();
        self.texts = 0;
    }

    fn take(&mut self, bytes: &[u8]) -> Result<()> {
        let wire: Wire = json::parse_small(bytes, self.what, &keys::DOCUMENT)?;
        let entries = wire
            .manifests
            .ok_or_else(|| Error::malformed(self.what, "are not an index"))?;
        // An entry that cannot be used spoils no other.
        for Loose(entry) in entries {
            let Some(referrer) = entry.and_then(WireReferrer::referrer) else {
                continue;
            };
            let texts = referrer
                .annotations
                .iter()
                .map(|(name, text)| name.len() + text.len());
            self.texts += texts.sum::<usize>() + referrer.artifact_type.len();
            self.found.push(referrer);
            if self.found.len() > MOST || self.texts > TEXTS {
                let why = format!("are more than {MOST}, or have more than {TEXTS} bytes of text");
                return Err(Error::malformed(self.what, why));
            }
        }
        Ok(())
    }
}

impl WireReferrer {
    fn referrer(self) -> Option<Referrer> {
        let Number::Is(size) = self.size else {
            return None;
        };
        let annotations = self.annotations.0.unwrap_or_default().into_iter();
        Some(Referrer {
            descriptor: Descriptor {
                media_type: self.media_type.0,
                digest: self.digest.0.parse().ok()?,
                size,
                urls: Vec::new(),
            },
            artifact_type: self.artifact_type.0,
            annotations: annotations.map(|(name, text)| (name, text.0)).collect(),
        })
    }
}
