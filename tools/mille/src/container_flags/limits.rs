//! Flags about limits, as docker's client reads them; whether they make sense is for the engine to say.

use std::collections::BTreeMap;

use clap::ArgMatches;
use mille_engine::{IPC_SYSCTLS, Resources};

use super::values::{bytes, integer, invalid};
use crate::arguments::{text, texts};
use crate::commands::Verb;
use crate::failure::{CLIENT_ERROR, Failure};
use crate::numbers::go_error;

/// The flags that `update` has as well, with one value each, and what kind it is.
pub(crate) const FLAGS: &[(&str, Option<char>, &str, &str)] = &[
    (
        "blkio-weight",
        None,
        "uint16",
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    ),
    (
        "cpu-period",
        None,
        "int",
        "Limit CPU CFS (Completely Fair Scheduler) period",
    ),
    (
        "cpu-quota",
        None,
        "int",
        "Limit CPU CFS (Completely Fair Scheduler) quota",
    ),
    (
        "cpu-rt-period",
        None,
        "int",
        "Limit CPU real-time period in microseconds",
    ),
    (
        "cpu-rt-runtime",
        None,
        "int",
        "Limit CPU real-time runtime in microseconds",
    ),
    (
        "cpu-shares",
        Some('c'),
        "int",
        "CPU shares (relative weight)",
    ),
    ("cpus", None, "decimal", "Number of CPUs"),
    (
        "cpuset-cpus",
        None,
        "string",
        "CPUs in which to allow execution (0-3, 0,1)",
    ),
    (
        "cpuset-mems",
        None,
        "string",
        "MEMs in which to allow execution (0-3, 0,1)",
    ),
    ("memory", Some('m'), "bytes", "Memory limit"),
    ("memory-reservation", None, "bytes", "Memory soft limit"),
    (
        "memory-swap",
        None,
        "bytes",
        "Swap limit equal to memory plus swap: '-1' to enable unlimited swap",
    ),
    (
        "pids-limit",
        None,
        "int",
        "Tune container pids limit (set -1 for unlimited)",
    ),
];

/// Whether one of these flags was given.
pub(crate) fn are_given(matches: &ArgMatches) -> bool {
    FLAGS.iter().any(|(name, ..)| text(matches, name).is_some())
}

/// Reads the limits; what is not given stays as in `defaults`.
pub(crate) fn read(
    verb: &'static Verb,
    matches: &ArgMatches,
    defaults: &Resources,
) -> Result<Resources, Failure> {
    let number = |name| integer(verb, matches, name).map(Option::unwrap_or_default);
    let size = |name| bytes(verb, matches, name).map(Option::unwrap_or_default);
    let words = |name| text(matches, name).unwrap_or_default().to_owned();
    Ok(Resources {
        memory: size("memory")?,
        memory_reservation: size("memory-reservation")?,
        memory_swap: match text(matches, "memory-swap") {
            Some("-1") => -1,
            _ => size("memory-swap")?,
        },
        nano_cpus: nano_cpus(verb, matches)?,
        cpu_shares: number("cpu-shares")?,
        cpu_period: number("cpu-period")?,
        cpu_quota: number("cpu-quota")?,
        cpu_realtime_period: number("cpu-rt-period")?,
        cpu_realtime_runtime: number("cpu-rt-runtime")?,
        cpuset_cpus: words("cpuset-cpus"),
        cpuset_mems: words("cpuset-mems"),
        pids_limit: integer(verb, matches, "pids-limit")?,
        blkio_weight: weight(verb, matches)?,
        ..defaults.clone()
    })
}

/// `--cpus 1.5` in thousand-millionths.
fn nano_cpus(verb: &'static Verb, matches: &ArgMatches) -> Result<i64, Failure> {
    let Some(text) = text(matches, "cpus") else {
        return Ok(0);
    };
    nano(text).map_err(|cause| invalid(verb, "cpus", text, &cause))
}

fn nano(text: &str) -> Result<i64, String> {
    let bad = || format!("failed to parse {text} as a rational number");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if digits.is_empty() || digits == "." || !plain(whole) || !plain(part) {
        return Err(bad());
    }
    let part = part.trim_end_matches('0');
    if part.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let number = format!("{whole}{part:0<9}");
    number
        .parse()
        .map(|number: i64| sign * number)
        .map_err(|_| bad())
}

/// `--memory-swappiness`, whose -1 is the kernel's own.
pub(super) fn swappiness(
    verb: &'static Verb,
    matches: &ArgMatches,
) -> Result<Option<i64>, Failure> {
    match integer(verb, matches, "memory-swappiness")? {
        Some(value) if !(-1..=100).contains(&value) => Err(Failure::Run {
            verb,
            text: format!("invalid value: {value}. Valid memory swappiness range is 0-100"),
            code: CLIENT_ERROR,
        }),
        value => Ok(value.filter(|value| *value != -1)),
    }
}

fn weight(verb: &'static Verb, matches: &ArgMatches) -> Result<u16, Failure> {
    let Some(text) = text(matches, "blkio-weight") else {
        return Ok(0);
    };
    let bad = |_| invalid(verb, "blkio-weight", text, &go_error("ParseUint", text));
    text.parse().map_err(bad)
}

/// `--sysctl name=value`.
pub(super) fn sysctls(
    verb: &'static Verb,
    matches: &ArgMatches,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for text in texts(matches, "sysctl") {
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        let known = IPC_SYSCTLS.contains(&name)
            || ["net.", "fs.mqueue."].iter().any(|p| name.starts_with(p));
        if !known {
            let cause = format!("sysctl '{text}' is not allowed");
            return Err(invalid(verb, "sysctl", &text, &cause));
        }
        all.insert(name.to_owned(), value.to_owned());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_read_exactly() {
        for (text, want) in [
            ("1", Ok(1_000_000_000)),
            ("0.5", Ok(500_000_000)),
            (".25", Ok(250_000_000)),
            ("-1", Ok(-1_000_000_000)),
            ("1.000000001", Ok(1_000_000_001)),
            ("abc", Err("failed to parse abc as a rational number")),
            ("", Err("failed to parse  as a rational number")),
            ("0.0000000001", Err("value is too precise")),
        ] {
            assert_eq!(nano(text), want.map_err(str::to_owned), "{text}");
        }
    }
}
