//! The program `dockersave`: what the command line asks for, done with the library.
//!
//! Standard output carries only what was asked for: a listing, or the finished archive's path.
//! Progress and messages go to standard error.

// Tests may panic.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod check;
mod complete;
mod done;
mod error;
mod flags;
mod help;
mod join;
mod json;
mod list;
mod login;
mod made;
mod man;
mod manual;
mod names;
mod options;
mod output;
mod parse;
mod place;
mod progress;
mod prompt;
mod pull;
mod query;
#[cfg(test)]
mod readme;
mod renew;
mod resolve;
mod signal;
mod sources;
mod verify;

use dockersave::text::{line, lines, without_secrets};
use dockersave::{CancelToken, Client, Warning, partial_path};
use error::{Error, Result, STANDARD_OUTPUT};
use flags::{Help, Low, Mode};
use options::Options;
use progress::{Level, Progress};
use signal::Signals;
use std::ffi::OsString;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

fn main() -> ExitCode {
    let mut mode = Mode::Plain;
    no_core_files();
    match go(std::env::args_os(), &mut mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let status = error.status();
            match &error {
                Error::Interrupted(signal) => signal::die_by(*signal),
                // Whoever read it has gone, and knows.
                Error::Library(dockersave::Error::Output { source, .. })
                    if source.kind() == ErrorKind::BrokenPipe && mode != Mode::Json => {}
                _ => tell_failure(status, &error.to_string(), mode),
            }
            ExitCode::from(status)
        }
    }
}

fn go(args: impl Iterator<Item = OsString>, mode: &mut Mode) -> Result<()> {
    let low = parse::parse(args)?;
    if let Some(help) = low.help {
        return print(&match help {
            Help::Short => help::text(false),
            Help::Long => help::text(true),
            Help::Version => help::version(),
            Help::Completions(shell) => complete::script(shell),
            Help::Man => man::page(),
        });
    }
    let _ = error::AGAIN.set(low.again.clone());
    if low.progress == Some(Mode::Json) {
        *mode = Mode::Json;
    }
    if let Some(archive) = &low.verify {
        options::check_verify(&low)?;
        return verify::run(archive, &low);
    }
    if let Some(thin) = &low.join {
        *mode = options::progress(&low);
        return join::run(thin, &low);
    }
    let cancel = CancelToken::new();
    let keeps = Arc::new(AtomicBool::new(false));
    let signals = watch(&cancel, &keeps);
    let options = Options::from_low(low)?;
    let pulls = options.low.query.is_none();
    keeps.store(
        pulls && options.partials().next().is_some(),
        Ordering::Relaxed,
    );
    *mode = options.progress;
    let progress: Shown = Arc::new(Mutex::new(Progress::new(options.progress)));
    for note in &options.notes {
        lock(&progress).note(Level::Info, note);
    }
    let client = client(&options, &progress)?.cancelled_by(&cancel);
    watch_waits(&client, &progress);
    let outcome = match options.low.query {
        Some(query) => query::answer(query, &client, &options, &progress),
        None => pull::pull(&client, &options, &progress),
    };
    lock(&progress).end();
    match (outcome, signals.and_then(|signals| signals.received())) {
        (Err(Error::Library(dockersave::Error::Cancelled)), Some(signal)) => {
            let mut partials = options.partials().filter(|_| pulls);
            let partial = partials.find(|path| partial_path(path).exists());
            interrupted(signal, partial, options.progress);
            Err(Error::Interrupted(signal))
        }
        (outcome, _) => outcome,
    }
}

/// A core file would have the passwords and tokens in it that are in memory.
fn no_core_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = Rlimit {
        current: Some(0),
        maximum: getrlimit(Resource::Core).maximum,
    };
    let _ = setrlimit(Resource::Core, limit);
}

/// What is shown on standard error, for all who have something to say there.
type Shown = Arc<Mutex<Progress>>;

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client(options: &Options, progress: &Shown) -> Result<Client> {
    let low: &Low = &options.low;
    let mut builder = Client::builder()
        .insecure(low.insecure)
        .danger_accept_invalid_certs(low.skip_verify);
    for host in &low.insecure_hosts {
        builder = builder.insecure_host(host);
    }
    // First: from here on no message has the password in it.
    for login in &options.logins {
        let (user, password) = (&login.user, &login.password);
        builder = builder.credentials_for(&login.host, user, password, login.source);
    }
    for path in &low.cacert {
        builder = builder.add_root_certificates(path);
    }
    if let (Some(cert), Some(key)) = (&low.cert, &low.key) {
        builder = builder.identity(cert, key);
    }
    if let Some(seconds) = low.date {
        builder = builder.verification_time(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    }
    if low.password.is_some() {
        lock(progress).note(
            Level::Warning,
            "other users of this machine can see --password; use --password-stdin",
        );
    }
    if let Some(path) = &low.authfile {
        builder = builder.authfile(path);
    }
    for address in &low.mirrors {
        builder = builder.mirror(address);
    }
    builder = builder.mirror_tags(low.mirror_tags);
    if let Some(retries) = low.retries {
        builder = builder.retries(retries);
    }
    if let Some(rate) = low.limit_rate {
        builder = builder.limit_rate(rate);
    }
    if let Some(timeout) = low.timeout {
        builder = builder.timeout(Duration::from_secs(timeout));
    }
    if low.verbose {
        let progress = progress.clone();
        builder = builder.log(move |line| lock(&progress).note(Level::Debug, line));
    }
    let shown = progress.clone();
    builder = builder.notice(move |line| lock(&shown).note(Level::Info, line));
    let client = builder.build()?;
    for warning in client.warnings() {
        let advice = match warning {
            Warning::ClockBehind => "; --date says what day it is",
            _ => "",
        };
        lock(progress).note(Level::Warning, &format!("{warning}{advice}"));
    }
    Ok(client)
}

/// Reports waits of more than a second.
fn watch_waits(client: &Client, progress: &Shown) {
    let (client, progress) = (client.clone(), progress.clone());
    let watch = move || {
        loop {
            lock(&progress).watch(client.pending());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let builder = std::thread::Builder::new().name("waits".into());
    // Without it, only nothing is reported.
    let _ = builder.stack_size(128 << 10).spawn(watch);
}

/// Cancels at the first signal. If nothing is kept (`keeps`), the process does not wait long for
/// its end: a write to a pipe that nobody reads cannot be cancelled.
fn watch(cancel: &CancelToken, keeps: &Arc<AtomicBool>) -> Option<Signals> {
    let (cancel, keeps) = (cancel.clone(), keeps.clone());
    // Without signals, an interrupt ends the process as ever: the partial file bears that.
    Signals::watch(move |signal| {
        if prompt::restore() {
            signal::die_by(signal);
        }
        cancel.cancel();
        std::thread::sleep(Duration::from_secs(2));
        if !keeps.load(Ordering::Relaxed) {
            signal::die_by(signal);
        }
    })
    .ok()
}

/// Lines for people, or JSON.
fn print(text: &str) -> Result<()> {
    print_bytes(lines(text).as_bytes())
}

/// JSON is ASCII already, and often one word: what looks like the user of an address in it may be
/// half of an object.
fn print_json(text: &str) -> Result<()> {
    print_bytes(without_secrets(text).as_bytes())
}

fn print_path(path: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let mut line = path.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    print_bytes(&line)
}

fn print_bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| Error::output(Path::new(STANDARD_OUTPUT), "writing to", error))
}

fn tell_failure(status: u8, text: &str, mode: Mode) {
    let mut err = std::io::stderr();
    let _ = match mode {
        Mode::Json => writeln!(
            err,
            r#"{{"event":"failed","status":{status},"text":{}}}"#,
            json::ascii(&line(text))
        ),
        _ => writeln!(err, "dockersave: {}", line(text)),
    };
}

fn interrupted(signal: i32, output: Option<PathBuf>, mode: Mode) {
    let partial = output.map(|path| partial_path(&path));
    let text = match partial.filter(|partial| partial.exists()) {
        Some(partial) => format!(
            "interrupted; {} is kept: run the same command again to resume",
            partial.display()
        ),
        None => "interrupted".to_owned(),
    };
    tell_failure(Error::Interrupted(signal).status(), &text, mode);
}
