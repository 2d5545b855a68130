//! Downloads a container image from its registry straight into a tar that `docker load` takes.
#![allow(dead_code)]

mod digest;
mod error;
mod json;
mod manifest;
mod platform;
mod reference;

pub use digest::{Algorithm, Digest};
pub use error::{Error, Result};
pub use manifest::{Content, Descriptor, Document, IndexEntry};
pub use platform::Platform;
pub use reference::Reference;
