//! Image signatures: keys, envelopes, payloads, and the verdict. Pure: nothing here queries a
//! registry or opens an archive.
//!
//! Two forms are supported. A *simple signing* payload is a blob whose signature is an annotation
//! (cosign 1 and 2, SIGNATURE_SPEC.md); a *bundle* holds a DSSE envelope over an in-toto statement
//! (cosign 3, BUNDLE_SPEC.md). A signature counts if one of the wanted keys made it and the signed
//! content names the wanted digest. Transparency logs and certificates are ignored.

mod bundle;
mod der;
mod key;
mod manifest;
pub(crate) mod policy;
mod simple;

pub use key::PublicKey;
pub(crate) use manifest::{Manifest, Payload, is_signature};
pub use policy::Policy;

use crate::digest::Digest;
use crate::error::{Error, count, printable};
use miniserde::json::Value;
use std::collections::BTreeMap;

/// The largest manifest of signatures, in bytes: one of a thousand signatures has less. What is
/// kept in an archive is read with the same limit.
pub(crate) const MANIFEST: u64 = 512 << 10;
/// The largest payload or bundle, in bytes: cosign's have some hundreds.
pub(crate) const LIMIT: u64 = 64 << 10;
/// The most objects, and values, in one of them.
const VALUES: (usize, usize) = (256, 2048);
/// How many of those that do not count a message names.
const NAMED: usize = 3;
/// The most bytes of annotations in one of them.
const CLAIMS: usize = 4 << 10;
/// How many subjects of a statement are followed.
const SUBJECTS: usize = 16;

/// The form of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// A payload with its signature beside it: cosign 1 and 2.
    SimpleSigning,
    /// A Sigstore bundle: cosign 3.
    Bundle,
}

impl Form {
    /// Its name in messages and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::SimpleSigning => "simple-signing",
            Self::Bundle => "bundle",
        }
    }
}

/// A signature that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The key that made it.
    pub key: String,
    /// The manifest or index that it covers.
    pub covers: Digest,
    /// Its form.
    pub form: Form,
    /// The type of the signed statement: the predicate's, or the payload's.
    pub predicate: String,
    /// The annotations that were signed with it, each value as text or as JSON.
    pub claims: Vec<(String, String)>,
    /// The repository or image that the signer named, where the form has a place for that.
    pub identity: Option<String>,
}

/// The unverified content of a signature.
struct Statement {
    form: Form,
    /// The bytes that were signed.
    message: Vec<u8>,
    signature: Vec<u8>,
    /// The digests of its subjects.
    subjects: Vec<String>,
    predicate: String,
    claims: Vec<(String, String)>,
    identity: Option<String>,
}

type Parsed<T> = std::result::Result<T, String>;

/// A requirement: a signature by any of these keys, with an acceptable name.
pub(crate) struct Demand<'d> {
    pub keys: &'d [PublicKey],
    /// Whether the signed identity is acceptable; otherwise the reason.
    pub identity: &'d dyn Fn(Option<&str>) -> Parsed<()>,
}

/// Looks at signatures one by one, until each demand is met.
pub(crate) struct Judge<'d> {
    demands: Vec<Demand<'d>>,
    met: Vec<Option<Verified>>,
    /// Why those that were seen do not count: the first of them, and how many there are.
    flaws: Vec<String>,
    flawed: usize,
}

impl<'d> Judge<'d> {
    pub fn new(demands: Vec<Demand<'d>>) -> Self {
        Self {
            met: demands.iter().map(|_| None).collect(),
            demands,
            flaws: Vec::new(),
            flawed: 0,
        }
    }

    /// Whether every requirement is met.
    pub fn is_done(&self) -> bool {
        self.met.iter().all(Option::is_some)
    }

    /// Checks a signature; returns the outcome.
    pub fn see(
        &mut self,
        name: &str,
        payload: &Payload,
        bytes: &[u8],
        targets: &[Digest],
    ) -> String {
        let parsed = payload.parse(bytes);
        let mut told = String::new();
        match &parsed {
            Err(why) => told = why.clone(),
            Ok(statement) => {
                for (demand, met) in self.demands.iter().zip(&mut self.met) {
                    match (statement.check(demand, targets), met) {
                        (Ok(verified), met @ None) => *met = Some(verified),
                        (Ok(_), Some(_)) => {}
                        (Err(why), _) => told = why,
                    }
                }
            }
        }
        if told.is_empty() {
            return "counts".to_owned();
        }
        self.flaw(name, &told);
        told
    }

    /// Something that was found does not count.
    pub fn flaw(&mut self, name: &str, why: &str) {
        self.flawed += 1;
        if self.flaws.len() < NAMED {
            self.flaws.push(format!("{name} {}", printable(why, 200)));
        }
    }

    /// The signatures that count, one for each demand; `what` is what should be signed.
    pub fn verdict(self, what: &str) -> crate::Result<Vec<Verified>> {
        if self.is_done() {
            return Ok(self.met.into_iter().flatten().collect());
        }
        let demands = self.demands.iter().zip(&self.met);
        let missing = demands.filter(|(_, met)| met.is_none());
        Err(Error::Unsigned {
            what: what.to_owned(),
            why: self.found(missing.flat_map(|(demand, _)| demand.keys)),
        })
    }

    /// The error: what was found instead of a signature by one of these keys.
    pub fn found<'k>(&self, keys: impl Iterator<Item = &'k PublicKey>) -> String {
        let keys: Vec<&str> = keys.map(PublicKey::name).take(NAMED).collect();
        let keys = keys.join(" or ");
        if self.flawed == 0 {
            return format!("is not signed by {keys}: no signature was found");
        }
        let more = match self.flawed - self.flaws.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        format!(
            "is not signed by {keys}: {} found, but none is valid: {}{more}",
            count(self.flawed, "signature"),
            self.flaws.join("; ")
        )
    }
}

/// Checks that one of the keys made a signature, whatever it covers; returns the first digests that
/// it covers.
pub(crate) fn check(
    payload: &Payload,
    bytes: &[u8],
    keys: &[PublicKey],
) -> Parsed<Vec<(Digest, Verified)>> {
    let statement = payload.parse(bytes)?;
    let key = statement.signer(keys)?;
    let digests = statement
        .subjects
        .iter()
        .filter_map(|text| text.parse().ok());
    let found = digests.map(|digest: Digest| (digest, statement.verified(key, &digest)));
    Ok(found.take(SUBJECTS).collect())
}

impl Statement {
    fn check(&self, demand: &Demand<'_>, targets: &[Digest]) -> Parsed<Verified> {
        let key = self.signer(demand.keys)?;
        let named = |target: &&Digest| self.subjects.contains(&target.to_string());
        let Some(covers) = targets.iter().find(named) else {
            let other = self.subjects.first().map_or("nothing", String::as_str);
            return Err(format!("is for another digest, {other}"));
        };
        (demand.identity)(self.identity.as_deref())?;
        Ok(self.verified(key, covers))
    }

    /// The key that made the signature.
    fn signer<'k>(&self, keys: &'k [PublicKey]) -> Parsed<&'k PublicKey> {
        let signed = |key: &&PublicKey| key.signed(&self.message, &self.signature);
        let key = keys.iter().find(signed);
        key.ok_or_else(|| "is by another key".to_owned())
    }

    fn verified(&self, key: &PublicKey, covers: &Digest) -> Verified {
        Verified {
            key: key.name().to_owned(),
            covers: *covers,
            form: self.form,
            predicate: self.predicate.clone(),
            claims: self.claims.clone(),
            identity: self.identity.clone(),
        }
    }
}

impl Payload {
    fn parse(&self, bytes: &[u8]) -> Parsed<Statement> {
        match self {
            Self::Bundle => bundle::parse(bytes),
            Self::Simple { signature } => simple::parse(bytes, signature),
        }
    }
}

/// Annotations as they were signed: a few lines, which each image that they cover is shown with.
fn claims(values: BTreeMap<String, Value>) -> Parsed<Vec<(String, String)>> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => miniserde::json::to_string(&other),
    };
    let pairs = values.into_iter().map(|(name, value)| (name, text(value)));
    let pairs: Vec<(String, String)> = pairs.collect();
    let size: usize = pairs
        .iter()
        .map(|(name, text)| name.len() + text.len())
        .sum();
    match size <= CLAIMS {
        true => Ok(pairs),
        false => Err(format!("has more than {CLAIMS} bytes of annotations")),
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
#[path = "../../tests/signing/mod.rs"]
mod signing;
#[cfg(test)]
mod tests;
