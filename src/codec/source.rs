//! The compressed bytes that a decoder reads, and what may be wrong with them.

use std::fmt;
use std::io::{self, BufReader, Chain, Cursor, Read};

/// Compressed bytes that are read at once.
const BUFFER: usize = 32 << 10;

/// A decoder's input.
pub(super) type Input<'r> = BufReader<Source<'r>>;

/// What is wrong with compressed data, inside the [`io::Error`] of the failed read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// It is truncated.
    Cut(&'static str),
    /// It is not valid in its format.
    Damaged(&'static str),
    /// The output does not have the checksum or size stated in the data.
    Checksum(&'static str),
    /// Something else follows it.
    Trailing(&'static str),
    /// A zstd frame needs this much memory, and this much is allowed.
    Window { asked: u64, allowed: u64 },
    /// A zstd frame needs a dictionary, which is not available.
    Dictionary(u32),
    /// The output exceeds this limit.
    TooMuch(u64),
    /// An unsupported format.
    Unsupported(&'static str),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut(format) => write!(f, "its {format} data is truncated"),
            Self::Damaged(format) => write!(f, "its {format} data is damaged"),
            Self::Checksum(format) => write!(f, "its {format} data does not match its checksum"),
            Self::Trailing(format) => write!(f, "other data follows its {format} data"),
            Self::Window { asked, allowed } => write!(
                f,
                "needs a zstd window of {} MiB, the limit is {} MiB",
                asked.div_ceil(1 << 20),
                allowed >> 20
            ),
            Self::Dictionary(id) => {
                write!(f, "needs zstd dictionary {id}, which it does not contain")
            }
            Self::TooMuch(limit) => write!(f, "inflates to more than {limit} bytes"),
            Self::Unsupported(format) => {
                write!(
                    f,
                    "is compressed with {format}; only gzip and zstd are supported"
                )
            }
        }
    }
}

impl std::error::Error for Defect {}

impl Defect {
    /// The defect behind a failed read; `None` if the read itself failed.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<Defect> for io::Error {
    fn from(defect: Defect) -> Self {
        Self::new(io::ErrorKind::InvalidData, defect)
    }
}

/// The compressed bytes. Keeps what decoders do not pass on: the error of a failed read, and
/// whether they read past the end.
pub(super) struct Source<'r> {
    inner: Chain<Cursor<Vec<u8>>, Box<dyn Read + 'r>>,
    ended: bool,
    error: Option<io::Error>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Ok(read) => {
                    self.ended |= read == 0 && !buffer.is_empty();
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.error = Some(error);
                    return Err(io::ErrorKind::Other.into());
                }
            }
        }
    }
}

impl<'r> Source<'r> {
    /// `first`, which were read to detect the format, and what follows them.
    pub fn new(first: Vec<u8>, input: Box<dyn Read + 'r>) -> Self {
        Self {
            inner: Cursor::new(first).chain(input),
            ended: false,
            error: None,
        }
    }

    pub fn buffered(self) -> Input<'r> {
        BufReader::with_capacity(BUFFER, self)
    }

    /// The error of a failed read, as the input had it.
    pub fn failed(&mut self, error: io::Error) -> io::Error {
        self.error.take().unwrap_or(error)
    }

    /// Why a decoder failed: a read error, the end of the input, or else `defect`.
    pub fn blame(&mut self, format: &'static str, defect: Defect) -> io::Error {
        match self.error.take() {
            Some(error) => error,
            None if self.ended => Defect::Cut(format).into(),
            None => defect.into(),
        }
    }
}
