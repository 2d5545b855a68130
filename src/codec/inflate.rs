//! Streaming decompression of gzip and zstd, detected by their first bytes and never by a media
//! type, with limits on memory and output.
//!
//! Truncated data, wrong checksums and trailing data are errors; whether it is the right data, the
//! caller decides by its digest. Other formats are only recognised, so that the error can name
//! them.

use super::gzip::Gzip;
pub(crate) use super::source::Defect;
use super::source::Source;
use super::zstd::Zstd;
use std::io::{self, Read};

/// How many first bytes it takes to distinguish the formats.
pub(crate) const MAGIC: usize = 10;

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Limits for a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most bytes of output.
    pub output: u64,
    /// The largest window of a zstd frame, which is memory.
    pub window: u64,
}

/// The format of `input`, and a reader for its decompressed bytes.
pub(crate) fn reader<'r>(
    mut input: Box<dyn Read + 'r>,
    limits: Limits,
) -> io::Result<(Compression, Box<dyn Read + 'r>)> {
    let mut magic = [0; MAGIC];
    let mut known = 0;
    while known < MAGIC {
        match input.read(&mut magic[known..]) {
            Ok(0) => break,
            Ok(read) => known += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let magic = &magic[..known];
    let compression = detect(magic)?;
    let source = Source::new(magic.to_vec(), input);
    let decoder = match compression {
        Compression::None => Decoder::Plain(source),
        Compression::Gzip => Decoder::Gzip(Box::new(Gzip::new(source))),
        Compression::Zstd => Decoder::Zstd(Box::new(Zstd::new(source, limits.window))),
    };
    let reader = Limited {
        decoder: Some(decoder),
        done: 0,
        limit: limits.output,
    };
    Ok((compression, Box::new(reader)))
}

/// Detects the format. bzip2's first three bytes could start a file name in a tar, so all ten are
/// compared. zstd may begin with a skippable frame (RFC 8878, 3.1.2).
pub(crate) fn format(magic: &[u8]) -> Option<&'static str> {
    match magic {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some("zstd"),
        [b'B', b'Z', b'h', b'1'..=b'9', block @ ..]
            if block == b"1AY&SY" || block == b"\x17rE8P\x90" =>
        {
            Some("bzip2")
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
        _ => None,
    }
}

fn detect(magic: &[u8]) -> Result<Compression, Defect> {
    match format(magic) {
        None => Ok(Compression::None),
        Some("gzip") => Ok(Compression::Gzip),
        Some("zstd") => Ok(Compression::Zstd),
        Some(other) => Err(Defect::Unsupported(other)),
    }
}

enum Decoder<'r> {
    Plain(Source<'r>),
    Gzip(Box<Gzip<'r>>),
    Zstd(Box<Zstd<'r>>),
}

/// The outermost reader: counts the output, and fails for good after an error.
struct Limited<'r> {
    decoder: Option<Decoder<'r>>,
    done: u64,
    limit: u64,
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let decoder = self
            .decoder
            .take()
            .ok_or_else(|| io::Error::other("read again after it failed"))?;
        let (decoder, read) = match decoder {
            Decoder::Plain(mut source) => match source.read(buffer) {
                Ok(read) => (Decoder::Plain(source), read),
                Err(error) => return Err(source.failed(error)),
            },
            Decoder::Gzip(mut gzip) => {
                let read = gzip.read(buffer)?;
                (Decoder::Gzip(gzip), read)
            }
            Decoder::Zstd(mut zstd) => {
                let read = zstd.read(buffer)?;
                (Decoder::Zstd(zstd), read)
            }
        };
        self.done += read as u64;
        if self.done > self.limit {
            return Err(Defect::TooMuch(self.limit).into());
        }
        self.decoder = Some(decoder);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use flate2::{Compression as Level, GzBuilder};
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::cell::Cell;
    use std::io::Write;
    use std::rc::Rc;

    const LIMITS: Limits = Limits {
        output: 1 << 30,
        window: 8 << 20,
    };

    /// Gives no more than so many bytes at once, and says between two reads that it was
    /// interrupted.
    struct Short<'b>(&'b [u8], usize, bool);

    impl Read for Short<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.2 = !self.2;
            if self.2 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = self.1.min(buffer.len());
            self.0.read(&mut buffer[..length])
        }
    }

    fn read_all(
        (compression, mut reader): (Compression, Box<dyn Read + '_>),
        step: usize,
    ) -> io::Result<(Compression, Vec<u8>)> {
        let (mut found, mut buffer) = (Vec::new(), vec![0; step]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok((compression, found)),
                Ok(read) => found.extend_from_slice(&buffer[..read]),
                Err(error) => {
                    assert!(reader.read(&mut buffer).is_err(), "an error is the end");
                    return Err(error);
                }
            }
        }
    }

    fn inflate_within(data: &[u8], limits: Limits) -> io::Result<(Compression, Vec<u8>)> {
        read_all(reader(Box::new(data), limits)?, 64 << 10)
    }

    fn inflate(data: &[u8]) -> Result<(Compression, Vec<u8>), Defect> {
        inflate_within(data, LIMITS).map_err(|error| Defect::of(&error).unwrap().clone())
    }

    /// Bytes that compress, and never with one block alone when there are enough of them.
    fn text(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut text = Vec::with_capacity(length + 40);
        while text.len() < length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            write!(text, "usr/lib/{}/{:x} ", state >> 28, state >> 12).unwrap();
        }
        text.truncate(length);
        text
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A gzip member with everything in its header that there can be.
    fn gzip_full(bytes: &[u8]) -> Vec<u8> {
        let mut member = GzBuilder::new()
            .extra(b"SG\x06\0abcdef".to_vec())
            .filename("layer.tar")
            .comment("a comment")
            .mtime(77)
            .write(Vec::new(), Level::best());
        member.write_all(bytes).unwrap();
        let member = member.finish().unwrap();
        let end = 10 + 2 + 10 + 10 + 10;
        let mut head = member[..end].to_vec();
        head[3] |= 2;
        let crc = crc32fast::hash(&head);
        head.extend_from_slice(&crc.to_le_bytes()[..2]);
        [&head[..], &member[end..]].concat()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    /// A block of one byte `length` times; `last` ends the frame.
    fn run_block(length: u32, last: bool) -> [u8; 4] {
        let [a, b, c, _] = (length << 3 | 1 << 1 | u32::from(last)).to_le_bytes();
        [a, b, c, b'r']
    }

    /// A frame without checksum: its window as the format writes it, and blocks.
    fn zstd_frame(window: u8, blocks: &[[u8; 4]]) -> Vec<u8> {
        [&[0x28, 0xb5, 0x2f, 0xfd, 0, window][..], &blocks.concat()].concat()
    }

    fn zstd_skippable(kind: u8, length: u32, bytes: &[u8]) -> Vec<u8> {
        [&[kind, 0x2a, 0x4d, 0x18][..], &length.to_le_bytes(), bytes].concat()
    }

    #[test]
    fn members_and_frames_of_all_kinds() {
        let (one, two) = (text(300_000), text(17));
        let both = [&one[..], &two].concat();
        let skip = zstd_skippable(0x53, 5, b"12345");
        let none: &[u8] = b"";
        for (compression, compressed, bytes) in [
            (Compression::None, vec![], none),
            (Compression::None, vec![0x1f], b"\x1f"),
            (
                Compression::None,
                b"BZhome/x\0\0\0".to_vec(),
                b"BZhome/x\0\0\0",
            ),
            (Compression::None, one.clone(), &one),
            (Compression::Gzip, gzip(&one), &one),
            (Compression::Gzip, gzip(none), none),
            (Compression::Gzip, gzip_full(&one), &one),
            (
                Compression::Gzip,
                [gzip(&one), gzip_full(&two)].concat(),
                &both,
            ),
            (
                Compression::Gzip,
                [gzip(none), gzip_full(&two), gzip(none)].concat(),
                &two,
            ),
            (
                Compression::Gzip,
                [gzip(&one), vec![0; 100_000]].concat(),
                &one,
            ),
            (Compression::Zstd, zstd(&one), &one),
            (Compression::Zstd, zstd(none), none),
            (Compression::Zstd, [zstd(&one), zstd(&two)].concat(), &both),
            (
                Compression::Zstd,
                [&skip[..], &zstd(&one), &skip, &zstd(&two), &skip].concat(),
                &both,
            ),
            (Compression::Zstd, skip.clone(), none),
            (Compression::Zstd, zstd_skippable(0x5f, 0, b""), none),
            (
                Compression::Zstd,
                zstd_frame(0, &[run_block(9, true)]),
                b"rrrrrrrrr",
            ),
            (
                Compression::Zstd,
                zstd_frame(0, &[run_block(3, false), run_block(2, true)]),
                b"rrrrr",
            ),
            // The same with a size that is right: a single segment.
            (
                Compression::Zstd,
                b"\x28\xb5\x2f\xfd\x20\x02\x13\0\0r".to_vec(),
                b"rr",
            ),
        ] {
            let name = format!("{compression:?}, {} bytes", compressed.len());
            assert!(
                inflate(&compressed) == Ok((compression, bytes.to_vec())),
                "{name}"
            );
            let short = Short(&compressed, 1, false);
            let read = read_all(reader(Box::new(short), LIMITS).unwrap(), 1000).unwrap();
            assert!(
                read == (compression, bytes.to_vec()),
                "{name}, byte by byte"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let (gz, zst) = (gzip(&text(1000)), zstd(&text(1000)));
        let with = |data: &[u8], at: usize, value: u8| {
            let mut data = data.to_vec();
            data[at] = value;
            data
        };
        let (gz_end, zst_end) = (gz.len(), zst.len());
        for (data, defect) in [
            (b"BZh91AY&SY".to_vec(), Defect::Unsupported("bzip2")),
            (
                b"BZh9\x17rE8P\x90\0\0\0\0".to_vec(),
                Defect::Unsupported("bzip2"),
            ),
            (b"\xfd7zXZ\0\0\x04".to_vec(), Defect::Unsupported("xz")),
            (b"\x04\x22\x4d\x18".to_vec(), Defect::Unsupported("lz4")),
            (b"\x1f\x8b".to_vec(), Defect::Cut("gzip")),
            (with(&gz, 2, 9), Defect::Damaged("gzip")),
            (with(&gz, 3, 0x80), Defect::Damaged("gzip")),
            (with(&gzip_full(b"x"), 43, 0), Defect::Checksum("gzip")),
            (
                with(&gz, gz_end - 8, gz[gz_end - 8] ^ 1),
                Defect::Checksum("gzip"),
            ),
            (with(&gz, gz_end - 1, 1), Defect::Checksum("gzip")),
            ([&gz[..], b"\0\0x\0"].concat(), Defect::Trailing("gzip")),
            ([&gz[..], b"x"].concat(), Defect::Trailing("gzip")),
            ([&gz[..], b"\x1f"].concat(), Defect::Cut("gzip")),
            (
                [&gz[..], b"\x1fxxxxxxxxxxx"].concat(),
                Defect::Damaged("gzip"),
            ),
            (b"\x28\xb5\x2f\xfd".to_vec(), Defect::Cut("zstd")),
            (
                with(&zst, zst_end - 1, zst[zst_end - 1] ^ 1),
                Defect::Checksum("zstd"),
            ),
            ([&zst[..], b"\0"].concat(), Defect::Cut("zstd")),
            ([&zst[..], b"\0\0\0\0"].concat(), Defect::Trailing("zstd")),
            (zstd_skippable(0x50, 6, b"12345"), Defect::Cut("zstd")),
            (zstd_skippable(0x50, u32::MAX, b""), Defect::Cut("zstd")),
            // It says three bytes and has two.
            (
                b"\x28\xb5\x2f\xfd\x20\x03\x13\0\0r".to_vec(),
                Defect::Checksum("zstd"),
            ),
            // A block of a kind that does not exist; one larger than a block may be.
            (
                b"\x28\xb5\x2f\xfd\0\0\x07\0\0".to_vec(),
                Defect::Damaged("zstd"),
            ),
            (
                zstd_frame(0x60, &[run_block((128 << 10) + 1, true)]),
                Defect::Damaged("zstd"),
            ),
            (
                b"\x28\xb5\x2f\xfd\x01\0\x07\0\0".to_vec(),
                Defect::Dictionary(7),
            ),
        ] {
            let name = data.escape_ascii().to_string();
            assert_eq!(inflate(&data), Err(defect), "{name}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_is_no_stream() {
        let bytes = text(3000);
        for whole in [gzip(&bytes), gzip_full(&bytes), zstd(&bytes)] {
            for end in 4..whole.len() {
                let found = inflate(&whole[..end]);
                assert!(matches!(found, Err(Defect::Cut(_))), "{end}: {found:?}");
            }
        }
    }

    #[test]
    fn a_byte_that_is_changed_never_passes_for_the_right_one() {
        let bytes = text(3000);
        for whole in [gzip(&bytes), gzip_full(&bytes), zstd(&bytes)] {
            for at in 0..whole.len() {
                for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
                    let mut data = whole.clone();
                    data[at] ^= flip;
                    match inflate(&data) {
                        // Fields that say nothing about the bytes: times, the frame's window.
                        Ok((Compression::Gzip | Compression::Zstd, found)) => {
                            assert!(found == bytes, "byte {at}, {flip:x}");
                        }
                        Ok((Compression::None, found)) => assert!(at < 4 && found == data),
                        Err(_) => {}
                    }
                }
            }
        }
    }

    /// Zeros without end, each of them counted.
    struct Bomb {
        member: Vec<u8>,
        at: usize,
        given: Rc<Cell<u64>>,
    }

    impl Read for Bomb {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = (&self.member[self.at..]).read(buffer)?;
            self.at = (self.at + read) % self.member.len();
            self.given.set(self.given.get() + read as u64);
            Ok(read)
        }
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let run = [run_block(128 << 10, false); 64].concat();
        let zstd = [zstd_frame(0x38, &[]), run, run_block(1, true).to_vec()].concat();
        for member in [gzip(&vec![0; 10 << 20]), zstd] {
            let given = Rc::new(Cell::new(0));
            let bomb = Bomb {
                member,
                at: 0,
                given: given.clone(),
            };
            let limits = Limits {
                output: 100 << 20,
                ..LIMITS
            };
            let (_, mut reader) = reader(Box::new(bomb), limits).unwrap();
            let error = io::copy(&mut reader, &mut io::sink()).unwrap_err();
            assert_eq!(Defect::of(&error), Some(&Defect::TooMuch(100 << 20)));
            assert!(
                given.get() < 1 << 20,
                "{} bytes were read for it",
                given.get()
            );
        }
        // So much and no more.
        let data = gzip(&[7; 1000]);
        for (output, fits) in [(999, false), (1000, true), (0, false)] {
            let found = inflate_within(&data, Limits { output, ..LIMITS });
            assert_eq!(found.is_ok(), fits, "{output}");
        }
    }

    #[test]
    fn a_window_above_the_limit_is_refused_by_name() {
        let blocks = [run_block(1, true)];
        for (window, asked) in [
            (0x68, None),
            (0x69, Some(9 << 20)),
            (0x70, Some(16 << 20)),
            (0xf8, Some(1 << 41)),
        ] {
            let found = inflate(&zstd_frame(window, &blocks));
            let refused = asked.map(|asked| Defect::Window {
                asked,
                allowed: 8 << 20,
            });
            assert_eq!(found.err(), refused, "{window:x}");
        }
        // The size of a single segment is its window, and none is taken before its bytes come.
        let segment = b"\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\xff\x0b\0\0r";
        assert!(inflate(segment).is_err());
        let text = Defect::Window {
            asked: 9 << 20,
            allowed: 8 << 20,
        }
        .to_string();
        assert_eq!(text, "needs a zstd window of 9 MiB, the limit is 8 MiB");
    }

    /// Fails at the given byte.
    struct Failing<'b>(&'b [u8]);

    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "gone")),
                read => Ok(read),
            }
        }
    }

    #[test]
    fn a_failed_read_is_passed_on_as_it_was() {
        let bytes = text(3000);
        let skip = zstd_skippable(0x50, 200, &[0; 200]);
        for whole in [gzip_full(&bytes), zstd(&bytes), skip, bytes] {
            for end in 0..=whole.len() {
                let error = reader(Box::new(Failing(&whole[..end])), LIMITS)
                    .and_then(|opened| read_all(opened, 512))
                    .unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{end}");
                assert_eq!(error.to_string(), "gone");
                assert!(Defect::of(&error).is_none());
            }
        }
    }

    /// What the programs make that people use, where they are installed.
    #[test]
    fn what_gzip_and_zstd_make() {
        let bytes = text(5_000_000);
        let path = std::env::temp_dir().join(format!("dockersave-decode-{}", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        for (compression, command) in [
            (Compression::Gzip, "gzip -1c"),
            (Compression::Gzip, "gzip -9c"),
            (Compression::Zstd, "zstd -qc -1"),
            (Compression::Zstd, "zstd -qc --no-check"),
            (Compression::Zstd, "zstd -qc -12 --zstd=wlog=23"),
            (Compression::Zstd, "zstd -qc --fast=5 --stream-size=5000000"),
        ] {
            let mut words = command.split(' ');
            let made = std::process::Command::new(words.next().unwrap())
                .args(words)
                .arg(&path)
                .output();
            let Ok(made) = made else { continue };
            assert!(made.status.success(), "{command}");
            assert!(
                inflate(&made.stdout) == Ok((compression, bytes.clone())),
                "{command}"
            );
        }
        std::fs::remove_file(&path).unwrap();
    }
}
