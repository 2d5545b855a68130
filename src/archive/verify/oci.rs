//! Checks of the OCI side: everything that `index.json` reaches exists, with the right size and
//! type, and each image has as many diff IDs as layers.

use super::Findings;
use super::scan::{Archive, PARSED, READ, Seen, State};
use super::tee::Inflated;
use super::tee::raw;
use crate::archive::source::metadata::{Child, Outline, diff_ids, layout_version};
use crate::archive::thin::{Missing, read_missing};
use crate::digest::{Algorithm, Digest};
use crate::error::Error;
use crate::manifest::{DOCKER_LIST, Descriptor, OCI_INDEX, known};

/// The OCI side, to be compared with manifest.json.
pub(super) struct Oci {
    pub roots: Vec<Root>,
    pub images: Vec<Image>,
    /// It has no defect, so it can be compared with.
    pub sound: bool,
}

/// An entry of `index.json`.
pub(super) struct Root {
    /// The full name; may be empty.
    pub name: String,
    label: String,
    /// The entry of its manifest or index.
    pub row: Option<usize>,
    /// What it says is missing, by digest.
    missing: Vec<Missing>,
}

impl Root {
    /// What it says of a layer that it lacks.
    fn missing(&self, digest: &Digest) -> Option<&Missing> {
        let at = self.missing.binary_search_by_key(digest, |one| one.digest);
        Some(&self.missing[at.ok()?])
    }

    /// Its name in messages.
    pub fn label(&self) -> &str {
        &self.label
    }
}

/// An image in the archive.
pub(super) struct Image {
    /// Of its manifest.
    pub row: usize,
    pub config: [u8; 32],
    pub layers: [u8; 32],
}

/// A manifest or an index in the archive that was not checked yet.
struct Pending {
    row: usize,
    root: usize,
    platform: Option<Box<str>>,
    media_type: &'static str,
    /// It is in an index below index.json.
    nested: bool,
}

/// One value for each layer of an image, in order; those that a thin archive lacks
/// go by their digests.
pub(super) fn fingerprint(layers: &[(Option<usize>, Option<Digest>)]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for layer in layers {
        match layer {
            (Some(row), _) => bytes.extend_from_slice(&(*row as u32).to_le_bytes()),
            (None, digest) => bytes.extend(digest.iter().flat_map(|one| one.as_bytes())),
        }
    }
    raw(&Digest::of(Algorithm::Sha256, &bytes))
}

/// An error's text without the document's name, which precedes it anyway.
pub(super) fn why(error: Error) -> String {
    match error {
        Error::Malformed { why, .. } => why,
        other => other.to_string(),
    }
}

pub(super) fn check(archive: &Archive, seen: &mut Seen, findings: &mut Findings) -> Option<Oci> {
    let index = archive.table.file("index.json");
    let layout = archive.table.file("oci-layout");
    if index.is_none() && layout.is_none() {
        return None;
    }
    let before = findings.defects.len() + findings.unchecked.len();
    let mut walk = Walk {
        archive,
        seen,
        findings,
        roots: Vec::new(),
        images: Vec::new(),
        pending: Vec::new(),
    };
    walk.layout(layout);
    match index {
        Some(index) => walk.all(index),
        None => walk
            .findings
            .defect("index.json", "is missing, though oci-layout is there"),
    }
    Some(Oci {
        sound: walk.findings.defects.len() + walk.findings.unchecked.len() == before,
        roots: walk.roots,
        images: walk.images,
    })
}

struct Walk<'a> {
    archive: &'a Archive,
    seen: &'a mut Seen,
    findings: &'a mut Findings,
    roots: Vec<Root>,
    images: Vec<Image>,
    pending: Vec<Pending>,
}

impl Walk<'_> {
    fn layout(&mut self, layout: Option<usize>) {
        let Some(layout) = layout else {
            self.findings
                .defect("oci-layout", "is missing, though index.json is there");
            return;
        };
        if self.archive.contents[layout].state != State::Hashed {
            return;
        }
        match self.archive.document(layout, PARSED) {
            Err(why) => self.findings.unchecked("oci-layout", &why),
            Ok(bytes) => match layout_version(&bytes) {
                Ok(version) if version == "1.0.0" => {}
                Ok(version) => {
                    let what = format!("is of version {version:?}, not 1.0.0");
                    self.findings.defect("oci-layout", what);
                }
                Err(error) => self.findings.defect("oci-layout", why(error)),
            },
        }
    }

    fn all(&mut self, index: usize) {
        let known = self.findings.defects.len() + self.findings.unchecked.len();
        let Some(outline) = self.outline(index, "index.json") else {
            return;
        };
        let Some(children) = outline.manifests else {
            self.findings.defect("index.json", "is not an index");
            return;
        };
        for child in children {
            let row = self.archive.table.file(&child.descriptor.digest.path());
            let label = match (child.name.as_str(), child.tag.as_str()) {
                ("", "") => child.descriptor.digest.to_string(),
                ("", tag) => tag.to_owned(),
                (name, _) => name.to_owned(),
            };
            let root = self.roots.len();
            let other = |root: &Root| root.name == child.name && root.row != row;
            if !child.name.is_empty() && self.roots.iter().any(other) {
                let what = format!("gives the name {label} to two images");
                self.findings.defect("index.json", what);
            }
            match row {
                Some(row) => self.child(&child, row, root, false, &label),
                None => self.missing(&label, "its manifest", &child.descriptor),
            }
            let mut missing = read_missing(&child.missing).unwrap_or_else(|error| {
                self.findings.defect("index.json", why(error));
                Vec::new()
            });
            missing.sort_unstable_by_key(|one| one.digest);
            self.roots.push(Root {
                name: child.name,
                label,
                row,
                missing,
            });
        }
        // The first of them is checked first.
        self.pending.reverse();
        while let Some(pending) = self.pending.pop() {
            self.look_into(&pending);
        }
        for root in std::mem::take(&mut self.roots) {
            for one in &root.missing {
                if !self.findings.lacks(&one.digest) {
                    let name = one.digest.path();
                    let what = match self.archive.table.file(&name) {
                        Some(_) => format!("says that {name} is missing, but it is there"),
                        None => format!(
                            "says that {name} is missing, but that is not one of its layers"
                        ),
                    };
                    self.findings.defect(&root.label, what);
                }
            }
            self.roots.push(root);
        }
        let found = self.findings.defects.len() + self.findings.unchecked.len();
        if self.findings.images == 0 && found == known {
            let what = match self.findings.absent.is_empty() {
                true => "names no image",
                false => "names only images of which nothing is there",
            };
            self.findings.defect("index.json", what);
        }
    }

    fn missing(&mut self, label: &str, what: &str, descriptor: &Descriptor) {
        let what = format!("{what} is missing: {}", descriptor.digest.path());
        self.findings.defect(label, what);
    }

    /// A document that the index names and that exists.
    fn child(&mut self, child: &Child, row: usize, root: usize, nested: bool, label: &str) {
        self.size(label, &child.descriptor, row);
        let kind = known(&child.descriptor.media_type);
        if self.seen.add(row)
            && let Some(media_type) = kind
        {
            self.pending.push(Pending {
                row,
                root,
                platform: child.platform.as_ref().map(|p| p.to_string().into()),
                media_type,
                nested,
            });
        }
    }

    fn size(&mut self, label: &str, descriptor: &Descriptor, row: usize) {
        let size = self.archive.table.rows()[row].size;
        if size != descriptor.size {
            let name = descriptor.digest.path();
            let what = format!(
                "{name} has {size} bytes, but its descriptor says {}",
                descriptor.size
            );
            self.findings.defect(label, what);
        }
    }

    fn outline(&mut self, row: usize, label: &str) -> Option<Outline> {
        if self.archive.contents[row].state != State::Hashed {
            // Already reported, and nothing in it is certain.
            return None;
        }
        let name = self.archive.table.name(row);
        let parsed = match self.archive.document(row, PARSED) {
            Ok(bytes) => Outline::parse(&bytes, &name),
            Err(why) => {
                self.findings.unchecked(&name, &why);
                return None;
            }
        };
        match parsed {
            Ok(outline) => Some(outline),
            Err(error) => {
                let what = match label == name {
                    true => why(error),
                    false => format!("{name} {}", why(error)),
                };
                self.findings.defect(label, what);
                None
            }
        }
    }

    fn look_into(&mut self, pending: &Pending) {
        let name = &self.roots[pending.root].label;
        let label = match &pending.platform {
            Some(platform) => format!("{name} ({platform})"),
            None => name.clone(),
        };
        let Some(outline) = self.outline(pending.row, &label) else {
            return;
        };
        let own = known(&outline.media_type).unwrap_or(pending.media_type);
        let is_index = pending.media_type == OCI_INDEX || pending.media_type == DOCKER_LIST;
        if own != pending.media_type || is_index != outline.manifests.is_some() {
            let name = self.archive.table.name(pending.row);
            let what = format!(
                "{name} is not of the type that its descriptor says, {}",
                pending.media_type
            );
            self.findings.defect(&label, what);
            return;
        }
        match outline.manifests {
            Some(children) => self.nested(&children, pending.root, &label),
            None => self.manifest(&outline, pending, &label),
        }
    }

    /// An index may name platforms that are not in the archive, but not only such ones.
    fn nested(&mut self, children: &[Child], root: usize, label: &str) {
        let mut there = 0;
        for child in children.iter().rev() {
            let row = self.archive.table.file(&child.descriptor.digest.path());
            let platform = child.platform.as_ref();
            match row {
                Some(row) => {
                    there += 1;
                    self.child(child, row, root, true, label);
                }
                None => {
                    let what =
                        platform.map_or(child.descriptor.digest.to_string(), |p| p.to_string());
                    self.findings.absent(&format!("{label}: {what}"));
                }
            }
        }
        if there == 0 && !children.is_empty() {
            self.findings
                .defect(label, "nothing that its index names is there");
        }
    }

    fn manifest(&mut self, outline: &Outline, pending: &Pending, label: &str) {
        let parts = || outline.config.iter().chain(&outline.layers);
        let rows: Vec<Option<usize>> = parts()
            .map(|part| self.archive.table.file(&part.digest.path()))
            .collect();
        if pending.nested && rows.iter().all(Option::is_none) && !rows.is_empty() {
            self.findings.absent(label);
            return;
        }
        let configs = usize::from(outline.config.is_some());
        let before = self.findings.defects.len();
        for (number, (part, row)) in parts().zip(&rows).enumerate() {
            let what = match number.checked_sub(configs) {
                None => "its config".to_owned(),
                Some(layer) => format!("layer {}", layer + 1),
            };
            match row {
                Some(row) => {
                    self.seen.add(*row);
                    self.size(label, part, *row);
                }
                None if number >= configs && self.is_left_out(pending.root, part) => {}
                // Nondistributable layers are fetched from elsewhere.
                None if !part.urls.is_empty() => {}
                None => self.missing(label, &what, part),
            }
        }
        if !outline.is_image() {
            return;
        }
        self.findings.images += 1;
        let layers: Vec<Option<usize>> = rows[configs..].to_vec();
        if let Some(Some(config)) = rows.first() {
            let ids = check_diff_ids(self.archive, *config, &layers, label, self.findings);
            self.check_missing(pending.root, outline, ids.as_deref());
        }
        let digests = outline.layers.iter().map(|layer| layer.digest);
        let left_out = digests.map(|one| Some(one).filter(|one| self.findings.lacks(one)));
        let all: Vec<(Option<usize>, Option<Digest>)> = layers.into_iter().zip(left_out).collect();
        if self.findings.defects.len() == before
            && let Some(Some(config)) = rows.first()
            && all
                .iter()
                .all(|(row, left_out)| row.is_some() || left_out.is_some())
        {
            self.images.push(Image {
                row: pending.row,
                config: self.archive.contents[*config].sha256,
                layers: fingerprint(&all),
            });
        }
    }

    /// Whether a thin archive says that it lacks this layer, which is then no defect.
    fn is_left_out(&mut self, root: usize, layer: &Descriptor) -> bool {
        let one = self.roots[root].missing(&layer.digest);
        one.is_some_and(|one| one.size == layer.size && self.findings.missing(one))
    }

    /// Checks the diff IDs that a thin archive gives against the config's.
    fn check_missing(&mut self, root: usize, outline: &Outline, ids: Option<&[Digest]>) {
        let Some(ids) = ids else { return };
        let root = &self.roots[root];
        for (layer, id) in outline.layers.iter().zip(ids) {
            let given = root.missing(&layer.digest).and_then(|one| one.diff_id);
            if given.is_some_and(|given| given != *id) {
                let what = format!(
                    "has a different diff ID for {} than its config",
                    layer.digest
                );
                self.findings.defect(&root.label, what);
            }
        }
    }
}

/// A config has a diff ID for each layer: the digest of its uncompressed bytes, which is checked if
/// they are available. Returns the diff IDs if they could be read.
pub(super) fn check_diff_ids(
    archive: &Archive,
    config: usize,
    layers: &[Option<usize>],
    label: &str,
    findings: &mut Findings,
) -> Option<Vec<Digest>> {
    if archive.contents[config].state != State::Hashed {
        return None;
    }
    let name = archive.table.name(config);
    let ids = match archive.document(config, READ) {
        Ok(bytes) => diff_ids(&bytes, layers.len(), &name),
        Err(why) => {
            findings.unchecked(&name, &why);
            return None;
        }
    };
    let ids = match ids {
        Ok(ids) => ids,
        Err(error) => {
            findings.defect(label, format!("{name} {}", why(error)));
            return None;
        }
    };
    for (number, (layer, id)) in layers.iter().zip(&ids).enumerate() {
        let Some(layer) = *layer else { continue };
        if archive.contents[layer].state != State::Hashed {
            continue;
        }
        let subject = format!("layer {} ({})", number + 1, archive.table.name(layer));
        match archive.inflated(layer) {
            Inflated::Damaged(why) => findings.defect(label, format!("{subject}: {why}")),
            Inflated::Digest(found) if id.algorithm() == Algorithm::Sha256 && found != raw(id) => {
                let what = format!("{subject} does not match its diff ID in the config, {id}");
                findings.defect(label, what);
            }
            Inflated::Unknown => findings.compressed += 1,
            Inflated::Digest(_) => {}
        }
    }
    Some(ids)
}
