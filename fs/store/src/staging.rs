//! Files and directories that appear whole or not at all.
//!
//! What is made or removed lies in the staging area. Each piece of work there has a directory of its own, locked by
//! flock(2) for as long as its process lives: so a collection tells the dead from the living, and nobody needs to hold
//! the store's lock while a slow pipe is read.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::discard::remove_tree;
use crate::error::{At, Error};
use crate::store::Store;

/// Makes the names of a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .at("sync", path)
}

/// A directory in the staging area; removed when dropped, unless it got its name.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    /// Holds the lock that says that somebody is at work.
    directory: File,
    placed: bool,
}

/// Says that something is being done in several steps. Left behind by a killed process, it makes the next command collect
/// what the steps so far have made or left without a use, such as a layer that no image refers to yet.
#[derive(Debug)]
pub struct Work {
    _staged: Staged,
}

impl Store {
    /// Begins something that takes several steps.
    ///
    /// # Errors
    /// The staging area cannot be written.
    pub fn begin(&self) -> Result<Work, Error> {
        self.stage().map(|staged| Work { _staged: staged })
    }

    /// Makes an empty directory in the staging area. Holds the shared lock for a moment only.
    pub(crate) fn stage(&self) -> Result<Staged, Error> {
        // A collection must not see it between its making and its locking.
        let _lock = self.lock_shared()?;
        let staging = self.staging();
        let path = tempfile::Builder::new()
            .prefix("s-")
            .tempdir_in(&staging)
            .at("create directory in", &staging)?
            .keep();
        let directory = File::open(&path).at("open", &path)?;
        directory.lock().at("lock", &path)?;
        Ok(Staged {
            path,
            directory,
            placed: false,
        })
    }

    /// Writes a file aside, makes it durable, and gives it its name; one that is there already is replaced.
    pub(crate) fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        let staged = self.stage()?;
        let aside = staged.path.join("file");
        File::create(&aside)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .at("write", path)?;
        fs::rename(&aside, path).at("rename into place", path)?;
        sync_directory(path.parent().unwrap_or(Path::new(".")))
    }

    /// Moves an existing directory to the staging area, so that it is gone under its name at once, whatever happens to
    /// its files. Nothing is made for that: a full disk is no obstacle to removing.
    pub(crate) fn take_away(&self, from: &Path) -> Result<Staged, Error> {
        let directory = File::open(from).at("open", from)?;
        directory.lock().at("lock", from)?;
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        // Unlike anything that a killed process of the same number may have left.
        let moment = jiff::Timestamp::now().as_nanosecond();
        let path = self.staging().join(format!("r-{moment:x}-{name}"));
        fs::rename(from, &path).at("move away", from)?;
        Ok(Staged {
            path,
            directory,
            placed: false,
        })
    }
}

impl Staged {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes everything in it durable (and everything else on that filesystem: one call for any number of files).
    pub(crate) fn sync(&self) -> Result<(), Error> {
        rustix::fs::syncfs(&self.directory).at("sync", &self.path)
    }

    /// Makes the names in it durable; their files are synced already.
    pub(crate) fn sync_names(&self) -> Result<(), Error> {
        self.directory.sync_all().at("sync", &self.path)
    }

    /// Gives it its name; the caller has synced it. If somebody else made the same meanwhile, that one stays.
    pub(crate) fn place(mut self, target: &Path) -> Result<(), Error> {
        match fs::rename(&self.path, target) {
            Ok(()) => self.placed = true,
            Err(_) if target.exists() => {}
            Err(error) => return Err(error).at("rename into place", target),
        }
        sync_directory(target.parent().unwrap_or(Path::new(".")))
    }

    /// Removes it now, with the error that dropping would only log.
    pub(crate) fn remove(mut self) -> Result<(), Error> {
        self.placed = true;
        remove_tree(&self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = remove_tree(&self.path)
        {
            log::warn!("{error}; the next collection removes it");
        }
    }
}

/// Returns whether a process is at work in a directory of the staging area.
pub(crate) fn is_live(path: &Path) -> Result<bool, Error> {
    let directory = match File::open(path) {
        Ok(directory) => directory,
        // It ended, and took its directory along.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error).at("open", path),
    };
    match directory.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error).at("lock", path),
    }
}

/// Makes a directory of mode 0700.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .at("create directory", path)
}
