//! The tests' own signers, with ring: keys, envelopes and payloads as cosign writes them.
//! `test-only.pk8` is an RSA key that signs nothing else, since ring makes none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};

pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

pub enum Signer {
    Ecdsa(&'static str, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(&'static dyn signature::RsaEncoding, RsaKeyPair),
}

/// `30 length content`: DER of at most 65535 bytes.
pub fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [&head, content].concat()
}

pub fn pem(kind: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n",
        lines.join("\n")
    )
}

pub const P256: &[u8] =
    b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
pub const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
pub const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
pub const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// A SubjectPublicKeyInfo.
pub fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    let bits = der(3, &[&[0], key].concat());
    der(0x30, &[der(0x30, algorithm), bits].concat())
}

impl Signer {
    /// `p256`, `p384`, `ed25519`, `rsa` or `pss`; all but the RSA keys are new ones.
    pub fn new(kind: &str) -> Self {
        let random = SystemRandom::new();
        let ecdsa = |name, algorithm| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            Self::Ecdsa(
                name,
                EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap(),
            )
        };
        let rsa = || RsaKeyPair::from_pkcs8(include_bytes!("test-only.pk8")).unwrap();
        match kind {
            "p256" => ecdsa("p256", &signature::ECDSA_P256_SHA256_ASN1_SIGNING),
            "p384" => ecdsa("p384", &signature::ECDSA_P384_SHA384_ASN1_SIGNING),
            "ed25519" => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
                Self::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
            }
            "rsa" => Self::Rsa(&signature::RSA_PKCS1_SHA256, rsa()),
            "pss" => Self::Rsa(&signature::RSA_PSS_SHA512, rsa()),
            _ => panic!("no such key: {kind}"),
        }
    }

    pub fn der(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa("p256", pair) => spki(P256, pair.public_key().as_ref()),
            Self::Ecdsa(_, pair) => spki(P384, pair.public_key().as_ref()),
            Self::Ed25519(pair) => spki(ED25519, pair.public_key().as_ref()),
            Self::Rsa(_, pair) => spki(RSA, pair.public_key().as_ref()),
        }
    }

    /// The public key as `cosign.pub`.
    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.der())
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ecdsa(_, pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(encoding, pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    /// The same in base64.
    pub fn signature(&self, message: &[u8]) -> String {
        STANDARD.encode(self.sign(message))
    }

    /// A bundle over an image's digest, `sha256:...`.
    pub fn bundle(&self, digest: &str) -> String {
        self.bundle_of(IN_TOTO, &statement(digest, SIGN))
    }

    /// A bundle over any payload.
    pub fn bundle_of(&self, kind: &str, payload: &str) -> String {
        bundle(&envelope(
            kind,
            payload,
            &[&self.signature(&pae(kind, payload))],
        ))
    }
}

/// What an envelope's signature is made over.
pub fn pae(kind: &str, payload: &str) -> Vec<u8> {
    format!("DSSEv1 {} {kind} {} {payload}", kind.len(), payload.len()).into_bytes()
}

pub fn statement(digest: &str, predicate: &str) -> String {
    let (algorithm, hex) = digest.split_once(':').unwrap();
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"{algorithm}":"{hex}"}},"annotations":{{"release":"7"}}}}],"predicateType":"{predicate}","predicate":{{}}}}"#
    )
}

pub fn envelope(kind: &str, payload: &str, signatures: &[&str]) -> String {
    let signatures: Vec<String> = signatures
        .iter()
        .map(|sig| format!(r#"{{"sig":"{sig}"}}"#))
        .collect();
    format!(
        r#"{{"payload":"{}","payloadType":"{kind}","signatures":[{}]}}"#,
        STANDARD.encode(payload),
        signatures.join(",")
    )
}

pub fn bundle(envelope: &str) -> String {
    format!(
        r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{"publicKey":{{"hint":"x"}}}},"dsseEnvelope":{envelope}}}"#
    )
}

/// What cosign 2 signs.
pub fn payload(reference: &str, digest: &str) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":{{"release":"7"}}}}"#
    )
}
