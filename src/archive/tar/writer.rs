//! Writing tar headers: regular files only, with GNU long names.

/// The block size of a tar.
pub(crate) const BLOCK: u64 = 512;

pub(crate) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len() + padding(bytes.len() as u64) as usize, 0);
}

/// Paths of more than 100 bytes (those of sha512 blobs) need a GNU long-name entry before the
/// header.
pub(crate) fn header_size(path: &str) -> u64 {
    match path.len() as u64 {
        0..=100 => BLOCK,
        long => 2 * BLOCK + long + 1 + padding(long + 1),
    }
}

/// The header blocks of a plain file. Sizes from 8 GiB on are in base 256, as GNU tar writes them
/// and Go and bsdtar read them.
pub(crate) fn header(path: &str, size: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(header_size(path) as usize);
    if path.len() > 100 {
        bytes.extend_from_slice(&block(
            b"././@LongLink",
            ::tar::EntryType::GNULongName,
            path.len() as u64 + 1,
        ));
        bytes.extend_from_slice(path.as_bytes());
        bytes.push(0);
        pad(&mut bytes);
    }
    bytes.extend_from_slice(&block(path.as_bytes(), ::tar::EntryType::Regular, size));
    bytes
}

fn block(path: &[u8], kind: ::tar::EntryType, size: u64) -> [u8; BLOCK as usize] {
    let mut header = ::tar::Header::new_gnu();
    let name = &mut header.as_old_mut().name;
    let length = path.len().min(name.len());
    name[..length].copy_from_slice(&path[..length]);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    // As GNU tar, bsdtar and Go write it: six digits, NUL, blank. The crate writes seven digits and
    // NUL. This way GNU tar makes the same archive of the directory.
    if let Ok(sum) = header.cksum() {
        let digits = format!("{sum:06o}\0 ");
        header.as_old_mut().cksum.copy_from_slice(digits.as_bytes());
    }
    *header.as_bytes()
}
