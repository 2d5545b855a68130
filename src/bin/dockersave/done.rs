//! What is told of a finished archive.

use super::answer;
use super::error::Result;
use super::flags::Mode;
use super::json;
use super::progress::Level;
use super::{Shown, lock, print_path};
use dockersave::{Digest, Report};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A finished archive.
pub(super) struct Done {
    pub path: PathBuf,
    pub size: u64,
    pub downloaded: u64,
    pub kept: u64,
    pub unchanged: bool,
    pub sha256: Option<Digest>,
}

impl Done {
    pub fn of(report: Report) -> Self {
        Self {
            path: report.path,
            size: report.size,
            downloaded: report.downloaded,
            kept: report.kept,
            unchanged: report.unchanged,
            sha256: report.sha256,
        }
    }

    /// One that was found to be as a lock says.
    pub fn settled(path: &Path, size: u64, sha256: Digest) -> Self {
        Self {
            path: path.to_owned(),
            size,
            downloaded: 0,
            kept: size,
            unchanged: true,
            sha256: Some(sha256),
        }
    }
}

/// What is told of a finished archive.
pub(super) struct Answer {
    /// Its images, as JSON.
    pub members: String,
    /// What a thin one lacks, as JSON.
    pub missing: Option<String>,
    pub json: bool,
    /// Whether its SHA-256 is wanted.
    pub hashed: bool,
    pub mode: Mode,
}

/// Says on standard error that an archive is finished.
pub(super) fn tell(done: &Done, answer: &Answer, progress: &Shown) {
    // Ends the bar, so that the path is printed below it.
    lock(progress).end();
    if answer.mode == Mode::Json {
        told(done);
    } else if done.unchanged {
        let text = format!("{} is unchanged", done.path.display());
        lock(progress).note(Level::Info, &text);
    }
}

/// Says where an archive is; returns its JSON if that is wanted.
pub(super) fn finished(report: &Done, answer: &Answer, progress: &Shown) -> Result<Option<String>> {
    tell(report, answer, progress);
    if answer.json {
        let sha256 = report.sha256.as_ref().map(Digest::hex);
        let mut object = answer::archive(&report.path, Some(report.size), &answer.members)
            .maybe("sha256", sha256.as_deref())
            .raw("unchanged", if report.unchanged { "true" } else { "false" })
            .number("downloaded", report.downloaded)
            .number("kept", report.kept);
        if let Some(missing) = &answer.missing {
            object = object.raw("missing", missing);
        }
        return Ok(Some(object.finish()));
    }
    print_path(&report.path)?;
    Ok(None)
}

fn told(report: &Done) {
    let path = json::ascii(&report.path.to_string_lossy());
    // Ignored: standard error may be closed.
    let _ = writeln!(
        std::io::stderr(),
        r#"{{"event":"done","path":{path},"size":{},"unchanged":{},"downloaded":{},"kept":{}}}"#,
        report.size,
        report.unchanged,
        report.downloaded,
        report.kept
    );
}
