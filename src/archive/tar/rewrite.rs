//! Entries of one tar as entries of another: the same metadata under another name.
//!
//! Numbers, owners and PAX records (extended attributes, capabilities, exact times, sparse maps)
//! are kept as they are. Names and links of more than 100 bytes get a GNU long-name entry, which
//! also readers without PAX understand (busybox).

use super::header::{BLOCK, Header, Letter};
use super::writer::padding;

const LENGTH: usize = BLOCK as usize;
/// The longest name in a header.
const NAME: usize = 100;
/// In a PAX record: the name of a sparse file, whose header has another one.
const SPARSE_NAME: &[u8] = b"GNU.sparse.name";

/// What the headers of an entry say besides its name.
#[derive(Clone)]
pub(crate) struct Metadata {
    /// Without name, link and checksum.
    block: [u8; LENGTH],
    /// PAX records.
    pax: Vec<u8>,
    /// More of an old GNU sparse map.
    maps: Vec<u8>,
    sparse_name: Option<Vec<u8>>,
}

impl Metadata {
    /// From the headers of an entry, which were read before; `None` if they are too long.
    /// `letter` is its type where the headers leave that open.
    pub fn read(mut headers: &[u8], letter: Option<u8>, has_data: bool) -> Option<Self> {
        let mut made = Self::new(b'0');
        loop {
            let (block, rest) = headers.split_first_chunk::<LENGTH>()?;
            let header = Header(block);
            let size = usize::try_from(header.size()?).ok()?;
            match header.letter() {
                Letter::Entry(_) => {
                    let more = block[156] == b'S' && header.more_sparse();
                    let complete = rest.last_chunk::<LENGTH>().is_some_and(|end| end[504] == 0);
                    if more != complete {
                        return None;
                    }
                    made.maps = rest.to_vec();
                    made.fill(block, letter, has_data);
                    return Some(made);
                }
                Letter::Pax => made.keep(rest.get(..size)?, has_data)?,
                _ => {}
            }
            headers = rest.get(size + padding(size as u64) as usize..)?;
        }
    }

    /// Of a directory that no layer describes.
    pub fn directory() -> Self {
        let mut made = Self::new(b'5');
        made.block[100..107].copy_from_slice(b"0000755");
        made
    }

    fn new(letter: u8) -> Self {
        let mut block = [0; LENGTH];
        block[100..107].copy_from_slice(b"0000644");
        for field in [108..115, 116..123, 124..135, 136..147] {
            block[field].fill(b'0');
        }
        block[156] = letter;
        block[257..265].copy_from_slice(b"ustar\x0000");
        Self {
            block,
            pax: Vec::new(),
            maps: Vec::new(),
            sparse_name: None,
        }
    }

    fn fill(&mut self, from: &[u8; LENGTH], letter: Option<u8>, has_data: bool) {
        let numbers = if has_data { 100..148 } else { 100..124 };
        self.block[numbers.clone()].copy_from_slice(&from[numbers]);
        self.block[136..148].copy_from_slice(&from[136..148]);
        if Header(from).has_magic() {
            self.block[265..345].copy_from_slice(&from[265..345]);
        }
        self.block[156] = match letter {
            Some(letter) => letter,
            // A sparse file by its records.
            None if matches!(from[156], 0 | b'7') => b'0',
            None => from[156],
        };
        if from[156] == b'S' {
            self.block[257..265].copy_from_slice(b"ustar  \0");
            self.block[345..].copy_from_slice(&from[345..]);
        }
    }

    /// Keeps all records but names; these were read before.
    fn keep(&mut self, mut records: &[u8], has_data: bool) -> Option<()> {
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&records[..blank]).ok()?.parse().ok()?;
            let (record, rest) = records.split_at_checked(length)?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            match record.get(blank + 1..equals)? {
                b"path" | b"linkpath" => {}
                b"size" if !has_data => {}
                key if !has_data && key.starts_with(b"GNU.sparse.") => {}
                SPARSE_NAME => {
                    self.sparse_name = Some(record[equals + 1..].strip_suffix(b"\n")?.to_vec());
                }
                _ => self.pax.extend_from_slice(record),
            }
            records = rest;
        }
        Some(())
    }

    /// Whether it is a file by its header.
    pub fn is_file(&self) -> bool {
        matches!(self.block[156], b'0' | b'S')
    }

    /// The name of a sparse file, if it stands in a PAX record.
    pub fn sparse_name(&self) -> Option<&[u8]> {
        self.sparse_name.as_deref()
    }

    /// That of a hard link to it.
    pub fn into_link(mut self) -> Self {
        let records = std::mem::take(&mut self.pax);
        let mut link = Self::new(b'1');
        self.block[156] = b'1';
        link.fill(&self.block, None, false);
        // Records that cannot be read were refused before.
        let _ = link.keep(&records, false);
        link
    }

    /// How many bytes it takes in memory.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.pax.len()
    }

    /// The headers of an entry with this path and link.
    pub fn headers(&self, path: &[u8], link: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(LENGTH);
        match &self.sparse_name {
            Some(_) => preceding(
                &mut out,
                b'x',
                &[&self.pax[..], &record(SPARSE_NAME, path)].concat(),
            ),
            None if !self.pax.is_empty() => preceding(&mut out, b'x', &self.pax),
            None => {}
        }
        for (letter, text) in [(b'K', link), (b'L', path)] {
            if text.len() > NAME {
                preceding(&mut out, letter, &[text, b"\0"].concat());
            }
        }
        let mut block = self.block;
        for (at, text) in [(0, path), (157, link)] {
            let length = text.len().min(NAME);
            block[at..at + length].copy_from_slice(&text[..length]);
        }
        seal(&mut block);
        out.extend_from_slice(&block);
        out.extend_from_slice(&self.maps);
        out
    }
}

/// A header that describes the next one.
fn preceding(out: &mut Vec<u8>, letter: u8, content: &[u8]) {
    let mut block = Metadata::new(letter).block;
    let name: &[u8] = if letter == b'x' {
        b"././@PaxHeader"
    } else {
        b"././@LongLink"
    };
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[124..135], content.len() as u64);
    seal(&mut block);
    out.extend_from_slice(&block);
    out.extend_from_slice(content);
    out.resize(out.len() + padding(content.len() as u64) as usize, 0);
}

fn octal(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Writes the checksum.
fn seal(block: &mut [u8; LENGTH]) {
    block[148..156].fill(b' ');
    let sum = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block[148..154], sum);
    block[154] = 0;
}

/// A PAX record, whose length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}
