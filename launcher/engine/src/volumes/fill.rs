//! A new volume gets what the image has in its place: owners, modes, times, attributes and hard links included.
//!
//! What is there already is left alone, and a file gets its name only when it is whole, so that a fill that was killed is
//! simply done again.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use mille_layer::Ownership;
use mille_union::{Attr, ListedEntry, NodeRef, View, resolve_path};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::files;

/// Deepest tree that is copied: one descriptor each.
const MAX_DEPTH: usize = 256;
/// Name of a file that is not whole yet. A volume is filled by one process at a time.
const ASIDE: &str = ".mille-filling";

/// Finds the directory of the image that lies where the volume is to be; `None`: there is none.
///
/// # Errors
/// Docker's text for a file there.
pub(super) fn source(view: &View, destination: &Path) -> Result<Option<NodeRef>> {
    match resolve_path(view, destination, true) {
        Ok(node) if node.is_dir() => Ok(Some(node)),
        Ok(_) => Err(Error::Invalid(format!(
            "cannot mount volume over existing file, file exists {}",
            destination.display()
        ))),
        Err(mille_union::Error::Os {
            source: Errno::NOENT | Errno::NOTDIR | Errno::LOOP,
            ..
        }) => Ok(None),
        Err(error) => Err(Error::Union(error)),
    }
}

/// Copies what is in a directory of the image, and its own attributes, into the directory `target`.
///
/// # Errors
/// An unreadable layer, a full disk.
pub(super) fn copy(
    view: &View,
    source: &NodeRef,
    target: &Path,
    ownership: Ownership,
) -> Result<()> {
    let top = files::open_directory(target)?;
    let copier = Copier {
        view,
        top: top.as_fd(),
        shown: target,
        ownership,
        first_names: HashMap::new(),
    };
    copier.tree(source, &top)
}

/// One directory that is being copied.
struct Open {
    fd: OwnedFd,
    path: PathBuf,
    node: NodeRef,
    attr: Attr,
    left: std::vec::IntoIter<ListedEntry>,
}

struct Copier<'a> {
    view: &'a View,
    top: BorrowedFd<'a>,
    shown: &'a Path,
    ownership: Ownership,
    /// Of objects with several names: the first that was made, below the top.
    first_names: HashMap<u64, PathBuf>,
}

impl Copier<'_> {
    fn tree(mut self, source: &NodeRef, top: &OwnedFd) -> Result<()> {
        let fd = rustix::io::fcntl_dupfd_cloexec(top, 3)
            .map_err(|errno| self.failed("copy", Path::new(""), errno))?;
        let attr = self.view.attr(source).map_err(Error::Union)?;
        let mut stack = vec![self.opened(fd, PathBuf::new(), source.clone(), attr)?];
        while let Some(here) = stack.last_mut() {
            let Some(entry) = here.left.next() else {
                if let Some(done) = stack.pop() {
                    // Times last: what was made inside has changed them.
                    self.dress(&done.fd, &done.path, &done.node, &done.attr)?;
                }
                continue;
            };
            let path = here.path.join(&entry.name);
            let made = self.make(here.fd.as_fd(), &path, &entry);
            let inner = made.map_err(|errno| self.failed("copy", &path, errno))?;
            if let Some(fd) = inner {
                if stack.len() >= MAX_DEPTH {
                    return Err(self.failed("copy", &path, Errno::NAMETOOLONG));
                }
                stack.push(self.opened(fd, path, entry.node, entry.attr)?);
            }
        }
        Ok(())
    }

    fn failed(&self, operation: &'static str, path: &Path, errno: Errno) -> Error {
        Error::io(operation, &self.shown.join(path))(errno.into())
    }

    fn opened(&self, fd: OwnedFd, path: PathBuf, node: NodeRef, attr: Attr) -> Result<Open> {
        let left = self.view.list(&node).map_err(Error::Union)?.into_iter();
        Ok(Open {
            fd,
            path,
            node,
            attr,
            left,
        })
    }

    /// Makes one entry; a directory is returned to be filled.
    fn make(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &Path,
        entry: &ListedEntry,
    ) -> std::result::Result<Option<OwnedFd>, Errno> {
        let (name, attr) = (&entry.name, &entry.attr);
        if attr.kind == FileType::Directory {
            match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return rustix::fs::openat(parent, name, flags, Mode::empty()).map(Some);
        }
        if attr.nlink > 1 {
            if let Some(first) = self.first_names.get(&attr.ino) {
                return self.link(first, parent, name).map(|()| None);
            }
            self.first_names.insert(attr.ino, path.to_owned());
        }
        if rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(None);
        }
        match attr.kind {
            FileType::RegularFile => self.file(parent, name, entry)?,
            FileType::Symlink => {
                let target = self.view.read_link(&entry.node).map_err(|_| Errno::IO)?;
                rustix::fs::symlinkat(target, parent, name)?;
                self.own(parent, name, attr)?;
                set_times(parent, name, attr)?;
            }
            // Sockets mean nothing without their listener.
            FileType::Socket => {}
            _ => self.node(parent, name, attr)?,
        }
        Ok(None)
    }

    /// Gives an object that was made one more name. A container that runs on the volume may put links in the way: none is
    /// followed.
    fn link(
        &self,
        first: &Path,
        parent: BorrowedFd<'_>,
        name: &OsStr,
    ) -> std::result::Result<(), Errno> {
        let directory = first.parent().filter(|path| !path.as_os_str().is_empty());
        let directory = rustix::fs::openat2(
            self.top,
            directory.unwrap_or(Path::new(".")),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )?;
        let first = first.file_name().unwrap_or_default();
        match rustix::fs::linkat(&directory, first, parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn file(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &ListedEntry,
    ) -> std::result::Result<(), Errno> {
        // What a killed fill left.
        match rustix::fs::unlinkat(parent, ASIDE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(parent, ASIDE, flags, Mode::RUSR | Mode::WUSR)?;
        let mut from = self.view.open_read(&entry.node).map_err(|_| Errno::IO)?;
        let mut to = File::from(fd);
        io::copy(&mut from, &mut to)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let attributes = self.view.xattrs(&entry.node).map_err(|_| Errno::IO)?;
        self.attributes(to.as_fd(), &entry.attr, &attributes)?;
        rustix::fs::renameat(parent, ASIDE, parent, name)
    }

    fn node(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        attr: &Attr,
    ) -> std::result::Result<(), Errno> {
        let mode = Mode::from_raw_mode(attr.mode);
        match rustix::fs::mknodat(parent, name, attr.kind, mode, attr.rdev) {
            // A user namespace may not make devices; no container of it could open one.
            Err(Errno::PERM) => return Ok(()),
            other => other?,
        }
        self.own(parent, name, attr)?;
        // By descriptor, since chmod(2) follows links and the name may be one by now.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&made)?.st_mode) != attr.kind {
            return Err(Errno::STALE);
        }
        rustix::fs::chmod(format!("/proc/self/fd/{}", made.as_raw_fd()), mode)?;
        set_times(parent, name, attr)
    }

    fn own(
        &self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        attr: &Attr,
    ) -> std::result::Result<(), Errno> {
        if self.ownership == Ownership::Override {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid));
        rustix::fs::chownat(
            parent,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
    }

    /// Gives a directory its attributes.
    fn dress(&self, fd: &OwnedFd, path: &Path, node: &NodeRef, attr: &Attr) -> Result<()> {
        let attributes = self.view.xattrs(node).map_err(Error::Union)?;
        self.attributes(fd.as_fd(), attr, &attributes)
            .map_err(|errno| self.failed("set the attributes of", path, errno))
    }

    /// Owner first, since a change of it takes set-id bits and capabilities away.
    fn attributes(
        &self,
        fd: BorrowedFd<'_>,
        attr: &Attr,
        attributes: &[(OsString, Vec<u8>)],
    ) -> std::result::Result<(), Errno> {
        if self.ownership == Ownership::Real {
            let (uid, gid) = (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid));
            rustix::fs::fchown(fd, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(fd, Mode::from_raw_mode(attr.mode))?;
        for (name, value) in attributes {
            match rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()) {
                // The disk has no attributes of this kind, or an ordinary user may not give them.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        rustix::fs::futimens(fd, &times(attr))
    }
}

fn times(attr: &Attr) -> Timestamps {
    let spec = |time: mille_union::Time| Timespec {
        tv_sec: time.sec,
        tv_nsec: i64::from(time.nsec),
    };
    Timestamps {
        last_access: spec(attr.atime),
        last_modification: spec(attr.mtime),
    }
}

fn set_times(parent: BorrowedFd<'_>, name: &OsStr, attr: &Attr) -> std::result::Result<(), Errno> {
    rustix::fs::utimensat(parent, name, &times(attr), AtFlags::SYMLINK_NOFOLLOW)
}

/// Returns what a tree takes, in bytes as its files' lengths; nothing for one that is not there. Links are not followed.
///
/// # Errors
/// A directory that cannot be read.
pub(super) fn size(top: &Path) -> Result<u64> {
    let mut bytes = 0;
    let mut left = vec![top.to_path_buf()];
    let mut seen = std::collections::HashSet::new();
    while let Some(directory) = left.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read", &directory)(error)),
        };
        for entry in entries {
            let path = entry.map_err(Error::io("read", &directory))?.path();
            let stat = match rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(Error::io("stat", &path)(errno.into())),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => left.push(path),
                FileType::RegularFile if seen.insert((stat.st_dev, stat.st_ino)) => {
                    bytes += u64::try_from(stat.st_size).unwrap_or(0);
                }
                _ => {}
            }
        }
    }
    Ok(bytes)
}
