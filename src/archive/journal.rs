//! How far a partial file has come: the journal that stands behind the archive's last byte.
//!
//! A blob's place is divided into chunks, and each chunk that was written completely has a record
//! with its CRC-32. A record says what was true when it was written; after a power cut it may be
//! on the disk while the chunk is not, therefore every claimed chunk is read again before it is
//! trusted. This module turns journals into bytes and back; [`super::file`] stores them.

use super::layout::Plan;
use crate::digest::{Algorithm, Digest};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a record stands for, and what is lost at most when a worker is killed.
const CHUNK: u64 = 512 << 10;
/// Blobs of more than 32 GiB have larger chunks, so that no size costs memory without end.
const CHUNKS: u64 = 1 << 16;
const MAGIC: &[u8; 16] = b"dockersave\0jnl1\0";
const HEADER: usize = 64;
const ROW: usize = 88;
const TRAILER: usize = 32;
/// A record's second half: tells a record from zeros, which a chunk's CRC-32 may well be.
const DONE: u32 = 0xD0C5_A7ED;
/// Bytes of a record.
pub(crate) const RECORD: usize = 8;
/// The largest journal that is read: one million blobs or eight million chunks.
const LIMIT: u64 = 64 << 20;

/// The largest journal of another plan that is read: of 64 GiB, or of ten thousand blobs.
pub(crate) const FOREIGN: u64 = 1 << 20;

/// How a blob of `size` bytes is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    size: u64,
    chunk: u64,
}

impl Chunks {
    pub fn of(size: u64) -> Self {
        let chunk = CHUNK.max(size.div_ceil(CHUNKS).next_multiple_of(CHUNK));
        Self { size, chunk }
    }

    pub fn count(&self) -> usize {
        // At most CHUNKS.
        self.size.div_ceil(self.chunk) as usize
    }

    /// The bytes of a chunk, counted from the blob's first.
    pub fn range(&self, chunk: usize) -> Range<u64> {
        let start = chunk as u64 * self.chunk;
        start..(start + self.chunk).min(self.size)
    }

    /// The chunk that a byte belongs to; the count, for the end.
    pub fn at(&self, byte: u64) -> usize {
        if byte >= self.size {
            self.count()
        } else {
            (byte / self.chunk) as usize
        }
    }

    /// How many chunks make about so many bytes, at least one.
    pub fn in_bytes(&self, bytes: u64) -> usize {
        ((bytes / self.chunk) as usize).max(1)
    }
}

/// One blob's row of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub digest: Digest,
    /// Of its first byte in the file.
    pub offset: u64,
    pub size: u64,
    /// The CRC-32 of each chunk that is claimed to be there.
    pub claims: Vec<Option<u32>>,
}

/// A journal that was read.
#[derive(Debug)]
pub(crate) struct Journal {
    pub plan: Digest,
    pub rows: Vec<Row>,
}

/// Where the records of a plan's chunks stand in the file that holds its journal.
pub(crate) struct Marks {
    /// Of each blob's first record.
    offsets: Vec<u64>,
    /// Something is worth going on from.
    worth: AtomicBool,
}

impl Marks {
    /// For a journal that begins at this byte of its file.
    pub fn new(plan: &Plan, start: u64) -> Self {
        let mut at = start + (HEADER + plan.blobs().len() * ROW) as u64;
        let offsets = plan.blobs().iter().map(|blob| {
            let offset = at;
            at += (Chunks::of(blob.descriptor.size).count() * RECORD) as u64;
            offset
        });
        Self {
            offsets: offsets.collect(),
            worth: AtomicBool::new(false),
        }
    }

    /// The place of a chunk's record.
    pub fn at(&self, blob: usize, chunk: usize) -> u64 {
        self.offsets[blob] + (chunk * RECORD) as u64
    }

    /// From now on there is something to keep.
    pub fn keep(&self) {
        self.worth.store(true, Ordering::Relaxed);
    }

    pub fn worth(&self) -> bool {
        self.worth.load(Ordering::Relaxed)
    }
}

/// The claims of a journal that claims nothing.
pub(crate) fn no_claims(plan: &Plan) -> Vec<Vec<Option<u32>>> {
    let blobs = plan.blobs().iter();
    blobs
        .map(|blob| vec![None; Chunks::of(blob.descriptor.size).count()])
        .collect()
}

/// Writes a new journal at this byte of a file that is as long as it will be.
pub(crate) fn write(file: &File, plan: &Plan, start: u64) -> io::Result<()> {
    let (head, trailer) = begin(plan, start);
    file.write_all_at(&head, start)?;
    // The trailer comes last: a file that has one is laid out.
    file.write_all_at(&trailer, start + size(plan) - TRAILER_SIZE)
}

pub(crate) fn record(crc: u32) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes[4..].copy_from_slice(&DONE.to_le_bytes());
    bytes
}

/// Header and rows of a new journal, and the trailer that ends the file; no chunk is there yet.
fn begin(plan: &Plan, start: u64) -> (Vec<u8>, [u8; TRAILER]) {
    let mut bytes = Vec::with_capacity(HEADER + plan.blobs().len() * ROW);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(plan.digest().as_bytes());
    bytes.extend_from_slice(&plan.size().to_le_bytes());
    bytes.extend_from_slice(&(plan.blobs().len() as u64).to_le_bytes());
    for blob in plan.blobs() {
        let mut row = [0; ROW];
        let digest = &blob.descriptor.digest;
        row[0] = if digest.algorithm() == Algorithm::Sha512 {
            2
        } else {
            1
        };
        row[8..8 + digest.as_bytes().len()].copy_from_slice(digest.as_bytes());
        row[72..80].copy_from_slice(&blob.offset.to_le_bytes());
        row[80..].copy_from_slice(&blob.descriptor.size.to_le_bytes());
        bytes.extend_from_slice(&row);
    }
    let mut trailer = [0; TRAILER];
    trailer[..16].copy_from_slice(MAGIC);
    trailer[16..24].copy_from_slice(&start.to_le_bytes());
    trailer[24..28].copy_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    (bytes, trailer)
}

/// The length of a plan's journal, trailer included.
pub(crate) fn size(plan: &Plan) -> u64 {
    let records: usize = plan
        .blobs()
        .iter()
        .map(|blob| Chunks::of(blob.descriptor.size).count() * RECORD)
        .sum();
    (HEADER + plan.blobs().len() * ROW + records + TRAILER) as u64
}

/// Where a file's journal stands, told by the file's last bytes.
pub(crate) fn place(trailer: &[u8], file_size: u64) -> Option<Range<u64>> {
    let start = number(trailer.get(16..24)?);
    let end = file_size.checked_sub(TRAILER as u64)?;
    let length = end.checked_sub(start)?;
    let valid = trailer.len() == TRAILER
        && trailer.starts_with(MAGIC)
        && (HEADER as u64..=LIMIT).contains(&length);
    valid.then_some(start..end)
}

/// Bytes of the trailer.
pub(crate) const TRAILER_SIZE: u64 = TRAILER as u64;

/// Reads a journal; `None` for what is none, or is damaged. Nothing in it is trusted: offsets and
/// sizes lie inside of the archive, and claims are only claims.
pub(crate) fn read(bytes: &[u8], trailer: &[u8]) -> Option<Journal> {
    if !bytes.starts_with(MAGIC) || bytes.len() < HEADER {
        return None;
    }
    let archive = number(&bytes[48..56]);
    let count = usize::try_from(number(&bytes[56..64])).ok()?;
    let table = HEADER.checked_add(count.checked_mul(ROW)?)?;
    let head = bytes.get(..table)?;
    if crc32fast::hash(head).to_le_bytes() != trailer[24..28] {
        return None;
    }
    let mut records = &bytes[table..];
    let mut rows = Vec::with_capacity(count);
    for row in head[HEADER..].as_chunks::<ROW>().0 {
        let (offset, size) = (number(&row[72..80]), number(&row[80..]));
        if offset.checked_add(size)? > archive {
            return None;
        }
        let (algorithm, length) = if row[0] == 2 {
            (Algorithm::Sha512, 64)
        } else {
            (Algorithm::Sha256, 32)
        };
        let own = Chunks::of(size).count() * RECORD;
        let (mine, rest) = records.split_at_checked(own)?;
        records = rest;
        rows.push(Row {
            digest: Digest::from_bytes(algorithm, &row[8..8 + length]),
            offset,
            size,
            claims: mine.as_chunks().0.iter().map(claim).collect(),
        });
    }
    Some(Journal {
        plan: Digest::from_bytes(Algorithm::Sha256, &bytes[16..48]),
        rows,
    })
}

fn claim(record: &[u8; RECORD]) -> Option<u32> {
    let half = |at: usize| {
        u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
    };
    (half(4) == DONE).then(|| half(0))
}

fn number(bytes: &[u8]) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::layout::PlanOptions;
    use crate::archive::layout::tests::image;

    fn plan() -> Plan {
        let layers = [
            (Digest::of(Algorithm::Sha256, b"a"), 3 * CHUNK + 7),
            (Digest::of(Algorithm::Sha512, b"b"), 1),
            (Digest::of(Algorithm::Sha256, b"c"), 0),
        ];
        Plan::new(&[image("a", &layers)], &PlanOptions::default()).unwrap()
    }

    fn stored(plan: &Plan) -> (Vec<u8>, [u8; TRAILER]) {
        let (mut bytes, trailer) = begin(plan, plan.size());
        bytes.resize(size(plan) as usize - TRAILER, 0);
        (bytes, trailer)
    }

    #[test]
    fn a_journal_is_read_as_it_was_written() {
        let plan = plan();
        let (mut bytes, trailer) = stored(&plan);
        let at = Marks::new(&plan, 0).at(0, 1) as usize;
        bytes[at..at + RECORD].copy_from_slice(&record(0));
        let journal = read(&bytes, &trailer).unwrap();
        assert_eq!(journal.plan, *plan.digest());
        assert_eq!(journal.rows[0].claims, [None, Some(0), None, None]);
        assert_eq!(journal.rows[1].digest, Digest::of(Algorithm::Sha512, b"b"));
        assert_eq!((journal.rows[1].size, journal.rows[2].claims.len()), (1, 0));
        let file_size = plan.size() + size(&plan);
        assert_eq!(
            place(&trailer, file_size),
            Some(plan.size()..file_size - TRAILER as u64)
        );
    }

    #[test]
    fn damage_is_noticed_or_harmless() {
        let plan = plan();
        let (bytes, trailer) = stored(&plan);
        let table = HEADER + plan.blobs().len() * ROW;
        for at in 0..table {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(read(&damaged, &trailer).is_none(), "byte {at}");
        }
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length], &trailer).is_none());
        }
        for size in [0, 31, 32, 100] {
            assert!(place(&trailer, size).is_none());
        }
        assert!(place(&[0; TRAILER], 1 << 20).is_none());
    }

    #[test]
    fn chunks_cover_a_blob_and_stay_few() {
        for size in [0, 1, CHUNK, CHUNK + 1, 10 << 40] {
            let chunks = Chunks::of(size);
            assert!(chunks.count() as u64 <= CHUNKS);
            let mut at = 0;
            for chunk in 0..chunks.count() {
                assert_eq!(chunks.range(chunk).start, at);
                assert_eq!(chunks.at(at), chunk);
                at = chunks.range(chunk).end;
            }
            assert_eq!((at, chunks.at(size)), (size, chunks.count()));
        }
    }
}
