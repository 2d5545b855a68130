//! What is being waited for, for progress displays.

use crate::sync::lock;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The waits that have begun and not ended.
#[derive(Default)]
pub(crate) struct Pending {
    waits: Mutex<Waits>,
}

#[derive(Default)]
struct Waits {
    next: u64,
    open: Vec<(u64, Instant, String)>,
}

impl Pending {
    /// A wait for `what` of `whom`; it ends when the guard is dropped.
    pub fn begin(&self, what: &str, whom: &dyn Display) -> Wait<'_> {
        let mut waits = self.lock();
        let number = waits.next;
        waits.next += 1;
        let text = format!("{what} {whom}").trim_end().to_owned();
        waits.open.push((number, Instant::now(), text));
        Wait {
            pending: self,
            number,
        }
    }

    /// The longest wait, and how long it has lasted.
    pub fn longest(&self) -> Option<(String, Duration)> {
        let waits = self.lock();
        let (_, since, what) = waits.open.iter().min_by_key(|(_, since, _)| *since)?;
        Some((what.clone(), since.elapsed()))
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        lock(&self.waits)
    }
}

/// Ends its wait when it is dropped.
pub(crate) struct Wait<'p> {
    pending: &'p Pending,
    number: u64,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waits = self.pending.lock();
        waits.open.retain(|(number, ..)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_named_until_it_ends() {
        let pending = Pending::default();
        assert!(pending.longest().is_none());
        let first = pending.begin("an answer from", &"a");
        std::thread::sleep(Duration::from_millis(2));
        let second = pending.begin("an answer from", &"b");
        let (what, time) = pending.longest().unwrap();
        assert!(what == "an answer from a" && time >= Duration::from_millis(2));
        drop(first);
        assert_eq!(pending.longest().unwrap().0, "an answer from b");
        drop(second);
        assert!(pending.longest().is_none());
    }
}
