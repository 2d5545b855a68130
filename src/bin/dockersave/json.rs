//! JSON output for programs.

/// A JSON object in ASCII, so that untrusted text is preserved and still cannot affect a terminal.
pub(super) struct Object(String);

impl Object {
    pub fn new() -> Self {
        Self("{".to_owned())
    }

    pub fn text(self, key: &str, value: &str) -> Self {
        let value = ascii(value);
        self.raw(key, &value)
    }

    /// A string, or null.
    pub fn maybe(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.raw(key, "null"),
        }
    }

    pub fn number(self, key: &str, value: u64) -> Self {
        self.raw(key, &value.to_string())
    }

    /// A value that is already JSON.
    pub fn raw(mut self, key: &str, value: &str) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&miniserde::json::to_string(key));
        self.0.push(':');
        self.0.push_str(value);
        self
    }

    /// The text so far, for callers that write the rest piece by piece.
    pub fn open(&self) -> &str {
        &self.0
    }

    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// `[a,b]` of values that are JSON already.
pub(super) fn array(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}

/// Quoted, and all but printable ASCII escaped.
pub(super) fn ascii(text: &str) -> String {
    escaped(&miniserde::json::to_string(text), |c| {
        !matches!(c, ' '..='~')
    })
}

/// A document of JSON in ASCII: it means the same, since only strings hold anything else.
pub(super) fn document_in_ascii(text: &str) -> String {
    escaped(text, |c| !c.is_ascii() || c == '\u{7f}')
}

/// A document of JSON for a terminal, where only letters and other visible characters stay.
pub(super) fn document_for_terminal(text: &str) -> String {
    escaped(text, |c| {
        !matches!(c, '\n' | '\r' | '\t') && dockersave::text::is_hidden(c)
    })
}

/// With some characters as `\uXXXX`.
fn escaped(text: &str, which: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if which(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            // A carriage return is a blank there, and would lead back over what a terminal shows.
            out.push(if c == '\r' { ' ' } else { c });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_ascii_and_mean_what_was_given() {
        let object = Object::new()
            .text("a\"b", "\u{e4}\u{1f4e6}\u{202e}\u{7f}\x1b\n\"")
            .number("n", u64::MAX)
            .maybe("none", None)
            .raw("list", &array(&["1".into(), ascii("x")]))
            .finish();
        assert_eq!(
            object,
            r#"{"a\"b":"\u00e4\ud83d\udce6\u202e\u007f\u001b\n\"","n":18446744073709551615,"none":null,"list":[1,"x"]}"#
        );
        assert_eq!(Object::new().finish(), "{}");
        let text = "\u{e4}\u{1f4e6}\u{202e}\u{7f}\x1b\n\"";
        let back: String = miniserde::json::from_str(&ascii(text)).unwrap();
        assert_eq!(back, text);
        let document = "{\"a\":\n\"\u{e4}\u{1f4e6}\u{9b}\u{7f}\u{2028}\"}";
        assert_eq!(
            document_in_ascii(document),
            "{\"a\":\n\"\\u00e4\\ud83d\\udce6\\u009b\\u007f\\u2028\"}"
        );
        let over = "{\"a\":1,\r\n\r\"a\":2}";
        assert_eq!(document_for_terminal(over), "{\"a\":1, \n \"a\":2}");
        assert_eq!(
            document_for_terminal(document),
            "{\"a\":\n\"\u{e4}\u{1f4e6}\\u009b\\u007f\\u2028\"}"
        );
    }
}
