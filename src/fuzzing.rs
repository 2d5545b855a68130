//! Fuzz targets by name, for `make fuzz` and for the test that runs its seeds.
//!
//! A target fails by panicking, looping, or using unbounded memory.

use crate::archive::sink::journal::{self, Chunks, claimed};
use crate::archive::source::Existing;
use crate::archive::{inventory, thin};
use crate::codec::inflate::{self, Limits};
use crate::digest::{Algorithm, Digest};
use crate::json::Strings;
use crate::json::keys::Keys;
use crate::manifest::{Config, DOCKER_LIST, Document, OCI_MANIFEST};
use crate::net::http::Connection;
use crate::net::stream::{Socket, Stream};
use crate::net::url::Url;
use crate::reference::Reference;
use crate::registry::auth::{challenge, credentials, realm};
use crate::registry::tags::page::Page;
use crate::signature::{self, Payload, Policy, PublicKey};
use crate::{Findings, verify, verify_reader};
use rustix::fs::MemfdFlags;
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A function that takes one input.
pub type Target = fn(&[u8]);

/// The targets.
pub const TARGETS: &[(&str, Target)] = &[
    ("challenge", challenge),
    ("reference", reference),
    ("manifest", manifest),
    ("config-json", config_json),
    ("decode", decode),
    ("http", http),
    ("journal", journal),
    ("tags", tags),
    ("url", url),
    ("archive", archive),
    ("verdict", verdict),
    ("base", base),
    ("bundle", bundle),
    ("payload", payload),
    ("key", key),
    ("policy", policy),
];

/// Runs one target on one input; `false` if there is no such target.
pub fn run(name: &str, data: &[u8]) -> bool {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.map(|(_, target)| target(data)).is_some()
}

fn challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let challenges = challenge::challenges(text.lines());
    let Ok(registry) = Url::parse("https://registry.example/") else {
        return;
    };
    let challenger = realm::Challenger {
        origin: &registry.origin,
        loopback: false,
        password: true,
    };
    let plan = challenge::choose(&challenges, challenger, "repository:a:pull", true);
    if let Ok(Some(challenge::Plan::Bearer {
        realm,
        service,
        scopes,
    })) = plan
    {
        assert!(realm.origin.secure);
        let url = challenge::token_url(&realm, &service, &scopes, Some("user"));
        assert!(url.target.bytes().all(|c| c.is_ascii_graphic()));
    }
    if let Ok(token) = challenge::read_token(data, "registry.example", None) {
        assert!(!token.field.expose().contains(['\r', '\n']));
    }
}

fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(reference) = text.parse::<Reference>() {
        let again = reference.to_string().parse::<Reference>();
        assert_eq!(again.ok().as_ref(), Some(&reference));
        assert!(!reference.archive_stem().contains('/'));
    }
}

fn manifest(data: &[u8]) {
    for media_type in [
        None,
        Some(OCI_MANIFEST),
        Some(DOCKER_LIST),
        Some("text/html"),
    ] {
        let _ = Document::parse(data.to_vec(), media_type, None, "the manifest");
    }
    for layers in [0, 1, 2] {
        let _ = Config::parse(data, layers, "the config");
    }
}

fn config_json(data: &[u8]) {
    let _ = credentials::entries(data, "registry.example:5000", "ns/app");
    let _ = credentials::entries(data, "docker.io", "library/debian");
}

/// Compressed bytes: reading them whole and byte by byte gives the same output, within the limit.
fn decode(data: &[u8]) {
    let limits = Limits {
        output: 256 << 10,
        window: 128 << 10,
    };
    let inflate = |input: Box<dyn Read + '_>, step: usize| {
        let (compression, mut reader) = inflate::reader(input, limits).ok()?;
        let (mut found, mut buffer) = (Vec::new(), vec![0; step]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Some((compression, found)),
                Ok(read) => found.extend_from_slice(&buffer[..read]),
                Err(error) => {
                    assert!(inflate::Defect::of(&error).is_some(), "{error}");
                    return None;
                }
            }
        }
    };
    let whole = inflate(Box::new(data), 64 << 10);
    if let Some((_, found)) = &whole {
        assert!(found.len() as u64 <= limits.output);
    }
    assert!(whole == inflate(Box::new(OneByOne(data)), 1000));
}

struct OneByOne<'d>(&'d [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(&mut buffer[..length])
    }
}

/// A whole response: header, framing, body, trailers.
fn http(data: &[u8]) {
    let data = &data[..data.len().min(64 << 10)];
    let Ok((mut far, near)) = UnixStream::pair() else {
        return;
    };
    let sent = far
        .write_all(data)
        .and_then(|()| far.shutdown(Shutdown::Write));
    let near = Arc::new(TcpStream::from(OwnedFd::from(near)));
    let wait = Duration::from_secs(2);
    let (Ok(()), Ok(socket), Ok(url)) = (
        sent,
        Socket::new(near, wait),
        Url::parse("http://registry.example/"),
    ) else {
        return;
    };
    let mut connection = Connection::new(Stream::Plain(socket), url.origin);
    let Ok((_, mut framing)) = connection.exchange(b"GET / HTTP/1.1\r\n\r\n", false, wait) else {
        return;
    };
    let (mut buffer, mut total) = ([0; 4096], 0);
    while let Ok(read @ 1..) = connection.body(&mut framing, &mut buffer, wait) {
        total += read;
    }
    assert!(total <= data.len());
}

/// A journal of either format with its checksums fixed, so that the rest is parsed.
fn journal(data: &[u8]) {
    for magic in [b"dockersave\0jnl1\0", b"dockersave\0jnl2\0"] {
        journal_of(magic, data);
    }
}

fn journal_of(magic: &[u8], data: &[u8]) {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(data);
    let mut trailer = [0; journal::TRAILER_SIZE as usize];
    trailer[..16].copy_from_slice(&bytes[..16]);
    if let (Some(size), Some(count)) = (bytes.get(48..56), bytes.get(56..64)) {
        trailer[16..24].copy_from_slice(size);
        let count = count
            .iter()
            .rev()
            .fold(0_usize, |n, b| n << 8 | usize::from(*b));
        let table = count.saturating_mul(88).saturating_add(64).min(bytes.len());
        trailer[24..28].copy_from_slice(&crc32fast::hash(&bytes[..table]).to_le_bytes());
    }
    let _ = journal::place(&trailer, bytes.len() as u64);
    let _ = journal::place(data.get(..32).unwrap_or(&trailer), u64::MAX);
    let source = |part: &mut [u8], at: u64| {
        let from = usize::try_from(at)
            .ok()
            .and_then(|at| bytes.get(at..)?.get(..part.len()));
        part.copy_from_slice(from.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    };
    let length = bytes.len() as u64;
    if let Some(journal) = journal::read(&source, length, &trailer, &|_, _| true, 1000) {
        let claims: usize = journal.rows.iter().map(|row| row.claims.len()).sum();
        assert!(claims <= bytes.len());
        for row in &journal.rows {
            let chunks = Chunks::of(row.size);
            assert_eq!(row.claims.len(), chunks.count());
            let records = row.claims.iter().enumerate();
            let claimed = records.map(|(chunk, record)| claimed(*record, chunks.length(chunk)));
            assert!(claimed.sum::<u64>() <= row.size);
        }
    }
}

fn tags(data: &[u8]) {
    let read = |input: Box<dyn Read + '_>| {
        let mut page = Page::new(input, String::new(), "the tags", 1 << 20);
        let mut tags = Vec::new();
        while let Ok(Some(tag)) = page.next() {
            tags.push(tag);
        }
        tags
    };
    let tags = read(Box::new(data));
    assert!(tags.iter().map(String::len).sum::<usize>() <= data.len());
    assert!(tags.iter().all(|tag| tag.is_ascii() && tag.len() <= 128));
    assert!(tags == read(Box::new(OneByOne(data))));
    if let Ok(strings) = Strings::member(data.into(), &["tags"], "the tags", &Keys::None) {
        assert!(strings.map(|tag| tag.len()).sum::<usize>() <= data.len());
    }
}

fn url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(url) = Url::parse(first) else { return };
    for url in [Ok(url.clone()), url.join(second)].into_iter().flatten() {
        assert!(url.target.starts_with('/'));
        assert!(url.target.bytes().all(|c| c.is_ascii_graphic()), "{url}");
        assert!(!url.origin.authority().contains(['\r', '\n', ' ', '/', '@']));
    }
}

/// Keys whose signatures are among the seeds, and the digest that these cover.
fn signers() -> Vec<PublicKey> {
    let keys = [
        &include_bytes!("../tests/fuzz/seeds/key/0")[..],
        include_bytes!("../tests/fuzz/seeds/key/2"),
    ];
    let keys = keys
        .iter()
        .filter_map(|pem| PublicKey::from_pem(pem, "k").ok());
    keys.collect()
}

const SIGNED: &str = "sha256:ff8122e744d11d6508f112986ef56008128e61e0128c1bc578a76c7dad37dde1";

/// Whatever becomes of a signature, nothing else is ever found to be signed.
fn signed(payload: &Payload, data: &[u8]) {
    if let Ok(found) = signature::check(payload, data, &signers()) {
        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|(digest, _)| digest.to_string() == SIGNED));
    }
}

fn bundle(data: &[u8]) {
    signed(&Payload::Bundle, data);
}

/// A signature's line and its payload; or a manifest of signatures.
fn payload(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (line, payload) = data.split_at(end);
    let signature = String::from_utf8_lossy(line).into_owned();
    signed(
        &Payload::Simple { signature },
        payload.get(1..).unwrap_or_default(),
    );
    if let Ok(manifest) = signature::Manifest::parse(data, "the manifest") {
        assert!(manifest.layers.len() <= manifest.parts.len());
    }
}

/// A key in PEM, and one whose encoding is this.
fn key(data: &[u8]) {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(data);
    let wrapped = format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
    for pem in [data, wrapped.as_bytes()] {
        if let Ok(key) = PublicKey::from_pem(pem, "k") {
            assert!(!key.signed(b"message", data));
        }
    }
}

fn policy(data: &[u8]) {
    let Ok(policy) = Policy::parse(data, "p.json") else {
        return;
    };
    for name in ["r.example/a:1", "x.y.example.com/b", "debian"] {
        if let Ok(reference) = name.parse() {
            let _ = policy.needed(&reference);
        }
    }
}

/// An archive as it is and with its header checksums fixed, read from a file and from a stream,
/// which must not differ.
fn archive(data: &[u8]) {
    for bytes in [data, &with_sums(data)] {
        look_into(bytes);
    }
}

/// Fixes the checksums of everything that may be a header.
fn with_sums(data: &[u8]) -> Vec<u8> {
    let mut summed = data.to_vec();
    for block in summed.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    summed
}

fn look_into(bytes: &[u8]) {
    const NAME: &str = "the archive";
    let from_stream = verify_reader(&mut &bytes[..], NAME);
    if let Ok(found) = &from_stream {
        let lines = found.defects.iter().map(ToString::to_string);
        let lines = lines.chain(found.absent.iter().chain(&found.unchecked).cloned());
        for line in lines {
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
    // Files take ten times as long as memory.
    if crc32fast::hash(bytes).is_multiple_of(16) {
        let sound = |found: &crate::Result<Findings>| found.as_ref().is_ok_and(Findings::is_sound);
        let from_file = with_file(bytes, |path| {
            if let Ok(existing) = Existing::open(path) {
                find(&existing, bytes.len() as u64);
            }
            verify(path)
        });
        let same = from_file.is_none_or(|from_file| sound(&from_file) == sound(&from_stream));
        assert!(same, "{from_stream:?}, but another answer from a file");
    }
}

fn with_file<T>(bytes: &[u8], look: impl FnOnce(&Path) -> T) -> Option<T> {
    let file = File::from(rustix::fs::memfd_create("archive", MemfdFlags::CLOEXEC).ok()?);
    (&file).write_all(bytes).ok()?;
    Some(look(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref()))
}

fn find(existing: &Existing, length: u64) {
    for size in [None, Some(0), Some(7), Some(100)] {
        let digest = Digest::of(Algorithm::Sha256, b"layer 1");
        let places = existing.find(&digest, size).into_iter();
        for place in places.chain(existing.at(512, 7)) {
            let end = place.offset().checked_add(place.size());
            assert!(end.is_some_and(|end| end <= length));
        }
    }
}

/// What an engine says that it has, and what a thin archive says that it lacks.
fn base(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(known) = inventory::of_list(text, "x") {
        assert!(!known.held.is_empty());
    }
    if let Ok(missing) = thin::read_missing(text) {
        assert_eq!(
            thin::read_missing(&thin::missing_text(&missing)).ok(),
            Some(missing)
        );
    }
}

/// What `--verify` calls sound must look the same to two other readers: the `tar` crate, and one
/// that knows only plain headers.
fn verdict(data: &[u8]) {
    let bytes = with_sums(data);
    let sound = verify_reader(&mut &bytes[..], "x").is_ok_and(|found| found.is_sound());
    if !sound {
        return;
    }
    let mut files = Vec::new();
    for entry in tar::Archive::new(&bytes[..])
        .entries()
        .into_iter()
        .flatten()
    {
        let Ok(mut entry) = entry else {
            panic!("the tar crate cannot read what is sound");
        };
        let mut content = Vec::new();
        let read = entry.read_to_end(&mut content);
        assert!(read.is_ok(), "the tar crate cannot read what is sound");
        if entry.header().entry_type().is_file() && !entry.path_bytes().ends_with(b"/") {
            files.push((entry.path_bytes().into_owned(), content));
        }
    }
    let plain = plain_files(&bytes);
    // The plain reader sees only the start of long names.
    assert_eq!(files.len(), plain.len());
    for ((name, content), (plain_name, plain_content)) in files.iter().zip(&plain) {
        assert!(
            name.len() >= 100 || name == plain_name,
            "{name:?}, {plain_name:?}"
        );
        assert_eq!(content, plain_content);
    }
}

/// Files as a V7 reader sees them, plus POSIX's prefix; everything else is skipped.
fn plain_files(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let text = |field: &[u8]| {
        field
            .split(|byte| *byte == 0)
            .next()
            .unwrap_or_default()
            .to_vec()
    };
    let (mut files, mut at) = (Vec::new(), 0);
    while let Some(block) = bytes
        .get(at..at + 512)
        .filter(|block| block.iter().any(|b| *b != 0))
    {
        let size = match block[124] {
            0x80.. => block[125..136]
                .iter()
                .fold(0, |n, b| n << 8 | usize::from(*b)),
            _ => {
                let digits = block[124..136].iter().filter(|byte| byte.is_ascii_digit());
                digits.fold(0, |n, b| n << 3 | usize::from(b - b'0'))
            }
        };
        let start = at + 512;
        if matches!(block[156], b'0' | 0) && !block[..100].ends_with(b"/") {
            let mut name = text(&block[..100]);
            if &block[257..263] == b"ustar\0" && block[345] != 0 {
                name = [text(&block[345..500]), b"/".to_vec(), name].concat();
            }
            if !name.ends_with(b"/") {
                files.push((name, bytes[start..start + size].to_vec()));
            }
        }
        at = start + size.next_multiple_of(512);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each seed, each beginning of it, and each with one byte changed; of a long one, some.
    #[test]
    fn seeds_and_what_is_near_them() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/seeds");
        for (name, target) in TARGETS {
            let folder = std::fs::read_dir(format!("{seeds}/{name}")).unwrap();
            let mut count = 0;
            for seed in folder {
                let mut seed = std::fs::read(seed.unwrap().path()).unwrap();
                target(&seed);
                for at in (0..seed.len()).step_by(seed.len() / 1024 + 1) {
                    target(&seed[..at]);
                    for flip in [1, 0x20, 0x80, 0xff] {
                        seed[at] ^= flip;
                        target(&seed);
                        seed[at] ^= flip;
                    }
                }
                count += 1;
            }
            assert!(count > 0, "{name} has no seeds");
        }
        assert!(!run("no such target", b""));
    }
}
