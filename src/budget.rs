//! The memory budget for documents: one account for all of a client's manifests, indexes and
//! configs. An index that was only read gives its share back.

use crate::error::{Error, Result};
use crate::sync::lock;
use std::sync::{Arc, Mutex};

/// The largest manifest, plus a usual config.
const ROOM: u64 = (4 << 20) + (256 << 10);
/// What a descriptor takes besides its text: in the image, in the plan, and during the pull.
const DESCRIPTOR: u64 = 512;

/// The budget that is left for documents.
#[derive(Clone)]
pub(crate) struct Room(Arc<Mutex<u64>>);

/// A share of the budget, given back when its last holder is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    room: Room,
    bytes: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(ROOM)))
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Room")
    }
}

impl Room {
    /// The limit for a document: `limit`, or what is left of the budget.
    pub fn limit(&self, limit: u64) -> u64 {
        limit.min(*lock(&self.0))
    }

    /// Takes the share of a document with this many descriptors.
    pub fn take(&self, bytes: u64, descriptors: usize, what: &str) -> Result<Arc<Lease>> {
        let bytes = bytes + descriptors as u64 * DESCRIPTOR;
        let mut left = lock(&self.0);
        *left = left.checked_sub(bytes).ok_or_else(|| exhausted(what))?;
        Ok(Arc::new(Lease {
            room: self.clone(),
            bytes,
        }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *lock(&self.room.0) += self.bytes;
    }
}

/// The error for a document that exceeds the budget.
pub(crate) fn exhausted(what: &str) -> Error {
    Error::TooLarge {
        what: format!("{what}, together with the other manifests and configs of this run,"),
        limit: ROOM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let room = Room::default();
        let lease = room.take(4 << 20, 0, "x").unwrap();
        assert_eq!(room.limit(4 << 20), 256 << 10);
        assert!(room.take(0, 1000, "x").is_err());
        let other = lease.clone();
        drop(lease);
        assert_eq!(room.limit(4 << 20), 256 << 10);
        drop(other);
        assert_eq!(room.limit(4 << 20), 4 << 20);
        assert!(room.take(u64::MAX / 2, 0, "x").is_err());
    }
}
