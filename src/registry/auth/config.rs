//! Docker's config.json as Docker reads it: keys in any case, and entries that are not objects are
//! skipped. It is edited by hand, so one bad part must not spoil the rest.

use crate::json::{Loose, Text};
use miniserde::de::{Map, Visitor};
use miniserde::{Deserialize, Result, make_place};
use std::collections::BTreeMap;

make_place!(Place);

/// Entries by registry.
type Entries = BTreeMap<String, Loose<Entry>>;

/// The parts of the file that matter here.
pub(super) struct ConfigFile {
    /// A key that occurs in two cases is read twice.
    pub auths: Vec<Entries>,
    pub helpers: Vec<BTreeMap<String, Text>>,
    pub store: Text,
}

/// A registry's entry, or a helper's answer.
#[derive(Default)]
pub(super) struct Entry {
    pub auth: Text,
    pub username: Text,
    pub password: Text,
    pub identity: Text,
    pub token: Text,
    /// What a helper calls the password.
    pub secret: Text,
}

/// Folds a key as Go's encoding/json does: case-insensitively, by Unicode's simple folding.
fn folded(key: &str) -> String {
    let fold = |c: char| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

#[derive(Default)]
struct FileParts {
    auths: Vec<Option<Loose<Entries>>>,
    helpers: Vec<Option<Loose<BTreeMap<String, Text>>>>,
    store: Option<Text>,
}

struct FileBuilder<'o> {
    out: &'o mut Option<ConfigFile>,
    parts: FileParts,
}

impl Map for FileBuilder<'_> {
    fn key(&mut self, key: &str) -> Result<&mut dyn Visitor> {
        Ok(match folded(key).as_str() {
            "auths" => next(&mut self.parts.auths),
            "credhelpers" => next(&mut self.parts.helpers),
            "credsstore" => Deserialize::begin(&mut self.parts.store),
            _ => <dyn Visitor>::ignore(),
        })
    }

    fn finish(&mut self) -> Result<()> {
        let parts = std::mem::take(&mut self.parts);
        let auths = parts.auths.into_iter().flatten();
        let helpers = parts.helpers.into_iter().flatten();
        *self.out = Some(ConfigFile {
            auths: auths.filter_map(|Loose(one)| one).collect(),
            helpers: helpers.filter_map(|Loose(one)| one).collect(),
            store: parts.store.unwrap_or_default(),
        });
        Ok(())
    }
}

fn next<T: Deserialize>(list: &mut Vec<Option<T>>) -> &mut dyn Visitor {
    list.push(None);
    let last = list.len() - 1;
    Deserialize::begin(&mut list[last])
}

impl Visitor for Place<ConfigFile> {
    fn map(&mut self) -> Result<Box<dyn Map + '_>> {
        Ok(Box::new(FileBuilder {
            out: &mut self.out,
            parts: FileParts::default(),
        }))
    }
}

impl Deserialize for ConfigFile {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}

struct EntryBuilder<'o> {
    out: &'o mut Option<Entry>,
    texts: [Option<Text>; 6],
}

const MEMBERS: [&str; 6] = [
    "auth",
    "username",
    "password",
    "identitytoken",
    "registrytoken",
    "secret",
];

impl Map for EntryBuilder<'_> {
    fn key(&mut self, key: &str) -> Result<&mut dyn Visitor> {
        let key = folded(key);
        Ok(match MEMBERS.iter().position(|name| *name == key) {
            Some(number) => Deserialize::begin(&mut self.texts[number]),
            None => <dyn Visitor>::ignore(),
        })
    }

    fn finish(&mut self) -> Result<()> {
        let [auth, username, password, identity, token, secret] =
            std::mem::take(&mut self.texts).map(Option::unwrap_or_default);
        *self.out = Some(Entry {
            auth,
            username,
            password,
            identity,
            token,
            secret,
        });
        Ok(())
    }
}

impl Visitor for Place<Entry> {
    fn map(&mut self) -> Result<Box<dyn Map + '_>> {
        Ok(Box::new(EntryBuilder {
            out: &mut self.out,
            texts: Default::default(),
        }))
    }
}

impl Deserialize for Entry {
    fn begin(out: &mut Option<Self>) -> &mut dyn Visitor {
        Place::new(out)
    }
}
