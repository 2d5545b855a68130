//! A reader for the entries of an untrusted tar, of any tool.
//!
//! A strict walk reports everything that a sound archive does not have: wrong checksums, nonzero
//! padding, a missing end, bytes after the end. A loose one skips contents without reading them.
//! The caller decides what an entry is good for.

use super::header::{BLOCK, Header, Kind, Letter, Pax};
use super::writer::{self, padding};
use crate::archive::defect::Defect;
use crate::codec::inflate::MAGIC;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// The longest name or link target, and the most bytes of PAX records.
const LONG: u64 = 64 << 10;
/// The most zeros read after the end: a tape record has that many.
const TRAILER: u64 = 1 << 20;
/// The most bytes of headers that are kept to be compared with dockersave's.
const COMPARED: usize = 4 * BLOCK as usize;
const DIRTY: &str = "nonzero bytes are in it or after it";

/// A source of an archive's bytes, in order.
pub(crate) trait Input {
    /// Fills the buffer; less than that only at the end.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Skips bytes; returns how many there were.
    fn pass(&mut self, count: u64) -> io::Result<u64>;
}

/// A file, read at offsets, so that skipping costs nothing.
pub(crate) struct FileInput<'f> {
    file: &'f File,
    at: u64,
    size: u64,
}

impl<'f> FileInput<'f> {
    pub fn new(file: &'f File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, at: 0, size })
    }
}

impl Input for FileInput<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], self.at) {
                Ok(0) => break,
                Ok(read) => {
                    filled += read;
                    self.at += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn pass(&mut self, count: u64) -> io::Result<u64> {
        let there = count.min(self.size.saturating_sub(self.at));
        self.at += there;
        Ok(there)
    }
}

/// A stream, read once from start to end.
pub(crate) struct StreamInput<'r>(pub &'r mut dyn Read);

impl Input for StreamInput<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn pass(&mut self, count: u64) -> io::Result<u64> {
        let mut buffer = [0; 8 << 10];
        let mut left = count;
        while left > 0 {
            let part = left.min(buffer.len() as u64) as usize;
            let read = self.fill(&mut buffer[..part])?;
            left -= read as u64;
            if read < part {
                break;
            }
        }
        Ok(count - left)
    }
}

/// The current entry of a walk.
pub(crate) struct Head {
    pub name: Vec<u8>,
    /// What a link points to.
    pub link: Vec<u8>,
    pub kind: Kind,
    /// The size of its data in the archive; 0 for anything but files.
    pub size: u64,
    /// Where its data begins.
    pub data: u64,
    /// Its header is, byte for byte, what dockersave writes.
    pub ours: bool,
    /// Its header's checksum is wrong, so nothing in it is certain.
    pub damaged: bool,
}

impl Head {
    pub fn label(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// A walk through a tar.
pub(crate) struct Walker<'i> {
    input: &'i mut dyn Input,
    strict: bool,
    magic: [u8; MAGIC],
    /// A sound header or an end was seen.
    is_tar: bool,
    /// How many bytes of the archive were read.
    at: u64,
    /// How much of the current entry's data is left.
    left: u64,
    padding: u64,
    label: String,
    /// The header before had a wrong checksum.
    doubtful: bool,
    done: bool,
    /// The headers of the current entry, up to about so many bytes.
    raw: Vec<u8>,
    most: usize,
    /// Whether to pass over what most readers agree on.
    lenient: bool,
}

/// Receives the defects of the archive.
pub(crate) type Tell<'t> = &'t mut dyn FnMut(Defect);

/// What came instead of a header.
enum Next {
    Header(Box<[u8; BLOCK as usize]>),
    End,
}

impl<'i> Walker<'i> {
    pub fn new(input: &'i mut dyn Input, strict: bool) -> Self {
        Self {
            input,
            strict,
            magic: [0; MAGIC],
            is_tar: false,
            at: 0,
            left: 0,
            padding: 0,
            label: String::new(),
            doubtful: false,
            done: false,
            raw: Vec::new(),
            most: COMPARED,
            lenient: false,
        }
    }

    /// Keeps so many bytes of headers, for [`Self::headers`].
    pub fn keep_headers(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Passes over a missing end, and over sizes of entries without data.
    pub fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// The headers of the current entry.
    pub fn headers(&self) -> &[u8] {
        &self.raw
    }

    /// Its first bytes.
    pub fn magic(&self) -> [u8; MAGIC] {
        self.magic
    }

    /// Whether there was any sign of a tar.
    pub fn is_tar(&self) -> bool {
        self.is_tar
    }

    /// How many bytes of the archive were read.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next entry; `None` at the end, or if nothing more can be read.
    pub fn next(&mut self, tell: Tell<'_>) -> io::Result<Option<Head>> {
        self.leave(tell)?;
        self.raw.clear();
        let mut pax = Pax::default();
        loop {
            let block = match self.block(tell)? {
                Next::Header(block) => block,
                Next::End => {
                    if self.strict && pax.is_any() {
                        self.tell_header("describes an entry that does not follow", tell);
                    }
                    return Ok(None);
                }
            };
            let header = Header(&block);
            let name = header.name();
            self.label = String::from_utf8_lossy(&name).into_owned();
            self.is_tar |= header.has_magic();
            let damaged = match header.check_sum() {
                Ok(()) => {
                    self.is_tar = true;
                    false
                }
                Err(_) if header.has_no_sum() => {
                    // The first block of zeros, less a few.
                    self.done = true;
                    tell(Defect::new("the end", DIRTY));
                    return Ok(None);
                }
                Err(why) => {
                    self.tell_header(why, tell);
                    true
                }
            };
            if self.strict
                && !damaged
                && let Some(what) = header.ambiguity()
            {
                self.tell_header(what, tell);
            }
            let Some(size) = header.size() else {
                self.tell_header("has a size that is not a number or is too large", tell);
                return self.give_up(tell);
            };
            if damaged && std::mem::replace(&mut self.doubtful, true) {
                // Two in a row: there are no headers here.
                return self.give_up(tell);
            }
            self.doubtful = damaged;
            self.keep(&*block);
            match header.letter() {
                Letter::Entry(kind) => {
                    return self.entry(header, kind, size, pax, damaged, tell);
                }
                _ if damaged => {
                    // Its content looks like an entry; the entry after it follows.
                    (self.left, self.padding) = (size, padding(size));
                    self.leave(tell)?;
                }
                letter => {
                    let Some(content) = self.content(size, tell)? else {
                        return Ok(None);
                    };
                    self.understand(letter, content, &mut pax, tell);
                }
            }
        }
    }

    fn entry(
        &mut self,
        header: Header<'_>,
        kind: Kind,
        size: u64,
        pax: Pax,
        damaged: bool,
        tell: Tell<'_>,
    ) -> io::Result<Option<Head>> {
        let (name, link) = (header.name(), header.link());
        let given = pax.name.as_ref().unwrap_or(&name);
        self.label = String::from_utf8_lossy(given).into_owned();
        let kind = match kind {
            _ if pax.sparse => Kind::Sparse,
            // Before POSIX, a directory was a name with a trailing slash.
            Kind::File if given.ends_with(b"/") => Kind::Directory,
            kind => kind,
        };
        if self.strict && !damaged {
            let old = header.is_old();
            let slash = kind == Kind::Directory && header.0[156] != b'5';
            let whole = header.size() == Some(0) && !pax.is_any();
            if slash && !(old && whole) || old && pax.is_any() && name.ends_with(b"/") {
                self.tell_header("is a file to some readers and a directory to others", tell);
            }
            self.compare(&pax, &name, link, kind, size, tell);
        }
        let link = pax.link.unwrap_or_else(|| link.to_vec());
        let name = pax.name.unwrap_or(name);
        let size = pax.size.unwrap_or(size);
        if kind == Kind::Sparse && header.more_sparse() && header.0[156] == b'S' {
            self.sparse_maps(tell)?;
        }
        let has_data = matches!(kind, Kind::File | Kind::Sparse | Kind::Unknown);
        if !has_data && size > 0 && !self.lenient {
            self.tell_header("is not a file, but has a size", tell);
        }
        let size = if has_data { size } else { 0 };
        if self
            .at
            .checked_add(size)
            .is_none_or(|end| end > i64::MAX as u64 - BLOCK)
        {
            self.tell_header("has a size that no file can have", tell);
            return self.give_up(tell);
        }
        (self.left, self.padding) = (size, padding(size));
        let ours = kind == Kind::File
            && std::str::from_utf8(&name).is_ok_and(|name| self.raw == writer::header(name, size));
        Ok(Some(Head {
            link,
            name,
            kind,
            size,
            data: self.at,
            ours,
            damaged,
        }))
    }

    /// Compares what preceding headers and its own header say about an entry. A value that does not
    /// fit a plain header is no conflict.
    fn compare(
        &mut self,
        pax: &Pax,
        name: &[u8],
        link: &[u8],
        kind: Kind,
        size: u64,
        tell: Tell<'_>,
    ) {
        /// The longest name and the largest size in a plain header.
        const NAME: usize = 100;
        const SIZE: u64 = (1 << 33) - 1;
        let differs = |given: &Option<Vec<u8>>, own: &[u8]| {
            let fits = |given: &&Vec<u8>| given.len() < NAME && given.is_ascii();
            given
                .as_ref()
                .filter(fits)
                .is_some_and(|given| given != own)
        };
        let is_link = matches!(kind, Kind::Symlink | Kind::Hardlink);
        if pax.ambiguous {
            self.tell_header(
                "is preceded by something that readers interpret differently",
                tell,
            );
        }
        if differs(&pax.name, name) {
            self.tell_header("gives it a different name than the one before it", tell);
        }
        if (pax.link.is_some() && !is_link) || differs(&pax.link, link) {
            self.tell_header(
                "gives it a different link target than the one before it",
                tell,
            );
        }
        if pax.size.is_some_and(|given| given != size && given <= SIZE) {
            self.tell_header("gives it a different size than the one before it", tell);
        }
    }

    /// Skips to the end of the current entry.
    fn leave(&mut self, tell: Tell<'_>) -> io::Result<()> {
        let passed = self.input.pass(self.left)?;
        self.at += passed;
        if passed < self.left {
            let missing = self.left - passed;
            self.cut_off(&format!("{missing} bytes of its data are missing"), tell);
        }
        self.left = 0;
        let padding = std::mem::take(&mut self.padding) as usize;
        if self.done {
            return Ok(());
        }
        let mut bytes = [0; BLOCK as usize];
        let read = self.input.fill(&mut bytes[..padding])?;
        self.at += read as u64;
        if bytes[..read].iter().any(|byte| *byte != 0) && self.strict {
            tell(Defect::new(&self.label, "is padded with nonzero bytes"));
        }
        if read < padding {
            self.cut_off("its padding is missing", tell);
        }
        Ok(())
    }

    fn cut_off(&mut self, what: &str, tell: Tell<'_>) {
        self.done = true;
        let what = format!(
            "the archive is truncated here, at {} bytes: {what}",
            self.at
        );
        tell(Defect::new(&self.label, what));
    }

    /// The next block, if it is a header.
    fn block(&mut self, tell: Tell<'_>) -> io::Result<Next> {
        if self.done {
            return Ok(Next::End);
        }
        let mut block = Box::new([0; BLOCK as usize]);
        let read = self.input.fill(&mut block[..])?;
        if self.at == 0 {
            self.magic.copy_from_slice(&block[..MAGIC]);
        }
        self.at += read as u64;
        if read < block.len() {
            self.done = true;
            if !self.lenient {
                let what = format!(
                    "the archive is truncated at {} bytes: its end, two blocks of zeros, is missing",
                    self.at
                );
                tell(Defect::new("the end", what));
            }
            return Ok(Next::End);
        }
        if block.iter().all(|byte| *byte == 0) {
            self.is_tar = true;
            self.done = true;
            if self.strict {
                self.end(tell)?;
            }
            return Ok(Next::End);
        }
        Ok(Next::Header(block))
    }

    /// After the first block of zeros: a second one, then only zeros.
    fn end(&mut self, tell: Tell<'_>) -> io::Result<()> {
        let (mut behind, mut dirty) = (0_u64, false);
        let mut buffer = [0; 8 << 10];
        loop {
            let read = self.input.fill(&mut buffer)?;
            dirty |= buffer[..read].iter().any(|byte| *byte != 0);
            behind += read as u64;
            if read < buffer.len() || behind > TRAILER || dirty {
                break;
            }
        }
        self.at += behind;
        let what = if dirty {
            DIRTY.to_owned()
        } else if behind < BLOCK {
            format!(
                "the archive is truncated at {} bytes: it has two blocks of zeros",
                self.at
            )
        } else if behind > TRAILER {
            format!("more than {TRAILER} bytes follow it")
        } else {
            return Ok(());
        };
        tell(Defect::new("the end", what));
        Ok(())
    }

    fn tell_header(&self, what: &str, tell: Tell<'_>) {
        let what = format!("the header before byte {} {what}", self.at);
        tell(Defect::new(&self.label, what));
    }

    fn give_up(&mut self, tell: Tell<'_>) -> io::Result<Option<Head>> {
        self.done = true;
        tell(Defect::new(&self.label, "what follows cannot be read"));
        Ok(None)
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.raw.len() < self.most {
            self.raw.extend_from_slice(bytes);
        }
    }

    /// The content of an entry that describes the next one.
    fn content(&mut self, size: u64, tell: Tell<'_>) -> io::Result<Option<Vec<u8>>> {
        if size > LONG {
            self.tell_header(
                &format!("has more than {LONG} bytes about the next entry"),
                tell,
            );
            return self.give_up(tell).map(|_| None);
        }
        let mut bytes = vec![0; size as usize];
        (self.left, self.padding) = (size, padding(size));
        let read = self.read(&mut bytes)?;
        self.keep(&bytes[..read]);
        self.keep(&[0; BLOCK as usize][..self.padding as usize]);
        self.leave(tell)?;
        Ok((!self.done).then_some(bytes))
    }

    fn understand(&mut self, letter: Letter, mut content: Vec<u8>, pax: &mut Pax, tell: Tell<'_>) {
        let headers = pax.headers;
        match letter {
            Letter::LongName | Letter::LongLink => {
                let end = content.iter().position(|byte| *byte == 0);
                let end = end.unwrap_or(content.len());
                pax.ambiguous |= end == 0 || content[end..].iter().any(|byte| *byte != 0);
                content.truncate(end);
                // One of each is allowed.
                if let Letter::LongName = letter {
                    pax.ambiguous |= headers[0] || headers[1];
                    pax.headers[1] = true;
                    pax.name = Some(content);
                } else {
                    pax.ambiguous |= headers[0] || headers[2];
                    pax.headers[2] = true;
                    pax.link = Some(content);
                }
            }
            Letter::Pax | Letter::Global => match (letter, Pax::read(&content)) {
                (_, None) => self.tell_header("has PAX records that cannot be read", tell),
                (Letter::Pax, Some(read)) => {
                    // Go keeps only the last header, others all of them.
                    pax.ambiguous |= pax.is_any() || read.ambiguous;
                    pax.headers[0] = true;
                    pax.name = read.name.or(pax.name.take());
                    pax.link = read.link.or(pax.link.take());
                    pax.size = read.size.or(pax.size);
                    pax.sparse |= read.sparse;
                }
                (_, Some(read)) => {
                    // To Go this is an entry, which the preceding headers belong to.
                    pax.ambiguous |= pax.is_any();
                    // Readers disagree about a global name or size.
                    let path = read.name.is_some() || read.link.is_some();
                    if path || read.size.is_some() || read.sparse || read.ambiguous {
                        self.tell_header("gives all entries the same name or size", tell);
                    }
                }
            },
            Letter::Entry(_) => {}
        }
    }

    /// The further blocks of an old GNU sparse map.
    fn sparse_maps(&mut self, tell: Tell<'_>) -> io::Result<()> {
        let mut block = [0; BLOCK as usize];
        loop {
            let read = self.input.fill(&mut block)?;
            self.at += read as u64;
            if read < block.len() {
                self.cut_off("the map of a sparse file is missing", tell);
                return Ok(());
            }
            self.keep(&block);
            if block[504] == 0 {
                return Ok(());
            }
        }
    }
}

/// Reads the current entry's data; 0 at its end or the archive's.
impl Read for Walker<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let part = self.left.min(buffer.len() as u64) as usize;
        let read = self.input.fill(&mut buffer[..part])?;
        self.left -= read as u64;
        self.at += read as u64;
        Ok(read)
    }
}
