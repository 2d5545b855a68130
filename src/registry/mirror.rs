//! Mirrors: registries that are asked before the one a reference names. What they send is trusted
//! by its digest only; one that fails is left, and the registry itself goes on in its place.
//!
//! Which requests may go to a mirror is decided in [`super::Repository`].

use crate::digest::Digest;
use crate::net::failure::Failure;
use crate::net::url::Url;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// How often a mirror may break off in the middle before it is left.
const STRIKES: u32 = 3;

pub(crate) struct Mirror {
    /// Where its repositories begin: `/v2`, and a prefix if it has one.
    pub base: Url,
    strikes: AtomicU32,
    /// What it said it has not: that is no failure.
    missing: Mutex<HashSet<Digest>>,
}

impl Mirror {
    /// `[SCHEME://]HOST[:PORT][/PREFIX]`; without a scheme, that of all registries.
    pub fn parse(text: &str, insecure: bool) -> Result<Self, String> {
        let scheme = match (text.contains("://"), insecure) {
            (true, _) => "",
            (false, true) => "http://",
            (false, false) => "https://",
        };
        if text.contains('@') {
            return Err(
                "a mirror's address has no user or password; --authfile is for them".into(),
            );
        }
        let mut base = Url::parse(&format!("{scheme}{text}"))?;
        if base.target.contains(['?', '#']) {
            return Err("a mirror's address has no query".into());
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
            missing: Mutex::default(),
        })
    }

    /// Is it worth asking for this?
    pub fn may_have(&self, digest: Option<&Digest>) -> bool {
        let missing = || self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        self.strikes.load(Ordering::Relaxed) < STRIKES
            && digest.is_none_or(|digest| !missing().contains(digest))
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
        "the mirror {} did not serve it ({}); going on without",
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
