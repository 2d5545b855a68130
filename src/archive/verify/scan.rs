//! The single pass over all bytes: the tar's structure, each file's digest, and what later checks
//! need.

use super::tee::{Budget, Inflated, Tee, raw};
use super::{Findings, failed};
use crate::archive::defect::Defect;
use crate::archive::source::directory::Folder;
use crate::archive::source::metadata::docker_items;
use crate::archive::source::table::{Table, is_looked_for, is_plain, named_digest};
use crate::archive::source::{self, Holder};
use crate::archive::tar::header::Kind;
use crate::archive::tar::reader::{Head, Input, Walker};
use crate::codec::inflate;
use crate::digest::{Algorithm, Digest};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// How many bytes of a file are hashed at once.
const BUFFER: usize = 64 << 10;
/// The memory for the documents of a stream.
const KEPT: u64 = 2 << 20;
/// The memory for the table of entries and the documents checked with it.
const ROOM: usize = (3 << 20) + (256 << 10);
/// How much more memory than its bytes a document takes, parsed and unparsed.
pub(super) const PARSED: usize = 4;
pub(super) const READ: usize = 1;

/// What was found out about a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is not a file, or its end is missing.
    Unknown,
    /// It does not match the digest in its name.
    False,
    Hashed,
}

#[derive(Clone, Copy)]
pub(super) struct Content {
    pub state: State,
    pub compressed: bool,
    pub sha256: [u8; 32],
}

const NOTHING: Content = Content {
    state: State::Unknown,
    compressed: false,
    sha256: [0; 32],
};

/// Where documents are taken from.
enum Store {
    Place(Holder),
    Kept(BTreeMap<usize, Vec<u8>>),
}

/// An archive of which every byte was read.
pub(super) struct Archive {
    pub table: Table,
    pub contents: Vec<Content>,
    /// The inflated digests of compressed files, in the order of their entries.
    inflated: Vec<(u32, Inflated)>,
    store: Store,
    /// Of the tar; none for a directory.
    pub size: Option<u64>,
}

impl Archive {
    /// Scans a tar. Without a holder, documents are kept while scanning.
    pub fn of_tar(
        input: &mut dyn Input,
        holder: Option<Holder>,
        path: &Path,
        budget: &Budget,
        findings: &mut Findings,
    ) -> Result<Self> {
        let mut archive = Self {
            table: Table::default(),
            contents: Vec::new(),
            inflated: Vec::new(),
            store: holder.map_or(Store::Kept(BTreeMap::new()), Store::Place),
            size: None,
        };
        let mut walker = Walker::new(input, true);
        let mut buffer = vec![0; BUFFER];
        let mut room = KEPT;
        loop {
            let head = match walker.next(&mut |defect| findings.push(defect)) {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(error) => {
                    damaged(error, path, findings)?;
                    break;
                }
            };
            let about = (head.kind, head.data, head.size);
            let number = archive.table.push(&head.name, &head.link, about, path)?;
            let row = archive.table.row_mut(number);
            (row.ours, row.damaged) = (head.ours, head.damaged);
            archive.judge_entry(number, &head, findings);
            let taken = archive.take(number, &mut walker, &mut buffer, &mut room, budget);
            if let Err(error) = taken {
                damaged(error, path, findings)?;
                archive.contents.push(NOTHING);
                break;
            }
            if archive.contents[number].state == State::False && !head.damaged {
                archive.tell_false(number, findings);
            }
        }
        archive.size = Some(walker.at());
        if !walker.is_tar() {
            let name = path.display().to_string();
            return Err(match inflate::format(&walker.magic()) {
                Some(with) => source::compressed(&name, with),
                None => Error::malformed(
                    name,
                    "is not a tar archive, or is damaged from its first byte on",
                ),
            });
        }
        archive.table.seal();
        for number in archive.table.duplicates() {
            findings.defect(
                &archive.table.name(number),
                "is in the archive more than once",
            );
        }
        for number in archive.table.misplaced() {
            let what = "is below an entry that is not a directory";
            findings.defect(&archive.table.name(number), what);
        }
        Ok(archive)
    }

    /// Scans a directory.
    pub fn of_folder(
        folder: &Arc<Folder>,
        path: &Path,
        budget: &Budget,
        findings: &mut Findings,
    ) -> Result<Self> {
        let mut table = folder.list()?;
        let holder = Holder::Folder(folder.clone());
        if let Some(number) = table.file("manifest.json")
            && table.rows()[number].size <= (ROOM / PARSED) as u64
            && let Ok(bytes) = source::place(&holder, &table, number).bytes()
            && let Ok(items) = docker_items(&bytes, "manifest.json")
        {
            folder.add_named(&source::named_files(&items), &mut table)?;
        }
        let count = table.rows().len();
        let mut archive = Self {
            table,
            contents: Vec::new(),
            inflated: Vec::new(),
            store: Store::Place(holder),
            size: None,
        };
        let mut buffer = vec![0; BUFFER];
        for number in 0..count {
            let name = archive.table.name(number).into_owned();
            let kind = archive.table.rows()[number].kind;
            archive.judge_name(number, &name, kind, findings);
            if kind != Kind::File {
                archive.contents.push(NOTHING);
                continue;
            }
            let failed = |error| Error::input(&path.join(&name), "reading", error);
            let mut file = folder.open(&name).map_err(failed)?;
            archive
                .take(number, &mut file, &mut buffer, &mut 0, budget)
                .map_err(failed)?;
            if archive.contents[number].state == State::False {
                archive.tell_false(number, findings);
            }
        }
        Ok(archive)
    }

    fn judge_entry(&self, number: usize, head: &Head, findings: &mut Findings) {
        let name = head.label();
        if !self.table.rows()[number].clean {
            findings.defect(
                &name,
                "has a name that leads out of the archive or is not UTF-8",
            );
            return;
        }
        let cleaned = self.table.name(number);
        let link = matches!(head.kind, Kind::Symlink | Kind::Hardlink);
        if !is_plain(&head.name, &cleaned, head.kind) {
            findings.defect(&name, "has a name that readers write in different ways");
        } else if is_looked_for(&cleaned) && (link || head.name.starts_with(b"/")) {
            let what =
                "is a name that loaders look for, but spelled so that not all of them find it";
            findings.defect(&name, what);
        }
        self.judge_name(number, &cleaned, head.kind, findings);
    }

    fn judge_name(&self, number: usize, name: &str, kind: Kind, findings: &mut Findings) {
        let what = match kind {
            Kind::Special => "is a device or a FIFO, which an image never has",
            Kind::Sparse => "is stored as a sparse file, which loaders do not read",
            Kind::Unknown => "is of a type that no loader knows",
            Kind::File if name.is_empty() => "has no name",
            Kind::Symlink | Kind::Hardlink if self.table.target(number).is_none() => {
                "is a link that leads out of the archive"
            }
            Kind::File if name.starts_with("blobs/") && named_digest(name).is_none() => {
                "is among the blobs, but its name is not a digest"
            }
            _ => return,
        };
        findings.defect(name, what);
    }

    /// Hashes a file, and keeps it if it is a document.
    fn take(
        &mut self,
        number: usize,
        from: &mut dyn Read,
        buffer: &mut [u8],
        room: &mut u64,
        budget: &Budget,
    ) -> io::Result<()> {
        let row = self.table.rows()[number];
        if row.kind != Kind::File {
            self.contents.push(NOTHING);
            return Ok(());
        }
        let blob = self.blob(number);
        let algorithm = blob.map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let keep = matches!(self.store, Store::Kept(_)) && row.size <= *room;
        let passed = Tee::new(from, row.size, algorithm, keep, budget).pass(buffer)?;
        let found = passed.sha512.unwrap_or(passed.sha256);
        let state = match blob {
            _ if !passed.complete => State::Unknown,
            Some(digest) if digest != found => State::False,
            _ => State::Hashed,
        };
        if let (Store::Kept(kept), Some(bytes), true) =
            (&mut self.store, passed.kept, passed.complete)
        {
            *room -= row.size;
            kept.insert(number, bytes);
        }
        if passed.inflated != Inflated::Unknown && state == State::Hashed {
            self.inflated.push((number as u32, passed.inflated));
        }
        self.contents.push(Content {
            state,
            compressed: passed.compressed,
            sha256: raw(&passed.sha256),
        });
        Ok(())
    }

    /// The digest in a blob's path.
    fn blob(&self, number: usize) -> Option<Digest> {
        let name = self.table.name(number);
        name.starts_with("blobs/")
            .then(|| named_digest(&name))
            .flatten()
    }

    fn tell_false(&self, number: usize, findings: &mut Findings) {
        let found = Digest::from_bytes(Algorithm::Sha256, &self.contents[number].sha256);
        let what = format!("does not have the digest in its name (it is {found})");
        findings.push(Defect::new(&self.table.name(number), what));
    }

    /// The memory that is left besides the table.
    pub fn room(&self) -> usize {
        let rows = self.table.rows().len() * (size_of::<Content>() + 1);
        let inflated = self.inflated.len() * size_of::<(u32, Inflated)>();
        let kept = match &self.store {
            Store::Kept(kept) => kept.values().map(Vec::len).sum(),
            Store::Place(_) => 0,
        };
        ROOM.saturating_sub(self.table.memory() + rows + inflated + kept)
    }

    /// The bytes of a document, or why they are not available; `room` bounds the memory.
    pub fn document(
        &self,
        number: usize,
        weight: usize,
    ) -> std::result::Result<Cow<'_, [u8]>, String> {
        let size = self.table.rows()[number].size;
        let fits = |weight: usize| match self.room().checked_div(weight) {
            Some(limit) if size > limit as u64 => Err(format!(
                "has {size} bytes; the limit for checking is {limit}"
            )),
            _ => Ok(()),
        };
        let holder = match &self.store {
            Store::Place(holder) => holder,
            Store::Kept(kept) => {
                let bytes = kept.get(&number).ok_or_else(|| format!(
                    "could not be kept: the documents of a stream may have {KEPT} bytes; check a file instead"
                ))?;
                fits(weight - 1)?;
                return Ok(Cow::Borrowed(bytes));
            }
        };
        fits(weight)?;
        let bytes = source::place(holder, &self.table, number).bytes();
        bytes
            .map(Cow::Owned)
            .map_err(|error| format!("could not be read again: {}", crate::error::plain(&error)))
    }

    /// The digest of a layer's uncompressed content.
    pub fn inflated(&self, number: usize) -> Inflated {
        let content = &self.contents[number];
        if !content.compressed {
            return Inflated::Digest(content.sha256);
        }
        let found = self
            .inflated
            .binary_search_by_key(&(number as u32), |(row, _)| *row);
        found.map_or(Inflated::Unknown, |at| self.inflated[at].1.clone())
    }
}

/// Damage in an archive's own compression is a defect; a failure to read it is not.
fn damaged(error: io::Error, path: &Path, findings: &mut Findings) -> Result<()> {
    let what = match inflate::Defect::of(&error) {
        None => return Err(failed(path)(error)),
        Some(inflate::Defect::TooMuch(_)) => {
            "inflates to more than a hundred times its size".into()
        }
        Some(defect) => defect.to_string(),
    };
    findings.defect("the archive", what);
    Ok(())
}

/// The files that were referred to.
pub(super) struct Seen(Vec<bool>);

impl Seen {
    pub fn new(archive: &Archive) -> Self {
        Self(vec![false; archive.table.rows().len()])
    }

    /// Marks a file; returns whether it is new.
    pub fn add(&mut self, number: usize) -> bool {
        !std::mem::replace(&mut self.0[number], true)
    }

    pub fn count(&self) -> usize {
        self.0.iter().filter(|seen| **seen).count()
    }
}
