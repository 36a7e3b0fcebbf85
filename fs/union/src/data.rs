//! The bytes of regular files.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::getattr::Handle;
use crate::node::NodeRef;
use crate::sys::open;
use crate::view::View;

/// An open data file.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub(crate) fd: OwnedFd,
    /// It is the upper's.
    pub(crate) in_upper: bool,
}

impl View {
    /// A handle of the file that holds a node's bytes now, and whether it is the upper's.
    pub(crate) fn data_handle(&self, node: &NodeRef) -> Result<(Handle, bool)> {
        Self::require_file(node, "open")?;
        if node.data_in_upper()
            && let Some(handle) = self.upper_object(node)?
        {
            return Ok((handle, true));
        }
        let file = node
            .stack
            .file()
            .ok_or(Error::refused("open", Errno::STALE))?;
        Ok((Handle::Own(self.lower_handle(file.data_owner())?), false))
    }

    /// Opens the lower file that holds a node's bytes, or held them before they were copied up.
    pub(crate) fn open_old_data(&self, node: &NodeRef) -> Result<DataFile> {
        let file = node.stack.file();
        let file = file.ok_or(Error::refused("open", Errno::STALE))?;
        let handle = self.lower_handle(file.data_owner())?;
        let fd = self
            .retry_short_of_fds(|| open::reopen(handle.as_fd(), OFlags::RDONLY | OFlags::NOCTTY))
            .op("open data")?;
        Ok(DataFile {
            fd,
            in_upper: false,
        })
    }

    /// Opens the file that holds a node's bytes now. A lower is only ever opened for reading.
    pub(crate) fn open_data(&self, node: &NodeRef, flags: OFlags) -> Result<DataFile> {
        let (handle, in_upper) = self.data_handle(node)?;
        let flags = if in_upper { flags } else { OFlags::RDONLY };
        let fd = self
            .retry_short_of_fds(|| open::reopen(handle.as_fd(), flags | OFlags::NOCTTY))
            .op("open data")?;
        Ok(DataFile { fd, in_upper })
    }
}
