//! One more command in a running container.
//!
//! The calling process itself joins the container's namespaces and forks the command: no monitor, no lock and no file
//! takes part, so any number of them run side by side.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use mille_sandbox::outer;
use mille_sandbox::{Child, Failure, SpawnError, Stdio, WindowSize};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags};

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Subject;
use crate::exec_events::ExecEvents;
use crate::exec_records::Running;
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::limits::Groups;
use crate::message::Message;
use crate::monitor::descriptors;
use crate::options::{ClientIo, Ended, ExecOptions};
use crate::relay::{DetachKeys, Outlet, read_once, streams};
use crate::signals::Caught;
use crate::terminal::{self, Raw};
use crate::{launch, process, records, stop, sys};

/// Bytes read at once.
const CHUNK_BYTES: usize = 32 * 1024;
/// Bytes that may wait in one direction before its source is left unread.
const QUEUE_BYTES: usize = 256 * 1024;

/// A command that has been started.
struct Started {
    child: Child,
    ours: Ours,
    events: ExecEvents,
    record: Result<Running>,
}

/// A container that a command may be started in.
struct Entered {
    container: Container,
    init: i32,
    /// Keeps the number from being given to another process while it is used.
    first: OwnedFd,
}

/// Runs a command in a container and returns its exit code; that of a detached one is 0.
pub(crate) fn exec(
    engine: &Engine,
    id: &ContainerId,
    options: &ExecOptions,
    io: &ClientIo<'_>,
) -> Result<i32> {
    let entered = enter(engine, id)?;
    if options.detach {
        return detached(engine, &entered, options, io).map(|()| 0);
    }
    let mut started = start(engine, &entered, options, io)?;
    let ended =
        Relay::new(&mut started.child, started.ours, options, io).and_then(|mut relay| relay.run());
    match ended.map_err(streams("carry the command's streams"))? {
        Ended::Exited(code) => {
            note_end(id, started.events, started.record, code);
            Ok(code)
        }
        Ended::Detached => Ok(0),
        Ended::Interrupted(number) => Ok(128 + number),
    }
}

/// Starts a command and leaves a process behind that waits for its end, which only the one that made it is told, and keeps
/// its terminal.
fn detached(
    engine: &Engine,
    entered: &Entered,
    options: &ExecOptions,
    io: &ClientIo<'_>,
) -> Result<()> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::system("make a pipe")(errno.into()))?;
    if let sys::Side::Child = sys::fork().map_err(Error::system("fork"))? {
        drop(reader);
        keep(engine, entered, options, io, writer);
    }
    drop(writer);
    let mut said = String::new();
    std::fs::File::from(reader)
        .read_to_string(&mut said)
        .map_err(Error::system("read from the command's keeper"))?;
    match said.as_str() {
        STARTED => Ok(()),
        ENDED | "" => Err(Error::NotRunning(entered.container.id.to_string())),
        text => Err(Error::Exec(text.to_owned())),
    }
}

/// What the keeper says of a command that runs, and of a container that has ended; everything else is an error's text.
const STARTED: &str = "+";
const ENDED: &str = "-";

/// Is the keeper of a detached command.
fn keep(
    engine: &Engine,
    entered: &Entered,
    options: &ExecOptions,
    io: &ClientIo<'_>,
    writer: OwnedFd,
) -> ! {
    let kept = [writer.as_fd(), entered.first.as_fd()];
    let started = crate::monitor::detach(Path::new("/dev/null"), &kept)
        .and_then(|()| start(engine, entered, options, io));
    let said = match &started {
        Ok(_) => STARTED.to_owned(),
        Err(Error::NotRunning(_)) => ENDED.to_owned(),
        Err(error) => error.to_string(),
    };
    let told = std::fs::File::from(writer).write_all(said.as_bytes());
    if let Err(error) = told {
        log::debug!("tell that a command runs: {error}");
    }
    let Ok(mut started) = started else {
        sys::exit_now(1);
    };
    let ended =
        Relay::new(&mut started.child, started.ours, options, io).and_then(|mut relay| relay.run());
    let code = match ended {
        Ok(Ended::Exited(code)) => code,
        Ok(_) | Err(_) => records::KILLED,
    };
    note_end(&entered.container.id, started.events, started.record, code);
    sys::exit_now(0)
}

/// Notes that a command has ended.
fn note_end(id: &ContainerId, events: ExecEvents, record: Result<Running>, code: i32) {
    if let Err(error) = record.and_then(Running::forget) {
        log::warn!("record of a command in {id}: {error}");
    }
    events.end(code);
}

/// Looks whether a container can be entered.
fn enter(engine: &Engine, id: &ContainerId) -> Result<Entered> {
    let not_running = || Error::NotRunning(id.to_string());
    let container = engine.load(id)?;
    if !container.is_running() {
        return Err(not_running());
    }
    if container.state.restarting {
        return Err(Error::Restarting(id.to_string()));
    }
    if container.state.paused {
        return Err(Error::ExecPaused(id.to_string()));
    }
    let state = records::read_state(&engine.layout.container(id))?;
    let first = process::open(state.state.pid, state.init_start).ok_or_else(not_running)?;
    Ok(Entered {
        container,
        init: state.state.pid,
        first,
    })
}

/// Starts a command in a container.
fn start(
    engine: &Engine,
    entered: &Entered,
    options: &ExecOptions,
    io: &ClientIo<'_>,
) -> Result<Started> {
    let (container, init) = (&entered.container, entered.init);
    join(engine, &container.id)?;
    let mut spec = launch::exec_spec(&engine.layout, container, options)?;
    spec.window = window(io).filter(|_| options.terminal);
    spec.cgroup = Groups::of_command(container, init);
    let (stdio, ours) = pipes(options, io).map_err(Error::system("make pipes"))?;
    let entrance = process::entrance(init);
    let subject = Subject::from(container);
    // As docker: also of one that cannot be executed, which then has no end.
    let events = ExecEvents::begin(&engine.layout, subject, &options.command)?;
    let child = mille_sandbox::exec(Pid::from_raw(entrance.pid), &spec, stdio)
        .map_err(|error| refused(&error, &container.id, &entered.first))?;
    // It runs already: an unwritable record is no reason to leave it alone.
    let paths = engine.layout.container(&container.id);
    let record = Running::note(&paths, events.id(), child.pid().as_raw());
    Ok(Started {
        child,
        ours,
        events,
        record,
    })
}

/// How long a container may take to end whose first process has been killed: it goes after all others (kernel,
/// `zap_pid_ns_processes`), and no process can be made there any more from its death on.
const ENDING: Duration = Duration::from_millis(200);

/// What a failed start of the command means. In a container that ends meanwhile anything may fail.
fn refused(error: &SpawnError, id: &ContainerId, first: &OwnedFd) -> Error {
    let patience = match error.failure {
        Failure::NotRunning => return Error::NotRunning(id.to_string()),
        Failure::System { .. } | Failure::Vanished => ENDING,
        _ => Duration::ZERO,
    };
    if process::ends_within(first, patience) {
        Error::NotRunning(id.to_string())
    } else {
        Error::Exec(error.to_string())
    }
}

/// As an ordinary user, enters the user namespace the container's own is nested in: its monitor hands it over.
pub(crate) fn join(engine: &Engine, id: &ContainerId) -> Result<()> {
    if engine.mode == crate::Mode::Root {
        return Ok(());
    }
    if let Some(namespaces) = namespaces(&engine.layout, id)? {
        outer::join_namespaces(namespaces.user.as_fd(), namespaces.mount.as_fd())?;
    }
    Ok(())
}

/// Asks a container's monitor for the namespaces it lives in; `None`: those of the host.
pub(crate) fn namespaces(layout: &Layout, id: &ContainerId) -> Result<Option<outer::Namespaces>> {
    let out_of_reach = || Error::Monitor {
        id: id.to_string(),
        reason: "its socket is out of reach".to_owned(),
    };
    let mut channel = stop::connect(layout, id)?.ok_or_else(out_of_reach)?;
    channel.queue(&Message::Namespaces);
    let ask = |channel: &mut crate::channel::Channel| -> io::Result<Option<outer::Namespaces>> {
        channel.flush()?;
        let mut fds = [PollFd::new(&*channel, PollFlags::IN)];
        rustix::event::poll(&mut fds, None)?;
        descriptors::receive(&*channel)
    };
    ask(&mut channel).map_err(|error| match error.kind() {
        // What came is no answer but the monitor's farewell, or its end.
        io::ErrorKind::InvalidData
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe => Error::NotRunning(id.to_string()),
        _ => Error::system("ask the monitor for its namespaces")(error),
    })
}

fn window(io: &ClientIo<'_>) -> Option<WindowSize> {
    let (rows, columns) = [io.stdin, io.stdout]
        .into_iter()
        .flatten()
        .find_map(terminal::size)?;
    Some(WindowSize { rows, columns })
}

/// Our ends of the command's streams.
#[derive(Debug, Default)]
struct Ours {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

/// Makes the pipes of a command without a terminal. Never are the caller's own descriptors handed in: what is inside
/// could reopen the file behind one of them.
fn pipes(options: &ExecOptions, io: &ClientIo<'_>) -> io::Result<(Stdio, Ours)> {
    let (mut stdio, mut ours) = (Stdio::default(), Ours::default());
    if options.terminal || options.detach {
        return Ok((stdio, ours));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    if io.stdin.is_some() {
        let (reader, writer) = pipe()?;
        rustix::io::ioctl_fionbio(&writer, true)?;
        (stdio.stdin, ours.stdin) = (Some(reader), Some(writer));
    }
    for (theirs, our) in [
        (&mut stdio.stdout, &mut ours.stdout),
        (&mut stdio.stderr, &mut ours.stderr),
    ] {
        let (reader, writer) = pipe()?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        (*theirs, *our) = (Some(writer), Some(reader));
    }
    Ok((stdio, ours))
}

/// One direction of output: from the command to the caller.
struct Flow<'a> {
    from: Option<OwnedFd>,
    to: Option<Outlet<BorrowedFd<'a>>>,
}

impl Flow<'_> {
    fn pending_bytes(&self) -> usize {
        self.to.as_ref().map_or(0, Outlet::pending_bytes)
    }

    /// Moves what came; an end is noted.
    fn read(&mut self) -> io::Result<()> {
        let Some(from) = &self.from else {
            return Ok(());
        };
        match read_once(from, CHUNK_BYTES)? {
            None => {}
            Some(bytes) if bytes.is_empty() => self.from = None,
            Some(bytes) => {
                if let Some(to) = &mut self.to {
                    to.push(&bytes);
                }
            }
        }
        Ok(())
    }
}

/// The streams of a running command.
struct Relay<'a> {
    child: &'a mut Child,
    io: &'a ClientIo<'a>,
    caught: Caught,
    terminal: Option<OwnedFd>,
    stdin: Option<BorrowedFd<'a>>,
    input: Option<Outlet<OwnedFd>>,
    output: Flow<'a>,
    error: Flow<'a>,
    keys: DetachKeys,
    exit: Option<i32>,
    /// Dropped last: the terminal is put back whatever happens.
    _raw: Option<Raw>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Child,
    Signals,
    Stdin,
    Input,
    Read(bool),
    Write(bool),
}

impl<'a> Relay<'a> {
    fn new(
        child: &'a mut Child,
        ours: Ours,
        options: &ExecOptions,
        io: &'a ClientIo<'a>,
    ) -> io::Result<Self> {
        let terminal = child.take_pty();
        let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3);
        let mut ours = ours;
        if let Some(terminal) = &terminal {
            rustix::io::ioctl_fionbio(terminal, true)?;
            ours.stdin = io.stdin.map(|_| copy(terminal)).transpose()?;
            ours.stdout = Some(copy(terminal)?);
        }
        let raw = match io.stdin {
            Some(stdin) if options.terminal => Raw::enter(stdin)?,
            _ => None,
        };
        let keys = if options.terminal {
            io.detach_keys.as_slice()
        } else {
            &[]
        };
        Ok(Self {
            child,
            io,
            caught: Caught::new(&[nix::sys::signal::Signal::SIGWINCH])?,
            terminal,
            stdin: io.stdin,
            input: ours.stdin.map(Outlet::new),
            output: Flow {
                from: ours.stdout,
                to: io.stdout.map(Outlet::new),
            },
            error: Flow {
                from: ours.stderr,
                to: io.stderr.map(Outlet::new),
            },
            keys: DetachKeys::new(keys),
            exit: None,
            _raw: raw,
        })
    }

    fn run(&mut self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.finished() {
                return Ok(ended);
            }
            for source in self.poll()? {
                match source {
                    Source::Child => self.exit = Some(self.child.wait()?.code()),
                    Source::Signals => self.resize()?,
                    Source::Stdin => {
                        if self.typed()? {
                            return Ok(Ended::Detached);
                        }
                    }
                    Source::Input => self.feed()?,
                    Source::Read(error) => self.flow(error).read()?,
                    Source::Write(error) => {
                        if let Some(to) = &mut self.flow(error).to {
                            to.write_to_caller(stream_name(error))?;
                        }
                    }
                }
            }
        }
    }

    fn flow(&mut self, error: bool) -> &mut Flow<'a> {
        if error {
            &mut self.error
        } else {
            &mut self.output
        }
    }

    /// The command has ended and everything it wrote is out. Descendants that still hold its output are not waited
    /// for: what is in the pipe when it ends is read, no more.
    fn finished(&mut self) -> Option<Ended> {
        let closed = |flow: &Flow<'_>| flow.to.as_ref().is_some_and(Outlet::is_closed);
        if closed(&self.output) || closed(&self.error) {
            return Some(Ended::Interrupted(libc::SIGPIPE));
        }
        let code = self.exit?;
        let drained = [&self.output, &self.error].iter().all(|flow| {
            let silent = flow.from.as_ref().is_none_or(|from| !readable(from));
            silent && flow.pending_bytes() == 0
        });
        drained.then_some(Ended::Exited(code))
    }

    fn poll(&self) -> io::Result<Vec<Source>> {
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::new();
        if self.exit.is_none() {
            watched.push((Source::Child, self.child.pidfd(), PollFlags::IN));
        }
        watched.push((Source::Signals, self.caught.as_fd(), PollFlags::IN));
        let waiting = self.input.as_ref().map_or(0, Outlet::pending_bytes);
        if let Some(stdin) = self
            .stdin
            .filter(|_| waiting < QUEUE_BYTES && self.exit.is_none())
        {
            watched.push((Source::Stdin, stdin, PollFlags::IN));
        }
        if let Some(input) = self
            .input
            .as_ref()
            .filter(|input| input.pending_bytes() > 0)
        {
            watched.push((Source::Input, input.as_fd(), PollFlags::OUT));
        }
        for (flow, error) in [(&self.output, false), (&self.error, true)] {
            if let Some(from) = flow
                .from
                .as_ref()
                .filter(|_| flow.pending_bytes() < QUEUE_BYTES)
            {
                watched.push((Source::Read(error), from.as_fd(), PollFlags::IN));
            }
            if let Some(to) = flow.to.as_ref().filter(|to| to.pending_bytes() > 0) {
                watched.push((Source::Write(error), to.as_fd(), PollFlags::OUT));
            }
        }
        let mut fds: Vec<_> = watched
            .iter()
            .map(|&(_, fd, flags)| PollFd::from_borrowed_fd(fd, flags))
            .collect();
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
        let happened = watched
            .iter()
            .zip(&fds)
            .filter(|(_, fd)| !fd.revents().is_empty());
        Ok(happened.map(|(&(source, ..), _)| source).collect())
    }

    fn resize(&mut self) -> io::Result<()> {
        while self.caught.next()?.is_some() {
            if let (Some(terminal), Some(size)) = (&self.terminal, window(self.io)) {
                terminal::resize(terminal, size.rows, size.columns)?;
            }
        }
        Ok(())
    }

    /// Takes what was typed; returns whether the detach keys are complete.
    fn typed(&mut self) -> io::Result<bool> {
        let Some(stdin) = self.stdin else {
            return Ok(false);
        };
        let Some(bytes) = read_once(stdin, CHUNK_BYTES)? else {
            return Ok(false);
        };
        if bytes.is_empty() {
            self.stdin = None;
            self.close_input();
            return Ok(false);
        }
        let (passed, detach) = self.keys.filter(&bytes);
        if let Some(input) = &mut self.input {
            input.push(&passed);
        }
        Ok(detach)
    }

    fn feed(&mut self) -> io::Result<()> {
        if let Some(input) = &mut self.input {
            input.write_once()?;
        }
        self.close_input();
        Ok(())
    }

    /// The command's input ends when ours has ended and everything is written. A terminal stays.
    fn close_input(&mut self) {
        let empty = self
            .input
            .as_ref()
            .is_none_or(|input| input.pending_bytes() == 0);
        if self.stdin.is_none() && empty && self.terminal.is_none() {
            self.input = None;
        }
    }
}

fn stream_name(error: bool) -> &'static str {
    if error { "/dev/stderr" } else { "/dev/stdout" }
}

/// Returns whether a read would give something now.
fn readable(fd: &OwnedFd) -> bool {
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
        && fds[0].revents().contains(PollFlags::IN)
}
