//! The program's errors: those of the library, and a few of its own.

use dockersave::text;
use std::fmt;
use std::io;
use std::path::Path;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Error {
    /// An error of the library.
    Library(dockersave::Error),
    /// A checked archive has defects, which were listed one by one.
    Unsound {
        archive: String,
        defects: usize,
        /// Whether dockersave wrote it, so that a pull can repair it.
        ours: bool,
    },
    /// A checked archive has no defect, but some of it could not be checked.
    Uninflated { archive: String, layers: usize },
    /// Ended by the signal of this number.
    Interrupted(i32),
}

impl Error {
    /// The exit status for this failure.
    pub fn status(&self) -> u8 {
        match self {
            Self::Library(error) => error.status(),
            Self::Unsound { .. } => 6,
            Self::Uninflated { .. } => 8,
            Self::Interrupted(signal) => 128_u8.saturating_add(u8::try_from(*signal).unwrap_or(0)),
        }
    }

    pub fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Library(dockersave::Error::Usage {
            what: what.into(),
            why: why.into(),
        })
    }

    pub fn output(path: &Path, doing: &str, source: impl Into<io::Error>) -> Self {
        Self::Library(dockersave::Error::Output {
            path: path.to_owned(),
            doing: doing.to_owned(),
            source: source.into(),
        })
    }

    pub fn input(path: &Path, doing: &str, source: impl Into<io::Error>) -> Self {
        Self::Library(dockersave::Error::Input {
            path: path.to_owned(),
            doing: doing.to_owned(),
            source: source.into(),
        })
    }

    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::Library(dockersave::Error::Unsupported { what: what.into() })
    }
}

impl From<dockersave::Error> for Error {
    fn from(error: dockersave::Error) -> Self {
        Self::Library(error)
    }
}

/// One line, fit for a terminal, without any secret.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match self {
            Self::Library(error) => return error.fmt(f),
            Self::Unsound {
                archive,
                defects,
                ours,
            } => {
                let advice = match ours {
                    true => "pull its images to the same path again: intact blobs are kept",
                    false => "get a new copy from where it came from",
                };
                format!("{archive} has {}; {advice}", count(*defects, "defect"))
            }
            Self::Uninflated { archive, layers } => {
                let were = if *layers == 1 { "was" } else { "were" };
                format!(
                    "{archive}: {} {were} not inflated, so their diff IDs were not checked; --inflate-memory allows larger zstd windows",
                    count(*layers, "layer")
                )
            }
            Self::Interrupted(_) => return f.write_str("interrupted"),
        };
        f.write_str(&text::line(&line))
    }
}

/// The name of an output without a path.
pub(super) const STANDARD_OUTPUT: &str = "standard output";

/// The system's message without Rust's ` (os error 28)`.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// `1 layer`, `2 layers`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_status() {
        assert_eq!(Error::usage("x", "y").status(), 2);
        assert_eq!(Error::Interrupted(2).status(), 130);
        let damaged = |ours| Error::Unsound {
            archive: "x\n.tar".into(),
            defects: 2,
            ours,
        };
        assert_eq!(damaged(true).status(), 6);
        assert_eq!(
            damaged(false).to_string(),
            "x .tar has 2 defects; get a new copy from where it came from"
        );
        let part = Error::Uninflated {
            archive: "x.tar".into(),
            layers: 1,
        };
        assert_eq!(part.status(), 8);
        assert!(part.to_string().contains("1 layer was not inflated"));
    }
}
