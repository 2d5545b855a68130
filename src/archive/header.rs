//! One header block of a tar, as strangers write them: POSIX (ustar), GNU and what came before.
//!
//! Fields are read, and refused where they are not well formed; what follows from them is
//! [`super::entries`]' business.

/// A tar's unit.
pub(crate) const BLOCK: u64 = 512;

/// What an entry is, as far as it matters to a reader of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    /// Only parts of the file are stored.
    Sparse,
    /// A device or a FIFO.
    Special,
    /// A type that no standard names.
    Unknown,
}

/// What a type letter says, before PAX records have their say.
pub(super) enum Letter {
    Entry(Kind),
    /// The next entry's name, in GNU's way.
    LongName,
    /// The next entry's link target, in GNU's way.
    LongLink,
    /// PAX records for the next entry.
    Pax,
    /// PAX records for all further entries.
    Global,
}

pub(super) struct Header<'b>(pub &'b [u8; BLOCK as usize]);

impl<'b> Header<'b> {
    /// The checksum field holds the sum of all bytes, itself taken for blanks.
    pub fn check_sum(&self) -> Result<(), &'static str> {
        let field = &self.0[148..156];
        let all: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = field.iter().map(|byte| u64::from(*byte)).sum();
        match octal(field) {
            None => Err("has a checksum that is no number"),
            Some(sum) if sum == all - own + 8 * u64::from(b' ') => Ok(()),
            Some(_) => Err("is damaged: its checksum is another one"),
        }
    }

    /// No header is without a checksum.
    pub fn has_no_sum(&self) -> bool {
        self.0[148..156] == [0; 8]
    }

    /// Does it say that it is one?
    pub fn has_magic(&self) -> bool {
        &self.0[257..262] == b"ustar"
    }

    pub fn letter(&self) -> Letter {
        let kind = match self.0[156] {
            b'L' => return Letter::LongName,
            b'K' => return Letter::LongLink,
            b'x' => return Letter::Pax,
            b'g' => return Letter::Global,
            // Before POSIX, a directory was a name with a slash at its end.
            b'0' | 0 | b'7' if self.name().ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::Hardlink,
            b'2' => Kind::Symlink,
            b'3' | b'4' | b'6' => Kind::Special,
            b'5' => Kind::Directory,
            b'S' => Kind::Sparse,
            _ => Kind::Unknown,
        };
        Letter::Entry(kind)
    }

    /// The name, with POSIX's prefix before it.
    pub fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = match &self.0[257..263] {
            b"ustar\0" => text(&self.0[345..500]),
            _ => &[],
        };
        match prefix {
            [] => name.to_vec(),
            prefix => [prefix, b"/", name].concat(),
        }
    }

    pub fn link(&self) -> &'b [u8] {
        text(&self.0[157..257])
    }

    pub fn size(&self) -> Option<u64> {
        number(&self.0[124..136])
    }

    /// Does another block with a map of a sparse file follow?
    pub fn more_sparse(&self) -> bool {
        self.0[482] != 0
    }
}

/// What stands before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A number in octal or, where the first bit says so, in base 256.
fn number(field: &[u8]) -> Option<u64> {
    match field[0] {
        0x80 => {
            let (high, low) = field[1..].split_at(field.len() - 9);
            let value = low.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            (high.iter().all(|byte| *byte == 0) && i64::try_from(value).is_ok()).then_some(value)
        }
        0x81.. => None,
        _ => octal(field),
    }
}

/// Blanks, octal digits, then nothing but NULs and blanks; nothing at all is 0.
fn octal(field: &[u8]) -> Option<u64> {
    let start = field.iter().position(|byte| *byte != b' ')?;
    let field = &field[start..];
    let end = field
        .iter()
        .position(|byte| !matches!(byte, b'0'..=b'7'))
        .unwrap_or(field.len());
    let (digits, rest) = field.split_at(end);
    // Twelve digits have 36 bits.
    let value = digits
        .iter()
        .fold(0, |sum, digit| sum << 3 | u64::from(digit - b'0'));
    rest.iter()
        .all(|byte| matches!(byte, 0 | b' '))
        .then_some(value)
}

/// What PAX records change about the entry they stand before.
#[derive(Default)]
pub(super) struct Pax {
    pub name: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub sparse: bool,
}

impl Pax {
    /// Records are `length key=value\n`, the length in decimal and of all of it.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
            let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => pax.name = Some(value.to_vec()),
                b"linkpath" => pax.link = Some(value.to_vec()),
                b"size" => {
                    let size: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
                    pax.size = Some(i64::try_from(size).ok()? as u64);
                }
                _ if key.starts_with(b"GNU.sparse.") => pax.sparse = true,
                _ => {}
            }
            bytes = &bytes[length..];
        }
        Some(pax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_meaning_or_none() {
        for (field, value) in [
            (&b"00000000017\0"[..], Some(15)),
            (b"        17 \0", Some(15)),
            (b"777777777777", Some((1 << 36) - 1)),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", Some(0)),
            (b"            ", None),
            (b"0000000001 7", None),
            (b"0000000008\0\0", None),
            (b"-0000000001\0", None),
            (b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258)),
            (
                b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff",
                Some(i64::MAX as u64),
            ),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\x81\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn pax_records_are_whole_or_refused() {
        let pax = Pax::read(b"11 path=ab\n13 size=1234\n20 GNU.sparse.a=bcd\n").unwrap();
        assert_eq!(
            (pax.name.as_deref(), pax.size, pax.sparse),
            (Some(&b"ab"[..]), Some(1234), true)
        );
        for wrong in [
            &b"12 path=ab\n"[..],
            b"10 path=ab\n",
            b"0 path=ab\n",
            b"99999999999999999999 path=ab\n",
            b"4 x\n",
            b"11 size=-1\n",
            b"28 size=9223372036854775808\n",
            b"path=ab\n",
            b"\0",
        ] {
            assert!(Pax::read(wrong).is_none(), "{wrong:?}");
        }
    }
}
