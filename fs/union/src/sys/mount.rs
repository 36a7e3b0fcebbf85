//! Private views of layers' directories, through which no mount that covers them is met.
#![allow(
    unsafe_code,
    reason = "mount_setattr(2) has no wrapper in the libraries used"
)]

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOATIME: u64 = 0x10;
const MOUNT_ATTR_ATIME: u64 = 0x70;

/// Clones the mount a directory lies on, only that directory and without the mounts below it, as read-only. The kernel
/// then refuses every write through the clone, whatever a program error would try; and mounts that cover parts of the
/// layer, ours among them, are not seen through it. Needs `CAP_SYS_ADMIN` over the mount namespace.
pub(crate) fn read_only_clone(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let clone = open_tree(
        dir,
        c"",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH,
    )?;
    let attr = MountAttr {
        attr_set: MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME,
        attr_clr: MOUNT_ATTR_ATIME,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the descriptor is open, the path is a terminated string, and the structure has the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(clone)
    } else {
        Err(last_errno())
    }
}

/// Two directories of one mount, reached through a clone of it that has no mounts below: so that neither a mount at one of
/// them nor one in it is met, ours among them. Needs `CAP_SYS_ADMIN` over the mount namespace.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) first: OwnedFd,
    pub(crate) second: OwnedFd,
    /// The clone; taken apart by the kernel when this is closed.
    pub(crate) tree: OwnedFd,
}

/// Clones the mount on which both directories lie. They must share it, since a name cannot be moved between two.
///
/// # Errors
/// `EXDEV` if they do not share a mount or their paths are not to be had; what the kernel refuses the clone with.
pub(crate) fn clone_pair(first: BorrowedFd<'_>, second: BorrowedFd<'_>) -> Result<Pair, Errno> {
    let (one, two) = (path_of(first)?, path_of(second)?);
    let (one, two) = (Path::new(&one), Path::new(&two));
    let common: PathBuf = one
        .components()
        .zip(two.components())
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a)
        .collect();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(CWD, &common, flags, Mode::empty())?;
    let mount = mount_of(above.as_fd())?;
    if mount_of(first)? != mount || mount_of(second)? != mount {
        return Err(Errno::XDEV);
    }
    let tree = open_tree(
        &above,
        c"",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH,
    )?;
    let inside = |path: &Path, of: BorrowedFd<'_>| -> Result<OwnedFd, Errno> {
        let path = path.strip_prefix(&common).map_err(|_| Errno::XDEV)?;
        let found = super::open::dir_beneath(tree.as_fd(), path.as_os_str().as_bytes())?;
        let (stat, wanted) = (rustix::fs::fstat(&found)?, rustix::fs::fstat(of)?);
        if (stat.st_dev, stat.st_ino) == (wanted.st_dev, wanted.st_ino) {
            Ok(found)
        } else {
            Err(Errno::XDEV)
        }
    };
    let (first, second) = (inside(one, first)?, inside(two, second)?);
    Ok(Pair {
        first,
        second,
        tree,
    })
}

fn path_of(dir: BorrowedFd<'_>) -> Result<OsString, Errno> {
    let path =
        super::open::with_proc_path(dir, |path| rustix::fs::readlinkat(CWD, path, Vec::new()))?;
    Ok(OsString::from_vec(path.into_bytes()))
}

fn mount_of(dir: BorrowedFd<'_>) -> Result<u64, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let statx = rustix::fs::statx(dir, c"", flags, StatxFlags::MNT_ID)?;
    Ok(statx.stx_mnt_id)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
