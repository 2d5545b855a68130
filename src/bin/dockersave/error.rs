//! The program's errors: those of the library, and a few of its own.

use dockersave::{Hint, text};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

pub(super) type Result<T> = std::result::Result<T, Error>;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Error {
    /// An error of the library.
    Library(dockersave::Error),
    /// The command line is invalid: what of it, and why.
    Usage(String, String),
    /// It is valid, but cannot be done.
    Unsupported(String),
    /// A checked archive has defects, which were listed one by one.
    Unsound {
        archive: String,
        defects: usize,
        /// Whether dockersave wrote it, so that a pull can repair it.
        ours: bool,
    },
    /// A checked archive has no defect, but not the signatures that were asked for.
    Unsigned { archive: String, why: String },
    /// A checked archive has no defect, but some of it could not be checked.
    Uninflated { archive: String, layers: usize },
    /// Some of several archives failed; each failure was printed.
    Several {
        failed: usize,
        of: usize,
        status: u8,
    },
    /// An archive is not what a lock says: what is wrong.
    Differs(String),
    /// A renewal would change a lock.
    Outdated { lock: String, changes: usize },
    /// Ended by the signal of this number.
    Interrupted(i32),
}

impl Error {
    /// The exit status for this failure.
    pub fn status(&self) -> u8 {
        match self {
            Self::Library(error) => status(error),
            Self::Usage(..) => 2,
            Self::Unsupported(_) => 1,
            Self::Unsound { .. } | Self::Unsigned { .. } | Self::Differs(_) => 6,
            Self::Uninflated { .. } => 8,
            Self::Outdated { .. } => 10,
            Self::Several { status, .. } => *status,
            Self::Interrupted(signal) => 128_u8.saturating_add(u8::try_from(*signal).unwrap_or(0)),
        }
    }

    /// Does it end what is left of several images, too?
    pub fn ends_all(&self) -> bool {
        match self {
            Self::Library(dockersave::Error::Cancelled) | Self::Interrupted(_) => true,
            Self::Library(dockersave::Error::Output { path, .. }) => {
                path == Path::new(STANDARD_OUTPUT)
            }
            _ => false,
        }
    }

    pub fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Usage(what.into(), why.into())
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
        Self::Unsupported(what.into())
    }
}

/// The exit status for what the library says; the help lists them.
fn status(error: &dockersave::Error) -> u8 {
    use dockersave::Error as E;
    match error {
        E::Usage { .. } => 2,
        E::Refused { .. } => 3,
        E::NotFound { .. } => 4,
        E::Network { .. } => 5,
        E::Mismatch { .. } | E::Unsigned { .. } => 6,
        E::Output { .. } => 7,
        E::Thin { .. } => 9,
        _ => 1,
    }
}

/// The flags that a suggested command repeats, as typed.
pub(super) static AGAIN: OnceLock<String> = OnceLock::new();

/// How a hint of the library is followed on the command line, to be put behind its message.
fn advice(error: &dockersave::Error, hint: &Hint) -> String {
    let again = AGAIN.get().map_or("", String::as_str);
    let text = match hint {
        Hint::Credentials if matches!(error, dockersave::Error::Usage { .. }) => {
            "; use --user and --password-stdin"
        }
        Hint::Credentials => ": see --user",
        Hint::RootCertificates => " with --cacert",
        Hint::Identity => ": see --cert and --key",
        Hint::VerificationTime => " with --date",
        Hint::PlainHttp => "; if the registry is meant to be plain HTTP, use --insecure",
        Hint::Https => ": run without --insecure",
        Hint::Platform => "; choose an image with --platform",
        Hint::Tags(name) => return format!("; dockersave{again} --tags {name} lists the tags"),
        Hint::Platforms(name) => {
            return format!("; dockersave{again} --platforms {name} lists the images of its index");
        }
        Hint::InflateLimit => "; raise the limit with --inflate-limit",
        Hint::NoInflate => "; without --gunzip the layer is stored as it is",
        Hint::Base => " with --base",
        Hint::Verify => "; --verify says where",
        Hint::OtherPath => " with --output or --working-dir",
        Hint::Decompress(with) => {
            return format!("; decompress it on the way: {with} -dc FILE | dockersave --verify -");
        }
        _ => "",
    };
    text.to_owned()
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
            Self::Library(error) => match error.hint() {
                Some(hint) => format!("{error}{}", advice(error, hint)),
                None => return error.fmt(f),
            },
            Self::Usage(what, why) => format!("{}: {why}", text::printable(what, 300)),
            Self::Unsupported(what) | Self::Differs(what) => what.clone(),
            Self::Outdated { lock, changes } => {
                format!(
                    "a renewal of {lock} would change {}",
                    count(*changes, "image")
                )
            }
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
            Self::Unsigned { archive, why } => format!("{archive} {why}"),
            Self::Uninflated { archive, layers } => {
                let were = if *layers == 1 { "was" } else { "were" };
                format!(
                    "{archive}: {} {were} not inflated, so their diff IDs were not checked; --inflate-memory allows larger zstd windows",
                    count(*layers, "layer")
                )
            }
            Self::Several { failed, of, .. } => format!("{failed} of {of} archives failed"),
            Self::Interrupted(_) => return f.write_str("interrupted"),
        };
        f.write_str(&text::line(&line))
    }
}

/// The exit status for several failures: wrong content and disk failures first, network failures
/// last, because a retry may help.
pub(super) fn gravest(statuses: &[u8]) -> u8 {
    let order = [6, 7, 1, 2, 3, 4, 5];
    let found = order.into_iter().find(|status| statuses.contains(status));
    found.or(statuses.first().copied()).unwrap_or(1)
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

    fn disk_full() -> io::Error {
        io::Error::from_raw_os_error(28)
    }

    #[test]
    fn hints_become_flags() {
        let error = "user:secret@host/app"
            .parse::<dockersave::Reference>()
            .unwrap_err();
        assert!(!error.to_string().contains("--"), "{error}");
        assert!(
            Error::from(error)
                .to_string()
                .ends_with("; use --user and --password-stdin")
        );
        let denied = Error::output(Path::new("x"), "writing", io::ErrorKind::PermissionDenied);
        assert!(
            denied
                .to_string()
                .ends_with("choose another path with --output or --working-dir"),
            "{denied}"
        );
    }

    #[test]
    fn every_failure_has_its_status() {
        assert_eq!(Error::usage("x", "y").status(), 2);
        assert_eq!(Error::Interrupted(2).status(), 130);
        assert_eq!(
            Error::output(Path::new("x"), "writing", disk_full()).status(),
            7
        );
        assert_eq!(
            [gravest(&[5, 4]), gravest(&[5, 6, 7]), gravest(&[5])],
            [4, 6, 5]
        );
        let several = Error::Several {
            failed: 1,
            of: 3,
            status: 4,
        };
        assert_eq!(several.to_string(), "1 of 3 archives failed");
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
