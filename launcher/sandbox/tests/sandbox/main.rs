//! The launcher on a real tree: busybox in a temporary directory, as root and as an ordinary user.
//!
//! Tests named `root_*` need root, `user_*` need root too, to become an ordinary user with a range of ids (`useradd`,
//! `uidmap`). They fail, and do not skip, where that is missing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: a failure is what they are for"
)]

mod escape;
mod exec;
mod inside;
mod kit;
mod life;
mod user;
