//! Which system calls a container may make: docker's default policy, or a profile file in docker's JSON format, made into
//! one program for the kernel.
//!
//! A [`Profile`] is a list of rules that depend on the container's capabilities, the machine's architecture and the
//! kernel's version; [`Profile::program`] settles those and compiles what is left. Rules name system calls: a name that an
//! architecture does not have is no rule there.
//!
//! What a profile does not mention gets its default action, `EPERM` in docker's; but a system call newer than any that
//! the profile mentions gets `ENOSYS`, as with runc: libraries try new system calls first and must see that they are not
//! there, not that they are forbidden.

mod builtin;
mod json;
mod names;
mod profile;
mod program;

pub use json::ProfileError;
pub use profile::{Machine, Profile};
