//! One client of a monitor: what it asked for, and how patient we are with it.

use std::io;
use std::time::{Duration, Instant};

use crate::channel::Channel;
use crate::message::Message;
use crate::options::Streams;

/// Output that may wait for a client before the container's own output is left unread.
const QUEUE_BYTES: usize = 1 << 20;
/// How long a client may take nothing at all of a full queue before it is cut off.
///
/// Until then the container waits for it, as with docker (`… | less` must see every line); after that the container
/// matters more than a client that is stopped or stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) channel: Channel,
    pub(super) streams: Streams,
    /// It asked to freeze the container: thawed when it goes.
    pub(super) freezes: bool,
    /// When it last took something while output waited for it.
    waiting_since: Option<Instant>,
    pub(super) gone: bool,
}

/// What a client has before it has said anything.
pub(super) const NO_STREAMS: Streams = Streams {
    stdin: false,
    stdout: false,
    stderr: false,
};

impl Client {
    /// Takes a connection.
    pub(super) fn new(channel: Channel, streams: Streams) -> Self {
        Self {
            channel,
            streams,
            freezes: false,
            waiting_since: None,
            gone: false,
        }
    }

    /// Queues a message.
    pub(super) fn tell(&mut self, message: &Message) {
        self.channel.queue(message);
    }

    /// Sends what can be sent; one that is gone or has been stuck for too long is marked.
    pub(super) fn flush(&mut self, now: Instant) {
        match self.channel.flush() {
            Ok(0) if self.channel.pending_bytes() > 0 => {
                let since = *self.waiting_since.get_or_insert(now);
                if self.is_full() && now.duration_since(since) >= PATIENCE {
                    log::warn!(
                        "a client took no output for {} s: detached",
                        PATIENCE.as_secs()
                    );
                    self.gone = true;
                }
            }
            Ok(_) => self.waiting_since = (self.channel.pending_bytes() > 0).then_some(now),
            Err(error) => {
                log::debug!("client: {error}");
                self.gone = true;
            }
        }
    }

    /// Returns whether so much waits for it that the container should wait too.
    pub(super) fn is_full(&self) -> bool {
        self.channel.pending_bytes() >= QUEUE_BYTES
    }

    /// Returns when a full client will be cut off.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting_since
            .filter(|_| self.is_full())
            .map(|since| since + PATIENCE)
    }

    /// Reads what it says.
    pub(super) fn receive(&mut self, mut each: impl FnMut(Message)) -> io::Result<()> {
        match self.channel.receive(&mut each) {
            Ok(crate::channel::Peer::Present) => {}
            Ok(crate::channel::Peer::Gone) => self.gone = true,
            Err(error) => {
                log::warn!("client: {error}");
                self.gone = true;
            }
        }
        Ok(())
    }
}
