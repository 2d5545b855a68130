//! The text of `-h`, `--help` and `--version`. What the manual page shares is data here;
//! [`super::man`] lays it out.

use super::flags::{FLAGS, Flag, GROUPS};
use std::fmt::Write as _;

pub(super) const USAGE: &str = "[FLAGS] [IMAGE...]";

pub(super) const WHAT: &str =
    "Downloads a container image from its registry straight into a tar that docker load takes.";

/// What to know besides the flags, one paragraph each.
pub(super) const NOTES: &[&str] = &[
    "IMAGE is a name as Docker takes it: debian, debian:12, ghcr.io/o/r:t, host:5000/r@sha256:... Each image goes into an archive of its own, or all go into the one named by --output or --tarname. If one of several archives fails, the others are still made, and the exit status is the first of 6, 7, 1, 2, 3, 4, 5 that occurred. Standard output carries the archive's path or what was asked for; progress and messages go to standard error, without colours. A bar is drawn only on a terminal, and not if TERM is dumb.",
    "To resume an interrupted download, run the same command again. An archive that is already what is requested is left unchanged, with its time.",
];

/// Example command lines without the program's name, and their purpose.
pub(super) const EXAMPLES: &[(&str, &str)] = &[
    ("debian", "library-debian-latest.tar"),
    (
        "ghcr.io/owner/app:1.2 -o app.tar",
        "choose the archive's path",
    ),
    (
        "ghcr.io/o/app:1 --as lan:5000/app:1",
        "a new name in the archive",
    ),
    ("--arch arm64 alpine:3.20", "for another machine"),
    ("debian alpine", "two archives"),
    ("debian alpine -o both.tar", "each layer once"),
    ("debian -o - | docker load", "without disk"),
    ("--from images.txt --lock images.lock", "a list, pinned"),
    (
        "--user me --password-stdin registry.example/app < password",
        "",
    ),
    ("--insecure localhost:5000/app", "plain HTTP"),
    ("--base old.tar debian", "only what old.tar lacks"),
    ("--tags debian", "list the tags"),
    ("--dry-run debian", "what it would download"),
];

pub(super) const STATUSES: &[(u8, &str)] = &[
    (0, "done"),
    (
        1,
        "other failure, such as a malformed document or an untrusted certificate",
    ),
    (2, "usage error"),
    (3, "access denied: missing or wrong credentials"),
    (4, "no such image, tag or platform"),
    (5, "network failure: run it again, what arrived is kept"),
    (
        6,
        "digest or size mismatch, missing signature, or --verify found a defect",
    ),
    (7, "disk or output failure; a closed pipe gives no message"),
    (
        8,
        "--verify found no defect, but did not inflate some layers",
    ),
    (9, "a thin archive needs layers that no --base has"),
    (10, "--check found that a renewal would change the lock"),
];

fn head(flag: &Flag) -> String {
    let short = flag
        .short
        .map_or("    ".to_owned(), |short| format!("-{short}, "));
    format!("  {short}--{}{}", flag.long, flag.shown_value())
}

pub(super) fn text(long: bool) -> String {
    let mut out = format!("Usage: dockersave {USAGE}\n\n{}\n\n", wrap(WHAT, 0));
    for (number, group) in GROUPS.iter().enumerate() {
        let _ = writeln!(out, "{group}:");
        for flag in FLAGS.iter().filter(|flag| flag.group == number) {
            let head = head(flag);
            if long {
                let _ = writeln!(out, "{head}\n{}", wrap(flag.line, 10));
                if !flag.more.is_empty() {
                    let _ = writeln!(out, "{}", wrap(flag.more, 10));
                }
            } else if head.len() <= 32 {
                let _ = writeln!(out, "{head:<33}{}", wrap(flag.line, 33).trim_start());
            } else {
                let _ = writeln!(out, "{head}\n{}", wrap(flag.line, 33));
            }
        }
        out.push('\n');
    }
    if long {
        end(&mut out);
    } else {
        out.push_str("--help prints more, with examples and exit statuses.\n");
    }
    out
}

fn end(out: &mut String) {
    out.push_str("Examples:\n");
    for (command, what) in EXAMPLES {
        let line = format!("  dockersave {command:<36}{what}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
    for note in NOTES {
        let _ = writeln!(out, "\n{}", wrap(note, 0));
    }
    out.push_str("\nExit status:\n");
    for (status, what) in STATUSES {
        let _ = writeln!(out, "  {status}  {what}");
    }
}

pub(super) fn wrap(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut width = 80;
    for word in text.split(' ') {
        if width + 1 + word.len() > 79 {
            let _ = write!(
                out,
                "{}{:indent$}{word}",
                if out.is_empty() { "" } else { "\n" },
                ""
            );
            width = indent + word.len();
        } else {
            let _ = write!(out, " {word}");
            width += 1 + word.len();
        }
    }
    out
}

pub(super) fn version() -> String {
    let target = option_env!("DOCKERSAVE_TARGET").unwrap_or(std::env::consts::ARCH);
    let commit = option_env!("DOCKERSAVE_COMMIT").unwrap_or("unknown");
    format!(
        "dockersave {} ({target}, commit {commit})\n",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_every_flag_within_80_columns() {
        let text = text(true);
        for flag in FLAGS {
            assert!(text.contains(&format!("--{}", flag.long)));
        }
        for line in text.lines().chain(super::text(false).lines()) {
            assert!(line.len() <= 79, "{line:?} is too long");
        }
        for (number, group) in GROUPS.iter().enumerate() {
            assert!(text.contains(&format!("\n{group}:\n")));
            assert!(FLAGS.iter().any(|flag| flag.group == number), "{group}");
        }
        // No flag beside those of the table.
        let heads = text
            .lines()
            .filter(|line| line.starts_with("  -") || line.starts_with("      -"));
        assert_eq!(heads.count(), FLAGS.len());
    }
}
