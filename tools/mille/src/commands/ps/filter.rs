//! Which containers `ps` lists.

use std::collections::HashSet;

use mille_engine::{Container, Engine, Ground, HOST_BASE, NEVER};
use mille_store::ImageId;

use super::network;
use crate::failure::Failure;
use crate::output::filter::Filters;

/// Names of filters.
pub(super) const NAMES: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// What container states are called.
const STATES: &[&str] = &[
    "created",
    "dead",
    "exited",
    "paused",
    "removing",
    "restarting",
    "running",
];
/// What states of health are called.
const HEALTH: &[&str] = &["healthy", "none", "starting", "unhealthy"];

/// Leaves the containers that fit all filters, in their order: newest first.
pub(super) fn apply(
    engine: &Engine,
    all: Vec<Container>,
    filters: &Filters,
    stopped_too: bool,
) -> Result<Vec<Container>, Failure> {
    check(filters)?;
    let window = window(engine, &all, filters)?;
    let ancestors = ancestors(engine, filters)?;
    let fits = |(place, container): &(usize, Container)| {
        (stopped_too || container.is_running())
            && window.contains(place)
            && ancestors
                .as_ref()
                .is_none_or(|ancestors| ancestors.has(container))
            && fits(container, filters)
    };
    Ok(all
        .into_iter()
        .enumerate()
        .filter(fits)
        .map(|(_, container)| container)
        .collect())
}

/// Refuses values that mean nothing.
fn check(filters: &Filters) -> Result<(), Failure> {
    for code in filters.values("exited") {
        if code.parse::<i32>().is_err() {
            return Err(Failure::Daemon(format!(
                "strconv.Atoi: parsing {code:?}: invalid syntax"
            )));
        }
    }
    if let Some(state) = filters
        .values("status")
        .find(|state| !STATES.contains(state))
    {
        return Err(Failure::Daemon(format!("Invalid filter 'status={state}'")));
    }
    if let Some(health) = filters
        .values("health")
        .find(|health| !HEALTH.contains(health))
    {
        return Err(Failure::Daemon(format!(
            "Unrecognised filter value for health: {health}"
        )));
    }
    filters.flag("is-task")?;
    for name in ["expose", "publish"] {
        for value in filters.values(name) {
            if let Err(text) = ports(value) {
                return Err(Failure::Daemon(format!(
                    "error while looking up for {name} {value}: {text}"
                )));
            }
        }
    }
    Ok(())
}

/// Reads `80`, `80-90`, `80/udp`.
fn ports(text: &str) -> Result<(std::ops::RangeInclusive<u16>, &str), String> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (low, high) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let parse = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
    };
    Ok((parse(low)?..=parse(high)?, protocol))
}

/// The places in the list that `before` and `since` leave.
fn window(
    engine: &Engine,
    all: &[Container],
    filters: &Filters,
) -> Result<std::ops::Range<usize>, Failure> {
    let place = |typed: &str| -> Result<usize, Failure> {
        let found = engine
            .find(typed)
            .map_err(|_| Failure::Daemon(format!("no such container {typed}")))?;
        Ok(all
            .iter()
            .position(|container| container.id == found.id)
            .unwrap_or(all.len()))
    };
    let mut window = 0..all.len();
    for typed in filters.values("before") {
        window.start = window.start.max(place(typed)? + 1);
    }
    for typed in filters.values("since") {
        window.end = window.end.min(place(typed)?);
    }
    Ok(window)
}

/// Images that `ancestor` names, with all that were made of them.
struct Ancestors {
    images: HashSet<ImageId>,
    host: bool,
}

impl Ancestors {
    fn has(&self, container: &Container) -> bool {
        match &container.ground {
            Ground::Image(id) => self.images.contains(id) || self.host && container.on_host,
            Ground::Host => self.host,
        }
    }
}

fn ancestors(engine: &Engine, filters: &Filters) -> Result<Option<Ancestors>, Failure> {
    if !filters.has("ancestor") {
        return Ok(None);
    }
    let host = filters.values("ancestor").any(|typed| typed == HOST_BASE);
    let mut images: HashSet<ImageId> = filters
        .values("ancestor")
        .filter_map(|typed| engine.store().resolve(typed).ok())
        .collect();
    let all = engine.store().images()?;
    loop {
        let before = images.len();
        let children = all
            .iter()
            .filter(|image| image.parent.is_some_and(|parent| images.contains(&parent)));
        let children: Vec<ImageId> = children.map(|image| image.id).collect();
        images.extend(children);
        if images.len() == before {
            return Ok(Some(Ancestors { images, host }));
        }
    }
}

fn fits(container: &Container, filters: &Filters) -> bool {
    let labels = container.config.labels.as_ref();
    let with_slash = format!("/{}", container.name);
    filters.matches("id", &[container.id.as_str()])
        && filters.matches("name", &[&container.name, &with_slash])
        && filters.labels(|key| labels.and_then(|labels| labels.get(key)).map(String::as_str))
        && exited(container, filters)
        && one_of(filters, "status", |state| container.state.status.as_str() == state)
        && one_of(filters, "network", |name| network(container) == name)
        && one_of(filters, "health", |wanted| {
            let health = container.state.health.as_ref();
            health.map_or("none", |health| health.status.as_str()) == wanted
        })
        // No container has a published port or a swarm yet.
        && !filters.has("publish")
        && filters.flag("is-task").is_ok_and(|task| task != Some(true))
        && one_of(filters, "expose", |wanted| exposes(container, wanted))
        && one_of(filters, "volume", |path| {
            container.mounts.iter().any(|mount| {
                let point = &mount.point;
                [&point.name, &point.source, &point.destination].contains(&&path.to_owned())
            })
        })
}

fn one_of(filters: &Filters, name: &str, is: impl Fn(&str) -> bool) -> bool {
    !filters.has(name) || filters.values(name).any(is)
}

fn exited(container: &Container, filters: &Filters) -> bool {
    let ended = !container.is_running() && container.state.started_at != NEVER;
    one_of(filters, "exited", |code| {
        ended && code.parse() == Ok(container.state.exit_code)
    })
}

fn exposes(container: &Container, wanted: &str) -> bool {
    let Ok((wanted, protocol)) = ports(wanted) else {
        return false;
    };
    container
        .config
        .exposed_ports
        .keys()
        .filter_map(|port| ports(port).ok())
        .any(|(port, other)| {
            other == protocol && port.start() <= wanted.end() && wanted.start() <= port.end()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_or_ranges() {
        assert_eq!(ports("80"), Ok((80..=80, "tcp")));
        assert_eq!(ports("80-90/udp"), Ok((80..=90, "udp")));
        assert_eq!(
            ports("abc"),
            Err("strconv.ParseUint: parsing \"abc\": invalid syntax".to_owned())
        );
    }
}
