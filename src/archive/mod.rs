//! The archive: its plan, what it grows in, and how far that has come.

pub(crate) mod disk;
pub(crate) mod file;
pub(crate) mod journal;
pub(crate) mod layout;
pub(crate) mod store;
