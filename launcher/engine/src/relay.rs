//! Bytes on their way between descriptors, without ever blocking on a slow one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::error::Error;

/// A queue of bytes: written at the end, taken from the front.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

/// Consumed bytes that are carried along before the rest is moved to the front.
const SLACK_BYTES: usize = 64 * 1024;

impl Buffer {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all bytes that wait.
    pub(crate) fn head(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Drops the first `count` bytes. Memory of a burst is given back when the queue runs empty.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            self.bytes.shrink_to(SLACK_BYTES);
        } else if self.start >= SLACK_BYTES {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Returns the vector to append to.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// A descriptor that bytes flow out of, at the pace of whoever reads it.
///
/// The descriptor may be shared with other processes (a terminal, the shell's pipe), so it is not made non-blocking:
/// instead no more than what surely fits is written once `poll` has said that there is room.
#[derive(Debug)]
pub(crate) struct Outlet<F> {
    fd: F,
    waiting: Buffer,
    /// The reader is gone: what comes is dropped.
    closed: bool,
}

/// What a pipe takes without blocking when poll reports room: one page (pipe(7): `POLLOUT` means a free slot).
const SAFE_BYTES: usize = 4096;

impl<F: AsFd> Outlet<F> {
    pub(crate) fn new(fd: F) -> Self {
        Self {
            fd,
            waiting: Buffer::default(),
            closed: false,
        }
    }

    /// Puts bytes behind those that wait.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.closed {
            self.waiting.tail().extend_from_slice(bytes);
        }
    }

    /// Returns how many bytes wait.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.waiting.len()
    }

    /// Writes once, after poll has said that the descriptor has room. A reader that is gone is noted, not reported.
    pub(crate) fn write_once(&mut self) -> io::Result<()> {
        let head = self.waiting.head();
        let chunk = head.get(..SAFE_BYTES).unwrap_or(head);
        match rustix::io::write(&self.fd, chunk) {
            Ok(count) => self.waiting.consume(count),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET | Errno::IO) => self.close(),
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Returns whether the reader is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Drops what waits and everything that comes.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        let count = self.waiting.len();
        self.waiting.consume(count);
    }
}

/// A stream of the caller's own could not be written; nothing of the container's is at fault.
#[derive(Debug, thiserror::Error)]
#[error("write {stream}: {source}")]
struct Unwritten {
    stream: &'static str,
    source: io::Error,
}

impl Outlet<BorrowedFd<'_>> {
    /// As [`Outlet::write_once`], for a stream of the caller's, which an error names.
    pub(crate) fn write_to_caller(&mut self, stream: &'static str) -> io::Result<()> {
        let written = self.write_once();
        written.map_err(|source| io::Error::other(Unwritten { stream, source }))
    }
}

/// Returns a closure that dresses an error of a session's streams.
pub(crate) fn streams(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |error| match error.downcast::<Unwritten>() {
        Ok(Unwritten { stream, source }) => Error::Output { stream, source },
        Err(source) => Error::System { operation, source },
    }
}

impl<F: AsFd> AsFd for Outlet<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Reads once into a vector of at most `limit` bytes. Empty means the end; `None` that nothing is there now.
///
/// A terminal whose last process is gone says `EIO`: that is its end.
pub(crate) fn read_once(fd: impl AsFd, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; limit];
    match rustix::io::read(fd, bytes.as_mut_slice()) {
        Ok(count) => {
            bytes.truncate(count);
            Ok(Some(bytes))
        }
        Err(Errno::IO) => Ok(Some(Vec::new())),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Finds the detach keys in what is typed.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    pub(crate) fn new(keys: &[u8]) -> Self {
        Self {
            keys: keys.to_vec(),
            matched: 0,
        }
    }

    /// Takes typed bytes; returns those to pass on and whether the keys are complete. Keys half typed are held back and
    /// passed on when something else follows.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len());
        for &byte in typed {
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(self.keys.get(..self.matched).unwrap_or_default());
            self.matched = 0;
            if self.keys.first() == Some(&byte) {
                self.matched = 1;
            } else {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_a_queue() {
        let mut buffer = Buffer::default();
        buffer.tail().extend_from_slice(b"hello");
        buffer.consume(2);
        buffer.tail().extend_from_slice(b"!");
        assert_eq!((buffer.head(), buffer.len()), (&b"llo!"[..], 4));
        buffer.consume(99);
        assert!(buffer.is_empty());
    }

    #[test]
    fn detach_keys() {
        for (feeds, passed, detached) in [
            (vec![&b"ab"[..]], &b"ab"[..], false),
            (vec![b"a\x10\x11rest"], b"a", true),
            (vec![b"\x10", b"\x11"], b"", true),
            (vec![b"\x10", b"x"], b"\x10x", false),
            (vec![b"\x10\x10\x11"], b"\x10", true),
        ] {
            let mut keys = DetachKeys::new(&[16, 17]);
            let mut got = (Vec::new(), false);
            for feed in &feeds {
                let (bytes, end) = keys.filter(feed);
                got.0.extend(bytes);
                got.1 |= end;
            }
            assert_eq!((got.0.as_slice(), got.1), (passed, detached), "{feeds:?}");
        }
        assert_eq!(
            DetachKeys::new(&[]).filter(b"\x10\x11"),
            (b"\x10\x11".to_vec(), false)
        );
    }
}
