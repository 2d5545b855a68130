//! Comparison of dockersave's own archives with their plan, which follows from their documents.
//! This also checks the bytes that no digest covers: index.json, manifest.json, headers, order.

use super::Findings;
use super::oci::why;
use super::scan::{Archive, READ};
use crate::archive::documents;
use crate::archive::plan::{Format, Plan, PlanOptions, Source};
use crate::archive::source::metadata::Outline;
use crate::archive::tar::header::{BLOCK, Kind};
use crate::error::{Error, Result};
use crate::image::{Companions, Image};
use crate::manifest::{Content, Descriptor, Document, Kinds};
use crate::reference::Reference;
use std::borrow::Cow;

/// The memory that a layer takes in a plan, and again in its image.
const LAYER: usize = 700;

/// The record size of tars written for tapes, as GNU tar and Python write them.
const RECORD: u64 = 10_240;

/// Whether dockersave wrote it; some of its headers may be damaged. A reproducible `tar` of the
/// directory has the same headers, but it has directories in it or ends with a tape record.
pub(super) fn is_ours(archive: &Archive) -> bool {
    let rows = archive.table.rows();
    let ours = rows.iter().filter(|row| row.ours).count();
    let end = rows.iter().map(|row| row.data + row.size).max();
    let taped = archive.size.zip(end).is_some_and(|(size, end)| {
        let end = end.next_multiple_of(BLOCK) + 2 * BLOCK;
        size > end && size == end.next_multiple_of(RECORD)
    });
    archive.size.is_some()
        && ours * 2 > rows.len()
        && !taped
        && !rows.iter().any(|row| row.kind == Kind::Directory)
        && archive.table.file("index.json").is_some()
}

/// Compares an archive made by dockersave with its plan.
pub(super) fn check(archive: &Archive, findings: &mut Findings) {
    let Some(size) = archive.size.filter(|_| findings.ours) else {
        return;
    };
    let plan = match plan(archive) {
        Ok(plan) => plan,
        Err(Error::TooLarge { .. }) => {
            let why = "is too large to be compared with its plan";
            return findings.unchecked("index.json", why);
        }
        Err(error) => {
            let what = format!("is not as dockersave writes it: {}", why(error));
            return findings.defect("index.json", what);
        }
    };
    compare(archive, size, &plan, findings);
}

/// The first difference from the plan: everything after it differs, too.
fn compare(archive: &Archive, size: u64, plan: &Plan, findings: &mut Findings) {
    let rows = archive.table.rows();
    for (number, entry) in plan.entries().iter().enumerate() {
        let Some(row) = rows.get(number) else {
            return findings.defect(entry.path(), "is missing at the end of the archive");
        };
        let name = archive.table.name(number);
        if name != entry.path() {
            let what = format!("is where {} belongs", entry.path());
            return findings.defect(&name, what);
        }
        if !row.ours {
            return findings.defect(&name, "does not have the header dockersave writes");
        }
        // The digests of blobs were checked.
        if let Source::Memory(known) = entry.source()
            && !name.starts_with("blobs/")
        {
            match archive.document(number, READ) {
                Ok(bytes) if *bytes == **known => {}
                Ok(bytes) => {
                    let same = bytes.iter().zip(&**known).take_while(|(a, b)| a == b);
                    let what = format!(
                        "differs from what follows from the images at byte {}",
                        same.count()
                    );
                    return findings.defect(&name, what);
                }
                Err(why) => return findings.unchecked(&name, &why),
            }
        }
        if row.size != entry.size() || row.data != entry.data_start() {
            return findings.defect(
                &name,
                "does not have the size or place that its manifest gives it",
            );
        }
    }
    if rows.len() > plan.entries().len() {
        let name = archive.table.name(plan.entries().len());
        return findings.defect(&name, "does not belong to any image");
    }
    if size != plan.size() {
        let what = format!("is at byte {size}, but belongs at byte {}", plan.size());
        findings.defect("the end", what);
    }
}

/// The plan of the images that index.json names.
fn plan(archive: &Archive) -> Result<Plan> {
    let mut room = archive.room();
    let text = bytes(archive, "index.json", &mut room)?;
    let kept = documents::kept(&text)?;
    let index = Outline::parse(&text, "index.json")?;
    let mut images: Vec<Image> = Vec::new();
    for child in index.manifests.unwrap_or_default() {
        let name = match child.name.as_str() {
            // Pulled by digest alone: the name is in no document, so any will do.
            "" => format!("x@{}", child.descriptor.digest),
            name => name.to_owned(),
        };
        let reference: Reference = name.parse()?;
        let known = images
            .iter()
            .find(|image| *image.manifest.digest() == child.descriptor.digest);
        let image = match known {
            Some(known) => {
                take(&mut room, known.layers.len() * LAYER)?;
                Image {
                    reference,
                    ..known.clone()
                }
            }
            None => image(archive, &child.descriptor, reference, &mut room)?,
        };
        images.push(image);
    }
    // It stands behind all images, in one list, whomever it belongs to.
    if let Some(first) = images.first_mut() {
        take(&mut room, kept.len() * LAYER)?;
        for digest in kept {
            let size = archive.table.rows()[number(archive, &digest.path())?].size;
            let (media_type, urls) = (String::new(), Vec::new());
            let blob = Descriptor {
                media_type,
                digest,
                size,
                urls,
            };
            first.companions.blobs.push(blob);
        }
    }
    let format = match archive.table.file("manifest.json") {
        Some(_) => Format::Docker,
        None => Format::Oci,
    };
    Plan::new(&images, &PlanOptions::default().format(format))
}

fn image(
    archive: &Archive,
    descriptor: &Descriptor,
    reference: Reference,
    room: &mut usize,
) -> Result<Image> {
    let manifest = document(archive, descriptor, room)?;
    let Content::Manifest { config, layers } = manifest.content().clone() else {
        let mut fetch = |_: &Document, descriptor: &Descriptor| document(archive, descriptor, room);
        return Image::of_index(reference, manifest, &mut fetch);
    };
    // A plan needs only the size of blobs, whose digests were checked.
    let size = archive.table.rows()[number(archive, &config.digest.path())?].size;
    let config_bytes = Some(vec![0; usize::try_from(size).unwrap_or(0)].into());
    Ok(Image {
        reference,
        manifest,
        documents: Vec::new(),
        diff_ids: Vec::new(),
        config,
        config_bytes,
        layers,
        platform: None,
        warnings: Vec::new(),
        companions: Companions::default(),
    })
}

fn document(archive: &Archive, descriptor: &Descriptor, room: &mut usize) -> Result<Document> {
    let (what, media_type) = ("a manifest", Some(descriptor.media_type.as_str()));
    let bytes = bytes(archive, &descriptor.digest.path(), room)?;
    let digest = Some(&descriptor.digest);
    let document = Document::read(bytes, media_type, digest, what, Kinds::All)?;
    if let Content::Manifest { layers, .. } = document.content() {
        take(room, layers.len() * LAYER)?;
    }
    Ok(document)
}

fn number(archive: &Archive, name: &str) -> Result<usize> {
    let missing = || Error::malformed(name, format!("{name} is missing"));
    archive.table.file(name).ok_or_else(missing)
}

fn bytes(archive: &Archive, name: &str, room: &mut usize) -> Result<Vec<u8>> {
    let number = number(archive, name)?;
    take(room, archive.table.rows()[number].size as usize)?;
    let found = archive.document(number, READ);
    found
        .map(Cow::into_owned)
        .map_err(|why| Error::malformed(name, why))
}

fn take(room: &mut usize, size: usize) -> Result<()> {
    *room = room.checked_sub(size).ok_or(Error::TooLarge {
        what: "the plan".into(),
        limit: 0,
    })?;
    Ok(())
}
