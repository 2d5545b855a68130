//! Mirrors: registries that are asked before the one a reference names. What they send is trusted
//! by its digest only; one that fails is left, and the registry itself goes on in its place.
//!
//! Which requests may go to a mirror is decided in [`super::Repository`].

use crate::digest::Digest;
use crate::net::error::Failure;
use crate::net::url::Url;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// How often a mirror may break off in the middle before it is left.
const STRIKES: u32 = 3;

pub(crate) struct Mirror {
    /// Where its repositories begin: `/v2`, and a prefix if it has one.
    pub base: Url,
    strikes: AtomicU32,
    /// Whether it wants to be told whose it is that is asked for.
    namespace: AtomicU8,
    /// What it said it has not: that is no failure.
    missing: Mutex<HashSet<Digest>>,
}

/// Nobody knows yet; it does; it does not.
const MAY: u8 = 0;
const WANTS: u8 = 1;
const NOT: u8 = 2;

impl Mirror {
    /// `[SCHEME://]HOST[:PORT][/PREFIX][?ns]`; without a scheme, that of all registries.
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
            return Err("a mirror URL has no user or password; use --authfile".into());
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

    /// Is it worth asking for this?
    pub fn may_have(&self, digest: Option<&Digest>) -> bool {
        let missing = || self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        self.strikes.load(Ordering::Relaxed) < STRIKES
            && digest.is_none_or(|digest| !missing().contains(digest))
    }

    /// Is it told by `?ns=HOST` whose the repository is, as containerd tells its mirrors?
    pub fn wants_namespace(&self) -> bool {
        self.namespace.load(Ordering::Relaxed) == WANTS
    }

    /// Does this failure call for a try with the namespace, which was left out?
    pub fn may_want_namespace(&self, failure: &Failure) -> bool {
        self.namespace.load(Ordering::Relaxed) == MAY
            && matches!(failure, Failure::Status(status) if matches!(status.status, 400 | 404))
    }

    /// That try helped, or did not.
    pub fn learn_namespace(&self, helped: bool) {
        let learnt = if helped { WANTS } else { NOT };
        self.namespace.store(learnt, Ordering::Relaxed);
    }

    /// It did not answer as a registry that has what was asked for.
    pub fn refused(&self, digest: Option<&Digest>, failure: &Failure) {
        match (failure, digest) {
            (Failure::Status(status), Some(digest)) if matches!(status.status, 400 | 404 | 416) => {
                self.missing
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(*digest);
            }
            (Failure::Status(status), None) if status.status == 404 => {}
            _ => {
                self.leave();
            }
        }
    }

    /// It broke off: once may be the line's fault.
    pub fn strike(&self) {
        // Nobody strikes four thousand million times.
        self.strikes.fetch_add(1, Ordering::Relaxed);
    }

    /// Asks it no more. Was it still asked?
    pub fn leave(&self) -> bool {
        self.strikes.swap(STRIKES, Ordering::Relaxed) < STRIKES
    }
}

/// A mirror's failure in a line of its own.
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
