//! An archive's table of contents: a small row for each entry, found by name, bounded in size.
//!
//! Names are untrusted. Only a clean one, which stays within the archive, is ever found; links are
//! followed by name, one hop, within the archive.

use crate::archive::tar::header::Kind;
use crate::digest::Digest;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::path::Path;

/// The most entries, and the most bytes of names, that are kept: enough for a thousand images.
const ENTRIES: usize = 16_384;
const NAMES: usize = 1 << 20;

/// An entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The offset and length of its data.
    pub data: u64,
    pub size: u64,
    name: u32,
    name_length: u16,
    link_length: u16,
    pub kind: Kind,
    pub clean: bool,
    pub ours: bool,
    pub damaged: bool,
}

/// All entries.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    names: Vec<u8>,
    /// The numbers of the clean rows, in the order of their names.
    sorted: Vec<u32>,
}

impl Table {
    /// Adds an entry and returns its number. `archive` is the name for the error if there are too
    /// many.
    pub fn push(
        &mut self,
        name: &[u8],
        link: &[u8],
        (kind, data, size): (Kind, u64, u64),
        archive: &Path,
    ) -> Result<usize> {
        let cleaned = clean(name);
        let stored: Cow<'_, [u8]> = match &cleaned {
            Some(cleaned) => cleaned.as_bytes().into(),
            None => name.into(),
        };
        let link: &[u8] = if kind == Kind::Symlink || kind == Kind::Hardlink {
            link
        } else {
            b""
        };
        let room = self.names.len() + stored.len() + link.len() <= NAMES;
        let (Ok(name_length), Ok(link_length), true, true) = (
            u16::try_from(stored.len()),
            u16::try_from(link.len()),
            room,
            self.rows.len() < ENTRIES,
        ) else {
            return Err(Error::unsupported(format!(
                "{} has more than {ENTRIES} entries, or more than {NAMES} bytes of names",
                archive.display()
            )));
        };
        self.rows.push(Row {
            data,
            size,
            name: self.names.len() as u32,
            name_length,
            link_length,
            kind,
            clean: cleaned.is_some(),
            ours: false,
            damaged: false,
        });
        self.names.extend_from_slice(&stored);
        self.names.extend_from_slice(link);
        Ok(self.rows.len() - 1)
    }

    /// Indexes the entries pushed so far.
    pub fn seal(&mut self) {
        let mut sorted = std::mem::take(&mut self.sorted);
        sorted.clear();
        sorted.extend((0..self.rows.len() as u32).filter(|n| self.rows[*n as usize].clean));
        sorted.sort_by(|a, b| (self.bytes(*a as usize), a).cmp(&(self.bytes(*b as usize), b)));
        self.sorted = sorted;
    }

    /// Its approximate size.
    pub fn memory(&self) -> usize {
        self.rows.len() * (size_of::<Row>() + size_of::<u32>()) + self.names.len()
    }

    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub fn row_mut(&mut self, number: usize) -> &mut Row {
        &mut self.rows[number]
    }

    fn bytes(&self, number: usize) -> &[u8] {
        let row = &self.rows[number];
        &self.names[row.name as usize..][..usize::from(row.name_length)]
    }

    pub fn name(&self, number: usize) -> Cow<'_, str> {
        String::from_utf8_lossy(self.bytes(number))
    }

    fn link(&self, number: usize) -> &[u8] {
        let row = &self.rows[number];
        let start = row.name as usize + usize::from(row.name_length);
        &self.names[start..][..usize::from(row.link_length)]
    }

    /// The entry with this clean name; like loaders, the last of several.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.find_bytes(name.as_bytes())
    }

    fn find_bytes(&self, name: &[u8]) -> Option<usize> {
        let above = self
            .sorted
            .partition_point(|number| self.bytes(*number as usize) <= name);
        let number = self.sorted[above.checked_sub(1)?] as usize;
        (self.bytes(number) == name).then_some(number)
    }

    /// The file of this name from a document; a link is followed once.
    pub fn file(&self, name: &str) -> Option<usize> {
        let number = self.find(&clean(name.as_bytes())?)?;
        let number = match self.rows[number].kind {
            Kind::File => number,
            _ => self.find(&self.target(number)?)?,
        };
        (self.rows[number].kind == Kind::File).then_some(number)
    }

    /// A link's target within the archive.
    pub fn target(&self, number: usize) -> Option<String> {
        match self.rows[number].kind {
            Kind::Symlink => {
                let name = self.name(number);
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                resolve(folder, std::str::from_utf8(self.link(number)).ok()?)
            }
            Kind::Hardlink => clean(self.link(number)),
            _ => None,
        }
    }

    /// Whether a clean name leads to a hard link.
    pub fn is_hard_link(&self, name: &str) -> bool {
        let number = clean(name.as_bytes()).and_then(|name| self.find(&name));
        number.is_some_and(|number| self.rows[number].kind == Kind::Hardlink)
    }

    /// Entries below an entry that is not a directory: unpacking them follows a link, or fails.
    pub fn misplaced(&self) -> impl Iterator<Item = usize> {
        let below = |number: &&u32| {
            let name = self.bytes(**number as usize);
            // No path is longer, and each slash costs a search.
            let name = &name[..name.len().min(4096)];
            let slashes = (0..name.len()).filter(|at| name[*at] == b'/');
            let mut above = slashes.filter_map(|at| self.find_bytes(&name[..at]));
            above.any(|above| self.rows[above].kind != Kind::Directory)
        };
        self.sorted
            .iter()
            .filter(below)
            .map(|number| *number as usize)
    }

    /// A name that an earlier entry has, too.
    pub fn duplicates(&self) -> impl Iterator<Item = usize> {
        let same = |pair: &&[u32]| {
            let [a, b] = [pair[0] as usize, pair[1] as usize];
            let directories = [a, b].map(|n| self.rows[n].kind) == [Kind::Directory; 2];
            self.bytes(a) == self.bytes(b) && !directories
        };
        self.sorted
            .windows(2)
            .filter(same)
            .map(|pair| pair[1] as usize)
    }
}

/// A name without `./`, empty components and trailing slash. `None` if it leads out of the archive
/// or is not UTF-8.
pub(crate) fn clean(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    if name.contains('\0') {
        return None;
    }
    // Buildpacks' lifecycle and pack have `/sha256:<hex>.tar` for layers, here and in
    // manifest.json. Deeper ones are paths of some system.
    let bare = name.strip_prefix('/').filter(|bare| !bare.contains('/'));
    resolve("", bare.unwrap_or(name))
}

/// Whether the name is in its usual form, apart from one leading `./` and a directory's slash. Some
/// readers compare names literally.
pub(crate) fn is_plain(name: &[u8], cleaned: &str, kind: Kind) -> bool {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let name = match kind {
        Kind::Directory => name.strip_suffix(b"/").unwrap_or(name),
        _ => name.strip_prefix(b"/").unwrap_or(name),
    };
    name == cleaned.as_bytes() || (name == b"." && cleaned.is_empty())
}

/// Whether loaders look for this name by themselves.
pub(crate) fn is_looked_for(name: &str) -> bool {
    matches!(
        name,
        "manifest.json" | "index.json" | "oci-layout" | "repositories"
    ) || name.starts_with("blobs/")
}

/// A relative name, seen from a folder.
fn resolve(folder: &str, name: &str) -> Option<String> {
    if name.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    let climbing = !folder.is_empty();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            // A link may point to its neighbours through `..`; a name with `..` is hostile.
            ".." if climbing => drop(parts.pop()?),
            ".." => return None,
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The digest in a name: that of a blob, or 64 hexadecimal digits in the last component, as in
/// `<hex>.json`, `sha256:<hex>` and `<hex>.tar.gz`.
pub(crate) fn named_digest(name: &str) -> Option<Digest> {
    if let Some(blob) = name.strip_prefix("blobs/") {
        return blob.replacen('/', ":", 1).parse().ok();
    }
    let last = name.rsplit('/').next()?;
    last.split(|c: char| !matches!(c, '0'..='9' | 'a'..='f'))
        .find(|run| run.len() == 64)
        .and_then(|hex| format!("sha256:{hex}").parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str, Kind)]) -> Table {
        let mut table = Table::default();
        for (number, (name, link, kind)) in rows.iter().enumerate() {
            let about = (*kind, number as u64 * 1000, 7);
            table
                .push(name.as_bytes(), link.as_bytes(), about, Path::new("x"))
                .unwrap();
        }
        table.seal();
        table
    }

    #[test]
    fn names_lead_nowhere_but_into_the_archive() {
        for (name, cleaned) in [
            ("a/b", Some("a/b")),
            ("./a//b/./c/", Some("a/b/c")),
            ("./", Some("")),
            ("/a", Some("a")),
            ("/a/b", None),
            ("//a", None),
            ("/..", None),
            ("../a", None),
            ("a/../../b", None),
            ("a/../b", None),
            ("a\0b", None),
        ] {
            assert_eq!(clean(name.as_bytes()).as_deref(), cleaned, "{name}");
        }
        assert_eq!(clean(b"a\xff"), None);
    }

    #[test]
    fn links_are_followed_once_and_by_name() {
        let table = table(&[
            ("one/layer.tar", "", Kind::File),
            ("two/layer.tar", "../one/layer.tar", Kind::Symlink),
            ("three/layer.tar", "../two/layer.tar", Kind::Symlink),
            ("hard", "one/layer.tar", Kind::Hardlink),
            ("evil", "../../etc/passwd", Kind::Symlink),
            ("absolute", "/one/layer.tar", Kind::Symlink),
            ("self", "self", Kind::Symlink),
            ("device", "", Kind::Special),
            ("top", "one/layer.tar", Kind::Symlink),
        ]);
        for (name, number) in [
            ("one/layer.tar", Some(0)),
            ("./one/layer.tar", Some(0)),
            ("two/layer.tar", Some(0)),
            ("hard", Some(0)),
            ("top", Some(0)),
            ("three/layer.tar", None),
            ("evil", None),
            ("absolute", None),
            ("self", None),
            ("device", None),
            ("../one/layer.tar", None),
            ("one", None),
            ("", None),
        ] {
            assert_eq!(table.file(name), number, "{name}");
        }
    }

    #[test]
    fn the_last_of_several_is_found_and_the_others_are_told() {
        let table = table(&[
            ("b", "", Kind::File),
            ("d", "", Kind::Directory),
            ("a", "", Kind::File),
            ("./b", "", Kind::File),
            ("d/", "", Kind::Directory),
        ]);
        assert_eq!(table.find("b"), Some(3));
        assert_eq!(table.duplicates().collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn no_more_is_kept_than_fits() {
        let pushed = |name: &[u8], times: usize| {
            let mut table = Table::default();
            let about = (Kind::File, 0, 0);
            let mut push = || table.push(name, b"", about, Path::new("x")).is_ok();
            (0..times).filter(|_| push()).count()
        };
        assert_eq!(pushed(&[b'a'; 70_000], 1), 0);
        assert_eq!(pushed(&[b'a'; 65_000], 20), 16);
        assert_eq!(pushed(b"a", 20_000), ENTRIES);
    }

    #[test]
    fn digests_are_found_in_names() {
        let hex = "0123456789abcdef".repeat(4);
        for name in [
            format!("blobs/sha256/{hex}"),
            format!("{hex}.json"),
            format!("sha256:{hex}"),
            format!("{hex}.tar.gz"),
            format!("x/layer-{hex}.tar"),
        ] {
            assert_eq!(named_digest(&name).unwrap().hex(), hex, "{name}");
        }
        assert!(named_digest(&format!("blobs/sha512/{hex}{hex}")).is_some());
        for name in [
            format!("{hex}/layer.tar"),
            format!("{hex}0.json"),
            format!("blobs/sha256/../{hex}"),
            format!("blobs/md5/{hex}"),
            "manifest.json".to_owned(),
        ] {
            assert!(named_digest(&name).is_none(), "{name}");
        }
    }
}
