//! Changing a container that exists.

use mille_store::ImageId;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Subject;
use crate::host_config::{Resources, RestartPolicy};
use crate::ids::ContainerId;
use crate::message::Message;
use crate::usage::Usage;
use crate::{limits, records, restart, stop};

/// What `update` changes; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default)]
pub struct UpdateOptions {
    /// When its monitor starts it again; counts from the next end on.
    pub restart_policy: Option<RestartPolicy>,
    /// Limits; a running container gets them at once. As docker has it, a field that is 0 or empty leaves a limit as it is.
    pub limits: Option<Resources>,
}

/// Changes a container, running or not.
pub(crate) fn update(engine: &Engine, id: &ContainerId, options: &UpdateOptions) -> Result<()> {
    let no_such = || Error::NoSuchContainer(id.to_string());
    let mut record = records::read(&engine.layout, id)?.ok_or_else(no_such)?;
    if let Some(policy) = &options.restart_policy {
        restart::check(policy)?;
        if record.host_config.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
            return Err(Error::Invalid(format!(
                "Cannot update container {id}: Restart policy cannot be updated because AutoRemove is enabled for the \
                 container"
            )));
        }
        record.host_config.restart_policy = policy.clone();
    }
    if let Some(asked) = &options.limits {
        limits::change(engine, id, &mut record.host_config.resources, asked)?;
    }
    records::write(&engine.layout.container(id), &record)?;
    Subject::from(&record).note(&engine.layout, "update", &[]);
    Ok(())
}

/// Asks the monitor what its container uses.
pub(crate) fn usage(engine: &Engine, id: &ContainerId) -> Result<Usage> {
    let not_running = || Error::NotRunning(id.to_string());
    let container = engine.load(id)?;
    if container.state.restarting {
        return Err(Error::Restarting(id.to_string()));
    }
    if !container.is_running() {
        return Err(not_running());
    }
    let mut channel = engine.connect(id)?.ok_or_else(not_running)?;
    channel.queue(&Message::Observe);
    let answered = channel.wait_for(Some(stop::GRACE), |message| match message {
        Message::Observed(text) => Some(Ok(text)),
        Message::Failed(reason) => Some(Err(reason)),
        _ => None,
    });
    let broken = |reason: String| Error::Monitor {
        id: id.to_string(),
        reason,
    };
    match answered.map_err(Error::system("talk to the monitor"))? {
        crate::channel::Waited::Found(Ok(text)) => {
            serde_json::from_str(&text).map_err(|error| broken(error.to_string()))
        }
        crate::channel::Waited::Found(Err(reason)) => Err(broken(reason)),
        crate::channel::Waited::Closed => Err(not_running()),
        crate::channel::Waited::TimedOut => Err(broken("it does not answer".to_owned())),
    }
}

/// Returns the images that containers (and mounts) stand on.
pub(crate) fn images_in_use(engine: &Engine) -> Result<Vec<ImageId>> {
    Ok(crate::images::uses(engine)?
        .into_iter()
        .filter_map(|used| used.image)
        .collect())
}
