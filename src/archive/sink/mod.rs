//! Where blobs grow until they are true: what the workers of a pull need of an output, be it one
//! file or a directory.

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

/// An output under way. Blobs are named by their number in the plan, bytes by their place in the
/// blob; which of them are right is decided by whoever writes them.
pub(crate) trait Store: Send + Sync {
    /// Writes bytes of a blob.
    fn write_at(&self, blob: usize, bytes: &[u8], at: u64) -> Result<()>;
    /// Reads back what was written.
    fn read_at(&self, blob: usize, bytes: &mut [u8], at: u64) -> Result<()>;
    /// Copies bytes of a blob from another file; `false` where those cannot be had.
    fn copy_from(&self, blob: usize, at: u64, from: &Place, length: u64) -> Result<bool>;
    /// Gives a blob its room on the disk, where the file system can.
    fn reserve(&self, blob: usize, size: u64) -> Result<()>;
    /// Has the system begin to bring these bytes to the disk, so that the end need not wait for
    /// all of them at once.
    fn hasten(&self, blob: usize, bytes: Range<u64>);
    /// Notes how much of a chunk is written, as one of its record's two claims.
    fn mark(&self, blob: usize, chunk: usize, slot: usize, claim: Claim) -> Result<()>;
    /// Takes both claims back.
    fn unmark(&self, blob: usize, chunk: usize) -> Result<()>;
    /// Brings what was written and noted to the disk. A file system that cannot is no failure.
    fn sync_all(&self) -> Result<()>;
    /// The blob is whole and true.
    fn settle(&self, blob: usize) -> Result<()>;
    /// Everything is true: brings all to the disk, and gives the name. `false` where the file
    /// system cannot be asked for the former.
    fn finish(&self) -> Result<bool>;
    /// It has served: takes it away.
    fn discard(&self);
    /// After a failure: what is there stays if anything in it is worth going on from.
    fn give_up(&self);
    /// Where it grows, for messages.
    fn path(&self) -> &Path;
}
