//! The error type: every failure and its message.
//!
//! A message says what failed, on what, and what to do about it. Text from outside is an
//! [`UntrustedText`] or passes [`printable`], and every message passes [`line()`] as a whole, so
//! that no server writes control characters to a terminal.

use crate::digest::{Digest, InvalidDigest};
use crate::hint::Hint;
pub(crate) use crate::text::{UntrustedText, line, printable};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of calls to this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call failed. Match on it to tell failures apart.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The caller's input is invalid: a reference, a platform, a flag.
    #[non_exhaustive]
    Usage {
        /// The invalid input.
        what: String,
        /// Why it is invalid, and what would be valid.
        why: String,
        /// What may help.
        hint: Option<Hint>,
    },
    /// The registry refused the credentials, or requires some.
    #[non_exhaustive]
    Refused {
        /// The registry.
        host: String,
        /// The HTTP status of its response.
        status: u16,
        /// Its message, and where the credentials came from.
        detail: String,
        /// What may help.
        hint: Option<Hint>,
    },
    /// There is no such repository, tag, digest or platform.
    #[non_exhaustive]
    NotFound {
        /// What was requested.
        what: String,
        /// What exists instead, if known.
        available: Vec<String>,
        /// What may help.
        hint: Option<Hint>,
    },
    /// The network or the registry failed until the retries were used up. What arrived is kept: the
    /// same call resumes from there.
    #[non_exhaustive]
    Network {
        /// The host.
        host: String,
        /// What was being done.
        doing: String,
        /// The number of attempts.
        attempts: u32,
        /// Why the last attempt failed.
        why: String,
    },
    /// Content does not match its descriptor: wrong digest or wrong size.
    #[non_exhaustive]
    Mismatch {
        /// The document or blob.
        blob: String,
        /// The digest that it should have had.
        digest: Box<Digest>,
        /// What its descriptor says: the digest or the size that was missed.
        expected: String,
        /// What was found.
        found: String,
    },
    /// No signature that was asked for covers what is there.
    #[non_exhaustive]
    Unsigned {
        /// The image, or the archive.
        what: String,
        /// By whose key, what was found instead, and why it does not count.
        why: String,
    },
    /// An archive is thin, and a layer that it lacks is in no base that was named.
    Thin {
        /// The archive.
        archive: String,
        /// How many layers are needed.
        layers: usize,
        /// What they have together, in bytes.
        size: u64,
    },
    /// The disk or the output failed: full, read-only, closed.
    Output {
        /// The file, directory or stream.
        path: PathBuf,
        /// What was being done to it.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS peer could not be trusted or understood.
    #[non_exhaustive]
    Tls {
        /// The host.
        host: String,
        /// What is wrong and what to do about it.
        why: String,
        /// What may help.
        hint: Option<Hint>,
    },
    /// A document is not what it claims to be.
    #[non_exhaustive]
    Malformed {
        /// The document.
        document: String,
        /// What is wrong with it.
        why: String,
        /// What may help.
        hint: Option<Hint>,
    },
    /// Something from outside exceeds a limit.
    TooLarge {
        /// What.
        what: String,
        /// The limit, in bytes.
        limit: u64,
    },
    /// An input file (credentials, certificates, an archive) could not be read.
    Input {
        /// The file.
        path: PathBuf,
        /// What was being done with it.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is valid, but cannot be made into an archive.
    #[non_exhaustive]
    Unsupported {
        /// What it is.
        what: String,
        /// What may help.
        hint: Option<Hint>,
    },
    /// A [`crate::CancelToken`] ended it. What had arrived is kept.
    Cancelled,
}

impl Error {
    /// What may help, where something is known that may.
    pub fn hint(&self) -> Option<&Hint> {
        match self {
            Self::Usage { hint, .. }
            | Self::Refused { hint, .. }
            | Self::NotFound { hint, .. }
            | Self::Tls { hint, .. }
            | Self::Malformed { hint, .. }
            | Self::Unsupported { hint, .. } => hint.as_ref(),
            Self::Thin { .. } => Some(&Hint::Base),
            Self::Output { source, .. } if is_forbidden(source) => Some(&Hint::OtherPath),
            _ => None,
        }
    }

    pub(crate) fn with_hint(mut self, new: Hint) -> Self {
        if let Self::Usage { hint, .. }
        | Self::NotFound { hint, .. }
        | Self::Malformed { hint, .. }
        | Self::Unsupported { hint, .. } = &mut self
        {
            *hint = Some(new);
        }
        self
    }

    pub(crate) fn not_found(what: impl Into<String>, available: Vec<String>) -> Self {
        Self::NotFound {
            what: what.into(),
            available,
            hint: None,
        }
    }

    pub(crate) fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Usage {
            what: what.into(),
            why: why.into(),
            hint: None,
        }
    }

    pub(crate) fn malformed(document: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Malformed {
            document: document.into(),
            why: why.into(),
            hint: None,
        }
    }

    pub(crate) fn output(path: &Path, doing: &str, source: impl Into<io::Error>) -> Self {
        Self::Output {
            path: path.to_owned(),
            doing: doing.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn input(path: &Path, doing: &str, source: impl Into<io::Error>) -> Self {
        Self::Input {
            path: path.to_owned(),
            doing: doing.to_owned(),
            source: source.into(),
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>) -> Self {
        Self::Unsupported {
            what: what.into(),
            hint: None,
        }
    }
}

impl From<InvalidDigest> for Error {
    fn from(error: InvalidDigest) -> Self {
        Self::malformed(format!("digest {}", error.text), error.why)
    }
}

/// Always a single printable line without secrets, whatever parts come from outside.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line(&Message(self).to_string()))
    }
}

/// An error's unfiltered text.
struct Message<'e>(&'e Error);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Usage { what, why, .. } => write!(f, "{}: {why}", printable(what, 300)),
            Error::Unsigned { what, why } => write!(f, "{what} {why}"),
            Error::Refused {
                host,
                status,
                detail,
                ..
            } => {
                write!(f, "{host} refused: HTTP {status}")?;
                if detail.is_empty() {
                    Ok(())
                } else {
                    write!(f, ", {detail}")
                }
            }
            Error::NotFound {
                what, available, ..
            } => {
                f.write_str(what)?;
                match available.len() {
                    0 => Ok(()),
                    _ => write!(f, "; available: {}", list(available)),
                }
            }
            Error::Network {
                host,
                doing,
                attempts,
                why,
            } => {
                write!(f, "{doing}: {why}")?;
                if !why.contains(host.as_str()) && !doing.contains(host.as_str()) {
                    write!(f, " ({host})")?;
                }
                if *attempts > 1 {
                    write!(f, ", after {attempts} attempts")?;
                }
                Ok(())
            }
            Error::Mismatch {
                blob,
                expected,
                found,
                ..
            } => write!(
                f,
                "{blob}: content mismatch: expected {expected}, got {found}; discarded"
            ),
            Error::Output {
                path,
                doing,
                source,
            } => {
                write!(f, "{doing} {}: {}", path.display(), plain(source))?;
                match advice(source) {
                    // A stream keeps nothing.
                    advice if path == Path::new(STANDARD_OUTPUT) && advice == MAKE_ROOM => Ok(()),
                    "" => Ok(()),
                    advice => write!(f, "; {advice}"),
                }
            }
            Error::Thin {
                archive,
                layers,
                size,
            } => write!(
                f,
                "{archive}: is a thin archive and needs {} ({size} bytes); give an archive that has them",
                count(*layers, "layer")
            ),
            Error::Tls { host, why, .. } => write!(f, "{host}: {why}"),
            Error::Malformed { document, why, .. } => write!(f, "{document}: {why}"),
            Error::TooLarge { what, limit } => {
                write!(f, "{what} is larger than the limit of {limit} bytes")
            }
            Error::Input {
                path,
                doing,
                source,
            } => {
                write!(f, "{doing} {}: {}", path.display(), plain(source))
            }
            Error::Unsupported { what, .. } => f.write_str(what),
            Error::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Output { source, .. } | Self::Input { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The name of an output without a path.
pub(crate) const STANDARD_OUTPUT: &str = "standard output";

/// The system's message without Rust's ` (os error 28)`.
pub(crate) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

const MAKE_ROOM: &str = "free some space and run it again: what arrived is kept";

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => MAKE_ROOM,
        io::ErrorKind::FileTooLarge => {
            "this file system (vfat?) or a limit (ulimit -f) does not allow files of that size"
        }
        _ if is_forbidden(error) => "choose another path",
        io::ErrorKind::NotFound => "the directory must exist",
        _ => "",
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}

fn list(items: &[String]) -> String {
    const SHOWN: usize = 24;
    let mut text = items
        .iter()
        .take(SHOWN)
        .map(|item| printable(item, 80))
        .collect::<Vec<_>>()
        .join(", ");
    if items.len() > SHOWN {
        text.push_str(&format!(", and {} more", items.len() - SHOWN));
    }
    text
}

/// `1 layer`, `2 layers`.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_to_do() {
        let error = Error::unsupported("x\u{202e}\ny");
        assert_eq!(error.to_string(), "x? y");
        let full = Error::output(
            Path::new("x.tar"),
            "writing",
            io::Error::from_raw_os_error(28),
        );
        assert_eq!(
            full.to_string(),
            "writing x.tar: No space left on device; free some space and run it again: what arrived is kept"
        );
        let missing = Error::not_found("no tag x", vec!["a".into(), "b".into()]);
        assert_eq!(missing.to_string(), "no tag x; available: a, b");
    }
}
