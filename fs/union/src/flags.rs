//! The flags of chattr(1): those of the object that gives a node its attributes. What a lower layer has as immutable or
//! append-only is not changed, nor by way of a copy; the upper's file system sees to its own objects.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::copyup::Need;
use crate::error::{Context, Error, Result};
use crate::node::NodeRef;
use crate::sys::flags;
use crate::view::View;

impl View {
    /// Flags as `FS_IOC_GETFLAGS` has them.
    ///
    /// # Errors
    /// `ENOTTY` for what is no file or directory or where the layer's file system has no flags.
    pub(crate) fn flags(&self, node: &NodeRef) -> Result<u32> {
        require_flags(node)?;
        flags::get(self.object(node)?.as_fd()).op("get flags")
    }

    /// As [`Self::flags`], as `FS_IOC_FSGETXATTR` has them.
    ///
    /// # Errors
    /// As [`Self::flags`].
    pub(crate) fn extended_flags(&self, node: &NodeRef) -> Result<flags::Extended> {
        require_flags(node)?;
        flags::get_extended(self.object(node)?.as_fd()).op("get flags")
    }

    /// Sets the flags that `FS_IOC_SETFLAGS` can set.
    ///
    /// # Errors
    /// `EROFS`, `EPERM`, `EOPNOTSUPP` for flags that the upper's file system does not have, or a failed copy-up.
    pub(crate) fn set_flags(&self, node: &NodeRef, wanted: u32) -> Result<()> {
        self.require_writable("set flags")?;
        require_flags(node)?;
        // The one change that a fixed object allows is to be fixed no longer.
        self.copy_up(node, Need::Attributes)?;
        let handle = self
            .upper_object(node)?
            .ok_or(Error::refused("set flags", Errno::STALE))?;
        flags::set(handle.as_fd(), wanted).op("set flags")
    }
}

impl View {
    /// Refuses to change something that is only in a lower layer and may not be changed there.
    ///
    /// # Errors
    /// `EPERM`, or a failed system call.
    pub(crate) fn require_changeable(&self, node: &NodeRef, op: &'static str) -> Result<()> {
        if node.in_upper() {
            return Ok(());
        }
        let nothing = StatxFlags::empty();
        let statx = if let Some(file) = node.stack.file() {
            let dir = self.lower_dir(&file.place)?;
            let dir = dir.ok_or(Error::refused(op, Errno::STALE))?;
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
            rustix::fs::statx(&dir, &*file.name, flags, nothing)
        } else {
            let object = self.object(node)?;
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
            rustix::fs::statx(&object, c"", flags, nothing)
        };
        let statx = statx.op(op)?;
        let fixed = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
        if statx.stx_attributes.intersects(fixed) {
            return Err(Error::refused(op, Errno::PERM));
        }
        Ok(())
    }
}

fn require_flags(node: &NodeRef) -> Result<()> {
    match node.kind {
        FileType::RegularFile | FileType::Directory => Ok(()),
        _ => Err(Error::refused("flags", Errno::NOTTY)),
    }
}
