//! The merged view from outside: as a library, and mounted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test says what went wrong by failing"
)]

mod budget;
mod chain;
mod changes;
mod claims;
mod crowd;
mod foreign;
mod growing;
mod hostile;
mod kit;
mod library;
mod limits;
mod mapping;
mod matrix;
mod mounted;
mod ownership;
mod posix;
