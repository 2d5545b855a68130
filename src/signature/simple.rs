//! Simple signing: a signed payload that names a digest (cosign's SIGNATURE_SPEC.md;
//! containers-signature(5) has the same document).

use super::{Form, Parsed, Statement, VALUES, base64, claims};
use crate::error::printable;
use crate::json::keys::Keys::{self, None as Plain, Struct};
use crate::json::{self, Loose, Text};
use miniserde::Deserialize;
use miniserde::json::Value;
use std::collections::BTreeMap;

/// The keys that every reader must interpret alike.
const PAYLOAD: Keys = Struct(&[
    (
        "critical",
        &Struct(&[
            ("identity", &Struct(&[("docker-reference", &Plain)])),
            ("image", &Struct(&[("docker-manifest-digest", &Plain)])),
            ("type", &Plain),
        ]),
    ),
    ("optional", &Plain),
]);

const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Wire {
    critical: Critical,
    optional: Loose<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Critical {
    identity: Option<Identity>,
    image: Image,
    #[serde(rename = "type")]
    kind: Text,
}

#[derive(Deserialize)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: Text,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Text,
}

/// A payload, and the annotation with its signature.
pub(super) fn parse(bytes: &[u8], signature: &str) -> Parsed<Statement> {
    let signature = base64(signature).ok_or("has a signature that is not base64")?;
    let wire: Wire = json::parse_within(bytes, "the payload", VALUES, &PAYLOAD)
        .map_err(|error| format!("is not understood: {error}"))?;
    let Critical {
        identity,
        image,
        kind,
    } = wire.critical;
    if kind.0 != TYPE {
        let kind = printable(&kind.0, 60);
        return Err(format!("is a payload of type {kind:?}, not {TYPE:?}"));
    }
    Ok(Statement {
        form: Form::SimpleSigning,
        message: bytes.to_vec(),
        signature,
        subjects: vec![image.digest.0],
        predicate: kind.0,
        claims: claims(wire.optional.0.unwrap_or_default())?,
        identity: identity.map(|identity| identity.reference.0),
    })
}
