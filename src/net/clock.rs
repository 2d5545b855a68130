//! The time that certificates are checked against, on systems with a wrong clock.
//!
//! A board without a battery starts in 1970, where no certificate is valid yet. The date of this
//! program is certainly past, so an earlier clock counts as that date, and the user can give the
//! date (`--date`). The network is not asked: the answer would come from those whose certificates
//! are to be checked.

use crate::time;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::time::Duration;

/// The date of the source in seconds since 1970, from `build.rs`. Not the time of the build: two
/// builds of the same source are identical.
pub(crate) const MADE: u64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => match u64::from_str_radix(text, 10) {
        Ok(seconds) => seconds,
        Err(_) => 0,
    },
    None => 0,
};

/// The time that certificates are checked against.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// The time given by options, in seconds since 1970.
    pub given: Option<u64>,
}

/// Whether the clock is certainly wrong. A build without a date cannot tell.
pub(crate) fn is_behind() -> bool {
    time::now() < MADE
}

impl Clock {
    fn seconds(self, system: u64, made: u64) -> u64 {
        self.given.unwrap_or(system.max(made))
    }

    /// The part of a message that describes the clock.
    pub fn told(self) -> String {
        self.tell(time::now(), MADE)
    }

    fn tell(self, system: u64, made: u64) -> String {
        match self.given {
            Some(given) => format!("the given date is {}", time::date(given)),
            None if system < made => format!(
                "this system's clock says {}, and this program is from {}",
                time::date(system),
                time::date(made)
            ),
            None => format!("this system's clock says {}", time::date(system)),
        }
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.seconds(time::now(), MADE);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_programs_own_time_is_not_believed() {
        let (made, later) = (1_764_000_000, 1_800_000_000);
        let clock = Clock::default();
        assert_eq!(clock.seconds(0, made), made);
        assert_eq!(clock.seconds(later, made), later);
        assert_eq!(clock.seconds(3, 0), 3);
        let given = Clock { given: Some(5) };
        assert_eq!(given.seconds(later, made), 5);
    }

    #[test]
    fn messages_tell_what_the_clock_says_and_what_is_known() {
        let clock = Clock::default();
        let told = clock.tell(100, 1_764_000_000);
        assert!(
            told.contains("1970-01-01") && told.contains("2025-11-24"),
            "{told}"
        );
        assert!(!clock.tell(1_764_000_000, 100).contains("program"));
        let given = Clock { given: Some(0) };
        assert_eq!(given.tell(5, 5), "the given date is 1970-01-01");
    }
}
