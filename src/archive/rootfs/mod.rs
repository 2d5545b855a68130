//! The final files of an image as one tar: its layers, read once from the top down.
//!
//! Layers are applied as the OCI image-spec has it (layer.md). Whatever an upper layer has or
//! removes is settled, and a lower layer's entry of that path is left out; so an entry can be
//! written as it comes. A path below something that is no directory in a lower layer replaces that
//! with a directory, as in overlayfs, which engines put layers together with.
//!
//! A hard link is to a file that comes before it in its layer, or else to one of a lower layer, and
//! stays one when an upper layer replaces that name. Links to lower layers wait until their file
//! has come. Where a file's own name is replaced, its first link becomes the file. If its bytes
//! have passed by then, the layer is read once more at the end: [`Flatten::again`].

mod path;
mod tree;

use super::defect::Defect;
use super::sink::stream::unwrap;
use super::tar::header::Kind;
use super::tar::reader::{StreamInput, Walker};
use super::tar::rewrite::Metadata;
use super::tar::writer::{BLOCK, padding};
use crate::error::{Error, Result};
use crate::text::printable;
use path::{Role, normal, role};
use std::collections::BTreeMap;
use std::io::Read;
use tree::{Layer, MOST, New, PENDING, Tree};

/// The most bytes of headers of one entry, and of hard links that wait for their files.
const HEADERS: usize = 256 << 10;
const WAITING: usize = 16 << 20;
/// The most bytes of directories without entries: as many as a small layer may inflate to.
const IMPLIED: u64 = 1 << 30;
/// Bytes that are copied at once.
const BUFFER: usize = 32 << 10;
/// Files are numbered as the entries of their layer; with this bit, they are a [`Group`].
const GROUP: u32 = 1 << 31;

/// The end of a tar.
pub(crate) const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

/// Takes the tar's bytes.
pub(crate) type Out<'o> = dyn FnMut(&[u8]) -> Result<()> + 'o;

/// A hard link that cannot be written yet.
struct Link {
    path: Vec<u8>,
    metadata: Metadata,
}

/// Hard links of a layer to a file of a lower one.
struct Group {
    target: Vec<u8>,
    layer: Layer,
    links: Vec<Link>,
    done: bool,
}

/// Puts the layers of an image together.
#[derive(Default)]
pub(crate) struct Flatten {
    tree: Tree,
    /// The layers' names in messages.
    names: Vec<String>,
    groups: Vec<Group>,
    /// The paths of files that passed by under a name that is not theirs: by layer and number.
    later: BTreeMap<(Layer, u32), Vec<Vec<u8>>>,
    /// Bytes of what waits.
    waiting: usize,
    /// Bytes of directories that no entry describes.
    implied: u64,
}

/// An entry of a layer.
struct Entry {
    number: u32,
    path: Vec<u8>,
    link: Vec<u8>,
    kind: Kind,
    size: u64,
    metadata: Metadata,
}

impl Entry {
    /// Writes it under this path.
    fn write(&self, path: &[u8], data: &mut dyn Read, out: &mut Out<'_>) -> Result<()> {
        let named;
        let path = match self.kind {
            Kind::Directory => {
                named = [if path.is_empty() { b"." } else { path }, b"/"].concat();
                &named
            }
            _ => path,
        };
        out(&self.metadata.headers(path, &self.link))?;
        let mut buffer = [0; BUFFER];
        let mut left = self.size;
        while left > 0 {
            let part = left.min(BUFFER as u64) as usize;
            let read = data.read(&mut buffer[..part]).map_err(unwrap)?;
            if read == 0 {
                // The walker says so, too.
                return Ok(());
            }
            out(&buffer[..read])?;
            left -= read as u64;
        }
        out(&[0; BLOCK as usize][..padding(self.size) as usize])
    }
}

impl Flatten {
    /// Takes the next layer, `name` in messages; the top one first.
    pub fn layer(&mut self, name: String, data: &mut dyn Read, out: &mut Out<'_>) -> Result<()> {
        self.names.push(name.clone());
        self.tree.layer += 1;
        walk(&name, data, &mut |entry, data| {
            let made = match role(&entry.path).map_err(|why| wrong(&name, &entry.path, why))? {
                Role::Whiteout(path) => {
                    self.tree.whiteout(&path);
                    Ok(())
                }
                Role::Opaque(path) => {
                    self.tree.opaque(&path);
                    Ok(())
                }
                role => self.entry(&name, &entry, role == Role::Hidden, data, out),
            };
            if self.tree.is_full() {
                return Err(Error::malformed(
                    &*name,
                    format!("brings the image to more than {MOST} paths"),
                ));
            }
            made
        })?;
        self.resolve(out)
    }

    fn entry(
        &mut self,
        name: &str,
        entry: &Entry,
        hidden: bool,
        data: &mut dyn Read,
        out: &mut Out<'_>,
    ) -> Result<()> {
        let layer = self.tree.layer;
        let failed = |why| wrong(name, &entry.path, why);
        let directory = entry.kind == Kind::Directory;
        if entry.path.is_empty() && !directory {
            return Err(failed("is the root directory, but no directory"));
        }
        let mut file = entry.number;
        let mut waits = false;
        if entry.kind == Kind::Hardlink {
            let known = self.tree.get(&entry.link);
            if known.seen != layer {
                file = GROUP | self.group(&entry.link)? as u32;
            } else if known.seen_directory {
                return Err(failed("is a hard link to a directory"));
            } else {
                file = known.file;
            }
            waits = file & GROUP != 0
                || self.later.contains_key(&(layer, file))
                || !known.is_file_of(layer);
        }
        let new = New {
            path: &entry.path,
            directory,
            file,
            won: if waits { PENDING } else { entry.number },
            hidden,
        };
        let mut implied = Vec::new();
        let shown = self.tree.enter(&new, &mut implied).map_err(failed)?;
        for end in implied {
            let path = [&entry.path[..end], b"/"].concat();
            let headers = Metadata::directory().headers(&path, b"");
            self.implied += headers.len() as u64;
            if self.implied > IMPLIED {
                return Err(failed(
                    "brings the image to too many directories without entries",
                ));
            }
            out(&headers)?;
        }
        if !shown {
            return Ok(());
        }
        if !waits {
            return entry.write(&entry.path, data, out);
        }
        if file & GROUP == 0 {
            return self.put_off((layer, file), vec![entry.path.clone()]);
        }
        self.wait(entry.path.len() + entry.metadata.weight())?;
        self.groups[(file & !GROUP) as usize].links.push(Link {
            path: entry.path.clone(),
            metadata: entry.metadata.clone(),
        });
        Ok(())
    }

    /// The group of links to this path in the current layer.
    fn group(&mut self, target: &[u8]) -> Result<usize> {
        let layer = self.tree.layer;
        let same = |group: &Group| group.layer == layer && group.target == target;
        if let Some(at) = self.groups.iter().position(same) {
            return Ok(at);
        }
        self.wait(target.len() + size_of::<Group>())?;
        self.groups.push(Group {
            target: target.to_vec(),
            layer,
            links: Vec::new(),
            done: false,
        });
        Ok(self.groups.len() - 1)
    }

    /// Writes a file under these paths when its layer is read again.
    fn put_off(&mut self, file: (Layer, u32), paths: Vec<Vec<u8>>) -> Result<()> {
        self.wait(paths.iter().map(|path| path.len() + 64).sum())?;
        self.later.entry(file).or_default().extend(paths);
        Ok(())
    }

    fn wait(&mut self, bytes: usize) -> Result<()> {
        self.waiting += bytes;
        match self.waiting > WAITING {
            true => Err(Error::malformed(
                self.names.last().cloned().unwrap_or_default(),
                "has too many hard links whose files are in other layers or were replaced",
            )),
            false => Ok(()),
        }
    }

    /// At a layer's end: its files that links of layers above wait for.
    fn resolve(&mut self, out: &mut Out<'_>) -> Result<()> {
        let layer = self.tree.layer;
        for at in 0..self.groups.len() {
            let group = &mut self.groups[at];
            if group.done || group.layer == layer {
                continue;
            }
            let known = self.tree.get(&group.target);
            if known.seen != layer {
                if self.tree.is_removed(&group.target) {
                    self.lost(at)?;
                }
                continue;
            }
            if known.seen_directory {
                self.lost(at)?;
                continue;
            }
            group.done = true;
            let links = std::mem::take(&mut group.links);
            if known.file & GROUP != 0 {
                self.groups[(known.file & !GROUP) as usize]
                    .links
                    .extend(links);
            } else if links.is_empty() {
            } else if known.is_file_of(layer) && !self.later.contains_key(&(layer, known.file)) {
                let target = &self.groups[at].target;
                for link in links {
                    out(&link.metadata.headers(&link.path, target))?;
                }
            } else {
                let paths = links.into_iter().map(|link| link.path).collect();
                self.put_off((layer, known.file), paths)?;
            }
        }
        Ok(())
    }

    /// There is no file for a group of links, which matters if one of them is shown.
    fn lost(&mut self, at: usize) -> Result<()> {
        let group = &mut self.groups[at];
        group.done = true;
        let Some(link) = group.links.first() else {
            return Ok(());
        };
        let why = format!(
            "is a hard link to {}, which is no file in the layers below",
            shown(&group.target)
        );
        let name = &self.names[usize::from(group.layer) - 1];
        Err(wrong(name, &link.path, &why))
    }

    /// After the last layer: those to be read again, in the order in which they came.
    pub fn again(&mut self) -> Result<Vec<usize>> {
        for at in 0..self.groups.len() {
            if !self.groups[at].done {
                self.lost(at)?;
            }
        }
        let mut layers: Vec<usize> = self
            .later
            .keys()
            .map(|(layer, _)| usize::from(*layer) - 1)
            .collect();
        layers.dedup();
        Ok(layers)
    }

    /// Takes a layer again, by its number.
    pub fn repeat(&mut self, layer: usize, data: &mut dyn Read, out: &mut Out<'_>) -> Result<()> {
        let name = self.names[layer].clone();
        let layer = layer as Layer + 1;
        walk(&name, data, &mut |entry, data| {
            let Some(paths) = self.later.remove(&(layer, entry.number)) else {
                return Ok(());
            };
            let own = self.tree.get(&entry.path);
            let (first, links) = match own.is_file_of(layer) && own.won == entry.number {
                true => (&entry.path, &paths[..]),
                false => {
                    entry.write(&paths[0], data, out)?;
                    (&paths[0], &paths[1..])
                }
            };
            let metadata = entry.metadata.clone().into_link();
            links
                .iter()
                .try_for_each(|link| out(&metadata.headers(link, first)))
        })
    }
}

/// Calls `each` with each entry of a layer, then reads the layer to its end.
fn walk(
    name: &str,
    data: &mut dyn Read,
    each: &mut dyn FnMut(Entry, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut input = StreamInput(&mut *data);
    let mut walker = Walker::new(&mut input, false)
        .lenient()
        .keep_headers(HEADERS);
    let mut defect: Option<Defect> = None;
    let mut number = 0;
    loop {
        let head = walker.next(&mut |found| {
            defect.get_or_insert(found);
        });
        let head = head.map_err(unwrap)?;
        if let Some(defect) = defect {
            return Err(Error::malformed(name, defect.to_string()));
        }
        let Some(head) = head else { break };
        let failed = |why: &str| wrong(name, &head.name, why);
        let letter = match head.kind {
            Kind::File => Some(b'0'),
            Kind::Directory => Some(b'5'),
            Kind::Unknown => return Err(failed("is of a type that no standard defines")),
            _ => None,
        };
        let has_data = matches!(head.kind, Kind::File | Kind::Sparse);
        let metadata = Metadata::read(walker.headers(), letter, has_data)
            .ok_or_else(|| failed("has headers that are too large"))?;
        if has_data && !metadata.is_file() {
            return Err(failed(
                "is a sparse file to some readers and no file to others",
            ));
        }
        let entry = Entry {
            number,
            path: normal(metadata.sparse_name().unwrap_or(&head.name)).map_err(failed)?,
            link: match head.kind {
                Kind::Hardlink => normal(&head.link).map_err(|why| {
                    failed(&format!(
                        "is a hard link to {}, which {why}",
                        shown(&head.link)
                    ))
                })?,
                Kind::Symlink => head.link,
                _ => Vec::new(),
            },
            kind: head.kind,
            size: head.size,
            metadata,
        };
        each(entry, &mut walker)?;
        number += 1;
        if number == GROUP {
            return Err(Error::malformed(name, "has too many entries"));
        }
    }
    let mut rest = [0; 8 << 10];
    while data.read(&mut rest).map_err(unwrap)? > 0 {}
    Ok(())
}

fn shown(path: &[u8]) -> String {
    printable(&String::from_utf8_lossy(path), 200)
}

fn wrong(name: &str, path: &[u8], why: &str) -> Error {
    Error::malformed(name, format!("{} {why}", shown(path)))
}
