//! Compression formats: gzip and zstd are decoded, xz is encoded.

pub(crate) mod inflate;
pub(crate) mod xz;
