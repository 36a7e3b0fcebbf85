//! Values of flags that the client checks itself, in pflag's words where they are wrong.

use std::net::IpAddr;

use clap::ArgMatches;
use mille_engine::Ulimit;

use crate::arguments::{declared, text, texts};
use crate::commands::Verb;
use crate::failure::Failure;

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
