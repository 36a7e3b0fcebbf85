//! The crate from outside: tars of many origins go in, trees and the same tars come out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers, too"
)]
#![allow(
    clippy::too_many_lines,
    reason = "tables of cases are long, not complicated"
)]

mod comparing;
mod differential;
mod encoding;
mod fuzz;
mod hostile;
mod kit;
mod marks;
mod namespace;
mod semantics;
mod walking;
