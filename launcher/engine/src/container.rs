//! A container as callers see it.

use mille_store::config::ContainerConfig;
use mille_store::{DiffId, ImageId};
use serde::{Deserialize, Serialize};

use crate::container_mounts::ContainerMount;
use crate::host_config::HostConfig;
use crate::ids::ContainerId;
use crate::options::HOST_BASE;
use crate::state::State;

/// What a container stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ground {
    /// An image of the store.
    Image(ImageId),
    /// The machine's own root directory, without an image.
    Host,
}

/// A container: what it is (fixed at creation, but for the name) and where it stands.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its name, without docker's leading slash.
    pub name: String,
    /// When it was created: RFC 3339, UTC, nanoseconds.
    pub created: String,
    /// What it stands on.
    pub ground: Ground,
    /// Diff ids of its image, lowest first.
    pub layers: Vec<DiffId>,
    /// Below its image's layers lies the machine's own root.
    pub on_host: bool,
    /// The image as it was typed at creation.
    pub image_name: String,
    /// The program: the first word of entry point and command.
    pub path: String,
    /// The other words.
    pub args: Vec<String>,
    /// Its configuration, image and user merged.
    pub config: ContainerConfig,
    /// What the host gives it.
    pub host_config: HostConfig,
    /// What is mounted in it beside the engine's own files and `--tmpfs`.
    pub mounts: Vec<ContainerMount>,
    /// Where it stands.
    pub state: State,
    /// How often it was restarted by its policy.
    pub restart_count: u32,
}

impl Container {
    /// Returns the image's id as inspect shows it: `sha256:…`, or `@host`.
    #[must_use]
    pub fn image_id(&self) -> String {
        match &self.ground {
            Ground::Image(id) => id.to_string(),
            Ground::Host => HOST_BASE.to_owned(),
        }
    }

    /// Returns whether its first process lives.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.running
    }
}

impl Container {
    /// Returns whether its network is the host's.
    pub(crate) fn uses_host_network(&self) -> bool {
        matches!(
            self.host_config.network_mode.as_str(),
            "" | "host" | "default"
        )
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A container for tests: on the host, without any option.
    pub(crate) fn sample() -> Container {
        Container {
            id: ContainerId::random().unwrap(),
            name: "sample".into(),
            created: crate::records::now(),
            ground: Ground::Host,
            layers: Vec::new(),
            on_host: true,
            image_name: HOST_BASE.into(),
            path: "true".into(),
            args: Vec::new(),
            config: ContainerConfig::default(),
            host_config: HostConfig {
                network_mode: "none".into(),
                ..HostConfig::default()
            },
            mounts: Vec::new(),
            state: State::default(),
            restart_count: 0,
        }
    }
}
