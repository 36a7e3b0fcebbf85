//! The test kit: runs the built programs as root or as an ordinary user, each test in a store of its own, and finds
//! what they may have left behind.
//!
//! Invariant: every [`Store`] that is dropped has no mount below it and no process that works in it; a test that leaves
//! one fails.

pub mod docker;
pub mod inside;
pub mod leftovers;
pub mod mapping;
mod own_mounts;
pub mod program;
pub mod rootfs;
pub mod store;
pub mod tracer;
pub mod tree;

pub use inside::Inside;
pub use own_mounts::own_mounts;
pub use program::{Outcome, Who};
pub use store::Store;
