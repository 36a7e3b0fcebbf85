//! What the processes of a launch tell each other, over one `SOCK_SEQPACKET` pair.
//!
//! ```text
//!   launcher                  guard                    new process
//!      |------- fork ---------->|
//!      |                        |------- clone3 ---------->|
//!      |<----- Born + pidfd ----|                          |
//!      |                        |--- 1 byte (go-pipe) ---->|   only with an id map or control groups
//!      |<------------------ Warning* ----------------------|
//!      |--------------------- Root + tree --------------->|   only for a container: when its root is there
//!      |<-------------- Terminal + master? ----------------|
//!      |<------------------- Ready ------------------------|
//!      |------------------- Start ------------------------>|   only when the launcher holds it
//!      |<---------------- end of file ---------------------|   execve has closed the last copy
//! ```
//! Without the byte the new process does not wait for the guard: `Born` may come after any of its messages, also after
//! the last. Guard and new process may send `Failed` instead of any message of theirs; it is their last. The end of file
//! before `Ready` means that they died.

use crate::{Failure, Warning};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// One message. A descriptor goes with `Born`, `Root` and `Terminal`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The process exists; its pidfd comes along.
    Born {
        /// Its id in the launcher's pid namespace.
        pid: i32,
    },
    /// The root is there; the tree of its mounts comes along, attached nowhere.
    Root,
    /// Something was done in a second-best way.
    Warning(Warning),
    /// The master of its terminal comes along.
    Terminal,
    /// Everything is set up.
    Ready,
    /// The word to execute the command.
    Start,
    /// The set-up failed; the sender ends.
    Failed(Failure),
}

/// No message is longer: the longest carries two paths.
const MAX_BYTES: usize = 32 << 10;

/// One end of the pair.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Makes a connected pair.
    pub(crate) fn pair() -> Result<(Self, Self), Errno> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(ours), Self(theirs)))
    }

    /// Takes a descriptor that is one end.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends `message`, with `fd` when there is one. Never raises SIGPIPE.
    pub(crate) fn send(&self, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        let bytes = serde_json::to_vec(message).map_err(|_| Errno::INVAL)?;
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let parts = [IoSlice::new(&bytes)];
        loop {
            match rustix::net::sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                other => return other.map(|_| ()),
            }
        }
    }

    /// Receives one message; `None` at the end of file.
    pub(crate) fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>, Errno> {
        let mut bytes = vec![0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let (len, fd) = loop {
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match rustix::net::recvmsg(&self.0, &mut parts, &mut control, flags) {
                Err(Errno::INTR) => {}
                // A peer that died with unread messages of ours.
                Err(Errno::CONNRESET) => return Ok(None),
                Err(errno) => return Err(errno),
                Ok(received) => {
                    let fd = control.drain().find_map(|message| match message {
                        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                        _ => None,
                    });
                    break (received.bytes, fd);
                }
            }
        };
        if len == 0 {
            return Ok(None);
        }
        let message = bytes
            .get(..len)
            .and_then(|bytes| serde_json::from_slice(bytes).ok());
        message
            .map(|message| Some((message, fd)))
            .ok_or(Errno::BADMSG)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        a.send(&Message::Born { pid: 7 }, Some(writer.as_fd()))
            .unwrap();
        a.send(&Message::Warning(Warning::Groups), None).unwrap();
        a.send(&Message::Failed(Failure::IdOutOfRange), None)
            .unwrap();
        drop(a);
        let (message, fd) = b.receive().unwrap().unwrap();
        assert_eq!(message, Message::Born { pid: 7 });
        rustix::io::write(fd.unwrap(), b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(reader, &mut byte).unwrap(), 1);
        assert_eq!(
            b.receive().unwrap().unwrap().0,
            Message::Warning(Warning::Groups)
        );
        assert_eq!(
            b.receive().unwrap().unwrap().0,
            Message::Failed(Failure::IdOutOfRange)
        );
        assert!(b.receive().unwrap().is_none());
        assert_eq!(b.send(&Message::Start, None), Err(Errno::PIPE));
    }
}
