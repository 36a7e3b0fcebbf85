//! Processes of which only a number and a start time is left.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What /proc/PID/stat says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) parent: i32,
    /// When it started, in clock ticks since boot.
    pub(crate) start: u64,
    /// It has ended, and waits to be reaped.
    pub(crate) dead: bool,
    /// It was stopped by a signal.
    pub(crate) stopped: bool,
}

/// Reads a process's parent and start; `None` when it is gone.
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(&String::from_utf8_lossy(&text))
}

/// A process through which a container is entered.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// Its number, which is no other's as long as this value is there.
    pub(crate) pid: i32,
    _held: Option<OwnedFd>,
}

/// Returns the process of a container that can be looked at: its first one, or with `--init`, whose process nobody may look
/// into from a user namespace, the command below it.
pub(crate) fn entrance(init: i32) -> Entrance {
    let first = Entrance {
        pid: init,
        _held: None,
    };
    if fs::read_link(format!("/proc/{init}/ns/mnt")).is_ok() {
        return first;
    }
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"));
    // In the order in which they were made: orphans come later.
    let child = children.unwrap_or_default();
    let child = child
        .split_whitespace()
        .next()
        .and_then(|pid| pid.parse().ok());
    let Some(pid) = child else {
        return first;
    };
    let held = stat(pid).and_then(|found| open(pid, found.start));
    match held.filter(|_| stat(pid).is_some_and(|found| found.parent == init)) {
        Some(held) => Entrance {
            pid,
            _held: Some(held),
        },
        None => first,
    }
}

/// Whether a process is the first one of its pid namespace.
pub(crate) fn is_first(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.and_then(|numbers| numbers.split_whitespace().last()) == Some("1")
}

/// The second field, the name in brackets, may hold blanks and brackets: what counts comes after the last one.
fn parse(text: &str) -> Option<Stat> {
    let (_, after) = text.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    // proc_pid_stat(5): field 3, the state, is the first here, 4 the parent, 22 the start.
    let letter = fields.next()?;
    let dead = matches!(letter, "Z" | "X");
    let stopped = letter == "T";
    let parent = fields.next()?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        parent,
        start,
        dead,
        stopped,
    })
}

/// Opens a process if it is still the one that started at `start`.
pub(crate) fn open(pid: i32, start: u64) -> Option<OwnedFd> {
    let number = Pid::from_raw(pid)?;
    let fd = pidfd_open(number, PidfdFlags::empty()).ok()?;
    // Checked after opening: the number cannot be given to another process while the descriptor stands for this one.
    (start != 0 && stat(pid)?.start == start).then_some(fd)
}

/// Sends a signal to a process if it is still the one that started at `start`; returns whether it was there.
pub(crate) fn signal(pid: i32, start: u64, signal: Signal) -> bool {
    open(pid, start).is_some_and(|fd| pidfd_send_signal(fd, signal).is_ok())
}

/// Waits for a process's end, for `patience` at most; returns whether it has ended. One that nobody has reaped yet has.
pub(crate) fn ends_within(process: &OwnedFd, patience: Duration) -> bool {
    let timeout = Timespec::try_from(patience).ok();
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_seen_before_it_is_reaped() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let fd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert!(!ends_within(&fd, Duration::ZERO));
        child.kill().unwrap();
        assert!(ends_within(&fd, Duration::from_secs(10)));
        child.wait().unwrap();
    }

    #[test]
    fn odd_names_do_not_confuse() {
        let text = "77 (a b) c) S 5 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 1";
        assert_eq!(
            parse(text),
            Some(Stat {
                parent: 5,
                start: 123_456,
                dead: false,
                stopped: false,
            })
        );
    }

    #[test]
    fn a_reused_number_is_another_process() {
        let own = i32::try_from(std::process::id()).unwrap();
        let start = stat(own).unwrap().start;
        assert!(open(own, start).is_some());
        assert!(open(own, start + 1).is_none());
        assert!(open(own, 0).is_none());
    }
}
