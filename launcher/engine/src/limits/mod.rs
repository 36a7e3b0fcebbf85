//! The control groups of containers.
//!
//! A container gets a group only in the trees whose limits somebody asked for: putting a process into a group of version 1
//! makes the kernel wait for all processors (10 ms and more), which a container without limits must not pay. Its group is
//! `mille/ID` below the group of whoever starts it, so that limits around us hold for it too; for root in version 2 it is
//! below the tree's root, since a group with processes may not hand controllers on. The monitor stays where it is.

mod check;
mod figures;
mod settings;
mod trees;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mille_sandbox::CgroupPlacement;
use rustix::process::Signal;

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::files;
use crate::host_config::Resources;
use crate::ids::ContainerId;
use crate::records::{self, StateRecord};

pub(crate) use check::adapt;
use check::check;
pub(crate) use figures::apply as count;
use settings::Setting;
use trees::{Tree, Version};

/// The group above those of our containers.
const PARENT: &str = "mille";
/// Where processes of a delegated group go, so that it may hand controllers on.
const ASIDE: &str = "mille-supervisor";
/// Rounds of moving or killing processes; each catches what was forked during the one before.
const ROUNDS: usize = 16;
/// How long a group may be in use after its last process was reaped, in steps of [`STEP`].
const STEPS: usize = 200;
const STEP: Duration = Duration::from_millis(5);

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

struct Place {
    version: Version,
    base: PathBuf,
    controllers: Vec<&'static str>,
}

impl Place {
    fn group(&self, id: &ContainerId) -> PathBuf {
        self.base.join(PARENT).join(id.as_str())
    }
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
    for setting in settings::settings(resources, version) {
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
        let base = base(tree, privileged);
        let place = match plan.groups.iter().position(|place| place.base == base) {
            Some(at) => at,
            None => {
                plan.groups.push(Place {
                    version: tree.version,
                    base: base.to_path_buf(),
                    controllers: Vec::new(),
                });
                plan.groups.len() - 1
            }
        };
        if let Some(place) = plan.groups.get_mut(place) {
            if !place.controllers.contains(&setting.controller) {
                place.controllers.push(setting.controller);
            }
            plan.settings.push((place.group(id), setting));
        }
    }
    if resources.oom_kill_disable == Some(true) && version("memory") == Version::Two {
        return Err(Error::Invalid(
            "--oom-kill-disable: version 2 of control groups has no such setting".to_owned(),
        ));
    }
    if resources.memory_swappiness.is_some_and(|value| value >= 0)
        && version("memory") == Version::Two
    {
        return Err(Error::Invalid(
            "--memory-swappiness: version 2 of control groups has no such setting".to_owned(),
        ));
    }
    Ok(plan)
}

/// The group below which ours are.
fn base(tree: &Tree, privileged: bool) -> &Path {
    match tree.version {
        Version::Two if privileged => &tree.mount,
        _ => &tree.own,
    }
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
        !settings::controllers(resources).is_empty()
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
            let base = base(&tree, privileged);
            Some(base.join(PARENT).join(id.as_str())).filter(|group| group.is_dir())
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
            let at = own
                .ancestors()
                .find(|path| path.ends_with(Path::new(PARENT).join(id.as_str())));
            at.map(Path::to_path_buf)
        };
        Self {
            directories: trees.into_iter().filter_map(ours).collect(),
        }
    }

    /// Returns the groups of the container whose first process this is.
    pub(crate) fn directories_of(init: i32) -> Vec<PathBuf> {
        let trees = Tree::all(init).unwrap_or_default();
        let is_ours = |path: &&Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            let above = path.parent().and_then(Path::file_name);
            name.and_then(ContainerId::parse).is_some() && above.is_some_and(|name| name == PARENT)
        };
        let ours = |tree: Tree| tree.own.ancestors().find(is_ours).map(Path::to_path_buf);
        trees.into_iter().filter_map(ours).collect()
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
    let swap_before = now.memory_swap;
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
    if asked.memory_swap == 0 && swap_before > 0 && now.memory > swap_before {
        return Err(Error::Invalid(format!(
            "Cannot update container {id}: Memory limit should be smaller than already set memoryswap limit, update the \
             memoryswap at the same time"
        )));
    }
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

fn gather(group: &Path, init: i32) -> io::Result<()> {
    let procs = group.join("cgroup.procs");
    for _ in 0..ROUNDS {
        let inside = members(group)?;
        let all = crate::freeze::members(nix::unistd::Pid::from_raw(init))?;
        let missing: Vec<i32> = all.difference(&inside).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        for pid in missing {
            ignore_gone(fs::write(&procs, pid.to_string()))?;
        }
    }
    Err(io::Error::other(
        "processes are forked faster than they can be moved",
    ))
}

/// A process that has ended meanwhile needs nothing.
fn ignore_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

/// The processes in a group and in those below it.
fn members(group: &Path) -> io::Result<BTreeSet<i32>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    let mut all: BTreeSet<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(members(&entry.path())?);
        }
    }
    Ok(all)
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
                None => Error::io("create control group", &place.group(id))(error),
            });
        }
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
            Err(error) if setting.required => return Err(unavailable(setting, &reason(&error))),
            Err(error) => log::warn!("{}: {error}: left as it is", setting.text),
            Ok(()) => {}
        }
    }
    Ok(())
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

fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

fn make_group(place: &Place, id: &ContainerId) -> io::Result<()> {
    let parent = place.base.join(PARENT);
    if place.version == Version::Two {
        hand_down(&place.base, &place.controllers)?;
    }
    make_directory(&parent)?;
    match place.version {
        Version::Two => hand_down(&parent, &place.controllers)?,
        Version::One if place.controllers.contains(&"cpuset") => {
            inherit_cpuset(&place.base, &parent)?;
        }
        Version::One => {}
    }
    let group = place.group(id);
    make_directory(&group)?;
    if place.version == Version::One && place.controllers.contains(&"cpuset") {
        inherit_cpuset(&parent, &group)?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A new group of version 1 has no processors and no memory, and takes no process before it has.
fn inherit_cpuset(from: &Path, to: &Path) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if fs::read_to_string(to.join(file))?.trim().is_empty() {
            let inherited = fs::read_to_string(from.join(file))?;
            write(&to.join(file), inherited.trim())?;
        }
    }
    Ok(())
}

/// Hands controllers down to the groups below `group`. One with processes of its own may not: these move aside first,
/// which is for us to do only in a group that was delegated to us.
fn hand_down(group: &Path, controllers: &[&'static str]) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    let has = fs::read_to_string(&file)?;
    let missing: Vec<String> = controllers
        .iter()
        .filter(|name| !has.split_whitespace().any(|word| word == **name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = missing.join(" ");
    match write(&file, &text) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
        other => return other,
    }
    let aside = group.join(ASIDE);
    make_directory(&aside)?;
    for _ in 0..ROUNDS {
        let processes = fs::read_to_string(group.join("cgroup.procs"))?;
        for pid in processes.lines() {
            ignore_gone(write(&aside.join("cgroup.procs"), pid))?;
        }
        match write(&file, &text) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            other => return other,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Removes a group and what is below it, once nothing runs there any more.
fn remove_group(group: &Path) -> io::Result<()> {
    for _ in 0..STEPS {
        let entries = match fs::read_dir(group) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                remove_group(&entry.path())?;
            }
        }
        match fs::remove_dir(group) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
        // Processes that outlived the first one: they share our pid namespace.
        for pid in members(group)? {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                match rustix::process::kill_process(pid, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        std::thread::sleep(STEP);
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

#[cfg(test)]
mod tests;
