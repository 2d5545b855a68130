//! Documents in archives of any tool: parsed in less memory than a registry's, and without checking
//! whether dockersave could pull them.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::json::{self, Loose, Text, keys};
use crate::manifest::{
    Descriptor, ENTRIES, WireDescriptor, WireDocument, descriptor, is_image_config, is_image_layer,
};
use crate::platform::Platform;
use miniserde::Deserialize;

/// The most objects and values that a document may have.
const LIMITS: (usize, usize) = (ENTRIES + 200, 8 * ENTRIES);

#[derive(Deserialize)]
struct WireLayout {
    #[serde(rename = "imageLayoutVersion")]
    version: Text,
}

/// The version that an `oci-layout` gives (image-layout.md, "oci-layout file").
pub(crate) fn layout_version(bytes: &[u8]) -> Result<String> {
    let wire: WireLayout = json::parse_within(bytes, "oci-layout", LIMITS, &keys::LAYOUT)?;
    Ok(wire.version.0)
}

/// An image in a docker-archive's manifest.json.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DockerItem {
    pub config: String,
    pub tags: Vec<String>,
    pub layers: Vec<String>,
}

#[derive(Deserialize)]
struct WireItem {
    #[serde(rename = "Config")]
    config: Text,
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<Text>>,
    #[serde(rename = "Layers")]
    layers: Option<Vec<Text>>,
}

/// The content of a docker-archive's manifest.json.
pub(crate) fn docker_items(bytes: &[u8], what: &str) -> Result<Vec<DockerItem>> {
    let wire: Vec<WireItem> = json::parse_within(bytes, what, LIMITS, &keys::ITEMS)?;
    let texts = |list: Option<Vec<Text>>| {
        let list = list.unwrap_or_default();
        list.into_iter().map(|text| text.0).collect()
    };
    let items = wire.into_iter().map(|item| DockerItem {
        config: item.config.0,
        tags: texts(item.tags),
        layers: texts(item.layers),
    });
    Ok(items.collect())
}

/// The diff IDs of a config, one per layer, in hardly more memory than the config itself.
pub(crate) fn diff_ids(bytes: &[u8], layers: usize, what: &str) -> Result<Vec<Digest>> {
    let mut ids = Vec::new();
    let mut count = 0;
    for id in json::Strings::member(bytes.into(), &["rootfs", "diff_ids"], what, &keys::CONFIG)? {
        count += 1;
        if count <= layers {
            let id = id.parse();
            ids.push(id.map_err(|error| Error::malformed(what, format!("diff ID: {error}")))?);
        }
    }
    if count == layers {
        return Ok(ids);
    }
    let why = format!(
        "names {}, but the manifest has {}",
        crate::error::count(count, "diff ID"),
        crate::error::count(layers, "layer")
    );
    Err(Error::malformed(what, why))
}

/// What an index or manifest refers to, of any kind: an archive may hold attestations, signatures
/// and charts besides images, and all of them can be damaged.
pub(crate) struct Outline {
    /// Its media type; may be empty.
    pub media_type: String,
    pub config: Option<Descriptor>,
    pub layers: Vec<Descriptor>,
    /// Of an index.
    pub manifests: Option<Vec<Child>>,
}

/// An entry of an index in an archive.
pub(crate) struct Child {
    pub descriptor: Descriptor,
    pub platform: Option<Platform>,
    /// The full name, as containerd uses it; may be empty.
    pub name: String,
    /// The tag; may be empty.
    pub tag: String,
    /// What a thin archive says that it lacks; may be empty.
    pub missing: String,
    /// Of which archive it is a part; may be empty.
    pub whole: String,
}

impl Outline {
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let wire: WireDocument = json::parse_within(bytes, what, LIMITS, &keys::DOCUMENT)?;
        wire.check_schema(what)?;
        let both = wire.manifests.is_some() && (wire.layers.is_some() || wire.config.is_some());
        if both || (wire.manifests.is_none() && wire.layers.is_none()) {
            let kind = if both {
                "both an index and a manifest"
            } else {
                "neither an index nor a manifest"
            };
            return Err(Error::malformed(what, format!("is {kind}")));
        }
        let children = |list: Vec<Loose<WireDescriptor>>| {
            let child = |wire: Loose<WireDescriptor>| {
                let Loose(Some(mut wire)) = wire else {
                    return Err(Error::malformed(what, "an entry: is not a descriptor"));
                };
                let (platform, names) = (wire.platform.0.take(), wire.annotations.0.take());
                let mut child = Child {
                    descriptor: descriptor(wire, what, "an entry")?,
                    platform: platform.and_then(|platform| platform.platform()),
                    name: String::new(),
                    tag: String::new(),
                    missing: String::new(),
                    whole: String::new(),
                };
                if let Some(names) = names {
                    (child.name, child.tag) = (names.name.0, names.tag.0);
                    (child.missing, child.whole) = (names.missing.0, names.whole.0);
                }
                Ok(child)
            };
            list.into_iter().map(child).collect::<Result<_>>()
        };
        let layers = wire.layers.unwrap_or_default().into_iter();
        Ok(Self {
            media_type: wire.media_type.0,
            config: wire
                .config
                .map(|config| descriptor(config, what, "the config"))
                .transpose()?,
            layers: layers
                .map(|layer| descriptor(layer, what, "a layer"))
                .collect::<Result<_>>()?,
            manifests: wire.manifests.map(children).transpose()?,
        })
    }

    /// Whether it is an image, not something else stored like one.
    pub fn is_image(&self) -> bool {
        let config = self
            .config
            .as_ref()
            .map(|config| config.media_type.as_str());
        config.is_some_and(is_image_config)
            && self
                .layers
                .iter()
                .all(|layer| is_image_layer(&layer.media_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_config_has_as_many_diff_ids_as_layers() {
        let text =
            format!(r#"{{"a":[{{}}],"rootfs":{{"type":"layers","diff_ids":["sha256:{HEX}"]}}}}"#);
        assert_eq!(diff_ids(text.as_bytes(), 1, "x").unwrap()[0].hex(), HEX);
        for (text, layers) in [
            (&text[..], 0),
            (&text, 2),
            ("{}", 1),
            (r#"{"rootfs":{"diff_ids":["sha256:0"]}}"#, 1),
            (r#"{"rootfs":{"diff_ids":[1]}}"#, 1),
            (r#"{"rootfs":[{"diff_ids":[]}]}"#, 1),
            (r#"{"rootfs":{"diff_ids":{}}}"#, 0),
            ("[", 0),
        ] {
            assert!(diff_ids(text.as_bytes(), layers, "x").is_err(), "{text}");
        }
        assert!(diff_ids(b"{}", 0, "x").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_image_is_understood_as_far_as_it_refers_to_something() {
        let part =
            |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"sha256:{HEX}","size":3}}"#);
        let (config, layer) = (
            "application/vnd.oci.image.config.v1+json",
            "application/vnd.oci.image.layer.v1.tar",
        );
        for (config, layer, image) in [
            (config, layer, true),
            (config, "a/b", false),
            ("a/b", layer, false),
        ] {
            let text = format!(
                r#"{{"config":{},"layers":[{}]}}"#,
                part(config),
                part(layer)
            );
            let outline = Outline::parse(text.as_bytes(), "x").unwrap();
            assert_eq!(outline.is_image(), image, "{text}");
            assert!(outline.config.is_some() && outline.layers.len() == 1);
        }
        for wrong in [
            "{}",
            r#"{"config":{}}"#,
            r#"{"layers":[{}]}"#,
            r#"{"manifests":[],"layers":[]}"#,
        ] {
            assert!(Outline::parse(wrong.as_bytes(), "x").is_err(), "{wrong}");
        }
    }
}
