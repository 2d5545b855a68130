//! The tar format: headers, and a reader that walks the entries of any tool's archive.

pub(super) mod header;
pub(super) mod reader;
pub(super) mod rewrite;
pub(crate) mod writer;
