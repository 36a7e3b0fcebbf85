//! All marks of one object at once: one call lists them, where reading each would cost a call even if it is not there.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::{AUFS_OPAQUE, Dialects, Mark, MarkSpace, Opaque, parse_redirect};
use crate::resolve::Redirect;
use crate::xattr;

/// Marks on a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirMarks {
    /// Whether it hides the layers below.
    pub opaque: Opaque,
    /// Where the layers below know it.
    pub redirect: Option<Redirect>,
    /// It was made by extraction, not by its tar.
    pub implied: bool,
}

/// Marks on anything else.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FileMarks {
    /// Its data is below.
    pub metacopy: bool,
    /// Where the layers below know it.
    pub redirect: Option<Redirect>,
    /// The inode number it had before it was copied up.
    pub ino: Option<u64>,
}

/// Reads the marks of the directory `dir` (any kind of descriptor).
///
/// # Errors
/// An attribute cannot be read, or a redirect is malformed (`InvalidData`): guessing would show wrong data.
pub fn dir_marks(dir: BorrowedFd<'_>, dialects: &Dialects) -> io::Result<DirMarks> {
    let mut marks = DirMarks::default();
    for (mark, name) in present(dir, dialects.space)? {
        let read = || xattr::get_by_name(dir, &name);
        match mark {
            Mark::Opaque => marks.opaque = Opaque::of(read()?.as_deref()),
            Mark::Redirect => {
                marks.redirect = read()?.map(|value| parse_redirect(&value)).transpose()?;
            }
            Mark::Implied => marks.implied = read()?.as_deref() == Some(b"y"),
            _ => {}
        }
    }
    if marks.opaque != Opaque::Yes && dialects.aufs && has_aufs_opaque(dir)? {
        marks.opaque = Opaque::Yes;
    }
    Ok(marks)
}

/// Reads the marks of `object` (any kind of descriptor), which is no directory.
///
/// # Errors
/// As [`dir_marks`].
pub fn file_marks(object: BorrowedFd<'_>, space: MarkSpace) -> io::Result<FileMarks> {
    let mut marks = FileMarks::default();
    for (mark, name) in present(object, space)? {
        let read = || xattr::get_by_name(object, &name);
        match mark {
            Mark::Metacopy => marks.metacopy = true,
            Mark::Redirect => {
                marks.redirect = read()?.map(|value| parse_redirect(&value)).transpose()?;
            }
            Mark::Ino => {
                // A courtesy: of a file that an ordinary user may not read it is not known.
                marks.ino = read()
                    .ok()
                    .flatten()
                    .and_then(|digits| String::from_utf8(digits).ok())
                    .and_then(|digits| digits.parse().ok());
            }
            _ => {}
        }
    }
    Ok(marks)
}

/// The marks that an object has, with their attributes' names.
fn present(object: BorrowedFd<'_>, space: MarkSpace) -> io::Result<Vec<(Mark, OsString)>> {
    let prefix = space.prefix().as_bytes();
    let mut found = Vec::new();
    for name in xattr::names(object, None)? {
        let Some(short) = name.as_bytes().strip_prefix(prefix) else {
            continue;
        };
        if let Some(mark) = Mark::of_short_name(short) {
            found.push((mark, name));
        }
    }
    Ok(found)
}

/// Whether the AUFS and OCI sign of an opaque directory stands in `dir`.
pub(super) fn has_aufs_opaque(dir: BorrowedFd<'_>) -> io::Result<bool> {
    match statat(dir, AUFS_OPAQUE, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
