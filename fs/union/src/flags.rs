//! The flags of chattr(1): those of the object that gives a node its attributes.

use std::os::fd::AsFd;

use rustix::fs::FileType;
use rustix::io::Errno;

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
        let handle = self.upper_for_change(node)?;
        flags::set(handle.as_fd(), wanted).op("set flags")
    }
}

fn require_flags(node: &NodeRef) -> Result<()> {
    match node.kind {
        FileType::RegularFile | FileType::Directory => Ok(()),
        _ => Err(Error::refused("flags", Errno::NOTTY)),
    }
}
