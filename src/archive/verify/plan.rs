//! Comparison of dockersave's own archives with their plan, which follows from their documents.
//! This also checks the bytes that no digest covers: index.json, manifest.json, headers, order.

use super::Findings;
use super::oci::why;
use super::scan::{Archive, READ};
use crate::archive::plan::{Plan, Source};
use crate::archive::rebuild::{Documents, rebuild};
use crate::archive::tar::header::{BLOCK, Kind};
use crate::error::{Error, Result};
use std::borrow::Cow;

/// The record size of tars written for tapes, as GNU tar and Python write them.
const RECORD: u64 = 10_240;

/// Whether dockersave wrote it; some of its headers may be damaged. A reproducible `tar` of the
/// directory has the same headers, but it has directories in it or ends with a tape record.
pub(super) fn is_ours(archive: &Archive) -> bool {
    let rows = archive.table.rows();
    let ours = rows.iter().filter(|row| row.ours).count();
    let end = rows.iter().map(|row| row.data + row.size).max();
    let taped = archive.size.zip(end).is_some_and(|(size, end)| {
        let end = end.next_multiple_of(BLOCK) + 2 * BLOCK;
        size > end && size == end.next_multiple_of(RECORD)
    });
    archive.size.is_some()
        && ours * 2 > rows.len()
        && !taped
        && !rows.iter().any(|row| row.kind == Kind::Directory)
        && archive.table.file("index.json").is_some()
}

/// Compares an archive made by dockersave with its plan.
pub(super) fn check(archive: &Archive, findings: &mut Findings) {
    let Some(size) = archive.size.filter(|_| findings.ours) else {
        return;
    };
    let plan = match plan(archive) {
        Ok(plan) => plan,
        Err(Error::TooLarge { .. }) => {
            let why = "is too large to be compared with its plan";
            return findings.unchecked("index.json", why);
        }
        Err(error) => {
            let what = format!("is not as dockersave writes it: {}", why(error));
            return findings.defect("index.json", what);
        }
    };
    compare(archive, size, &plan, findings);
}

/// The first difference from the plan: everything after it differs, too.
fn compare(archive: &Archive, size: u64, plan: &Plan, findings: &mut Findings) {
    let rows = archive.table.rows();
    for (number, entry) in plan.entries().iter().enumerate() {
        let Some(row) = rows.get(number) else {
            return findings.defect(entry.path(), "is missing at the end of the archive");
        };
        let name = archive.table.name(number);
        if name != entry.path() {
            let what = format!("is where {} belongs", entry.path());
            return findings.defect(&name, what);
        }
        if !row.ours {
            return findings.defect(&name, "does not have the header dockersave writes");
        }
        // The digests of blobs were checked.
        if let Source::Memory(known) = entry.source()
            && !name.starts_with("blobs/")
        {
            match archive.document(number, READ) {
                Ok(bytes) if *bytes == **known => {}
                Ok(bytes) => {
                    let same = bytes.iter().zip(&**known).take_while(|(a, b)| a == b);
                    let what = format!(
                        "differs from what follows from the images at byte {}",
                        same.count()
                    );
                    return findings.defect(&name, what);
                }
                Err(why) => return findings.unchecked(&name, &why),
            }
        }
        if row.size != entry.size() || row.data != entry.data_start() {
            return findings.defect(
                &name,
                "does not have the size or place that its manifest gives it",
            );
        }
    }
    if rows.len() > plan.entries().len() {
        let name = archive.table.name(plan.entries().len());
        return findings.defect(&name, "does not belong to any image");
    }
    if size != plan.size() {
        let what = format!("is at byte {size}, but belongs at byte {}", plan.size());
        findings.defect("the end", what);
    }
}

/// The documents of an archive that was gone through.
struct Scanned<'a>(&'a Archive);

impl Documents for Scanned<'_> {
    fn size(&self, name: &str) -> Option<u64> {
        let number = self.0.table.file(name)?;
        Some(self.0.table.rows()[number].size)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let number = self.0.table.file(name);
        let number = number.ok_or_else(|| Error::malformed(name, format!("{name} is missing")))?;
        let found = self.0.document(number, READ);
        found
            .map(Cow::into_owned)
            .map_err(|why| Error::malformed(name, why))
    }
}

/// The plan of the images that index.json names; of a thin archive, with what it says is missing.
fn plan(archive: &Archive) -> Result<Plan> {
    rebuild(&Scanned(archive), archive.room(), false)?.plan()
}
