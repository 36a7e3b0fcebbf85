//! Extended attributes of `directory descriptor + name`, without opening what carries them.
//!
//! The kernel has `*xattrat` calls only since 6.13, so the name is reached as `/proc/self/fd/N/name`. Works for
//! `O_PATH` descriptors, symbolic links and special files alike; needs a mounted /proc. Never follows the last
//! component.

use std::ffi::{CStr, OsStr, OsString};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;

/// Most values are marks of a few bytes, file capabilities (24) or labels: one call without a size query.
const FIRST_TRY_BYTES: usize = 256;

/// The kernel's own limit for one value and for one list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const KERNEL_MAX_BYTES: usize = 65536;

/// Names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Path of a directory descriptor, or of a name in it, through /proc.
fn proc_path(dir: BorrowedFd<'_>, name: Option<&OsStr>) -> io::Result<Vec<u8>> {
    let mut path = Vec::with_capacity(24 + name.map_or(0, OsStr::len));
    write!(path, "/proc/self/fd/{}", dir.as_raw_fd())?;
    if let Some(name) = name {
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
    }
    Ok(path)
}

/// Returns the value of `attribute` on `name` in `dir` (on `dir` itself for `None`); `None` when it is not set or the
/// object cannot have it.
///
/// # Errors
/// Whatever the kernel says, except ENODATA and EOPNOTSUPP, which mean "not set".
pub fn get(
    dir: BorrowedFd<'_>,
    name: Option<&OsStr>,
    attribute: &CStr,
) -> io::Result<Option<Vec<u8>>> {
    let path = proc_path(dir, name)?;
    let mut value = vec![0u8; FIRST_TRY_BYTES];
    let read = |value: &mut [u8]| match name {
        Some(_) => fs::lgetxattr(path.as_slice(), attribute, value),
        None => fs::getxattr(path.as_slice(), attribute, value),
    };
    let wanted = OsStr::from_bytes(attribute.to_bytes());
    let mut outcome = read(&mut value);
    if outcome == Err(Errno::RANGE) {
        value = vec![0u8; KERNEL_MAX_BYTES];
        outcome = read(&mut value);
    }
    match outcome {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        // Reading `user.` attributes of a file that one may not read is refused before it is known whether there are any.
        Err(Errno::ACCESS) if !names(dir, name)?.iter().any(|other| *other == *wanted) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets `attribute` on `name` in `dir` (on `dir` itself for `None`), replacing an earlier value.
///
/// # Errors
/// Whatever the kernel says: EPERM for `user.*` on anything but files and directories, EOPNOTSUPP, ENOSPC, …
pub fn set(
    dir: BorrowedFd<'_>,
    name: Option<&OsStr>,
    attribute: &CStr,
    value: &[u8],
) -> io::Result<()> {
    let path = proc_path(dir, name)?;
    let flags = XattrFlags::empty();
    match name {
        Some(_) => fs::lsetxattr(path.as_slice(), attribute, value, flags)?,
        None => fs::setxattr(path.as_slice(), attribute, value, flags)?,
    }
    Ok(())
}

/// Removes `attribute` from `name` in `dir` (from `dir` itself for `None`); not having it is no error.
///
/// # Errors
/// Whatever the kernel says, except ENODATA and EOPNOTSUPP.
pub fn remove(dir: BorrowedFd<'_>, name: Option<&OsStr>, attribute: &CStr) -> io::Result<()> {
    let path = proc_path(dir, name)?;
    let outcome = match name {
        Some(_) => fs::lremovexattr(path.as_slice(), attribute),
        None => fs::removexattr(path.as_slice(), attribute),
    };
    match outcome {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// As [`get`], of the object behind a descriptor (any kind, also of a symbolic link), for a name from [`names`].
///
/// # Errors
/// As [`get`].
pub fn get_by_name(object: BorrowedFd<'_>, attribute: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let attribute = std::ffi::CString::new(attribute.as_bytes())?;
    get(object, None, &attribute)
}

/// Returns the attribute names of `name` in `dir` (of `dir` itself for `None`), internal ones included, unsorted.
///
/// # Errors
/// Whatever the kernel says, except EOPNOTSUPP, which is an empty list.
pub fn names(dir: BorrowedFd<'_>, name: Option<&OsStr>) -> io::Result<Vec<OsString>> {
    let path = proc_path(dir, name)?;
    let mut list = vec![0u8; FIRST_TRY_BYTES];
    let read = |list: &mut [u8]| match name {
        Some(_) => fs::llistxattr(path.as_slice(), list),
        None => fs::listxattr(path.as_slice(), list),
    };
    let mut outcome = read(&mut list);
    if outcome == Err(Errno::RANGE) {
        list = vec![0u8; KERNEL_MAX_BYTES];
        outcome = read(&mut list);
    }
    match outcome {
        Ok(length) => {
            list.truncate(length);
            Ok(list
                .split(|&byte| byte == 0)
                .filter(|name| !name.is_empty())
                .map(|name| OsString::from_vec(name.to_vec()))
                .collect())
        }
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
