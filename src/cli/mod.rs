//! The command line: what was asked for, done with the library, and told.
//!
//! Standard output carries only what was asked for: a listing, or the finished archive's path.
//! Everything for people goes to standard error.

mod flags;
mod help;
mod options;
mod parse;
mod progress;
mod prompt;
mod query;
mod signal;

use crate::error::{Error, Result};
use crate::{Client, Image, Plan, PlanOptions, Pull};
use flags::{Help, Low, Mode};
use options::Options;
use progress::Progress;
use signal::Signals;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Runs the program and returns its exit status.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let mut mode = Mode::Plain;
    match go(args, &mut mode) {
        Ok(()) => 0,
        Err(error) => {
            let status = error.status();
            if let Error::Interrupted(signal) = error {
                signal::die_by(signal);
            } else {
                tell_failure(&error, mode);
            }
            status
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
        });
    }
    let running = Running::default();
    let signals = watch(&running);
    let options = Options::from_low(low)?;
    *mode = options.progress;
    let progress = Arc::new(Mutex::new(Progress::new(options.progress)));
    let client = Arc::new(client(&options, &progress)?);
    let _ = running.set(client.clone());
    if signals.as_ref().and_then(Signals::received).is_some() {
        // It came before there was anything to end.
        client.cancel();
    }
    let outcome = match options.low.query {
        Some(query) => query::answer(query, &client, &options),
        None => pull(&client, &options, &progress),
    };
    lock(&progress).end();
    match (outcome, signals.and_then(|signals| signals.received())) {
        (Err(Error::Interrupted(_)), Some(signal)) => {
            interrupted(&options);
            Err(Error::Interrupted(signal))
        }
        (outcome, _) => outcome,
    }
}

fn lock(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client(options: &Options, progress: &Arc<Mutex<Progress>>) -> Result<Client> {
    let low: &Low = &options.low;
    let mut builder = Client::builder()
        .insecure(low.insecure)
        .skip_verify(low.skip_verify);
    for path in &low.cacert {
        builder = builder.trust_file(path);
    }
    if let (Some(cert), Some(key)) = (&low.cert, &low.key) {
        builder = builder.identity(cert, key);
    }
    if let Some(path) = &low.authfile {
        builder = builder.authfile(path);
    }
    if let Some(login) = &options.credentials {
        builder = builder.credentials(&login.user, &login.password, login.source);
    }
    for address in &low.mirrors {
        builder = builder.mirror(address);
    }
    builder = builder.mirror_tags(low.mirror_tags);
    if let Some(retries) = low.retries {
        builder = builder.retries(retries);
    }
    if let Some(timeout) = low.timeout {
        builder = builder.timeout(Duration::from_secs(timeout));
    }
    if low.verbose {
        let progress = progress.clone();
        builder = builder.log(move |line| lock(&progress).note(line));
    }
    builder.build()
}

/// What a signal has to end, once there is something.
type Running = Arc<OnceLock<Arc<Client>>>;

fn watch(running: &Running) -> Option<Signals> {
    let running = running.clone();
    // Without signals, an interrupt ends the process as ever: the partial file bears that.
    Signals::watch(move |signal| {
        if prompt::restore() {
            signal::die_by(signal);
        } else if let Some(client) = running.get() {
            client.cancel();
        }
    })
    .ok()
}

fn pull(client: &Client, options: &Options, progress: &Arc<Mutex<Progress>>) -> Result<()> {
    crate::check_target(&options.target)?;
    let images = resolve(client, options, progress)?;
    let plan = Plan::new(&images, &PlanOptions::default())?;
    let report = Pull::new(client, plan)
        .jobs(options.low.jobs.unwrap_or(6))
        .restart(options.low.restart)
        .observer(|event| lock(progress).event(event))
        .to_file(&options.target)?;
    // The path stays on the terminal below what was said, not in the bar's place.
    lock(progress).end();
    if options.progress == Mode::Json {
        let path = crate::json::quoted(&report.path.to_string_lossy());
        let _ = writeln!(
            std::io::stderr(),
            r#"{{"event":"done","path":{path},"size":{},"downloaded":{},"kept":{}}}"#,
            report.size,
            report.downloaded,
            report.kept
        );
    }
    print_path(&report.path)
}

fn resolve(
    client: &Client,
    options: &Options,
    progress: &Arc<Mutex<Progress>>,
) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for reference in &options.references {
        let image = client
            .repository(reference)?
            .image(options.platform.as_ref())?;
        for warning in image.warnings() {
            lock(progress).note(&format!("dockersave: warning: {warning}"));
        }
        images.push(image);
    }
    Ok(images)
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Error::output(Path::new("standard output"), "writing to", error))
}

fn print_path(path: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let mut line = path.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)
        .and_then(|()| out.flush())
        .map_err(|error| Error::output(Path::new("standard output"), "writing to", error))
}

fn tell_failure(error: &Error, mode: Mode) {
    let mut err = std::io::stderr();
    let _ = match mode {
        Mode::Json => writeln!(
            err,
            r#"{{"event":"failed","status":{},"text":{}}}"#,
            error.status(),
            crate::json::quoted(&error.to_string())
        ),
        _ => writeln!(err, "dockersave: {error}"),
    };
}

fn interrupted(options: &Options) {
    let partial = crate::partial_path(&options.target);
    let mut err = std::io::stderr();
    let _ = if options.low.query.is_none() && partial.exists() {
        writeln!(
            err,
            "dockersave: interrupted; {} is kept: run the same command again to go on from there",
            partial.display()
        )
    } else {
        writeln!(err, "dockersave: interrupted")
    };
}
