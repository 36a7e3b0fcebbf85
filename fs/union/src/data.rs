//! The bytes of regular files.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::getattr::Handle;
use crate::node::{LowerFile, NodeRef};
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
        self.settle(node);
        if node.data_in_upper()
            && let Some(handle) = self.upper_object(node)?
        {
            return Ok((handle, true));
        }
        Ok((Handle::Own(self.lower_handle(lower_data(node)?)?), false))
    }

    /// How many bytes of a node a lower file holds.
    pub(crate) fn lower_data_size(&self, node: &NodeRef) -> Result<u64> {
        let size = self.lower_stat(lower_data(node)?)?.st_size;
        Ok(u64::try_from(size).unwrap_or(0))
    }

    /// Reads all `size` bytes of a node whose data is in a lower, and calls with them.
    ///
    /// # Errors
    /// `ESTALE` if the data has been copied up or the file has become shorter; a failed system call.
    pub(crate) fn lower_bytes(
        &self,
        node: &NodeRef,
        size: u64,
        call: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if node.data_in_upper() {
            return Err(Error::refused("read", Errno::STALE));
        }
        let owner = lower_data(node)?;
        let dir = self.lower_dir(&owner.place)?;
        let dir = dir.ok_or(Error::refused("read", Errno::STALE))?;
        let file = open::file(dir.as_fd(), &owner.name).op("open data")?;
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        if rustix::io::pread(&file, &mut bytes[..], 0).op("read")? < bytes.len() {
            return Err(Error::refused("read", Errno::STALE));
        }
        call(&bytes)
    }

    /// Opens the lower file that holds a node's bytes, or held them before they were copied up.
    pub(crate) fn open_old_data(&self, node: &NodeRef) -> Result<DataFile> {
        let handle = self.lower_handle(lower_data(node)?)?;
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

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_at(file: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        let at = offset + filled as u64;
        match rustix::io::pread(file, &mut buffer[filled..], at) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(Errno::INTR) => {}
            Err(errno) if filled == 0 => return Err(errno).op("read"),
            Err(_) => break,
        }
    }
    Ok(filled)
}

/// Writes everything; what was written before an error counts.
pub(crate) fn write_at(file: &OwnedFd, data: &[u8], offset: u64) -> Result<usize> {
    let mut done = 0;
    while done < data.len() {
        match rustix::io::pwrite(file, &data[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(Errno::INTR) => {}
            Err(errno) if done == 0 => return Err(errno).op("write"),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// The lower file that holds a node's bytes, or held them.
fn lower_data(node: &NodeRef) -> Result<&LowerFile> {
    let file = node.stack.file().map(LowerFile::data_owner);
    file.ok_or(Error::refused("open", Errno::STALE))
}
