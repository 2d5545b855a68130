//! What is settled about each path while layers are read from the top down. Names are not kept,
//! only their hashes: that is all the memory that grows with an image.

use crate::digest::{Algorithm, Hasher};
use std::collections::BTreeMap;

/// The most paths that are kept in mind: about 50 MB.
pub(super) const MOST: usize = 1_000_000;

/// SHA-256 of a path, cut off: nobody finds two paths with the same 128 bits.
type Key = [u8; 16];

/// A layer, counted from 1 at the top; 0 is none.
pub(super) type Layer = u16;

/// A hard link that is shown but not written yet.
pub(super) const PENDING: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Nothing,
    /// A directory that only paths below it imply: a lower layer may give its metadata.
    Implied,
    Directory,
    /// Anything else.
    File,
}

/// A path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Node {
    /// What it is in the end, and the layer that says so.
    pub kind: Kind,
    pub settled: Layer,
    /// Nothing below it comes from layers under the first of these; the last one that said so.
    closed: Layer,
    closed_last: Layer,
    /// It does not come itself from layers under this one.
    gone: Layer,
    /// The last layer that has it, as a directory or not.
    pub seen: Layer,
    pub seen_directory: bool,
    /// Which file it is there, whatever its name; see [`super::Flatten`].
    pub file: u32,
    /// The number of the entry that settled it, or [`PENDING`].
    pub won: u32,
}

impl Node {
    fn close(&mut self, layer: Layer) {
        if self.closed == 0 {
            self.closed = layer;
        }
        self.closed_last = layer;
    }

    /// Neither it nor anything below it comes from the layers below.
    fn replace(&mut self, layer: Layer) {
        if self.gone == 0 {
            self.gone = layer;
        }
        self.close(layer);
    }

    /// Whether this layer made it what it is.
    pub fn is_file_of(&self, layer: Layer) -> bool {
        self.kind == Kind::File && self.settled == layer
    }
}

/// An entry to be entered into the tree.
pub(super) struct New<'e> {
    pub path: &'e [u8],
    pub directory: bool,
    pub file: u32,
    pub won: u32,
    /// Never shown, whatever the layers above have.
    pub hidden: bool,
}

#[derive(Default)]
pub(super) struct Tree {
    nodes: BTreeMap<Key, Node>,
    /// The current layer.
    pub layer: Layer,
}

fn key(hasher: &Hasher) -> Key {
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.clone().finish().as_bytes()[..16]);
    key
}

/// The ends of a path's directories, from the root on, and its own.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let above = std::iter::once(0).filter(|_| !path.is_empty());
    above.chain(slashes.map(|(at, _)| at)).chain([path.len()])
}

/// Whether a mark was set by a layer above this one.
fn above(mark: Layer, layer: Layer) -> bool {
    mark != 0 && mark < layer
}

impl Tree {
    pub fn is_full(&self) -> bool {
        self.nodes.len() > MOST
    }

    fn node(&mut self, path: &[u8]) -> &mut Node {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(path);
        self.nodes.entry(key(&hasher)).or_default()
    }

    /// What is known of a path.
    pub fn get(&mut self, path: &[u8]) -> Node {
        *self.node(path)
    }

    /// The layers below have nothing in this directory.
    pub fn opaque(&mut self, path: &[u8]) {
        let layer = self.layer;
        self.node(path).close(layer);
    }

    /// The layers below have nothing of this name.
    pub fn whiteout(&mut self, path: &[u8]) {
        let layer = self.layer;
        self.node(path).replace(layer);
    }

    /// Whether the current layer removed a path from the layers below without having it itself.
    pub fn is_removed(&self, path: &[u8]) -> bool {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut start = 0;
        ends(path).any(|end| {
            hasher.update(&path[start..end]);
            start = end;
            let node = self.nodes.get(&key(&hasher));
            node.is_some_and(|node| node.closed_last == self.layer)
        })
    }

    /// Enters an entry of the current layer. Says whether it belongs to the final files, and adds
    /// the ends of those directories above it that have to be made first.
    pub fn enter(&mut self, new: &New<'_>, implied: &mut Vec<usize>) -> Result<bool, &'static str> {
        let (layer, path) = (self.layer, new.path);
        let mut hidden = new.hidden;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut start = 0;
        for end in ends(path) {
            hasher.update(&path[start..end]);
            start = end;
            let node = self.nodes.entry(key(&hasher)).or_default();
            if end < path.len() {
                if node.pass(layer, &mut hidden)? && end > 0 {
                    implied.push(end);
                }
            } else {
                hidden |= node.settle(layer, new, hidden)?;
            }
        }
        Ok(!hidden)
    }
}

impl Node {
    /// It is a directory above an entry. Says whether that implies it.
    fn pass(&mut self, layer: Layer, hidden: &mut bool) -> Result<bool, &'static str> {
        if self.seen != layer {
            (self.seen, self.seen_directory) = (layer, true);
        } else if !self.seen_directory {
            return Err("is below something that is no directory in the same layer");
        }
        *hidden |= above(self.gone, layer);
        let implied = !*hidden && self.kind == Kind::Nothing;
        if implied {
            (self.kind, self.settled) = (Kind::Implied, layer);
        }
        *hidden |= above(self.closed, layer);
        Ok(implied)
    }

    /// It is the entry itself. Says whether it is hidden.
    fn settle(&mut self, layer: Layer, new: &New<'_>, hidden: bool) -> Result<bool, &'static str> {
        if self.seen == layer && self.seen_directory != new.directory {
            return Err("is both a directory and something else in the same layer");
        }
        let taken = match self.kind {
            Kind::Nothing => false,
            Kind::Implied => !new.directory,
            Kind::Directory | Kind::File => self.settled != layer,
        };
        let hidden = hidden || taken || above(self.gone, layer);
        if !new.directory {
            self.replace(layer);
        }
        (self.seen, self.seen_directory, self.file) = (layer, new.directory, new.file);
        if !hidden {
            if self.is_file_of(layer) && self.won == PENDING {
                return Err("is a hard link that the same layer replaces");
            }
            self.kind = match new.directory {
                true => Kind::Directory,
                false => Kind::File,
            };
            (self.settled, self.won) = (layer, new.won);
        }
        Ok(hidden)
    }
}
