//! The flags of chattr(1).
#![allow(
    unsafe_code,
    reason = "FS_IOC_FSGETXATTR has no wrapper in the libraries used"
)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{IFlags, OFlags};
use rustix::io::Errno;

use super::open::reopen;

/// `struct fsxattr` of linux/fs.h, in words: flags, extent size, extents, project, copy-on-write extent size, padding.
pub(crate) type Extended = [u32; 7];

nix::ioctl_read!(fs_get_extended, b'X', 31, Extended);

fn readable(object: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd, Errno> {
    reopen(object, OFlags::RDONLY | OFlags::NONBLOCK)
}

/// `FS_IOC_GETFLAGS`, of a file or directory.
pub(crate) fn get(object: BorrowedFd<'_>) -> Result<u32, Errno> {
    rustix::fs::ioctl_getflags(readable(object)?).map(|flags| flags.bits())
}

/// `FS_IOC_SETFLAGS`, of a file or directory.
pub(crate) fn set(object: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    rustix::fs::ioctl_setflags(readable(object)?, IFlags::from_bits_retain(flags))
}

/// `FS_IOC_FSGETXATTR`, of a file or directory.
pub(crate) fn get_extended(object: BorrowedFd<'_>) -> Result<Extended, Errno> {
    let file = readable(object)?;
    let mut extended = Extended::default();
    // SAFETY: the descriptor is open, and the kernel writes as many bytes as the array has.
    unsafe { fs_get_extended(file.as_fd().as_raw_fd(), &raw mut extended) }
        .map(|_| extended)
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
}
