//! The plan of an archive: its entries, their sizes and offsets. Pure: no I/O happens here, and the
//! same images and options give the same plan.
//!
//! One tar is a docker-archive and an OCI layout at once: `oci-layout`, `index.json`,
//! `manifest.json`, then each blob once under `blobs/`. Metadata is fixed (mode 0644, owner 0, time
//! 0), and there are no directories, links or PAX headers, which loaders disagree about. All sizes
//! are known from the manifests, so every blob has its place before its first byte is requested.

use super::base::Base;
use super::documents::{distinct, index_json, manifest_json, missing, with_layers};
use super::tar::writer::{BLOCK, header, header_size, padding};
use super::thin::{Missing, Thin, Whole};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::manifest::{Content, Descriptor};
use crate::reference::Reference;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The most bytes of manifests that a run may have to rewrite.
const INFLATABLE: u64 = 512 << 10;

/// Which loaders the archive is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A docker-archive and an OCI layout at once.
    #[default]
    Docker,
    /// Only an OCI layout, without `manifest.json`.
    Oci,
}

/// Options for the layout of an archive.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct PlanOptions {
    format: Format,
    leave: Leave,
}

/// Which layers are left out.
#[derive(Clone, Debug, Default)]
enum Leave {
    #[default]
    Nothing,
    /// Those that a target has, as far as it finds them there.
    Base(Base),
    These(BTreeSet<Digest>),
}

impl PlanOptions {
    /// Sets the format (default: [`Format::Docker`]). An image with several platforms always makes
    /// an OCI layout, because a docker-archive cannot hold them.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Leaves out the layers that a target has already. The archive is a thin one then, and says so
    /// in index.json; all documents of the images are in it. Where nothing can be left out, it is
    /// the full one.
    pub fn base(mut self, base: Base) -> Self {
        self.leave = Leave::Base(base);
        self
    }

    /// Leaves these layers out, wherever they stand.
    pub(crate) fn without(mut self, layers: BTreeSet<Digest>) -> Self {
        self.leave = Leave::These(layers);
        self
    }
}

/// Where an entry's bytes come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Memory(Arc<Vec<u8>>),
    /// The blob with this number.
    Blob(usize),
}

/// A run of the archive's bytes.
pub(crate) enum Part<'p> {
    Bytes(Cow<'p, [u8]>),
    /// The whole blob with this number.
    Blob(usize),
}

/// One file in the archive.
#[derive(Clone, Debug)]
pub struct Entry {
    path: String,
    size: u64,
    /// Of its first header block.
    start: u64,
    source: Source,
}

impl Entry {
    /// Its path in the archive.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it is downloaded; otherwise its content is already known.
    pub fn is_downloaded(&self) -> bool {
        matches!(self.source, Source::Blob(_))
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The offset of its first byte.
    pub(super) fn data_start(&self) -> u64 {
        self.start + header_size(&self.path)
    }
}

/// A blob to be downloaded, and its place.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    pub descriptor: Descriptor,
    /// The offset of its first byte in the archive.
    pub offset: u64,
    /// The number of the first image it belongs to.
    pub image: usize,
}

/// The archive before it exists.
#[derive(Clone, Debug)]
pub struct Plan {
    entries: Vec<Entry>,
    blobs: Vec<Blob>,
    images: Vec<Image>,
    options: PlanOptions,
    size: u64,
    digest: Digest,
    left_out: BTreeSet<Digest>,
}

impl Plan {
    /// Lays out an archive of these images; shared layers are in it once.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if two descriptors give the same digest different sizes, or the sizes
    /// add up to more than a file can hold.
    pub fn new(images: &[Image], options: &PlanOptions) -> Result<Self> {
        let full = Self::lay_out(images, options, None)?;
        let left_out = match &options.leave {
            Leave::Nothing => return Ok(full),
            Leave::Base(base) => base.left_out(images),
            Leave::These(layers) => layers.clone(),
        };
        if left_out.is_empty() {
            return Ok(full);
        }
        let whole = full.identity();
        Self::lay_out(images, options, Some(Thin { left_out, whole }))
    }

    fn lay_out(images: &[Image], options: &PlanOptions, thin: Option<Thin>) -> Result<Self> {
        let mut builder = Builder::default();
        builder.memory("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let single = |image: &Image| matches!(image.manifest.content(), Content::Manifest { .. });
        let docker = options.format == Format::Docker && images.iter().all(single);
        let index = index_json(images, !docker, thin.as_ref());
        builder.left_out = thin.map(|thin| thin.left_out).unwrap_or_default();
        builder.memory("index.json", index.into_bytes());
        if docker {
            builder.memory("manifest.json", manifest_json(images).into_bytes());
        }
        for image in images {
            for document in image.tree() {
                builder.document(document.digest(), document.shared())?;
            }
        }
        for image in images {
            if let Some(bytes) = &image.config_bytes {
                builder.document(&image.config.digest, bytes.clone())?;
            }
        }
        for (number, image) in images.iter().enumerate() {
            for layer in image.layers.iter() {
                builder.blob(layer, number)?;
            }
        }
        for image in images {
            for (digest, bytes) in &image.companions.documents {
                builder.document(digest, bytes.clone())?;
            }
        }
        for (number, image) in images.iter().enumerate() {
            for blob in &image.companions.blobs {
                builder.blob(blob, number)?;
            }
        }
        builder.finish(images, options)
    }

    /// The same archive with nothing left out.
    ///
    /// # Errors
    ///
    /// As [`Plan::new`].
    pub fn whole(&self) -> Result<Self> {
        Self::lay_out(&self.images, &self.options, None)
    }

    /// What identifies the archive.
    pub(crate) fn identity(&self) -> Whole {
        Whole {
            size: self.size,
            digest: self.digest,
        }
    }

    /// The layers that are left out, each once.
    pub fn missing(&self) -> Vec<Missing> {
        let mut found: Vec<Missing> = Vec::new();
        for image in &self.images {
            for one in missing(image, &self.left_out) {
                if !found.iter().any(|known| known.digest == one.digest) {
                    found.push(one);
                }
            }
        }
        found
    }

    /// The layers that are left out, or would be if this were not the whole archive.
    pub(crate) fn can_leave_out(&self) -> BTreeSet<Digest> {
        match &self.options.leave {
            Leave::Base(base) => base.left_out(&self.images),
            _ => BTreeSet::new(),
        }
    }

    /// The archives that say what the target has.
    pub(crate) fn bases(&self) -> impl Iterator<Item = &Path> {
        let base = match &self.options.leave {
            Leave::Base(base) => Some(base),
            _ => None,
        };
        base.into_iter().flat_map(Base::archives)
    }

    /// The bytes of the layers in the archive that the base has, too, but that cannot be left out,
    /// since they lie above one that it has not.
    pub fn above(&self) -> u64 {
        let Leave::Base(base) = &self.options.leave else {
            return 0;
        };
        let any = base.clone().any(true).left_out(&self.images);
        let blobs = self.blobs.iter().map(|blob| &blob.descriptor);
        blobs
            .filter(|of| any.contains(&of.digest))
            .map(|of| of.size)
            .sum()
    }

    /// How many bytes of the archive are held in memory.
    pub(crate) fn documents_size(&self) -> u64 {
        let known = self.entries.iter().filter(|entry| !entry.is_downloaded());
        known.map(Entry::size).sum()
    }

    /// Fails if a manifest is too large to be rewritten by [`Plan::inflated`].
    pub(crate) fn check_inflatable(&self) -> Result<()> {
        let mut left = INFLATABLE;
        for image in &self.images {
            let size = image.manifest.bytes().len() as u64;
            left = left.checked_sub(size).ok_or_else(|| Error::TooLarge {
                what: format!(
                    "to be inflated, the manifest of {}, alone or together with those of the other images,",
                    image.reference
                ),
                limit: INFLATABLE,
            })?;
            with_layers(&image.manifest, &[])?;
        }
        Ok(())
    }

    /// The plan of the same images with uncompressed layers; `inflated` has the digest and size of
    /// each blob of this plan.
    pub(crate) fn inflated(&self, inflated: &[(Digest, u64)]) -> Result<Self> {
        let number = |layer: &Descriptor| {
            let known = |blob: &Blob| blob.descriptor.digest == layer.digest;
            self.blobs.iter().position(known)
        };
        let images = self.images.iter().map(|image| {
            let layers = image.layers.iter().filter_map(number);
            let layers: Vec<(Digest, u64)> = layers.map(|number| inflated[number]).collect();
            let manifest = with_layers(&image.manifest, &layers)?;
            let layers = match manifest.content() {
                Content::Manifest { layers, .. } => layers.clone(),
                Content::Index(_) => Vec::new().into(),
            };
            Ok(Image {
                manifest,
                layers,
                ..image.clone()
            })
        });
        Self::new(&images.collect::<Result<Vec<_>>>()?, &self.options)
    }

    /// The images, in the order they were given.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// Each manifest or index that the archive names, with the references to it.
    pub fn named(&self) -> Vec<(&Image, Vec<&Reference>)> {
        distinct(&self.images)
    }

    /// The size of the archive in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes to download: all blobs together.
    pub fn download_size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.descriptor.size).sum()
    }

    pub(crate) fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// The reference under which a blob is requested.
    pub(crate) fn reference(&self, blob: usize) -> &Reference {
        &self.image(blob).reference
    }

    /// The diff ID of a layer, from the first config that lists it.
    pub(crate) fn diff_id(&self, blob: usize) -> Option<Digest> {
        let digest = &self.blobs[blob].descriptor.digest;
        self.images.iter().find_map(|image| {
            let at = image.layers().iter().position(|l| l.digest == *digest)?;
            image.diff_ids().get(at).copied()
        })
    }

    /// The image that a blob belongs to.
    pub(crate) fn image(&self, blob: usize) -> &Image {
        &self.images[self.blobs[blob].image]
    }

    /// Identifies the plan: two plans with the same digest give the same archive.
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The whole archive, in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let entries = self.entries.iter().flat_map(|entry| {
            [
                Part::Bytes(Cow::Owned(header(&entry.path, entry.size))),
                match &entry.source {
                    Source::Memory(bytes) => Part::Bytes(Cow::Borrowed(bytes)),
                    Source::Blob(number) => Part::Blob(*number),
                },
                Part::Bytes(Cow::Owned(vec![0; padding(entry.size) as usize])),
            ]
        });
        let end = Part::Bytes(Cow::Owned(vec![0; 2 * BLOCK as usize]));
        entries.chain([end])
    }

    /// Everything but the blobs, as pieces with their offsets: headers, documents, padding, end.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, Cow<'_, [u8]>)> {
        let mut at = 0;
        self.parts().filter_map(move |part| {
            let place = at;
            match part {
                Part::Blob(number) => {
                    at += self.blobs[number].descriptor.size;
                    None
                }
                Part::Bytes(bytes) => {
                    at += bytes.len() as u64;
                    (!bytes.is_empty()).then_some((place, bytes))
                }
            }
        })
    }
}

#[derive(Default)]
struct Builder {
    entries: Vec<Entry>,
    blobs: Vec<Blob>,
    known: BTreeMap<Digest, u64>,
    left_out: BTreeSet<Digest>,
}

impl Builder {
    fn push(&mut self, path: String, size: u64, source: Source) {
        self.entries.push(Entry {
            path,
            size,
            start: 0,
            source,
        });
    }

    fn memory(&mut self, path: &str, bytes: Vec<u8>) {
        self.push(
            path.to_owned(),
            bytes.len() as u64,
            Source::Memory(bytes.into()),
        );
    }

    /// Whether this digest is new. The same digest with two sizes is an error.
    fn is_new(&mut self, digest: &Digest, size: u64) -> Result<bool> {
        match self.known.insert(*digest, size) {
            None => Ok(true),
            Some(known) if known == size => Ok(false),
            Some(known) => Err(Error::malformed(
                format!("blob {digest}"),
                format!("has two sizes: {known} bytes and {size} bytes"),
            )),
        }
    }

    fn document(&mut self, digest: &Digest, bytes: Arc<Vec<u8>>) -> Result<()> {
        if self.is_new(digest, bytes.len() as u64)? {
            self.push(digest.path(), bytes.len() as u64, Source::Memory(bytes));
        }
        Ok(())
    }

    fn blob(&mut self, descriptor: &Descriptor, image: usize) -> Result<()> {
        let left_out = self.left_out.contains(&descriptor.digest);
        if self.is_new(&descriptor.digest, descriptor.size)? && !left_out {
            self.push(
                descriptor.digest.path(),
                descriptor.size,
                Source::Blob(self.blobs.len()),
            );
            self.blobs.push(Blob {
                descriptor: descriptor.clone(),
                offset: 0,
                image,
            });
        }
        Ok(())
    }

    fn finish(mut self, images: &[Image], options: &PlanOptions) -> Result<Plan> {
        let too_large = || {
            Error::malformed(
                "the image",
                "has blobs that add up to more than a file can hold",
            )
        };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"dockersave plan 2\n");
        let mut at = 0_u64;
        for entry in &mut self.entries {
            entry.start = at;
            let data = entry.data_start();
            if let Source::Blob(number) = entry.source {
                self.blobs[number].offset = data;
            }
            hasher.update(entry.path.as_bytes());
            hasher.update(&[0]);
            hasher.update(&entry.size.to_le_bytes());
            // What lies below blobs/ has its digest in its path.
            if let Source::Memory(bytes) = &entry.source
                && !entry.path.starts_with("blobs/")
            {
                hasher.update(bytes.as_slice());
            }
            at = data
                .checked_add(entry.size)
                .and_then(|end| end.checked_add(padding(entry.size)))
                .ok_or_else(too_large)?;
            if at > i64::MAX as u64 / 2 {
                return Err(too_large());
            }
        }
        Ok(Plan {
            entries: self.entries,
            blobs: self.blobs,
            images: images.to_vec(),
            options: options.clone(),
            size: at + 2 * BLOCK,
            digest: hasher.finish(),
            left_out: self.left_out,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::manifest::Document;

    /// An image whose layers have these contents' digests and sizes.
    pub(crate) fn image(name: &str, layers: &[(Digest, u64)]) -> Image {
        let config_bytes: Vec<u8> = format!(r#"{{"name":"{name}"}}"#).into_bytes();
        let config_digest = Digest::of(Algorithm::Sha256, &config_bytes);
        let layer = |(digest, size): &(Digest, u64)| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{digest}","size":{size}}}"#
            )
        };
        let text = format!(
            r#"{{"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{}]}}"#,
            config_bytes.len(),
            layers.iter().map(layer).collect::<Vec<_>>().join(",")
        );
        let manifest = Document::parse(text.into_bytes(), None, None, "x").unwrap();
        let Content::Manifest { config, layers } = manifest.content().clone() else {
            panic!()
        };
        Image {
            reference: name.parse().unwrap(),
            alias: None,
            manifest,
            config,
            config_bytes: Some(config_bytes.into()),
            documents: Vec::new(),
            diff_ids: Vec::new(),
            layers,
            platform: None,
            warnings: Vec::new(),
            companions: Default::default(),
        }
    }

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn whole(plan: &Plan) -> Vec<u8> {
        let mut bytes = vec![0xAA; plan.size() as usize];
        for (offset, piece) in plan.pieces() {
            bytes[offset as usize..][..piece.len()].copy_from_slice(&piece);
        }
        for blob in plan.blobs() {
            bytes[blob.offset as usize..][..blob.descriptor.size as usize].fill(b'x');
        }
        bytes
    }

    #[test]
    fn every_byte_has_its_place() {
        for size in [0, 1, 511, 512, 513, 5000] {
            let plan = Plan::new(
                &[image(
                    "a",
                    &[
                        (digest("1"), size),
                        (Digest::of(Algorithm::Sha512, b"2"), 3),
                    ],
                )],
                &PlanOptions::default(),
            )
            .unwrap();
            let bytes = whole(&plan);
            assert!(!bytes.contains(&0xAA), "a byte was left out");
            assert_eq!(bytes.len() % 512, 0);
            let mut archive = tar::Archive::new(&bytes[..]);
            let listed: Vec<(String, u64)> = archive
                .entries()
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    (entry.path().unwrap().display().to_string(), entry.size())
                })
                .collect();
            let planned: Vec<(String, u64)> = plan
                .entries()
                .iter()
                .map(|e| (e.path().to_owned(), e.size()))
                .collect();
            assert_eq!(listed, planned);
            assert_eq!(listed[0].0, "oci-layout");
            assert_eq!(listed.last().unwrap().0.len(), 141);
        }
    }

    #[test]
    fn large_sizes_are_in_base_256() {
        for size in [8 << 30, (8 << 30) - 1, 10 << 40] {
            let bytes = header("blobs/sha256/x", size);
            assert_eq!(tar::Header::from_byte_slice(&bytes).size().unwrap(), size);
        }
    }

    #[test]
    fn equal_blobs_stand_once_and_are_listed_as_often_as_named() {
        let one = image("a", &[(digest("1"), 5), (digest("2"), 6), (digest("1"), 5)]);
        let plan = Plan::new(
            &[one.clone(), image("b", &[(digest("2"), 6)])],
            &PlanOptions::default(),
        )
        .unwrap();
        assert_eq!(plan.blobs().len(), 2);
        assert_eq!(plan.download_size(), 11);
        assert_eq!(manifest_json(&[one]).matches(&digest("1").hex()).count(), 2);
        assert!(
            Plan::new(
                &[image("a", &[(digest("1"), 5), (digest("1"), 6)])],
                &PlanOptions::default()
            )
            .is_err()
        );
        assert!(
            Plan::new(
                &[image(
                    "a",
                    &[
                        (digest("1"), i64::MAX as u64),
                        (digest("2"), i64::MAX as u64)
                    ]
                )],
                &PlanOptions::default()
            )
            .is_err()
        );
    }

    #[test]
    fn a_digest_alone_invents_no_tag() {
        let mut pinned = image("a", &[]);
        pinned.reference = format!("debian@{}", digest("x")).parse().unwrap();
        assert!(manifest_json(&[pinned.clone()]).contains(r#""RepoTags":null"#));
        assert!(!index_json(&[pinned], true, None).contains("annotations"));
        let tagged = image("debian:12", &[]);
        assert!(
            manifest_json(std::slice::from_ref(&tagged)).contains(r#""RepoTags":["debian:12"]"#)
        );
        let index = index_json(&[tagged.clone(), image("debian:12", &[])], false, None);
        assert!(index.contains(r#""io.containerd.image.name":"docker.io/library/debian:12","org.opencontainers.image.ref.name":"12""#));
        assert_eq!(index.matches("annotations").count(), 1);
        let alone = |name: &str| index_json(&[image(name, &[])], true, None);
        let check = |name: &str| {
            alone(name)
                .split("dockersave.names")
                .nth(1)
                .map(str::to_owned)
        };
        assert!(check("debian:12").is_some() && check("debian:12") != check("debias:12"));
        let mut second = tagged.clone();
        second.reference = "other:1".parse().unwrap();
        assert!(manifest_json(&[tagged, second]).contains(r#"["debian:12","other:1"]"#));
    }

    #[test]
    fn the_plans_digest_depends_on_everything() {
        let plan = |images: &[Image]| *Plan::new(images, &PlanOptions::default()).unwrap().digest();
        let base = plan(&[image("a", &[(digest("1"), 5)])]);
        assert_eq!(base, plan(&[image("a", &[(digest("1"), 5)])]));
        for other in [
            image("b", &[(digest("1"), 5)]),
            image("a", &[(digest("2"), 5)]),
            image("a", &[(digest("1"), 6)]),
        ] {
            assert_ne!(base, plan(&[other]));
        }
    }
}
