//! Reading layers back from the store, and inflating them with a check of their diff IDs.

use super::teller::Teller;
use crate::archive::plan::Plan;
use crate::archive::sink::Store;
use crate::archive::sink::stream::{Layers, unwrap};
use crate::archive::source::Place;
use crate::codec::inflate::{self, Defect, Limits};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::hint::Hint;
use std::io::{self, BufRead, BufReader, Read};

/// The largest read, in bytes.
const BUFFER: usize = 64 << 10;
/// The largest zstd window: what encoders use by default (RFC 8878, section 3.1.1.1.2, recommends
/// no less).
const WINDOW: u64 = 8 << 20;
/// By default a layer may inflate to a hundred times its size, and a small one to this.
const SMALL: u64 = 1 << 30;
const RATIO: u64 = 100;

/// The layers of a plan, all of them verified in its store.
#[derive(Clone)]
pub(super) struct Stored<'s> {
    pub store: &'s dyn Store,
    pub plan: &'s Plan,
    /// Whether to hash them again, because no later step does.
    pub check: bool,
}

impl Layers for Stored<'_> {
    fn layer(&mut self, blob: usize) -> Result<Box<dyn BufRead + '_>> {
        let about = &self.plan.blobs()[blob].descriptor;
        let hasher = || (Hasher::new(about.digest.algorithm()), about.digest);
        let reader = StoredBlob {
            store: self.store,
            blob,
            at: 0,
            size: about.size,
            hasher: self.check.then(hasher),
        };
        Ok(Box::new(BufReader::with_capacity(BUFFER, reader)))
    }
}

struct StoredBlob<'s> {
    store: &'s dyn Store,
    blob: usize,
    at: u64,
    size: u64,
    /// The running hash, and the expected digest.
    hasher: Option<(Hasher, Digest)>,
}

impl Read for StoredBlob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (self.size - self.at).min(buffer.len() as u64) as usize;
        let bytes = &mut buffer[..length];
        self.store
            .read_at(self.blob, bytes, self.at)
            .map_err(io::Error::other)?;
        self.at += length as u64;
        if let Some((hasher, digest)) = &mut self.hasher {
            hasher.update(bytes);
            if length == 0 {
                ends_as(hasher, *digest, || {
                    format!("layer {digest} in {}", self.store.path().display())
                })?;
            }
        }
        Ok(length)
    }
}

/// Checks at the end that the data did not change.
fn ends_as(hasher: &Hasher, digest: Digest, name: impl FnOnce() -> String) -> io::Result<()> {
    let found = hasher.clone().finish();
    if found == digest {
        return Ok(());
    }
    Err(io::Error::other(Error::Mismatch {
        blob: name(),
        digest: Box::new(digest),
        expected: digest.to_string(),
        found: found.to_string(),
    }))
}

/// A reader for a place in another archive, which had this digest a moment ago but may have changed
/// since.
pub(super) fn here(place: &Place, digest: Digest) -> Box<dyn BufRead + '_> {
    let reader = Here {
        place,
        at: 0,
        hasher: Hasher::new(digest.algorithm()),
        digest,
    };
    Box::new(BufReader::with_capacity(BUFFER, reader))
}

struct Here<'p> {
    place: &'p Place,
    at: u64,
    hasher: Hasher,
    digest: Digest,
}

impl Read for Here<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (self.place.size() - self.at).min(buffer.len() as u64) as usize;
        let bytes = &mut buffer[..length];
        self.place.read_at(bytes, self.at)?;
        self.hasher.update(bytes);
        self.at += length as u64;
        if length == 0 {
            ends_as(&self.hasher, self.digest, || {
                format!("layer {} in the reused archive", self.digest)
            })?;
        }
        Ok(length)
    }
}

/// How layers are inflated.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Inflate {
    /// The most bytes of an inflated layer; `None`: depends on its size.
    pub limit: Option<u64>,
    /// Whether the layers could be stored as they are instead.
    pub optional: bool,
}

impl Inflate {
    /// A reader for a layer's uncompressed bytes.
    pub fn open<'l>(
        self,
        plan: &Plan,
        blob: usize,
        layers: &'l mut dyn Layers,
    ) -> Result<Inflated<'l>> {
        let descriptor = &plan.blobs()[blob].descriptor;
        let limits = Limits {
            output: self.limit(plan, blob),
            window: WINDOW,
        };
        let name = format!(
            "layer {} of {}",
            descriptor.digest,
            plan.reference(blob).name()
        );
        let (_, reader) = inflate::reader(layers.layer(blob)?, limits)
            .map_err(|error| unwrap(named(error, &name, self.optional)))?;
        let algorithm = plan
            .diff_id(blob)
            .map_or(Algorithm::Sha256, |id| id.algorithm());
        Ok(Inflated {
            reader,
            name,
            hasher: Hasher::new(algorithm),
            size: 0,
            expected: None,
            optional: self.optional,
        })
    }

    /// The same; it ends without an error only if it matches its diff ID.
    pub fn checked<'l>(
        self,
        plan: &Plan,
        blob: usize,
        layers: &'l mut dyn Layers,
    ) -> Result<Inflated<'l>> {
        let mut inflated = self.open(plan, blob, layers)?;
        inflated.expected = plan.diff_id(blob);
        Ok(inflated)
    }

    /// The most bytes that a blob may have when it is inflated.
    fn limit(self, plan: &Plan, blob: usize) -> u64 {
        let size = plan.blobs()[blob].descriptor.size;
        let automatic = size.saturating_mul(RATIO).max(SMALL);
        self.limit.unwrap_or(automatic)
    }

    /// Which digest and size each layer has when it is inflated: its diff ID and the size that is
    /// `stated` for it, or else what it has where it is inflated to nowhere. Then its diff ID is
    /// checked.
    pub fn measure(
        self,
        plan: &Plan,
        layers: &mut dyn Layers,
        raw: &[Option<Place>],
        stated: &[Option<u64>],
        teller: &Teller<'_>,
    ) -> Result<Vec<(Digest, u64)>> {
        let mut found = Vec::with_capacity(plan.blobs().len());
        let mut buffer = vec![0; BUFFER];
        for (blob, about) in plan.blobs().iter().enumerate() {
            let size = about.descriptor.size;
            if let (Some(place), Some(diff_id)) = (&raw[blob], plan.diff_id(blob)) {
                teller.passed(size);
                found.push((diff_id, place.size()));
                continue;
            }
            let size_stated = stated.get(blob).copied().flatten();
            if let (Some(stated), Some(diff_id)) = (size_stated, plan.diff_id(blob))
                && stated <= self.limit(plan, blob)
            {
                teller.passed(size);
                found.push((diff_id, stated));
                continue;
            }
            teller.begin(plan, blob);
            let mut inflated = self.open(plan, blob, layers)?;
            while inflated.read(&mut buffer).map_err(unwrap)? > 0 {
                teller.tick();
            }
            let measured = (inflated.hasher.finish(), inflated.size);
            drop(inflated.reader);
            teller.passed(size);
            check(plan, blob, measured.0)?;
            teller.end();
            found.push(measured);
        }
        Ok(found)
    }
}

/// Checks this digest against the diff ID in each config that lists the layer.
fn check(plan: &Plan, blob: usize, found: Digest) -> Result<()> {
    let digest = plan.blobs()[blob].descriptor.digest;
    for image in plan.images() {
        for (layer, diff_id) in image.layers().iter().zip(image.diff_ids()) {
            if layer.digest == digest && *diff_id != found {
                return Err(Error::Mismatch {
                    blob: format!("inflated layer {digest} of {}", image.reference().name()),
                    digest: Box::new(*diff_id),
                    expected: format!("diff ID {diff_id}"),
                    found: found.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// The layers of an inflated plan, made from those of the pulled plan.
pub(super) struct Inflating<'l> {
    pub inflate: Inflate,
    /// The pulled plan, and its layers.
    pub pulled: &'l Plan,
    pub layers: &'l mut dyn Layers,
    /// Layers of that plan that already exist uncompressed.
    pub raw: &'l [Option<Place>],
    /// For each blob of the inflated plan, its source blob.
    pub origin: &'l [usize],
    /// The inflated plan.
    pub plan: &'l Plan,
}

/// For each blob of the inflated plan, its source blob in the pulled plan.
pub(super) fn origins(inflated: &Plan, measured: &[(Digest, u64)]) -> Vec<usize> {
    let of = |digest: Digest| measured.iter().position(|(known, _)| *known == digest);
    let blobs = inflated.blobs().iter();
    blobs
        .filter_map(|blob| of(blob.descriptor.digest))
        .collect()
}

impl Layers for Inflating<'_> {
    fn layer(&mut self, blob: usize) -> Result<Box<dyn BufRead + '_>> {
        if let Some(place) = &self.raw[self.origin[blob]] {
            return Ok(here(place, self.plan.blobs()[blob].descriptor.digest));
        }
        let mut inflated = self
            .inflate
            .open(self.pulled, self.origin[blob], self.layers)?;
        inflated.expected = Some(self.plan.blobs()[blob].descriptor.digest);
        Ok(Box::new(BufReader::with_capacity(BUFFER, inflated)))
    }
}

/// An inflated layer that is hashed while it is read.
pub(super) struct Inflated<'l> {
    reader: Box<dyn Read + 'l>,
    name: String,
    hasher: Hasher,
    size: u64,
    expected: Option<Digest>,
    optional: bool,
}

impl Inflated<'_> {
    /// The layer's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads without hashing.
    pub fn read_plain(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        read.map_err(|error| named(error, &self.name, self.optional))
    }
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_plain(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.size += read as u64;
        if read == 0
            && let Some(expected) = self.expected
        {
            ends_as(&self.hasher, expected, || format!("inflated {}", self.name))?;
        }
        Ok(read)
    }
}

/// Adds the layer's name to a decompression error.
fn named(error: io::Error, name: &str, optional: bool) -> io::Error {
    let Some(defect) = Defect::of(&error) else {
        return error;
    };
    let told = Error::malformed(name, defect.to_string());
    io::Error::other(match defect {
        Defect::TooMuch(_) => told.with_hint(Hint::InflateLimit),
        _ if optional => told.with_hint(Hint::NoInflate),
        _ => told,
    })
}
