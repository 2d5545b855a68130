//! The first signal ends the pull in order, the second one at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The signal that came, 0 for none.
#[derive(Clone, Default)]
pub(super) struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Watches for signals; `on_first` runs on a thread of its own.
    pub fn watch(on_first: impl FnOnce(i32) + Send + 'static) -> std::io::Result<Self> {
        let signals = Self::default();
        let (mut reader, writer) = UnixStream::pair()?;
        let armed = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // In this order: the second signal finds the flag that the first one set.
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
                if reader.read(&mut [0]).is_ok() {
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

/// Ends this process as the signal itself would have, so that a shell's loop ends, too.
///
/// No signal of its own ends the first process of a container: that one exits with the status that
/// a shell would have made of the signal.
pub(super) fn die_by(signal: i32) {
    if std::process::id() == 1 {
        std::process::exit(128 + signal);
    }
    let _ = low_level::emulate_default_handler(signal);
}
