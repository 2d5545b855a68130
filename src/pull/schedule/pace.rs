//! Which transfers crawl, so that new connections are worth a try, and how long to bear with them:
//! where nothing gets better by that, the line itself has become slow, and is left in peace.

use super::choose::{LEAST, SLOW};
use super::segment::{LONGEST, Segment, YOUNG};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transfer that brings so many times less than the best one did, and less than [`LEAST`] a
/// second, crawls. Where more than four are under way, four times their number: the line may be
/// shared fairly.
const CRAWL: usize = 16;
/// How long one that crawls is given at first; then it is given up for a new one: where all crawl,
/// no worker is idle to take it. Longer each time that new ones are no better, up to [`LONGEST`].
const PATIENCE: Duration = Duration::from_millis(300);
/// How long one must have crawled that was fast before.
const WINDOW: Duration = SLOW;

/// What is known of how fast transfers are.
#[derive(Default)]
pub(super) struct Pace {
    /// Bytes a second of the best transfer so far.
    best: f64,
    /// How often in a row transfers far slower than that were given up in vain.
    pub(super) in_vain: u32,
    /// When the last of those began that were given up together.
    pub(super) given_up: Option<Instant>,
}

impl Pace {
    /// Takes note of what a transfer brings, beside others, so many in all. One about as fast as any
    /// tells that the line is well.
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

    /// The same of one that is still under way, and that may only have begun well.
    pub fn note_open(&mut self, segment: &Segment, active: usize) {
        let window = segment.window();
        if window.is_some_and(|window| window.length > PATIENCE) {
            self.note(segment, active);
        }
    }

    /// Is this next to nothing, beside what the best brought?
    pub fn crawls(&self, rate: f64, active: usize) -> bool {
        rate < LEAST as f64 && rate * CRAWL.max(4 * active) as f64 <= self.best
    }

    /// How long a transfer that crawls is given. Twice in vain is bad luck where every second one
    /// is slow.
    pub fn patience(&self) -> Duration {
        let doubled = self.in_vain.saturating_sub(2).min(16);
        (PATIENCE * (1 << doubled)).min(LONGEST)
    }

    /// Has it crawled for long enough? Ends its window where that has told enough.
    pub fn is_over(&self, segment: &Segment, active: usize) -> bool {
        let Some(window) = segment.window() else {
            return false;
        };
        let enough = match window.waited {
            // Far away, a transfer takes several round trips to get up to speed.
            Some(waited) => self.patience().max(waited * 2).min(LONGEST),
            None => self.patience().max(WINDOW),
        };
        let over = window.length > enough && self.crawls(window.rate, active);
        if !over && window.length > enough.max(WINDOW) {
            segment.turn();
        }
        over
    }

    /// These were given up. Those that were under way together count once.
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
