//! Signals: the first one ends the pull cleanly, the second one at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The received signal, 0 for none.
#[derive(Clone, Default)]
pub(super) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Watches for signals; `on_first` runs on its own thread.
    pub fn watch(on_first: impl FnOnce(i32) + Send + 'static) -> std::io::Result<Self> {
        let signals = Self::default();
        let (mut reader, writer) = UnixStream::pair()?;
        let armed = Arc::new(AtomicBool::new(false));
        let ignored = ignored();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // As set by nohup, or a shell's `&` and `trap ''`.
            if ignored & (1 << (signal - 1)) != 0 {
                continue;
            }
            // In this order: the second signal sees the flag set by the first one.
            flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
            flag::register(signal, armed.clone())?;
            flag::register_usize(signal, signals.0.clone(), signal as usize)?;
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        let watcher = signals.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .stack_size(128 << 10)
            .spawn(move || {
                // `None` means that all signals are ignored.
                if matches!(reader.read(&mut [0]), Ok(1)) {
                    on_first(watcher.received().unwrap_or(SIGINT));
                }
            })?;
        Ok(signals)
    }

    pub fn received(&self) -> Option<i32> {
        i32::try_from(self.0.load(Ordering::Relaxed))
            .ok()
            .filter(|signal| *signal != 0)
    }
}

/// The signals that were ignored when this process started, from the kernel (proc_pid_status(5),
/// SigIgn): there is no other way without `unsafe`. Without `/proc`, none.
fn ignored() -> u64 {
    let mut text = String::new();
    let read = std::fs::File::open("/proc/self/status")
        .and_then(|file| file.take(8192).read_to_string(&mut text));
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    match (read, mask) {
        (Ok(_), Some(mask)) => u64::from_str_radix(mask.trim(), 16).unwrap_or(0),
        _ => 0,
    }
}

/// Ends this process by the signal itself, so that a shell's loop ends, too.
///
/// The first process of a container cannot end itself by a signal: it exits with the status that a
/// shell would report.
pub(super) fn die_by(signal: i32) {
    if std::process::id() == 1 {
        std::process::exit(128 + signal);
    }
    let _ = low_level::emulate_default_handler(signal);
}
