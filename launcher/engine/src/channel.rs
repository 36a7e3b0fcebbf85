//! A socket that carries [`Message`]s without ever blocking.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::message::Message;
use crate::relay::Buffer;

/// Most that is read from the socket in one go.
const READ_BYTES: usize = 128 * 1024;

/// One end of a conversation.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: OwnedFd,
    incoming: Buffer,
    outgoing: Buffer,
}

/// Whether the other end is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Present,
    Gone,
}

impl Channel {
    /// Takes a connected stream socket over.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            incoming: Buffer::default(),
            outgoing: Buffer::default(),
        })
    }

    /// Connects to a monitor's socket.
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::new(socket)
    }

    /// Makes a connected pair: a monitor and the client that is attached before it starts.
    pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?)
    }

    /// Puts a message behind those that wait to be sent.
    pub(crate) fn queue(&mut self, message: &Message) {
        message.encode(self.outgoing.tail());
    }

    /// Returns how many bytes wait to be sent.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends what the socket takes now; returns how many bytes that were.
    ///
    /// # Errors
    /// The other end is gone (`EPIPE`, `ECONNRESET`).
    pub(crate) fn flush(&mut self) -> io::Result<usize> {
        let mut sent = 0;
        while !self.outgoing.is_empty() {
            match rustix::net::send(&self.socket, self.outgoing.head(), SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.outgoing.consume(count);
                    sent += count;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(sent)
    }

    /// Reads what is there and gives each whole message.
    ///
    /// # Errors
    /// A malformed message, or a broken socket; the conversation is over then.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Message)) -> io::Result<Peer> {
        let peer = self.read_some()?;
        loop {
            let found = Message::decode(self.incoming.head())
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let Some((message, length)) = found else {
                break;
            };
            self.incoming.consume(length);
            each(message);
        }
        Ok(peer)
    }

    fn read_some(&mut self) -> io::Result<Peer> {
        let tail = self.incoming.tail();
        tail.reserve(READ_BYTES);
        match rustix::io::read(&self.socket, spare_capacity(tail)) {
            Ok(0) => Ok(Peer::Gone),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(Peer::Present),
            Err(Errno::CONNRESET) => Ok(Peer::Gone),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Returns what to poll for: always input, output while something waits.
    pub(crate) fn interest(&self) -> PollFlags {
        if self.outgoing.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::IN | PollFlags::OUT
        }
    }

    /// Waits for one of the messages `pick` accepts, dropping others. `None`: the other end went away, or `patience`
    /// ended.
    pub(crate) fn wait_for<T>(
        &mut self,
        patience: Option<Duration>,
        mut pick: impl FnMut(Message) -> Option<T>,
    ) -> io::Result<Waited<T>> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            self.flush().map(drop).or_else(ignore_broken_pipe)?;
            let left =
                match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                    Some(Duration::ZERO) => return Ok(Waited::TimedOut),
                    left => left,
                };
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let interest = self.interest();
            match rustix::event::poll(&mut [PollFd::new(&self.socket, interest)], timeout.as_ref())
            {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut found = None;
            let peer = self.receive(|message| {
                if found.is_none() {
                    found = pick(message);
                }
            })?;
            match (found, peer) {
                (Some(found), _) => return Ok(Waited::Found(found)),
                (None, Peer::Gone) => return Ok(Waited::Closed),
                (None, Peer::Present) => {}
            }
        }
    }
}

/// The outcome of [`Channel::wait_for`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waited<T> {
    Found(T),
    Closed,
    TimedOut,
}

/// A peer that closed may have said its last word before: reading goes on.
fn ignore_broken_pipe(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(()),
        _ => Err(error),
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cross_and_the_end_is_seen() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (mut ours, mut theirs) = (Channel::new(ours).unwrap(), Channel::new(theirs).unwrap());
        ours.queue(&Message::Stdout(vec![7; 50_000]));
        ours.queue(&Message::Exit(3));
        while ours.pending_bytes() > 0 {
            ours.flush().unwrap();
        }
        drop(ours);
        let mut seen = Vec::new();
        let code = theirs.wait_for(None, |message| match message {
            Message::Exit(code) => Some(code),
            other => {
                seen.push(other);
                None
            }
        });
        assert_eq!(code.unwrap(), Waited::Found(3));
        assert_eq!(seen, [Message::Stdout(vec![7; 50_000])]);
        assert_eq!(theirs.wait_for(None, Some).unwrap(), Waited::Closed);
    }

    #[test]
    fn patience_ends() {
        let (ours, _theirs) = Channel::pair().unwrap();
        let mut ours = Channel::new(ours).unwrap();
        let waited = ours
            .wait_for(Some(Duration::from_millis(10)), Some)
            .unwrap();
        assert_eq!(waited, Waited::TimedOut);
    }
}
