//! The flags that `run` and `create` share: from what was typed to a container's configuration.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use clap::{ArgMatches, Command};
use mille_engine::{CreateOptions, HostConfig, LogConfig, Resources, Ulimit};
use mille_store::config::ContainerConfig;

use crate::arguments::{declared, is_on, list, switch, text, texts, value, words};
use crate::commands::Verb;
use crate::env_file;
use crate::failure::{CLIENT_ERROR, Failure};

/// Adds the flags.
pub(crate) fn add(command: Command) -> Command {
    let command = command
        .arg(list(
            "add-host",
            None,
            "Add a custom host-to-IP mapping (host:ip)",
        ))
        .arg(list(
            "attach",
            Some('a'),
            "Attach to STDIN, STDOUT or STDERR",
        ))
        .arg(list("cap-add", None, "Add Linux capabilities"))
        .arg(list("cap-drop", None, "Drop Linux capabilities"))
        .arg(value(
            "cidfile",
            None,
            "string",
            "Write the container ID to the file",
        ))
        .arg(list("dns", None, "Set custom DNS servers"))
        .arg(list("dns-option", None, "Set DNS options"))
        .arg(list("dns-search", None, "Set custom DNS search domains"))
        .arg(value(
            "domainname",
            None,
            "string",
            "Container NIS domain name",
        ))
        .arg(value(
            "entrypoint",
            None,
            "string",
            "Overwrite the default ENTRYPOINT of the image",
        ))
        .arg(list("env", Some('e'), "Set environment variables"))
        .arg(list(
            "env-file",
            None,
            "Read in a file of environment variables",
        ))
        .arg(list("group-add", None, "Add additional groups to join"))
        .arg(value(
            "hostname",
            Some('h'),
            "string",
            "Container host name",
        ))
        .arg(switch(
            "interactive",
            Some('i'),
            "Keep STDIN open even if not attached",
        ))
        .arg(list("label", Some('l'), "Set meta data on a container"))
        .arg(list(
            "label-file",
            None,
            "Read in a line delimited file of labels",
        ));
    command
        .arg(value(
            "log-driver",
            None,
            "string",
            "Logging driver for the container (json-file, none)",
        ))
        .arg(list(
            "log-opt",
            None,
            "Log driver options (max-size, max-file)",
        ))
        .arg(list(
            "mount",
            None,
            "Attach a filesystem mount to the container (type=bind or tmpfs)",
        ))
        .arg(value(
            "name",
            None,
            "string",
            "Assign a name to the container",
        ))
        .arg(
            value(
                "network",
                None,
                "network",
                "Connect a container to a network: host (the default) or none",
            )
            .alias("net"),
        )
        .arg(switch(
            "privileged",
            None,
            "Give extended privileges to this container",
        ))
        .arg(value(
            "pull",
            None,
            "string",
            "Pull image before running (\"missing\", \"never\")",
        ))
        .arg(switch(
            "read-only",
            None,
            "Mount the container's root filesystem as read only",
        ))
        .arg(switch(
            "rm",
            None,
            "Automatically remove the container when it exits",
        ))
        .arg(list(
            "security-opt",
            None,
            "Security Options (no-new-privileges)",
        ))
        .arg(value("shm-size", None, "bytes", "Size of /dev/shm"))
        .arg(value(
            "stop-signal",
            None,
            "string",
            "Signal to stop the container",
        ))
        .arg(value(
            "stop-timeout",
            None,
            "int",
            "Timeout (in seconds) to stop a container",
        ))
        .arg(list("tmpfs", None, "Mount a tmpfs directory"))
        .arg(switch("tty", Some('t'), "Allocate a pseudo-TTY"))
        .arg(list("ulimit", None, "Ulimit options"))
        .arg(value(
            "user",
            Some('u'),
            "string",
            "Username or UID (format: <name|uid>[:<group|gid>])",
        ))
        .arg(list(
            "volume",
            Some('v'),
            "Bind mount a directory (/host:/container[:ro])",
        ))
        .arg(value(
            "workdir",
            Some('w'),
            "string",
            "Working directory inside the container",
        ))
}

/// Reads the flags; the container is not made yet.
pub(crate) fn read(verb: &'static Verb, matches: &ArgMatches) -> Result<CreateOptions, Failure> {
    let mut words = words(matches).into_iter();
    let image = words.next().unwrap_or_default();
    let config = config(verb, matches, words.collect())?;
    let host_config = host_config(verb, matches)?;
    check_pull(verb, matches)?;
    Ok(CreateOptions {
        name: text(matches, "name").map(str::to_owned),
        image,
        config,
        host_config,
    })
}

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
        working_dir: owned(matches, "workdir"),
        entrypoint: text(matches, "entrypoint").map(|word| vec![word.to_owned()]),
        labels: Some(labels(verb, matches)?),
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

fn host_config(verb: &'static Verb, matches: &ArgMatches) -> Result<HostConfig, Failure> {
    let defaults = HostConfig::default();
    let privileged = is_on(matches, "privileged");
    let mut binds = texts(matches, "volume");
    let mut tmpfs = tmpfs(matches);
    for mount in texts(matches, "mount") {
        match crate::mount_flag::parse(&mount)
            .map_err(|cause| invalid(verb, "mount", &mount, &cause))?
        {
            crate::mount_flag::Mount::Bind(bind) => binds.push(bind),
            crate::mount_flag::Mount::Tmpfs { target, options } => {
                drop(tmpfs.insert(target, options))
            }
        }
    }
    for bind in &binds {
        if !bind.contains(':') {
            let text = format!(
                "-v {bind}: anonymous volumes are not there yet; give /host:{bind}, or --tmpfs {bind}"
            );
            return Err(refused(verb, text));
        }
    }
    Ok(HostConfig {
        binds: some(binds),
        container_id_file: owned(matches, "cidfile"),
        log_config: log_config(verb, matches)?,
        network_mode: text(matches, "network").unwrap_or("host").to_owned(),
        auto_remove: is_on(matches, "rm"),
        cap_add: some(texts(matches, "cap-add")),
        cap_drop: some(texts(matches, "cap-drop")),
        dns: texts(matches, "dns"),
        dns_options: texts(matches, "dns-option"),
        dns_search: texts(matches, "dns-search"),
        extra_hosts: some(extra_hosts(verb, matches)?),
        group_add: some(texts(matches, "group-add")),
        privileged,
        readonly_rootfs: is_on(matches, "read-only"),
        security_opt: some(texts(matches, "security-opt")),
        tmpfs,
        shm_size: bytes(verb, matches, "shm-size")?.unwrap_or(defaults.shm_size),
        resources: Resources {
            ulimits: ulimits(verb, matches)?,
            ..defaults.resources.clone()
        },
        masked_paths: if privileged {
            None
        } else {
            defaults.masked_paths.clone()
        },
        readonly_paths: if privileged {
            None
        } else {
            defaults.readonly_paths.clone()
        },
        ..defaults
    })
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

fn extra_hosts(verb: &'static Verb, matches: &ArgMatches) -> Result<Vec<String>, Failure> {
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
        if bare.parse::<std::net::IpAddr>().is_err() {
            let cause = format!("invalid IP address in add-host: {address:?}");
            return Err(invalid(verb, "add-host", &entry, &cause));
        }
        Ok(format!("{name}:{bare}"))
    };
    texts(matches, "add-host").into_iter().map(check).collect()
}

fn ulimits(verb: &'static Verb, matches: &ArgMatches) -> Result<Vec<Ulimit>, Failure> {
    let parse = |text: String| {
        let bad = |cause: &str| invalid(verb, "ulimit", &text, cause);
        let (name, limits) = text
            .split_once('=')
            .ok_or_else(|| bad(&format!("invalid ulimit argument: {text}")))?;
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

fn integer(verb: &'static Verb, matches: &ArgMatches, name: &str) -> Result<Option<i64>, Failure> {
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

fn bytes(verb: &'static Verb, matches: &ArgMatches, name: &str) -> Result<Option<i64>, Failure> {
    let Some(text) = text(matches, name) else {
        return Ok(None);
    };
    let size = crate::numbers::ram_bytes(text)
        .ok_or_else(|| invalid(verb, name, text, &format!("invalid size: '{text}'")))?;
    Ok(Some(size))
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
        eprintln!(
            "Unable to find image '{}' locally",
            name.unwrap_or_else(|_| image.to_owned())
        );
    }
}
