//! The stream: a plan's bytes in order, from the first to the last, written to anything that takes
//! bytes. The same bytes as in the file.

use crate::archive::plan::{Part, Plan};
use crate::error::{Error, Result};
use std::io::{self, BufRead};

/// Where the bytes of a plan's blobs come from, each asked for once and in order.
pub(crate) trait Layers {
    /// The bytes of a blob, which end without an error only if they are the right ones.
    fn layer(&mut self, blob: usize) -> Result<Box<dyn BufRead + '_>>;
}

/// Writes the archive of a plan. `write` gets its bytes, and is told which of them are a blob's.
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

/// Hands on a blob of exactly this size.
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

/// What was read twice was not the same the second time.
pub(crate) fn changed() -> Error {
    Error::malformed("a layer", "changed its size while it was read")
}

/// A failure of ours that came through a reader.
pub(crate) fn unwrap(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::malformed("a layer", crate::error::plain(&error)),
    }
}
