//! The build script: the commit and date that the program reports. They come from the environment
//! (`DOCKERSAVE_COMMIT`, `SOURCE_DATE_EPOCH`; make and the recipes set them), or else, as for
//! `cargo install`, from the package's files. Neither git nor the clock is used: the same package
//! gives the same program.

use std::env;
use std::fs;
use std::io::{self, Write};

#[allow(dead_code)]
#[path = "time.rs"]
mod time;

fn main() -> io::Result<()> {
    let commit = set("DOCKERSAVE_COMMIT").or_else(commit);
    let date = set("SOURCE_DATE_EPOCH").or_else(date);
    let seconds = date.as_ref().and_then(|date| date.parse().ok());
    let day = time::date(seconds.unwrap_or(0));
    let mut out = io::stdout().lock();
    for file in ["Cargo.toml", "src/build.rs", "src/time.rs"] {
        writeln!(out, "cargo::rerun-if-changed={file}")?;
    }
    // For the manual page.
    writeln!(out, "cargo::rustc-env=DOCKERSAVE_DATE={day}")?;
    for (name, value) in [("DOCKERSAVE_COMMIT", commit), ("SOURCE_DATE_EPOCH", date)] {
        writeln!(out, "cargo::rerun-if-env-changed={name}")?;
        if let Some(value) = value {
            writeln!(out, "cargo::rustc-env={name}={value}")?;
        }
    }
    Ok(())
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The first digits of the commit that cargo recorded in the package.
fn commit() -> Option<String> {
    let noted = fs::read_to_string(".cargo_vcs_info.json").ok()?;
    let (_, rest) = noted.split_once("\"sha1\": \"")?;
    let commit = rest.get(..12)?;
    commit
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| commit.to_owned())
}

/// The date in Cargo.toml, in seconds since 1970.
fn date() -> Option<String> {
    let manifest = fs::read_to_string("Cargo.toml").ok()?;
    let (_, rest) = manifest.split_once("\n[package.metadata.release]\ndate = \"")?;
    let (date, _) = rest.split_once('"')?;
    let mut parts = date.splitn(3, '-').map(|part| part.parse().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    time::from_civil(year, month, day, 0, 0, 0).map(|seconds| seconds.to_string())
}
