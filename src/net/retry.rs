//! The retry policy: what is retried, after how long, and how often.
//!
//! Used for every request that can be repeated (documents, and each blob's reader), once per
//! failure. Attempts are counted since the last progress: a link that brings something each time is
//! never given up.

use super::error::Failure;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The only wait for a host that refuses the first connection: it may be about to start.
const REFUSED: Duration = Duration::from_millis(500);
/// The longest wait of our own choosing.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest wait a server may ask for.
const ASKED: Duration = Duration::from_secs(60);
/// Progress: this many bytes, over one or several attempts, refill the budget. Few enough for a
/// mobile link that breaks every few seconds, too many for a hostile server that trickles.
const PROGRESS: u64 = 64 << 10;

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Retry after the usual wait.
    Again,
    /// Retry once, soon: the port is closed, which waiting seldom fixes.
    Once,
    /// Retry after at least this long, because the server said so.
    After(Duration),
    /// A redirect's target no longer serves us: ask the registry for a new one.
    NewUrl,
    /// A retry would not help.
    Never,
}

/// Classifies a failure.
pub(crate) fn classify(failure: &Failure) -> Verdict {
    match failure {
        Failure::Connect { refused: true, .. } => Verdict::Once,
        Failure::Resolve { again: true, .. }
        | Failure::Connect { .. }
        | Failure::Timer { .. }
        | Failure::Closed { .. }
        | Failure::Protocol { .. } => Verdict::Again,
        Failure::Resolve { .. } | Failure::Tls { .. } | Failure::Final(_) => Verdict::Never,
        Failure::Status(status) => match status.status {
            // go-containerregistry's list (pkg/v1/remote/options.go); 425 is RFC 8470; 520 to 527
            // and 530 are Cloudflare's, about the server behind it.
            408 | 425 | 429 | 499 | 500 | 502 | 503 | 504 | 520..=527 | 530 => {
                match status.retry_after {
                    // A used-up quota takes hours to return; retrying only prolongs it.
                    _ if status.quota_used => Verdict::Never,
                    Some(wait) => Verdict::After(wait.min(ASKED)),
                    None => Verdict::Again,
                }
            }
            // S3, R2 and Azure use any of these for an expired signature.
            400 | 401 | 403 | 404 | 410 if status.redirected => Verdict::NewUrl,
            _ => Verdict::Never,
        },
    }
}

/// The remaining attempts for one thing.
#[derive(Debug)]
pub(crate) struct Budget {
    tries: u32,
    failures: u32,
    attempts: u32,
    since: u64,
}

impl Budget {
    /// `retries` further attempts after the first one, without progress in between.
    pub fn new(retries: u32) -> Self {
        Self {
            tries: retries,
            failures: 0,
            attempts: 1,
            since: 0,
        }
    }

    /// Accounts for received bytes.
    pub fn progress(&mut self, bytes: u64) {
        self.since += bytes;
    }

    /// Attempts made so far.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long to wait before the next attempt; `None` if there is none.
    pub fn next(&mut self, failure: &Failure) -> Option<Duration> {
        if self.since >= PROGRESS {
            self.failures = 0;
            self.since = 0;
        }
        let verdict = classify(failure);
        let asked = match verdict {
            Verdict::Never => return None,
            Verdict::After(wait) => Some(wait.max(FIRST)),
            Verdict::Once if self.attempts > 1 => return None,
            Verdict::Again | Verdict::Once => None,
            // The registry works, so there is no reason to wait.
            Verdict::NewUrl => Some(Duration::ZERO),
        };
        if self.failures >= self.tries {
            return None;
        }
        let doubled = FIRST.saturating_mul(1 << self.failures.min(5)).min(LONGEST);
        self.failures += 1;
        self.attempts += 1;
        Some(match asked {
            Some(Duration::ZERO) if self.failures <= 2 => Duration::ZERO,
            // Jitter, because many clients may be given the same second.
            Some(wait) => wait.max(Duration::from_millis(1)) + jitter(FIRST),
            None if verdict == Verdict::Once => REFUSED,
            None => doubled / 2 + jitter(doubled / 2),
        })
    }
}

/// A random duration between zero and `most`.
fn jitter(most: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_usize(CALLS.fetch_add(1, Ordering::Relaxed));
    let most = u64::try_from(most.as_millis()).unwrap_or(1000).max(1);
    Duration::from_millis(hasher.finish() % most)
}

/// `Retry-After`: seconds or an HTTP date. Anything else, and a past date, is ignored.
pub(crate) fn retry_after(text: &str, now: u64) -> Option<Duration> {
    let text = text.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => crate::time::http_date(text)?.checked_sub(now)?,
    };
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::super::url::Url;
    use super::*;
    use crate::net::error::StatusFailure;

    fn status(status: u16, redirected: bool, retry_after: Option<u64>) -> Failure {
        let url = Url::parse("https://h/").unwrap();
        Failure::Status(Box::new(StatusFailure {
            retry_after: retry_after.map(Duration::from_secs),
            redirected,
            ..StatusFailure::new(url, status, Vec::new(), String::new())
        }))
    }

    #[test]
    fn every_status_has_its_verdict() {
        for code in 300..600 {
            let expected = match code {
                408 | 425 | 429 | 499 | 500 | 502 | 503 | 504 | 520..=527 | 530 => Verdict::Again,
                _ => Verdict::Never,
            };
            assert_eq!(classify(&status(code, false, None)), expected, "{code}");
        }
        for code in [400, 401, 403, 404, 410] {
            assert_eq!(classify(&status(code, true, None)), Verdict::NewUrl);
        }
        assert_eq!(
            classify(&status(429, false, Some(99_999))),
            Verdict::After(ASKED)
        );
        assert_eq!(
            classify(&status(503, false, Some(90))),
            Verdict::After(Duration::from_secs(60))
        );
    }

    #[test]
    fn the_budget_ends_and_progress_refills_it() {
        let cut = Failure::Closed {
            host: "h".into(),
            why: "x".into(),
        };
        let mut budget = Budget::new(3);
        for expected in [1, 2, 4] {
            let wait = budget.next(&cut).unwrap();
            assert!(
                wait >= Duration::from_millis(expected * 500)
                    && wait <= Duration::from_secs(expected)
            );
        }
        assert_eq!(budget.next(&cut), None);
        assert_eq!(budget.attempts(), 4);
        for _ in 0..25 {
            budget.progress(PROGRESS);
            assert!(budget.next(&cut).is_some());
        }
        assert_eq!(Budget::new(3).next(&status(404, false, None)), None);
        assert!(
            Budget::new(3).next(&status(429, false, Some(2))).unwrap() >= Duration::from_secs(2)
        );
    }

    #[test]
    fn who_refuses_the_first_connection_is_tried_once_more() {
        let refused = |refused| Failure::Connect {
            origin: Url::parse("https://h/").unwrap().origin,
            why: String::new(),
            refused,
        };
        let mut budget = Budget::new(5);
        assert_eq!(budget.next(&refused(true)), Some(REFUSED));
        assert_eq!(budget.next(&refused(true)), None);
        assert_eq!(Budget::new(0).next(&refused(true)), None);
        let mut budget = Budget::new(5);
        assert!((0..5).all(|_| budget.next(&refused(false)).is_some()));
    }

    #[test]
    fn retry_after_has_two_forms() {
        assert_eq!(retry_after(" 2 ", 0), Some(Duration::from_secs(2)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770),
            Some(Duration::from_secs(7))
        );
        for nothing in [
            "0",
            "-1",
            "985.86\u{b5}s",
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "",
        ] {
            assert_eq!(retry_after(nothing, 784_111_999), None, "{nothing}");
        }
    }
}
