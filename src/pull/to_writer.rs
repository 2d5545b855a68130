//! Pulls to a writer: the archive is written in order while its blobs arrive.

use super::event::Event;
use super::inflate::{Inflate, here};
use super::join::unavailable;
use super::prefetch::{Ahead, LARGE, READERS, Wanted};
use super::rootfs::Rootfs;
use super::run::STACK;
use super::teller::Teller;
use super::transform::{Made, Pulled, Shape, encode};
use super::{Pull, Report, reuse};
use crate::archive::plan::Plan;
use crate::archive::sink::stream::Layers;
use crate::archive::source::Place;
use crate::counter::Counter;
use crate::digest::{Algorithm, Hasher};
use crate::error::{Error, Result, STANDARD_OUTPUT};
use crate::registry::Repository;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};

pub(super) fn to_writer(mut pull: Pull<'_>, out: &mut dyn Write) -> Result<Report> {
    let existing = reuse::open(&pull.reuse, &pull.lenders, None, &pull.client)?;
    let mut observer = pull.observer.take().unwrap_or_else(|| Box::new(|_| {}));
    let here = Here {
        blobs: reuse::blobs(&existing, &pull.plan),
        raw: reuse::layers(&existing, &pull.plan, pull.inflate.is_some()),
    };
    if let Some(archive) = &pull.joined {
        let mut blobs = pull.plan.blobs().iter().zip(&here.blobs);
        if let Some(blob) =
            blobs.position(|(blob, here)| blob.descriptor.size > 0 && here.is_none())
        {
            return Err(unavailable(archive, &pull.plan, blob));
        }
    }
    let downloaded = Counter::new(0);
    let teller = Teller::new(&mut *observer, &downloaded);
    teller.start(&pull.plan);
    for line in reuse::useless(
        &pull.reuse[..pull.named],
        &existing,
        &pull.plan,
        pull.inflate.is_some(),
    ) {
        teller.tell(&Event::Note(line));
    }
    let all: Vec<usize> = (0..pull.plan.blobs().len()).collect();
    let hasher = pull.sha256.then(|| Hasher::new(Algorithm::Sha256));
    let (size, sha256) = match pull.rootfs {
        Some(inflate) => pull.write_rootfs(inflate, &here, &teller, out, hasher)?,
        None => pull.write_archive(&all, &here, &teller, out, hasher)?,
    };
    teller.tell(&teller.snapshot());
    teller.tell(&Event::Finishing);
    // Each once: an uncompressed layer is found both by its digest and by its diff ID.
    let kept = all.iter().filter(|blob| !here.is_missing(**blob));
    Ok(Report {
        path: PathBuf::new(),
        size,
        downloaded: downloaded.get(),
        kept: kept
            .map(|blob| pull.plan.blobs()[*blob].descriptor.size)
            .sum(),
        unchanged: false,
        sha256,
    })
}

/// The bytes of each blob that need not be downloaded.
struct Here {
    blobs: Vec<Option<Place>>,
    raw: Vec<Option<Place>>,
}

impl Here {
    fn is_missing(&self, blob: usize) -> bool {
        self.blobs[blob].is_none() && self.raw[blob].is_none()
    }
}

impl Pull<'_> {
    /// Writes the archive.
    fn write_archive(
        &self,
        all: &[usize],
        here: &Here,
        teller: &Teller<'_>,
        out: &mut dyn Write,
        hasher: Option<Hasher>,
    ) -> Result<Made> {
        let wanted = if self.inflate.is_some() { all } else { &[] };
        let shape = self.in_order(wanted, here, teller, |pulled| {
            if self.inflate.is_some() {
                teller.stage(pulled.plan, "inflating", true);
            }
            Shape::of(self.inflate, self.xz, pulled, &[], teller)
        })?;
        let plan = shape.plan(&self.plan);
        self.in_order(&shape.order(&self.plan), here, teller, |pulled| {
            // As the first stage, it is the download.
            if self.inflate.is_some() {
                teller.stage(plan, shape.doing(), false);
            }
            shape.write(pulled, teller, out, Path::new(STANDARD_OUTPUT), hasher)
        })
    }

    /// Writes the image's final files. Layers are downloaded as they are needed, and some of them
    /// twice if hard links take that.
    fn write_rootfs(
        &self,
        inflate: Inflate,
        here: &Here,
        teller: &Teller<'_>,
        out: &mut dyn Write,
        hasher: Option<Hasher>,
    ) -> Result<Made> {
        let name = Path::new(STANDARD_OUTPUT);
        let mut rootfs = Rootfs::new(&self.plan, inflate);
        encode(self.xz, out, name, hasher, &mut |out| {
            rootfs.write(out, name, (teller, &self.client), &mut |order, run| {
                self.in_order(order, here, teller, |pulled| run(pulled.layers))
            })
        })
    }

    /// Prefetches blobs in order for `run`, which gets them as layers.
    fn in_order<T>(
        &self,
        wanted: &[usize],
        here: &Here,
        teller: &Teller<'_>,
        run: impl FnOnce(Pulled<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut distant = Vec::new();
        let wanted = wanted.iter().filter(|_| self.joined.is_none());
        for number in wanted.filter(|number| here.is_missing(**number)) {
            distant.push(Wanted {
                repository: Repository::of_image(&self.client, self.plan.image(*number))?,
                descriptor: &self.plan.blobs()[*number].descriptor,
            });
        }
        // A large blob may be read by several.
        let large = distant.iter().any(|wanted| wanted.descriptor.size > LARGE);
        let most = if large { READERS } else { distant.len() };
        let readers = self.jobs.min(most).clamp(1, READERS);
        let ahead = Ahead::new(&self.client, distant, readers, teller.downloaded);
        std::thread::scope(|scope| {
            for number in 0..readers {
                let builder = std::thread::Builder::new()
                    .name(format!("reader {number}"))
                    .stack_size(STACK);
                let spawned = builder.spawn_scoped(scope, || ahead.read());
                if let (Err(error), 0) = (spawned, number) {
                    ahead.stop();
                    return Err(Error::output(
                        Path::new(STANDARD_OUTPUT),
                        "starting a thread for",
                        error,
                    ));
                }
            }
            let waiting = || teller.tick();
            let outcome = run(Pulled {
                plan: &self.plan,
                layers: &mut InOrder {
                    plan: &self.plan,
                    ahead: &ahead,
                    here: &here.blobs,
                    joined: self.joined.is_some(),
                    waiting: &waiting,
                },
                raw: &here.raw,
            });
            ahead.stop();
            outcome
        })
    }
}

/// Blobs in order, prefetched or from existing archives.
struct InOrder<'o> {
    plan: &'o Plan,
    ahead: &'o Ahead<'o>,
    here: &'o [Option<Place>],
    joined: bool,
    waiting: &'o dyn Fn(),
}

impl Layers for InOrder<'_> {
    fn layer(&mut self, blob: usize) -> Result<Box<dyn BufRead + '_>> {
        Ok(match &self.here[blob] {
            Some(place) => here(place, self.plan.blobs()[blob].descriptor.digest),
            None if self.joined => Box::new(std::io::empty()),
            None => self.ahead.blob(self.waiting),
        })
    }
}
