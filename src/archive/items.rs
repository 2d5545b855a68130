//! The documents that only an archive has: `oci-layout` and a docker-archive's `manifest.json`.

use crate::error::Result;
use crate::json::{self, Text};
use crate::manifest::ARCHIVED;
use miniserde::Deserialize;

#[derive(Deserialize)]
struct WireLayout {
    #[serde(rename = "imageLayoutVersion")]
    version: Text,
}

/// The version that an `oci-layout` gives (image-layout.md, "oci-layout file").
pub(crate) fn layout_version(bytes: &[u8]) -> Result<String> {
    let wire: WireLayout = json::parse_within(bytes, "oci-layout", ARCHIVED)?;
    Ok(wire.version.0)
}

/// An image as a docker-archive's manifest.json names it.
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

/// What a docker-archive's manifest.json says.
pub(crate) fn docker_items(bytes: &[u8], what: &str) -> Result<Vec<DockerItem>> {
    let wire: Vec<WireItem> = json::parse_within(bytes, what, ARCHIVED)?;
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
