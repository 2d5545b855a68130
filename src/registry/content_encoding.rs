//! Content-Encoding, which nobody asked for: gzip is undone, anything else is named.

use crate::codec::inflate::{self, Limits};
use crate::error::{Error, printable};
use crate::net::error::Failure;
use crate::net::http::Head;
use crate::net::{Body, Response};
use std::io::{self, Read};

/// The window that zstd data within an encoding may ask for; gzip has 32 KiB.
const WINDOW: u64 = 1 << 20;
/// What heads and blocks of gzip may take besides what they hold.
const SLACK: u64 = 64 << 10;

/// How a body is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it was asked for.
    Identity,
    Gzip,
    /// In words that are fit for a terminal.
    Other(String),
}

impl Coding {
    pub fn of(head: &Head) -> Self {
        let fields = head.fields.all("content-encoding");
        let names: Vec<&str> = fields
            .flat_map(|field| field.split(','))
            .map(str::trim)
            // S3 keeps `aws-chunked` of an upload as if it were an encoding.
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

    /// Why something is not what was asked for, where its encoding may be the reason.
    pub fn error(&self, what: &str) -> Option<Error> {
        match self {
            Self::Other(name) => Some(unasked(what, name)),
            _ => None,
        }
    }
}

/// An encoding is the reason why something cannot be used.
pub(crate) fn unasked(what: &str, name: &str) -> Error {
    Error::malformed(
        what,
        format!("was sent with Content-Encoding {name}, which was not requested"),
    )
}

/// A body as bytes to read; what fails is a [`Failure`], which [`failure`] finds again.
pub(super) struct Reading<'a> {
    body: Body<'a>,
    /// How many bytes may still come.
    left: u64,
}

impl<'a> Reading<'a> {
    /// A body that is to hold at most `plain` bytes decoded. Blocks of deflate may be empty, so
    /// what comes encoded has a limit of its own.
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

/// An answer's body, decoded where it is gzip and says so, of about `limit` bytes at most.
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

/// Why a read failed: the network did, or what it brought cannot be decoded.
pub(super) fn failure(error: io::Error, host: &str) -> Failure {
    error
        .downcast::<Failure>()
        .unwrap_or_else(|error| Failure::Protocol {
            host: host.to_owned(),
            why: format!("sent it with Content-Encoding gzip: {error}"),
        })
}

/// The beginning of an error's body as text: nothing where it is in an encoding that is not undone
/// here, and whatever can be had of one that was cut off.
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

/// A document, of at most `limit` bytes, decoded where it is gzip and says so. No document begins
/// as gzip does, so that there is nothing to try.
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

/// A small blob, or its first `limit` bytes, decoded where it is gzip and says so.
pub(super) fn at_most(
    mut response: Response<'_>,
    coding: &Coding,
    limit: u64,
) -> std::result::Result<Vec<u8>, Failure> {
    if *coding != Coding::Gzip {
        return response.body.at_most(limit);
    }
    let host = response.body.host();
    let mut bytes = Vec::new();
    reader(response, coding, limit)
        .and_then(|reader| reader.take(limit).read_to_end(&mut bytes))
        .map_err(|error| failure(error, &host))?;
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
