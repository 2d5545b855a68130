//! Digests as the image specification defines them, and hashing.
//!
//! A [`Digest`] is always well formed: it can be used in a URL and in a path of an archive.

use crate::text::printable;
use sha2::Digest as _;
use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

/// A supported hash algorithm of the image specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// `sha256`, what every registry uses.
    Sha256,
    /// `sha512`, allowed by the specification.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A content digest, `sha256:<64 hex>` or `sha512:<128 hex>`
/// (image-spec, descriptor.md, "Digests").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    bytes: [u8; 64],
}

impl Digest {
    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash, in lowercase hexadecimal.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        let mut hex = String::with_capacity(128);
        for byte in self.as_bytes() {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }

    /// The hash itself: 32 or 64 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.bytes()]
    }

    /// The digest of bytes in memory.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The digest of everything that a reader has.
    ///
    /// # Errors
    ///
    /// The reader's.
    pub fn of_reader(algorithm: Algorithm, reader: &mut dyn Read) -> io::Result<Self> {
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; 128 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                length => hasher.update(&buffer[..length]),
            }
        }
    }

    /// Whether this is the digest of these bytes.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        Self::of(self.algorithm, bytes) == *self
    }

    /// The path of a blob with this digest in an OCI layout (image-layout.md, "Blobs").
    pub fn path(&self) -> String {
        format!("blobs/{}/{}", self.algorithm.name(), self.hex())
    }

    pub(crate) fn from_bytes(algorithm: Algorithm, hash: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..hash.len()].copy_from_slice(hash);
        Self { algorithm, bytes }
    }
}

/// Text that is no digest which is supported here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDigest {
    pub(crate) text: String,
    pub(crate) why: String,
}

impl fmt::Display for InvalidDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "digest {}: {}", self.text, self.why)
    }
}

impl std::error::Error for InvalidDigest {}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let wrong = |why: String| InvalidDigest {
            text: printable(text, 150),
            why,
        };
        let Some((name, hex)) = text.split_once(':') else {
            return Err(wrong("has no algorithm, such as sha256:".into()));
        };
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other => {
                return Err(wrong(format!(
                    "algorithm {} is not supported, only sha256 and sha512",
                    printable(other, 40)
                )));
            }
        };
        let digits = algorithm.bytes() * 2;
        if hex.len() != digits || !hex.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong(format!(
                "{name} needs {digits} lowercase hexadecimal digits"
            )));
        }
        let value = |c: u8| if c <= b'9' { c - b'0' } else { c - b'a' + 10 };
        let mut bytes = [0; 64];
        for (byte, [high, low]) in bytes.iter_mut().zip(hex.as_bytes().as_chunks().0) {
            *byte = value(*high) << 4 | value(*low);
        }
        Ok(Self { algorithm, bytes })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A running hash. Its state can be cloned, so that a reader can return to it.
#[derive(Clone)]
pub(crate) enum Hasher {
    Sha256(sha2::Sha256),
    /// Rarely used, and in the binary anyway for TLS: sha2's code for it would add 17 KB.
    Sha512(Box<ring::digest::Context>),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => {
                Self::Sha512(Box::new(ring::digest::Context::new(&ring::digest::SHA512)))
            }
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(state) => Digest::from_bytes(Algorithm::Sha256, &state.finalize()),
            Self::Sha512(state) => Digest::from_bytes(Algorithm::Sha512, state.finish().as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_parsed_exactly() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let digest: Digest = empty.parse().unwrap();
        assert_eq!(digest, Digest::of(Algorithm::Sha256, b""));
        assert_eq!(digest.to_string(), empty);
        assert_eq!(digest.path(), empty.replace("sha256:", "blobs/sha256/"));
        let long = Digest::of(Algorithm::Sha512, b"abc");
        assert_eq!(long.to_string().parse::<Digest>().unwrap(), long);
        assert!(long.matches(b"abc") && !long.matches(b"abd"));
    }

    #[test]
    fn anything_else_is_refused_before_it_is_a_path() {
        let hex = "a".repeat(64);
        for wrong in [
            "".into(),
            hex.clone(),
            format!("sha1:{}", "a".repeat(40)),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha512:{hex}"),
            format!("SHA256:{hex}"),
            format!("sha256:{}", "../".repeat(21) + "a"),
            format!("sha256:{hex}\n"),
            format!("blake3:{hex}"),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }
}
