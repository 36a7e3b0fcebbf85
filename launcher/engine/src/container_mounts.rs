//! What is mounted in a container: chosen when it is made, from its flags, its image and other containers.

use std::path::Path;

use mille_sandbox::{Mount, MountKind, MountOptions, Propagation};
use serde::{Deserialize, Serialize};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::host_config::HostConfig;
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::mount_spec::{Bind, Mode, MountSpec, is_propagation};
use crate::workdir::clean;
use crate::{events, records, volumes};

/// What kind of thing is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountType {
    /// A path of the host.
    Bind,
    /// A volume of the store.
    Volume,
    /// A memory filesystem.
    Tmpfs,
}

/// One of `inspect`'s `Mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountPoint {
    /// What it is.
    #[serde(rename = "Type")]
    pub kind: MountType,
    /// A volume's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A path of the host; a volume's data.
    pub source: String,
    /// Where in the container.
    pub destination: String,
    /// `local` for a volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// As `-v` had it; `z` for a named volume, as docker.
    pub mode: String,
    /// May be written.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// Docker's word; empty for what is no bind mount.
    pub propagation: String,
}

/// A mount of a container as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerMount {
    /// What inspect shows.
    #[serde(flatten)]
    pub point: MountPoint,
    /// The volume was made for this container and goes with it (`--rm`, `rm -v`).
    #[serde(default)]
    pub anonymous: bool,
    /// An empty volume is not filled from the image.
    #[serde(default)]
    pub no_copy: bool,
    /// A bind mount without the mounts below its source.
    #[serde(default)]
    pub non_recursive: bool,
    /// A missing directory of the host is made (`-v`).
    #[serde(default)]
    pub make_source: bool,
    /// What else was said of it.
    #[serde(default)]
    pub spec: Option<MountSpec>,
}

impl ContainerMount {
    fn of_spec(layout: &Layout, spec: &MountSpec, mode: &str) -> Result<Self> {
        let kind = match spec.kind.as_str() {
            "bind" => MountType::Bind,
            "volume" => MountType::Volume,
            _ => MountType::Tmpfs,
        };
        let anonymous = kind == MountType::Volume && spec.source.is_empty();
        let name = match kind {
            MountType::Volume if anonymous => volumes::random_name()?,
            MountType::Volume => volumes::check_name(&spec.source)?.to_owned(),
            MountType::Bind | MountType::Tmpfs => String::new(),
        };
        let bind = spec.bind_options.clone().unwrap_or_default();
        if !bind.propagation.is_empty() && !is_propagation(&bind.propagation) {
            return Err(Error::Invalid(format!(
                "invalid mount config for type \"bind\": invalid propagation mode: {}",
                bind.propagation
            )));
        }
        let propagation = match (kind, bind.propagation.as_str()) {
            (MountType::Bind, "") => "rprivate",
            (_, word) => word,
        };
        let volume = spec.volume_options.as_ref();
        let point = MountPoint {
            kind,
            source: match kind {
                MountType::Bind => cleaned(&spec.source),
                MountType::Volume => volumes::data_path(layout, &name)
                    .to_string_lossy()
                    .into_owned(),
                MountType::Tmpfs => String::new(),
            },
            destination: cleaned(&spec.target),
            driver: if kind == MountType::Volume {
                "local"
            } else {
                ""
            }
            .to_owned(),
            mode: if kind == MountType::Volume && !anonymous && mode.is_empty() {
                "z".to_owned()
            } else {
                mode.to_owned()
            },
            rw: !spec.read_only,
            propagation: propagation.to_owned(),
            name,
        };
        Ok(Self {
            point,
            anonymous,
            no_copy: volume.is_some_and(|volume| volume.no_copy),
            non_recursive: bind.non_recursive,
            make_source: false,
            spec: Some(spec.clone()),
        })
    }

    /// The name of the volume it mounts.
    #[must_use]
    pub fn volume(&self) -> Option<&str> {
        (self.point.kind == MountType::Volume).then_some(self.point.name.as_str())
    }

    /// Returns it as the sandbox takes it.
    pub(crate) fn sandboxed(&self, layout: &Layout) -> Result<Mount> {
        let mut options = MountOptions {
            readonly: !self.point.rw,
            ..MountOptions::default()
        };
        let kind = match self.point.kind {
            MountType::Tmpfs => {
                options = MountOptions {
                    readonly: !self.point.rw,
                    nosuid: true,
                    nodev: true,
                    noexec: true,
                };
                self.tmpfs()
            }
            MountType::Bind => MountKind::Bind {
                source: Path::new(&self.point.source).to_owned(),
                recursive: !self.non_recursive,
                propagation: self.propagation()?,
            },
            MountType::Volume => MountKind::Bind {
                source: volumes::source(layout, &self.point.name)?,
                recursive: true,
                propagation: Propagation::Private,
            },
        };
        Ok(Mount {
            target: Path::new(&self.point.destination).to_owned(),
            kind,
            options,
        })
    }

    /// What the kernel calls docker's word, once the source is known to have it to give.
    fn propagation(&self) -> Result<Propagation> {
        let propagation = match self.point.propagation.as_str() {
            "slave" | "rslave" => Propagation::Slave,
            "shared" | "rshared" => Propagation::Shared,
            _ => return Ok(Propagation::Private),
        };
        let table = Path::new("/proc/self/mountinfo");
        let mounts = std::fs::read_to_string(table).map_err(Error::io("read", table))?;
        let source = Path::new(&self.point.source);
        let source = std::fs::canonicalize(source).map_err(Error::io("resolve", source))?;
        let (place, tags) = mount_of(&mounts, &source);
        let gives = match propagation {
            Propagation::Slave => tags.contains("shared:") || tags.contains("master:"),
            _ => tags.contains("shared:"),
        };
        if gives {
            return Ok(propagation);
        }
        let what = match propagation {
            Propagation::Slave => "a shared or slave",
            _ => "a shared",
        };
        Err(Error::Invalid(format!(
            "path {} is mounted on {place} but it is not {what} mount",
            self.point.source
        )))
    }

    fn tmpfs(&self) -> MountKind {
        let spec = self.spec.as_ref();
        let options = spec
            .and_then(|spec| spec.tmpfs_options.clone())
            .unwrap_or_default();
        MountKind::Tmpfs {
            size_bytes: u64::try_from(options.size_bytes)
                .ok()
                .filter(|size| *size > 0),
            mode: Some(options.mode).filter(|mode| *mode != 0),
            data: Vec::new(),
        }
    }
}

/// Chooses the mounts of a new container. Nothing is made yet.
///
/// # Errors
/// Docker's texts: something malformed, two mounts at one place, an unknown container of `--volumes-from`.
pub(crate) fn choose(layout: &Layout, container: &Container) -> Result<Vec<ContainerMount>> {
    let host = &container.host_config;
    let mut chosen = Vec::new();
    for from in host.volumes_from.iter().flatten() {
        for mount in of_other(layout, from)? {
            replace(&mut chosen, mount);
        }
    }
    let mut own = Vec::new();
    for text in host.binds.iter().flatten() {
        let bind = Bind::parse(text)?;
        let mut mount = ContainerMount::of_spec(layout, &bind.spec, &bind.mode)?;
        mount.make_source = mount.point.kind == MountType::Bind;
        add(&mut own, host, mount)?;
    }
    for spec in &host.mounts {
        spec.check()?;
        add(&mut own, host, ContainerMount::of_spec(layout, spec, "")?)?;
    }
    for mount in own {
        replace(&mut chosen, mount);
    }
    // What the image or a bare -v calls a volume, unless something else is there.
    for path in container
        .config
        .volumes
        .iter()
        .flat_map(|volumes| volumes.keys())
    {
        let spec = MountSpec {
            kind: "volume".to_owned(),
            target: cleaned(path),
            ..MountSpec::default()
        };
        let taken = |mount: &ContainerMount| mount.point.destination == spec.target;
        if chosen.iter().any(taken) || has_tmpfs(host, &spec.target) {
            continue;
        }
        spec.check()?;
        chosen.push(ContainerMount::of_spec(layout, &spec, "")?);
    }
    Ok(chosen)
}

fn cleaned(path: &str) -> String {
    clean(Path::new(path)).to_string_lossy().into_owned()
}

fn has_tmpfs(host: &HostConfig, target: &str) -> bool {
    host.tmpfs.keys().any(|path| cleaned(path) == target)
}

fn add(own: &mut Vec<ContainerMount>, host: &HostConfig, mount: ContainerMount) -> Result<()> {
    let target = &mount.point.destination;
    if own.iter().any(|other| other.point.destination == *target) || has_tmpfs(host, target) {
        return Err(Error::Invalid(format!("Duplicate mount point: {target}")));
    }
    own.push(mount);
    Ok(())
}

/// What comes later takes the place of what another container gave.
fn replace(chosen: &mut Vec<ContainerMount>, mount: ContainerMount) {
    chosen.retain(|other| other.point.destination != mount.point.destination);
    chosen.push(mount);
}

/// The mounts of another container, `NAME[:ro|rw]`.
fn of_other(layout: &Layout, from: &str) -> Result<Vec<ContainerMount>> {
    let (name, mode) = match from.split_once(':') {
        Some((name, mode)) => (name, Mode::parse(mode)?),
        None => (from, Mode::default()),
    };
    if name.is_empty() {
        return Err(Error::Invalid(
            "malformed volumes-from specification: empty container name".to_owned(),
        ));
    }
    let other = records::find(layout, name)?;
    let mounts = other.mounts.into_iter().map(|mut mount| {
        mount.point.rw &= !mode.readonly;
        // The volume has what is in it already.
        mount.no_copy = true;
        mount
    });
    Ok(mounts.collect())
}

/// Returns where the mount is on which a path lies, and its optional fields (fields 5 and 7 of mountinfo(5)). The last of
/// several at one place is the one on top.
fn mount_of<'m>(mounts: &'m str, path: &Path) -> (&'m str, &'m str) {
    let lines = mounts.lines().filter_map(|line| {
        let (before, _) = line.split_once(" - ")?;
        let mut fields = before.splitn(7, ' ').skip(4);
        let place = fields.next()?;
        let tags = fields.nth(1).unwrap_or_default();
        path.starts_with(place).then_some((place, tags))
    });
    lines
        .max_by_key(|(place, _)| place.len())
        .unwrap_or(("/", ""))
}

/// Makes the directories that `-v` names and the host lacks, root's and 0755, as docker does.
pub(crate) fn make_bind_sources(container: &Container) -> Result<()> {
    for mount in container.mounts.iter().filter(|mount| mount.make_source) {
        let source = Path::new(&mount.point.source);
        if !source.exists() {
            std::fs::create_dir_all(source).map_err(Error::io("create directory", source))?;
        }
    }
    Ok(())
}

/// Returns the containers that have a volume mounted or would when they start.
pub(crate) fn users(layout: &Layout, volume: &str) -> Result<Vec<ContainerId>> {
    let mut users = Vec::new();
    for id in records::ids(layout)? {
        let record = match records::read(layout, &id) {
            Err(error @ Error::Record { .. }) => {
                log::warn!("{error}: its volumes are not known");
                continue;
            }
            found => found?,
        };
        let uses = |mount: &ContainerMount| mount.volume() == Some(volume);
        if record.is_some_and(|record| record.mounts.iter().any(uses)) {
            users.push(id);
        }
    }
    Ok(users)
}

/// Notes for each volume of a container that it is mounted, or no more.
pub(crate) fn note_volumes(layout: &Layout, container: &Container, action: &str) {
    for mount in &container.mounts {
        let Some(volume) = mount.volume() else {
            continue;
        };
        let mut more = vec![("container", container.id.to_string())];
        if action == "mount" {
            more.push(("destination", mount.point.destination.clone()));
            more.push(("propagation", mount.point.propagation.clone()));
            more.push(("read/write", mount.point.rw.to_string()));
        }
        events::note_volume(layout, action, volume, &more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::sample;

    fn layout() -> Layout {
        Layout {
            root: "/nosuch/root".into(),
            run: "/nosuch/run".into(),
        }
    }

    fn with(binds: &[&str], image: &[&str]) -> Container {
        let mut container = sample();
        container.host_config.binds = Some(binds.iter().map(|&bind| bind.to_owned()).collect());
        let empty = || serde_json::json!({});
        container.config.volumes = Some(
            image
                .iter()
                .map(|&path| (path.to_owned(), empty()))
                .collect(),
        );
        container
    }

    #[test]
    fn an_image_s_volume_gives_way_to_what_the_user_mounts_there() {
        let container = with(&["/tmp:/a", "named:/b:ro"], &["/a/", "/c"]);
        let chosen = choose(&layout(), &container).unwrap();
        let seen: Vec<_> = chosen
            .iter()
            .map(|mount| {
                (
                    mount.point.destination.as_str(),
                    mount.anonymous,
                    mount.point.rw,
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("/a", false, true),
                ("/b", false, false),
                ("/c", true, true)
            ]
        );
        assert_eq!(chosen[2].point.name.len(), 64);
        assert_eq!(chosen[1].point.mode, "ro");
    }

    #[test]
    fn volumes_an_image_cannot_have_are_refused_or_kept_inside() {
        for path in ["", "/", "/../.."] {
            let error = choose(&layout(), &with(&[], &[path])).unwrap_err();
            assert!(
                error.to_string().contains("destination can't be '/'"),
                "{error}"
            );
        }
        let chosen = choose(&layout(), &with(&[], &["/../../../etc"])).unwrap();
        assert_eq!(chosen[0].point.destination, "/etc");
    }

    #[test]
    fn the_mount_of_a_path_is_the_nearest() {
        let table = "22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
                     30 22 0:26 / /srv rw - tmpfs tmpfs rw\n\
                     31 22 0:27 / /srv/a rw master:4 - tmpfs tmpfs rw\n";
        let find = |path| mount_of(table, Path::new(path));
        assert_eq!(find("/etc"), ("/", "shared:1"));
        assert_eq!(find("/srv/b"), ("/srv", ""));
        assert_eq!(find("/srv/a/x"), ("/srv/a", "master:4"));
    }

    #[test]
    fn two_mounts_at_one_place_are_refused() {
        let mut container = with(&["/tmp:/x", "/etc:/x/"], &[]);
        let error = choose(&layout(), &container).unwrap_err();
        assert_eq!(error.to_string(), "Duplicate mount point: /x");
        container.host_config.binds = Some(vec!["/tmp:/x".into()]);
        container.host_config.tmpfs = [("/x".to_owned(), String::new())].into();
        let error = choose(&layout(), &container).unwrap_err();
        assert_eq!(error.to_string(), "Duplicate mount point: /x");
    }
}
