//! Starting a container and attaching to one.

use std::os::fd::OwnedFd;

use mille_union::awake::Awake;

use crate::channel::Channel;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Subject;
use crate::ids::ContainerId;
use crate::message::Message;
use crate::monitor::{Job, Outcome, Reporter, receive};
use crate::options::{StartOptions, Streams};
use crate::removal::{self, SweepOptions};
use crate::session::{Session, catch_signals};
use crate::signals::Caught;
use crate::sys;

/// Starts a container.
pub(crate) fn start(
    engine: &Engine,
    id: &ContainerId,
    options: StartOptions,
) -> Result<Option<Session>> {
    let container = engine.load(id)?;
    if container.state.paused {
        return Err(Error::StartPaused);
    }
    if container.is_running() {
        return options
            .attach
            .map(|streams| attach(engine, id, streams))
            .transpose();
    }
    if options.attach.is_some() {
        Subject::from(&container).note(&engine.layout, "attach", &[]);
    }
    // Caught before the container exists: a Ctrl-C from now on is for it.
    let caught = options.attach.map(|_| catch_signals()).transpose()?;
    let mut stack = engine.stack(&container)?;
    let chain = engine.chain(&container.layers, container.on_host);
    chain.ensure(&mut stack);
    let (client, monitor) = match options.attach {
        Some(streams) => {
            let (client, monitor) = Channel::pair().map_err(Error::system("make a socket pair"))?;
            (Some(client), Some((monitor, streams)))
        }
        None => (None, None),
    };
    let (reporter, reader) = Reporter::pipe().map_err(Error::system("make a pipe"))?;
    let job = Job {
        layout: engine.layout.clone(),
        container,
        stack,
        nested: engine.inside,
        attached: monitor,
        reporter,
    };
    let awake = Awake::new();
    let held = awake.as_ref().map(Awake::hold);
    let outcome = fork_monitor(job, reader)?;
    drop(held);
    match (outcome, client.zip(caught)) {
        (Outcome::Running, Some((socket, caught))) => session(id, socket, caught).map(Some),
        (Outcome::Running, None) => Ok(None),
        (Outcome::Busy, _) if engine.load(id)?.is_running() => options
            .attach
            .map(|streams| attach(engine, id, streams))
            .transpose(),
        (Outcome::Busy, _) => Err(Error::Busy(id.to_string())),
        (Outcome::Failed { text, exit_code }, _) => Err(Error::Start { text, exit_code }),
        (Outcome::Lost, _) => {
            let options = SweepOptions {
                privileged: true,
                thorough: false,
            };
            removal::clear(&engine.layout, id, options)?;
            Err(Error::Monitor {
                id: id.to_string(),
                reason: format!(
                    "it died while it started the container; see {}",
                    engine.layout.container(id).monitor_log().display()
                ),
            })
        }
    }
}

/// Everything is closed in the monitor that it has not been given.
fn fork_monitor(job: Job, reader: OwnedFd) -> Result<Outcome> {
    match sys::fork().map_err(Error::system("fork the monitor"))? {
        sys::Side::Child => job.run(),
        sys::Side::Parent(_) => {
            drop(job);
            receive(reader).map_err(Error::system("read from the monitor"))
        }
    }
}

fn session(id: &ContainerId, socket: OwnedFd, caught: Caught) -> Result<Session> {
    let channel = Channel::new(socket).map_err(Error::system("prepare the monitor's socket"))?;
    Ok(Session::new(id.clone(), channel, caught))
}

/// Attaches to a running container.
pub(crate) fn attach(engine: &Engine, id: &ContainerId, streams: Streams) -> Result<Session> {
    let container: Container = engine.load(id)?;
    if !container.is_running() {
        return Err(Error::AttachStopped);
    }
    if container.state.paused {
        return Err(Error::AttachPaused);
    }
    if container.state.restarting {
        return Err(Error::AttachRestarting);
    }
    let caught = catch_signals()?;
    let Some(mut channel) = engine.connect(id)? else {
        return Err(Error::AttachStopped);
    };
    channel.queue(&Message::Attach(streams));
    Subject::from(&container).note(&engine.layout, "attach", &[]);
    let paths = engine.layout.container(id);
    Ok(Session::new(id.clone(), channel, caught).with_running(paths))
}
