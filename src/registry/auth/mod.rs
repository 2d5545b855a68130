//! Authentication: challenges, tokens, and credentials.

pub(crate) mod challenge;
mod config;
pub(crate) mod credentials;
mod helper;
pub(crate) mod realm;
mod token;
pub(crate) mod tokens;
