//! The records of containers on disk: what each is (`container.json`) and where it stands (`state.json`).
//!
//! A record exists from the moment its directory is renamed out of staging until the directory is renamed back for
//! removal; between these two every reader sees it whole. State has one writer at a time: whoever holds the
//! container's lock. A state that says "running" while nobody holds the lock is what a killed monitor left; readers
//! never believe it ([`settle`]).

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use mille_store::DiffId;
use mille_store::config::ContainerConfig;
use serde::{Deserialize, Serialize};

use crate::container::{Container, Ground};
use crate::container_mounts::ContainerMount;
use crate::error::{Error, Result};
use crate::files;
use crate::host_config::HostConfig;
use crate::ids::ContainerId;
use crate::layout::{ContainerPaths, Layout};
use crate::lock::Lock;
use crate::state::State;

/// Version of the record format; a newer program must be able to tell.
const FORMAT: u32 = 1;

/// What a container is. Written once, and again only by rename.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`FORMAT`].
    pub(crate) format: u32,
    pub(crate) id: ContainerId,
    pub(crate) name: String,
    pub(crate) created: String,
    pub(crate) ground: Ground,
    /// Diff ids of the image, lowest first. The record protects these layers from collection.
    pub(crate) layers: Vec<DiffId>,
    /// The image stands on the machine's own root ([`crate::HOST_BASE`], or committed from it).
    pub(crate) on_host: bool,
    pub(crate) image_name: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) config: ContainerConfig,
    pub(crate) host_config: HostConfig,
    /// Chosen at creation; see [`crate::container_mounts`]. Records of before there were volumes have none.
    #[serde(default)]
    pub(crate) mounts: Vec<ContainerMount>,
}

impl Record {
    /// Makes the record of a new container.
    pub(crate) fn of(container: Container) -> Self {
        Self {
            format: FORMAT,
            id: container.id,
            name: container.name,
            created: container.created,
            ground: container.ground,
            layers: container.layers,
            on_host: container.on_host,
            image_name: container.image_name,
            path: container.path,
            args: container.args,
            config: container.config,
            host_config: container.host_config,
            mounts: container.mounts,
        }
    }

    /// Joins record and state to what callers see.
    pub(crate) fn with_state(self, state: StateRecord) -> Container {
        Container {
            id: self.id,
            name: self.name,
            created: self.created,
            ground: self.ground,
            layers: self.layers,
            on_host: self.on_host,
            image_name: self.image_name,
            path: self.path,
            args: self.args,
            config: self.config,
            host_config: self.host_config,
            mounts: self.mounts,
            state: state.state,
            restart_count: state.restart_count,
        }
    }
}

/// Where a container stands, and the processes by which a sweep can find what is left of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateRecord {
    #[serde(flatten)]
    pub(crate) state: State,
    /// The monitor; 0 when none.
    #[serde(default)]
    pub(crate) monitor: i32,
    /// When the monitor started, in clock ticks since boot: tells it from a later process with its number.
    #[serde(default)]
    pub(crate) monitor_start: u64,
    /// The same of the container's first process.
    #[serde(default)]
    pub(crate) init_start: u64,
    /// How often its policy started it again since somebody started it.
    #[serde(default)]
    pub(crate) restart_count: u32,
    /// The control groups that were made for the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cgroups: Vec<PathBuf>,
}

/// Reads a container's record; `None` when there is no such container.
pub(crate) fn read(layout: &Layout, id: &ContainerId) -> Result<Option<Record>> {
    files::read_json(&layout.container(id).record())
}

/// Reads the state as it was last written; one that a crash of the machine damaged counts as never written.
pub(crate) fn read_state(paths: &ContainerPaths) -> Result<StateRecord> {
    match files::read_json(&paths.state()) {
        Err(error @ Error::Record { .. }) => {
            log::warn!("{error}");
            Ok(StateRecord::default())
        }
        found => Ok(found?.unwrap_or_default()),
    }
}

/// Writes the state; the caller holds the container's lock.
///
/// On a full disk it is written over the old one: how a container ended is worth more than that a reader in the same
/// microsecond, which would take it for never written, sees it whole.
pub(crate) fn write_state(paths: &ContainerPaths, state: &StateRecord) -> Result<()> {
    match files::replace_json(&paths.directory, ContainerPaths::STATE, state) {
        Err(Error::Io { source, .. }) if is_full(&source) => {
            files::overwrite_json(&paths.state(), state)
        }
        written => written,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Writes the record.
pub(crate) fn write(paths: &ContainerPaths, record: &Record) -> Result<()> {
    files::replace_json(&paths.directory, ContainerPaths::RECORD, record)
}

/// The exit code of a container whose monitor was killed: its processes got SIGKILL.
pub(crate) const KILLED: i32 = 137;
/// What `State.Error` says then.
pub(crate) const MONITOR_DIED: &str = "the monitor of this container was killed";

/// Corrects a state that nobody stands behind any more.
///
/// The lock is asked about after the state was read, and the state read again when the lock is free: a monitor writes
/// its last state before it lets go.
pub(crate) fn settle(paths: &ContainerPaths, found: StateRecord) -> Result<StateRecord> {
    if !found.state.running || Lock::is_held(&paths.lock())? {
        return Ok(found);
    }
    let mut last = read_state(paths)?;
    if last.state.running {
        let finished = last_sign(paths, &last.state);
        last.state.end(KILLED, MONITOR_DIED.to_owned(), finished);
    }
    Ok(last)
}

/// Returns when a killed monitor was last known to live, as the best guess of the container's end: it started the
/// container, it wrote state and log.
pub(crate) fn last_sign(paths: &ContainerPaths, state: &State) -> String {
    let modified = |path: &Path| {
        let time = fs::metadata(path).and_then(|meta| meta.modified()).ok()?;
        jiff::Timestamp::try_from(time).ok()
    };
    let signs = [
        modified(&paths.state()),
        modified(&paths.log()),
        state.started_at.parse().ok(),
    ];
    let last = signs.into_iter().flatten().max();
    last.unwrap_or_else(jiff::Timestamp::now).to_string()
}

/// Returns the time now as docker writes it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Loads one container.
pub(crate) fn load(layout: &Layout, id: &ContainerId) -> Result<Option<Container>> {
    let Some(record) = read(layout, id)? else {
        return Ok(None);
    };
    let paths = layout.container(id);
    let state = settle(&paths, read_state(&paths)?)?;
    Ok(Some(record.with_state(state)))
}

/// Returns the ids of all containers, in no order.
pub(crate) fn ids(layout: &Layout) -> Result<Vec<ContainerId>> {
    let directory = layout.containers();
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("read", &directory)(error)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io("read", &directory))?.file_name();
        ids.extend(
            std::str::from_utf8(name.as_bytes())
                .ok()
                .and_then(ContainerId::parse),
        );
    }
    Ok(ids)
}

/// Loads all containers, newest first. One removed meanwhile is left out, and so is one whose record a crash of the
/// machine damaged: it must not keep all others from being seen.
pub(crate) fn load_all(layout: &Layout) -> Result<Vec<Container>> {
    let mut containers = Vec::new();
    for id in ids(layout)? {
        match load(layout, &id) {
            Err(error @ Error::Record { .. }) => log::warn!("{error}: container {id} is left out"),
            found => containers.extend(found?),
        }
    }
    containers.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.id.cmp(&b.id)));
    Ok(containers)
}

/// The moment of creation; texts do not sort, since trailing zeros are cut.
fn created(container: &Container) -> Option<jiff::Timestamp> {
    container.created.parse().ok()
}

/// Finds a container: full id, then exact name, then unambiguous id prefix.
pub(crate) fn find(layout: &Layout, typed: &str) -> Result<Container> {
    let no_such = || Error::NoSuchContainer(typed.to_owned());
    if let Some(id) = ContainerId::parse(typed) {
        return load(layout, &id)?.ok_or_else(no_such);
    }
    let name = typed.strip_prefix('/').unwrap_or(typed);
    if let Some(id) = crate::names::lookup(layout, name)?
        && let Some(container) = load(layout, &id)?
        && container.name == name
    {
        return Ok(container);
    }
    match by_prefix(layout, typed)? {
        Some(id) => load(layout, &id)?.ok_or_else(no_such),
        None => Err(no_such()),
    }
}

fn by_prefix(layout: &Layout, typed: &str) -> Result<Option<ContainerId>> {
    let mut matching = ids(layout)?
        .into_iter()
        .filter(|id| !typed.is_empty() && id.as_str().starts_with(typed));
    match (matching.next(), matching.next()) {
        (Some(_), Some(_)) => Err(Error::AmbiguousPrefix(typed.to_owned())),
        (found, _) => Ok(found),
    }
}

/// Finds a container whose record cannot be read: by full id, a name that leads to it, or unambiguous id prefix. `None` if
/// there is none, or if its record can be read.
pub(crate) fn find_damaged(layout: &Layout, typed: &str) -> Result<Option<ContainerId>> {
    let name = typed.strip_prefix('/').unwrap_or(typed);
    let id = match ContainerId::parse(typed) {
        Some(id) => Some(id),
        None => match crate::names::lookup(layout, name)? {
            Some(id) => Some(id),
            None => by_prefix(layout, typed)?,
        },
    };
    Ok(id.filter(|id| damage(layout, id).is_some()))
}

/// Says why a container's record cannot be read; `None` if it can, or if there is no such container.
pub(crate) fn damage(layout: &Layout, id: &ContainerId) -> Option<String> {
    match read(layout, id) {
        Ok(Some(_)) => None,
        // One being removed is gone as a whole: this is asked after the record was not found.
        Ok(None) => {
            let here = layout.container(id).directory.is_dir();
            here.then(|| "is missing".to_owned())
        }
        Err(Error::Record { source, .. }) => Some(format!("is damaged: {source}")),
        Err(error) => Some(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Status;

    fn layout() -> (tempfile::TempDir, Layout) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout {
            root: directory.path().join("root"),
            run: directory.path().join("run"),
        };
        fs::create_dir_all(layout.staging()).unwrap();
        fs::create_dir_all(layout.names()).unwrap();
        (directory, layout)
    }

    fn record(id: &ContainerId, name: &str) -> Record {
        Record {
            format: FORMAT,
            id: id.clone(),
            name: name.to_owned(),
            created: now(),
            ground: Ground::Host,
            layers: Vec::new(),
            on_host: true,
            image_name: "@host".into(),
            path: "true".into(),
            args: Vec::new(),
            config: ContainerConfig::default(),
            host_config: HostConfig::default(),
            mounts: Vec::new(),
        }
    }

    fn add(layout: &Layout, id: &str, name: &str) -> ContainerId {
        let id = ContainerId::parse(id).unwrap();
        crate::names::claim(layout, name, &id).unwrap();
        let paths = layout.container(&id);
        fs::create_dir_all(&paths.directory).unwrap();
        write(&paths, &record(&id, name)).unwrap();
        id
    }

    #[test]
    fn a_record_of_before_there_were_volumes_is_read() {
        let id = ContainerId::parse(&"ab".repeat(32)).unwrap();
        let mut old = serde_json::to_value(record(&id, "old")).unwrap();
        assert!(old.as_object_mut().unwrap().remove("mounts").is_some());
        let read: Record = serde_json::from_value(old).unwrap();
        assert!(read.name == "old" && read.mounts.is_empty());
    }

    #[test]
    fn full_id_beats_name_beats_prefix() {
        let (_guard, layout) = layout();
        let first = add(&layout, &"ab".repeat(32), "first");
        let second = add(&layout, &format!("ac{}", "0".repeat(62)), "abab");
        for (typed, want) in [
            (first.as_str(), Some(&first)),
            ("first", Some(&first)),
            ("/first", Some(&first)),
            ("abab", Some(&second)),
            ("ababab", Some(&first)),
            ("ac", Some(&second)),
        ] {
            assert_eq!(
                find(&layout, typed).ok().map(|c| c.id).as_ref(),
                want,
                "{typed}"
            );
        }
        assert!(matches!(find(&layout, "a"), Err(Error::AmbiguousPrefix(_))));
        assert!(matches!(
            find(&layout, "nosuch"),
            Err(Error::NoSuchContainer(_))
        ));
        assert!(matches!(find(&layout, ""), Err(Error::NoSuchContainer(_))));
    }

    #[test]
    fn names_are_unique_and_stale_ones_are_taken_over() {
        let (_guard, layout) = layout();
        let owner = add(&layout, &"1".repeat(64), "web");
        let other = ContainerId::parse(&"2".repeat(64)).unwrap();
        let error = crate::names::claim(&layout, "web", &other).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "Conflict. The container name \"/web\" is already in use by container \"{owner}\". You have to remove \
                 (or rename) that container to be able to reuse that name."
            )
        );
        fs::remove_dir_all(layout.container(&owner).directory).unwrap();
        crate::names::claim(&layout, "web", &other).unwrap();
        assert_eq!(crate::names::lookup(&layout, "web").unwrap(), Some(other));
    }

    #[test]
    fn a_running_state_without_a_monitor_is_not_believed() {
        let (_guard, layout) = layout();
        let id = add(&layout, &"3".repeat(64), "gone");
        let paths = layout.container(&id);
        let mut state = StateRecord {
            monitor: 1,
            ..StateRecord::default()
        };
        state.state.begin(77, now());
        write_state(&paths, &state).unwrap();
        let found = load(&layout, &id).unwrap().unwrap();
        assert_eq!(
            (found.state.status, found.state.exit_code, found.state.pid),
            (Status::Exited, KILLED, 0)
        );
        let _lock = Lock::try_take(&paths.lock()).unwrap().unwrap();
        assert!(load(&layout, &id).unwrap().unwrap().is_running());
    }
}
