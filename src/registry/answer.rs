//! What a registry says when it says no: its error codes, its words, its limits.

use super::limits;
use crate::error::printable;
use crate::json::{self, Text};
use crate::net::Response;
use crate::net::failure::StatusFailure;
use crate::net::url::Url;
use miniserde::Deserialize;

/// The most of an error's body that is read, in bytes.
const LIMIT: usize = 64 << 10;

#[derive(Deserialize)]
struct WireErrors {
    errors: Option<Vec<WireError>>,
    /// OAuth's form, of token endpoints.
    error: Text,
    error_description: Text,
    /// Docker Hub's.
    details: Text,
    message: Text,
}

#[derive(Deserialize)]
struct WireError {
    code: Text,
    message: Text,
    detail: Text,
}

/// Reads what is worth telling of an answer that is no success.
pub(crate) fn failure(url: &Url, response: &mut Response<'_>, redirected: bool) -> StatusFailure {
    let status = response.status();
    let body = response.body.excerpt(LIMIT);
    let (codes, message) = words(&body);
    let limits = limits::read(response);
    StatusFailure {
        url: url.clone(),
        status,
        codes,
        message,
        retry_after: limits.wait,
        limit: limits.quota,
        quota_used: limits.used_up,
        redirected,
        credentials: None,
    }
}

/// Codes and message of a body in any of the forms that are in use, fit for a terminal.
fn words(body: &[u8]) -> (Vec<String>, String) {
    let text = String::from_utf8_lossy(body);
    let trimmed = text.trim_start();
    if trimmed.starts_with('<') {
        // S3 and Azure answer in XML with a Code; a page for people says nothing worth a line.
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
    let Ok(wire) = json::parse::<WireErrors>(body, "") else {
        return (
            Vec::new(),
            if trimmed.starts_with('{') {
                String::new()
            } else {
                printable(trimmed, 200)
            },
        );
    };
    let errors = wire.errors.unwrap_or_default();
    let mut codes: Vec<String> = errors
        .iter()
        .map(|error| printable(&error.code.0, 60))
        .collect();
    codes.push(printable(&wire.error.0, 60));
    codes.retain(|code| !code.is_empty());
    codes.truncate(4);
    let mut parts: Vec<String> = Vec::new();
    for error in errors.iter().take(4) {
        parts.push(printable(&error.message.0, 200));
        parts.push(printable(&error.detail.0, 120));
    }
    parts.push(printable(&wire.error_description.0, 200));
    parts.push(printable(&wire.details.0, 200));
    parts.push(printable(&wire.message.0, 200));
    parts.retain(|part| !part.is_empty());
    parts.dedup();
    (codes, parts.join("; "))
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
