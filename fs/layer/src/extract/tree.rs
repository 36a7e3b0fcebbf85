//! The directory being filled. All access is relative to held descriptors, and no symbolic link is ever followed.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmod,
    chownat, fchmod, fchown, fsetxattr, fstat, futimens, linkat, lsetxattr, makedev, mkdirat,
    mknodat, openat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::entry::{Attributes, Node};
use super::record::{Content, ContentId, Recorder};
use super::{ExtractOptions, Owners};
use crate::encode::Time;
use crate::marks::{self, Mark, OVERRIDE_STAT, Ownership, is_internal_xattr, set_opaque};
use crate::overrides::{OverrideKind, OverrideStat};
use crate::path::{BASE, open_beneath, split};

/// Why something was not done; the entry's name is added by the caller.
#[derive(Debug)]
pub(super) enum Fault {
    Refused(String),
    Io(&'static str, io::Error),
    Limit(&'static str, u64),
}

/// A failed call with what it was to do.
trait During<T> {
    fn during(self, operation: &'static str) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, operation: &'static str) -> Result<T, Fault> {
        self.map_err(|error| Fault::Io(operation, error.into()))
    }
}

/// Attributes of a directory, applied when everything is in place.
enum Deferred {
    Explicit(Attributes),
    /// Not in the tar.
    Implied,
}

/// The tree.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    options: &'a ExtractOptions,
    /// The directory used last, by path.
    cached: Option<(Vec<u8>, OwnedFd)>,
    /// All directories there are.
    directories: BTreeMap<Vec<u8>, Deferred>,
    deferred_bytes: u64,
    /// Inodes whose content the header stream refers to.
    contents: HashMap<u64, (ContentId, Content)>,
    /// This process may make device nodes; unknown until it has tried.
    may_make_nodes: bool,
    /// Attributes that could not be written.
    pub(super) skipped_xattrs: u64,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, options: &'a ExtractOptions) -> Tree<'a> {
        Tree {
            root,
            options,
            cached: None,
            directories: BTreeMap::from([(Vec::new(), Deferred::Implied)]),
            deferred_bytes: 0,
            contents: HashMap::new(),
            may_make_nodes: true,
            skipped_xattrs: 0,
        }
    }

    /// Puts a directory at `path`: over a directory it only replaces its attributes.
    pub(super) fn place_directory(
        &mut self,
        path: &[u8],
        attributes: Attributes,
        record: &mut Recorder<'_>,
    ) -> Result<(), Fault> {
        if !path.is_empty() {
            let (dir, name) = split(path);
            let parent = self.directory(dir)?;
            match mkdirat(parent, name, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => {
                    let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).during("stat")?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                        self.replace_by_directory(path, record)?;
                    }
                }
                Err(error) => return Err(error).during("make directory"),
            }
        }
        self.defer(path, Deferred::Explicit(attributes))
    }

    /// Something else has stood here, a whiteout perhaps: what is below it must not show through.
    fn replace_by_directory(
        &mut self,
        path: &[u8],
        record: &mut Recorder<'_>,
    ) -> Result<(), Fault> {
        self.clear(path, record)?;
        let (dir, name) = split(path);
        let space = self.options.space;
        let parent = self.directory(dir)?;
        mkdirat(parent, name, Mode::RWXU).during("make directory")?;
        set_opaque(parent, Some(OsStr::from_bytes(name)), space).during("make directory opaque")
    }

    /// Makes an empty file at `path`, in place of what is there, open for writing.
    pub(super) fn create_file(
        &mut self,
        path: &[u8],
        record: &mut Recorder<'_>,
    ) -> Result<File, Fault> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.create(path, record, "create file", |parent, name| {
            openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
        })?;
        Ok(File::from(fd))
    }

    /// Gives a file its attributes. Its content, if any, is that of a segment.
    pub(super) fn finish_file(
        &mut self,
        file: &File,
        attributes: &Attributes,
        content: Option<(ContentId, Content)>,
    ) -> Result<(), Fault> {
        let stat = fstat(file).during("stat")?;
        if let Some(content) = content {
            self.contents.insert(stat.st_ino, content);
        }
        self.apply(file.as_fd(), &stat, attributes)
    }

    pub(super) fn place_symlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        attributes: &Attributes,
        record: &mut Recorder<'_>,
    ) -> Result<(), Fault> {
        self.create(path, record, "make symbolic link", |parent, name| {
            symlinkat(target, parent, name)
        })?;
        let (dir, name) = split(path);
        if self.real_owners() {
            let (uid, gid) = ids(attributes);
            let parent = self.directory(dir)?;
            let outcome = chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            );
            outcome.map_err(|error| owner_fault(error, attributes))?;
        }
        self.apply_xattrs_by_name(path, &attributes.xattrs)?;
        self.apply_time_by_name(path, attributes.mtime)
    }

    /// Makes `path` another name of `target`, which must be in this layer already.
    pub(super) fn place_hardlink(
        &mut self,
        path: &[u8],
        target: &[u8],
        record: &mut Recorder<'_>,
    ) -> Result<(), Fault> {
        let shown = || format!("{:?}", String::from_utf8_lossy(target));
        let missing =
            || Fault::Refused(format!("hard link target {} is not in this layer", shown()));
        let (target_dir, target_name) = split(target);
        if target_name.is_empty() {
            return Err(Fault::Refused("hard link to the root".into()));
        }
        let from = match open_beneath(self.root, target_dir, BASE) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing()),
            Err(Errno::LOOP) => {
                let reason = format!("hard link target {} lies beyond a symbolic link", shown());
                return Err(Fault::Refused(reason));
            }
            Err(error) => return Err(error).during("open directory of hard link target"),
        };
        let stat = match statat(&from, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_whiteout(&stat) => return Err(missing()),
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(missing()),
            Err(error) => return Err(error).during("stat hard link target"),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Fault::Refused(format!(
                "hard link target {} is a directory",
                shown()
            )));
        }
        let (dir, name) = split(path);
        let parent = self.directory(dir)?;
        match linkat(&from, target_name, parent, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {}
            outcome => return outcome.during("make hard link"),
        }
        let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).during("stat")?;
        if (there.st_dev, there.st_ino) == (stat.st_dev, stat.st_ino) {
            return Ok(());
        }
        self.clear(path, record)?;
        let parent = self.directory(dir)?;
        linkat(&from, target_name, parent, name, AtFlags::empty()).during("make hard link")
    }

    pub(super) fn place_node(
        &mut self,
        path: &[u8],
        node: Node,
        attributes: &Attributes,
        record: &mut Recorder<'_>,
    ) -> Result<(), Fault> {
        let (file_type, dev) = match node {
            Node::Char(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
            Node::Block(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
            Node::Fifo => (FileType::Fifo, 0),
        };
        let stored = self.options.ownership == Ownership::Override
            || (node != Node::Fifo && !self.may_make_nodes);
        if !stored {
            let outcome = self.create(path, record, "make node", |parent, name| {
                mknodat(parent, name, file_type, Mode::RUSR | Mode::WUSR, dev)
            });
            match outcome {
                Ok(()) => return self.finish_node(path, attributes),
                Err(Fault::Io(_, error))
                    if error.kind() == io::ErrorKind::PermissionDenied && node != Node::Fifo =>
                {
                    self.may_make_nodes = false;
                }
                Err(fault) => return Err(fault),
            }
        }
        let file = self.create_file(path, record)?;
        let kind = match node {
            Node::Char(major, minor) => OverrideKind::Char(major, minor),
            Node::Block(major, minor) => OverrideKind::Block(major, minor),
            Node::Fifo => OverrideKind::Fifo,
        };
        let stat = fstat(&file).during("stat")?;
        self.apply_owner_and_mode(file.as_fd(), &stat, attributes, Some(kind))?;
        self.apply_xattrs(file.as_fd(), &attributes.xattrs)?;
        futimens(&file, &times(attributes.mtime)).during("set times")
    }

    /// Gives a real node its attributes.
    fn finish_node(&mut self, path: &[u8], attributes: &Attributes) -> Result<(), Fault> {
        let (dir, name) = split(path);
        let real_owners = self.real_owners();
        let parent = self.directory(dir)?;
        if real_owners {
            let (uid, gid) = ids(attributes);
            let outcome = chownat(
                parent,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            );
            outcome.map_err(|error| owner_fault(error, attributes))?;
        }
        // chmod follows links, so it goes by a descriptor that cannot be one, and that does not open the device.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = openat(parent, name, flags, Mode::empty()).during("open node")?;
        let link = format!("/proc/self/fd/{}", node.as_raw_fd());
        chmod(link.as_str(), Mode::from_raw_mode(attributes.mode)).during("change mode")?;
        self.apply_xattrs_by_name(path, &attributes.xattrs)?;
        self.apply_time_by_name(path, attributes.mtime)
    }

    /// Hides what lower layers have at `path`; what this layer has there stays.
    pub(super) fn place_whiteout(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (dir, name) = split(path);
        if name.is_empty() {
            return Err(Fault::Refused("whiteout of the root".into()));
        }
        let space = self.options.space;
        let parent = self.directory(dir)?;
        let name = OsStr::from_bytes(name);
        match marks::write_whiteout(parent, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome.during("make whiteout"),
        }
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).during("stat")?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            set_opaque(parent, Some(name), space).during("make directory opaque")?;
        }
        Ok(())
    }

    /// Hides everything that lower layers have in the directory `path`.
    pub(super) fn place_opaque(&mut self, path: &[u8]) -> Result<(), Fault> {
        let space = self.options.space;
        let dir = self.directory(path)?;
        set_opaque(dir, None, space).during("make directory opaque")
    }

    /// Gives all directories their attributes, the deepest first.
    pub(super) fn finish(&mut self) -> Result<(), (Vec<u8>, Fault)> {
        self.cached = None;
        let directories = std::mem::take(&mut self.directories);
        for (path, deferred) in directories.into_iter().rev() {
            let outcome = self.finish_directory(&path, &deferred);
            outcome.map_err(|fault| (path, fault))?;
        }
        Ok(())
    }

    fn finish_directory(&mut self, path: &[u8], deferred: &Deferred) -> Result<(), Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = open_beneath(self.root, path, flags).during("open directory")?;
        match deferred {
            Deferred::Explicit(attributes) => {
                let stat = fstat(&dir).during("stat")?;
                self.apply(dir.as_fd(), &stat, attributes)
            }
            Deferred::Implied => {
                fchmod(&dir, Mode::from_raw_mode(0o755)).during("change mode")?;
                let mark = self.options.space.name(Mark::Implied);
                fsetxattr(&dir, mark, b"y", XattrFlags::empty())
                    .during("mark directory implied")?;
                futimens(&dir, &times(Time::default())).during("set times")
            }
        }
    }

    /// Makes a new object at `path`, removing what is there.
    fn create<T>(
        &mut self,
        path: &[u8],
        record: &mut Recorder<'_>,
        operation: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T, Fault> {
        let (dir, name) = split(path);
        let parent = self.directory(dir)?;
        match make(parent, name) {
            Err(Errno::EXIST) => {
                self.clear(path, record)?;
                make(self.directory(dir)?, name).during(operation)
            }
            outcome => outcome.during(operation),
        }
    }

    /// Returns the directory `path`, made with all its parents if need be.
    fn directory(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Fault> {
        if path.is_empty() {
            return Ok(self.root);
        }
        if self
            .cached
            .as_ref()
            .is_none_or(|(cached, _)| cached != path)
        {
            let fd = match open_beneath(self.root, path, BASE) {
                Ok(fd) => fd,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => self.make_directories(path)?,
                Err(error) => return Err(error).during("open parent directory"),
            };
            self.cached = Some((path.to_vec(), fd));
        }
        match &self.cached {
            Some((_, fd)) => Ok(fd.as_fd()),
            None => Ok(self.root),
        }
    }

    /// Makes what is missing of the directories down to `path`; whiteouts make way.
    fn make_directories(&mut self, path: &[u8]) -> Result<OwnedFd, Fault> {
        let mut current = open_beneath(self.root, b"", BASE).during("open root")?;
        let mut begin = 0;
        while begin < path.len() {
            let end = path[begin..]
                .iter()
                .position(|&byte| byte == b'/')
                .map_or(path.len(), |n| begin + n);
            let (so_far, name) = (&path[..end], &path[begin..end]);
            current = match open_beneath(current.as_fd(), name, BASE) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    mkdirat(&current, name, Mode::RWXU).during("make parent directory")?;
                    self.defer(so_far, Deferred::Implied)?;
                    open_beneath(current.as_fd(), name, BASE).during("open parent directory")?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    self.whiteout_to_directory(current.as_fd(), so_far)?
                }
                Err(error) => return Err(error).during("open parent directory"),
            };
            begin = end + 1;
        }
        Ok(current)
    }

    /// A parent directory is not one: fine if it is a whiteout, which hides what is below from the new directory, too.
    fn whiteout_to_directory(
        &mut self,
        parent: BorrowedFd<'_>,
        path: &[u8],
    ) -> Result<OwnedFd, Fault> {
        let (_, name) = split(path);
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).during("stat parent")?;
        if !is_whiteout(&stat) {
            let what = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => "a symbolic link",
                _ => "not a directory",
            };
            let shown = String::from_utf8_lossy(path);
            return Err(Fault::Refused(format!(
                "its parent {shown:?} is {what} of this layer"
            )));
        }
        unlinkat(parent, name, AtFlags::empty()).during("remove whiteout")?;
        mkdirat(parent, name, Mode::RWXU).during("make parent directory")?;
        let name = OsStr::from_bytes(name);
        set_opaque(parent, Some(name), self.options.space).during("make directory opaque")?;
        self.defer(path, Deferred::Implied)?;
        open_beneath(parent, name.as_bytes(), BASE).during("open parent directory")
    }

    fn defer(&mut self, path: &[u8], deferred: Deferred) -> Result<(), Fault> {
        let mut bytes = path.len() + size_of::<Deferred>();
        if let Deferred::Explicit(attributes) = &deferred {
            bytes += attributes
                .xattrs
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum::<usize>();
        }
        self.deferred_bytes += bytes as u64;
        let limit = self.options.limits.deferred_bytes;
        if self.deferred_bytes > limit {
            return Err(Fault::Limit("bytes of directories' attributes", limit));
        }
        self.directories.insert(path.to_vec(), deferred);
        Ok(())
    }

    /// Removes what is at `path`, a whole tree perhaps; contents that the header stream refers to are saved.
    fn clear(&mut self, path: &[u8], record: &mut Recorder<'_>) -> Result<(), Fault> {
        let (dir, name) = split(path);
        let parent = self.directory(dir)?;
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).during("stat")?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.clear_name(path, &stat, record);
        }
        self.cached = None;
        // All paths below begin with `path/`, and `0` follows `/`.
        let (begin, end) = ([path, b"/"].concat(), [path, b"0"].concat());
        let below: Vec<Vec<u8>> = self
            .directories
            .range(begin..end)
            .map(|(key, _)| key.clone())
            .collect();
        // Deepest first, without recursion or a descriptor per level.
        for dir in below.iter().rev().map(Vec::as_slice).chain([path]) {
            self.clear_directory(dir, record)?;
            self.directories.remove(dir);
        }
        Ok(())
    }

    /// Removes a directory that has no directories in it any more.
    fn clear_directory(&mut self, path: &[u8], record: &mut Recorder<'_>) -> Result<(), Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = open_beneath(self.root, path, flags).during("open replaced directory")?;
        let mut names: Vec<CString> = Vec::new();
        for entry in rustix::fs::Dir::new(dir).during("read replaced directory")? {
            let entry = entry.during("read replaced directory")?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        for name in names {
            let child = crate::path::join(path, name.to_bytes());
            let parent = self.directory(path)?;
            let stat = statat(parent, &name, AtFlags::SYMLINK_NOFOLLOW).during("stat")?;
            self.clear_name(&child, &stat, record)?;
        }
        self.cached = None;
        let (dir, name) = split(path);
        let parent = self.directory(dir)?;
        unlinkat(parent, name, AtFlags::REMOVEDIR).during("remove replaced directory")
    }

    /// Removes one name of what is not a directory.
    fn clear_name(
        &mut self,
        path: &[u8],
        stat: &Stat,
        record: &mut Recorder<'_>,
    ) -> Result<(), Fault> {
        let content = self.contents.remove(&stat.st_ino);
        let (dir, name) = split(path);
        let parent = self.directory(dir)?;
        if let Some((id, content)) = content {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let fd = openat(parent, name, flags, Mode::empty()).during("open replaced file")?;
            record
                .save(id, &File::from(fd), &content)
                .during("save replaced file")?;
        }
        unlinkat(parent, name, AtFlags::empty()).during("remove replaced entry")
    }

    fn real_owners(&self) -> bool {
        self.options.ownership == Ownership::Real && self.options.owners == Owners::Keep
    }

    /// Owner, mode, xattrs, times, in this order: chown clears set-id bits and file capabilities.
    fn apply(
        &mut self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        attributes: &Attributes,
    ) -> Result<(), Fault> {
        self.apply_owner_and_mode(fd, stat, attributes, None)?;
        self.apply_xattrs(fd, &attributes.xattrs)?;
        futimens(fd, &times(attributes.mtime)).during("set times")
    }

    fn apply_owner_and_mode(
        &self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        attributes: &Attributes,
        kind: Option<OverrideKind>,
    ) -> Result<(), Fault> {
        let same = (stat.st_uid, stat.st_gid) == (attributes.uid, attributes.gid);
        if self.real_owners() && !same {
            let (uid, gid) = ids(attributes);
            fchown(fd, Some(uid), Some(gid)).map_err(|error| owner_fault(error, attributes))?;
        }
        let overriding = self.options.ownership == Ownership::Override;
        if overriding || kind.is_some() {
            let keep = self.options.owners == Owners::Keep;
            let stat = OverrideStat {
                uid: if keep { attributes.uid } else { 0 },
                gid: if keep { attributes.gid } else { 0 },
                mode: attributes.mode,
                kind,
            };
            let value = stat.to_string();
            fsetxattr(fd, OVERRIDE_STAT, value.as_bytes(), XattrFlags::empty())
                .during("write user.containers.override_stat")?;
        }
        let mode = match FileType::from_raw_mode(stat.st_mode) {
            // Its real owner is ourselves: no set-id bits, and we must be able to read it.
            FileType::Directory if overriding => attributes.mode & 0o777 | 0o700,
            _ if overriding || kind.is_some() => attributes.mode & 0o777 | 0o600,
            _ => attributes.mode,
        };
        fchmod(fd, Mode::from_raw_mode(mode)).during("change mode")
    }

    fn apply_xattrs(
        &mut self,
        fd: BorrowedFd<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Fault> {
        for (name, value) in xattrs {
            if !is_internal_xattr(OsStr::from_bytes(name)) {
                let outcome = fsetxattr(fd, name.as_slice(), value, XattrFlags::empty());
                self.xattr_outcome(name, outcome)?;
            }
        }
        Ok(())
    }

    /// For what cannot be opened: symbolic links and nodes.
    fn apply_xattrs_by_name(
        &mut self,
        path: &[u8],
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Fault> {
        let (dir, entry_name) = split(path);
        for (name, value) in xattrs {
            if !is_internal_xattr(OsStr::from_bytes(name)) {
                let parent = self.directory(dir)?;
                let mut link = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
                link.extend_from_slice(entry_name);
                let outcome = lsetxattr(link, name.as_slice(), value, XattrFlags::empty());
                self.xattr_outcome(name, outcome)?;
            }
        }
        Ok(())
    }

    /// What this filesystem or this process may not hold is left out, counted and told: docker does the same.
    fn xattr_outcome(&mut self, name: &[u8], outcome: rustix::io::Result<()>) -> Result<(), Fault> {
        match outcome {
            Ok(()) => Ok(()),
            Err(error @ (Errno::OPNOTSUPP | Errno::PERM)) => {
                self.skipped_xattrs += 1;
                let name = String::from_utf8_lossy(name);
                log::debug!("extended attribute {name:?} is not written: {error}");
                Ok(())
            }
            Err(error) => {
                let name = String::from_utf8_lossy(name);
                Err(Fault::Refused(format!(
                    "extended attribute {name:?} cannot be set: {error}"
                )))
            }
        }
    }

    fn apply_time_by_name(&mut self, path: &[u8], mtime: Time) -> Result<(), Fault> {
        let (dir, name) = split(path);
        let parent = self.directory(dir)?;
        utimensat(parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW).during("set times")
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn ids(attributes: &Attributes) -> (Uid, Gid) {
    (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid))
}

/// Both times are the modification time: the tar knows no other, and layers should not differ by when they were made.
fn times(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.sec,
        tv_nsec: i64::from(mtime.nsec),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn owner_fault(error: Errno, attributes: &Attributes) -> Fault {
    match error {
        Errno::INVAL => Fault::Refused(format!(
            "owner {}:{} does not exist in this user namespace (too few subordinate ids)",
            attributes.uid, attributes.gid
        )),
        error => Fault::Io("change owner", error.into()),
    }
}
