//! Volumes: directories that outlive containers.
//!
//! `volumes/NAME/` holds the data (`_data`), a record (`volume.json`) and a lock. It appears by one rename out of the
//! staging area and goes by one rename back into it, so that a killed command leaves a volume whole or not at all. Whoever
//! makes a container holds the locks of its volumes until the container's record is in place; whoever removes a volume
//! holds its lock while it asks who uses it.

mod fill;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mille_layer::Ownership;
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::container_mounts::{self, ContainerMount};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{ContainerId, fill_random, hex};
use crate::layout::Layout;
use crate::lock::Lock;
use crate::{events, files, names, removal};

/// The only driver.
const DRIVER: &str = "local";
/// Options of the only driver that are acted on.
const OPTIONS: [&str; 3] = ["type", "o", "device"];
const RECORD: &str = "volume.json";
const DATA: &str = "_data";
/// Is there while a volume is being filled from an image: what a killed command left half-full is completed by the next.
const FILLING: &str = "filling";
const LOCK: &str = "lock";

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was made: RFC 3339, UTC.
    pub created: String,
    /// `None` when nothing was said.
    pub labels: Option<BTreeMap<String, String>>,
    /// `None` when nothing was said.
    pub options: Option<BTreeMap<String, String>>,
    /// Nobody gave it a name.
    pub anonymous: bool,
    /// Where its data lies.
    pub mountpoint: PathBuf,
}

/// What a new volume is to be.
#[derive(Debug, Clone, Default)]
pub struct VolumeOptions {
    /// Its name; `None` draws one.
    pub name: Option<String>,
    /// Empty or `local`.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `type=none`, `o=bind` and `device=/DIRECTORY` together: a volume that is that directory of the host. Nothing else.
    pub options: BTreeMap<String, String>,
}

/// What [`Engine::prune_volumes`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedVolumes {
    /// Names.
    pub names: Vec<String>,
    /// What they took on the disk.
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    created: String,
    labels: Option<BTreeMap<String, String>>,
    options: Option<BTreeMap<String, String>>,
    anonymous: bool,
}

impl Engine {
    /// Makes a volume and returns its name; one that is there already is left as it is.
    ///
    /// # Errors
    /// A bad name, another driver, options that mean nothing here: docker's texts.
    pub fn create_volume(&self, options: &VolumeOptions) -> Result<String> {
        let (name, anonymous) = match options.name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => (check_name(name)?.to_owned(), false),
            None => (random_name()?, true),
        };
        check_driver(&name, options)?;
        let some = |map: &BTreeMap<String, String>| Some(map.clone()).filter(|map| !map.is_empty());
        let record = Record {
            created: now(),
            labels: some(&options.labels),
            options: some(&options.options),
            anonymous,
        };
        ensure(&self.layout, &name, &record).map_err(advise)?;
        events::note_volume(&self.layout, "create", &name, &[]);
        Ok(name)
    }

    /// Returns all volumes by name.
    ///
    /// # Errors
    /// The directory of volumes or a record in it cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let directory = self.layout.volumes();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &directory)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("read", &directory))?.file_name();
            if let Some(name) = name.to_str() {
                found.extend(find(&self.layout, name)?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Finds a volume by its name.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`].
    pub fn volume(&self, name: &str) -> Result<Volume> {
        let found = match names::check(name) {
            Ok(checked) if checked == name => find(&self.layout, name)?,
            _ => None,
        };
        found.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
    }

    /// Returns the containers that use a volume, running or not.
    ///
    /// # Errors
    /// The containers' records cannot be listed.
    pub fn volume_users(&self, name: &str) -> Result<Vec<ContainerId>> {
        container_mounts::users(&self.layout, name)
    }

    /// Removes a volume and all that is in it.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`], [`Error::VolumeInUse`].
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        self.volume(name)?;
        match remove_unused(&self.layout, name)? {
            Removal::Done | Removal::Missing => Ok(()),
            Removal::InUse(users) => Err(Error::VolumeInUse {
                name: name.to_owned(),
                users: users.iter().map(ContainerId::to_string).collect(),
            }),
        }
    }

    /// Removes the volumes that no container uses and `wanted` names.
    ///
    /// # Errors
    /// The first that cannot be removed.
    pub fn prune_volumes(&self, wanted: impl Fn(&Volume) -> bool) -> Result<PrunedVolumes> {
        let mut pruned = PrunedVolumes::default();
        for volume in self.volumes()?.into_iter().filter(wanted) {
            // A volume that is a directory of the host takes nothing here.
            let bytes = fill::size(&volume.mountpoint)?;
            if matches!(remove_unused(&self.layout, &volume.name)?, Removal::Done) {
                pruned.names.push(volume.name);
                pruned.bytes += bytes;
            }
        }
        events::note_prune(&self.layout, "volume", pruned.bytes);
        Ok(pruned)
    }

    /// Returns what a volume takes on the disk, in bytes.
    ///
    /// # Errors
    /// Its data cannot be read.
    pub fn volume_bytes(&self, volume: &Volume) -> Result<u64> {
        fill::size(&volume.mountpoint)
    }
}

/// Checks a volume's name.
///
/// # Errors
/// Docker's texts.
pub(crate) fn check_name(name: &str) -> Result<&str> {
    if name.len() == 1 {
        return Err(Error::Invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    match names::check(name) {
        Ok(checked) if checked == name => Ok(name),
        _ => Err(Error::Invalid(format!(
            "create {name}: {name:?} includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        ))),
    }
}

/// Draws the name of a volume nobody named.
pub(crate) fn random_name() -> Result<String> {
    let mut bytes = [0_u8; 32];
    fill_random(&mut bytes)?;
    Ok(hex(&bytes))
}

fn check_driver(name: &str, options: &VolumeOptions) -> Result<()> {
    let driver = options.driver.as_str();
    if !["", DRIVER].contains(&driver) {
        return Err(Error::Invalid(format!(
            "create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found"
        )));
    }
    let given = &options.options;
    if given.is_empty() {
        return Ok(());
    }
    if let Some(unknown) = given.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(Error::Invalid(format!(
            "create {name}: invalid option: {unknown:?}"
        )));
    }
    let get = |key: &str| given.get(key).map_or("", String::as_str);
    let binds = get("o")
        .split(',')
        .any(|word| matches!(word, "bind" | "rbind"));
    let others = get("o")
        .split(',')
        .any(|word| !matches!(word, "bind" | "rbind"));
    if !binds || others || !["", "none"].contains(&get("type")) || !get("device").starts_with('/') {
        return Err(Error::Invalid(format!(
            "create {name}: the local driver here takes only type=none, o=bind and an absolute device (a directory of the \
             host); for a memory filesystem use --tmpfs"
        )));
    }
    Ok(())
}

/// The time now as docker shows it of volumes: whole seconds.
fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second())
        .unwrap_or(now)
        .to_string()
}

fn directory(layout: &Layout, name: &str) -> PathBuf {
    layout.volumes().join(name)
}

/// Where a volume's data lies.
pub(crate) fn data_path(layout: &Layout, name: &str) -> PathBuf {
    directory(layout, name).join(DATA)
}

fn find(layout: &Layout, name: &str) -> Result<Option<Volume>> {
    let record: Option<Record> = files::read_json(&directory(layout, name).join(RECORD))?;
    Ok(record.map(|record| Volume {
        name: name.to_owned(),
        created: record.created,
        labels: record.labels,
        options: record.options,
        anonymous: record.anonymous,
        mountpoint: data_path(layout, name),
    }))
}

/// Returns what is mounted for a volume: its data, or the directory of the host it stands for.
///
/// # Errors
/// [`Error::NoSuchVolume`]: it was taken away although a container uses it.
pub(crate) fn source(layout: &Layout, name: &str) -> Result<PathBuf> {
    let volume = find(layout, name)?.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))?;
    let device = volume
        .options
        .and_then(|mut options| options.remove("device"));
    Ok(device.map_or(volume.mountpoint, PathBuf::from))
}

/// Makes a volume unless it is there, and takes its lock.
/// A store that nobody can write gets the advice that the store itself gives.
fn advise(error: Error) -> Error {
    match error {
        Error::Io { path, source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Error::Store(mille_store::Error::ReadOnly {
                path,
                reason: source,
            })
        }
        other => other,
    }
}

fn ensure(layout: &Layout, name: &str, record: &Record) -> Result<Lock> {
    let place = directory(layout, name);
    loop {
        if let Some(lock) = Lock::wait_existing(&place.join(LOCK))? {
            return Ok(lock);
        }
        files::make_directory(&layout.volumes(), 0o700)?;
        appear(layout, &place, record)?;
    }
}

/// Builds a volume aside and gives it its name; whoever comes second finds the first one's.
fn appear(layout: &Layout, place: &Path, record: &Record) -> Result<()> {
    let id = ContainerId::random()?;
    let staged = layout.staged(&id);
    let _lock = removal::stage(layout, &id)?;
    let aside = staged.directory.join("volume");
    let data = aside.join(DATA);
    files::make_directory(&aside, 0o700)?;
    files::make_directory(&data, 0o755)?;
    fs::set_permissions(&data, Permissions::from_mode(0o755))
        .map_err(Error::io("set mode of", &data))?;
    files::write(&aside.join(LOCK), b"", 0o600)?;
    files::replace_json(&aside, RECORD, record)?;
    let moved = match fs::rename(&aside, place) {
        Err(_) if place.is_dir() => Ok(()),
        other => other.map_err(Error::io("rename into place", place)),
    };
    removal::remove_staged(&staged)?;
    moved
}

/// Makes the volumes of a container that is being made, fills them from its image, and returns their locks: to be held
/// until the container's record is in place.
///
/// # Errors
/// A file of the image where a volume is to be; a full disk.
pub(crate) fn prepare(engine: &Engine, container: &Container) -> Result<Vec<Lock>> {
    let mut mounts: Vec<(&str, &ContainerMount)> = container
        .mounts
        .iter()
        .filter_map(|mount| Some((mount.volume()?, mount)))
        .collect();
    if mounts.is_empty() {
        return Ok(Vec::new());
    }
    // In one order, so that two commands never wait for each other.
    mounts.sort_by_key(|(name, _)| *name);
    let mut locks = Vec::new();
    let mut last = None;
    let view = engine.stack(container)?.open_base()?;
    for (name, mount) in mounts {
        if last != Some(name) {
            locks.push(ensure(&engine.layout, name, &record_for(name, mount)?)?);
            events::note_volume(&engine.layout, "create", name, &[]);
            last = Some(name);
        }
        let volume = find(&engine.layout, name)?;
        let elsewhere = volume.is_some_and(|volume| volume.options.is_some());
        if !mount.no_copy && !elsewhere {
            let ownership = engine.dialect().ownership;
            fill(&engine.layout, name, mount, &view, ownership)?;
        }
    }
    Ok(locks)
}

fn record_for(name: &str, mount: &ContainerMount) -> Result<Record> {
    let said = mount
        .spec
        .as_ref()
        .and_then(|spec| spec.volume_options.clone());
    let said = said.unwrap_or_default();
    let options = VolumeOptions {
        driver: said.driver_config.name,
        options: said.driver_config.options,
        ..VolumeOptions::default()
    };
    check_driver(name, &options)?;
    Ok(Record {
        created: now(),
        labels: Some(said.labels).filter(|labels| !labels.is_empty()),
        options: Some(options.options).filter(|options| !options.is_empty()),
        anonymous: mount.anonymous,
    })
}

/// Fills a volume from the image where it is empty. The caller holds its lock.
fn fill(
    layout: &Layout,
    name: &str,
    mount: &ContainerMount,
    view: &mille_union::View,
    ownership: Ownership,
) -> Result<()> {
    let place = directory(layout, name);
    let (data, filling) = (place.join(DATA), place.join(FILLING));
    let is_empty = || -> Result<bool> {
        let mut entries = fs::read_dir(&data).map_err(Error::io("read", &data))?;
        Ok(entries.next().is_none())
    };
    if !filling.exists() && !is_empty()? {
        return Ok(());
    }
    let Some(source) = fill::source(view, Path::new(&mount.point.destination))? else {
        return Ok(());
    };
    files::write(&filling, b"", 0o600)?;
    fill::copy(view, &source, &data, ownership)?;
    fs::remove_file(&filling).map_err(Error::io("remove", &filling))
}

/// What became of a volume that was to be removed.
enum Removal {
    Done,
    Missing,
    InUse(Vec<ContainerId>),
}

fn remove_unused(layout: &Layout, name: &str) -> Result<Removal> {
    let place = directory(layout, name);
    let Some(_held) = Lock::wait_existing(&place.join(LOCK))? else {
        return Ok(Removal::Missing);
    };
    let users = container_mounts::users(layout, name)?;
    if !users.is_empty() {
        return Ok(Removal::InUse(users));
    }
    let id = ContainerId::random()?;
    let staged = layout.staged(&id);
    let _lock = removal::stage(layout, &id)?;
    fs::rename(&place, staged.directory.join("volume")).map_err(Error::io("remove", &place))?;
    removal::remove_staged(&staged)?;
    events::note_volume(layout, "destroy", name, &[]);
    Ok(Removal::Done)
}

/// Removes the volumes that were made for a container, which has no record any more; those that another container took
/// over (`--volumes-from`) stay.
///
/// # Errors
/// The first that cannot be removed.
pub(crate) fn remove_anonymous(layout: &Layout, mounts: &[ContainerMount]) -> Result<()> {
    for name in mounts
        .iter()
        .filter(|mount| mount.anonymous)
        .filter_map(ContainerMount::volume)
    {
        match remove_unused(layout, name)? {
            Removal::Done | Removal::Missing | Removal::InUse(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_with_dockers_words() {
        assert!(check_name("a1").is_ok());
        for (name, want) in [
            (
                "x",
                "create x: volume name is too short, names should be at least two alphanumeric characters",
            ),
            (
                "/ab",
                "create /ab: \"/ab\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
            ),
        ] {
            assert_eq!(check_name(name).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn driver_options_that_mean_nothing_here_are_refused() {
        let options = |pairs: &[(&str, &str)]| VolumeOptions {
            options: pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..VolumeOptions::default()
        };
        assert!(
            check_driver(
                "v1",
                &options(&[("type", "none"), ("o", "bind"), ("device", "/srv")])
            )
            .is_ok()
        );
        for given in [
            &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")][..],
            &[("o", "bind,ro"), ("device", "/srv")],
            &[("o", "bind"), ("device", "srv")],
            &[("frob", "1")],
        ] {
            assert!(check_driver("v1", &options(given)).is_err(), "{given:?}");
        }
    }

    #[test]
    fn a_volume_appears_once_and_goes_when_nobody_uses_it() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout {
            root: directory.path().to_path_buf(),
            run: directory.path().join("run"),
        };
        fs::create_dir_all(layout.staging()).unwrap();
        let record = Record {
            created: now(),
            labels: None,
            options: None,
            anonymous: false,
        };
        drop(ensure(&layout, "v1", &record).unwrap());
        fs::write(data_path(&layout, "v1").join("f"), "x").unwrap();
        drop(ensure(&layout, "v1", &record).unwrap());
        assert!(data_path(&layout, "v1").join("f").exists());
        assert_eq!(source(&layout, "v1").unwrap(), data_path(&layout, "v1"));
        assert!(matches!(
            remove_unused(&layout, "v1").unwrap(),
            Removal::Done
        ));
        assert!(matches!(
            remove_unused(&layout, "v1").unwrap(),
            Removal::Missing
        ));
        assert_eq!(fs::read_dir(layout.staging()).unwrap().count(), 0);
        assert!(matches!(source(&layout, "v1"), Err(Error::NoSuchVolume(_))));
    }
}
