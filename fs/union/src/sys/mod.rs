//! Thin wrappers over system calls, all relative to held descriptors.

pub(crate) mod caller;
pub(crate) mod ids;
pub(crate) mod mount;
pub(crate) mod open;
pub(crate) mod xattr;
