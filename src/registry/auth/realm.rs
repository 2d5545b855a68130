//! Which realms may be asked for a token. A challenge names the token server, and a hostile one
//! could name a service of this machine or of its cloud (CVE-2020-15157 and its successors).
//!
//! Addresses are checked, not names: in every form that a resolver accepts, and after resolution.

use crate::error::{Error, Result};
use crate::net::url::{Origin, Url};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The sender of a challenge, and what is at stake.
#[derive(Clone, Copy)]
pub(crate) struct Challenger<'o> {
    pub origin: &'o Origin,
    /// It is on this machine.
    pub loopback: bool,
    /// There are credentials that the realm would get.
    pub password: bool,
}

/// Checks that this realm may get the registry's credentials (CVE-2020-15157 and its successors).
/// [`Challenger::may_lead_to`] checks the addresses of its name after resolution.
pub(super) fn check_realm(realm: &str, registry: Challenger<'_>) -> Result<Url> {
    let url = Url::parse(realm).map_err(|why| registry.refuse(&format!("its realm: {why}")))?;
    registry.check(&url.origin, &literal(&url.origin.host))?;
    Ok(url)
}

impl Challenger<'_> {
    /// Checks that it is safe to request a token from this origin at these addresses.
    pub fn check(self, realm: &Origin, addresses: &[IpAddr]) -> Result<()> {
        if self.origin.secure && !realm.secure {
            return Err(self.refuse("its realm is plain http, but the registry is https"));
        }
        if !self.may_lead_to(realm, addresses) {
            return Err(self
                .refuse("its realm is an address of this machine or of a cloud metadata service"));
        }
        Ok(())
    }

    /// Local addresses must be the registry's own host, or both are on this machine: then only the
    /// server that the caller named gets a secret.
    fn may_lead_to(self, realm: &Origin, addresses: &[IpAddr]) -> bool {
        let bare = |host: &str| host.trim_end_matches('.').to_owned();
        if bare(&realm.host) == bare(&self.origin.host) {
            return true;
        }
        let same_server = !self.password || realm.port == self.origin.port;
        !addresses.iter().any(|ip| is_local(*ip))
            || self.loopback && same_server && addresses.iter().all(|ip| is_loopback(*ip))
    }

    fn refuse(self, why: &str) -> Error {
        Error::malformed(
            format!("the authentication challenge of {}", self.origin),
            format!("{why}; nothing was sent to it"),
        )
    }
}

/// The literal addresses in a host name, including the forms that resolvers accept, such as
/// `127.1`, `2130706433`, `0x7f000001` and `0177.0.0.1` (inet_aton).
pub(crate) fn literal(host: &str) -> Vec<IpAddr> {
    let host = host.trim_end_matches('.');
    if host == "localhost" || host.ends_with(".localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return vec![ip];
    }
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None if part.len() > 1 && part.starts_with('0') => u32::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    };
    let parts: Option<Vec<u32>> = host.split('.').map(number).collect();
    let Some((last, before)) = parts.as_deref().and_then(<[u32]>::split_last) else {
        return Vec::new();
    };
    if before.len() > 3 {
        return Vec::new();
    }
    // The last part fills all remaining bytes.
    let mut address = *last;
    for (at, part) in before.iter().enumerate() {
        address |= (part & 255) << (24 - 8 * at);
    }
    vec![Ipv4Addr::from(address).into()]
}

pub(crate) fn is_loopback(ip: IpAddr) -> bool {
    let ip = embedded(ip);
    ip.is_loopback() || ip.is_unspecified()
}

/// Addresses of this machine, of this link, and of cloud metadata services.
fn is_local(ip: IpAddr) -> bool {
    is_loopback(ip)
        || match embedded(ip) {
            IpAddr::V4(ip) => {
                ip.is_link_local()
                    || ip.octets()[0] == 0
                    // Alibaba's, Oracle's and Azure's metadata.
                    || matches!(ip.octets(), [100, 100, 100, 200] | [192, 0, 0, 192] | [168, 63, 129, 16])
            }
            IpAddr::V6(ip) => {
                ip.is_unicast_link_local() || ip.segments()[..7] == [0xfd00, 0xec2, 0, 0, 0, 0, 0]
            }
        }
}

/// The IPv4 address in an IPv6 one: mapped, compatible, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into();
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realms_that_are_not_safe_are_refused() {
        let secure = Url::parse("https://registry.example/").unwrap().origin;
        let plain = Url::parse("http://127.0.0.1:5000/").unwrap().origin;
        let at = |origin, loopback, password| Challenger {
            origin,
            loopback,
            password,
        };
        let check = |realm: &str, who: Challenger<'_>| check_realm(realm, who).is_ok();
        let far = at(&secure, false, true);
        for bad in [
            "http://auth.example/t",
            "https://169.254.169.254/t",
            "https://[fd00:ec2::254]/t",
            "https://u:p@h/t",
            "ftp://h/",
            "/token",
            "",
            "https://localhost/t",
            "https://[::ffff:127.0.0.1]/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7F.1/",
            "https://0177.0.0.1/",
            "https://017700000001/",
            "https://0/",
            "https://0.1.2.3/",
            "https://127.0.0.1./",
            "https://localhost./",
            "https://a.localhost/",
            "https://[::7f00:1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://2852039166/",
            "https://169.254.43518/",
            "https://100.100.100.200/",
        ] {
            assert!(!check(bad, far), "{bad}");
            let anonymous = at(&secure, false, false);
            assert!(!check(bad, anonymous), "{bad}");
        }
        for good in [
            "https://auth.docker.io/token",
            "https://10.0.0.1/token",
            "https://1.2.3/",
        ] {
            assert!(check(good, far), "{good}");
        }
        let near = at(&plain, true, true);
        assert!(check("http://127.0.0.1:5001/token", near));
        assert!(check("http://localhost:5000/token", near));
        assert!(!check("http://localhost:5001/token", near));
        assert!(check(
            "http://localhost:5001/token",
            at(&plain, true, false)
        ));
        assert!(!check("http://169.254.169.254/t", at(&plain, true, false)));
    }
}
