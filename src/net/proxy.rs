//! Proxies: the environment variables by Go's and curl's rules, and CONNECT.
//!
//! `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in both spellings, lowercase first. A
//! proxy resolves the names behind it.

use super::error::{Failure, StatusFailure};
use super::http::Connection;
use super::url::{Origin, Url};
use crate::error::{Error, Result};
use crate::secret::Secret;
use base64::Engine as _;
use std::net::IpAddr;
use std::time::Duration;

/// A proxy and the credentials for it.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub origin: Origin,
    /// `user:password` as base64.
    credentials: Option<Secret>,
}

/// Which proxy serves which origin.
#[derive(Clone, Default)]
pub(crate) struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    except: Vec<Exception>,
}

/// One item of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    /// The host itself (unless it starts with a dot) and its subdomains, optionally at one port
    /// only.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
    /// Addresses with this prefix length.
    Network {
        address: IpAddr,
        bits: u32,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads the variables through `get`.
    pub fn from_environment(get: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let value = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        // In a CGI program, HTTP_PROXY is a client's Proxy field (CVE-2016-5385).
        let cgi = get("REQUEST_METHOD").is_some();
        let all = ["all_proxy", "ALL_PROXY"];
        let first = |names: &[&str]| -> Result<Option<Proxy>> {
            let names = names.iter().chain(&all).copied();
            for name in names.filter(|name| !(cgi && *name == "HTTP_PROXY")) {
                if let Some(text) = value(name) {
                    return Proxy::parse(&text)
                        .map(Some)
                        .map_err(|why| Error::usage(name, why));
                }
            }
            Ok(None)
        };
        let except = value("no_proxy")
            .or_else(|| value("NO_PROXY"))
            .unwrap_or_default();
        Ok(Self {
            http: first(&["http_proxy", "HTTP_PROXY"])?,
            https: first(&["https_proxy", "HTTPS_PROXY"])?,
            except: except.split(',').filter_map(exception).collect(),
        })
    }

    /// The proxy for this origin, if any.
    pub fn choose(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = if origin.secure {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        }?;
        let address = origin.host.parse::<IpAddr>().ok();
        let local = origin.host == "localhost"
            || origin.host.ends_with(".localhost")
            || address.is_some_and(|address| address.is_loopback());
        (!local
            && !self
                .except
                .iter()
                .any(|except| except.covers(origin, address)))
        .then_some(proxy)
    }
}

impl Exception {
    fn covers(&self, origin: &Origin, address: Option<IpAddr>) -> bool {
        let at = |port: &Option<u16>| port.is_none_or(|port| port == origin.port);
        match self {
            Self::Everything => true,
            Self::Domain {
                suffix,
                itself,
                port,
            } => {
                let below = origin
                    .host
                    .strip_suffix(suffix.as_str())
                    .is_some_and(|rest| rest.ends_with('.'));
                at(port) && (below || (*itself && origin.host == *suffix))
            }
            Self::Network {
                address: network,
                bits,
                port,
            } => at(port) && address.is_some_and(|address| same_network(address, *network, *bits)),
        }
    }
}

fn exception(item: &str) -> Option<Exception> {
    let item = item.trim().to_ascii_lowercase();
    if item.is_empty() {
        return None;
    }
    if item == "*" {
        return Some(Exception::Everything);
    }
    if let Some((address, bits)) = item.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        return Some(Exception::Network {
            address,
            bits: bits.parse().ok()?,
            port: None,
        });
    }
    let bare = item.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Some(Exception::Network {
            address,
            bits: 128,
            port: None,
        });
    }
    let (host, port) = match item.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (item.as_str(), None),
    };
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return Some(Exception::Network {
            address,
            bits: 128,
            port,
        });
    }
    let host = host.strip_prefix('*').unwrap_or(host);
    let (suffix, itself) = match host.strip_prefix('.') {
        Some(suffix) => (suffix, false),
        None => (host, true),
    };
    (!suffix.is_empty()).then(|| Exception::Domain {
        suffix: suffix.to_owned(),
        itself,
        port,
    })
}

fn same_network(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let shift = 32 - bits.min(32);
            (u64::from(one.to_bits()) >> shift) == (u64::from(other.to_bits()) >> shift)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            one.to_bits() & mask == other.to_bits() & mask
        }
        _ => false,
    }
}

impl Proxy {
    /// `[http://][user:password@]host[:port]`, percent-encoded if necessary.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        if scheme.bytes().any(|c| !c.is_ascii_alphanumeric()) {
            return Err("is not a proxy address such as http://proxy:3128".into());
        }
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(format!(
                "{scheme}:// proxies are not supported, only http:// ones"
            ));
        }
        // A password may contain unencoded slashes.
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let host = host.split('/').next().unwrap_or("");
        let origin = Url::parse(&format!("http://{host}"))
            .map_err(|_| "is not a proxy address such as http://proxy:3128".to_owned())?
            .origin;
        let credentials = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let mut joined = decode(name);
            let name_end = joined.len();
            joined.push(b':');
            joined.extend(decode(password));
            let (name, password) = joined.split_at(name_end);
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            let _ = Secret::of_user(&text(name), text(&password[1..]));
            Secret::new(base64::engine::general_purpose::STANDARD.encode(&joined))
        });
        Ok(Self {
            origin,
            credentials,
        })
    }

    pub fn authorization(&self) -> Option<String> {
        self.credentials
            .as_ref()
            .map(|credentials| format!("Proxy-Authorization: Basic {}", credentials.expose()))
    }

    /// Opens a tunnel to `origin` (RFC 9110, section 9.3.6).
    pub fn open_tunnel(
        &self,
        connection: &mut Connection,
        origin: &Origin,
        wait: Duration,
    ) -> std::result::Result<(), Failure> {
        let target = origin.host_and_port();
        let authorization = self
            .authorization()
            .map(|line| format!("{line}\r\n"))
            .unwrap_or_default();
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        let (head, _) = connection.exchange(request.as_bytes(), true, wait)?;
        if (200..300).contains(&head.status) {
            return Ok(());
        }
        let url = Url {
            origin: self.origin.clone(),
            target: "/".into(),
        };
        let message = format!("the proxy did not open a connection to {target}");
        let failure = StatusFailure::new(url, head.status, Vec::new(), message);
        Err(Failure::Status(Box::new(failure)))
    }
}

/// Percent-decoding; invalid escapes stay as they are.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes
            .get(at + 1..at + 3)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match escape
            .filter(|_| bytes[at] == b'%')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        let get = |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Proxies::from_environment(&get).unwrap()
    }

    fn used(proxies: &Proxies, url: &str) -> Option<String> {
        proxies
            .choose(&Url::parse(url).unwrap().origin)
            .map(|proxy| proxy.origin.to_string())
    }

    #[test]
    fn each_scheme_has_its_variable_and_lower_case_wins() {
        let set = proxies(&[
            ("HTTPS_PROXY", "a:1"),
            ("https_proxy", "http://b:2/"),
            ("ALL_PROXY", "c:3"),
        ]);
        assert_eq!(used(&set, "https://r/").unwrap(), "b:2");
        assert_eq!(used(&set, "http://r/").unwrap(), "c:3");
        assert_eq!(used(&set, "https://127.0.0.1:5000/"), None);
        assert_eq!(used(&set, "https://localhost/"), None);
        let cgi = proxies(&[("HTTP_PROXY", "a:1"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(used(&cgi, "http://r/"), None);
        assert!(Proxies::from_environment(&|_| Some("socks5://h".into())).is_err());
    }

    #[test]
    fn no_proxy_follows_go() {
        let list = " example.com, .only.sub ,10.0.0.0/8,192.0.2.7, host:5000 ,fd00::/8,*.star.org";
        let set = proxies(&[("all_proxy", "p:1"), ("no_proxy", list)]);
        for direct in [
            "https://example.com/",
            "https://a.example.com/",
            "https://x.only.sub/",
            "https://10.1.2.3/",
            "https://192.0.2.7:99/",
            "https://host:5000/",
            "https://[fd00::1]/",
            "https://a.star.org/",
        ] {
            assert_eq!(used(&set, direct), None, "{direct}");
        }
        for proxied in [
            "https://notexample.com/",
            "https://only.sub/",
            "https://11.0.0.1/",
            "https://host:5001/",
            "https://[fe00::1]/",
        ] {
            assert!(used(&set, proxied).is_some(), "{proxied}");
        }
        assert_eq!(
            used(
                &proxies(&[("all_proxy", "p:1"), ("no_proxy", "*")]),
                "https://r/"
            ),
            None
        );
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let proxy = Proxy::parse("http://user:p%40ss%3A@proxy:3128").unwrap();
        assert_eq!(
            proxy.authorization().unwrap(),
            "Proxy-Authorization: Basic dXNlcjpwQHNzOg=="
        );
        assert_eq!(proxy.origin.to_string(), "proxy:3128");
        assert!(
            !Proxy::parse("ftp://user:secret@h")
                .err()
                .unwrap()
                .contains("secret")
        );
    }
}
