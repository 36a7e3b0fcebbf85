//! Ending a running container, and waiting for its end.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::channel::{Channel, Waited};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::lock::Lock;
use crate::message::Message;
use crate::options::StopOptions;
use crate::{process, records, signals};

/// How long a killed container may take until its monitor has let go of it (its root is unmounted meanwhile).
pub(crate) const GRACE: Duration = Duration::from_secs(20);
/// Docker's time between the stop signal and SIGKILL.
const STOP_TIMEOUT_SECONDS: i64 = 10;
/// How often the lock of a monitor is looked at that cannot be reached by its socket.
const INTERVAL: Duration = Duration::from_millis(20);

/// Connects to a running container's monitor; `None` when it is gone or its socket is out of reach.
pub(crate) fn connect(layout: &Layout, id: &ContainerId) -> Result<Option<Channel>> {
    let socket = layout.container(id).socket();
    match Channel::connect(&socket) {
        Ok(channel) => Ok(Some(channel)),
        Err(error) if is_unreachable(&error) => Ok(None),
        Err(error) => Err(Error::io("connect to", &socket)(error)),
    }
}

impl Engine {
    /// As [`connect`].
    pub(crate) fn connect(&self, id: &ContainerId) -> Result<Option<Channel>> {
        connect(&self.layout, id)
    }

    /// Ends a container by its stop signal, then by SIGKILL.
    pub(crate) fn stop_container(
        &self,
        container: &Container,
        options: &StopOptions,
    ) -> Result<()> {
        let config = &container.config;
        let signal = options
            .signal
            .clone()
            .unwrap_or_else(|| config.stop_signal.clone());
        // As docker: a name nobody knows is SIGTERM here (`kill` is strict).
        let number = signals::parse(&signal)
            .and_then(signals::check_supported)
            .unwrap_or(libc::SIGTERM);
        let seconds = options
            .timeout_seconds
            .or(config.stop_timeout)
            .unwrap_or(STOP_TIMEOUT_SECONDS);
        let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
        if let Some(mut channel) = self.connect(&container.id)? {
            channel.queue(&Message::Watch);
            channel.queue(&Message::Last);
            channel.queue(&Message::Signal(number));
            match wait_exit(&mut channel, patience)? {
                Waited::TimedOut => {}
                Waited::Found(_) | Waited::Closed => return self.await_release(container),
            }
        }
        self.kill_and_wait(container)
    }

    /// Sends SIGKILL and waits until the monitor has taken everything down.
    pub(crate) fn kill_and_wait(&self, container: &Container) -> Result<()> {
        match self.connect(&container.id)? {
            Some(mut channel) => {
                channel.queue(&Message::Watch);
                channel.queue(&Message::Last);
                channel.queue(&Message::Signal(libc::SIGKILL));
                if wait_exit(&mut channel, Some(GRACE))? == Waited::TimedOut {
                    return Err(self.stuck(container));
                }
            }
            None => self.terminate_monitor(container)?,
        }
        self.await_release(container)
    }

    /// Ends a container whose socket is out of reach (a run-time directory that was wiped at logout): its monitor takes
    /// SIGTERM for that.
    fn terminate_monitor(&self, container: &Container) -> Result<()> {
        let state = records::read_state(&self.layout.container(&container.id))?;
        if process::signal(state.monitor, state.monitor_start, Signal::TERM) {
            log::info!(
                "container {}: its socket is gone, its monitor was told to end",
                container.id
            );
        }
        Ok(())
    }

    /// Waits until this run's monitor has let go. Somebody else may start the container at once: then it is the next
    /// one's that holds the lock.
    fn await_release(&self, container: &Container) -> Result<()> {
        let paths = self.layout.container(&container.id);
        let deadline = Instant::now() + GRACE;
        while Lock::is_held(&paths.lock())? {
            let now = records::read_state(&paths).unwrap_or_default().state;
            if now.pid != 0 && now.pid != container.state.pid {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.stuck(container));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn stuck(&self, container: &Container) -> Error {
        let log = self.layout.container(&container.id).monitor_notes();
        Error::Monitor {
            id: container.id.to_string(),
            reason: format!(
                "it did not end within {} s; see {}",
                GRACE.as_secs(),
                log.display()
            ),
        }
    }

    /// Sends a signal to a container's first process.
    pub(crate) fn send_signal(&self, container: &Container, number: i32) -> Result<()> {
        let number = signals::check_supported(number)?;
        if !container.is_running() {
            return Err(Error::NotRunning(container.id.to_string()));
        }
        if number == libc::SIGKILL {
            return self.kill_and_wait(container);
        }
        let Some(mut channel) = self.connect(&container.id)? else {
            return Err(Error::Monitor {
                id: container.id.to_string(),
                reason: "its socket is out of reach: only KILL can be sent".to_owned(),
            });
        };
        channel.queue(&Message::Signal(number));
        // Sync is answered after the signal has been sent: the order of a conversation is kept.
        channel.queue(&Message::Sync);
        let answered = channel.wait_for(Some(GRACE), |message| match message {
            Message::Done | Message::Failed(_) => Some(()),
            _ => None,
        });
        answered
            .map(drop)
            .map_err(Error::system("talk to the monitor"))
    }

    /// Pauses a running container, or lets a paused one go on.
    pub(crate) fn set_paused(&self, container: &Container, paused: bool) -> Result<()> {
        let id = || container.id.to_string();
        match (paused, container.state.paused) {
            (true, _) if !container.is_running() => return Err(Error::NotRunning(id())),
            (true, _) if container.state.restarting => return Err(Error::Restarting(id())),
            (true, true) => return Err(Error::AlreadyPaused(id())),
            (false, false) => return Err(Error::NotPaused(id())),
            _ => {}
        }
        let Some(mut channel) = self.connect(&container.id)? else {
            return Err(Error::NotRunning(id()));
        };
        channel.queue(if paused {
            &Message::Pause
        } else {
            &Message::Unpause
        });
        let answered = channel.wait_for(Some(GRACE), |message| match message {
            Message::Done => Some(None),
            Message::Failed(reason) => Some(Some(reason)),
            _ => None,
        });
        match answered.map_err(Error::system("talk to the monitor"))? {
            Waited::Found(None) => Ok(()),
            Waited::Found(Some(reason)) => Err(Error::CannotPause { id: id(), reason }),
            Waited::Closed => Err(Error::NotRunning(id())),
            Waited::TimedOut => Err(self.stuck(container)),
        }
    }

    /// Tells the monitor of a container with `--rm` that somebody starts it again.
    pub(crate) fn keep(&self, container: &Container) -> Result<()> {
        if let Some(mut channel) = self.connect(&container.id)? {
            channel.queue(&Message::Keep);
            channel.queue(&Message::Sync);
            channel
                .wait_for(Some(GRACE), |message| match message {
                    Message::Done | Message::Failed(_) => Some(()),
                    _ => None,
                })
                .map_err(Error::system("talk to the monitor"))?;
        }
        Ok(())
    }

    /// Waits for a container's end and returns its exit code; at once when it does not run.
    pub(crate) fn wait_container(&self, id: &ContainerId) -> Result<i32> {
        let paths = self.layout.container(id);
        loop {
            let Some(container) = records::load(&self.layout, id)? else {
                return Err(Error::NoSuchContainer(id.to_string()));
            };
            if !container.is_running() {
                return Ok(container.state.exit_code);
            }
            match self.connect(id)? {
                Some(mut channel) => {
                    channel.queue(&Message::Watch);
                    if let Waited::Found(code) = wait_exit(&mut channel, None)? {
                        return Ok(code);
                    }
                }
                None => {
                    while Lock::is_held(&paths.lock())?
                        && records::read_state(&paths)?.state.running
                    {
                        std::thread::sleep(INTERVAL);
                    }
                }
            }
        }
    }
}

fn wait_exit(channel: &mut Channel, patience: Option<Duration>) -> Result<Waited<i32>> {
    let waited = channel.wait_for(patience, |message| match message {
        Message::Exit(code) => Some(code),
        _ => None,
    });
    waited.map_err(Error::system("talk to the monitor"))
}

fn is_unreachable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}
