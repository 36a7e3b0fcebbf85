//! Copies a tree from descriptor to descriptor: types, modes, owners, times, hard links.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, StatxAttributes, StatxFlags,
    Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::place::{go, is_kernels, open_entry, reopen};
use crate::error::{Error, Result};

/// Directories within directories: beyond this a tree is taken for a trap.
const MAX_DEPTH: usize = 1000;

/// Whose the copies are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owners {
    /// As the originals.
    Keep,
    /// All of this user and group.
    Fixed(u32, u32),
    /// Of whoever copies.
    Caller,
}

/// Copies into one directory.
#[derive(Debug)]
pub(super) struct Copier<'d> {
    base: BorrowedFd<'d>,
    owners: Owners,
    /// Files with several names: where the first of them is, below `base`.
    links: HashMap<(u64, u64), PathBuf>,
    path: PathBuf,
    /// `base` as it was typed, for texts.
    typed: &'d Path,
    bytes: u64,
}

impl<'d> Copier<'d> {
    /// Copies are made in `base`.
    pub(super) fn new(base: BorrowedFd<'d>, owners: Owners, typed: &'d Path) -> Self {
        // Modes are what the originals have.
        rustix::process::umask(Mode::empty());
        Self {
            base,
            owners,
            links: HashMap::new(),
            path: PathBuf::new(),
            typed,
            bytes: 0,
        }
    }

    /// Copies something under a name; returns the bytes of files so far.
    pub(super) fn object(&mut self, source: BorrowedFd<'_>, name: &OsStr) -> Result<u64> {
        let base = self.base;
        self.one(source, base, name)?;
        Ok(self.bytes)
    }

    /// Copies what is in a directory.
    pub(super) fn contents(&mut self, source: BorrowedFd<'_>) -> Result<u64> {
        let base = self.base;
        self.children(source, base)?;
        Ok(self.bytes)
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(Errno) -> Error {
        let path = self.shown();
        move |errno| Error::io(operation, &path)(errno.into())
    }

    /// Where it stands, for texts.
    fn shown(&self) -> PathBuf {
        self.typed.join(&self.path)
    }

    fn children(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
        if self.path.components().count() > MAX_DEPTH {
            return Err(self.failed("enter")(Errno::NAMETOOLONG));
        }
        let readable = reopen(source, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(self.failed("open directory"))?;
        let mut names = Vec::new();
        let entries = rustix::fs::Dir::new(readable).map_err(self.failed("read directory"))?;
        for entry in entries {
            let entry = entry.map_err(self.failed("read directory"))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_unstable();
        for name in names {
            match open_entry(source, &name) {
                Ok(child) => self.one(child.as_fd(), target, &name)?,
                // Removed meanwhile.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(self.failed("open")(errno)),
            }
        }
        Ok(())
    }

    fn one(&mut self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        self.path.push(name);
        let stat = rustix::fs::fstat(source).map_err(self.failed("stat"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => self.directory(source, &stat, target, name)?,
            // Nothing that could be copied: it belongs to a program that runs.
            FileType::Socket => {}
            // A mark of a layer, not a device.
            FileType::CharacterDevice if stat.st_rdev == 0 => {}
            kind => {
                self.make_room(target, name)?;
                if !self.linked(&stat, target, name) {
                    self.leaf(source, &stat, kind, target, name)?;
                }
            }
        }
        self.path.pop();
        Ok(())
    }

    fn directory(
        &mut self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        target: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        match rustix::fs::mkdirat(target, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let found = rustix::fs::statat(target, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(self.failed("stat"))?;
                if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
                    let path = self.shown();
                    let path = path.display();
                    return Err(Error::Invalid(format!(
                        "cannot overwrite non-directory \"{path}\" with directory \"{path}\""
                    )));
                }
            }
            Err(errno) => return Err(self.failed("create directory")(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(target, name, flags, Mode::empty())
            .map_err(self.failed("open directory"))?;
        if !is_kernels(source) {
            self.children(source, made.as_fd())?;
        }
        self.finish(made.as_fd(), stat)
    }

    /// Owner, mode and times of a file or directory that is open.
    fn finish(&self, made: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
        if let Some((uid, gid)) = self.owner(stat) {
            rustix::fs::fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(self.failed("chown"))?;
        }
        rustix::fs::fchmod(made, Mode::from_raw_mode(stat.st_mode & 0o7777))
            .map_err(self.failed("chmod"))?;
        rustix::fs::futimens(made, &times(stat)).map_err(self.failed("set times of"))
    }

    fn owner(&self, stat: &Stat) -> Option<(u32, u32)> {
        match self.owners {
            Owners::Keep => Some((stat.st_uid, stat.st_gid)),
            Owners::Fixed(uid, gid) => Some((uid, gid)),
            Owners::Caller => None,
        }
    }

    /// Takes away what has the name, unless it is a directory.
    fn make_room(&self, target: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        // What is mounted there in the container's namespace would be unmounted by it: the kernel protects only the
        // mounts of the caller's own.
        let removed = if is_mounted(target, name) {
            Err(Errno::BUSY)
        } else {
            rustix::fs::unlinkat(target, name, AtFlags::empty())
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                let path = self.shown();
                let path = path.display();
                Err(Error::Invalid(format!(
                    "cannot overwrite directory \"{path}\" with non-directory \"{path}\""
                )))
            }
            Err(Errno::ROFS) => Err(self.failed("remove")(Errno::ROFS)),
            Err(errno) => Err(Error::Invalid(format!(
                "Error processing tar file(exit status 1): unlinkat {}: {}",
                self.shown().display(),
                go(errno)
            ))),
        }
    }

    /// Makes one more name of a file that has been copied; false when it has to be copied.
    fn linked(&mut self, stat: &Stat, target: BorrowedFd<'_>, name: &OsStr) -> bool {
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || stat.st_nlink < 2 {
            return false;
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some(first) = self.links.get(&key) else {
            self.links.insert(key, self.path.clone());
            return false;
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat2(self.base, first, flags, Mode::empty(), resolve);
        // Somebody changes the tree meanwhile, or the file system has no links: then it is one more file.
        found.is_ok_and(|found| {
            let path = format!("/proc/self/fd/{}", found.as_raw_fd());
            rustix::fs::linkat(CWD, path, target, name, AtFlags::SYMLINK_FOLLOW).is_ok()
        })
    }

    fn leaf(
        &mut self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        kind: FileType,
        target: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        match kind {
            FileType::RegularFile => return self.file(source, stat, target, name),
            FileType::Symlink => self.symlink(source, target, name)?,
            kind => {
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
                rustix::fs::mknodat(target, name, kind, mode, stat.st_rdev)
                    .map_err(self.failed("create device"))?;
            }
        }
        if let Some((uid, gid)) = self.owner(stat) {
            let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            rustix::fs::chownat(target, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(self.failed("chown"))?;
        }
        rustix::fs::utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(self.failed("set times of"))
    }

    fn file(
        &mut self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        target: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<()> {
        let readable: OwnedFd =
            reopen(source, OFlags::RDONLY | OFlags::NONBLOCK).map_err(self.failed("open"))?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(target, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(self.failed("create"))?;
        let (mut from, mut to) = (File::from(readable), File::from(made));
        let path = self.shown();
        self.bytes += std::io::copy(&mut from, &mut to).map_err(Error::io("copy", &path))?;
        self.finish(to.as_fd(), stat)
    }

    fn symlink(&self, source: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &OsStr) -> Result<()> {
        let text =
            rustix::fs::readlinkat(source, c"", Vec::new()).map_err(self.failed("read link"))?;
        if climbs(&self.path, Path::new(OsStr::from_bytes(text.as_bytes()))) {
            let text = format!(
                "invalid symlink \"{}\" -> \"{}\"",
                self.shown().display(),
                text.to_string_lossy()
            );
            return Err(match self.owners {
                Owners::Caller => Error::Client(text),
                _ => Error::Invalid(format!("Error processing tar file(exit status 1): {text}")),
            });
        }
        rustix::fs::symlinkat(&*text, target, name).map_err(self.failed("create link"))
    }
}

/// Whether a name is the place of a mount.
fn is_mounted(directory: BorrowedFd<'_>, name: &OsStr) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = rustix::fs::statx(directory, name, flags, StatxFlags::TYPE);
    stat.is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether a link at `path`, below the directory that is copied into, names something above that directory, by its text.
/// Docker refuses such links.
fn climbs(path: &Path, target: &Path) -> bool {
    if target.is_absolute() {
        return false;
    }
    let mut depth = path.components().count().saturating_sub(1);
    for component in target.components() {
        match component {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_above_the_target_are_refused() {
        for (path, target, want) in [
            ("up", "../file", true),
            ("dirup/up", "../file", false),
            ("a/b/up", "../../../x", true),
            ("rel", "in", false),
            ("abs", "/data", false),
            ("x", "a/../../b", true),
        ] {
            assert_eq!(climbs(Path::new(path), Path::new(target)), want, "{path}");
        }
    }
}
