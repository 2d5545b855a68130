//! URLs and origins: where a request goes, whether that is the same origin, and what may be shown.
//!
//! Only `http` and `https` URLs exist here. A [`Url`] holds no credentials: user information is
//! refused, and the query, which may contain signatures, is never displayed.

use crate::error::printable;
use crate::secret::without_user;
use std::fmt;

/// Scheme, host and port: what credentials and connections are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub secure: bool,
    /// Lowercase; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    fn default_port(secure: bool) -> u16 {
        if secure { 443 } else { 80 }
    }

    /// `host[:port]` as in a Host field: without the scheme's default port.
    pub fn authority(&self) -> String {
        let host = self.bracketed();
        if self.port == Self::default_port(self.secure) {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// `host:port`, always with a port, as for CONNECT.
    pub fn host_and_port(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

/// An absolute `http` or `https` URL without user information and fragment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Url {
    pub origin: Origin,
    /// Path and query, as they go into the request line; begins with `/`.
    pub target: String,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > 16_384 {
            return Err("the URL is longer than 16384 characters".into());
        }
        let bad = |why: &str| {
            // User information may contain a '?', too.
            let shown = without_user(text);
            Err(format!("{} {why}", printable(strip_query(&shown), 200)))
        };
        let (scheme, rest) = match text.split_once("://") {
            Some(parts) => parts,
            None => return bad("is not an http or https URL"),
        };
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return bad("is not an http or https URL"),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        if authority.contains('@') {
            return Err("a URL with a user or password in it is not accepted".into());
        }
        let (host, port) = match split_port(authority) {
            Some(parts) => parts,
            None => return bad("has no valid host"),
        };
        let port = match port {
            None | Some("") => Origin::default_port(secure),
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return bad("has a port out of range (1 to 65535)"),
            },
        };
        let origin = Origin {
            secure,
            host: host.to_ascii_lowercase(),
            port,
        };
        let target = target.split('#').next().unwrap_or("");
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            origin,
            target: format!("{slash}{}", escape(target)),
        })
    }

    /// `scheme://registry/path` for a registry as written in a reference.
    pub fn of(secure: bool, registry: &str, target: &str) -> Result<Self, String> {
        Self::parse(&format!(
            "{}://{registry}{target}",
            if secure { "https" } else { "http" }
        ))
    }

    /// Resolves a `location` relative to this URL (RFC 3986, section 5.2).
    pub fn join(&self, location: &str) -> Result<Self, String> {
        let location = location.trim();
        let scheme = if self.origin.secure { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        let before_path = location.split(['/', '?', '#']).next().unwrap_or("");
        if before_path.contains(':') {
            return Self::parse(location);
        }
        let reference = location.split('#').next().unwrap_or("");
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None => (reference, String::new()),
        };
        let base = self.target.split('?').next().unwrap_or("/");
        let target = match path {
            "" if query.is_empty() => self.target.clone(),
            "" => format!("{base}{query}"),
            path if path.starts_with('/') => format!("{}{query}", without_dots(path)),
            path => {
                let folder = &base[..=base.rfind('/').unwrap_or(0)];
                format!("{}{query}", without_dots(&format!("{folder}{path}")))
            }
        };
        Ok(Self {
            origin: self.origin.clone(),
            target: escape(&target),
        })
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        strip_query(&self.target)
    }
}

/// Shows scheme, host and path. A query is shown as `?...`, because it may contain signatures and
/// tokens.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.origin.secure { "https" } else { "http" };
        let query = if self.target.contains('?') {
            "?..."
        } else {
            ""
        };
        write!(
            f,
            "{scheme}://{}{}{query}",
            self.origin,
            printable(self.path(), 300)
        )
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn strip_query(text: &str) -> &str {
    text.split('?').next().unwrap_or("")
}

fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        return match port {
            "" => Some((address, None)),
            port => Some((address, Some(port.strip_prefix(':')?))),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let good = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_'));
    good.then_some((host, port))
}

/// Percent-encodes characters that are not allowed in a request line, so that no server can inject
/// lines.
fn escape(target: &str) -> String {
    if target.bytes().all(|c| c.is_ascii_graphic()) {
        return target.to_owned();
    }
    let mut out = String::with_capacity(target.len() + 16);
    for byte in target.bytes() {
        match byte {
            c if c.is_ascii_graphic() => out.push(char::from(c)),
            c => out.push_str(&format!("%{c:02X}")),
        }
    }
    out
}

fn without_dots(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let folder = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if folder && parts.last().is_some_and(|last| !last.is_empty()) {
        parts.push("");
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(url: &Url) -> String {
        format!(
            "{}{}",
            if url.origin.secure {
                "https://"
            } else {
                "http://"
            },
            url.origin.authority()
        ) + &url.target
    }

    #[test]
    fn locations_are_joined_as_browsers_do() {
        let base = Url::parse("https://Host:443/v2/a/blobs/x?y=1").unwrap();
        for (location, expected) in [
            ("/b/c?d#e", "https://host/b/c?d"),
            ("//other:81/x", "https://other:81/x"),
            ("http://h/../x", "http://h/../x"),
            ("z", "https://host/v2/a/blobs/z"),
            ("../z?q", "https://host/v2/a/z?q"),
            ("?n=2", "https://host/v2/a/blobs/x?n=2"),
            ("/a b\u{e9}\r\nX: y", "https://host/a%20b%C3%A9%0D%0AX:%20y"),
            ("https://[::1]:5000", "https://[::1]:5000/"),
        ] {
            assert_eq!(full(&base.join(location).unwrap()), expected, "{location}");
        }
        for wrong in [
            "file:/etc/passwd",
            "ftp://h/x",
            "https://u:p@h/",
            "https:///x",
            "https://h:0/",
            "https://h:99999/",
            "https://[fe80::1%1]/",
        ] {
            assert!(base.join(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_query_is_never_shown() {
        let url = Url::parse("https://h/x?X-Amz-Signature=secret").unwrap();
        assert_eq!(format!("{url} {url:?}"), "https://h/x?... https://h/x?...");
        assert!(
            !Url::parse("ftp://h/x?sig=secret")
                .unwrap_err()
                .contains("secret")
        );
    }
}
