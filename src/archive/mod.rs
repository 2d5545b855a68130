//! Archives: the plan of a new one, the outputs it is written to, and archives that exist already.

pub(crate) mod defect;
mod documents;
pub(crate) mod plan;
pub(crate) mod sink;
pub(crate) mod source;
mod tar;
pub(crate) mod verify;
