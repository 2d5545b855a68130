//! Pulls to a file or a directory, which workers fill in place, and their conversion (inflating,
//! xz). For writers see [`super::to_writer`].

use super::event::Event;
use super::inflate::{Inflate, Stored};
use super::rootfs::Rootfs;
use super::state::Shared;
use super::teller::Teller;
use super::transform::{Job, Made, Pulled, Shape, encode, note};
use super::{Pull, Report, reuse, stated, unchanged};
use crate::archive::sink::Opened;
use crate::archive::sink::directory::{self, Directory};
use crate::archive::sink::file::{Partial, check_target, partial_path};
use crate::archive::sink::fs::{NewFile, UNSYNCED, resolve, with_suffix};
use crate::digest::{Algorithm, Hasher};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

pub(super) fn to_file(mut pull: Pull<'_>, path: &Path) -> Result<Report> {
    check_target(path)?;
    if let Some(beside) = &pull.beside {
        directory::check_target(beside)?;
    }
    // A link stays; its target is replaced.
    let place = &resolve(path).map_err(|error| Error::output(path, "writing", error))?;
    if pull.rootfs.is_none()
        && let Some(report) = pull.unchanged_file(place, path)?
    {
        return Ok(report);
    }
    let opened = Partial::open(place, &pull.plan, pull.restart)?;
    pull.fill(opened, path, |pull, filled| {
        if let Some(inflate) = pull.rootfs {
            return filled.rootfs(pull, inflate, place);
        }
        filled.shaped(pull, &|shape| {
            let mut made = (pull.plan.size(), None);
            let mut unchanged = false;
            if shape.is_plain() {
                made = filled.judged(pull, &partial_path(place), path, made)?;
                filled.finish()?;
            } else {
                filled
                    .teller
                    .stage(shape.plan(&pull.plan), shape.doing(), false);
                let hasher = pull.sha256.then(|| Hasher::new(Algorithm::Sha256));
                let job = filled.job();
                let judge = |file: &Path, made| filled.judged(pull, file, path, made);
                (made, unchanged) = shape.to_file(&filled.stored(), &job, place, hasher, &judge)?;
            }
            // What was not written in order is read back.
            if pull.sha256 && made.1.is_none() {
                made.1 = Some(unchanged::sha256(pull, place, made.0, filled.teller)?);
            }
            if let Some(beside) = &pull.beside {
                filled.to_directory(shape, beside)?;
            }
            if !shape.is_plain() {
                filled.shared.store.discard();
            }
            Ok((made, unchanged))
        })
    })
}

pub(super) fn to_directory(mut pull: Pull<'_>, path: &Path) -> Result<Report> {
    // Without a trailing slash.
    let path = &path.components().collect::<PathBuf>();
    directory::check_target(path)?;
    // There is no archive to compress.
    pull.xz = false;
    if let Some(report) = pull.unchanged_directory(path)? {
        return Ok(report);
    }
    let opened = if pull.inflate.is_some() {
        Partial::open(&with_suffix(path, ".tar"), &pull.plan, pull.restart)?
    } else {
        Directory::open(path, &pull.plan, pull.restart)?
    };
    pull.fill(opened, path, |pull, filled| {
        filled.shaped(pull, &|shape| {
            if shape.is_plain() {
                filled.finish()?;
            } else {
                filled.to_directory(shape, path)?;
                filled.shared.store.discard();
            }
            Ok(((shape.plan(&pull.plan).size(), None), false))
        })
    })
}

impl Pull<'_> {
    /// Has workers fill a store that will replace `path`, then calls `finish`, which returns what
    /// was made and whether the existing output is the same. After a failure the store keeps what
    /// is worth resuming from.
    fn fill(
        mut self,
        opened: Opened,
        path: &Path,
        finish: impl FnOnce(&Self, &Filled<'_>) -> Result<(Made, bool)>,
    ) -> Result<Report> {
        let mut observer = self.observer.take().unwrap_or_else(|| Box::new(|_| {}));
        let (sender, receiver) = channel();
        // A root file system has no blobs, but perhaps very many entries.
        let replaced = Some(path).filter(|_| self.rootfs.is_none());
        let existing = reuse::open(&self.reuse, &self.lenders, replaced, &self.client);
        let shared = Shared::new(&self, opened, sender);
        let outcome = existing.and_then(|existing| {
            observer(&Event::Started {
                total: self.plan.download_size(),
                layers: self.plan.blobs().len(),
            });
            let inflated = self.inflate.is_some();
            for line in reuse::useless(&self.reuse[..self.named], &existing, &self.plan, inflated) {
                observer(&Event::Note(line));
            }
            shared.look(&existing, inflated);
            shared.work(self.jobs, &receiver, &mut *observer);
            match shared.error() {
                Some(error) => Err(error),
                None => finish(
                    &self,
                    &Filled {
                        shared: &shared,
                        // Inflated layers are checked against their diff IDs.
                        check: self.inflate.is_none() && self.rootfs.is_none(),
                        teller: &Teller::new(&mut *observer, &shared.progress.downloaded),
                    },
                ),
            }
        });
        match outcome {
            Ok(((size, sha256), unchanged)) => {
                if let Some(lender) = &shared.lender {
                    lender.remove();
                }
                Ok(Report {
                    sha256,
                    unchanged,
                    ..shared.report(path, size)
                })
            }
            Err(error) => {
                shared.store.give_up();
                Err(error)
            }
        }
    }
}

/// A store with every blob verified.
struct Filled<'f> {
    shared: &'f Shared<'f>,
    check: bool,
    teller: &'f Teller<'f>,
}

impl<'f> Filled<'f> {
    fn stored(&self) -> Stored<'_> {
        Stored {
            store: &*self.shared.store,
            plan: self.shared.plan,
            check: self.check,
        }
    }

    fn job(&self) -> Job<'_, 'f> {
        Job {
            raw: self.shared.raw(),
            teller: self.teller,
            client: self.shared.client,
        }
    }

    /// Lets `write` make the output in its final form. A layer's size is believed first: where
    /// that proves wrong, all are measured, and the output is made once more.
    fn shaped(
        &self,
        pull: &Pull<'_>,
        write: &dyn Fn(&Shape) -> Result<(Made, bool)>,
    ) -> Result<(Made, bool)> {
        let stated: Vec<Option<u64>> = match pull.inflate {
            Some(_) => {
                // What is left out is not written, which would prove its size.
                let left_out = pull.plan.can_leave_out();
                let blobs = pull.plan.blobs().iter().enumerate();
                blobs
                    .map(
                        |(number, blob)| match left_out.contains(&blob.descriptor.digest) {
                            true => None,
                            false => stated::size(&*self.shared.store, &pull.plan, number),
                        },
                    )
                    .collect()
            }
            None => Vec::new(),
        };
        if stated.iter().any(Option::is_some) {
            let shape = self.shape(pull, &stated);
            match shape.and_then(|shape| write(&shape)) {
                // The size was wrong, or the layer is: measuring says which.
                Err(Error::Mismatch { .. } | Error::Malformed { .. }) => {}
                other => return other,
            }
        }
        write(&self.shape(pull, &[])?)
    }

    fn shape(&self, pull: &Pull<'_>, stated: &[Option<u64>]) -> Result<Shape> {
        if pull.inflate.is_some() && (stated.is_empty() || stated.contains(&None)) {
            self.teller.stage(&pull.plan, "inflating", false);
        }
        let pulled = Pulled {
            plan: self.shared.plan,
            layers: &mut self.stored(),
            raw: self.shared.raw(),
        };
        Shape::of(pull.inflate, pull.xz, pulled, stated, self.teller)
    }

    /// Compares the SHA-256 of a file that is about to get its name with what it must be.
    fn judged(&self, pull: &Pull<'_>, file: &Path, name: &Path, made: Made) -> Result<Made> {
        let Some(expected) = pull.expected else {
            return Ok(made);
        };
        let found = match made.1 {
            Some(found) => found,
            None => unchanged::sha256(pull, file, made.0, self.teller)?,
        };
        if found != expected {
            self.shared.store.discard();
            return Err(Error::Mismatch {
                blob: name.display().to_string(),
                digest: Box::new(expected),
                expected: expected.to_string(),
                found: found.to_string(),
            });
        }
        Ok((made.0, Some(found)))
    }

    /// Makes a file of the image's final files, unless the one that is there has the same bytes.
    fn rootfs(&self, pull: &Pull<'_>, inflate: Inflate, place: &Path) -> Result<(Made, bool)> {
        let plan = self.shared.plan;
        self.teller.stage(plan, "writing", false);
        let mut file = NewFile::create(place)?;
        let hasher = pull.sha256.then(|| Hasher::new(Algorithm::Sha256));
        let mut rootfs = Rootfs::new(plan, inflate);
        let made = encode(pull.xz, &mut file, place, hasher, &mut |out| {
            rootfs.write(out, place, (self.teller, &pull.client), &mut |_, run| {
                run(&mut self.stored())
            })
        })?;
        let made = self.judged(pull, file.path(), place, made)?;
        let unchanged = file.is_target();
        if !unchanged {
            note(file.finish()?, self.teller);
        }
        self.shared.store.discard();
        Ok((made, unchanged))
    }

    fn finish(&self) -> Result<()> {
        self.teller.tell(&Event::Finishing);
        if !self.shared.store.finish()? {
            self.teller.tell(&Event::Note(UNSYNCED.to_owned()));
        }
        Ok(())
    }

    fn to_directory(&self, shape: &Shape, path: &Path) -> Result<()> {
        let plan = shape.plan(self.shared.plan);
        self.teller.stage(plan, "writing", false);
        shape.to_directory(&self.stored(), &self.job(), path)
    }
}
