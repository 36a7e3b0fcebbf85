//! Bytes in and out, for files whose data goes through the server.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use fuser::{Errno, INodeNo, ReplyEmpty, ReplyLseek, ReplyWrite};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno as Os;

use super::convert;
use super::files::Caller;
use super::server::Server;
use crate::copyup::KeptPrivileges;
use crate::data::{read_at, write_at};
use crate::error::{Context, Error, Result};
use crate::node::NodeRef;

/// Most bytes of one copy_file_range: the library's answer has 32 bits, and the caller asks again for the rest.
const COPY_LIMIT: usize = 1 << 30;

/// As [`write_at`], of what a shared mapping has changed: unlike a write by a call this leaves set-id bits and the file
/// capability.
fn write_mapped(file: &OwnedFd, data: &[u8], offset: u64) -> Result<usize> {
    let stat = rustix::fs::fstat(file).op("write")?;
    let privileges = KeptPrivileges::of(file.as_fd(), &stat)?;
    let written = write_at(file, data, offset)?;
    if let Err(error) = privileges.restore(file.as_fd()) {
        log::warn!("set-id bits or a capability are lost by a mapped write: {error}");
    }
    Ok(written)
}

impl Server {
    pub(crate) fn sync(self: &Arc<Self>, ino: INodeNo, datasync: bool, reply: ReplyEmpty) {
        if let Err(error) = self.refuse_lost(convert::node_id(ino), "fsync") {
            return reply.error(self.refusal("fsync", &error));
        }
        if self.view.features.volatile {
            return reply.ok();
        }
        let node = match self.node(ino) {
            Ok(node) if self.view.growth.of(&node).is_some() || node.in_upper() => node,
            // A lower has nothing to flush.
            Ok(_) => return reply.ok(),
            Err(error) => return reply.error(self.refusal("fsync", &error)),
        };
        let slow = self.flushes_wait || node.is_copying();
        self.run(slow, move |server| {
            let grown = server.view.growth.of(&node).map_or(Ok(()), |it| it.wait());
            let held = server.held_for_writing(convert::node_id(ino));
            let held = held.as_ref().map(|file| file.as_fd());
            let synced = grown.and_then(|()| server.view.sync_through(&node, datasync, held));
            server.empty_reply("fsync", synced, reply);
        });
    }

    pub(crate) fn fallocate(
        self: &Arc<Self>,
        ino: INodeNo,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.run(true, move |server| {
            let done = server.settled(ino, true).and_then(|(_, file)| {
                let mode = FallocateFlags::from_bits_retain(u32::try_from(mode).unwrap_or(0));
                rustix::fs::fallocate(&file, mode, offset, length).op("fallocate")
            });
            server.empty_reply("fallocate", done, reply);
        });
    }

    /// As [`Self::data`], of a file that does not grow (any longer).
    fn settled(&self, ino: INodeNo, write: bool) -> Result<(NodeRef, Arc<OwnedFd>)> {
        let id = convert::node_id(ino);
        let node = self.node(ino)?;
        if let Some(growing) = self.growing(&node, id) {
            growing.wait()?;
        }
        if write {
            self.refuse_lost(id, "write")?;
        }
        self.data(ino, write)
    }

    /// Reads from a file that goes through the server.
    pub(crate) fn read(&self, ino: INodeNo, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let node = self.node(ino)?;
        if let Some(growing) = self.growing(&node, convert::node_id(ino))
            && let Some(length) = growing.read_at(buffer, offset)?
        {
            return Ok(length);
        }
        let (_, file) = self.data(ino, false)?;
        read_at(&file, buffer, offset)
    }

    /// Writes to a file that goes through the server; with `kill` the caller is one whose writes take set-id bits away.
    pub(crate) fn write(
        &self,
        caller: Caller,
        ino: INodeNo,
        (data, offset): (&[u8], u64),
        kill: bool,
        from_mapping: bool,
    ) -> Result<usize> {
        let id = convert::node_id(ino);
        self.refuse_lost(id, "write")?;
        let node = self.node(ino)?;
        // What grows has no such bits.
        if let Some(growing) = self.view.growth.of(&node)
            && let Some(length) = growing.write_at(data, offset)?
        {
            return Ok(length);
        }
        let (_, file) = self.data(ino, true)?;
        if kill {
            self.take_set_id(caller, &node, id)?;
        }
        if from_mapping {
            return write_mapped(&file, data, offset);
        }
        write_at(&file, data, offset)
    }

    pub(crate) fn lseek(
        self: &Arc<Self>,
        ino: INodeNo,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let from = match (whence, u64::try_from(offset)) {
            (libc::SEEK_DATA, Ok(offset)) => SeekFrom::Data(offset),
            (libc::SEEK_HOLE, Ok(offset)) => SeekFrom::Hole(offset),
            _ => return reply.error(Errno::EINVAL),
        };
        let slow = self.node(ino).is_ok_and(|node| node.is_copying());
        self.run(slow, move |server| {
            // The shared descriptor will do: what is asked does not depend on its offset, and nothing else uses that.
            let found = server
                .settled(ino, false)
                .and_then(|(_, file)| rustix::fs::seek(&file, from).op("lseek"));
            match found {
                Ok(offset) => reply.offset(i64::try_from(offset).unwrap_or(i64::MAX)),
                Err(error) => reply.error(server.refusal("lseek", &error)),
            }
        });
    }

    pub(crate) fn copy_range(
        self: &Arc<Self>,
        (ino_in, offset_in): (INodeNo, u64),
        (ino_out, offset_out): (INodeNo, u64),
        length: u64,
        reply: ReplyWrite,
    ) {
        self.run(true, move |server| {
            let copied = server.try_copy_range((ino_in, offset_in), (ino_out, offset_out), length);
            match copied {
                Ok(length) => reply.written(u32::try_from(length).unwrap_or(u32::MAX)),
                Err(error) => reply.error(server.refusal("copy_file_range", &error)),
            }
        });
    }

    fn try_copy_range(
        &self,
        (ino_in, mut offset_in): (INodeNo, u64),
        (ino_out, mut offset_out): (INodeNo, u64),
        length: u64,
    ) -> Result<usize> {
        let (source, from) = self.settled(ino_in, false)?;
        let (target, to) = self.settled(ino_out, true)?;
        if Arc::ptr_eq(&source, &target) && ino_in != ino_out {
            // One file under two numbers, and with its old bytes and its new ones, which the kernel takes for two files.
            let size = u64::try_from(rustix::fs::fstat(&from).op("copy_file_range")?.st_size);
            let left = size.unwrap_or(0).saturating_sub(offset_in);
            if offset_in.abs_diff(offset_out) < length.min(left) {
                return Err(Error::refused("copy_file_range", Os::INVAL));
            }
        }
        let length = usize::try_from(length)
            .unwrap_or(COPY_LIMIT)
            .min(COPY_LIMIT);
        let (at_in, at_out) = (Some(&mut offset_in), Some(&mut offset_out));
        match rustix::fs::copy_file_range(from.as_fd(), at_in, to.as_fd(), at_out, length) {
            // Two layers on two file systems: the kernel is to copy through us.
            Err(Os::XDEV | Os::NOSYS | Os::OPNOTSUPP) => {
                Err(Error::refused("copy_file_range", Os::OPNOTSUPP))
            }
            other => other.op("copy_file_range"),
        }
    }
}
