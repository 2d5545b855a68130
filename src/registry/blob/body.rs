//! A blob's bytes from a response: as they are, or without the gzip that was wrapped around them.
//!
//! Some proxies compress uncompressed content, and some stores label a gzip layer as encoded. The
//! length decides which it is, or else the first bytes and the media type. If the digest is then
//! wrong, the second attempt does the opposite.

use crate::codec::inflate::{self, Limits};
use crate::error::Error;
use crate::manifest::Descriptor;
use crate::net::error::Failure;
use crate::net::{Body, Response};
use crate::registry::content_encoding::{self, Coding, Reading};
use std::io::{Cursor, Read};
use std::net::TcpStream;
use std::sync::Arc;

/// How many first bytes are examined.
const LOOK: u64 = 4 << 10;

/// A one-time reader of a blob's bytes.
pub(crate) struct Flow<'a> {
    source: Source<'a>,
    coding: Coding,
}

enum Source<'a> {
    Plain(Body<'a>),
    Read {
        reader: Box<dyn Read + 'a>,
        socket: Option<Arc<TcpStream>>,
        host: String,
    },
}

impl<'a> Flow<'a> {
    /// As they come.
    pub fn plain(response: Response<'a>, coding: Coding) -> Self {
        Self {
            source: Source::Plain(response.body),
            coding,
        }
    }

    /// From a document that embeds them.
    pub fn embedded(bytes: Vec<u8>) -> Self {
        Self {
            source: Source::Read {
                reader: Box::new(Cursor::new(bytes)),
                socket: None,
                host: String::new(),
            },
            coding: Coding::Identity,
        }
    }

    /// From a response with a Content-Encoding; `second`: an earlier one had the wrong digest.
    pub fn encoded(
        mut response: Response<'a>,
        coding: Coding,
        descriptor: &Descriptor,
        second: bool,
    ) -> std::result::Result<Self, Failure> {
        let length = response.body.length();
        let same = length == Some(descriptor.size);
        match &coding {
            Coding::Gzip if same && !second => return Ok(Self::plain(response, coding)),
            Coding::Gzip => {}
            Coding::Other(name) if length.is_some() && !same => {
                return Err(content_encoding::unasked(&what(descriptor), name).into());
            }
            _ => return Ok(Self::plain(response, coding)),
        }
        let socket = response.body.socket();
        let host = response.body.host();
        let failed = |error| content_encoding::failure(error, &host);
        let mut body = Reading::new(response.body, descriptor.size);
        let mut begin = Vec::new();
        (&mut body)
            .take(LOOK)
            .read_to_end(&mut begin)
            .map_err(failed)?;
        let inflate = length.is_some() || is_around(&begin, descriptor) != second;
        let all: Box<dyn Read + 'a> = Box::new(Cursor::new(begin).chain(body));
        let reader = match inflate {
            true => {
                inflate::reader(all, limits(descriptor.size + 1))
                    .map_err(failed)?
                    .1
            }
            false => all,
        };
        Ok(Self {
            source: Source::Read {
                reader,
                socket,
                host,
            },
            coding,
        })
    }

    /// How many are still to come, if known.
    pub fn length(&self) -> Option<u64> {
        match &self.source {
            Source::Plain(body) => body.length(),
            Source::Read { .. } => None,
        }
    }

    /// Reads some; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> std::result::Result<usize, Failure> {
        match &mut self.source {
            Source::Plain(body) => body.read(buffer),
            Source::Read { reader, host, .. } => reader
                .read(buffer)
                .map_err(|error| content_encoding::failure(error, host)),
        }
    }

    /// The socket, so that another thread can end the reading.
    pub fn socket(&mut self) -> Option<Arc<TcpStream>> {
        match &mut self.source {
            Source::Plain(body) => body.socket(),
            Source::Read { socket, .. } => socket.clone(),
        }
    }

    /// Drains a small rest, so that the connection can be kept.
    pub fn drain(self) {
        if let Source::Plain(body) = self.source {
            body.drain();
        }
    }

    /// The error if they ended before the blob did.
    pub fn short(&self, descriptor: &Descriptor, host: &str) -> Failure {
        self.unasked(descriptor).unwrap_or_else(|| Failure::Closed {
            host: host.to_owned(),
            why: "ended the response early".into(),
        })
    }

    /// The error if they continue after the blob's end.
    pub fn long(&self, descriptor: &Descriptor) -> Failure {
        let wrong = || super::wrong_size(descriptor, descriptor.size + 1, "");
        self.unasked(descriptor).unwrap_or_else(wrong)
    }

    fn unasked(&self, descriptor: &Descriptor) -> Option<Failure> {
        let error: Option<Error> = self.coding.error(&what(descriptor));
        error.map(Failure::Final)
    }
}

fn what(descriptor: &Descriptor) -> String {
    format!("layer {}", descriptor.digest)
}

fn limits(output: u64) -> Limits {
    Limits {
        output,
        window: 1 << 20,
    }
}

/// Whether this gzip data was wrapped around the blob, rather than being the blob.
fn is_around(begin: &[u8], descriptor: &Descriptor) -> bool {
    let Ok((inflate::Compression::Gzip, mut reader)) =
        inflate::reader(Box::new(begin), limits(LOOK))
    else {
        return false;
    };
    let mut inner = [0; 4];
    let compressed = reader.read_exact(&mut inner).is_ok()
        && (inner.starts_with(&[0x1f, 0x8b]) || inner == [0x28, 0xb5, 0x2f, 0xfd]);
    compressed || !descriptor.media_type.contains("gzip")
}
