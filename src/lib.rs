//! Downloads a container image from its registry straight into a tar that `docker load` takes.
//!
//! The archive is a docker-archive and an OCI layout at once. It is laid out before the first
//! layer is asked for; layers arrive in parallel at their final place; what was interrupted goes
//! on; and a file under its final name is complete, with every size and digest checked.
//!
//! The program `dockersave` uses nothing but this interface.
//!
//! ```no_run
//! use dockersave::{Client, Plan, PlanOptions, Pull, Reference};
//!
//! let name: Reference = "debian:12".parse()?;
//! let client = Client::builder().build()?;
//! let image = client.repository(&name)?.image(None)?;
//! let plan = Plan::new(&[image], &PlanOptions::default())?;
//! println!("{} bytes in {} entries", plan.size(), plan.entries().len());
//! let report = Pull::new(&client, plan)
//!     .observer(|event| eprintln!("{event}"))
//!     .to_file("debian.tar".as_ref())?;
//! println!("{} bytes downloaded", report.downloaded);
//! # Ok::<(), dockersave::Error>(())
//! ```
//!
//! The same runs in the tests against a registry on this machine (`tests/library.rs`), with
//! cancelling from another thread by [`Client::cancel`].
//!
//! Data flows one way: values ([`Reference`], [`Digest`], [`Platform`]), documents
//! ([`Document`]), the registry ([`Client`], [`Repository`]), the plan ([`Plan`]), the pull
//! ([`Pull`]). Every failure is an [`Error`].

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
