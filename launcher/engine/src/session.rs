//! An attached client: its streams against a container's monitor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags};

use crate::channel::{Channel, Peer};
use crate::error::{Error, Result};
use crate::ids::ContainerId;
use crate::layout::ContainerPaths;
use crate::message::Message;
use crate::options::{ClientIo, Ended};
use crate::records;
use crate::relay::{DetachKeys, Outlet, read_once, streams};
use crate::signals::{Caught, FORWARDED};
use crate::state::Status;
use crate::terminal::{self, Raw};

/// Bytes that may wait in one direction before its source is left unread.
const QUEUE_BYTES: usize = 1 << 20;
/// Bytes read from the caller's standard input at once.
const STDIN_BYTES: usize = 32 * 1024;

/// A connection to a container's monitor, made by start or attach.
#[derive(Debug)]
pub struct Session {
    id: ContainerId,
    channel: Channel,
    /// Signals are caught from before the container runs, so that none falls between.
    caught: Caught,
    /// Where it is told how the container ended, for a session with one that ran already: its monitor may have been about
    /// to end, and have heard nothing of us.
    told: Option<ContainerPaths>,
}

impl Session {
    /// Takes over a channel on which the streams have been asked for.
    pub(crate) fn new(id: ContainerId, channel: Channel, caught: Caught) -> Self {
        Self {
            id,
            channel,
            caught,
            told: None,
        }
    }

    /// Makes this a session with a container that ran before it was asked for.
    pub(crate) fn with_running(self, paths: ContainerPaths) -> Self {
        Self {
            told: Some(paths),
            ..self
        }
    }

    /// How the container ended, as its monitor has written it down.
    fn recorded_end(&self) -> Option<i32> {
        let state = records::read_state(self.told.as_ref()?).ok()?.state;
        (state.status == Status::Exited).then_some(state.exit_code)
    }

    /// Returns the container this is a session with.
    #[must_use]
    pub fn container(&self) -> &ContainerId {
        &self.id
    }

    /// Carries the streams until the container ends or the client detaches.
    ///
    /// # Errors
    /// The monitor went away without a word.
    pub fn run(self, io: &ClientIo<'_>) -> Result<Ended> {
        let mut run = Run::new(self, io).map_err(Error::system("prepare the terminal"))?;
        loop {
            if let Some(ended) = run
                .step()
                .map_err(streams("carry the container's streams"))?
            {
                return Ok(ended);
            }
            if run.lost {
                if let Some(code) = run.session.recorded_end() {
                    return Ok(Ended::Exited(code));
                }
                return Err(Error::Monitor {
                    id: run.session.id.to_string(),
                    reason: "it went away; the container was killed with it".to_owned(),
                });
            }
        }
    }
}

/// Catches the signals a session handles.
pub(crate) fn catch_signals() -> Result<Caught> {
    let mut signals = FORWARDED.to_vec();
    signals.push(nix::sys::signal::Signal::SIGWINCH);
    Caught::new(&signals).map_err(Error::system("catch signals"))
}

struct Run<'a> {
    session: Session,
    io: &'a ClientIo<'a>,
    stdin: Option<BorrowedFd<'a>>,
    stdout: Option<Outlet<BorrowedFd<'a>>>,
    stderr: Option<Outlet<BorrowedFd<'a>>>,
    keys: DetachKeys,
    exit: Option<i32>,
    lost: bool,
    /// Dropped last: the terminal is put back whatever happens.
    _raw: Option<Raw>,
}

/// Which descriptor a poll entry stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Monitor,
    Signals,
    Stdin,
    Stdout,
    Stderr,
}

impl<'a> Run<'a> {
    fn new(session: Session, io: &'a ClientIo<'a>) -> io::Result<Self> {
        let raw = match io.stdin {
            Some(stdin) if io.terminal => Raw::enter(stdin)?,
            _ => None,
        };
        let keys = if io.terminal {
            DetachKeys::new(&io.detach_keys)
        } else {
            DetachKeys::new(&[])
        };
        let mut run = Self {
            session,
            io,
            stdin: io.stdin,
            stdout: io.stdout.map(Outlet::new),
            stderr: io.stderr.map(Outlet::new),
            keys,
            exit: None,
            lost: false,
            _raw: raw,
        };
        run.send_size();
        Ok(run)
    }

    fn send_size(&mut self) {
        if !self.io.terminal {
            return;
        }
        let size = [self.io.stdin, self.io.stdout]
            .into_iter()
            .flatten()
            .find_map(terminal::size);
        if let Some((rows, columns)) = size {
            self.session
                .channel
                .queue(&Message::Resize { rows, columns });
        }
    }

    fn waiting_bytes(&self) -> usize {
        [&self.stdout, &self.stderr]
            .into_iter()
            .flatten()
            .map(Outlet::pending_bytes)
            .sum()
    }

    /// Waits for something to happen and acts on it; returns how the session ended.
    fn step(&mut self) -> io::Result<Option<Ended>> {
        if let Err(error) = self.session.channel.flush() {
            // The monitor closed: what it said before is still to be read.
            if error.kind() != io::ErrorKind::BrokenPipe
                && error.kind() != io::ErrorKind::ConnectionReset
            {
                return Err(error);
            }
            self.stdin = None;
        }
        if let Some(code) = self.exit
            && self.waiting_bytes() == 0
        {
            return Ok(Some(Ended::Exited(code)));
        }
        for (source, events) in self.poll()? {
            let ended = match source {
                Source::Monitor => self.receive()?,
                Source::Signals => self.signal()?,
                Source::Stdin => self.typed(events)?,
                Source::Stdout => write_out(&mut self.stdout, "/dev/stdout")?,
                Source::Stderr => write_out(&mut self.stderr, "/dev/stderr")?,
            };
            if ended.is_some() {
                return Ok(ended);
            }
        }
        Ok(None)
    }

    fn poll(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let channel = &self.session.channel;
        let mut sources = vec![Source::Signals];
        let mut fds = vec![PollFd::new(&self.session.caught, PollFlags::IN)];
        let mut interest = channel.interest();
        if self.exit.is_some() || self.waiting_bytes() > QUEUE_BYTES {
            interest.remove(PollFlags::IN);
        }
        if !interest.is_empty() {
            sources.push(Source::Monitor);
            fds.push(PollFd::from_borrowed_fd(channel.as_fd(), interest));
        }
        if let Some(stdin) = self.stdin
            && channel.pending_bytes() < QUEUE_BYTES
        {
            sources.push(Source::Stdin);
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        for (source, outlet) in [
            (Source::Stdout, &self.stdout),
            (Source::Stderr, &self.stderr),
        ] {
            if let Some(outlet) = outlet
                && outlet.pending_bytes() > 0
            {
                sources.push(source);
                fds.push(PollFd::from_borrowed_fd(outlet.as_fd(), PollFlags::OUT));
            }
        }
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
        let happened = sources.into_iter().zip(fds.iter().map(PollFd::revents));
        Ok(happened.filter(|(_, events)| !events.is_empty()).collect())
    }

    fn receive(&mut self) -> io::Result<Option<Ended>> {
        let (stdout, stderr, exit) = (&mut self.stdout, &mut self.stderr, &mut self.exit);
        let peer = self.session.channel.receive(|message| {
            match (message, &mut *stdout, &mut *stderr) {
                (Message::Stdout(bytes), Some(outlet), _)
                | (Message::Stderr(bytes), _, Some(outlet)) => {
                    outlet.push(&bytes);
                }
                (Message::Exit(code), _, _) => *exit = Some(code),
                _ => {}
            }
        })?;
        self.lost = peer == Peer::Gone && self.exit.is_none();
        Ok(None)
    }

    fn signal(&mut self) -> io::Result<Option<Ended>> {
        while let Some(number) = self.session.caught.next()? {
            if number == libc::SIGWINCH {
                self.send_size();
            } else if self.io.forward_signals {
                self.session.channel.queue(&Message::Signal(number));
            } else {
                return Ok(Some(Ended::Interrupted(number)));
            }
        }
        Ok(None)
    }

    fn typed(&mut self, events: PollFlags) -> io::Result<Option<Ended>> {
        let Some(stdin) = self.stdin else {
            return Ok(None);
        };
        let bytes = if events.contains(PollFlags::NVAL) {
            Some(Vec::new())
        } else {
            read_once(stdin, STDIN_BYTES)?
        };
        let Some(bytes) = bytes else { return Ok(None) };
        if bytes.is_empty() {
            self.stdin = None;
            self.session.channel.queue(&Message::StdinEnd);
            return Ok(None);
        }
        let (passed, detach) = self.keys.filter(&bytes);
        if !passed.is_empty() {
            self.session.channel.queue(&Message::Stdin(passed));
        }
        if detach {
            self.session.channel.flush()?;
            return Ok(Some(Ended::Detached));
        }
        Ok(None)
    }
}

/// Writes what waits; nobody reading any more ends the session, as it ends docker's client.
fn write_out(
    outlet: &mut Option<Outlet<BorrowedFd<'_>>>,
    stream: &'static str,
) -> io::Result<Option<Ended>> {
    let Some(outlet) = outlet else {
        return Ok(None);
    };
    outlet.write_to_caller(stream)?;
    Ok(outlet
        .is_closed()
        .then_some(Ended::Interrupted(libc::SIGPIPE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;

    /// A monitor that says `script` and a session whose stdin holds `typed`.
    fn run(script: &[Message], typed: &[u8]) -> (Result<Ended>, String, Vec<Message>) {
        let (ours, theirs) = Channel::pair().unwrap();
        let id = ContainerId::random().unwrap();
        let session = Session::new(id, Channel::new(ours).unwrap(), Caught::new(&[]).unwrap());
        let mut monitor = Channel::new(theirs).unwrap();
        for message in script {
            monitor.queue(message);
        }
        monitor.flush().unwrap();
        let (stdin, mut stdin_writer) = io::pipe().unwrap();
        stdin_writer.write_all(typed).unwrap();
        drop(stdin_writer);
        let (mut reader, stdout) = io::pipe().unwrap();
        let io = ClientIo {
            stdin: Some(stdin.as_fd()),
            stdout: Some(stdout.as_fd()),
            stderr: None,
            terminal: true,
            detach_keys: vec![16, 17],
            forward_signals: false,
        };
        let ended = session.run(&io);
        drop(OwnedFd::from(stdout));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let mut heard = Vec::new();
        monitor.receive(|message| heard.push(message)).unwrap();
        (ended, text, heard)
    }

    /// A client that came too late to be heard: `start -a` of a container that ends.
    #[test]
    fn a_monitor_that_ended_unheard_has_written_down_how() {
        let directory = tempfile::tempdir().unwrap();
        let layout = crate::layout::Layout {
            root: directory.path().to_path_buf(),
            run: directory.path().join("run"),
        };
        let id = ContainerId::random().unwrap();
        let paths = layout.container(&id);
        std::fs::create_dir_all(&paths.directory).unwrap();
        let mut record = records::StateRecord::default();
        record.state.exit_code = 3;
        for (status, want) in [(Status::Running, None), (Status::Exited, Some(3))] {
            record.state.status = status;
            records::write_state(&paths, &record).unwrap();
            let (ours, theirs) = Channel::pair().unwrap();
            drop(theirs);
            let (ours, caught) = (Channel::new(ours).unwrap(), Caught::new(&[]).unwrap());
            let session = Session::new(id.clone(), ours, caught);
            let io = ClientIo {
                stdin: None,
                stdout: None,
                stderr: None,
                terminal: false,
                detach_keys: Vec::new(),
                forward_signals: false,
            };
            let ended = session.with_running(layout.container(&id)).run(&io);
            assert_eq!(ended.ok(), want.map(Ended::Exited), "{status:?}");
        }
    }

    #[test]
    fn output_is_written_and_the_code_returned() {
        let script = [
            Message::Stdout(b"out".to_vec()),
            Message::Stderr(b"dropped".to_vec()),
            Message::Exit(7),
        ];
        let (ended, text, heard) = run(&script, b"in");
        assert_eq!((ended.unwrap(), text.as_str()), (Ended::Exited(7), "out"));
        assert!(
            heard.is_empty() || heard[0] == Message::Stdin(b"in".to_vec()),
            "{heard:?}"
        );
    }

    #[test]
    fn detach_keys_leave() {
        let (ended, _, heard) = run(&[], b"x\x10\x11y");
        assert_eq!(ended.unwrap(), Ended::Detached);
        assert_eq!(heard, [Message::Stdin(b"x".to_vec())]);
    }
}
