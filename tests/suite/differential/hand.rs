//! Carrying out an operation on one tree, with a result that can be compared with another tree's.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{
    Access, AtFlags, CWD, Dir, FallocateFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps,
    XattrFlags,
};
use rustix::io::Errno;

use super::op::{Op, SLOTS};
use super::{acl, handle};

/// What an operation answered: a description of the result, or the errno.
pub type Answer = Result<String, i32>;

/// The uid and gid of [`Op::AsUser`].
const USER: u32 = 1000;

/// One tree and the descriptors a sequence holds in it.
#[derive(Debug)]
pub struct Hand {
    root: PathBuf,
    slots: Vec<Option<File>>,
    may_switch: bool,
}

impl Hand {
    /// Works below `root`.
    pub fn new(root: PathBuf) -> Self {
        Hand {
            root,
            slots: (0..SLOTS).map(|_| None).collect(),
            may_switch: nix::unistd::geteuid().is_root(),
        }
    }

    /// The tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The size of the file a slot holds open, if it holds one.
    pub fn held_size(&self, slot: usize) -> Option<u64> {
        let meta = self.slots[slot].as_ref()?.metadata().ok()?;
        meta.is_file().then_some(meta.len())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// True for a file outside of the tree.
    fn leads_out(&self, file: &File) -> bool {
        let root = Path::new(".").join(&self.root).canonicalize();
        let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        !matches!((root, real), (Ok(root), Ok(real)) if real.starts_with(&root))
    }

    /// Carries out one operation.
    pub fn apply(&mut self, operation: &Op) -> Answer {
        match operation {
            Op::AsUser(inner) if self.may_switch => {
                let _user = AsUser::new();
                self.apply(inner)
            }
            Op::AsUser(inner) => self.apply(inner),
            Op::Stat(_) | Op::Access { .. } | Op::Read(_) | Op::List(_) | Op::ReadLink(_) => {
                self.look(operation)
            }
            Op::Rename { .. }
            | Op::RenameNoReplace { .. }
            | Op::RenameWhiteout { .. }
            | Op::Exchange { .. }
            | Op::Link { .. }
            | Op::CopyRange { .. } => self.two_paths(operation),
            Op::Chmod { .. }
            | Op::Chown { .. }
            | Op::Utimes { .. }
            | Op::Touch(_)
            | Op::SetCapability(_)
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. }
            | Op::SetAcl { .. }
            | Op::RemoveAcl { .. } => self.attributes(operation),
            Op::Create { .. }
            | Op::Write { .. }
            | Op::Append { .. }
            | Op::Truncate { .. }
            | Op::OpenTrunc(_)
            | Op::Punch { .. }
            | Op::Tmpfile { .. }
            | Op::Allocate { .. } => self.content(operation),
            Op::Unlink(_)
            | Op::Mkdir { .. }
            | Op::Rmdir(_)
            | Op::Symlink { .. }
            | Op::Mkfifo(_)
            | Op::MkSocket(_)
            | Op::Mknod { .. }
            | Op::RemoveTree(_) => self.names(operation),
            _ => self.with_handle(operation),
        }
    }

    fn with_handle(&mut self, operation: &Op) -> Answer {
        let slot = match operation {
            Op::Open {
                slot,
                path,
                write,
                append,
            } => {
                let mut options = OpenOptions::new();
                options.read(true).write(*write && !append).append(*append);
                let file = open(&mut options, &self.at(path))?;
                if file.metadata().map_err(number)?.is_file() {
                    self.slots[*slot] = Some(file);
                }
                return done();
            }
            Op::OpenDir { slot, path } => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = rustix::fs::open(self.at(path), flags, Mode::empty()).map_err(errno)?;
                self.slots[*slot] = Some(dir.into());
                return done();
            }
            Op::OpenNew { slot, path, mode } => {
                let mut options = OpenOptions::new();
                options.read(true).write(true).create_new(true).mode(*mode);
                self.slots[*slot] = Some(open(&mut options, &self.at(path))?);
                return done();
            }
            Op::Close(slot) => {
                self.slots[*slot] = None;
                return done();
            }
            Op::LinkHandle { slot, to } => {
                let to = self.at(to);
                let Some(file) = &self.slots[*slot] else {
                    return done();
                };
                return link_open(file, &to);
            }
            other => handle::slot(other),
        };
        match &mut self.slots[slot] {
            Some(file) => handle::apply(file, operation),
            None => done(),
        }
    }

    fn look(&self, operation: &Op) -> Answer {
        match operation {
            Op::Stat(path) => {
                let meta = self.at(path).symlink_metadata().map_err(number)?;
                Ok(described(&meta))
            }
            Op::Access { path, mode } => {
                let mode = Access::from_bits_truncate(*mode);
                // A privileged user may execute nothing that nobody may; otherwise as whom the operation is made.
                let flags = AtFlags::EACCESS;
                rustix::fs::accessat(CWD, self.at(path), mode, flags).map_err(errno)?;
                done()
            }
            Op::Read(path) => {
                let path = self.at(path);
                let special = |meta: &std::fs::Metadata| {
                    let kind = meta.file_type();
                    kind.is_fifo() || kind.is_char_device() || kind.is_block_device()
                };
                if path.metadata().is_ok_and(|meta| special(&meta)) {
                    return done();
                }
                std::fs::read(path)
                    .map(|content| summary(&content))
                    .map_err(number)
            }
            Op::ReadLink(path) => std::fs::read_link(self.at(path))
                .map(|target| format!("{target:?}"))
                .map_err(number),
            Op::List(path) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let dir = rustix::fs::open(self.at(path), flags, Mode::empty()).map_err(errno)?;
                listed(&dir)
            }
            _ => unreachable!("not a look"),
        }
    }

    fn content(&self, operation: &Op) -> Answer {
        let writing = |path: &str| open(OpenOptions::new().write(true), &self.at(path));
        match operation {
            Op::Create {
                path,
                exclusive,
                mode,
            } => {
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .mode(*mode)
                    .create(true)
                    .create_new(*exclusive);
                open(&mut options, &self.at(path))?;
            }
            Op::Write {
                path,
                at,
                len,
                fill,
            } => writing(path)?
                .write_all_at(&vec![*fill; *len], *at)
                .map_err(number)?,
            Op::Append { path, len, fill } => {
                let file = open(OpenOptions::new().append(true), &self.at(path))?;
                std::io::Write::write_all(&mut &file, &vec![*fill; *len]).map_err(number)?;
            }
            Op::Truncate { path, size } => {
                nix::unistd::truncate(&self.at(path), i64::try_from(*size).unwrap())
                    .map_err(|e| e as i32)?
            }
            Op::OpenTrunc(path) => drop(open(
                OpenOptions::new().write(true).truncate(true),
                &self.at(path),
            )?),
            Op::Punch { path, at, len } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&writing(path)?, flags, *at, *len).map_err(errno)?;
            }
            Op::Allocate {
                path,
                at,
                len,
                keep_size,
            } => {
                let flags = if *keep_size {
                    FallocateFlags::KEEP_SIZE
                } else {
                    FallocateFlags::empty()
                };
                rustix::fs::fallocate(&writing(path)?, flags, *at, *len).map_err(errno)?;
            }
            Op::Tmpfile { dir, to } => {
                let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o640);
                let file = File::from(rustix::fs::open(self.at(dir), flags, mode).map_err(errno)?);
                file.write_all_at(b"once nameless", 0).map_err(number)?;
                return link_open(&file, &self.at(to));
            }
            _ => unreachable!("not an operation on content"),
        }
        done()
    }

    fn names(&self, operation: &Op) -> Answer {
        let node = |path: &str, kind, mode, minor| {
            // A number that belongs to no driver: major 1 has the machine's memory and endless zeros.
            let device = rustix::fs::makedev(if minor == 0 { 0 } else { 240 }, minor);
            let mode = Mode::from_raw_mode(mode);
            rustix::fs::mknodat(CWD, self.at(path), kind, mode, device)
        };
        let made = match operation {
            Op::Unlink(path) => rustix::fs::unlink(self.at(path)),
            Op::Mkdir { path, mode } => {
                rustix::fs::mkdir(self.at(path), Mode::from_raw_mode(*mode))
            }
            Op::Rmdir(path) => rustix::fs::rmdir(self.at(path)),
            Op::Symlink { target, path } => rustix::fs::symlink(*target, self.at(path)),
            Op::MkSocket(path) => node(path, rustix::fs::FileType::Socket, 0o600, 0),
            Op::Mkfifo(path) => node(path, rustix::fs::FileType::Fifo, 0o644, 0),
            Op::Mknod { path, block, minor } => {
                let kind = if *block {
                    rustix::fs::FileType::BlockDevice
                } else {
                    rustix::fs::FileType::CharacterDevice
                };
                node(path, kind, 0o600, *minor)
            }
            Op::RemoveTree(path) => {
                return remove_tree(&self.at(path))
                    .map_err(number)
                    .and_then(|()| done());
            }
            _ => unreachable!("not an operation on names"),
        };
        made.map_err(errno).and_then(|()| done())
    }

    fn two_paths(&self, operation: &Op) -> Answer {
        let rename = |from: &str, to: &str, flags| {
            rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags).map_err(errno)
        };
        match operation {
            Op::Rename { from, to } => rename(from, to, RenameFlags::empty())?,
            Op::RenameNoReplace { from, to } => rename(from, to, RenameFlags::NOREPLACE)?,
            Op::RenameWhiteout { from, to } => rename(from, to, RenameFlags::WHITEOUT)?,
            Op::Exchange { from, to } => rename(from, to, RenameFlags::EXCHANGE)?,
            Op::Link { from, to } => {
                rustix::fs::linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty())
                    .map_err(errno)?
            }
            Op::CopyRange { from, to } => {
                let source = open(OpenOptions::new().read(true), &self.at(from))?;
                let target = open(OpenOptions::new().write(true), &self.at(to))?;
                if self.leads_out(&source) || self.leads_out(&target) {
                    // By a symbolic link to where the trees lie, which is another file system to some of them.
                    return done();
                }
                let copied = rustix::fs::copy_file_range(&source, None, &target, None, 3000)
                    .map_err(errno)?;
                return Ok(format!("{copied}"));
            }
            _ => unreachable!("not an operation on two paths"),
        }
        done()
    }

    fn attributes(&self, operation: &Op) -> Answer {
        let plain = XattrFlags::empty();
        let changed = match operation {
            Op::Chmod { path, mode } => {
                let mut mode = *mode;
                if !self.may_switch && self.at(path).is_dir() {
                    // A server that may not write or search a directory cannot copy anything up in it; documented.
                    mode |= 0o700;
                }
                rustix::fs::chmod(self.at(path), Mode::from_raw_mode(mode))
            }
            Op::Chown { path, uid, gid } => {
                return std::os::unix::fs::lchown(self.at(path), Some(*uid), Some(*gid))
                    .map_err(number)
                    .and_then(|()| done());
            }
            Op::Utimes { path, seconds } => {
                let time = Timespec {
                    tv_sec: *seconds,
                    tv_nsec: 5,
                };
                let times = Timestamps {
                    last_access: time,
                    last_modification: time,
                };
                rustix::fs::utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW)
            }
            Op::Touch(path) => {
                let now = Timespec {
                    tv_sec: 0,
                    tv_nsec: rustix::fs::UTIME_NOW,
                };
                let times = Timestamps {
                    last_access: now,
                    last_modification: now,
                };
                rustix::fs::utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW)
            }
            Op::SetCapability(path) => {
                let name = c"security.capability";
                rustix::fs::lsetxattr(self.at(path), name, &NET_RAW, plain)
            }
            Op::SetXattr { path, name, value } => {
                rustix::fs::lsetxattr(self.at(path), *name, &[*value; 3], plain)
            }
            Op::RemoveXattr { path, name } => rustix::fs::lremovexattr(self.at(path), *name),
            Op::SetAcl {
                path,
                default,
                bits,
            } => {
                let value = acl::naming(USER, *bits);
                rustix::fs::setxattr(self.at(path), acl::name(*default), &value, plain)
            }
            Op::RemoveAcl { path, default } => {
                rustix::fs::removexattr(self.at(path), acl::name(*default))
            }
            _ => unreachable!("not a change of attributes"),
        };
        changed.map_err(errno).and_then(|()| done())
    }
}

/// As `rm -r`, but in the order of names: what is left after an error must not depend on the order of a listing.
fn remove_tree(path: &Path) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(path)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}

/// Drops to an ordinary user for file system checks, of this thread only, until dropped.
struct AsUser;

impl AsUser {
    fn new() -> Self {
        setfsgid(Gid::from_raw(USER));
        setfsuid(Uid::from_raw(USER));
        AsUser
    }
}

impl Drop for AsUser {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
    }
}

/// Gives another name to what is open.
fn link_open(file: &File, to: &Path) -> Answer {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, own, CWD, to, AtFlags::SYMLINK_FOLLOW)
        .map_err(errno)
        .and_then(|()| done())
}

/// `security.capability` of version 2: cap_net_raw, permitted and effective.
const NET_RAW: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

pub(super) fn done() -> Answer {
    Ok(String::new())
}

pub(super) fn errno(error: Errno) -> i32 {
    error.raw_os_error()
}

pub(super) fn number(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(-1)
}

/// Opens without ever waiting for the other end of a fifo.
fn open(options: &mut OpenOptions, path: &Path) -> Result<File, i32> {
    options.custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
    options.open(path).map_err(number)
}

pub(super) fn described(meta: &std::fs::Metadata) -> String {
    let (size, nlink) = if meta.is_dir() {
        (0, u64::from(meta.nlink() > 0))
    } else {
        (meta.size(), meta.nlink())
    };
    let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
    format!("{mode:o} {uid}:{gid} size {size} links {nlink}")
}

pub(super) fn listed(dir: &impl AsFd) -> Answer {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        names.push(format!("{:?} {:?}", entry.file_name(), entry.file_type()));
    }
    names.sort();
    Ok(names.join(", "))
}

pub(super) fn summary(content: &[u8]) -> String {
    format!("{} bytes, {:x}", content.len(), super::survey::sum(content))
}
