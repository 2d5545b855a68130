//! The plan of an archive: its entries, their sizes and offsets. Pure: no I/O happens here, and the
//! same images and options give the same plan.
//!
//! One tar is a docker-archive and an OCI layout at once: `oci-layout`, `index.json`,
//! `manifest.json`, then each blob once under `blobs/`. Metadata is fixed (mode 0644, owner 0, time
//! 0), and there are no directories, links or PAX headers, which loaders disagree about. All sizes
//! are known from the manifests, so every blob has its place before its first byte is requested.

use super::documents::{distinct, index_json, manifest_json, with_layers};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::manifest::{Content, Descriptor};
use crate::reference::Reference;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most bytes of manifests that a run may have to rewrite.
const INFLATABLE: u64 = 512 << 10;

/// The block size of a tar.
const BLOCK: u64 = 512;

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
}

impl PlanOptions {
    /// Sets the format (default: [`Format::Docker`]). An image with several platforms always makes
    /// an OCI layout, because a docker-archive cannot hold them.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
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
}

impl Plan {
    /// Lays out an archive of these images; shared layers are in it once.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if two descriptors give the same digest different sizes, or the sizes
    /// add up to more than a file can hold.
    pub fn new(images: &[Image], options: &PlanOptions) -> Result<Self> {
        let mut builder = Builder::default();
        builder.memory("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        let single = |image: &Image| matches!(image.manifest.content(), Content::Manifest { .. });
        let docker = options.format == Format::Docker && images.iter().all(single);
        builder.memory("index.json", index_json(images, !docker).into_bytes());
        if docker {
            builder.memory("manifest.json", manifest_json(images).into_bytes());
        }
        for image in images {
            for document in std::iter::once(&image.manifest).chain(&image.documents) {
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
                    "with --gunzip, the manifest of {}, alone or together with those of the other images,",
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
        if self.is_new(&descriptor.digest, descriptor.size)? {
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
        hasher.update(b"dockersave plan 1\n");
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
            if let Source::Memory(bytes) = &entry.source {
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
        })
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len() + padding(bytes.len() as u64) as usize, 0);
}

/// Paths of more than 100 bytes (those of sha512 blobs) need a GNU long-name entry before the
/// header.
fn header_size(path: &str) -> u64 {
    match path.len() as u64 {
        0..=100 => BLOCK,
        long => 2 * BLOCK + long + 1 + padding(long + 1),
    }
}

/// The header blocks of a plain file. Sizes from 8 GiB on are in base 256, as GNU tar writes them
/// and Go and bsdtar read them.
pub(super) fn header(path: &str, size: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(header_size(path) as usize);
    if path.len() > 100 {
        bytes.extend_from_slice(&block(
            b"././@LongLink",
            tar::EntryType::GNULongName,
            path.len() as u64 + 1,
        ));
        bytes.extend_from_slice(path.as_bytes());
        bytes.push(0);
        pad(&mut bytes);
    }
    bytes.extend_from_slice(&block(path.as_bytes(), tar::EntryType::Regular, size));
    bytes
}

fn block(path: &[u8], kind: tar::EntryType, size: u64) -> [u8; BLOCK as usize] {
    let mut header = tar::Header::new_gnu();
    let name = &mut header.as_old_mut().name;
    let length = path.len().min(name.len());
    name[..length].copy_from_slice(&path[..length]);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    // As GNU tar, bsdtar and Go write it: six digits, NUL, blank. The crate writes seven digits and
    // NUL. This way GNU tar makes the same archive of the directory.
    if let Ok(sum) = header.cksum() {
        let digits = format!("{sum:06o}\0 ");
        header.as_old_mut().cksum.copy_from_slice(digits.as_bytes());
    }
    *header.as_bytes()
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
        assert!(!index_json(&[pinned], true).contains("annotations"));
        let tagged = image("debian:12", &[]);
        assert!(
            manifest_json(std::slice::from_ref(&tagged)).contains(r#""RepoTags":["debian:12"]"#)
        );
        let index = index_json(&[tagged.clone(), image("debian:12", &[])], false);
        assert!(index.contains(r#""io.containerd.image.name":"docker.io/library/debian:12","org.opencontainers.image.ref.name":"12""#));
        assert_eq!(index.matches("annotations").count(), 1);
        let alone = |name: &str| index_json(&[image(name, &[])], true);
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
