//! JSON from outside: bounded in depth and in the number of its values before it is parsed.
//!
//! miniserde does not recurse, so that depth cannot break the stack; but 4 MiB of brackets or of
//! empty objects would still become a hundred megabytes of values. Which fields a document needs
//! is its own module's business.

use crate::error::{Error, Result};
use miniserde::de::{Map, Seq, Visitor};
use miniserde::{Deserialize, make_place};

/// Levels of nesting: an index with annotations has five.
const DEPTH: usize = 64;
/// Objects and arrays in one document; 1 000 layers with annotations are 2 000.
const CONTAINERS: usize = 16_384;
/// Values in one document; a page of tags can have many.
const VALUES: usize = 200_000;

/// Parses a document, whose name stands in the messages.
pub(crate) fn parse<T: Deserialize>(bytes: &[u8], document: &str) -> Result<T> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::malformed(document, "is not JSON: not UTF-8"))?;
    shape(text.as_bytes()).map_err(|why| Error::malformed(document, why))?;
    miniserde::json::from_str(text)
        .map_err(|_| Error::malformed(document, "is not JSON, or a field has the wrong type"))
}

/// Counts without understanding: strings are skipped, brackets and commas are not.
fn shape(bytes: &[u8]) -> std::result::Result<(), String> {
    match bytes.iter().find(|c| !c.is_ascii_whitespace()) {
        Some(b'{' | b'[') => {}
        Some(b'<') => {
            return Err(
                "is not JSON but an HTML or XML page: is a proxy or a login page in between?"
                    .into(),
            );
        }
        None => return Err("is empty".into()),
        Some(_) => return Err("is not JSON".into()),
    }
    let (mut depth, mut containers, mut values) = (0_usize, 0_usize, 0_usize);
    let mut rest = bytes.iter();
    while let Some(c) = rest.next() {
        match c {
            b'"' => loop {
                match rest.next() {
                    Some(b'\\') => drop(rest.next()),
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            b'{' | b'[' => {
                depth += 1;
                containers += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > DEPTH {
            return Err(format!("is nested deeper than {DEPTH} levels"));
        }
        if containers > CONTAINERS || values > VALUES {
            return Err(format!(
                "has more than {CONTAINERS} objects or {VALUES} values"
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
