//! Extended attributes of objects known by a handle.
//!
//! The calls go through `/proc/self/fd/N`, because the handles are `O_PATH` descriptors, on which `fgetxattr` is
//! refused, and `getxattrat` is younger than the kernels we run on. A handle of a symbolic link names the link itself.

use std::ffi::{OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::open::with_proc_path;

/// The kernel's own limit of one value, and of the list of names.
const LIMIT: usize = 65536;

/// A first buffer that holds nearly every value met (ACLs, capabilities, labels, marks).
const USUAL: usize = 256;

/// Reads one value; `None` if there is none or the file system has no such extended attributes.
pub(crate) fn get(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>, Errno> {
    match ask(fd, name) {
        Err(Errno::OPNOTSUPP) => Ok(None),
        other => other,
    }
}

/// Reads one value; `None` if there is none, `EOPNOTSUPP` if the file system has no such extended attributes.
pub(crate) fn ask(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>, Errno> {
    match read(fd, name) {
        // Reading `user.` attributes of a file that one may not read is refused before it is known whether there are any.
        Err(Errno::ACCESS) if !list(fd)?.iter().any(|other| other == name) => Ok(None),
        other => other,
    }
}

fn read(fd: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Vec<u8>>, Errno> {
    with_proc_path(fd, |path| {
        let mut small = [0u8; USUAL];
        match rustix::fs::getxattr(path, name, &mut small) {
            Ok(len) => return Ok(Some(small[..len].to_vec())),
            Err(Errno::RANGE) => {}
            Err(errno) => return none_if_absent(errno),
        }
        let mut large = vec![0u8; LIMIT];
        match rustix::fs::getxattr(path, name, &mut large[..]) {
            Ok(len) => {
                large.truncate(len);
                Ok(Some(large))
            }
            Err(errno) => none_if_absent(errno),
        }
    })
}

fn none_if_absent(errno: Errno) -> Result<Option<Vec<u8>>, Errno> {
    match errno {
        Errno::NODATA => Ok(None),
        other => Err(other),
    }
}

/// Names of all attributes; empty where the file system has none.
pub(crate) fn list(fd: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    with_proc_path(fd, |path| {
        let mut small = [0u8; USUAL];
        match rustix::fs::listxattr(path, &mut small) {
            Ok(len) => return Ok(split(&small[..len])),
            Err(Errno::RANGE) => {}
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
        let mut large = vec![0u8; LIMIT];
        let len = rustix::fs::listxattr(path, &mut large[..])?;
        Ok(split(&large[..len]))
    })
}

fn split(names: &[u8]) -> Vec<OsString> {
    names
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect()
}

/// Writes one value; `flags` as of setxattr(2).
pub(crate) fn set(
    fd: BorrowedFd<'_>,
    name: &OsStr,
    value: &[u8],
    flags: XattrFlags,
) -> Result<(), Errno> {
    with_proc_path(fd, |path| rustix::fs::setxattr(path, name, value, flags))
}

/// As [`set`], of an open file.
pub(crate) fn set_open(
    file: BorrowedFd<'_>,
    name: &OsStr,
    value: &[u8],
    flags: XattrFlags,
) -> Result<(), Errno> {
    rustix::fs::fsetxattr(file, name, value, flags)
}

/// Removes one attribute.
pub(crate) fn remove(fd: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    with_proc_path(fd, |path| rustix::fs::removexattr(path, name))
}

/// Removes one attribute if it is there.
pub(crate) fn remove_if_present(fd: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match remove(fd, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// True for the ACL attributes, which the file system keeps in step with the mode.
pub(crate) fn is_acl(name: &OsStr) -> bool {
    matches!(
        name.as_bytes(),
        b"system.posix_acl_access" | b"system.posix_acl_default"
    )
}
