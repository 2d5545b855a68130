//! Offline verification of an archive: the tar's structure, each blob's digest, and whether the
//! documents agree with each other and with the files. Archives of any tool are accepted; one made
//! by dockersave is also compared with its plan, so that no byte of it is left unchecked.
//!
//! Nothing is repaired here, and nothing is written.

mod docker;
mod oci;
mod plan;
mod scan;
mod signatures;
mod tee;

use super::defect::Defect;
use super::sink::unfinished;
use super::source::{self, Holder};
use super::tar::reader::{FileInput, StreamInput};
use super::thin::Missing;
use crate::codec::inflate;
use crate::digest::Digest;
use crate::error::{Error, Result, printable};
use crate::signature::{PublicKey, Verified};
use scan::Archive;
use std::io::{self, Read};
use std::path::Path;
use tee::{Budget, Unpacked};

/// The default limit for a zstd layer's window: as much as podman, skopeo and buildkit use at their
/// highest levels. This memory comes on top of everything else.
pub const WINDOW: u64 = 8 << 20;

/// The most lines kept of each kind.
const LINES: usize = 1000;
/// The most layers that a thin archive may lack.
const MISSING: usize = 4096;

/// What is known about an archive after it was read completely.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Findings {
    /// The images that are there.
    pub images: usize,
    /// Manifests, configs and layers that exist and are referred to.
    pub blobs: usize,
    /// The defects, at most a thousand.
    pub defects: Vec<Defect>,
    /// Images of an index of which nothing is there; not a defect.
    pub absent: Vec<String>,
    /// Layers that a thin archive says it lacks, which is no defect; in the order of
    /// their digests. The target, or a [`crate::Base`], must have them.
    pub missing: Vec<Missing>,
    /// Layers that were not inflated, so that their diff IDs are unknown: their compression is not
    /// supported, their window exceeds the limit, or they inflate to more than a hundred times the
    /// archive. Their own digests were checked.
    pub compressed: usize,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
    /// The signatures that count, one for each image that is signed, where keys were named.
    pub signatures: Vec<Verified>,
    /// The images that are not signed by any of the keys, and what was found instead.
    pub unsigned: Vec<Defect>,
    /// dockersave wrote it: a pull to the same path keeps its intact blobs.
    pub ours: bool,
}

impl Findings {
    /// Whether everything was checked and nothing is wrong. A thin archive may still lack layers.
    pub fn is_sound(&self) -> bool {
        self.defects.is_empty() && self.unchecked.is_empty()
    }

    /// Does a thin archive say that it lacks this blob?
    fn lacks(&self, digest: &Digest) -> bool {
        let found = self.missing.binary_search_by_key(digest, |one| one.digest);
        found.is_ok()
    }

    /// Notes a layer that a thin archive lacks, unless there are too many.
    fn missing(&mut self, one: &Missing) -> bool {
        match self
            .missing
            .binary_search_by_key(&one.digest, |one| one.digest)
        {
            Ok(_) => true,
            Err(at) if self.missing.len() < MISSING => {
                self.missing.insert(at, one.clone());
                true
            }
            Err(_) => false,
        }
    }

    fn defect(&mut self, subject: &str, what: impl AsRef<str>) {
        self.push(Defect::new(subject, what));
    }

    fn push(&mut self, defect: Defect) {
        if self.defects.len() < LINES {
            self.defects.push(defect);
        }
    }

    fn unsigned(&mut self, subject: &str, why: &str) {
        if self.unsigned.len() < LINES {
            self.unsigned.push(Defect::new(subject, why));
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
/// [`Error::Input`] if it cannot be read, [`Error::Malformed`] if it is not an archive at all,
/// [`Error::Unsupported`] if it is compressed with anything but gzip or zstd, or has too many
/// entries. Defects of an archive are findings, not errors.
pub fn verify(path: impl AsRef<Path>) -> Result<Findings> {
    verify_file(path.as_ref(), WINDOW, &[])
}

/// The same with another limit than 8 MiB for zstd windows, whose memory comes on top of the rest.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_within(path: impl AsRef<Path>, window: u64) -> Result<Findings> {
    verify_file(path.as_ref(), window, &[])
}

/// The same; and if there are keys, each image that `index.json` names must be signed by one of
/// them. Its signatures are in the archive, or it is not.
///
/// # Errors
///
/// As [`verify`]. That something is not signed is no error, but a finding.
pub fn verify_signed(path: impl AsRef<Path>, window: u64, keys: &[PublicKey]) -> Result<Findings> {
    verify_file(path.as_ref(), window, keys)
}

fn verify_file(path: &Path, window: u64, keys: &[PublicKey]) -> Result<Findings> {
    let mut findings = Findings::default();
    let budget = Budget::new(window);
    let archive = match source::open(path)? {
        Holder::Tar(file) => {
            let unfinished = unfinished::look(&file).map_err(failed(path))?;
            if let Some(found) = unfinished {
                findings.ours = true;
                findings.defect("the archive", found.to_string());
                return Ok(findings);
            }
            let mut input =
                FileInput::new(&file).map_err(|error| Error::input(path, "reading", error))?;
            Archive::of_tar(
                &mut input,
                Some(Holder::Tar(file.clone())),
                path,
                &budget,
                &mut findings,
            )?
        }
        Holder::Packed(file, _) => {
            let name = path.display().to_string();
            return verify_reader_signed(&mut &*file, &name, window, keys);
        }
        Holder::Folder(folder) => Archive::of_folder(&folder, path, &budget, &mut findings)?,
    };
    Ok(judge(&archive, findings, keys))
}

/// Checks an archive from a stream in one pass, even if it is compressed with gzip or zstd.
/// Documents are kept in memory, 2 MiB in all; what does not fit is in [`Findings`] as `unchecked`.
///
/// # Errors
///
/// As [`verify`]; `name` is the stream's name in messages.
pub fn verify_reader(reader: &mut dyn Read, name: &str) -> Result<Findings> {
    verify_reader_within(reader, name, WINDOW)
}

/// The same with another limit for windows, as in [`verify_within`].
///
/// # Errors
///
/// As [`verify`].
pub fn verify_reader_within(reader: &mut dyn Read, name: &str, window: u64) -> Result<Findings> {
    verify_reader_signed(reader, name, window, &[])
}

/// The same with keys, as [`verify_signed`] has them.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_reader_signed(
    reader: &mut dyn Read,
    name: &str,
    window: u64,
    keys: &[PublicKey],
) -> Result<Findings> {
    let mut findings = Findings::default();
    let budget = Budget::new(window);
    let path = Path::new(name);
    let mut unpacked =
        Unpacked::new(reader, &budget).map_err(|error| match inflate::Defect::of(&error) {
            Some(inflate::Defect::Unsupported(with)) => source::compressed(name, with),
            _ => failed(path)(error),
        })?;
    let mut input = StreamInput(&mut unpacked);
    let archive = Archive::of_tar(&mut input, None, path, &budget, &mut findings)?;
    Ok(judge(&archive, findings, keys))
}

fn judge(archive: &Archive, mut findings: Findings, keys: &[PublicKey]) -> Findings {
    let mut seen = scan::Seen::new(archive);
    let oci = oci::check(archive, &mut seen, &mut findings);
    let docker = docker::check(archive, oci.as_ref(), &mut seen, &mut findings);
    if oci.is_none() && !docker {
        let what = "has neither index.json nor manifest.json: it holds no image";
        findings.defect("the archive", what);
    }
    if !keys.is_empty() {
        signatures::check(archive, oci.as_ref(), keys, &mut findings);
    }
    findings.blobs = seen.count();
    findings.ours = plan::is_ours(archive);
    if findings.defects.is_empty() && findings.unchecked.is_empty() {
        plan::check(archive, &mut findings);
    }
    findings
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| Error::input(path, "reading", error)
}
