//! Mirrors: registries that are asked before the one in a reference. They are trusted only by
//! digest; if one fails, the registry takes over.
//!
//! [`super::Repository`] decides which requests may go to a mirror.

use crate::digest::Digest;
use crate::net::error::Failure;
use crate::net::url::Url;
use crate::sync::lock;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// How often a mirror may disconnect before it is dropped.
const STRIKES: u32 = 3;

pub(crate) struct Mirror {
    /// The base of its repositories: `/v2`, and a prefix if it has one.
    pub base: Url,
    strikes: AtomicU32,
    /// Whether it needs the registry's name (`?ns=`).
    namespace: AtomicU8,
    /// What it does not have: that is not a failure.
    missing: Mutex<HashSet<Digest>>,
}

/// Not known yet; it does; it does not.
const MAY: u8 = 0;
const WANTS: u8 = 1;
const NOT: u8 = 2;

impl Mirror {
    /// `[SCHEME://]HOST[:PORT][/PREFIX][?ns]`; the default scheme is that of registries.
    pub fn parse(text: &str, insecure: bool) -> Result<Self, String> {
        let (text, namespace) = match text.strip_suffix("?ns") {
            Some(address) => (address, WANTS),
            None => (text, MAY),
        };
        let scheme = match (text.contains("://"), insecure) {
            (true, _) => "",
            (false, true) => "http://",
            (false, false) => "https://",
        };
        if text.contains('@') {
            return Err(
                "a mirror URL has no user or password; credentials are looked up by its host"
                    .into(),
            );
        }
        let mut base = Url::parse(&format!("{scheme}{text}"))?;
        if base.target.contains(['?', '#']) {
            return Err("a mirror URL has no query except ?ns".into());
        }
        let path = base.target.trim_matches('/');
        let prefix = match path.strip_prefix("v2") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_matches('/'),
            _ => path,
        };
        base.target = match prefix {
            "" => "/v2".to_owned(),
            prefix => format!("/v2/{prefix}"),
        };
        Ok(Self {
            base,
            strikes: AtomicU32::new(0),
            namespace: AtomicU8::new(namespace),
            missing: Mutex::default(),
        })
    }

    /// Whether it is worth asking for this.
    pub fn may_have(&self, digest: Option<&Digest>) -> bool {
        let missing = || lock(&self.missing);
        self.strikes.load(Ordering::Relaxed) < STRIKES
            && digest.is_none_or(|digest| !missing().contains(digest))
    }

    /// Whether it gets the registry's name as `?ns=HOST`, as containerd does it.
    pub fn wants_namespace(&self) -> bool {
        self.namespace.load(Ordering::Relaxed) == WANTS
    }

    /// Whether to retry after this failure with the namespace.
    pub fn may_want_namespace(&self, failure: &Failure) -> bool {
        self.namespace.load(Ordering::Relaxed) == MAY
            && matches!(failure, Failure::Status(status) if matches!(status.status, 400 | 404))
    }

    /// Records whether that retry helped.
    pub fn learn_namespace(&self, helped: bool) {
        let learnt = if helped { WANTS } else { NOT };
        self.namespace.store(learnt, Ordering::Relaxed);
    }

    /// Records that it does not have the content, or failed.
    pub fn refused(&self, digest: Option<&Digest>, failure: &Failure) {
        match (failure, digest) {
            (Failure::Status(status), Some(digest)) if matches!(status.status, 400 | 404 | 416) => {
                lock(&self.missing).insert(*digest);
            }
            (Failure::Status(status), None) if status.status == 404 => {}
            _ => {
                self.leave();
            }
        }
    }

    /// It disconnected: once may be the line's fault.
    pub fn strike(&self) {
        // Would take 2^32 strikes to wrap.
        self.strikes.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops it; returns whether it was still in use.
    pub fn leave(&self) -> bool {
        self.strikes.swap(STRIKES, Ordering::Relaxed) < STRIKES
    }
}

/// The message for a mirror's failure.
pub(crate) fn told(mirror: &Mirror, failure: &Failure) -> String {
    format!(
        "mirror {} failed ({}); continuing without it",
        mirror.base.origin, failure
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_their_forms() {
        for (text, insecure, expected) in [
            ("m.example", false, "https://m.example/v2"),
            ("m.example:5000/", true, "http://m.example:5000/v2"),
            ("http://m.example", false, "http://m.example/v2"),
            ("https://m.example/v2/", true, "https://m.example/v2"),
            (
                "m.example/cache/hub",
                false,
                "https://m.example/v2/cache/hub",
            ),
            ("m.example/v2/cache", false, "https://m.example/v2/cache"),
            ("m.example/v2x", false, "https://m.example/v2/v2x"),
            ("m.example/cache?ns", false, "https://m.example/v2/cache"),
        ] {
            let mirror = Mirror::parse(text, insecure).ok().unwrap();
            assert_eq!(mirror.base.to_string(), expected, "{text}");
        }
        for text in [
            "",
            "ftp://m",
            "https://u:p@m",
            "m?x=y",
            "https://",
            "m:99999",
        ] {
            assert!(Mirror::parse(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn a_mirror_is_left_when_it_breaks_off_too_often() {
        let mirror = Mirror::parse("m", false).ok().unwrap();
        for _ in 0..STRIKES {
            assert!(mirror.may_have(None));
            mirror.strike();
        }
        assert!(!mirror.may_have(None) && !mirror.leave());
    }
}
