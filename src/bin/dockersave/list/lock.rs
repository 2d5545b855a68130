//! Locks: what was pulled, one line an image, so that it can be pulled again by digest.
//!
//! A lock is text in fields separated by tabs, with `-` for what there is not: for `read`, `awk`
//! and `diff`. The same pull gives the same lock.

use super::{is_file_name, yaml::Wrong};
use dockersave::{Digest, Platform, Reference};

const HEAD: &str = "# dockersave lock ";
const VERSION: &str = "1";
const OPTIONS: &str = "# options: ";
const COLUMNS: &str = "# reference\tplatform\tindex\tmanifest\tsize\tsha256\tarchive\tname\n";
const FIELDS: usize = 8;

/// An image that was pulled, and the archive that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Row {
    /// What was asked for.
    pub reference: Reference,
    pub platform: Option<Platform>,
    /// The digest of the index that the reference named, if it was one.
    pub index: Option<Digest>,
    pub manifest: Digest,
    /// The archive's.
    pub size: u64,
    pub sha256: Digest,
    /// Its file name.
    pub archive: String,
    /// The image's name in the archive if that is a different one.
    pub name: Option<Reference>,
}

impl Row {
    /// The digest that the reference stood for.
    pub fn named(&self) -> &Digest {
        self.index.as_ref().unwrap_or(&self.manifest)
    }

    /// The image by digest: its manifest's, or its index's where a signature may be for that.
    pub fn pinned(&self, signed: bool) -> dockersave::Result<Reference> {
        let digest = match signed {
            true => self.named(),
            false => &self.manifest,
        };
        format!("{}@{digest}", self.reference.name()).parse()
    }

    /// Whether it is for the platform that was asked for, if any was.
    pub fn is_for(&self, platform: Option<&Platform>) -> bool {
        platform.is_none() || platform == self.platform.as_ref()
    }

    fn write(&self, out: &mut String) {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let fields: [String; FIELDS] = [
            self.reference.to_string(),
            or_none(self.platform.as_ref().map(Platform::to_string)),
            or_none(self.index.map(|digest| digest.to_string())),
            self.manifest.to_string(),
            self.size.to_string(),
            self.sha256.hex(),
            self.archive.clone(),
            or_none(self.name.as_ref().map(Reference::to_string)),
        ];
        out.push_str(&fields.join("\t"));
        out.push('\n');
    }

    fn read(line: &str) -> Result<Self, String> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [
            reference,
            platform,
            index,
            manifest,
            size,
            sha256,
            archive,
            name,
        ] = fields[..]
        else {
            return Err(format!(
                "has {} fields separated by tabs, but a lock has {FIELDS}",
                fields.len()
            ));
        };
        let given = |text: &str| (text != "-").then(|| text.to_owned());
        let image = |text: String| text.parse::<Reference>().map_err(|error| error.to_string());
        let digest = |text: &str| text.parse::<Digest>().map_err(|error| error.to_string());
        let platform = given(platform).map(|text| text.parse::<Platform>());
        if !is_file_name(archive) {
            return Err("has an archive whose name is not a file name".into());
        }
        Ok(Self {
            reference: image(reference.to_owned())?,
            platform: platform.transpose().map_err(|error| error.to_string())?,
            index: given(index).map(|text| digest(&text)).transpose()?,
            manifest: digest(manifest)?,
            size: size
                .parse()
                .map_err(|_| "has a size that is not a number")?,
            sha256: digest(&format!("sha256:{sha256}"))?,
            archive: archive.to_owned(),
            name: given(name).map(image).transpose()?,
        })
    }
}

/// The content of a lock.
#[derive(Clone, Default)]
pub(in super::super) struct Lock {
    /// The flags that the archives were made with.
    pub options: String,
    /// With their lines' numbers.
    pub rows: Vec<(usize, Row)>,
}

pub(in super::super) fn is_lock(text: &str) -> bool {
    text.starts_with(HEAD)
}

pub(in super::super) fn parse(text: &str) -> Result<Lock, Wrong> {
    let mut lock = Lock::default();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let Some(line) = line.strip_suffix('\n') else {
            return Err((number, "is cut off".into()));
        };
        if number == 1 && line.strip_prefix(HEAD) != Some(VERSION) {
            return Err((
                1,
                "is the head of a lock that this version cannot read".into(),
            ));
        }
        if let Some(options) = line.strip_prefix(OPTIONS) {
            lock.options = options.to_owned();
        } else if !line.starts_with('#') {
            let row = Row::read(line).map_err(|why| (number, why))?;
            let same = |other: &&(usize, Row)| other.1.archive == row.archive;
            if let Some((before, other)) = lock.rows.iter().find(same)
                && (other.size, other.sha256) != (row.size, row.sha256)
            {
                let why =
                    format!("has another size or SHA-256 than line {before} for the same archive");
                return Err((number, why));
            }
            lock.rows.push((number, row));
        }
    }
    Ok(lock)
}

pub(in super::super) fn text(options: &str, rows: &[Row]) -> String {
    let mut out = format!("{HEAD}{VERSION}\n");
    if !options.is_empty() {
        out.push_str(&format!("{OPTIONS}{options}\n"));
    }
    out.push_str(COLUMNS);
    for row in rows {
        row.write(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let digest = |digit: &str| {
            format!("sha256:{}", digit.repeat(64))
                .parse::<Digest>()
                .unwrap()
        };
        let first = Row {
            reference: "debian:12".parse().unwrap(),
            platform: Some("linux/arm/v7".parse().unwrap()),
            index: Some(digest("a")),
            manifest: digest("b"),
            size: u64::MAX,
            sha256: digest("c"),
            archive: "library-debian-12.tar".into(),
            name: None,
        };
        let second = Row {
            reference: format!("h:5000/x@{}", digest("d")).parse().unwrap(),
            platform: None,
            index: None,
            manifest: digest("d"),
            size: 0,
            sha256: digest("e"),
            archive: "a b.tar".into(),
            name: Some("lan:5000/y:1".parse().unwrap()),
        };
        vec![first, second]
    }

    fn read(text: &str) -> Vec<Row> {
        let lock = parse(text).unwrap_or_else(|(line, why)| panic!("{line}: {why}"));
        lock.rows.into_iter().map(|(_, row)| row).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (rows, options) = (rows(), "--gunzip --xz");
        let whole = text(options, &rows);
        assert!(is_lock(&whole));
        assert_eq!(read(&whole), rows);
        assert_eq!(parse(&whole).ok().unwrap().options, options);
        assert_eq!(text(options, &read(&whole)), whole);
        let third = whole.lines().nth(3).unwrap();
        assert_eq!(third.split('\t').nth(6), Some("library-debian-12.tar"));
    }

    #[test]
    fn a_damaged_line_is_named() {
        let whole = text("", &rows());
        let hex = "b".repeat(64);
        for (old, new, line, why) in [
            ("lock 1", "lock 2", 1, "this version"),
            ("\tlinux/arm/v7\t", " linux/arm/v7 ", 3, "has 6 fields"),
            ("linux/arm/v7", "linux/", 3, "a platform is"),
            (hex.as_str(), "bb", 3, "hexadecimal"),
            ("\t0\t", "\t-1\t", 4, "not a number"),
            (
                "\t18446744073709551615\t",
                "\t18446744073709551616\t",
                3,
                "not a number",
            ),
            ("a b.tar", "../b.tar", 4, "not a file name"),
            ("a b.tar", "/etc/x.tar", 4, "not a file name"),
            ("a b.tar", "", 4, "not a file name"),
            ("a b.tar", "-", 4, "not a file name"),
            ("a b.tar", "library-debian-12.tar", 4, "than line 3"),
            ("docker.io/library/debian", "Debian", 3, "lowercase"),
            ("y:1\n", "y:1", 4, "is cut off"),
            ("y:1\n", "", 4, "is cut off"),
            ("\ta b.tar\tlan:5000/y:1", "", 4, "has 6 fields"),
            ("y:1\n", "y:1\n\n", 5, "has 1 fields"),
        ] {
            let changed = whole.replacen(old, new, 1);
            assert_ne!(changed, whole, "{old}");
            let (at, found) = parse(&changed).err().unwrap();
            assert!(at == line && found.contains(why), "{new:?}: {at} {found}");
        }
    }

    /// A lock that was damaged anywhere is refused, or says what it says in the same form.
    #[test]
    fn no_damage_is_read_as_something_else() {
        let whole = text("", &rows());
        for at in 0..whole.len() {
            for with in ["", "\t", "\n", "0", "-", "z", "\u{e9}"] {
                let changed = format!("{}{with}{}", &whole[..at], &whole[at + 1..]);
                if let Ok(lock) = parse(&changed) {
                    let rows: Vec<Row> = lock.rows.into_iter().map(|(_, row)| row).collect();
                    assert_eq!(read(&text("", &rows)), rows);
                }
            }
        }
    }
}
