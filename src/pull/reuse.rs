//! Reuse of blobs from existing archives and directories: found by digest, and hashed before use.

use crate::archive::plan::{Blob, Plan};
use crate::archive::source::{Existing, Place};
use crate::digest::Digest;
use crate::error::Result;
use crate::registry::Client;
use std::path::{Path, PathBuf};

/// The archives that a pull may reuse. One that was named must be usable; lenders and the one about
/// to be replaced may be anything.
pub(super) fn open(
    named: &[PathBuf],
    lenders: &[PathBuf],
    replaced: Option<&Path>,
    client: &Client,
) -> Result<Vec<Existing>> {
    let mut found = Vec::new();
    for path in named {
        found.push(Existing::open(path)?);
    }
    let others = lenders.iter().map(PathBuf::as_path).chain(replaced);
    for path in others.filter(|path| path.exists()) {
        match Existing::open(path) {
            Ok(existing) => found.push(existing),
            Err(error) => client.note(&format!("not reusing the existing archive: {error}")),
        }
    }
    Ok(found)
}

/// The names of the images in an archive or a directory, as far as they can be read: references as
/// written in the archive, none if there is no archive.
pub fn image_names(path: impl AsRef<Path>) -> Vec<String> {
    Existing::open(path.as_ref()).map_or_else(|_| Vec::new(), |existing| existing.image_names())
}

/// For each named archive that cannot be reused at all, a line that says why.
pub(super) fn useless(
    named: &[PathBuf],
    existing: &[Existing],
    plan: &Plan,
    inflated: bool,
) -> Vec<String> {
    let line = |(path, one): (&PathBuf, &Existing)| {
        let descriptors = plan.blobs().iter().map(|blob| &blob.descriptor);
        let serves = |digest: &Digest, size| !one.find(digest, size).is_empty();
        if descriptors
            .into_iter()
            .any(|of| serves(&of.digest, Some(of.size)))
        {
            return None;
        }
        let mut layers = (0..plan.blobs().len()).filter_map(|blob| plan.diff_id(blob));
        let why = match layers.any(|id| serves(&id, None)) {
            true if inflated => return None,
            true => "its layers are uncompressed, which only a pull that gunzips layers can use",
            false if one.is_empty() => {
                "it holds no blobs where an archive or image directory has them"
            }
            false => {
                "none of its files is a blob of this image (recompressed layers have other digests)"
            }
        };
        Some(format!("nothing reused from {}: {why}", path.display()))
    };
    named.iter().zip(existing).filter_map(line).collect()
}

/// Places that may hold a blob of a plan.
pub(super) fn candidates<'e>(
    existing: &'e [Existing],
    blob: &'e Blob,
) -> impl Iterator<Item = Place> + 'e {
    let (digest, size) = (&blob.descriptor.digest, blob.descriptor.size);
    let named = existing
        .iter()
        .flat_map(move |one| one.find(digest, Some(size)));
    // The same archive with damaged headers: the blob is where it will be in the new one.
    let same = existing.iter();
    named.chain(same.filter_map(move |one| one.at(blob.offset, size)))
}

/// For each blob of a plan, a place that has it, by digest.
pub(super) fn blobs(existing: &[Existing], plan: &Plan) -> Vec<Option<Place>> {
    let blobs = plan.blobs().iter().map(|blob| {
        let descriptor = &blob.descriptor;
        if descriptor.size == 0 {
            return None;
        }
        candidates(existing, blob).find(|place| place.holds(&descriptor.digest))
    });
    blobs.collect()
}

/// For each blob of a plan, a place that has it uncompressed, by diff ID; empty unless `wanted`.
pub(super) fn layers(existing: &[Existing], plan: &Plan, wanted: bool) -> Vec<Option<Place>> {
    let layers = (0..plan.blobs().len()).map(|blob| {
        let diff_id = plan.diff_id(blob).filter(|_| wanted)?;
        let mut places = existing.iter().flat_map(|one| one.find(&diff_id, None));
        places.find(|place| place.holds(&diff_id))
    });
    layers.collect()
}

/// For each blob of a plan, whether it would be reused. Digests in names are believed, and files
/// without one are hashed; `inflated`: uncompressed layers count, too.
pub(super) fn claims(existing: &[Existing], plan: &Plan, inflated: bool) -> Vec<bool> {
    let layers = layers(existing, plan, inflated);
    let blobs = plan.blobs().iter().zip(layers);
    let claims = blobs.map(|(blob, layer)| {
        let (digest, size) = (&blob.descriptor.digest, blob.descriptor.size);
        layer.is_some()
            || existing.iter().any(|one| one.names(digest, size))
            || existing
                .iter()
                .flat_map(|one| one.find(digest, Some(size)))
                .any(|place| place.holds(digest))
    });
    claims.collect()
}
