//! Capabilities by name and as sets.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Names in the kernel's order: the index is the capability's number (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// One capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Permits writing to the kernel's audit log.
    pub const AUDIT_WRITE: Self = Self(29);
    /// Permits changing the owner of files.
    pub const CHOWN: Self = Self(0);
    /// Permits ignoring file permissions.
    pub const DAC_OVERRIDE: Self = Self(1);
    /// Permits what the owner of a file may do.
    pub const FOWNER: Self = Self(3);
    /// Keeps set-id bits when a file changes.
    pub const FSETID: Self = Self(4);
    /// Permits signals to any process.
    pub const KILL: Self = Self(5);
    /// Permits making device nodes.
    pub const MKNOD: Self = Self(27);
    /// Permits binding to ports below 1024.
    pub const NET_BIND_SERVICE: Self = Self(10);
    /// Permits raw sockets.
    pub const NET_RAW: Self = Self(13);
    /// Permits file capabilities.
    pub const SETFCAP: Self = Self(31);
    /// Permits changing group ids.
    pub const SETGID: Self = Self(6);
    /// Permits changing capability sets.
    pub const SETPCAP: Self = Self(8);
    /// Permits changing user ids.
    pub const SETUID: Self = Self(7);
    /// Permits mounts, namespaces and much else.
    pub const SYS_ADMIN: Self = Self(21);
    /// Permits `chroot`.
    pub const SYS_CHROOT: Self = Self(18);
    /// Permits raising hard resource limits.
    pub const SYS_RESOURCE: Self = Self(24);

    /// Returns the kernel's number of this capability.
    pub fn number(self) -> u8 {
        self.0
    }

    /// Returns the name with its `CAP_` prefix.
    pub fn name(self) -> String {
        match NAMES.get(usize::from(self.0)) {
            Some(name) => format!("CAP_{name}"),
            None => format!("CAP_{}", self.0),
        }
    }

    /// Returns the capability of a name, with or without `CAP_`, in any case.
    ///
    /// # Errors
    /// The name is not one of the kernel's.
    pub fn from_name(name: &str) -> Result<Self, UnknownCapability> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES
            .iter()
            .position(|known| *known == bare)
            .and_then(|index| u8::try_from(index).ok())
            .map(Self)
            .ok_or_else(|| UnknownCapability {
                name: name.to_owned(),
            })
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// A name that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid capability: {name:?}")]
pub struct UnknownCapability {
    /// The name as it was given.
    pub name: String,
}

/// A set of capabilities, one bit each, in the kernel's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapSet(u64);

impl CapSet {
    /// Every capability this crate knows.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    /// The fourteen capabilities docker gives: `00000000a80425fb`.
    pub const DEFAULT: Self = Self(0xa804_25fb);
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// Makes a set of the kernel's bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the kernel's bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether `capability` is in the set.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability.0) != 0
    }

    /// Adds `capability`.
    pub fn insert(&mut self, capability: Capability) {
        self.0 |= 1 << capability.0;
    }

    /// Takes `capability` out.
    pub fn remove(&mut self, capability: Capability) {
        self.0 &= !(1 << capability.0);
    }

    /// Returns what is in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns what is in `self` and not in `other`.
    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns what is in either set.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the members, lowest number first.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        (0..64)
            .map(Capability)
            .filter(move |capability| self.contains(*capability))
    }
}

impl FromIterator<Capability> for CapSet {
    fn from_iter<I: IntoIterator<Item = Capability>>(iter: I) -> Self {
        let mut set = Self::EMPTY;
        for capability in iter {
            set.insert(capability);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_set_is_dockers_fourteen() {
        let want = [
            "CHOWN",
            "DAC_OVERRIDE",
            "FSETID",
            "FOWNER",
            "MKNOD",
            "NET_RAW",
            "SETGID",
            "SETUID",
            "SETFCAP",
            "SETPCAP",
            "NET_BIND_SERVICE",
            "SYS_CHROOT",
            "KILL",
            "AUDIT_WRITE",
        ];
        let set: CapSet = want
            .iter()
            .map(|name| Capability::from_name(name).unwrap())
            .collect();
        assert_eq!(set, CapSet::DEFAULT);
        assert_eq!(set.iter().count(), 14);
    }

    #[test]
    fn names() {
        for (given, want) in [
            ("CAP_SYS_ADMIN", Some("CAP_SYS_ADMIN")),
            ("sys_admin", Some("CAP_SYS_ADMIN")),
            ("cap_Net_Raw", Some("CAP_NET_RAW")),
            ("CHECKPOINT_RESTORE", Some("CAP_CHECKPOINT_RESTORE")),
            ("CAP_CAP_CHOWN", None),
            ("", None),
            ("ALL", None),
        ] {
            assert_eq!(
                Capability::from_name(given)
                    .ok()
                    .map(Capability::name)
                    .as_deref(),
                want,
                "{given}"
            );
        }
    }

    #[test]
    fn all_is_forty_one_bits() {
        assert_eq!(CapSet::ALL.bits(), 0x1ff_ffff_ffff);
        assert!(CapSet::DEFAULT.difference(CapSet::ALL).is_empty());
    }
}
