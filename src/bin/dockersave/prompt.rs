//! Prompts for user and password on the terminal, without echo for the password.

use super::error::{Error, Result};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The longest user or password, in bytes.
const LIMIT: usize = 4096;

/// The terminal's settings before the prompt, to be restored on a signal.
static CHANGED: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Restores the terminal, if a prompt is active.
pub(super) fn restore() -> bool {
    let changed = CHANGED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some((terminal, before)) = &changed {
        let _ = tcsetattr(terminal, OptionalActions::Flush, before);
    }
    changed.is_some()
}

fn failed(error: impl Into<io::Error>) -> Error {
    Error::input(
        Path::new("/dev/tty"),
        "prompting for user and password on",
        error,
    )
}

/// Prompts for what is missing; `whose` names the user of the password if there are several.
pub(super) fn login(user: Option<String>, whose: Option<&str>) -> Result<(String, String)> {
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(failed)?;
    let before = tcgetattr(&terminal).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    let copy = terminal.try_clone().map_err(failed)?;
    *CHANGED.lock().unwrap_or_else(PoisonError::into_inner) = Some((copy, before));
    let answers = questions(&mut terminal, user, whose, &silent);
    restore();
    let _ = terminal.write_all(b"\n");
    answers
}

fn questions(
    terminal: &mut File,
    user: Option<String>,
    whose: Option<&str>,
    silent: &Termios,
) -> Result<(String, String)> {
    let user = match user {
        Some(user) => user,
        None => ask(terminal, "User: ")?,
    };
    tcsetattr(&*terminal, OptionalActions::Flush, silent).map_err(failed)?;
    let question = match whose {
        Some(whose) => format!("Password of {whose}: "),
        None => "Password: ".to_owned(),
    };
    Ok((user, ask(terminal, &question)?))
}

fn ask(terminal: &mut File, question: &str) -> Result<String> {
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let bytes = line(terminal).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| {
        failed(io::Error::new(
            io::ErrorKind::InvalidData,
            "the input is not UTF-8",
        ))
    })
}

/// One line, without its end.
pub(super) fn line(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while from.read(&mut byte)? == 1 && byte[0] != b'\n' {
        if bytes.len() == LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the line is longer than {LIMIT} bytes"),
            ));
        }
        bytes.push(byte[0]);
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(bytes)
}
