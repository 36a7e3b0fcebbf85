//! Namespaces of other containers: `--network`, `--pid` and `--ipc container:NAME`.
//!
//! Where containers have user namespaces, as an ordinary user's do, who joins another lives in its user namespace too: that
//! one owns the others, and only who is inside may mount a procfs of its processes. Only a process of the same outer
//! namespace may enter it, so that the command which starts the second container goes where the first one's monitor is
//! ([`outer_of`]), before it does anything else.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use mille_sandbox::outer::Namespaces;
use mille_sandbox::{Joined, NamespaceKind};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::host_config::HostConfig;
use crate::ids::ContainerId;
use crate::layout::Layout;
use crate::{exec, process, records};

/// How a mode names another container.
const PREFIX: &str = "container:";

/// What a mode is the mode of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Network,
    Pid,
    Ipc,
}

const KINDS: [Kind; 3] = [Kind::Network, Kind::Pid, Kind::Ipc];

impl Kind {
    fn namespace(self) -> NamespaceKind {
        match self {
            Self::Network => NamespaceKind::Network,
            Self::Pid => NamespaceKind::Pid,
            Self::Ipc => NamespaceKind::Ipc,
        }
    }
}

/// Returns the container a mode names.
pub(crate) fn named(mode: &str) -> Option<&str> {
    mode.strip_prefix(PREFIX)
}

fn mode(host: &HostConfig, kind: Kind) -> &str {
    match kind {
        Kind::Network => &host.network_mode,
        Kind::Pid => &host.pid_mode,
        Kind::Ipc => &host.ipc_mode,
    }
}

/// Returns the containers whose namespaces these modes name.
pub(crate) fn donors(host: &HostConfig) -> impl Iterator<Item = &str> {
    KINDS.into_iter().filter_map(|kind| named(mode(host, kind)))
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
        if kind == Kind::Network {
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
            Kind::Network => host.network_mode = settled,
            Kind::Pid => host.pid_mode = settled,
            Kind::Ipc => host.ipc_mode = settled,
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
pub(crate) fn joined(layout: &Layout, container: &Container, nested: bool) -> Result<Vec<Joined>> {
    let mut found = Vec::new();
    let mut owner = Owner::default();
    for kind in KINDS {
        let Some(id) = named(mode(&container.host_config, kind)) else {
            continue;
        };
        let donor = records::find(layout, id)?;
        let (init, process) = running(layout, &donor, kind, id)?;
        if has_from_host(&donor, kind) {
            // Then it is had from the host.
            continue;
        }
        let process = if nested {
            let process = Arc::new(owner.enter(&donor, init)?);
            if found.is_empty() {
                found.push(Joined {
                    kind: NamespaceKind::User,
                    process: Arc::clone(&process),
                });
            }
            process
        } else {
            Arc::new(process)
        };
        found.push(Joined {
            kind: kind.namespace(),
            process,
        });
    }
    Ok(found)
}

fn has_from_host(donor: &Container, kind: Kind) -> bool {
    match kind {
        Kind::Network => donor.uses_host_network(),
        Kind::Pid => donor.host_config.pid_mode == "host",
        Kind::Ipc => donor.host_config.ipc_mode == "host",
    }
}

/// Returns the first process of a container that runs and shares, and its number.
fn running(layout: &Layout, donor: &Container, kind: Kind, id: &str) -> Result<(i32, OwnedFd)> {
    let state = records::read_state(&layout.container(&donor.id))?;
    let process = donor
        .is_running()
        .then(|| process::open(state.state.pid, state.init_start))
        .flatten();
    let Some(process) = process else {
        return Err(Error::Invalid(match kind {
            Kind::Network => format!("cannot join network of a non running container: {id}"),
            Kind::Pid => format!("container {id} is not running"),
            Kind::Ipc => format!("can't join IPC of container {id}: container {id} is not running"),
        }));
    };
    let ipc = donor.host_config.ipc_mode.as_str();
    if kind == Kind::Ipc && !["host", "shareable"].contains(&ipc) && named(ipc).is_none() {
        return Err(Error::Invalid(format!(
            "can't join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )));
    }
    Ok((state.state.pid, process))
}

/// The one user namespace that owns everything a container joins.
#[derive(Default)]
struct Owner {
    /// Its number, and a container that lives in it.
    known: Option<(u64, String)>,
}

impl Owner {
    /// Opens the process through which a container of ours is entered.
    fn enter(&mut self, donor: &Container, init: i32) -> Result<OwnedFd> {
        let entrance = process::entrance(init);
        // One whose monitor lives in another outer namespace may not be looked at: it has been started by another command
        // since this process came to be where it is.
        let number = std::fs::metadata(format!("/proc/{}/ns/user", entrance.pid))
            .map(|meta| meta.ino())
            .map_err(|_| {
                let name = &donor.name;
                Error::Invalid(format!(
                    "cannot join the namespaces of container {name}: it was started anew meanwhile: start this container again"
                ))
            })?;
        match &self.known {
            Some((known, name)) if *known != number => return Err(apart(&donor.name, name)),
            _ => self.known = Some((number, donor.name.clone())),
        }
        process::stat(entrance.pid)
            .and_then(|stat| process::open(entrance.pid, stat.start))
            .ok_or_else(|| Error::NotRunning(donor.id.to_string()))
    }
}

fn apart(name: &str, other: &str) -> Error {
    Error::Invalid(format!(
        "cannot join namespaces of both {other} and {name}: an ordinary user's containers have a user namespace each: start \
         one of them with a namespace of the other (such as --ipc container:{other}), then they share it"
    ))
}

/// Finds the outer namespaces of the running containers that `joins` names, or that the containers `starts` will join.
/// `None`: there are none to enter.
///
/// # Errors
/// They differ; a monitor does not answer. Names that lead nowhere are for others to complain about.
pub(crate) fn outer_of(
    layout: &Layout,
    joins: &[String],
    starts: &[String],
) -> Result<Option<Namespaces>> {
    let mut donors = Vec::new();
    for typed in starts {
        if let Ok(container) = records::find(layout, typed) {
            donors.extend(container.host_config.donors());
        }
    }
    let mut found: Option<(u64, String, Namespaces)> = None;
    for typed in joins.iter().chain(&donors) {
        let Ok(donor) = records::find(layout, typed) else {
            continue;
        };
        if !donor.is_running() || donor.state.restarting {
            continue;
        }
        let Some(namespaces) = exec::namespaces(layout, &donor.id)? else {
            continue;
        };
        let number = rustix::fs::fstat(namespaces.user.as_fd())
            .map_err(|errno| Error::system("inspect a user namespace")(errno.into()))?
            .st_ino;
        match &found {
            Some((known, name, _)) if *known != number => return Err(apart(&donor.name, name)),
            _ => found = Some((number, donor.name, namespaces)),
        }
    }
    Ok(found.map(|(_, _, namespaces)| namespaces))
}
