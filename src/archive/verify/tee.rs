//! Processing of a file's content as it passes: hashed, inflated if compressed, kept if it is a
//! small document.

use crate::codec::inflate::{self, Defect, Limits};
use crate::digest::{Algorithm, Digest, Hasher};
use std::cell::Cell;
use std::io::{self, Read};

/// The limit for all inflated layers of an archive: this, plus a hundred bytes for each byte of the
/// archive. Three small layers can be made to inflate to gigabytes.
const FREE: u64 = 64 << 20;
const RATIO: u64 = 100;

/// The budget for one archive.
pub(super) struct Budget {
    /// The largest window of a zstd frame.
    pub window: u64,
    read: Cell<u64>,
    inflated: Cell<u64>,
    /// The archive itself is compressed: its compressed size counts, and it may inflate to the same
    /// limit again.
    packed: Cell<bool>,
    unpacked: Cell<u64>,
}

impl Budget {
    pub fn new(window: u64) -> Self {
        Self {
            window,
            read: Cell::new(0),
            inflated: Cell::new(0),
            packed: Cell::new(false),
            unpacked: Cell::new(0),
        }
    }

    pub fn read(&self, bytes: usize) {
        self.read.set(self.read.get() + bytes as u64);
    }

    /// Counts inflated bytes; returns whether they are within the limit.
    pub fn inflated(&self, bytes: usize) -> bool {
        self.has_room(&self.inflated, bytes)
    }

    fn has_room(&self, so_far: &Cell<u64>, bytes: usize) -> bool {
        so_far.set(so_far.get() + bytes as u64);
        so_far.get() <= FREE.saturating_add(self.read.get().saturating_mul(RATIO))
    }
}

pub(super) struct Tee<'r> {
    from: &'r mut dyn Read,
    sha256: Hasher,
    /// Where the name says so.
    sha512: Option<Hasher>,
    /// Not read yet.
    left: u64,
    kept: Option<Vec<u8>>,
    failure: Option<io::Error>,
    budget: &'r Budget,
}

/// The inflated digest of a compressed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// It is not compressed, its compression is not supported, or inflating it costs too much.
    Unknown,
    Digest([u8; 32]),
    Damaged(Box<str>),
}

/// The bytes that passed.
pub(super) struct Passed {
    pub complete: bool,
    pub compressed: bool,
    pub sha256: Digest,
    pub sha512: Option<Digest>,
    pub inflated: Inflated,
    pub kept: Option<Vec<u8>>,
}

impl<'r> Tee<'r> {
    /// `algorithm` is the digest's; `keep`: whether to keep it if it is a document.
    pub fn new(
        from: &'r mut dyn Read,
        size: u64,
        algorithm: Algorithm,
        keep: bool,
        budget: &'r Budget,
    ) -> Self {
        Self {
            from,
            sha256: Hasher::new(Algorithm::Sha256),
            sha512: (algorithm == Algorithm::Sha512).then(|| Hasher::new(algorithm)),
            left: size,
            kept: keep.then(Vec::new),
            failure: None,
            budget,
        }
    }

    pub fn pass(mut self, buffer: &mut [u8]) -> io::Result<Passed> {
        let mut head = [0; inflate::MAGIC];
        let mut filled = 0;
        while let Ok(read @ 1..) = self.read(&mut head[filled..]) {
            filled += read;
        }
        let compressed = inflate::format(&head[..filled]).is_some();
        let budget = self.budget;
        let inflated = match compressed {
            true => inflated(head[..filled].chain(&mut self), budget, buffer),
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

    /// Only content that starts like a document is kept.
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
                // Otherwise a read error could be mistaken for bad content.
                self.failure = Some(error);
                self.left = 0;
                return Err(again);
            }
        };
        let bytes = &buffer[..read];
        if !self.budget.packed.get() {
            self.budget.read(read);
        }
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

/// The digest of a compressed layer's inflated content: its diff ID.
fn inflated(from: impl Read, budget: &Budget, buffer: &mut [u8]) -> Inflated {
    let limits = Limits {
        output: u64::MAX,
        window: budget.window,
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let hashed = inflate::reader(Box::new(from), limits).and_then(|(_, mut reader)| {
        loop {
            match reader.read(buffer)? {
                0 => return Ok(()),
                read if !budget.inflated(read) => return Err(Defect::TooMuch(0).into()),
                read => hasher.update(&buffer[..read]),
            }
        }
    });
    let Err(error) = hashed else {
        return Inflated::Digest(raw(&hasher.finish()));
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

/// A stream as it is, or inflated if the whole archive is compressed.
pub(super) struct Unpacked<'r> {
    inner: Box<dyn Read + 'r>,
    budget: &'r Budget,
}

impl<'r> Unpacked<'r> {
    /// Reads the first bytes to find out which it is.
    pub fn new(from: &'r mut dyn Read, budget: &'r Budget) -> io::Result<Self> {
        let limits = Limits {
            output: u64::MAX,
            window: budget.window,
        };
        let (compression, inner) = inflate::reader(Box::new(Counted(from, budget)), limits)?;
        budget.packed.set(compression != inflate::Compression::None);
        Ok(Self { inner, budget })
    }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let budget = self.budget;
        match budget.packed.get() && !budget.has_room(&budget.unpacked, read) {
            true => Err(Defect::TooMuch(budget.unpacked.get()).into()),
            false => Ok(read),
        }
    }
}

/// Counts the bytes of a compressed archive.
struct Counted<'r>(&'r mut dyn Read, &'r Budget);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        if self.1.packed.get() {
            self.1.read(read);
        }
        Ok(read)
    }
}

/// The 32 bytes of a SHA-256.
pub(crate) fn raw(digest: &Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(&digest.as_bytes()[..32]);
    bytes
}
