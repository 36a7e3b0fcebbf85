//! Protections that can be left out, to show that the escape suite (`tests/escape`) notices when one is missing.
//!
//! Only a build with the feature `weaken` looks; in every other [`is_open`] is the constant `false` and nothing of this
//! is left in the program.

/// A protection that a weakened build leaves out when the environment variable `MILLE_WEAKEN` has its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hole {
    /// Container processes run from the launcher's own file rather than from a sealed one.
    Seal,
    /// Commands may be links of procfs.
    MagicLinks,
    /// Mount points of the kernel's filesystems may be links, and nothing hides those of an image.
    ProcLink,
    /// Volumes may lie on /proc.
    ProcVolume,
    /// Paths of the container are resolved against the host's root.
    RootScope,
    /// What is permitted is inheritable too.
    Inheritable,
    /// Descriptors of the launcher, from 20 on, stay open.
    Descriptors,
    /// The working directory is entered by its name.
    Cwd,
    /// Files are hidden by what the container calls its null device.
    MaskSource,
    /// Nothing is hidden.
    Masks,
    /// Nothing of /proc is read-only.
    ReadonlyPaths,
    /// Control groups are writable.
    Cgroups,
    /// A process that joins may be looked into.
    Tracing,
    /// A user that cannot be understood is root.
    User,
    /// The launcher's groups are kept.
    Groups,
    /// The container's passwd may be anything.
    AccountFile,
    /// Entries without a value in an image's environment take the host's.
    ImageEnv,
    /// No filter of system calls.
    Seccomp,
    /// Unknown security options are passed over.
    SecurityOption,
    /// A mount that fails is passed over.
    MountErrors,
    /// The container sees the host's processes.
    PidNamespace,
    /// Device nodes work on every filesystem.
    Devices,
    /// `no_new_privs` is not set.
    NoNewPrivileges,
    /// The bounding set stays whole.
    BoundingSet,
    /// The container stays in the launcher's session.
    Session,
    /// Other users of the host can enter the store.
    StoreMode,
}

/// Whether `hole` is open.
#[cfg(feature = "weaken")]
pub fn is_open(hole: Hole) -> bool {
    std::env::var("MILLE_WEAKEN").is_ok_and(|name| name == format!("{hole:?}"))
}

/// Whether `hole` is open: never.
#[cfg(not(feature = "weaken"))]
pub const fn is_open(_hole: Hole) -> bool {
    false
}
