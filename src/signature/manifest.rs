//! Signature manifests: which of their layers are signatures, in which form. They are not trusted;
//! they only lead to signatures.

use super::bundle::{BUNDLE, SIGNED};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::json::keys::Keys::{self, Map, None as Plain, Struct};
use crate::json::{self, Loose, Number, Text};
use crate::manifest::{Descriptor, MOST};
use miniserde::Deserialize;

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const COSIGN_2: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const PREDICATE: &str = "dev.sigstore.bundle.predicateType";

/// The objects, and the values, of one: a layer with its annotations takes two and eight.
const LIMITS: (usize, usize) = (2 * MOST + 64, 16 * MOST);

const PART: Keys = Struct(&[
    ("mediaType", &Plain),
    ("digest", &Plain),
    ("size", &Plain),
    ("annotations", &Map(&[SIGNATURE], &Plain)),
]);

const MANIFEST: Keys = Struct(&[
    ("config", &PART),
    ("layers", &PART),
    ("subject", &PART),
    ("annotations", &Map(&[PREDICATE], &Plain)),
]);

#[derive(Deserialize)]
struct Wire {
    config: Option<Part>,
    layers: Option<Vec<Part>>,
    annotations: Loose<Annotations>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "mediaType")]
    media_type: Text,
    digest: Text,
    size: Number,
    annotations: Loose<Annotations>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "dev.cosignproject.cosign/signature")]
    signature: Option<String>,
    #[serde(rename = "dev.sigstore.bundle.predicateType")]
    predicate: Option<String>,
}

/// The content of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Bundle,
    /// A payload, whose signature is here, in base64.
    Simple {
        signature: String,
    },
}

/// A layer with a signature.
pub(crate) struct Layer {
    pub descriptor: Descriptor,
    pub payload: Payload,
}

/// A manifest with signatures.
pub(crate) struct Manifest {
    /// The layers that hold one; there may be none.
    pub layers: Vec<Layer>,
    pub config: Option<Descriptor>,
    /// All that it refers to.
    pub parts: Vec<Descriptor>,
    /// Its type, if it is another statement than a signature.
    pub attestation: Option<String>,
}

/// Whether an entry of this type in a list of referrers may be a signature. Registries without the
/// referrers API list cosign's by the type of their empty config.
pub(crate) fn is_signature(artifact_type: &str) -> bool {
    matches!(artifact_type, "" | BUNDLE | COSIGN_2 | EMPTY)
}

impl Manifest {
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self> {
        let wire: Wire = json::parse_within(bytes, what, LIMITS, &MANIFEST)?;
        let (mut layers, mut parts) = (Vec::new(), Vec::new());
        for mut part in wire.layers.unwrap_or_default() {
            let signature = part.annotations.0.take().and_then(|own| own.signature);
            let descriptor = part.descriptor(what)?;
            parts.push(descriptor.clone());
            let payload = match (descriptor.media_type.as_str(), signature) {
                (BUNDLE, _) => Payload::Bundle,
                (SIMPLE, Some(signature)) => Payload::Simple { signature },
                _ => continue,
            };
            layers.push(Layer {
                descriptor,
                payload,
            });
        }
        let config = wire.config.map(|part| part.descriptor(what)).transpose()?;
        parts.extend(config.clone());
        let predicate = wire.annotations.0.and_then(|own| own.predicate);
        Ok(Self {
            layers,
            config,
            parts,
            attestation: predicate.filter(|predicate| predicate != SIGNED),
        })
    }
}

impl Part {
    fn descriptor(self, what: &str) -> Result<Descriptor> {
        let Number::Is(size) = self.size else {
            return Err(Error::malformed(what, "a part has no size"));
        };
        Ok(Descriptor {
            media_type: self.media_type.0,
            digest: self.digest.0.parse::<Digest>()?,
            size,
            urls: Vec::new(),
        })
    }
}
