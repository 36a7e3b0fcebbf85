//! Removing trees of any depth, owner and mode.
//!
//! Layers come from strangers: a tree may be nested thousands of directories deep, and a descriptor for each level
//! would exceed the limit. So what lies too deep is moved up and removed from there. No link is followed.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{At, Error};

/// Directories held open at once, one for each level.
const DEPTH: usize = 64;

/// Removes a file or a tree; one that is not there is no error.
pub(crate) fn remove_tree(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).at("stat", path),
        Ok(meta) if !meta.is_dir() => return fs::remove_file(path).at("remove", path),
        Ok(_) => {}
    }
    let root = open(rustix::fs::CWD, &c_path(path)?).at("open", path)?;
    let mut removal = Removal {
        root: root.as_fd(),
        moved: 0,
    };
    // Each round removes what the one before has moved up to the root.
    loop {
        let before = removal.moved;
        removal.empty(root.as_fd(), 0).at("remove", path)?;
        if removal.moved == before {
            break;
        }
    }
    fs::remove_dir(path).at("remove", path)
}

struct Removal<'a> {
    root: BorrowedFd<'a>,
    /// Directories moved up so far: makes their names.
    moved: u64,
}

impl Removal<'_> {
    /// Removes what is in `directory`, except for what it moves up.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<(), Errno> {
        for name in names(directory)? {
            // A directory is told by the error: one call for each of the many files.
            match rustix::fs::unlinkat(directory, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
            match rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
                Err(errno) => return Err(errno),
            }
            let below = open(directory, &name)?;
            if depth == DEPTH {
                drop(below);
                self.move_up(directory, &name)?;
                continue;
            }
            self.empty(below.as_fd(), depth + 1)?;
            rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let target = format!(".moved-{}", self.moved);
            match rustix::fs::renameat_with(
                directory,
                name,
                self.root,
                &*target,
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
        }
    }
}

/// Opens a directory so that its entries can be removed, whatever its mode.
fn open(at: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if !rustix::process::geteuid().is_root() {
        unlock(at.as_fd(), name);
    }
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Gives an ordinary owner all rights on a directory. An error says nothing that opening it does not say as well.
fn unlock(at: BorrowedFd<'_>, name: &CStr) {
    if let Err(errno) = rustix::fs::chmodat(at, name, Mode::RWXU, AtFlags::empty()) {
        log::debug!("chmod {name:?}: {errno}");
    }
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn c_path(path: &Path) -> Result<CString, Error> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes())
        .map_err(std::io::Error::from)
        .at("name", path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn trees_of_any_depth_and_mode_go_and_links_stay() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        fs::create_dir(tree.join(".moved-1")).unwrap();
        fs::write(tree.join("closed-file"), "x").unwrap();
        fs::create_dir(tree.join("closed")).unwrap();
        fs::write(tree.join("closed/file"), "x").unwrap();
        fs::set_permissions(tree.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
        let mut at = rustix::fs::open(&tree, OFlags::PATH, Mode::empty()).unwrap();
        // Deeper than PATH_MAX and than the usual limit of open files.
        for level in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            if level % 100 == 0 {
                rustix::fs::symlinkat("x", &at, "l").unwrap();
            }
            at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&tree).unwrap();
        remove_tree(&outside.join("kept")).unwrap();
        assert!(!outside.join("kept").exists());
    }
}
