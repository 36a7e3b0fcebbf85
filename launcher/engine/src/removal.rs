//! Taking containers away, and clearing what killed processes left.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::files::{self, tolerate_missing};
use crate::ids::ContainerId;
use crate::layout::{ContainerPaths, Layout};
use crate::lock::Lock;
use crate::records::{self, KILLED, MONITOR_DIED};
use crate::{freeze, names, process};

/// Mounts stacked on one directory that are taken away at most.
const MAX_STACKED: usize = 16;

/// Takes away whatever is mounted at `path`. A dead FUSE mount answers `ENOTCONN` to everything but umount.
pub(crate) fn unmount_all(path: &Path) -> Result<()> {
    for _ in 0..MAX_STACKED {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            // Somebody stands in it: it goes out of sight now and away when he leaves.
            Err(Errno::EBUSY) => umount2(path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
                .map_err(|errno| Error::io("unmount", path)(errno.into()))?,
            // Not ours to unmount: an ordinary user's mounts go with their namespace.
            Err(Errno::EPERM) => return Ok(()),
            Err(errno) => return Err(Error::io("unmount", path)(errno.into())),
        }
    }
    Ok(())
}

/// Removes a container. The lock goes with the directory.
///
/// One rename takes the container away as a whole; what is killed later is cleared by the next command.
pub(crate) fn remove(layout: &Layout, id: &ContainerId, lock: Lock) -> Result<()> {
    let paths = layout.container(id);
    let name = records::read(layout, id)?.map(|record| record.name);
    let staged = layout.staged(id);
    match fs::rename(&paths.directory, &staged.directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("remove", &paths.directory)(error)),
    }
    if let Some(name) = name {
        names::release(layout, &name, id)?;
    }
    remove_run_directory(&paths)?;
    remove_staged(&staged)?;
    drop(lock);
    Ok(())
}

/// How old something in staging without a lock must be to be a leftover: its maker needs microseconds from one to the
/// other.
const ABANDONED: Duration = Duration::from_secs(60);

/// Makes the directory in which a container is made. Its lock is taken before it gets its place, so that a directory
/// with a free lock is always a leftover.
pub(crate) fn stage(layout: &Layout, id: &ContainerId) -> Result<Lock> {
    let (staged, first) = (layout.staged(id), layout.staging_lock(id));
    let lock = Lock::try_take(&first)?.ok_or_else(|| Error::Busy(id.to_string()))?;
    files::make_directory(&staged.directory, 0o700)?;
    fs::rename(&first, staged.lock()).map_err(Error::io("rename into place", &staged.lock()))?;
    Ok(lock)
}

/// Clears one entry of the staging directory if its maker or remover is gone; returns whether it was.
fn clear_staged(layout: &Layout, name: &str) -> Result<bool> {
    if let Some(id) = ContainerId::parse(name) {
        let staged = layout.staged(&id);
        let taken = Lock::try_take_existing(&staged.lock())?;
        if taken.is_none() && (staged.lock().exists() || !is_abandoned(&staged.directory)) {
            return Ok(false);
        }
        return remove_staged(&staged).map(|()| true);
    }
    let path = layout.staging().join(name);
    if !is_abandoned(&path) || Lock::is_held(&path)? {
        return Ok(false);
    }
    files::remove_tree(&path).map(|()| true)
}

/// Returns whether a file has not been touched for a while; one that cannot be asked has not been abandoned.
fn is_abandoned(path: &Path) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= ABANDONED))
}

/// Removes a directory in staging, the lock file last: until then nobody else does the same work.
fn remove_staged(staged: &ContainerPaths) -> Result<()> {
    let entries = match fs::read_dir(&staged.directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", &staged.directory)(error)),
    };
    unmount_all(&staged.merged())?;
    for entry in entries {
        let entry = entry.map_err(Error::io("read", &staged.directory))?;
        if entry.file_name() != "lock" {
            files::remove_tree(&entry.path())?;
        }
    }
    files::remove_tree(&staged.directory)
}

/// Removes a container's run-time directory.
pub(crate) fn remove_run_directory(paths: &ContainerPaths) -> Result<()> {
    let socket = paths.socket();
    tolerate_missing(fs::remove_file(&socket)).map_err(Error::io("remove", &socket))?;
    tolerate_missing(fs::remove_dir(&paths.run)).map_err(Error::io("remove", &paths.run))
}

/// How much a sweep may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SweepOptions {
    /// Files of any owner can be removed and mounts taken away.
    pub(crate) privileged: bool,
    /// Look at every container, not only at those with a run-time directory: the machine was started since.
    pub(crate) thorough: bool,
}

/// Clears what killed commands and monitors left. Cheap when nothing is wrong: two directory listings and one question
/// per running container.
///
/// What one leftover needs never keeps a command from its work: it is logged and tried again next time.
pub(crate) fn sweep(layout: &Layout, options: SweepOptions) -> Result<()> {
    if options.privileged {
        let mut found = false;
        for name in names_in(&layout.staging())? {
            match clear_staged(layout, &name) {
                Ok(cleared) => found |= cleared,
                Err(error) => log::warn!("clear leftovers of container {name}: {error}"),
            }
        }
        if found || options.thorough {
            names::prune(layout)?;
        }
    }
    let candidates = if options.thorough {
        records::ids(layout)?
    } else {
        ids_in(&layout.run)?
    };
    for id in candidates {
        let paths = layout.container(&id);
        if !Lock::is_held(&paths.lock())? {
            log_leftover(&id, clear(layout, &id, options));
        }
    }
    Ok(())
}

fn log_leftover(id: &ContainerId, result: Result<()>) {
    if let Err(error) = result {
        log::warn!("clear leftovers of container {id}: {error}");
    }
}

fn ids_in(directory: &Path) -> Result<Vec<ContainerId>> {
    let names = names_in(directory)?;
    Ok(names
        .iter()
        .filter_map(|name| ContainerId::parse(name))
        .collect())
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", directory)(error)),
    };
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect())
}

/// Clears what the killed monitor of one container left.
fn clear(layout: &Layout, id: &ContainerId, options: SweepOptions) -> Result<()> {
    let paths = layout.container(id);
    if !paths.record().exists() {
        return remove_run_directory(&paths);
    }
    let Some(lock) = Lock::try_take(&paths.lock())? else {
        return Ok(());
    };
    let mut state = records::read_state(&paths)?;
    if !state.state.running && !paths.run.exists() {
        return Ok(());
    }
    // The container was killed together with its monitor; what was frozen dies when it is thawed.
    if state.state.running {
        freeze::release_leftover(state.state.pid);
        process::signal(state.state.pid, state.init_start, Signal::KILL);
    }
    unmount_all(&paths.merged())?;
    let auto_remove =
        records::read(layout, id)?.is_some_and(|record| record.host_config.auto_remove);
    if state.state.running {
        let finished = records::last_sign(&paths, &state.state);
        state.state.end(KILLED, MONITOR_DIED.to_owned(), finished);
        state.monitor = 0;
        records::write_state(&paths, &state)?;
    }
    match (auto_remove, options.privileged) {
        (true, true) => remove(layout, id, lock),
        // A later command that may remove everything will: it finds the run-time directory.
        (true, false) => Ok(()),
        (false, _) => remove_run_directory(&paths),
    }
}
