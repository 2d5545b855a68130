//! A streaming parser for a page of tags of any size: some registries do not paginate.

use crate::error::Error;
use crate::net::error::Failure;
use crate::reference::valid_tag;
use crate::registry::content_encoding::{self, Coding};
use crate::registry::error::WORDS;
use std::io::Read;

/// The size of a read.
const BUFFER: usize = 16 << 10;
/// A longer string is not a tag, even with every character escaped.
const KEPT: usize = 1 << 10;
/// A longer string does not belong in a list of tags.
const TEXT: usize = 64 << 10;
/// The longest error.
const BEGIN: usize = 4 << 10;
/// Levels of nesting.
const DEPTH: u32 = 64;

/// The parser's state.
#[derive(Clone, Copy)]
enum Place {
    Start,
    /// A member of the object, the first one or another.
    Member {
        first: bool,
    },
    /// An entry of the list of tags.
    Entry {
        first: bool,
    },
    End,
}

/// One page, whose tags are read one at a time.
pub(crate) struct Page<'a> {
    input: Box<dyn Read + 'a>,
    host: String,
    what: String,
    buffer: Vec<u8>,
    at: usize,
    /// Bytes received, and the limit.
    pub read: u64,
    room: u64,
    place: Place,
    /// The last string, with its quotes.
    text: Vec<u8>,
    /// Whether it has a list of tags (or null); whether it has a member for errors.
    listed: bool,
    errors: bool,
    /// Entries that are not tags.
    pub left_out: u64,
    coding: Coding,
    /// Its first bytes: an error instead of tags is short.
    begin: Vec<u8>,
}

type Outcome<T> = std::result::Result<T, Failure>;

impl<'a> Page<'a> {
    /// `what` is the list's name in messages; at most `room` bytes of it are read.
    pub fn new(input: Box<dyn Read + 'a>, host: String, what: &str, room: u64) -> Self {
        Self {
            input,
            host,
            what: what.to_owned(),
            buffer: Vec::new(),
            at: 0,
            read: 0,
            room,
            place: Place::Start,
            text: Vec::new(),
            listed: false,
            errors: false,
            left_out: 0,
            coding: Coding::Identity,
            begin: Vec::new(),
        }
    }

    /// Invalid JSON is then blamed on the encoding.
    pub fn encoded(&mut self, coding: Coding) {
        self.coding = coding;
    }

    /// The document, if it is short and has no list of tags.
    pub fn without_list(&self) -> Option<&[u8]> {
        let plain = !matches!(self.coding, Coding::Other(_));
        (plain && !self.listed && self.read <= BEGIN as u64).then_some(&self.begin)
    }

    /// Whether the next entry has already arrived.
    pub fn is_at_hand(&self) -> bool {
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        // Its comma, its string, and the quotes.
        let near = &rest[..rest.len().min(1 + 128 + 2)];
        near.first() == Some(&b',') && near.iter().filter(|c| **c == b'"').count() >= 2
    }

    /// The next tag; `None` at the end of a complete document.
    pub fn next(&mut self) -> Outcome<Option<String>> {
        loop {
            self.place = match self.place {
                Place::Start => match self.token()? {
                    b'{' => Place::Member { first: true },
                    b'<' => return Err(self.malformed(
                        "is an HTML or XML page, not JSON: is there a proxy or a login page in between?",
                    )),
                    other => {
                        if let Some(error) = self.coding.error(&self.what) {
                            return Err(error.into());
                        }
                        self.skip(other)?;
                        return Err(self.malformed("is not an object"));
                    }
                },
                Place::Member { first } => self.member(first)?,
                Place::Entry { first } => {
                    let next = self.token()?;
                    let next = match (next, first) {
                        (b']', _) => {
                            self.place = Place::Member { first: false };
                            continue;
                        }
                        (b',', false) => self.token()?,
                        (next, true) => next,
                        _ => return Err(self.not_json()),
                    };
                    self.place = Place::Entry { first: false };
                    self.skip(next)?;
                    match self.tag().filter(|_| next == b'"') {
                        Some(tag) => return Ok(Some(tag)),
                        None => self.left_out += 1,
                    }
                    continue;
                }
                Place::End => {
                    while let Some(byte) = self.byte()? {
                        if !byte.is_ascii_whitespace() {
                            return Err(self.malformed("has data after its end"));
                        }
                    }
                    return match self.errors && !self.listed {
                        true => Err(self.malformed("is an error instead of tags")),
                        false => Ok(None),
                    };
                }
            };
        }
    }

    /// Reads a member; returns what follows it.
    fn member(&mut self, first: bool) -> Outcome<Place> {
        let key = match (self.token()?, first) {
            (b'}', _) => return Ok(Place::End),
            (b',', false) => self.token()?,
            (key, true) => key,
            _ => return Err(self.not_json()),
        };
        if key != b'"' {
            return Err(self.not_json());
        }
        self.string()?;
        let tags = self.text == b"\"tags\"";
        self.errors |= WORDS
            .iter()
            .any(|word| self.text[1..].strip_suffix(b"\"") == Some(word.as_bytes()));
        if self.token()? != b':' {
            return Err(self.not_json());
        }
        let value = self.token()?;
        self.listed |= tags;
        match value {
            b'[' if tags => return Ok(Place::Entry { first: true }),
            b'n' => self.skip(value)?,
            _ if tags => return Err(self.malformed("has no list in \"tags\"")),
            _ => self.skip(value)?,
        }
        Ok(Place::Member { first: false })
    }

    /// The last string, if it is a tag.
    fn tag(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.text).ok()?;
        let tag: String = miniserde::json::from_str(text).ok()?;
        valid_tag(&tag).then_some(tag)
    }

    /// Skips a value that starts with this byte; of a string, its start is kept.
    fn skip(&mut self, begin: u8) -> Outcome<()> {
        match begin {
            b'"' => self.string(),
            b'{' | b'[' => {
                let mut depth = 1;
                while depth > 0 {
                    match self.token()? {
                        b'"' => self.string()?,
                        b'{' | b'[' => depth += 1,
                        b'}' | b']' => depth -= 1,
                        _ => {}
                    }
                    if depth > DEPTH {
                        return Err(self.malformed("is nested deeper than 64 levels"));
                    }
                }
                Ok(())
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => {
                while self
                    .peek()?
                    .is_some_and(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
                {
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(self.not_json()),
        }
    }

    /// Reads a string to its end; its opening quote was already read.
    fn string(&mut self) -> Outcome<()> {
        self.text.clear();
        self.text.push(b'"');
        let (mut length, mut escaped) = (0, false);
        loop {
            if self.peek()?.is_none() {
                return Err(self.cut());
            }
            let rest = &self.buffer[self.at..];
            let end = rest.iter().position(|c| {
                let ends = *c == b'"' && !escaped;
                escaped = *c == b'\\' && !escaped;
                ends
            });
            let part = &rest[..end.map_or(rest.len(), |end| end + 1)];
            if self.text.len() + part.len() <= KEPT {
                self.text.extend_from_slice(part);
            } else {
                // Too long for a tag: the kept part must not look like one.
                self.text.clear();
                self.text.resize(KEPT, b'"');
            }
            length += part.len();
            self.at += part.len();
            if end.is_some() {
                return Ok(());
            }
            if length > TEXT {
                return Err(self.malformed("has a string of more than 64 KiB"));
            }
        }
    }

    /// The next byte that is not white space.
    fn token(&mut self) -> Outcome<u8> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                Some(byte) => return Ok(byte),
                None => return Err(self.cut()),
            }
        }
    }

    fn byte(&mut self) -> Outcome<Option<u8>> {
        let byte = self.peek()?;
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    /// The next byte, which stays the next one.
    fn peek(&mut self) -> Outcome<Option<u8>> {
        if self.at == self.buffer.len() {
            self.buffer.resize(BUFFER, 0);
            let read = self.input.read(&mut self.buffer);
            self.at = 0;
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            self.read += read.map_err(|error| content_encoding::failure(error, &self.host))? as u64;
            let room = BEGIN.saturating_sub(self.begin.len());
            self.begin
                .extend_from_slice(&self.buffer[..room.min(self.buffer.len())]);
            if self.read > self.room {
                return Err(self.malformed("does not end; truncated"));
            }
        }
        Ok(self.buffer.get(self.at).copied())
    }

    fn malformed(&self, why: &str) -> Failure {
        Failure::Final(Error::malformed(&*self.what, why))
    }

    fn not_json(&self) -> Failure {
        self.malformed("is not JSON")
    }

    fn cut(&self) -> Failure {
        self.malformed(match self.read {
            0 => "is empty",
            _ => "is not JSON: it ends early",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tags of a page, and what its end came to.
    fn read(text: &[u8]) -> (Vec<String>, std::result::Result<u64, String>) {
        let mut page = Page::new(Box::new(text), String::new(), "the list", 1 << 20);
        let mut tags = Vec::new();
        loop {
            match page.next() {
                Ok(Some(tag)) => tags.push(tag),
                Ok(None) => return (tags, Ok(page.left_out)),
                Err(failure) => return (tags, Err(failure.to_string())),
            }
        }
    }

    #[test]
    fn pages_as_registries_send_them() {
        for (text, expected, left_out) in [
            (r#"{"name":"r","tags":["a","b"]}"#, &["a", "b"][..], 0),
            (
                " {\"tags\" : [ \"a\" , \"b\" ] , \"x\":1} \n",
                &["a", "b"],
                0,
            ),
            (r#"{"tags":null}"#, &[], 0),
            (r#"{"tags":[]}"#, &[], 0),
            (r#"{"name":"r"}"#, &[], 0),
            ("{}", &[], 0),
            (
                r#"{"child":[],"manifest":{"sha256:0":{"tag":["x"],"n":[1,-2.5e3,true]}},"tags":["a"]}"#,
                &["a"],
                0,
            ),
            (
                r#"{"x":{"tags":["no"]},"tags":["a"],"errors":null}"#,
                &["a"],
                0,
            ),
            (r#"{"tags":["v\u0031.0","a"]}"#, &["v1.0", "a"], 0),
            (
                r#"{"tags":["a",null,7,["b"],{"c":"d"},"","a b","\u001b[2J","-x","b"]}"#,
                &["a", "b"],
                8,
            ),
        ] {
            let tags = expected.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(read(text.as_bytes()), (tags, Ok(left_out)), "{text}");
        }
        let long = format!(
            r#"{{"tags":["{}","{}","{}"]}}"#,
            "l".repeat(129),
            "m".repeat(9000),
            "\\u0061".repeat(128)
        );
        assert_eq!(read(long.as_bytes()), (vec!["a".repeat(128)], Ok(2)));
    }

    #[test]
    fn what_is_no_page_says_so() {
        for (text, why) in [
            ("", "is empty"),
            ("<html>", "HTML"),
            ("null", "not an object"),
            ("[]", "not an object"),
            ("x", "not JSON"),
            (r#"{"tags":["a","b""#, "ends early"),
            (r#"{"tags":["a","b"]"#, "ends early"),
            (r#"{"tags":["a" "b"]}"#, "not JSON"),
            (r#"{"tags":["a"],]}"#, "not JSON"),
            (r#"{"tags":"a"}"#, "no list"),
            (r#"{"tags":["a"]} {}"#, "after its end"),
            (r#"{"errors":[{"code":"DENIED"}]}"#, "an error"),
            (r#"{"name":"r","detail":"Not Found"}"#, "an error"),
        ] {
            let found = read(text.as_bytes()).1.unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
        for text in ["[".repeat(70), format!("{{\"x\":{}", "[".repeat(70))] {
            assert!(read(text.as_bytes()).1.unwrap_err().contains("nested"));
        }
        let endless = format!("{{\"tags\":[\"{}", "x".repeat(100_000));
        assert!(read(endless.as_bytes()).1.unwrap_err().contains("64 KiB"));
        let large = format!("{{\"tags\":[{}", "\"x\",".repeat(300_000));
        assert!(read(large.as_bytes()).1.unwrap_err().contains("truncated"));
    }
}
