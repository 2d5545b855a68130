//! Sigstore bundles: a DSSE envelope over an in-toto statement, as cosign 3 signs images
//! (sigstore/protobuf-specs, sigstore_bundle.proto; secure-systems-lab/dsse; in-toto/attestation).
//!
//! Only the statement of an image signature counts. An attestation by the same key says something
//! about an image, but not that it may be run.

use super::{Form, Parsed, Statement, VALUES, base64, claims};
use crate::error::{count, printable};
use crate::json::keys::Keys::{self, Map, None as Plain, Struct};
use crate::json::{self, Loose, Text};
use miniserde::Deserialize;
use miniserde::json::Value;
use std::collections::BTreeMap;

/// The media type of bundles, and of the manifests that hold them.
pub(super) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// The predicate's type of a signature.
pub(super) const SIGNED: &str = "https://sigstore.dev/cosign/sign/v1";

const BUNDLE_KEYS: Keys = Struct(&[
    ("mediaType", &Plain),
    ("verificationMaterial", &Plain),
    (
        "dsseEnvelope",
        &Struct(&[
            ("payload", &Plain),
            ("payloadType", &Plain),
            ("signatures", &Struct(&[("sig", &Plain), ("keyid", &Plain)])),
        ]),
    ),
    ("messageSignature", &Plain),
]);

const STATEMENT_KEYS: Keys = Struct(&[
    ("_type", &Plain),
    (
        "subject",
        &Struct(&[
            ("name", &Plain),
            ("digest", &Map(&["sha256", "sha512"], &Plain)),
            ("annotations", &Plain),
        ]),
    ),
    ("predicateType", &Plain),
    ("predicate", &Plain),
]);

#[derive(Deserialize)]
struct WireBundle {
    #[serde(rename = "mediaType")]
    media_type: Text,
    #[serde(rename = "dsseEnvelope")]
    envelope: Option<Envelope>,
    #[serde(rename = "messageSignature")]
    message: Option<Value>,
}

#[derive(Deserialize)]
struct Envelope {
    payload: Text,
    #[serde(rename = "payloadType")]
    payload_type: Text,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: Text,
}

#[derive(Deserialize)]
struct WireStatement {
    #[serde(rename = "_type")]
    kind: Text,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate: Text,
}

#[derive(Deserialize)]
struct Subject {
    digest: Hashes,
    annotations: Loose<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Text,
    sha512: Text,
}

/// Reads a bundle and the statement in its envelope.
pub(super) fn parse(bytes: &[u8]) -> Parsed<Statement> {
    let misread = |error: crate::Error| format!("is not understood: {error}");
    let bundle: WireBundle =
        json::parse_within(bytes, "the bundle", VALUES, &BUNDLE_KEYS).map_err(misread)?;
    if bundle.media_type.0 != BUNDLE {
        let kind = printable(&bundle.media_type.0, 80);
        return Err(format!(
            "is a bundle of type {kind:?}; only version 0.3 is supported"
        ));
    }
    let envelope = match (bundle.envelope, bundle.message) {
        (Some(envelope), None) => envelope,
        _ => {
            return Err(
                "is a bundle without a single DSSE envelope, which is not supported".into(),
            );
        }
    };
    let [Signature { sig }] = &envelope.signatures[..] else {
        let found = count(envelope.signatures.len(), "signature");
        return Err(format!("is an envelope with {found} instead of one"));
    };
    if envelope.payload_type.0 != PAYLOAD_TYPE {
        let kind = printable(&envelope.payload_type.0, 80);
        return Err(format!(
            "has a payload of type {kind:?}, not {PAYLOAD_TYPE}"
        ));
    }
    let payload = base64(&envelope.payload.0).ok_or("has a payload that is not base64")?;
    let signature = base64(&sig.0).ok_or("has a signature that is not base64")?;
    let statement: WireStatement =
        json::parse_within(&payload, "the statement", VALUES, &STATEMENT_KEYS).map_err(misread)?;
    if statement.kind.0 != STATEMENT {
        let kind = printable(&statement.kind.0, 80);
        return Err(format!("is a statement of type {kind:?}, not {STATEMENT}"));
    }
    if statement.predicate.0 != SIGNED {
        let kind = printable(&statement.predicate.0, 120);
        return Err(format!(
            "is an attestation ({kind}), not a signature of an image"
        ));
    }
    let (mut subjects, mut found) = (Vec::new(), BTreeMap::new());
    for Subject {
        digest,
        annotations,
    } in statement.subject
    {
        for (name, hash) in [("sha256", digest.sha256), ("sha512", digest.sha512)] {
            if !hash.0.is_empty() {
                subjects.push(format!("{name}:{}", hash.0));
            }
        }
        found.extend(annotations.0.unwrap_or_default());
    }
    Ok(Statement {
        form: Form::Bundle,
        message: encoded(PAYLOAD_TYPE, &payload),
        signature,
        subjects,
        predicate: statement.predicate.0,
        claims: claims(found)?,
        identity: None,
    })
}

/// The bytes signed in an envelope (DSSE, protocol.md, "PAE").
fn encoded(kind: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    [head.as_bytes(), payload].concat()
}
