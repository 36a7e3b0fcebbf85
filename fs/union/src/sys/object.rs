//! Changing objects known by a handle: by calls that take one, or where the kernel is too old for them through /proc.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::open::{reopen, with_proc_path};

/// chmod(2). Not for symbolic links.
pub(crate) fn set_mode(object: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    with_proc_path(object, |path| {
        rustix::fs::chmodat(
            CWD,
            path,
            Mode::from_raw_mode(mode & 0o7777),
            AtFlags::empty(),
        )
    })
}

/// As [`set_mode`], of an open file.
pub(crate) fn set_mode_open(file: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))
}

/// chown(2), also of symbolic links; clears set-id bits and file capabilities of files, as that does.
pub(crate) fn set_owner(
    object: BorrowedFd<'_>,
    uid: Option<u32>,
    gid: Option<u32>,
) -> Result<(), Errno> {
    let uid = uid.map(rustix::fs::Uid::from_raw);
    let gid = gid.map(rustix::fs::Gid::from_raw);
    rustix::fs::chownat(object, c"", uid, gid, AtFlags::EMPTY_PATH)
}

/// truncate(2): by a path, as which file systems do not all set the times that ftruncate(2) sets.
pub(crate) fn truncate(object: BorrowedFd<'_>, size: i64) -> Result<(), Errno> {
    with_proc_path(object, |path| nix::unistd::truncate(path, size))
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// utimensat(2), also of symbolic links.
pub(crate) fn set_times(object: BorrowedFd<'_>, times: &Timestamps) -> Result<(), Errno> {
    match rustix::fs::utimensat(object, c"", times, AtFlags::EMPTY_PATH) {
        // Before Linux 5.8.
        Err(Errno::INVAL) => {}
        other => return other,
    }
    // A handle of a link names the link: following the magic link ends there.
    with_proc_path(object, |path| {
        rustix::fs::utimensat(CWD, path, times, AtFlags::empty())
    })
}

/// The access and modification times of a `stat`.
pub(crate) fn times_of(stat: &Stat) -> Timestamps {
    let spec = |sec, nsec: u64| Timespec {
        tv_sec: sec,
        tv_nsec: i64::try_from(nsec).unwrap_or(0),
    };
    Timestamps {
        last_access: spec(stat.st_atime, stat.st_atime_nsec),
        last_modification: spec(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Gives the object behind a handle one more name.
pub(crate) fn link(
    object: BorrowedFd<'_>,
    dir: BorrowedFd<'_>,
    name: &std::ffi::OsStr,
) -> Result<(), Errno> {
    with_proc_path(object, |path| {
        rustix::fs::linkat(CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
    })
}

/// Flushes an object, file or directory, to the disk.
pub(crate) fn sync(object: BorrowedFd<'_>, data_only: bool) -> Result<(), Errno> {
    let file: OwnedFd = reopen(object, OFlags::RDONLY | OFlags::NONBLOCK)?;
    sync_open(file.as_fd(), data_only)
}

/// As [`sync`], of an open file.
pub(crate) fn sync_open(file: BorrowedFd<'_>, data_only: bool) -> Result<(), Errno> {
    if data_only {
        rustix::fs::fdatasync(file)
    } else {
        rustix::fs::fsync(file)
    }
}
