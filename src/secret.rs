//! Redaction of secrets: passwords, tokens, and whatever precedes an `@` in an address.
//!
//! Creating a [`Secret`] registers it here, and [`redact`] removes it from any text in the forms in
//! which servers and helpers echo it: as it is, percent-encoded, JSON-escaped, in base64. All
//! user-visible text passes through it in [`crate::error`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use std::borrow::Cow;
use std::fmt;
use std::sync::{PoisonError, RwLock};

/// What a secret is shown as.
const STARS: &str = "***";
/// Shorter secrets cannot be distinguished from ordinary words.
const SHORTEST: usize = 4;
/// The same for our own text and for standard output: a user "test" with the password "test" still
/// sees the tag "test".
pub(crate) const LONG: usize = 8;
/// The most forms kept; the newest win. A run has a few credentials and one token per repository.
const MOST: usize = 256;

/// The first of them, which are kept for good: the credentials of a run.
const KEPT: usize = 32;

/// The registered forms, oldest first.
static KNOWN: RwLock<Vec<Box<[u8]>>> = RwLock::new(Vec::new());

/// A password or a token. It has no `Display`, and its `Debug` hides it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    /// A secret alone, such as a token.
    pub fn new(text: impl Into<String>) -> Self {
        let secret = Self(text.into());
        secret.learn(None);
        secret
    }

    /// A password, which Basic sends together with its user.
    pub fn of_user(user: &str, password: impl Into<String>) -> Self {
        let secret = Self(password.into());
        secret.learn(Some(user));
        secret
    }

    fn learn(&self, user: Option<&str>) {
        let bytes = self.0.as_bytes();
        let mut forms = aligned(bytes);
        forms.extend([bytes.to_vec(), in_hex(bytes)]);
        forms.extend(user.map(|user| BASE64.encode(format!("{user}:{}", self.0)).into_bytes()));
        learn(&forms);
    }

    /// A header field whose secret part is already registered.
    pub fn field(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

/// The base64 forms of a secret after 0, 1 or 2 other bytes, without the edge characters, which
/// depend on the surroundings.
fn aligned(secret: &[u8]) -> Vec<Vec<u8>> {
    let forms = (0..3).map(|before| {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(secret);
        let text = BASE64.encode(&bytes).into_bytes();
        let start = [0, 2, 3][before];
        let end = text.len() - usize::from(!bytes.len().is_multiple_of(3));
        text.get(start..end).unwrap_or_default().to_vec()
    });
    forms.filter(|form| form.len() >= LONG).collect()
}

fn in_hex(secret: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)]);
    secret.iter().flat_map(digits).collect()
}

fn learn(forms: &[Vec<u8>]) {
    let mut known = KNOWN.write().unwrap_or_else(PoisonError::into_inner);
    for form in forms.iter().filter(|form| form.len() >= SHORTEST) {
        if !known.iter().any(|old| **old == **form) {
            known.push(form.as_slice().into());
        }
    }
    while known.len() > MOST {
        known.remove(KEPT);
    }
}

/// A document without the secrets that this process knows. Nothing else of it is changed.
pub fn redact_known(text: &str) -> Cow<'_, str> {
    without_known(text, LONG)
}

/// Removes secrets of at least `shortest` characters, and user information and queries in
/// addresses.
pub(crate) fn redact(text: &str, shortest: usize) -> Cow<'_, str> {
    let text = without_known(text, shortest);
    if text.contains(['@', '?']) {
        Cow::Owned(addresses(&text))
    } else {
        text
    }
}

/// [`redact`] for untrusted text, including short secrets.
pub(crate) fn redact_all(text: &str) -> Cow<'_, str> {
    redact(text, SHORTEST)
}

fn without_known(text: &str, shortest: usize) -> Cow<'_, str> {
    let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
    let bytes = text.as_bytes();
    let (mut out, mut from, mut at) = (String::new(), 0, 0);
    while at < bytes.len() && !known.is_empty() {
        let found = known
            .iter()
            .filter(|form| form.len() >= shortest)
            .filter_map(|form| echoed(&bytes[at..], form))
            .max();
        // A match is at character boundaries, unless a secret is not UTF-8.
        match found {
            Some(length) if text.is_char_boundary(at) && text.is_char_boundary(at + length) => {
                out.push_str(&text[from..at]);
                out.push_str(STARS);
                at += length;
                from = at;
            }
            _ => at += 1,
        }
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[from..]);
    Cow::Owned(out)
}

/// The length of a secret's echo that the text begins with: each byte as it is, in either case
/// (hosts are written in lower case), or as `%2f`, `%252f`, `\u002f`, `\x2f`, `\/`; base64's two
/// alphabets are one. Line ends and invisible characters may be in it.
fn echoed(text: &[u8], secret: &[u8]) -> Option<usize> {
    let mut at = 0;
    for byte in secret {
        let rest = text.get(at..)?;
        at += match one(rest, *byte) {
            Some(length) => length,
            None if at > 0 => {
                let unseen = unseen(rest);
                unseen + one(&rest[unseen..], *byte)?
            }
            None => return None,
        };
    }
    Some(at)
}

/// How many invisible bytes a text starts with.
fn unseen(text: &[u8]) -> usize {
    // A few at most: this runs at every position of a text.
    let text = &text[..text.len().min(16)];
    let end = match std::str::from_utf8(text) {
        Ok(_) => text.len(),
        Err(error) => error.valid_up_to(),
    };
    let text = std::str::from_utf8(&text[..end]).unwrap_or_default();
    let seen = text.find(|c| !is_hidden(c));
    seen.unwrap_or(text.len())
}

fn one(text: &[u8], byte: u8) -> Option<usize> {
    let same = |c: u8| {
        c.eq_ignore_ascii_case(&byte)
            || matches!((byte, c), (b'+', b'-') | (b'/', b'_') | (b' ', b'+'))
    };
    let hex = |from: usize, to: usize| {
        let digits = std::str::from_utf8(text.get(from..to)?).ok()?;
        let value = u32::from_str_radix(digits, 16).ok()?;
        u8::try_from(value).ok()
    };
    match text {
        [c, ..] if same(*c) => Some(1),
        [b'%', b'2', b'5', ..] if byte != b'%' => (hex(3, 5)? == byte).then_some(5),
        [b'%', ..] => (hex(1, 3)? == byte).then_some(3),
        [b'\\', b'x', ..] => (hex(2, 4)? == byte).then_some(4),
        [b'\\', b'u', ..] => (hex(2, 6)? == byte).then_some(6),
        [b'\\', c, ..] => (*c == byte).then_some(2),
        _ => None,
    }
}

/// `https://user:password@host/path?query` as `https://***@host/path?...`, and `user:password@host`
/// as `***@host`. An image's digest, `name:tag@sha256:...`, is not a host.
fn addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        out.push_str(&address(word));
    }
    out
}

fn address(word: &str) -> Cow<'_, str> {
    let start = match word.find("://") {
        Some(scheme) => scheme + 3,
        // The scheme before the address; `user:` must not be mistaken for one.
        None => word
            .find(|c: char| !matches!(c, '"' | '\'' | '(' | '<' | '[' | '`'))
            .unwrap_or(0),
    };
    let has_scheme = start > 2 && word[..start].ends_with("://");
    let rest = &word[start..];
    let mut shown = Cow::Borrowed(rest);
    let user = rest
        .rfind('@')
        .map(|end| match is_digest(&rest[end + 1..]) {
            true => rest[..end].rfind('@').unwrap_or(0),
            false => end,
        })
        .filter(|end| *end > 0);
    if let Some(end) = user
        && (has_scheme || rest[..end].contains(':'))
    {
        shown = Cow::Owned(format!("{STARS}{}", &rest[end..]));
    }
    if has_scheme && let Some(query) = shown.find('?') {
        let tail = &shown[query + 1..];
        let end = tail
            .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>' | '`'))
            .unwrap_or(tail.len());
        if end > 0 {
            shown = Cow::Owned(format!("{}?...{}", &shown[..query], &tail[end..]));
        }
    }
    // The scheme itself may be part of a secret: `user:password://x@host`.
    let head = match word[..start].strip_suffix("://") {
        Some(scheme) if scheme.contains(':') && rest.contains('@') => "***://",
        _ => &word[..start],
    };
    Cow::Owned(format!("{head}{shown}"))
}

/// An address alone without its user information, in which anything but a blank line may occur: up
/// to the last `@`, unless that precedes a digest.
pub(crate) fn without_user(text: &str) -> Cow<'_, str> {
    let (end, rest) = match text.rsplit_once('@') {
        Some((before, digest)) if is_digest(digest) || !digest.contains(['/', '.', ':']) => {
            (before.rfind('@'), text)
        }
        Some((before, _)) => (Some(before.len()), text),
        None => (None, text),
    };
    let Some(end) = end else {
        return Cow::Borrowed(text);
    };
    let scheme = rest[..end].find("://").map_or("", |at| &rest[..at + 3]);
    let scheme = if scheme.matches(':').count() > 1 {
        ""
    } else {
        scheme
    };
    Cow::Owned(format!("{scheme}{STARS}{}", &rest[end..]))
}

/// `sha256:` and many digits, or the dots that replace them in our own text.
fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !algorithm.is_empty()
            && algorithm.bytes().all(plain)
            && (hex.starts_with("...")
                || hex.len() >= 32 && hex.bytes().take(32).all(|c| c.is_ascii_hexdigit()))
    })
}

/// Whether it moves the cursor, reorders or hides text (CVE-2021-42574), or is invisible: controls,
/// line separators, and Unicode's default ignorable and format characters.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_left_out_in_every_form() {
        let secret = Secret::of_user("me", "c0rrect horse/b+t");
        assert_eq!(format!("{secret:?}"), "***");
        for echo in [
            "c0rrect horse/b+t",
            "C0RRECT HORSE/B+T",
            "c0rrect%20horse%2Fb%2bt",
            "c0rrect+horse/b%2Bt",
            r"c0rrect horse\/b+t",
            r"c0rrect\u0020horse/b\u002bt",
            "bWU6YzBycmVjdCBob3JzZS9iK3Q",
            "YzBycmVjdCBob3JzZS9iK3",
        ] {
            let text = format!("bad field: \"{echo}\"!");
            assert_eq!(redact(&text, LONG), "bad field: \"***\"!", "{echo}");
        }
        for echo in [
            "63307272656374 20686f7273652f622b74".replace(' ', ""),
            "C0RRECT%2520horse%252Fb%252bt".to_owned(),
            r"c0rrect\x20horse\x2fb\x2Bt".to_owned(),
            "c0rr\nect ho\u{200b}rse/b\u{ad}+t".to_owned(),
        ] {
            assert_eq!(redact(&format!("<{echo}>"), LONG), "<***>", "{echo}");
        }
        let _ = Secret::new("tok.EN_123456");
        assert!(!redact("dG9rLkVOXzEyMzQ1Ng==", LONG).contains("dG9rLkVO"));
        for before in ["", "x", "xy", "xyz:"] {
            let echo = BASE64.encode(format!("{before}c0rrect horse/b+t:more"));
            let shown = redact(&echo, LONG).into_owned();
            assert!(shown.contains("***") && shown.len() < 20, "{shown}");
        }
        assert_eq!(redact("c0rrect horse\u{e4}", LONG), "c0rrect horse\u{e4}");
    }

    #[test]
    fn short_secrets_leave_our_own_words_alone() {
        let _ = Secret::of_user("quux", "quux");
        assert_eq!(redact("no tag quux", LONG), "no tag quux");
        assert_eq!(redact_all("no tag quux"), "no tag ***");
        let _ = Secret::new("e");
        assert_eq!(redact_all("e"), "e");
    }

    #[test]
    fn addresses_lose_their_users_and_queries() {
        let hex = "0".repeat(64);
        for (text, shown) in [
            ("mirror https://u:p@h/x: no", "mirror https://***@h/x: no"),
            ("https://token@h", "https://***@h"),
            ("\"u:p@h/app\": no", "\"***@h/app\": no"),
            ("https://u:p/w@x@h/", "https://***@h/"),
            ("u:p://x@h", "***://***@h"),
            ("http://h/x?sig=abc, next", "http://h/x?... next"),
            ("(http://h/x?sig=abc)", "(http://h/x?...)"),
            ("what? who@home", "what? who@home"),
        ] {
            assert_eq!(redact(text, LONG), shown, "{text}");
        }
        for kept in [
            format!("h:5000/app@sha256:{hex}"),
            format!("debian:12@sha256:{hex} is"),
            "debian:12@sha256:... is".to_owned(),
        ] {
            assert_eq!(redact(&kept, LONG), kept);
        }
        assert_eq!(
            redact(&format!("u:p@h:5000/app@sha256:{hex}"), LONG),
            format!("***@h:5000/app@sha256:{hex}")
        );
    }
}
