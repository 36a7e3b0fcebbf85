//! What a container is to the kernel: a [`Spec`] becomes an ordered [`Plan`] becomes processes.
//!
//! This crate owns namespaces, id maps, the mounts a container sees, the user it runs as, its capabilities, its
//! terminal and its standard streams. It knows no layer and no image: the root is a directory that is already there.
//!
//! * [`Plan::new`] is pure: from a [`Spec`] and the facts of a [`host::Host`] it makes an ordered list of [`Step`]s.
//! * [`prepare`] forks the processes, walks the steps and resolves the command; whatever is wrong is reported here, in
//!   the words scripts know. [`Prepared::start`] lets the command run. [`begin`] is its first half, for a root that is
//!   still being mounted.
//! * [`exec`] runs one more command in a container that runs already.
//! * [`outer`] brings an ordinary user's process into the user namespace in which everything else happens.
//! * [`host`] finds out what this machine allows.
//!
//! Invariant: no path of the container is ever resolved against the host's root. Everything inside the root is reached
//! from a descriptor of the root with `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, mounted by descriptor, and there
//! is no fallback from a descriptor to a path string.
//!
//! Invariant: between `fork` and `execve` the child takes no lock that another thread of its parent may hold. It
//! allocates (glibc's `fork` keeps `malloc` usable in the child) but it neither logs, nor touches the environment of the
//! process, nor prints.
//!
//! Kernel: 5.12 or newer (`mount_setattr`); `host::Host::probe` says so where it is older.

mod account;
mod capability;
mod child;
mod error;
mod guard;
pub mod host;
mod init;
mod message;
pub mod outer;
mod plan;
mod rootfs;
mod seal;
pub mod seccomp;
mod spawn;
mod spec;
mod subid;
mod sys;
mod user;
pub mod weaken;

pub use account::{Account, account};
pub use capability::{CapSet, Capability, UnknownCapability};
pub use child::{Begun, Child, ExitStatus, Prepared};
pub use error::{Failure, Outcome, PlanError, SpawnError, Verb, Warning};
pub use plan::{IPC_SYSCTLS, IpcFrom, Nodes, Plan, Step};
pub use seal::run_sealed;
pub use spawn::{begin, exec, prepare, prepare_exec, spawn};
pub use spec::{
    BpfInstruction, CgroupPlacement, Device, DeviceKind, ExecSpec, IdMap, IdMaps, Joined, Mount,
    MountKind, MountOptions, NamespaceKind, Network, Propagation, Rlimit, SeccompProgram,
    SharedNamespaces, Spec, Stdio, WindowSize, default_masked_paths, default_readonly_paths,
};
pub use user::ids_of;
