//! Image references in exactly Docker's grammar, normalised.
//!
//! The grammar is that of the `distribution/reference` package (regexp.go, normalize.go); the
//! tests' table shows it by example.

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::hint::Hint;
use std::fmt;
use std::str::FromStr;

/// The default domain.
const HUB: &str = "docker.io";

/// A normalised reference: registry, repository, and a tag, a digest or both.
///
/// ```
/// let name: dockersave::Reference = "debian".parse()?;
/// assert_eq!(name.to_string(), "docker.io/library/debian:latest");
/// # Ok::<(), dockersave::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry as written, such as `docker.io` or `host:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository on that registry, such as `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `latest` if neither tag nor digest was given, `None` for a digest alone.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which takes precedence over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `host[:port]` to connect to. Docker Hub's API is on a different host than its name.
    pub fn registry(&self) -> String {
        match self.domain.as_str() {
            HUB => "registry-1.docker.io".to_owned(),
            other => other.to_ascii_lowercase(),
        }
    }

    /// Domain and path in full, without tag and digest: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it: `debian` for `docker.io/library/debian`.
    pub fn familiar(&self) -> String {
        if self.domain != HUB {
            return self.name();
        }
        let short = self.path.strip_prefix("library/").unwrap_or(&self.path);
        // A path that would be read as a domain, or is an official image's namespace, is kept in
        // full.
        if short.contains('/') || short == self.path {
            self.path.clone()
        } else {
            short.to_owned()
        }
    }

    /// `familiar:tag`, as `docker images` shows it; `None` for a digest alone.
    pub fn familiar_tag(&self) -> Option<String> {
        self.tag
            .as_ref()
            .map(|tag| format!("{}:{tag}", self.familiar()))
    }

    /// `domain/path:tag`, as containerd names images; `None` for a digest alone.
    pub fn full_tag(&self) -> Option<String> {
        self.tag
            .as_ref()
            .map(|tag| format!("{}:{tag}", self.name()))
    }

    /// The part after `/manifests/` in the request.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        }
    }

    /// The default archive name without `.tar`: path and tag joined by hyphens,
    /// `library-debian-latest`; for a digest alone, its first 12 digits.
    pub fn archive_stem(&self) -> String {
        let last = match (&self.tag, &self.digest) {
            (Some(tag), _) => tag.clone(),
            (None, Some(digest)) => digest.hex()[..12].to_owned(),
            (None, None) => "latest".to_owned(),
        };
        format!("{}-{last}", self.path.replace('/', "-"))
    }

    /// The same repository under another tag or digest, which must be well formed.
    #[cfg(test)]
    fn with_tag(&self, tag: &str) -> Self {
        Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        }
    }
}

/// Is this a name of Docker Hub?
pub(crate) fn is_hub(host: &str) -> bool {
    matches!(
        host,
        "docker.io" | "index.docker.io" | "registry-1.docker.io"
    )
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text).map_err(|why| {
            let shown = crate::secret::without_user(text);
            let error = Error::usage(format!("image {shown:?}"), why);
            match shown == text {
                true => error,
                false => error.with_hint(Hint::Credentials),
            }
        })
    }
}

fn parse(text: &str) -> std::result::Result<Reference, String> {
    if text.is_empty() {
        return Err("a name is needed, such as debian or ghcr.io/owner/repository:tag".into());
    }
    if text.len() > 1024 {
        return Err("is longer than an image name can be".into());
    }
    if crate::secret::without_user(text) != text {
        return Err("an image name has no user or password in it".into());
    }
    if text.contains("://") {
        return Err(
            "an image name has no https:// in front; write ghcr.io/owner/repository:tag".into(),
        );
    }
    if text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(
            "looks like an image ID, which registries do not know; use a name, or name@sha256:..."
                .into(),
        );
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (
            rest,
            Some(digest.parse::<Digest>().map_err(|e| e.to_string())?),
        ),
        None => (text, None),
    };
    let (domain, rest) = split_domain(rest)?;
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) if valid_tag(tag) => (path, Some(tag.to_owned())),
        Some(_) => {
            return Err("the tag after ':' must be 1 to 128 letters, digits, '_', '.' or '-', and must not start with '.' or '-'".into());
        }
        None => (rest, None),
    };
    if !path.split('/').all(valid_component) {
        return Err(if path.bytes().any(|c| c.is_ascii_uppercase()) {
            "the repository name must be lowercase".into()
        } else {
            "the repository name must be lowercase letters and digits, joined by '.', '_', '__', '-' or '/'".into()
        });
    }
    let path = if domain == HUB && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    if domain.len() > 255 + ":65535".len() {
        return Err("the registry name is longer than 255 characters".into());
    }
    if path.len() > 255 {
        return Err("the repository name is longer than 255 characters".into());
    }
    let tag = if tag.is_none() && digest.is_none() {
        Some("latest".to_owned())
    } else {
        tag
    };
    Ok(Reference {
        domain,
        path,
        tag,
        digest,
    })
}

/// The first component is a domain if it cannot be anything else: `splitDockerDomain` in
/// normalize.go.
fn split_domain(text: &str) -> std::result::Result<(String, &str), String> {
    let Some((first, rest)) = text.split_once('/') else {
        return Ok((HUB.to_owned(), text));
    };
    let is_domain = first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|c| c.is_ascii_uppercase());
    if !is_domain {
        return Ok((HUB.to_owned(), text));
    }
    if !valid_domain(first) {
        return Err(format!("{first:?} is not a valid registry host"));
    }
    let domain = if first == "index.docker.io" {
        HUB
    } else {
        first
    };
    Ok((domain.to_owned(), rest))
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => return valid_ipv6(address),
            Some((address, port)) if valid_ipv6(address) => ("x", port.strip_prefix(':')),
            _ => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, Some("0")),
        },
    };
    let component = |part: &str| {
        let bytes = part.as_bytes();
        !bytes.is_empty()
            && bytes
                .iter()
                .all(|c| c.is_ascii_alphanumeric() || *c == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    host.split('.').all(component)
        && port.is_some_and(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

/// Only hexadecimal digits and colons: no zone, no embedded IPv4 address (regexp.go).
fn valid_ipv6(address: &str) -> bool {
    address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':')
        && address.parse::<std::net::Ipv6Addr>().is_ok()
}

pub(crate) fn valid_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().all(|c| word(c) || matches!(c, b'.' | b'-'))
        && tag.bytes().next().is_some_and(word)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn valid_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let word = rest.trim_start_matches(alphanumeric);
        if word.len() == rest.len() {
            return false;
        }
        if word.is_empty() {
            return true;
        }
        let after = word.trim_start_matches(['.', '_', '-']);
        let separator = &word[..word.len() - after.len()];
        let hyphens = separator.starts_with('-') && separator.bytes().all(|c| c == b'-');
        if !(hyphens || matches!(separator, "." | "_" | "__")) {
            return false;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// registry.md's table: a name and what it means, as domain, path, tag.
    #[test]
    fn names_mean_what_docker_says() {
        let long_tag = "t".repeat(128);
        let hex = "a".repeat(64);
        for (given, domain, path, tag) in [
            ("debian", "docker.io", "library/debian", "latest"),
            ("docker.io/debian", "docker.io", "library/debian", "latest"),
            (
                "index.docker.io/debian",
                "docker.io",
                "library/debian",
                "latest",
            ),
            ("library/debian", "docker.io", "library/debian", "latest"),
            (
                "registry-1.docker.io/debian",
                "registry-1.docker.io",
                "debian",
                "latest",
            ),
            ("localhost/foo", "localhost", "foo", "latest"),
            ("localhost:5000/foo", "localhost:5000", "foo", "latest"),
            ("127.0.0.1/foo", "127.0.0.1", "foo", "latest"),
            ("localhost", "docker.io", "library/localhost", "latest"),
            ("192.168.1.1", "docker.io", "library/192.168.1.1", "latest"),
            ("foo.bar", "docker.io", "library/foo.bar", "latest"),
            ("docker.io", "docker.io", "library/docker.io", "latest"),
            ("localhost:5000", "docker.io", "library/localhost", "5000"),
            ("foo.com:8080", "docker.io", "library/foo.com", "8080"),
            ("host:5000/foo", "host:5000", "foo", "latest"),
            ("192.168.1.1:5000/r:5050", "192.168.1.1:5000", "r", "5050"),
            ("host/foo", "docker.io", "host/foo", "latest"),
            ("foo_bar/x", "docker.io", "foo_bar/x", "latest"),
            ("a/b/c/d:e", "docker.io", "a/b/c/d", "e"),
            ("Foo/bar", "Foo", "bar", "latest"),
            ("Host.IO/foo", "Host.IO", "foo", "latest"),
            ("[::1]:5000/foo", "[::1]:5000", "foo", "latest"),
            ("[2001:db8::1]/r:t", "[2001:db8::1]", "r", "t"),
            ("a__b", "docker.io", "library/a__b", "latest"),
            ("a--b", "docker.io", "library/a--b", "latest"),
            ("foo:_x", "docker.io", "library/foo", "_x"),
            (
                &format!("foo:{long_tag}"),
                "docker.io",
                "library/foo",
                &long_tag,
            ),
            (
                "xn--n3h.com/i:xn--n3h.com",
                "xn--n3h.com",
                "i",
                "xn--n3h.com",
            ),
            ("host:99999/foo", "host:99999", "foo", "latest"),
            (
                &format!("docker.io/{hex}"),
                "docker.io",
                &format!("library/{hex}"),
                "latest",
            ),
        ] {
            let reference: Reference = given.parse().unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(
                (reference.domain(), reference.path(), reference.tag()),
                (domain, path, Some(tag)),
                "{given}"
            );
        }
    }

    #[test]
    fn digests_are_kept_beside_the_tag_and_asked_for() {
        let sha256 = format!("sha256:{}", "b".repeat(64));
        let sha512 = format!("sha512:{}", "c".repeat(128));
        let both: Reference = format!("busybox:1@{sha256}").parse().unwrap();
        assert_eq!((both.tag(), both.target()), (Some("1"), sha256.clone()));
        let long: Reference = format!("ghcr.io/a/b@{sha512}").parse().unwrap();
        assert_eq!((long.tag(), long.target()), (None, sha512));
        assert_eq!(long.archive_stem(), "a-b-cccccccccccc");
        assert_eq!(long.familiar_tag(), None);
    }

    #[test]
    fn everything_else_is_refused() {
        let hex = "a".repeat(64);
        let tag = "t".repeat(129);
        let path = format!("foo/{}", "a".repeat(256));
        for wrong in [
            "foo/Bar",
            "Debian",
            "docker.io/Foo/bar",
            "[::1]",
            "[::1]:5000",
            "::1:5000/foo",
            "[fe80::1%eth0]:5000/x",
            "[2001:db8::192.0.2.33]/x",
            "foo@sha256",
            &format!("foo@{hex}"),
            &format!("busybox@sha256:{}", &hex[1..]),
            &format!("busybox@sha256:{}", hex.to_uppercase()),
            &format!("busybox@md5:{}", &hex[32..]),
            &hex,
            "foo_bar.com/x",
            "foo:",
            "foo:a:b",
            "foo:.x",
            &format!("foo:{tag}"),
            "foo/",
            "/foo",
            "foo//bar",
            "a___b",
            "a..b",
            "-a",
            "a-",
            "https://h/x",
            "test:http/bar",
            " debian",
            "debian ",
            &format!("@sha256:{hex}"),
            ":t",
            "",
            &path,
            "a.-b",
            "host:/x",
            "host:5x/x",
            "[::1/x",
            "[::1]x/y",
            "[::1]:/y",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn archives_and_loaders_get_the_names_they_expect() {
        let hub: Reference = "debian:12".parse().unwrap();
        assert_eq!(hub.archive_stem(), "library-debian-12");
        assert_eq!(hub.familiar_tag().unwrap(), "debian:12");
        assert_eq!(hub.full_tag().unwrap(), "docker.io/library/debian:12");
        assert_eq!(hub.registry(), "registry-1.docker.io");
        let other: Reference = "Host.IO:5000/a/b".parse().unwrap();
        assert_eq!(
            other.with_tag("x").familiar_tag().unwrap(),
            "Host.IO:5000/a/b:x"
        );
        assert_eq!(other.registry(), "host.io:5000");
        assert_eq!(other.archive_stem(), "a-b-latest");
        let user: Reference = "user/app".parse().unwrap();
        assert_eq!(user.familiar_tag().unwrap(), "user/app:latest");
    }
}
