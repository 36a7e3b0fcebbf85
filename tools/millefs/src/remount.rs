//! `mount -o remount`: other flags for a mount that is there. The server is not asked; the kernel holds all of them.

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::options::Options;

/// Gives the mount at the mount point the flags asked for, `ro` and `rw` for the file system as a whole.
pub(crate) fn remount(options: &Options) -> Result<()> {
    let mut flags = MsFlags::MS_REMOUNT;
    if options.read_only {
        flags |= MsFlags::MS_RDONLY;
    }
    for word in &options.kernel {
        flags |= flag(word.as_encoded_bytes());
    }
    let none = None::<&str>;
    mount(none, &options.mountpoint, none, flags, none)
        .with_context(|| format!("remount {}", options.mountpoint.display()))
}

/// What a word means to the kernel; words that only a new mount can have mean nothing.
fn flag(word: &[u8]) -> MsFlags {
    match word {
        b"nosuid" => MsFlags::MS_NOSUID,
        b"nodev" => MsFlags::MS_NODEV,
        b"noexec" => MsFlags::MS_NOEXEC,
        b"noatime" => MsFlags::MS_NOATIME,
        b"nodiratime" => MsFlags::MS_NODIRATIME,
        b"relatime" => MsFlags::MS_RELATIME,
        b"strictatime" => MsFlags::MS_STRICTATIME,
        b"sync" => MsFlags::MS_SYNCHRONOUS,
        b"dirsync" => MsFlags::MS_DIRSYNC,
        _ => MsFlags::empty(),
    }
}
