//! Why one try failed. What follows from it (again, later, never) is [`super::retry`]'s business.

use super::url::{Origin, Url};
use crate::error::{Error, printable};
use std::fmt;
use std::time::Duration;

/// The outcome of one try that brought no answer, or one that is no success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The name has no address. `again`: the name server did not answer; otherwise it said no.
    Resolve {
        host: String,
        again: bool,
        why: String,
    },
    /// No address took a connection. `refused`: at once, by a host that has taken none in this run.
    Connect {
        origin: Origin,
        why: String,
        refused: bool,
    },
    /// The other side is not to be trusted, or speaks no TLS.
    Tls { host: String, why: String },
    /// A wait reached its end.
    Timer {
        host: String,
        what: &'static str,
        seconds: u64,
    },
    /// The connection ended too early.
    Closed { host: String, why: String },
    /// An answer that is not HTTP, or not what was asked for.
    Protocol { host: String, why: String },
    /// A proper answer that is no success.
    Status(Box<StatusFailure>),
    /// What no further try can mend.
    Final(Error),
}

/// An answer that is no success, with what is worth telling of it.
#[derive(Debug)]
pub(crate) struct StatusFailure {
    pub url: Url,
    pub status: u16,
    /// The registry's error codes, such as `MANIFEST_UNKNOWN`.
    pub codes: Vec<String>,
    /// The registry's own words, fit for a terminal.
    pub message: String,
    pub retry_after: Option<Duration>,
    /// `limit 100 per 6 h, 0 left`, where the answer said so.
    pub limit: Option<String>,
    /// Nothing is left of that limit.
    pub quota_used: bool,
    /// The answer came from where the registry sent us, not from the registry.
    pub redirected: bool,
    /// Where the credentials that were sent came from.
    pub credentials: Option<String>,
}

impl StatusFailure {
    pub fn host(&self) -> String {
        self.url.origin.to_string()
    }
}

impl fmt::Display for StatusFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}", self.url.origin, self.status)?;
        if let Some(reason) = reason(self.status) {
            write!(f, " {reason}")?;
        }
        if !self.codes.is_empty() {
            write!(f, ", {}", self.codes.join(", "))?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(limit) = &self.limit {
            write!(f, " ({limit})")?;
        }
        Ok(())
    }
}

fn reason(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        421 | 426 | 505 => "(it requires another version of HTTP)",
        _ => return None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, why, .. } => write!(f, "cannot resolve {host}: {why}"),
            Self::Connect { origin, why, .. } => {
                write!(f, "cannot connect to {}: {why}", origin.host_and_port())
            }
            Self::Tls { host, why } => write!(f, "{host}: {why}"),
            Self::Timer {
                host,
                what,
                seconds,
            } => write!(f, "{what} from {host} for {seconds} s"),
            Self::Closed { host, why } => write!(f, "{host} {why}"),
            Self::Protocol { host, why } => write!(f, "{host} {}", printable(why, 400)),
            Self::Status(status) => status.fmt(f),
            Self::Final(error) => error.fmt(f),
        }
    }
}

/// It passes through readers as what a read failed with.
impl std::error::Error for Failure {}

impl Failure {
    /// Does the server have more to do than it can?
    pub fn is_of_load(&self) -> bool {
        matches!(self, Self::Status(status) if matches!(status.status, 429 | 503))
    }

    /// The error a caller sees, once it has been decided that there is no further try.
    pub fn into_error(self, doing: &str, attempts: u32) -> Error {
        let why = self.to_string();
        match self {
            Self::Final(error) => error,
            Self::Tls { host, why } => Error::Tls { host, why },
            Self::Resolve { host, .. }
            | Self::Timer { host, .. }
            | Self::Closed { host, .. }
            | Self::Protocol { host, .. } => Error::Network {
                host,
                doing: doing.to_owned(),
                attempts,
                why,
            },
            Self::Connect { origin, .. } => Error::Network {
                host: origin.to_string(),
                doing: doing.to_owned(),
                attempts,
                why,
            },
            Self::Status(status) => status_error(*status, doing, attempts, why),
        }
    }
}

fn status_error(failure: StatusFailure, doing: &str, attempts: u32, why: String) -> Error {
    let host = failure.host();
    let unknown = |code: &str| {
        matches!(
            code,
            "MANIFEST_UNKNOWN" | "NAME_UNKNOWN" | "BLOB_UNKNOWN" | "NOT_FOUND"
        )
    };
    match failure.status {
        // Where the registry sends us is no authority on what exists or who may see it.
        _ if failure.redirected => Error::Network {
            host,
            doing: doing.to_owned(),
            attempts,
            why,
        },
        401 | 403 | 407 => {
            let mut detail = failure.codes.join(", ");
            for part in [
                &failure.message,
                failure.credentials.as_ref().unwrap_or(&String::new()),
            ] {
                if !part.is_empty() {
                    detail.push_str(if detail.is_empty() { "" } else { ": " });
                    detail.push_str(part);
                }
            }
            match (failure.status, &failure.credentials) {
                (407, _) => detail.push_str(
                    "; the proxy requires a user and password: http://USER:PASSWORD@PROXY",
                ),
                (_, Some(_)) => {}
                _ => detail.push_str(if detail.is_empty() {
                    "it requires credentials, or there is no such repository: see --user"
                } else {
                    "; it requires credentials, or there is no such repository: see --user"
                }),
            }
            Error::Refused {
                host,
                status: failure.status,
                detail,
            }
        }
        200..=299
            if failure
                .codes
                .iter()
                .any(|code| matches!(&**code, "UNAUTHORIZED" | "DENIED")) =>
        {
            Error::Refused {
                host,
                status: failure.status,
                detail: format!("{}: {}", failure.codes.join(", "), failure.message),
            }
        }
        404 => Error::NotFound {
            what: format!("{doing}: {why}"),
            available: Vec::new(),
        },
        _ if failure.codes.iter().any(|code| unknown(code)) => Error::NotFound {
            what: format!("{doing}: {why}"),
            available: Vec::new(),
        },
        200..=299 => Error::malformed(doing, why),
        _ => Error::Network {
            host,
            doing: doing.to_owned(),
            attempts,
            why,
        },
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}
