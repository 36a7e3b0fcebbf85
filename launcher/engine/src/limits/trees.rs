//! Where this machine's control groups are, and where in them a process is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Which interface a tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// One tree for each controller or a few.
    One,
    /// One tree for all.
    Two,
}

/// One tree of control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) version: Version,
    /// What it controls.
    pub(crate) controllers: Vec<String>,
    /// Where it is mounted.
    pub(crate) mount: PathBuf,
    /// The directory of the process's group.
    pub(crate) own: PathBuf,
}

impl Tree {
    /// Finds the trees that are mounted here, with the groups of a process.
    ///
    /// # Errors
    /// /proc cannot be read, or the process is gone.
    pub(crate) fn all(pid: i32) -> io::Result<Vec<Self>> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let mut trees = parse(&groups, &mounts);
        for tree in trees.iter_mut().filter(|tree| tree.version == Version::Two) {
            let file = tree.mount.join("cgroup.controllers");
            let listed = fs::read_to_string(file).unwrap_or_default();
            tree.controllers = listed.split_whitespace().map(str::to_owned).collect();
        }
        Ok(trees)
    }

    /// Finds the tree of a controller.
    pub(crate) fn of<'t>(trees: &'t [Self], controller: &str) -> Option<&'t Self> {
        trees
            .iter()
            .find(|tree| tree.controllers.iter().any(|name| name == controller))
    }
}

/// Joins the lines of /proc/PID/cgroup to the mounts they are about (fields 4 and 5 of mountinfo(5), type and options
/// behind the dash).
fn parse(groups: &str, mounts: &str) -> Vec<Tree> {
    let mounted: Vec<(&str, &Path, &str, &str)> = mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut before = before.split(' ').skip(3);
            let (root, place) = (before.next()?, before.next()?);
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            Some((kind, Path::new(place), root, options))
        })
        .collect();
    let tree = |line: &str| -> Option<Tree> {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let fits = |(kind, _, _, options): &&(&str, &Path, &str, &str)| {
            if controllers.is_empty() {
                *kind == "cgroup2"
            } else {
                let wanted = controllers.split(',');
                let mut wanted = wanted.map(|name| options.split(',').any(|word| word == name));
                *kind == "cgroup" && wanted.all(|found| found)
            }
        };
        let (_, place, root, _) = mounted.iter().find(fits)?;
        // A mount may show only a part of its tree.
        let inside = path.strip_prefix(root).unwrap_or(path);
        let version = if controllers.is_empty() {
            Version::Two
        } else {
            Version::One
        };
        let names = controllers.split(',').filter(|name| !name.is_empty());
        Some(Tree {
            version,
            controllers: names.map(str::to_owned).collect(),
            mount: place.to_path_buf(),
            own: place.join(inside.trim_start_matches('/')),
        })
    };
    groups.lines().filter_map(tree).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_of_a_hybrid_machine() {
        let groups = "9:name=systemd:/\n4:memory:/outer/x\n2:cpu,cpuacct:/\n0::/a\n";
        let mounts = "30 25 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
                      34 25 0:30 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n\
                      35 25 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let trees = parse(groups, mounts);
        let own: Vec<_> = trees
            .iter()
            .map(|tree| tree.own.to_str().unwrap())
            .collect();
        assert_eq!(
            own,
            [
                "/sys/fs/cgroup/memory/outer/x",
                "/sys/fs/cgroup/cpu,cpuacct/",
                "/sys/fs/cgroup/unified/a"
            ]
        );
        assert_eq!(Tree::of(&trees, "cpuacct").unwrap().version, Version::One);
        assert_eq!(Tree::of(&trees, "pids"), None);
    }

    #[test]
    fn a_mount_of_a_part_of_the_tree() {
        let mounts = "30 25 0:26 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        let trees = parse("0::/docker/x/y\n", mounts);
        assert_eq!(trees[0].own, Path::new("/sys/fs/cgroup/y"));
    }
}
