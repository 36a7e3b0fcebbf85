//! The life of one monitor process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mille_sandbox::host::Host;
use mille_sandbox::outer::{self, Namespaces};
use mille_sandbox::{Begun, Plan, Prepared, Stdio};
use mille_union::awake::Awake;
use mille_union::fuse::{MountOptions, Mounted};
use mille_union::{Access, View};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use rustix::fs::{Mode, OFlags};

use crate::channel::Channel;
use crate::container::Container;
use crate::error::{Error, Result, exit_code_of};
use crate::events::Subject;
use crate::files;
use crate::health::{Check, Health};
use crate::layout::{ContainerPaths, Layout};
use crate::limits::Groups;
use crate::lock::Lock;
use crate::logs::LogStream;
use crate::logs::write::{JsonLog, rotation};
use crate::options::Streams as Wanted;
use crate::records::{self, StateRecord};
use crate::restart::{self, Backoff};
use crate::rootfs::{Stack, Writable};
use crate::signals::Caught;
use crate::{container_mounts, fuse_device, hosts, launch, removal, signals, sys};

use super::hub::{Hub, Streams};
use super::interval::Heritage;
use super::prober::Prober;
use super::report::{Outcome, Reporter};
use super::standing::Standing;

/// How long a monitor waits for the one before it to let go of the container.
const HANDOVER: Duration = Duration::from_secs(3);

/// Everything a monitor needs, made before the fork.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) layout: Layout,
    pub(crate) container: Container,
    pub(crate) stack: Stack,
    /// The process is in a user namespace of ours.
    pub(crate) nested: bool,
    /// A client that is attached from the first byte on, and to what.
    pub(crate) attached: Option<(OwnedFd, Wanted)>,
    pub(crate) reporter: Reporter,
}

impl Job {
    /// Is the monitor: never returns.
    pub(crate) fn run(self) -> ! {
        let paths = self.layout.container(&self.container.id);
        // First of all: without the lock the run-time directory looks like a leftover, which any command may clear.
        let lock = match Lock::take_within(&paths.lock(), HANDOVER) {
            Ok(Some(lock)) if paths.record().exists() => lock,
            Err(error) if paths.record().exists() => {
                self.reporter.send(&failed(&error));
                sys::exit_now(1);
            }
            // Somebody else has it, or has removed it.
            Ok(_) | Err(_) => {
                self.reporter.send(&Outcome::Busy);
                sys::exit_now(0);
            }
        };
        let kept: Vec<_> = self
            .attached
            .iter()
            .map(|(fd, _)| fd.as_fd())
            .chain([self.reporter.as_fd(), lock.as_fd()])
            .collect();
        let detached = files::make_directory(&paths.run, 0o700)
            .and_then(|_| detach(&paths.monitor_notes(), &kept));
        let code = match detached {
            Ok(()) => self.live(&paths, lock),
            Err(error) => {
                note(removal::remove_run_directory(&paths));
                self.reporter.send(&failed(&error));
                1
            }
        };
        sys::exit_now(code)
    }

    fn live(self, paths: &ContainerPaths, lock: Lock) -> i32 {
        let Self {
            layout,
            container,
            stack,
            nested,
            attached,
            reporter,
        } = self;
        let mut life = Life {
            layout: &layout,
            paths,
            container: &container,
            stack: &stack,
            nested,
            groups: Groups::default(),
        };
        let mut before = records::read_state(paths).unwrap_or_default();
        before.restart_count = 0;
        let started = life
            .listen()
            .and_then(|listener| life.start(before.clone(), listener, attached));
        match started {
            Ok((hub, mounted)) => {
                reporter.send(&Outcome::Running);
                life.go_on(hub, mounted, lock);
                0
            }
            Err(error) => {
                log::error!("start: {error}");
                life.give_up(&mut before, &error, lock);
                reporter.send(&failed(&error));
                1
            }
        }
    }
}

fn start_error(error: mille_sandbox::SpawnError) -> Error {
    Error::Start {
        exit_code: error.exit_code(),
        text: error.to_string(),
    }
}

fn failed(error: &Error) -> Outcome {
    let text = error.to_string();
    Outcome::Failed {
        exit_code: exit_code_of(&text),
        text,
    }
}

/// Cuts the new process off from the command that forked it; what it has to say goes to the file `log`.
pub(crate) fn detach(log: &Path, kept: &[std::os::fd::BorrowedFd<'_>]) -> Result<()> {
    // A session and process group of its own: the terminal's Ctrl-C is not for it.
    nix::unistd::setsid().map_err(|errno| Error::system("start a session")(errno.into()))?;
    sys::close_others(kept).map_err(Error::system("close descriptors"))?;
    sys::limit_malloc();
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::io("open", Path::new("/dev/null"))(errno.into()))?;
    // What the monitor itself has to say, panics included, goes to a file beside the container's log.
    let log = files::open_append(log, 0o600)?;
    let dup = |errno: rustix::io::Errno| Error::system("redirect standard streams")(errno.into());
    rustix::stdio::dup2_stdin(&null).map_err(dup)?;
    rustix::stdio::dup2_stdout(&null).map_err(dup)?;
    rustix::stdio::dup2_stderr(&log).map_err(dup)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|errno| Error::system("reset signal mask")(errno.into()))?;
    // Modes are what this program says, whatever the user's umask takes away from his own files.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    std::env::set_current_dir("/").map_err(Error::system("change directory to /"))?;
    if let Err(errno) = nix::sys::prctl::set_name(c"mille-monitor") {
        log::debug!("set name: {errno}");
    }
    Ok(())
}

struct Life<'a> {
    layout: &'a Layout,
    paths: &'a ContainerPaths,
    container: &'a Container,
    stack: &'a Stack,
    nested: bool,
    /// Empty until the container has some.
    groups: Groups,
}

impl Life<'_> {
    /// Brings the container up to its running command.
    fn start(
        &mut self,
        mut state: StateRecord,
        listener: UnixListener,
        attached: Option<(OwnedFd, Wanted)>,
    ) -> Result<(Hub, Mounted)> {
        container_mounts::make_bind_sources(self.container)?;
        // A predecessor that was killed may have left its mount. Nothing of it is to get into the container's namespace.
        removal::unmount_all(&self.paths.merged())?;
        let namespaces = self.namespaces()?;
        // An undumpable process, as the run before this one left it, could not have its children's id maps written.
        if let Err(errno) = nix::sys::prctl::set_dumpable(true) {
            log::debug!("set dumpable: {errno}");
        }
        self.limit(&mut state)?;
        // The new process sets up what does not depend on the root while this one mounts that.
        let (begun, streams) = self.begin()?;
        let mounted = self.mount()?;
        hosts::write(self.paths, self.container)?;
        let (prepared, mut streams) = self.prepare(begun, streams)?;
        self.note_running(&mut state, &prepared)?;
        // From here on SIGTERM is read by the loop; before, it simply ends this process and all that is in the making.
        let caught = Caught::new(&[Signal::SIGTERM]).map_err(Error::system("catch signals"))?;
        let prober = Prober::new(self.layout, self.container, prepared.pid())?;
        let child = prepared.start().map_err(start_error)?;
        // Nobody may look into this process from now on: it holds every descriptor of the container's layers. Not
        // before, since an undumpable process could not have its children's id maps written.
        if let Err(errno) = nix::sys::prctl::set_dumpable(false) {
            log::warn!("set undumpable: {errno}");
        }
        streams.stdin_once = self.container.config.stdin_once;
        let standing = Standing::new(self.container.id.clone(), self.paths.clone(), state);
        let mut hub = Hub::new(child, listener, caught, streams, standing)
            .map_err(Error::system("prepare the streams"))?;
        hub.log = rotation(&self.container.host_config.log_config)?
            .map(|rotation| JsonLog::open(&self.paths.log(), rotation))
            .transpose()?;
        hub.stop_signal = self.stop_signal();
        hub.subject = Some((self.layout.clone(), Subject::from(self.container)));
        self.note_volumes("mount");
        hub.note("start", &[]);
        hub.prober = prober;
        hub.shares_pids = !self.container.host_config.pid_mode.is_empty();
        hub.namespaces = namespaces;
        hub.merged = self.paths.merged();
        if let Some((socket, wanted)) = attached {
            let channel =
                Channel::new(socket).map_err(Error::system("prepare the client's socket"))?;
            hub.add_client(channel, wanted);
        }
        Ok((hub, mounted))
    }

    /// Opens the socket. What a killed predecessor left there is replaced: the lock is ours.
    fn listen(&self) -> Result<UnixListener> {
        let socket = self.paths.socket();
        files::tolerate_missing(fs::remove_file(&socket)).map_err(Error::io("remove", &socket))?;
        UnixListener::bind(&socket).map_err(Error::io("bind", &socket))
    }

    fn mount(&self) -> Result<Mounted> {
        let fit = self.fit_mark()?;
        let writable = Writable {
            upper: self.paths.upper(),
            work: self.paths.work(),
            fit: fit.exists(),
        };
        let view: Arc<View> = self.stack.open(&writable, Access::Exclusive)?;
        if !writable.fit {
            files::write(&fit, b"", 0o600)?;
        }
        let merged = self.paths.merged();
        let options = MountOptions {
            fsname: "mille".to_owned(),
            subtype: crate::mounts::SUBTYPE.to_owned(),
            ..MountOptions::default()
        };
        mille_union::fuse::mount(view, &merged, &options).map_err(fuse_device::explain)
    }

    /// Exists once an upper on the same file system has been found to hold everything since the machine was started: that
    /// is a dozen changes on the disk, which the next container is spared.
    fn fit_mark(&self) -> Result<PathBuf> {
        let upper = self.paths.upper();
        let meta = fs::metadata(&upper).map_err(Error::io("stat", &upper))?;
        Ok(self.layout.fit_mark(meta.dev()))
    }

    /// Keeps the way in for exec and others: nobody can open /proc/PID/ns of an undumpable process.
    fn namespaces(&self) -> Result<Option<Namespaces>> {
        if !self.nested {
            return Ok(None);
        }
        Ok(Some(outer::namespaces()?))
    }

    /// Has the container's processes made.
    fn begin(&self) -> Result<(Begun, Streams)> {
        let mut spec = launch::spec(self.layout, self.container, self.nested)?;
        spec.cgroup = self.groups.placement();
        let host = Host::probe().map_err(Error::system("examine this machine"))?;
        let plan = Plan::new(&spec, &host).map_err(|error| Error::Invalid(error.to_string()))?;
        let (stdio, streams) = self.pipes().map_err(Error::system("make pipes"))?;
        let begun = mille_sandbox::begin(&plan, stdio).map_err(start_error)?;
        Ok((begun, streams))
    }

    /// Gives them their root, which is mounted.
    fn prepare(&self, begun: Begun, streams: Streams) -> Result<(Prepared, Streams)> {
        let merged = self.paths.merged();
        let mut prepared = begun.with_root(&merged).map_err(start_error)?;
        for warning in prepared.warnings() {
            log::warn!("{warning}");
        }
        let streams = match prepared.take_pty() {
            Some(terminal) => {
                terminal_streams(terminal).map_err(Error::system("prepare the terminal"))?
            }
            None => streams,
        };
        Ok((prepared, streams))
    }

    /// Makes the pipes of a container without a terminal.
    fn pipes(&self) -> io::Result<(Stdio, Streams)> {
        let mut stdio = Stdio::default();
        let mut streams = Streams {
            stdin: None,
            outputs: Vec::new(),
            terminal: None,
            stdin_once: false,
        };
        if self.container.config.tty {
            return Ok((stdio, streams));
        }
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        if self.container.config.open_stdin {
            let (reader, writer) = pipe()?;
            stdio.stdin = Some(reader);
            streams.stdin = Some(writer);
        }
        for (stream, slot) in [
            (LogStream::Stdout, &mut stdio.stdout),
            (LogStream::Stderr, &mut stdio.stderr),
        ] {
            let (reader, writer) = pipe()?;
            *slot = Some(writer);
            streams.outputs.push((reader, stream));
        }
        Ok((stdio, streams))
    }

    /// Makes the control groups of a container that has limits.
    fn limit(&mut self, state: &mut StateRecord) -> Result<()> {
        // As they are now: `update` may have changed them since the run before.
        let record = records::read(self.layout, &self.container.id)?;
        let resources = record.map(|record| record.host_config.resources);
        let resources = resources.unwrap_or_default();
        if !Groups::are_needed(&resources) {
            return Ok(());
        }
        let paths = self.paths;
        self.groups = Groups::make(&self.container.id, &resources, |directories| {
            // Before they are there: who clears up after us finds them by it.
            state.cgroups = directories.to_vec();
            records::write_state(paths, state)
        })?;
        Ok(())
    }

    /// Takes the control groups away after a run, and notes whether the kernel killed something in them for memory.
    fn unlimit(&mut self, hub: &mut Hub) {
        // A limit may have been given to it while it ran.
        let groups = match self.groups.placement() {
            Some(_) => std::mem::take(&mut self.groups),
            None if self.paths.limited().exists() => Groups::made_later(&self.container.id),
            None => Groups::default(),
        };
        let killed = groups.out_of_memory();
        if killed {
            hub.note("oom", &[]);
        }
        groups.remove();
        let record = &mut hub.standing.record;
        record.state.oom_killed = killed;
        record.cgroups.clear();
    }

    fn note_running(&self, state: &mut StateRecord, prepared: &Prepared) -> Result<()> {
        let init = prepared.pid().as_raw();
        let own = nix::unistd::getpid().as_raw();
        let start = |pid: i32| {
            crate::process::stat(pid)
                .map(|stat| stat.start)
                .unwrap_or_default()
        };
        state.state.begin(init, records::now());
        let check = Check::of(self.container.config.healthcheck.as_ref());
        state.state.health = check.map(|_| Health::starting());
        state.monitor = own;
        state.monitor_start = start(own);
        state.init_start = start(init);
        records::write_state(self.paths, state)
    }

    /// Notes that the container has its volumes, or has them no more.
    fn note_volumes(&self, action: &str) {
        container_mounts::note_volumes(self.layout, self.container, action);
    }

    fn stop_signal(&self) -> i32 {
        signals::parse(&self.container.config.stop_signal).unwrap_or(libc::SIGTERM)
    }

    /// Carries the container through its runs: one, or as many as its policy wants.
    fn go_on(&mut self, mut hub: Hub, mut mounted: Mounted, lock: Lock) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let result = hub.run();
            let awake = Awake::new();
            let held = awake.as_ref().map(Awake::hold);
            let code = *result.as_ref().unwrap_or(&records::KILLED);
            self.unlimit(&mut hub);
            hub.note("die", &[("exitCode", code.to_string())]);
            self.unmount(&mounted);
            self.note_volumes("unmount");
            let code = match result {
                Ok(code) if !hub.last && self.wants_another(&hub, code) => code,
                result => return self.end(&mut hub, result, Some(mounted), lock),
            };
            drop((mounted, held));
            let noted = hub
                .standing
                .change(|state| state.set_restarting(code, records::now()));
            note(noted);
            hub.farewell(code);
            let wait = backoff.next(began.elapsed());
            let next = hub.wait_for_next_run(code, wait);
            if !matches!(next, Ok(true)) {
                return self.end(&mut hub, next.map(|_| code), None, lock);
            }
            let Heritage {
                listener,
                standing,
                clients,
            } = hub.leave();
            let mut state = standing.record;
            state.restart_count += 1;
            match self.start(state.clone(), listener, None) {
                Ok(next) => (hub, mounted) = next,
                Err(error) => {
                    log::error!("start again: {error}");
                    return self.give_up(&mut state, &error, lock);
                }
            }
            hub.clients = clients;
        }
    }

    /// Returns whether the policy, as it is now, wants one more run.
    fn wants_another(&self, hub: &Hub, code: i32) -> bool {
        match records::read(self.layout, &self.container.id) {
            Ok(Some(record)) => restart::wants(
                &record.host_config.restart_policy,
                code,
                hub.standing.record.restart_count,
            ),
            _ => false,
        }
    }

    /// Notes the end of a container whose root is unmounted, and tells everybody.
    fn end(&self, hub: &mut Hub, result: io::Result<i32>, mounted: Option<Mounted>, lock: Lock) {
        let (code, text) = match result {
            Ok(code) => (code, String::new()),
            Err(error) => {
                log::error!("loop: {error}");
                (records::KILLED, format!("the monitor failed: {error}"))
            }
        };
        let state = &mut hub.standing.record;
        state.state.end(code, text, records::now());
        let removed = self.is_removed(hub.kept);
        // The threads of the server end while the container's files are removed. Where they stay, somebody may start the
        // container at once, and is to find its upper free.
        let ending = mounted.filter(|_| removed);
        self.settle(&mut hub.standing.record, removed, lock);
        drop(ending);
        hub.child.finish();
        hub.farewell(code);
    }

    /// Takes down what a failed start had built.
    fn give_up(&mut self, state: &mut StateRecord, error: &Error, lock: Lock) {
        note(removal::unmount_all(&self.paths.merged()));
        self.groups.remove();
        let text = error.to_string();
        let exit_code = match error {
            Error::Start { exit_code, .. } => *exit_code,
            _ => exit_code_of(&text),
        };
        state.state.fail(exit_code, text);
        self.settle(state, self.is_removed(false), lock);
    }

    fn unmount(&self, mounted: &Mounted) {
        if let Err(error) = mounted.unmount() {
            log::warn!("unmount: {error}");
        }
        note(removal::unmount_all(&self.paths.merged()));
    }

    /// Whether the container goes with its end.
    fn is_removed(&self, kept: bool) -> bool {
        self.container.host_config.auto_remove && !kept
    }

    /// Writes the last state, or removes the container; lets go of it.
    fn settle(&self, state: &mut StateRecord, removed: bool, lock: Lock) {
        state.monitor = 0;
        if removed {
            let volumes = removal::Volumes::Anonymous;
            note(removal::remove(
                self.layout,
                &self.container.id,
                volumes,
                lock,
            ));
        } else {
            note(records::write_state(self.paths, state));
            note(removal::remove_run_directory(self.paths));
            drop(lock);
        }
    }
}

fn terminal_streams(terminal: OwnedFd) -> io::Result<Streams> {
    let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    Ok(Streams {
        stdin: Some(copy(&terminal)?),
        outputs: vec![(copy(&terminal)?, LogStream::Stdout)],
        terminal: Some(terminal),
        stdin_once: false,
    })
}

/// At the end there is nobody to report to but the monitor's own log.
fn note(result: Result<()>) {
    if let Err(error) = result {
        log::error!("{error}");
    }
}
