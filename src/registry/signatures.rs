//! Required signatures, which are found at the registry and checked before a layer is requested,
//! and the signatures and other referrers that are kept in the archive.

use super::{Referrer, Repository};
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use crate::image::{Companions, Image};
use crate::manifest::{Content, Descriptor};
use crate::platform::Platform;
use crate::signature::policy::{Needed, identity};
use crate::signature::{self, Demand, Judge, MANIFEST, Manifest, Policy, PublicKey, is_signature};
use std::sync::Arc;

/// The most signatures, and manifests of them, that are checked for one image.
const LOOKED_AT: usize = 128;
/// The most manifests kept beside an image.
const KEPT: usize = 256;

/// Who must have signed an image, and which of its companions are kept.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Requirements {
    keys: Vec<PublicKey>,
    policy: Option<Policy>,
    signatures: bool,
    referrers: Option<String>,
}

impl Requirements {
    /// A signature by this key, or by another one that is named so, must cover the image's manifest
    /// or an index that names it.
    pub fn signed_by(mut self, key: PublicKey) -> Self {
        self.keys.push(key);
        self
    }

    /// The image must have what a policy asks for.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Signatures go into the archive, and so does the index that they may be of.
    pub fn keep_signatures(mut self, keep: bool) -> Self {
        self.signatures = keep;
        self
    }

    /// Referrers of this artifact type go into the archive; of any type if it is empty.
    pub fn keep_referrers(mut self, artifact_type: &str) -> Self {
        self.referrers = Some(artifact_type.to_owned());
        self
    }

    fn keeps(&self) -> bool {
        self.signatures || self.referrers.is_some()
    }
}

impl Repository<'_> {
    /// The image for a platform that meets the requirements.
    ///
    /// # Errors
    ///
    /// [`Error::Unsigned`] if no signature is valid; otherwise as [`Repository::image`].
    pub fn image_with(&self, platform: Option<&Platform>, wanted: &Requirements) -> Result<Image> {
        let needed = self.needed(wanted)?;
        let document = self.manifest()?;
        let index = matches!(document.content(), Content::Index(_));
        let keep = wanted.keeps() && index;
        let kept = keep.then(|| document.clone());
        let mut image = self.image_of(document, platform)?;
        if let Some(index) = kept {
            let mut index = Some(index);
            for digest in image.companions.indexes.clone() {
                let bytes = match index.take().filter(|index| *index.digest() == digest) {
                    Some(document) => {
                        let bytes = document.shared();
                        image.companions.leases.extend_from_slice(document.leases());
                        bytes
                    }
                    None => {
                        let bytes = self.wanted_bytes(&digest)?;
                        let room = self.client.room();
                        let lease = room.take(bytes.len() as u64, 1, "an index that is kept")?;
                        image.companions.leases.push(lease);
                        bytes
                    }
                };
                image.companions.documents.push((digest, bytes));
            }
        }
        let mut targets = image.companions.indexes.clone();
        targets.push(*image.manifest.digest());
        self.accompany(&mut image, &targets, wanted, &needed)?;
        // Whoever put a signed manifest into an index that is not signed may have called it an image
        // for another platform.
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        let alone = |one: &signature::Verified| one.covers == *image.manifest.digest();
        if index
            && image.companions.verified.iter().any(alone)
            && image
                .platform()
                .is_some_and(|found| wanted.rank(found).is_none())
        {
            let found = image
                .platform()
                .map(Platform::to_string)
                .unwrap_or_default();
            return Err(Error::Unsigned {
                what: self.reference.to_string(),
                why: format!(
                    "has a signed manifest for {found}, but an unsigned index says it is for {wanted}"
                ),
            });
        }
        Ok(image)
    }

    /// The images of all platforms, if the index meets the requirements.
    ///
    /// # Errors
    ///
    /// [`Error::Unsigned`] if no signature is valid; otherwise as [`Repository::all_platforms`].
    pub fn all_platforms_with(&self, wanted: &Requirements) -> Result<Image> {
        let needed = self.needed(wanted)?;
        let mut image = self.all_platforms()?;
        let mut targets = vec![*image.manifest.digest()];
        self.accompany(&mut image, &targets, wanted, &needed)?;
        if wanted.keeps() {
            targets = image.documents.iter().map(|one| *one.digest()).collect();
            self.accompany(&mut image, &targets, wanted, &[])?;
        }
        Ok(image)
    }

    fn needed(&self, wanted: &Requirements) -> Result<Vec<Needed>> {
        let mut needed = match &wanted.policy {
            Some(policy) => policy.needed(&self.reference)?,
            None => Vec::new(),
        };
        if !wanted.keys.is_empty() {
            needed.push((wanted.keys.clone(), None));
        }
        Ok(needed)
    }

    /// Checks the signatures, and gathers what to keep.
    fn accompany(
        &self,
        image: &mut Image,
        targets: &[Digest],
        wanted: &Requirements,
        needed: &[Needed],
    ) -> Result<()> {
        if needed.is_empty() && !wanted.keeps() {
            return Ok(());
        }
        // A key that was named asks for no name; a policy may.
        let named = usize::from(!wanted.keys.is_empty());
        let policy = needed.len().saturating_sub(named);
        let rules: Vec<Box<Rule<'_>>> = needed
            .iter()
            .enumerate()
            .map(|(number, (_, rule))| -> Box<Rule<'_>> {
                if number >= policy {
                    return Box::new(|_| Ok(()));
                }
                Box::new(move |signed| identity(rule.as_ref(), &self.reference, signed))
            })
            .collect();
        let demands = needed.iter().zip(&rules).map(|((keys, _), rule)| Demand {
            keys,
            identity: &**rule,
        });
        let mut search = Search {
            repository: self,
            targets,
            judge: Judge::new(demands.collect()),
            wanted,
            looked_at: 0,
            kept: Vec::new(),
            companions: &mut image.companions,
        };
        for target in targets {
            search.around(target)?;
        }
        let Search { judge, kept, .. } = search;
        let verified = judge.verdict(&self.reference.to_string())?;
        for one in &verified {
            self.client.note(&format!(
                "{} is signed by {}: {} of {}",
                self.reference,
                one.key,
                one.form.name(),
                one.covers
            ));
        }
        image.companions.verified.extend(verified);
        let parts = kept.into_iter().flat_map(|(_, parts)| parts);
        image.companions.documents.extend(parts);
        Ok(())
    }

    /// A manifest that must be there.
    fn wanted_bytes(&self, digest: &Digest) -> Result<Arc<Vec<u8>>> {
        let what = format!("manifest {digest} of {}", self.reference.name());
        let found = self.bytes_of(&digest.to_string(), Some(digest), &what, MANIFEST)?;
        found
            .map(Arc::new)
            .ok_or_else(|| Error::not_found(format!("there is no {what}"), Vec::new()))
    }
}

type Rule<'r> = dyn Fn(Option<&str>) -> std::result::Result<(), String> + 'r;

/// A kept manifest, and the blobs of it that are in memory.
pub(crate) type Kept = (Digest, Vec<(Digest, Arc<Vec<u8>>)>);

/// A walk along everything that may be a signature.
struct Search<'s, 'a> {
    repository: &'s Repository<'a>,
    targets: &'s [Digest],
    judge: Judge<'s>,
    wanted: &'s Requirements,
    looked_at: usize,
    kept: Vec<Kept>,
    companions: &'s mut Companions,
}

impl Search<'_, '_> {
    /// The signatures for this digest, newest form first.
    fn around(&mut self, target: &Digest) -> Result<()> {
        if self.is_done() && self.wanted.referrers.is_none() {
            return Ok(());
        }
        let repository = self.repository;
        let referrers = repository.referrers(target)?;
        let found = crate::error::count(referrers.len(), "referrer");
        repository.client.note(&format!("{target} has {found}"));
        for referrer in &referrers {
            let signature = is_signature(&referrer.artifact_type);
            let kept = self.wanted.referrers.as_ref();
            let kept = kept.is_some_and(|kind| kind.is_empty() || *kind == referrer.artifact_type);
            if (signature && !self.is_done()) || kept {
                self.referrer(referrer, kept)?;
            }
        }
        if self.is_done() {
            return Ok(());
        }
        let tag = format!("{}-{}.sig", target.algorithm().name(), target.hex());
        let what = format!("the signatures {tag} of {}", repository.reference.name());
        match repository.bytes_of(&tag, None, &what, MANIFEST)? {
            None => repository.client.note(&format!("there is no tag {tag}")),
            Some(bytes) => {
                let digest = Digest::of(Algorithm::Sha256, &bytes);
                self.manifest(&tag, digest, bytes, false)?;
            }
        }
        Ok(())
    }

    /// Whether there is nothing left to look for.
    fn is_done(&self) -> bool {
        self.judge.is_done() && !self.wanted.signatures
    }

    fn referrer(&mut self, referrer: &Referrer, kept: bool) -> Result<()> {
        let digest = referrer.descriptor.digest;
        let name = format!("referrer {digest}");
        if self.kept.iter().any(|(known, _)| *known == digest) {
            return Ok(());
        }
        self.looked_at += 1;
        if self.looked_at > LOOKED_AT && !kept {
            self.judge
                .flaw(&name, "was not checked: there are too many");
            return Ok(());
        }
        let what = format!("{name} of {}", self.repository.reference.name());
        let bytes = self
            .repository
            .bytes_of(&digest.to_string(), Some(&digest), &what, MANIFEST);
        match bytes {
            Ok(Some(bytes)) => return self.manifest(&name, digest, bytes, kept),
            Ok(None) => self.lost(&name, "is not there"),
            Err(Error::Mismatch { .. }) => self.lost(&name, "does not match its digest"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Something that is not a usable signature, and why.
    fn lost(&mut self, name: &str, why: &str) {
        self.repository.client.note(&format!("{name} {why}"));
        self.judge.flaw(name, why);
    }

    /// A manifest that may hold signatures.
    fn manifest(&mut self, name: &str, digest: Digest, bytes: Vec<u8>, kept: bool) -> Result<()> {
        let manifest = match Manifest::parse(&bytes, "the manifest") {
            Ok(manifest) => manifest,
            Err(error) => {
                self.lost(name, &format!("is not understood: {error}"));
                return Ok(());
            }
        };
        if let Some(kind) = &manifest.attestation {
            let why = format!("is an attestation ({kind}), not a signature of an image");
            self.lost(name, &why);
        }
        let signed = manifest.attestation.is_none();
        let mut parts = vec![(digest, Arc::new(bytes))];
        let keep = self.wanted.signatures && signed && !manifest.layers.is_empty();
        if keep && let Some(config) = &manifest.config {
            let bytes = match config.digest.matches(b"{}") {
                // The empty config of image-spec, manifest.md, needs no request.
                true => Some(b"{}".to_vec()),
                false => self.blob(name, config)?,
            };
            parts.extend(bytes.map(|bytes| (config.digest, Arc::new(bytes))));
        }
        for layer in manifest.layers.iter().filter(|_| signed) {
            if self.is_done() {
                break;
            }
            self.looked_at += 1;
            if self.looked_at > LOOKED_AT {
                self.judge
                    .flaw(name, "has more signatures than are checked");
                break;
            }
            let Some(bytes) = self.blob(name, &layer.descriptor)? else {
                continue;
            };
            let told = self.judge.see(name, &layer.payload, &bytes, self.targets);
            self.repository.client.note(&format!("{name} {told}"));
            parts.push((layer.descriptor.digest, Arc::new(bytes)));
        }
        if keep || kept {
            if self.kept.len() >= KEPT {
                return Err(Error::malformed(
                    format!("what refers to {}", self.repository.reference),
                    format!("is more than {KEPT} manifests, so they are not kept"),
                ));
            }
            let held: u64 = parts.iter().map(|(_, bytes)| bytes.len() as u64).sum();
            let named = if kept { manifest.parts.len() } else { 0 };
            let room = self.repository.client.room();
            let lease = room.take(held, parts.len() + named, name)?;
            self.companions.leases.push(lease);
            for part in manifest.parts.into_iter().take(named) {
                let blobs = &mut self.companions.blobs;
                let at = blobs.partition_point(|own| own.digest < part.digest);
                blobs.insert(at, part);
            }
            // The order does not depend on that in which a registry lists them.
            let at = self.kept.partition_point(|(own, _)| *own < digest);
            self.kept.insert(at, (digest, parts));
        }
        Ok(())
    }

    /// A payload; `None` if it cannot be fetched or is too large.
    fn blob(&mut self, name: &str, descriptor: &Descriptor) -> Result<Option<Vec<u8>>> {
        let what = format!("the signature in {name}");
        match self
            .repository
            .small_blob(descriptor, signature::LIMIT, &what)
        {
            Ok(bytes) => Ok(Some(bytes)),
            Err(
                error @ (Error::TooLarge { .. } | Error::NotFound { .. } | Error::Mismatch { .. }),
            ) => {
                self.lost(name, &format!("cannot be used: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
