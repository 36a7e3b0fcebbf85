//! What this machine allows.

use crate::CapSet;
use std::io;

/// The few facts every plan needs; cheap to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Release of the running kernel.
    pub kernel: String,
    /// Capabilities this process may give.
    pub capabilities: CapSet,
    /// Whether this process is in the first user namespace.
    pub initial_user_namespace: bool,
}

impl Host {
    /// Finds the facts out.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn probe() -> io::Result<Self> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Whether the kernel has every call this crate uses.
    pub fn kernel_is_new_enough(&self) -> bool {
        let mut numbers = self
            .kernel
            .split(|c: char| !c.is_ascii_digit())
            .map(|n| n.parse::<u32>());
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 12),
            _ => false,
        }
    }
}
