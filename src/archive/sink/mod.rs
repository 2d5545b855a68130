//! Outputs: what the workers of a pull need from a file or a directory under construction.

pub(crate) mod directory;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod journal;
mod owned;
mod replace;
pub(crate) mod stream;
pub(crate) mod unfinished;

use super::sink::file::Lender;
use super::sink::journal::{Claim, Record};
use super::source::Place;
use crate::error::Result;
use std::ops::Range;
use std::path::Path;

/// What an output holds when it is opened.
pub(crate) struct Opened {
    pub store: Box<dyn Store>,
    /// For each blob, what its journal claims of each chunk; empty where it claims nothing.
    pub claims: Vec<Vec<Record>>,
    pub lender: Option<Lender>,
}

/// An output under construction. Blobs are named by their number in the plan, bytes by their offset
/// in the blob. The caller decides which bytes are right.
pub(crate) trait Store: Send + Sync {
    /// Writes bytes of a blob.
    fn write_at(&self, blob: usize, bytes: &[u8], at: u64) -> Result<()>;
    /// Reads back what was written.
    fn read_at(&self, blob: usize, bytes: &mut [u8], at: u64) -> Result<()>;
    /// Copies bytes of a blob from another file; `false` if they cannot be read.
    fn copy_from(&self, blob: usize, at: u64, from: &Place, length: u64) -> Result<bool>;
    /// Allocates a blob's space, if the file system can.
    fn reserve(&self, blob: usize, size: u64) -> Result<()>;
    /// Starts writeback of these bytes, so that the final sync does not have to write everything at
    /// once.
    fn hasten(&self, blob: usize, bytes: Range<u64>);
    /// Records how much of a chunk is written, as one of its record's two claims.
    fn mark(&self, blob: usize, chunk: usize, slot: usize, claim: Claim) -> Result<()>;
    /// Clears both claims.
    fn unmark(&self, blob: usize, chunk: usize) -> Result<()>;
    /// Syncs what was written and recorded. A file system without fsync is not an error.
    fn sync_all(&self) -> Result<()>;
    /// The blob is complete and verified.
    fn settle(&self, blob: usize) -> Result<()>;
    /// All blobs are verified: fsync, then rename to the final name. `false` if the file system
    /// does not support fsync.
    fn finish(&self) -> Result<bool>;
    /// Removes the partial output.
    fn discard(&self);
    /// After a failure: keeps the partial output if it is worth resuming from.
    fn give_up(&self);
    /// Its partial path, for messages.
    fn path(&self) -> &Path;
}
