//! Layers on their way to another form: read back from where they were pulled to, or inflated and
//! checked against their diff IDs.

use super::teller::Teller;
use crate::archive::plan::Plan;
use crate::archive::sink::Store;
use crate::archive::sink::stream::{Layers, unwrap};
use crate::archive::source::Place;
use crate::codec::inflate::{self, Defect, Limits};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use std::io::{self, BufRead, BufReader, Read};

/// What one read moves at most, in bytes.
const BUFFER: usize = 64 << 10;
/// The largest window that a zstd frame may ask for: what encoders use by default (RFC 8878,
/// section 3.1.1.1.2, recommends no less).
const WINDOW: u64 = 8 << 20;
/// Unless the caller says otherwise, a layer may inflate to a hundred times its size, and a small
/// one to this.
const SMALL: u64 = 1 << 30;
const RATIO: u64 = 100;

/// The layers of a plan that are all in its store, and true.
#[derive(Clone)]
pub(super) struct Stored<'s> {
    pub store: &'s dyn Store,
    pub plan: &'s Plan,
    /// Hash them again on the way: nothing behind this does.
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
    /// The hash of what was read, and the digest that it has to come to.
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

/// Is what was read in the end what it had been?
fn ends_as(hasher: &Hasher, digest: Digest, name: impl FnOnce() -> String) -> io::Result<()> {
    let found = hasher.clone().finish();
    if found == digest {
        return Ok(());
    }
    Err(io::Error::other(Error::Mismatch {
        blob: name(),
        expected: digest.to_string(),
        found: found.to_string(),
    }))
}

/// The bytes of a place in another archive, which had this digest a moment ago: somebody may have
/// written to it since.
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
    /// The most bytes a layer may have then; unset, it depends on its size.
    pub limit: Option<u64>,
}

impl Inflate {
    /// A layer's bytes, uncompressed.
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
            .map_err(|error| unwrap(named(error, &name)))?;
        let algorithm = plan
            .diff_id(blob)
            .map_or(Algorithm::Sha256, |id| id.algorithm());
        Ok(Inflated {
            reader,
            name,
            hasher: Hasher::new(algorithm),
            size: 0,
            expected: None,
        })
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

/// Is this what each config that lists the layer calls its diff ID?
fn check(plan: &Plan, blob: usize, found: Digest) -> Result<()> {
    let digest = plan.blobs()[blob].descriptor.digest;
    for image in plan.images() {
        for (layer, diff_id) in image.layers().iter().zip(image.diff_ids()) {
            if layer.digest == digest && *diff_id != found {
                return Err(Error::Mismatch {
                    blob: format!("inflated layer {digest} of {}", image.reference().name()),
                    expected: format!("diff ID {diff_id}"),
                    found: found.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// The layers of an inflated plan, made from those of the plan it came from.
pub(super) struct Inflating<'l> {
    pub inflate: Inflate,
    /// The plan as it was pulled, and its layers.
    pub pulled: &'l Plan,
    pub layers: &'l mut dyn Layers,
    /// Layers of that plan that are here uncompressed already.
    pub raw: &'l [Option<Place>],
    /// For each blob of the inflated plan, the one it is made from.
    pub origin: &'l [usize],
    /// The inflated plan.
    pub plan: &'l Plan,
}

/// Which blob of the pulled plan each blob of the inflated one is made from.
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
}

impl Inflated<'_> {
    /// Reads without hashing.
    pub fn read_plain(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer);
        read.map_err(|error| named(error, &self.name))
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

/// Says which layer's data is defect.
fn named(error: io::Error, name: &str) -> io::Error {
    let Some(defect) = Defect::of(&error) else {
        return error;
    };
    let hint = match defect {
        Defect::TooMuch(_) => "; raise the limit with --inflate-limit",
        _ => "; without --gunzip the layer is stored as it is",
    };
    io::Error::other(Error::malformed(name, format!("{defect}{hint}")))
}
