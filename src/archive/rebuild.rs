//! Rebuilding the plan of dockersave's own archives from their documents, and that of the full
//! archive if it is thin.

use super::documents;
use super::plan::{Format, Plan, PlanOptions};
use super::source::metadata::{Outline, diff_ids};
use super::thin::{Whole, read_missing};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::image::{Companions, Image};
use crate::manifest::{Content, Descriptor, Document, Kinds};
use crate::reference::Reference;
use std::collections::BTreeSet;

/// The memory that a layer takes in a plan, and again in its image.
const LAYER: usize = 700;

/// The entries of an archive that is there.
pub(crate) trait Documents {
    /// The size of an entry; `None` if it is missing.
    fn size(&self, name: &str) -> Option<u64>;
    /// The bytes of an entry.
    fn bytes(&self, name: &str) -> Result<Vec<u8>>;
}

/// The content of the documents.
pub(crate) struct Rebuilt {
    pub images: Vec<Image>,
    pub format: Format,
    /// The layers that a thin archive lacks.
    pub left_out: BTreeSet<Digest>,
    /// The full archive of a thin one.
    pub whole: Option<Whole>,
}

impl Rebuilt {
    /// The plan of the full archive.
    pub fn full(&self) -> Result<Plan> {
        Plan::new(&self.images, &PlanOptions::default().format(self.format))
    }

    /// The plan of the archive that the documents are in.
    pub fn plan(&self) -> Result<Plan> {
        let options = PlanOptions::default().format(self.format);
        Plan::new(&self.images, &options.without(self.left_out.clone()))
    }
}

/// Reads the documents within so much memory. Configs are read where `configs` says so, or where
/// the archive is thin; otherwise only their sizes count.
pub(crate) fn rebuild(from: &dyn Documents, room: usize, configs: bool) -> Result<Rebuilt> {
    let mut reader = Reader {
        from,
        room,
        limit: room,
        configs,
    };
    let text = reader.bytes("index.json")?;
    let kept = documents::kept(&text)?;
    let index = Outline::parse(&text, "index.json")?;
    let mut images: Vec<Image> = Vec::new();
    let (mut left_out, mut whole) = (BTreeSet::new(), None);
    for child in index.manifests.unwrap_or_default() {
        let name = match child.name.as_str() {
            // Pulled by digest alone: any name will do, it is written nowhere.
            "" => format!("x@{}", child.descriptor.digest),
            name => name.to_owned(),
        };
        let reference: Reference = name.parse()?;
        let missing = read_missing(&child.missing)?;
        if !missing.is_empty() {
            reader.configs = true;
            let named = Whole::read(&child.whole);
            let named = named.filter(|named| whole.is_none_or(|other| other == *named));
            let why = "has an invalid annotation of the full archive";
            whole = Some(named.ok_or_else(|| Error::malformed("index.json", why))?);
        }
        left_out.extend(missing.into_iter().map(|one| one.digest));
        let known = images
            .iter()
            .find(|image| *image.manifest.digest() == child.descriptor.digest);
        let image = match known {
            Some(known) => {
                reader.take(known.layers.len() * LAYER)?;
                Image {
                    reference,
                    alias: None,
                    ..known.clone()
                }
            }
            None => reader.image(&child.descriptor, reference)?,
        };
        images.push(image);
    }
    // It follows all images, in one list.
    if let Some(first) = images.first_mut() {
        reader.take(kept.len() * LAYER)?;
        for digest in kept {
            let blob = Descriptor {
                media_type: String::new(),
                digest,
                size: reader.size(&digest.path())?,
                urls: Vec::new(),
            };
            first.companions.blobs.push(blob);
        }
    }
    let format = match from.size("manifest.json") {
        Some(_) => Format::Docker,
        None => Format::Oci,
    };
    Ok(Rebuilt {
        images,
        format,
        left_out,
        whole,
    })
}

struct Reader<'d> {
    from: &'d dyn Documents,
    room: usize,
    /// What there was at first.
    limit: usize,
    configs: bool,
}

impl Reader<'_> {
    fn image(&mut self, descriptor: &Descriptor, reference: Reference) -> Result<Image> {
        let manifest = self.document(descriptor)?;
        let Content::Manifest { config, layers } = manifest.content().clone() else {
            let mut fetch = |_: &Document, descriptor: &Descriptor| self.document(descriptor);
            return Image::of_index(reference, manifest, &mut fetch);
        };
        let name = config.digest.path();
        let mut ids = Vec::new();
        let bytes = if self.configs {
            let bytes = self.bytes(&name)?;
            if !config.digest.matches(&bytes) {
                return Err(Error::malformed(
                    name,
                    "holds other bytes than its name says",
                ));
            }
            ids = diff_ids(&bytes, layers.len(), &name)?;
            bytes
        } else {
            // A plan needs only the size of blobs, whose digests were checked.
            vec![0; usize::try_from(self.size(&name)?).unwrap_or(0)]
        };
        Ok(Image {
            reference,
            alias: None,
            manifest,
            documents: Vec::new(),
            diff_ids: ids,
            config,
            config_bytes: Some(bytes.into()),
            layers,
            platform: None,
            warnings: Vec::new(),
            companions: Companions::default(),
        })
    }

    fn document(&mut self, descriptor: &Descriptor) -> Result<Document> {
        let (what, media_type) = ("a manifest", Some(descriptor.media_type.as_str()));
        let bytes = self.bytes(&descriptor.digest.path())?;
        let digest = Some(&descriptor.digest);
        let document = Document::read(bytes, media_type, digest, what, Kinds::All)?;
        if let Content::Manifest { layers, .. } = document.content() {
            self.take(layers.len() * LAYER)?;
        }
        Ok(document)
    }

    fn size(&self, name: &str) -> Result<u64> {
        let missing = || Error::malformed("the archive", format!("{name} is missing"));
        self.from.size(name).ok_or_else(missing)
    }

    fn bytes(&mut self, name: &str) -> Result<Vec<u8>> {
        let size = self.size(name)?;
        self.take(usize::try_from(size).unwrap_or(usize::MAX))?;
        self.from.bytes(name)
    }

    fn take(&mut self, size: usize) -> Result<()> {
        let too_large = || Error::TooLarge {
            what: "what the archive says of its images".into(),
            limit: self.limit as u64,
        };
        self.room = self.room.checked_sub(size).ok_or_else(too_large)?;
        Ok(())
    }
}
