//! Which mounts of people's own are being served: one small file each, locked by its server for as long as that lives.
//!
//! The mount point is wherever somebody wanted it, so nothing else says where to look when a server was killed: its
//! mount would stay and answer every access with `ENOTCONN`.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::engine::Mode;
use crate::error::{Error, Result};
use crate::files::{self, tolerate_missing};
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::mounts;

/// Mounts stacked on one directory that are taken away at most.
const MAX_STACKED: usize = 16;

/// The record of a mount that this process serves; gone when dropped, told as dead when the process is.
#[derive(Debug)]
pub(crate) struct Served {
    path: PathBuf,
    lock: Lock,
}

impl Served {
    /// Notes that this process is about to mount at `directory`.
    ///
    /// # Errors
    /// The run-time directory cannot be written.
    pub(crate) fn note(layout: &Layout, directory: &Path) -> Result<Self> {
        let home = layout.served();
        files::make_directory(&home, 0o700)?;
        loop {
            let path = home.join(ContainerId::random()?.short());
            // A sweep may have got hold of the new file first, and removed it.
            let Some(lock) = Lock::try_take(&path)? else {
                continue;
            };
            let file = OpenOptions::new().write(true).open(&path);
            let mut file = match file {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::io("open", &path))?,
            };
            file.write_all(directory.as_os_str().as_bytes())
                .map_err(Error::io("write", &path))?;
            return Ok(Self { path, lock });
        }
    }

    /// Forgets it: nothing is mounted any more.
    pub(crate) fn forget(self) -> Result<()> {
        let Self { path, lock } = self;
        tolerate_missing(fs::remove_file(&path)).map_err(Error::io("remove", &path))?;
        drop(lock);
        Ok(())
    }
}

/// Takes away the mounts whose servers were killed. Cheap when nobody ever mounted anything: one failing call.
///
/// As an ordinary user this must run outside of the user namespace, where the mounts are.
pub(crate) fn sweep(layout: &Layout, mode: Mode) -> Result<()> {
    let home = layout.served();
    let entries = match fs::read_dir(&home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Error::io("read", &home))?,
    };
    for entry in entries {
        let path = entry.map_err(Error::io("read", &home))?.path();
        if let Err(error) = clear(&path, mode) {
            log::warn!("clear a mount whose server was killed: {error}");
        }
    }
    Ok(())
}

fn clear(path: &Path, mode: Mode) -> Result<()> {
    let Some(_lock) = Lock::try_take_existing(path)? else {
        return Ok(());
    };
    let directory = fs::read(path).map_err(Error::io("read", path))?;
    let directory = PathBuf::from(OsString::from_vec(directory));
    for _ in 0..MAX_STACKED {
        if !is_dead(&directory) || !mounts::is_ours(&directory)? {
            break;
        }
        mounts::detach_dead(mode, &directory)?;
    }
    tolerate_missing(fs::remove_file(path)).map_err(Error::io("remove", path))
}

/// A mount without a server says so to whoever asks.
fn is_dead(directory: &Path) -> bool {
    matches!(
        rustix::fs::statfs(directory),
        Err(rustix::io::Errno::NOTCONN)
    )
}
