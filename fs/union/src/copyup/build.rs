//! Building the copy of an object in the work directory.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mille_layer::{Mark, OverrideStat, Ownership, shown_xattr};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::{Need, data};
use crate::error::{Context, Error, Result};
use crate::node::{NodeRef, UpperObject};
use crate::ownership::{is_null_device, stored_mode, told_kind};
use crate::sys::{object, open, xattr};
use crate::traces::Trace;
use crate::view::View;
use crate::work::{Temp, Work};

impl View {
    /// Builds the copy of a node that is not in the upper yet.
    pub(super) fn build_copy<'w>(
        &self,
        work: &'w Work,
        node: &NodeRef,
        need: Need,
    ) -> Result<(Temp<'w>, UpperObject)> {
        let stat = self.object_stat(node)?;
        let source = self.object(node)?;
        let temp = work.fresh_temp();
        let (copy, metacopy) = self.make_copy(work, &temp.name, node, &stat, need)?;
        self.copy_attributes(&copy, source.as_fd(), node, &stat, metacopy)?;
        let made = rustix::fs::fstat(copy.as_fd()).op("copy up")?;
        let object = UpperObject {
            dev: made.st_dev,
            ino: made.st_ino,
            metacopy,
            orphan: None,
        };
        Ok((temp, object))
    }

    /// Makes the object itself. Also says whether its data stays below.
    fn make_copy(
        &self,
        work: &Work,
        name: &OsStr,
        node: &NodeRef,
        stat: &Stat,
        need: Need,
    ) -> Result<(Copy, bool)> {
        match node.kind {
            FileType::Directory => {
                rustix::fs::mkdirat(work.fd(), name, PRIVATE_DIR).op("copy up directory")?;
            }
            FileType::Symlink => {
                let target = self.read_link(node)?;
                rustix::fs::symlinkat(&target, work.fd(), name).op("copy up symbolic link")?;
            }
            FileType::RegularFile => {
                let (file, metacopy) = self.copy_file(work, name, node, stat, need)?;
                return Ok((Copy::Open(file), metacopy));
            }
            kind => self.make_special(work.fd(), name, kind, stat.st_rdev)?,
        }
        let handle = self.retry_short_of_fds(|| open::handle(work.fd(), name));
        Ok((Copy::Handle(handle.op("copy up")?), false))
    }

    fn copy_file(
        &self,
        work: &Work,
        name: &OsStr,
        node: &NodeRef,
        stat: &Stat,
        need: Need,
    ) -> Result<(OwnedFd, bool)> {
        let file = self.make_private(work, name)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let length = match need {
            Need::Attributes if self.features.metacopy && size > 0 => {
                rustix::fs::ftruncate(&file, size).op("copy up file")?;
                return Ok((file, true));
            }
            Need::Attributes => size,
            Need::Data(limit) => size.min(limit),
        };
        if length > 0 {
            let source = self.open_data(node, OFlags::RDONLY)?;
            data::copy(source.fd.as_fd(), file.as_fd(), length).op("copy up data")?;
            self.check_unchanged(node, source.fd.as_fd())?;
            if !self.features.volatile {
                rustix::fs::fsync(&file).op("copy up data")?;
            }
        }
        Ok((file, false))
    }

    /// An empty file in the work directory.
    pub(super) fn make_private(&self, work: &Work, name: &OsStr) -> Result<OwnedFd> {
        self.retry_short_of_fds(|| create_private(work.fd(), name))
            .op("copy up file")
    }

    /// Gives an open copy of a regular file, which will have data of its own, all attributes.
    pub(super) fn copy_open_attributes(
        &self,
        file: OwnedFd,
        node: &NodeRef,
        stat: &Stat,
    ) -> Result<OwnedFd> {
        let copy = Copy::Open(file);
        let source = self.object(node)?;
        self.copy_attributes(&copy, source.as_fd(), node, stat, false)?;
        let (Copy::Open(file) | Copy::Handle(file)) = copy;
        Ok(file)
    }

    /// A layer that is not ours may have changed while it was copied.
    fn check_unchanged(&self, node: &NodeRef, source: BorrowedFd<'_>) -> Result<()> {
        let Some(file) = node.stack.file() else {
            return Ok(());
        };
        if !self.lowers[usize::from(file.layer())].mutable {
            return Ok(());
        }
        let opened = rustix::fs::fstat(source).op("copy up")?;
        let named = self.lower_stat(file)?;
        if (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino) {
            Ok(())
        } else {
            Err(Error::refused(
                "copy up (the layer changed meanwhile)",
                Errno::STALE,
            ))
        }
    }

    /// Owner, extended attributes, marks, mode and times, in the order in which none undoes another: changing the owner
    /// clears set-id bits and file capabilities, and every one of these changes the times.
    fn copy_attributes(
        &self,
        copy: &Copy,
        source: BorrowedFd<'_>,
        node: &NodeRef,
        stat: &Stat,
        metacopy: bool,
    ) -> Result<()> {
        let symlink = node.kind == FileType::Symlink;
        self.set_ownership(copy, node.kind, stat)?;
        for name in xattr::list(source).op("copy up attributes")? {
            // A list limits a stored mode that nobody sees.
            let meaningless = self.ownership == Ownership::Override && xattr::is_acl(&name);
            if shown_xattr(&name).is_none() || meaningless {
                continue;
            }
            if let Some(value) = xattr::get(source, &name).op("copy up attributes")? {
                copy_xattr(copy, &name, &value)?;
            }
        }
        if metacopy {
            self.require_writable("copy up")?.note(Trace::Metacopy)?;
            let name = self.space.os_name(Mark::Metacopy);
            copy.set_xattr(name, b"").op("mark metadata-only copy")?;
        }
        if !node.is_dir() {
            self.mark_origin(copy, node.ino);
        }
        if !symlink {
            let mode = match self.ownership {
                Ownership::Real => stat.st_mode & 0o7777,
                Ownership::Override => stored_mode(node.kind),
            };
            if self.ownership == Ownership::Real || node.kind != FileType::RegularFile {
                copy.set_mode(mode).op("copy up mode")?;
            }
        }
        object::set_times(copy.as_fd(), &object::times_of(stat)).op("copy up times")
    }

    /// Gives a new object its owner; under [`Ownership::Override`] its mode and kind as well.
    fn set_ownership(&self, copy: &Copy, kind: FileType, stat: &Stat) -> Result<()> {
        let stored = match copy {
            Copy::Open(_) => FileType::RegularFile,
            Copy::Handle(handle) => {
                let stored = rustix::fs::fstat(handle).op("copy up owner")?;
                FileType::from_raw_mode(stored.st_mode)
            }
        };
        let copy = copy.as_fd();
        let told = OverrideStat {
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            kind: told_kind(kind, stat.st_rdev).filter(|_| stored == FileType::RegularFile),
        };
        if self.ownership == Ownership::Override {
            if stored == FileType::Symlink {
                return Ok(());
            }
            return told.set(copy, None).op("copy up owner");
        }
        object::set_owner(copy, Some(stat.st_uid), Some(stat.st_gid)).op("copy up owner")?;
        if stored != kind {
            self.stand_for(copy, &told).op("copy up device")?;
        }
        Ok(())
    }

    /// Makes a device, fifo or socket; where that is not allowed or would be a whiteout, the empty file that stands for
    /// it.
    pub(crate) fn make_special(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        kind: FileType,
        rdev: u64,
    ) -> Result<()> {
        if self.ownership == Ownership::Real && !is_null_device(kind, rdev) {
            match rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, rdev) {
                Err(Errno::PERM) if self.dialects.overrides => {}
                other => return other.op("make special file"),
            }
        }
        create_private(dir, name).op("make special file")?;
        Ok(())
    }

    /// Notes the inode number under which the object has been seen, for the next mount. Symbolic links and special files
    /// cannot carry it in the `user.` family: they keep their number only during this mount.
    fn mark_origin(&self, copy: &Copy, ino: u64) {
        let name = self.space.os_name(Mark::Ino);
        let digits = ino.to_string();
        let set = copy.set_xattr(name, digits.as_bytes());
        if let Err(errno) = set {
            log::debug!("inode number {ino} not recorded: {errno}");
        }
    }
}

/// A copy that is being built.
enum Copy {
    /// A regular file.
    Open(OwnedFd),
    Handle(OwnedFd),
}

impl AsFd for Copy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Open(fd) | Self::Handle(fd) => fd.as_fd(),
        }
    }
}

impl Copy {
    fn set_mode(&self, mode: u32) -> std::result::Result<(), Errno> {
        match self {
            Self::Open(file) => object::set_mode_open(file.as_fd(), mode),
            Self::Handle(handle) => object::set_mode(handle.as_fd(), mode),
        }
    }

    fn set_xattr(&self, name: &OsStr, value: &[u8]) -> std::result::Result<(), Errno> {
        let flags = XattrFlags::empty();
        match self {
            Self::Open(file) => xattr::set_open(file.as_fd(), name, value, flags),
            Self::Handle(handle) => xattr::set(handle.as_fd(), name, value, flags),
        }
    }
}

const PRIVATE_DIR: Mode = Mode::from_raw_mode(0o700);

fn create_private(dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Copies one attribute. What the upper's file system or our privileges cannot hold is left out only where nothing else
/// depends on it: labels are the security module's own affair, and `trusted.` attributes cannot be seen by anybody in a
/// place where they cannot be set.
fn copy_xattr(copy: &Copy, name: &OsStr, value: &[u8]) -> Result<()> {
    let bytes = name.as_encoded_bytes();
    let set = copy.set_xattr(name, value);
    match set {
        Err(Errno::PERM | Errno::OPNOTSUPP)
            if bytes.starts_with(b"trusted.")
                || bytes.starts_with(b"security.") && bytes != b"security.capability" =>
        {
            Ok(())
        }
        other => other.op("copy up attribute"),
    }
}

/// True if a name is a certain object.
pub(crate) fn same_object(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    dev: u64,
    ino: u64,
) -> std::result::Result<bool, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok((stat.st_dev, stat.st_ino) == (dev, ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
