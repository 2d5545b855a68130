//! A file's content on its way past: hashed, inflated where it is compressed, kept where it is a
//! small document.

use crate::archive::decode::{self, Defect, Limits};
use crate::archive::read::compression;
use crate::digest::{Algorithm, Digest, Hasher};
use std::io::{self, Read};

/// As many of the first bytes as tell how it is compressed.
const MAGIC: usize = 6;
/// What a layer may inflate to: a hundred times its size, and a small one this.
const SMALL: u64 = 1 << 30;
const RATIO: u64 = 100;
/// The largest window of a zstd frame: as much as there is room for. What asks for more is hashed
/// as it is, and no further.
const WINDOW: u64 = 2 << 20;

pub(super) struct Tee<'r> {
    from: &'r mut dyn Read,
    sha256: Hasher,
    /// Where the name says so.
    sha512: Option<Hasher>,
    /// What has not come yet.
    left: u64,
    kept: Option<Vec<u8>>,
    failure: Option<io::Error>,
}

/// What a compressed file inflates to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// It is not compressed, or with something that is not undone here.
    Unknown,
    Digest([u8; 32]),
    Damaged(Box<str>),
}

/// What went by.
pub(super) struct Passed {
    pub complete: bool,
    pub compressed: bool,
    pub sha256: Digest,
    pub sha512: Option<Digest>,
    pub inflated: Inflated,
    pub kept: Option<Vec<u8>>,
}

impl<'r> Tee<'r> {
    /// `algorithm` is the one that has to be known, `keep` whether a document is to be kept.
    pub fn new(from: &'r mut dyn Read, size: u64, algorithm: Algorithm, keep: bool) -> Self {
        Self {
            from,
            sha256: Hasher::new(Algorithm::Sha256),
            sha512: (algorithm == Algorithm::Sha512).then(|| Hasher::new(algorithm)),
            left: size,
            kept: keep.then(Vec::new),
            failure: None,
        }
    }

    pub fn pass(mut self, buffer: &mut [u8]) -> io::Result<Passed> {
        let mut head = [0; MAGIC];
        let mut filled = 0;
        while let Ok(read @ 1..) = self.read(&mut head[filled..]) {
            filled += read;
        }
        let compressed = compression(&head[..filled]).is_some();
        let inflated = match compressed {
            true => {
                let limit = self.left.saturating_mul(RATIO).max(SMALL);
                inflated(head[..filled].chain(&mut self), limit, buffer)
            }
            false => Inflated::Unknown,
        };
        while let Ok(1..) = self.read(buffer) {}
        match self.failure {
            Some(error) => Err(error),
            None => Ok(Passed {
                complete: self.left == 0,
                compressed,
                sha256: self.sha256.finish(),
                sha512: self.sha512.map(Hasher::finish),
                inflated,
                kept: self.kept,
            }),
        }
    }

    /// Only what begins like a document is kept.
    fn keep(&mut self, bytes: &[u8]) {
        let Some(kept) = &mut self.kept else { return };
        if kept.is_empty() {
            match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{' | b'[') => kept.reserve_exact(bytes.len() + self.left as usize),
                _ => {
                    self.kept = None;
                    return;
                }
            }
        }
        kept.extend_from_slice(bytes);
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.left.min(buffer.len() as u64) as usize;
        let read = match self.from.read(&mut buffer[..part]) {
            Ok(read) => read,
            Err(error) => {
                let again = io::Error::from(error.kind());
                // Whoever reads through this may take an error for the content's.
                self.failure = Some(error);
                self.left = 0;
                return Err(again);
            }
        };
        let bytes = &buffer[..read];
        self.left -= read as u64;
        self.sha256.update(bytes);
        if let Some(hasher) = &mut self.sha512 {
            hasher.update(bytes);
        }
        if read > 0 {
            self.keep(bytes);
        }
        Ok(read)
    }
}

/// The digest of what a compressed layer inflates to: its diff ID.
fn inflated(from: impl Read, limit: u64, buffer: &mut [u8]) -> Inflated {
    let limits = Limits {
        output: limit,
        window: WINDOW,
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let hashed = decode::reader(Box::new(from), limits).and_then(|(_, mut reader)| {
        loop {
            match reader.read(buffer)? {
                0 => return Ok(()),
                read => hasher.update(&buffer[..read]),
            }
        }
    });
    let Err(error) = hashed else {
        return Inflated::Digest(super::contents::raw(&hasher.finish()));
    };
    match Defect::of(&error) {
        Some(
            defect @ (Defect::Cut(_)
            | Defect::Damaged(_)
            | Defect::Checksum(_)
            | Defect::Trailing(_)),
        ) => Inflated::Damaged(defect.to_string().into()),
        _ => Inflated::Unknown,
    }
}
