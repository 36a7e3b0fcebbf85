//! Namespaces of other containers: `--network`, `--pid` and `--ipc container:NAME`.

use std::sync::Arc;

use mille_sandbox::{Joined, NamespaceKind};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::host_config::HostConfig;
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::{process, records};

/// How a mode names another container.
const PREFIX: &str = "container:";

/// What a mode is the mode of.
const KINDS: [NamespaceKind; 3] = [
    NamespaceKind::Network,
    NamespaceKind::Pid,
    NamespaceKind::Ipc,
];

/// Returns the container a mode names.
pub(crate) fn named(mode: &str) -> Option<&str> {
    mode.strip_prefix(PREFIX)
}

fn mode(host: &HostConfig, kind: NamespaceKind) -> &str {
    match kind {
        NamespaceKind::Network => &host.network_mode,
        NamespaceKind::Pid => &host.pid_mode,
        NamespaceKind::Ipc => &host.ipc_mode,
    }
}

/// Puts full ids in the place of the names in a new container's modes, and takes over what goes with a network.
///
/// # Errors
/// No such container; flags that contradict it: docker's texts.
pub(crate) fn settle(layout: &Layout, container: &mut Container) -> Result<()> {
    for kind in KINDS {
        let Some(typed) = named(mode(&container.host_config, kind)) else {
            continue;
        };
        let donor = records::find(layout, typed)?;
        if kind == NamespaceKind::Network {
            check_network(container)?;
            container.config.hostname.clone_from(&donor.config.hostname);
            container
                .config
                .domainname
                .clone_from(&donor.config.domainname);
        }
        let settled = format!("{PREFIX}{}", donor.id);
        let host = &mut container.host_config;
        match kind {
            NamespaceKind::Network => host.network_mode = settled,
            NamespaceKind::Pid => host.pid_mode = settled,
            NamespaceKind::Ipc => host.ipc_mode = settled,
        }
    }
    Ok(())
}

/// What belongs to the network belongs to the container that has it.
fn check_network(container: &Container) -> Result<()> {
    let host = &container.host_config;
    let conflicts = [
        (!container.config.hostname.is_empty(), "hostname"),
        (!host.dns.is_empty(), "dns"),
        (
            host.extra_hosts.iter().flatten().next().is_some(),
            "custom host-to-IP mapping",
        ),
    ];
    match conflicts.iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(Error::Invalid(format!(
            "conflicting options: {what} and the network mode"
        ))),
        None => Ok(()),
    }
}

/// Returns the container whose network a container has, for the files that go with it.
pub(crate) fn network_donor(container: &Container) -> Option<ContainerId> {
    named(&container.host_config.network_mode).and_then(ContainerId::parse)
}

/// Finds the processes whose namespaces a container is to enter, as it starts.
///
/// # Errors
/// A container that does not run, or does not share: docker's texts.
pub(crate) fn joined(layout: &Layout, container: &Container) -> Result<Vec<Joined>> {
    let mut found = Vec::new();
    for kind in KINDS {
        let Some(id) = named(mode(&container.host_config, kind)) else {
            continue;
        };
        let donor = records::find(layout, id)?;
        // What it has from the host is had from the host.
        let of_host = match kind {
            NamespaceKind::Network => donor.uses_host_network(),
            NamespaceKind::Pid => donor.host_config.pid_mode == "host",
            NamespaceKind::Ipc => donor.host_config.ipc_mode == "host",
        };
        let shares = ["host", "shareable"].contains(&donor.host_config.ipc_mode.as_str());
        if kind == NamespaceKind::Ipc && !shares && named(&donor.host_config.ipc_mode).is_none() {
            return Err(Error::Invalid(format!(
                "can't join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            )));
        }
        let state = records::read_state(&layout.container(&donor.id))?;
        let process = donor
            .is_running()
            .then(|| process::open(state.state.pid, state.init_start))
            .flatten();
        match process {
            Some(process) if !of_host => found.push(Joined {
                kind,
                process: Arc::new(process),
            }),
            Some(_) => {}
            None if kind == NamespaceKind::Network => {
                return Err(Error::Invalid(format!(
                    "cannot join network of a non running container: {id}"
                )));
            }
            None => return Err(Error::NotRunning(id.to_owned())),
        }
    }
    Ok(found)
}
