//! A streaming xz encoder.
//!
//! lzma-rust2 compresses. The container around it is made here (.xz file format 1.2.1: one stream,
//! one block, CRC-32), so that incompressible data can bypass the compressor: most layers arrive
//! compressed, and trying to compress them takes half a second per megabyte. The same bytes and
//! level give the same output, however they are written.

use lzma_rust2::{Lzma2Options, Lzma2Writer, LzmaOptions};
use std::io::{self, Write};

/// The unit that is either compressed or stored: an uncompressed LZMA2 chunk holds no more.
const PIECE: usize = 64 << 10;
/// This many incompressible pieces in a row still go to the compressor, because it loses its
/// history each time it is restarted.
const PATIENCE: u32 = 8;
/// The largest dictionary. It costs 11 times its size: 26 MiB at the levels from 4 on.
const DICTIONARY: u32 = 2 << 20;
/// Stream flags: the check is CRC-32, which every decoder has, even the smallest ones.
const FLAGS: [u8; 2] = [0, 1];

/// Compresses what is written to it. Without `finish` the output is incomplete.
pub(crate) struct Xz<'w> {
    out: Box<dyn Write + 'w>,
    options: LzmaOptions,
    lzma: Option<Lzma2Writer<Vec<u8>>>,
    piece: Vec<u8>,
    /// Incompressible pieces in a row, including the last one.
    dense: u32,
    /// No chunk was written since the start or since `lzma` was last ended.
    fresh: bool,
    check: crc32fast::Hasher,
    /// Of the block, without its padding.
    compressed: u64,
    size: u64,
}

impl<'w> Xz<'w> {
    /// `level`: 0 (fast) to 6 (small), as in xz, but with dictionaries of at most 2 MiB; higher
    /// levels count as 6.
    pub fn new(level: u32, mut out: Box<dyn Write + 'w>) -> io::Result<Self> {
        let options = options(level);
        out.write_all(b"\xfd7zXZ\0")?;
        out.write_all(&FLAGS)?;
        out.write_all(&crc32fast::hash(&FLAGS).to_le_bytes())?;
        // Twelve bytes, one filter, neither size: LZMA2, one byte of properties, its dictionary.
        let header = [2, 0, 0x21, 1, dictionary_byte(options.dict_size), 0, 0, 0];
        out.write_all(&header)?;
        out.write_all(&crc32fast::hash(&header).to_le_bytes())?;
        Ok(Self {
            out,
            options,
            lzma: None,
            piece: Vec::with_capacity(PIECE),
            dense: 0,
            fresh: true,
            check: crc32fast::Hasher::new(),
            compressed: header.len() as u64 + 4,
            size: 0,
        })
    }

    /// Writes the rest and the footer.
    pub fn finish(mut self) -> io::Result<()> {
        self.put()?;
        self.end_lzma()?;
        self.pass(&[0])?;
        let filling = &[0; 3][..padding(self.compressed)];
        self.out.write_all(filling)?;
        let check = std::mem::take(&mut self.check).finalize();
        self.out.write_all(&check.to_le_bytes())?;

        let mut index = vec![0];
        for number in [1, self.compressed + 4, self.size] {
            push_number(&mut index, number);
        }
        index.resize(index.len() + padding(index.len() as u64), 0);
        index.extend_from_slice(&crc32fast::hash(&index).to_le_bytes());
        self.out.write_all(&index)?;

        let mut footer = Vec::with_capacity(12);
        footer.extend_from_slice(&(index.len() as u32 / 4 - 1).to_le_bytes());
        footer.extend_from_slice(&FLAGS);
        self.out
            .write_all(&crc32fast::hash(&footer).to_le_bytes())?;
        footer.extend_from_slice(b"YZ");
        self.out.write_all(&footer)?;
        self.out.flush()
    }

    /// Compresses or stores the buffered piece.
    fn put(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.check.update(&self.piece);
        self.size += self.piece.len() as u64;
        self.dense = if is_dense(&self.piece) {
            self.dense + 1
        } else {
            0
        };
        let piece = std::mem::take(&mut self.piece);
        if self.dense > PATIENCE {
            self.end_lzma()?;
            // Its size fits: a piece is 64 KiB at most, and this one is full.
            let [high, low] = ((piece.len() - 1) as u16).to_be_bytes();
            let control = if self.fresh { 1 } else { 2 };
            self.pass(&[control, high, low])?;
            self.pass(&piece)?;
            self.fresh = false;
        } else {
            let lzma = self.lzma.get_or_insert_with(|| {
                let mut options = Lzma2Options::default();
                options.lzma_options = self.options.clone();
                Lzma2Writer::new(Vec::new(), options)
            });
            lzma.write_all(&piece)?;
            let mut made = std::mem::take(lzma.inner_mut());
            self.pass(&made)?;
            made.clear();
            if let Some(lzma) = &mut self.lzma {
                *lzma.inner_mut() = made;
            }
        }
        self.piece = piece;
        self.piece.clear();
        Ok(())
    }

    /// Ends the compressor, but not the chunks: others follow, or the zero that ends them all.
    fn end_lzma(&mut self) -> io::Result<()> {
        if let Some(lzma) = self.lzma.take() {
            let made = lzma.finish()?;
            self.pass(made.strip_suffix(&[0]).unwrap_or(&made))?;
            self.fresh = true;
        }
        Ok(())
    }

    fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.compressed += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

impl Write for Xz<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.put()?;
        }
        Ok(taken)
    }

    /// Flushing does nothing: chunk boundaries must not depend on the caller.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// xz's levels: the fast ones use hash chains, the others binary trees.
fn options(level: u32) -> LzmaOptions {
    let mut options = LzmaOptions::with_preset(level.min(6));
    options.dict_size = options.dict_size.min(DICTIONARY);
    options
}

/// A dictionary size as encoded in the format: 2 or 3, shifted. Sizes here are powers of two.
fn dictionary_byte(size: u32) -> u8 {
    // A number of bits fits.
    (2 * (size.ilog2() - 12)) as u8
}

/// Whether a full piece looks compressed or encrypted: all bytes about equally frequent. The sum of
/// the squared frequencies is then smallest. Measured: at most 1.7 times the minimum in gzip data,
/// 1.3 in zstd, 1.01 in xz; at least 2.4 times in everything else.
fn is_dense(piece: &[u8]) -> bool {
    const EVEN: u64 = (PIECE as u64 / 256) * PIECE as u64;
    let mut counts = [0_u32; 256];
    for byte in piece {
        counts[usize::from(*byte)] += 1;
    }
    let squares: u64 = counts.iter().map(|n| u64::from(*n) * u64::from(*n)).sum();
    piece.len() == PIECE && squares < EVEN * 3 / 2
}

/// The padding to a multiple of four.
fn padding(length: u64) -> usize {
    (length.wrapping_neg() % 4) as usize
}

/// Seven bits a byte, the lowest ones first.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    /// Bytes that nothing makes smaller.
    fn dense(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_u32;
        let mut bytes = Vec::with_capacity(length);
        bytes.resize_with(length, || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 11) as u8
        });
        bytes
    }

    fn text(length: usize) -> Vec<u8> {
        let words = dense(length / 8 + 1);
        let mut text = Vec::with_capacity(length + 16);
        for word in words {
            write!(text, "usr/{}/{}, ", word % 16, word / 3).unwrap();
        }
        text.truncate(length);
        text
    }

    /// What an archive of compressed layers looks like, and what one of all kinds of files.
    fn samples() -> Vec<Vec<u8>> {
        let (text, dense) = (text(300_000), dense(20 * PIECE + 777));
        let enough = (PATIENCE as usize + 1) * PIECE;
        vec![
            vec![],
            b"x".to_vec(),
            vec![0; 3 * PIECE],
            text[..PIECE].to_vec(),
            text[..PIECE + 1].to_vec(),
            text.clone(),
            dense.clone(),
            dense[..enough].to_vec(),
            dense[..enough + 1].to_vec(),
            [&text[..], &dense].concat(),
            [&text[..1000], &dense, &text, &dense, &text[..7]].concat(),
        ]
    }

    fn compress(level: u32, bytes: &[u8], step: usize) -> Vec<u8> {
        let mut made = Vec::new();
        let mut xz = Xz::new(level, Box::new(&mut made)).unwrap();
        for part in bytes.chunks(step) {
            xz.write_all(part).unwrap();
        }
        xz.finish().unwrap();
        made
    }

    /// Through the program that people have, where it is installed.
    fn through_xz(made: Vec<u8>) -> Option<Vec<u8>> {
        let mut child = Command::new("xz")
            .arg("-dc")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut stdin = child.stdin.take().unwrap();
        let writing = std::thread::spawn(move || stdin.write_all(&made));
        let mut found = Vec::new();
        child
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut found)
            .unwrap();
        writing.join().unwrap().unwrap();
        assert!(child.wait().unwrap().success());
        Some(found)
    }

    #[test]
    fn what_comes_out_is_what_went_in() {
        for (number, bytes) in samples().iter().enumerate() {
            for level in if bytes.len() < 500_000 { 0..=6 } else { 1..=1 } {
                let made = compress(level, bytes, 1 << 20);
                let mut found = Vec::new();
                lzma_rust2::XzReader::new(&made[..], false)
                    .read_to_end(&mut found)
                    .unwrap();
                assert!(found == *bytes, "sample {number}, level {level}");
                if let Some(found) = through_xz(made) {
                    assert!(found == *bytes, "sample {number}, level {level}, xz");
                }
            }
        }
    }

    #[test]
    fn the_same_bytes_give_the_same_archive() {
        for (number, bytes) in samples().iter().enumerate() {
            let made = compress(1, bytes, usize::MAX);
            for step in [1, 511, PIECE - 1, PIECE + 1] {
                if step > 1 || bytes.len() < 500_000 {
                    assert!(compress(1, bytes, step) == made, "sample {number}, {step}");
                }
            }
        }
    }

    #[test]
    fn a_higher_level_is_smaller_and_none_takes_a_larger_dictionary() {
        let bytes = text(300_000);
        let sizes = [0, 6, 9].map(|level| compress(level, &bytes, 1 << 20).len());
        assert!(sizes[0] > sizes[1] && sizes[1] == sizes[2], "{sizes:?}");
        assert!(sizes[0] < bytes.len() / 3, "{sizes:?}");
        for (level, byte) in [(0, 12), (1, 16), (2, 18), (6, 18), (9, 18)] {
            assert_eq!(compress(level, b"", 1)[16], byte, "{level}");
        }
    }

    #[test]
    fn what_cannot_be_made_smaller_goes_past_the_compressor() {
        let bytes = dense(64 * PIECE);
        let made = compress(6, &bytes, 1 << 20);
        assert!(made.len() < bytes.len() + 64 * 8 + 64);
        // The ninth piece and all that follow stand as they are, each behind three bytes.
        let at = made
            .windows(16)
            .position(|found| found == &bytes[8 * PIECE..][..16]);
        for piece in 8..64 {
            let place = at.unwrap() + (piece - 8) * (PIECE + 3);
            assert!(made[place..].starts_with(&bytes[piece * PIECE..][..PIECE]));
        }
    }

    /// Takes so many bytes and no more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failed_write_is_passed_on() {
        let bytes = text(200_000);
        let whole = compress(1, &bytes, 1 << 20).len();
        for room in (0..whole).step_by(101).chain(whole - 40..whole) {
            let failed = Xz::new(1, Box::new(Full(room)))
                .and_then(|mut xz| xz.write_all(&bytes).and_then(|()| xz.finish()));
            assert_eq!(
                failed.unwrap_err().kind(),
                io::ErrorKind::StorageFull,
                "{room}"
            );
        }
        let fits = Xz::new(1, Box::new(Full(whole)))
            .and_then(|mut xz| xz.write_all(&bytes).and_then(|()| xz.finish()));
        assert!(fits.is_ok());
    }
}
