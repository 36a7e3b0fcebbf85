//! Flags of docker's whose thing is not here: each is known and refused with the reason, so that nobody looks for a typing
//! error, unless it asks for what is so anyway.

use clap::{Arg, ArgMatches};

use crate::arguments::{is_on, list, switch, texts};

/// Flags with values: what is so anyway, and why nothing else is possible.
const VALUES: &[(&str, &[&str], &str)] = &[
    (
        "device-cgroup-rule",
        &[],
        "there is no device control group: no node can be opened but those --device gives",
    ),
    (
        "gpus",
        &[],
        "could not select device driver \"\" with capabilities: [[gpu]]; give the nodes by --device",
    ),
    ("isolation", &["", "default"], "only default is known here"),
    (
        "kernel-memory",
        &["0"],
        "kernels since 5.4 have no such limit; --memory counts the kernel's as well",
    ),
    ("runtime", &["mille"], "unknown or invalid runtime name"),
    (
        "storage-opt",
        &[],
        "the root has no size of its own: it is as large as the file system of the store",
    ),
    (
        "volume-driver",
        &["", "local"],
        "there are volumes of the driver local only",
    ),
];

/// Flags that are on or off: what they are here, and why they cannot be otherwise.
const SWITCHES: &[(&str, bool, &str)] = &[
    (
        "disable-content-trust",
        true,
        "no image is ever verified by a signature",
    ),
    (
        "use-api-socket",
        false,
        "there is no daemon, and so no socket of one",
    ),
];

/// The flags, which no help shows.
pub(super) fn flags() -> impl Iterator<Item = Arg> {
    let values = VALUES.iter().map(|(name, ..)| list(name, None, ""));
    let switches = SWITCHES.iter().map(|(name, on, _)| {
        switch(name, None, "").default_value(if *on { "true" } else { "false" })
    });
    values.chain(switches).map(|flag| flag.hide(true))
}

/// Refuses what was asked for and is not so anyway.
pub(super) fn check(matches: &ArgMatches) -> Result<(), String> {
    for (name, usual, reason) in VALUES {
        let given = texts(matches, name);
        if let Some(value) = given.iter().find(|value| !usual.contains(&value.as_str())) {
            return Err(format!("--{name} {value}: {reason}"));
        }
    }
    for (name, usual, reason) in SWITCHES {
        if is_on(matches, name) != *usual {
            return Err(format!("--{name}={}: {reason}", !usual));
        }
    }
    Ok(())
}
