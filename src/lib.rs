//! Downloads a container image from its registry straight into a tar that `docker load` takes.

mod archive;
mod cli;
mod digest;
mod error;
mod files;
mod json;
mod manifest;
mod net;
mod platform;
mod pull;
mod reference;
mod registry;
mod time;

use archive::file::{check_target, partial_path};
pub use archive::layout::{Entry, Plan, PlanOptions};
pub use cli::run;
pub use digest::{Algorithm, Digest};
pub use error::{Error, Result};
pub use manifest::{Content, Descriptor, Document, IndexEntry};
pub use platform::Platform;
pub use pull::{Event, LayerProgress, Pull, Report};
pub use reference::Reference;
pub use registry::{Client, ClientBuilder, Image, Repository, Tags};
