//! How much of documents is held at a time: one account for all of a client's manifests, indexes
//! and configs. An index that was only looked into gives its room back.

use crate::error::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};

/// The largest manifest there may be, and a usual config beside it.
const ROOM: u64 = (4 << 20) + (256 << 10);
/// What a descriptor takes on top of its text: in the image, in the plan, and while it is pulled.
const DESCRIPTOR: u64 = 512;

/// What is left for documents.
#[derive(Clone)]
pub(crate) struct Room(Arc<Mutex<u64>>);

/// A part of the room, which is given back when the last one who holds it is dropped.
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
    /// How many bytes a document may have at most that itself may have `limit`.
    pub fn limit(&self, limit: u64) -> u64 {
        limit.min(*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the room of a document with so many descriptors.
    pub fn take(&self, bytes: u64, descriptors: usize, what: &str) -> Result<Arc<Lease>> {
        let bytes = bytes + descriptors as u64 * DESCRIPTOR;
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.checked_sub(bytes).ok_or_else(|| exhausted(what))?;
        Ok(Arc::new(Lease {
            room: self.clone(),
            bytes,
        }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
    }
}

/// What to say of a document that there is no room left for.
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
