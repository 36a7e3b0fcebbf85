//! Processes: fork, clone3, the descriptors and signals of a new one.

use crate::weaken::{self, Hole};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use std::io;

/// Which side of a fork this is.
#[derive(Debug)]
pub(crate) enum Forked {
    /// The one that called; with the id of the new one.
    Parent(i32),
    /// The new one.
    Child,
}

/// Returns the error of the libc call that has just failed.
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// `fork(3)`: glibc's, which keeps `malloc` usable in the child of a process with many threads.
pub(crate) fn fork() -> Result<Forked, Errno> {
    // SAFETY: the child only runs code of this crate that takes no lock another thread may hold (see the crate's
    // documentation), and it leaves by `_exit` or `execve`.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// `struct clone_args` of `clone3(2)`, its first version (64 bytes, Linux 5.3).
#[repr(C)]
#[derive(Debug, Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// What [`clone_with_namespaces`] is to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CloneRequest {
    /// `CLONE_NEW*` bits.
    pub(crate) namespaces: u64,
}

/// `clone3(2)` with `CLONE_PARENT`: the new process is a sibling, so that the caller's parent can wait for it. Returns the
/// new id and its pidfd to the caller, `None` to the new process.
///
/// Must be called by a process with one thread: the child's copy of the C library is not told that it was cloned, which
/// is harmless as long as no other thread held one of its locks.
pub(crate) fn clone_with_namespaces(
    request: CloneRequest,
) -> Result<Option<(i32, OwnedFd)>, Errno> {
    let mut pidfd: libc::c_int = -1;
    let parent_and_pidfd = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;
    let args = CloneArgs {
        flags: parent_and_pidfd | request.namespaces,
        pidfd: (&raw mut pidfd) as u64,
        ..CloneArgs::default()
    };
    // SAFETY: `args` is a valid clone_args of the size given; without CLONE_VM the child has its own copy of this stack;
    // the kernel writes one int to `pidfd`, which lives until after the call.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            std::mem::size_of::<CloneArgs>(),
        )
    };
    match pid {
        -1 => Err(last_errno()),
        0 => Ok(None),
        pid => {
            // SAFETY: the kernel has just made this descriptor for us and nobody else owns it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Some((
                i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?,
                pidfd,
            )))
        }
    }
}

/// `unshare(2)`.
pub(crate) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: no caller passes FILES, the one flag that could pull descriptors from under other threads.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Ends the process at once: no destructors, no exit handlers, which belong to the parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Moves `keep` to the descriptors 0, 1, 2, …, closes every other one, and returns those from 3 on (close-on-exec).
///
/// To be called in a forked process only: descriptors that other values of this process own are gone afterwards.
pub(crate) fn arrange_descriptors(keep: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>, Errno> {
    let count = i32::try_from(keep.len()).map_err(|_| Errno::INVAL)?;
    let mut copies = Vec::with_capacity(keep.len());
    for fd in keep {
        copies.push(rustix::io::fcntl_dupfd_cloexec(fd, count)?);
    }
    let mut owned = Vec::with_capacity(keep.len().saturating_sub(3));
    for (number, copy) in (0..count).zip(&copies) {
        let flags = if number < 3 { 0 } else { libc::O_CLOEXEC };
        // SAFETY: both are plain numbers; what stood at `number` is not used again in this process.
        if unsafe { libc::dup3(copy.as_fd().as_raw_fd(), number, flags) } == -1 {
            return Err(last_errno());
        }
        if number >= 3 {
            // SAFETY: dup3 has just made this descriptor, and nothing in this process refers to the number.
            owned.push(unsafe { OwnedFd::from_raw_fd(number) });
        }
    }
    std::mem::forget(copies);
    if weaken::is_open(Hole::Descriptors) {
        // Pipes and sockets of ours are below: without their end nobody would end.
        for number in count..20 {
            // SAFETY: as below, nothing in this process uses them.
            unsafe { libc::close(number) };
        }
        return Ok(owned);
    }
    super::close_from(keep.len())?;
    Ok(owned)
}

/// Gives every signal its default action: Rust programs ignore SIGPIPE, and an ignored signal stays ignored over
/// `execve`.
///
/// By the bare system call, since the C library does not let its own two signals (32 and 33) be touched; it does not need
/// them in a process with one thread that is about to become another program.
pub(crate) fn reset_signal_handlers() {
    /// Size of the kernel's signal set.
    const SET_BYTES: usize = 8;
    // The kernel's `struct sigaction`, all zeros: SIG_DFL, no flags, an empty mask.
    let default = [0usize; 4];
    for signal in (1..=64).filter(|n| ![libc::SIGKILL, libc::SIGSTOP].contains(n)) {
        // SAFETY: `default` is at least as large as the kernel's structure, which is only read; no old action is asked
        // for; no code of this process relies on a handler after the fork.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<usize>(),
                SET_BYTES,
            );
        }
    }
}

/// Puts `name` in the place of this process's arguments, as /proc/PID/cmdline shows them, and clears its environment
/// (/proc/PID/environ). Best effort: where the kernel does not say where they lie, nothing happens.
pub(crate) fn wipe_arguments_and_environment(name: &[u8]) {
    /// proc_pid_stat(5): arg_start, arg_end, env_start and env_end are fields 48 to 51; the first after the name is field 3.
    const ARG_START: usize = 48 - 3;
    let Ok(text) = std::fs::read("/proc/self/stat") else {
        return;
    };
    let text = String::from_utf8_lossy(&text);
    let fields = text.rsplit_once(')').map(|(_, after)| after);
    let fields = fields.unwrap_or_default().split_whitespace();
    let places: Vec<usize> = fields
        .skip(ARG_START)
        .map_while(|field| field.parse().ok())
        .collect();
    if let Some(&[start, end]) = places.get(..2) {
        overwrite(start, end, name);
    }
    if let Some(&[start, end]) = places.get(2..4) {
        overwrite(start, end, b"");
    }
}

/// Puts `text` and zeros over what the kernel put on this process's stack when it was executed.
fn overwrite(start: usize, end: usize, text: &[u8]) {
    if start == 0 || end <= start {
        return;
    }
    let length = end - start;
    // SAFETY: the kernel says that this process's own strings lie there, on the writable stack; this forked copy has one
    // thread and reads them no more.
    unsafe { std::ptr::write_bytes(start as *mut u8, 0, length) };
    let kept = text.len().min(length - 1);
    // SAFETY: as above, and `kept` is less than their length.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), start as *mut u8, kept) };
}
