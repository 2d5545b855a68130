//! Progress on standard error: a bar, plain lines, or JSON.

use super::error::count;
use super::flags::Mode;
use super::json;
use dockersave::text::line;
use dockersave::{Digest, Event, LayerProgress};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// The longest silence without a bar: less than ten seconds, including a tick.
const SILENCE: Duration = Duration::from_secs(9);

/// Waits longer than this are reported.
const PATIENCE: Duration = Duration::from_secs(1);

/// The rate is averaged over the last few seconds.
const WINDOW: Duration = Duration::from_secs(5);

/// The step after the last layer.
const FINISHING: &str = "syncing to disk";

/// The importance of a note.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Debug,
    Info,
    Warning,
}

pub(super) struct Progress {
    mode: Mode,
    layers: usize,
    finished: usize,
    /// The widths of the bar's lines on the terminal.
    shown: Vec<usize>,
    /// A time, and the bytes received by then.
    marks: Vec<(Instant, u64)>,
    /// When something was last printed.
    last: Option<Instant>,
    /// It takes so long that a progress line was printed.
    long: bool,
    /// The stage after the download.
    doing: Option<&'static str>,
    /// Whether a bar is drawn, not lines.
    bars: bool,
    /// Whether progress events are arriving.
    running: bool,
    /// A step without progress events.
    busy: Option<&'static str>,
    /// The time of the last progress, and the bytes done by then.
    moved: Instant,
    done: u64,
    /// When a wait was last reported.
    named: Option<Instant>,
    /// A stage that is printed only if it takes long.
    quiet: Option<(Instant, String)>,
    /// The bar's line for a wait.
    waiting: String,
}

impl Progress {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            layers: 0,
            finished: 0,
            shown: Vec::new(),
            marks: Vec::new(),
            last: None,
            long: false,
            doing: None,
            bars: mode == Mode::Bar,
            running: false,
            busy: None,
            moved: Instant::now(),
            done: 0,
            named: None,
            quiet: None,
            waiting: String::new(),
        }
    }

    /// Draws no bar, because other output may be on the terminal.
    pub fn lines_only(&mut self) {
        self.bars = false;
    }

    /// A step without progress events has begun.
    pub fn busy(&mut self, doing: &'static str) {
        self.busy = Some(doing);
        self.moved = Instant::now();
    }

    pub fn event(&mut self, event: &Event) {
        self.follow(event);
        match self.mode {
            Mode::None | Mode::Auto => {}
            Mode::Json => self.json(event),
            Mode::Plain => self.plain(event),
            Mode::Bar => self.bar(event),
        }
        if let Event::Layer { .. } = event {
            self.finished += 1;
        }
    }

    /// Records what an event says about progress.
    fn follow(&mut self, event: &Event) {
        match event {
            Event::Note(_) => return,
            Event::Progress { done, .. } if *done == self.done => return,
            Event::Progress { done, .. } => self.done = *done,
            Event::Started { .. } => {
                self.finished = 0;
                self.doing = None;
                self.long = false;
                self.marks.clear();
                (self.running, self.busy) = (true, None);
            }
            Event::Stage { .. } => (self.running, self.busy) = (true, None),
            Event::Finishing => (self.running, self.busy) = (false, Some(FINISHING)),
            _ => {}
        }
        self.moved = Instant::now();
    }

    /// Reports a wait if nothing has progressed for a second; `pending` is what the client waits
    /// for.
    pub fn watch(&mut self, pending: Option<(String, Duration)>) {
        let still = self.moved.elapsed();
        let wait = match pending {
            Some((what, time)) => Some((format!("waiting for {what}"), time.min(still))),
            None => self.busy.map(|doing| (doing.to_owned(), still)),
        };
        let before = std::mem::take(&mut self.waiting);
        match wait.filter(|(_, time)| *time > PATIENCE) {
            _ if matches!(self.mode, Mode::None | Mode::Auto) => {}
            Some((what, time)) if self.bars => {
                self.waiting = format!("{what}, {} s", time.as_secs());
                if !self.running && self.waiting != before {
                    self.show(Vec::new());
                }
            }
            Some((what, _)) if self.named.is_none_or(|at| at.elapsed() > SILENCE) => {
                self.note(Level::Info, &what);
            }
            // The wait is over.
            None if !self.running && !before.is_empty() => write(&self.clear()),
            _ => {}
        }
    }

    /// Prints a line above the bar.
    pub fn note(&mut self, level: Level, text: &str) {
        if level != Level::Debug {
            self.named = Some(Instant::now());
        }
        match self.mode {
            Mode::None => {}
            Mode::Json => {
                let level = match level {
                    Level::Debug => "debug",
                    Level::Info => "info",
                    Level::Warning => "warning",
                };
                write(&format!(
                    "{{\"event\":\"note\",\"level\":\"{level}\",\"text\":{}}}\n",
                    json::ascii(&line(text))
                ));
            }
            _ => {
                let head = match level {
                    Level::Warning => "dockersave: warning: ",
                    _ => "",
                };
                let clear = self.clear();
                write(&format!("{clear}{head}{}\n", line(text)));
            }
        }
    }

    /// Erases the bar.
    pub fn end(&mut self) {
        (self.running, self.busy) = (false, None);
        self.waiting.clear();
        self.moved = Instant::now();
        let clear = self.clear();
        write(&clear);
    }

    fn plain(&mut self, event: &Event) {
        match event {
            Event::Started { total, layers } => {
                self.layers = *layers;
                write(&format!("{}, {}\n", count(*layers, "layer"), size(*total)));
            }
            Event::Progress { done, total, .. } => {
                if let Some((_, line)) = self.quiet.take_if(|(at, _)| at.elapsed() > PATIENCE) {
                    write(&line);
                }
                let rate = self.rate(*done);
                if self.last.get_or_insert_with(Instant::now).elapsed() < SILENCE {
                    return;
                }
                self.long = true;
                self.named = Some(Instant::now());
                let (speed, left) = pace(*done, *total, rate);
                let doing = self
                    .doing
                    .map_or(String::new(), |doing| format!("{doing}: "));
                let (done, of) = (size(*done), size(*total));
                write(&format!("{doing}{done} of {of}{speed}{left}\n"));
            }
            // With a slow disk this may take long.
            Event::Finishing if self.long => self.note(Level::Info, FINISHING),
            Event::Layer {
                digest,
                size: bytes,
                kept,
                ..
            } => {
                let kept = if *kept > 0 {
                    format!(", {} of it already here", size(*kept))
                } else {
                    String::new()
                };
                write(&format!(
                    "layer {}/{} {} {}{kept}\n",
                    self.finished + 1,
                    self.layers,
                    short(digest),
                    size(*bytes)
                ));
            }
            Event::Note(text) => self.note(Level::Info, text),
            Event::Stage { doing, total } if matches!(*doing, "checking" | "hashing") => {
                self.stage(doing);
                self.quiet = Some((Instant::now(), format!("{doing} {}\n", size(*total))));
                return;
            }
            Event::Stage { doing, total } => {
                self.stage(doing);
                write(&format!("{doing} {}\n", size(*total)));
            }
            // Events of a later library are ignored.
            _ => return,
        }
        self.last = Some(Instant::now());
    }

    fn json(&mut self, event: &Event) {
        let line = match event {
            Event::Started { total, layers } => {
                format!(r#"{{"event":"started","total":{total},"layers":{layers}}}"#)
            }
            Event::Progress {
                done,
                total,
                downloaded,
                ..
            } => {
                // For programs, once a second and at the end is enough.
                if done < total
                    && self
                        .last
                        .is_some_and(|last| last.elapsed() < Duration::from_secs(1))
                {
                    return;
                }
                self.last = Some(Instant::now());
                let rate = self.rate(*done);
                format!(
                    r#"{{"event":"progress","done":{done},"total":{total},"downloaded":{downloaded},"rate":{rate}}}"#
                )
            }
            Event::Layer {
                layer,
                digest,
                size,
                kept,
            } => {
                format!(
                    r#"{{"event":"layer","layer":{layer},"digest":"{digest}","size":{size},"kept":{kept}}}"#
                )
            }
            Event::Note(text) => return self.note(Level::Info, text),
            Event::Stage { doing, total } => {
                self.stage(doing);
                format!(r#"{{"event":"stage","doing":"{doing}","total":{total}}}"#)
            }
            Event::Finishing => r#"{"event":"finishing"}"#.to_owned(),
            _ => return,
        };
        write(&(line + "\n"));
    }

    fn bar(&mut self, event: &Event) {
        match event {
            Event::Started { layers, .. } => self.layers = *layers,
            Event::Progress {
                done,
                total,
                active,
                ..
            } => self.draw(*done, *total, active),
            Event::Note(text) => self.note(Level::Info, text),
            Event::Stage { doing, .. } => self.stage(doing),
            _ => {}
        }
    }

    /// Counting starts again from zero.
    fn stage(&mut self, doing: &'static str) {
        self.quiet = None;
        self.doing = Some(doing);
        self.marks.clear();
        self.last = None;
    }

    fn draw(&mut self, done: u64, total: u64, active: &[LayerProgress]) {
        let (width, height) = terminal();
        let mut lines = Vec::new();
        for layer in active.iter().take(height.saturating_sub(2).min(16)) {
            let name = short(&layer.digest);
            let forms = [
                row(&name, layer.done, layer.size, width),
                format!("{name} {:>3} %", percent(layer.done, layer.size)),
                format!("{} %", percent(layer.done, layer.size)),
            ];
            lines.push(fit(&forms, width));
        }
        let rate = self.rate(done);
        lines.push(fit(&self.summary(done, total, rate, width), width));
        self.show(lines);
    }

    /// Replaces the bar's lines, with a wait below them.
    fn show(&mut self, mut lines: Vec<String>) {
        if !self.waiting.is_empty() {
            lines.push(fit(std::slice::from_ref(&self.waiting), terminal().0));
        }
        let mut out = self.clear();
        for line in &lines {
            let _ = writeln!(out, "{line}");
        }
        self.shown = lines.iter().map(|line| line.chars().count()).collect();
        write(&out);
    }

    /// The overall progress, in versions of decreasing length.
    fn summary(&self, done: u64, total: u64, rate: u64, width: usize) -> [String; 4] {
        let what = match self.doing {
            Some(doing) => doing.to_owned(),
            None => format!("{}/{}", self.finished, count(self.layers, "layer")),
        };
        let percent = percent(done, total);
        let (speed, left) = pace(done, total, rate);
        [
            format!("{}{speed}{left}", row(&what, done, total, width)),
            format!("{what}  {percent} %{left}"),
            format!("{percent} %{speed}"),
            format!("{percent} %"),
        ]
    }

    fn clear(&mut self) -> String {
        match rows(&std::mem::take(&mut self.shown), terminal().0) {
            0 => String::new(),
            // Moves to the bar's first line and clears to the end of the screen. A typed key such
            // as ^C has moved the cursor from the start of the line.
            rows => format!("\r\x1b[{rows}A\x1b[J"),
        }
    }

    fn rate(&mut self, done: u64) -> u64 {
        let now = Instant::now();
        self.marks.retain(|(then, _)| now - *then < WINDOW);
        self.marks.push((now, done));
        let (then, before) = self.marks[0];
        let seconds = (now - then).as_secs_f64();
        if seconds < 0.2 {
            0
        } else {
            (done.saturating_sub(before) as f64 / seconds) as u64
        }
    }
}

fn write(text: &str) {
    // Ignored: standard error may be closed.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn terminal() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// The rows that lines take: a narrowed terminal has rewrapped them.
fn rows(lines: &[usize], width: usize) -> usize {
    lines
        .iter()
        .map(|line| line.div_ceil(width.max(1)).max(1))
        .sum()
}

/// The start of each line, and the text after the last bar.
const HEAD: usize = 36;
const TAIL: usize = 25;

/// A name, its progress, and a bar that leaves room for the text after it, with the same width in
/// each line.
fn row(name: &str, done: u64, total: u64, width: usize) -> String {
    let text = format!("{name:<14}{:>9} of {:>9}", size(done), size(total));
    let room = width.saturating_sub(1 + HEAD + 3 + TAIL).min(40);
    if room < 8 {
        return text;
    }
    let full = (done.min(total) as u128 * room as u128)
        .checked_div(total.into())
        .unwrap_or(room as u128) as usize;
    format!("{text} [{}{}]", "#".repeat(full), " ".repeat(room - full))
}

/// The first text that fits. The last column stays free: some terminals wrap once it is written.
fn fit(texts: &[String], width: usize) -> String {
    let most = width.saturating_sub(1);
    let fits = texts.iter().find(|text| text.chars().count() <= most);
    let text = fits.or(texts.last()).map_or("", String::as_str);
    text.chars().take(most).collect()
}

/// Rate and remaining time, if something arrives.
fn pace(done: u64, total: u64, rate: u64) -> (String, String) {
    if rate == 0 {
        return Default::default();
    }
    let left = time((total - done.min(total)) / rate);
    (format!("  {}/s", size(rate)), format!(", {left} left"))
}

/// Rounded down: 100 means done.
fn percent(done: u64, total: u64) -> u64 {
    (done.min(total) as u128 * 100)
        .checked_div(total.into())
        .unwrap_or(100) as u64
}

fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

/// A human-readable size, in powers of ten, as registries and disks count.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" {
                format!("{bytes} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

fn time(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_bars_fit() {
        assert_eq!(
            [0, 999, 1000, 999_400, 106_000_000, 5_000_000_000_000].map(size),
            ["0 B", "999 B", "1.0 kB", "999.4 kB", "106.0 MB", "5.0 TB"]
        );
        assert_eq!(
            [(0, 0), (0, 9), (8, 9), (9, 9), (10, 9)].map(|(a, b)| percent(a, b)),
            [100, 0, 88, 100, 100]
        );
        let one = Progress {
            layers: 1,
            ..Progress::new(Mode::Bar)
        };
        assert_eq!(one.summary(5, 9, 0, 20)[1], "0/1 layer  55 %");
        let progress = Progress {
            layers: 12,
            finished: 3,
            ..Progress::new(Mode::Bar)
        };
        for width in [0, 1, 5, 10, 20, 40, 80, 200] {
            for (done, total) in [(0, 100), (50_000_000, 106_000_000), (u64::MAX, u64::MAX)] {
                for rate in [0, 1, 12_300_000] {
                    let line = fit(&progress.summary(done, total, rate, width), width);
                    assert!(line.len() < width.max(1), "{width}: {line:?}");
                }
            }
        }
        let at = |width| {
            fit(
                &progress.summary(53_000_000, 106_000_000, 5_300_000, width),
                width,
            )
        };
        assert_eq!(
            at(80),
            "3/12 layers     53.0 MB of  106.0 MB [#######        ]  5.3 MB/s, 10 s left"
        );
        assert_eq!(
            at(60),
            "3/12 layers     53.0 MB of  106.0 MB  5.3 MB/s, 10 s left"
        );
        assert_eq!(at(40), "3/12 layers  50 %, 10 s left");
        assert_eq!(at(20), "50 %  5.3 MB/s");
        assert_eq!(at(8), "50 %");
        assert_eq!(at(4), "50 ");
        assert_eq!(
            row("0123456789ab", 1, 0, 72),
            "0123456789ab        1 B of       0 B"
        );
        assert_eq!(
            row("0123456789ab", 1, 0, 73),
            "0123456789ab        1 B of       0 B [########]"
        );
    }

    #[test]
    fn the_bar_is_taken_away_from_a_narrower_terminal_too() {
        assert_eq!(rows(&[], 80), 0);
        assert_eq!(rows(&[79, 0, 40], 80), 3);
        assert_eq!(rows(&[79, 0, 40], 40), 4);
        assert_eq!(rows(&[79, 40], 20), 6);
        assert_eq!(rows(&[3], 0), 3);
    }
}
