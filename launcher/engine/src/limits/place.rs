//! The directories of control groups: where a container's is, how it is made, filled and removed.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use super::settings::{RT_PERIOD, RT_RUNTIME};
use super::trees::{Tree, Version};
use crate::ids::ContainerId;

/// The group above those of our containers.
pub(super) const PARENT: &str = "mille";
/// Where processes of a delegated group go, so that it may hand controllers on.
const ASIDE: &str = "mille-supervisor";
/// Rounds of moving or killing processes; each catches what was forked during the one before.
const ROUNDS: usize = 16;
/// How long a group may be in use after its last process was reaped, in steps of [`STEP`].
const STEPS: usize = 200;
const STEP: Duration = Duration::from_millis(5);

/// Where a container's group in one tree is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) version: Version,
    /// The group that everything we make is below.
    pub(super) base: PathBuf,
    /// The groups between it and the container's, each of which may have to be made.
    pub(super) parents: Vec<String>,
    /// What has to be handed down in version 2.
    pub(super) controllers: Vec<&'static str>,
}

impl Place {
    /// Finds the place in a tree. `parent` is what `--cgroup-parent` says: an absolute path counts from the tree's root, a
    /// relative one from where our groups are, and `a-b.slice` is systemd's name for `/a.slice/a-b.slice`.
    pub(super) fn new(tree: &Tree, privileged: bool, parent: &str) -> Self {
        let slice = slice(parent);
        let (from_root, parents) = match &slice {
            Some(slices) => (true, slices.clone()),
            None if parent.is_empty() => (false, vec![PARENT.to_owned()]),
            None => (parent.starts_with('/'), cleaned(parent)),
        };
        // A group with processes may not hand controllers on, as ours would have to for root.
        let base = if from_root || (tree.version == Version::Two && privileged) {
            &tree.mount
        } else {
            &tree.own
        };
        Self {
            version: tree.version,
            base: base.clone(),
            parents,
            controllers: Vec::new(),
        }
    }

    /// The container's group.
    pub(super) fn group(&self, id: &ContainerId) -> PathBuf {
        let above = self.parents.iter();
        above
            .fold(self.base.clone(), |path, name| path.join(name))
            .join(id.as_str())
    }
}

/// The parts of a path that lead down; one that leads up leads nowhere, as in runc.
fn cleaned(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts
}

/// The groups of a slice of systemd's (systemd.slice(5)): each dash goes one deeper. `None`: it is no slice's name.
fn slice(name: &str) -> Option<Vec<String>> {
    let stem = name
        .strip_suffix(".slice")
        .filter(|_| !name.contains('/'))?;
    if stem == "-" {
        return Some(Vec::new());
    }
    let mut slices = Vec::new();
    let mut so_far = String::new();
    for word in stem.split('-') {
        if word.is_empty() {
            return None;
        }
        if !so_far.is_empty() {
            so_far.push('-');
        }
        so_far.push_str(word);
        slices.push(format!("{so_far}.slice"));
    }
    Some(slices)
}

/// Moves the processes of a container into a group.
pub(super) fn gather(group: &Path, init: i32) -> io::Result<()> {
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
pub(super) fn members(group: &Path) -> io::Result<BTreeSet<i32>> {
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

/// Writes a file of the kernel's.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Makes the container's group, and those above it that are missing.
pub(super) fn make_group(place: &Place, id: &ContainerId) -> io::Result<()> {
    let mut group = place.base.clone();
    let below = place.parents.iter().map(String::as_str);
    for name in below.chain([id.as_str()]) {
        if place.version == Version::Two && !place.controllers.is_empty() {
            hand_down(&group, &place.controllers)?;
        }
        let above = std::mem::replace(&mut group, PathBuf::new());
        group = above.join(name);
        make_directory(&group)?;
        let cpuset = group.join("cpuset.cpus").exists();
        if place.version == Version::One && cpuset {
            inherit_cpuset(&above, &group)?;
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Gives the group above ours as much real time as all in it need: the kernel gives a group no more than what is above it
/// has, and a new one has none. Only where that group is ours, too; what cannot be given is noticed by who sets the limit.
pub(super) fn allow_real_time(group: &Path, runtime: Option<f64>, period: Option<f64>) {
    /// The kernel's period where none was set.
    const PERIOD_US: f64 = 1_000_000.0;
    let Some(parent) = group.parent().filter(|parent| parent.ends_with(PARENT)) else {
        return;
    };
    let read = |group: &Path, file: &str| -> Option<f64> {
        fs::read_to_string(group.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    let share = |group: PathBuf| -> Option<f64> {
        Some(read(&group, RT_RUNTIME)? / read(&group, RT_PERIOD)?)
    };
    let others = fs::read_dir(parent).into_iter().flatten().flatten();
    let others = others
        .map(|entry| entry.path())
        .filter(|path| path != group);
    let asked = runtime.unwrap_or_default() / period.unwrap_or(PERIOD_US);
    let needed = others
        .filter_map(share)
        .fold(asked, |sum, share| sum + share);
    let (Some(now), Some(period)) = (read(parent, RT_RUNTIME), read(parent, RT_PERIOD)) else {
        return;
    };
    let needed = (needed * period).ceil();
    if needed > now
        && let Err(error) = write(&parent.join(RT_RUNTIME), &format!("{needed:.0}"))
    {
        log::debug!("{}: {error}", parent.display());
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
pub(super) fn remove_group(group: &Path) -> io::Result<()> {
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
mod tests {
    use super::*;

    #[test]
    fn parents_are_read_as_docker_and_systemd_read_them() {
        let tree = |version| Tree {
            version,
            controllers: Vec::new(),
            mount: PathBuf::from("/cg"),
            own: PathBuf::from("/cg/own"),
        };
        let id = ContainerId::parse(&"ab".repeat(32)).unwrap();
        for (parent, one, two) in [
            ("", "/cg/own/mille", "/cg/mille"),
            ("/a/b", "/cg/a/b", "/cg/a/b"),
            ("/", "/cg", "/cg"),
            ("a//b/", "/cg/own/a/b", "/cg/a/b"),
            ("../../x", "/cg/own/x", "/cg/x"),
            ("/../x/./y", "/cg/x/y", "/cg/x/y"),
            ("user.slice", "/cg/user.slice", "/cg/user.slice"),
            (
                "a-b-c.slice",
                "/cg/a.slice/a-b.slice/a-b-c.slice",
                "/cg/a.slice/a-b.slice/a-b-c.slice",
            ),
            ("-.slice", "/cg", "/cg"),
            ("a--b.slice", "/cg/own/a--b.slice", "/cg/a--b.slice"),
        ] {
            for (version, want) in [(Version::One, one), (Version::Two, two)] {
                let place = Place::new(&tree(version), true, parent);
                let group = place.group(&id);
                assert_eq!(group.parent(), Some(Path::new(want)), "{parent}");
            }
        }
        let own = Place::new(&tree(Version::Two), false, "a");
        assert_eq!(own.group(&id).parent(), Some(Path::new("/cg/own/a")));
    }
}
