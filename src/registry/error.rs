//! Error responses of registries: codes, messages, limits.

use super::content_encoding::{self, Coding};
use super::rate_limit;
use crate::error::printable;
use crate::json;
use crate::net::Response;
use crate::net::error::StatusFailure;
use crate::net::url::Url;
use miniserde::json::Value;

/// The largest error body that is read, in bytes.
pub(super) const LIMIT: usize = 64 << 10;

/// Reads the useful parts of an error response.
pub(crate) fn failure(url: &Url, response: &mut Response<'_>, redirected: bool) -> StatusFailure {
    let status = response.status();
    let coding = Coding::of(&response.head);
    let body = content_encoding::excerpt(response.body.excerpt(LIMIT), &coding, LIMIT);
    let (codes, message) = words(&body);
    let limits = rate_limit::read(response);
    StatusFailure {
        retry_after: limits.wait,
        limit: limits.quota,
        quota_used: limits.used_up,
        redirected,
        ..StatusFailure::new(url.clone(), status, codes, message)
    }
}

/// Codes and message of a body in any of the forms in use, printable.
fn words(body: &[u8]) -> (Vec<String>, String) {
    let text = String::from_utf8_lossy(body);
    let trimmed = text.trim_start();
    if trimmed.starts_with('<') {
        // S3 and Azure answer with an XML Code; an HTML page has nothing worth showing.
        let code = between(trimmed, "<Code>", "</Code>").unwrap_or_default();
        let message = between(trimmed, "<Message>", "</Message>").unwrap_or_default();
        return (
            Some(printable(code, 60))
                .filter(|code| !code.is_empty())
                .into_iter()
                .collect(),
            printable(message, 200),
        );
    }
    let Ok(value) = json::parse::<Value>(body, "") else {
        let shown = match trimmed.starts_with(['{', '[']) {
            true => String::new(),
            false => printable(trimmed, 200),
        };
        return (Vec::new(), shown);
    };
    let mut said = Said::default();
    said.collect("", &value, 0);
    said.codes.truncate(4);
    said.parts.dedup();
    said.parts.truncate(8);
    (said.codes, printable(&said.parts.join("; "), 600))
}

/// The codes and messages in a JSON error document.
#[derive(Default)]
struct Said {
    codes: Vec<String>,
    parts: Vec<String>,
}

/// Members with messages: the registry's own form, OAuth's, Docker Hub's, RFC 9457's and those of
/// frameworks. Each may be a string, an object or a list of them.
pub(super) const WORDS: [&str; 13] = [
    "errors",
    "error",
    "message",
    "msg",
    "detail",
    "details",
    "title",
    "reason",
    "error_description",
    "description",
    "error_message",
    "errorMessage",
    "Message",
];

impl Said {
    fn collect(&mut self, name: &str, value: &Value, depth: usize) {
        match value {
            Value::String(text) => {
                let word = !text.contains(char::is_whitespace);
                let code = name == "code" || name == "error" && word;
                let (list, limit) = match code {
                    true => (&mut self.codes, 60),
                    false => (&mut self.parts, if name == "detail" { 120 } else { 200 }),
                };
                list.push(printable(text, limit));
                list.retain(|text| !text.is_empty());
            }
            Value::Array(list) if depth < 5 => {
                for value in list.iter().take(4) {
                    self.collect(name, value, depth + 1);
                }
            }
            Value::Object(members) if depth < 5 => {
                let before = (self.codes.len(), self.parts.len());
                for name in ["code"].iter().chain(&WORDS) {
                    if let Some(value) = members.get(*name) {
                        self.collect(name, value, depth + 1);
                    }
                }
                // `{"errors": {"tag": ["is too long"]}}`
                if name == "errors" && before == (self.codes.len(), self.parts.len()) {
                    for (_, value) in members.iter().take(4) {
                        self.collect("", value, depth + 1);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The message in a response with status 200 that is not a document, but an error or a short text.
pub(crate) fn said(body: &[u8]) -> Option<String> {
    let (mut codes, message) = error_in(body)?;
    codes.push(message);
    codes.retain(|text| !text.is_empty());
    Some(codes.join(": "))
}

/// The same for a blob's replacement, to be appended to its length.
pub(super) fn in_place(body: &[u8]) -> String {
    said(body).map_or(String::new(), |said| format!(": {said}"))
}

/// The same as codes and message.
fn error_in(body: &[u8]) -> Option<(Vec<String>, String)> {
    if body.len() > LIMIT {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_error = match text.starts_with('{') {
        // Real documents have these; an annotation may be called "message".
        true => ![
            "\"schemaVersion\"",
            "\"manifests\"",
            "\"layers\"",
            "\"config\"",
            "\"rootfs\"",
        ]
        .iter()
        .any(|name| text.contains(name)),
        false => {
            let binary = |c: char| c.is_control() && !c.is_whitespace();
            text.len() <= 300 && !text.contains(['<', '[', '{']) && !text.contains(binary)
        }
    };
    let (codes, message) = is_error.then(|| words(body))?;
    (!codes.is_empty() || !message.is_empty()).then_some((codes, message))
}

/// An error in a response with a success status: an error object, or a short text. If a digest is
/// expected, other text fails the digest check anyway.
pub(crate) fn disguised(
    url: &Url,
    status: u16,
    body: &[u8],
    pinned: bool,
) -> Option<StatusFailure> {
    let (codes, message) = error_in(body)?;
    if pinned && !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    Some(StatusFailure::new(url.clone(), status, codes, message))
}

fn between<'t>(text: &'t str, before: &str, after: &str) -> Option<&'t str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_error_is_read() {
        for (body, codes, message) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown","detail":{"Tag":"x"}}]}"#,
                vec!["MANIFEST_UNKNOWN"],
                "unknown",
            ),
            (
                r#"{"errors":[{"status":405,"message":"no"}]}"#,
                vec![],
                "no",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"bad"}"#,
                vec!["invalid_grant"],
                "bad",
            ),
            (
                r#"{"details":"incorrect username or password"}"#,
                vec![],
                "incorrect username or password",
            ),
            (
                "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
                vec!["AccessDenied"],
                "Request has expired",
            ),
            ("<html><body>nginx</body></html>", vec![], ""),
            (
                "too many\x1b[31m requests\n",
                vec![],
                "too many?[31m requests",
            ),
            ("", vec![], ""),
            ("{\"errors\":", vec![], ""),
            (r#"{"errors":"no such thing"}"#, vec![], "no such thing"),
            (r#"{"errors":["a b","c"]}"#, vec![], "a b; c"),
            (
                r#"{"errors":{"code":"DENIED","message":"no"}}"#,
                vec!["DENIED"],
                "no",
            ),
            (
                r#"{"errors":{"tag":["is too long"]}}"#,
                vec![],
                "is too long",
            ),
            (
                r#"{"errors":[{"code":"X","message":"m","detail":"d"}]}"#,
                vec!["X"],
                "m; d",
            ),
            (
                r#"{"errors":[null,7,{"code":null,"message":{"a":1}}]}"#,
                vec![],
                "",
            ),
            (r#"{"detail":"Not Found"}"#, vec![], "Not Found"),
            (
                r#"{"detail":[{"loc":["x"],"msg":"field required"}]}"#,
                vec![],
                "field required",
            ),
            (
                r#"{"title":"Gone","status":410,"reason":"it was removed"}"#,
                vec![],
                "Gone; it was removed",
            ),
            (r#"{"error":{"code":"E1","message":"m"}}"#, vec!["E1"], "m"),
            (
                r#"{"error":"a sentence it is"}"#,
                vec![],
                "a sentence it is",
            ),
            (r#"{"message":"x\u001b[2J\u202e"}"#, vec![], "x?[2J?"),
            (r#""a text""#, vec![], "\"a text\""),
            ("{}", vec![], ""),
        ] {
            let (found, text) = words(body.as_bytes());
            assert_eq!(
                (
                    found.iter().map(String::as_str).collect::<Vec<_>>(),
                    text.as_str()
                ),
                (codes, message),
                "{body}"
            );
        }
    }
}
