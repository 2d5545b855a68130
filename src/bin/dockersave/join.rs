//! The join command: makes the full archive of a thin one and its base.

use super::done::Answer;
use super::error::{Error, Result};
use super::flags::Low;
use super::options::{check_join, progress};
use super::output::TERMINAL;
use super::place::Target;
use super::progress::Progress;
use super::pull::{make, open_stream};
use super::{answer, interrupted, lock, print_json, watch};
use dockersave::{CancelToken, Client, Pull, check_file};
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

pub(super) fn run(thin: &Path, low: &Low) -> Result<()> {
    let target = check_join(low, thin)?;
    if target == Target::Stdout && std::io::stdout().is_terminal() {
        return Err(Error::usage("--output -", TERMINAL));
    }
    if let Some(path) = target.path() {
        check_file(path)?;
    }
    let cancel = CancelToken::new();
    let keeps = AtomicBool::new(target.path().is_some());
    let signals = watch(&cancel, &Arc::new(keeps));
    let mode = progress(low);
    let shown = Arc::new(Mutex::new(Progress::new(mode)));
    // No registry is asked: the environment does not count.
    let client = Client::bare().build()?.cancelled_by(&cancel);
    let mut stream = open_stream(&client, &target, low, &shown)?;
    let joined = Pull::join(&client, thin, &low.base).map_err(Error::from);
    let outcome = joined.and_then(|pull| {
        let told = Answer {
            members: answer::members(pull.plan().images()),
            missing: None,
            json: low.json,
            hashed: low.json,
            mode,
        };
        let pull = pull
            .jobs(low.jobs.unwrap_or(6))
            .restart(low.restart)
            .observer(|event| lock(&shown).event(event));
        let (_, object) = make(pull, &target, &mut stream, &shown, &told)?;
        object.map_or(Ok(()), |object| print_json(&(object + "\n")))
    });
    lock(&shown).end();
    match (outcome, signals.and_then(|signals| signals.received())) {
        (Err(Error::Library(dockersave::Error::Cancelled)), Some(signal)) => {
            interrupted(signal, target.path().map(Path::to_owned), mode);
            Err(Error::Interrupted(signal))
        }
        (outcome, _) => outcome,
    }
}
