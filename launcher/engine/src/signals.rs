//! Signals by name, and signals that a client passes on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};

/// Names without `SIG`, in the kernel's numbers for x86 and ARM, with docker's extra spellings.
const NAMES: [(&str, i32); 36] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("RTMIN", RTMIN),
    ("RTMAX", RTMAX),
];

/// First real-time signal a program may use (the C library keeps two).
const RTMIN: i32 = 34;
/// Last signal of Linux.
const RTMAX: i32 = 64;

/// Parses `KILL`, `SIGKILL`, `sigkill`, `9`, `RTMIN+3`, `SIGRTMAX-1`.
///
/// # Errors
/// [`Error::InvalidSignal`].
pub(crate) fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::InvalidSignal(text.to_owned());
    if let Ok(number) = text.parse::<i64>() {
        // Docker refuses 0 and takes every other number; what the kernel lacks is told at the sending.
        return match i32::try_from(number) {
            Ok(0) | Err(_) => Err(invalid()),
            Ok(number) if number < 0 => Err(invalid()),
            Ok(number) => Ok(number),
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(&(_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(number);
    }
    real_time(name)
        .filter(|number| (RTMIN..=RTMAX).contains(number))
        .ok_or_else(invalid)
}

fn real_time(name: &str) -> Option<i32> {
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return Some(RTMIN + offset.parse::<i32>().ok()?);
    }
    let offset = name.strip_prefix("RTMAX-")?;
    Some(RTMAX - offset.parse::<i32>().ok()?)
}

/// Returns the number if the kernel has such a signal.
///
/// # Errors
/// [`Error::UnsupportedSignal`].
pub(crate) fn check_supported(number: i32) -> Result<i32> {
    if (1..=RTMAX).contains(&number) {
        Ok(number)
    } else {
        Err(Error::UnsupportedSignal(i64::from(number)))
    }
}

/// Signals that are taken out of their usual way and read from a descriptor, until this is dropped.
#[derive(Debug)]
pub(crate) struct Caught {
    fd: SignalFd,
    before: SigSet,
}

/// What a client passes on. SIGCHLD and SIGPIPE are its own business; SIGTSTP suspends it, as people expect.
pub(crate) const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
];

impl Caught {
    /// Catches `signals` in this thread.
    pub(crate) fn new(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, before })
    }

    /// Returns the next signal that came; `None` when none is waiting.
    pub(crate) fn next(&self) -> io::Result<Option<i32>> {
        let signal = self.fd.read_signal()?;
        Ok(signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok()))
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        if let Err(errno) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None) {
            log::warn!("restore signal mask: {errno}");
        }
    }
}

impl AsFd for Caught {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, want) in [
            ("KILL", Some(9)),
            ("SIGKILL", Some(9)),
            ("sigterm", Some(15)),
            ("15", Some(15)),
            ("USR1", Some(10)),
            ("RTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("999", Some(999)),
            ("0", None),
            ("-1", None),
            ("FROB", None),
            ("", None),
            ("RTMIN+99", None),
        ] {
            assert_eq!(parse(text).ok(), want, "{text}");
        }
        assert_eq!(
            check_supported(999).unwrap_err().to_string(),
            "The linux daemon does not support signal 999"
        );
    }
}
