//! Reading the marks of one object in one call, where the layer crate's single reads would cost one call each.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use mille_layer::resolve::Redirect;
use mille_layer::{Dialects, Mark, MarkSpace, Opaque};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::error::Context;
use crate::error::{Error, Result};
use crate::sys::{open, xattr};

/// Marks on a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct DirMarks {
    pub(crate) opaque: Opaque,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) implied: bool,
}

/// Marks on anything else.
#[derive(Debug, Default)]
pub(crate) struct FileMarks {
    pub(crate) metacopy: bool,
    pub(crate) redirect: Option<Redirect>,
    /// The inode number the object had before it was copied up.
    pub(crate) origin: Option<u64>,
}

/// Name of our own mark, after the family's prefix: the inode number an object had before copy-up, decimal digits.
pub(crate) const ORIGIN_NUMBER: &str = "mille.ino";

/// The AUFS and OCI sign of an opaque directory.
const AUFS_OPAQUE: &str = ".wh..wh..opq";

/// True for a character device 0:0.
pub(crate) fn is_whiteout_device(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Reads the marks of a directory known by a handle.
pub(crate) fn dir_marks(dir: BorrowedFd<'_>, dialects: &Dialects) -> Result<DirMarks> {
    let mut marks = DirMarks::default();
    let prefix = dialects.space.prefix().as_bytes();
    for name in xattr::list(dir).op("list marks")? {
        let Some(short) = name.as_bytes().strip_prefix(prefix) else {
            continue;
        };
        let read = || xattr::get(dir, &name).op("read mark");
        match short {
            b"opaque" => {
                marks.opaque = match read()?.as_deref() {
                    Some(b"y") => Opaque::Yes,
                    Some(b"x") => Opaque::XattrWhiteouts,
                    _ => marks.opaque,
                };
            }
            b"redirect" => marks.redirect = parse_redirect(read()?)?,
            b"implied" => marks.implied = read()?.as_deref() == Some(b"y"),
            _ => {}
        }
    }
    if dialects.aufs
        && open::stat_name(dir, AUFS_OPAQUE.as_ref())
            .op("read marks")?
            .is_some()
    {
        marks.opaque = Opaque::Yes;
    }
    Ok(marks)
}

/// Reads the marks of something that is no directory.
pub(crate) fn file_marks(object: BorrowedFd<'_>, space: MarkSpace) -> Result<FileMarks> {
    let mut marks = FileMarks::default();
    let prefix = space.prefix().as_bytes();
    for name in xattr::list(object).op("list marks")? {
        let Some(short) = name.as_bytes().strip_prefix(prefix) else {
            continue;
        };
        let read = || xattr::get(object, &name).op("read mark");
        if short == b"metacopy" {
            marks.metacopy = true;
        } else if short == b"redirect" {
            marks.redirect = parse_redirect(read()?)?;
        } else if short == ORIGIN_NUMBER.as_bytes() {
            marks.origin = read()?
                .and_then(|digits| String::from_utf8(digits).ok())
                .and_then(|digits| digits.parse().ok());
        }
    }
    Ok(marks)
}

/// A redirect that cannot be understood makes its object unusable, as with the kernel: guessing would show wrong data.
fn parse_redirect(value: Option<Vec<u8>>) -> Result<Option<Redirect>> {
    match value {
        None => Ok(None),
        Some(value) => Redirect::parse(&value)
            .map(Some)
            .ok_or(Error::refused("read redirect", Errno::IO)),
    }
}

/// Full name of a mark.
pub(crate) fn mark_name(space: MarkSpace, mark: Mark) -> &'static OsStr {
    OsStr::from_bytes(space.name(mark).to_bytes())
}
