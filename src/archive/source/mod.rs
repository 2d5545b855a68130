//! An existing archive, opened to reuse its blobs: a tar of any tool (`docker save` old and new,
//! crane, skopeo, regctl, dockersave), or a directory.
//!
//! Nothing here is trusted: a [`Place`] may hold the right bytes, and the caller hashes them.
//! [`super::verify`] checks whether an archive is sound.

pub(crate) mod directory;
pub(crate) mod metadata;
pub(crate) mod table;

use super::source::directory::Folder;
use super::source::metadata::{DockerItem, Outline, diff_ids, docker_items};
use super::source::table::{Table, clean, named_digest};
use super::tar::header::Kind;
use super::tar::reader::{FileInput, Walker};
use crate::codec::inflate;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::hint::Hint;
use crate::manifest::Descriptor;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// The most places offered for one digest, so that a thousand entries of the same size do not all
/// have to be hashed.
const PLACES: usize = 8;
/// The most layers whose diff IDs are kept.
const LAYERS: usize = 8192;
/// The largest manifest.json and config that are read; larger ones are ignored.
const MANIFEST: u64 = 256 << 10;
const CONFIG: u64 = 1 << 20;
/// The largest read, in bytes.
const BUFFER: usize = 128 << 10;
/// The most manifests of an index.json that are looked into.
const MANIFESTS: usize = 256;

/// The diff IDs of an image's layers, the lowest first, and which of them are here.
pub(crate) type Stack = Vec<(Digest, bool)>;

/// What an archive says of its images.
#[derive(Default)]
pub(crate) struct Images {
    pub stacks: Vec<Stack>,
    /// The digest of its only manifest, or else of its only config.
    pub image: Option<Digest>,
    /// It says that layers are missing.
    pub thin: bool,
}

/// Where the content is.
pub(super) enum Holder {
    Tar(Arc<File>),
    /// A compressed tar, and its format.
    Packed(Arc<File>, &'static str),
    Folder(Arc<Folder>),
}

/// An archive open for reading.
pub(crate) struct Existing {
    holder: Holder,
    table: Table,
    /// Some of its headers could not be read.
    damaged: bool,
    /// The SHA-256 of an uncompressed layer, and its entry.
    layers: Vec<([u8; 32], u32)>,
}

/// Bytes in an existing archive that may be the wanted ones.
pub(crate) struct Place {
    source: Source,
    offset: u64,
    size: u64,
}

enum Source {
    Tar(Arc<File>),
    /// A file below a directory: opened for each read, so that many places do not need many
    /// descriptors.
    Folder(Arc<Folder>, String),
}

impl Place {
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Of its first byte in [`Self::file`].
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file that holds it.
    pub fn file(&self) -> io::Result<Arc<File>> {
        match &self.source {
            Source::Tar(file) => Ok(file.clone()),
            Source::Folder(folder, name) => Ok(Arc::new(folder.open(name)?)),
        }
    }

    /// Fills `buffer`, from byte `at` of this place.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let end = at.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file()?.read_exact_at(buffer, self.offset + at)
    }

    /// Whether these bytes have this digest.
    pub fn holds(&self, digest: &Digest) -> bool {
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; BUFFER];
        let mut at = 0;
        while at < self.size {
            let length = (self.size - at).min(BUFFER as u64) as usize;
            if self.read_at(&mut buffer[..length], at).is_err() {
                return false;
            }
            hasher.update(&buffer[..length]);
            at += length as u64;
        }
        hasher.finish() == *digest
    }

    /// Its whole content, which must be small.
    pub(super) fn bytes(&self) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut bytes = vec![0; size];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

impl Existing {
    /// Opens an archive and reads its table of contents.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if it cannot be read, [`Error::Malformed`] or [`Error::Unsupported`] if it
    /// is not an archive.
    pub fn open(path: &Path) -> Result<Self> {
        let holder = open(path)?;
        let (table, damaged) = match &holder {
            Holder::Tar(file) => tar_table(file, path)?,
            Holder::Folder(folder) => (folder.list()?, false),
            Holder::Packed(_, with) => {
                return Err(Error::unsupported(format!(
                    "{0} is compressed with {with}, so blobs in it cannot be read; decompress it first: {with} -dk {0}",
                    path.display()
                )));
            }
        };
        let mut existing = Self {
            holder,
            table,
            damaged,
            layers: Vec::new(),
        };
        existing.read_manifest()?;
        Ok(existing)
    }

    /// Places that may hold these bytes, the most likely first: entries with that name, an
    /// uncompressed layer whose config says so, and entries of exactly that size with other names.
    pub fn find(&self, digest: &Digest, size: Option<u64>) -> Vec<Place> {
        let rows = self.table.rows();
        let mut found: Vec<usize> = self.table.file(&digest.path()).into_iter().collect();
        if digest.algorithm() == Algorithm::Sha256 {
            let layers = self.layers.iter();
            let same = layers.filter(|(id, _)| id == digest.as_bytes());
            found.extend(same.map(|(_, row)| *row as usize));
        }
        let fits = |number: usize| size.is_none_or(|size| rows[number].size == size);
        let file = |number: &usize| rows[*number].kind == Kind::File && rows[*number].clean;
        let files: Vec<usize> = (0..rows.len()).filter(|n| fits(*n) && file(n)).collect();
        let named = |number: usize| named_digest(&self.table.name(number));
        found.extend(files.iter().filter(|n| named(**n).as_ref() == Some(digest)));
        if size.is_some() {
            let nameless = |n: &&usize| rows[**n].damaged || named(**n).is_none();
            found.extend(files.iter().filter(nameless));
        }
        let mut seen = Vec::new();
        for number in found {
            if fits(number) && !seen.contains(&number) && seen.len() < PLACES {
                seen.push(number);
            }
        }
        seen.into_iter().map(|number| self.place(number)).collect()
    }

    /// Whether an entry of this size is named by this digest.
    pub fn names(&self, digest: &Digest, size: u64) -> bool {
        let named = self.table.file(&digest.path());
        named.is_some_and(|number| self.table.rows()[number].size == size)
    }

    /// Bytes at the offset that the plan of the same archive gives, in case they were not found
    /// because of damaged headers.
    pub fn at(&self, offset: u64, size: u64) -> Option<Place> {
        let (Holder::Tar(file), true) = (&self.holder, self.damaged) else {
            return None;
        };
        let end = offset.checked_add(size)?;
        (end <= file.metadata().ok()?.len()).then(|| Place {
            source: Source::Tar(file.clone()),
            offset,
            size,
        })
    }

    /// Whether it contains no files that could be blobs.
    pub fn is_empty(&self) -> bool {
        let document = |name: &str| matches!(name, "oci-layout" | "index.json" | "manifest.json");
        let rows = self.table.rows().iter().enumerate();
        !rows
            .filter(|(_, row)| row.kind == Kind::File)
            .any(|(number, _)| !document(&self.table.name(number)))
    }

    fn place(&self, number: usize) -> Place {
        place(&self.holder, &self.table, number)
    }

    /// What manifest.json says about layers without a digest in their names, as far as it can be
    /// read. It is also the only list of a directory's files besides blobs.
    fn read_manifest(&mut self) -> Result<()> {
        let Some(bytes) = self.document("manifest.json", MANIFEST) else {
            return Ok(());
        };
        let Ok(items) = docker_items(&bytes, "manifest.json") else {
            return Ok(());
        };
        drop(bytes);
        if let Holder::Folder(folder) = &self.holder {
            folder.add_named(&named_files(&items), &mut self.table)?;
        }
        for item in items {
            let config = self.document(&item.config, CONFIG);
            let count = item.layers.len();
            let Some(Ok(ids)) = config.map(|bytes| diff_ids(&bytes, count, "config")) else {
                continue;
            };
            for (name, id) in item.layers.iter().zip(ids) {
                let known = self.layers.len() >= LAYERS || id.algorithm() != Algorithm::Sha256;
                if let Some(number) = self.table.file(name).filter(|_| !known) {
                    let mut bytes = [0; 32];
                    bytes.copy_from_slice(id.as_bytes());
                    let layer = (bytes, number as u32);
                    if !self.layers.contains(&layer) {
                        self.layers.push(layer);
                    }
                }
            }
        }
        Ok(())
    }

    /// The names of its images in manifest.json, or else in index.json.
    pub fn image_names(&self) -> Vec<String> {
        let document = |name| self.document(name, MANIFEST);
        let items = document("manifest.json").map(|bytes| docker_items(&bytes, "manifest.json"));
        if let Some(Ok(items)) = items {
            return items.into_iter().flat_map(|item| item.tags).collect();
        }
        let index = document("index.json").map(|bytes| Outline::parse(&bytes, "index.json"));
        match index {
            Some(Ok(index)) => {
                let children = index.manifests.unwrap_or_default().into_iter();
                children.map(|child| child.name).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The size of a file, by the name that a document gives it.
    pub fn size(&self, name: &str) -> Option<u64> {
        let number = self.table.file(name)?;
        Some(self.table.rows()[number].size)
    }

    /// Could not all of it be read?
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// The digests that its files have for names.
    pub fn digests(&self) -> Vec<Digest> {
        let rows = self.table.rows().iter().enumerate();
        let files = rows.filter(|(_, row)| row.kind == Kind::File && row.clean);
        files
            .filter_map(|(number, _)| named_digest(&self.table.name(number)))
            .collect()
    }

    /// What index.json and manifest.json say of images, as far as they can be read.
    pub fn outline(&self) -> Images {
        let mut found = Images::default();
        if let Some(index) = self.document("index.json", MANIFEST)
            && let Ok(index) = Outline::parse(&index, "index.json")
        {
            self.descend(&index, 0, &mut found);
            let roots = index.manifests.unwrap_or_default();
            let mut digests = roots.iter().map(|child| child.descriptor.digest);
            let first = digests.next();
            found.image = first.filter(|first| digests.all(|other| other == *first));
            found.thin = roots.iter().any(|child| !child.missing.is_empty());
        }
        if found.stacks.is_empty()
            && let Some(items) = self.document("manifest.json", MANIFEST)
            && let Ok(items) = docker_items(&items, "manifest.json")
        {
            for item in &items {
                let here = |name: &String| self.table.file(name).is_some();
                let layers: Vec<bool> = item.layers.iter().map(here).collect();
                found.stacks.extend(self.stack(&item.config, &layers));
            }
            if let [item] = &items[..] {
                let config = self.document(&item.config, CONFIG);
                found.image = config.map(|bytes| Digest::of(Algorithm::Sha256, &bytes));
            }
        }
        found
    }

    /// The images of an index, also of those below it.
    fn descend(&self, index: &Outline, depth: usize, found: &mut Images) {
        for child in index.manifests.iter().flatten() {
            let document = self.document(&child.descriptor.digest.path(), MANIFEST);
            let outline = document.and_then(|bytes| Outline::parse(&bytes, "").ok());
            let Some(outline) = outline.filter(|_| found.stacks.len() < MANIFESTS) else {
                continue;
            };
            if outline.manifests.is_some() && depth < 3 {
                self.descend(&outline, depth + 1, found);
            } else if let Some(config) = outline.config.as_ref().filter(|_| outline.is_image()) {
                let here = |layer: &Descriptor| self.table.file(&layer.digest.path()).is_some();
                let layers: Vec<bool> = outline.layers.iter().map(here).collect();
                found
                    .stacks
                    .extend(self.stack(&config.digest.path(), &layers));
            }
        }
    }

    fn stack(&self, config: &str, layers: &[bool]) -> Option<Stack> {
        let config = self.document(config, CONFIG)?;
        let ids = diff_ids(&config, layers.len(), "config").ok()?;
        Some(ids.into_iter().zip(layers.iter().copied()).collect())
    }

    /// The bytes of a file that is no larger than the limit.
    pub fn document(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        let number = self.table.file(name)?;
        if self.table.rows()[number].size > limit {
            return None;
        }
        self.place(number).bytes().ok()
    }
}

/// The clean names of all files that manifest.json names.
pub(super) fn named_files(items: &[DockerItem]) -> BTreeSet<String> {
    let names = items
        .iter()
        .flat_map(|item| item.layers.iter().chain([&item.config]));
    let mut found = BTreeSet::new();
    found.extend(names.filter_map(|name| clean(name.as_bytes())));
    found
}

/// Opens an archive or a directory. Never blocks, whatever has that name.
pub(super) fn open(path: &Path) -> Result<Holder> {
    let failed = |error: io::Error| Error::input(path, "opening", error);
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // Opening a device may have side effects; stat does not.
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(no_file(path));
    }
    let opened = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?;
    let file = File::from(opened);
    let about = file.metadata().map_err(failed)?;
    if about.is_dir() {
        return Ok(Holder::Folder(Arc::new(Folder::new(file.into(), path))));
    }
    if !about.is_file() {
        return Err(no_file(path));
    }
    let mut magic = [0; inflate::MAGIC];
    let read = file.read_at(&mut magic, 0).map_err(failed)?;
    Ok(match inflate::format(&magic[..read]) {
        Some(with) => Holder::Packed(Arc::new(file), with),
        None => Holder::Tar(Arc::new(file)),
    })
}

fn no_file(path: &Path) -> Error {
    let why = io::Error::other("it is neither a regular file nor a directory");
    Error::input(path, "opening", why)
}

/// The error for an unsupported compression.
pub(super) fn compressed(name: &str, with: &'static str) -> Error {
    Error::unsupported(format!(
        "{name} is compressed with {with}, which is not supported"
    ))
    .with_hint(Hint::Decompress(with))
}

/// The table of a tar, and whether anything is wrong with it.
fn tar_table(file: &File, path: &Path) -> Result<(Table, bool)> {
    let failed = |error: io::Error| Error::input(path, "reading", error);
    let mut input = FileInput::new(file).map_err(failed)?;
    let whole = file.metadata().map_err(failed)?.len();
    let mut walker = Walker::new(&mut input, false);
    let (mut table, mut damaged) = (Table::default(), false);
    while let Some(head) = walker.next(&mut |_| damaged = true).map_err(failed)? {
        let end = head.data.checked_add(head.size);
        if end.is_some_and(|end| end <= whole) {
            let about = (head.kind, head.data, head.size);
            let number = table.push(&head.name, &head.link, about, path)?;
            table.row_mut(number).damaged = head.damaged;
        }
    }
    if !walker.is_tar() {
        let name = path.display().to_string();
        return Err(Error::malformed(name, "is not a tar archive"));
    }
    table.seal();
    Ok((table, damaged))
}

pub(super) fn place(holder: &Holder, table: &Table, number: usize) -> Place {
    let row = &table.rows()[number];
    let source = match holder {
        Holder::Tar(file) | Holder::Packed(file, _) => Source::Tar(file.clone()),
        Holder::Folder(folder) => Source::Folder(folder.clone(), table.name(number).into_owned()),
    };
    Place {
        source,
        offset: row.data,
        size: row.size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("dockersave-read-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, bytes: &[u8]) -> std::path::PathBuf {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::of(Algorithm::Sha256, bytes)
    }

    fn add(builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, name: &str, target: &str) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }

    /// As `docker save` wrote it until version 24.
    fn old_docker() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let config = format!(
            r#"{{"rootfs":{{"diff_ids":["{}","{}"]}}}}"#,
            digest(b"layer one"),
            digest(b"layer two")
        );
        let hex = digest(config.as_bytes()).hex();
        add(&mut builder, "aaa/layer.tar", b"layer one");
        add(&mut builder, "ccc/layer.tar", b"layer two");
        link(&mut builder, "bbb/layer.tar", "../ccc/layer.tar");
        add(&mut builder, &format!("{hex}.json"), config.as_bytes());
        let manifest = format!(
            r#"[{{"Config":"{hex}.json","RepoTags":["x:1"],"Layers":["aaa/layer.tar","bbb/layer.tar"]}}]"#
        );
        add(&mut builder, "manifest.json", manifest.as_bytes());
        builder.into_inner().unwrap()
    }

    fn found(existing: &Existing, bytes: &[u8]) -> Vec<Vec<u8>> {
        let places = existing.find(&digest(bytes), Some(bytes.len() as u64));
        places.iter().map(|place| place.bytes().unwrap()).collect()
    }

    #[test]
    fn layers_are_found_by_what_the_config_says_of_them() {
        let scratch = Scratch::new("old");
        let path = scratch.write("old.tar", &old_docker());
        let existing = Existing::open(&path).unwrap();
        for layer in [&b"layer two"[..], b"layer one"] {
            assert_eq!(found(&existing, layer)[0], layer);
        }
        // Nothing is known of the others, but one of them could be it.
        assert_eq!(found(&existing, b"layer six").len(), 2);
        assert!(found(&existing, b"changed its size").is_empty());
        assert!(existing.find(&digest(b"layer six"), None).is_empty());
        // The same, unpacked.
        tar::Archive::new(&old_docker()[..])
            .unpack(scratch.0.join("dir"))
            .unwrap();
        let existing = Existing::open(&scratch.0.join("dir")).unwrap();
        for layer in [&b"layer two"[..], b"layer one"] {
            assert_eq!(found(&existing, layer)[0], layer);
        }
    }

    #[test]
    fn blobs_are_found_by_their_names() {
        let scratch = Scratch::new("names");
        let mut builder = tar::Builder::new(Vec::new());
        let long = Digest::of(Algorithm::Sha512, b"sha512");
        add(
            &mut builder,
            &format!("./{}", digest(b"one").path()),
            b"one",
        );
        add(&mut builder, &long.path(), b"sha512");
        add(
            &mut builder,
            &format!("{}.tar.gz", digest(b"crane").hex()),
            b"crane",
        );
        add(
            &mut builder,
            &format!("deep/{}", digest(b"deep").path()),
            b"deep",
        );
        let path = scratch.write("x.tar", &builder.into_inner().unwrap());
        let existing = Existing::open(&path).unwrap();
        for bytes in [&b"one"[..], b"crane", b"deep"] {
            assert_eq!(found(&existing, bytes), [bytes]);
        }
        assert_eq!(existing.find(&long, None)[0].bytes().unwrap(), b"sha512");
        let place = &existing.find(&digest(b"crane"), Some(5))[0];
        let mut part = [0; 2];
        place.read_at(&mut part, 3).unwrap();
        assert_eq!(&part, b"ne");
        assert!(place.read_at(&mut part, 4).is_err());
        // What is sound is found without being told where.
        assert!(existing.at(place.offset(), place.size()).is_none());
    }

    #[test]
    fn a_directory_is_not_left() {
        let scratch = Scratch::new("links");
        let secret = scratch.write("secret", b"secret");
        scratch.write("dir/index.json", b"{}");
        scratch.write(&format!("dir/{}", digest(b"one").path()), b"one");
        let blob = |bytes: &[u8]| scratch.0.join("dir").join(digest(bytes).path());
        symlink(&secret, blob(b"secret")).unwrap();
        symlink("../../../secret", blob(b"secre2")).unwrap();
        symlink(digest(b"one").hex(), blob(b"onf")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, blob(b"pipe"), Mode::RWXU).unwrap();
        let existing = Existing::open(&scratch.0.join("dir")).unwrap();
        assert_eq!(found(&existing, b"one"), [b"one"]);
        assert_eq!(found(&existing, b"onf"), [b"one"]);
        for bytes in [&b"secret"[..], b"secre2", b"pipe"] {
            assert!(found(&existing, bytes).is_empty());
        }
        // What is exchanged for a link after it was listed is not followed, either.
        std::fs::remove_file(blob(b"one")).unwrap();
        symlink(&secret, blob(b"one")).unwrap();
        assert!(existing.find(&digest(b"one"), None)[0].file().is_err());
        std::fs::remove_dir_all(scratch.0.join("dir/blobs")).unwrap();
        symlink(&scratch.0, scratch.0.join("dir/blobs")).unwrap();
        assert!(Existing::open(&scratch.0.join("dir")).is_err());
    }

    #[test]
    fn what_is_no_archive_is_told_at_once() {
        let scratch = Scratch::new("none");
        let fifo = scratch.0.join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RWXU).unwrap();
        for (path, why) in [
            (fifo, "neither a regular file"),
            ("/dev/null".into(), "neither a regular file"),
            (scratch.0.join("missing"), "No such file"),
            (scratch.write("x.xz", b"\xfd7zXZ\0rest"), "xz -dk"),
            (scratch.write("x.gz", b"\x1f\x8b\x08"), "gzip -dk"),
            (scratch.write("empty", b""), "not a tar archive"),
            (
                scratch.write("text", &b"hello ".repeat(500)),
                "not a tar archive",
            ),
        ] {
            let error = Existing::open(&path).err().unwrap();
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn a_damaged_header_costs_one_name_only() {
        let scratch = Scratch::new("damaged");
        let mut builder = tar::Builder::new(Vec::new());
        for bytes in [b"one", b"two", b"six"] {
            add(&mut builder, &digest(bytes).path(), bytes);
        }
        let mut bytes = builder.into_inner().unwrap();
        bytes[1024 + 20] ^= 1;
        let existing = Existing::open(&scratch.write("x.tar", &bytes)).unwrap();
        for bytes in [b"one", b"two", b"six"] {
            assert_eq!(found(&existing, bytes)[0], bytes);
        }
        // Without its first entry's size nothing can be followed; a plan knows better.
        bytes[130] = b'x';
        let existing = Existing::open(&scratch.write("x.tar", &bytes)).unwrap();
        assert!(found(&existing, b"two").is_empty());
        assert_eq!(existing.at(1536, 3).unwrap().bytes().unwrap(), b"two");
        assert!(existing.at(1536, u64::MAX).is_none());
        assert!(existing.at(1536, 1 << 40).is_none());
    }
}
