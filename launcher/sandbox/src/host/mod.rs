//! What this machine allows.

mod report;

pub use report::{
    CgroupControl, FUSE_NUMBER, Fuse, Mapper, Passthrough, ProcMount, Report, inspect,
    is_fuse_device,
};

use crate::{CapSet, IdMap};
use rustix::fs::StatFs;
use rustix::thread::CapabilitySet;
use std::io;

/// The few facts every plan needs; cheap to find out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Release of the running kernel.
    pub kernel: String,
    /// Capabilities this process may give: its permitted set.
    pub capabilities: CapSet,
    /// Whether this process is in the first user namespace.
    pub initial_user_namespace: bool,
    /// User ids of this process's user namespace.
    pub uid_map: Vec<IdMap>,
    /// Group ids of this process's user namespace.
    pub gid_map: Vec<IdMap>,
    /// Whether `setgroups` is allowed in this user namespace.
    pub set_groups: bool,
    /// Control groups.
    pub cgroups: Cgroups,
}

/// How control groups are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// Not mounted.
    None,
    /// One tree.
    V2,
    /// One tree per controller.
    V1 {
        /// The trees.
        hierarchies: Vec<Hierarchy>,
        /// Whether there is an (empty) version 2 tree beside them.
        hybrid: bool,
    },
}

/// One tree of version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Name of its directory: `cpu,cpuacct`, `systemd`.
    pub directory: String,
    /// Its mount options: `cpu,cpuacct`, `name=systemd`.
    pub options: String,
}

/// Magic number of the version 2 filesystem (`linux/magic.h`).
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// Where every distribution mounts them.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

impl Host {
    /// Finds the facts out: about ten system calls.
    ///
    /// # Errors
    /// /proc is not mounted.
    pub fn probe() -> io::Result<Self> {
        let uid_map = parse_id_map(&std::fs::read_to_string("/proc/self/uid_map")?);
        let gid_map = parse_id_map(&std::fs::read_to_string("/proc/self/gid_map")?);
        let set_groups = std::fs::read_to_string("/proc/self/setgroups")
            .map_or(true, |text| text.trim() != "deny");
        Ok(Self {
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
            capabilities: CapSet::from_bits(rustix::thread::capabilities(None)?.permitted.bits()),
            initial_user_namespace: is_whole(&uid_map),
            uid_map,
            gid_map,
            set_groups,
            cgroups: probe_cgroups(),
        })
    }

    /// Whether the kernel has every call this crate uses: `mount_setattr` is the newest.
    pub fn kernel_is_new_enough(&self) -> bool {
        self.kernel_is_at_least(5, 12)
    }

    /// Whether the kernel's release is this one or later. A release that is no number is not.
    pub fn kernel_is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self
            .kernel
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(has_major)), Some(Ok(has_minor))) => (has_major, has_minor) >= (major, minor),
            _ => false,
        }
    }
}

/// Whether this process has CAP_SYS_ADMIN, without which root is no more than another user.
pub fn can_mount() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Whether a map is the first namespace's: every id is itself.
pub(crate) fn is_whole(map: &[IdMap]) -> bool {
    matches!(
        map,
        [IdMap {
            inside: 0,
            outside: 0,
            count: u32::MAX
        }]
    )
}

/// Reads `/proc/PID/uid_map`. Lines that are no ranges are left out.
pub(crate) fn parse_id_map(text: &str) -> Vec<IdMap> {
    text.lines()
        .filter_map(|line| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(count))) => Some(IdMap {
                    inside,
                    outside,
                    count,
                }),
                _ => None,
            }
        })
        .collect()
}

fn probe_cgroups() -> Cgroups {
    let Ok(StatFs { f_type, .. }) = rustix::fs::statfs(CGROUP_ROOT) else {
        return Cgroups::None;
    };
    if f_type == CGROUP2_MAGIC {
        return Cgroups::V2;
    }
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let hybrid =
        rustix::fs::statfs("/sys/fs/cgroup/unified").is_ok_and(|stat| stat.f_type == CGROUP2_MAGIC);
    match parse_hierarchies(&text) {
        hierarchies if hierarchies.is_empty() => Cgroups::None,
        hierarchies => Cgroups::V1 {
            hierarchies,
            hybrid,
        },
    }
}

/// Reads `/proc/self/cgroup`: `ID:CONTROLLERS:PATH`, with an empty second field for version 2.
fn parse_hierarchies(text: &str) -> Vec<Hierarchy> {
    text.lines()
        .filter_map(|line| line.split(':').nth(1))
        .filter(|options| !options.is_empty())
        .map(|options| Hierarchy {
            directory: options.strip_prefix("name=").unwrap_or(options).to_owned(),
            options: options.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_maps() {
        for (text, want) in [
            ("         0          0 4294967295\n", vec![(0, 0, u32::MAX)]),
            (
                "0 1000 1\n1 100000 65536\n",
                vec![(0, 1000, 1), (1, 100_000, 65536)],
            ),
            ("garbage\n", vec![]),
        ] {
            let got: Vec<_> = parse_id_map(text)
                .iter()
                .map(|m| (m.inside, m.outside, m.count))
                .collect();
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn hierarchies() {
        let text = "9:name=systemd:/x\n4:cpu,cpuacct:/\n0::/\n";
        let got: Vec<_> = parse_hierarchies(text)
            .into_iter()
            .map(|h| (h.directory, h.options))
            .collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            got,
            [
                pair("systemd", "name=systemd"),
                pair("cpu,cpuacct", "cpu,cpuacct")
            ]
        );
    }

    #[test]
    fn old_kernels() {
        let host = Host {
            kernel: String::new(),
            capabilities: CapSet::EMPTY,
            initial_user_namespace: true,
            uid_map: Vec::new(),
            gid_map: Vec::new(),
            set_groups: true,
            cgroups: Cgroups::None,
        };
        for (kernel, want) in [
            ("6.18.44-fc-v657", true),
            ("5.12.0", true),
            ("5.11.9", false),
            ("4.18.0-1", false),
            ("", false),
        ] {
            let host = Host {
                kernel: kernel.to_owned(),
                ..host.clone()
            };
            assert_eq!(host.kernel_is_new_enough(), want, "{kernel}");
        }
    }
}
