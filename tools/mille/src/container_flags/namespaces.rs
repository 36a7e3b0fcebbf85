//! Flags that share a namespace with the host or another container.

use clap::ArgMatches;

use crate::arguments::text;
use crate::commands::Verb;
use crate::failure::{CLIENT_ERROR, Failure, daemon};

/// What docker's client calls each kind, and the words besides `host` that are acted on.
const KINDS: [(&str, &str, &[&str]); 5] = [
    ("pid", "PID", &[]),
    ("ipc", "IPC", &["none", "private", "shareable"]),
    ("uts", "UTS", &[]),
    ("userns", "USER", &[]),
    ("cgroupns", "CGROUP", &["private"]),
];

/// Reads one of these flags; empty when it was not given.
pub(super) fn mode(
    verb: &'static Verb,
    matches: &ArgMatches,
    flag: &'static str,
) -> Result<String, Failure> {
    let given = text(matches, flag).unwrap_or_default();
    check(flag, given)
        .map(|()| given.to_owned())
        .map_err(|text| Failure::Run {
            verb,
            text,
            code: CLIENT_ERROR,
        })
}

fn check(flag: &str, given: &str) -> Result<(), String> {
    let found = KINDS.iter().find(|(name, ..)| *name == flag);
    let (_, kind, words) = found.ok_or_else(|| format!("--{flag}: unknown"))?;
    if ["", "host"].contains(&given) || words.contains(&given) {
        return Ok(());
    }
    let other = given.strip_prefix("container:").unwrap_or_default();
    if ["pid", "ipc"].contains(&flag) && !other.is_empty() {
        return Ok(());
    }
    Err(match flag {
        // The one that docker leaves to its engine.
        "ipc" => daemon(format!("Invalid IPC mode: {given}")),
        _ => format!("--{flag}: invalid {kind} mode"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_refused_in_dockers_words() {
        for (flag, given, want) in [
            ("pid", "", Ok(())),
            ("pid", "host", Ok(())),
            ("pid", "frob", Err("--pid: invalid PID mode")),
            ("ipc", "shareable", Ok(())),
            (
                "ipc",
                "frob",
                Err("Error response from daemon: Invalid IPC mode: frob"),
            ),
            ("userns", "frob", Err("--userns: invalid USER mode")),
            ("cgroupns", "private", Ok(())),
            ("pid", "container:x", Ok(())),
            ("pid", "container:", Err("--pid: invalid PID mode")),
            // Nor does docker.
            ("uts", "container:x", Err("--uts: invalid UTS mode")),
        ] {
            assert_eq!(
                check(flag, given),
                want.map_err(str::to_owned),
                "{flag} {given}"
            );
        }
    }
}
