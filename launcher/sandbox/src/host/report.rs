//! The whole picture, for `doctor`: each fact is tried out rather than guessed, in a forked child where trying changes
//! the process.

use super::{Cgroups, Host};
use crate::outer::{self, OuterMode, SubIds};
use crate::sys::{self, Forked};
use crate::{CapSet, Capability};
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{DumpableBehavior, WaitOptions};
use rustix::thread::UnshareFlags;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What this machine offers to this user.
#[derive(Debug)]
pub struct Report {
    /// The facts plans are made of.
    pub host: Host,
    /// Effective user id, as seen in this process's user namespace.
    pub uid: u32,
    /// Where this process is; `None`: an ordinary user outside any namespace of mille's.
    pub mode: Option<OuterMode>,
    /// /dev/fuse.
    pub fuse: Fuse,
    /// Whether an ordinary user's process may make a user namespace; the error says what refuses and what would help.
    pub user_namespaces: Result<(), outer::OuterError>,
    /// Ranges of ids this user may map.
    pub sub_ids: SubIds,
    /// `newuidmap`.
    pub newuidmap: Mapper,
    /// `newgidmap`.
    pub newgidmap: Mapper,
    /// Control groups this process may use.
    pub cgroup_control: CgroupControl,
    /// Capabilities the kernel knows and this process's bounding set lacks.
    pub missing_capabilities: Vec<Capability>,
    /// What /proc a container of an ordinary user gets; `None`: user namespaces are refused.
    pub proc_mount: Option<ProcMount>,
    /// Whether the kernel's overlayfs is there.
    pub overlayfs: bool,
    /// Whether FUSE passthrough can be expected.
    pub passthrough: Passthrough,
}

/// Major and minor number of /dev/fuse.
pub const FUSE_NUMBER: (u32, u32) = (10, 229);

/// Whether /dev/fuse can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fuse {
    /// It can be opened.
    Usable,
    /// There is none: the module is not loaded, or a container hides it. `sudo modprobe fuse`.
    Missing,
    /// It must not be opened by this user. `sudo chmod 0666 /dev/fuse`.
    Denied {
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// Something else has its name. `sudo rm /dev/fuse && sudo mknod -m 666 /dev/fuse c 10 229`.
    Impostor,
    /// It is there and cannot be opened.
    Broken {
        /// The system's words.
        reason: String,
    },
}

/// A program of the uidmap package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapper {
    /// Not installed. `sudo apt-get install uidmap`.
    Missing,
    /// Neither set-uid root nor with file capabilities, so it cannot do its work. `sudo chmod u+s PATH`.
    Powerless(PathBuf),
    /// Fine.
    Usable(PathBuf),
}

/// What can be done with control groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupControl {
    /// There are none.
    None,
    /// Version 2, and this process's own group is delegated to it, with these controllers.
    Delegated {
        /// `cpu`, `memory`, `pids`, …
        controllers: Vec<String>,
    },
    /// Version 1 or the whole of version 2, as root.
    Root,
    /// They are there, but not for this user: limits are not possible.
    ReadOnly,
}

/// Which of the three ways to a /proc works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcMount {
    /// A new, full one.
    Full,
    /// A new one that shows processes only.
    ProcessesOnly,
    /// The host's.
    HostOnly,
}

/// Whether FUSE passthrough can be expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passthrough {
    /// The kernel is new enough and this is real root.
    Likely,
    /// The kernel is older than 6.9.
    OldKernel,
    /// It takes CAP_SYS_ADMIN in the first user namespace.
    NotRoot,
}

/// Finds everything out. Forks a few short-lived children; takes some milliseconds.
///
/// # Errors
/// /proc is not mounted.
pub fn inspect() -> io::Result<Report> {
    let host = Host::probe()?;
    let uid = rustix::process::geteuid().as_raw();
    let user_namespaces = match try_in_child(try_user_namespace) {
        Ok(()) => Ok(()),
        Err(errno) => Err(outer::unavailable(errno)),
    };
    let proc_mount = user_namespaces.is_ok().then(try_proc);
    let mode = outer::current().ok().flatten();
    Ok(Report {
        uid,
        mode,
        fuse: probe_fuse(),
        sub_ids: outer::sub_ids(rustix::process::getuid().as_raw()),
        newuidmap: probe_mapper("newuidmap"),
        newgidmap: probe_mapper("newgidmap"),
        cgroup_control: probe_cgroup_control(&host),
        missing_capabilities: missing_capabilities(),
        proc_mount,
        user_namespaces,
        overlayfs: has_filesystem("overlay"),
        passthrough: probe_passthrough(&host, mode),
        host,
    })
}

/// Runs `attempt` in a forked child and returns its error.
///
/// The child only makes system calls and allocates, as the crate's rule for forked children says.
fn try_in_child(attempt: fn() -> Result<(), Errno>) -> Result<(), Errno> {
    match sys::fork()? {
        Forked::Child => {
            let code = attempt().map_or_else(Errno::raw_os_error, |()| 0);
            sys::exit_now(code)
        }
        Forked::Parent(pid) => {
            let pid = rustix::process::Pid::from_raw(pid).ok_or(Errno::CHILD)?;
            loop {
                match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                    Ok(ended) => {
                        let code = ended.and_then(|(_, status)| status.exit_status());
                        return match code {
                            Some(0) => Ok(()),
                            Some(code) => Err(Errno::from_raw_os_error(code)),
                            None => Err(Errno::IO),
                        };
                    }
                }
            }
        }
    }
}

/// Makes a user namespace with a one-id map.
fn try_user_namespace() -> Result<(), Errno> {
    enter_user_namespace(UnshareFlags::empty())
}

fn enter_user_namespace(more: UnshareFlags) -> Result<(), Errno> {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS | more)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1\n")),
        ("/proc/self/gid_map", format!("0 {gid} 1\n")),
    ] {
        let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(&file, text.as_bytes())?;
    }
    Ok(())
}

/// Tries the ways to a /proc in the order the launcher does.
fn try_proc() -> ProcMount {
    if try_in_child(|| mount_proc_in_new_namespaces(None)).is_ok() {
        ProcMount::Full
    } else if try_in_child(|| mount_proc_in_new_namespaces(Some(c"subset=pid"))).is_ok() {
        ProcMount::ProcessesOnly
    } else {
        ProcMount::HostOnly
    }
}

fn mount_proc_in_new_namespaces(data: Option<&std::ffi::CStr>) -> Result<(), Errno> {
    enter_user_namespace(UnshareFlags::NEWPID)?;
    // The new pid namespace is that of the next child.
    match sys::fork()? {
        Forked::Child => {
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            let mounted = rustix::mount::mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )
            .and_then(|()| rustix::mount::mount("proc", "/proc", "proc", flags, data));
            sys::exit_now(mounted.map_or_else(Errno::raw_os_error, |()| 0))
        }
        Forked::Parent(pid) => {
            let pid = rustix::process::Pid::from_raw(pid).ok_or(Errno::CHILD)?;
            let ended = rustix::process::waitpid(Some(pid), WaitOptions::empty())?;
            match ended.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                _ => Err(Errno::PERM),
            }
        }
    }
}

fn probe_fuse() -> Fuse {
    let path = Path::new("/dev/fuse");
    if rustix::fs::stat(path).is_ok_and(|stat| !is_fuse_device(&stat)) {
        return Fuse::Impostor;
    }
    match rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Fuse::Usable,
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => Fuse::Missing,
        Err(errno) => match std::fs::metadata(path) {
            Ok(meta) if errno == Errno::ACCESS => Fuse::Denied {
                mode: meta.permissions().mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
            },
            _ => Fuse::Broken {
                reason: io::Error::from(errno).to_string(),
            },
        },
    }
}

/// Whether this is the FUSE device: misc, 229, since Linux 2.6.14.
pub fn is_fuse_device(stat: &rustix::fs::Stat) -> bool {
    crate::rootfs::is_char_device(stat, FUSE_NUMBER.0, FUSE_NUMBER.1)
}

fn probe_mapper(program: &str) -> Mapper {
    let Some(path) = outer::find_mapper(program) else {
        return Mapper::Missing;
    };
    let is_set_uid = std::fs::metadata(&path)
        .is_ok_and(|meta| meta.uid() == 0 && meta.permissions().mode() & 0o4000 != 0);
    let mut value = [0u8; 64];
    let has_capabilities =
        rustix::fs::getxattr(&path, "security.capability", &mut value[..]).is_ok();
    if is_set_uid || has_capabilities {
        Mapper::Usable(path)
    } else {
        Mapper::Powerless(path)
    }
}

fn missing_capabilities() -> Vec<Capability> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(63);
    let known = CapSet::from_bits(u64::MAX >> (63 - last.min(63)));
    let bounding = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .map_or(CapSet::ALL, CapSet::from_bits);
    known.difference(bounding).iter().collect()
}

fn probe_cgroup_control(host: &Host) -> CgroupControl {
    let is_root = host.initial_user_namespace && host.capabilities.contains(Capability::SYS_ADMIN);
    match &host.cgroups {
        Cgroups::None => CgroupControl::None,
        Cgroups::V1 { .. } | Cgroups::V2 if is_root => CgroupControl::Root,
        Cgroups::V1 { .. } => CgroupControl::ReadOnly,
        Cgroups::V2 => delegated_controllers().unwrap_or(CgroupControl::ReadOnly),
    }
}

/// Returns the controllers of this process's own group when its files may be written.
fn delegated_controllers() -> Option<CgroupControl> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let directory = Path::new("/sys/fs/cgroup").join(own);
    rustix::fs::access(directory.join("cgroup.procs"), Access::WRITE_OK).ok()?;
    rustix::fs::access(&directory, Access::WRITE_OK).ok()?;
    let controllers = std::fs::read_to_string(directory.join("cgroup.controllers")).ok()?;
    Some(CgroupControl::Delegated {
        controllers: controllers
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect(),
    })
}

fn has_filesystem(name: &str) -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| {
        text.lines()
            .any(|line| line.split('\t').next_back() == Some(name))
    })
}

fn probe_passthrough(host: &Host, mode: Option<OuterMode>) -> Passthrough {
    if !host.kernel_is_at_least(6, 9) {
        Passthrough::OldKernel
    } else if mode == Some(OuterMode::Root) && host.capabilities.contains(Capability::SYS_ADMIN) {
        Passthrough::Likely
    } else {
        Passthrough::NotRoot
    }
}
