//! The store from outside: the life of images, and what broken archives do to it (nothing).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what went wrong by failing"
)]

mod broken;
mod kit;
mod life;
mod pinned;
