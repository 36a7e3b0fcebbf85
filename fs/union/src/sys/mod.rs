//! Thin wrappers over system calls, all relative to held descriptors.

pub(crate) mod acl;
pub(crate) mod caller;
pub(crate) mod flags;
pub(crate) mod ids;
pub(crate) mod lease;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod object;
pub(crate) mod open;
pub(crate) mod processor;
pub(crate) mod xattr;
