//! Compression formats: gzip and zstd are decoded, xz is encoded.

mod gzip;
pub(crate) mod inflate;
mod source;
pub(crate) mod xz;
mod zstd;
