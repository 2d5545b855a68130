//! Rate limiting of bodies: one account for all connections.

use crate::sync::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The largest burst after a pause.
const BURST: Duration = Duration::from_millis(200);

/// A rate limiter in bytes per second.
pub(super) struct Limit {
    rate: u64,
    /// When the bytes taken so far are paid for.
    paid: Mutex<Instant>,
}

impl Limit {
    /// `rate`: bytes per second, at least one.
    pub fn new(rate: u64) -> Self {
        Self {
            rate: rate.max(1),
            paid: Mutex::new(Instant::now()),
        }
    }

    /// The most that one read should take, to spread reads over time.
    pub fn portion(&self) -> usize {
        usize::try_from(self.rate / 20)
            .unwrap_or(usize::MAX)
            .max(1024)
    }

    /// Accounts for bytes; returns how long to wait before the next read.
    pub fn take(&self, bytes: u64) -> Duration {
        let mut paid = lock(&self.paid);
        let now = Instant::now();
        let begin = (*paid).max(now.checked_sub(BURST).unwrap_or(now));
        // An hour at most: a read takes no more than a portion.
        let cost = (bytes as f64 / self.rate as f64).min(3600.0);
        *paid = begin + Duration::from_secs_f64(cost);
        paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_has_to_be_waited_for() {
        let limit = Limit::new(1000);
        let waits: Vec<Duration> = (0..10).map(|_| limit.take(1000)).collect();
        assert!(waits.is_sorted());
        assert!((Duration::from_secs(8)..Duration::from_secs(11)).contains(&waits[9]));
        assert!(Limit::new(u64::MAX).take(1 << 40) < Duration::from_secs(1));
        assert!(limit.portion() >= 1 && Limit::new(0).take(1) > Duration::ZERO);
    }
}
