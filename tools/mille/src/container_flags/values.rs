//! Values of flags that the client checks itself, in pflag's words where they are wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::ArgMatches;
use mille_engine::{DeviceMapping, RestartPolicy, Ulimit};

use crate::arguments::{declared, text, texts};
use crate::commands::Verb;
use crate::failure::Failure;
use crate::output::go_io_error;

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

/// `--restart` as docker's client reads it; what the name means is checked later.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match text.split_once(':') {
        Some(("", _)) => {
            return Err(
                "invalid restart policy format: no policy provided before colon".to_owned(),
            );
        }
        Some((name, count)) => (name, count),
        None => (text, ""),
    };
    let maximum_retry_count = match count {
        "" => 0,
        count => count.parse().map_err(|_| {
            "invalid restart policy format: maximum retry count must be an integer".to_owned()
        })?,
    };
    let name = if name.is_empty() { "no" } else { name }.to_owned();
    Ok(RestartPolicy {
        name,
        maximum_retry_count,
    })
}

/// `--security-opt` as docker's client records it: a profile file's text takes the place of its path, and
/// `systempaths=unconfined` is no option but empty lists of hidden and read-only paths.
pub(super) fn security_options(matches: &ArgMatches) -> Result<SecurityOptions, String> {
    let mut options = SecurityOptions::default();
    for text in texts(matches, "security-opt") {
        let (name, value) = match text.split_once(['=', ':']) {
            Some((name, value)) => (name, Some(value)),
            None => (text.as_str(), None),
        };
        match (name, value) {
            ("no-new-privileges", None) => options.list.push(text),
            (_, None) => return Err(format!("Invalid --security-opt: {text:?}")),
            ("systempaths", Some("unconfined")) => options.all_system_paths = true,
            ("seccomp", Some(file)) if !matches!(file, "unconfined" | "builtin") => {
                options
                    .list
                    .push(format!("seccomp={}", seccomp_profile(file)?));
            }
            _ => options.list.push(text),
        }
    }
    Ok(options)
}

/// What `--security-opt` said.
#[derive(Debug, Default)]
pub(super) struct SecurityOptions {
    /// As recorded.
    pub(super) list: Vec<String>,
    /// Nothing of /proc and /sys is hidden or read-only.
    pub(super) all_system_paths: bool,
}

fn seccomp_profile(file: &str) -> Result<String, String> {
    let bytes = std::fs::read(file).map_err(|error| {
        let error = go_io_error(&error);
        format!("opening seccomp profile ({file}) failed: open {file}: {error}")
    })?;
    let broken = |error: &dyn std::fmt::Display| {
        format!("compacting json for seccomp profile ({file}) failed: {error}")
    };
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).map_err(|error| broken(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| broken(&error))?;
    Ok(without_blanks(&text))
}

/// Valid JSON without the blanks between its tokens.
fn without_blanks(json: &str) -> String {
    let (mut inside, mut escaped) = (false, false);
    let keep = |c: &char| {
        let blank = !inside && matches!(c, ' ' | '\t' | '\n' | '\r');
        inside ^= *c == '"' && !escaped;
        escaped = inside && *c == '\\' && !escaped;
        !blank
    };
    json.chars().filter(keep).collect()
}

/// `--device host[:container][:rights]`.
pub(super) fn devices(matches: &ArgMatches) -> Result<Vec<DeviceMapping>, String> {
    texts(matches, "device")
        .iter()
        .map(|text| device(text))
        .collect()
}

fn device(text: &str) -> Result<DeviceMapping, String> {
    let are_rights = |text: &str| {
        let once = |right| text.matches(right).count() <= 1;
        !text.is_empty()
            && text.chars().all(|c| "rwm".contains(c))
            && ['r', 'w', 'm'].into_iter().all(once)
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, rights) = match parts.as_slice() {
        [host] => (*host, "", "rwm"),
        [host, rights] if are_rights(rights) => (*host, "", *rights),
        [host, inside] => (*host, *inside, "rwm"),
        [host, inside, rights] if are_rights(rights) => (*host, *inside, *rights),
        [_, _, rights] => return Err(format!("bad mode specified: {rights}")),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    let inside = if inside.is_empty() { host } else { inside };
    if let Some(relative) = [host, inside].iter().find(|path| !path.starts_with('/')) {
        return Err(format!("{relative} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: rights.to_owned(),
    })
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
    fn a_profile_is_recorded_without_blanks_between_its_tokens() {
        let text = "{ \"a\" : [1,\n\t2], \"b c\": \"d \\\" \\\\\" , \"e\" :  {} }";
        let want = "{\"a\":[1,2],\"b c\":\"d \\\" \\\\\",\"e\":{}}";
        assert_eq!(without_blanks(text), want);
    }

    #[test]
    fn devices_are_read_in_dockers_forms() {
        for (text, want) in [
            ("/dev/a", Ok(("/dev/a", "/dev/a", "rwm"))),
            ("/dev/a:/dev/b", Ok(("/dev/a", "/dev/b", "rwm"))),
            ("/dev/a:rw", Ok(("/dev/a", "/dev/a", "rw"))),
            ("/dev/a:/dev/b:r", Ok(("/dev/a", "/dev/b", "r"))),
            ("/dev/a:/dev/b:frob", Err("bad mode specified: frob")),
            ("dev/a", Err("dev/a is not an absolute path")),
        ] {
            let got = device(text);
            let got = got.as_ref().map(|device| {
                let DeviceMapping {
                    path_on_host,
                    path_in_container,
                    cgroup_permissions,
                } = device;
                (
                    path_on_host.as_str(),
                    path_in_container.as_str(),
                    cgroup_permissions.as_str(),
                )
            });
            assert_eq!(
                got,
                want.as_ref()
                    .map(|want| *want)
                    .map_err(|text| text.to_string())
                    .as_ref()
                    .map(|w| *w),
                "{text}"
            );
        }
    }

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
