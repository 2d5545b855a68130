//! The conversion of a pulled plan: layers inflated, archive compressed, or neither.

use super::event::Event;
use super::inflate::{Inflate, Inflating, Stored, origins};
use super::side_by_side::{Output, Settle, Work, Write as WriteAt};
use super::teller::Teller;
use crate::archive::plan::Plan;
use crate::archive::sink::directory;
use crate::archive::sink::fs::{NewFile, UNSYNCED};
use crate::archive::sink::stream::{self, Layers};
use crate::archive::source::Place;
use crate::codec::xz::Xz;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Result};
use crate::registry::Client;
use std::io::{self, BufRead, Write};
use std::path::Path;

/// xz's default level.
const LEVEL: u32 = 6;

/// The size of an archive, and its SHA-256 where that is wanted.
pub(super) type Made = (u64, Option<Digest>);

/// The layers of a plan, as they were pulled.
pub(super) struct Pulled<'p> {
    pub plan: &'p Plan,
    pub layers: &'p mut dyn Layers,
    /// Those that already exist uncompressed.
    pub raw: &'p [Option<Place>],
}

/// The final form of the archive.
pub(super) struct Shape {
    inflated: Option<Inflated>,
    /// Whether it is compressed with xz.
    xz: bool,
}

struct Inflated {
    inflate: Inflate,
    plan: Plan,
    /// For each of its blobs, its source blob.
    origin: Vec<usize>,
}

/// What making an output of stored layers takes beside these.
pub(super) struct Job<'j, 't> {
    /// Layers that are here uncompressed already.
    pub raw: &'j [Option<Place>],
    pub teller: &'j Teller<'t>,
    pub client: &'j Client,
}

impl Inflated {
    fn side_by_side(
        &self,
        stored: &Stored<'_>,
        job: &Job<'_, '_>,
        write: &WriteAt<'_>,
        settle: &Settle<'_>,
        name: &Path,
    ) -> Result<()> {
        let work = Work {
            inflate: self.inflate,
            pulled: stored.plan,
            store: stored.store,
            raw: job.raw,
            origin: &self.origin,
            plan: &self.plan,
        };
        let output = Output { write, settle };
        work.run(&output, job.teller, &|| job.client.is_cancelled(), name)
    }
}

impl Shape {
    /// Finds the form out: where layers are to be inflated, by the sizes that are `stated`, which
    /// writing proves right or wrong, or by inflating each of them once.
    pub fn of(
        inflate: Option<Inflate>,
        xz: bool,
        pulled: Pulled<'_>,
        stated: &[Option<u64>],
        teller: &Teller<'_>,
    ) -> Result<Self> {
        let Some(inflate) = inflate else {
            return Ok(Self { inflated: None, xz });
        };
        let measured = inflate.measure(pulled.plan, pulled.layers, pulled.raw, stated, teller)?;
        let plan = pulled.plan.inflated(&measured)?;
        Ok(Self {
            inflated: Some(Inflated {
                inflate,
                origin: origins(&plan, &measured),
                plan,
            }),
            xz,
        })
    }

    /// The name of the writing stage.
    pub fn doing(&self) -> &'static str {
        if self.xz { "compressing" } else { "writing" }
    }

    /// The archive is the pulled one, unchanged.
    pub fn is_plain(&self) -> bool {
        self.inflated.is_none() && !self.xz
    }

    pub fn plan<'p>(&'p self, pulled: &'p Plan) -> &'p Plan {
        let inflated = self.inflated.as_ref();
        inflated.map_or(pulled, |inflated| &inflated.plan)
    }

    /// The needed blobs, in order.
    pub fn order(&self, pulled: &Plan) -> Vec<usize> {
        match &self.inflated {
            Some(inflated) => inflated.origin.clone(),
            None => (0..pulled.blobs().len()).collect(),
        }
    }

    /// Writes the archive; says how many bytes that were, and what `hasher` made of them.
    pub fn write(
        &self,
        pulled: Pulled<'_>,
        teller: &Teller<'_>,
        out: &mut dyn Write,
        name: &Path,
        hasher: Option<Hasher>,
    ) -> Result<Made> {
        let mut pulled = Some(pulled);
        encode(self.xz, out, name, hasher, &mut |out| match pulled.take() {
            Some(pulled) => self.write_tar(pulled, teller, out, name),
            None => Ok(()),
        })
    }

    fn write_tar(
        &self,
        pulled: Pulled<'_>,
        teller: &Teller<'_>,
        out: &mut dyn Write,
        name: &Path,
    ) -> Result<()> {
        let mut inflating;
        let (plan, layers): (&Plan, &mut dyn Layers) = match &self.inflated {
            None => (pulled.plan, pulled.layers),
            Some(inflated) => {
                inflating = Inflating {
                    inflate: inflated.inflate,
                    pulled: pulled.plan,
                    layers: pulled.layers,
                    raw: pulled.raw,
                    origin: &inflated.origin,
                    plan: &inflated.plan,
                };
                (&inflated.plan, &mut inflating)
            }
        };
        let told = &mut Told {
            plan,
            layers,
            teller,
        };
        stream::write(plan, told, &mut |bytes, blob| {
            out.write_all(bytes)
                .map_err(|error| Error::output(name, "writing to", error))?;
            if blob {
                teller.passed(bytes.len() as u64);
            }
            Ok(())
        })?;
        teller.end();
        Ok(())
    }

    /// Makes a file of the archive, unless the one that is there has the same bytes; says what
    /// [`Self::write`] does, and whether it was left. What is not written in order is not hashed;
    /// `judge` may do that, and refuse the file before it has its name.
    pub fn to_file(
        &self,
        stored: &Stored<'_>,
        job: &Job<'_, '_>,
        path: &Path,
        hasher: Option<Hasher>,
        judge: &dyn Fn(&Path, Made) -> Result<Made>,
    ) -> Result<(Made, bool)> {
        let mut file = NewFile::create(path)?;
        let written = match &self.inflated {
            Some(inflated) if !self.xz => {
                file.lay_out(&inflated.plan)?;
                let blobs = inflated.plan.blobs();
                inflated.side_by_side(
                    stored,
                    job,
                    &|blob, bytes, at| file.write_at(bytes, blobs[blob].offset + at),
                    &|_| Ok(()),
                    path,
                )?;
                (inflated.plan.size(), None)
            }
            _ => {
                let pulled = Pulled {
                    plan: stored.plan,
                    layers: &mut stored.clone(),
                    raw: job.raw,
                };
                self.write(pulled, job.teller, &mut file, path, hasher)?
            }
        };
        let written = judge(file.path(), written)?;
        if file.is_target() {
            return Ok((written, true));
        }
        note(file.finish()?, job.teller);
        Ok((written, false))
    }

    /// Makes a directory of the archive's entries.
    pub fn to_directory(&self, stored: &Stored<'_>, job: &Job<'_, '_>, path: &Path) -> Result<()> {
        let plan = self.plan(stored.plan);
        let synced = directory::write(plan, path, &mut |store| match &self.inflated {
            Some(inflated) => inflated.side_by_side(
                stored,
                job,
                &|blob, bytes, at| store.write_at(blob, bytes, at),
                &|blob| store.settle(blob),
                path,
            ),
            None => {
                let layers = &mut Told {
                    plan,
                    layers: &mut stored.clone(),
                    teller: job.teller,
                };
                directory::write_blobs(plan, layers, store, &mut |bytes| job.teller.passed(bytes))?;
                job.teller.end();
                Ok(())
            }
        })?;
        note(synced, job.teller);
        Ok(())
    }
}

pub(super) fn note(synced: bool, teller: &Teller<'_>) {
    if !synced {
        teller.tell(&Event::Note(UNSYNCED.to_owned()));
    }
}

/// Writes a tar, compressed or not; says how many bytes that were, and what `hasher` made of them.
pub(super) fn encode(
    xz: bool,
    out: &mut dyn Write,
    name: &Path,
    hasher: Option<Hasher>,
    write_tar: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
) -> Result<Made> {
    let failed = |error| Error::output(name, "writing to", error);
    let mut out = Counted {
        out,
        bytes: 0,
        hasher,
    };
    if xz {
        let mut xz = Xz::new(LEVEL, Box::new(&mut out)).map_err(failed)?;
        write_tar(&mut xz)?;
        xz.finish().map_err(failed)?;
    } else {
        write_tar(&mut out)?;
    }
    out.flush().map_err(failed)?;
    Ok((out.bytes, out.hasher.map(Hasher::finish)))
}

/// A writer that counts, and hashes where that is wanted.
struct Counted<'w> {
    out: &'w mut dyn Write,
    bytes: u64,
    hasher: Option<Hasher>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes[..written]);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Layers that report their start.
struct Told<'t, 'l> {
    plan: &'l Plan,
    layers: &'l mut dyn Layers,
    teller: &'l Teller<'t>,
}

impl Layers for Told<'_, '_> {
    fn layer(&mut self, blob: usize) -> Result<Box<dyn BufRead + '_>> {
        self.teller.end();
        self.teller.begin(self.plan, blob);
        self.layers.layer(blob)
    }
}
