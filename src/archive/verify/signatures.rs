//! Offline signature checks: all documents in an archive that lead to signatures are examined. A
//! signature counts if it covers a manifest in `index.json`, or an index in the archive that names
//! that manifest.

use super::Findings;
use super::oci::Oci;
use super::scan::{Archive, PARSED, State};
use crate::archive::source::metadata::Outline;
use crate::archive::source::table::named_digest;
use crate::digest::Digest;
use crate::signature::{self, Judge, MANIFEST, Manifest, PublicKey, Verified};

/// How many payloads are checked, and how many documents are reached from those that count.
const LOOKED_AT: usize = 1024;
const REACHED: usize = 4096;

pub(super) fn check(
    archive: &Archive,
    oci: Option<&Oci>,
    keys: &[PublicKey],
    findings: &mut Findings,
) {
    let roots = oci.map_or(&[][..], |oci| &oci.roots);
    if roots.is_empty() {
        let what = "names no manifest in index.json that a signature could cover";
        findings.unsigned("the archive", what);
    }
    let mut judge = Judge::new(Vec::new());
    let mut signed = Vec::new();
    let mut looked_at = 0;
    for number in 0..archive.table.rows().len() {
        look_into(
            archive,
            number,
            keys,
            &mut judge,
            &mut looked_at,
            &mut signed,
        );
    }
    let covered = reach(archive, &signed);
    let found = judge.found(keys.iter());
    for root in roots {
        let digest = root
            .row
            .and_then(|row| named_digest(&archive.table.name(row)));
        let by = covered.iter().find(|(own, _)| Some(own) == digest.as_ref());
        match by {
            Some((_, by)) if findings.signatures.len() < super::LINES => {
                findings.signatures.push(signed[*by].1.clone());
            }
            Some(_) => {}
            None => findings.unsigned(root.label(), &found),
        }
    }
}

/// A document that may lead to signatures.
fn look_into(
    archive: &Archive,
    number: usize,
    keys: &[PublicKey],
    judge: &mut Judge<'_>,
    looked_at: &mut usize,
    signed: &mut Vec<(Digest, Verified)>,
) {
    let Some(bytes) = document(archive, number, MANIFEST) else {
        return;
    };
    let name = archive.table.name(number);
    let Ok(manifest) = Manifest::parse(&bytes, &name) else {
        return;
    };
    for layer in manifest.layers {
        *looked_at += 1;
        let row = archive.table.file(&layer.descriptor.digest.path());
        let payload = row.and_then(|row| document(archive, row, signature::LIMIT));
        let Some(payload) = payload.filter(|_| *looked_at <= LOOKED_AT) else {
            let missing = "has a signature that is missing, too large, or one of too many";
            judge.flaw(&name, missing);
            continue;
        };
        match signature::check(&layer.payload, &payload, keys) {
            Ok(found) => {
                // One signature of each digest is enough.
                let new = |one: &(Digest, Verified)| !signed.iter().any(|own| own.0 == one.0);
                let found: Vec<_> = found.into_iter().filter(new).collect();
                signed.extend(found);
            }
            Err(why) => judge.flaw(&name, &why),
        }
    }
}

/// The digests that are signed, and those that a signed index names; each with the number of its
/// signature.
fn reach(archive: &Archive, signed: &[(Digest, Verified)]) -> Vec<(Digest, usize)> {
    let mut covered: Vec<(Digest, usize)> = Vec::new();
    let numbered = signed.iter().enumerate();
    let mut next: Vec<(Digest, usize)> = numbered.map(|(at, (digest, _))| (*digest, at)).collect();
    while let Some((digest, by)) = next.pop() {
        if covered.iter().any(|(known, _)| *known == digest) || covered.len() >= REACHED {
            continue;
        }
        let row = archive.table.file(&digest.path());
        let bytes = row.and_then(|row| document(archive, row, MANIFEST));
        let outline = bytes.and_then(|bytes| Outline::parse(&bytes, "an index").ok());
        let children = outline
            .and_then(|outline| outline.manifests)
            .unwrap_or_default();
        let room = REACHED.saturating_sub(next.len());
        let children = children.iter().map(|child| (child.descriptor.digest, by));
        next.extend(children.take(room));
        covered.push((digest, by));
    }
    covered
}

/// A blob whose digest was checked, and that may be a document.
fn document(archive: &Archive, number: usize, limit: u64) -> Option<Vec<u8>> {
    let row = &archive.table.rows()[number];
    let hashed = archive.contents[number].state == State::Hashed;
    if !hashed || row.size > limit || !archive.table.name(number).starts_with("blobs/") {
        return None;
    }
    let bytes = archive.document(number, PARSED).ok()?;
    let begins = bytes.trim_ascii_start().starts_with(b"{");
    begins.then(|| bytes.into_owned())
}
