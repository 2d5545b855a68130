//! A 64-bit counter that many threads add to, on every processor that Rust's std runs on.

#[cfg(target_has_atomic = "64")]
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that threads add to and read, with relaxed ordering.
///
/// 32-bit MIPS, PowerPC and ARMv5 have no 64-bit atomics; there, a lock guards the number.
#[derive(Default)]
pub(crate) struct Counter(
    #[cfg(target_has_atomic = "64")] AtomicU64,
    #[cfg(not(target_has_atomic = "64"))] std::sync::Mutex<u64>,
);

#[cfg(target_has_atomic = "64")]
impl Counter {
    pub const fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Adds, and returns the previous value.
    pub fn add(&self, amount: u64) -> u64 {
        self.0.fetch_add(amount, Ordering::Relaxed)
    }
}

#[cfg(not(target_has_atomic = "64"))]
impl Counter {
    pub const fn new(value: u64) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub fn get(&self) -> u64 {
        *self.lock()
    }

    pub fn set(&self, value: u64) {
        *self.lock() = value;
    }

    /// Adds, and returns the previous value. Wraps around, as an atomic does.
    pub fn add(&self, amount: u64) -> u64 {
        let mut number = self.lock();
        let before = *number;
        *number = before.wrapping_add(amount);
        before
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, u64> {
        crate::sync::lock(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_past_32_bits_and_lose_nothing() {
        let counter = Counter::new(u64::from(u32::MAX) - 50);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counter.add(3);
                    }
                });
            }
        });
        assert_eq!(counter.get(), u64::from(u32::MAX) - 50 + 12_000);
        assert_eq!(counter.add(1), u64::from(u32::MAX) - 50 + 12_000);
        counter.set(7);
        assert_eq!(counter.get(), 7);
    }
}
