//! Credential sources and their order.
//!
//! The first source with a match for the registry wins: the caller, the environment, then the files
//! of Docker and containers tools, with their helpers. Nothing is read before a registry asks for
//! credentials. A file or helper that cannot be used is not an error by itself, but is named if the
//! registry then refuses access. Only the source of a credential is ever shown.

use super::config::{ConfigFile, Entry};
use super::helper;
use crate::error::{Error, Result, plain, printable};
use crate::json::{self, Loose};
use crate::reference::{Reference, is_hub};
use crate::secret::Secret;
use crate::sync::lock;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

/// The largest credentials file, in bytes.
const LIMIT: u64 = 1 << 20;
/// Docker Hub's key in Docker's files and helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A credential for a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    Password {
        user: String,
        password: Secret,
    },
    /// An identity token, exchanged for an access token by POST (oauth.md); `password` is the
    /// entry's password for servers without that form.
    IdentityToken {
        token: Secret,
        password: Option<(String, Secret)>,
    },
    /// Sent as is, as a Bearer token.
    RegistryToken(Secret),
}

impl Credential {
    pub fn password(user: &str, password: &str) -> Self {
        Self::Password {
            user: user.to_owned(),
            password: Secret::of_user(user, password),
        }
    }
}

/// A credential and its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub credential: Credential,
    pub source: String,
}

/// Whose credentials were sent, for the message when they are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whose {
    /// The user, unless it was a token.
    user: Option<String>,
    source: String,
}

impl Whose {
    /// What a refusal means. `accepted`: a token endpoint accepted them, but the registry refused.
    pub fn refused(&self, status: u16, accepted: bool) -> String {
        let source = &self.source;
        match (&self.user, accepted || status != 401) {
            (Some(user), false) => {
                format!("wrong user or password: user {user}, from {source}")
            }
            (Some(user), true) => {
                format!("user {user}, from {source}, may lack the right to pull it")
            }
            (None, false) => format!("the token from {source} is not accepted: log in again"),
            (None, true) => format!("the token from {source} may lack the right to pull it"),
        }
    }
}

impl Found {
    pub fn whose(&self) -> Whose {
        Whose {
            user: match &self.credential {
                Credential::Password { user, .. } => Some(printable(user, 80)),
                _ => None,
            },
            source: self.source.clone(),
        }
    }

    /// The fallback for a server without identity tokens by POST: the password beside it; ACR
    /// accepts the token as a password with a null user.
    pub fn beside_token(&self) -> Option<Self> {
        let Credential::IdentityToken { token, password } = &self.credential else {
            return None;
        };
        let (user, password) = password.clone().unwrap_or_else(|| {
            let nobody = "00000000-0000-0000-0000-000000000000";
            (nobody.to_owned(), token.clone())
        });
        Some(Self {
            credential: Credential::Password { user, password },
            source: self.source.clone(),
        })
    }
}

type Known = BTreeMap<(String, String), Option<Found>>;

/// The sources in order; each registry is looked up once.
#[derive(Default)]
pub(crate) struct Credentials {
    /// The caller's, for the registry of this name, or for that of the first reference.
    pub given: Vec<(Option<String>, Found)>,
    first: OnceLock<String>,
    /// Neither the environment nor helpers are asked, nor files unless one is named.
    pub bare: bool,
    /// The only file to read, if the caller names one.
    pub file: Option<PathBuf>,
    known: Mutex<Known>,
    problems: Mutex<Vec<String>>,
}

impl Credentials {
    /// The credential for a repository; `domain` as in the reference.
    pub fn find(&self, domain: &str, path: &str) -> Option<Found> {
        let name = Name::new(domain, path);
        let mut given = self.given.iter();
        let first = given.find(|(host, _)| host.is_none() && self.is_first(&name));
        self.given_by_name(&name)
            .or_else(|| first.map(|(_, found)| found.clone()))
            .or_else(|| self.in_environment(&name))
            .or_else(|| self.find_by_name(domain, path))
    }

    fn given_by_name(&self, name: &Name) -> Option<Found> {
        let own = |host: &Option<String>| host.as_ref().is_some_and(|host| name.is_host(host));
        let found = self.given.iter().find(|(host, _)| own(host));
        found.map(|(_, found)| found.clone())
    }

    /// The credential for exactly this host, from the caller or from files: credentials without a
    /// host are for the first registry, not for a mirror.
    pub fn find_by_name(&self, domain: &str, path: &str) -> Option<Found> {
        if let Some(found) = self.given_by_name(&Name::new(domain, path)) {
            return Some(found);
        }
        let key = (domain.to_owned(), path.to_owned());
        let mut known = lock(&self.known);
        known
            .entry(key)
            .or_insert_with(|| self.search(domain, path))
            .clone()
    }

    /// The problems with files and helpers so far, for the message if access is refused.
    pub fn problems(&self) -> Vec<String> {
        lock(&self.problems).clone()
    }

    fn search(&self, domain: &str, path: &str) -> Option<Found> {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let name = Name::new(domain, path);
        if self.bare && self.file.is_none() {
            return None;
        }
        for source in sources(self.file.as_deref(), &get) {
            let outcome = match &source {
                Source::Text(text) => parse(text.as_bytes(), "DOCKER_AUTH_CONFIG")
                    .and_then(|file| self.in_file(&file, &name, "DOCKER_AUTH_CONFIG")),
                Source::File(file, _) => match read(file) {
                    Ok(Some(parsed)) => self.in_file(&parsed, &name, &file.display().to_string()),
                    Ok(None) if matches!(source, Source::File(_, true)) => Err(Error::input(
                        file,
                        "reading credentials from",
                        std::io::Error::from(std::io::ErrorKind::NotFound),
                    )),
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                },
            };
            match outcome {
                Ok(Some(found)) => return Some(found),
                Ok(None) => {}
                Err(error) => self.problem(error.to_string()),
            }
        }
        None
    }

    fn problem(&self, text: String) {
        let mut problems = lock(&self.problems);
        if !problems.contains(&text) {
            problems.push(text);
        }
    }

    /// Registers a reference's registry. The caller's credentials are for the first one.
    pub fn know(&self, domain: &str) {
        self.first.get_or_init(|| domain.to_owned());
    }

    fn is_first(&self, name: &Name) -> bool {
        self.first.get().is_none_or(|first| name.is_host(first))
    }

    /// From the environment, for the registry named there, or for the first one.
    fn in_environment(&self, name: &Name) -> Option<Found> {
        if self.bare {
            return None;
        }
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (user, password) = (get("DOCKERSAVE_USER")?, get("DOCKERSAVE_PASSWORD")?);
        let source = "DOCKERSAVE_USER and DOCKERSAVE_PASSWORD".to_owned();
        let registry = get("DOCKERSAVE_REGISTRY");
        let own = match &registry {
            Some(registry) => name.is_host(registry),
            None => self.is_first(name),
        };
        if !own {
            let whose = registry.as_ref().or(self.first.get());
            self.problem(format!(
                "{source} are for {} (see DOCKERSAVE_REGISTRY)",
                whose.map_or("another registry", String::as_str)
            ));
            return None;
        }
        Some(Found {
            credential: Credential::password(&user, &password),
            source,
        })
    }

    /// A helper for the registry, the default helper, then the file itself.
    fn in_file(&self, file: &ConfigFile, name: &Name, source: &str) -> Result<Option<Found>> {
        let own = file
            .helpers
            .iter()
            .flatten()
            .find(|(key, _)| name.is_host(key))
            .map(|(_, helper)| &helper.0);
        let helper = own
            .or(Some(&file.store.0))
            .filter(|helper| !helper.is_empty() && !self.bare);
        if let Some(helper) = helper {
            let key = if name.hub {
                HUB_KEY.to_owned()
            } else {
                name.domain.clone()
            };
            let source = format!("docker-credential-{helper}, named in {source}");
            match helper::get(helper, &key) {
                Ok(Some((user, secret))) if user == "<token>" => {
                    return Ok(Some(Found {
                        credential: Credential::IdentityToken {
                            token: Secret::new(secret),
                            password: None,
                        },
                        source,
                    }));
                }
                Ok(Some((user, password))) => {
                    return Ok(Some(Found {
                        credential: Credential::password(&user, &password),
                        source,
                    }));
                }
                Ok(None) => {}
                // A configuration copied from a desktop may name helpers that are not installed on
                // the device.
                Err(why) => self.problem(format!("{source}: {why}")),
            }
        }
        let mut best = None;
        for (key, Loose(entry)) in file.auths.iter().flatten() {
            let Some(rank) = name.rank(key) else { continue };
            let Some(entry) = entry else {
                self.problem(format!("{source}: the entry for {key} is empty"));
                continue;
            };
            match credential(entry) {
                Ok(Some(credential)) if best.as_ref().is_none_or(|(known, _)| rank >= *known) => {
                    best = Some((rank, credential));
                }
                Ok(_) => {}
                Err(why) => self.problem(format!("{source}: the entry for {key} {why}")),
            }
        }
        Ok(best.map(|(_, credential)| Found {
            credential,
            source: source.to_owned(),
        }))
    }
}

enum Source {
    Text(String),
    /// A file; the flag: it was named explicitly, so its absence is a problem.
    File(PathBuf, bool),
}

/// The sources, in order. A file named by the caller is the only one.
fn sources(only: Option<&Path>, get: &dyn Fn(&str) -> Option<String>) -> Vec<Source> {
    if let Some(file) = only {
        return vec![Source::File(file.to_owned(), true)];
    }
    let mut found: Vec<Source> = Vec::new();
    found.extend(get("DOCKER_AUTH_CONFIG").map(Source::Text));
    found.extend(get("REGISTRY_AUTH_FILE").map(|file| Source::File(file.into(), true)));
    let home = get("HOME").map(PathBuf::from);
    let below = |folder: Option<PathBuf>, rest: &str| {
        folder.map(|folder| Source::File(folder.join(rest), false))
    };
    let docker = get("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".docker")));
    found.extend(below(docker, "config.json"));
    found.extend(below(
        get("XDG_RUNTIME_DIR").map(PathBuf::from),
        "containers/auth.json",
    ));
    let config = get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.map(|home| home.join(".config")));
    found.extend(below(config, "containers/auth.json"));
    found
}

fn parse(bytes: &[u8], what: &str) -> Result<ConfigFile> {
    json::parse(bytes, what)
}

fn read(file: &Path) -> Result<Option<ConfigFile>> {
    match crate::files::read_limited(file, LIMIT) {
        Ok(bytes) => parse(&bytes, &file.display().to_string()).map(Some),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::malformed(
            file.display().to_string(),
            format!("cannot be read for credentials: {}", plain(&error)),
        )),
    }
}

/// `user:password` in base64, or the other members; empty ones are skipped.
fn credential(entry: &Entry) -> std::result::Result<Option<Credential>, &'static str> {
    if !entry.token.0.is_empty() && entry.identity.0.is_empty() {
        return Ok(Some(Credential::RegistryToken(Secret::new(
            &*entry.token.0,
        ))));
    }
    let password = password(entry);
    if !entry.identity.0.is_empty() {
        return Ok(Some(Credential::IdentityToken {
            token: Secret::new(&*entry.identity.0),
            // `auth` beside it may contain only a user.
            password: password
                .ok()
                .flatten()
                .filter(|(_, password)| !password.is_empty()),
        }));
    }
    Ok(password?.map(|(user, password)| Credential::Password { user, password }))
}

/// Both, or nothing if one is missing.
fn password(entry: &Entry) -> std::result::Result<Option<(String, Secret)>, &'static str> {
    let (user, password) = if entry.auth.0.is_empty() {
        (entry.username.0.clone(), entry.password.0.clone())
    } else {
        // Some tools fold the line, some omit the padding, and some append NULs.
        let folded: String = entry
            .auth
            .0
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .collect();
        let config =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let bytes = GeneralPurpose::new(&base64::alphabet::STANDARD, config)
            .decode(folded)
            .map_err(|_| "is not base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
        let (user, password) = text.split_once(':').ok_or("has no user:password")?;
        (user.to_owned(), password.trim_end_matches('\0').to_owned())
    };
    let password = Secret::of_user(&user, password);
    Ok((!user.is_empty()).then_some((user, password)))
}

/// How many entries of a file match a repository. Runs no helper.
#[cfg(any(test, fuzzing))]
pub(crate) fn entries(bytes: &[u8], domain: &str, path: &str) -> usize {
    let (Ok(file), name) = (parse(bytes, "the file"), Name::new(domain, path)) else {
        return 0;
    };
    let own = |(key, Loose(entry)): &(&String, &Loose<Entry>)| {
        let entry = entry.as_ref();
        name.rank(key).is_some() && entry.is_some_and(|one| matches!(credential(one), Ok(Some(_))))
    };
    file.auths.iter().flatten().filter(own).count()
}

/// Do two references name the same registry, so that the same credentials are for both? Docker Hub
/// has several names.
pub fn same_registry(one: &Reference, other: &Reference) -> bool {
    Name::new(one.domain(), "").is_host(other.domain())
}

/// A repository, to be matched with keys of these files.
struct Name {
    domain: String,
    path: String,
    hub: bool,
}

impl Name {
    fn new(domain: &str, path: &str) -> Self {
        let domain = host(domain);
        let hub = is_hub(&domain);
        Self {
            domain,
            path: path.to_owned(),
            hub,
        }
    }

    fn is_host(&self, key: &str) -> bool {
        let key = host(key);
        key == self.domain || (self.hub && is_hub(&key))
    }

    /// How specifically a key matches this repository: `host/ns/repo` more than `host/ns`, more
    /// than `host`, and the registry's name more than a URL of it.
    fn rank(&self, key: &str) -> Option<usize> {
        let address = key.split_once("://").map(|(_, rest)| rest);
        let bare = address.unwrap_or(key).trim_end_matches('/');
        // docker login keeps its own OAuth tokens beside the credentials.
        if bare.ends_with("/v1/access-token") || bare.ends_with("/v1/refresh-token") {
            return None;
        }
        let (key_host, rest) = bare.split_once('/').unwrap_or((bare, ""));
        if !self.is_host(key_host) {
            return None;
        }
        match rest {
            "" => Some(if address.is_some() { 1 } else { 2 }),
            "v1" | "v2" => Some(1),
            _ if address.is_some() => Some(0),
            rest => {
                let below = self.path == rest
                    || self
                        .path
                        .strip_prefix(rest)
                        .is_some_and(|more| more.starts_with('/'));
                below.then_some(2 + rest.len())
            }
        }
    }
}

fn host(text: &str) -> String {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split('/').next().unwrap_or("").to_ascii_lowercase();
    text.strip_suffix(":443")
        .map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, domain: &str, path: &str) -> Option<Credential> {
        let file = parse(text.as_bytes(), "x").ok()?;
        Credentials::default()
            .in_file(&file, &Name::new(domain, path), "x")
            .ok()?
            .map(|found| found.credential)
    }

    fn password(user: &str, password: &str) -> Option<Credential> {
        Some(Credential::password(user, password))
    }

    #[test]
    fn keys_in_all_their_forms() {
        for key in [
            "https://index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
            "registry-1.docker.io",
            "https://registry-1.docker.io/v2/",
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#);
            assert_eq!(
                found(&text, "docker.io", "library/x"),
                password("u", "p"),
                "{key}"
            );
            assert_eq!(found(&text, "other.io", "x"), None);
        }
        for key in [
            "host:5000",
            "HOST:5000",
            "https://host:5000",
            "http://host:5000/v1/",
            "host:5000/ns",
            "host:5000/ns/r",
        ] {
            let text = format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#);
            assert_eq!(
                found(&text, "host:5000", "ns/r"),
                password("u", "p"),
                "{key}"
            );
            assert_eq!(found(&text, "host:5001", "ns/r"), None, "{key}");
        }
        assert!(found(r#"{"auths":{"h:443":{"auth":"dTpw"}}}"#, "h", "r").is_some());
        assert!(found(r#"{"auths":{"h/ns":{"auth":"dTpw"}}}"#, "h", "nsother/r").is_none());
        let two =
            r#"{"auths":{"h":{"auth":"dTpw"},"h/a":{"auth":"YTpi"},"h/a/b":{"auth":"Yzpk"}}}"#;
        assert_eq!(found(two, "h", "a/b"), password("c", "d"));
        assert_eq!(found(two, "h", "a/c"), password("a", "b"));
        assert_eq!(
            found(
                r#"{"auths":{"https://index.docker.io/v1/access-token":{"auth":"dTpw"}}}"#,
                "docker.io",
                "x"
            ),
            None
        );
    }

    #[test]
    fn a_file_is_read_as_docker_reads_it() {
        let ours = r#""h":{"auth":"dTpw"}"#;
        for text in [
            format!(r#"{{"AUTHS":{{{ours}}}}}"#),
            r#"{"auths":{"h":{"AUTH":"dTpw"}}}"#.to_owned(),
            r#"{"auths":{"h":{"UserName":"u","PassWord":"p"}}}"#.to_owned(),
            "{\"auth\u{17f}\":{\"h\":{\"auth\":\"dTpw\"}}}".to_owned(),
            format!(r#"{{"Auths":{{{ours}}},"auths":{{"x":{{}}}}}}"#),
            format!(
                r#"{{"auths":{{"x":null,"y":[1,{{}}],"z":"t",{ours}}},"credHelpers":[],"credsStore":{{}}}}"#
            ),
            format!(r#"{{"auths":{{{ours}}},"credHelpers":null,"credsStore":null,"proxies":7}}"#),
        ] {
            assert_eq!(found(&text, "h", "r"), password("u", "p"), "{text}");
        }
        for text in [r#"{"auths":[]}"#, r#"{"auths":{"h":null}}"#, "{}"] {
            assert_eq!(found(text, "h", "r"), None, "{text}");
        }
        let store = parse(br#"{"credSstore":"x","CREDHELPERS":{"h":"y"}}"#, "x").unwrap();
        assert_eq!((store.store.0.as_str(), store.helpers.len()), ("x", 1));
    }

    #[test]
    fn entries_in_all_their_forms() {
        for (entry, expected) in [
            (r#"{"auth":"dTpwOng="}"#, password("u", "p:x")),
            (r#"{"auth":"dTpw\r\nOng"}"#, password("u", "p:x")),
            (r#"{"auth":"dTpwAAA="}"#, password("u", "p")),
            (r#"{"username":"u","password":"p"}"#, password("u", "p")),
            (
                r#"{"identitytoken":"t","auth":"dTo="}"#,
                Some(Credential::IdentityToken {
                    token: Secret::new("t"),
                    password: None,
                }),
            ),
            (
                r#"{"identitytoken":"t","auth":"dTpw"}"#,
                Some(Credential::IdentityToken {
                    token: Secret::new("t"),
                    password: Some(("u".into(), Secret::new("p"))),
                }),
            ),
            (
                r#"{"registrytoken":"t"}"#,
                Some(Credential::RegistryToken(Secret::new("t"))),
            ),
            ("{}", None),
            (r#"{"auth":"bm9jb2xvbg=="}"#, None),
            (r#"{"auth":"%%%"}"#, None),
            (r#"{"auth":null}"#, None),
        ] {
            assert_eq!(
                found(&format!(r#"{{"auths":{{"h":{entry}}}}}"#), "h", "r"),
                expected,
                "{entry}"
            );
        }
    }
}
