//! Bases: what a target already has, from an older archive or from its engine's output, so that a
//! thin archive can leave it out.
//!
//! Docker's classic store finds a layer by its chain ID, which identifies all layers from the
//! lowest up to it (image-spec, config.md, "Layer ChainID"); it reads only the others from the
//! archive. So a layer may be left out if it is on top of the same layers as on the target: leading
//! layers. containerd's stores find any blob by its digest; there all may be left out that is
//! there, if the caller says that the target is one.
//!
//! Pure; [`super::inventory`] reads bases.

use crate::digest::{Algorithm, Digest, Hasher};
use crate::image::Image;
use crate::manifest::{Content, Descriptor, is_image_config};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a target has, according to several archives and lists.
#[derive(Clone, Debug, Default)]
pub struct Base {
    pub(super) sources: Arc<Vec<Known>>,
    pub(super) any: bool,
}

/// What one of them says.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub path: PathBuf,
    /// Blobs' digests and diff IDs, sorted.
    pub held: Vec<Digest>,
    /// The diff IDs of images, lowest first, if their order is known.
    pub stacks: Vec<Vec<Digest>>,
    /// Its image, if there is only one.
    pub image: Option<Digest>,
    /// It is an archive or a directory, and no list.
    pub is_archive: bool,
    /// An archive that is thin itself.
    pub is_thin: bool,
}

impl Known {
    pub fn holds(&self, digest: &Digest) -> bool {
        self.held.binary_search(digest).is_ok()
    }
}

impl Base {
    /// Whether any layer may be left out, not only the lowest ones: for targets with a containerd
    /// store.
    pub fn any(mut self, any: bool) -> Self {
        self.any = any;
        self
    }

    /// Identifies the base: the digest of its manifest if it is one image, otherwise a digest of
    /// everything in it.
    pub fn digest(&self) -> Digest {
        if let [known] = &self.sources[..]
            && let Some(image) = known.image
        {
            return image;
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut held: BTreeSet<Digest> = BTreeSet::new();
        held.extend(self.sources.iter().flat_map(|known| &known.held));
        for digest in held {
            hasher.update(digest.as_bytes());
        }
        hasher.finish()
    }

    /// The archives and directories among them.
    pub fn archives(&self) -> impl Iterator<Item = &Path> {
        let archives = self.sources.iter().filter(|known| known.is_archive);
        archives.map(|known| known.path.as_path())
    }

    /// Those that are thin archives themselves, and count for the layers that they hold.
    pub fn thin(&self) -> impl Iterator<Item = &Path> {
        let thin = self.sources.iter().filter(|known| known.is_thin);
        thin.map(|known| known.path.as_path())
    }

    /// The layers of these images that may be left out: each only where all images that have it
    /// allow it.
    pub(super) fn left_out(&self, images: &[Image]) -> BTreeSet<Digest> {
        let mut found: BTreeMap<Digest, bool> = BTreeMap::new();
        for image in images {
            let documents = image.tree();
            for document in documents {
                let Content::Manifest { config, layers } = document.content() else {
                    continue;
                };
                let is_image = is_image_config(&config.media_type);
                found.insert(config.digest, false);
                self.judge(layers, &image.diff_ids, is_image, &mut found);
            }
        }
        found.retain(|_, left_out| *left_out);
        let mut left_out = BTreeSet::new();
        left_out.extend(found.into_keys());
        left_out
    }

    fn judge(
        &self,
        layers: &[Descriptor],
        diff_ids: &[Digest],
        is_image: bool,
        found: &mut BTreeMap<Digest, bool>,
    ) {
        let mut allowed = is_image;
        for (number, layer) in layers.iter().enumerate() {
            let below = diff_ids.get(..=number);
            let here = is_image && self.lies_on(&layer.digest, below);
            allowed = here && (allowed || self.any);
            let every = found.entry(layer.digest).or_insert(true);
            *every &= allowed;
        }
    }

    /// Whether the target has this layer on top of the ones below it. Its diff ID is the last of
    /// these.
    fn lies_on(&self, layer: &Digest, below: Option<&[Digest]>) -> bool {
        let diff_id = below.and_then(|ids| ids.last());
        let ordered = |known: &Known| {
            known.stacks.is_empty()
                || below.is_none_or(|ids| {
                    let mut stacks = self.sources.iter().flat_map(|known| &known.stacks);
                    stacks.any(|stack| stack.starts_with(ids))
                })
        };
        self.sources.iter().any(|known| {
            let held = known.holds(layer) || diff_id.is_some_and(|id| known.holds(id));
            held && (self.any || ordered(known))
        })
    }
}
