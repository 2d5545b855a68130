//! Documents that no registry serves: `index.json`, `manifest.json`, and the manifest of an image
//! with inflated layers. Pure text; [`super::plan`] decides where it goes.

use super::thin::{MISSING, Missing, Thin, WHOLE, missing_text};
use crate::digest::{Algorithm, Digest, InvalidDigest};
use crate::error::{Error, Result};
use crate::image::{Companions, Image};
use crate::json::{Loose, Text, keys::Keys, quoted};
use crate::manifest::{Content, Document, OCI_INDEX, bare};
use crate::reference::Reference;
use miniserde::Deserialize;
use miniserde::json::{Number, Value};
use std::collections::BTreeSet;

/// `manifest.json` of a docker-archive: one item per image, its tags in the familiar form.
pub(super) fn manifest_json(images: &[Image]) -> String {
    let items = distinct(images).into_iter().map(|(image, references)| {
        let tags: Vec<String> = references
            .iter()
            .filter_map(|r| r.familiar_tag())
            .map(|tag| quoted(&tag))
            .collect();
        let tags = if tags.is_empty() {
            "null".to_owned()
        } else {
            format!("[{}]", tags.join(","))
        };
        let layers: Vec<String> = image
            .layers
            .iter()
            .map(|layer| quoted(&layer.digest.path()))
            .collect();
        format!(
            r#"{{"Config":{},"RepoTags":{tags},"Layers":[{}]}}"#,
            quoted(&image.config.digest.path()),
            layers.join(",")
        )
    });
    format!("[{}]\n", items.collect::<Vec<_>>().join(","))
}

/// `index.json` of an OCI layout: one entry per tag, which names the image's manifest itself. An
/// index with absent platforms would break `ctr --all-platforms`.
///
/// What is kept beside the images has no entry, which would keep loaders from taking them; an
/// annotation lists it.
///
/// If it is `alone`, without a manifest.json that repeats the names, it includes a digest of them:
/// nothing else in the archive would reveal a damaged name.
///
/// In a `thin` archive each entry of an image that lacks layers says so.
pub(super) fn index_json(images: &[Image], alone: bool, thin: Option<&Thin>) -> String {
    let kept = Companions::digests(images.iter().map(|image| &image.companions));
    let mut entries = Vec::new();
    let mut names = String::new();
    for (image, references) in distinct(images) {
        let descriptor = format!(
            r#""mediaType":{},"digest":"{}","size":{}"#,
            quoted(image.manifest.media_type()),
            image.manifest.digest(),
            image.manifest.bytes().len()
        );
        let named: Vec<_> = references
            .iter()
            .filter_map(|r| Some((r.full_tag()?, r.tag()?)))
            .collect();
        // cosign takes the first entry that says so for the image whose signatures are here
        // (pkg/oci/layout); others pass it over.
        let kind = match (kept.is_empty(), image.manifest.content()) {
            (true, _) => "",
            (false, Content::Manifest { .. }) => r#","kind":"dev.cosignproject.cosign/image""#,
            (false, Content::Index(_)) => r#","kind":"dev.cosignproject.cosign/imageIndex""#,
        };
        let more = kind.to_owned() + &thin.map_or(String::new(), |thin| lacks(image, thin));
        if named.is_empty() {
            let annotations = more.get(1..).map_or(String::new(), |more| {
                format!(r#","annotations":{{{more}}}"#)
            });
            entries.push(format!("{{{descriptor}{annotations}}}"));
        }
        for (name, tag) in named {
            names.push_str(&name);
            names.push('\n');
            entries.push(format!(
                r#"{{{descriptor},"annotations":{{"io.containerd.image.name":{},"org.opencontainers.image.ref.name":{}{more}}}}}"#,
                quoted(&name),
                quoted(tag)
            ));
        }
    }
    let mut annotations = Vec::new();
    if alone && !names.is_empty() {
        let digest = Digest::of(Algorithm::Sha256, names.as_bytes());
        annotations.push(format!(
            r#""io.github.antmicro.dockersave.names":"{digest}""#
        ));
    }
    if !kept.is_empty() {
        let list: Vec<String> = kept.iter().map(Digest::to_string).collect();
        let list = list.join(" ");
        annotations.push(format!(r#""{KEPT}":"{list}""#));
    }
    let annotations = match annotations.is_empty() {
        true => String::new(),
        false => format!(r#","annotations":{{{}}}"#, annotations.join(",")),
    };
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]{annotations}}}"#,
        entries.join(",")
    ) + "\n"
}

/// The annotation of `index.json` with the digests of what is kept beside the images.
const KEPT: &str = "io.github.antmicro.dockersave.kept";

#[derive(Deserialize)]
struct WireIndex {
    annotations: Loose<WireKept>,
}

#[derive(Deserialize)]
struct WireKept {
    #[serde(rename = "io.github.antmicro.dockersave.kept")]
    kept: Text,
}

/// What `index.json` says is kept beside the images.
pub(super) fn kept(index: &[u8]) -> Result<Vec<Digest>> {
    let wire: WireIndex = crate::json::parse(index, "index.json")?;
    let list = wire.annotations.0.map(|own| own.kept.0).unwrap_or_default();
    let digests = list.split_ascii_whitespace().map(str::parse);
    Ok(digests.collect::<std::result::Result<_, InvalidDigest>>()?)
}

/// The annotations of an image that lacks layers, each behind a comma; empty for one that has them all.
fn lacks(image: &Image, thin: &Thin) -> String {
    let missing = missing(image, &thin.left_out);
    if missing.is_empty() {
        return String::new();
    }
    let text = missing_text(&missing);
    format!(r#","{MISSING}":"{text}","{WHOLE}":"{}""#, thin.whole.text())
}

/// The layers of an image that are left out, the lowest first, each once.
pub(super) fn missing(image: &Image, left_out: &BTreeSet<Digest>) -> Vec<Missing> {
    let mut found: Vec<Missing> = Vec::new();
    for (number, layer) in image.layers.iter().enumerate() {
        let digest = layer.digest;
        if left_out.contains(&digest) && !found.iter().any(|known| known.digest == digest) {
            found.push(Missing {
                digest,
                size: layer.size,
                diff_id: image.diff_ids.get(number).copied(),
            });
        }
    }
    found
}

/// Each manifest once, with all its names in their order.
pub(super) fn distinct(images: &[Image]) -> Vec<(&Image, Vec<&Reference>)> {
    let mut found: Vec<(&Image, Vec<&Reference>)> = Vec::new();
    for image in images {
        match found
            .iter_mut()
            .find(|(known, _)| known.manifest.digest() == image.manifest.digest())
        {
            Some((_, references)) if references.contains(&image.name()) => {}
            Some((_, references)) => references.push(image.name()),
            None => found.push((image, vec![image.name()])),
        }
    }
    found
}

/// Limits on the objects, arrays and values of a manifest that is rewritten: parsed, it takes many
/// times the memory of its bytes.
const VALUES: (usize, usize) = (4096, 10_000);

/// A copy of a manifest that names these uncompressed layers (digest and size) instead of its own.
pub(super) fn with_layers(manifest: &Document, layers: &[(Digest, u64)]) -> Result<Document> {
    let what = format!("manifest {}", manifest.digest());
    let wrong = || Error::malformed(what.clone(), "has layers that cannot be distinguished");
    let mut value: Value = crate::json::parse_within(manifest.bytes(), &what, VALUES, &Keys::None)?;
    let Value::Object(object) = &mut value else {
        return Err(wrong());
    };
    let Some(Value::Array(items)) = object.get_mut("layers") else {
        return Err(wrong());
    };
    for (item, (digest, size)) in items.iter_mut().zip(layers) {
        let Value::Object(item) = item else {
            return Err(wrong());
        };
        let media_type = match item.get("mediaType") {
            Some(Value::String(media_type)) => uncompressed(media_type),
            _ => return Err(wrong()),
        };
        item.insert("mediaType".to_owned(), Value::String(media_type));
        item.insert("digest".to_owned(), Value::String(digest.to_string()));
        item.insert("size".to_owned(), Value::Number(Number::U64(*size)));
        item.remove("urls");
    }
    let bytes = miniserde::json::to_string(&value).into_bytes();
    Document::parse(bytes, Some(manifest.media_type()), None, &what)
}

/// The media type of a layer after decompression (image-spec, layer.md).
fn uncompressed(media_type: &str) -> String {
    let plain = bare(media_type).split('+').next().unwrap_or_default();
    let plain = plain.strip_suffix(".gzip").unwrap_or(plain);
    plain.replace(".foreign.", ".")
}
