//! The first process of a container with `--init`: it passes signals on to the command, its child, and reaps whatever is
//! left to it.
//!
//! It is this program without its file being opened anew: nobody can look into it (it stays undumpable) but who has
//! CAP_SYS_PTRACE on the host itself (`--cap-add` without a user namespace). There is nothing to be gained: its command
//! line and its environment, which were the launcher's, are wiped, it has the command's own capabilities and filter, and
//! its program's file is on a read-only mount that no path leads to ([`crate::run_sealed`]).

use super::{Context, die_with_parent, forbid_tracing};
use crate::Failure;
use crate::sys::{self, Forked};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

/// Exit code when the command's own is not to be had.
const LOST: i32 = 255;

/// Makes this process the reaper; returns in the process that is to become the command.
pub(super) fn split() -> Result<(), Failure> {
    // From before the command exists: no end and no signal is missed.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
        .during("block the signals")?;
    match sys::fork().during("fork the command")? {
        Forked::Child => become_command(),
        Forked::Parent(child) => sys::exit_now(reap(child)),
    }
}

/// A process group of its own, in the terminal's foreground: what is typed there reaches the command once, not by way of
/// the reaper as well.
fn become_command() -> Result<(), Failure> {
    die_with_parent().during("tie the process to its parent")?;
    rustix::process::setpgid(None, None).during("make a process group")?;
    match rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpgrp()) {
        // No terminal.
        Ok(()) | Err(Errno::NOTTY | Errno::NXIO | Errno::BADF | Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno).during("take the terminal's foreground"),
    }
}

/// Nobody can be told, and the reaper's work goes on.
fn best_effort<E>(result: Result<(), E>) {
    match result {
        Ok(()) | Err(_) => {}
    }
}

/// Lives until the command has ended; returns its code.
fn reap(child: i32) -> i32 {
    if let Err(errno) = forbid_tracing() {
        return errno.raw_os_error();
    }
    hide();
    let all = SigSet::all();
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap_ended(child) {
                    return code;
                }
            }
            // What it does to itself when it cannot read its terminal is its own business. A real-time signal has no
            // name here.
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) | Err(_) => {}
            Ok(signal) => {
                // It may have ended in this moment: then SIGCHLD comes next.
                best_effort(nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(child),
                    signal,
                ));
            }
        }
    }
}

/// Reaps all that has ended; returns the command's code when it is among them.
fn reap_ended(child: i32) -> Option<i32> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == Pid::from_raw(child) => {
                code = Some(code_of(status));
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return code,
            // No children: the command was reaped, now or by a tracer.
            Err(_) => return code.or(Some(LOST)),
        }
    }
}

fn code_of(status: WaitStatus) -> i32 {
    let signal = status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or(signal).unwrap_or(LOST)
}

/// Leaves nothing of the launcher to be seen or held: its descriptors, its name and its command line.
fn hide() {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    // Where one of these fails the container lacks /dev/null or the like: the reaper does its work all the same.
    if let Ok(null) = &null {
        best_effort(rustix::stdio::dup2_stdin(null));
        best_effort(rustix::stdio::dup2_stdout(null));
        best_effort(rustix::stdio::dup2_stderr(null));
    }
    drop(null);
    best_effort(sys::close_from(3));
    best_effort(rustix::thread::set_name(c"mille-init"));
    sys::wipe_arguments_and_environment(b"mille-init");
}
