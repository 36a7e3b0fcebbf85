//! Making a container: what the user said and what the image says become one record.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use mille_store::config::{ContainerConfig, merge};
use mille_store::{DiffId, Image};

use crate::container::{Container, Ground};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Subject;
use crate::ids::ContainerId;
use crate::layout::ContainerPaths;
use crate::lock::Lock;
use crate::options::{CreateOptions, HOST_BASE, RemoveOptions};
use crate::records::{self, Record};
use crate::removal::{Unfinished, Volumes};
use crate::rootfs::Writable;
use crate::state::State;
use crate::{
    container_mounts, files, init_layer, joining, launch, limits, names, removal, volumes, workdir,
};

/// The label by which an image says that it stands on the machine's own root.
pub(crate) const BASE_LABEL: &str = "io.mille.base";

/// Returns whether an image stands on the machine's own root.
pub(crate) fn is_on_host(image: &Image) -> bool {
    let config = image.config.config.as_ref();
    let label = config
        .and_then(|config| config.labels.as_ref())
        .and_then(|labels| labels.get(BASE_LABEL));
    label.is_some_and(|base| base == HOST_BASE)
}

/// What a container is to stand on.
struct Base {
    ground: Ground,
    layers: Vec<DiffId>,
    on_host: bool,
    config: ContainerConfig,
}

/// Makes a container.
pub(crate) fn create(engine: &Engine, options: CreateOptions) -> Result<ContainerId> {
    let name = options
        .name
        .as_deref()
        .filter(|name| !name.is_empty())
        .map(names::check)
        .transpose()?;
    // Held until the record is in place: from then on the record keeps the layers from being collected.
    let _store = engine.store.lock_shared()?;
    let base = base(engine, &options.image)?;
    let id = ContainerId::random()?;
    let mut container = assemble(&id, base, &options)?;
    joining::settle(&engine.layout, &mut container)?;
    name_host(&mut container)?;
    limits::adapt(&mut container.host_config)?;
    container.mounts = container_mounts::choose(&engine.layout, &container)?;
    launch::check(&engine.layout, &container)?;
    init_layer::ensure(&engine.layout, engine.dialect())?;
    if container.on_host {
        init_layer::ensure_host_mask(&engine.layout, engine.dialect())?;
    }
    let staged = engine.layout.staged(&id);
    let _lock = removal::stage(&engine.layout, &id)?;
    let mounts = container.mounts.clone();
    let made = furnish(engine, &staged, container, name);
    if made.is_err()
        && let Err(error) = volumes::remove_anonymous(&engine.layout, &mounts)
            .and_then(|()| files::remove_tree(&staged.directory))
    {
        log::warn!("remove what was made of container {id}: {error}");
    }
    made.map(|()| id)
}

fn base(engine: &Engine, typed: &str) -> Result<Base> {
    if typed == HOST_BASE {
        let config = ContainerConfig::default();
        return Ok(Base {
            ground: Ground::Host,
            layers: Vec::new(),
            on_host: true,
            config,
        });
    }
    let image = engine.store.image(&engine.resolve_image(typed)?)?;
    Ok(Base {
        ground: Ground::Image(image.id),
        on_host: is_on_host(&image),
        layers: image.layers,
        config: image.config.config.unwrap_or_default(),
    })
}

/// Merges what the user said with what the image says, by docker's rules.
fn assemble(id: &ContainerId, base: Base, options: &CreateOptions) -> Result<Container> {
    let mut config = options.config.clone();
    config.image.clone_from(&options.image);
    merge(&mut config, &base.config);
    if let Some(labels) = &mut config.labels {
        // It says what an image is, not what a container is; a commit sets it anew.
        labels.remove(BASE_LABEL);
    }
    // `--entrypoint ""` takes the image's entry point away.
    if config.entrypoint.as_deref() == Some(&[String::new()]) {
        config.entrypoint = None;
    }
    let mut words = config
        .entrypoint
        .iter()
        .chain(&config.cmd)
        .flatten()
        .cloned();
    let path = words.next().ok_or(Error::NoCommand)?;
    let args = words.collect();
    Ok(Container {
        id: id.clone(),
        name: String::new(),
        created: records::now(),
        ground: base.ground,
        layers: base.layers,
        on_host: base.on_host,
        image_name: options.image.clone(),
        path,
        args,
        config,
        host_config: options.host_config.clone(),
        mounts: Vec::new(),
        state: State::default(),
        restart_count: 0,
    })
}

/// A container with a host name of its own gets its short id, unless the user said another.
fn name_host(container: &mut Container) -> Result<()> {
    let shares_name = container.host_config.uts_mode == "host";
    if shares_name && !container.config.hostname.is_empty() {
        return Err(Error::Invalid(
            "conflicting options: hostname and the UTS mode".to_owned(),
        ));
    }
    if container.config.hostname.is_empty() {
        container.config.hostname = if shares_name || container.uses_host_network() {
            rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned()
        } else {
            container.id.short().to_owned()
        };
    }
    Ok(())
}

/// Fills the staged directory, claims the name, and makes the container appear.
fn furnish(
    engine: &Engine,
    staged: &ContainerPaths,
    mut container: Container,
    name: Option<&str>,
) -> Result<()> {
    let id = container.id.clone();
    let upper = staged.upper();
    files::make_directory(&upper, 0o755)?;
    // A container's / is 0755 whatever the image's own entry or our umask says.
    fs::set_permissions(&upper, Permissions::from_mode(0o755))
        .map_err(Error::io("set mode of", &upper))?;
    init_layer::own_root(&upper, engine.dialect())?;
    files::make_directory(&staged.work(), 0o700)?;
    files::make_directory(&staged.merged(), 0o700)?;
    let writable = Writable {
        upper,
        work: staged.work(),
        fit: false,
    };
    workdir::ensure(
        &engine.stack(&container)?,
        &writable,
        &container.config.working_dir,
    )?;
    let name = match name {
        Some(name) => names::claim(&engine.layout, name, &id).map(|()| name.to_owned())?,
        None => names::claim_random(&engine.layout, &id)?,
    };
    container.name.clone_from(&name);
    let subject = Subject::from(&container);
    // The record first: by it what a killed command made of the volumes is found.
    let appeared = records::write(staged, &Record::of(container.clone())).and_then(|()| {
        let _volumes = volumes::prepare(engine, &container)?;
        let directory = engine.layout.container(&id).directory;
        fs::rename(&staged.directory, &directory)
            .map_err(Error::io("rename into place", &directory))
    });
    if appeared.is_err()
        && let Err(error) = names::release(&engine.layout, &name, &id)
    {
        log::warn!("release name {name}: {error}");
    }
    if appeared.is_ok() {
        subject.note(&engine.layout, "create", &[]);
    }
    appeared
}

/// Gives a container another name: the new one is claimed before the old one is given back. Killed in between it leaves a
/// name too many, which the next command takes away.
pub(crate) fn rename(engine: &Engine, id: &ContainerId, new_name: &str) -> Result<()> {
    let allocating = |error| Error::Rename(Box::new(error));
    let no_such = || Error::NoSuchContainer(id.to_string());
    let mut record = records::read(&engine.layout, id)?.ok_or_else(no_such)?;
    let bare = new_name.strip_prefix('/').unwrap_or(new_name);
    if bare == record.name {
        return Err(Error::SameName);
    }
    let name =
        names::check(new_name).map_err(|_| allocating(Error::InvalidName(format!("/{bare}"))))?;
    let _unfinished = Unfinished::begin(&engine.layout)?;
    names::claim(&engine.layout, name, id).map_err(allocating)?;
    let old = std::mem::replace(&mut record.name, name.to_owned());
    let paths = engine.layout.container(id);
    if let Err(error) = records::write(&paths, &record) {
        names::release(&engine.layout, name, id)?;
        // Removed meanwhile: there is no directory to write in.
        return Err(if paths.record().exists() {
            error
        } else {
            no_such()
        });
    }
    // Until the record had it, who takes stale names away may have taken this for one.
    match names::claim(&engine.layout, name, id) {
        Err(Error::NameInUse { id: owner, .. }) if owner == id.as_str() => {}
        Err(error) => {
            record.name = old;
            records::write(&paths, &record)?;
            return Err(allocating(error));
        }
        Ok(()) => {}
    }
    let more = [("oldName", format!("/{old}"))];
    Subject::from(&record).note(&engine.layout, "rename", &more);
    names::release(&engine.layout, &old, id)
}

/// How long one try to get hold of a container's files takes: in the meantime it may have been started.
const TRY: Duration = Duration::from_millis(50);

/// Removes a container, killing it first where that is asked for.
pub(crate) fn remove(engine: &Engine, id: &ContainerId, options: RemoveOptions) -> Result<()> {
    let paths = engine.layout.container(id);
    let mut container = engine.load(id)?;
    let deadline = Instant::now() + crate::stop::GRACE;
    loop {
        if container.is_running() {
            if !options.force {
                return Err(Error::RemoveRunning {
                    id: id.to_string(),
                    state: container.state.status.as_str(),
                });
            }
            engine.kill_and_wait(&container)?;
        }
        match Lock::take_within(&paths.lock(), TRY) {
            Ok(Some(lock)) => {
                let volumes = if options.volumes {
                    Volumes::Anonymous
                } else {
                    Volumes::None
                };
                return removal::remove(&engine.layout, id, volumes, lock);
            }
            // Its own `--rm`, or somebody else, was quicker: the lock is held, or went with the directory.
            Ok(None) | Err(_) if !paths.record().exists() => return Ok(()),
            Ok(None) if Instant::now() >= deadline => {
                return Err(Error::RemovalInProgress(id.to_string()));
            }
            Ok(None) => {}
            Err(error) => return Err(error),
        }
        container = match engine.load(id) {
            Err(Error::NoSuchContainer(_)) => return Ok(()),
            found => found?,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assembled(user: ContainerConfig, image: ContainerConfig) -> Result<Container> {
        let base = Base {
            ground: Ground::Host,
            layers: Vec::new(),
            on_host: true,
            config: image,
        };
        let options = CreateOptions {
            config: user,
            image: "bb".into(),
            ..CreateOptions::default()
        };
        assemble(&ContainerId::random().unwrap(), base, &options)
    }

    fn words(list: &[&str]) -> Option<Vec<String>> {
        Some(list.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn entry_point_and_command() {
        let image = ContainerConfig {
            entrypoint: words(&["/e", "x"]),
            cmd: words(&["c"]),
            ..ContainerConfig::default()
        };
        let user = |entrypoint, cmd| ContainerConfig {
            entrypoint,
            cmd,
            ..ContainerConfig::default()
        };
        for (given, want) in [
            (user(None, None), vec!["/e", "x", "c"]),
            (user(None, words(&["u"])), vec!["/e", "x", "u"]),
            (user(words(&["/o"]), None), vec!["/o"]),
            (user(words(&[""]), words(&["sh", "-c"])), vec!["sh", "-c"]),
        ] {
            let container = assembled(given.clone(), image.clone()).unwrap();
            let mut got = vec![container.path];
            got.extend(container.args);
            assert_eq!(got, want, "{given:?}");
        }
        let error = assembled(ContainerConfig::default(), ContainerConfig::default()).unwrap_err();
        assert_eq!(error.to_string(), "No command specified");
    }

    #[test]
    fn the_user_s_environment_comes_first_and_wins() {
        let image = ContainerConfig {
            env: words(&["PATH=/i", "I=1"]),
            ..ContainerConfig::default()
        };
        let user = ContainerConfig {
            env: words(&["I=2"]),
            cmd: words(&["x"]),
            ..ContainerConfig::default()
        };
        assert_eq!(
            assembled(user, image).unwrap().config.env,
            words(&["I=2", "PATH=/i"])
        );
    }
}
