//! The archive: its plan, what it grows in, and how far that has come; and archives that are there
//! already.

// `--verify` and `--reuse` are built on this; until they are, nothing calls it.
#![allow(dead_code)]

pub(crate) mod decode;
pub(crate) mod defect;
pub(crate) mod directory;
pub(crate) mod disk;
mod documents;
pub(crate) mod entries;
pub(crate) mod file;
pub(crate) mod folder;
pub(crate) mod header;
pub(crate) mod journal;
pub(crate) mod layout;
pub(crate) mod read;
pub(crate) mod store;
pub(crate) mod stream;
pub(crate) mod table;
