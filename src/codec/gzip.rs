//! Decompression of gzip (RFC 1952): members one after the other, each with its checksum.
//!
//! One decoder serves all members. A new one for each would take fifty microseconds, and a layer may
//! have millions of empty members.

use super::source::{Defect, Input, Source};
use crc32fast::Hasher;
use flate2::bufread::DeflateDecoder;
use std::io::{self, BufRead, Read};

const FORMAT: &str = "gzip";
/// The flags of a member's header (RFC 1952, 2.3.1).
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// gzip members, one after the other. Zeros may follow the last one, as on tapes.
pub(super) struct Gzip<'r> {
    decoder: DeflateDecoder<Input<'r>>,
    within: bool,
    /// Of this member's output.
    crc: Hasher,
    /// Of this member's output, modulo 2^32, as the trailer has it.
    size: u32,
}

impl<'r> Gzip<'r> {
    pub fn new(source: Source<'r>) -> Self {
        Self {
            decoder: DeflateDecoder::new(source.buffered()),
            within: false,
            crc: Hasher::new(),
            size: 0,
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            match self.decoder.read(buffer) {
                // At the input's end, too; there is no trailer then.
                Ok(0) => self.finish()?,
                Ok(read) => {
                    self.crc.update(&buffer[..read]);
                    self.size = self.size.wrapping_add(read as u32);
                    return Ok(read);
                }
                Err(_) => return Err(self.blame(Defect::Damaged(FORMAT))),
            }
        }
    }

    /// Starts the next member, if there is one.
    fn begin(&mut self) -> io::Result<bool> {
        match self.peek()? {
            None => return Ok(false),
            Some(0x1f) => {}
            Some(_) => return self.padding().map(|()| false),
        }
        let mut header = Hasher::new();
        let [_, magic, method, flags, ..] = self.take::<10>(&mut header)?;
        if magic != 0x8b || method != 8 || flags & RESERVED != 0 {
            return Err(Defect::Damaged(FORMAT).into());
        }
        if flags & EXTRA != 0 {
            let length = u16::from_le_bytes(self.take(&mut header)?);
            for _ in 0..length {
                self.take::<1>(&mut header)?;
            }
        }
        for text in [NAME, COMMENT] {
            while flags & text != 0 && self.take(&mut header)? != [0] {}
        }
        let found = header.clone().finalize() as u16;
        if flags & HEADER_CRC != 0 && u16::from_le_bytes(self.take(&mut header)?) != found {
            return Err(Defect::Checksum(FORMAT).into());
        }
        self.decoder.reset_data();
        self.within = true;
        Ok(true)
    }

    /// Checks the member's trailer.
    fn finish(&mut self) -> io::Result<()> {
        let found = std::mem::take(&mut self.crc).finalize();
        let size = std::mem::take(&mut self.size);
        let crc = u32::from_le_bytes(self.take(&mut Hasher::new())?);
        if crc != found || u32::from_le_bytes(self.take(&mut Hasher::new())?) != size {
            return Err(Defect::Checksum(FORMAT).into());
        }
        self.within = false;
        Ok(())
    }

    /// The next byte, which stays there.
    fn peek(&mut self) -> io::Result<Option<u8>> {
        match self.decoder.get_mut().fill_buf() {
            Ok(next) => Ok(next.first().copied()),
            Err(_) => Err(self.blame(Defect::Damaged(FORMAT))),
        }
    }

    fn take<const N: usize>(&mut self, crc: &mut Hasher) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        match self.decoder.get_mut().read_exact(&mut bytes) {
            Ok(()) => crc.update(&bytes),
            Err(_) => return Err(self.blame(Defect::Cut(FORMAT))),
        }
        Ok(bytes)
    }

    /// Reads to the end, allowing only zeros.
    fn padding(&mut self) -> io::Result<()> {
        while let Some(next) = self.peek()? {
            if next != 0 {
                return Err(Defect::Trailing(FORMAT).into());
            }
            let input = self.decoder.get_mut();
            let zeros = input.buffer().iter().take_while(|byte| **byte == 0).count();
            input.consume(zeros);
        }
        Ok(())
    }

    fn blame(&mut self, defect: Defect) -> io::Error {
        self.decoder.get_mut().get_mut().blame(FORMAT, defect)
    }
}
