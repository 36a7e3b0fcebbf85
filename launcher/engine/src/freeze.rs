//! Holding a container's processes still, for a commit that shall see one moment.
//!
//! The freezer of control groups is used, because stopping by SIGSTOP can be seen inside (a shell reports its stopped
//! child). The group is made only now and taken away again, so that starting a container costs nothing: the container's
//! processes are moved in, frozen, thawed, moved back. Where this machine gives us no freezer (an ordinary user without a
//! delegated group), freezing fails with a reason and commit goes on without.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

/// How long the kernel may take to freeze everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Rounds of catching processes; each catches what was forked during the one before.
pub(crate) const ROUNDS: usize = 16;

/// Which interface a hierarchy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A container held still; going on when dropped.
#[derive(Debug)]
pub(crate) struct Frozen {
    version: Version,
    home: PathBuf,
    group: PathBuf,
}

impl Frozen {
    /// Freezes the container whose first process is `init`.
    ///
    /// # Errors
    /// No freezer, no permission, or a process that cannot be frozen in time (in disk sleep).
    pub(crate) fn new(init: Pid) -> io::Result<Self> {
        let (version, home) = home(init)?;
        let group = home.join(group_name(init.as_raw()));
        fs::create_dir(&group)?;
        let frozen = Self {
            version,
            home,
            group,
        };
        frozen.gather(init)?;
        frozen.set(true)?;
        frozen.wait_frozen()?;
        Ok(frozen)
    }

    /// Moves the container's processes into the group until no new one turns up.
    fn gather(&self, init: Pid) -> io::Result<()> {
        let procs = self.group.join("cgroup.procs");
        for _ in 0..ROUNDS {
            let inside: BTreeSet<i32> = listed(&procs)?;
            let missing: Vec<i32> = members(init)?.difference(&inside).copied().collect();
            if missing.is_empty() {
                return Ok(());
            }
            for pid in missing {
                match fs::write(&procs, pid.to_string()) {
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
        Err(io::Error::other(
            "processes are forked faster than they can be frozen",
        ))
    }

    fn set(&self, still: bool) -> io::Result<()> {
        match self.version {
            Version::One => fs::write(
                self.group.join("freezer.state"),
                if still { "FROZEN" } else { "THAWED" },
            ),
            Version::Two => fs::write(
                self.group.join("cgroup.freeze"),
                if still { "1" } else { "0" },
            ),
        }
    }

    fn is_frozen(&self) -> io::Result<bool> {
        Ok(match self.version {
            Version::One => {
                fs::read_to_string(self.group.join("freezer.state"))?.trim() == "FROZEN"
            }
            Version::Two => fs::read_to_string(self.group.join("cgroup.events"))?
                .lines()
                .any(|line| line == "frozen 1"),
        })
    }

    fn wait_frozen(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_frozen()? {
            if Instant::now() >= deadline {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn undo(&self) -> io::Result<()> {
        self.set(false)?;
        let (from, to) = (
            self.group.join("cgroup.procs"),
            self.home.join("cgroup.procs"),
        );
        for _ in 0..ROUNDS {
            let inside = listed(&from)?;
            if inside.is_empty() {
                break;
            }
            for pid in inside {
                match fs::write(&to, pid.to_string()) {
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
        // A process that just died leaves the group a moment later.
        for _ in 0..100 {
            match fs::remove_dir(&self.group) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                other => return other,
            }
        }
        fs::remove_dir(&self.group)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            log::warn!("thaw {}: {error}", self.group.display());
        }
    }
}

/// Lets go what a killed monitor had frozen: its container was killed with it, but frozen processes of the first version
/// of control groups die only when they are thawed.
pub(crate) fn release_leftover(init: i32) {
    // A frozen process is still there, and so its group can be found by it.
    let Ok((version, group)) = home(Pid::from_raw(init)) else {
        return;
    };
    if group
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes() == group_name(init).as_bytes())
        && let Some(home) = group.parent().map(Path::to_path_buf)
    {
        drop(Frozen {
            version,
            home,
            group,
        });
    }
}

fn group_name(init: i32) -> String {
    format!("mille-freeze-{init}")
}

/// Finds the freezer's hierarchy and where in it a process lives.
fn home(pid: Pid) -> io::Result<(Version, PathBuf)> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let path_in = |wanted: &dyn Fn(&str) -> bool| {
        let mut lines = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            Some((fields.next()?, fields.next()?, fields.next()?))
        });
        lines
            .find(|(_, controllers, _)| wanted(controllers))
            .map(|(.., path)| path.to_owned())
    };
    if let Some(path) = path_in(&|controllers| controllers.split(',').any(|name| name == "freezer"))
        && let Some(mount) = mount_point(&mounts, "cgroup", Some("freezer"))
    {
        return Ok((Version::One, join(&mount, &path)));
    }
    if let Some(path) = path_in(&str::is_empty)
        && let Some(mount) = mount_point(&mounts, "cgroup2", None)
    {
        return Ok((Version::Two, join(&mount, &path)));
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this machine has no freezer of control groups",
    ))
}

fn join(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

/// Returns where a cgroup hierarchy is mounted: field 5 of mountinfo(5), with type and options behind the dash.
fn mount_point(mounts: &str, kind: &str, controller: Option<&str>) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (found, options) = (after.next()?, after.nth(1)?);
        let fits = controller.is_none_or(|name| options.split(',').any(|option| option == name));
        (found == kind && fits).then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })
}

fn listed(procs: &Path) -> io::Result<BTreeSet<i32>> {
    Ok(fs::read_to_string(procs)?
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect())
}

/// Returns the container's processes: those in the pid namespace of its first one, and all their descendants (which may
/// have namespaces of their own).
pub(crate) fn members(init: Pid) -> io::Result<BTreeSet<i32>> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = fs::read_link("/proc/self/ns/pid").ok();
    // A container that shares our pid namespace, or another container's, has only its descendants.
    let ours = namespace(init.as_raw())
        .filter(|ours| Some(ours) != own.as_ref() && crate::process::is_first(init.as_raw()));
    let mut found = BTreeSet::from([init.as_raw()]);
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if ours.is_some() && namespace(pid) == ours {
            found.insert(pid);
        }
        parents.extend(crate::process::stat(pid).map(|stat| (pid, stat.parent)));
    }
    loop {
        let children: Vec<i32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|&(pid, _)| pid)
            .collect();
        if children.is_empty() {
            return Ok(found);
        }
        found.extend(children);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_in_mountinfo() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
                      34 25 0:30 / /sys/fs/cgroup/freezer rw shared:9 - cgroup cgroup rw,freezer\n";
        let find = |kind, controller| mount_point(mounts, kind, controller);
        assert_eq!(
            find("cgroup", Some("freezer")),
            Some("/sys/fs/cgroup/freezer".into())
        );
        assert_eq!(find("cgroup2", None), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find("cgroup", Some("memory")), None);
    }

    #[test]
    fn root_a_process_is_frozen_and_thawed() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let frozen = Frozen::new(pid).unwrap();
        assert!(frozen.is_frozen().unwrap());
        let group = frozen.group.clone();
        drop(frozen);
        assert!(!group.exists());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
