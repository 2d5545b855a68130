//! A file's content on its way past: hashed, its first bytes looked at, small documents kept.

use crate::archive::read::compression;
use crate::digest::{Algorithm, Digest, Hasher};
use std::io::{self, Read};

/// As many of the first bytes as tell how it is compressed.
const MAGIC: usize = 6;

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

/// What went by.
pub(super) struct Passed {
    pub complete: bool,
    pub compressed: bool,
    pub sha256: Digest,
    pub sha512: Option<Digest>,
    /// What it inflates to, where it is compressed.
    pub inflated: Option<Digest>,
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
            true => inflated(&mut head[..filled].chain(&mut self)),
            false => None,
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

/// The digest of what a compressed layer inflates to. Nothing is inflated here yet: the diff IDs of
/// compressed layers are counted, and not compared.
fn inflated(_from: &mut dyn Read) -> Option<Digest> {
    None
}
