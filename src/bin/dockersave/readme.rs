//! Test only: the README's tables of flags and statuses. With DOCKERSAVE_UPDATE=1 the test writes
//! them instead of comparing.

use super::flags::{FLAGS, GROUPS};
use super::help::STATUSES;
use std::fmt::Write as _;

const README: &str = include_str!("../../../README.md");

fn flags() -> String {
    let mut out = String::from("| flag | what it does |\n|---|---|\n");
    for (number, group) in GROUPS.iter().enumerate() {
        let _ = writeln!(out, "| **{group}** | |");
        for flag in FLAGS.iter().filter(|flag| flag.group == number) {
            let short = flag.short.map_or(String::new(), |s| format!("`-{s}`, "));
            let value = flag.shown_value();
            let line = cell(flag.line);
            let _ = writeln!(out, "| {short}`--{}{value}` | {line} |", flag.long);
        }
    }
    out
}

fn statuses() -> String {
    let mut out = String::from("| exit status | meaning |\n|---|---|\n");
    for (status, what) in STATUSES {
        let _ = writeln!(out, "| {status} | {} |", cell(what));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The text between two marks.
fn between<'t>(text: &'t str, name: &str) -> &'t str {
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let rest = text.split_once(&begin).unwrap().1;
    rest.split_once(&end).unwrap().0
}

#[test]
fn the_readmes_tables_are_those_of_the_program() {
    let mut text = README.to_owned();
    for (name, table) in [("flags", flags()), ("statuses", statuses())] {
        let found = between(README, name);
        text = text.replace(found, &table);
        if std::env::var_os("DOCKERSAVE_UPDATE").is_none() {
            assert_eq!(
                found, table,
                "DOCKERSAVE_UPDATE=1 cargo test --bin dockersave readme writes it anew"
            );
        }
    }
    if std::env::var_os("DOCKERSAVE_UPDATE").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"), text).unwrap();
    }
}
