//! Checks of the docker-archive side: what manifest.json names exists, matches its names and its
//! config, and agrees with the OCI side if there is one.

use super::Findings;
use super::oci::{Oci, check_diff_ids, fingerprint, why};
use super::scan::{Archive, PARSED, Seen, State};
use super::tee::raw;
use crate::archive::source::metadata::{DockerItem, docker_items};
use crate::archive::source::table::named_digest;
use crate::digest::Digest;
use crate::reference::Reference;
use std::collections::{BTreeMap, BTreeSet};

const NAME: &str = "manifest.json";

/// Checks manifest.json, if there is one.
pub(super) fn check(
    archive: &Archive,
    oci: Option<&Oci>,
    seen: &mut Seen,
    findings: &mut Findings,
) -> bool {
    let Some(number) = archive.table.file(NAME) else {
        return false;
    };
    if archive.contents[number].state != State::Hashed {
        return true;
    }
    let items = match archive.document(number, PARSED) {
        Ok(bytes) if oci.is_none() && bytes.trim_ascii_start().starts_with(b"{") => {
            let why = "is a registry's manifest, not a list of images (skopeo's dir:?); it was not checked";
            findings.unchecked(NAME, why);
            return true;
        }
        Ok(bytes) => docker_items(&bytes, NAME),
        Err(why) => {
            findings.unchecked(NAME, &why);
            return true;
        }
    };
    let items = match items {
        Ok(items) => items,
        Err(error) => {
            findings.defect(NAME, why(error));
            return true;
        }
    };
    if items.is_empty() {
        findings.defect(NAME, "names no image");
    }
    // Docker gives the name to the last of them, skopeo to the first.
    let mut names = BTreeSet::new();
    for tag in items.iter().flat_map(|item| &item.tags) {
        if !names.insert(tag) {
            findings.defect(NAME, format!("gives the name {tag} twice"));
        }
    }
    let images = findings.images;
    for item in &items {
        check_item(archive, item, oci, seen, findings);
    }
    match oci {
        Some(oci) if oci.sound => compare_tags(&items, oci, archive, findings),
        Some(_) => {}
        None => findings.images = images + items.len(),
    }
    true
}

fn check_item(
    archive: &Archive,
    item: &DockerItem,
    oci: Option<&Oci>,
    seen: &mut Seen,
    findings: &mut Findings,
) {
    let label = item.tags.first().unwrap_or(&item.config);
    for tag in &item.tags {
        if full_name(tag).is_none() {
            let what = format!("RepoTags has {tag:?}, which is not a name with a tag");
            findings.defect(NAME, what);
        }
    }
    let before = findings.defects.len();
    let config = file(archive, &item.config, "its config", label, seen, findings);
    let layers: Vec<Option<usize>> = item
        .layers
        .iter()
        .enumerate()
        .map(|(number, name)| {
            let what = format!("layer {}", number + 1);
            file(archive, name, &what, label, seen, findings)
        })
        .collect();
    let Some(config) = config else { return };
    let parts = layers.iter().zip(&item.layers).map(|(row, name)| {
        let left_out = named_digest(name).filter(|one| findings.lacks(one));
        (*row, left_out)
    });
    let parts: Vec<(Option<usize>, Option<Digest>)> = parts.collect();
    let whole = parts
        .iter()
        .all(|(row, left_out)| row.is_some() || left_out.is_some());
    if let Some(oci) = oci.filter(|oci| oci.sound && whole) {
        let sha256 = archive.contents[config].sha256;
        let layers = fingerprint(&parts);
        let mut same = oci
            .images
            .iter()
            .filter(|image| image.config == sha256)
            .peekable();
        if same.peek().is_none() {
            findings.defect(
                label,
                "has a config in manifest.json that no image of index.json has",
            );
        } else if !same.any(|image| image.layers == layers) {
            findings.defect(
                label,
                "has different layers in manifest.json and in its manifest",
            );
        } else {
            // Everything else was checked there.
            return;
        }
    }
    if findings.defects.len() == before
        && let Some(ids) = check_diff_ids(archive, config, &layers, label, findings)
    {
        check_name(archive, config, None, label, findings);
        for (layer, id) in layers.into_iter().zip(ids) {
            if let Some(layer) = layer.filter(|layer| archive.contents[*layer].compressed) {
                check_name(archive, layer, Some(id), label, findings);
            }
        }
    }
}

fn file(
    archive: &Archive,
    name: &str,
    what: &str,
    label: &str,
    seen: &mut Seen,
    findings: &mut Findings,
) -> Option<usize> {
    let found = archive.table.file(name);
    if archive.table.is_hard_link(name) {
        let what =
            format!("{what} is a hard link, which some loaders read as an empty file: {name}");
        findings.defect(label, what);
    }
    match found {
        Some(number) => drop(seen.add(number)),
        None if named_digest(name).is_some_and(|one| findings.lacks(&one)) => {}
        None => findings.defect(label, format!("{what} is missing: {name}")),
    }
    found
}

/// Outside `blobs/`, a digest in a name is a convention: of the file itself (crane) or of its
/// inflated content (skopeo). If it matches neither, the file was changed.
fn check_name(
    archive: &Archive,
    number: usize,
    diff_id: Option<Digest>,
    label: &str,
    findings: &mut Findings,
) {
    let name = archive.table.name(number);
    let found = archive.contents[number].sha256;
    let Some(named) = named_digest(&name).filter(|_| !name.starts_with("blobs/")) else {
        return;
    };
    if found != raw(&named) && diff_id != Some(named) {
        findings.defect(
            label,
            format!("{name} does not have the digest in its name"),
        );
    }
}

/// A tag in containerd's form, if it is one.
fn full_name(tag: &str) -> Option<String> {
    let last = tag.rsplit('/').next()?;
    if !last.contains(':') {
        return None;
    }
    tag.parse::<Reference>().ok()?.full_tag()
}

/// If index.json has full names, both sides must give the same images the same names.
fn compare_tags(items: &[DockerItem], oci: &Oci, archive: &Archive, findings: &mut Findings) {
    let named = || oci.roots.iter().filter(|root| !root.name.is_empty());
    if named().next().is_none() {
        return;
    }
    let full = |name: &str| full_name(name).unwrap_or_else(|| name.to_owned());
    let mut names = BTreeSet::new();
    names.extend(named().map(|root| full(&root.name)));
    let mut configs = BTreeSet::new();
    let mut tags: BTreeMap<String, Vec<[u8; 32]>> = BTreeMap::new();
    for item in items {
        let Some(config) = archive.table.file(&item.config) else {
            continue;
        };
        let config = archive.contents[config].sha256;
        configs.insert(config);
        for tag in &item.tags {
            tags.entry(full(tag)).or_default().push(config);
        }
    }
    for tag in tags.keys().filter(|tag| !names.contains(*tag)) {
        findings.defect(NAME, format!("names {tag}, but index.json does not"));
    }
    for root in named() {
        let Some(image) = oci.images.iter().find(|image| Some(image.row) == root.row) else {
            continue;
        };
        let name = full(&root.name);
        let tagged = tags.get(&name);
        let same = tagged.is_some_and(|configs| configs.contains(&image.config));
        if !same && (tagged.is_some() || configs.contains(&image.config)) {
            let what = format!("and manifest.json do not mean the same image by {name}");
            findings.defect("index.json", what);
        }
    }
}
