//! Unrequested Content-Encoding: gzip is decoded, anything else is an error that names it.

use crate::codec::inflate::{self, Limits};
use crate::error::{Error, printable};
use crate::net::error::Failure;
use crate::net::http::Head;
use crate::net::{Body, Response, buffer};
use std::io::{self, Read};

/// The largest zstd window within an encoding; gzip has 32 KiB.
const WINDOW: u64 = 1 << 20;
/// The overhead of gzip's headers and blocks.
const SLACK: u64 = 64 << 10;

/// How a body is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As requested.
    Identity,
    Gzip,
    /// Its printable name.
    Other(String),
}

impl Coding {
    pub fn of(head: &Head) -> Self {
        let fields = head.fields.all("content-encoding");
        let names: Vec<&str> = fields
            .flat_map(|field| field.split(','))
            .map(str::trim)
            // S3 keeps an upload's `aws-chunked` as if it were an encoding.
            .filter(|name| {
                let none = ["", "identity", "none", "aws-chunked"];
                !none.iter().any(|none| name.eq_ignore_ascii_case(none))
            })
            .collect();
        match names[..] {
            [] => Self::Identity,
            [one] if one.eq_ignore_ascii_case("gzip") || one.eq_ignore_ascii_case("x-gzip") => {
                Self::Gzip
            }
            _ => Self::Other(printable(&names.join(", "), 60)),
        }
    }

    /// The error for unexpected content, if its encoding may be the reason.
    pub fn error(&self, what: &str) -> Option<Error> {
        match self {
            Self::Other(name) => Some(unasked(what, name)),
            _ => None,
        }
    }
}

/// The error for content in an unsupported encoding.
pub(crate) fn unasked(what: &str, name: &str) -> Error {
    Error::malformed(
        what,
        format!("was sent with Content-Encoding {name}, which was not requested"),
    )
}

/// A body as a `Read`; its errors are [`Failure`]s, which [`failure`] extracts.
pub(super) struct Reading<'a> {
    body: Body<'a>,
    /// How many more bytes are allowed.
    left: u64,
}

impl<'a> Reading<'a> {
    /// A body of at most `plain` bytes decoded. Deflate blocks may be empty, so the encoded bytes
    /// have their own limit.
    pub fn new(body: Body<'a>, plain: u64) -> Self {
        let left = plain.saturating_mul(2).saturating_add(SLACK);
        Self { body, left }
    }
}

impl Read for Reading<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buffer).map_err(io::Error::other)?;
        let left = self.left.checked_sub(read as u64);
        self.left = left.ok_or_else(|| io::Error::other("more arrived than it can contain"))?;
        Ok(read)
    }
}

/// A response's body, decoded if it is labelled as gzip, of about `limit` bytes at most.
pub(super) fn reader<'a>(
    response: Response<'a>,
    coding: &Coding,
    limit: u64,
) -> io::Result<Box<dyn Read + 'a>> {
    let body = Box::new(Reading::new(response.body, limit));
    if *coding != Coding::Gzip {
        return Ok(body);
    }
    let limits = Limits {
        output: u64::MAX,
        window: WINDOW,
    };
    inflate::reader(body, limits).map(|(_, reader)| reader)
}

/// Why a read failed: the network, or the decoding.
pub(super) fn failure(error: io::Error, host: &str) -> Failure {
    error
        .downcast::<Failure>()
        .unwrap_or_else(|error| Failure::Protocol {
            host: host.to_owned(),
            why: format!("sent it with Content-Encoding gzip: {error}"),
        })
}

/// The start of an error's body as text: empty if its encoding is not supported, and whatever can
/// be decoded if it was truncated.
pub(super) fn excerpt(bytes: Vec<u8>, coding: &Coding, limit: usize) -> Vec<u8> {
    let text = std::str::from_utf8(&bytes).is_ok();
    match coding {
        Coding::Gzip if !text => {
            let limits = Limits {
                output: u64::MAX,
                window: WINDOW,
            };
            let mut decoded = Vec::new();
            if let Ok((_, reader)) = inflate::reader(Box::new(&bytes[..]), limits) {
                let _ = reader.take(limit as u64).read_to_end(&mut decoded);
            }
            decoded
        }
        Coding::Other(_) if !text => Vec::new(),
        _ => bytes,
    }
}

/// A document of at most `limit` bytes, decoded if it is labelled as gzip. No document starts like
/// gzip, so there is no ambiguity.
pub(super) fn document(
    mut response: Response<'_>,
    limit: u64,
    what: &str,
) -> std::result::Result<Vec<u8>, Failure> {
    let coding = Coding::of(&response.head);
    if coding != Coding::Gzip {
        let bytes = response.body.document(limit, what)?;
        let json = bytes.iter().find(|c| !c.is_ascii_whitespace()) == Some(&b'{');
        return match coding.error(what).filter(|_| !json) {
            Some(error) => Err(error.into()),
            None => Ok(bytes),
        };
    }
    let bytes = at_most(response, &coding, limit + 1)?;
    match bytes.len() as u64 > limit {
        true => Err(Failure::Final(Error::TooLarge {
            what: what.to_owned(),
            limit,
        })),
        false => Ok(bytes),
    }
}

/// A small blob, or its first `limit` bytes, decoded if it is labelled as gzip.
pub(super) fn at_most(
    mut response: Response<'_>,
    coding: &Coding,
    limit: u64,
) -> std::result::Result<Vec<u8>, Failure> {
    if *coding != Coding::Gzip {
        return response.body.at_most(limit);
    }
    let host = response.body.host();
    let mut bytes = buffer(limit);
    reader(response, coding, limit)
        .and_then(|reader| reader.take(limit).read_to_end(&mut bytes))
        .map_err(|error| failure(error, &host))?;
    bytes.shrink_to_fit();
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::http::Fields;

    fn of(values: &[&str]) -> Coding {
        Coding::of(&Head::with(Fields::of("content-encoding", values)))
    }

    #[test]
    fn encodings_are_told_apart() {
        for none in [&[][..], &["identity"], &[""], &["aws-chunked", "Identity"]] {
            assert_eq!(of(none), Coding::Identity, "{none:?}");
        }
        for gzip in [&["gzip"][..], &["X-GZIP"], &["aws-chunked,gzip"]] {
            assert_eq!(of(gzip), Coding::Gzip, "{gzip:?}");
        }
        for other in ["br", "zstd", "deflate", "gzip, br", "gzip, gzip"] {
            assert_eq!(of(&[other]), Coding::Other(other.to_owned()));
        }
        assert_eq!(of(&["b\u{1b}r"]), Coding::Other("b?r".to_owned()));
    }
}
