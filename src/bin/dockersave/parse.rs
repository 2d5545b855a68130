//! argv → [`Low`]: one loop over the flag table. No file is opened and no environment read here.

use super::error::{Error, Result};
use super::flags::{AGAIN, FLAGS, Flag, Help, Low, Value};
use lexopt::Arg;
use std::ffi::{OsStr, OsString};

pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Low> {
    let mut parser = lexopt::Parser::from_iter(args);
    let mut low = Low::default();
    loop {
        let mut alone = false;
        let flag = match parser.next() {
            Ok(None) => return Ok(low),
            Err(lexopt::Error::UnexpectedValue { option, .. }) => {
                return Err(usage(
                    "the command line",
                    format!("{option} takes no value"),
                ));
            }
            Err(error) => return Err(usage("the command line", error.to_string())),
            Ok(Some(Arg::Value(value))) => {
                let text = value
                    .into_string()
                    .map_err(|_| usage("the image's name", "is not UTF-8"))?;
                low.images.push(text);
                continue;
            }
            Ok(Some(Arg::Short('h'))) => {
                low.help = Some(Help::Short);
                continue;
            }
            Ok(Some(Arg::Short(short))) => match find(|flag| flag.short == Some(short)) {
                Some(flag) => flag,
                None => {
                    let rest = parser.optional_value().unwrap_or_default();
                    return Err(unknown_short(short, &rest.to_string_lossy()));
                }
            },
            Ok(Some(Arg::Long(long))) => {
                let long = long.to_owned();
                alone = true;
                find(|flag| flag.long == long).ok_or_else(|| unknown(&long))?
            }
        };
        let name = format!("--{}", flag.long);
        let value = match flag.value {
            Some(_) if flag.is_optional() => parser.optional_value().unwrap_or_default(),
            Some(what) => parser
                .value()
                .map_err(|_| usage(&name, format!("needs a value, {what}")))?,
            None => OsString::new(),
        };
        if !flag.choices.is_empty() && !flag.choices.iter().any(|choice| value == *choice) {
            return Err(usage(
                &name,
                format!("{value:?} is not one of {}", flag.choices.join(", ")),
            ));
        }
        if AGAIN.contains(&flag.group) {
            repeat(&mut low.again, flag, &value);
        }
        (flag.update)(&mut low, Value(value)).map_err(|why| usage(&name, why))?;
        // A short flag without a value is followed by the next one: -qv.
        if alone
            && flag.value.is_none()
            && let Some(extra) = parser.optional_value()
        {
            // The value is not shown: it may be a password given to --password-stdin.
            drop(extra);
            return Err(usage(&name, "takes no value"));
        }
    }
}

fn usage(what: &str, why: impl Into<String>) -> Error {
    Error::usage(what, why)
}

fn find(fits: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| fits(flag))
}

/// Appends a flag as typed; a password is replaced by `--password-stdin`.
fn repeat(again: &mut String, flag: &Flag, value: &OsStr) {
    again.push_str(" --");
    if flag.long == "password" {
        return again.push_str("password-stdin");
    }
    again.push_str(flag.long);
    if !value.is_empty() {
        again.push_str(if flag.is_optional() { "=" } else { " " });
        let text = value.to_string_lossy();
        let plain = |c: char| c.is_alphanumeric() || "-_./:=,@+%[]".contains(c);
        match text.chars().all(plain) {
            true => again.push_str(&text),
            false => again.push_str(&format!("'{}'", text.replace('\'', r"'\''"))),
        }
    }
}

/// Perhaps a long flag with one hyphen. The text after the letter is not shown: it may be a value.
fn unknown_short(short: char, rest: &str) -> Error {
    let long = format!("{short}{rest}");
    let hint = match find(|flag| flag.long == long) {
        Some(flag) => format!("no such flag; did you mean --{}?", flag.long),
        None => "no such flag; see --help".to_owned(),
    };
    usage(&format!("-{short}"), hint)
}

fn unknown(long: &str) -> Error {
    let begins = |flag: &&Flag| long.len() > 1 && flag.long.starts_with(long);
    let begun: Vec<String> = FLAGS
        .iter()
        .filter(begins)
        .map(|flag| format!("--{}", flag.long))
        .collect();
    if !begun.is_empty() {
        let hint = format!("no such flag; did you mean {}?", begun.join(" or "));
        return usage(&format!("--{long}"), hint);
    }
    let near = FLAGS
        .iter()
        .map(|flag| (distance(long, flag.long), flag.long))
        .min();
    let hint = match near {
        Some((distance, near)) if distance <= 1 + long.len() / 4 => {
            format!("no such flag; did you mean --{near}?")
        }
        _ => "no such flag; see --help".to_owned(),
    };
    usage(&format!("--{long}"), hint)
}

/// How many letters to insert, remove or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn low(args: &[&str]) -> Result<Low> {
        parse(
            std::iter::once("dockersave")
                .chain(args.iter().copied())
                .map(OsString::from),
        )
    }

    #[test]
    fn values_come_with_and_without_an_equals_sign() {
        for args in [
            &["--jobs=3", "debian"][..],
            &["debian", "--jobs", "3"],
            &["-j3", "debian"],
            &["-j", "3", "--", "debian"],
            &["-vj3", "debian"],
        ] {
            let low = low(args).unwrap();
            assert_eq!(
                (low.jobs, low.images.as_slice()),
                (Some(3), ["debian".to_owned()].as_slice())
            );
        }
        assert_eq!(
            low(&["--arch", "arm"])
                .unwrap()
                .platform
                .unwrap()
                .to_string(),
            "linux/arm/v7"
        );
    }

    #[test]
    fn a_flag_with_an_optional_value_takes_no_word_behind_it() {
        let low = low(&[
            "--insecure",
            "--insecure=H:5000",
            "debian",
            "--user",
            "h.x=a=b",
        ])
        .unwrap();
        assert!(low.insecure);
        assert_eq!(low.insecure_hosts, ["h:5000"]);
        assert_eq!(low.images, ["debian"]);
        assert_eq!(low.users, [(Some("h.x".to_owned()), "a=b".to_owned())]);
        assert_eq!(low.again, " --insecure --insecure=H:5000 --user h.x=a=b");
        let plain = super::tests::low(&["--user", "a=b", "--password", "hunter2"]).unwrap();
        assert_eq!(plain.users, [(None, "a=b".to_owned())]);
        assert_eq!(plain.again, " --user a=b --password-stdin");
        let quoted = super::tests::low(&["--cacert", "my ca's.pem"]).unwrap();
        assert_eq!(quoted.again, r" --cacert 'my ca'\''s.pem'");
    }

    #[test]
    fn wrong_flags_are_told_and_the_nearest_is_suggested() {
        for (args, part) in [
            (&["--tarnam", "x"][..], "did you mean --tarname?"),
            (&["--frobnicate"], "see --help"),
            (&["--insec"], "did you mean --insecure?"),
            (&["--meta=x"], "did you mean --metadata?"),
            (&["--pass"], "did you mean --password or --password-stdin?"),
            (&["-insecure"], "did you mean --insecure?"),
            (&["--insecure=docker.io"], "HTTPS only"),
            (&["--insecure=nas"], "not a registry such as"),
            (&["--user", "a", "--user", "b"], "--user HOST=NAME"),
            (
                &["--user", "h:1=a", "--user", "h:1=b"],
                "already has a user",
            ),
            (&["--user", "ghcr.io="], "needs a name"),
            (&["--as", "x@sha256:0"], "--as:"),
            (
                &["--jobs", "0"],
                "--jobs: \"0\" is not a number from 1 to 64",
            ),
            (&["--jobs"], "--jobs: needs a value, N"),
            (&["--restart=yes"], "takes no value"),
            (&["-q=yes"], "the command line"),
            (&["--progress", "x"], "not one of auto, bar"),
            (&["--tags", "--sha"], "only one query"),
            (&["-x"], "-x: no such flag"),
        ] {
            let error = low(args).unwrap_err();
            assert!(
                error.status() == 2 && error.to_string().contains(part),
                "{error}"
            );
        }
    }
}
