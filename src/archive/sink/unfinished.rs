//! Verification of a partial archive: its journal's claims against its bytes.

use super::journal::{self, Chunks, Row};
use crate::digest::Hasher;
use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The memory for claims (enough for 60 GiB), and the size of a read.
const CLAIMS: usize = 2 << 20;
const BUFFER: usize = 64 << 10;

/// Blobs and bytes: how many there will be, and how many are here and verified.
#[derive(Default)]
pub(crate) struct Unfinished {
    pub blobs: usize,
    pub whole: usize,
    pub size: u64,
    pub here: u64,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "its download is not finished: {} of {} bytes are here and verified, {} of {} blobs complete",
            self.here, self.size, self.whole, self.blobs
        )
    }
}

/// If this is the file of an unfinished pull, how far it has come.
pub(crate) fn look(file: &File) -> io::Result<Option<Unfinished>> {
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(journal::TRAILER_SIZE) else {
        return Ok(None);
    };
    let mut trailer = [0; journal::TRAILER_SIZE as usize];
    file.read_exact_at(&mut trailer, end)?;
    let Some(place) = journal::place(&trailer, length) else {
        return Ok(None);
    };
    let room = Cell::new(CLAIMS);
    let fits = |size| {
        let claims = Chunks::of(size).count().saturating_mul(journal::RECORD);
        let left = room.get().checked_sub(claims.max(size_of::<Row>()));
        left.inspect(|left| room.set(*left)).is_some()
    };
    let journal = journal::read(
        &|bytes, at| file.read_exact_at(bytes, place.start + at),
        place.end - place.start,
        &trailer,
        &|_, size| fits(size),
        usize::MAX,
    );
    let Some(journal) = journal else {
        return Ok(None);
    };
    let mut found = Unfinished::default();
    let mut buffer = vec![0; BUFFER];
    for row in &journal.rows {
        found.blobs += 1;
        found.size = found.size.saturating_add(row.size);
        let here = proven(file, row, &mut buffer)?;
        // Only a complete blob has a digest to check.
        if here < row.size {
            found.here += here;
        } else if hashed(file, row, &mut buffer)? {
            found.here += here;
            found.whole += 1;
        }
    }
    Ok(Some(found))
}

/// How many bytes of a blob match its claims.
fn proven(file: &File, row: &Row, buffer: &mut [u8]) -> io::Result<u64> {
    let chunks = Chunks::of(row.size);
    let mut here = 0;
    for (chunk, record) in row.claims.iter().enumerate() {
        let range = chunks.range(chunk);
        let mut claims = record.map(|claim| (claim.length(range.end - range.start), claim.crc));
        claims.sort_unstable_by(|a, b| b.cmp(a));
        for (length, crc) in claims.into_iter().filter(|(length, _)| *length > 0) {
            let mut sum = crc32fast::Hasher::new();
            let start = row.offset + range.start;
            each(file, start, length, buffer, &mut |bytes| sum.update(bytes))?;
            if sum.finalize() == crc {
                here += length;
                break;
            }
        }
    }
    Ok(here)
}

fn hashed(file: &File, row: &Row, buffer: &mut [u8]) -> io::Result<bool> {
    let mut hasher = Hasher::new(row.digest.algorithm());
    each(file, row.offset, row.size, buffer, &mut |bytes| {
        hasher.update(bytes)
    })?;
    Ok(hasher.finish() == row.digest)
}

fn each(
    file: &File,
    start: u64,
    length: u64,
    buffer: &mut [u8],
    with: &mut dyn FnMut(&[u8]),
) -> io::Result<()> {
    let mut done = 0;
    while done < length {
        let part = (length - done).min(buffer.len() as u64) as usize;
        file.read_exact_at(&mut buffer[..part], start + done)?;
        with(&buffer[..part]);
        done += part as u64;
    }
    Ok(())
}
