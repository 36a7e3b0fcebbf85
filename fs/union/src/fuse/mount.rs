//! Putting the mount into the tree, and taking it out.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::MountOptions;
use crate::error::{Context, Error, Result};
use crate::sys;

/// Opens the device and mounts it. The device must be opened in the user namespace that mounts, which is here.
pub(crate) fn direct(
    mountpoint: &Path,
    options: &MountOptions,
    read_only: bool,
) -> Result<OwnedFd> {
    let device = Path::new("/dev/fuse");
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, device, flags, Mode::empty()).on("open", device)?;
    let target = sys::open::reopen_target(mountpoint).on("open mount point", mountpoint)?;
    let stat = rustix::fs::fstat(&target).on("stat mount point", mountpoint)?;
    let (mut flags, words) = split_options(options)?;
    if read_only || options.read_only {
        flags |= MountFlags::RDONLY;
    }
    let mut data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions",
        fd.as_raw_fd(),
        stat.st_mode & 0o170_000,
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    for word in words {
        write!(data, ",{word}").map_err(|_| Error::Config("mount options too long".to_owned()))?;
    }
    let fstype = format!("fuse.{}", options.subtype);
    let text = |text: &str| {
        CString::new(text).map_err(|_| Error::Config(format!("mount option with NUL: {text:?}")))
    };
    let (source, fstype, data) = (text(&options.fsname)?, text(&fstype)?, text(&data)?);
    sys::open::with_proc_path(std::os::fd::AsFd::as_fd(&target), |target| {
        rustix::mount::mount(
            source.as_c_str(),
            target,
            fstype.as_c_str(),
            flags,
            data.as_c_str(),
        )
    })
    .on("mount FUSE on", mountpoint)?;
    Ok(fd)
}

/// Words that are mount flags, and the rest, which goes to the kernel as text.
fn split_options(options: &MountOptions) -> Result<(MountFlags, Vec<&str>)> {
    let mut flags = MountFlags::empty();
    let mut words = Vec::new();
    for word in &options.kernel_options {
        match word.as_str() {
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "ro" => flags |= MountFlags::RDONLY,
            "rw" | "suid" | "dev" | "exec" | "atime" | "diratime" | "async" => {}
            other => words.push(other),
        }
    }
    Ok((flags, words))
}

/// Number of the mount a path leads to, without asking the file system behind it.
pub(crate) fn mount_id(path: &Path) -> std::result::Result<u64, Errno> {
    let fd = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let statx = rustix::fs::statx(&fd, c"", flags, StatxFlags::MNT_ID)?;
    Ok(statx.stx_mnt_id)
}

/// Takes the mount out of the tree; true if nobody used it, false if it lives on for those who do.
pub(crate) fn unmount(path: &Path) -> std::result::Result<bool, Errno> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::BUSY) => {
            rustix::mount::unmount(path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?;
            Ok(false)
        }
        Err(errno) => Err(errno),
    }
}
