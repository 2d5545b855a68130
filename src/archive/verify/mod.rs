//! Is an archive what it claims to be? Everything that can be known without a registry: the tar's
//! structure, each blob's digest, and whether the documents agree with each other and with what is
//! there. Archives of all writers are taken; one of this program's is held to its plan as well, so
//! that no byte of it is left unchecked.
//!
//! Nothing is repaired here, and nothing is written.

mod contents;
mod docker;
mod oci;
mod ours;
mod tee;

use super::defect::Defect;
use super::entries::{FileInput, StreamInput};
use super::read::{self, Holder};
use crate::error::{Error, Result, printable};
use contents::Archive;
use std::io::{self, Read};
use std::path::Path;

/// The most lines that are kept of each kind.
const LINES: usize = 1000;

/// What is known of an archive once all of it was seen.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Findings {
    /// The images that are there.
    pub images: usize,
    /// Manifests, configs and layers that are there and referred to.
    pub blobs: usize,
    /// What is wrong, at most a thousand lines of it.
    pub defects: Vec<Defect>,
    /// Images of an index of which nothing is there, which is no defect.
    pub absent: Vec<String>,
    /// Layers whose diff IDs are not known, because they are compressed in a way that is not undone
    /// here, or only with more memory than there is; their own digests were checked.
    pub compressed: usize,
    /// What could not be looked into, and why.
    pub unchecked: Vec<String>,
}

impl Findings {
    /// Was everything looked into, and nothing wrong with it?
    pub fn is_sound(&self) -> bool {
        self.defects.is_empty() && self.unchecked.is_empty()
    }

    fn defect(&mut self, subject: &str, what: impl AsRef<str>) {
        self.push(Defect::new(subject, what));
    }

    fn push(&mut self, defect: Defect) {
        if self.defects.len() < LINES {
            self.defects.push(defect);
        }
    }

    fn absent(&mut self, what: &str) {
        if self.absent.len() < LINES {
            self.absent.push(printable(what, 300));
        }
    }

    fn unchecked(&mut self, subject: &str, why: &str) {
        if self.unchecked.len() < LINES {
            self.unchecked
                .push(printable(&format!("{subject}: {why}"), 500));
        }
    }
}

/// Checks the archive, or the directory, at a path.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("dockersave-doc-verify-{}", std::process::id()));
/// # std::fs::write(&path, [0; 1024]).unwrap();
/// let findings = dockersave::verify(&path)?;
/// for defect in &findings.defects {
///     eprintln!("{defect}");
/// }
/// # assert_eq!(findings.defects.len(), 1);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), dockersave::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Input`] where it cannot be read, [`Error::Malformed`] where it is no archive at all,
/// [`Error::Unsupported`] where it is compressed or has more entries than are taken. What is wrong
/// with an archive is no error, but a finding.
pub fn verify(path: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    let archive = match read::open(path)? {
        Holder::Tar(file) => {
            let mut input =
                FileInput::new(&file).map_err(|error| Error::input(path, "reading", error))?;
            Archive::of_tar(
                &mut input,
                Some(Holder::Tar(file.clone())),
                path,
                &mut findings,
            )?
        }
        Holder::Folder(folder) => Archive::of_folder(&folder, path, &mut findings)?,
    };
    Ok(judge(&archive, findings))
}

/// Checks an archive that comes from a stream, in one pass. Documents are kept in memory, 2 MiB in
/// all; what does not fit stands in [`Findings`], as `unchecked`.
///
/// # Errors
///
/// As [`verify`]; `name` is what messages call the stream.
pub fn verify_reader(reader: &mut dyn Read, name: &str) -> Result<Findings> {
    let mut findings = Findings::default();
    let mut input = StreamInput(reader);
    let archive = Archive::of_tar(&mut input, None, Path::new(name), &mut findings)?;
    Ok(judge(&archive, findings))
}

fn judge(archive: &Archive, mut findings: Findings) -> Findings {
    let mut seen = contents::Seen::new(archive);
    let oci = oci::check(archive, &mut seen, &mut findings);
    let docker = docker::check(archive, oci.as_ref(), &mut seen, &mut findings);
    if oci.is_none() && !docker {
        let what = "has neither index.json nor manifest.json: it holds no image";
        findings.defect("the archive", what);
    }
    findings.blobs = seen.count();
    if findings.defects.is_empty() && findings.unchecked.is_empty() {
        ours::check(archive, &mut findings);
    }
    findings
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| Error::input(path, "reading", error)
}
