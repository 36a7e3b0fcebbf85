//! Pausing a container: by the freezer of control groups where this machine lets us use one, by SIGSTOP elsewhere.
//!
//! An ordinary user without a delegated group has no freezer. For `pause` stopping by signal is good enough: nothing
//! inside can resist it, and all that can be noticed afterwards is a SIGCHLD of a child that was stopped.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use nix::unistd::Pid;
use rustix::process::Signal;

use crate::freeze::{self, Frozen, members};
use crate::process;

/// A container held still until this is dropped.
#[derive(Debug)]
pub(crate) enum Held {
    /// By the freezer.
    Frozen(#[allow(dead_code, reason = "held for its drop")] Frozen),
    /// By signals.
    Stopped(#[allow(dead_code, reason = "held for its drop")] Stopped),
}

impl Held {
    /// Pauses the container whose first process is `init`.
    ///
    /// # Errors
    /// A process that cannot be stopped in time, or processes that are forked faster than they can be stopped.
    pub(crate) fn new(init: Pid) -> io::Result<Self> {
        match Frozen::new(init) {
            Ok(frozen) => Ok(Held::Frozen(frozen)),
            Err(error) => {
                log::debug!("no freezer: {error}; the container is stopped by signals");
                Stopped::new(init).map(Held::Stopped)
            }
        }
    }
}

/// Processes stopped by SIGSTOP: number and start time. Those that were stopped already are not among them.
#[derive(Debug)]
pub(crate) struct Stopped(BTreeMap<i32, u64>);

impl Stopped {
    fn new(init: Pid) -> io::Result<Self> {
        let mut stopped = Stopped(BTreeMap::new());
        // Each round catches what was forked during the one before; what is stopped forks no more.
        for _ in 0..freeze::ROUNDS {
            if !stopped.stop_more(init)? {
                return stopped.wait().map(|()| stopped);
            }
        }
        Err(io::Error::other(
            "processes are forked faster than they can be stopped",
        ))
    }

    /// Stops the processes that are not stopped yet; returns whether there were any.
    fn stop_more(&mut self, init: Pid) -> io::Result<bool> {
        let mut found = false;
        for pid in members(init)? {
            let Some(stat) = process::stat(pid).filter(|stat| !stat.dead && !stat.stopped) else {
                continue;
            };
            if self.0.get(&pid) != Some(&stat.start)
                && process::signal(pid, stat.start, Signal::STOP)
            {
                self.0.insert(pid, stat.start);
                found = true;
            }
        }
        Ok(found)
    }

    /// Waits until all stand still: one in a system call that cannot be interrupted stops at its end.
    fn wait(&self) -> io::Result<()> {
        let deadline = Instant::now() + freeze::PATIENCE;
        let runs = |(pid, start): (&i32, &u64)| {
            process::stat(*pid)
                .is_some_and(|stat| stat.start == *start && !stat.dead && !stat.stopped)
        };
        while self.0.iter().any(runs) {
            if Instant::now() >= deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for (pid, start) in &self.0 {
            process::signal(*pid, *start, Signal::CONT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn all_processes_are_stopped_and_go_on() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 100 & wait"])
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        while members(pid).unwrap().len() < 2 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let stopped = Stopped::new(pid).unwrap();
        let is_stopped = |pid: &i32| process::stat(*pid).unwrap().stopped;
        let all: Vec<i32> = stopped.0.keys().copied().collect();
        assert!(all.len() == 2 && all.iter().all(is_stopped));
        drop(stopped);
        let deadline = Instant::now() + freeze::PATIENCE;
        while all.iter().any(is_stopped) {
            assert!(Instant::now() < deadline, "they do not go on");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        for pid in all {
            process::signal(pid, process::stat(pid).unwrap().start, Signal::KILL);
        }
        child.wait().unwrap();
    }
}
