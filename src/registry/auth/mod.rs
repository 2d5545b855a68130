//! Authentication: challenges, tokens, and the credentials of people and helpers.

pub(crate) mod challenge;
mod config;
pub(crate) mod credentials;
mod helper;
pub(crate) mod realm;
mod token;
pub(crate) mod tokens;
