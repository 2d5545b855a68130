//! The verify command: prints one line per defect, or that the archive is sound.

use super::error::{Error, Result, count};
use super::flags::Low;
use super::json::{Object, array, ascii};
use super::progress::size;
use super::{answer, options, print, print_json};
use dockersave::text::printable;
use dockersave::{
    Base, Findings, Missing, WINDOW, partial_path, verify_reader_signed, verify_signed,
};
use std::fmt::Write as _;
use std::io::{ErrorKind, IsTerminal};
use std::path::Path;

pub(super) fn run(path: &Path, low: &Low) -> Result<()> {
    let keys = options::keys(low)?;
    let window = low.inflate_memory.unwrap_or(WINDOW);
    let base = Base::open(&low.base)?;
    let (findings, name) = if path == Path::new("-") {
        let mut stdin = std::io::stdin().lock();
        if stdin.is_terminal() {
            let why = "is standard input, which is a terminal; redirect an archive to it";
            return Err(Error::usage("--verify -", why));
        }
        let name = "standard input".to_owned();
        (
            verify_reader_signed(&mut stdin, &name, window, &keys)?,
            name,
        )
    } else {
        let name = printable(&path.to_string_lossy(), 300);
        let findings =
            verify_signed(path, window, &keys).map_err(|error| absent(error, path, &name))?;
        (findings, name)
    };
    // What the base has is hashed.
    let needed = base.lacks(findings.missing.clone())?;
    match low.json {
        true => print_json(&object(&findings, &needed, &name))?,
        false => print(&lines(&findings, &needed, &name))?,
    }
    match findings.defects.len() {
        0 if !findings.unsigned.is_empty() => Err(unsigned(&findings, name)),
        0 if findings.is_sound() && !needed.is_empty() => {
            Err(Error::Library(dockersave::Error::Thin {
                archive: name,
                layers: needed.len(),
                size: bytes(&needed),
            }))
        }
        0 if findings.is_sound() && findings.compressed > 0 => Err(Error::Uninflated {
            archive: name,
            layers: findings.compressed,
        }),
        0 if findings.is_sound() => Ok(()),
        0 => {
            let what = format!("{name}: no defect found, but not everything could be checked");
            Err(Error::unsupported(what))
        }
        defects => Err(Error::Unsound {
            archive: name,
            defects,
            ours: findings.ours,
        }),
    }
}

fn unsigned(findings: &Findings, archive: String) -> Error {
    Error::Unsigned {
        archive,
        why: match &findings.unsigned[..] {
            [one] => format!("is sound, but not signed: {one}"),
            more => format!(
                "is sound, but {} are not signed",
                count(more.len(), "image")
            ),
        },
    }
}

/// A missing archive may be one that is not finished yet.
fn absent(error: dockersave::Error, path: &Path, name: &str) -> Error {
    let dockersave::Error::Input { source, .. } = &error else {
        return error.into();
    };
    let partial = partial_path(path);
    match source.kind() == ErrorKind::NotFound && partial.exists() {
        true => Error::unsupported(format!(
            "{name} does not exist, but {name}.partial does: the download is not finished, and the same command resumes it"
        )),
        false => error.into(),
    }
}

fn bytes(layers: &[Missing]) -> u64 {
    let sizes = layers.iter().map(|one| one.size);
    sizes.fold(0, u64::saturating_add)
}

fn object(findings: &Findings, needed: &[Missing], name: &str) -> String {
    let texts = |texts: &[String]| {
        let quoted: Vec<String> = texts.iter().map(|text| ascii(text)).collect();
        array(&quoted)
    };
    let defects: Vec<String> = findings
        .defects
        .iter()
        .map(|defect| {
            Object::new()
                .text("subject", defect.subject())
                .text("what", defect.what())
                .finish()
        })
        .collect();
    // Whoever asks for no more shall not take a thin archive for a full one.
    let sound = findings.is_sound() && needed.is_empty();
    let object = Object::new()
        .text("archive", name)
        .raw("sound", if sound { "true" } else { "false" })
        .number("images", findings.images as u64)
        .number("blobs", findings.blobs as u64)
        .number("compressed", findings.compressed as u64)
        .raw("defects", &array(&defects))
        .raw("unchecked", &texts(&findings.unchecked))
        .raw("absent", &texts(&findings.absent))
        .raw("missing", &answer::missing(&findings.missing))
        .number("needed", needed.len() as u64);
    let object = match findings.signatures.len() + findings.unsigned.len() {
        0 => object,
        _ => {
            let unsigned: Vec<String> = findings.unsigned.iter().map(ToString::to_string).collect();
            object
                .raw("signatures", &answer::signatures(&findings.signatures))
                .raw("unsigned", &texts(&unsigned))
        }
    };
    object.finish() + "\n"
}

fn lines(findings: &Findings, needed: &[Missing], name: &str) -> String {
    let mut text = String::new();
    for defect in &findings.defects {
        let _ = writeln!(text, "{defect}");
    }
    for line in &findings.unchecked {
        let _ = writeln!(text, "not checked: {line}");
    }
    for one in &findings.unsigned {
        let _ = writeln!(text, "not signed: {one}");
    }
    for one in &findings.signatures {
        let _ = writeln!(text, "signed by {}: {}", one.key, one.covers);
    }
    if findings.is_sound() {
        let what = match (needed.len(), findings.missing.len()) {
            (0, 0) => "sound, ".to_owned(),
            (0, lent) => format!("sound with {} of its base, ", count(lent, "layer")),
            (layers, _) => format!(
                "thin: needs {} of {}, sound otherwise, ",
                count(layers, "layer"),
                size(bytes(needed))
            ),
        };
        let _ = write!(
            text,
            "{name}: {what}{}{}, {}",
            match findings.compressed {
                0 => String::new(),
                layers => format!("{} not inflated; ", count(layers, "layer")),
            },
            count(findings.images, "image"),
            count(findings.blobs, "blob")
        );
        if !findings.absent.is_empty() {
            let _ = write!(text, "; not in it: {}", findings.absent.join(", "));
        }
        text.push('\n');
    }
    text
}
