//! The init layer: mount points and stubs between a container's image and its upper.
//!
//! docker makes one per container on top of the image; its content never differs, so here all containers of a store
//! share one. Directories are *implied*: they take their attributes from the image where it has them. Files hide the
//! image's own. `diff` and `commit` compare against image and init layer, so nothing of it is ever a change.
//!
//! A second shared layer, the *host mask*, lies above the machine's own root: it hides the store itself, so that a
//! container on `@host` does not see its own upper directory grow while it reads.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use mille_layer::{Mark, MarkSpace, Ownership};
use mille_sandbox::weaken::{self, Hole};
use rustix::fs::XattrFlags;

use crate::error::{Error, Result};
use crate::files;
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::removal;

/// Directories every container has.
const DIRECTORIES: [&str; 6] = ["dev", "dev/pts", "dev/shm", "etc", "proc", "sys"];
/// Empty files, mode 0755 as docker makes them.
const FILES: [&str; 5] = [
    ".dockerenv",
    "dev/console",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
];

/// How marks and owners are kept in this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) space: MarkSpace,
    pub(crate) ownership: Ownership,
}

/// Makes the init layer unless it is there.
pub(crate) fn ensure(layout: &Layout, dialect: Dialect) -> Result<()> {
    appear(layout, &layout.init_layer(), |tree| {
        for name in DIRECTORIES {
            if name == "proc" && weaken::is_open(Hole::ProcLink) {
                continue;
            }
            make_implied(&tree.join(name), dialect)?;
        }
        for name in FILES {
            let path = tree.join(name);
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o755);
            let file = options.open(&path).map_err(Error::io("create", &path))?;
            // Whatever our umask is.
            file.set_permissions(Permissions::from_mode(0o755))
                .map_err(Error::io("set mode of", &path))?;
            if dialect.ownership == Ownership::Override {
                set(&file.into(), &path, mille_layer::OVERRIDE_STAT, b"0:0:0755")?;
            }
        }
        let mtab = tree.join("etc/mtab");
        symlink("/proc/mounts", &mtab).map_err(Error::io("create link", &mtab))
    })
}

/// Makes the host mask unless it is there; `None` when the store is not on the root file system and so not in view.
pub(crate) fn ensure_host_mask(layout: &Layout, dialect: Dialect) -> Result<Option<PathBuf>> {
    let root = fs::canonicalize(&layout.root).map_err(Error::io("resolve", &layout.root))?;
    if !same_mount(&root)? {
        return Ok(None);
    }
    let layer = layout.root.join("host-mask");
    appear(layout, &layer, |tree| {
        let mut path = tree.to_path_buf();
        let parts: Vec<_> = root
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        for (at, part) in parts.iter().enumerate() {
            path.push(part);
            if at + 1 < parts.len() {
                make_implied(&path, dialect)?;
            } else {
                let directory = make_private(&path, dialect)?;
                set(&directory, &path, dialect.space.name(Mark::Opaque), b"y")?;
            }
        }
        Ok(())
    })?;
    Ok(Some(layer))
}

/// Marks a new upper directory as root's and 0755, where owners are kept beside the files.
pub(crate) fn own_root(upper: &Path, dialect: Dialect) -> Result<()> {
    if dialect.ownership == Ownership::Real {
        return Ok(());
    }
    set(
        &files::open_directory(upper)?,
        upper,
        mille_layer::OVERRIDE_STAT,
        b"0:0:0755",
    )
}

/// Returns whether `path` lies on the very mount that `/` is: only that one is walked.
fn same_mount(path: &Path) -> Result<bool> {
    let mount = |path: &Path| -> Result<u64> {
        let flags = rustix::fs::AtFlags::empty();
        let stat = rustix::fs::statx(rustix::fs::CWD, path, flags, rustix::fs::StatxFlags::MNT_ID)
            .map_err(|errno| Error::io("stat", path)(errno.into()))?;
        Ok(stat.stx_mnt_id)
    };
    Ok(mount(Path::new("/"))? == mount(path)?)
}

/// Builds a layer in the staging area and renames it into place; whoever comes second finds the first one's. Killed
/// half-way, it is cleared like a container in the making.
fn appear(layout: &Layout, layer: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if layer.is_dir() {
        return Ok(());
    }
    let id = ContainerId::random()?;
    let staged = layout.staged(&id);
    let _lock = removal::stage(layout, &id)?;
    let aside = staged.directory.join("tree");
    let built = files::make_directory(&aside, 0o755)
        .and_then(|_| build(&aside))
        .and_then(|()| match fs::rename(&aside, layer) {
            Err(_) if layer.is_dir() => Ok(()),
            other => other.map_err(Error::io("rename into place", layer)),
        });
    removal::remove_staged(&staged)?;
    built
}

/// Makes a directory whose attributes come from the layers below.
fn make_implied(path: &Path, dialect: Dialect) -> Result<()> {
    let directory = make(path, 0o755, dialect, b"0:0:0755")?;
    set(&directory, path, dialect.space.name(Mark::Implied), b"y")
}

fn make_private(path: &Path, dialect: Dialect) -> Result<OwnedFd> {
    make(path, 0o700, dialect, b"0:0:0700")
}

fn make(path: &Path, mode: u32, dialect: Dialect, stat: &[u8]) -> Result<OwnedFd> {
    fs::DirBuilder::new()
        .mode(mode)
        .create(path)
        .map_err(Error::io("create directory", path))?;
    let directory = files::open_directory(path)?;
    rustix::fs::fchmod(&directory, rustix::fs::Mode::from_raw_mode(mode))
        .map_err(|errno| Error::io("set mode of", path)(errno.into()))?;
    if dialect.ownership == Ownership::Override {
        set(&directory, path, mille_layer::OVERRIDE_STAT, stat)?;
    }
    Ok(directory)
}

fn set(fd: &OwnedFd, path: &Path, name: &std::ffi::CStr, value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(fd.as_fd(), name, value, XattrFlags::empty())
        .map_err(|errno| Error::io("set attribute of", path)(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_init_layer_appears_once_and_is_dockers() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout {
            root: directory.path().to_path_buf(),
            run: directory.path().join("run"),
        };
        let dialect = Dialect {
            space: MarkSpace::Trusted,
            ownership: Ownership::Real,
        };
        fs::create_dir_all(layout.staging()).unwrap();
        ensure(&layout, dialect).unwrap();
        ensure(&layout, dialect).unwrap();
        let tree = layout.init_layer();
        assert_eq!(
            fs::read_link(tree.join("etc/mtab")).unwrap(),
            Path::new("/proc/mounts")
        );
        assert_eq!(fs::metadata(tree.join("etc/hosts")).unwrap().len(), 0);
        assert!(tree.join("dev/pts").is_dir() && tree.join(".dockerenv").is_file());
        assert_eq!(fs::read_dir(layout.staging()).unwrap().count(), 0);
    }
}
