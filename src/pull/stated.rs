//! The inflated size that a compressed layer states. It may be wrong: a gzip trailer counts modulo
//! 4 GiB and only its last member (RFC 1952, 2.3.1), and a zstd frame only itself (RFC 8878,
//! 3.1.1.1.4).

use crate::archive::plan::Plan;
use crate::archive::sink::Store;
use crate::codec::inflate::format;

/// The longest header of a zstd frame with a size.
const HEADER: usize = 18;
/// The smallest size of a gzip header and trailer.
const LEAST: u64 = 18;

/// The size stated by a blob of a store, if it is plausible.
pub(super) fn size(store: &dyn Store, plan: &Plan, blob: usize) -> Option<u64> {
    let size = plan.blobs()[blob].descriptor.size;
    let mut header = [0; HEADER];
    let header = &mut header[..size.min(HEADER as u64) as usize];
    store.read_at(blob, header, 0).ok()?;
    match format(header) {
        None => Some(size),
        Some("gzip") if size >= LEAST => {
            let mut trailer = [0; 4];
            store.read_at(blob, &mut trailer, size - 4).ok()?;
            let stated = u64::from(u32::from_le_bytes(trailer));
            // Deflate expands data by only a few bytes per block: a smaller value is that of the
            // last member, or modulo 4 GiB.
            (stated + stated / 1000 + 1024 >= size).then_some(stated)
        }
        Some("zstd") => frame_content_size(header),
        Some(_) => None,
    }
}

/// RFC 8878, section 3.1.1.1.
fn frame_content_size(header: &[u8]) -> Option<u64> {
    let rest = header.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (&descriptor, rest) = rest.split_first()?;
    let single = descriptor & 0x20 != 0;
    let length = match (descriptor >> 6, single) {
        (0, false) => return None,
        (0, true) => 1,
        (code, _) => 1 << code,
    };
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let skipped = usize::from(!single) + dictionary;
    let field = rest.get(skipped..skipped + length)?;
    let mut bytes = [0; 8];
    bytes[..length].copy_from_slice(field);
    let size = u64::from_le_bytes(bytes);
    Some(if length == 2 { size + 256 } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_say_their_size_or_nothing() {
        let frame = |rest: &[u8]| {
            let bytes = [&[0x28, 0xb5, 0x2f, 0xfd], rest].concat();
            frame_content_size(&bytes)
        };
        assert_eq!(frame(&[0x20, 7]), Some(7));
        assert_eq!(frame(&[0x00, 0x58]), None);
        assert_eq!(frame(&[0x60, 0x00, 0x01]), Some(512));
        assert_eq!(frame(&[0x40, 0x58, 0x00, 0x01]), Some(512));
        assert_eq!(frame(&[0x80, 0x58, 1, 0, 0, 0]), Some(1));
        assert_eq!(frame(&[0xe0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(1 << 32));
        // A dictionary's number stands before it.
        assert_eq!(frame(&[0x83, 0x58, 9, 9, 9, 9, 1, 0, 0, 0]), Some(1));
        assert_eq!(frame(&[0xe0, 0, 0]), None);
        assert_eq!(frame_content_size(&[0x50, 0x2a, 0x4d, 0x18, 0, 0]), None);
    }
}
