//! The monitor: one process per running container.
//!
//! It is forked from the command that starts the container and outlives it. It serves the container's root from its
//! own threads, starts the sandbox, carries the streams to log and clients, reaps, records the end and goes. It is
//! never inside the container's namespaces; its death kills the container (the sandbox asks the kernel for that).
//!
//! Order of a life, each step undone by those after it in reverse when one fails:
//! lock → run directory and socket → sandbox begun → mount of the union, beside it → sandbox prepared → state "running" →
//! command executed → readiness reported → loop → unmount → state "exited" → (`--rm`: removal) → run directory gone →
//! lock freed → clients told. With a restart policy that wants it: loop → unmount → state "restarting" → clients told → wait → mount
//! and so on; lock and socket are kept.

mod client;
pub(crate) mod descriptors;
mod hub;
mod interval;
mod prober;
mod process;
mod report;
mod standing;

pub(crate) use process::{Job, detach};
pub(crate) use report::{Outcome, Reporter, receive};
