//! Opening things below a directory, without following links and without crossing mounts.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// The longest path given to the kernel at once: below PATH_MAX (4096) with room for the terminating byte.
const PATH_PIECE: usize = 4000;

/// Confinement of every lookup in a layer: below the start, through no symbolic or magic link, on one mount.
const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Flags of a descriptor that only names an object.
pub(crate) const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory at a relative path of any length; an empty path gives a second descriptor of the start.
pub(crate) fn dir_beneath(start: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = HANDLE.union(OFlags::DIRECTORY);
    if path.is_empty() {
        return beneath(start, b".", flags);
    }
    let mut rest = path;
    let mut reached: Option<OwnedFd> = None;
    while rest.len() > PATH_PIECE {
        let cut = rest[..PATH_PIECE]
            .iter()
            .rposition(|&b| b == b'/')
            .ok_or(Errno::NAMETOOLONG)?;
        let from = reached.as_ref().map_or(start, |fd| fd.as_fd());
        let next = beneath(from, &rest[..cut], flags)?;
        rest = &rest[cut + 1..];
        reached = Some(next);
    }
    let from = reached.as_ref().map_or(start, |fd| fd.as_fd());
    beneath(from, rest, flags)
}

/// Opens one name of a directory as a handle (`O_PATH`), whatever it is; a symbolic link gives the link.
pub(crate) fn handle(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, HANDLE, Mode::empty())
}

/// Opens one name of a directory, a regular file, for reading.
pub(crate) fn file(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    // Should it have become something else, opening it must not wait.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())
}

/// Opens one name of a directory as a directory handle; `EXDEV` where a mount covers it.
pub(crate) fn dir_handle(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    beneath(dir, name.as_bytes(), HANDLE.union(OFlags::DIRECTORY))
}

fn beneath(start: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    loop {
        match rustix::fs::openat2(
            start,
            OsStr::from_bytes(path),
            flags,
            Mode::empty(),
            CONFINED,
        ) {
            // A rename somewhere on the way raced with the walk: the kernel asks for another try.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// Opens the object behind a handle again with other flags, through the process's own descriptor table. The object's
/// permission bits are checked as for any open, the path is not walked again.
pub(crate) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    with_proc_path(fd, |path| {
        rustix::fs::openat(CWD, path, flags.union(OFlags::CLOEXEC), Mode::empty())
    })
}

/// Calls with `/proc/self/fd/N`, which names the very object behind a descriptor.
pub(crate) fn with_proc_path<T>(fd: BorrowedFd<'_>, call: impl FnOnce(&CStr) -> T) -> T {
    const PREFIX: &[u8] = b"/proc/self/fd/";
    // Prefix, at most ten digits, and the terminating byte.
    let mut buffer = [0u8; 32];
    buffer[..PREFIX.len()].copy_from_slice(PREFIX);
    let mut digits = [0u8; 10];
    let mut count = 0;
    let mut number = fd.as_raw_fd().unsigned_abs();
    loop {
        digits[count] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        count += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    for (place, digit) in buffer[PREFIX.len()..]
        .iter_mut()
        .zip(digits[..count].iter().rev())
    {
        *place = *digit;
    }
    call(CStr::from_bytes_until_nul(&buffer).unwrap_or(c"/proc/self/fd/-1"))
}

/// `stat` of one name, not following a link; `None` when there is none.
pub(crate) fn stat_name(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A handle of a mount point: a link at the end is followed, as mount(8) does.
pub(crate) fn reopen_target(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}
