//! Public keys: parsing of PEM, refusal of weak and malformed ones, and signature checks.

use super::der::{BIT_STRING, INTEGER, Reader, SEQUENCE, positive};
use crate::error::{Error, Result};
use ring::agreement;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use std::path::Path;

/// The largest key file that is read, in bytes: RSA with 8192 bits takes 1.5 KiB.
const LIMIT: u64 = 16 << 10;

/// The kind of a key, from its AlgorithmIdentifier (RFC 5480, RFC 8410, RFC 3279).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

const KINDS: [(&[u8], Kind); 4] = [
    (
        b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
        Kind::P256,
    ),
    (
        b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22",
        Kind::P384,
    ),
    (b"\x06\x03\x2b\x65\x70", Kind::Ed25519),
    (
        b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00",
        Kind::Rsa,
    ),
];

/// The hashes that each kind of key is used with. cosign used SHA-256 for all keys until 2026, and
/// the curve's own since.
static ECDSA_P256: [&dyn VerificationAlgorithm; 1] = [&signature::ECDSA_P256_SHA256_ASN1];
static ECDSA_P384: [&dyn VerificationAlgorithm; 2] = [
    &signature::ECDSA_P384_SHA384_ASN1,
    &signature::ECDSA_P384_SHA256_ASN1,
];
static ED25519: [&dyn VerificationAlgorithm; 1] = [&signature::ED25519];
static RSA: [&dyn VerificationAlgorithm; 6] = [
    &signature::RSA_PKCS1_2048_8192_SHA256,
    &signature::RSA_PKCS1_2048_8192_SHA384,
    &signature::RSA_PKCS1_2048_8192_SHA512,
    &signature::RSA_PSS_2048_8192_SHA256,
    &signature::RSA_PSS_2048_8192_SHA384,
    &signature::RSA_PSS_2048_8192_SHA512,
];

/// A public key that signatures are checked against: ECDSA on P-256 or P-384, Ed25519, or RSA of
/// 2048 to 8192 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    kind: Kind,
    bytes: Vec<u8>,
}

impl PublicKey {
    /// Reads a PEM file, such as `cosign.pub`.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if it cannot be read, [`Error::Malformed`] if it is not a single public key
    /// of a supported kind.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = crate::files::read_limited(path, LIMIT)
            .map_err(|error| Error::input(path, "reading the key", error))?;
        Self::from_pem(&bytes, &path.display().to_string())
    }

    /// Takes a PEM document; `name` is what messages call it.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] if it is not a single public key of a supported kind.
    pub fn from_pem(pem: &[u8], name: &str) -> Result<Self> {
        let wrong = |why: &str| Error::malformed(format!("key {name}"), why);
        let der = unwrap(pem).map_err(wrong)?;
        let (kind, bytes) = parse(&der).map_err(wrong)?;
        Ok(Self {
            name: name.to_owned(),
            kind,
            bytes: bytes.to_vec(),
        })
    }

    /// Its file, or another name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this key signed the message.
    pub(crate) fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms: &[&'static dyn VerificationAlgorithm] = match self.kind {
            Kind::P256 => &ECDSA_P256,
            Kind::P384 => &ECDSA_P384,
            Kind::Ed25519 => &ED25519,
            Kind::Rsa => &RSA,
        };
        algorithms.iter().any(|algorithm| {
            let key = UnparsedPublicKey::new(*algorithm, &self.bytes);
            key.verify(message, signature).is_ok()
        })
    }
}

type Parsed<T> = std::result::Result<T, &'static str>;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// The content of the one block of a PEM document (RFC 7468).
fn unwrap(pem: &[u8]) -> Parsed<Vec<u8>> {
    let text = std::str::from_utf8(pem).unwrap_or_default().trim();
    let Some(body) = text.strip_prefix(BEGIN) else {
        return Err(match text {
            _ if text.contains("PRIVATE KEY-----") => {
                "is a private key, which should be kept secret; give its public key"
            }
            _ if text.starts_with("-----BEGIN CERTIFICATE-----") => {
                "is a certificate; openssl x509 -pubkey -noout prints its public key"
            }
            _ => "is not a public key in PEM, which starts with -----BEGIN PUBLIC KEY-----",
        });
    };
    let body = body.strip_suffix(END).filter(|body| !body.contains('-'));
    let body = body.ok_or("does not contain exactly one complete public key")?;
    let digits: String = body.split_ascii_whitespace().collect();
    super::base64(&digits).ok_or("is not base64")
}

/// A SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
fn parse(der: &[u8]) -> Parsed<(Kind, &[u8])> {
    const MALFORMED: &str = "is malformed: not in DER";
    let mut outer = Reader(Reader(der).last(SEQUENCE).ok_or(MALFORMED)?);
    let algorithm = outer.next(SEQUENCE).ok_or(MALFORMED)?;
    let bits = outer.last(BIT_STRING).ok_or(MALFORMED)?;
    let Some((0, bytes)) = bits.split_first().map(|(unused, bytes)| (*unused, bytes)) else {
        return Err(MALFORMED);
    };
    let known = KINDS
        .iter()
        .find(|(identifier, _)| *identifier == algorithm);
    let kind = known.map(|(_, kind)| *kind).ok_or(
        "is of an unsupported kind; ECDSA on P-256 or P-384, Ed25519 and RSA are supported",
    )?;
    match kind {
        Kind::P256 => on_curve(&agreement::ECDH_P256, bytes),
        Kind::P384 => on_curve(&agreement::ECDH_P384, bytes),
        Kind::Ed25519 => check_ed25519(bytes),
        Kind::Rsa => check_rsa(bytes),
    }?;
    Ok((kind, bytes))
}

/// Whether it is an uncompressed point of the curve. With ring, the only way to find out is a key
/// agreement.
fn on_curve(curve: &'static agreement::Algorithm, point: &[u8]) -> Parsed<()> {
    let random = ring::rand::SystemRandom::new();
    agreement::EphemeralPrivateKey::generate(curve, &random)
        .and_then(|own| {
            let peer = agreement::UnparsedPublicKey::new(curve, point);
            agreement::agree_ephemeral(own, &peer, |_| ())
        })
        .map_err(|_| "is malformed: not an uncompressed point of its curve")
}

/// The prime 2^255 - 19, and the ordinates of the points of small order, which anybody can sign
/// for; the least significant byte first (RFC 8032).
const PRIME_END: u8 = 0xed;
const ORDER_8: [&[u8; 32]; 2] = [
    b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
    b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a",
];

fn check_ed25519(point: &[u8]) -> Parsed<()> {
    let mut ordinate: [u8; 32] = point
        .try_into()
        .map_err(|_| "is malformed: an Ed25519 key has 32 bytes")?;
    ordinate[31] &= 0x7f;
    let [first, middle @ .., last] = &ordinate;
    let small = *last == 0 && *first <= 1 && middle.iter().all(|byte| *byte == 0);
    // The prime minus one has order 2; values not below the prime are invalid.
    let large = *last == 0x7f && *first >= PRIME_END - 1 && middle.iter().all(|b| *b == 0xff);
    match small || large || ORDER_8.contains(&&ordinate) {
        true => Err("is weak: a point of small order, for which anyone can sign"),
        false => Ok(()),
    }
}

/// RSAPublicKey (RFC 8017, A.1.1), within what ring takes.
fn check_rsa(key: &[u8]) -> Parsed<()> {
    const MALFORMED: &str = "is malformed: not an RSA key";
    let mut numbers = Reader(Reader(key).last(SEQUENCE).ok_or(MALFORMED)?);
    let modulus = numbers.next(INTEGER).and_then(positive).ok_or(MALFORMED)?;
    let exponent = numbers.last(INTEGER).and_then(positive).ok_or(MALFORMED)?;
    let bits = modulus.len() * 8 - modulus[0].leading_zeros() as usize;
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte & 1 == 1);
    if !(2048..=8192).contains(&bits) {
        return Err("is an RSA key of unsupported length; 2048 to 8192 bits are supported");
    }
    // From 65537 (FIPS 186-5) to 33 bits.
    let value = exponent
        .iter()
        .fold(0_u64, |sum, b| sum << 8 | u64::from(*b));
    match exponent.len() <= 5
        && value >= 65_537
        && value >> 33 == 0
        && odd(exponent)
        && odd(modulus)
    {
        true => Ok(()),
        false => Err("is weak: an RSA key with an invalid modulus or exponent"),
    }
}
