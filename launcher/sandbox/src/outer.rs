//! N1: the user and mount namespace in which an ordinary user's store, union and monitors live.
//!
//! In N1 the user is root (id 0) and, where /etc/subuid and /etc/subgid give a range, ids from 1 on are that range. The
//! maps of a range are written by `newuidmap` and `newgidmap`, which are set-uid; a one-id map the process writes itself.
//! Containers run in a further user namespace nested in N1, so that their root has no power over N1's mounts.
//!
//! Mounts of the host still arrive in N1; mounts made in N1 are seen in N1 only.

use crate::account::account;
use crate::sys::Forked;
use crate::{IdMap, host, subid, sys};
use nix::unistd::Pid;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, PidfdFlags, WaitOptions};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Which id map is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wish {
    /// A range where there is one, else one id.
    #[default]
    Auto,
    /// A range or an error that says how to get one.
    Range,
    /// One id.
    OneId,
}

/// Where this process is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OuterMode {
    /// Root in the first user namespace: there is nothing to enter.
    Root,
    /// In a user namespace with a range of ids.
    Range {
        /// How many user ids are mapped.
        uids: u32,
        /// How many group ids are mapped.
        gids: u32,
    },
    /// In a user namespace with one id.
    OneId,
}

/// Why N1 could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum OuterError {
    /// The kernel or a security module refuses user namespaces.
    #[error("user namespaces are not available ({reason}): {fix}")]
    Unavailable {
        /// The system's words.
        reason: String,
        /// The command that changes it.
        fix: String,
    },
    /// The process has more than one thread.
    #[error("a user namespace can only be entered by a process with one thread")]
    Threads,
    /// No range is set up.
    #[error("{reason}: {fix}")]
    NoRange {
        /// What is missing.
        reason: String,
        /// The command that adds it.
        fix: String,
    },
    /// newuidmap or newgidmap failed.
    #[error("{program}: {detail}")]
    Mapper {
        /// Which.
        program: String,
        /// What it said.
        detail: String,
    },
    /// A system call failed.
    #[error("{operation}{}", path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    System {
        /// What was being done.
        operation: &'static str,
        /// With which file.
        path: Option<PathBuf>,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

/// Namespaces of this process, to be sent to another one of the same user.
#[derive(Debug)]
pub struct Namespaces {
    /// User namespace.
    pub user: OwnedFd,
    /// Mount namespace.
    pub mount: OwnedFd,
}

fn system(operation: &'static str, path: &str, source: impl Into<io::Error>) -> OuterError {
    let path = (!path.is_empty()).then(|| PathBuf::from(path));
    OuterError::System {
        operation,
        path,
        source: source.into(),
    }
}

/// What an ordinary user has been given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubIds {
    /// Ranges of /etc/subuid: first id and count.
    pub uids: Vec<(u32, u32)>,
    /// Ranges of /etc/subgid.
    pub gids: Vec<(u32, u32)>,
    /// Login name; `None`: the user is in no passwd file.
    pub name: Option<String>,
}

/// Returns the ranges of a user. A missing file gives none.
pub fn sub_ids(uid: u32) -> SubIds {
    let name = account(uid).map(|account| account.name);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    SubIds {
        uids: subid::ranges(&read("/etc/subuid"), name.as_deref(), uid),
        gids: subid::ranges(&read("/etc/subgid"), name.as_deref(), uid),
        name,
    }
}

/// Returns where a program of the uidmap package is.
pub(crate) fn find_mapper(program: &str) -> Option<PathBuf> {
    // Not by PATH: what is found is trusted with the id map.
    ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Everything a range needs.
struct RangePlan {
    uids: Vec<IdMap>,
    gids: Vec<IdMap>,
    newuidmap: PathBuf,
    newgidmap: PathBuf,
}

fn range_plan(uid: u32, gid: u32) -> Result<RangePlan, OuterError> {
    let given = sub_ids(uid);
    let name = given.name.clone().unwrap_or_else(|| uid.to_string());
    for (file, option, ranges) in [
        ("/etc/subuid", "--add-subuids", &given.uids),
        ("/etc/subgid", "--add-subgids", &given.gids),
    ] {
        if ranges.is_empty() {
            let start = subid::free_start(&std::fs::read_to_string(file).unwrap_or_default());
            let end = start.saturating_add(65535);
            return Err(OuterError::NoRange {
                reason: format!("{file} has no range for {name}"),
                fix: format!("run `sudo usermod {option} {start}-{end} {name}`"),
            });
        }
    }
    let mapper = |program: &str| {
        find_mapper(program).ok_or_else(|| OuterError::NoRange {
            reason: format!("{program} is not installed"),
            fix: "run `sudo apt-get install uidmap` (Fedora: shadow-utils)".to_owned(),
        })
    };
    Ok(RangePlan {
        uids: subid::map(uid, &given.uids),
        gids: subid::map(gid, &given.gids),
        newuidmap: mapper("newuidmap")?,
        newgidmap: mapper("newgidmap")?,
    })
}

/// Enters N1. Nothing happens for real root and for a process that is in N1 already.
///
/// Supplementary groups of the user stay, so that files they open to the user stay open.
///
/// # Errors
/// See [`OuterError`]; each says what would help.
pub fn enter(wish: Wish) -> Result<OuterMode, OuterError> {
    if let Some(mode) = current()? {
        return Ok(mode);
    }
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let range = match wish {
        Wish::OneId => None,
        Wish::Range => Some(range_plan(uid, gid)?),
        // What is missing is what `doctor` explains.
        Wish::Auto => range_plan(uid, gid).ok(),
    };
    match range {
        None => {
            unshare()?;
            write_one_id(uid, gid)?;
        }
        Some(plan) => match enter_range(&plan) {
            // The namespace is there, without a map: one id is possible as long as no mapper has written anything.
            Err(error @ OuterError::Mapper { .. }) if wish == Wish::Auto => {
                write_one_id(uid, gid).map_err(|_| error)?;
            }
            other => other?,
        },
    }
    current()?.ok_or(OuterError::Threads)
}

/// Returns where this process is, without changing anything; `None`: an ordinary user outside.
///
/// # Errors
/// /proc/self/uid_map cannot be read.
pub fn current() -> Result<Option<OuterMode>, OuterError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let read = |path: &'static str| {
        std::fs::read_to_string(path)
            .map(|text| host::parse_id_map(&text))
            .map_err(|error| system("read", path, error))
    };
    let (uids, gids) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
    if host::is_whole(&uids) {
        return Ok(Some(OuterMode::Root));
    }
    let count = |maps: &[IdMap]| {
        maps.iter()
            .fold(0, |sum: u32, map| sum.saturating_add(map.count))
    };
    Ok(Some(match (count(&uids), count(&gids)) {
        (0 | 1, _) => OuterMode::OneId,
        (uids, gids) => OuterMode::Range { uids, gids },
    }))
}

/// Makes the two namespaces.
fn unshare() -> Result<(), OuterError> {
    match sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) {
        Ok(()) => {}
        Err(Errno::INVAL) => return Err(OuterError::Threads),
        Err(errno) => return Err(unavailable(errno)),
    }
    // A change of credentials clears the flag, and the id map files of a process without it belong to the first
    // namespace's root.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|errno| system("set the dumpable flag", "", errno))
}

/// Says what refuses user namespaces here, and what would change it.
pub(crate) fn unavailable(errno: Errno) -> OuterError {
    let setting = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let is = |path: &str, value: &str| setting(path).as_deref() == Some(value);
    let fix = if is("/proc/sys/user/max_user_namespaces", "0") {
        "run `sudo sysctl -w user.max_user_namespaces=15000`"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "run `sudo sysctl -w kernel.unprivileged_userns_clone=1`"
    } else if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "AppArmor restricts them: run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give mille \
         a profile with `userns,`"
    } else {
        "a security module or the container around this process forbids them: run as root"
    };
    OuterError::Unavailable {
        reason: io::Error::from(errno).to_string(),
        fix: fix.to_owned(),
    }
}

/// A mapper that has been forked and waits for the namespace.
struct Mapper {
    program: PathBuf,
    pid: rustix::process::Pid,
}

/// Forks a process that stays in the first namespace, waits for a byte on `go` and becomes the mapper. Everything else is
/// closed there, the writing end of `go` too: the end of file on it means that there will be no namespace.
fn fork_mapper(
    program: &Path,
    maps: &[IdMap],
    go: &OwnedFd,
    stderr: &OwnedFd,
) -> Result<Mapper, OuterError> {
    let mut args = vec![rustix::process::getpid().as_raw_nonzero().to_string()];
    for map in maps {
        args.extend([map.inside, map.outside, map.count].map(|number| number.to_string()));
    }
    let path = CString::new(program.as_os_str().as_bytes())
        .map_err(|_| system("run", "newuidmap", Errno::INVAL))?;
    let mut argv = vec![path.clone()];
    argv.extend(args.into_iter().filter_map(|arg| CString::new(arg).ok()));
    match sys::fork().map_err(|errno| system("fork", "", errno))? {
        Forked::Parent(pid) => {
            let pid = rustix::process::Pid::from_raw(pid).ok_or(OuterError::Threads)?;
            Ok(Mapper {
                program: program.to_owned(),
                pid,
            })
        }
        Forked::Child => {
            let keep = [go.as_fd(), stderr.as_fd(), stderr.as_fd()];
            let mut byte = [0];
            let ready = sys::arrange_descriptors(&keep)
                .and_then(|_| rustix::io::read(rustix::stdio::stdin(), &mut byte));
            if ready != Ok(1) {
                sys::exit_now(1);
            }
            match nix::unistd::execve(&path, &argv, &[] as &[CString]) {
                Ok(never) => match never {},
                Err(_) => sys::exit_now(127),
            }
        }
    }
}

impl Mapper {
    /// Waits for the end and returns whether it went well.
    fn finish(&self) -> bool {
        loop {
            match rustix::process::waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(Errno::INTR) => {}
                Ok(Some((_, status))) => return status.exit_status() == Some(0),
                Ok(None) | Err(_) => return false,
            }
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), OuterError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| system("make a pipe", "", errno))
}

fn enter_range(plan: &RangePlan) -> Result<(), OuterError> {
    let (go_reader, go_writer) = pipe()?;
    let (said_reader, said_writer) = pipe()?;
    let uids = fork_mapper(&plan.newuidmap, &plan.uids, &go_reader, &said_writer)?;
    let gids = fork_mapper(&plan.newgidmap, &plan.gids, &go_reader, &said_writer);
    drop(said_writer);
    let entered = match &gids {
        Ok(_) => unshare(),
        Err(_) => Ok(()),
    };
    let told = match (&gids, &entered) {
        (Ok(_), Ok(())) => rustix::io::write(&go_writer, b"gg").map(|_| ()),
        _ => Ok(()),
    };
    drop(go_writer);
    let mut said = String::new();
    io::Read::read_to_string(&mut std::fs::File::from(said_reader), &mut said)
        .map_err(|error| system("read from the mappers", "", error))?;
    let uids_done = uids.finish();
    let gids = gids?;
    let gids_done = gids.finish();
    entered?;
    told.map_err(|errno| system("tell the mappers", "", errno))?;
    for (mapper, done) in [(uids, uids_done), (gids, gids_done)] {
        if !done {
            let program = mapper.program.display().to_string();
            let detail = format!(
                "{} (is it set-uid root? `sudo chmod u+s {program}`)",
                said.trim()
            );
            return Err(OuterError::Mapper { program, detail });
        }
    }
    Ok(())
}

/// Maps the user's own id, and nothing else, to root.
fn write_one_id(uid: u32, gid: u32) -> Result<(), OuterError> {
    // Without privilege over the parent namespace a group map is only allowed once setgroups is given up: it could
    // otherwise be used to shed a group that denies access.
    for (path, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1\n")),
        ("/proc/self/gid_map", format!("0 {gid} 1\n")),
    ] {
        std::fs::write(path, text).map_err(|error| match Errno::from_io_error(&error) {
            // AppArmor lets the namespace be made, and then allows nothing in it.
            Some(errno @ (Errno::PERM | Errno::ACCESS)) => unavailable(errno),
            _ => system("write", path, error),
        })?;
    }
    Ok(())
}

/// Enters the N1 of another process of this user. That process must be dumpable; a monitor that is not sends its
/// [`Namespaces`] instead.
///
/// # Errors
/// The process is gone or is somebody else's; this process has several threads.
pub fn join(pid: Pid) -> Result<(), OuterError> {
    let raw = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(Errno::SRCH);
    let pidfd = raw
        .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()))
        .map_err(|errno| system("find the monitor", "", errno))?;
    let kinds = ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT;
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), kinds)
        .map_err(|errno| system("enter the monitor's namespaces", "", errno))?;
    become_root()
}

/// Enters the user namespace of an N1 with a mount namespace of this process's own: as [`enter`] does, beside what is there
/// already.
///
/// # Errors
/// It is somebody else's, or this process has several threads.
pub fn enter_beside(user: BorrowedFd<'_>) -> Result<OuterMode, OuterError> {
    rustix::thread::move_into_link_name_space(user, Some(LinkNameSpaceType::User)).map_err(
        |errno| {
            system(
                "enter the user namespace of another container's monitor",
                "",
                errno,
            )
        },
    )?;
    become_root()?;
    sys::unshare(UnshareFlags::NEWNS)
        .map_err(|errno| system("make a mount namespace", "", errno))?;
    current()?.ok_or(OuterError::Threads)
}

/// Becomes id 0 of the namespace just entered (which the user's own id is already, under the maps of [`enter`]).
fn become_root() -> Result<(), OuterError> {
    let failed = |errno| system("become root of the user namespace", "", errno);
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed)
}

/// Opens the namespaces of this process.
///
/// # Errors
/// /proc is not mounted.
pub fn namespaces() -> Result<Namespaces, OuterError> {
    let open = |path: &'static str| {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| system("open", path, errno))
    };
    Ok(Namespaces {
        user: open("/proc/self/ns/user")?,
        mount: open("/proc/self/ns/mnt")?,
    })
}

/// Enters the N1 of which these are the descriptors.
///
/// # Errors
/// It is somebody else's, or this process has several threads.
pub fn join_namespaces(user: BorrowedFd<'_>, mount: BorrowedFd<'_>) -> Result<(), OuterError> {
    for (fd, kind) in [
        (user, LinkNameSpaceType::User),
        (mount, LinkNameSpaceType::Mount),
    ] {
        rustix::thread::move_into_link_name_space(fd, Some(kind))
            .map_err(|errno| system("enter the monitor's namespaces", "", errno))?;
    }
    become_root()
}
