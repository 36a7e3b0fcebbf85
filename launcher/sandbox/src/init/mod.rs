//! The new process: it takes the steps of a plan one by one and ends by becoming the command.
//!
//! It runs after `fork` in a copy of a process that had other threads: no logging, no environment, no printing.

mod command;
mod device;
mod identity;
mod mounts;
mod reaper;
mod terminal;

use crate::message::{Channel, Message};
use crate::plan::Step;
use crate::rootfs::Rootfs;
use crate::sys;
use crate::user::Identity;
use crate::weaken::{self, Hole};
use crate::{Failure, Warning};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Whether the process asks before it executes its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// It waits for [`Message::Start`].
    Held,
    /// It goes on at once.
    AtOnce,
}

/// What dies with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// The process dies with the thread that forked it.
    ToParent,
    /// It lives on.
    None,
}

/// The state that steps hand on to later ones.
#[derive(Debug)]
pub(crate) struct Executor {
    channel: Channel,
    start: Start,
    tie: Tie,
    /// The container's root, from [`Step::Root`] on; before, the stage.
    root: Option<Rootfs>,
    /// Sources of bind mounts that stay shared, by their targets.
    shared: Vec<(PathBuf, OwnedFd)>,
    /// The root of the filesystem on /dev, as the working directory of the steps that fill it.
    dev: Option<OwnedFd>,
    /// Another container's /dev/shm.
    shm: Option<OwnedFd>,
    /// The side of the terminal that becomes the streams.
    tty: Option<OwnedFd>,
    identity: Identity,
    /// A working directory root may not enter.
    pending_cwd: Option<PathBuf>,
}

/// Attaches what was being done to an error of the system.
trait Context<T> {
    fn during(self, operation: &str) -> Result<T, Failure>;
    fn during_at(self, operation: &str, path: &Path) -> Result<T, Failure>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn during(self, operation: &str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::system(operation, None, errno))
    }

    fn during_at(self, operation: &str, path: &Path) -> Result<T, Failure> {
        self.map_err(|errno| Failure::system(operation, Some(path.to_owned()), errno))
    }
}

/// Sends the reason and ends the process.
pub(crate) fn fail(channel: &Channel, failure: Failure) -> ! {
    // The launcher sees the end of file if this cannot be sent, so the result changes nothing.
    ignore_lost_launcher(channel.send(&Message::Failed(failure), None));
    sys::exit_now(1)
}

/// A launcher that has gone cannot be told anything, and nothing is left to be done about it.
pub(crate) fn ignore_lost_launcher(result: Result<(), Errno>) {
    match result {
        Ok(()) | Err(_) => {}
    }
}

impl Executor {
    /// Makes the executor of a process that has the mount namespace's root for a root (one more command).
    pub(crate) fn in_container(channel: Channel, start: Start) -> Self {
        Self::new(channel, start, Tie::None)
    }

    /// Makes the executor of a process that still has the host's root.
    pub(crate) fn new(channel: Channel, start: Start, tie: Tie) -> Self {
        let identity = Identity {
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: OsString::from("/"),
        };
        Self {
            channel,
            start,
            tie,
            root: None,
            shared: Vec::new(),
            dev: None,
            shm: None,
            tty: None,
            identity,
            pending_cwd: None,
        }
    }

    /// Gives it another container's /dev/shm.
    pub(crate) fn with_shm(self, shm: Option<OwnedFd>) -> Self {
        Self { shm, ..self }
    }

    /// Takes the steps. Returns only in the sense that the process is gone.
    pub(crate) fn run(mut self, steps: &[Step]) -> ! {
        rustix::process::umask(Mode::empty());
        for step in steps {
            if let Err(failure) = self.take(step) {
                fail(&self.channel, failure);
            }
        }
        // A plan ends with Execute, which does not come back.
        sys::exit_now(1)
    }

    fn take(&mut self, step: &Step) -> Result<(), Failure> {
        match step {
            Step::CgroupNamespace => sys::unshare(rustix::thread::UnshareFlags::NEWCGROUP)
                .during("make a cgroup namespace"),
            Step::SharedSources(mounts) => self.clone_shared(mounts),
            Step::DetachMounts { propagation } => mounts::detach(*propagation),
            Step::Stage { path } => self.make_stage(path),
            Step::Root { path, nodev } => self.attach_root(path, *nodev),
            Step::Proc => self.mount_proc(),
            Step::Dev { nodev } => self.mount_dev(*nodev),
            Step::Devices { devices, nodes } => self.make_devices(devices, *nodes),
            Step::DevLinks => self.make_dev_links(),
            Step::Pts { gid } => self.mount_pts(*gid),
            Step::Ipc {
                shm_size_bytes,
                from,
            } => self.mount_ipc(*shm_size_bytes, *from),
            Step::Sys { readonly } => self.mount_sys(*readonly),
            Step::Cgroups { layout, readonly } => self.mount_cgroups(layout, *readonly),
            Step::Mount(mount) => self.mount_for_user(mount),
            Step::Terminal { window, console } => self.make_terminal(*window, *console),
            Step::Hostname(name) => {
                rustix::system::sethostname(name.as_bytes()).during("set the hostname")
            }
            Step::Domainname(name) => {
                rustix::system::setdomainname(name.as_bytes()).during("set the domain name")
            }
            Step::Loopback => sys::bring_loopback_up().during("bring lo up"),
            Step::Sysctl { path, value } => self.write_sysctl(path, value),
            Step::MakeCwd(path) => self.make_cwd(path),
            Step::ReadonlyPaths(paths) => self.make_readonly(paths),
            Step::MaskedPaths(paths) => self.mask(paths),
            Step::ReadonlyRoot => self.make_root_readonly(),
            Step::Pivot => self.pivot(),
            Step::Keyring(name) => self.join_keyring(name),
            Step::Session => self.start_session(),
            Step::Identity { user, extra_groups } => self.resolve_identity(user, extra_groups),
            Step::Streams => self.give_streams(),
            Step::Rlimits(limits) => self.set_limits(limits),
            Step::EnterCwd(path) => self.enter_cwd(path),
            Step::Seccomp(filter) => {
                sys::install_seccomp(filter).during("install the seccomp filter")
            }
            Step::BoundingSet(keep) => identity::cut_bounding_set(*keep),
            Step::SwitchUser {
                set_groups,
                groups_wanted,
            } => self.switch_user(*set_groups, *groups_wanted),
            Step::Capabilities(set) => self.set_capabilities(*set),
            Step::NoNewPrivileges => {
                rustix::thread::set_no_new_privs(true).during("set no_new_privs")
            }
            Step::Execute {
                args,
                env,
                seccomp,
                init,
            } => self.execute(args, env, seccomp.as_ref(), *init),
        }
    }

    /// Returns the container's root, opening `/` where a step before has not set it.
    fn root(&mut self) -> Result<&Rootfs, Failure> {
        if self.root.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open("/", flags, Mode::empty()).during("open the root")?;
            self.root = Some(Rootfs::new(fd));
        }
        self.root.as_ref().ok_or(Failure::Vanished)
    }

    /// Waits for a message that comes with nothing or a descriptor. A launcher that has gone will never send it.
    fn wait_for(&self, wanted: &Message) -> Option<OwnedFd> {
        match self.channel.receive() {
            Ok(Some((message, fd))) if message == *wanted => fd,
            Ok(Some(_)) => fail(&self.channel, Failure::Vanished),
            Ok(None) | Err(_) => sys::exit_now(1),
        }
    }

    fn warn(&self, warning: Warning) {
        ignore_lost_launcher(self.channel.send(&Message::Warning(warning), None));
    }

    fn write_sysctl(&mut self, path: &Path, value: &str) -> Result<(), Failure> {
        let full = Path::new("/proc/sys").join(path);
        let file = self
            .root()?
            .open_strict(&full, OFlags::WRONLY)
            .during_at("open", &full)?;
        let magic = crate::rootfs::filesystem_magic(rustix::fd::AsFd::as_fd(&file))
            .during_at("inspect", &full)?;
        if magic != crate::rootfs::PROC_MAGIC {
            return Err(Failure::MountTarget {
                target: full,
                reason: "not on a procfs".to_owned(),
            });
        }
        rustix::io::write(&file, value.as_bytes())
            .map(|_| ())
            .during_at("write", &full)
    }

    fn join_keyring(&mut self, name: &str) -> Result<(), Failure> {
        let Ok(name) = std::ffi::CString::new(name) else {
            return Err(Failure::system(
                "join a session keyring",
                None,
                Errno::INVAL,
            ));
        };
        match sys::join_session_keyring(&name) {
            Ok(()) => {}
            // No keyrings in this kernel, a filter around us, or the quota of keys is used up: none of it makes a
            // container less separate than the keyring it would share is masked anyway (/proc/keys).
            Err(errno) => {
                self.warn(Warning::Keyring {
                    errno: errno.raw_os_error(),
                });
            }
        }
        Ok(())
    }
}

/// Sets who may look into this process: nobody, while it holds what is the host's.
pub(crate) fn forbid_tracing() -> Result<(), Errno> {
    if weaken::is_open(Hole::Tracing) {
        return rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Asks to be killed when the thread that forked this process ends.
pub(crate) fn die_with_parent() -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}
