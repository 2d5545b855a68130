//! Downloads a container image from its registry straight into a tar that `docker load` takes.
//!
//! The archive is a docker-archive and an OCI layout at once. It is laid out before the first layer
//! is requested; layers arrive in parallel at their final place; interrupted downloads resume; and
//! a file under its final name is complete, with every size and digest checked.
//!
//! The library blocks: a call returns when it is done, and a pull brings its own threads. It runs on
//! Linux, 32 and 64 bits. The default feature `cli` builds the program `dockersave`, which uses
//! nothing but this interface; `default-features = false` leaves out what only that needs.
//!
//! The version is the program's. Names and signatures here may still change in a minor version, and
//! the changelog then says so.
//!
//! ```
//! use dockersave::{Client, Plan, PlanOptions, Pull, Reference};
//!
//! # // A registry of two documents, so that this runs anywhere.
//! # use std::io::{Read, Write};
//! # let config = br#"{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}"#;
//! # let digest = dockersave::Digest::of(dockersave::Algorithm::Sha256, config);
//! # let kind = "application/vnd.oci.image.config.v1+json";
//! # let manifest = format!(
//! #     r#"{{"config":{{"mediaType":"{kind}","digest":"{digest}","size":{}}},"layers":[]}}"#,
//! #     config.len()
//! # );
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
//! # let debian = format!("{}/debian:12", listener.local_addr().unwrap());
//! # std::thread::spawn(move || {
//! #     for mut socket in listener.incoming().flatten() {
//! #         let mut request = [0; 4096];
//! #         let length = socket.read(&mut request).unwrap();
//! #         let blob = String::from_utf8_lossy(&request[..length]).contains("/blobs/");
//! #         let body = if blob { &config[..] } else { manifest.as_bytes() };
//! #         write!(socket, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).unwrap();
//! #         socket.write_all(body).unwrap();
//! #     }
//! # });
//! # let directory = std::env::temp_dir().join(format!("dockersave-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&directory).unwrap();
//! # let path = &directory.join("debian.tar");
//! # /*
//! let debian = "debian:12";
//! let path = "debian.tar";
//! # */
//! let name: Reference = debian.parse()?;
//! # /*
//! let client = Client::builder().build()?;
//! # */
//! # let client = Client::builder().insecure(true).build()?;
//! let image = client.repository(&name)?.image(None)?;
//! let plan = Plan::new(&[image], &PlanOptions::default())?;
//! println!("{} bytes in {} entries", plan.size(), plan.entries().len());
//! let report = Pull::new(&client, plan)
//!     .observer(|event| eprintln!("{event}"))
//!     .to_file(path)?;
//! println!("{} bytes downloaded", report.downloaded);
//! # assert_eq!(std::fs::metadata(&report.path).unwrap().len(), report.size);
//! # std::fs::remove_dir_all(&directory).unwrap();
//! # Ok::<(), dockersave::Error>(())
//! ```
//!
//! A [`CancelToken`] ends a pull from another thread; a later one resumes from there.
//!
//! Data flows one way: values ([`Reference`], [`Digest`], [`Platform`]), documents
//! ([`Document`]), the registry ([`Client`], [`Repository`]), the plan ([`Plan`]), the pull
//! ([`Pull`]). Every failure is an [`Error`].
//!
//! # How do I ...
//!
//! | | |
//! |---|---|
//! | pull to a file, a directory, a stream | [`Pull::to_file`], [`Pull::to_directory`], [`Pull::to_writer`] |
//! | resume a pull | make the same pull to the same path again |
//! | cancel a pull or a request | [`CancelToken`], [`Pull::cancelled_by`], [`Client::cancelled_by`] |
//! | know before what a pull takes | [`Pull::preview_file`], [`check_file`] |
//! | follow its progress | [`Pull::observer`], [`Event`] |
//! | put several images into one archive | [`Plan::new`] with all of them |
//! | choose a platform, or take all | [`Repository::image`], [`Repository::all_platforms`] |
//! | store layers uncompressed, or compress the archive | [`Pull::inflate`], [`Pull::xz`] |
//! | get an image's files | [`Pull::rootfs`] |
//! | reuse an older archive | [`Pull::reuse`] |
//! | accept only an archive with a known SHA-256 | [`Pull::expect_sha256`] |
//! | list tags or platforms | [`Repository::tags`], [`Repository::platforms`] |
//! | get a digest or a manifest | [`Repository::digest`], [`Repository::manifest`] |
//! | give credentials, certificates, mirrors | [`ClientBuilder`] |
//! | keep out the environment and other tools' files | [`Client::bare`] |
//! | check an archive | [`verify()`], [`verify_reader`] |
//! | decide by what went wrong, say what may help | match on [`Error`], [`Error::hint`] |
//! | show text from a registry on a terminal | [`text`] |

// Tests may panic.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod archive;
mod budget;
mod cancel;
mod codec;
mod counter;
mod digest;
mod error;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod hint;
mod image;
mod json;
mod manifest;
mod net;
mod order;
mod platform;
mod pull;
mod reference;
mod registry;
mod secret;
mod signature;
mod sync;
pub mod text;
mod time;

pub use crate::archive::plan::{Entry, Format, Plan, PlanOptions};
pub use crate::archive::sink::directory::check_directory;
pub use crate::archive::sink::file::{check_file, partial_path};
pub use crate::cancel::CancelToken;
pub use archive::base::Base;
pub use archive::defect::Defect;
pub use archive::thin::Missing;
pub use archive::verify::{
    Findings, WINDOW, verify, verify_reader, verify_reader_signed, verify_reader_within,
    verify_signed, verify_within,
};
pub use digest::{Algorithm, Digest, InvalidDigest};
pub use error::{Error, Result};
pub use hint::Hint;
pub use image::Image;
pub use manifest::{Content, Descriptor, Document, IndexEntry};
pub use platform::Platform;
pub use pull::{BlobPreview, Event, LayerProgress, Preview, Pull, Report, image_names};
pub use reference::Reference;
pub use registry::{
    Client, ClientBuilder, PlatformImage, Platforms, Referrer, Repository, Requirements, Tags,
    Warning, same_registry,
};
pub use signature::{Form, Policy, PublicKey, Verified};
