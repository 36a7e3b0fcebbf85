//! The forked copy of the launcher: it makes or enters the namespaces, clones the process that becomes the command, and
//! leaves, or stays as the guard.

use crate::init::{
    Executor, Start, Tie, die_with_parent, fail, forbid_tracing, ignore_lost_launcher,
};
use crate::message::{Channel, Message};
use crate::plan::IdMapText;
use crate::sys::{self, CloneRequest};
use crate::{CgroupPlacement, Failure, Joined, NamespaceKind, Plan, Step, Verb};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::process::DumpableBehavior;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use std::path::Path;

/// What is to be made.
pub(crate) enum Job<'a> {
    Create(&'a Plan),
    Exec(ExecJob),
}

/// One more command, with everything that has to be found out before the fork.
pub(crate) struct ExecJob {
    pub(crate) target: OwnedFd,
    pub(crate) namespaces: ThreadNameSpaceType,
    pub(crate) set_groups: bool,
    pub(crate) cgroup: Option<CgroupPlacement>,
    pub(crate) steps: Vec<Step>,
}

impl Job<'_> {
    pub(crate) fn verb(&self) -> Verb {
        match self {
            Self::Create(_) => Verb::Create,
            Self::Exec(_) => Verb::Exec,
        }
    }
}

/// The forked copy: it keeps the streams, the channel and one pidfd, and closes everything else at once, so that neither
/// it nor the container ever holds what is the launcher's (the FUSE device among it).
pub(crate) fn become_helper(
    job: &Job<'_>,
    streams: &[OwnedFd; 3],
    channel: &Channel,
    launcher: &OwnedFd,
    start: Start,
) -> ! {
    let pidfd = match job {
        Job::Create(_) => launcher,
        Job::Exec(job) => &job.target,
    };
    let joined: &[Joined] = match job {
        Job::Create(plan) => &plan.joined,
        Job::Exec(_) => &[],
    };
    let [stdin, stdout, stderr] = streams;
    let mut keep = vec![
        stdin.as_fd(),
        stdout.as_fd(),
        stderr.as_fd(),
        channel.as_fd(),
        pidfd.as_fd(),
    ];
    keep.extend(joined.iter().map(|joined| joined.process.as_fd()));
    let Ok(owned) = sys::arrange_descriptors(&keep) else {
        sys::exit_now(1)
    };
    let mut owned = owned.into_iter();
    let (Some(channel), Some(pidfd)) = (owned.next(), owned.next()) else {
        sys::exit_now(1)
    };
    let channel = Channel::from_fd(channel);
    sys::reset_signal_handlers();
    let others: Vec<_> = joined.iter().map(|joined| joined.kind).zip(owned).collect();
    match job {
        Job::Create(plan) => match join_others(&others) {
            Ok(shm) => make_container(plan, channel, pidfd, start, shm),
            Err(failure) => fail(&channel, failure),
        },
        Job::Exec(job) => enter_container(job, channel, &pidfd, start),
    }
}

/// Sets who may look at this process, and so whose /proc files it has.
fn set_dumpable(how: DumpableBehavior) -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(how)
        .map_err(|errno| Failure::system("set the dumpable flag", None, errno))
}

/// Enters namespaces of other containers, for the process that is cloned next; returns the detached /dev/shm of the one
/// whose IPC it shares.
fn join_others(others: &[(NamespaceKind, OwnedFd)]) -> Result<Option<OwnedFd>, Failure> {
    let failed = |errno| Failure::system("enter a namespace of another container", None, errno);
    let find = |kind| others.iter().find(|(found, _)| *found == kind);
    // From the other's user namespace there would be no way back into our mounts.
    let shm = match find(NamespaceKind::Ipc) {
        Some((_, process)) => Some(shm_of(process).map_err(failed)?),
        None => None,
    };
    // The user namespace first: it has the rights over the others.
    for (kind, namespace) in [
        (NamespaceKind::User, ThreadNameSpaceType::USER),
        (NamespaceKind::Pid, ThreadNameSpaceType::PROCESS_ID),
        (
            NamespaceKind::Ipc,
            ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
        ),
        (NamespaceKind::Network, ThreadNameSpaceType::NETWORK),
    ] {
        if let Some((_, process)) = find(kind) {
            rustix::thread::move_into_thread_name_spaces(process.as_fd(), namespace)
                .map_err(failed)?;
        }
    }
    Ok(shm)
}

/// Clones another container's /dev/shm, which can be done only in its mount namespace.
fn shm_of(process: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    let own = rustix::fs::open(
        "/proc/self/ns/mnt",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::MOUNT)?;
    // Whatever its processes have made of their tree, nothing is followed.
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let tree =
        rustix::fs::openat2(CWD, "/dev/shm", flags, Mode::empty(), resolve).and_then(|shm| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_EMPTY_PATH;
            rustix::mount::open_tree(&shm, "", flags)
        });
    rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount))?;
    rustix::process::fchdir(&root)?;
    rustix::process::chroot(".")?;
    tree
}

/// Clones the container's first process, writes its id maps and control groups, and becomes the guard.
fn make_container(
    plan: &Plan,
    channel: Channel,
    launcher: OwnedFd,
    start: Start,
    shm: Option<OwnedFd>,
) -> ! {
    let maps = plan.id_map.as_ref();
    let must_wait = maps.is_some() || plan.cgroup.is_some() || plan.oom_score_adj.is_some();
    // The files of a process that is not dumpable belong to the first namespace's root.
    let dumpable = if maps.is_some() || plan.joins_user() {
        DumpableBehavior::Dumpable
    } else {
        DumpableBehavior::NotDumpable
    };
    if let Err(failure) = set_dumpable(dumpable) {
        fail(&channel, failure);
    }
    let go = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (go_reader, go_writer) = match go {
        Ok(pair) => pair,
        Err(errno) => fail(&channel, Failure::system("make a pipe", None, errno)),
    };
    let request = CloneRequest {
        namespaces: plan.namespaces,
    };
    let (pid, child) = match sys::clone_with_namespaces(request) {
        Ok(Some(born)) => born,
        Ok(None) => {
            drop((go_writer, launcher));
            become_first_process(plan, channel, must_wait.then_some(go_reader), start, shm)
        }
        Err(errno) => fail(
            &channel,
            Failure::system("make the namespaces", None, errno),
        ),
    };
    ignore_lost_launcher(channel.send(&Message::Born { pid }, Some(child.as_fd())));
    let placed = place(pid, plan).and_then(|()| {
        let sent = if must_wait {
            rustix::io::write(&go_writer, b"g").map(|_| ())
        } else {
            Ok(())
        };
        sent.map_err(|errno| Failure::system("release the new process", None, errno))
    });
    if let Err(failure) = placed {
        fail(&channel, failure);
    }
    guard(&launcher, &child)
}

/// Writes what others write of a new process: how the kernel judges it, its id maps, its control groups.
fn place(pid: i32, plan: &Plan) -> Result<(), Failure> {
    if let Some(score) = plan.oom_score_adj {
        let path = format!("/proc/{pid}/oom_score_adj");
        write_file(Path::new(&path), &score.to_string())?;
    }
    if let Some(IdMapText { uids, gids }) = &plan.id_map {
        write_file(Path::new(&format!("/proc/{pid}/uid_map")), uids)?;
        write_file(Path::new(&format!("/proc/{pid}/gid_map")), gids)?;
    }
    for file in plan.cgroup.iter().flat_map(|cgroup| &cgroup.procs_files) {
        write_file(file, &pid.to_string())?;
    }
    Ok(())
}

/// Writes a file of the kernel's by one write.
fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .and_then(|file| rustix::io::write(&file, text.as_bytes()))
        .map(|_| ())
        .map_err(|errno| Failure::system("write", Some(path.to_owned()), errno))
}

/// Drops what the guard cannot tell anybody any more.
fn ignore<T, E>(result: Result<T, E>) {
    match result {
        Ok(_) | Err(_) => {}
    }
}

/// Outlives everything but the container: kills it when the launcher ends first.
fn guard(launcher: &OwnedFd, child: &OwnedFd) -> ! {
    // Nothing of this can be reported any more; each call only makes the guard harder to hit or lighter.
    ignore(set_dumpable(DumpableBehavior::NotDumpable));
    ignore(rustix::process::setsid());
    ignore(rustix::process::chdir("/"));
    // Only the two pidfds stay, as descriptors 0 and 1: not the streams, whose readers wait for the end of file.
    if sys::arrange_descriptors(&[launcher.as_fd(), child.as_fd()]).is_err() {
        sys::exit_now(1);
    }
    let (launcher, child) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    loop {
        let mut fds = [
            PollFd::new(&launcher, PollFlags::IN),
            PollFd::new(&child, PollFlags::IN),
        ];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let [launcher_end, child_end] = fds.map(|fd| !fd.revents().is_empty());
        if child_end {
            sys::exit_now(0);
        }
        if launcher_end {
            break;
        }
    }
    ignore(rustix::process::pidfd_send_signal(
        child,
        rustix::process::Signal::KILL,
    ));
    // It stays until the whole pid namespace has gone (the first process ends last). As long as a program runs its file
    // cannot be written, so a dying container that has got hold of the launcher's program finds no moment to change it.
    loop {
        let mut fds = [PollFd::new(&child, PollFlags::IN)];
        if poll(&mut fds, None).is_ok() {
            sys::exit_now(0);
        }
    }
}

/// Becomes root in a new user namespace: before, the process is nobody there.
fn become_root_of_namespace(set_groups: bool) -> Result<(), Failure> {
    let failed = |errno| Failure::system("become root of the user namespace", None, errno);
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    if set_groups {
        rustix::thread::set_thread_groups(&[]).map_err(failed)?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)
}

/// The container's first process, from its first instruction on.
fn become_first_process(
    plan: &Plan,
    channel: Channel,
    go: Option<OwnedFd>,
    start: Start,
    shm: Option<OwnedFd>,
) -> ! {
    if let Some(go) = go {
        let mut byte = [0];
        if !matches!(rustix::io::read(&go, &mut byte), Ok(1)) {
            // The guard has failed, and said why.
            sys::exit_now(1);
        }
    }
    let set_groups = plan.steps.iter().any(|step| {
        matches!(
            step,
            Step::SwitchUser {
                set_groups: true,
                ..
            }
        )
    });
    let ready = if plan.id_map.is_some() || plan.joins_user() {
        become_root_of_namespace(set_groups)
    } else {
        Ok(())
    };
    let tied = ready.and_then(|()| {
        forbid_tracing()
            .and_then(|()| die_with_parent())
            .map_err(|errno| Failure::system("protect the new process", None, errno))
    });
    match tied {
        Ok(()) => Executor::new(channel, start, Tie::ToParent)
            .with_shm(shm)
            .run(&plan.steps),
        Err(failure) => fail(&channel, failure),
    }
}

/// Joins the namespaces of a container and clones the process that becomes the command there.
fn enter_container(job: &ExecJob, channel: Channel, target: &OwnedFd, start: Start) -> ! {
    if let Err(failure) = join(job, target) {
        fail(&channel, failure);
    }
    match sys::clone_with_namespaces(CloneRequest { namespaces: 0 }) {
        Ok(None) => Executor::in_container(channel, start).run(&job.steps),
        Ok(Some((pid, child))) => {
            ignore_lost_launcher(channel.send(&Message::Born { pid }, Some(child.as_fd())));
            sys::exit_now(0)
        }
        Err(errno) => fail(&channel, Failure::system("clone", None, errno)),
    }
}

fn join(job: &ExecJob, target: &OwnedFd) -> Result<(), Failure> {
    let failed = |operation: &str, errno| Failure::system(operation, None, errno);
    for file in job.cgroup.iter().flat_map(|cgroup| &cgroup.procs_files) {
        // "0" is the writer. What it clones is in the same groups.
        write_file(file, "0")?;
    }
    forbid_tracing().map_err(|errno| failed("protect the new process", errno))?;
    match rustix::thread::move_into_thread_name_spaces(target.as_fd(), job.namespaces) {
        Err(Errno::SRCH) => return Err(Failure::NotRunning),
        other => other.map_err(|errno| failed("enter the container's namespaces", errno))?,
    }
    if job.namespaces.contains(ThreadNameSpaceType::USER) {
        become_root_of_namespace(job.set_groups)?;
    }
    // Joining a user namespace has made the process dumpable again, perhaps.
    forbid_tracing().map_err(|errno| failed("protect the new process", errno))
}
