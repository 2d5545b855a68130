//! Untrusted tar headers: POSIX (ustar), GNU and older dialects.
//!
//! Fields are read, and refused if they are malformed; [`super::reader`] decides what follows from
//! them.

/// The block size of a tar.
pub(crate) const BLOCK: u64 = 512;

/// The type of an entry, as far as it matters for images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    /// A sparse file: only parts are stored.
    Sparse,
    /// A device or a FIFO.
    Special,
    /// A type that no standard defines.
    Unknown,
}

/// The type from the type letter, before PAX records are applied.
pub(super) enum Letter {
    Entry(Kind),
    /// The next entry's name (GNU).
    LongName,
    /// The next entry's link target (GNU).
    LongLink,
    /// PAX records for the next entry.
    Pax,
    /// PAX records for all further entries.
    Global,
}

pub(super) struct Header<'b>(pub &'b [u8; BLOCK as usize]);

impl<'b> Header<'b> {
    /// The checksum field holds the sum of all bytes, with itself counted as blanks.
    pub fn check_sum(&self) -> Result<(), &'static str> {
        let field = &self.0[148..156];
        let all: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = field.iter().map(|byte| u64::from(*byte)).sum();
        match octal(field) {
            None => Err("has a checksum that is not a number"),
            Some(sum) if sum == all - own + 8 * u64::from(b' ') => Ok(()),
            Some(_) => Err("is damaged: its checksum is wrong"),
        }
    }

    /// A header always has a checksum.
    pub fn has_no_sum(&self) -> bool {
        self.0[148..156] == [0; 8]
    }

    /// Whether it has the magic of a header.
    pub fn has_magic(&self) -> bool {
        &self.0[257..262] == b"ustar"
    }

    pub fn letter(&self) -> Letter {
        let kind = match self.0[156] {
            b'L' => return Letter::LongName,
            b'K' => return Letter::LongLink,
            b'x' => return Letter::Pax,
            b'g' => return Letter::Global,
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

    /// The name, including POSIX's prefix.
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

    /// What readers of other dialects interpret differently or refuse. Go reads a prefix only after
    /// POSIX's magic and version, Python after any magic, GNU tar and libarchive with any version;
    /// Go and Python refuse a header with a number that they cannot read.
    pub fn ambiguity(&self) -> Option<&'static str> {
        let blank = |field: &[u8]| field.iter().all(|byte| *byte == 0);
        let ends = |field: &[u8]| blank(&field[text(field).len()..]);
        let posix = match &self.0[257..265] {
            b"ustar\x0000" => true,
            b"ustar  \0" | b"\0\0\0\0\0\0\0\0" => false,
            _ => return Some("has a magic that is neither POSIX, GNU nor V7"),
        };
        let old = blank(&self.0[257..265]);
        if old && matches!(self.0[156], b'L' | b'K' | b'x' | b'g') {
            return Some("has a type that its dialect does not have");
        }
        let tail = if posix { 500 } else { 345 };
        // Sparse files are refused elsewhere.
        if !blank(&self.0[tail..]) && self.0[156] != b'S' {
            return Some("has nonzero bytes where dialects differ");
        }
        let is_link = matches!(self.0[156], b'1' | b'2');
        if !ends(&self.0[..100])
            || (posix && !ends(&self.0[345..500]))
            || (is_link && !ends(&self.0[157..257]))
        {
            return Some("has a name with bytes after its end");
        }
        let devices = if old { 0 } else { 2 };
        let numbers = [(100, 8), (108, 8), (116, 8), (136, 12), (329, 8), (337, 8)];
        // GNU tar refuses blanks alone, except in a device, and an owner that is not a u32.
        let wrong = |(at, length): &(usize, usize)| {
            let field = &self.0[*at..at + length];
            let is_owner = matches!(at, 108 | 116);
            !is_number(field)
                || *at < 329 && field.iter().all(|byte| *byte == b' ')
                || is_owner && (field[0] == 0xff || field[0] == 0x80 && !blank(&field[1..4]))
        };
        if numbers[..4 + devices].iter().any(wrong) {
            return Some("has a mode, owner, time or device that is not a number");
        }
        (self.0[156] == b'7').then_some("is of a type that loaders refuse")
    }

    /// Whether it is a V7 entry, where only the name distinguishes a file from a directory.
    pub fn is_old(&self) -> bool {
        self.0[156] == 0
    }

    /// Whether another block with a sparse map follows.
    pub fn more_sparse(&self) -> bool {
        self.0[482] != 0
    }
}

/// The bytes before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A number in octal or, if the first bit is set, in base 256.
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

/// Whether all readers accept this number, which is not used here.
fn is_number(field: &[u8]) -> bool {
    match field[0] {
        sign @ (0x80 | 0xff) => {
            let fill = if sign == 0x80 { 0 } else { 0xff };
            let (high, low) = field[1..].split_at(field.len().saturating_sub(9));
            let fits = low.len() < 8 || (low[0] & 0x80) == (fill & 0x80);
            high.iter().all(|byte| *byte == fill) && fits
        }
        _ => octal(field).is_some() || field.iter().all(|byte| matches!(byte, 0 | b' ')),
    }
}

/// Blanks, octal digits, then only NULs and blanks; an empty field is 0.
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

/// What preceding headers change about an entry.
#[derive(Default)]
pub(super) struct Pax {
    pub name: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub sparse: bool,
    /// A record that readers interpret differently or refuse.
    pub ambiguous: bool,
    /// Whether there was a header with PAX records, with a long name, with a long link target.
    pub headers: [bool; 3],
}

impl Pax {
    /// Records are `length key=value\n`, where length is decimal and covers the whole record.
    pub fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut pax = Self::default();
        let mut twice = false;
        while !bytes.is_empty() {
            let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let length = decimal(&bytes[..blank])? as usize;
            pax.ambiguous |= bytes[0] == b'0';
            let record = bytes.get(blank + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => twice |= pax.name.replace(value.to_vec()).is_some(),
                b"linkpath" => twice |= pax.link.replace(value.to_vec()).is_some(),
                b"size" => twice |= pax.size.replace(decimal(value)?).is_some(),
                b"uid" | b"gid" => {
                    pax.ambiguous |= decimal(value).is_none_or(|id| id > u64::from(u32::MAX));
                }
                b"mtime" | b"atime" | b"ctime" => pax.ambiguous |= !is_time(value),
                // Sparse files of star and Solaris: only libarchive knows them.
                b"SCHILY.realsize" | b"SUN.holesdata" => pax.ambiguous = true,
                _ if key.starts_with(b"GNU.sparse.") => pax.sparse = true,
                _ => {}
            }
            // For an empty record Go uses the header's value, others none.
            let text = matches!(key, b"path" | b"linkpath" | b"uname" | b"gname");
            pax.ambiguous |= text && (value.contains(&0) || value.is_empty());
            // GNU tar skips blanks before a key.
            let blank = key.starts_with(b" ") || key.starts_with(b"\t");
            pax.ambiguous |= blank || key.is_empty() || key.contains(&0);
            bytes = &bytes[length..];
        }
        pax.ambiguous |= twice;
        Some(pax)
    }

    /// Whether there was any header.
    pub fn is_any(&self) -> bool {
        self.headers != [false; 3]
    }
}

/// Only digits, up to the largest file size.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = text.first()?.is_ascii_digit();
    let number: u64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (digits && i64::try_from(number).is_ok()).then_some(number)
}

/// Seconds, perhaps before 1970, perhaps with a fraction.
fn is_time(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let dot = text.iter().position(|byte| *byte == b'.');
    let (seconds, fraction) = text.split_at(dot.unwrap_or(text.len()));
    let digits = fraction.strip_prefix(b".").unwrap_or(fraction);
    decimal(seconds).is_some() && digits.iter().all(u8::is_ascii_digit)
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
