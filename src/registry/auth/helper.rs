//! Credential helpers: `docker-credential-NAME get`, limited in time and output.

use super::config::Entry;
use crate::json;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a helper may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The largest output, in bytes.
const OUTPUT: u64 = 256 << 10;

/// A helper's message is shown only if it is a sentence of plain words: anything else may contain
/// the secret.
fn reason(text: &str) -> String {
    let plain = |word: &str| {
        let word = word.trim_end_matches([',', '.', ';']);
        word.bytes().all(|c| c.is_ascii_alphabetic())
    };
    let lower = text.to_ascii_lowercase();
    let told = ["secret", "password", "token"]
        .iter()
        .any(|name| lower.contains(name));
    match text.split_whitespace().count() {
        0 => String::new(),
        3.. if !told && text.split_whitespace().all(plain) => {
            format!(": {}", crate::error::printable(text, 120))
        }
        _ => "; its output is not shown, since it may contain the secret".into(),
    }
}

/// User and secret for a server; `None` if the helper has none.
pub(super) fn get(name: &str, server: &str) -> Result<Option<(String, String)>, String> {
    // The name becomes part of a program's name: it must not contain a path.
    if !name
        .bytes()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
    {
        return Err("is not a helper name".into());
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot be started: {}", crate::error::plain(&error)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may exit without reading stdin.
        let _ = stdin.write_all(server.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    let Some(stdout) = child.stdout.take() else {
        return Err("has no output".into());
    };
    let reader = std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.take(OUTPUT + 1).read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    let bytes = match reader.map(|_| receiver.recv_timeout(PATIENCE)) {
        Ok(Ok(bytes)) if bytes.len() as u64 <= OUTPUT => bytes,
        outcome => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(match outcome {
                Ok(Ok(_)) => format!("printed more than {OUTPUT} bytes"),
                _ => format!("did not answer within {} s", PATIENCE.as_secs()),
            });
        }
    };
    // It has closed its output and should exit soon.
    let status = (0..100).find_map(|_| match child.try_wait() {
        Ok(None) => {
            std::thread::sleep(Duration::from_millis(20));
            None
        }
        other => other.ok().flatten(),
    });
    let Some(status) = status else {
        let _ = child.kill();
        let _ = child.wait();
        return Err("did not exit".into());
    };
    if !status.success() {
        let text = String::from_utf8_lossy(&bytes);
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(format!("failed ({status}){}", reason(&text)));
    }
    let answer: Entry = json::parse(&bytes, "its output").map_err(|error| error.to_string())?;
    Ok((!answer.secret.0.is_empty()).then_some((answer.username.0, answer.secret.0)))
}
