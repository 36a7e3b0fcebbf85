//! Small files that appear whole or not at all, and trees that go away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Mode of every file the engine writes for itself.
const PRIVATE: u32 = 0o600;

/// Replaces `name` in `directory` by `content` in one rename.
///
/// Not synced: these files live on the run path, and a machine that crashed has no running containers anyway; the
/// rename alone makes sure that a reader sees the old content or the new. One writer at a time (whoever holds the
/// container's lock), so the name aside may be fixed.
pub(crate) fn replace(directory: &Path, name: &str, content: &[u8], mode: u32) -> Result<()> {
    let aside = directory.join(format!(".{name}.new"));
    let target = directory.join(name);
    write(&aside, content, mode)?;
    fs::rename(&aside, &target).map_err(Error::io("rename into place", &target))
}

/// Writes a file that nobody reads before its writer has finished.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    let mut file = options.open(path).map_err(Error::io("create", path))?;
    file.write_all(content).map_err(Error::io("write", path))
}

/// Replaces a JSON file.
pub(crate) fn replace_json<T: Serialize>(directory: &Path, name: &str, value: &T) -> Result<()> {
    let content = serde_json::to_vec(value).map_err(|source| Error::Record {
        path: directory.join(name),
        source,
    })?;
    replace(directory, name, &content, PRIVATE)
}

/// Writes a JSON file over an old one, in the space that has already. What is longer than the new one is made blank.
///
/// # Errors
/// There is no old one, or it has no room for more.
pub(crate) fn overwrite_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut content = serde_json::to_vec(value).map_err(|source| Error::Record {
        path: path.to_path_buf(),
        source,
    })?;
    let failed = |error| Error::io("write", path)(error);
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let length = usize::try_from(length).unwrap_or_default();
    content.resize(content.len().max(length), b' ');
    file.write_all_at(&content, 0).map_err(failed)
}

/// Reads a JSON file; `None` when it does not exist.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| Error::Record {
            path: path.to_path_buf(),
            source,
        })
}

/// Takes "it is not there" for success.
pub(crate) fn tolerate_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Creates a directory with `mode` unless it exists; returns whether it was created.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<bool> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(errno) => Err(Error::io("create directory", path)(errno.into())),
    }
}

/// Opens a directory for `*at` calls.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(
        path,
        OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| Error::io("open directory", path)(errno.into()))
}

/// Removes a tree, going down by descriptors and never through a symbolic link. What vanishes meanwhile is fine.
///
/// # Errors
/// The first entry that cannot be removed.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let Some(name) = path.file_name() else {
        return Ok(());
    };
    let parent = match rustix::fs::open(
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(parent) => parent,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(Error::io("open directory", parent)(errno.into())),
    };
    remove_at(parent.as_fd(), name.as_encoded_bytes(), 0)
        .map_err(|errno| Error::io("remove", path)(errno.into()))
}

/// Deepest tree that is removed by recursion; a path of the file system is shorter than this many components.
const MAX_DEPTH: u32 = 4096;

fn remove_at(parent: BorrowedFd<'_>, name: &[u8], depth: u32) -> rustix::io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ISDIR | rustix::io::Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    if depth > MAX_DEPTH {
        return Err(rustix::io::Errno::NAMETOOLONG);
    }
    match open_for_removal(parent, name)? {
        None => return Ok(()),
        Some(directory) => empty_directory(&directory, depth)?,
    }
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Opens a directory that is about to go, giving ourselves access first where its owner took it away.
fn open_for_removal(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(rustix::io::Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(parent, name, flags, Mode::empty()).map(Some)
        }
        Err(errno) => Err(errno),
    }
}

fn empty_directory(directory: &OwnedFd, depth: u32) -> rustix::io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let result = remove_at(directory.as_fd(), name, depth + 1);
        if matches!(result, Err(rustix::io::Errno::ACCESS))
            && entry.file_type() != FileType::Unknown
        {
            // A directory its owner made unwritable (one-id mode, where the owner is us): open it up and try again.
            rustix::fs::fchmod(directory, Mode::RWXU)?;
            remove_at(directory.as_fd(), name, depth + 1)?;
        } else {
            result?;
        }
    }
    Ok(())
}

/// Opens a file of ours for appending, created private.
pub(crate) fn open_append(path: &Path, mode: u32) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(mode)
        .open(path)
        .map_err(Error::io("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_tree_goes_and_links_are_not_followed() {
        let outer = tempfile::tempdir().unwrap();
        let kept = outer.path().join("kept");
        fs::create_dir_all(kept.join("inside")).unwrap();
        let tree = outer.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/file"), "x").unwrap();
        symlink(&kept, tree.join("a/link")).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(kept.join("inside").is_dir());
        remove_tree(&tree).unwrap();
    }

    #[test]
    fn json_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(
            read_json::<u32>(&directory.path().join("n.json")).unwrap(),
            None
        );
        replace_json(directory.path(), "n.json", &7_u32).unwrap();
        replace_json(directory.path(), "n.json", &8_u32).unwrap();
        assert_eq!(
            read_json::<u32>(&directory.path().join("n.json")).unwrap(),
            Some(8)
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let path = directory.path().join("n.json");
        replace_json(directory.path(), "n.json", &"a long text").unwrap();
        overwrite_json(&path, &1_u32).unwrap();
        assert_eq!(read_json::<u32>(&path).unwrap(), Some(1));
        overwrite_json(&path, &"longer again than before").unwrap();
        assert_eq!(
            read_json::<String>(&path).unwrap().as_deref(),
            Some("longer again than before")
        );
    }
}
