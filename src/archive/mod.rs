//! The archive: its plan, what it grows in, and how far that has come; and archives that are there
//! already.

pub(crate) mod decode;
pub(crate) mod defect;
pub(crate) mod directory;
pub(crate) mod disk;
mod documents;
pub(crate) mod encode;
mod entries;
pub(crate) mod file;
mod folder;
mod header;
mod items;
pub(crate) mod journal;
pub(crate) mod layout;
mod own;
pub(crate) mod read;
mod replace;
pub(crate) mod store;
pub(crate) mod stream;
mod table;
mod unfinished;
pub(crate) mod verify;
