//! Files and directories that appear whole or not at all.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{At, Error};

/// Writes a file aside, makes it durable, and gives it its name; one that is there already is replaced.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut aside = tempfile::Builder::new()
        .prefix(&format!("{name}."))
        .tempfile_in(directory)
        .at("create file in", directory)?;
    aside.write_all(bytes).at("write", path)?;
    aside.as_file().sync_all().at("sync", path)?;
    aside
        .persist(path)
        .map_err(|error| error.error)
        .at("rename into place", path)?;
    sync_directory(directory)
}

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
    placed: bool,
}

impl Staged {
    /// Makes an empty one.
    pub(crate) fn new(staging: &Path) -> Result<Self, Error> {
        let made = tempfile::Builder::new()
            .prefix("s-")
            .tempdir_in(staging)
            .at("create directory in", staging)?;
        Ok(Staged {
            path: made.keep(),
            placed: false,
        })
    }

    /// Moves an existing directory here, so that it is gone under its name at once, whatever happens to its files.
    pub(crate) fn taken(staging: &Path, from: &Path) -> Result<Self, Error> {
        let staged = Staged::new(staging)?;
        fs::rename(from, staged.path.join("old")).at("move away", from)?;
        Ok(staged)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes everything in it durable and gives it its name. If somebody else made the same meanwhile, that one stays.
    pub(crate) fn place(mut self, target: &Path) -> Result<(), Error> {
        let directory = File::open(&self.path).at("open", &self.path)?;
        rustix::fs::syncfs(&directory).at("sync", &self.path)?;
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

/// Removes a tree. `remove_dir_all` works relative to descriptors and follows no link.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

/// Makes a directory of mode 0700.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .at("create directory", path)
}
