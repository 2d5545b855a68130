//! The journal after the archive's last byte: how much of a partial file is written.
//!
//! A blob is divided into chunks. Each chunk has a record with two claims: how many of its first
//! bytes are written, and their CRC-32. After a power cut a claim may be on the disk while the
//! bytes are not, so every claim is checked against the bytes before it is trusted, the longer one
//! of a record first. A claim that an `fsync` made durable is not overwritten before the next
//! `fsync`: the other one is.
//!
//! A claim needs no checksum of its own: it takes eight aligned bytes, which are never split
//! between two sectors, and a damaged one does not match the bytes it is about.
//!
//! This module encodes and decodes journals; [`super::file`] stores them.

use crate::archive::plan::{Blob, Plan};
use crate::digest::{Algorithm, Digest};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// The journal's name in a partial directory.
pub(super) const JOURNAL: &str = "journal";

/// The bytes that a record covers.
const CHUNK: u64 = 512 << 10;
/// Blobs of more than 32 GiB have larger chunks, so that memory stays bounded.
const CHUNKS: u64 = 1 << 16;
const MAGIC: &[u8; 16] = b"dockersave\0jnl2\0";
/// The first format: one claim per chunk, about all of it. Still read, no longer written.
const FIRST: &[u8; 16] = b"dockersave\0jnl1\0";
const HEADER: usize = 64;
const ROW: usize = 88;
const TRAILER: usize = 32;
/// The second half of a claim about the whole chunk; otherwise it is the number of bytes.
const DONE: u32 = 0xD0C5_A7ED;
/// Longer parts of chunks get no claim. No blob of less than 128 TiB has such chunks.
const LONGEST: u32 = 1 << 31;
const CLAIM: usize = 8;
/// The size of a record in bytes.
pub(crate) const RECORD: usize = 2 * CLAIM;
/// The largest journal that is read, row by row: 760 000 blobs or four million chunks.
const LIMIT: u64 = 64 << 20;

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

    pub fn length(&self, chunk: usize) -> u64 {
        let range = self.range(chunk);
        range.end - range.start
    }

    /// The chunk that a byte belongs to; the count, for the end.
    pub fn at(&self, byte: u64) -> usize {
        if byte >= self.size {
            self.count()
        } else {
            (byte / self.chunk) as usize
        }
    }

    /// How many chunks have about this many bytes, at least one.
    pub fn in_bytes(&self, bytes: u64) -> usize {
        ((bytes / self.chunk) as usize).max(1)
    }
}

/// How many of a chunk's first bytes are written, and their CRC-32. The default claims nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claim {
    pub crc: u32,
    mark: u32,
}

/// What a journal says of a chunk.
pub(crate) type Record = [Claim; 2];

impl Claim {
    /// All of a chunk is written.
    pub fn whole(crc: u32) -> Self {
        Self { crc, mark: DONE }
    }

    /// Only its first bytes are; `None` if there are too many to be claimed.
    pub fn part(length: u64, crc: u32) -> Option<Self> {
        let mark = u32::try_from(length).ok().filter(|mark| *mark < LONGEST)?;
        Some(Self { crc, mark })
    }

    /// How many bytes of a chunk of this size are claimed; 0 for an impossible claim.
    pub fn length(self, chunk: u64) -> u64 {
        match self.mark {
            DONE => chunk,
            mark if mark < LONGEST && u64::from(mark) < chunk => mark.into(),
            _ => 0,
        }
    }

    pub fn to_bytes(self) -> [u8; CLAIM] {
        let mut bytes = [0; CLAIM];
        bytes[..4].copy_from_slice(&self.crc.to_le_bytes());
        bytes[4..].copy_from_slice(&self.mark.to_le_bytes());
        bytes
    }

    /// The claim at this place of a record, if the record is long enough.
    fn read(record: &[u8], at: usize) -> Self {
        let claim = record.get(at..).and_then(|rest| rest.first_chunk());
        let [a, b, c, d, e, f, g, h] = *claim.unwrap_or(&[0; CLAIM]);
        Self {
            crc: u32::from_le_bytes([a, b, c, d]),
            mark: u32::from_le_bytes([e, f, g, h]),
        }
    }
}

/// How many bytes of a chunk of this size a record claims.
pub(crate) fn claimed(record: Record, chunk: u64) -> u64 {
    record[0].length(chunk).max(record[1].length(chunk))
}

/// One blob's row of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub digest: Digest,
    /// Of its first byte in the file.
    pub offset: u64,
    pub size: u64,
    /// Of each chunk.
    pub claims: Vec<Record>,
}

/// A parsed journal.
#[derive(Debug)]
pub(crate) struct Journal {
    plan: Digest,
    /// It has the current format.
    current: bool,
    pub rows: Vec<Row>,
}

impl Journal {
    /// Whether a pull of this plan can resume with it and write to it. It then has a row for each
    /// blob.
    pub fn is_of(&self, plan: &Plan) -> bool {
        let same = |(row, blob): (&Row, &Blob)| {
            let descriptor = &blob.descriptor;
            (row.digest, row.size, row.offset) == (descriptor.digest, descriptor.size, blob.offset)
        };
        self.current
            && self.plan == *plan.digest()
            && self.rows.len() == plan.blobs().len()
            && self.rows.iter().zip(plan.blobs()).all(same)
    }
}

/// The offsets of the records of a plan's chunks in the file that holds its journal.
pub(crate) struct Marks {
    /// Of each blob's first record.
    offsets: Vec<u64>,
    /// There is something worth resuming from.
    worth: AtomicBool,
    /// The name of its file is durable.
    pub named: AtomicBool,
}

impl Marks {
    /// For a journal at this offset of its file.
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
            named: AtomicBool::new(false),
        }
    }

    /// The offset of one of a chunk's two claims.
    pub fn at(&self, blob: usize, chunk: usize, slot: usize) -> u64 {
        self.offsets[blob] + (chunk * RECORD + slot * CLAIM) as u64
    }

    /// From now on there is something to keep.
    pub fn keep(&self) {
        self.worth.store(true, Ordering::Relaxed);
    }

    pub fn worth(&self) -> bool {
        self.worth.load(Ordering::Relaxed)
    }
}

/// Writes a new journal at this offset of a file that has its final length.
pub(crate) fn write(file: &File, plan: &Plan, start: u64) -> io::Result<()> {
    let (head, trailer) = begin(plan, start);
    file.write_all_at(&head, start)?;
    // The trailer is written last: a file that has one is complete in its layout.
    file.write_all_at(&trailer, start + size(plan) - TRAILER_SIZE)
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

/// The offset of a file's journal, from the file's last bytes.
pub(crate) fn place(trailer: &[u8], file_size: u64) -> Option<Range<u64>> {
    let start = number(trailer.get(16..24)?);
    let end = file_size.checked_sub(TRAILER as u64)?;
    let length = end.checked_sub(start)?;
    let valid = trailer.len() == TRAILER
        && (trailer.starts_with(MAGIC) || trailer.starts_with(FIRST))
        && (HEADER as u64..=LIMIT).contains(&length);
    valid.then_some(start..end)
}

/// Bytes of the trailer.
pub(crate) const TRAILER_SIZE: u64 = TRAILER as u64;

/// Reads bytes at an offset of a journal.
pub(crate) type Source<'s> = &'s dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Reads a journal of this length; `None` if it is not one or is damaged. Keeps only the rows that
/// are `wanted`, at most `most`, which bounds the memory. Nothing in it is trusted: offsets and
/// sizes are checked to be within the archive, and claims are only claims.
pub(crate) fn read(
    source: Source<'_>,
    length: u64,
    trailer: &[u8],
    wanted: &dyn Fn(&Digest, u64) -> bool,
    most: usize,
) -> Option<Journal> {
    let mut header = [0; HEADER];
    source(&mut header, 0).ok()?;
    let current = header.starts_with(MAGIC);
    if !(current || header.starts_with(FIRST)) {
        return None;
    }
    let record = if current { RECORD } else { CLAIM };
    let archive = number(&header[48..]);
    let count = number(&header[56..]);
    let mut place = count.checked_mul(ROW as u64)?.checked_add(HEADER as u64)?;
    if place > length {
        return None;
    }
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header);
    each_row(source, count, &mut |row| {
        crc.update(row);
        Some(())
    })?;
    if crc.finalize().to_le_bytes() != trailer[24..28] {
        return None;
    }
    let mut rows = Vec::new();
    each_row(source, count, &mut |row| {
        let (offset, size) = (number(&row[72..]), number(&row[80..]));
        // At most CHUNKS records.
        let records = (Chunks::of(size).count() * record) as u64;
        let begin = place;
        place += records;
        if offset.checked_add(size)? > archive || place > length {
            return None;
        }
        let (algorithm, bytes) = if row[0] == 2 {
            (Algorithm::Sha512, 64)
        } else {
            (Algorithm::Sha256, 32)
        };
        let digest = Digest::from_bytes(algorithm, &row[8..8 + bytes]);
        if rows.len() < most && wanted(&digest, size) {
            let mut claims = vec![0; records as usize];
            source(&mut claims, begin).ok()?;
            rows.push(Row {
                digest,
                offset,
                size,
                claims: claims
                    .chunks_exact(record)
                    .map(|record| [Claim::read(record, 0), Claim::read(record, CLAIM)])
                    .collect(),
            });
        }
        Some(())
    })?;
    Some(Journal {
        plan: Digest::from_bytes(Algorithm::Sha256, &header[16..48]),
        current,
        rows,
    })
}

fn each_row(
    source: Source<'_>,
    count: u64,
    row: &mut dyn FnMut(&[u8; ROW]) -> Option<()>,
) -> Option<()> {
    let mut buffer = vec![0; ROW * count.min(256) as usize];
    let (mut left, mut place) = (count, HEADER as u64);
    while left > 0 {
        let part = &mut buffer[..ROW * left.min(256) as usize];
        source(part, place).ok()?;
        part.as_chunks().0.iter().try_for_each(&mut *row)?;
        left -= (part.len() / ROW) as u64;
        place += part.len() as u64;
    }
    Some(())
}

fn number(bytes: &[u8]) -> u64 {
    let mut array = [0; 8];
    array.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(array)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::plan::PlanOptions;
    use crate::archive::plan::tests::image;

    fn plan() -> Plan {
        let layers = [
            (Digest::of(Algorithm::Sha256, b"a"), 3 * CHUNK + 7),
            (Digest::of(Algorithm::Sha512, b"b"), 1),
            (Digest::of(Algorithm::Sha256, b"c"), 0),
        ];
        Plan::new(&[image("a", &layers)], &PlanOptions::default()).unwrap()
    }

    fn read_all(bytes: &[u8], trailer: &[u8]) -> Option<Journal> {
        read_wanted(bytes, trailer, &|_, _| true, usize::MAX)
    }

    fn read_wanted(
        bytes: &[u8],
        trailer: &[u8],
        wanted: &dyn Fn(&Digest, u64) -> bool,
        most: usize,
    ) -> Option<Journal> {
        let source = |part: &mut [u8], at: u64| {
            let from = bytes.get(at as usize..).unwrap_or_default();
            let from = from.get(..part.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            part.copy_from_slice(from);
            Ok(())
        };
        read(&source, bytes.len() as u64, trailer, wanted, most)
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
        let (whole, part) = (Claim::whole(0), Claim::part(9, 7).unwrap());
        let marks = Marks::new(&plan, 0);
        for (chunk, slot, claim) in [(1, 0, whole), (2, 1, part)] {
            let at = marks.at(0, chunk, slot) as usize;
            bytes[at..at + CLAIM].copy_from_slice(&claim.to_bytes());
        }
        let journal = read_all(&bytes, &trailer).unwrap();
        assert!(journal.is_of(&plan));
        let none = Claim::default();
        let claims = [[none, none], [whole, none], [none, part], [none, none]];
        assert_eq!(journal.rows[0].claims, claims);
        let claimed = claims.map(|record| claimed(record, CHUNK));
        assert_eq!(claimed, [0, CHUNK, 9, 0]);
        assert_eq!(journal.rows[1].digest, Digest::of(Algorithm::Sha512, b"b"));
        assert_eq!((journal.rows[1].size, journal.rows[2].claims.len()), (1, 0));
        let file_size = plan.size() + size(&plan);
        assert_eq!(
            place(&trailer, file_size),
            Some(plan.size()..file_size - TRAILER as u64)
        );
    }

    #[test]
    fn the_first_format_is_read_and_not_written_to() {
        let plan = plan();
        let (mut bytes, mut trailer) = stored(&plan);
        bytes[..16].copy_from_slice(FIRST);
        let table = HEADER + plan.blobs().len() * ROW;
        bytes.truncate(table + 5 * CLAIM);
        bytes[table + 2 * CLAIM..][..CLAIM].copy_from_slice(&Claim::whole(3).to_bytes());
        trailer[..16].copy_from_slice(FIRST);
        trailer[24..28].copy_from_slice(&crc32fast::hash(&bytes[..table]).to_le_bytes());
        assert!(place(&trailer, plan.size() + (bytes.len() + TRAILER) as u64).is_some());
        let journal = read_all(&bytes, &trailer).unwrap();
        assert!(!journal.is_of(&plan));
        let claims = &journal.rows[0].claims;
        assert_eq!((claims.len(), claims[2][0]), (4, Claim::whole(3)));
        assert!((0..4).all(|chunk| chunk == 2 || claimed(claims[chunk], CHUNK) == 0));
        bytes.pop();
        assert!(read_all(&bytes, &trailer).is_none());
    }

    #[test]
    fn only_what_is_wanted_takes_memory() {
        let plan = plan();
        let (bytes, trailer) = stored(&plan);
        let wanted =
            |digest: &Digest, size| (*digest, size) == (Digest::of(Algorithm::Sha512, b"b"), 1);
        let journal = read_wanted(&bytes, &trailer, &wanted, 9).unwrap();
        assert_eq!((journal.rows.len(), journal.rows[0].size), (1, 1));
        assert!(!journal.is_of(&plan));
        let journal = read_wanted(&bytes, &trailer, &|_, _| true, 2).unwrap();
        assert_eq!(journal.rows.len(), 2);
    }

    #[test]
    fn what_makes_no_sense_claims_nothing() {
        let claim = |mark| Claim { crc: 0, mark };
        let lengths = [0, 1, 99, 100, 101, LONGEST - 1, LONGEST, u32::MAX, DONE];
        let claimed = lengths.map(|mark| claim(mark).length(100));
        assert_eq!(claimed, [0, 1, 99, 0, 0, 0, 0, 0, 100]);
        assert!(Claim::part(LONGEST.into(), 0).is_none() && Claim::part(u64::MAX, 0).is_none());
    }

    #[test]
    fn damage_is_noticed_or_harmless() {
        let plan = plan();
        let (bytes, trailer) = stored(&plan);
        let table = HEADER + plan.blobs().len() * ROW;
        for at in 0..table {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(read_all(&damaged, &trailer).is_none(), "byte {at}");
        }
        for length in 0..bytes.len() {
            assert!(read_all(&bytes[..length], &trailer).is_none());
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
