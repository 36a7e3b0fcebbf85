//! Namespaces sent over a socket: the way into a monitor that does not let itself be looked at.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mille_sandbox::outer::Namespaces;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// What comes with the descriptors; without any there is nothing to join.
const WITH: u8 = 1;
const WITHOUT: u8 = 0;

/// Sends the namespaces, or says that there are none.
pub(crate) fn send(socket: BorrowedFd<'_>, namespaces: Option<&Namespaces>) -> io::Result<()> {
    let fds = namespaces.map(|namespaces| [namespaces.user.as_fd(), namespaces.mount.as_fd()]);
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let word = if fds.is_some() { WITH } else { WITHOUT };
    if let Some(fds) = &fds
        && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(&[word])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// Receives what [`send`] sent.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<Namespaces>> {
    let (word, mut fds) = receive_word(socket)?;
    if word == WITHOUT {
        return Ok(None);
    }
    match (fds.pop(), fds.pop()) {
        (Some(mount), Some(user)) => Ok(Some(Namespaces { user, mount })),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Receives one descriptor, whatever byte comes with it.
pub(crate) fn receive_one(socket: impl AsFd) -> io::Result<OwnedFd> {
    let (_, mut fds) = receive_word(socket)?;
    fds.pop()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn receive_word(socket: impl AsFd) -> io::Result<(u8, Vec<OwnedFd>)> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0_u8];
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut word)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((word[0], fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn two_descriptors_cross() {
        let (ours, theirs) = crate::channel::Channel::pair().unwrap();
        let open = |name: &str| OwnedFd::from(File::open(format!("/proc/self/ns/{name}")).unwrap());
        let namespaces = Namespaces {
            user: open("user"),
            mount: open("mnt"),
        };
        send(ours.as_fd(), Some(&namespaces)).unwrap();
        send(ours.as_fd(), None).unwrap();
        let ino = |fd: &OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
        let got = receive(&theirs).unwrap().unwrap();
        assert_eq!(
            (ino(&got.user), ino(&got.mount)),
            (ino(&namespaces.user), ino(&namespaces.mount))
        );
        assert!(receive(&theirs).unwrap().is_none());
    }
}
