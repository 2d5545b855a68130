//! HTTP/1.1 on one connection (RFC 9112): writes a request, reads the response header and the
//! framed body. The callers choose the connection and interpret the response.

use super::error::Failure;
use super::stream::Stream;
use super::url::Origin;
use crate::hint::Hint;
use std::io;
use std::time::{Duration, Instant};

/// The most bytes and fields in a response header.
const HEAD_LIMIT: usize = 64 << 10;
const FIELDS: usize = 100;
/// The most interim responses (1xx) before the final one.
const INTERIM: usize = 10;
/// The most bytes of a chunk's size line with extensions, and of all trailers together.
const LINE_LIMIT: usize = 8 << 10;
/// The read buffer for headers: small, because bodies bypass it.
const AHEAD: usize = 8 << 10;

/// The header fields of a response, with lowercase names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0
            .iter()
            .filter(move |(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    #[cfg(test)]
    pub fn of(name: &str, values: &[&str]) -> Self {
        let pair = |value: &&str| (name.to_owned(), (*value).to_owned());
        Self(values.iter().map(pair).collect())
    }

    /// Whether a comma-separated field contains this token.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }
}

/// Status and header fields of a response.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub status: u16,
    pub fields: Fields,
    /// HTTP/1.0: connections are not kept by default.
    old: bool,
}

#[cfg(test)]
impl Head {
    pub fn with(fields: Fields) -> Self {
        Self {
            status: 200,
            fields,
            old: false,
        }
    }
}

/// How an answer's body ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many more bytes.
    Length(u64),
    /// After the last chunk; this many bytes are left of the current one.
    Chunked { left: u64, first: bool },
    /// When the connection closes.
    Close,
    /// It has ended.
    Done,
}

/// One connection to an origin, perhaps through a proxy.
pub(crate) struct Connection {
    pub stream: Stream,
    pub origin: Origin,
    /// Read, but not yet taken: `ahead[begin..end]`.
    ahead: Vec<u8>,
    begin: usize,
    /// Answers it has given so far.
    pub answers: u32,
}

impl Connection {
    pub fn new(stream: Stream, origin: Origin) -> Self {
        Self {
            stream,
            origin,
            ahead: Vec::new(),
            begin: 0,
            answers: 0,
        }
    }

    fn host(&self) -> String {
        self.origin.to_string()
    }

    fn protocol(&self, why: impl Into<String>) -> Failure {
        Failure::Protocol {
            host: self.host(),
            why: why.into(),
        }
    }

    /// Sends a request and reads the final answer's head; `wait` bounds both together.
    pub fn exchange(
        &mut self,
        request: &[u8],
        no_body: bool,
        wait: Duration,
    ) -> Result<(Head, Framing), Failure> {
        self.stream.socket().until(Instant::now() + wait, wait);
        let sent = self.stream.write_all(request);
        // A server may answer and close before it has read everything: its answer counts.
        let head = match (self.head(wait), sent) {
            (Err(Failure::Closed { .. }), Err(error)) => {
                return Err(self.broken(&error, "an answer", wait));
            }
            (head, _) => head?,
        };
        self.answers += 1;
        let framing = self.framing(&head, no_body)?;
        Ok((head, framing))
    }

    fn head(&mut self, wait: Duration) -> Result<Head, Failure> {
        for _ in 0..INTERIM {
            let head = self.one_head(wait)?;
            if !(100..200).contains(&head.status) {
                return Ok(head);
            }
            if head.status == 101 {
                return Err(self.protocol("switched to another protocol without being asked"));
            }
        }
        Err(self.protocol("keeps sending interim responses"))
    }

    fn one_head(&mut self, wait: Duration) -> Result<Head, Failure> {
        let mut scanned = 0;
        loop {
            // A parse costs as much as there is; it is only worth it where a head may have ended.
            let held = &self.ahead[self.begin..];
            if held.len() > scanned {
                let from = scanned.saturating_sub(3);
                scanned = held.len();
                if has_blank_line(&held[from..]) || held.len() > HEAD_LIMIT {
                    let limited = &held[..held.len().min(HEAD_LIMIT)];
                    match parse_head(limited) {
                        Ok(Some((head, length))) => {
                            self.begin += length;
                            return Ok(head);
                        }
                        Ok(None) if held.len() > HEAD_LIMIT => {
                            return Err(self.protocol(format!(
                                "sent a response header of more than {HEAD_LIMIT} bytes"
                            )));
                        }
                        Ok(None) => {}
                        Err(why) => return Err(self.no_http(why)),
                    }
                } else if self.answers == 0 && !looks_like_http(held) {
                    return Err(self.no_http("Version"));
                }
            }
            if self.more(wait, "an answer")? == 0 {
                let why = if scanned == 0 {
                    "closed the connection without answering"
                } else {
                    "closed the connection in the middle of the response header"
                };
                return Err(Failure::Closed {
                    host: self.host(),
                    why: why.into(),
                });
            }
        }
    }

    /// What came instead of HTTP, told by its first bytes.
    fn no_http(&self, why: &str) -> Failure {
        let held = &self.ahead[self.begin..];
        match held {
            [0x15, 3, ..] => Failure::Tls {
                host: self.host(),
                why: "speaks TLS on this port, not plain HTTP".into(),
                hint: Some(Hint::Https),
            },
            [0, 0, _, 4, ..] => {
                self.protocol("speaks only HTTP/2 on this port, which is not supported")
            }
            _ => self.protocol(format!("did not answer with HTTP ({why})")),
        }
    }

    /// Reads more behind what is held; 0 at the connection's end.
    fn more(&mut self, wait: Duration, what: &'static str) -> Result<usize, Failure> {
        if self.begin > 0 {
            self.ahead.drain(..self.begin);
            self.begin = 0;
        }
        let held = self.ahead.len();
        self.ahead.resize(held + AHEAD, 0);
        let read = self.stream.read(&mut self.ahead[held..]);
        self.ahead.truncate(held + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(length) => Ok(length),
            // A TLS peer that closes without saying so is still a peer that closed.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(self.broken(&error, what, wait)),
        }
    }

    fn broken(&self, error: &io::Error, what: &'static str, wait: Duration) -> Failure {
        let host = self.host();
        match error.kind() {
            io::ErrorKind::TimedOut => Failure::Timer {
                host,
                what: if what == "data" {
                    "no data"
                } else {
                    "no answer"
                },
                seconds: wait.as_secs(),
            },
            io::ErrorKind::InvalidData => super::tls::broken(host, error),
            _ => Failure::Closed {
                host,
                why: format!("broke the connection: {}", crate::error::plain(error)),
            },
        }
    }

    fn framing(&self, head: &Head, no_body: bool) -> Result<Framing, Failure> {
        if no_body || matches!(head.status, 204 | 304) {
            return Ok(Framing::Done);
        }
        let encodings: Vec<&str> = head.fields.all("transfer-encoding").collect();
        if !encodings.is_empty() {
            // With both, Transfer-Encoding wins (RFC 9112, section 6.3).
            return if encodings.len() == 1 && encodings[0].trim().eq_ignore_ascii_case("chunked") {
                Ok(Framing::Chunked {
                    left: 0,
                    first: true,
                })
            } else {
                Err(self.protocol(format!(
                    "uses the transfer encoding {}",
                    encodings.join(", ")
                )))
            };
        }
        let mut length = None;
        for value in head
            .fields
            .all("content-length")
            .flat_map(|value| value.split(','))
        {
            let value = value.trim();
            let number = match value.parse::<u64>() {
                Ok(number) if value.bytes().all(|c| c.is_ascii_digit()) => number,
                _ => return Err(self.protocol("sent a Content-Length that is not a number")),
            };
            if length.is_some_and(|other| other != number) {
                return Err(self.protocol("sent two different Content-Lengths"));
            }
            length = Some(number);
        }
        Ok(match length {
            Some(0) => Framing::Done,
            Some(length) => Framing::Length(length),
            None => Framing::Close,
        })
    }

    /// May this connection serve another request once the body has ended?
    pub fn is_kept(&self, head: &Head, framing: Framing) -> bool {
        let close = head.fields.has_token("connection", "close");
        let keep = head.fields.has_token("connection", "keep-alive");
        framing != Framing::Close && !close && (!head.old || keep)
    }

    /// Reads some of a body into `buffer`; 0 at its end, which `framing` then says too. The
    /// socket's deadline bounds it, with the chunk lines and trailers on the way.
    pub fn body(
        &mut self,
        framing: &mut Framing,
        buffer: &mut [u8],
        idle: Duration,
    ) -> Result<usize, Failure> {
        loop {
            match *framing {
                Framing::Done => return Ok(0),
                Framing::Length(left) => {
                    let read = self.some(buffer, left, idle)?;
                    if read == 0 {
                        return Err(self.short(left));
                    }
                    *framing = match left - read as u64 {
                        0 => Framing::Done,
                        left => Framing::Length(left),
                    };
                    return Ok(read);
                }
                Framing::Chunked { left: 0, first } => {
                    *framing = match self.chunk_size(first, idle)? {
                        0 => {
                            self.trailers(idle)?;
                            Framing::Done
                        }
                        left => Framing::Chunked { left, first: false },
                    };
                }
                Framing::Chunked { left, first } => {
                    let read = self.some(buffer, left, idle)?;
                    if read == 0 {
                        return Err(self.short(left));
                    }
                    *framing = Framing::Chunked {
                        left: left - read as u64,
                        first,
                    };
                    return Ok(read);
                }
                Framing::Close => {
                    let read = self.some(buffer, u64::MAX, idle)?;
                    if read == 0 {
                        *framing = Framing::Done;
                    }
                    return Ok(read);
                }
            }
        }
    }

    fn short(&self, left: u64) -> Failure {
        Failure::Closed {
            host: self.host(),
            why: format!("closed the connection {left} bytes early"),
        }
    }

    /// What was read ahead first, then straight from the stream.
    fn some(&mut self, buffer: &mut [u8], limit: u64, idle: Duration) -> Result<usize, Failure> {
        let room = usize::try_from(limit).map_or(buffer.len(), |limit| limit.min(buffer.len()));
        let held = self.ahead.len() - self.begin;
        if held > 0 {
            let length = held.min(room);
            buffer[..length].copy_from_slice(&self.ahead[self.begin..self.begin + length]);
            self.begin += length;
            return Ok(length);
        }
        match self.stream.read(&mut buffer[..room]) {
            Ok(length) => Ok(length),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(error) => Err(self.broken(&error, "data", idle)),
        }
    }

    fn chunk_size(&mut self, first: bool, idle: Duration) -> Result<u64, Failure> {
        if !first {
            let end = self.line(idle)?;
            if !end.is_empty() {
                return Err(self.protocol("sent a chunk longer than its stated size"));
            }
        }
        let line = self.line(idle)?;
        let digits = line
            .split(|c| *c == b';')
            .next()
            .unwrap_or(&[])
            .trim_ascii();
        let valid = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(digits).ok().filter(|_| valid);
        size.and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.protocol("sent a chunk without a size"))
    }

    fn trailers(&mut self, idle: Duration) -> Result<(), Failure> {
        let mut total = 0;
        loop {
            let line = self.line(idle)?;
            total += line.len();
            if line.is_empty() {
                return Ok(());
            }
            if total > LINE_LIMIT {
                return Err(self.protocol("keeps sending trailers"));
            }
        }
    }

    fn line(&mut self, idle: Duration) -> Result<Vec<u8>, Failure> {
        let mut scanned = 0;
        loop {
            let held = &self.ahead[self.begin..];
            if let Some(at) = held[scanned..].iter().position(|c| *c == b'\n') {
                let line = &held[..scanned + at];
                let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
                self.begin += scanned + at + 1;
                return Ok(line);
            }
            scanned = held.len();
            if scanned > LINE_LIMIT {
                return Err(self.protocol(format!("sent a line of more than {LINE_LIMIT} bytes")));
            }
            if self.more(idle, "data")? == 0 {
                return Err(Failure::Closed {
                    host: self.host(),
                    why: "closed the connection in the middle of a chunked body".into(),
                });
            }
        }
    }

    /// Nothing is left over, and the peer has not closed.
    pub fn is_quiet(&mut self) -> bool {
        self.begin == self.ahead.len() && self.stream.is_quiet()
    }
}

fn has_blank_line(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn looks_like_http(bytes: &[u8]) -> bool {
    let start = b"HTTP/1.";
    let skipped = bytes
        .iter()
        .take_while(|c| matches!(c, b'\r' | b'\n'))
        .count();
    let bytes = &bytes[skipped.min(8)..];
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

/// The head that `bytes` begin with, and its length; `None` while it is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let mut config = httparse::ParserConfig::default();
    // Seen in the wild: folded fields (RFC 9112, section 5.2) and lines without a colon (MCR).
    config.allow_obsolete_multiline_headers_in_responses(true);
    config.ignore_invalid_headers_in_responses(true);
    config.allow_spaces_after_header_name_in_responses(true);
    match config.parse_response(&mut response, bytes) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete(length)) => {
            let text = |value: &[u8]| {
                String::from_utf8_lossy(value)
                    .replace(['\r', '\n'], " ")
                    .trim()
                    .to_owned()
            };
            let fields = response
                .headers
                .iter()
                .map(|field| (field.name.to_ascii_lowercase(), text(field.value)));
            let head = Head {
                status: response.code.unwrap_or(0),
                old: response.version == Some(0),
                fields: Fields(fields.collect()),
            };
            Ok(Some((head, length)))
        }
        Err(httparse::Error::TooManyHeaders) => Err("more than 100 header fields"),
        Err(httparse::Error::Version) => Err("no version"),
        Err(httparse::Error::Status) => Err("no status"),
        Err(_) => Err("a malformed header"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_parsed_as_the_wild_has_them() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nbad line\r\nX-Y : z\r\nA: d\r\n\r\nbody";
        let (head, length) = parse_head(text).unwrap().unwrap();
        assert_eq!((head.status, length), (200, text.len() - 4));
        assert_eq!(head.fields.all("a").collect::<Vec<_>>(), ["b   c", "d"]);
        for cut in 0..text.len() - 4 {
            assert!(!matches!(parse_head(&text[..cut]), Ok(Some(_))), "{cut}");
        }
        assert!(parse_head(b"<html>\r\n\r\n").is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert!(parse_head(many.as_bytes()).is_err());
    }
}
