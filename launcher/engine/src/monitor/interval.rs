//! A monitor between two runs of its container: the policy wants it started again, and it waits.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::message::Message;

use super::client::Client;
use super::hub::{Hub, ends};
use super::standing::Standing;

/// What one run of a container hands to the next.
#[derive(Debug)]
pub(super) struct Heritage {
    pub(super) listener: UnixListener,
    pub(super) standing: Standing,
    pub(super) clients: Vec<Client>,
}

impl Hub {
    /// Waits until it is time for the next run; returns whether there is to be one. Who asks meanwhile is told `code`.
    pub(super) fn wait_for_next_run(&mut self, code: i32, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.flush_clients(Instant::now());
            // Also when no time is left: what has been said already counts.
            self.listen_once(code, left)?;
            if self.last {
                return Ok(false);
            }
            if left.is_zero() {
                return Ok(true);
            }
        }
    }

    fn listen_once(&mut self, code: i32, patience: Duration) -> io::Result<()> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.caught.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
        ];
        let clients = self.clients.iter();
        fds.extend(clients.map(|client| {
            PollFd::from_borrowed_fd(client.channel.as_fd(), client.channel.interest())
        }));
        let timeout = Timespec::try_from(patience).ok();
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let happened: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        for (source, _) in happened
            .iter()
            .enumerate()
            .filter(|(_, happened)| **happened)
        {
            match source {
                0 => self.last |= self.caught.next()?.is_some(),
                1 => self.accept(),
                client => self.answer_in_between(client - 2, code)?,
            }
        }
        self.forget_gone();
        Ok(())
    }

    fn answer_in_between(&mut self, index: usize, code: i32) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(index) else {
            return Ok(());
        };
        let mut heard = Vec::new();
        client.receive(|message| heard.push(message))?;
        let mut last = false;
        for message in heard {
            match message {
                Message::Watch => client.tell(&Message::Exit(code)),
                Message::Sync | Message::Freeze => client.tell(&Message::Done),
                Message::Pause | Message::Unpause | Message::Observe => {
                    client.tell(&Message::Failed("it is restarting".to_owned()));
                }
                // There is nothing to attach to or to join.
                Message::Attach(_) | Message::Namespaces => client.gone = true,
                Message::Last => last = true,
                Message::Keep => self.kept = true,
                Message::Signal(number) => last |= ends(number, self.stop_signal),
                _ => {}
            }
        }
        self.last |= last;
        Ok(())
    }

    /// Leaves what the next run goes on with; signals are no longer caught.
    pub(super) fn leave(self) -> Heritage {
        Heritage {
            listener: self.listener,
            standing: self.standing,
            clients: self.clients,
        }
    }
}
