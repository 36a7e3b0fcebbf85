//! The control groups of containers.
//!
//! A container gets a group only in the trees whose limits somebody asked for: putting a process into a group of version 1
//! makes the kernel wait for all processors (10 ms and more), which a container without limits must not pay. Its group is
//! `mille/ID` below the group of whoever starts it, so that limits around us hold for it too; for root in version 2 it is
//! below the tree's root, since a group with processes may not hand controllers on. The monitor stays where it is.
//! `--cgroup-parent` names another parent: then there is a group in every tree, since somebody else has set limits there.

mod block_devices;
mod check;
mod figures;
mod place;
mod settings;
mod trees;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mille_sandbox::CgroupPlacement;

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::files;
use crate::host_config::Resources;
use crate::ids::ContainerId;
use crate::records::{self, StateRecord};

pub(crate) use check::adapt;
use check::{check, check_update};
pub(crate) use figures::apply as count;
use place::{Place, gather, make_group, remove_group, write};
use settings::Setting;
use trees::{Tree, Version};

/// The groups of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    directories: Vec<PathBuf>,
}

/// What is to be set where.
struct Plan {
    /// The group in each tree that is needed, with its parents' root and the controllers of version 2 to be handed down.
    groups: Vec<Place>,
    settings: Vec<(PathBuf, Setting)>,
}

/// Returns the name a controller has in version 2.
fn modern(controller: &'static str) -> &'static str {
    match controller {
        "blkio" => "io",
        other => other,
    }
}

fn plan(trees: &[Tree], privileged: bool, id: &ContainerId, resources: &Resources) -> Result<Plan> {
    let find = |controller: &'static str| {
        Tree::of(trees, controller)
            .filter(|tree| tree.version == Version::One)
            .or_else(|| Tree::of(trees, modern(controller)))
    };
    let version =
        |controller: &'static str| find(controller).map_or(Version::Two, |tree| tree.version);
    let mut plan = Plan {
        groups: Vec::new(),
        settings: Vec::new(),
    };
    let mut wanted = settings::settings(resources, version);
    wanted.extend(block_devices::settings(resources, version("blkio"))?);
    for setting in wanted {
        // `io` was found as `blkio` or not at all.
        let tree = match setting.controller {
            "io" => Tree::of(trees, "io"),
            name => find(name),
        };
        let Some(tree) = tree else {
            if setting.required {
                return Err(unavailable(&setting, "no control group has it here"));
            }
            continue;
        };
        let wanted = Place::new(tree, privileged, &resources.cgroup_parent);
        let known = plan
            .groups
            .iter()
            .position(|place| place.base == wanted.base);
        let at = known.unwrap_or_else(|| {
            plan.groups.push(wanted);
            plan.groups.len() - 1
        });
        if let Some(place) = plan.groups.get_mut(at) {
            if !place.controllers.contains(&setting.controller) {
                place.controllers.push(setting.controller);
            }
            plan.settings.push((place.group(id), setting));
        }
    }
    if !resources.cgroup_parent.is_empty() {
        for tree in trees {
            let place = Place::new(tree, privileged, &resources.cgroup_parent);
            if plan.groups.iter().all(|known| known.base != place.base) {
                plan.groups.push(place);
            }
        }
        if plan.groups.is_empty() {
            return Err(Error::Invalid(
                "--cgroup-parent: this machine has no control groups".to_owned(),
            ));
        }
    }
    check_interface(resources, version)?;
    Ok(plan)
}

/// Refuses what version 2 has no setting for.
fn check_interface(resources: &Resources, version: impl Fn(&'static str) -> Version) -> Result<()> {
    for (asked, flag, controller) in [
        (
            resources.oom_kill_disable == Some(true),
            "--oom-kill-disable",
            "memory",
        ),
        (
            resources.memory_swappiness.is_some_and(|value| value >= 0),
            "--memory-swappiness",
            "memory",
        ),
        (resources.cpu_realtime_period != 0, "--cpu-rt-period", "cpu"),
        (
            resources.cpu_realtime_runtime != 0,
            "--cpu-rt-runtime",
            "cpu",
        ),
    ] {
        if asked && version(controller) == Version::Two {
            return Err(Error::Invalid(format!(
                "{flag}: version 2 of control groups has no such setting"
            )));
        }
    }
    Ok(())
}

/// A limit was asked for and cannot be set.
fn unavailable(setting: &Setting, reason: &str) -> Error {
    let name = setting.files.first().copied().unwrap_or_default();
    Error::Start {
        text: format!(
            "unable to apply cgroup configuration: {name} cannot be set to {}: {reason}",
            setting.text
        ),
        exit_code: 125,
    }
}

/// What an ordinary user can do about it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "the control group of this process is not its own: start mille by `systemd-run --user --scope -p \
             Delegate=yes`, or as root"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

impl Groups {
    /// Returns whether these limits need a group at all.
    pub(crate) fn are_needed(resources: &Resources) -> bool {
        !resources.cgroup_parent.is_empty()
            || !settings::controllers(resources).is_empty()
            || block_devices::are_limited(resources)
    }

    /// Makes the groups that limits need, below those of this process, and sets the limits. `note` is told the directories
    /// before they are made.
    ///
    /// # Errors
    /// A limit cannot be set here; nothing is left then.
    pub(crate) fn make(
        id: &ContainerId,
        resources: &Resources,
        note: impl FnOnce(&[PathBuf]) -> Result<()>,
    ) -> Result<Self> {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let trees = Tree::all(own).map_err(Error::system("find the control groups"))?;
        let plan = plan(&trees, is_privileged(), id, resources)?;
        let groups = Self {
            directories: plan.groups.iter().map(|place| place.group(id)).collect(),
        };
        note(&groups.directories)?;
        let made = apply(&plan, id);
        if made.is_err() {
            groups.remove();
        }
        made.map(|()| groups)
    }

    /// Takes over groups that a record names.
    pub(crate) fn of(directories: &[PathBuf]) -> Self {
        Self {
            directories: directories.to_vec(),
        }
    }

    /// Finds the groups that were made for a container of this monitor's by [`change`].
    pub(crate) fn made_later(id: &ContainerId) -> Self {
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        let privileged = is_privileged();
        let group = |tree: Tree| {
            // With a parent of its own it would have had groups from the beginning.
            Some(Place::new(&tree, privileged, "").group(id)).filter(|group| group.is_dir())
        };
        let trees = Tree::all(own).unwrap_or_default();
        Self {
            directories: trees.into_iter().filter_map(group).collect(),
        }
    }

    /// Where one more command of a running container has to be; `None` where it has no groups of its own.
    pub(crate) fn of_command(container: &Container, init: i32) -> Option<CgroupPlacement> {
        if Self::are_needed(&container.host_config.resources) {
            Self::find(&container.id, init).placement()
        } else {
            None
        }
    }

    /// Finds the groups of a running container by its first process.
    fn find(id: &ContainerId, init: i32) -> Self {
        let trees = Tree::all(init).unwrap_or_default();
        let ours = |tree: Tree| {
            let own = tree.own;
            let at = own.ancestors().find(|path| path.ends_with(id.as_str()));
            at.map(Path::to_path_buf)
        };
        Self {
            directories: trees.into_iter().filter_map(ours).collect(),
        }
    }

    /// Returns the groups of a running container, found by its first process.
    pub(crate) fn directories_of(id: &ContainerId, init: i32) -> Vec<PathBuf> {
        Self::find(id, init).directories
    }

    /// Returns where a process has to be written to be in the groups; `None`: there are none.
    pub(crate) fn placement(&self) -> Option<CgroupPlacement> {
        let files = self
            .directories
            .iter()
            .map(|group| group.join("cgroup.procs"));
        let procs_files: Vec<_> = files.collect();
        (!procs_files.is_empty()).then_some(CgroupPlacement { procs_files })
    }

    /// Returns whether the kernel killed something in there for memory.
    pub(crate) fn out_of_memory(&self) -> bool {
        let killed = |group: &PathBuf| {
            ["memory.events", "memory.oom_control"].iter().any(|file| {
                let text = fs::read_to_string(group.join(file)).unwrap_or_default();
                oom_kills(&text) > 0
            })
        };
        self.directories.iter().any(killed)
    }

    /// Removes the groups; what still runs in them is killed. What cannot be removed is logged.
    pub(crate) fn remove(&self) {
        for group in &self.directories {
            if let Err(error) = remove_group(group) {
                log::warn!("remove control group {}: {error}", group.display());
            }
        }
    }
}

/// Reads the line `oom_kill N` that both interfaces have.
fn oom_kills(text: &str) -> u64 {
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("oom_kill "));
    counts
        .filter_map(|count| count.trim().parse::<u64>().ok())
        .sum()
}

fn is_privileged() -> bool {
    matches!(
        mille_sandbox::outer::current(),
        Ok(Some(mille_sandbox::outer::OuterMode::Root))
    )
}

/// Gives a container other limits. A running one gets them at once: its groups are made, and its processes moved there,
/// where it had none. What `asked` leaves at 0 or empty stays as it is.
///
/// # Errors
/// Limits that make no sense, or that cannot be set here.
pub(crate) fn change(
    engine: &Engine,
    id: &ContainerId,
    now: &mut Resources,
    asked: &Resources,
) -> Result<()> {
    let before = now.clone();
    merge(now, asked);
    // Only what was asked for can make no sense by itself.
    check(&Resources {
        memory_swap: asked.memory_swap,
        memory: if asked.memory == 0 && asked.memory_swap != 0 {
            now.memory
        } else {
            asked.memory
        },
        ..asked.clone()
    })?;
    check_update(&before, asked)
        .map_err(|text| Error::Invalid(format!("Cannot update container {id}: {text}")))?;
    check(now)?;
    if engine.load(id)?.is_running() {
        let paths = engine.layout.container(id);
        let state = records::read_state(&paths)?;
        // Before they are there: the monitor looks for them after the run if it finds this.
        files::write(&paths.limited(), b"", 0o600)?;
        set_running(id, &state, now)?;
    }
    Ok(())
}

fn merge(now: &mut Resources, asked: &Resources) {
    for (now, asked) in [
        (&mut now.memory, asked.memory),
        (&mut now.memory_swap, asked.memory_swap),
        (&mut now.memory_reservation, asked.memory_reservation),
        (&mut now.nano_cpus, asked.nano_cpus),
        (&mut now.cpu_shares, asked.cpu_shares),
        (&mut now.cpu_period, asked.cpu_period),
        (&mut now.cpu_quota, asked.cpu_quota),
        (&mut now.cpu_realtime_period, asked.cpu_realtime_period),
        (&mut now.cpu_realtime_runtime, asked.cpu_realtime_runtime),
    ] {
        if asked != 0 {
            *now = asked;
        }
    }
    for (now, asked) in [
        (&mut now.cpuset_cpus, &asked.cpuset_cpus),
        (&mut now.cpuset_mems, &asked.cpuset_mems),
    ] {
        if !asked.is_empty() {
            now.clone_from(asked);
        }
    }
    now.pids_limit = asked.pids_limit.or(now.pids_limit);
    if asked.blkio_weight != 0 {
        now.blkio_weight = asked.blkio_weight;
    }
}

fn set_running(id: &ContainerId, state: &StateRecord, resources: &Resources) -> Result<()> {
    let trees = Tree::all(state.monitor).map_err(Error::system("find the control groups"))?;
    let plan = plan(&trees, is_privileged(), id, resources)?;
    apply(&plan, id)?;
    for place in &plan.groups {
        gather(&place.group(id), state.state.pid)
            .map_err(Error::system("move into the control group"))?;
    }
    Ok(())
}

fn apply(plan: &Plan, id: &ContainerId) -> Result<()> {
    let first = |place: &Place| {
        let settings = plan.settings.iter();
        let mut settings = settings.filter(|(group, _)| *group == place.group(id));
        settings.next().map(|(_, setting)| setting.clone())
    };
    for place in &plan.groups {
        if let Err(error) = make_group(place, id) {
            return Err(match first(place) {
                Some(setting) => unavailable(&setting, &reason(&error)),
                None => Error::Start {
                    text: format!(
                        "unable to apply cgroup configuration: create control group {}: {}",
                        place.group(id).display(),
                        reason(&error)
                    ),
                    exit_code: 125,
                },
            });
        }
    }
    if let Some((group, _)) = real_time(plan) {
        let value = |file: &'static str| {
            let mut texts = plan.settings.iter().filter(|(_, one)| one.files == [file]);
            texts.find_map(|(_, setting)| setting.text.parse().ok())
        };
        place::allow_real_time(
            group,
            value(settings::RT_RUNTIME),
            value(settings::RT_PERIOD),
        );
    }
    // Memory may not be above memory and swap, nor these below memory in use: which of two goes first depends on what
    // stands there, so what was refused is tried once more after the rest.
    let mut refused = Vec::new();
    for (group, setting) in &plan.settings {
        if set(group, setting).is_err() {
            refused.push((group, setting));
        }
    }
    for (group, setting) in refused {
        match set(group, setting) {
            Err(error) if is_more_real_time_than_above(setting, &error) => {
                return Err(unavailable(
                    setting,
                    "the groups above have less real time than that",
                ));
            }
            Err(error) if setting.required => return Err(unavailable(setting, &reason(&error))),
            Err(error) => log::warn!("{}: {error}: left as it is", setting.text),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The kernel's answer to that is no more than "invalid".
fn is_more_real_time_than_above(setting: &Setting, error: &io::Error) -> bool {
    setting.files == [settings::RT_RUNTIME] && error.raw_os_error() == Some(libc::EINVAL)
}

fn real_time(plan: &Plan) -> Option<&(PathBuf, Setting)> {
    let mut settings = plan.settings.iter();
    settings.find(|(_, setting)| setting.files == [settings::RT_RUNTIME])
}

fn set(group: &Path, setting: &Setting) -> io::Result<()> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for file in setting.files {
        let path = group.join(file);
        if path.exists() {
            return write(&path, &setting.text);
        }
        last = io::Error::new(
            io::ErrorKind::NotFound,
            format!("this kernel has no {}", setting.files.join(" or ")),
        );
    }
    Err(last)
}

#[cfg(test)]
mod tests;
