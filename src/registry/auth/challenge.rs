//! Challenges and tokens: RFC 9110's WWW-Authenticate syntax and the registry's token protocol.
//!
//! Tokens are requested with the credentials of the registry that sent the challenge, from a realm
//! that may have them. Their lifetime is measured on the monotonic clock, because a board's wall
//! clock may be at 1970. [`super::credentials`] finds the credentials.

use super::credentials::{Credential, Found, Whose};
use super::realm::{Challenger, check_realm};
use crate::error::{Error, Result};
use crate::json::{self, Number, Text};
use crate::net::url::Url;
use crate::secret::Secret;
use miniserde::Deserialize;
use std::time::{Duration, Instant};

/// The largest token response, in bytes.
pub(crate) const TOKEN_LIMIT: u64 = 1 << 20;
/// A token counts as expired this long before it does.
const MARGIN: Duration = Duration::from_secs(10);
/// The default lifetime of a token (distribution spec, token.md, "expires_in").
const LIFE: u64 = 60;

/// One challenge of a WWW-Authenticate field, with lowercase names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }
}

/// All challenges of all WWW-Authenticate fields (RFC 9110, section 11.6.1). A malformed part
/// invalidates only its own challenge.
pub(crate) fn challenges<'a>(fields: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for field in fields {
        let mut current: Option<Challenge> = None;
        for item in items(field) {
            let (scheme, parameter) = split_item(item);
            if let Some(scheme) = scheme {
                found.extend(current.take());
                current = Some(Challenge {
                    scheme: scheme.to_ascii_lowercase(),
                    parameters: Vec::new(),
                });
            }
            match (parameter, &mut current) {
                (Parameter::Pair(name, value), Some(challenge)) => {
                    challenge
                        .parameters
                        .push((name.to_ascii_lowercase(), value));
                }
                (Parameter::Broken, challenge) => *challenge = None,
                _ => {}
            }
        }
        found.extend(current);
    }
    found
}

/// The comma-separated items of a field; commas inside quotes do not separate.
fn items(field: &str) -> Vec<&str> {
    let bytes = field.as_bytes();
    let (mut items, mut start, mut at, mut quoted) = (Vec::new(), 0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                items.push(&field[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    items.push(&field[start..]);
    items
}

enum Parameter {
    None,
    Pair(String, String),
    Broken,
}

/// `Bearer realm="x"` is a scheme and a parameter, `service=y` only a parameter, `Negotiate oYG2==`
/// a scheme and a token that is not used here.
fn split_item(item: &str) -> (Option<&str>, Parameter) {
    let item = item.trim();
    if item.is_empty() {
        return (None, Parameter::None);
    }
    let word = item
        .find(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or(item.len());
    let after = item[word..].trim_start();
    if let Some(value) = after.strip_prefix('=') {
        return (None, pair(&item[..word], value));
    }
    let scheme = Some(&item[..word]);
    let Some(equals) = after.find('=') else {
        return (scheme, Parameter::None);
    };
    let value = after[equals + 1..].trim_start();
    // token68 ends in equals signs with nothing after them.
    if value.is_empty() || value.bytes().all(|c| c == b'=') {
        return (scheme, Parameter::None);
    }
    (scheme, pair(after[..equals].trim_end(), value))
}

fn pair(name: &str, value: &str) -> Parameter {
    let value = value.trim();
    let Some(rest) = value.strip_prefix('"') else {
        return Parameter::Pair(name.to_owned(), value.to_owned());
    };
    let mut text = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            Some('"') => return Parameter::Pair(name.to_owned(), text),
            Some('\\') => text.extend(chars.next()),
            Some(c) => text.push(c),
            None => return Parameter::Broken,
        }
    }
}

/// An Authorization value and its expiry.
#[derive(Clone)]
pub(crate) struct Authorization {
    /// The field's value.
    pub field: Secret,
    ends: Option<Instant>,
    /// Whose credentials it was made from; `None` for an anonymous token.
    pub whose: Option<Whose>,
    /// Whether it is a token from a token endpoint.
    pub issued: bool,
}

impl Authorization {
    pub fn is_current(&self) -> bool {
        self.ends.is_none_or(|ends| Instant::now() + MARGIN < ends)
    }

    /// Basic (RFC 7617), in UTF-8.
    pub fn basic(user: &str, password: &str, whose: Whose) -> Self {
        Self {
            field: Secret::field(basic_field(user, password)),
            ends: None,
            whose: Some(whose),
            issued: false,
        }
    }

    pub fn bearer(token: &Secret, life: Option<Duration>, whose: Option<Whose>) -> Self {
        Self {
            field: Secret::field(format!("Bearer {}", token.expose())),
            ends: life.map(|life| Instant::now() + life),
            whose,
            issued: life.is_some(),
        }
    }
}

pub(crate) fn basic_field(user: &str, password: &str) -> String {
    use base64::Engine as _;
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
    )
}

/// How to answer a 401: the chosen challenge.
#[derive(Debug)]
pub(crate) enum Plan {
    Bearer {
        realm: Url,
        service: String,
        scopes: Vec<String>,
    },
    Basic,
}

/// Chooses among challenges: Bearer with a realm, else Basic if there is a password.
///
/// `widely`: also requests scopes of other repositories. A challenge may name a placeholder (GHCR's
/// `/v2/` names `user/image`), and a token for that is useless.
pub(crate) fn choose(
    challenges: &[Challenge],
    challenger: Challenger<'_>,
    own_scope: &str,
    widely: bool,
) -> Result<Option<Plan>> {
    if let Some(challenge) = challenges
        .iter()
        .find(|c| c.scheme == "bearer" && c.get("realm").is_some())
    {
        let realm = check_realm(challenge.get("realm").unwrap_or_default(), challenger)?;
        let service = challenge.get("service").unwrap_or_default().to_owned();
        return Ok(Some(Plan::Bearer {
            realm,
            service,
            scopes: scopes(challenge, own_scope, widely),
        }));
    }
    let basic = challenges.iter().any(|c| c.scheme == "basic");
    Ok((challenger.password && basic).then_some(Plan::Basic))
}

/// The scopes to request: those in the challenge, and always our own.
fn scopes(challenge: &Challenge, own_scope: &str, widely: bool) -> Vec<String> {
    let named = challenge.get("scope").unwrap_or_default();
    let mut scopes: Vec<String> = named
        .split_whitespace()
        .filter(|scope| widely || own_scope.is_empty() || !is_foreign(scope, own_scope))
        .map(str::to_owned)
        .collect();
    // gcr.io and Nexus name none; Gitea's "*" is requested besides ours. ECR Public's "aws" is
    // enough.
    let enough = |scope: &String| {
        repository(scope).is_some_and(|name| Some(name) == repository(own_scope)) || scope == "aws"
    };
    if !own_scope.is_empty() && !scopes.iter().any(enough) {
        scopes.push(own_scope.to_owned());
    }
    scopes
}

/// `a/b` of `repository:a/b:pull`.
fn repository(scope: &str) -> Option<&str> {
    Some(scope.strip_prefix("repository:")?.rsplit_once(':')?.0)
}

fn is_foreign(scope: &str, own_scope: &str) -> bool {
    let name = repository(scope);
    name.is_some() && name != repository(own_scope)
}

/// Whether a challenge names other repositories than ours.
pub(crate) fn names_others(challenge: &Challenge, own_scope: &str) -> bool {
    let named = challenge.get("scope").unwrap_or_default();
    named
        .split_whitespace()
        .any(|scope| is_foreign(scope, own_scope))
}

/// The token endpoint's URL for a GET (distribution spec, token.md): its own query is kept, ours
/// appended.
pub(crate) fn token_url(realm: &Url, service: &str, scopes: &[String], user: Option<&str>) -> Url {
    let mut query = Vec::new();
    if !service.is_empty() {
        query.push(format!("service={}", encode(service)));
    }
    query.extend(
        scopes
            .iter()
            .map(|scope| format!("scope={}", encode(scope))),
    );
    query.push("client_id=dockersave".to_owned());
    query.extend(user.map(|user| format!("account={}", encode(user))));
    let joint = if !realm.target.contains('?') {
        "?"
    } else if realm.target.ends_with(['?', '&']) {
        ""
    } else {
        "&"
    };
    Url {
        origin: realm.origin.clone(),
        target: format!("{}{joint}{}", realm.target, query.join("&")),
    }
}

/// The form of a POST with an identity token (distribution spec, oauth.md).
pub(crate) fn token_form(token: &str, service: &str, scopes: &[String]) -> String {
    format!(
        "grant_type=refresh_token&refresh_token={}&service={}&client_id=dockersave&scope={}",
        encode(token),
        encode(service),
        encode(&scopes.join(" "))
    )
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                out.push(char::from(byte))
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[derive(Deserialize)]
struct WireToken {
    token: Text,
    access_token: Text,
    expires_in: Number,
}

/// The token in a token endpoint's response. `issued_at` is ignored: clocks differ.
pub(crate) fn read_token(bytes: &[u8], host: &str, whose: Option<Whose>) -> Result<Authorization> {
    let what = format!("the token from {host}");
    let wire: WireToken = json::parse(bytes, &what)?;
    let token = if wire.access_token.0.is_empty() {
        &wire.token.0
    } else {
        &wire.access_token.0
    };
    if token.is_empty() {
        let said = crate::registry::error::in_place(bytes);
        return Err(Error::malformed(
            what,
            format!("is missing from the response{said}"),
        ));
    }
    if !token.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(Error::malformed(
            what,
            "contains characters that a token cannot have",
        ));
    }
    let life = match wire.expires_in {
        Number::Is(seconds) | Number::Quoted(seconds) => seconds.clamp(LIFE, 86_400 * 365),
        Number::Missing | Number::Wrong => LIFE,
    };
    Ok(Authorization::bearer(
        &Secret::new(&**token),
        Some(Duration::from_secs(life)),
        whose,
    ))
}

/// Credentials as an Authorization field for the token endpoint, or for Basic.
pub(crate) fn password_field(found: Option<&Found>) -> Option<String> {
    match found.map(|found| &found.credential) {
        Some(Credential::Password { user, password }) => Some(basic_field(user, password.expose())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(field: &str) -> Vec<String> {
        challenges([field].into_iter())
            .iter()
            .map(|c| {
                let pairs: Vec<String> = c
                    .parameters
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                format!("{} {}", c.scheme, pairs.join("|"))
                    .trim()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn challenges_are_read_as_the_wild_writes_them() {
        for (field, expected) in [
            (
                r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#,
                vec!["bearer realm=https://a/t|service=s|scope=repository:x:pull,push"],
            ),
            (r#"BaSiC ReAlM="q""#, vec!["basic realm=q"]),
            ("Basic realm=/", vec!["basic realm=/"]),
            (
                r#"Negotiate, Basic realm="x""#,
                vec!["negotiate", "basic realm=x"],
            ),
            (
                r#"Negotiate oYG2==, Bearer realm="r""#,
                vec!["negotiate", "bearer realm=r"],
            ),
            (
                r#"Bearer realm="r", service="s", Basic realm="G""#,
                vec!["bearer realm=r|service=s", "basic realm=G"],
            ),
            (
                r#"Bearer realm = "a\"b" , error="invalid_token""#,
                vec![r#"bearer realm=a"b|error=invalid_token"#],
            ),
            (r#"Bearer realm="x"#, vec![]),
            (
                r#"Basic realm="ok", Bearer realm="x"#,
                vec!["basic realm=ok"],
            ),
            ("Bearer", vec!["bearer"]),
            ("", vec![]),
            (",,", vec![]),
            (
                r#"Bearer realm="r",service="""#,
                vec!["bearer realm=r|service="],
            ),
        ] {
            assert_eq!(parse(field), expected, "{field}");
        }
    }

    #[test]
    fn our_own_scope_is_always_asked_for() {
        let own = "repository:org/app:pull";
        for (named, narrow, wide) in [
            ("", "O", "O"),
            ("*", "* O", "* O"),
            ("aws", "aws", "aws"),
            (
                "repository:user/image:pull",
                "O",
                "repository:user/image:pull O",
            ),
            (
                "repository:org/app:pull,push",
                "repository:org/app:pull,push",
                "repository:org/app:pull,push",
            ),
            ("O repository:base:pull", "O", "O repository:base:pull"),
            ("repository:a:b", "O", "repository:a:b O"),
            (
                "registry:catalog:*",
                "registry:catalog:* O",
                "registry:catalog:* O",
            ),
        ] {
            let field = format!("Bearer realm=\"r\",scope=\"{}\"", named.replace('O', own));
            let challenge = &challenges([field.as_str()].into_iter())[0];
            for (widely, expected) in [(false, narrow), (true, wide)] {
                assert_eq!(
                    scopes(challenge, own, widely).join(" "),
                    expected.replace('O', own),
                    "{named}"
                );
            }
        }
    }

    #[test]
    fn token_addresses_keep_the_realms_own_query() {
        let realm = Url::parse("https://h/t?a=b").unwrap();
        let url = token_url(
            &realm,
            "s v",
            &["repository:a/b:pull".into(), "aws".into()],
            Some("robot$x"),
        );
        assert_eq!(
            url.target,
            "/t?a=b&service=s%20v&scope=repository:a/b:pull&scope=aws&client_id=dockersave&account=robot%24x"
        );
    }

    #[test]
    fn tokens_are_read_and_bounded() {
        let read = |text: &str| read_token(text.as_bytes(), "h", None);
        assert_eq!(
            read(r#"{"token":"a","access_token":"b","expires_in":"300"}"#)
                .unwrap()
                .field
                .expose(),
            "Bearer b"
        );
        assert!(read(r#"{"token":"a"}"#).unwrap().is_current());
        assert!(
            read(r#"{"token":"a","expires_in":18446744073709551615}"#)
                .unwrap()
                .is_current()
        );
        for wrong in ["{}", "<html>", r#"{"token":"a\r\nX: y"}"#, ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn bearer_comes_first_and_basic_needs_a_password() {
        let origin = &Url::parse("https://r/").unwrap().origin;
        let at = |password| Challenger {
            origin,
            loopback: false,
            password,
        };
        let both = challenges(
            [
                "Negotiate",
                r#"Basic realm="x", Bearer realm="https://a/t",scope="*""#,
            ]
            .into_iter(),
        );
        let Some(Plan::Bearer { scopes, .. }) =
            choose(&both, at(true), "repository:x:pull", false).unwrap()
        else {
            panic!()
        };
        assert_eq!(scopes, ["*", "repository:x:pull"]);
        assert!(matches!(
            choose(&both[..2], at(true), "", false).unwrap(),
            Some(Plan::Basic)
        ));
        assert!(choose(&both[..2], at(false), "", false).unwrap().is_none());
    }
}
