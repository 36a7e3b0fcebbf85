//! Two directories of one tar: where they differ.
//!
//! Compared is what a container sees, whatever form it is stored in: names, whiteouts, opaque directories, type, mode,
//! owner, size, time, link targets, devices, extended attributes, and which names are one file. Not compared: content
//! (the tar's digest covers it), access times, and what a system adds by itself (labels, access control lists).

use std::collections::HashMap;
use std::fmt;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Stat};

use crate::extract::EntryName;
use crate::marks::{Dialects, Ownership};
use crate::walk::{Item, Object, Walk, WalkError, What};

/// Attributes under this are a program's own, and nobody but programs sets them.
const USER_XATTRS: &[u8] = b"user.";
/// A file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// The first difference of two directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Path in the layer.
    pub path: EntryName,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.0.is_empty() {
            write!(out, "its root {}", self.what)
        } else {
            write!(out, "{} {}", self.path, self.what)
        }
    }
}

/// Why two directories could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompareError {
    /// The directory in question cannot be read.
    #[error(transparent)]
    Tree(WalkError),
    /// The one it should be like cannot be read: this says nothing about the other.
    #[error("compare with a fresh extraction")]
    Fresh(#[source] WalkError),
}

/// Returns the first thing in which `tree` is not as `fresh`, which the same extractor has made of the same tar.
///
/// # Errors
/// One of them cannot be read.
pub fn compare(
    tree: BorrowedFd<'_>,
    fresh: BorrowedFd<'_>,
    dialects: &Dialects,
) -> Result<Option<Difference>, CompareError> {
    let mut found = Walk::new(tree, dialects);
    let mut wanted = Walk::new(fresh, dialects);
    let (mut found_names, mut wanted_names) = (Names::default(), Names::default());
    loop {
        let (is, should) = (found.next().transpose(), wanted.next().transpose());
        // What cannot be read in either (a directory that its owner may not list) is no fault of the tree.
        let should = should.map_err(CompareError::Fresh)?;
        let is = is.map_err(CompareError::Tree)?;
        let difference = match (is, should) {
            (None, None) => return Ok(None),
            (Some(is), None) => Some((is.path, ADDED)),
            (None, Some(should)) => Some((should.path, MISSING)),
            (Some(is), Some(should)) if is.path != should.path => {
                // In the order of walking, which of the two is the one that the other has not?
                if components(&is.path).lt(components(&should.path)) {
                    Some((is.path, ADDED))
                } else {
                    Some((should.path, MISSING))
                }
            }
            (Some(is), Some(should)) => {
                let names = (found_names.first(&is), wanted_names.first(&should));
                let what = differ(&is.what, &should.what, dialects.ownership)
                    .or((names.0 != names.1)
                        .then_some("is a file of its own or another's name, and was not"));
                what.map(|what| (is.path, what))
            }
        };
        if let Some((path, what)) = difference {
            let path = EntryName(path);
            return Ok(Some(Difference { path, what }));
        }
    }
}

const ADDED: &str = "is in none of its entries";
const MISSING: &str = "is missing";

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
}

/// The first name of every file that has several.
#[derive(Default)]
struct Names(HashMap<(u64, u64), Vec<u8>>);

impl Names {
    fn first(&mut self, item: &Item) -> Vec<u8> {
        match &item.what {
            What::Object(object)
                if object.stat.st_nlink > 1 && file_type(&object.stat) != FileType::Directory =>
            {
                let key = (object.stat.st_dev, object.stat.st_ino);
                self.0
                    .entry(key)
                    .or_insert_with(|| item.path.clone())
                    .clone()
            }
            _ => item.path.clone(),
        }
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn differ(is: &What, should: &What, ownership: Ownership) -> Option<&'static str> {
    match (is, should) {
        (What::Whiteout, What::Whiteout) => None,
        (What::Object(is), What::Object(should)) => objects_differ(is, should, ownership),
        (What::Whiteout, What::Object(_)) => Some("is marked as deleted"),
        (What::Object(_), What::Whiteout) => Some("is no longer marked as deleted"),
    }
}

fn objects_differ(is: &Object, should: &Object, ownership: Ownership) -> Option<&'static str> {
    let (a, b) = (&is.stat, &should.stat);
    let kind = file_type(b);
    if file_type(a) != kind {
        return Some("is of another type");
    }
    let device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    // Nobody said to whom an implied directory belongs: its group is that of whoever unpacked it.
    let owner = a.st_uid != b.st_uid || (a.st_gid != b.st_gid && !should.implied);
    let checks = [
        (a.st_mode != b.st_mode, "has another mode"),
        (owner, "has another owner"),
        (
            (a.st_mtime, a.st_mtime_nsec) != (b.st_mtime, b.st_mtime_nsec),
            "has another modification time",
        ),
        (
            kind == FileType::RegularFile && a.st_size != b.st_size,
            "has another size",
        ),
        (device && a.st_rdev != b.st_rdev, "is another device"),
        (is.target != should.target, "points elsewhere"),
        (
            is.opaque != should.opaque || is.implied != should.implied,
            "has lost or gained a mark",
        ),
        (
            is.metacopy != should.metacopy || is.redirect != should.redirect,
            "refers to another layer",
        ),
        (
            !compared(is, ownership).eq(compared(should, ownership)),
            "has other extended attributes",
        ),
    ];
    checks
        .into_iter()
        .find_map(|(wrong, what)| wrong.then_some(what))
}

/// The attributes that stay as they were written. Who has no right to capabilities stores none.
fn compared(object: &Object, ownership: Ownership) -> impl Iterator<Item = &(Vec<u8>, Vec<u8>)> {
    object.xattrs.iter().filter(move |(name, _)| {
        name.starts_with(USER_XATTRS) || (ownership == Ownership::Real && name == CAPABILITY)
    })
}
