//! The progress bar on terminals of all kinds: an emulator of our own reads what the program
//! writes.

use crate::cli::on_a_terminal;
use crate::registry::Registry;
use crate::registry::image::{Blob, Image};
use crate::util::Dir;

/// A terminal of some width.
#[derive(Default)]
struct Screen {
    width: usize,
    lines: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// A line went on in the next row.
    wrapped: bool,
    /// The most rows that were gone up at once.
    up: usize,
    /// Sequences that a simple terminal does not know.
    strange: Vec<String>,
    /// Every line that was ever shown.
    seen: Vec<String>,
}

impl Screen {
    fn show(width: usize, text: &str) -> Self {
        let mut screen = Self {
            width,
            ..Self::default()
        };
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\n' => {
                    screen.seen.push(screen.line(screen.row));
                    screen.row += 1;
                }
                '\r' => screen.column = 0,
                '\x1b' => {
                    let mut sequence = String::new();
                    for c in rest.by_ref() {
                        sequence.push(c);
                        if c.is_ascii_alphabetic() {
                            break;
                        }
                    }
                    screen.control(&sequence);
                }
                c => screen.put(c),
            }
        }
        screen
    }

    fn control(&mut self, sequence: &str) {
        let number = |last: char| sequence.strip_prefix('[')?.strip_suffix(last)?.parse().ok();
        if let Some(rows) = number('A') {
            self.up = self.up.max(rows);
            self.row = self.row.saturating_sub(rows);
        } else if sequence == "[J" {
            self.lines.truncate(self.row + 1);
            if let Some(line) = self.lines.get_mut(self.row) {
                line.truncate(self.column);
            }
        } else {
            self.strange.push(sequence.to_owned());
        }
    }

    fn put(&mut self, c: char) {
        if self.column == self.width {
            self.wrapped = true;
            self.column = 0;
            self.row += 1;
        }
        if self.lines.len() <= self.row {
            self.lines.resize(self.row + 1, Vec::new());
        }
        let line = &mut self.lines[self.row];
        line.resize(line.len().max(self.column + 1), ' ');
        line[self.column] = c;
        self.column += 1;
    }

    fn line(&self, row: usize) -> String {
        self.lines
            .get(row)
            .map(|line| line.iter().collect())
            .unwrap_or_default()
    }

    fn text(&self) -> Vec<String> {
        let lines = (0..self.lines.len()).map(|row| self.line(row));
        lines.filter(|line| !line.is_empty()).collect()
    }
}

fn served() -> (Registry, Dir, String) {
    let registry = Registry::start();
    let layers = (0..4).map(|seed| Blob::layer(seed, 200_000 + seed as usize * 100_000));
    Image::new(layers.collect()).push(&registry, "ns/app", "1.0");
    registry.pace(800_000);
    let name = registry.name("ns/app:1.0");
    (registry, Dir::new(), name)
}

#[test]
fn the_bar_fits_and_goes_on_terminals_of_every_width() {
    let (_registry, dir, name) = served();
    for (columns, rows, width) in [
        (80, 24, 80),
        (40, 24, 40),
        (20, 24, 20),
        (7, 24, 7),
        (0, 0, 80),
        (80, 3, 80),
        (80, 1, 80),
    ] {
        let command =
            format!("stty cols {columns} rows {rows}; DOCKERSAVE --insecure --restart -o x {name}");
        // An archive that is already there would not be pulled again.
        let _ = std::fs::remove_file(dir.join("x"));
        let Some(shown) = on_a_terminal(&dir, &command, "") else {
            return;
        };
        let screen = Screen::show(width, &shown);
        let what = format!("{columns} columns, {rows} rows: {:#?}", screen.seen);
        assert!(!screen.wrapped && screen.strange.is_empty(), "{what}");
        assert!(
            screen
                .seen
                .iter()
                .any(|line| line.contains("100 %") || line.contains("4/4 layers")),
            "{what}"
        );
        assert!(
            screen.seen.iter().all(|line| line.chars().count() < width),
            "{what}"
        );
        let height = if rows == 0 { 24 } else { rows };
        assert!(
            screen.up > 0 && screen.up < height.max(2),
            "{} {what}",
            screen.up
        );
        // The bar is gone, and only the path is left.
        assert_eq!(screen.text(), ["x"], "{what}");
    }
}

#[test]
fn a_wide_terminal_shows_bars_rates_and_layers() {
    let (_registry, dir, name) = served();
    let command = format!("stty cols 80 rows 24; DOCKERSAVE --insecure {name}");
    let Some(shown) = on_a_terminal(&dir, &command, "") else {
        return;
    };
    let screen = Screen::show(80, &shown);
    let with = |part: &str| screen.seen.iter().any(|line| line.contains(part));
    for part in [
        "[##",
        "/4 layers ",
        " of    1.4 MB",
        "B/s, ",
        " s left",
        " of  501.9 kB",
    ] {
        assert!(with(part), "{part}: {:#?}", screen.seen);
    }
}

#[test]
fn colours_are_not_used_whatever_no_color_says() {
    let (_registry, dir, name) = served();
    for environment in [
        "NO_COLOR=1",
        "NO_COLOR=",
        "CLICOLOR_FORCE=1 COLORTERM=truecolor",
    ] {
        for rest in [
            format!("--insecure --restart -v {name}"),
            "--help".into(),
            "--nonsense".into(),
        ] {
            let command = format!("{environment} DOCKERSAVE {rest}");
            let Some(shown) = on_a_terminal(&dir, &command, "") else {
                return;
            };
            let screen = Screen::show(1000, &shown);
            assert!(screen.strange.is_empty(), "{command}: {:?}", screen.strange);
        }
    }
}

#[test]
fn a_dumb_terminal_gets_lines() {
    let (_registry, dir, name) = served();
    for (environment, moves) in [
        ("TERM=dumb", false),
        ("TERM=", false),
        ("env -u TERM", false),
        ("TERM=vt100", true),
    ] {
        let command = format!("{environment} DOCKERSAVE --insecure --restart {name}");
        let _ = std::fs::remove_file(dir.join("ns-app-1.0.tar"));
        let Some(shown) = on_a_terminal(&dir, &command, "") else {
            return;
        };
        assert_eq!(shown.contains('\x1b'), moves, "{environment}: {shown:?}");
        assert_eq!(
            shown.contains("layer 4/4 "),
            !moves,
            "{environment}: {shown:?}"
        );
        assert!(shown.trim_end().ends_with("ns-app-1.0.tar"), "{shown:?}");
    }
    let _ = std::fs::remove_file(dir.join("ns-app-1.0.tar"));
    // An explicit --progress bar shows one.
    let command = format!("TERM=dumb DOCKERSAVE --insecure --restart --progress bar {name}");
    if let Some(shown) = on_a_terminal(&dir, &command, "") {
        assert!(shown.contains("\x1b[J"), "{shown:?}");
    }
}

#[test]
fn what_is_said_stands_above_the_bar() {
    let (_registry, dir, name) = served();
    let command = format!("stty cols 200 rows 24; DOCKERSAVE --insecure -v {name}");
    let Some(shown) = on_a_terminal(&dir, &command, "") else {
        return;
    };
    let text = Screen::show(200, &shown).text();
    let (path, notes) = text.split_last().unwrap();
    assert_eq!(path, "ns-app-1.0.tar");
    // Six requests, one of them for each layer; nothing of the bar is left among them.
    assert_eq!(notes.len(), 6, "{notes:#?}");
    assert!(
        notes.iter().all(|line| line.starts_with("GET http://")),
        "{notes:#?}"
    );
}

#[test]
fn a_terminal_that_becomes_narrower_gets_shorter_lines() {
    let (registry, dir, name) = served();
    registry.pace(300_000);
    let command = format!(
        "stty cols 80 rows 24; (sleep 0.6; stty cols 30 </dev/tty) & DOCKERSAVE --insecure {name}; wait"
    );
    let Some(shown) = on_a_terminal(&dir, &command, "") else {
        return;
    };
    let lines: Vec<&str> = shown.lines().collect();
    let longest = |lines: &[&str]| lines.iter().map(|line| line.trim_end().len()).max();
    assert!(
        longest(&lines[..2]).is_some_and(|length| length > 50),
        "{shown:?}"
    );
    let (path, bars) = lines.split_last().unwrap();
    assert!(
        longest(&bars[bars.len() - 2..]).is_some_and(|length| length < 30 + 8),
        "{shown:?}"
    );
    assert!(path.ends_with("ns-app-1.0.tar"), "{shown:?}");
}

#[test]
fn an_interrupt_leaves_nothing_of_the_bar() {
    let (registry, dir, name) = served();
    registry.pace(100_000);
    let command = format!("trap : INT; stty cols 80 rows 24; DOCKERSAVE --insecure {name}");
    let Some(shown) = on_a_terminal(&dir, &command, "\u{3}") else {
        return;
    };
    assert!(shown.contains("^C"), "{shown:?}");
    let text = Screen::show(200, &shown).text();
    // The downloaded part of the layers is kept, however small.
    let kept = "dockersave: interrupted; ns-app-1.0.tar.partial is kept: run the same command again to resume";
    assert_eq!(text, [kept], "{shown:?}");
}
