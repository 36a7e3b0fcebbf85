//! From a plan to processes.

use crate::{ExecSpec, Failure, Plan, SpawnError, Stdio, Verb, Warning};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A process that is set up and waits for the word to execute its command. Dropped without [`Prepared::start`] it is
/// killed and reaped.
#[derive(Debug)]
pub struct Prepared {
    child: Child,
    warnings: Vec<Warning>,
}

impl Prepared {
    /// Returns the id of the waiting process in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Takes the master side of the terminal, when one was asked for. A second call returns `None`.
    pub fn take_pty(&mut self) -> Option<OwnedFd> {
        self.child.take_pty()
    }

    /// Returns what was left out or done in a second-best way.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Executes the command and returns when the kernel has accepted it.
    ///
    /// # Errors
    /// The file is no program, its interpreter is missing, or the process died.
    pub fn start(self) -> Result<Child, SpawnError> {
        Err(unimplemented_error())
    }
}

/// A running process: a container's first one, or one that [`exec`] made.
///
/// Dropping it neither kills nor reaps.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    pty: Option<OwnedFd>,
}

impl Child {
    /// Returns the id in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns a descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.pidfd.as_fd()
    }

    /// Takes the master side of the terminal. A second call returns `None`.
    pub fn take_pty(&mut self) -> Option<OwnedFd> {
        self.pty.take()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `ESRCH` when the process has ended.
    pub fn signal(&self, _signal: Signal) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Waits for the end and reaps. Later calls return the same status.
    ///
    /// # Errors
    /// `ECHILD` when somebody else has reaped it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    /// Like [`Child::wait`], without waiting: `None` while it runs.
    ///
    /// # Errors
    /// As of [`Child::wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled {
        /// Number of the signal.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
}

impl ExitStatus {
    /// Returns the code a shell would show: the process's own, or 128 plus the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled { signal, .. } => 128 + signal,
        }
    }
}

fn unimplemented_error() -> SpawnError {
    SpawnError::new(
        Verb::Create,
        Failure::System {
            operation: "not yet implemented".to_owned(),
            path: None,
            errno: libc::ENOSYS,
        },
    )
}

/// Makes the container's processes and namespaces, walks the plan and resolves the command, so that whatever is wrong is
/// known before anything runs.
///
/// # Errors
/// Any step may fail; nothing is left behind then.
pub fn prepare(_plan: &Plan, _io: Stdio) -> Result<Prepared, SpawnError> {
    Err(unimplemented_error())
}

/// [`prepare`] and [`Prepared::start`] in one.
///
/// # Errors
/// As of both.
pub fn spawn(plan: &Plan, io: Stdio) -> Result<Child, SpawnError> {
    prepare(plan, io)?.start()
}

/// Enters all namespaces of a running container and sets up one more command there.
///
/// # Errors
/// The container is gone, may not be entered, or a step failed.
pub fn prepare_exec(_target: Pid, _spec: &ExecSpec, _io: Stdio) -> Result<Prepared, SpawnError> {
    Err(unimplemented_error())
}

/// [`prepare_exec`] and [`Prepared::start`] in one.
///
/// # Errors
/// As of both.
pub fn exec(target: Pid, spec: &ExecSpec, io: Stdio) -> Result<Child, SpawnError> {
    prepare_exec(target, spec, io)?.start()
}
