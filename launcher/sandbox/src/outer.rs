//! N1: the user and mount namespace in which an ordinary user's store, union and monitors live.

use nix::unistd::Pid;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Which id map is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// A range where there is one, else one id.
    #[default]
    Auto,
    /// A range or an error that says how to get one.
    Range,
    /// One id.
    OneId,
}

/// Where this process is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OuterMode {
    /// Real root in the first user namespace: there is nothing to enter.
    Root,
    /// In a user namespace with a range of ids.
    Range {
        /// How many user ids are mapped.
        uids: u32,
        /// How many group ids are mapped.
        gids: u32,
    },
    /// In a user namespace with one id.
    OneId,
}

/// Why N1 could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum OuterError {
    /// The kernel or a security module refuses user namespaces.
    #[error("user namespaces are not available: {reason}; {fix}")]
    Unavailable {
        /// The system's words.
        reason: String,
        /// The command that changes it.
        fix: String,
    },
    /// The process has more than one thread.
    #[error("a user namespace can only be entered by a process with one thread")]
    Threads,
    /// No range is set up.
    #[error("{reason}; {fix}")]
    NoRange {
        /// What is missing.
        reason: String,
        /// The command that adds it.
        fix: String,
    },
    /// newuidmap or newgidmap failed.
    #[error("{program} failed: {detail}")]
    Mapper {
        /// Which.
        program: String,
        /// What it said.
        detail: String,
    },
    /// A system call failed.
    #[error("{operation}{}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    System {
        /// What was being done.
        operation: &'static str,
        /// With which file.
        path: Option<PathBuf>,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

/// Namespaces of this process, to be sent to another one of the same user.
#[derive(Debug)]
pub struct Namespaces {
    /// User namespace.
    pub user: OwnedFd,
    /// Mount namespace.
    pub mount: OwnedFd,
}

/// Enters N1. Nothing happens for real root and for a process that is in N1 already.
///
/// # Errors
/// See [`OuterError`]; each says what would help.
pub fn enter(_wish: Wish) -> Result<OuterMode, OuterError> {
    Ok(OuterMode::Root)
}

/// Returns where this process is, without changing anything.
///
/// # Errors
/// /proc/self/uid_map cannot be read.
pub fn current() -> Result<Option<OuterMode>, OuterError> {
    Ok(None)
}

/// Enters the N1 of another process of this user. That process must be dumpable; a monitor that is not sends its
/// [`Namespaces`] instead.
///
/// # Errors
/// The process is gone or is somebody else's.
pub fn join(_pid: Pid) -> Result<(), OuterError> {
    Ok(())
}

/// Opens the namespaces of this process.
///
/// # Errors
/// /proc is not mounted, or this process is not dumpable.
pub fn namespaces() -> Result<Namespaces, OuterError> {
    Err(OuterError::Threads)
}

/// Enters the N1 of which these are the descriptors.
///
/// # Errors
/// It is somebody else's, or this process has several threads.
pub fn join_namespaces(_user: BorrowedFd<'_>, _mount: BorrowedFd<'_>) -> Result<(), OuterError> {
    Ok(())
}
