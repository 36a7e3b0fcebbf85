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

use mille_store::{DiffId, ImageId};
use serde::{Deserialize, Serialize};

use crate::engine::Mode;
use crate::error::{Error, Result};
use crate::files::{self, tolerate_missing};
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::mounts;

/// Mounts stacked on one directory that are taken away at most.
const MAX_STACKED: usize = 16;

/// What a mount shows, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// Behind the rest of the record, as bytes: a path need not be text.
    #[serde(skip)]
    pub(crate) directory: PathBuf,
    pub(crate) image: Option<ImageId>,
    /// Of the image, bottom first: they are kept as long as the mount is served.
    pub(crate) layers: Vec<DiffId>,
}

impl Mount {
    /// One line of JSON, then the directory to the end.
    fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)
            .map_err(|error| Error::system("write the record of a mount")(error.into()))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(self.directory.as_os_str().as_bytes());
        Ok(bytes)
    }

    /// Nothing if it is not whole: its writer was killed, or is about to mount and finds out by itself.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|&byte| byte == b'\n')?;
        let mut mount: Self = serde_json::from_slice(bytes.get(..end)?).ok()?;
        mount.directory = PathBuf::from(OsString::from_vec(bytes.get(end + 1..)?.to_vec()));
        Some(mount)
    }
}

/// The record of a mount that this process serves; gone when dropped, told as dead when the process is.
#[derive(Debug)]
pub(crate) struct Served {
    path: PathBuf,
    lock: Lock,
}

impl Served {
    /// Notes what this process is about to mount.
    ///
    /// # Errors
    /// The run-time directory cannot be written.
    pub(crate) fn note(layout: &Layout, mount: &Mount) -> Result<Self> {
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
            file.write_all(&mount.to_bytes()?)
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

/// Returns what is being served now.
pub(crate) fn all(layout: &Layout) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for path in records(layout)? {
        if !Lock::is_held(&path)? {
            continue;
        }
        match fs::read(&path) {
            Ok(record) => mounts.extend(Mount::from_bytes(&record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
    }
    Ok(mounts)
}

/// Returns how many mounts are being served at a directory.
pub(crate) fn at(layout: &Layout, directory: &Path) -> Result<usize> {
    let mounts = all(layout)?;
    Ok(mounts
        .iter()
        .filter(|mount| mount.directory == directory)
        .count())
}

fn records(layout: &Layout) -> Result<Vec<PathBuf>> {
    let home = layout.served();
    let entries = match fs::read_dir(&home) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", &home))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths
        .collect::<io::Result<_>>()
        .map_err(Error::io("read", &home))
}

/// Takes away the mounts whose servers were killed. Cheap when nobody ever mounted anything: one failing call.
///
/// As an ordinary user this must run outside of the user namespace, where the mounts are.
pub(crate) fn sweep(layout: &Layout, mode: Mode) -> Result<()> {
    for path in records(layout)? {
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
    let record = fs::read(path).map_err(Error::io("read", path))?;
    if let Some(Mount { directory, .. }) = Mount::from_bytes(&record) {
        for _ in 0..MAX_STACKED {
            if !is_dead(&directory) || !mounts::is_ours(&directory)? {
                break;
            }
            mounts::detach_dead(mode, &directory)?;
        }
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
