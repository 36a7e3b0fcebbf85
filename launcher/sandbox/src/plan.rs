//! The pure half: a [`Spec`] and the facts of the host become an ordered list of [`Step`]s.
//!
//! The order is the security argument, so it is data that tests look at:
//! control groups before their namespace; mounts with the old root still there (a new procfs in a user namespace is only
//! granted where one can be seen, and sources of binds are paths of the host); the kernel's filesystems on a stage of ours,
//! so that no path of the container is looked at while they are made; masking after the user's mounts; the new
//! root last; then, with the host out of reach, the files of the container are read; the seccomp filter before
//! capabilities go, unless `no_new_privs` lets it come last.

use crate::host::{Cgroups, Host};
use crate::rootfs::clean;
use crate::weaken::{self, Hole};
use crate::{
    CapSet, Capability, CgroupPlacement, Device, DeviceKind, ExecSpec, IdMap, IdMaps, Joined,
    Mount, MountKind, NamespaceKind, Network, PlanError, Propagation, Rlimit, SeccompProgram, Spec,
    WindowSize,
};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whose /dev/shm and /dev/mqueue a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpcFrom {
    /// New ones.
    New,
    /// No /dev/shm at all.
    WithoutShm,
    /// The host's are bound.
    Host,
    /// Those of the container whose IPC namespace was entered.
    Container,
}

/// How device nodes come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// `mknod`.
    Make,
    /// `mknod`, and each node is a mount of its own that lets it be opened: what it lies on does not.
    MakeAndMount,
    /// The host's nodes are bound, since a user namespace may not make any.
    Bind,
}

/// One step of the new process on its way to the command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Makes the cgroup namespace, whose root is the group the process is in by now.
    CgroupNamespace,
    /// Clones the sources of bind mounts that stay shared with the host, which only works before the cut.
    SharedSources(Vec<Mount>),
    /// Cuts the mount namespace off from the host's.
    DetachMounts {
        /// What the user's bind mounts may still receive.
        propagation: Propagation,
    },
    /// Mounts an empty memory filesystem over the root directory, in this mount namespace alone: there the filesystems of
    /// the kernel are put together, before there is a root.
    Stage {
        /// Where the root will be.
        path: PathBuf,
    },
    /// Waits for the root's mount and attaches it, and to it what was put together; paths are resolved in it from here on.
    Root {
        /// Where it is on the host.
        path: PathBuf,
        /// No device node in it can be opened.
        nodev: bool,
    },
    /// Mounts /proc: a new one, else one with processes only, else the host's.
    Proc,
    /// Mounts the memory filesystem on /dev.
    Dev {
        /// No device node made in it can be opened; those of [`Step::Devices`] are mounts of their own.
        nodev: bool,
    },
    /// Makes device nodes below /dev, or elsewhere.
    Devices {
        /// Which.
        devices: Vec<Device>,
        /// How.
        nodes: Nodes,
    },
    /// Makes the usual links in /dev.
    DevLinks,
    /// Mounts a new devpts.
    Pts {
        /// Group of terminals, where it is mapped.
        gid: Option<u32>,
    },
    /// Mounts /dev/shm and /dev/mqueue.
    Ipc {
        /// Size of /dev/shm.
        shm_size_bytes: u64,
        /// Whose they are.
        from: IpcFrom,
    },
    /// Mounts /sys: a new one, or the host's where the network namespace is not the container's to show.
    Sys {
        /// Read-only.
        readonly: bool,
    },
    /// Mounts the control groups.
    Cgroups {
        /// What the host has.
        layout: Cgroups,
        /// Read-only.
        readonly: bool,
    },
    /// A mount of the user.
    Mount(Mount),
    /// Makes a terminal in the container's devpts and hands its master out.
    Terminal {
        /// First size.
        window: Option<WindowSize>,
        /// Binds it to /dev/console.
        console: bool,
    },
    /// Sets the host name.
    Hostname(String),
    /// Sets the domain name.
    Domainname(String),
    /// Brings `lo` up.
    Loopback,
    /// Writes a kernel parameter.
    Sysctl {
        /// Path below /proc/sys.
        path: PathBuf,
        /// Value.
        value: String,
    },
    /// Makes the working directory.
    MakeCwd(PathBuf),
    /// Makes paths read-only.
    ReadonlyPaths(Vec<PathBuf>),
    /// Hides paths.
    MaskedPaths(Vec<PathBuf>),
    /// Makes the root read-only.
    ReadonlyRoot,
    /// Makes the new root `/` and drops the old one.
    Pivot,
    /// Joins a session keyring.
    Keyring(String),
    /// Starts a session, with the terminal as the controlling one.
    Session,
    /// Resolves the user in the container's files.
    Identity {
        /// As given.
        user: String,
        /// As given.
        extra_groups: Vec<String>,
    },
    /// Gives pipes and the terminal to the user, so that /dev/stdout can be opened again.
    Streams,
    /// Sets resource limits.
    Rlimits(Vec<Rlimit>),
    /// Enters the working directory; when root may not, once more as the user.
    EnterCwd(PathBuf),
    /// Installs the filter.
    Seccomp(SeccompProgram),
    /// Cuts the bounding set down.
    BoundingSet(CapSet),
    /// Becomes the user.
    SwitchUser {
        /// Whether the id map allows `setgroups`.
        set_groups: bool,
        /// Whether somebody asked for groups, so that their lack is worth a warning.
        groups_wanted: bool,
    },
    /// Sets permitted and effective capabilities of root; inheritable and ambient are emptied for everybody.
    Capabilities(CapSet),
    /// Sets `no_new_privs`.
    NoNewPrivileges,
    /// Resolves the command as the user, reports, waits for the word, executes.
    Execute {
        /// Command and arguments.
        args: Vec<OsString>,
        /// Environment; `HOME` is added.
        env: Vec<OsString>,
        /// A filter to be installed at the very last moment.
        seccomp: Option<SeccompProgram>,
        /// See [`crate::Spec::init`].
        init: bool,
    },
}

/// The text of both id maps, as the kernel takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdMapText {
    pub(crate) uids: String,
    pub(crate) gids: String,
}

/// An ordered list of steps and everything they need.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) steps: Vec<Step>,
    rootfs: PathBuf,
    /// `CLONE_NEW*` bits for the one clone that makes the process.
    pub(crate) namespaces: u64,
    pub(crate) joined: Vec<Joined>,
    pub(crate) id_map: Option<IdMapText>,
    pub(crate) cgroup: Option<CgroupPlacement>,
    pub(crate) oom_score_adj: Option<i32>,
}

impl Plan {
    /// Makes the plan. Does no I/O.
    ///
    /// # Errors
    /// The spec contradicts itself or asks for what the host lacks.
    pub fn new(spec: &Spec, host: &Host) -> Result<Self, PlanError> {
        check(spec, host)?;
        let mut steps = Vec::with_capacity(40);
        mount_steps(spec, host, &mut steps);
        steps.push(Step::Pivot);
        process_steps(&Launch::of_spec(spec, host), &mut steps);
        Ok(Self {
            steps,
            rootfs: spec.rootfs.clone(),
            namespaces: namespaces(spec),
            joined: spec.joined.clone(),
            id_map: spec
                .user_namespace
                .as_ref()
                .map(|maps| id_map_text(maps, host)),
            cgroup: spec.cgroup.clone(),
            oom_score_adj: spec.oom_score_adj,
        })
    }

    /// Whether the process lives in another container's user namespace.
    pub(crate) fn joins_user(&self) -> bool {
        let mut kinds = self.joined.iter().map(|joined| joined.kind);
        kinds.any(|kind| kind == NamespaceKind::User)
    }

    /// Returns where the container's root is on the host.
    pub(crate) fn rootfs(&self) -> &Path {
        &self.rootfs
    }

    /// Returns the steps in their order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Returns the steps of one more command, to be taken in the namespaces of a container.
pub(crate) fn exec_steps(spec: &ExecSpec, set_groups: bool) -> Result<Vec<Step>, PlanError> {
    check_process(&spec.args, &spec.env, &spec.rlimits)?;
    let mut steps = Vec::new();
    if spec.terminal {
        steps.push(Step::Terminal {
            window: spec.window,
            console: false,
        });
    }
    process_steps(&Launch::of_exec(spec, set_groups), &mut steps);
    Ok(steps)
}

/// What a container's first process and one more command have in common.
struct Launch<'a> {
    args: &'a [OsString],
    env: &'a [OsString],
    cwd: PathBuf,
    user: &'a str,
    extra_groups: &'a [String],
    capabilities: CapSet,
    no_new_privileges: bool,
    rlimits: &'a [Rlimit],
    seccomp: Option<&'a SeccompProgram>,
    session_keyring: Option<&'a str>,
    set_groups: bool,
    init: bool,
}

impl<'a> Launch<'a> {
    fn of_spec(spec: &'a Spec, host: &Host) -> Self {
        Self {
            args: &spec.args,
            env: &spec.env,
            cwd: absolute(&spec.cwd),
            user: &spec.user,
            extra_groups: &spec.extra_groups,
            capabilities: if spec.privileged {
                CapSet::ALL
            } else {
                spec.capabilities
            },
            no_new_privileges: spec.no_new_privileges,
            rlimits: &spec.rlimits,
            seccomp: spec.seccomp.as_ref(),
            session_keyring: spec.session_keyring.as_deref(),
            set_groups: host.set_groups,
            init: spec.init,
        }
    }

    fn of_exec(spec: &'a ExecSpec, set_groups: bool) -> Self {
        Self {
            args: &spec.args,
            env: &spec.env,
            cwd: absolute(&spec.cwd),
            user: &spec.user,
            extra_groups: &spec.extra_groups,
            capabilities: if spec.privileged {
                CapSet::ALL
            } else {
                spec.capabilities
            },
            no_new_privileges: spec.no_new_privileges,
            rlimits: &spec.rlimits,
            seccomp: spec.seccomp.as_ref(),
            session_keyring: spec.session_keyring.as_deref(),
            set_groups,
            init: false,
        }
    }
}

/// Returns `path` cleaned by its text; empty is `/`.
fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(clean(path))
}

fn check(spec: &Spec, host: &Host) -> Result<(), PlanError> {
    if !host.kernel_is_new_enough() {
        return Err(PlanError::Kernel {
            release: host.kernel.clone(),
        });
    }
    check_process(&spec.args, &spec.env, &spec.rlimits)?;
    if !spec.cwd.as_os_str().is_empty() && spec.cwd.is_relative() {
        return Err(PlanError::RelativeCwd {
            path: spec.cwd.clone(),
        });
    }
    must_be_absolute("the root directory", &spec.rootfs)?;
    for mount in &spec.mounts {
        must_be_absolute("the mount target", &mount.target)?;
        if clean(&mount.target).as_os_str().is_empty() {
            return Err(PlanError::MountOnRoot);
        }
        if let MountKind::Bind { source, .. } = &mount.kind {
            must_be_absolute("the mount source", source)?;
        }
    }
    for device in &spec.devices {
        must_be_absolute("the device path", &device.path)?;
    }
    if spec.user_namespace.is_some() && !spec.joined.is_empty() {
        return Err(PlanError::JoinNested);
    }
    // In a user namespace of its own the container has every capability over what is its own.
    if spec.user_namespace.is_none() && !spec.joins(NamespaceKind::User) {
        let needed: CapSet = [Capability::SYS_ADMIN].into_iter().collect();
        let missing = spec
            .required_capabilities
            .union(needed)
            .difference(host.capabilities);
        if let Some(capability) = missing.iter().next() {
            return Err(PlanError::Capability {
                name: capability.name(),
            });
        }
    }
    for (name, _) in &spec.sysctls {
        check_sysctl(name, spec)?;
    }
    /// `__NEW_UTS_LEN` of linux/utsname.h.
    const MAX_HOSTNAME_BYTES: usize = 64;
    for name in [&spec.hostname, &spec.domainname].into_iter().flatten() {
        if name.len() > MAX_HOSTNAME_BYTES {
            return Err(PlanError::Hostname { name: name.clone() });
        }
    }
    Ok(())
}

fn check_process(args: &[OsString], env: &[OsString], rlimits: &[Rlimit]) -> Result<(), PlanError> {
    if args.is_empty() {
        return Err(PlanError::NoCommand);
    }
    for (what, texts) in [("an argument", args), ("an environment variable", env)] {
        if texts.iter().any(|text| text.as_bytes().contains(&0)) {
            return Err(PlanError::Nul {
                what: what.to_owned(),
            });
        }
    }
    match rlimits.iter().find(|limit| resource(&limit.name).is_none()) {
        Some(unknown) => Err(PlanError::Rlimit {
            name: unknown.name.clone(),
        }),
        None => Ok(()),
    }
}

fn must_be_absolute(what: &str, path: &Path) -> Result<(), PlanError> {
    if path.is_absolute() {
        Ok(())
    } else {
        Err(PlanError::Relative {
            what: what.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// Kernel parameters of the IPC namespace (ipc_namespaces(7)), as docker's client lists them.
pub const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

fn check_sysctl(name: &str, spec: &Spec) -> Result<(), PlanError> {
    let plain = !name.contains(['/', '\0']) && !name.split('.').any(str::is_empty);
    let is_ipc = IPC_SYSCTLS.contains(&name) || name.starts_with("fs.mqueue.");
    let allowed = (name.starts_with("net.") && spec.network == Network::None)
        || (is_ipc && !spec.shared.ipc && !spec.joins(NamespaceKind::Ipc));
    if plain && allowed {
        Ok(())
    } else {
        Err(PlanError::Sysctl {
            name: name.to_owned(),
        })
    }
}

/// Returns the limit docker's name stands for.
pub(crate) fn resource(name: &str) -> Option<rustix::process::Resource> {
    use rustix::process::Resource;
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

fn namespaces(spec: &Spec) -> u64 {
    let wanted = [
        (true, libc::CLONE_NEWNS),
        (true, libc::CLONE_NEWTIME),
        (
            !spec.shared.pid
                && !spec.joins(NamespaceKind::Pid)
                && !weaken::is_open(Hole::PidNamespace),
            libc::CLONE_NEWPID,
        ),
        (
            !spec.shared.ipc && !spec.joins(NamespaceKind::Ipc),
            libc::CLONE_NEWIPC,
        ),
        (!spec.shared.uts, libc::CLONE_NEWUTS),
        (spec.network == Network::None, libc::CLONE_NEWNET),
        (spec.user_namespace.is_some(), libc::CLONE_NEWUSER),
    ];
    let bits = wanted
        .iter()
        .filter(|(is_wanted, _)| *is_wanted)
        .fold(0, |bits, (_, bit)| bits | bit);
    u64::from(bits.cast_unsigned())
}

fn id_map_text(maps: &IdMaps, host: &Host) -> IdMapText {
    let identity = |ranges: &[IdMap]| -> Vec<IdMap> {
        ranges
            .iter()
            .map(|range| IdMap {
                outside: range.inside,
                ..*range
            })
            .collect()
    };
    let text = |ranges: &[IdMap]| -> String {
        ranges
            .iter()
            .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
            .collect()
    };
    match maps {
        IdMaps::Identity => IdMapText {
            uids: text(&identity(&host.uid_map)),
            gids: text(&identity(&host.gid_map)),
        },
        IdMaps::Ranges { uids, gids } => IdMapText {
            uids: text(uids),
            gids: text(gids),
        },
    }
}

/// Group `tty` of every distribution docker cares for.
const TTY_GID: u32 = 5;

fn tty_gid(spec: &Spec, host: &Host) -> Option<u32> {
    let gids = match &spec.user_namespace {
        Some(IdMaps::Ranges { gids, .. }) => gids,
        Some(IdMaps::Identity) | None => &host.gid_map,
    };
    gids.iter()
        .any(|range| (range.inside..range.inside.saturating_add(range.count)).contains(&TTY_GID))
        .then_some(TTY_GID)
}

/// The character devices every container has.
const USUAL_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Whether these are the numbers of a device every container has.
pub(crate) fn is_usual_device(major: u32, minor: u32) -> bool {
    let known = |device: &(&str, u32, u32)| (device.1, device.2) == (major, minor);
    USUAL_DEVICES.iter().any(known)
}

/// Whether device nodes of the container's own making are useless: by default its root may make them (`CAP_MKNOD`), and
/// nothing else stands between them and the disks of the host.
fn nodev(spec: &Spec) -> bool {
    !spec.privileged && !weaken::is_open(Hole::Devices)
}

fn usual_devices() -> impl Iterator<Item = Device> {
    USUAL_DEVICES.iter().map(|&(path, major, minor)| Device {
        path: path.into(),
        host_path: path.into(),
        kind: DeviceKind::Char,
        major,
        minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    })
}

fn mount_steps(spec: &Spec, host: &Host, steps: &mut Vec<Step>) {
    if !spec.shared.cgroup {
        steps.push(Step::CgroupNamespace);
    }
    let receives = |mount: &Mount| {
        matches!(
            mount.kind,
            MountKind::Bind {
                propagation: Propagation::Slave,
                ..
            }
        )
    };
    let propagation = if spec.mounts.iter().any(receives) {
        Propagation::Slave
    } else {
        Propagation::Private
    };
    let is_shared = |mount: &&Mount| {
        matches!(
            mount.kind,
            MountKind::Bind {
                propagation: Propagation::Shared,
                ..
            }
        )
    };
    let shared: Vec<Mount> = spec.mounts.iter().filter(is_shared).cloned().collect();
    if !shared.is_empty() {
        steps.push(Step::SharedSources(shared));
    }
    steps.push(Step::DetachMounts { propagation });
    let (in_dev, elsewhere) = devices(spec);
    let nodes = nodes(spec, host);
    kernel_filesystems(spec, host, in_dev, steps);
    steps.push(Step::Root {
        path: spec.rootfs.clone(),
        nodev: nodev(spec),
    });
    if !elsewhere.is_empty() {
        steps.push(Step::Devices {
            devices: elsewhere,
            nodes,
        });
    }
    steps.extend(spec.mounts.iter().cloned().map(|mut mount| {
        mount.options.nodev |= nodev(spec);
        Step::Mount(mount)
    }));
    if spec.terminal {
        steps.push(Step::Terminal {
            window: spec.window,
            console: true,
        });
    }
    namespace_settings(spec, steps);
    let cwd = absolute(&spec.cwd);
    if cwd != Path::new("/") {
        steps.push(Step::MakeCwd(cwd));
    }
    if !spec.privileged {
        if !spec.readonly_paths.is_empty() && !weaken::is_open(Hole::ReadonlyPaths) {
            steps.push(Step::ReadonlyPaths(spec.readonly_paths.clone()));
        }
        if !spec.masked_paths.is_empty() && !weaken::is_open(Hole::Masks) {
            steps.push(Step::MaskedPaths(spec.masked_paths.clone()));
        }
    }
    if spec.readonly_rootfs {
        steps.push(Step::ReadonlyRoot);
    }
}

/// The devices below /dev, and those elsewhere.
fn devices(spec: &Spec) -> (Vec<Device>, Vec<Device>) {
    let is_in_dev = |device: &Device| clean(&device.path).starts_with("dev");
    usual_devices()
        .chain(spec.devices.clone())
        .partition(is_in_dev)
}

fn nodes(spec: &Spec, host: &Host) -> Nodes {
    let may_make_nodes = spec.user_namespace.is_none()
        && host.initial_user_namespace
        && host.capabilities.contains(Capability::MKNOD);
    match (may_make_nodes, nodev(spec)) {
        (true, false) => Nodes::Make,
        (true, true) => Nodes::MakeAndMount,
        (false, _) => Nodes::Bind,
    }
}

/// /proc, /dev and /sys with everything below.
fn kernel_filesystems(spec: &Spec, host: &Host, devices: Vec<Device>, steps: &mut Vec<Step>) {
    let readonly = !spec.privileged;
    steps.extend([
        Step::Stage {
            path: spec.rootfs.clone(),
        },
        Step::Proc,
        Step::Dev { nodev: nodev(spec) },
        Step::Devices {
            devices,
            nodes: nodes(spec, host),
        },
        Step::DevLinks,
        Step::Pts {
            gid: tty_gid(spec, host),
        },
        Step::Ipc {
            shm_size_bytes: spec.shm_size_bytes,
            from: if spec.shared.ipc {
                IpcFrom::Host
            } else if spec.joins(NamespaceKind::Ipc) {
                IpcFrom::Container
            } else if spec.without_shm {
                IpcFrom::WithoutShm
            } else {
                IpcFrom::New
            },
        },
        Step::Sys { readonly },
        Step::Cgroups {
            layout: host.cgroups.clone(),
            readonly: readonly && !weaken::is_open(Hole::Cgroups),
        },
    ]);
}

/// What is set in the new namespaces; nothing in those of the host.
fn namespace_settings(spec: &Spec, steps: &mut Vec<Step>) {
    if !spec.shared.uts {
        steps.extend(spec.hostname.clone().map(Step::Hostname));
        steps.extend(spec.domainname.clone().map(Step::Domainname));
    }
    if spec.network == Network::None {
        steps.push(Step::Loopback);
    }
    steps.extend(spec.sysctls.iter().map(|(name, value)| Step::Sysctl {
        path: name.split('.').collect(),
        value: value.clone(),
    }));
}

fn process_steps(launch: &Launch<'_>, steps: &mut Vec<Step>) {
    steps.extend(
        launch
            .session_keyring
            .map(|name| Step::Keyring(name.to_owned())),
    );
    steps.push(Step::Session);
    steps.push(Step::Identity {
        user: launch.user.to_owned(),
        extra_groups: launch.extra_groups.to_vec(),
    });
    steps.push(Step::Streams);
    if !launch.rlimits.is_empty() {
        steps.push(Step::Rlimits(launch.rlimits.to_vec()));
    }
    steps.push(Step::EnterCwd(launch.cwd.clone()));
    let no_new_privileges = launch.no_new_privileges && !weaken::is_open(Hole::NoNewPrivileges);
    // Without no_new_privs a filter needs CAP_SYS_ADMIN, which is about to go.
    let (early, late) = match (launch.seccomp, no_new_privileges) {
        (Some(filter), false) => (Some(filter), None),
        (filter, _) => (None, filter),
    };
    let filtered = !weaken::is_open(Hole::Seccomp);
    steps.extend(early.cloned().filter(|_| filtered).map(Step::Seccomp));
    steps.push(Step::BoundingSet(if weaken::is_open(Hole::BoundingSet) {
        CapSet::ALL
    } else {
        launch.capabilities
    }));
    steps.push(Step::SwitchUser {
        set_groups: launch.set_groups,
        groups_wanted: !launch.extra_groups.is_empty(),
    });
    steps.push(Step::Capabilities(launch.capabilities));
    if no_new_privileges {
        steps.push(Step::NoNewPrivileges);
    }
    steps.push(Step::Execute {
        args: launch.args.to_vec(),
        env: launch.env.to_vec(),
        seccomp: late.cloned(),
        init: launch.init,
    });
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
