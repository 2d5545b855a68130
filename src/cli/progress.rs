//! Events as a person or a program wants them on standard error. Nothing moves where there is no
//! terminal; nothing here knows how a pull works.

use super::flags::Mode;
use crate::{Event, LayerProgress};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// The rate is that of the last few seconds.
const WINDOW: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    mode: Mode,
    layers: usize,
    finished: usize,
    /// Lines of the bar that stand on the terminal.
    shown: usize,
    /// When, and how much had come by then.
    marks: Vec<(Instant, u64)>,
    last: Option<Instant>,
    /// The stage behind the download.
    doing: Option<&'static str>,
}

impl Progress {
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            layers: 0,
            finished: 0,
            shown: 0,
            marks: Vec::new(),
            last: None,
            doing: None,
        }
    }

    pub fn event(&mut self, event: &Event) {
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

    /// A line for people; it goes above a bar.
    pub fn note(&mut self, text: &str) {
        match self.mode {
            Mode::None => {}
            Mode::Json => write(&format!(
                "{{\"event\":\"note\",\"text\":{}}}\n",
                crate::json::quoted(text)
            )),
            _ => {
                let clear = self.clear();
                write(&format!("{clear}{text}\n"));
            }
        }
    }

    /// Takes the bar away.
    pub fn end(&mut self) {
        let clear = self.clear();
        write(&clear);
    }

    fn plain(&mut self, event: &Event) {
        match event {
            Event::Started { total, layers } => {
                self.layers = *layers;
                write(&format!("{layers} layers, {}\n", size(*total)));
            }
            Event::Layer {
                digest,
                size: bytes,
                kept,
                ..
            } => {
                let kept = if *kept > 0 {
                    format!(", {} of it kept", size(*kept))
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
            Event::Note(text) => self.note(text),
            Event::Stage { doing, total } => {
                self.stage(doing);
                write(&format!("{doing} {}\n", size(*total)));
            }
            _ => {}
        }
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
                // Programs do not watch a bar: once a second is enough, and the end.
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
            Event::Note(text) => return self.note(text),
            Event::Stage { doing, total } => {
                self.stage(doing);
                format!(r#"{{"event":"stage","doing":"{doing}","total":{total}}}"#)
            }
            Event::Finishing => r#"{"event":"finishing"}"#.to_owned(),
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
            Event::Note(text) => self.note(text),
            Event::Stage { doing, .. } => self.stage(doing),
            Event::Layer { .. } | Event::Finishing => {}
        }
    }

    /// What is counted from now on is counted from zero.
    fn stage(&mut self, doing: &'static str) {
        self.doing = Some(doing);
        self.marks.clear();
        self.last = None;
    }

    fn draw(&mut self, done: u64, total: u64, active: &[LayerProgress]) {
        let (width, height) = terminal();
        let mut lines = Vec::new();
        for layer in active.iter().take(height.saturating_sub(2).min(16)) {
            let text = format!(
                "{}  {:>9} of {:>9}",
                short(&layer.digest),
                size(layer.done),
                size(layer.size)
            );
            lines.push(with_bar(&text, layer.done, layer.size, width));
        }
        let rate = self.rate(done);
        let left = (total - done.min(total))
            .checked_div(rate)
            .map_or(String::new(), |seconds| format!(", {} left", time(seconds)));
        let what = match self.doing {
            Some(doing) => doing.to_owned(),
            None => format!("{}/{} layers", self.finished, self.layers),
        };
        let text = format!(
            "{what}  {} of {}  {}/s{left}",
            size(done),
            size(total),
            size(rate)
        );
        lines.push(with_bar(&text, done, total, width));
        let mut out = self.clear();
        for line in &lines {
            let _ = writeln!(out, "{line}");
        }
        self.shown = lines.len();
        write(&out);
    }

    fn clear(&mut self) -> String {
        match std::mem::take(&mut self.shown) {
            0 => String::new(),
            // Up to the bar's first line, and clear from there to the screen's end.
            lines => format!("\x1b[{lines}A\x1b[J"),
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
    // Where standard error is closed there is nobody to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn terminal() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

/// The text, and as much of a bar as the line has room for.
fn with_bar(text: &str, done: u64, total: u64, width: usize) -> String {
    let room = width.saturating_sub(text.chars().count() + 4);
    if room < 8 {
        return text.chars().take(width.saturating_sub(1)).collect();
    }
    let room = room.min(40);
    let full = (done.min(total) as u128 * room as u128)
        .checked_div(total.into())
        .unwrap_or(room as u128) as usize;
    format!("{text} [{}{}]", "#".repeat(full), " ".repeat(room - full))
}

fn short(digest: &crate::Digest) -> String {
    digest.hex()[..12].to_owned()
}

/// Bytes for people, in powers of ten, as registries and disks count.
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
        for width in [1, 10, 20, 40, 80, 200] {
            for done in [0, 50, 100, 200] {
                assert!(with_bar("abcdef", done, 100, width).chars().count() < width.max(2));
            }
        }
        assert_eq!(with_bar("a", 1, 0, 20), "a [###############]");
    }
}
