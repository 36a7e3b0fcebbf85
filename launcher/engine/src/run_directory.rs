//! The run-time directory: one per store root, with a socket directory for each running container.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mille_store::Digest;

use crate::error::{Error, Result};
use crate::files;
use crate::layout::{HASH_DIGITS, fits_socket};

/// Finds or makes the run-time directory of a store root; returns it and whether it is new.
///
/// Called before a user namespace is entered: the name holds the user's real id.
///
/// # Errors
/// No place for it, or one that somebody else could write to.
pub(crate) fn ensure(root: &Path) -> Result<(PathBuf, bool)> {
    let hash = Digest::of(root.as_os_str().as_bytes()).hex();
    let name = hash.get(..HASH_DIGITS).unwrap_or(&hash);
    let base = base()?;
    let directory = base.join(name);
    let new = files::make_directory(&directory, 0o700)?;
    Ok((directory, new))
}

/// Picks the first place that exists: /run/mille for root, `$XDG_RUNTIME_DIR`/mille for others, /tmp/mille-UID.
fn base() -> Result<PathBuf> {
    let uid = nix::unistd::geteuid();
    let preferred = if uid.is_root() {
        Some(PathBuf::from("/run"))
    } else {
        std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let preferred = preferred
        .map(|path| path.join("mille"))
        .filter(|path| fits_socket(path));
    if let Some(path) = preferred {
        match make_private(&path, uid.as_raw()) {
            Err(Error::Io { source, .. }) if is_no_place(&source) => {}
            other => return other.map(|()| path),
        }
    }
    let path = PathBuf::from(format!("/tmp/mille-{uid}"));
    make_private(&path, uid.as_raw())?;
    Ok(path)
}

/// A directory that is missing or that we may not write is no place for ours; another is tried.
fn is_no_place(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(
        error.kind(),
        NotFound | PermissionDenied | ReadOnlyFilesystem | NotADirectory
    )
}

/// Makes a directory only its owner can enter, or makes sure that what is there is one. /tmp is everybody's: somebody
/// may have made it before us, or put a link there.
fn make_private(path: &Path, uid: u32) -> Result<()> {
    if files::make_directory(path, 0o700)? {
        return Ok(());
    }
    let meta = fs::symlink_metadata(path).map_err(Error::io("stat", path))?;
    let fault = if !meta.is_dir() {
        "is not a directory"
    } else if meta.uid() != uid {
        "belongs to somebody else"
    } else if meta.mode() & 0o077 != 0 {
        "can be entered by others"
    } else {
        return Ok(());
    };
    let reason = format!("this run-time directory {fault}: remove it, or set XDG_RUNTIME_DIR");
    Err(Error::RunDirectory {
        path: path.to_path_buf(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_directory_others_could_use_is_refused() {
        let outer = tempfile::tempdir().unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let path = outer.path().join("run");
        make_private(&path, uid).unwrap();
        make_private(&path, uid).unwrap();
        assert!(make_private(&path, uid + 1).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(make_private(&path, uid).is_err());
        let link = outer.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(make_private(&link, uid).is_err());
    }
}
