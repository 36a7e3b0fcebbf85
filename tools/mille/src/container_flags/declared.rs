//! The flags that `run` and `create` share, as they are declared.

use clap::Command;

use crate::arguments::{list, switch, value};

/// Flags that may be repeated.
const LISTS: &[(&str, Option<char>, &str)] = &[
    (
        "annotation",
        None,
        "Add an annotation to the container (shown by inspect)",
    ),
    (
        "add-host",
        None,
        "Add a custom host-to-IP mapping (host:ip)",
    ),
    ("attach", Some('a'), "Attach to STDIN, STDOUT or STDERR"),
    (
        "blkio-weight-device",
        None,
        "Block IO weight (relative device weight)",
    ),
    ("cap-add", None, "Add Linux capabilities"),
    ("cap-drop", None, "Drop Linux capabilities"),
    ("device", None, "Add a host device to the container"),
    (
        "device-read-bps",
        None,
        "Limit read rate (bytes per second) from a device",
    ),
    (
        "device-read-iops",
        None,
        "Limit read rate (IO per second) from a device",
    ),
    (
        "device-write-bps",
        None,
        "Limit write rate (bytes per second) to a device",
    ),
    (
        "device-write-iops",
        None,
        "Limit write rate (IO per second) to a device",
    ),
    ("dns", None, "Set custom DNS servers"),
    ("dns-option", None, "Set DNS options"),
    ("dns-search", None, "Set custom DNS search domains"),
    ("env", Some('e'), "Set environment variables"),
    ("env-file", None, "Read in a file of environment variables"),
    ("group-add", None, "Add additional groups to join"),
    ("label", Some('l'), "Set meta data on a container"),
    (
        "label-file",
        None,
        "Read in a line delimited file of labels",
    ),
    ("log-opt", None, "Log driver options (max-size, max-file)"),
    (
        "mount",
        None,
        "Attach a filesystem mount to the container (type=bind, volume or tmpfs)",
    ),
    (
        "security-opt",
        None,
        "Security Options (no-new-privileges, seccomp, systempaths)",
    ),
    ("sysctl", None, "Sysctl options"),
    ("tmpfs", None, "Mount a tmpfs directory"),
    ("ulimit", None, "Ulimit options"),
    (
        "volume",
        Some('v'),
        "Bind mount a directory or a volume ([/host:|name:]/container[:ro])",
    ),
    (
        "volumes-from",
        None,
        "Mount volumes from the specified container(s)",
    ),
];

/// Flags with one value, and what kind it is.
const VALUES: &[(&str, Option<char>, &str, &str)] = &[
    (
        "cgroup-parent",
        None,
        "string",
        "Optional parent cgroup for the container",
    ),
    (
        "cgroupns",
        None,
        "string",
        "Cgroup namespace to use (host|private)",
    ),
    (
        "ipc",
        None,
        "string",
        "IPC mode to use (private, shareable, none, host, container:NAME)",
    ),
    (
        "memory-swappiness",
        None,
        "int",
        "Tune container memory swappiness (0 to 100) (default -1)",
    ),
    (
        "oom-score-adj",
        None,
        "int",
        "Tune host's OOM preferences (-1000 to 1000)",
    ),
    (
        "pid",
        None,
        "string",
        "PID namespace to use (host, container:NAME)",
    ),
    ("userns", None, "string", "User namespace to use (host)"),
    ("uts", None, "string", "UTS namespace to use (host)"),
    (
        "cidfile",
        None,
        "string",
        "Write the container ID to the file",
    ),
    ("domainname", None, "string", "Container NIS domain name"),
    (
        "entrypoint",
        None,
        "string",
        "Overwrite the default ENTRYPOINT of the image",
    ),
    (
        "health-cmd",
        None,
        "string",
        "Command to run to check health",
    ),
    (
        "health-interval",
        None,
        "duration",
        "Time between running the check (ms|s|m|h) (default 0s)",
    ),
    (
        "health-retries",
        None,
        "int",
        "Consecutive failures needed to report unhealthy",
    ),
    (
        "health-start-period",
        None,
        "duration",
        "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
    ),
    (
        "health-timeout",
        None,
        "duration",
        "Maximum time to allow one check to run (ms|s|m|h) (default 0s)",
    ),
    ("hostname", Some('h'), "string", "Container host name"),
    (
        "log-driver",
        None,
        "string",
        "Logging driver for the container (json-file, none)",
    ),
    ("name", None, "string", "Assign a name to the container"),
    (
        "platform",
        None,
        "string",
        "Refuse an image that is not of this platform: os[/arch[/variant]]",
    ),
    (
        "pull",
        None,
        "string",
        "Pull image before running (\"missing\", \"never\") (default \"missing\")",
    ),
    (
        "restart",
        None,
        "string",
        "Restart policy to apply when a container exits: no, on-failure[:n], always, unless-stopped (default \"no\")",
    ),
    ("shm-size", None, "bytes", "Size of /dev/shm"),
    (
        "stop-signal",
        None,
        "string",
        "Signal to stop the container",
    ),
    (
        "stop-timeout",
        None,
        "int",
        "Timeout (in seconds) to stop a container",
    ),
    (
        "user",
        Some('u'),
        "string",
        "Username or UID (format: <name|uid>[:<group|gid>])",
    ),
    (
        "workdir",
        Some('w'),
        "string",
        "Working directory inside the container",
    ),
];

/// Flags that are on or off.
const SWITCHES: &[(&str, Option<char>, &str)] = &[
    (
        "init",
        None,
        "Run an init inside the container that forwards signals and reaps processes",
    ),
    (
        "interactive",
        Some('i'),
        "Keep STDIN open even if not attached",
    ),
    ("oom-kill-disable", None, "Disable OOM Killer"),
    (
        "no-healthcheck",
        None,
        "Disable any container-specified HEALTHCHECK",
    ),
    (
        "privileged",
        None,
        "Give extended privileges to this container",
    ),
    (
        "replace",
        None,
        "Remove a container that has the name already",
    ),
    (
        "read-only",
        None,
        "Mount the container's root filesystem as read only",
    ),
    ("quiet", Some('q'), "Suppress the pull output"),
    (
        "rm",
        None,
        "Automatically remove the container and its associated anonymous volumes when it exits",
    ),
    ("tty", Some('t'), "Allocate a pseudo-TTY"),
];

/// Adds the flags.
pub(crate) fn add(command: Command) -> Command {
    let network = value(
        "network",
        None,
        "network",
        "Connect a container to a network: host (the default), none or container:NAME",
    );
    let lists = LISTS
        .iter()
        .map(|(long, short, help)| list(long, *short, help))
        .map(|flag| match flag.get_id().as_str() {
            "dns-option" => flag.alias("dns-opt"),
            // As docker's help calls what they take.
            "mount" => flag.value_name("mount"),
            "ulimit" => flag.value_name("ulimit"),
            "sysctl" => flag.value_name("map"),
            _ => flag,
        });
    let values = VALUES
        .iter()
        .chain(super::limits::FLAGS)
        .map(|(long, short, kind, help)| value(long, *short, kind, help));
    let switches = SWITCHES
        .iter()
        .map(|(long, short, help)| switch(long, *short, help));
    command
        .args(lists)
        .args(values)
        .args(switches)
        .args(super::foreign::flags())
        .arg(network.alias("net"))
}
