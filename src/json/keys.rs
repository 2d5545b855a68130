//! Refusal of JSON keys that readers interpret differently. Go matches the keys of a struct
//! case-insensitively, and the last of several wins (encoding/json, "Unmarshal"); others match
//! exactly, or take the first. A document that means different things to different readers still
//! has a single digest, so it is refused.
//!
//! The tables below are the keys that containerd, the Docker Engine, podman and skopeo read, level
//! by level (image-spec, Docker's schema 2 and image spec v1.2). Other keys may be anything.

use super::string_length;
use crate::error::printable;

/// The keys of a value. An array has those of its elements.
pub(crate) enum Keys {
    /// A struct: names that Go matches in any case, and their values.
    Struct(&'static [(&'static str, &'static Keys)]),
    /// A map with any names, of which these are read here, and the kind of all values.
    Map(&'static [&'static str], &'static Keys),
    /// Nothing that anyone reads.
    None,
}

use Keys::{Map, None as Plain, Struct};

const ANNOTATIONS: Keys = Map(
    &[
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
        "vnd.docker.reference.type",
        "vnd.docker.reference.digest",
        "io.github.antmicro.dockersave.kept",
        "io.github.antmicro.dockersave.missing",
        "io.github.antmicro.dockersave.whole",
    ],
    &Plain,
);

const PLATFORM: Keys = Struct(&[
    ("architecture", &Plain),
    ("os", &Plain),
    ("os.version", &Plain),
    ("os.features", &Plain),
    ("variant", &Plain),
    ("features", &Plain),
]);

const DESCRIPTOR: Keys = Struct(&[
    ("mediaType", &Plain),
    ("digest", &Plain),
    ("size", &Plain),
    ("urls", &Plain),
    ("annotations", &ANNOTATIONS),
    ("data", &Plain),
    ("platform", &PLATFORM),
    ("artifactType", &Plain),
]);

/// An index or a manifest.
pub(crate) const DOCUMENT: Keys = Struct(&[
    ("schemaVersion", &Plain),
    ("mediaType", &Plain),
    ("artifactType", &Plain),
    ("config", &DESCRIPTOR),
    ("layers", &DESCRIPTOR),
    ("manifests", &DESCRIPTOR),
    ("blobs", &DESCRIPTOR),
    ("subject", &DESCRIPTOR),
    ("annotations", &ANNOTATIONS),
    // The mark of a schema 1 manifest.
    ("fsLayers", &Plain),
    ("history", &Plain),
    ("signatures", &Plain),
]);

const HEALTHCHECK: Keys = Struct(&[
    ("Test", &Plain),
    ("Interval", &Plain),
    ("Timeout", &Plain),
    ("StartPeriod", &Plain),
    ("StartInterval", &Plain),
    ("Retries", &Plain),
]);

const CONTAINER: Keys = Struct(&[
    ("Hostname", &Plain),
    ("Domainname", &Plain),
    ("User", &Plain),
    ("AttachStdin", &Plain),
    ("AttachStdout", &Plain),
    ("AttachStderr", &Plain),
    ("ExposedPorts", &Plain),
    ("Tty", &Plain),
    ("OpenStdin", &Plain),
    ("StdinOnce", &Plain),
    ("Env", &Plain),
    ("Cmd", &Plain),
    ("Healthcheck", &HEALTHCHECK),
    ("ArgsEscaped", &Plain),
    ("Image", &Plain),
    ("Volumes", &Plain),
    ("WorkingDir", &Plain),
    ("Entrypoint", &Plain),
    ("NetworkDisabled", &Plain),
    ("MacAddress", &Plain),
    ("OnBuild", &Plain),
    ("Labels", &Plain),
    ("StopSignal", &Plain),
    ("StopTimeout", &Plain),
    ("Shell", &Plain),
]);

/// An image config.
pub(crate) const CONFIG: Keys = Struct(&[
    ("created", &Plain),
    ("author", &Plain),
    ("architecture", &Plain),
    ("variant", &Plain),
    ("os", &Plain),
    ("os.version", &Plain),
    ("os.features", &Plain),
    ("config", &CONTAINER),
    (
        "rootfs",
        &Struct(&[
            ("type", &Plain),
            ("diff_ids", &Plain),
            ("base_layer", &Plain),
        ]),
    ),
    (
        "history",
        &Struct(&[
            ("created", &Plain),
            ("created_by", &Plain),
            ("author", &Plain),
            ("comment", &Plain),
            ("empty_layer", &Plain),
        ]),
    ),
    ("id", &Plain),
    ("parent", &Plain),
    ("comment", &Plain),
    ("container", &Plain),
    ("container_config", &CONTAINER),
    ("docker_version", &Plain),
    ("Size", &Plain),
]);

/// A docker-archive's manifest.json.
pub(crate) const ITEMS: Keys = Struct(&[
    ("Config", &Plain),
    ("RepoTags", &Plain),
    ("Layers", &Plain),
    ("Parent", &Plain),
    ("LayerSources", &Map(&[], &DESCRIPTOR)),
]);

/// An `oci-layout`.
pub(crate) const LAYOUT: Keys = Struct(&[("imageLayoutVersion", &Plain)]);

/// An object or array around the current position.
struct Level {
    keys: &'static Keys,
    /// The kind of the next value.
    next: &'static Keys,
    /// The known keys seen so far, a bit each: no level has more than 64.
    seen: u64,
}

/// Walks a document's containers and strings in order. Invalid JSON does no harm: the parser
/// refuses it.
pub(super) struct Watch {
    levels: Vec<Level>,
    root: &'static Keys,
}

impl Watch {
    pub fn new(root: &'static Keys) -> Self {
        let levels = Vec::new();
        Self { levels, root }
    }

    pub fn open(&mut self, object: bool) {
        let keys = self.levels.last().map_or(self.root, |level| level.next);
        let next = if object { &Plain } else { keys };
        let keys = if object { keys } else { &Plain };
        self.levels.push(Level {
            keys,
            next,
            seen: 0,
        });
    }

    pub fn close(&mut self) {
        self.levels.pop();
    }

    /// Handles a string, including its quotes, and what follows; an error if it is a refused key.
    pub fn string(&mut self, string: &[u8], rest: &[u8]) -> Result<(), String> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        if matches!(level.keys, Plain) || !is_key(rest) {
            return Ok(());
        }
        let raw = &string[1..string.len().max(2) - 1];
        let (position, known) = match level.keys {
            Struct(known) => {
                let found = known.iter().position(|(name, _)| folds_to(raw, name));
                let Some(position) = found else {
                    level.next = &Plain;
                    return Ok(());
                };
                level.next = known[position].1;
                (position, known[position].0)
            }
            Map(known, each) => {
                level.next = each;
                let found = known.iter().position(|name| decodes_to(raw, name));
                let Some(position) = found else { return Ok(()) };
                (position, known[position])
            }
            Plain => return Ok(()),
        };
        if raw != known.as_bytes() {
            return Err(format!(
                "has the key {:?}, which only some programs read as {known:?}",
                printable(&String::from_utf8_lossy(raw), 60)
            ));
        }
        if level.seen & 1 << position != 0 {
            return Err(format!(
                "has the key {known:?} twice, and programs differ in which one counts"
            ));
        }
        level.seen |= 1 << position;
        Ok(())
    }
}

/// Whether a colon follows.
fn is_key(rest: &[u8]) -> bool {
    rest.iter().find(|c| !c.is_ascii_whitespace()) == Some(&b':')
}

/// Whether Go matches a key, as written between its quotes, with this name. Unicode folds two
/// characters to ASCII letters: U+017F (long s) and U+212A (the Kelvin sign).
pub(crate) fn folds_to(raw: &[u8], name: &str) -> bool {
    // A character takes at most twelve bytes, as a pair of escapes.
    if raw.len() < name.len() || raw.len() > 12 * name.len() {
        return false;
    }
    let same = |(c, name): (char, char)| match c {
        '\u{17f}' => name.eq_ignore_ascii_case(&'s'),
        '\u{212a}' => name.eq_ignore_ascii_case(&'k'),
        c => c.eq_ignore_ascii_case(&name),
    };
    let mut chars = Chars(raw);
    name.chars()
        .all(|name| chars.next().is_some_and(|c| same((c, name))))
        && chars.next().is_none()
}

fn decodes_to(raw: &[u8], name: &str) -> bool {
    raw.len() <= 12 * name.len() && Chars(raw).eq(name.chars())
}

/// The characters of a written string, unescaped. Surrogate pairs are not joined: no name has such
/// characters.
struct Chars<'b>(&'b [u8]);

impl Iterator for Chars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        const NOTHING: char = char::REPLACEMENT_CHARACTER;
        let (c, length) = match *self.0 {
            [] => return None,
            [b'\\', b'u', a, b, c, d, ..] => {
                let digits = [a, b, c, d];
                let code = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|digits| u32::from_str_radix(digits, 16).ok());
                (code.and_then(char::from_u32).unwrap_or(NOTHING), 6)
            }
            // No name has these characters.
            [b'\\', b'/', ..] => ('/', 2),
            [b'\\', ..] => (NOTHING, 2),
            [c, ..] if c.is_ascii() => (char::from(c), 1),
            [first, ..] => {
                let length = match first {
                    0xf0.. => 4,
                    0xe0.. => 3,
                    _ => 2,
                };
                let text = self
                    .0
                    .get(..length)
                    .and_then(|c| std::str::from_utf8(c).ok());
                (
                    text.and_then(|text| text.chars().next()).unwrap_or(NOTHING),
                    length,
                )
            }
        };
        self.0 = self.0.get(length..).unwrap_or_default();
        Some(c)
    }
}

/// The string that starts here.
pub(crate) fn split_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(string_length(bytes).min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    fn told(text: &str, keys: &'static Keys) -> String {
        check(text.as_bytes(), "x", keys).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn no_level_has_more_keys_than_bits() {
        fn count(keys: &Keys) {
            match keys {
                Struct(known) => {
                    assert!(known.len() <= 64);
                    known.iter().for_each(|(_, keys)| count(keys));
                }
                Map(known, each) => {
                    assert!(known.len() <= 64);
                    count(each);
                }
                Plain => {}
            }
        }
        [&DOCUMENT, &CONFIG, &ITEMS, &LAYOUT]
            .into_iter()
            .for_each(count);
    }

    #[test]
    fn keys_that_are_read_in_two_ways_are_named() {
        for (text, keys, words) in [
            (
                r#"{"layers":[],"Layers":[]}"#,
                &DOCUMENT,
                r#""Layers", which only some programs read as "layers""#,
            ),
            (r#"{"LAYERS":[]}"#, &DOCUMENT, "LAYERS"),
            ("{\"layer\u{17f}\":[]}", &DOCUMENT, "as \"layers\""),
            (r#"{"layer\u017f":[]}"#, &DOCUMENT, "as \"layers\""),
            (r#"{"layer\u017F":[]}"#, &DOCUMENT, "as \"layers\""),
            (r#"{"\u006cayers":[]}"#, &DOCUMENT, "as \"layers\""),
            (
                r#"{"layers":[], "layers" : []}"#,
                &DOCUMENT,
                r#""layers" twice"#,
            ),
            (
                r#"{"config":{"digest":"a","Digest":"b"}}"#,
                &DOCUMENT,
                "Digest",
            ),
            (
                r#"{"layers":[{"size":1},{"size":1,"size":2}]}"#,
                &DOCUMENT,
                r#""size" twice"#,
            ),
            (r#"{"layers":[[{"Size":1}]]}"#, &DOCUMENT, "Size"),
            (
                r#"{"manifests":[{"platform":{"OS":"a"}}]}"#,
                &DOCUMENT,
                "OS",
            ),
            (
                r#"{"manifests":[{"annotations":{"io.containerd.image.name":"a","io.containerd.image.name":"b"}}]}"#,
                &DOCUMENT,
                "twice",
            ),
            (r#"{"x":{"y":[{}]},"Config":{}}"#, &DOCUMENT, "Config"),
            (r#"{"x":"}","Config":{}}"#, &DOCUMENT, "Config"),
            (
                r#"{"rootfs":{"diff_ids":[]},"rootfs":{}}"#,
                &CONFIG,
                r#""rootfs" twice"#,
            ),
            (r#"{"rootfs":{"Diff_IDs":[]}}"#, &CONFIG, "diff_ids"),
            (r#"{"config":{"cmd":[]}}"#, &CONFIG, "Cmd"),
            ("{\"config\":{\"\u{17f}hell\":[]}}", &CONFIG, "Shell"),
            (
                "{\"config\":{\"Healthchec\u{212a}\":[]}}",
                &CONFIG,
                "Healthcheck",
            ),
            (r#"{"config":{"Healthcheck":{"test":[]}}}"#, &CONFIG, "Test"),
            (
                r#"{"history":[{},{"Empty_Layer":true}]}"#,
                &CONFIG,
                "empty_layer",
            ),
            (r#"[{"Config":"a","config":"b"}]"#, &ITEMS, "Config"),
            (r#"[{"LayerSources":{"x":{"Size":1}}}]"#, &ITEMS, "size"),
            (
                r#"{"imagelayoutversion":"1.0.0"}"#,
                &LAYOUT,
                "imageLayoutVersion",
            ),
        ] {
            let told = told(text, keys);
            assert!(told.contains(words), "{text}: {told}");
        }
    }

    #[test]
    fn other_keys_may_be_anything() {
        for (text, keys) in [
            (
                r#"{"annotations":{"Layers":"a","layers":"b","IO.containerd.image.name":"c"}}"#,
                &DOCUMENT,
            ),
            (r#"{"x":1,"x":2,"X":{"Layers":[],"layers":[]}}"#, &DOCUMENT),
            (
                r#"{"layers":[{"size":1},{"size":1}],"config":{"size":1}}"#,
                &DOCUMENT,
            ),
            (
                r#"{"mediaType":"Layers","a":["Layers","layers"]}"#,
                &DOCUMENT,
            ),
            (
                r#"{"config":{"Cmd":[],"Labels":{"Cmd":"a","cmd":"b"},"Volumes":{"/a":{},"/A":{}},"Env":["Cmd"]},"container_config":{"Cmd":[]},"os.version":"1","variant":"v8","history":[{"created":"a"},{"created":"b"}]}"#,
                &CONFIG,
            ),
            (
                r#"[{"Config":"a","Layers":["Config"]},{"Config":"a"}]"#,
                &ITEMS,
            ),
            (
                r#"{"layersx":[],"ſ":1,"":2,"\\":3,"layer\ud83d\ude00":4}"#,
                &DOCUMENT,
            ),
        ] {
            assert_eq!(told(text, keys), "", "{text}");
        }
    }
}
