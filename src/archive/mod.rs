//! The archive: its plan, the file it grows in, and how far that has come.

pub(crate) mod file;
pub(crate) mod journal;
pub(crate) mod layout;
