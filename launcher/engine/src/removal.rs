//! Taking containers away, and clearing what killed processes left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::events::Subject;
use crate::files::{self, tolerate_missing};
use crate::hosts;
use crate::ids::ContainerId;
use crate::layout::{ContainerPaths, Layout};
use crate::limits::Groups;
use crate::lock::Lock;
use crate::records::{self, KILLED, MONITOR_DIED, Record};
use crate::{freeze, names, process, volumes};

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

/// Which volumes go with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Volumes {
    /// None.
    None,
    /// Those that were made for it.
    Anonymous,
}

/// Says in a container that is being removed that its volumes stay.
const KEEP_VOLUMES: &str = "keep-volumes";

/// Removes a container. The lock goes with the directory.
///
/// One rename takes the container away as a whole; what is killed later is cleared by the next command.
pub(crate) fn remove(
    layout: &Layout,
    id: &ContainerId,
    volumes: Volumes,
    lock: Lock,
) -> Result<()> {
    let paths = layout.container(id);
    let record = match records::read(layout, id) {
        // What a damaged one said of its volumes is lost; they stay.
        Err(error @ Error::Record { .. }) => {
            log::warn!("{error}: the container is removed without it");
            None
        }
        found => found?,
    };
    let has_volumes = record
        .as_ref()
        .is_some_and(|record| record.mounts.iter().any(|mount| mount.anonymous));
    let staged = layout.staged(id);
    if has_volumes && volumes == Volumes::None {
        files::write(&paths.directory.join(KEEP_VOLUMES), b"", 0o600)?;
    }
    match fs::rename(&paths.directory, &staged.directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("remove", &paths.directory)(error)),
    }
    match &record {
        Some(record) => names::release(layout, &record.name, id)?,
        None => names::release_all(layout, id)?,
    }
    remove_run_directory(&paths)?;
    if has_volumes {
        remove_volumes(layout, &staged)?;
    }
    remove_staged(&staged)?;
    drop(lock);
    if let Some(record) = &record {
        Subject::from(record).note(layout, "destroy", &[]);
    }
    Ok(())
}

/// How long a container whose record is damaged has to die.
const DAMAGED_GRACE: Duration = Duration::from_secs(20);
/// How long one wait for its lock takes.
const DAMAGED_TRY: Duration = Duration::from_millis(50);

/// Removes a container whose record cannot be read; one that runs is killed. Its volumes stay.
pub(crate) fn remove_damaged(layout: &Layout, id: &ContainerId) -> Result<()> {
    let paths = layout.container(id);
    let deadline = Instant::now() + DAMAGED_GRACE;
    loop {
        let state = records::read_state(&paths)?;
        let lock = match Lock::take_within(&paths.lock(), DAMAGED_TRY) {
            // Somebody else was quicker.
            Err(_) if !paths.directory.exists() => return Ok(()),
            lock => lock?,
        };
        if let Some(lock) = lock {
            // What a monitor left that was killed, too; the sweep cannot see to it without the record.
            if state.state.running {
                freeze::release_leftover(state.state.pid);
                process::signal(state.state.pid, state.init_start, Signal::KILL);
            }
            Groups::of(&state.cgroups).remove();
            unmount_all(&paths.merged())?;
            return remove(layout, id, Volumes::None, lock);
        }
        // The monitor takes everything down, and starts nothing again.
        process::signal(state.monitor, state.monitor_start, Signal::TERM);
        if Instant::now() >= deadline {
            return Err(Error::RemovalInProgress(id.to_string()));
        }
    }
}

/// Removes the volumes that were made for a container in staging, whether it was on its way in or out.
fn remove_volumes(layout: &Layout, staged: &ContainerPaths) -> Result<()> {
    if staged.directory.join(KEEP_VOLUMES).exists() {
        return Ok(());
    }
    match files::read_json::<Record>(&staged.record()) {
        Ok(Some(record)) => volumes::remove_anonymous(layout, &record.mounts),
        Ok(None) => Ok(()),
        Err(error) => {
            log::warn!("{error}: its volumes are left");
            Ok(())
        }
    }
}

/// How often making a container's directory is begun anew: a sweep can get hold of the lock file in the instant between
/// its creation and its locking.
const ATTEMPTS: usize = 20;

/// Makes the directory in which a container is made. Its lock is taken before the directory gets it, so that a lock that
/// is free always means a leftover.
pub(crate) fn stage(layout: &Layout, id: &ContainerId) -> Result<Lock> {
    let (staged, first) = (layout.staged(id), layout.staging_lock(id));
    for _ in 0..ATTEMPTS {
        let Some(lock) = Lock::try_take(&first)? else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        files::make_directory(&staged.directory, 0o700)?;
        match fs::rename(&first, staged.lock()) {
            Ok(()) => return Ok(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("rename into place", &staged.lock())(error)),
        }
    }
    Err(Error::Busy(id.to_string()))
}

/// A change of names that a kill may leave half done: who finds its lock file in staging, and free, takes stale names away.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
    _lock: Lock,
}

impl Unfinished {
    pub(crate) fn begin(layout: &Layout) -> Result<Self> {
        // Of no container: a lock file of its own.
        let id = ContainerId::random()?;
        let path = layout.staging_lock(&id);
        match Lock::try_take(&path)? {
            Some(_lock) => Ok(Self { path, _lock }),
            None => Err(Error::Busy(id.to_string())),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = tolerate_missing(fs::remove_file(&self.path)) {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

/// Clears what is left in staging of one container if its maker or remover is gone; returns whether it was.
fn clear_staged(layout: &Layout, id: &ContainerId) -> Result<bool> {
    let (staged, first) = (layout.staged(id), layout.staging_lock(id));
    for lock in [staged.lock(), first.clone()] {
        // Held until all is gone: the maker of a container has made its lock file but not locked it yet, perhaps.
        let held = Lock::try_take_existing(&lock)?;
        if held.is_some() {
            remove_volumes(layout, &staged)?;
            remove_staged(&staged)?;
            tolerate_missing(fs::remove_file(&first)).map_err(Error::io("remove", &first))?;
            return Ok(true);
        }
        if lock.exists() {
            return Ok(false);
        }
    }
    // Without either lock: it got one meanwhile, or its remover was at the very end.
    if staged.lock().exists() {
        return Ok(false);
    }
    remove_staged(&staged).map(|()| true)
}

/// Returns the container an entry of staging belongs to.
fn staged_id(name: &str) -> Option<ContainerId> {
    let bare = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".lock"));
    ContainerId::parse(bare.unwrap_or(name))
}

/// Removes a directory in staging, the lock file last: until then nobody else does the same work.
pub(crate) fn remove_staged(staged: &ContainerPaths) -> Result<()> {
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

/// Removes a container's run-time directory; what its monitor had to say is kept beside the container's log.
pub(crate) fn remove_run_directory(paths: &ContainerPaths) -> Result<()> {
    keep_notes(paths)?;
    files::remove_tree(&paths.execs())?;
    let own = [paths.socket(), paths.monitor_notes(), paths.limited()];
    for file in own
        .into_iter()
        .chain(hosts::FILES.map(|name| paths.etc(name)))
    {
        tolerate_missing(fs::remove_file(&file)).map_err(Error::io("remove", &file))?;
    }
    tolerate_missing(fs::remove_dir(&paths.run)).map_err(Error::io("remove", &paths.run))
}

fn keep_notes(paths: &ContainerPaths) -> Result<()> {
    use std::io::Write;
    let notes = match fs::read(paths.monitor_notes()) {
        Ok(notes) if !notes.is_empty() && paths.directory.is_dir() => notes,
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", &paths.monitor_notes())(error)),
    };
    let log = paths.monitor_log();
    let mut file = files::open_append(&log, 0o600)?;
    file.write_all(&notes).map_err(Error::io("write", &log))
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
        for id in names_in(&layout.staging())?
            .iter()
            .filter_map(|name| staged_id(name))
        {
            match clear_staged(layout, &id) {
                Ok(cleared) => found |= cleared,
                Err(error) => log::warn!("clear leftovers of container {id}: {error}"),
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
pub(crate) fn clear(layout: &Layout, id: &ContainerId, options: SweepOptions) -> Result<()> {
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
    Groups::of(&state.cgroups).remove();
    unmount_all(&paths.merged())?;
    let auto_remove =
        records::read(layout, id)?.is_some_and(|record| record.host_config.auto_remove);
    if state.state.running {
        let finished = records::last_sign(&paths, &state.state);
        state.state.end(KILLED, MONITOR_DIED.to_owned(), finished);
        state.monitor = 0;
        state.cgroups.clear();
        records::write_state(&paths, &state)?;
    }
    match (auto_remove, options.privileged) {
        (true, true) => remove(layout, id, Volumes::Anonymous, lock),
        // A later command that may remove everything will: it finds the run-time directory.
        (true, false) => Ok(()),
        (false, _) => remove_run_directory(&paths),
    }
}
