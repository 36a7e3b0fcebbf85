//! The root of a container as a descriptor: the only way by which paths of a container are resolved.

use crate::Failure;
use crate::weaken::{self, Hole};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// `openat2` may say EAGAIN while something is being renamed or mounted; each try is a whole walk, so this many failures
/// in a row mean that somebody does it on purpose.
const MAX_TRIES: u32 = 128;

/// Largest passwd or group file that is read. Directory services write thousands of users, not millions.
const MAX_ACCOUNT_FILE_BYTES: u64 = 4 << 20;

/// Magic number of procfs (`linux/magic.h`).
pub(crate) const PROC_MAGIC: i64 = 0x9fa0;
/// Magic number of devpts.
pub(crate) const DEVPTS_MAGIC: i64 = 0x1cd1;

/// A container's root.
#[derive(Debug)]
pub(crate) struct Rootfs {
    fd: OwnedFd,
}

impl AsFd for Rootfs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Calls `openat2`, again when it asks for it.
fn openat2(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = if weaken::is_open(Hole::RootScope) {
        ResolveFlags::empty()
    } else {
        resolve
    };
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
            other => return other,
        }
    }
}

/// Returns `path` without `.`, `..` and doubled slashes, by its text alone as docker does, relative to the root.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

impl Rootfs {
    /// Takes a descriptor of the root directory.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens a path of the container: links stay within the root, links of procfs are refused with `ELOOP`.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = clean(path);
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &path
        };
        openat2(
            self.fd.as_fd(),
            path,
            flags,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Opens a path of the container that must not lead through any link.
    pub(crate) fn open_strict(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat2(
            self.fd.as_fd(),
            &clean(path),
            flags,
            ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// Whether `fd` is on the file system of the root itself, as far as is known without asking a server for it.
    pub(crate) fn is_on_its_filesystem(&self, fd: BorrowedFd<'_>) -> Result<bool, Errno> {
        Ok(device_of(fd)? == device_of(self.fd.as_fd())?)
    }

    /// Opens a directory, making it (root:root 0755) and its parents where they are missing.
    ///
    /// # Errors
    /// `ENOTDIR`: something else is in the way. `ELOOP`: a link of procfs. `ENOENT`: a dangling link.
    pub(crate) fn make_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut prefix = PathBuf::new();
        let mut parent = self.open(Path::new("."), flags)?;
        for name in clean(path).iter() {
            prefix.push(name);
            parent = match self.open(&prefix, flags) {
                Err(Errno::NOENT) => {
                    make_one(parent.as_fd(), name)?;
                    self.open(&prefix, flags)?
                }
                other => other?,
            };
        }
        Ok(parent)
    }

    /// Like [`Rootfs::make_directory`] where links are refused: for the mount points of the kernel's own filesystems.
    pub(crate) fn make_directory_strict(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_strict(path, flags) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut prefix = PathBuf::new();
        let mut parent = self.open(Path::new("."), flags)?;
        for name in clean(path).iter() {
            prefix.push(name);
            make_one(parent.as_fd(), name)?;
            parent = self.open_strict(&prefix, flags)?;
        }
        Ok(parent)
    }

    /// Opens a file (`O_PATH`) to be mounted over, making an empty one (0755, as docker does) where it is missing.
    ///
    /// # Errors
    /// As of [`Rootfs::make_directory`].
    pub(crate) fn make_file(&self, path: &Path) -> Result<OwnedFd, Errno> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let path = clean(path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::ISDIR);
        };
        let parent = self.make_directory(parent)?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o755)) {
            Ok(_) | Err(Errno::EXIST) => self.open(&path, OFlags::PATH),
            Err(errno) => Err(errno),
        }
    }

    /// Reads a passwd or group file: a regular file of bounded size, opened without waiting. A missing one is empty.
    ///
    /// # Errors
    /// It is a FIFO, a device, a directory, or too large.
    pub(crate) fn read_account_file(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let path = Path::new(path);
        let bad = |reason: &str| Failure::AccountFile {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let failed = |errno| Failure::system("read", Some(path.to_owned()), errno);
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match self.open(path, flags) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
            // A socket; a device without a driver.
            Err(Errno::NXIO | Errno::NODEV) => return Err(bad("not a regular file")),
            Err(Errno::LOOP) => return Err(bad("a link that leads nowhere in the container")),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !is_regular && !weaken::is_open(Hole::AccountFile) {
            return Err(bad("not a regular file"));
        }
        let mut bytes =
            Vec::with_capacity(usize::try_from(stat.st_size.clamp(0, 1 << 16)).unwrap_or(0) + 1);
        let mut chunk = [0; 4096];
        loop {
            let read = match rustix::io::read(&file, &mut chunk) {
                Ok(0) => return Ok(bytes),
                Err(Errno::INTR) => continue,
                other => other.map_err(failed)?,
            };
            bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
            if bytes.len() as u64 > MAX_ACCOUNT_FILE_BYTES {
                return Err(bad("larger than 4 MiB"));
            }
        }
    }
}

fn make_one(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn device_of(fd: BorrowedFd<'_>) -> Result<(u32, u32), Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, "", flags, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Returns the magic number of the filesystem `fd` is on.
pub(crate) fn filesystem_magic(fd: BorrowedFd<'_>) -> Result<i64, Errno> {
    rustix::fs::fstatfs(fd).map(|stat| stat.f_type)
}

/// Whether `stat` is the character device of these numbers.
pub(crate) fn is_char_device(stat: &Stat, major: u32, minor: u32) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning_is_by_text() {
        for (given, want) in [
            ("/a/b", "a/b"),
            ("/a/../b", "b"),
            ("/../../etc", "etc"),
            ("/", ""),
            ("a//./b/", "a/b"),
        ] {
            assert_eq!(clean(Path::new(given)), Path::new(want), "{given}");
        }
    }
}
