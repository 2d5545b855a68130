//! Defects of an archive, one printable line each.

use crate::error::printable;
use std::fmt;

/// Something wrong with an archive, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defect {
    subject: String,
    what: String,
}

impl Defect {
    pub(crate) fn new(subject: &str, what: impl AsRef<str>) -> Self {
        Self {
            subject: printable(subject, 200),
            what: printable(what.as_ref(), 500),
        }
    }

    /// The entry or image that has the defect.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What is wrong with it.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.what)
    }
}
