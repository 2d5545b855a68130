//! Image documents as registries serve them: indexes, manifests and configs.
//!
//! OCI image-spec (manifest.md, image-index.md, config.md, descriptor.md) and Docker's schema 2.
//! Every number is checked and every size bounded here; other modules fetch what a document refers
//! to.

use crate::budget::Lease;
use crate::digest::{Algorithm, Digest, InvalidDigest};
use crate::error::{Error, Result, count, printable};
use crate::json::{self, Loose, LooseTexts, Number, Text, keys};
use crate::platform::Platform;
use miniserde::Deserialize;
use std::sync::Arc;

/// The largest index or manifest, in bytes: the limit of registries and other clients.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// The largest image config, in bytes.
pub const CONFIG_LIMIT: u64 = 4 << 20;
/// The most layers or index entries in an archive's document.
pub(crate) const ENTRIES: usize = 4096;
/// The most in a registry's document. The Docker Engine stops at 125 layers.
pub(crate) const MOST: usize = 1024;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A reference to content: what it is, its digest and its size (image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Descriptor {
    /// The media type, as stated in the document.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
    /// Other URLs to fetch it from ("foreign" layers).
    pub urls: Vec<String>,
}

/// An entry of an index: a manifest or a further index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexEntry {
    /// What it refers to.
    pub descriptor: Descriptor,
    /// Its platform, if the index states one.
    pub platform: Option<Platform>,
    /// Whether it is an attestation or another companion of an image, not an image to run.
    pub companion: bool,
}

/// The content of an index or a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// An image index or manifest list.
    Index(Vec<IndexEntry>),
    /// An image manifest.
    Manifest {
        /// The image's config.
        config: Descriptor,
        /// The layers, lowest first; one may occur more than once.
        layers: Arc<[Descriptor]>,
    },
}

/// An index or a manifest: its bytes, their digest, and their parsed content.
#[derive(Clone, Debug)]
pub struct Document {
    bytes: Arc<Vec<u8>>,
    digest: Digest,
    media_type: &'static str,
    content: Content,
    passed_over: Vec<PassedOver>,
    /// The shares of the budget that it and its config take.
    leases: Vec<Arc<Lease>>,
}

impl Content {
    /// How many descriptors it has.
    pub(crate) fn descriptors(&self) -> usize {
        match self {
            Self::Index(entries) => entries.len(),
            Self::Manifest { layers, .. } => layers.len() + 1,
        }
    }
}

impl Document {
    /// Parses a document. `media_type` is the server's Content-Type, if any; `expected` the digest
    /// that it must have.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] if the bytes do not have the `expected` digest, [`Error::Unsupported`]
    /// if it is not an image (schema 1, artifacts, encrypted layers), otherwise
    /// [`Error::Malformed`].
    pub fn parse(
        bytes: Vec<u8>,
        media_type: Option<&str>,
        expected: Option<&Digest>,
        what: &str,
    ) -> Result<Self> {
        Self::read(bytes, media_type, expected, what, Kinds::Images)
    }

    /// The same, optionally accepting manifests of other things than images.
    pub(crate) fn read(
        bytes: Vec<u8>,
        media_type: Option<&str>,
        expected: Option<&Digest>,
        what: &str,
        kinds: Kinds,
    ) -> Result<Self> {
        let digest = Digest::of(
            expected.map_or(Algorithm::Sha256, Digest::algorithm),
            &bytes,
        );
        if let Some(expected) = expected
            && digest != *expected
        {
            return Err(Error::Mismatch {
                blob: what.to_owned(),
                digest: Box::new(*expected),
                expected: expected.to_string(),
                found: digest.to_string(),
            });
        }
        let wire: WireDocument = json::parse_small(&bytes, what, &keys::DOCUMENT)?;
        let kind = kind(&wire, media_type, expected.is_some(), what)?;
        let (media_type, (content, passed_over)) = match kind {
            Kind::Index(media_type) => (media_type, index(wire, what)?),
            Kind::Manifest(media_type) => (media_type, (manifest(wire, what, kinds)?, Vec::new())),
        };
        Ok(Self {
            bytes: bytes.into(),
            digest,
            media_type,
            content,
            passed_over,
            leases: Vec::new(),
        })
    }

    /// Holds a share of the document budget as long as it exists.
    pub(crate) fn hold(&mut self, lease: Arc<Lease>) {
        self.leases.push(lease);
    }

    /// The room that it takes.
    pub(crate) fn leases(&self) -> &[Arc<Lease>] {
        &self.leases
    }

    /// The bytes as they were served.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same, shared without a copy.
    pub(crate) fn shared(&self) -> Arc<Vec<u8>> {
        self.bytes.clone()
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The media type, from the document and its Content-Type.
    pub fn media_type(&self) -> &'static str {
        self.media_type
    }

    /// Its content, without index entries that cannot be used because they have no size or no known
    /// digest.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The entries that were left out.
    pub(crate) fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }

    /// The data embedded in a descriptor of this document (image-spec, descriptor.md, "data"), if
    /// it matches the digest.
    pub(crate) fn embedded(&self, digest: &Digest) -> Option<Vec<u8>> {
        use base64::Engine as _;
        let text = json::beside(&self.bytes, ("digest", &digest.to_string()), "data")?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()?;
        digest.matches(&bytes).then_some(bytes)
    }
}

#[derive(Deserialize)]
pub(crate) struct WireDocument {
    #[serde(rename = "schemaVersion")]
    schema: Number,
    #[serde(rename = "mediaType")]
    pub media_type: Text,
    #[serde(rename = "artifactType")]
    artifact_type: Text,
    pub config: Option<WireDescriptor>,
    pub layers: Option<Vec<WireDescriptor>>,
    pub manifests: Option<Vec<Loose<WireDescriptor>>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<Vec<Text>>,
}

impl WireDocument {
    /// Refuses schema versions that loaders no longer accept.
    pub fn check_schema(&self, what: &str) -> Result<()> {
        match self.fs_layers.is_some() || self.schema == Number::Is(1) {
            true => Err(schema_1(what)),
            false => Ok(()),
        }
    }
}

fn schema_1(what: &str) -> Error {
    Error::unsupported(format!(
        "{what} is a schema 1 manifest, which Docker dropped in 2023; push the image again with a current tool"
    ))
}

#[derive(Deserialize)]
pub(crate) struct WireDescriptor {
    #[serde(rename = "mediaType")]
    media_type: Text,
    digest: Text,
    size: Number,
    urls: LooseTexts,
    pub platform: Loose<WirePlatform>,
    pub annotations: Loose<WireAnnotations>,
}

#[derive(Deserialize)]
pub(crate) struct WirePlatform {
    os: Text,
    architecture: Text,
    variant: Text,
}

impl WirePlatform {
    /// The platform, if any of it is stated.
    pub fn platform(&self) -> Option<Platform> {
        let said = !self.os.0.is_empty() || !self.architecture.0.is_empty();
        said.then(|| Platform::new(&self.os.0, &self.architecture.0, &self.variant.0))
    }
}

#[derive(Deserialize)]
pub(crate) struct WireAnnotations {
    #[serde(rename = "vnd.docker.reference.type")]
    reference_type: Text,
    #[serde(rename = "io.containerd.image.name")]
    pub name: Text,
    #[serde(rename = "org.opencontainers.image.ref.name")]
    pub tag: Text,
    #[serde(rename = "io.github.antmicro.dockersave.missing")]
    pub missing: Text,
    #[serde(rename = "io.github.antmicro.dockersave.whole")]
    pub whole: Text,
}

/// Which manifests are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// Manifests of container images that loaders can load.
    Images,
    /// Also those of attestations and other companions.
    All,
}

enum Kind {
    Index(&'static str),
    Manifest(&'static str),
}

/// A media type without its parameters.
pub(crate) fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or("").trim()
}

/// The media type, if it is an index's or a manifest's.
pub(crate) fn known(media_type: &str) -> Option<&'static str> {
    let bare = bare(media_type);
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]
        .into_iter()
        .find(|known| bare.eq_ignore_ascii_case(known))
}

/// Determines the kind by the body's mediaType, then Content-Type, then the fields that are
/// present. A document that could be both is refused: CVE-2021-41190.
fn kind(wire: &WireDocument, header: Option<&str>, pinned: bool, what: &str) -> Result<Kind> {
    let header_text = header.unwrap_or("");
    wire.check_schema(what)?;
    if header_text.contains("docker.distribution.manifest.v1+") {
        return Err(schema_1(what));
    }
    if wire.manifests.is_some() && (wire.layers.is_some() || wire.config.is_some()) {
        return Err(Error::malformed(what, "is both an index and a manifest"));
    }
    let body = known(&wire.media_type.0);
    let header = known(header_text);
    if let (Some(body), Some(header)) = (body, header)
        && body != header
        && !pinned
    {
        return Err(Error::malformed(
            what,
            format!("calls itself {body}, but was served as {header}"),
        ));
    }
    let indexes = |kind: &str| kind == OCI_INDEX || kind == DOCKER_LIST;
    match body.or(header) {
        Some(kind) if indexes(kind) && wire.manifests.is_some() => Ok(Kind::Index(kind)),
        Some(kind) if !indexes(kind) && wire.layers.is_some() => Ok(Kind::Manifest(kind)),
        Some(kind) if pinned || body.is_some() => Err(Error::malformed(
            what,
            format!(
                "calls itself {kind}, but has no {}",
                if indexes(kind) { "manifests" } else { "layers" }
            ),
        )),
        _ if wire.manifests.is_some() => Ok(Kind::Index(OCI_INDEX)),
        _ if wire.layers.is_some() && wire.config.is_some() => {
            let docker = wire
                .config
                .as_ref()
                .is_some_and(|config| config.media_type.0.contains(".docker."));
            Ok(Kind::Manifest(if docker {
                DOCKER_MANIFEST
            } else {
                OCI_MANIFEST
            }))
        }
        _ => Err(Error::malformed(
            what,
            "is neither an image index nor a manifest",
        )),
    }
}

/// A malformed entry is skipped; the others are still used.
fn index(wire: WireDocument, what: &str) -> Result<(Content, Vec<PassedOver>)> {
    let entries = wire.manifests.unwrap_or_default();
    if entries.len() > MOST {
        return Err(Error::malformed(
            what,
            format!("lists more than {MOST} manifests"),
        ));
    }
    let (mut sound, mut passed_over) = (Vec::new(), Vec::new());
    for (number, Loose(entry)) in entries.into_iter().enumerate() {
        let which = format!("entry {}", number + 1);
        let Some(mut entry) = entry else {
            pass_over(
                &mut passed_over,
                None,
                format!("{which}: is not a descriptor"),
            );
            continue;
        };
        let platform = entry.platform.0.take().and_then(|wire| wire.platform());
        let attestation = entry
            .annotations
            .0
            .take()
            .is_some_and(|a| a.reference_type.0 == "attestation-manifest");
        let unknown = platform
            .as_ref()
            .is_some_and(|p| p.os() == "unknown" || p.architecture() == "unknown");
        match descriptor(entry, "", &which) {
            Ok(descriptor) => sound.push(IndexEntry {
                descriptor,
                platform,
                companion: attestation || unknown,
            }),
            Err(Error::Malformed { why, .. }) => pass_over(&mut passed_over, platform, why),
            Err(other) => return Err(other),
        }
    }
    Ok((Content::Index(sound), passed_over))
}

/// An entry of an index that cannot be used.
#[derive(Clone, Debug)]
pub(crate) struct PassedOver {
    pub platform: Option<Platform>,
    /// Which entry, and what is wrong with it.
    pub why: String,
}

/// The most of them that are kept.
const PASSED_OVER: usize = 64;

fn pass_over(list: &mut Vec<PassedOver>, platform: Option<Platform>, why: String) {
    if list.len() < PASSED_OVER {
        list.push(PassedOver { platform, why });
    }
}

fn manifest(wire: WireDocument, what: &str, kinds: Kinds) -> Result<Content> {
    let Some(config) = wire.config else {
        return Err(Error::malformed(what, "has no config"));
    };
    let config = descriptor(config, what, "the config")?;
    let artifact = |kind: &str| {
        Error::unsupported(format!(
            "{what} is not a container image (artifact type {})",
            printable(kind, 120)
        ))
    };
    match config.media_type.as_str() {
        _ if kinds == Kinds::All => {}
        kind if is_image_config(kind) => {}
        _ if !wire.artifact_type.0.is_empty() => return Err(artifact(&wire.artifact_type.0)),
        other => return Err(artifact(other)),
    }
    let layers = wire.layers.unwrap_or_default();
    if layers.len() > MOST {
        return Err(Error::malformed(
            what,
            format!("lists more than {MOST} layers"),
        ));
    }
    let layers = layers.into_iter().enumerate().map(|(number, layer)| {
        let layer = descriptor(layer, what, &format!("layer {}", number + 1))?;
        if kinds == Kinds::All {
            return Ok(layer);
        }
        if layer.media_type.ends_with("+encrypted") {
            return Err(Error::unsupported(format!(
                "{what}: layer {} is encrypted ({}), and no loader can open it without the key",
                number + 1,
                printable(&layer.media_type, 120)
            )));
        }
        if !is_image_layer(&layer.media_type) {
            return Err(artifact(&layer.media_type));
        }
        Ok(layer)
    });
    Ok(Content::Manifest {
        config,
        layers: layers.collect::<Result<_>>()?,
    })
}

pub(crate) fn is_image_config(media_type: &str) -> bool {
    // Docker 1.10 called configs octet streams.
    matches!(
        media_type,
        OCI_CONFIG | "application/vnd.docker.container.image.v1+json" | "application/octet-stream"
    )
}

pub(crate) fn is_image_layer(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.oci.image.layer.")
        || media_type.starts_with("application/vnd.docker.image.rootfs.")
}

pub(crate) fn descriptor(wire: WireDescriptor, what: &str, which: &str) -> Result<Descriptor> {
    let wrong = |why: String| Error::malformed(what, format!("{which}: {why}"));
    let digest = wire
        .digest
        .0
        .parse()
        .map_err(|error: InvalidDigest| wrong(error.to_string()))?;
    let size = match wire.size {
        Number::Is(size) if i64::try_from(size).is_ok() => size,
        Number::Missing => return Err(wrong("has no size".into())),
        _ => return Err(wrong("its size is not a number of bytes".into())),
    };
    if wire.media_type.0.is_empty() {
        return Err(wrong("has no mediaType".into()));
    }
    let urls = wire.urls.0.into_iter().map(|url| url.0).collect();
    Ok(Descriptor {
        media_type: wire.media_type.0,
        digest,
        size,
        urls,
    })
}

/// The parts of an image config that matter here: platform and diff IDs.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub platform: Option<Platform>,
    pub diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct WireConfig {
    os: Text,
    architecture: Text,
    variant: Text,
    rootfs: Option<WireRootfs>,
}

#[derive(Deserialize)]
struct WireRootfs {
    diff_ids: Option<Vec<Text>>,
}

impl Config {
    pub fn parse(bytes: &[u8], layers: usize, what: &str) -> Result<Self> {
        let wire: WireConfig = json::parse_small(bytes, what, &keys::CONFIG)?;
        let diff_ids = wire
            .rootfs
            .and_then(|rootfs| rootfs.diff_ids)
            .unwrap_or_default();
        if diff_ids.len() != layers {
            return Err(Error::malformed(
                what,
                format!(
                    "names {}, but the manifest has {}",
                    count(diff_ids.len(), "diff ID"),
                    count(layers, "layer")
                ),
            ));
        }
        let diff_ids = diff_ids.iter().map(|id| id.0.parse());
        let named = !wire.os.0.is_empty() && !wire.architecture.0.is_empty();
        Ok(Self {
            platform: named
                .then(|| Platform::new(&wire.os.0, &wire.architecture.0, &wire.variant.0)),
            diff_ids: diff_ids
                .collect::<std::result::Result<_, InvalidDigest>>()
                .map_err(|error| Error::malformed(what, format!("diff ID: {error}")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str, header: Option<&str>) -> Result<Document> {
        Document::parse(text.as_bytes().to_vec(), header, None, "manifest x")
    }

    fn image(config: &str, layer: &str, size: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{config}","digest":"sha256:{HEX}","size":2}},
            "layers":[{{"mediaType":"{layer}","digest":"sha256:{HEX}","size":{size}}}]}}"#
        )
    }

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    #[test]
    fn the_kind_comes_from_body_then_header_then_shape() {
        let text = image(OCI_CONFIG, LAYER, "3");
        for header in [
            None,
            Some("text/html"),
            Some("application/json"),
            Some(&*format!("{OCI_MANIFEST}; charset=x")),
        ] {
            assert_eq!(parse(&text, header).unwrap().media_type(), OCI_MANIFEST);
        }
        assert_eq!(
            parse(&text, Some(DOCKER_MANIFEST)).unwrap().media_type(),
            DOCKER_MANIFEST
        );
        let index = format!(
            r#"{{"manifests":[{{"mediaType":"{OCI_MANIFEST}","digest":"sha256:{HEX}","size":1,
            "platform":{{"os":"linux","architecture":"arm","variant":"v6"}}}}]}}"#
        );
        let Content::Index(entries) = parse(&index, None).unwrap().content().clone() else {
            panic!()
        };
        assert_eq!(
            entries[0].platform.as_ref().unwrap().to_string(),
            "linux/arm/v6"
        );
        let typed = text.replacen('{', &format!(r#"{{"mediaType":"{OCI_MANIFEST}","#), 1);
        assert!(parse(&typed, Some(DOCKER_MANIFEST)).is_err());
        assert!(parse(&typed, Some(OCI_INDEX)).is_err());
        let both = text.replacen('{', r#"{"manifests":[],"#, 1);
        assert!(parse(&both, None).is_err());
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        for (text, word) in [
            (
                r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}"#.to_owned(),
                "schema 1",
            ),
            (
                image("application/vnd.cncf.helm.config.v1+json", LAYER, "3"),
                "helm",
            ),
            (
                image("application/vnd.oci.empty.v1+json", LAYER, "3"),
                "empty.v1",
            ),
            (
                image(
                    OCI_CONFIG,
                    "application/vnd.dev.cosign.simplesigning.v1+json",
                    "3",
                ),
                "cosign",
            ),
            (
                image(OCI_CONFIG, &format!("{LAYER}+encrypted"), "3"),
                "encrypted",
            ),
        ] {
            let error = parse(&text, None).unwrap_err();
            assert!(
                matches!(error, Error::Unsupported { .. }) && error.to_string().contains(word),
                "{error}"
            );
        }
    }

    #[test]
    fn sizes_and_digests_are_checked() {
        for size in ["-1", "9223372036854775808", "1e3", "\"3\"", "null", "[]"] {
            assert!(
                parse(&image(OCI_CONFIG, LAYER, size), None).is_err(),
                "{size}"
            );
        }
        assert!(parse(&image(OCI_CONFIG, LAYER, "10995116277760"), None).is_ok());
        let text = image(OCI_CONFIG, LAYER, "3");
        for wrong in ["../../../../etc/x", &HEX.to_uppercase(), &HEX[1..]] {
            assert!(parse(&text.replace(HEX, wrong), None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn other_bytes_than_the_digest_names_are_a_mismatch() {
        let text = image(OCI_CONFIG, LAYER, "3");
        let digest = Digest::of(Algorithm::Sha512, text.as_bytes());
        let bytes = text.into_bytes();
        assert!(Document::parse(bytes.clone(), None, Some(&digest), "x").is_ok());
        let other = Digest::of(Algorithm::Sha256, b"other");
        assert!(matches!(
            Document::parse(bytes, None, Some(&other), "x"),
            Err(Error::Mismatch { .. })
        ));
    }

    #[test]
    fn a_config_has_as_many_diff_ids_as_layers() {
        let text = format!(
            r#"{{"os":"linux","architecture":"x86_64","rootfs":{{"diff_ids":["sha256:{HEX}"]}}}}"#
        );
        let config = Config::parse(text.as_bytes(), 1, "config").unwrap();
        assert_eq!(config.platform.unwrap().to_string(), "linux/amd64");
        assert!(Config::parse(text.as_bytes(), 2, "config").is_err());
        assert!(
            Config::parse(b"{}", 0, "config")
                .unwrap()
                .platform
                .is_none()
        );
    }
}
