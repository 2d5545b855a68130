//! Unchanged outputs: an archive or directory that is already what was requested is left as it is,
//! with its inode, time and bytes.
//!
//! It is unchanged if each byte is that of the plan: headers and documents are compared, layers are
//! hashed. A quick check compares only the former and the sizes.

use super::event::Event;
use super::teller::Teller;
use super::{Observer, Pull, Report};
use crate::archive::plan::{Part, Plan, Source};
use crate::archive::source::Existing;
use crate::archive::source::directory::Folder;
use crate::archive::source::table::Row;
use crate::counter::Counter;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The largest read, in bytes.
const BUFFER: usize = 128 << 10;

impl Pull<'_> {
    /// The report of a `to_file` that has nothing to do; `place` is `path` with links resolved.
    pub(super) fn unchanged_file(&mut self, place: &Path, path: &Path) -> Result<Option<Report>> {
        // xz is not decompressed here.
        if self.xz || self.restart || !place.is_file() {
            return Ok(None);
        }
        self.observe(|pull, teller| {
            let plan = pull.final_plan(place);
            let Some((plan, file)) = plan.zip(File::open(place).ok()) else {
                return Ok(None);
            };
            let beside = pull.beside.as_deref();
            let look = Look {
                pull,
                plan: &plan,
                teller,
            };
            if !look.has_documents(&file) || beside.is_some_and(|path| !look.is_listed(path)) {
                return Ok(None);
            }
            let sha256 = look.has_layers(&file)?;
            let wrong = pull.expected.is_some() && sha256 != Some(pull.expected);
            if wrong || sha256.is_none() || !beside.map_or(Ok(true), |path| look.has_files(path))? {
                return Ok(None);
            }
            Ok(Some(look.report(path, sha256.flatten())))
        })
    }

    /// The same for `to_directory`.
    pub(super) fn unchanged_directory(&mut self, path: &Path) -> Result<Option<Report>> {
        if self.restart || !path.is_dir() {
            return Ok(None);
        }
        self.observe(|pull, teller| {
            let Some(plan) = pull.final_plan(path) else {
                return Ok(None);
            };
            let look = Look {
                pull,
                plan: &plan,
                teller,
            };
            let same = look.is_listed(path) && look.has_files(path)?;
            Ok(same.then(|| look.report(path, None)))
        })
    }

    fn observe<T>(&mut self, run: impl FnOnce(&Self, &Teller<'_>) -> Result<T>) -> Result<T> {
        let mut observer: Observer<'_> = self.observer.take().unwrap_or_else(|| Box::new(|_| {}));
        let nothing = Counter::new(0);
        let outcome = run(self, &Teller::new(&mut *observer, &nothing));
        self.observer = Some(observer);
        outcome
    }

    /// The plan of the requested output. Sizes of inflated layers are those of the existing output,
    /// which is searched by diff ID.
    fn final_plan(&self, path: &Path) -> Option<Cow<'_, Plan>> {
        if self.inflate.is_none() {
            return Some(Cow::Borrowed(&self.plan));
        }
        // Layers that are left out are measured, too, and are not there.
        if self.plan.bases().next().is_some() {
            return None;
        }
        let existing = Existing::open(path).ok()?;
        let layers = (0..self.plan.blobs().len()).map(|blob| {
            let diff_id = self.plan.diff_id(blob)?;
            let place = existing.find(&diff_id, None).into_iter().next()?;
            Some((diff_id, place.size()))
        });
        let inflated = self.plan.inflated(&layers.collect::<Option<Vec<_>>>()?);
        inflated.ok().map(Cow::Owned)
    }
}

/// Examines the existing output. If it cannot be read, it is not the requested one.
struct Look<'l, 'c, 't> {
    pull: &'l Pull<'c>,
    plan: &'l Plan,
    teller: &'l Teller<'t>,
}

impl Look<'_, '_, '_> {
    /// Whether an archive has the plan's size, headers and documents.
    fn has_documents(&self, file: &File) -> bool {
        let mut buffer = vec![0; BUFFER];
        let whole = file.metadata().map_or(0, |about| about.len());
        whole == self.plan.size()
            && self.plan.pieces().all(|(at, piece)| {
                let mut at = at;
                piece.chunks(BUFFER).all(|part| {
                    let there = &mut buffer[..part.len()];
                    let same = file.read_exact_at(there, at).is_ok() && there == part;
                    at += part.len() as u64;
                    same
                })
            })
    }

    /// Whether an archive with these documents has the plan's layers; with its SHA-256, if
    /// requested.
    fn has_layers(&self, file: &File) -> Result<Option<Option<Digest>>> {
        let quick = self.pull.quick_check;
        if quick && !self.pull.sha256 {
            return Ok(Some(None));
        }
        self.teller.stage(self.plan, "checking", false);
        let mut whole = self.pull.sha256.then(|| Hasher::new(Algorithm::Sha256));
        let mut at = 0;
        for part in self.plan.parts() {
            match part {
                Part::Bytes(bytes) => {
                    if let Some(whole) = &mut whole {
                        whole.update(&bytes);
                    }
                    at += bytes.len() as u64;
                }
                Part::Blob(number) => {
                    let descriptor = &self.plan.blobs()[number].descriptor;
                    let mut hasher = Hasher::new(descriptor.digest.algorithm());
                    let place = (at, descriptor.size);
                    let read = self.read(file, place, &mut |bytes| {
                        if !quick {
                            hasher.update(bytes);
                        }
                        if let Some(whole) = &mut whole {
                            whole.update(bytes);
                        }
                    });
                    if !read? || !quick && hasher.finish() != descriptor.digest {
                        return Ok(None);
                    }
                    at += descriptor.size;
                }
            }
        }
        Ok(Some(whole.map(Hasher::finish)))
    }

    /// Whether a directory has exactly as many files as the plan has entries.
    fn is_listed(&self, path: &Path) -> bool {
        let entries = self.plan.entries().iter();
        let wanted = entries.map(|entry| (entry.path().to_owned(), entry.size()));
        let mut known = BTreeMap::new();
        known.extend(wanted);
        let Some(table) = folder(path).and_then(|folder| folder.list().ok()) else {
            return false;
        };
        let mut rows = table.rows().iter().enumerate();
        let is_wanted =
            |(number, row): (usize, &Row)| known.get(&*table.name(number)) == Some(&row.size);
        table.rows().len() == known.len() && rows.all(is_wanted)
    }

    /// Whether a directory has the content of each of the plan's entries.
    fn has_files(&self, path: &Path) -> Result<bool> {
        let Some(folder) = folder(path) else {
            return Ok(false);
        };
        self.teller.stage(self.plan, "checking", false);
        for entry in self.plan.entries() {
            let Ok(file) = folder.open(entry.path()) else {
                return Ok(false);
            };
            let same = match entry.source() {
                Source::Memory(bytes) => {
                    let mut rest = bytes.as_slice();
                    let read = self.read(&file, (0, entry.size()), &mut |part| {
                        rest = rest.strip_prefix(part).unwrap_or(&[0]);
                    });
                    read? && rest.is_empty()
                }
                Source::Blob(_) if self.pull.quick_check => true,
                Source::Blob(number) => {
                    let digest = self.plan.blobs()[*number].descriptor.digest;
                    let mut hasher = Hasher::new(digest.algorithm());
                    let read = self.read(&file, (0, entry.size()), &mut |part| hasher.update(part));
                    read? && hasher.finish() == digest
                }
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Passes on bytes of a file, given offset and size; `false` if it is too short.
    fn read(&self, file: &File, place: (u64, u64), take: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let tell = |bytes| self.teller.passed(bytes);
        match read(file, place, self.pull, &mut |bytes| {
            take(bytes);
            tell(bytes.len() as u64);
        }) {
            Err(Error::Output { .. }) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Sends the events of a pull that finds everything here.
    fn report(&self, path: &Path, sha256: Option<Digest>) -> Report {
        let (plan, total) = (&self.pull.plan, self.pull.plan.download_size());
        let layers = plan.blobs().len();
        self.teller.tell(&Event::Started { total, layers });
        for (layer, blob) in plan.blobs().iter().enumerate() {
            let (digest, size) = (blob.descriptor.digest, blob.descriptor.size);
            self.teller.tell(&Event::Layer {
                layer,
                digest,
                size,
                kept: size,
            });
        }
        self.teller.tell(&Event::Progress {
            done: total,
            total,
            downloaded: 0,
            active: Vec::new(),
        });
        self.teller.tell(&Event::Finishing);
        Report {
            path: path.to_owned(),
            size: self.plan.size(),
            downloaded: 0,
            kept: total,
            unchanged: true,
            sha256,
        }
    }
}

fn folder(path: &Path) -> Option<Folder> {
    let file = File::open(path).ok()?;
    Some(Folder::new(file.into(), path))
}

/// The SHA-256 of a finished archive.
pub(super) fn sha256(
    pull: &Pull<'_>,
    place: &Path,
    size: u64,
    teller: &Teller<'_>,
) -> Result<Digest> {
    let failed = |error: io::Error| Error::output(place, "reading back", error);
    let file = File::open(place).map_err(failed)?;
    teller.stage(&pull.plan, "hashing", false);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    read(&file, (0, size), pull, &mut |bytes| {
        hasher.update(bytes);
        teller.passed(bytes.len() as u64);
    })?;
    Ok(hasher.finish())
}

fn read(
    file: &File,
    (mut at, mut left): (u64, u64),
    pull: &Pull<'_>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<()> {
    let mut buffer = vec![0; BUFFER.min(left as usize)];
    while left > 0 {
        if pull.client.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let length = left.min(BUFFER as u64) as usize;
        file.read_exact_at(&mut buffer[..length], at)
            .map_err(|error| Error::output(Path::new("the archive"), "reading back", error))?;
        take(&buffer[..length]);
        at += length as u64;
        left -= length as u64;
    }
    Ok(())
}
