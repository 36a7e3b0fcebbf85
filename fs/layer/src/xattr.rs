//! Extended attributes of `directory descriptor + name`, without opening what carries them.
//!
//! Works for `O_PATH` descriptors, symbolic links and special files alike. Never follows the last component.

mod at;
mod sys;

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

pub use at::At;

/// Most values are marks of a few bytes, file capabilities (24) or labels: one call without a size query.
const FIRST_TRY_BYTES: usize = 256;

/// The kernel's own limit for one value and for one list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const KERNEL_MAX_BYTES: usize = 65536;

/// Names and values.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

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
    let object = At { dir, name };
    let mut value = vec![0u8; FIRST_TRY_BYTES];
    let wanted = OsStr::from_bytes(attribute.to_bytes());
    let mut outcome = object.get(attribute, &mut value);
    if outcome == Err(Errno::RANGE) {
        value = vec![0u8; KERNEL_MAX_BYTES];
        outcome = object.get(attribute, &mut value);
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
    Ok(At { dir, name }.set(attribute, value, XattrFlags::empty())?)
}

/// Removes `attribute` from `name` in `dir` (from `dir` itself for `None`); not having it is no error.
///
/// # Errors
/// Whatever the kernel says, except ENODATA and EOPNOTSUPP.
pub fn remove(dir: BorrowedFd<'_>, name: Option<&OsStr>, attribute: &CStr) -> io::Result<()> {
    match (At { dir, name }).remove(attribute) {
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
    let object = At { dir, name };
    let mut list = vec![0u8; FIRST_TRY_BYTES];
    let mut outcome = object.list(&mut list);
    if outcome == Err(Errno::RANGE) {
        list = vec![0u8; KERNEL_MAX_BYTES];
        outcome = object.list(&mut list);
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
