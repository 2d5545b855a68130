//! Policy files: which repositories need whose signature, as the part of containers-policy.json(5)
//! that public keys cover. Unsupported parts are never taken as acceptance.

use super::{Parsed, PublicKey};
use crate::error::{Error, Result, printable};
use crate::json::keys::{Keys, split_string};
use crate::json::parse_within;
use crate::reference::Reference;
use miniserde::json::{Object, Value};
use std::path::{Path, PathBuf};

/// The largest policy, in bytes, and the objects and values in it.
const LIMIT: u64 = 256 << 10;
const VALUES: (usize, usize) = (2048, 8192);

/// A policy file.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    default: Vec<Rule>,
    /// The scopes of the transport `docker`, each with what it needs: all of it.
    scopes: Vec<(String, Vec<Rule>)>,
}

#[derive(Clone, Debug)]
enum Rule {
    Accept,
    Reject,
    Signed {
        keys: Vec<Source>,
        identity: Option<Identity>,
    },
    /// What it is.
    NotUnderstood(String),
}

/// Where a key is; files are read when they are needed.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Key(PublicKey),
}

/// The name that must have been signed.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    Exact,
    Repository,
    RepositoryOrExact,
    ExactReference(String),
    ExactRepository(String),
}

/// The keys, one of which must have signed, and the name that must be signed, if the policy says.
pub(crate) type Needed = (Vec<PublicKey>, Option<Identity>);

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if it cannot be read, [`Error::Malformed`] for anything that does not
    /// follow containers-policy.json(5).
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = crate::files::read_limited(path, LIMIT)
            .map_err(|error| Error::input(path, "reading the policy", error))?;
        Self::parse(&bytes, &path.display().to_string())
    }

    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let what = format!("policy {name}");
        let value: Value = parse_within(bytes, &what, VALUES, &Keys::None)?;
        let read = || -> Parsed<Self> {
            unique(bytes)?;
            let top = members(&value, "the policy", &["default", "transports"])?;
            let default = top.get("default").ok_or("has no \"default\"")?;
            let mut scopes = Vec::new();
            let transports = top
                .get("transports")
                .map(|value| object(value, "transports"));
            if let Some(docker) = transports.transpose()?.and_then(|all| all.get("docker")) {
                for (scope, needed) in object(docker, "docker")? {
                    scopes.push((scope.clone(), rules(needed, scope)?));
                }
            }
            Ok(Self {
                name: name.to_owned(),
                default: rules(default, "default")?,
                scopes,
            })
        };
        read().map_err(|why| Error::malformed(what, why))
    }

    /// Who must have signed an image: nobody if the policy accepts anything.
    pub(crate) fn needed(&self, reference: &Reference) -> Result<Vec<Needed>> {
        let rules = self.rules(reference);
        let refused = |why: String| Error::Unsigned {
            what: reference.to_string(),
            why: format!("{why} (policy {})", self.name),
        };
        let mut all = Vec::new();
        for rule in rules {
            match rule {
                Rule::Accept => {}
                Rule::Reject => return Err(refused("is rejected".to_owned())),
                Rule::NotUnderstood(what) => {
                    return Err(refused(format!("requires something unsupported: {what}")));
                }
                Rule::Signed { keys, identity } => {
                    let keys = keys.iter().map(|source| match source {
                        Source::File(path) => PublicKey::read(path),
                        Source::Key(key) => Ok(key.clone()),
                    });
                    all.push((keys.collect::<Result<_>>()?, identity.clone()));
                }
            }
        }
        Ok(all)
    }

    /// The rules of the longest scope that the image is in.
    fn rules(&self, reference: &Reference) -> &[Rule] {
        let named = |scope: &str| {
            let found = self.scopes.iter().find(|(own, _)| own == scope);
            found.map(|(_, rules)| rules.as_slice())
        };
        let name = full_name(reference);
        let mut scope = format!("{name}{}", version(reference));
        loop {
            if let Some(rules) = named(&scope) {
                return rules;
            }
            let cut = match scope.len() > name.len() {
                true => name.len(),
                false => match scope.rfind('/') {
                    Some(at) => at,
                    None => break,
                },
            };
            scope.truncate(cut);
        }
        // The rest is the host.
        let mut host = scope.as_str();
        while let Some((_, rest)) = host.split_once('.') {
            if let Some(rules) = named(&format!("*.{rest}")) {
                return rules;
            }
            host = rest;
        }
        named("").unwrap_or(&self.default)
    }
}

/// `host/repository`, as policies have it.
fn full_name(reference: &Reference) -> String {
    format!("{}/{}", reference.domain(), reference.path())
}

fn version(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("@{digest}"),
        (None, Some(tag)) => format!(":{tag}"),
        (None, None) => String::new(),
    }
}

/// Whether the signed name is one that the policy accepts for this image. A bundle has none: its
/// statement names only a digest.
pub(crate) fn identity(
    wanted: Option<&Identity>,
    reference: &Reference,
    signed: Option<&str>,
) -> Parsed<()> {
    let Some(signed) = signed else {
        return match wanted {
            None => Ok(()),
            Some(_) => {
                Err("names no repository, but the policy's signedIdentity requires one".into())
            }
        };
    };
    let other = || format!("is for {}", printable(signed, 120));
    let own: Reference = signed.parse().map_err(|_| other())?;
    let versioned = signed
        .rsplit('/')
        .next()
        .is_some_and(|last| last.contains([':', '@']));
    let repository = |wanted: &Reference| full_name(&own) == full_name(wanted);
    let exact =
        |wanted: &Reference| versioned && repository(wanted) && version(&own) == version(wanted);
    let parsed = |text: &String| text.parse::<Reference>().map_err(|error| error.to_string());
    let fits = match wanted.unwrap_or(&Identity::RepositoryOrExact) {
        Identity::Exact => exact(reference),
        Identity::Repository => repository(reference),
        Identity::RepositoryOrExact if reference.digest().is_some() => repository(reference),
        Identity::RepositoryOrExact => exact(reference),
        Identity::ExactReference(text) => exact(&parsed(text)?),
        Identity::ExactRepository(text) => repository(&parsed(text)?),
    };
    if fits { Ok(()) } else { Err(other()) }
}

fn object<'v>(value: &'v Value, what: &str) -> Parsed<&'v Object> {
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(format!("{what:?} is not an object")),
    }
}

/// The members of an object that has no others.
fn members<'v>(value: &'v Value, what: &str, known: &[&str]) -> Parsed<&'v Object> {
    let members = object(value, what)?;
    match members.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{what:?} has an unknown member {key:?}")),
        None => Ok(members),
    }
}

fn text(value: &Value, what: &str) -> Parsed<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        _ => Err(format!("{what:?} is not a string")),
    }
}

fn rules(value: &Value, scope: &str) -> Parsed<Vec<Rule>> {
    match value {
        Value::Array(list) if !list.is_empty() => list.iter().map(|one| rule(one, scope)).collect(),
        _ => Err(format!("{scope:?} is not a list of requirements")),
    }
}

fn rule(value: &Value, scope: &str) -> Parsed<Rule> {
    let own = object(value, scope)?;
    let kind = own
        .get("type")
        .ok_or_else(|| format!("{scope:?} has a requirement without a type"))?;
    match text(kind, "type")?.as_str() {
        "insecureAcceptAnything" => members(value, scope, &["type"]).map(|_| Rule::Accept),
        "reject" => members(value, scope, &["type"]).map(|_| Rule::Reject),
        "sigstoreSigned" => signed(value, scope),
        other @ "signedBy" => Ok(Rule::NotUnderstood(other.to_owned())),
        other => Err(format!(
            "{scope:?} has a requirement of unknown type {other:?}"
        )),
    }
}

/// Other ways to say whose signature it must be, and logs that it must be in.
const MORE: [&str; 7] = [
    "fulcio",
    "pki",
    "rekorPublicKeyPath",
    "rekorPublicKeyPaths",
    "rekorPublicKeyData",
    "rekorPublicKeyDatas",
    "keyDatas",
];

fn signed(value: &Value, scope: &str) -> Parsed<Rule> {
    let own = ["type", "keyPath", "keyPaths", "keyData", "signedIdentity"];
    let known: Vec<&str> = own.iter().chain(&MORE).copied().collect();
    let members = members(value, scope, &known)?;
    if let Some(more) = MORE.iter().find(|more| members.contains_key(**more)) {
        return Ok(Rule::NotUnderstood(format!("sigstoreSigned with {more}")));
    }
    let mut sources = Vec::new();
    for (name, value) in members {
        match (name.as_str(), value) {
            ("keyPath", value) => sources.push(vec![Source::File(text(value, name)?.into())]),
            ("keyPaths", Value::Array(list)) if !list.is_empty() => {
                let files = list
                    .iter()
                    .map(|one| Ok(Source::File(text(one, name)?.into())));
                sources.push(files.collect::<Parsed<_>>()?);
            }
            ("keyPaths", _) => return Err(format!("{name:?} is not a list of files")),
            ("keyData", value) => {
                let pem = super::base64(&text(value, name)?).ok_or("\"keyData\" is not base64")?;
                let what = format!("of {scope:?}");
                let key = PublicKey::from_pem(&pem, &what).map_err(|error| error.to_string())?;
                sources.push(vec![Source::Key(key)]);
            }
            _ => {}
        }
    }
    let one = (sources.pop(), sources.is_empty());
    let (Some(keys), true) = one else {
        return Err(format!(
            "{scope:?} needs exactly one of keyPath, keyPaths and keyData"
        ));
    };
    match members
        .get("signedIdentity")
        .map(|value| signed_identity(value, scope))
    {
        None => Ok(Rule::Signed {
            keys,
            identity: None,
        }),
        Some(identity) => Ok(match identity? {
            Some(identity) => Rule::Signed {
                keys,
                identity: Some(identity),
            },
            None => Rule::NotUnderstood("signedIdentity of type remapIdentity".to_owned()),
        }),
    }
}

fn signed_identity(value: &Value, scope: &str) -> Parsed<Option<Identity>> {
    let own = object(value, "signedIdentity")?;
    let kind = own
        .get("type")
        .map(|kind| text(kind, "type"))
        .transpose()?
        .unwrap_or_default();
    let with = |name: &str| {
        let members = members(value, "signedIdentity", &["type", name])?;
        let value = members
            .get(name)
            .ok_or_else(|| format!("{kind:?} has no {name:?}"))?;
        let reference = text(value, name)?;
        match reference.parse::<Reference>() {
            Ok(_) => Ok(reference),
            Err(error) => Err(error.to_string()),
        }
    };
    let plain = |identity| members(value, "signedIdentity", &["type"]).map(|_| Some(identity));
    match kind.as_str() {
        "matchExact" => plain(Identity::Exact),
        "matchRepository" => plain(Identity::Repository),
        "matchRepoDigestOrExact" => plain(Identity::RepositoryOrExact),
        "exactReference" => Ok(Some(Identity::ExactReference(with("dockerReference")?))),
        "exactRepository" => Ok(Some(Identity::ExactRepository(with("dockerRepository")?))),
        "remapIdentity" => Ok(None),
        other => Err(format!(
            "{scope:?} has a signedIdentity of unknown type {other:?}"
        )),
    }
}

/// Refuses a name that occurs twice in an object, or is written with escapes: readers differ in
/// which one counts.
fn unique(bytes: &[u8]) -> Parsed<()> {
    let (mut open, mut rest): (Vec<Vec<&[u8]>>, _) = (Vec::new(), bytes);
    while let [first, behind @ ..] = rest {
        match first {
            b'{' | b'[' => open.push(Vec::new()),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let (string, behind) = split_string(rest);
                rest = behind;
                if behind.trim_ascii_start().first() == Some(&b':')
                    && let Some(names) = open.last_mut()
                {
                    if names.contains(&string) || string.contains(&b'\\') {
                        let name = printable(&String::from_utf8_lossy(string), 80);
                        return Err(format!("has the name {name} twice, or with escapes"));
                    }
                    names.push(string);
                }
                continue;
            }
            _ => {}
        }
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::signing::Signer;
    use super::*;

    fn policy(text: &str) -> Result<Policy> {
        Policy::parse(text.as_bytes(), "p.json")
    }

    const ANY: &str = r#"[{"type":"insecureAcceptAnything"}]"#;
    const NO: &str = r#"[{"type":"reject"}]"#;

    #[test]
    fn the_longest_scope_counts() {
        let policy = policy(&format!(
            r#"{{"default":{NO},"transports":{{"dir":{{"":7}},"docker":{{"r.example:5000/a/b":{ANY},"r.example:5000/a/b/c":{NO},"r.example:5000/a/b:2":{NO},"*.example.com":{ANY},"x.example.com":{NO},"docker.io/library":{ANY}}}}}}}"#
        ))
        .unwrap();
        for (name, accepted) in [
            ("r.example:5000/a/b", true),
            ("r.example:5000/a/b:1", true),
            ("r.example:5000/a/b:2", false),
            ("r.example:5000/a/b/d", true),
            ("r.example:5000/a/b/c", false),
            ("r.example:5000/a/bc", false),
            ("r.example:5000/a", false),
            ("r.example/a/b", false),
            ("y.z.example.com/a", true),
            ("x.example.com/a", false),
            ("example.com/a", false),
            ("debian", true),
            ("other/debian", false),
        ] {
            let needed = policy.needed(&name.parse().unwrap());
            assert_eq!(needed.is_ok(), accepted, "{name}");
            assert!(needed.is_ok_and(|all| all.is_empty()) == accepted);
        }
        let whole = format!(r#"{{"default":{NO},"transports":{{"docker":{{"":{ANY}}}}}}}"#);
        assert!(
            Policy::parse(whole.as_bytes(), "x")
                .unwrap()
                .needed(&"a".parse().unwrap())
                .is_ok()
        );
    }

    #[test]
    fn what_is_not_understood_is_no_yes() {
        use base64::Engine as _;
        let key = base64::engine::general_purpose::STANDARD.encode(Signer::new("p256").pem());
        let with = |requirement: &str| format!(r#"{{"default":[{requirement}]}}"#);
        let signed = |more: &str| with(&format!(r#"{{"type":"sigstoreSigned"{more}}}"#));
        let keyed = |more: &str| signed(&format!(r#","keyData":"{key}"{more}"#));
        for sound in [
            with(r#"{"type":"reject"}"#),
            keyed(""),
            keyed(r#","signedIdentity":{"type":"matchRepository"}"#),
            signed(r#","keyPaths":["a","b"]"#),
        ] {
            assert!(policy(&sound).is_ok(), "{sound}");
        }
        for refused in [
            with(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/x"}"#),
            keyed(r#","rekorPublicKeyPath":"/x""#),
            signed(r#","fulcio":{}"#),
            keyed(r#","signedIdentity":{"type":"remapIdentity","prefix":"a","signedPrefix":"b"}"#),
            signed(r#","keyPath":"/no/such/key""#),
        ] {
            let found = policy(&refused).unwrap().needed(&"a".parse().unwrap());
            assert!(found.is_err(), "{refused}");
        }
        for wrong in [
            "[]".to_owned(),
            "{}".to_owned(),
            r#"{"default":[]}"#.to_owned(),
            r#"{"default":[{}]}"#.to_owned(),
            r#"{"default":[{"type":"allow"}]}"#.to_owned(),
            with(r#"{"type":"reject","x":1}"#),
            with(r#"{"type":"reject","type":"insecureAcceptAnything"}"#),
            with(r#"{"\u0074ype":"reject"}"#),
            format!(r#"{{"default":{NO},"Default":{ANY}}}"#),
            format!(r#"{{"default":{NO},"transports":[]}}"#),
            format!(r#"{{"default":{NO},"transports":{{"docker":{{"a":{ANY},"a":{NO}}}}}}}"#),
            signed(""),
            keyed(r#","keyPath":"/x""#),
            keyed(r#","keypath":"/x""#),
            signed(r#","keyData":"!""#),
            signed(r#","keyData":"eA==""#),
            signed(r#","keyPaths":[]"#),
            keyed(r#","signedIdentity":{}"#),
            keyed(r#","signedIdentity":{"type":"matchAny"}"#),
            keyed(r#","signedIdentity":{"type":"exactReference"}"#),
            keyed(r#","signedIdentity":{"type":"exactRepository","dockerRepository":"A"}"#),
        ] {
            assert!(policy(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_compared_as_podman_does() {
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let pinned = format!("r.example/a@sha256:{hex}");
        let repository = Some(Identity::Repository);
        for (wanted, name, signed, fits) in [
            (&None, "r.example/a:1", Some("r.example/a:1"), true),
            (&None, "r.example/a:1", Some("r.example/a:2"), false),
            (&None, "r.example/a:latest", Some("r.example/a"), false),
            (&None, &pinned, Some("r.example/a"), true),
            (&None, &pinned, Some("r.example/b"), false),
            (&None, "r.example/a:1", None, true),
            (&repository, "r.example/a:1", Some("r.example/a"), true),
            (&repository, "r.example/a:1", Some("r.example/b:1"), false),
            (&repository, "r.example/a:1", None, false),
            (
                &repository,
                "debian:12",
                Some("docker.io/library/debian"),
                true,
            ),
            (&Some(Identity::Exact), &pinned, Some("r.example/a"), false),
            (
                &Some(Identity::ExactReference("x/y:1".into())),
                "a:1",
                Some("x/y:1"),
                true,
            ),
            (
                &Some(Identity::ExactRepository("x/y".into())),
                "a:1",
                Some("x/y:7"),
                true,
            ),
            (
                &Some(Identity::ExactRepository("x/y".into())),
                "a:1",
                Some("x/z:7"),
                false,
            ),
            (&repository, "a:1", Some("NO NAME"), false),
        ] {
            let found = identity(wanted.as_ref(), &name.parse().unwrap(), signed);
            assert_eq!(found.is_ok(), fits, "{name} {signed:?} {wanted:?}");
        }
    }
}
