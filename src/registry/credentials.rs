//! Who are we at this registry? Where credentials come from, in which order.
//!
//! The first source with a match for the registry wins. What is found is never shown; where it
//! was found is.

use std::fmt;

/// What a registry is told.
#[derive(Clone)]
#[allow(dead_code)]
pub(crate) enum Credential {
    Password {
        user: String,
        password: String,
    },
    /// Exchanged for an access token by POST (oauth.md).
    IdentityToken(String),
    /// Sent as it is, as a Bearer token.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A credential, and where it came from.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub credential: Credential,
    pub source: String,
}

/// The sources, asked in order.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    /// From flags or the caller: for every registry that a reference names.
    pub given: Option<Found>,
}

impl Credentials {
    /// What there is for a repository, `domain` as the reference names it.
    pub fn find(&self, _domain: &str, _path: &str) -> Option<Found> {
        self.given.clone()
    }
}
