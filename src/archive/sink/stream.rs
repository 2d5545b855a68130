//! The stream output: a plan's bytes in order, the same as in the file, to any writer.

use crate::archive::plan::{Part, Plan};
use crate::error::{Error, Result};
use std::io::{self, BufRead};

/// The source of a plan's blobs, each requested once and in order.
pub(crate) trait Layers {
    /// The bytes of a blob. They end without an error only if they match the digest.
    fn layer(&mut self, blob: usize) -> Result<Box<dyn BufRead + '_>>;
}

/// Writes the archive of a plan. `write` gets its bytes, and which of them belong to a blob.
pub(crate) fn write(
    plan: &Plan,
    layers: &mut dyn Layers,
    write: &mut dyn FnMut(&[u8], bool) -> Result<()>,
) -> Result<()> {
    for part in plan.parts() {
        match part {
            Part::Bytes(bytes) => write(&bytes, false)?,
            Part::Blob(number) => {
                let size = plan.blobs()[number].descriptor.size;
                copy(&mut *layers.layer(number)?, size, &mut |bytes| {
                    write(bytes, true)
                })?;
            }
        }
    }
    Ok(())
}

/// Passes on a blob of exactly this size.
pub(crate) fn copy(
    layer: &mut dyn BufRead,
    size: u64,
    write: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut left = size;
    loop {
        let bytes = layer.fill_buf().map_err(unwrap)?;
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        left = left.checked_sub(length as u64).ok_or_else(changed)?;
        write(bytes)?;
        layer.consume(length);
    }
    if left > 0 { Err(changed()) } else { Ok(()) }
}

/// The second read returned different data.
pub(crate) fn changed() -> Error {
    Error::malformed("a layer", "changed its size while it was read")
}

/// An error of ours that passed through a reader.
pub(crate) fn unwrap(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::malformed("a layer", crate::error::plain(&error)),
    }
}
