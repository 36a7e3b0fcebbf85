//! The flags that `run` and `create` share: from what was typed to a container's configuration.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use clap::ArgMatches;
use mille_engine::{CreateOptions, HostConfig, LogConfig, Resources};
use mille_store::config::ContainerConfig;

use crate::arguments::{is_on, text, texts, words};
use crate::commands::Verb;
use crate::env_file;
use crate::failure::{CLIENT_ERROR, Failure};
use crate::mount_flag;
use crate::output;

mod block_devices;
mod declared;
mod foreign;
mod health;
pub(crate) mod limits;
mod namespaces;
mod values;

pub(crate) use declared::add;
use values::{
    bytes, capabilities, devices, extra_hosts, integer, name_servers, security_options, ulimits,
};
pub(crate) use values::{invalid, restart_policy};

/// Reads the flags; the container is not made yet.
pub(crate) fn read(verb: &'static Verb, matches: &ArgMatches) -> Result<CreateOptions, Failure> {
    let mut words = words(matches).into_iter();
    let image = words.next().unwrap_or_default();
    let config = config(verb, matches, words.collect())?;
    let host_config = host_config(verb, matches)?;
    check_pull(verb, matches)?;
    foreign::check(matches).map_err(|text| refused(verb, text))?;
    if is_on(matches, "replace") && text(matches, "name").is_none() {
        return Err(refused(verb, "--replace needs --name".to_owned()));
    }
    Ok(CreateOptions {
        name: text(matches, "name").map(str::to_owned),
        image,
        config,
        host_config,
    })
}

fn refused(verb: &'static Verb, text: String) -> Failure {
    Failure::Run {
        verb,
        text,
        code: CLIENT_ERROR,
    }
}

fn config(
    verb: &'static Verb,
    matches: &ArgMatches,
    command: Vec<String>,
) -> Result<ContainerConfig, Failure> {
    let interactive = is_on(matches, "interactive");
    let streams = attached(verb, matches)?;
    let on = |name: &str| streams.iter().any(|stream| stream == name);
    let plain = streams.is_empty();
    Ok(ContainerConfig {
        hostname: owned(matches, "hostname"),
        domainname: owned(matches, "domainname"),
        user: owned(matches, "user"),
        attach_stdin: on("stdin") || (plain && interactive),
        attach_stdout: on("stdout") || plain,
        attach_stderr: on("stderr") || plain,
        tty: is_on(matches, "tty"),
        open_stdin: interactive,
        stdin_once: interactive,
        env: some(environment(verb, matches)?),
        cmd: some(command),
        volumes: volumes(matches),
        working_dir: owned(matches, "workdir"),
        entrypoint: text(matches, "entrypoint").map(|word| vec![word.to_owned()]),
        labels: Some(labels(verb, matches)?),
        healthcheck: health::read(verb, matches)?,
        stop_signal: owned(matches, "stop-signal"),
        stop_timeout: integer(verb, matches, "stop-timeout")?,
        ..ContainerConfig::default()
    })
}

fn owned(matches: &ArgMatches, name: &str) -> String {
    text(matches, name).unwrap_or_default().to_owned()
}

fn some(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}

/// The streams of `-a`, in lower case.
pub(crate) fn attached(verb: &'static Verb, matches: &ArgMatches) -> Result<Vec<String>, Failure> {
    let check = |stream: String| {
        let lower = stream.to_lowercase();
        let known = ["stdin", "stdout", "stderr"].contains(&lower.as_str());
        if known {
            Ok(lower)
        } else {
            Err(invalid(
                verb,
                "attach",
                &stream,
                "valid streams are STDIN, STDOUT and STDERR",
            ))
        }
    };
    texts(matches, "attach").into_iter().map(check).collect()
}

fn environment(verb: &'static Verb, matches: &ArgMatches) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for file in texts(matches, "env-file") {
        all.extend(env_file::read(&file).map_err(|text| refused(verb, text))?);
    }
    all.extend(variables(verb, matches)?);
    Ok(all)
}

/// The values of `-e`: `NAME` alone is taken from our own environment, or left out.
pub(crate) fn variables(verb: &'static Verb, matches: &ArgMatches) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for entry in texts(matches, "env") {
        if entry.is_empty() || entry.starts_with('=') {
            return Err(invalid(
                verb,
                "env",
                &entry,
                &format!("invalid environment variable: {entry}"),
            ));
        }
        if entry.contains('=') {
            all.push(entry);
        } else if let Ok(value) = std::env::var(&entry) {
            all.push(format!("{entry}={value}"));
        }
    }
    Ok(all)
}

fn labels(verb: &'static Verb, matches: &ArgMatches) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for file in texts(matches, "label-file") {
        for line in env_file::read_labels(&file).map_err(|text| refused(verb, text))? {
            let (name, value) = line.split_once('=').unwrap_or((&line, ""));
            labels.insert(name.to_owned(), value.to_owned());
        }
    }
    for label in texts(matches, "label") {
        let (name, value) = label.split_once('=').unwrap_or((&label, ""));
        if name.is_empty() {
            return Err(invalid(
                verb,
                "label",
                &label,
                &format!("invalid label '{label}': empty name"),
            ));
        }
        labels.insert(name.to_owned(), value.to_owned());
    }
    Ok(labels)
}

/// `--annotation NAME=VALUE`.
fn annotations(
    verb: &'static Verb,
    matches: &ArgMatches,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for text in texts(matches, "annotation") {
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        if name.is_empty() {
            let cause = format!("invalid annotation format: {text}");
            return Err(invalid(verb, "annotation", &text, &cause));
        }
        all.insert(name.to_owned(), value.to_owned());
    }
    Ok(all)
}

fn host_config(verb: &'static Verb, matches: &ArgMatches) -> Result<HostConfig, Failure> {
    let defaults = HostConfig::default();
    let privileged = is_on(matches, "privileged");
    let mut mounts = Vec::new();
    for text in texts(matches, "mount") {
        mounts
            .push(mount_flag::parse(&text).map_err(|cause| invalid(verb, "mount", &text, &cause))?);
    }
    let security = security_options(matches).map_err(|text| refused(verb, text))?;
    let system_paths = |default: &Option<Vec<String>>| match security.all_system_paths {
        _ if privileged => None,
        true => Some(Vec::new()),
        false => default.clone(),
    };
    let policy = text(matches, "restart").unwrap_or("no");
    let restart_policy = restart_policy(policy).map_err(|text| refused(verb, text))?;
    if restart_policy.name != "no" && is_on(matches, "rm") {
        return Err(refused(
            verb,
            "conflicting options: cannot specify both --restart and --rm".to_owned(),
        ));
    }
    let (cap_add, cap_drop) = capabilities(&texts(matches, "cap-add"), &texts(matches, "cap-drop"));
    Ok(HostConfig {
        annotations: annotations(verb, matches)?,
        binds: some(binds(matches)),
        mounts,
        volumes_from: some(texts(matches, "volumes-from")),
        container_id_file: owned(matches, "cidfile"),
        log_config: log_config(verb, matches)?,
        network_mode: text(matches, "network").unwrap_or("host").to_owned(),
        restart_policy,
        auto_remove: is_on(matches, "rm"),
        cap_add: some(cap_add),
        cap_drop: some(cap_drop),
        dns: name_servers(verb, matches)?,
        dns_options: texts(matches, "dns-option"),
        dns_search: texts(matches, "dns-search"),
        extra_hosts: some(extra_hosts(verb, matches)?),
        group_add: some(texts(matches, "group-add")),
        init: is_on(matches, "init").then_some(true),
        privileged,
        readonly_rootfs: is_on(matches, "read-only"),
        masked_paths: system_paths(&defaults.masked_paths),
        readonly_paths: system_paths(&defaults.readonly_paths),
        security_opt: some(security.list),
        tmpfs: tmpfs(matches),
        shm_size: bytes(verb, matches, "shm-size")?.unwrap_or(defaults.shm_size),
        oom_score_adj: integer(verb, matches, "oom-score-adj")?.unwrap_or(0),
        sysctls: limits::sysctls(verb, matches)?,
        pid_mode: namespaces::mode(verb, matches, "pid")?,
        ipc_mode: match namespaces::mode(verb, matches, "ipc")? {
            mode if mode.is_empty() => defaults.ipc_mode.clone(),
            mode => mode,
        },
        uts_mode: namespaces::mode(verb, matches, "uts")?,
        userns_mode: namespaces::mode(verb, matches, "userns")?,
        cgroupns_mode: match namespaces::mode(verb, matches, "cgroupns")? {
            mode if mode.is_empty() => defaults.cgroupns_mode.clone(),
            mode => mode,
        },
        resources: resources(verb, matches, &defaults.resources)?,
        ..defaults
    })
}

fn resources(
    verb: &'static Verb,
    matches: &ArgMatches,
    defaults: &Resources,
) -> Result<Resources, Failure> {
    Ok(Resources {
        cgroup_parent: owned(matches, "cgroup-parent"),
        devices: devices(matches).map_err(|text| refused(verb, text))?,
        ulimits: ulimits(verb, matches)?,
        memory_swappiness: limits::swappiness(verb, matches)?,
        oom_kill_disable: Some(is_on(matches, "oom-kill-disable")),
        blkio_weight_device: block_devices::weights(verb, matches)?,
        blkio_device_read_bps: block_devices::bytes(verb, matches, "device-read-bps")?,
        blkio_device_write_bps: block_devices::bytes(verb, matches, "device-write-bps")?,
        blkio_device_read_iops: block_devices::requests(verb, matches, "device-read-iops")?,
        blkio_device_write_iops: block_devices::requests(verb, matches, "device-write-iops")?,
        ..limits::read(verb, matches, defaults)?
    })
}

/// The values of `-v` that mount something that has a name; a relative path of the host is completed, as docker does.
fn binds(matches: &ArgMatches) -> Vec<String> {
    let complete = |text: String| match text.split_once(':') {
        Some((host, rest)) if host.starts_with('.') => match std::path::absolute(host) {
            Ok(path) => format!("{}:{rest}", path.display()),
            Err(_) => text,
        },
        _ => text,
    };
    let texts = texts(matches, "volume").into_iter();
    texts
        .filter(|text| text.contains(':'))
        .map(complete)
        .collect()
}

/// The values of `-v` that are only a place in the container.
fn volumes(matches: &ArgMatches) -> Option<BTreeMap<String, serde_json::Value>> {
    let places = texts(matches, "volume").into_iter();
    let places: BTreeMap<_, _> = places
        .filter(|text| !text.contains(':'))
        .map(|place| (place, serde_json::json!({})))
        .collect();
    (!places.is_empty()).then_some(places)
}

fn tmpfs(matches: &ArgMatches) -> BTreeMap<String, String> {
    let pair = |text: String| match text.split_once(':') {
        Some((target, options)) => (target.to_owned(), options.to_owned()),
        None => (text, String::new()),
    };
    texts(matches, "tmpfs").into_iter().map(pair).collect()
}

fn log_config(verb: &'static Verb, matches: &ArgMatches) -> Result<LogConfig, Failure> {
    let mut config = LogConfig::default();
    if let Some(driver) = text(matches, "log-driver") {
        config.kind = driver.to_owned();
    }
    for option in texts(matches, "log-opt") {
        let Some((name, value)) = option.split_once('=') else {
            return Err(invalid(
                verb,
                "log-opt",
                &option,
                "invalid log option: expected name=value",
            ));
        };
        config.config.insert(name.to_owned(), value.to_owned());
    }
    Ok(config)
}

fn check_pull(verb: &'static Verb, matches: &ArgMatches) -> Result<(), Failure> {
    match text(matches, "pull") {
        None | Some("missing" | "never") => Ok(()),
        Some("always") => Err(refused(
            verb,
            "--pull always: there is no registry client yet; use mille load".to_owned(),
        )),
        Some(other) => {
            let text =
                format!("invalid pull option: '{other}': must be one of \"missing\" or \"never\"");
            Err(refused(verb, text))
        }
    }
}

/// `-it` without a terminal is a mistake that docker refuses before anything happens.
pub(crate) fn check_terminal(tty: bool, stdin: bool) -> Result<(), Failure> {
    if tty && stdin && !std::io::stdin().is_terminal() {
        return Err(Failure::plain("the input device is not a TTY"));
    }
    Ok(())
}

/// Adds the note docker prints when an image is not there, unless pulling is out of the question.
pub(crate) fn note_missing_image(error: &mille_engine::Error, image: &str, pull: Option<&str>) {
    let missing = matches!(
        error,
        mille_engine::Error::Resolve(mille_store::ResolveError::NotFound { .. })
    );
    if missing && pull != Some("never") {
        let name = mille_store::Reference::parse(image).map(|name| name.or_latest().familiar());
        output::complain(&format!(
            "Unable to find image '{}' locally",
            name.unwrap_or_else(|_| image.to_owned())
        ));
    }
}
