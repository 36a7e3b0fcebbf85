//! The system calls of the engine that Rust cannot check.
#![allow(unsafe_code, reason = "fork and close_range have no safe form")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::unistd::{ForkResult, Pid};

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Parent(Pid),
    Child,
}

/// Forks this process. The child must end by [`exit_now`], never by returning into code of the parent.
///
/// # Errors
/// `EAGAIN` when a process limit is reached, `ENOMEM`.
pub(crate) fn fork() -> io::Result<Side> {
    // SAFETY: the commands that call this have one thread (a user namespace could not be entered otherwise), and with
    // more of them glibc keeps malloc usable in the child; no lock of ours is held across the call.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Ends the process at once: no destructor and no buffer of the parent's is run or flushed twice.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 on, but for those in `kept`.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub(crate) fn close_others(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: this runs in a fresh child that uses none of the descriptors in the range and never drops their owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// From this size on an allocation is a mapping of its own.
const MAPPED_FROM_BYTES: libc::c_int = 128 * 1024;

/// Keeps the allocator of a process with several threads small. Every thread would get an arena of its own; and once a
/// mapping of megabytes had been freed, the next would be taken from an arena, cleared by hand and kept (mallopt(3),
/// `M_MMAP_THRESHOLD`: setting it ends its growing).
pub(crate) fn limit_malloc() {
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 2),
        (libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES),
    ] {
        // SAFETY: mallopt only sets a parameter; the process has one thread when this is called.
        let accepted = unsafe { libc::mallopt(parameter, value) };
        log::trace!("malloc parameter {parameter}: {accepted}");
    }
}
