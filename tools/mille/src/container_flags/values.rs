//! Values of flags that the client checks itself, in pflag's words where they are wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::ArgMatches;
use mille_engine::Ulimit;

use crate::arguments::{declared, text, texts};
use crate::commands::Verb;
use crate::failure::Failure;

/// All capabilities.
const ALL: &str = "ALL";

/// Limits that have a name.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// A value that a flag does not take, in pflag's words.
pub(crate) fn invalid(verb: &'static Verb, flag: &str, value: &str, cause: &str) -> Failure {
    Failure::Flag {
        verb,
        text: format!(
            "invalid argument {value:?} for {:?} flag: {cause}",
            declared(verb, flag)
        ),
    }
}

pub(super) fn extra_hosts(
    verb: &'static Verb,
    matches: &ArgMatches,
) -> Result<Vec<String>, Failure> {
    let check = |entry: String| {
        let Some((name, address)) = entry
            .split_once([':', '='])
            .filter(|(name, _)| !name.is_empty())
        else {
            return Err(invalid(
                verb,
                "add-host",
                &entry,
                &format!("bad format for add-host: {entry:?}"),
            ));
        };
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_err() {
            let cause = format!("invalid IP address in add-host: {address:?}");
            return Err(invalid(verb, "add-host", &entry, &cause));
        }
        Ok(format!("{name}:{bare}"))
    };
    texts(matches, "add-host").into_iter().map(check).collect()
}

pub(super) fn ulimits(verb: &'static Verb, matches: &ArgMatches) -> Result<Vec<Ulimit>, Failure> {
    let parse = |text: String| {
        let bad = |cause: &str| invalid(verb, "ulimit", &text, cause);
        let (name, limits) = text
            .split_once('=')
            .ok_or_else(|| bad(&format!("invalid ulimit argument: {text}")))?;
        if !ULIMITS.contains(&name) {
            return Err(bad(&format!("invalid ulimit type: {name}")));
        }
        let number = |text: &str| {
            text.parse::<i64>()
                .map_err(|_| bad(&crate::numbers::go_error("ParseInt", text)))
        };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard && hard != -1 {
            return Err(bad(&format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            )));
        }
        Ok(Ulimit {
            name: name.to_owned(),
            hard,
            soft,
        })
    };
    texts(matches, "ulimit").into_iter().map(parse).collect()
}

pub(super) fn integer(
    verb: &'static Verb,
    matches: &ArgMatches,
    name: &str,
) -> Result<Option<i64>, Failure> {
    let Some(text) = text(matches, name) else {
        return Ok(None);
    };
    let number = text.parse().map_err(|_| {
        invalid(
            verb,
            name,
            text,
            &crate::numbers::go_error("ParseInt", text),
        )
    })?;
    Ok(Some(number))
}

pub(super) fn bytes(
    verb: &'static Verb,
    matches: &ArgMatches,
    name: &str,
) -> Result<Option<i64>, Failure> {
    let Some(text) = text(matches, name) else {
        return Ok(None);
    };
    let size = crate::numbers::ram_bytes(text)
        .ok_or_else(|| invalid(verb, name, text, &format!("invalid size: '{text}'")))?;
    Ok(Some(size))
}

/// `--dns`: addresses.
pub(super) fn name_servers(
    verb: &'static Verb,
    matches: &ArgMatches,
) -> Result<Vec<String>, Failure> {
    let check = |text: String| match text.trim().parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => {
            let cause = format!("IP address is not correctly formatted: {text}");
            Err(invalid(verb, "dns", &text, &cause))
        }
    };
    texts(matches, "dns").into_iter().map(check).collect()
}

/// `--security-opt`: every option but one has a value; what they mean is the engine's to say.
pub(super) fn security_options(matches: &ArgMatches) -> Result<Vec<String>, String> {
    let check = |text: String| {
        let known = text == "no-new-privileges" || text.contains(['=', ':']);
        if known {
            Ok(text)
        } else {
            Err(format!("Invalid --security-opt: {text:?}"))
        }
    };
    texts(matches, "security-opt")
        .into_iter()
        .map(check)
        .collect()
}

/// `--cap-add` and `--cap-drop` as they are recorded: complete names, sorted; what is added is not dropped.
pub(super) fn capabilities(add: &[String], drop: &[String]) -> (Vec<String>, Vec<String>) {
    let complete = |names: &[String]| {
        let names = names.iter().map(|name| {
            let upper = name.trim().to_uppercase();
            if upper == ALL || upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            }
        });
        let names: BTreeSet<String> = names.collect();
        // "ALL" takes in the others.
        match names.get(ALL) {
            Some(all) => BTreeSet::from([all.clone()]),
            None => names,
        }
    };
    let (add, drop) = (complete(add), complete(drop));
    let drop = drop.difference(&add).cloned().collect();
    (add.into_iter().collect(), drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_recorded_by_their_complete_names() {
        for (add, drop, want_add, want_drop) in [
            ("", "", "", ""),
            ("NET_ADMIN", "MKNOD", "CAP_NET_ADMIN", "CAP_MKNOD"),
            (
                "sys_admin CAP_NET_ADMIN",
                "",
                "CAP_NET_ADMIN CAP_SYS_ADMIN",
                "",
            ),
            ("sys_admin all", "", "ALL", ""),
            ("chown", "all", "CAP_CHOWN", "ALL"),
            ("chown", "CAP_CHOWN kill", "CAP_CHOWN", "CAP_KILL"),
        ] {
            let words = |text: &str| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                capabilities(&words(add), &words(drop)),
                (words(want_add), words(want_drop)),
                "{add}, {drop}"
            );
        }
    }
}
