//! Image names as typed: prefixes, URLs and subcommands of other tools get a note or a hint.

use super::error::{Error, Result};
use super::flags::Low;
use dockersave::{Reference, text};

/// Subcommands of other tools, and the equivalent here. None is the name of an official image of
/// Docker Hub.
const COMMANDS: [(&[&str], &str); 8] = [
    (
        &["pull", "save", "get", "download", "fetch", "copy", "export"],
        "dockersave IMAGE downloads it, -o names the archive",
    ),
    (
        &["login", "logout"],
        "--user with --password-stdin, or --ilogin; what docker login saved is used without being asked for",
    ),
    (
        &["load", "import", "run", "push"],
        "that is for an engine: docker load -i takes what dockersave IMAGE leaves",
    ),
    (
        &["inspect", "manifest"],
        "--metadata IMAGE prints the manifest",
    ),
    (&["tags", "ls", "list"], "--tags IMAGE lists the tags"),
    (&["digest"], "--sha IMAGE prints the digest"),
    (
        &["verify", "validate"],
        "--verify ARCHIVE checks an archive",
    ),
    (&["help", "version"], "--help, --version"),
];

/// The images of a command line, and notes about how they were typed.
pub(super) fn references(low: &Low) -> Result<(Vec<Reference>, Vec<String>)> {
    let Some(first) = low.images.first() else {
        if !low.from.is_empty() {
            return Ok(Default::default());
        }
        return Err(Error::usage(
            "IMAGE",
            "an image name is required, such as debian; see --help",
        ));
    };
    let known = COMMANDS.iter().find(|(words, _)| words.contains(&&**first));
    if let Some((_, instead)) = known {
        let example = match low.images.get(1) {
            Some(image) if instead.contains("downloads") => format!(": dockersave {image}"),
            _ => String::new(),
        };
        let why = format!(
            "there are no subcommands{example}; {instead} (an image of that name is docker.io/library/{first})"
        );
        return Err(Error::usage(text::printable(first, 20), why));
    }
    let mut notes = Vec::new();
    let found = low.images.iter().map(|typed| reference(typed, &mut notes));
    let found: Vec<Reference> = found.collect::<Result<_>>()?;
    if low.insecure {
        // The word after --insecure may be meant as its value.
        let is_host = |typed: &&String| {
            !typed.contains('/') && found.iter().any(|one| one.domain() == typed.as_str())
        };
        if let Some(host) = low.images.iter().find(is_host) {
            let why = format!("takes a registry with an equals sign: --insecure={host}");
            return Err(Error::usage("--insecure", why));
        }
    }
    Ok((found, notes))
}

/// An image as typed.
pub(super) fn reference(typed: &str, notes: &mut Vec<String>) -> Result<Reference> {
    let bare = typed.split(['?', '#']).next().unwrap_or_default();
    let parts = bare.split_once("://");
    // A text with a user and a password is never printed.
    let Some((scheme, rest)) = parts.filter(|_| text::line(bare) == bare) else {
        return Ok(typed.parse()?);
    };
    if matches!(scheme, "docker" | "oci") {
        let name: Reference = rest.parse()?;
        notes.push(format!("{scheme}:// is not needed: {rest} is the image"));
        return Ok(name);
    }
    let mut right = rest.trim_end_matches('/');
    if let Some(page) = right.strip_prefix("hub.docker.com/") {
        let path = page.strip_prefix("_/").or(page.strip_prefix("r/"));
        let path = path.unwrap_or(page);
        let parts = if page.starts_with("_/") { 1 } else { 2 };
        let end = path.match_indices('/').nth(parts - 1);
        right = end.map_or(path, |(end, _)| &path[..end]);
    }
    if !matches!(scheme, "https" | "http") || right.parse::<Reference>().is_err() {
        return Ok(typed.parse()?);
    }
    let insecure = if scheme == "http" { "--insecure " } else { "" };
    let why = format!("an image name has no {scheme}://: dockersave {insecure}{right}");
    Err(Error::usage(format!("image {bare:?}"), why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn typed(words: &[&str]) -> Result<(Vec<Reference>, Vec<String>)> {
        let words = ["dockersave"].iter().chain(words);
        references(&parse(words.map(Into::into))?)
    }

    #[test]
    fn what_other_tools_take_is_understood_or_answered() {
        for (words, right) in [
            (&["https://ghcr.io/o/r:1"][..], ": dockersave ghcr.io/o/r:1"),
            (&["http://h:5000/r"], ": dockersave --insecure h:5000/r"),
            (&["https://hub.docker.com/_/debian"], ": dockersave debian"),
            (
                &["https://hub.docker.com/_/debian/tags?page=2"],
                ": dockersave debian",
            ),
            (&["https://hub.docker.com/r/o/r/tags/"], ": dockersave o/r"),
            (&["pull", "debian"], "no subcommands: dockersave debian;"),
            (&["save", "-o", "x.tar", "debian"], ": dockersave debian;"),
            (&["login"], "--ilogin"),
            (&["load"], "docker load"),
            (&["--insecure", "h:5000", "h:5000/r"], "--insecure=h:5000"),
            (&[], "an image name is required"),
        ] {
            let error = typed(words).unwrap_err();
            assert_eq!(error.status(), 2);
            assert!(error.to_string().contains(right), "{words:?}: {error}");
        }
        let secret = typed(&["https://me:hunter2@h.example/r"]).unwrap_err();
        assert!(!secret.to_string().contains("hunter2"), "{secret}");
        let (images, notes) = typed(&["docker://ghcr.io/o/r", "docker.io/library/pull"]).unwrap();
        assert_eq!(images[0].to_string(), "ghcr.io/o/r:latest");
        assert_eq!(notes, ["docker:// is not needed: ghcr.io/o/r is the image"]);
        assert!(typed(&["--insecure", "debian:12", "h:5000/r"]).is_ok());
    }
}
