//! Lists of images from files: a plain list, a compose file, a Kubernetes manifest, a lock.
//!
//! A file is read as a whole before the first request; a line that cannot be read is named, and
//! nothing is pulled.

pub(super) mod lock;
mod yaml;

use super::error::{Error, Result};
use super::names;
use super::place::Wanted;
use dockersave::{Platform, text};
use std::fs::File;
use std::io::{Error as IoError, Read};
use std::path::Path;

/// The largest file, the longest line in bytes, and the most images.
const LARGEST: u64 = 1 << 20;
const LONGEST: usize = 4096;
pub(super) const MOST: usize = 1000;

/// What a file lists.
pub(super) struct List {
    pub images: Vec<Wanted>,
    /// The flags that a lock was made with; `None` if it is none.
    pub options: Option<String>,
}

/// Reads a file; `-` is standard input.
pub(super) fn read(path: &Path, notes: &mut Vec<String>) -> Result<List> {
    let name = match path == Path::new("-") {
        true => "standard input".to_owned(),
        false => text::printable(&path.to_string_lossy(), 200),
    };
    let content =
        content(path).map_err(|error| Error::input(Path::new(&name), "reading", error))?;
    let content = content.strip_prefix('\u{feff}').unwrap_or(&content);
    let wrong = |(line, why): (usize, String)| Error::usage(format!("{name}, line {line}"), why);
    if let Some((line, _)) = (1..)
        .zip(content.lines())
        .find(|(_, line)| line.len() > LONGEST)
    {
        return Err(wrong((line, format!("is longer than {LONGEST} bytes"))));
    }
    let mut found = Vec::new();
    let mut options = None;
    if lock::is_lock(content) {
        let lock = lock::parse(content).map_err(wrong)?;
        options = Some(lock.options);
        let image = |(line, row): (usize, lock::Row)| Wanted {
            name: row.name.clone(),
            file: Some(row.archive.clone()),
            reference: row.reference.clone(),
            platform: None,
            origin: format!("{name}, line {line}"),
            locked: Some(Box::new(row)),
        };
        found.extend(lock.rows.into_iter().map(image));
    } else if yaml::is_yaml(content) {
        for one in yaml::images(content).map_err(wrong)? {
            let place = format!("{name}, line {}", one.line);
            let mut wanted = image(&one.image, place, notes)?;
            if let Some(text) = one.platform {
                let platform = text.parse::<Platform>();
                let why = |error: dockersave::Error| wrong((one.line, error.to_string()));
                wanted.platform = Some(platform.map_err(why)?);
            }
            found.push(wanted);
        }
    } else {
        for (number, line) in (1..).zip(content.lines()) {
            let mut words = line
                .split_whitespace()
                .take_while(|word| !word.starts_with('#'));
            let Some(first) = words.next() else {
                continue;
            };
            let mut wanted = image(first, format!("{name}, line {number}"), notes)?;
            for word in words {
                add(&mut wanted, word).map_err(|why| wrong((number, why)))?;
            }
            found.push(wanted);
        }
    }
    match found.len() {
        0 => Err(Error::usage(name, "names no image")),
        1..=MOST => Ok(List {
            images: found,
            options,
        }),
        many => Err(Error::usage(
            name,
            format!("names {many} images; at most {MOST} are supported"),
        )),
    }
}

/// A file's text; `-` is standard input.
pub(super) fn content(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().take(LARGEST + 1).read_to_end(&mut bytes),
        // A pipe of the shell is a file, too.
        false => File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes),
    };
    if read? as u64 > LARGEST {
        return Err(IoError::other("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| IoError::other("it is not UTF-8"))
}

fn image(typed: &str, origin: String, notes: &mut Vec<String>) -> Result<Wanted> {
    match names::reference(typed, notes) {
        Ok(reference) => Ok(Wanted::new(reference, origin)),
        Err(error) => Err(Error::usage(origin, error.to_string())),
    }
}

/// What stands behind an image: a platform, or the archive's name.
fn add(wanted: &mut Wanted, word: &str) -> std::result::Result<(), String> {
    let shown = text::printable(word, 100);
    if word.ends_with(".tar") || word.ends_with(".tar.xz") {
        if !is_file_name(word) {
            return Err(format!("{shown} is not a file name"));
        }
        return match wanted.file.replace(word.to_owned()) {
            Some(_) => Err(format!("{shown} is a second file name")),
            None => Ok(()),
        };
    }
    let os = ["linux/", "windows/", "freebsd/", "darwin/"];
    let platform = word.parse::<Platform>();
    match platform
        .ok()
        .filter(|_| os.iter().any(|os| word.starts_with(os)))
    {
        Some(platform) => match wanted.platform.replace(platform) {
            Some(_) => Err(format!("{shown} is a second platform")),
            None => Ok(()),
        },
        None => Err(format!(
            "{shown} is neither a platform such as linux/arm64 nor a file name such as app.tar; each image has a line of its own"
        )),
    }
}

/// A name within a directory, fit for a terminal.
pub(super) fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && !name.contains('/')
        && !name.starts_with(['.', '-'])
        && name.len() <= 240
        && text::printable(name, 240) == name
}
