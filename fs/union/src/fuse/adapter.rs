//! The FUSE library's trait, turned into operations of the view. Nothing is decided here.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FileType, XattrFlags};

use super::convert;
use super::counters::Op;
use super::files::is_writing;
use super::kernel;
use super::server::Server;
use crate::create::Make;
use crate::setattr::{SetAttr, SetTime};

/// The library's view of the server.
pub(crate) struct Adapter(pub(crate) Arc<Server>);

/// Largest READ: the kernel's own limit is 256 pages.
const READ_LIMIT: usize = 1 << 20;

thread_local! {
    /// Each serving thread reads into its own buffer.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        kernel::negotiate(&self.0, config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let server = &self.0;
        let _serving = server.serve(request, Op::Lookup);
        server.readers.asks(parent, request.pid());
        let found = server
            .node(parent)
            .and_then(|parent| server.view.lookup_attr(&parent, name));
        server.lookup_reply(found, reply);
    }

    fn forget(&self, request: &Request, ino: INodeNo, nlookup: u64) {
        let _serving = self.0.serve(request, Op::Forget);
        self.0.forget(convert::node_id(ino), nlookup);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let server = &self.0;
        let _serving = server.serve(request, Op::Getattr);
        match server.node(ino) {
            Ok(node) => {
                let attr = server.view.attr(&node);
                server.attr_reply(&node, convert::node_id(ino), reply, attr);
            }
            Err(error) => reply.error(server.refusal("getattr", &error)),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let server = &self.0;
        let _serving = server.serve(request, Op::Setattr);
        let time = |time| match convert::requested_time(time) {
            Some(time) => SetTime::To(time),
            None => SetTime::Now,
        };
        let change = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            // All bits set is "no owner" in every interface, and nobody's number.
            uid: uid.filter(|&id| id != u32::MAX),
            gid: gid.filter(|&id| id != u32::MAX),
            size,
            by_handle: fh.is_some(),
            atime: atime.map(time),
            mtime: mtime.map(time),
        };
        let node = match server.node(ino) {
            Ok(node) => node,
            Err(error) => return reply.error(server.refusal("setattr", &error)),
        };
        let caller = request.into();
        let by_path = fh.is_none();
        let slow = server.is_slow(&node, size.is_some());
        server.run(slow, move |server| {
            server.setattr(caller, ino, &node, change, by_path, reply);
        });
    }

    fn readlink(&self, request: &Request, ino: INodeNo, reply: ReplyData) {
        let server = &self.0;
        let _serving = server.serve(request, Op::Readlink);
        match server
            .node(ino)
            .and_then(|node| server.view.read_link(&node))
        {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(server.refusal("readlink", &error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _serving = self.0.serve(request, Op::Mknod);
        let kind = FileType::from_raw_mode(mode);
        let what = Make::Node {
            kind,
            rdev: convert::decode_device(rdev),
            mode: mode & 0o7777,
        };
        self.0.make(request, parent, name, what, umask, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _serving = self.0.serve(request, Op::Mkdir);
        self.0.make(
            request,
            parent,
            name,
            Make::Dir {
                mode: mode & 0o7777,
            },
            umask,
            reply,
        );
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _serving = self.0.serve(request, Op::Symlink);
        self.0.make(
            request,
            parent,
            name,
            Make::Symlink(target.as_os_str()),
            0,
            reply,
        );
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.0.serve(request, Op::Unlink);
        self.0.remove(parent, name, false, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.0.serve(request, Op::Rmdir);
        self.0.remove(parent, name, true, reply);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _serving = self.0.serve(request, Op::Rename);
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        self.0
            .rename((parent, name), (newparent, newname), flags, reply);
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let _serving = self.0.serve(request, Op::Link);
        self.0.link(ino, newparent, newname, reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let server = &self.0;
        let _serving = server.serve(request, Op::Open);
        if server.opens_unseen {
            // Once: the kernel does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        let caller = request.into();
        let truncates = flags.0 & libc::O_TRUNC != 0;
        let slow = is_writing(flags.0)
            && server
                .node(ino)
                .is_ok_and(|node| server.is_slow(&node, !truncates));
        server.run(slow, move |server| server.open(caller, ino, flags.0, reply));
    }

    fn read(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let server = &self.0;
        let _serving = server.serve(request, Op::Read);
        BUFFER.with_borrow_mut(|buffer| {
            let size = usize::try_from(size).unwrap_or(READ_LIMIT).min(READ_LIMIT);
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match server.read(ino, &mut buffer[..size], offset) {
                Ok(length) => reply.data(&buffer[..length]),
                Err(error) => reply.error(server.refusal("read", &error)),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let server = &self.0;
        let _serving = server.serve(request, Op::Write);
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let from_mapping = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let written = server.write(request.into(), ino, (data, offset), kill, from_mapping);
        match written {
            Ok(length) => reply.written(u32::try_from(length).unwrap_or(u32::MAX)),
            Err(error) => reply.error(server.refusal("write", &error)),
        }
    }

    fn flush(
        &self,
        request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Nothing is held back, so there is nothing to flush; the kernel does not ask again.
        let _serving = self.0.serve(request, Op::Flush);
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _serving = self.0.serve(request, Op::Release);
        self.0.release(ino, fh);
        reply.ok();
    }

    fn fsync(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _serving = self.0.serve(request, Op::Fsync);
        self.0.sync(ino, datasync, reply);
    }

    fn opendir(&self, request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Listings need no state of their own: the kernel then sends no OPENDIR and caches what it reads.
        let _serving = self.0.serve(request, Op::Opendir);
        reply.error(Errno::ENOSYS);
    }

    fn readdir(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let _serving = self.0.serve(request, Op::Readdir);
        self.0.readdir(ino, offset, reply);
    }

    fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let _serving = self.0.serve(request, Op::Readdirplus);
        self.0.readdirplus(request, ino, offset, reply);
    }

    fn fsyncdir(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let _serving = self.0.serve(request, Op::Fsyncdir);
        self.0.sync(ino, datasync, reply);
    }

    fn statfs(&self, request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let server = &self.0;
        let _serving = server.serve(request, Op::Statfs);
        match server.view.statfs() {
            Ok(fs) => {
                let small = |wide: u64| u32::try_from(wide).unwrap_or(u32::MAX);
                reply.statfs(
                    fs.f_blocks,
                    fs.f_bfree,
                    fs.f_bavail,
                    fs.f_files,
                    fs.f_ffree,
                    small(fs.f_bsize),
                    small(fs.f_namemax),
                    small(fs.f_frsize),
                );
            }
            Err(error) => reply.error(server.refusal("statfs", &error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _serving = self.0.serve(request, Op::Setxattr);
        let flags = XattrFlags::from_bits_retain(u32::try_from(flags).unwrap_or(0));
        self.0
            .setxattr(request.into(), (ino, name), value, flags, reply);
    }

    fn getxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let _serving = self.0.serve(request, Op::Getxattr);
        self.0.getxattr(ino, name, size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _serving = self.0.serve(request, Op::Listxattr);
        self.0.listxattr(request.into(), ino, size, reply);
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _serving = self.0.serve(request, Op::Removexattr);
        self.0.removexattr(ino, name, reply);
    }

    fn access(
        &self,
        request: &Request,
        _ino: INodeNo,
        _mask: fuser::AccessFlags,
        reply: ReplyEmpty,
    ) {
        // The kernel judges by itself (default_permissions) and does not ask again.
        let _serving = self.0.serve(request, Op::Access);
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _serving = self.0.serve(request, Op::Create);
        self.0
            .create(request, (parent, name), mode & 0o7777, umask, flags, reply);
    }

    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        let _serving = self.0.serve(request, Op::Ioctl);
        self.0.ioctl(ino, cmd, in_data, reply);
    }

    fn poll(
        &self,
        request: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _notifier: fuser::PollNotifier,
        _events: fuser::PollEvents,
        _flags: fuser::PollFlags,
        reply: fuser::ReplyPoll,
    ) {
        // Files are always ready, and the kernel knows.
        let _serving = self.0.serve(request, Op::Poll);
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _serving = self.0.serve(request, Op::Fallocate);
        self.0.fallocate(ino, offset, length, mode, reply);
    }

    fn lseek(
        &self,
        request: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _serving = self.0.serve(request, Op::Lseek);
        self.0.lseek(ino, offset, whence, reply);
    }

    fn copy_file_range(
        &self,
        request: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _serving = self.0.serve(request, Op::CopyFileRange);
        self.0
            .copy_range((ino_in, offset_in), (ino_out, offset_out), len, reply);
    }
}
