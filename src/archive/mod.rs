//! Archives: the plan of a new one, the outputs it is written to, and existing ones.

pub(crate) mod base;
pub(crate) mod defect;
mod documents;
pub(crate) mod inventory;
pub(crate) mod plan;
pub(crate) mod rebuild;
pub(crate) mod rootfs;
pub(crate) mod sink;
pub(crate) mod source;
mod tar;
pub(crate) mod thin;
pub(crate) mod verify;
