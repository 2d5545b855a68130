//! Detection of crawling transfers, which are replaced by new connections. If that does not help,
//! the line itself is slow, and transfers are given longer.

use super::choose::{LEAST, SLOW};
use super::segment::{LONGEST, Segment, YOUNG};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transfer crawls if it is this many times slower than the best one and slower than [`LEAST`].
/// With more than four in progress, four times their number, because they may share the line
/// fairly.
const CRAWL: usize = 16;
/// How long a crawling transfer is given at first before it is replaced, because no worker is idle
/// if all crawl. Longer each time that new ones are no better, up to [`LONGEST`].
const PATIENCE: Duration = Duration::from_millis(300);
/// How long a transfer that was fast before must have crawled.
const WINDOW: Duration = SLOW;

/// What is known about the speed of transfers.
#[derive(Default)]
pub(super) struct Pace {
    /// The rate of the best transfer so far, in bytes per second.
    best: f64,
    /// How often in a row far slower transfers were replaced in vain.
    pub(super) in_vain: u32,
    /// When the last of those that were given up together had started.
    pub(super) given_up: Option<Instant>,
}

impl Pace {
    /// Records the rate of one of several transfers. One about as fast as the best shows that the
    /// line is fine.
    pub fn note(&mut self, segment: &Segment, active: usize) {
        let Some(window) = segment.window() else {
            return;
        };
        if window.length > YOUNG {
            self.best = self.best.max(window.rate);
        }
        let fair = window.rate * (CRAWL.max(4 * active) / 4) as f64 > self.best;
        let after = |then| segment.is_younger_than(then);
        if fair && self.given_up.is_some_and(after) {
            self.in_vain = 0;
            self.given_up = None;
        }
    }

    /// The same for one still in progress, which may only have started well.
    pub fn note_open(&mut self, segment: &Segment, active: usize) {
        let window = segment.window();
        if window.is_some_and(|window| window.length > PATIENCE) {
            self.note(segment, active);
        }
    }

    /// Whether this rate is tiny compared with the best.
    pub fn crawls(&self, rate: f64, active: usize) -> bool {
        rate < LEAST as f64 && rate * CRAWL.max(4 * active) as f64 <= self.best
    }

    /// How long a crawling transfer is given. Two failures prove nothing if half of all connections
    /// are slow.
    pub fn patience(&self) -> Duration {
        let doubled = self.in_vain.saturating_sub(2).min(16);
        (PATIENCE * (1 << doubled)).min(LONGEST)
    }

    /// Whether it has crawled for long enough. Ends its window if that was long enough to judge.
    pub fn is_over(&self, segment: &Segment, active: usize) -> bool {
        let Some(window) = segment.window() else {
            return false;
        };
        let enough = match window.waited {
            // Over long distances, a transfer takes several round trips to get up to speed.
            Some(waited) => self.patience().max(waited * 2).min(LONGEST),
            None => self.patience().max(WINDOW),
        };
        let over = window.length > enough && self.crawls(window.rate, active);
        if !over && window.length > enough.max(WINDOW) {
            segment.turn();
        }
        over
    }

    /// These were given up. Those in progress together count once.
    pub fn give_up(&mut self, slow: &[Arc<Segment>]) {
        let after = |then| slow.iter().any(|segment| segment.is_younger_than(then));
        match self.given_up {
            None if slow.is_empty() => {}
            None => self.given_up = Some(Instant::now()),
            Some(then) if after(then) => {
                self.in_vain += 1;
                self.given_up = Some(Instant::now());
            }
            Some(_) => {}
        }
    }
}
