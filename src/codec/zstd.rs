//! Decompression of zstd (RFC 8878) by ruzstd, with a bounded window.

use super::source::{Defect, Input, Source};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

/// zstd frames, one after the other, with skippable ones between them.
pub(super) struct Zstd<'r> {
    input: Input<'r>,
    decoder: FrameDecoder,
    within: bool,
    /// Of this frame.
    done: u64,
    /// Zero if the frame does not state it.
    size: u64,
}

impl<'r> Zstd<'r> {
    const FORMAT: &'static str = "zstd";

    pub fn new(source: Source<'r>, window: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(window);
        Self {
            input: source.buffered(),
            decoder,
            within: false,
            done: 0,
            size: 0,
        }
    }

    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.decoder.can_collect() > 0 {
                let read = self.decoder.read(buffer)?;
                self.done += read as u64;
                return Ok(read);
            }
            if !self.within {
                if !self.begin()? {
                    return Ok(0);
                }
            } else if self.decoder.is_finished() {
                self.within = false;
                self.check()?;
            } else {
                // A block at a time: only its 128 KiB are held besides the window.
                let step = BlockDecodingStrategy::UptoBlocks(1);
                if let Err(error) = self.decoder.decode_blocks(&mut self.input, step) {
                    return Err(self.blame(&error));
                }
            }
        }
    }

    /// Starts the next frame, if there is one.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            match self.input.fill_buf() {
                Ok([]) => return Ok(false),
                Ok(_) => {}
                Err(_) => {
                    return Err(self
                        .input
                        .get_mut()
                        .blame(Self::FORMAT, Defect::Damaged(Self::FORMAT)));
                }
            }
            match self.decoder.reset(&mut self.input) {
                Ok(()) => break,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => self.skip(length)?,
                Err(error) => return Err(self.blame(&error)),
            }
        }
        self.within = true;
        self.done = 0;
        self.size = self.decoder.content_size();
        Ok(true)
    }

    fn skip(&mut self, length: u32) -> io::Result<()> {
        let length = u64::from(length);
        match io::copy(&mut (&mut self.input).take(length), &mut io::sink()) {
            Ok(skipped) if skipped == length => Ok(()),
            _ => Err(self
                .input
                .get_mut()
                .blame(Self::FORMAT, Defect::Cut(Self::FORMAT))),
        }
    }

    /// Checks a finished frame against its stated size and checksum.
    fn check(&self) -> io::Result<()> {
        let size = self.size == 0 || self.size == self.done;
        let found = self.decoder.get_checksum_from_data();
        if size && (found.is_none() || found == self.decoder.get_calculated_checksum()) {
            Ok(())
        } else {
            Err(Defect::Checksum(Self::FORMAT).into())
        }
    }

    fn blame(&mut self, error: &FrameDecoderError) -> io::Error {
        let defect =
            match error {
                FrameDecoderError::WindowSizeTooBig { requested, max } => Defect::Window {
                    asked: *requested,
                    allowed: *max,
                },
                FrameDecoderError::DictNotProvided { dict_id } => Defect::Dictionary(*dict_id),
                FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::BadMagicNumber(
                    _,
                )) if self.size > 0 || self.done > 0 => Defect::Trailing(Self::FORMAT),
                _ => Defect::Damaged(Self::FORMAT),
            };
        self.input.get_mut().blame(Self::FORMAT, defect)
    }
}
