//! Single system calls.

use crate::spec::{BpfInstruction, SeccompProgram};
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;

/// Turns the result of a libc call into a typed one.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result == -1 {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(result)
    }
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SetAttr {
    /// `MOUNT_ATTR_*` to set.
    pub(crate) set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub(crate) clear: u64,
    /// `MS_PRIVATE`, `MS_SLAVE`, … or 0.
    pub(crate) propagation: u64,
    userns_fd: u64,
}

impl SetAttr {
    /// `MOUNT_ATTR_RDONLY`.
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const RDONLY: u64 = 0x1;

    /// Sets the propagation.
    pub(crate) fn propagation(propagation: u64) -> Self {
        Self {
            propagation,
            ..Self::default()
        }
    }

    /// Sets some attributes and clears others.
    pub(crate) fn change(set: u64, clear: u64) -> Self {
        Self {
            set,
            clear,
            ..Self::default()
        }
    }

    /// Sets these attributes.
    pub(crate) fn set(attributes: u64) -> Self {
        Self {
            set: attributes,
            ..Self::default()
        }
    }
}

/// `mount_setattr(2)` on the mount `fd` stands for, with the mounts below when `recursive`.
pub(crate) fn set_mount_attributes(
    fd: BorrowedFd<'_>,
    attributes: SetAttr,
    recursive: bool,
) -> Result<(), Errno> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let empty = c"";
    // SAFETY: the path is a NUL-terminated string and `attributes` a mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            std::mem::size_of::<SetAttr>(),
        )
    };
    check(result).map(|_| ())
}

/// Calls `close_range(2)` from `first` to the end.
fn close_range(first: usize, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: plain numbers; the two callers say what closing means.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) })
        .map(|_| ())
}

/// Closes every descriptor from `first` on. For forked processes that own none of them.
pub(crate) fn close_from(first: usize) -> Result<(), Errno> {
    close_range(first, 0)
}

/// Marks every descriptor from `first` on close-on-exec.
pub(crate) fn close_on_exec_from(first: usize) -> Result<(), Errno> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

/// Takes one capability out of the bounding set. `EINVAL`: the kernel has no capability of that number.
pub(crate) fn drop_from_bounding_set(capability: u8) -> Result<(), Errno> {
    // SAFETY: a prctl with plain numbers.
    let result = unsafe {
        libc::prctl(
            libc::PR_CAPBSET_DROP,
            libc::c_ulong::from(capability),
            0,
            0,
            0,
        )
    };
    check(libc::c_long::from(result)).map(|_| ())
}

/// Joins, and makes when missing, a session keyring of this name.
pub(crate) fn join_session_keyring(name: &CStr) -> Result<(), Errno> {
    /// `KEYCTL_JOIN_SESSION_KEYRING` of linux/keyctl.h.
    const JOIN: libc::c_long = 1;
    // SAFETY: the name is NUL-terminated and lives until the call returns.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN, name.as_ptr(), 0, 0, 0) }).map(|_| ())
}

/// Sends a signal, of any number the kernel knows, to the process a pidfd stands for.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: plain numbers and a null pointer, which asks the kernel to fill the information in.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            number,
            no_info,
            0,
        )
    };
    check(result).map(|_| ())
}

/// Installs a seccomp filter for this thread and what it becomes.
pub(crate) fn install_seccomp(program: &SeccompProgram) -> Result<(), Errno> {
    let filter: Vec<libc::sock_filter> = program
        .instructions
        .iter()
        .map(
            |&BpfInstruction {
                 code,
                 jump_true,
                 jump_false,
                 operand,
             }| libc::sock_filter {
                code,
                jt: jump_true,
                jf: jump_false,
                k: operand,
            },
        )
        .collect();
    let len = libc::c_ushort::try_from(filter.len()).map_err(|_| Errno::INVAL)?;
    let fprog = libc::sock_fprog {
        len,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `fprog` points to `len` instructions that live until the call returns; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(program.flags),
            &raw const fprog,
        )
    };
    check(result).map(|_| ())
}

/// Brings the interface `lo` of the current network namespace up.
pub(crate) fn bring_loopback_up() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let name = CString::from(c"lo");
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: libc::c_short::try_from(flags).map_err(|_| Errno::INVAL)?,
        },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which `request` is.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(libc::c_long::from(result)).map(|_| ())
}
