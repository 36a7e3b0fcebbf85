//! From a plan to processes.
//!
//! ```text
//!   launcher ─ fork ─▶ guard ─ clone3(CLONE_PARENT, all namespaces) ─▶ new process (child of the launcher)
//! ```
//! The guard is a copy of the launcher with one thread, so that `clone3` is safe there, and outside the container's
//! namespaces, so that it can write id maps. It then stays for as long as the container does, in a session of its own and
//! with nothing open but two pidfds: when the launcher dies, however it dies, the guard kills the container's first
//! process and with it the pid namespace. (`PR_SET_PDEATHSIG` alone is not enough: executing a set-id program clears it,
//! and so can the container.) Should somebody kill launcher and guard together, the death signal is the second belt; it
//! is tied to the *thread* that called [`prepare`], which therefore has to live as long as the container.
//!
//! Most of what the new process mounts does not depend on the container's root, so it does that while its launcher is
//! still busy with the root ([`begin`]), on another processor where there is one.
//!
//! For one more command in a running container the same process joins the namespaces instead, clones and leaves.

use crate::child::{Begun, Child, Launch, Prepared, reap_helper};
use crate::guard::{ExecJob, Job, become_helper};
use crate::init::Start;
use crate::message::{Channel, Message};
use crate::plan::exec_steps;
use crate::sys::{self, Forked};
use crate::{ExecSpec, Failure, Plan, SpawnError, Stdio, Verb, Warning};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::Pid;
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::process::PidfdFlags;
use rustix::thread::ThreadNameSpaceType;
use std::path::Path;

/// Makes the container's processes and namespaces, walks the plan and resolves the command, so that whatever is wrong is
/// known before anything runs.
///
/// The calling thread has to live as long as the container (see the module's documentation); other threads may come and
/// go.
///
/// # Errors
/// Any step may fail; nothing is left behind then.
pub fn prepare(plan: &Plan, io: Stdio) -> Result<Prepared, SpawnError> {
    create(plan, io, Start::Held)
}

/// The first half of [`prepare`]: the processes are there and set up what does not depend on the container's root, which
/// need not be there yet. They wait for [`Begun::with_root`]. Mounts that are made from now on are not the container's.
///
/// # Errors
/// The first process could not be forked.
pub fn begin(plan: &Plan, io: Stdio) -> Result<Begun, SpawnError> {
    launch(&Job::Create(plan), io, Start::Held)
}

/// Takes hold of the root before anything is forked: one that is not there is found out at once.
fn create(plan: &Plan, io: Stdio, start: Start) -> Result<Prepared, SpawnError> {
    let root = clone_root(plan.rootfs())?;
    launch(&Job::Create(plan), io, start)?.with_tree(root)
}

/// Clones the mounts of a container's root, attached nowhere.
pub(crate) fn clone_root(path: &Path) -> Result<OwnedFd, SpawnError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(CWD, path, flags).map_err(|errno| {
        let path = Some(path.to_owned());
        let failure = Failure::system("clone the mount of the root", path, errno);
        SpawnError::new(Verb::Create, failure)
    })
}

/// [`prepare`] and [`Prepared::start`] in one, without the round trip between them.
///
/// # Errors
/// As of both.
pub fn spawn(plan: &Plan, io: Stdio) -> Result<Child, SpawnError> {
    launched(create(plan, io, Start::AtOnce)?)
}

/// Enters all namespaces of a running container and sets up one more command there.
///
/// The caller has to be the container's creator in the kernel's eyes: root, a process in the same N1, or an ordinary
/// user's plain process whose N1 it is. (A process in *another* N1 of the same user may not.)
///
/// The new process is a child of the caller, who has to reap it: the kernel reports the end of a container's first process
/// only when every other process of its pid namespace has been reaped.
///
/// # Errors
/// The container is gone, may not be entered, or a step failed.
pub fn prepare_exec(target: Pid, spec: &ExecSpec, io: Stdio) -> Result<Prepared, SpawnError> {
    exec_job(target, spec).and_then(|job| launch(&Job::Exec(job), io, Start::Held)?.until_ready())
}

/// [`prepare_exec`] and [`Prepared::start`] in one, without the round trip between them.
///
/// # Errors
/// As of both.
pub fn exec(target: Pid, spec: &ExecSpec, io: Stdio) -> Result<Child, SpawnError> {
    let job = exec_job(target, spec)?;
    launched(launch(&Job::Exec(job), io, Start::AtOnce)?.until_ready()?)
}

fn launched(mut prepared: Prepared) -> Result<Child, SpawnError> {
    match prepared.launch.take() {
        Some(launch) => launch.until_executed(),
        None => Err(SpawnError::new(Verb::Create, Failure::Vanished)),
    }
}

fn exec_job(target: Pid, spec: &ExecSpec) -> Result<ExecJob, SpawnError> {
    let error = |failure| SpawnError::new(Verb::Exec, failure);
    if !spec.cwd.as_os_str().is_empty() && spec.cwd.is_relative() {
        return Err(error(Failure::RelativeCwd {
            cwd: spec.cwd.clone(),
        }));
    }
    let gone = |errno| match errno {
        Errno::SRCH | Errno::NOENT => Failure::NotRunning,
        errno => Failure::system("inspect the container's first process", None, errno),
    };
    let pid = rustix::process::Pid::from_raw(target.as_raw()).ok_or(Errno::SRCH);
    let pidfd = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
    let pidfd = pidfd.map_err(|errno| error(gone(errno)))?;
    let namespaces = foreign_namespaces(target).map_err(|errno| error(gone(errno)))?;
    let set_groups = std::fs::read_to_string(format!("/proc/{target}/setgroups"))
        .map_or(true, |text| text.trim() != "deny");
    let steps = exec_steps(spec, set_groups).map_err(|reason| error(Failure::Plan(reason)))?;
    Ok(ExecJob {
        target: pidfd,
        namespaces,
        set_groups,
        cgroup: spec.cgroup.clone(),
        steps,
    })
}

/// Returns the namespaces of `target` that are not this process's: joining one's own may be forbidden.
fn foreign_namespaces(target: Pid) -> Result<ThreadNameSpaceType, Errno> {
    let kinds = [
        ("user", ThreadNameSpaceType::USER),
        ("mnt", ThreadNameSpaceType::MOUNT),
        ("pid", ThreadNameSpaceType::PROCESS_ID),
        ("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME),
        ("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION),
        ("net", ThreadNameSpaceType::NETWORK),
        ("cgroup", ThreadNameSpaceType::CONTROL_GROUP),
        ("time", ThreadNameSpaceType::TIME),
    ];
    let mut foreign = ThreadNameSpaceType::empty();
    for (name, kind) in kinds {
        let theirs = rustix::fs::stat(format!("/proc/{target}/ns/{name}"))?;
        let ours = rustix::fs::stat(format!("/proc/self/ns/{name}"))?;
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino) {
            foreign |= kind;
        }
    }
    Ok(foreign)
}

/// The three streams, none of them missing.
fn complete(io: Stdio) -> Result<[OwnedFd; 3], Errno> {
    let or_null = |fd: Option<OwnedFd>| match fd {
        Some(fd) => Ok(fd),
        None => {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open("/dev/null", flags, Mode::empty())
        }
    };
    Ok([or_null(io.stdin)?, or_null(io.stdout)?, or_null(io.stderr)?])
}

fn launch(job: &Job<'_>, io: Stdio, start: Start) -> Result<Begun, SpawnError> {
    let failed = |operation: &str, errno| {
        SpawnError::new(job.verb(), Failure::system(operation, None, errno))
    };
    let streams = complete(io).map_err(|errno| failed("open /dev/null", errno))?;
    let (ours, theirs) = Channel::pair().map_err(|errno| failed("make a socket pair", errno))?;
    let launcher = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(|errno| failed("open a pidfd", errno))?;
    // No handler of this process may run in the copy.
    let mut mask = SigSet::empty();
    nix::sys::signal::pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut mask),
    )
    .map_err(|errno| failed("block the signals", Errno::from_raw_os_error(errno as i32)))?;
    let forked = sys::fork();
    if let Ok(Forked::Child) = forked {
        become_helper(job, &streams, &theirs, &launcher, start);
    }
    let unblocked = nix::sys::signal::pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
    drop((theirs, streams, launcher));
    let helper = match forked.map_err(|errno| failed("fork", errno))? {
        Forked::Parent(pid) => pid,
        Forked::Child => sys::exit_now(1),
    };
    let begun = Begun::new(job.verb(), ours, helper);
    match unblocked {
        Ok(()) => Ok(begun),
        Err(errno) => Err(failed(
            "restore the signal mask",
            Errno::from_raw_os_error(errno as i32),
        )),
    }
}

/// What has been heard so far. The guard's and the new process's messages may come in any order.
#[derive(Default)]
pub(crate) struct Heard {
    born: Option<(Pid, OwnedFd)>,
    pty: Option<OwnedFd>,
    warnings: Vec<Warning>,
    /// The last word of the new process, or of a guard that could not make one.
    last: Option<Result<(), Failure>>,
}

impl Heard {
    /// Listens until the process exists and has said its last word, or until nobody is left to say anything.
    fn listen(channel: &Channel) -> Self {
        let mut heard = Self::default();
        heard.go_on(channel, |heard| {
            heard.born.is_some() && heard.last.is_some()
        });
        heard
    }

    /// Listens until the process exists, or never will.
    pub(crate) fn listen_for_birth(channel: &Channel) -> Option<(Pid, OwnedFd)> {
        let mut heard = Self::default();
        heard.go_on(channel, |heard| heard.born.is_some());
        heard.born
    }

    fn go_on(&mut self, channel: &Channel, is_enough: impl Fn(&Self) -> bool) {
        let heard = self;
        while !is_enough(heard) {
            match channel.receive() {
                Ok(Some((Message::Born { pid }, Some(pidfd)))) => {
                    heard.born = Some((Pid::from_raw(pid), pidfd));
                }
                Ok(Some((Message::Warning(warning), _))) => heard.warnings.push(warning),
                Ok(Some((Message::Terminal, pty))) => heard.pty = pty,
                Ok(Some((Message::Ready, _))) => heard.last = Some(Ok(())),
                Ok(Some((Message::Failed(failure), _))) => heard.last = Some(Err(failure)),
                Ok(Some((Message::Born { .. } | Message::Root | Message::Start, _)) | None) => {
                    break;
                }
                Err(errno) => {
                    heard.last = Some(Err(Failure::system("receive", None, errno)));
                    break;
                }
            }
        }
    }
}

/// Listens to the new process until it is ready.
pub(crate) fn until_ready(
    verb: Verb,
    channel: Channel,
    helper: i32,
) -> Result<Prepared, SpawnError> {
    let Heard {
        born,
        pty,
        warnings,
        last,
    } = Heard::listen(&channel);
    let last = last.unwrap_or(Err(Failure::Vanished));
    let Some((pid, pidfd)) = born else {
        // Without a process the helper has ended, or is about to.
        reap_helper(Some(helper));
        return Err(SpawnError::new(
            verb,
            last.err().unwrap_or(Failure::Vanished),
        ));
    };
    let mut child = Child::new(pid, pidfd, helper);
    child.pty = pty;
    if verb == Verb::Exec {
        reap_helper(child.guard.take());
    }
    let launch = Launch {
        verb,
        child,
        channel,
    };
    match last {
        Ok(()) => Ok(Prepared {
            launch: Some(launch),
            warnings,
        }),
        Err(failure) => Err(launch.abandon(failure)),
    }
}
