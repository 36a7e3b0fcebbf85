//! What is asked for: the whole of a container, or of one more command in it, as plain data.

use crate::CapSet;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A container to be made.
///
/// [`Spec::new`] fills in what docker does by default; the caller changes what was asked otherwise.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The directory that becomes `/`: a mount or a plain directory that exists when [`crate::prepare`] is called.
    pub rootfs: PathBuf,
    /// Makes the root read-only once everything is mounted in it.
    pub readonly_rootfs: bool,
    /// Command and arguments; never empty.
    pub args: Vec<OsString>,
    /// The environment, in order. `HOME` is added last from the container's passwd file when it is not there (or empty).
    pub env: Vec<OsString>,
    /// The working directory; empty means `/`. Made (root:root 0755) where it is missing.
    pub cwd: PathBuf,
    /// `""`, `name`, `uid`, `user:group`, `:group`, resolved in the container's own passwd and group files.
    pub user: String,
    /// Groups to add, names or numbers.
    pub extra_groups: Vec<String>,
    /// The host name in the container's own UTS namespace.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// Gives the command a terminal made in the container; see [`crate::Prepared::take_pty`].
    pub terminal: bool,
    /// First size of the terminal.
    pub window: Option<WindowSize>,
    /// Runs the container in its own user namespace with these maps; `None`: in the caller's.
    pub user_namespace: Option<IdMaps>,
    /// Network namespace.
    pub network: Network,
    /// Namespaces shared with the caller; all others are new.
    pub shared: SharedNamespaces,
    /// Namespaces of other containers that are entered instead of making new ones. One container's root has no rights over
    /// what another's user namespace owns, so that where containers have such namespaces theirs is joined as well, and
    /// [`Spec::user_namespace`] is `None`.
    pub joined: Vec<Joined>,
    /// Mounts of the user, in order, over what every container has.
    pub mounts: Vec<Mount>,
    /// Devices beside the usual ones.
    pub devices: Vec<Device>,
    /// Files hidden by the null device, directories by an empty one. Missing ones are skipped.
    pub masked_paths: Vec<PathBuf>,
    /// Paths made read-only. Missing ones are skipped.
    pub readonly_paths: Vec<PathBuf>,
    /// Bounding, permitted and effective set of root; what the host lacks is left out silently.
    pub capabilities: CapSet,
    /// Capabilities somebody asked for by name: lacking one of them is an error.
    pub required_capabilities: CapSet,
    /// Sets `no_new_privs`.
    pub no_new_privileges: bool,
    /// All capabilities, nothing masked or read-only, writable /sys and cgroups.
    pub privileged: bool,
    /// Resource limits; a hard limit that may not be raised is clamped with a [`crate::Warning`].
    pub rlimits: Vec<Rlimit>,
    /// Kernel parameters of the container's own namespaces, `net.ipv4.x` form.
    pub sysctls: Vec<(String, String)>,
    /// A compiled filter.
    pub seccomp: Option<SeccompProgram>,
    /// Control groups to be put into before anything else.
    pub cgroup: Option<CgroupPlacement>,
    /// How likely the kernel is to kill it for memory, -1000 to 1000; `None` keeps the caller's.
    pub oom_score_adj: Option<i32>,
    /// Size of /dev/shm in bytes.
    pub shm_size_bytes: u64,
    /// There is no /dev/shm, although the IPC namespace is the container's own.
    pub without_shm: bool,
    /// Name of the session keyring to join; `None` keeps the caller's keyring.
    pub session_keyring: Option<String>,
    /// The container's first process is a reaper that passes signals on; the command is its child.
    pub init: bool,
}

impl Spec {
    /// Whether a namespace of this kind is another container's.
    pub(crate) fn joins(&self, kind: NamespaceKind) -> bool {
        self.joined.iter().any(|joined| joined.kind == kind)
    }
}

/// Docker's size of /dev/shm.
const SHM_SIZE_BYTES: u64 = 64 << 20;

impl Spec {
    /// Returns docker's defaults for `args` on `rootfs`.
    pub fn new(rootfs: impl Into<PathBuf>, args: Vec<OsString>) -> Self {
        Self {
            rootfs: rootfs.into(),
            readonly_rootfs: false,
            args,
            env: Vec::new(),
            cwd: PathBuf::new(),
            user: String::new(),
            extra_groups: Vec::new(),
            hostname: None,
            domainname: None,
            terminal: false,
            window: None,
            user_namespace: None,
            network: Network::Host,
            shared: SharedNamespaces::default(),
            joined: Vec::new(),
            mounts: Vec::new(),
            devices: Vec::new(),
            masked_paths: default_masked_paths(),
            readonly_paths: default_readonly_paths(),
            capabilities: CapSet::DEFAULT,
            required_capabilities: CapSet::EMPTY,
            no_new_privileges: false,
            privileged: false,
            rlimits: Vec::new(),
            sysctls: Vec::new(),
            seccomp: None,
            cgroup: None,
            oom_score_adj: None,
            shm_size_bytes: SHM_SIZE_BYTES,
            without_shm: false,
            session_keyring: Some("_ses.mille".to_owned()),
            init: false,
        }
    }
}

/// One more command in a container that runs.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    /// Command and arguments; never empty.
    pub args: Vec<OsString>,
    /// The environment; see [`Spec::env`].
    pub env: Vec<OsString>,
    /// The working directory; empty means `/`. It must exist.
    pub cwd: PathBuf,
    /// See [`Spec::user`].
    pub user: String,
    /// See [`Spec::extra_groups`].
    pub extra_groups: Vec<String>,
    /// See [`Spec::terminal`].
    pub terminal: bool,
    /// See [`Spec::window`].
    pub window: Option<WindowSize>,
    /// See [`Spec::capabilities`]; [`CapSet::EMPTY`] gives none.
    pub capabilities: CapSet,
    /// All capabilities the host has.
    pub privileged: bool,
    /// Sets `no_new_privs`.
    pub no_new_privileges: bool,
    /// See [`Spec::rlimits`].
    pub rlimits: Vec<Rlimit>,
    /// See [`Spec::seccomp`].
    pub seccomp: Option<SeccompProgram>,
    /// The container's control groups.
    pub cgroup: Option<CgroupPlacement>,
    /// See [`Spec::session_keyring`].
    pub session_keyring: Option<String>,
}

impl ExecSpec {
    /// Returns docker's defaults for `args`.
    pub fn new(args: Vec<OsString>) -> Self {
        Self {
            args,
            capabilities: CapSet::DEFAULT,
            session_keyring: Some("_ses.mille".to_owned()),
            ..Self::default()
        }
    }
}

/// Rows and columns of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}

/// The three streams of a command without a terminal. `None` is the null device.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: Option<OwnedFd>,
    /// Descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Descriptor 2.
    pub stderr: Option<OwnedFd>,
}

/// A range of ids: `count` ids from `inside` on are `outside` and following ones in the parent namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// First id in the new namespace.
    pub inside: u32,
    /// First id in the namespace of the writer.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdMaps {
    /// Every id of the caller's namespace is itself: the way a container is nested in an ordinary user's namespace.
    Identity,
    /// These ranges.
    Ranges {
        /// User ids.
        uids: Vec<IdMap>,
        /// Group ids.
        gids: Vec<IdMap>,
    },
}

/// The network namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The caller's.
    #[default]
    Host,
    /// A new one with nothing but `lo`, which is up.
    None,
}

/// Namespaces that are not made new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharedNamespaces {
    /// Process ids.
    pub pid: bool,
    /// System V IPC, message queues and /dev/shm.
    pub ipc: bool,
    /// Host and domain name.
    pub uts: bool,
    /// Control groups.
    pub cgroup: bool,
}

/// A kind of namespace that a container may have in common with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceKind {
    /// Users, and with them the rights over the others.
    User,
    /// Process ids.
    Pid,
    /// System V IPC, message queues, and /dev/shm with them.
    Ipc,
    /// Network.
    Network,
}

/// A namespace of another container.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Which.
    pub kind: NamespaceKind,
    /// A pidfd of a process that has it.
    pub process: Arc<OwnedFd>,
}

/// A mount of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where, as an absolute path of the container; resolved within its root and made where it is missing.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
    /// How.
    pub options: MountOptions,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the caller's mount namespace.
    Bind {
        /// An absolute path; final links are followed.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
        /// Whether mounts made on the host later show up.
        propagation: Propagation,
    },
    /// An empty memory filesystem.
    Tmpfs {
        /// Upper limit in bytes; `None`: the kernel's default.
        size_bytes: Option<u64>,
        /// Mode of its root; `None`: that of the directory it covers, 1777 where that is missing.
        mode: Option<u32>,
        /// Further options (`nr_inodes=…`, `uid=…`), in the kernel's form.
        data: Vec<String>,
    },
}

/// Propagation of a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// From the host into the container.
    Slave,
    /// Both ways. The source has to be on a shared mount.
    Shared,
}

/// Flags of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// `ro`; recursive for a recursive bind.
    pub readonly: bool,
    /// `nosuid`.
    pub nosuid: bool,
    /// `nodev`.
    pub nodev: bool,
    /// `noexec`.
    pub noexec: bool,
}

/// Kind of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// A device node of the container. In a user namespace, where nodes cannot be made, the host's node is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where in the container.
    pub path: PathBuf,
    /// Where on the host.
    pub host_path: PathBuf,
    /// Kind.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A resource limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// Docker's name: `nofile`, `nproc`, `core`, …
    pub name: String,
    /// `None` is unlimited.
    pub soft: Option<u64>,
    /// `None` is unlimited.
    pub hard: Option<u64>,
}

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jump_true: u8,
    /// Jump if false.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// A seccomp filter, ready for the kernel. At most 4096 instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeccompProgram {
    /// The program.
    pub instructions: Vec<BpfInstruction>,
    /// Flags of `seccomp(2)`.
    pub flags: u32,
}

/// The control groups of a container: made by the caller, joined here before the cgroup namespace is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CgroupPlacement {
    /// One `cgroup.procs` file per hierarchy.
    pub procs_files: Vec<PathBuf>,
}

/// Returns docker's masked paths that concern this machine (the throttle counters of its processors included).
pub fn default_masked_paths() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    for cpu in 0.. {
        let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
        if !Path::new(&path).exists() {
            break;
        }
        paths.push(path);
    }
    paths
}

/// Returns docker's read-only paths.
pub fn default_readonly_paths() -> Vec<PathBuf> {
    [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ]
    .iter()
    .map(PathBuf::from)
    .collect()
}
