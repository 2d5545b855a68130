//! Text for people: fit for a terminal whoever wrote it, and without the secrets of this process.
//!
//! Every password and token that a [`crate::Client`] was given, found or received is known here.
//! What an [`crate::Error`] or a [`crate::Event`] displays has passed through these functions.

use crate::secret::{LONG, redact, redact_all};
pub use crate::secret::{is_hidden, redact_known as without_secrets};
use std::fmt;

/// Text from outside: what a registry, a proxy, a helper, an archive or a document says.
///
/// It can be compared and measured as it is, but its `Display` goes through [`printable`], so that
/// it moves no cursor, fakes no line and hides no character. For programs, JSON escapes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct UntrustedText(pub(crate) String);

impl fmt::Display for UntrustedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0, 200))
    }
}

/// Text from a registry or an archive, fit for a terminal: secrets are left out, control, invisible and
/// direction-changing characters become `?`, white space becomes single blanks, and what exceeds
/// `limit` characters is cut off.
pub fn printable(text: &str, limit: usize) -> String {
    // Before the text is cut: half a secret is one, too.
    let text = redact_all(text);
    let mut out = String::with_capacity(text.len().min(limit + 3));
    let mut count = 0;
    let mut blank = true;
    for c in text.chars() {
        if count == limit {
            out.push_str("...");
            break;
        }
        if c.is_whitespace() {
            if !blank {
                out.push(' ');
                count += 1;
            }
            blank = true;
            continue;
        }
        blank = false;
        count += 1;
        out.push(visible(c));
    }
    out.truncate(out.trim_end().len());
    out
}

/// One line that is about to be shown, whatever it was put together from: control and hidden
/// characters become `?`, secrets and the users of addresses `***`.
pub fn line(text: &str) -> String {
    let one = |c: char| if c.is_whitespace() { ' ' } else { visible(c) };
    redact(text, LONG).chars().map(one).collect()
}

/// The same for several lines, whose ends and tabs stay.
pub fn lines(text: &str) -> String {
    let one = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_whitespace() => ' ',
        c => visible(c),
    };
    redact(text, LONG).chars().map(one).collect()
}

fn visible(c: char) -> char {
    if is_hidden(c) { '?' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(
            printable("a\x1b[2Jb\r\nc\u{9b}d\u{202e}e", 80),
            "a?[2Jb c?d?e"
        );
        assert_eq!(
            printable("a\u{2028}b\u{e0041}c\u{7f}d\u{ad}e\u{fe0f}", 80),
            "a b?c?d?e?"
        );
        assert_eq!(line("a\nb\u{2029}c\x1b  d"), "a b c?  d");
        assert_eq!(lines("a\tb\nc\r\x07"), "a\tb\nc ?");
        let text = UntrustedText("x\x1b[0m".into());
        assert_eq!(format!("{text}"), "x?[0m");
        assert_eq!(printable("abcdef", 3), "abc...");
        assert_eq!(printable("  a \n\t b  ", 80), "a b");
    }
}
