//! Processes as their launcher holds them.

use crate::message::{Channel, Message};
use crate::spawn::{Heard, clone_root, until_ready};
use crate::{Failure, SpawnError, Verb, Warning, sys};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions};
use std::io;
use std::path::Path;

/// Processes on their way, which wait for the container's root. Dropped they are killed and reaped.
#[derive(Debug)]
pub struct Begun {
    verb: Verb,
    /// Of the channel and the guard; taken when they are handed on.
    parts: Option<(Channel, i32)>,
}

impl Begun {
    pub(crate) fn new(verb: Verb, channel: Channel, helper: i32) -> Self {
        Self {
            verb,
            parts: Some((channel, helper)),
        }
    }

    /// Gives the container the root that is mounted at `path` by now, and waits until all is set up.
    ///
    /// # Errors
    /// Any step may fail; nothing is left behind then.
    pub fn with_root(self, path: &Path) -> Result<Prepared, SpawnError> {
        let tree = clone_root(path)?;
        self.with_tree(tree)
    }

    pub(crate) fn with_tree(self, tree: OwnedFd) -> Result<Prepared, SpawnError> {
        if let Some((channel, _)) = &self.parts {
            match channel.send(&Message::Root, Some(tree.as_fd())) {
                // They have ended meanwhile, and have said why.
                Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => {}
                Err(errno) => {
                    let failure = Failure::system("hand the root over", None, errno);
                    return Err(SpawnError::new(self.verb, failure));
                }
            }
        }
        // It must not keep the mount busy when the container has ended.
        drop(tree);
        self.until_ready()
    }

    pub(crate) fn until_ready(mut self) -> Result<Prepared, SpawnError> {
        match self.parts.take() {
            Some((channel, helper)) => until_ready(self.verb, channel, helper),
            None => Err(SpawnError::new(self.verb, Failure::Vanished)),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some((channel, helper)) = self.parts.take() else {
            return;
        };
        match Heard::listen_for_birth(&channel) {
            Some((pid, pidfd)) => Child::new(pid, pidfd, helper).discard(),
            // Without a process the guard has ended, or is about to.
            None => reap_helper(Some(helper)),
        }
    }
}

/// A process that is set up and waits for the word to execute its command. Dropped without [`Prepared::start`] it is
/// killed and reaped.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) launch: Option<Launch>,
    pub(crate) warnings: Vec<Warning>,
}

/// A process under way.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) verb: Verb,
    pub(crate) child: Child,
    pub(crate) channel: Channel,
}

impl Prepared {
    /// Returns the id of the waiting process in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.launch
            .as_ref()
            .map_or(Pid::from_raw(0), |launch| launch.child.pid)
    }

    /// Takes the master side of the terminal, when one was asked for. A second call returns `None`.
    pub fn take_pty(&mut self) -> Option<OwnedFd> {
        self.launch
            .as_mut()
            .and_then(|launch| launch.child.take_pty())
    }

    /// Returns what was left out or done in a second-best way.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Executes the command and returns when the kernel has accepted it.
    ///
    /// # Errors
    /// The file is no program, its interpreter is missing, or the process died.
    pub fn start(mut self) -> Result<Child, SpawnError> {
        let Some(launch) = self.launch.take() else {
            return Err(SpawnError::new(Verb::Create, Failure::Vanished));
        };
        match launch.channel.send(&Message::Start, None) {
            // It died while it was waiting; `receive` finds the end of file.
            Ok(()) | Err(Errno::PIPE) => {}
            Err(errno) => {
                return Err(launch.abandon(Failure::system("start the command", None, errno)));
            }
        }
        launch.until_executed()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some(launch) = self.launch.take() {
            drop(launch.abandon(Failure::Vanished));
        }
    }
}

impl Launch {
    /// Waits until `execve` has closed the process's end of the channel.
    pub(crate) fn until_executed(self) -> Result<Child, SpawnError> {
        loop {
            match self.channel.receive() {
                Ok(None) => return Ok(self.child),
                Ok(Some((Message::Failed(failure), _))) => return Err(self.abandon(failure)),
                Ok(Some(_)) => {}
                Err(errno) => {
                    return Err(self.abandon(Failure::system("start the command", None, errno)));
                }
            }
        }
    }

    /// Kills and reaps what there is, and returns the error.
    pub(crate) fn abandon(mut self, failure: Failure) -> SpawnError {
        self.child.discard();
        SpawnError::new(self.verb, failure)
    }
}

/// A running process: a container's first one, or one that [`exec`] made.
///
/// Dropping it neither kills nor reaps it.
#[derive(Debug)]
pub struct Child {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) pty: Option<OwnedFd>,
    /// The guard's id, until it is reaped.
    pub(crate) guard: Option<i32>,
    pub(crate) status: Option<ExitStatus>,
}

impl Child {
    pub(crate) fn new(pid: Pid, pidfd: OwnedFd, guard: i32) -> Self {
        Self {
            pid,
            pidfd,
            pty: None,
            guard: Some(guard),
            status: None,
        }
    }

    /// Returns the id in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns a descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Takes the master side of the terminal. A second call returns `None`.
    pub fn take_pty(&mut self) -> Option<OwnedFd> {
        self.pty.take()
    }

    /// Sends a signal. It can never reach another process, also when this one has ended.
    ///
    /// # Errors
    /// `ESRCH` when the process has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.signal_number(signal as i32)
    }

    /// Like [`Child::signal`], for real-time signals too (1 to 64).
    ///
    /// # Errors
    /// `EINVAL`: no such signal; `ESRCH` when the process has ended.
    pub fn signal_number(&self, number: i32) -> io::Result<()> {
        Ok(sys::send_signal(self.pidfd.as_fd(), number)?)
    }

    /// Waits for the end and reaps. Later calls return the same status.
    ///
    /// # Errors
    /// `ECHILD` when somebody else has reaped it.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.reap(WaitIdOptions::EXITED)? {
                return Ok(status);
            }
        }
    }

    /// Like [`Child::wait`], without waiting: `None` while it runs.
    ///
    /// # Errors
    /// As of [`Child::wait`].
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.reap(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    fn reap(&mut self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        let ended = match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Err(Errno::INTR) | Ok(None) => return Ok(None),
            Ok(Some(ended)) => ended,
            Err(errno) => return Err(errno.into()),
        };
        self.status = Some(match (ended.exit_status(), ended.terminating_signal()) {
            (Some(code), _) => ExitStatus::Exited(code),
            (None, signal) => ExitStatus::Signaled {
                signal: signal.unwrap_or(0),
                core: ended.dumped(),
            },
        });
        Ok(self.status)
    }

    /// Reaps what else was made for a process that has ended, and so is ending by itself; dropping it does the same. Nobody
    /// has to wait for that who has something else to do.
    pub fn finish(&mut self) {
        if self.status.is_some() {
            reap_helper(self.guard.take());
        }
    }

    /// Kills and reaps; errors mean that somebody was faster.
    pub(crate) fn discard(&mut self) {
        let killed = self
            .signal(Signal::SIGKILL)
            .and_then(|()| self.wait().map(|_| ()));
        if killed.is_err() {
            // It had ended before the signal came: it still has to be reaped.
            drop(self.wait());
        }
        self.finish();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Reaps a process of our own making that ends by itself.
pub(crate) fn reap_helper(pid: Option<i32>) {
    let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) else {
        return;
    };
    while let Err(Errno::INTR) = rustix::process::waitpid(Some(pid), WaitOptions::empty()) {}
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
