//! The loop of a monitor: the container's streams, its log, its clients, its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mille_sandbox::Child;
use mille_sandbox::outer::Namespaces;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::channel::Channel;
use crate::events::Subject;
use crate::freeze::Frozen;
use crate::health::Health;
use crate::layout::Layout;
use crate::logs::LogStream;
use crate::logs::write::{JsonLog, Splitter};
use crate::message::Message;
use crate::pause::Held;
use crate::relay::{Outlet, read_once};
use crate::signals::Caught;
use crate::terminal;

use super::client::{Client, NO_STREAMS};
use super::prober::Prober;
use super::standing::Standing;

/// Bytes read from the container at once: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// Standard input that may wait for the container before clients are left unread.
const STDIN_QUEUE_BYTES: usize = 256 * 1024;
/// How long output is still collected after the first process has ended: its descendants have been killed with it, so
/// the pipes end at once unless somebody outside holds one.
const DRAIN: Duration = Duration::from_secs(2);
/// Most clients at a time; beyond that a connection is closed at once.
const MAX_CLIENTS: usize = 64;

/// One output stream of the container.
#[derive(Debug)]
struct Output {
    fd: OwnedFd,
    stream: LogStream,
    splitter: Splitter,
}

/// The descriptors between a monitor and its container.
#[derive(Debug)]
pub(super) struct Streams {
    /// Write end of standard input, or the terminal.
    pub(super) stdin: Option<OwnedFd>,
    /// Read ends, or the terminal.
    pub(super) outputs: Vec<(OwnedFd, LogStream)>,
    /// The terminal, for its size.
    pub(super) terminal: Option<OwnedFd>,
    /// Standard input ends with the first client that sent it.
    pub(super) stdin_once: bool,
}

/// Everything the loop watches.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) child: Child,
    pub(super) listener: UnixListener,
    pub(super) caught: Caught,
    pub(super) log: Option<JsonLog>,
    /// To be sent to whoever wants to join; `None` where there is no namespace of ours.
    pub(super) namespaces: Option<Namespaces>,
    /// The root as it is mounted.
    pub(super) merged: PathBuf,
    /// What is known of the container.
    pub(super) standing: Standing,
    /// It is started again by somebody who ends it now: not to be removed.
    pub(super) kept: bool,
    /// Somebody ends it: not to be started again by its policy.
    pub(super) last: bool,
    /// Looks whether the container is well.
    pub(super) prober: Option<Prober>,
    /// Its end is not that of the processes it leaves behind.
    pub(super) shares_pids: bool,
    /// Tells what happens.
    pub(super) subject: Option<(Layout, Subject)>,
    /// The signal that stops it.
    pub(super) stop_signal: i32,
    stdin: Option<Outlet<OwnedFd>>,
    stdin_once: bool,
    /// It closes when what waits has been written.
    stdin_ending: bool,
    outputs: Vec<Output>,
    terminal: Option<OwnedFd>,
    pub(super) clients: Vec<Client>,
    /// Held still for a client, or paused.
    held: Option<Held>,
    log_failed: bool,
}

/// Which descriptor a poll entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Child,
    Listener,
    Signals,
    /// A probe of the container's health: looked after in every round.
    Probe,
    Stdin,
    Output(usize),
    Client(usize),
}

/// What one client wants, collected before it is acted on.
type Wish = (usize, Message);

impl Hub {
    pub(super) fn new(
        child: Child,
        listener: UnixListener,
        caught: Caught,
        streams: Streams,
        standing: Standing,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut outputs = Vec::new();
        for (fd, stream) in streams.outputs {
            rustix::io::ioctl_fionbio(&fd, true)?;
            outputs.push(Output {
                fd,
                stream,
                splitter: Splitter::default(),
            });
        }
        if let Some(stdin) = &streams.stdin {
            rustix::io::ioctl_fionbio(stdin, true)?;
        }
        Ok(Self {
            child,
            listener,
            caught,
            log: None,
            namespaces: None,
            merged: PathBuf::new(),
            standing,
            kept: false,
            last: false,
            prober: None,
            shares_pids: false,
            subject: None,
            stop_signal: libc::SIGTERM,
            stdin: streams.stdin.map(Outlet::new),
            stdin_once: streams.stdin_once,
            stdin_ending: false,
            outputs,
            terminal: streams.terminal,
            clients: Vec::new(),
            held: None,
            log_failed: false,
        })
    }

    /// Adds a client that is connected already.
    pub(super) fn add_client(&mut self, channel: Channel, streams: crate::options::Streams) {
        self.clients.push(Client::new(channel, streams));
    }

    /// Runs until the first process has ended and its output is collected; returns its exit code.
    pub(super) fn run(&mut self) -> io::Result<i32> {
        loop {
            if self.step(None)? {
                break;
            }
        }
        let code = self.child.wait()?.code();
        self.held = None;
        if self.shares_pids {
            crate::stragglers::kill(&self.merged);
        }
        self.drain()?;
        Ok(code)
    }

    /// Collects what is left in the pipes.
    fn drain(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + DRAIN;
        while !self.outputs.is_empty() {
            let now = Instant::now();
            if now >= deadline {
                log::warn!("the container's output is still held open by somebody: left");
                break;
            }
            // Clients that take nothing must not keep the container from its end.
            self.step(Some(deadline - now))?;
        }
        for mut output in std::mem::take(&mut self.outputs) {
            self.finish_output(&mut output);
        }
        Ok(())
    }

    /// Waits once and acts; returns whether the first process has ended.
    fn step(&mut self, patience: Option<Duration>) -> io::Result<bool> {
        let draining = patience.is_some();
        let now = Instant::now();
        self.flush_clients(now);
        let mut ended = false;
        for (source, events) in self.poll(draining, patience)? {
            match source {
                Source::Child => ended = true,
                Source::Listener => self.accept(),
                Source::Signals => self.terminate()?,
                Source::Probe => {}
                Source::Stdin => self.feed()?,
                Source::Output(index) => self.read_output(index)?,
                Source::Client(index) => self.hear(index, events)?,
            }
        }
        if !draining && !ended {
            self.look_after_health();
        }
        self.forget_gone();
        Ok(ended)
    }

    pub(super) fn flush_clients(&mut self, now: Instant) {
        for client in &mut self.clients {
            client.flush(now);
        }
        self.forget_gone();
    }

    fn poll(
        &self,
        draining: bool,
        patience: Option<Duration>,
    ) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::new();
        if !draining {
            watched.push((Source::Child, self.child.pidfd(), PollFlags::IN));
            watched.push((Source::Signals, self.caught.as_fd(), PollFlags::IN));
            let probes = self.prober.iter().flat_map(Prober::watched);
            watched.extend(probes.map(|fd| (Source::Probe, fd, PollFlags::IN)));
        }
        watched.push((Source::Listener, self.listener.as_fd(), PollFlags::IN));
        if let Some(stdin) = self
            .stdin
            .as_ref()
            .filter(|stdin| stdin.pending_bytes() > 0)
        {
            watched.push((Source::Stdin, stdin.as_fd(), PollFlags::OUT));
        }
        if draining || !self.clients.iter().any(Client::is_full) {
            let outputs = self.outputs.iter().enumerate();
            watched.extend(
                outputs.map(|(at, output)| (Source::Output(at), output.fd.as_fd(), PollFlags::IN)),
            );
        }
        let stdin_full = self
            .stdin
            .as_ref()
            .is_some_and(|stdin| stdin.pending_bytes() >= STDIN_QUEUE_BYTES);
        for (at, client) in self.clients.iter().enumerate() {
            let mut interest = client.channel.interest();
            if stdin_full && client.streams.stdin {
                interest.remove(PollFlags::IN);
            }
            watched.push((Source::Client(at), client.channel.as_fd(), interest));
        }
        let mut fds: Vec<_> = watched
            .iter()
            .map(|&(_, fd, flags)| PollFd::from_borrowed_fd(fd, flags))
            .collect();
        let timeout = self.timeout(patience);
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
        let happened = watched
            .iter()
            .map(|&(source, ..)| source)
            .zip(fds.iter().map(PollFd::revents));
        Ok(happened.filter(|(_, events)| !events.is_empty()).collect())
    }

    /// The earliest moment at which something has to be done although nothing happens.
    fn timeout(&self, patience: Option<Duration>) -> Option<Timespec> {
        let now = Instant::now();
        let stuck = self.clients.iter().filter_map(Client::deadline).min();
        let stuck = stuck.map(|deadline| deadline.saturating_duration_since(now));
        let probe = self.prober.as_ref().map(|prober| prober.patience(now));
        // While output is drained nothing is probed.
        let probe = probe.filter(|_| patience.is_none());
        let least = [patience, stuck, probe].into_iter().flatten().min()?;
        Timespec::try_from(least).ok()
    }

    pub(super) fn accept(&mut self) {
        match self.listener.accept() {
            Ok((stream, _)) if self.clients.len() < MAX_CLIENTS => {
                match Channel::new(stream.into()) {
                    Ok(channel) => self.add_client(channel, NO_STREAMS),
                    Err(error) => log::warn!("accept: {error}"),
                }
            }
            Ok(_) => log::warn!("more than {MAX_CLIENTS} clients: one refused"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => log::warn!("accept: {error}"),
        }
    }

    /// Somebody ends this monitor (the machine goes down, or the socket is out of reach): the container ends first.
    fn terminate(&mut self) -> io::Result<()> {
        while let Some(number) = self.caught.next()? {
            log::info!("signal {number}: killing the container");
            self.signal(libc::SIGKILL);
        }
        Ok(())
    }

    fn signal(&mut self, number: i32) {
        self.last |= ends(number, self.stop_signal);
        self.note("kill", &[("signal", number.to_string())]);
        let sent = Signal::try_from(number)
            .map_err(io::Error::from)
            .and_then(|signal| self.child.signal(signal));
        if let Err(error) = sent {
            log::warn!("send signal {number}: {error}");
        }
        // As docker: a signal that may end it finds it awake.
        self.wake();
    }

    /// Goes on with probing, and notes what it came to. A paused container is not probed.
    fn look_after_health(&mut self) {
        let paused = self.standing.record.state.paused;
        let Some(prober) = &mut self.prober else {
            return;
        };
        let Some(result) = prober.step(paused) else {
            return;
        };
        let (early, check) = (prober.is_early(), prober.check.clone());
        let before = self.standing.record.state.health.clone();
        let noted = self.standing.change(|state| {
            let mut health = state.health.take().unwrap_or_else(Health::starting);
            health.take(result, &check, early);
            state.health = Some(health);
        });
        if let Err(error) = noted {
            log::error!("{error}");
        }
        let status = |health: &Option<Health>| health.as_ref().map(|health| health.status.clone());
        let now = status(&self.standing.record.state.health);
        if let Some(status) = now.filter(|now| status(&before).as_ref() != Some(now)) {
            self.note(&format!("health_status: {status}"), &[]);
        }
    }

    /// Notes an event of the container.
    pub(super) fn note(&self, action: &str, more: &[(&str, String)]) {
        if let Some((layout, subject)) = &self.subject {
            subject.note(layout, action, more);
        }
    }

    /// Lets a container go on that is held still, whoever asked for it.
    fn wake(&mut self) {
        self.held = None;
        if self.standing.record.state.paused {
            self.note_awake();
        }
    }

    fn note_awake(&mut self) {
        if let Err(error) = self.standing.change(|state| state.set_paused(false)) {
            log::error!("{error}");
        }
    }

    fn observe(&self) -> Message {
        let usage = crate::usage::of(&self.standing.id, self.child.pid());
        let usage = usage.map_err(|error| error.to_string());
        let text = usage
            .and_then(|usage| serde_json::to_string(&usage).map_err(|error| error.to_string()));
        text.map_or_else(Message::Failed, Message::Observed)
    }

    fn pause(&mut self) -> io::Result<()> {
        if self.standing.record.state.paused {
            return Err(io::Error::other("it is already paused"));
        }
        self.hold()?;
        let noted = self.standing.change(|state| state.set_paused(true));
        if noted.is_err() {
            self.let_go();
        }
        noted.map_err(io::Error::other)
    }

    fn unpause(&mut self) -> io::Result<()> {
        if !self.standing.record.state.paused {
            return Err(io::Error::other("it is not paused"));
        }
        self.note_awake();
        self.let_go();
        Ok(())
    }

    fn hold(&mut self) -> io::Result<()> {
        if self.held.is_none() {
            self.held = Some(Held::new(self.child.pid())?);
        }
        Ok(())
    }

    /// Lets the container go on unless it is paused or a client wants it still.
    fn let_go(&mut self) {
        let wanted = self.clients.iter().any(|client| client.freezes);
        if !wanted && !self.standing.record.state.paused {
            self.held = None;
        }
    }

    fn feed(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        stdin.write_once()?;
        self.close_finished_stdin();
        Ok(())
    }

    fn read_output(&mut self, index: usize) -> io::Result<()> {
        let Some(output) = self.outputs.get_mut(index) else {
            return Ok(());
        };
        let Some(bytes) = read_once(&output.fd, READ_BYTES)? else {
            return Ok(());
        };
        let stream = output.stream;
        if bytes.is_empty() {
            let mut output = self.outputs.remove(index);
            self.finish_output(&mut output);
            return Ok(());
        }
        if let Some(log) = &mut self.log {
            let time = crate::records::now();
            let written = output
                .splitter
                .feed(&bytes, |piece| log.push(stream, piece, &time));
            let written = written.and_then(|()| log.flush());
            note_log_failure(written, &mut self.log_failed);
        }
        self.broadcast(stream, bytes);
        Ok(())
    }

    fn finish_output(&mut self, output: &mut Output) {
        if let Some(log) = &mut self.log {
            let time = crate::records::now();
            let written = output
                .splitter
                .finish(|piece| log.push(output.stream, piece, &time));
            note_log_failure(written.and_then(|()| log.flush()), &mut self.log_failed);
        }
    }

    fn broadcast(&mut self, stream: LogStream, bytes: Vec<u8>) {
        let wants = |client: &Client| match stream {
            LogStream::Stdout => client.streams.stdout,
            LogStream::Stderr => client.streams.stderr,
        };
        let message = match stream {
            LogStream::Stdout => Message::Stdout(bytes),
            LogStream::Stderr => Message::Stderr(bytes),
        };
        for client in self.clients.iter_mut().filter(|client| wants(client)) {
            client.tell(&message);
        }
    }

    fn hear(&mut self, index: usize, _events: PollFlags) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        let mut wishes: Vec<Wish> = Vec::new();
        client.receive(|message| wishes.push((index, message)))?;
        for (index, message) in wishes {
            self.grant(index, message);
        }
        Ok(())
    }

    fn grant(&mut self, index: usize, message: Message) {
        match message {
            Message::Stdin(bytes) => {
                if let Some(stdin) = &mut self.stdin {
                    stdin.push(&bytes);
                }
                return;
            }
            Message::StdinEnd => return self.end_stdin(),
            Message::Resize { rows, columns } => return self.resize(rows, columns),
            Message::Signal(number) => return self.signal(number),
            Message::Keep => {
                self.kept = true;
                return;
            }
            Message::Last => {
                self.last = true;
                return;
            }
            _ => {}
        }
        let answer = match message {
            Message::Sync => Some(answer(sync(&self.merged))),
            Message::Freeze => Some(answer(self.freeze(index))),
            Message::Observe => Some(self.observe()),
            Message::Pause => Some(answer(self.pause())),
            Message::Unpause => Some(answer(self.unpause())),
            _ => None,
        };
        let Some(client) = self.clients.get_mut(index) else {
            return;
        };
        match (message, answer) {
            (_, Some(answer)) => client.tell(&answer),
            (Message::Attach(streams), None) => client.streams = streams,
            (Message::Namespaces, None) => {
                if let Err(error) =
                    super::descriptors::send(client.channel.as_fd(), self.namespaces.as_ref())
                {
                    log::warn!("send namespaces: {error}");
                    client.gone = true;
                }
            }
            _ => {}
        }
    }

    fn freeze(&mut self, index: usize) -> io::Result<()> {
        // Not by signals: those can be seen inside.
        if self.held.is_none() {
            self.held = Some(Held::Frozen(Frozen::new(self.child.pid())?));
        }
        if let Some(client) = self.clients.get_mut(index) {
            client.freezes = true;
        }
        Ok(())
    }

    fn resize(&self, rows: u16, columns: u16) {
        let Some(terminal) = &self.terminal else {
            return;
        };
        match terminal::resize(terminal, rows, columns) {
            Ok(()) => {
                let size = [("height", rows.to_string()), ("width", columns.to_string())];
                self.note("resize", &size);
            }
            Err(error) => log::warn!("resize: {error}"),
        }
    }

    /// A client's standard input has ended: so does the container's, when it was made for one client. A terminal stays.
    fn end_stdin(&mut self) {
        if self.stdin_once && self.terminal.is_none() {
            self.stdin_ending = true;
            self.close_finished_stdin();
        }
    }

    fn close_finished_stdin(&mut self) {
        let done = self
            .stdin
            .as_ref()
            .is_some_and(|stdin| stdin.pending_bytes() == 0);
        if done && self.stdin_ending {
            self.stdin = None;
        }
    }

    /// Drops clients that are gone; what they held is let go.
    pub(super) fn forget_gone(&mut self) {
        if !self.clients.iter().any(|client| client.gone) {
            return;
        }
        let stdin_gone = self
            .clients
            .iter()
            .any(|client| client.gone && client.streams.stdin);
        self.clients.retain(|client| !client.gone);
        self.let_go();
        if stdin_gone {
            self.end_stdin();
        }
    }

    /// Tells every client the exit code and sees them off: each may take its last output for a while.
    pub(super) fn farewell(&mut self, code: i32) {
        for client in &mut self.clients {
            client.tell(&Message::Exit(code));
        }
        let mut idle_since = Instant::now();
        loop {
            let before: usize = self
                .clients
                .iter()
                .map(|client| client.channel.pending_bytes())
                .sum();
            self.flush_clients(Instant::now());
            self.clients
                .retain(|client| client.channel.pending_bytes() > 0);
            let after: usize = self
                .clients
                .iter()
                .map(|client| client.channel.pending_bytes())
                .sum();
            if after < before {
                idle_since = Instant::now();
            }
            if self.clients.is_empty() || idle_since.elapsed() >= super::client::PATIENCE {
                return;
            }
            let mut fds: Vec<_> = self
                .clients
                .iter()
                .map(|client| PollFd::new(&client.channel, PollFlags::OUT))
                .collect();
            let second = Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            if let Err(errno) = rustix::event::poll(&mut fds, Some(&second)) {
                log::debug!("poll: {errno}");
            }
        }
    }
}

/// Returns whether somebody who sends this signal wants the container to end for good.
pub(super) fn ends(number: i32, stop_signal: i32) -> bool {
    [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT].contains(&number)
        || number == stop_signal
}

fn answer(result: io::Result<()>) -> Message {
    match result {
        Ok(()) => Message::Done,
        Err(error) => Message::Failed(error.to_string()),
    }
}

/// Brings what the kernel holds back of the mounted root down to the layer.
fn sync(merged: &std::path::Path) -> io::Result<()> {
    let flags =
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let root = rustix::fs::open(merged, flags, rustix::fs::Mode::empty())?;
    Ok(rustix::fs::syncfs(root)?)
}

/// A log that cannot be written (full disk) must not end the container; it is said once.
fn note_log_failure(result: crate::error::Result<()>, failed: &mut bool) {
    match result {
        Ok(()) => *failed = false,
        Err(error) if !*failed => {
            *failed = true;
            log::error!("{error}: output is lost from the log");
        }
        Err(_) => {}
    }
}
