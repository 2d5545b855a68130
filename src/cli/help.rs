//! The flag table as text: `-h`, `--help`, `--version`.

use super::flags::{FLAGS, Flag, GROUPS};
use std::fmt::Write as _;

const USAGE: &str = "Usage: dockersave [FLAGS] IMAGE...

Downloads a container image from its registry straight into a tar that
docker load takes.

";

const EXAMPLES: &str = "
Examples:
  dockersave debian                        library-debian-latest.tar
  dockersave ghcr.io/owner/app:1.2 -o app.tar
  dockersave --arch arm64 alpine:3.20
  dockersave --user me --password-stdin registry.example/app < password
  dockersave --insecure localhost:5000/app
  dockersave --tags debian

IMAGE is a name as Docker takes it: debian, debian:12, ghcr.io/o/r:t,
host:5000/r@sha256:... Standard output carries the archive's path, or what was
asked for. An interrupted download goes on when the same command runs again.

Exit status: 0 done, 1 other failure, 2 wrong usage, 3 refused (credentials),
4 no such image, tag or platform, 5 network (worth running again: what arrived
is kept), 6 what came is not what was named, 7 the disk or output failed.
";

fn head(flag: &Flag) -> String {
    let short = flag
        .short
        .map_or("    ".to_owned(), |short| format!("-{short}, "));
    let value = flag
        .value
        .map_or(String::new(), |value| format!(" {value}"));
    format!("  {short}--{}{value}", flag.long)
}

pub(super) fn text(long: bool) -> String {
    let mut out = USAGE.to_owned();
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
    out.truncate(out.trim_end().len());
    out.push('\n');
    if long {
        out.push_str(EXAMPLES);
    }
    out
}

fn wrap(text: &str, indent: usize) -> String {
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
        assert!(
            text.lines().all(|line| line.chars().count() <= 79),
            "a line is too long"
        );
    }
}
