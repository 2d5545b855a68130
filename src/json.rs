//! Parsing of untrusted JSON, bounded in depth and number of values before it is parsed.
//!
//! miniserde does not recurse, so depth cannot overflow the stack, but 4 MiB of brackets or empty
//! objects would still become a hundred megabytes of values. Each document's own module decides
//! which fields it needs.

pub(crate) mod keys;
mod loose;

pub(crate) use loose::{Loose, LooseTexts};

use crate::error::{Error, Result};
use keys::{Keys, Watch, split_string};
use miniserde::de::{Map, Seq, Visitor};
use miniserde::{Deserialize, make_place};
use std::borrow::Cow;
use std::cell::Cell;

/// The most levels of nesting: an index with annotations has five.
const DEPTH: usize = 64;
/// The most objects and arrays in a document; 1 000 layers with annotations are 2 000.
const CONTAINERS: usize = 16_384;
/// The most values in a document; a page of tags can have many.
const VALUES: usize = 200_000;

/// The most bytes of strings taken from a manifest, index or config, including overhead; less if
/// the document itself is large.
const KEPT: usize = 256 << 10;
const LARGEST: usize = 4 << 20;
/// The overhead of a string, even a missing one.
const TEXT: usize = 64;
const NO_TEXT: usize = 96;

thread_local! {
    /// What is left of it for the document being parsed on this thread.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Parses a manifest, index or config in little more memory than the document itself.
pub(crate) fn parse_small<T: Deserialize>(
    bytes: &[u8],
    document: &str,
    keys: &'static Keys,
) -> Result<T> {
    LEFT.set(KEPT + LARGEST.saturating_sub(bytes.len()) / 3);
    let parsed = parse_strict(bytes, document, keys);
    let left = LEFT.replace(usize::MAX);
    if left == 0 {
        return Err(Error::malformed(
            document,
            "has too many or too long descriptors",
        ));
    }
    parsed
}

/// Whether there is enough left for this.
fn charge(cost: usize) -> bool {
    let left = LEFT.get();
    if left < usize::MAX {
        LEFT.set(left.saturating_sub(cost));
    }
    left > cost
}

/// Parses a document; `what` is its name in messages.
pub(crate) fn parse<T: Deserialize>(bytes: &[u8], document: &str) -> Result<T> {
    parse_within(bytes, document, (CONTAINERS, VALUES), &Keys::None)
}

/// The same for a document whose keys every reader must interpret alike.
pub(crate) fn parse_strict<T: Deserialize>(
    bytes: &[u8],
    document: &str,
    keys: &'static Keys,
) -> Result<T> {
    parse_within(bytes, document, (CONTAINERS, VALUES), keys)
}

/// The same with other limits for objects and arrays, and for values.
pub(crate) fn parse_within<T: Deserialize>(
    bytes: &[u8],
    document: &str,
    limits: (usize, usize),
    keys: &'static Keys,
) -> Result<T> {
    let text = checked(bytes, document, limits, keys)?;
    miniserde::json::from_str(text)
        .map_err(|_| Error::malformed(document, "is not JSON, or a field has the wrong type"))
}

/// The checks before a document is parsed.
#[cfg(test)]
fn check(bytes: &[u8], document: &str, keys: &'static Keys) -> Result<()> {
    checked(bytes, document, (CONTAINERS, VALUES), keys).map(drop)
}

fn checked<'b>(
    bytes: &'b [u8],
    document: &str,
    limits: (usize, usize),
    keys: &'static Keys,
) -> Result<&'b str> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::malformed(document, "is not JSON: not UTF-8"))?;
    shape(bytes, limits, Watch::new(keys)).map_err(|why| Error::malformed(document, why))?;
    Ok(text)
}

/// Counts without understanding: strings are skipped, unless they are keys to be watched; brackets
/// and commas are not.
fn shape(
    bytes: &[u8],
    (most, most_values): (usize, usize),
    mut watch: Watch,
) -> std::result::Result<(), String> {
    match bytes.iter().find(|c| !c.is_ascii_whitespace()) {
        Some(b'{' | b'[') => {}
        Some(b'<') => {
            return Err(
                "is an HTML or XML page, not JSON: is there a proxy or a login page in between?"
                    .into(),
            );
        }
        None => return Err("is empty".into()),
        Some(_) => return Err("is not JSON".into()),
    }
    let (mut depth, mut containers, mut values) = (0_usize, 0_usize, 0_usize);
    let mut rest = bytes;
    while let [c, behind @ ..] = rest {
        match c {
            b'"' => {
                let (string, behind) = split_string(rest);
                // It is copied to be read, which a document of this size leaves no memory for.
                if string.len() + bytes.len() > LARGEST + KEPT && string.contains(&b'\\') {
                    return Err("has a text with escapes that is too long".into());
                }
                watch.string(string, behind)?;
                rest = behind;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                containers += 1;
                watch.open(*c == b'{');
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                watch.close();
            }
            b',' => values += 1,
            _ => {}
        }
        rest = behind;
        if depth > DEPTH {
            return Err(format!("is nested deeper than {DEPTH} levels"));
        }
        if containers > most || values > most_values {
            return Err(format!(
                "has more than {most} objects or {most_values} values"
            ));
        }
    }
    Ok(())
}

make_place!(Place);

/// A number of bytes as documents give it: any other value is remembered as wrong rather than
/// failing the whole parse, so that the message can name the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    Missing,
    Wrong,
    /// A number in quotation marks: some token servers write expires_in so.
    Quoted(u64),
    Is(u64),
}

impl Visitor for Place<Number> {
    fn null(&mut self) -> miniserde::Result<()> {
        self.out = Some(Number::Missing);
        Ok(())
    }
    fn boolean(&mut self, _: bool) -> miniserde::Result<()> {
        self.out = Some(Number::Wrong);
        Ok(())
    }
    fn string(&mut self, text: &str) -> miniserde::Result<()> {
        self.out = Some(text.parse().map_or(Number::Wrong, Number::Quoted));
        Ok(())
    }
    fn seq(&mut self) -> miniserde::Result<Box<dyn Seq + '_>> {
        self.out = Some(Number::Wrong);
        Ok(Box::new(Skip))
    }
    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        self.out = Some(Number::Wrong);
        Ok(Box::new(Skip))
    }
    fn negative(&mut self, _: i64) -> miniserde::Result<()> {
        self.out = Some(Number::Wrong);
        Ok(())
    }
    fn nonnegative(&mut self, number: u64) -> miniserde::Result<()> {
        self.out = Some(Number::Is(number));
        Ok(())
    }
    fn float(&mut self, _: f64) -> miniserde::Result<()> {
        self.out = Some(Number::Wrong);
        Ok(())
    }
}

impl Deserialize for Number {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
    fn default() -> Option<Self> {
        Some(Number::Missing)
    }
}

/// Text, or nothing where another type stands: registries put numbers, objects and null into
/// fields that nobody needs to be right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text(pub String);

impl Visitor for Place<Text> {
    fn null(&mut self) -> miniserde::Result<()> {
        self.out = Some(Text(String::new()));
        Ok(())
    }
    fn boolean(&mut self, value: bool) -> miniserde::Result<()> {
        self.out = Some(Text(value.to_string()));
        Ok(())
    }
    fn string(&mut self, text: &str) -> miniserde::Result<()> {
        if !charge(text.len() + TEXT) {
            return Err(miniserde::Error);
        }
        self.out = Some(Text(text.to_owned()));
        Ok(())
    }
    fn negative(&mut self, number: i64) -> miniserde::Result<()> {
        self.out = Some(Text(number.to_string()));
        Ok(())
    }
    fn nonnegative(&mut self, number: u64) -> miniserde::Result<()> {
        self.out = Some(Text(number.to_string()));
        Ok(())
    }
    fn float(&mut self, number: f64) -> miniserde::Result<()> {
        self.out = Some(Text(number.to_string()));
        Ok(())
    }
    fn seq(&mut self) -> miniserde::Result<Box<dyn Seq + '_>> {
        self.out = Some(Text(String::new()));
        Ok(Box::new(Skip))
    }
    fn map(&mut self) -> miniserde::Result<Box<dyn Map + '_>> {
        self.out = Some(Text(String::new()));
        Ok(Box::new(Skip))
    }
}

/// The texts of an array that is a member of a document, taken from the document one at a time: as
/// values of their own, a hundred thousand of them would take three times the memory.
#[derive(Default)]
pub(crate) struct Strings<'b> {
    bytes: Cow<'b, [u8]>,
    at: usize,
}

impl<'b> Strings<'b> {
    /// The array is reached by these names, each a member of the object before. No member, or null
    /// for one, is an empty array.
    pub fn member(
        bytes: Cow<'b, [u8]>,
        names: &[&str],
        document: &str,
        keys: &'static Keys,
    ) -> Result<Self> {
        // Only the syntax and the keys are checked here, so that the walk below can trust them.
        parse_strict::<Valid>(&bytes, document, keys)?;
        let at = names.iter().try_fold(0, |at, name| {
            member(&bytes[at..], name.as_bytes()).map(|further| at + further)
        });
        let at = at.unwrap_or(bytes.len());
        let strings = Self { bytes, at };
        match strings.bytes.get(at) {
            Some(b'[') => Ok(Self {
                at: at + 1,
                ..strings
            }),
            None | Some(b'n') => Ok(Self::default()),
            Some(_) => Err(Error::malformed(
                document,
                format!("has no list in {:?}", names.join(".")),
            )),
        }
    }
}

impl Iterator for Strings<'_> {
    type Item = String;

    /// What is no text ends the array.
    fn next(&mut self) -> Option<String> {
        let rest = &self.bytes[self.at..];
        let start = rest
            .iter()
            .position(|c| !c.is_ascii_whitespace() && *c != b',')?;
        if rest[start] != b'"' {
            return None;
        }
        let end = start + string_length(&rest[start..]);
        self.at += end;
        let text = std::str::from_utf8(&self.bytes[self.at - (end - start)..self.at]).ok()?;
        miniserde::json::from_str(text).ok()
    }
}

/// Where the value of a member of the object begins that `bytes` begin with.
fn member(bytes: &[u8], name: &[u8]) -> Option<usize> {
    let space = |at: usize| {
        let rest = bytes.get(at..)?;
        Some(at + rest.iter().position(|c| !c.is_ascii_whitespace())?)
    };
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let end = at + string_length(&bytes[at..]);
                let colon = space(end)?;
                if depth == 1 && bytes[colon] == b':' && bytes.get(at + 1..end - 1) == Some(name) {
                    return space(colon + 1);
                }
                at = end;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && !bytes[at].is_ascii_whitespace() {
            return None;
        }
        at += 1;
    }
    None
}

/// The text of the member `wanted` of the first object in a document, however deep, whose member
/// of a name has this text. The document was parsed before.
pub(crate) fn beside(bytes: &[u8], (name, text): (&str, &str), wanted: &str) -> Option<String> {
    let (mut open, mut at) = (Vec::new(), 0);
    let string = |object: &[u8], name: &str| {
        let value = &object[member(object, name.as_bytes())?..];
        let end = value.starts_with(b"\"").then(|| string_length(value))?;
        if end > KEPT {
            return None;
        }
        miniserde::json::from_str::<String>(std::str::from_utf8(&value[..end]).ok()?).ok()
    };
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += string_length(&bytes[at..]);
                continue;
            }
            b'{' => open.push(at),
            b'}' => {
                let object = &bytes[open.pop()?..=at];
                if string(object, name).as_deref() == Some(text)
                    && let Some(found) = string(object, wanted)
                {
                    return Some(found);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// The length of the string that begins here, with its quotation marks.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A document of which nothing is kept.
struct Valid;

impl Deserialize for Valid {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        *out = Some(Valid);
        <dyn Visitor>::ignore()
    }
}

struct Skip;

impl Seq for Skip {
    fn element(&mut self) -> miniserde::Result<&mut dyn Visitor> {
        Ok(<dyn Visitor>::ignore())
    }
    fn finish(&mut self) -> miniserde::Result<()> {
        Ok(())
    }
}

impl Map for Skip {
    fn key(&mut self, _: &str) -> miniserde::Result<&mut dyn Visitor> {
        Ok(<dyn Visitor>::ignore())
    }
    fn finish(&mut self) -> miniserde::Result<()> {
        Ok(())
    }
}

impl Deserialize for Text {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
    fn default() -> Option<Self> {
        charge(NO_TEXT);
        Some(Text(String::new()))
    }
}

/// `"text"` with what JSON escapes escaped.
pub(crate) fn quoted(text: &str) -> String {
    miniserde::json::to_string(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sized {
        size: Number,
        name: Text,
    }

    fn sized(text: &str) -> Result<Sized> {
        parse(text.as_bytes(), "the document")
    }

    #[test]
    fn numbers_are_told_from_everything_else() {
        for (text, expected) in [
            (r#"{"size":7}"#, Number::Is(7)),
            (r#"{"size":18446744073709551615}"#, Number::Is(u64::MAX)),
            (r#"{"size":18446744073709551616}"#, Number::Wrong),
            (r#"{"size":-1}"#, Number::Wrong),
            (r#"{"size":1e3}"#, Number::Wrong),
            (r#"{"size":"7"}"#, Number::Quoted(7)),
            (r#"{"size":[{}]}"#, Number::Wrong),
            (r#"{"size":null}"#, Number::Missing),
            (r"{}", Number::Missing),
        ] {
            assert_eq!(sized(text).unwrap().size, expected, "{text}");
        }
        assert_eq!(
            sized(r#"{"name":[1,{"a":2}],"size":3}"#).unwrap().size,
            Number::Is(3)
        );
        assert_eq!(sized(r#"{"name":"x"}"#).unwrap().name.0, "x");
    }

    #[test]
    fn texts_are_taken_from_their_document() {
        let within = |text: &str, names: &[&str]| {
            let strings = Strings::member(text.as_bytes().into(), names, "x", &Keys::None);
            strings.map(|strings| strings.collect::<Vec<_>>().join("|"))
        };
        let texts = |text: &str| within(text, &["tags"]);
        for (text, expected) in [
            (r#"{"x":{"b":[1]},"a":{"c":2, "b":["y"]},"b":["z"]}"#, "y"),
            (r#"{"a":{},"c":{"b":["x"]},"b":["z"]}"#, ""),
            (r#"{"a":null,"c":{"b":["x"]}}"#, ""),
            (r#"{"a":["b",["x"]],"c":{"b":["x"]}}"#, ""),
            (r#"{"a":"b","b":["x"]}"#, ""),
            (r#"{"a":1,"b":["x"]}"#, ""),
        ] {
            assert_eq!(within(text, &["a", "b"]).unwrap(), expected, "{text}");
        }
        for (text, expected) in [
            (r#"{"name":"tags","tags":["a","b"]}"#, "a|b"),
            (
                r#"{"x":{"tags":["no"]},"tags" : [ "a\"b" , "\u0041" ] }"#,
                "a\"b|A",
            ),
            (r#"{"tags":[]}"#, ""),
            (r#"{"tags":null}"#, ""),
            (r#"{"name":"x"}"#, ""),
            (r#"["tags"]"#, ""),
            (r#"{"tags":["a",["b"]]}"#, "a"),
        ] {
            assert_eq!(texts(text).unwrap(), expected, "{text}");
        }
        for text in [
            r#"{"tags":"a"}"#,
            r#"{"tags":["a}"#,
            r#"{"tags":["a"]"#,
            "<html>",
        ] {
            assert!(texts(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hostile_documents_end_in_one_line() {
        for (text, why) in [
            ("[".repeat(100_000), "nested deeper"),
            (format!("[{}]", "{},".repeat(20_000)), "has more than"),
            ("<!DOCTYPE html><html>".to_owned(), "HTML"),
            (String::new(), "is empty"),
            ("{\"size\":7".to_owned(), "is not JSON"),
            ("{\"size\":7}}".to_owned(), "is not JSON"),
            ("\u{feff}{}".to_owned(), "is not JSON"),
            ("{\"size\":7\0}".to_owned(), "is not JSON"),
            ("\"".to_owned(), "is not JSON"),
        ] {
            let error = sized(&text).err().unwrap().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(parse::<Sized>(b"{\"\xff\":1}", "x").is_err());
    }
}
