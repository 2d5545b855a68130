//! A blob's bytes on their way: as they come, or inflated where gzip was put around them.
//!
//! Some proxies compress what is not compressed, and some stores call a layer that is gzip itself
//! encoded. Which of both it is, its length tells, or its first bytes and its media type. Where the
//! digest then is wrong, the second try takes the other.

use crate::codec::inflate::{self, Limits};
use crate::error::Error;
use crate::manifest::Descriptor;
use crate::net::error::Failure;
use crate::net::{Body, Response};
use crate::registry::content_encoding::{self, Coding, Reading};
use std::io::{Cursor, Read};
use std::net::TcpStream;
use std::sync::Arc;

/// The first bytes that are looked at.
const LOOK: u64 = 4 << 10;

/// Bytes that are read once.
pub(crate) struct Flow<'a> {
    source: Source<'a>,
    coding: Coding,
}

enum Source<'a> {
    Plain(Body<'a>),
    Read {
        reader: Box<dyn Read + 'a>,
        socket: Option<Arc<TcpStream>>,
        encrypted: bool,
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

    /// Of a document that embeds them.
    pub fn embedded(bytes: Vec<u8>) -> Self {
        Self {
            source: Source::Read {
                reader: Box::new(Cursor::new(bytes)),
                socket: None,
                encrypted: false,
                host: String::new(),
            },
            coding: Coding::Identity,
        }
    }

    /// Of an answer that says it is encoded; `second`: what an earlier one came to was wrong.
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
        let (socket, encrypted) = (response.body.socket(), response.body.is_encrypted());
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
                encrypted,
                host,
            },
            coding,
        })
    }

    /// How many are still to come, where that is known.
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

    pub fn is_encrypted(&self) -> bool {
        match &self.source {
            Source::Plain(body) => body.is_encrypted(),
            Source::Read { encrypted, .. } => *encrypted,
        }
    }

    /// Reads a small rest, so that the connection can be kept.
    pub fn drain(self) {
        if let Source::Plain(body) = self.source {
            body.drain();
        }
    }

    /// They ended before the blob did.
    pub fn short(&self, descriptor: &Descriptor, host: &str) -> Failure {
        self.unasked(descriptor).unwrap_or_else(|| Failure::Closed {
            host: host.to_owned(),
            why: "ended the response early".into(),
        })
    }

    /// They go on behind the blob's end.
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

/// Is the gzip that this begins with something around the blob, rather than the blob?
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
