//! Reading bases: the archive that a target was loaded from, or its engine's output.

use super::base::{Base, Known};
use super::sink::unfinished;
use super::source::{Existing, Holder, Stack, open};
use super::thin::Missing;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hint::Hint;
use crate::json::{self, Loose, LooseTexts};
use miniserde::Deserialize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest list that is read, and the most digests that are kept of it.
const LIST: u64 = 1 << 20;
const DIGESTS: usize = 16_384;

impl Base {
    /// Reads what archives, directories and lists say. A list is what `docker image inspect`,
    /// `podman image inspect` or `crictl inspecti` print, or has a digest at the beginning of each
    /// line, as `ctr content ls` prints it: of a blob or an uncompressed layer.
    ///
    /// Archives are not hashed: what their entries are named counts.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if one cannot be read, [`Error::Malformed`] if it is damaged or of unknown
    /// form, [`Error::Unsupported`] for a compressed or unfinished archive.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let sources: Result<_> = paths.iter().map(|path| Known::open(path)).collect();
        Ok(Self {
            sources: Arc::new(sources?),
            any: false,
        })
    }

    /// The layers that it lacks. Those in archives are hashed; a list is believed.
    ///
    /// # Errors
    ///
    /// As [`Base::open`].
    pub fn lacks(&self, mut missing: Vec<Missing>) -> Result<Vec<Missing>> {
        for known in self.sources.iter() {
            let archive = match known.is_archive {
                true => Some(Existing::open(&known.path)?),
                false => None,
            };
            let has = |name: &Digest, size| match &archive {
                None => known.holds(name),
                Some(archive) => {
                    let mut places = archive.find(name, size).into_iter();
                    places.any(|place| place.holds(name))
                }
            };
            missing.retain(|one| {
                let uncompressed = one.diff_id.is_some_and(|id| has(&id, None));
                !uncompressed && !has(&one.digest, Some(one.size))
            });
        }
        Ok(missing)
    }
}

impl Known {
    fn open(path: &Path) -> Result<Self> {
        let mut known = match list(path)? {
            Some(text) => Self::of_list(&text, &path.display().to_string())?,
            None => Self::of_archive(path)?,
        };
        known.held.sort_unstable();
        known.held.dedup();
        known.path = path.to_owned();
        Ok(known)
    }

    fn of_archive(path: &Path) -> Result<Self> {
        let archive = Existing::open(path)?;
        if archive.is_damaged() {
            let why = "is damaged or truncated, so what its target has is unknown";
            let error = Error::malformed(path.display().to_string(), why);
            return Err(error.with_hint(Hint::Verify));
        }
        let mut known = Self {
            held: archive.digests(),
            ..Self::default()
        };
        let outline = archive.outline();
        for stack in outline.stacks {
            known.add(stack);
        }
        known.is_thin = outline.thin;
        known.image = outline.image;
        known.is_archive = true;
        Ok(known)
    }

    fn add(&mut self, stack: Stack) {
        let here = stack.iter().filter(|(_, here)| *here);
        self.held.extend(here.map(|(id, _)| *id));
        self.stacks
            .push(stack.into_iter().map(|(id, _)| id).collect());
    }

    pub(super) fn of_list(text: &str, name: &str) -> Result<Self> {
        let mut known = Self::default();
        let is_object = |text: &str| text.trim_start().starts_with('{');
        let text = text.trim_start_matches('\u{feff}').trim_start();
        if is_object(text) || text.strip_prefix('[').is_some_and(is_object) {
            known.read_inspect(text, name)?;
        } else {
            known.read_lines(text, name)?;
        }
        for stack in &known.stacks {
            known.held.extend(stack);
        }
        if known.held.is_empty() {
            return Err(unknown(name, "names no layer"));
        }
        if known.held.len() > DIGESTS {
            let what = format!("{name} has more than {DIGESTS} digests, which is over the limit");
            return Err(Error::unsupported(what));
        }
        Ok(known)
    }

    /// Objects that have the diff IDs of an image somewhere in them.
    fn read_inspect(&mut self, text: &str, name: &str) -> Result<()> {
        let objects: Vec<Inspect> = match text.starts_with('[') {
            true => json::parse(text.as_bytes(), name)?,
            false => vec![json::parse(text.as_bytes(), name)?],
        };
        for object in objects {
            let found = object.layers();
            if found.is_empty() {
                return Err(unknown(name, "is JSON, but has an object without layers"));
            }
            let ids = found.iter().map(|id| id.0.parse());
            let ids = ids.collect::<std::result::Result<Vec<Digest>, _>>();
            self.stacks.push(
                ids.map_err(|_| unknown(name, "names layers by something other than digests"))?,
            );
        }
        Ok(())
    }

    /// Digests, one at the beginning of each line; or in brackets, those of one image in their
    /// order, as JSON or as Go prints a list.
    fn read_lines(&mut self, text: &str, name: &str) -> Result<()> {
        let mut stack: Option<Vec<Digest>> = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            // The header line of ctr, and comments.
            if line.is_empty() || line.starts_with('#') || line.starts_with("DIGEST") {
                continue;
            }
            let wrong = || {
                unknown(
                    name,
                    &format!(
                        "has a line {} that does not start with a digest",
                        number + 1
                    ),
                )
            };
            if stack.is_none() && line.starts_with('[') {
                stack = Some(Vec::new());
            }
            let mut words = line
                .split(|c: char| c.is_whitespace() || matches!(c, '[' | ']' | ',' | '"'))
                .filter(|word| !word.is_empty());
            let Some(ids) = &mut stack else {
                let digest = words.next().and_then(|word| word.parse().ok());
                self.held.push(digest.ok_or_else(wrong)?);
                continue;
            };
            for word in words {
                ids.push(word.parse().map_err(|_| wrong())?);
            }
            if line.ends_with(']') {
                self.stacks
                    .extend(stack.take().filter(|ids| !ids.is_empty()));
            }
        }
        match stack {
            None => Ok(()),
            Some(_) => Err(unknown(name, "ends within a list")),
        }
    }
}

/// What a list says.
#[cfg(any(test, fuzzing))]
pub(crate) fn of_list(text: &str, name: &str) -> Result<Known> {
    Known::of_list(text, name)
}

/// The text of a file that is not an archive; `None` if it may be one.
fn list(path: &Path) -> Result<Option<String>> {
    let failed = |error| Error::input(path, "reading", error);
    let Holder::Tar(file) = open(path)? else {
        return Ok(None);
    };
    let unfinished = unfinished::look(&file).map_err(failed)?;
    if let Some(found) = unfinished {
        return Err(Error::unsupported(format!("{}: {found}", path.display())));
    }
    let size = file.metadata().map_err(failed)?.len();
    // Every header of a tar has zeros in it.
    let mut start = [0; 512];
    let read = file.read_at(&mut start, 0).map_err(failed)?;
    if size == 0 || start[..read].contains(&0) {
        return Ok(None);
    }
    if size > LIST {
        return Err(Error::TooLarge {
            what: format!("{}, which is not an archive,", path.display()),
            limit: LIST,
        });
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    let text = String::from_utf8(bytes);
    let name = path.display().to_string();
    text.map(Some)
        .map_err(|_| unknown(&name, "is neither an archive nor text"))
}

fn unknown(name: &str, why: &str) -> Error {
    let known = "supported are archives, the output of docker or podman image inspect, crictl inspecti and ctr content ls, and one digest per line";
    Error::malformed(name, format!("{why}; {known}"))
}

/// The output of engines for an image: docker, podman and nerdctl use `RootFS`, crictl `info`; a
/// config has `rootfs`.
#[derive(Deserialize)]
struct Inspect {
    #[serde(rename = "RootFS")]
    root: Loose<InspectRoot>,
    rootfs: Loose<DiffIds>,
    info: Loose<InspectInfo>,
}

#[derive(Deserialize)]
struct InspectRoot {
    #[serde(rename = "Layers")]
    layers: LooseTexts,
}

#[derive(Deserialize)]
struct DiffIds {
    diff_ids: LooseTexts,
}

#[derive(Deserialize)]
struct InspectInfo {
    #[serde(rename = "imageSpec")]
    spec: Loose<InspectSpec>,
}

#[derive(Deserialize)]
struct InspectSpec {
    rootfs: Loose<DiffIds>,
}

impl Inspect {
    fn layers(self) -> Vec<json::Text> {
        if let Some(root) = self.root.0 {
            return root.layers.0;
        }
        let spec = self.info.0.and_then(|info| info.spec.0);
        let ids = self.rootfs.0.or(spec.and_then(|spec| spec.rootfs.0));
        ids.map(|ids| ids.diff_ids.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::plan::tests::image;
    use crate::archive::plan::{Plan, PlanOptions};
    use crate::digest::Algorithm;
    use crate::image::Image;

    fn digest(text: &str) -> Digest {
        Digest::of(Algorithm::Sha256, text.as_bytes())
    }

    fn listed(text: &str) -> Result<Base> {
        let mut known = Known::of_list(text, "list")?;
        known.held.sort_unstable();
        Ok(Base {
            sources: Arc::new(vec![known]),
            any: false,
        })
    }

    /// An image of layers a, b, c, … whose diff IDs are those of A, B, C, …
    fn lettered(letters: &str) -> Image {
        let layers: Vec<(Digest, u64)> = letters
            .chars()
            .map(|c| (digest(&c.to_string()), 5))
            .collect();
        let mut image = image("x", &layers);
        image.diff_ids = letters
            .chars()
            .map(|c| digest(&c.to_uppercase().to_string()))
            .collect();
        image
    }

    fn left_out(base: &Base, images: &[&str]) -> String {
        let images: Vec<Image> = images.iter().map(|letters| lettered(letters)).collect();
        let found = base.left_out(&images);
        "abcdefg"
            .chars()
            .filter(|c| found.contains(&digest(&c.to_string())))
            .collect()
    }

    fn json(letters: &str) -> String {
        let ids: Vec<String> = letters
            .chars()
            .map(|c| format!("\"{}\"", digest(&c.to_string())))
            .collect();
        ids.join(",")
    }

    #[test]
    fn layers_are_left_out_where_they_lie_as_on_the_target() {
        let base = listed(&format!(r#"[{{"RootFS":{{"Layers":[{}]}}}}]"#, json("ABC"))).unwrap();
        for (images, leading, any) in [
            (&["abcd"][..], "abc", "abc"),
            (&["abdc"], "ab", "abc"),
            (&["dabc"], "", "abc"),
            (&["bac"], "", "abc"),
            (&["ab"], "ab", "ab"),
            // What another image has above a new layer stays for both.
            (&["abc", "db"], "ac", "abc"),
            (&["abcb"], "ac", "abc"),
            (&["d"], "", ""),
        ] {
            assert_eq!(left_out(&base, images), leading, "{images:?}");
            assert_eq!(left_out(&base.clone().any(true), images), any, "{images:?}");
        }
    }

    #[test]
    fn what_engines_print_is_understood() {
        let list = json("ABC");
        let lines = |letters: &str| {
            letters
                .chars()
                .map(|c| format!("{}\n", digest(&c.to_string())))
                .collect::<String>()
        };
        let content = "abc".chars().map(|c| {
            format!(
                "{}\t1.2 kB\t3 days\tcontainerd.io/gc.ref.content.l.0={}\n",
                digest(&c.to_string()),
                digest("d")
            )
        });
        let go: Vec<String> = "ABC"
            .chars()
            .map(|c| digest(&c.to_string()).to_string())
            .collect();
        for text in [
            format!(r#"[{{"Id":"x","RootFS":{{"Type":"layers","Layers":[{list}]}}}}]"#),
            format!(r#" {{"RootFS":{{"Layers":[{list}]}}}}"#),
            format!(
                r#"{{"status":{{}},"info":{{"chainID":"x","imageSpec":{{"rootfs":{{"type":"layers","diff_ids":[{list}]}}}}}}}}"#
            ),
            format!(r#"{{"rootfs":{{"diff_ids":[{list}]}}}}"#),
            format!("[{list}]"),
            format!("[{list}]\n[{}]\n", json("DE")),
            format!("[\n{}\n]\n", list.replace(',', ",\n")),
            format!("[{}]\n", go.join(" ")),
            lines("ABC"),
            lines("CBA").replace('\n', "\r\n"),
            lines("abc"),
            format!("# the board\n\n{}", lines("aBc")),
            format!("DIGEST\tSIZE\tAGE\tLABELS\n{}", content.collect::<String>()),
        ] {
            assert_eq!(
                left_out(&listed(&text).unwrap(), &["abcd"]),
                "abc",
                "{text}"
            );
        }
        for text in [
            "",
            "\n\n",
            "hello",
            "[]",
            "{}",
            "[{}]",
            r#"{"RootFS":null}"#,
            r#"{"RootFS":{"Layers":["x"]}}"#,
            r#"[{"RootFS":{"Layers":[]}}]"#,
            r#"{"RootFS":{"Layers":["#,
            "REPOSITORY   TAG   IMAGE ID\n",
            "[sha256:x]",
            &format!("[{}", digest("a")),
            &format!("{}\nx\n", digest("a")),
        ] {
            assert!(listed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_thin_plan_says_what_it_lacks() {
        let base = listed(&format!("[{}]", json("AB"))).unwrap();
        let images = [lettered("abcb"), lettered("abd")];
        let options = PlanOptions::default();
        let full = Plan::new(&images, &options).unwrap();
        let thin = Plan::new(&images, &options.clone().base(base.clone())).unwrap();
        let missing = thin.missing();
        assert_eq!(missing.len(), 1);
        assert_eq!(missing[0].diff_id, Some(digest("A")));
        assert_eq!(thin.whole().unwrap().digest(), full.digest());
        assert_eq!(thin.above(), 5);
        assert_ne!(thin.digest(), full.digest());
        assert_eq!(thin.blobs().len() + 1, full.blobs().len());
        // What has nothing to leave out is the full archive.
        let other = Plan::new(&[lettered("de")], &options.clone().base(base)).unwrap();
        assert_eq!(
            other.digest(),
            Plan::new(&[lettered("de")], &options).unwrap().digest()
        );
        assert!(other.missing().is_empty());
    }
}
