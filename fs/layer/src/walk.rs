//! A layer directory, visited in order; and written as a tar where there is no header stream to replay.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, FileType, OFlags, Stat, fstat, major, minor, readlinkat, statat};

use crate::encode::{EncodeError, Encoder, Entry, Kind, Time};
use crate::extract::EntryName;
use crate::marks::{
    self, Dialects, Listed, ListedKind, Mark, Opaque, apply_override, is_internal_xattr,
};
use crate::path::{join, open_beneath};
use crate::resolve::Redirect;
use crate::xattr::{self, Xattrs};

/// One thing in a layer.
#[derive(Debug)]
pub struct Item {
    /// Path from the layer's root, no leading slash; empty for the root.
    pub path: Vec<u8>,
    /// What stands there.
    pub what: What,
}

/// What a layer has at a path.
#[derive(Debug)]
pub enum What {
    /// The name is deleted.
    Whiteout,
    /// An object.
    Object(Box<Object>),
}

/// An object of a layer, with all that is known without its content.
#[derive(Debug)]
pub struct Object {
    /// Attributes, overrides applied.
    pub stat: Stat,
    /// A directory that hides what is below.
    pub opaque: bool,
    /// A directory that extraction made without a tar entry.
    pub implied: bool,
    /// Its data is in a layer below.
    pub metacopy: bool,
    /// Where the layers below know it.
    pub redirect: Option<Redirect>,
    /// Target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// Extended attributes without internal ones, sorted by name.
    pub xattrs: Xattrs,
}

/// Why a layer could not be walked.
#[derive(Debug, thiserror::Error)]
#[error("layer entry {path}: {operation}")]
pub struct WalkError {
    /// Path in the layer.
    pub path: EntryName,
    /// What was tried.
    pub operation: &'static str,
    /// Cause.
    #[source]
    pub source: io::Error,
}

/// Iterates over a layer: the root first, then depth first, names sorted by bytes, a directory before what is in it.
///
/// Holds no descriptor between steps but the root's.
#[derive(Debug)]
pub struct Walk<'a> {
    root: BorrowedFd<'a>,
    dialects: Dialects,
    /// What is still to be visited, the next one last.
    waiting: Vec<Item>,
    failed: Option<WalkError>,
}

impl<'a> Walk<'a> {
    /// Starts at the root of a layer.
    #[must_use]
    pub fn new(root: BorrowedFd<'a>, dialects: &Dialects) -> Walk<'a> {
        let mut walk = Walk {
            root,
            dialects: *dialects,
            waiting: Vec::new(),
            failed: None,
        };
        match walk.root_item() {
            Ok(item) => walk.waiting.push(item),
            Err(error) => walk.failed = Some(error),
        }
        walk
    }

    fn root_item(&self) -> Result<Item, WalkError> {
        let operation = |source: io::Error| fault(b"", "read root", source);
        let mut stat = fstat(self.root).map_err(|error| operation(error.into()))?;
        apply_override(self.root, None, &mut stat, &self.dialects).map_err(operation)?;
        let object = self.object(self.root, None, stat, b"")?;
        Ok(Item {
            path: Vec::new(),
            what: What::Object(Box::new(object)),
        })
    }

    /// Puts what is in the directory `path` on the waiting list.
    fn enter(&mut self, path: &[u8]) -> Result<(), WalkError> {
        let failed = |operation| move |source: io::Error| fault(path, operation, source);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = open_beneath(self.root, path, flags)
            .map_err(|error| fault(path, "open directory", error.into()))?;
        let opaque = marks::opaque(dir.as_fd(), &self.dialects).map_err(failed("read marks"))?;
        let mut listed =
            marks::list(dir.as_fd(), opaque, &self.dialects).map_err(failed("list directory"))?;
        listed.sort_by(|a, b| b.name.cmp(&a.name));
        for Listed { name, kind, .. } in listed {
            let child = join(path, name.as_bytes());
            let what = match kind {
                ListedKind::Whiteout => What::Whiteout,
                ListedKind::Object(_) => {
                    let mut stat = statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)
                        .map_err(|error| fault(&child, "stat", error.into()))?;
                    apply_override(dir.as_fd(), Some(&name), &mut stat, &self.dialects)
                        .map_err(|source| fault(&child, "read ownership", source))?;
                    let object = self.object(dir.as_fd(), Some(&name), stat, &child)?;
                    What::Object(Box::new(object))
                }
            };
            self.waiting.push(Item { path: child, what });
        }
        Ok(())
    }

    fn object(
        &self,
        dir: BorrowedFd<'_>,
        name: Option<&OsStr>,
        stat: Stat,
        path: &[u8],
    ) -> Result<Object, WalkError> {
        let failed = |source| fault(path, "read extended attributes", source);
        let space = self.dialects.space;
        let mut names = xattr::names(dir, name).map_err(failed)?;
        names.sort();
        let has = |mark: Mark| {
            names
                .iter()
                .any(|n| n.as_bytes() == space.name(mark).to_bytes())
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mut opaque = false;
        if is_dir && (has(Mark::Opaque) || self.dialects.aufs) {
            opaque = match name {
                None => marks::opaque(dir, &self.dialects),
                Some(name) => open_beneath(dir, name.as_bytes(), crate::path::BASE)
                    .map_err(io::Error::from)
                    .and_then(|child| marks::opaque(child.as_fd(), &self.dialects)),
            }
            .map_err(failed)?
                == Opaque::Yes;
        }
        let implied =
            is_dir && has(Mark::Implied) && marks::implied(dir, name, space).map_err(failed)?;
        let metacopy = has(Mark::Metacopy);
        let redirect = match has(Mark::Redirect) {
            true => marks::redirect(dir, name, space).map_err(failed)?,
            false => None,
        };
        let mut target = None;
        if let (FileType::Symlink, Some(name)) = (FileType::from_raw_mode(stat.st_mode), name) {
            let read = readlinkat(dir, name, Vec::new());
            let read = read.map_err(|error| fault(path, "read symbolic link", error.into()))?;
            target = Some(read.into_bytes());
        }
        let xattrs = read_xattrs(dir, name, names).map_err(failed)?;
        Ok(Object {
            stat,
            opaque,
            implied,
            metacopy,
            redirect,
            target,
            xattrs,
        })
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Item, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.waiting.clear();
            return Some(Err(error));
        }
        let item = self.waiting.pop()?;
        if let What::Object(object) = &item.what
            && FileType::from_raw_mode(object.stat.st_mode) == FileType::Directory
            && let Err(error) = self.enter(&item.path)
        {
            // The directory itself is still given; the error comes next and is the last.
            self.failed = Some(error);
        }
        Some(Ok(item))
    }
}

fn fault(path: &[u8], operation: &'static str, source: io::Error) -> WalkError {
    WalkError {
        path: EntryName(path.to_vec()),
        operation,
        source,
    }
}

/// The values of all attributes that belong to the container.
fn read_xattrs(
    dir: BorrowedFd<'_>,
    name: Option<&OsStr>,
    names: Vec<OsString>,
) -> io::Result<Xattrs> {
    let mut xattrs = Vec::new();
    for attribute in names {
        if is_internal_xattr(&attribute) {
            continue;
        }
        let attribute = attribute.into_vec();
        // Names come from the kernel: they have no NUL.
        let Ok(key) = std::ffi::CString::new(attribute.as_slice()) else {
            continue;
        };
        if let Some(value) = xattr::get(dir, name, &key)? {
            xattrs.push((attribute, value));
        }
    }
    Ok(xattrs)
}

/// Opens a regular file of a layer for reading; no symbolic link is followed.
///
/// # Errors
/// Whatever the kernel says; `InvalidInput` for anything but a regular file.
pub fn open_file(layer: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = open_beneath(layer, path, flags)?;
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    Ok(File::from(fd))
}

/// Why a layer could not be written as a tar.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// Reading the layer gave an error.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// Writing the tar gave an error.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The object needs the layers below: it has a redirect, or its data is there.
    #[error("layer entry {path} refers to a layer below")]
    NotAlone {
        /// Path in the layer.
        path: EntryName,
    },
    /// A file could not be opened.
    #[error("open layer file {path}")]
    Open {
        /// Path in the layer.
        path: EntryName,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Writes a whole layer directory into `encoder`, in OCI form: whiteouts as `.wh.` files. The root is written as `./`
/// unless it is implied; implied directories are not written, sockets neither (no tar can hold them). Hard links inside
/// the layer stay hard links.
///
/// # Errors
/// See [`TarError`]; the tar is then unusable.
pub fn write_tar<W: Write>(
    layer: BorrowedFd<'_>,
    dialects: &Dialects,
    encoder: &mut Encoder<W>,
) -> Result<(), TarError> {
    let mut links: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    for item in Walk::new(layer, dialects) {
        let Item { path, what } = item?;
        match what {
            What::Whiteout => encoder.append_whiteout(&path)?,
            What::Object(object) => {
                write_object(layer, &path, &object, &mut links, encoder)?;
                if object.opaque {
                    encoder.append_opaque(&path)?;
                }
            }
        }
    }
    Ok(())
}

fn write_object<W: Write>(
    layer: BorrowedFd<'_>,
    path: &[u8],
    object: &Object,
    links: &mut HashMap<(u64, u64), Vec<u8>>,
    encoder: &mut Encoder<W>,
) -> Result<(), TarError> {
    let shown = || EntryName(path.to_vec());
    if object.metacopy || object.redirect.is_some() {
        return Err(TarError::NotAlone { path: shown() });
    }
    let stat = &object.stat;
    let file_type = FileType::from_raw_mode(stat.st_mode);
    let mut kind = match file_type {
        FileType::Directory if object.implied => return Ok(()),
        FileType::Directory => Kind::Dir,
        FileType::RegularFile => Kind::File {
            size: u64::try_from(stat.st_size).unwrap_or(0),
        },
        FileType::Symlink => Kind::Symlink(object.target.as_deref().unwrap_or_default()),
        FileType::CharacterDevice => Kind::Char {
            major: major(stat.st_rdev),
            minor: minor(stat.st_rdev),
        },
        FileType::BlockDevice => Kind::Block {
            major: major(stat.st_rdev),
            minor: minor(stat.st_rdev),
        },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket | FileType::Unknown => {
            log::debug!("{} is a socket and is not written to the tar", shown());
            return Ok(());
        }
    };
    let first;
    if file_type != FileType::Directory && stat.st_nlink > 1 {
        match links.get(&(stat.st_dev, stat.st_ino)) {
            Some(path) => {
                first = path.clone();
                kind = Kind::Hardlink(&first);
            }
            None => {
                links.insert((stat.st_dev, stat.st_ino), path.to_vec());
            }
        }
    }
    let entry = Entry {
        path: if path.is_empty() { b"." } else { path },
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Time {
            sec: stat.st_mtime,
            nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
        xattrs: if matches!(kind, Kind::Hardlink(_)) {
            &[]
        } else {
            &object.xattrs
        },
    };
    if matches!(kind, Kind::File { size } if size > 0) {
        let opened = open_file(layer, path);
        let file = opened.map_err(|source| TarError::Open {
            path: shown(),
            source,
        })?;
        encoder.append(&entry, file)?;
    } else {
        encoder.append(&entry, io::empty())?;
    }
    Ok(())
}
