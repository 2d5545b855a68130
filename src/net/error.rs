//! Why one attempt failed. [`super::retry`] decides whether to retry.

use super::url::{Origin, Url};
use crate::error::{Error, printable};
use crate::hint::Hint;
use std::fmt;
use std::time::Duration;

/// A failed attempt: no response, or an unsuccessful one.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The name has no address. `again`: the name server did not answer, so it is worth retrying.
    Resolve {
        host: String,
        again: bool,
        why: String,
    },
    /// No address accepted a connection. `refused`: at once, by a host that has taken none in this
    /// run.
    Connect {
        origin: Origin,
        why: String,
        refused: bool,
    },
    /// The peer is not trusted, or does not speak TLS.
    Tls {
        host: String,
        why: String,
        hint: Option<Hint>,
    },
    /// A timeout.
    Timer {
        host: String,
        what: &'static str,
        seconds: u64,
    },
    /// The connection was closed early.
    Closed { host: String, why: String },
    /// A response that is not HTTP, or not what was requested.
    Protocol { host: String, why: String },
    /// A valid response with an error status.
    Status(Box<StatusFailure>),
    /// An error that a retry cannot fix.
    Final(Error),
}

/// The outcome of one attempt.
pub(crate) type Attempt<T> = std::result::Result<T, Failure>;

/// A response with an error status, and the details for its message.
#[derive(Debug)]
pub(crate) struct StatusFailure {
    pub url: Url,
    pub status: u16,
    /// The registry's error codes, such as `MANIFEST_UNKNOWN`.
    pub codes: Vec<String>,
    /// The registry's own message, printable.
    pub message: String,
    pub retry_after: Option<Duration>,
    /// `limit 100 per 6 h, 0 left`, if stated in the response.
    pub limit: Option<String>,
    /// That limit is used up.
    pub quota_used: bool,
    /// The response came from a redirect's target, not from the registry.
    pub redirected: bool,
    /// What it means for the credentials that were sent, if any were.
    pub credentials: Option<String>,
    pub hint: Option<Hint>,
}

impl StatusFailure {
    /// A response of which nothing but this is known.
    pub fn new(url: Url, status: u16, codes: Vec<String>, message: String) -> Self {
        Self {
            url,
            status,
            codes,
            message,
            retry_after: None,
            limit: None,
            quota_used: false,
            redirected: false,
            credentials: None,
            hint: None,
        }
    }

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
            Self::Tls { host, why, .. } => write!(f, "{host}: {why}"),
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

/// So that it can pass through readers inside an `io::Error`.
impl std::error::Error for Failure {}

impl Failure {
    /// Whether the server is overloaded.
    pub fn is_of_load(&self) -> bool {
        matches!(self, Self::Status(status) if matches!(status.status, 429 | 503))
    }

    /// The error for the caller after the last attempt.
    pub fn into_error(self, doing: &str, attempts: u32) -> Error {
        let why = self.to_string();
        match self {
            Self::Final(error) => error,
            Self::Tls { host, why, hint } => Error::Tls { host, why, hint },
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
        // A redirect's target is not an authority on what exists or who may see it.
        _ if failure.redirected => Error::Network {
            host,
            doing: doing.to_owned(),
            attempts,
            why,
        },
        401 | 403 | 407 => {
            let mut detail = failure.codes.join(", ");
            let credentials = failure.credentials.as_deref().unwrap_or_default();
            for (between, part) in [(": ", &*failure.message), ("; ", credentials)] {
                if !part.is_empty() {
                    detail.push_str(if detail.is_empty() { "" } else { between });
                    detail.push_str(part);
                }
            }
            let mut hint = failure.hint;
            match (failure.status, &failure.credentials) {
                _ if hint.is_some() => {}
                (407, _) => detail.push_str(
                    "; the proxy requires a user and password: http://USER:PASSWORD@PROXY",
                ),
                (_, Some(_)) => {}
                _ => {
                    hint = Some(Hint::Credentials);
                    detail.push_str(if detail.is_empty() { "" } else { "; " });
                    detail.push_str("it requires credentials, or there is no such repository");
                }
            }
            Error::Refused {
                host,
                status: failure.status,
                detail,
                hint,
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
                hint: None,
            }
        }
        404 => Error::not_found(format!("{doing}: {why}"), Vec::new()),
        _ if failure.codes.iter().any(|code| unknown(code)) => {
            Error::not_found(format!("{doing}: {why}"), Vec::new())
        }
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
