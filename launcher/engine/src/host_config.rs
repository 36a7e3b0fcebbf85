//! What the host gives a container: the `HostConfig` of docker's inspect, with its very keys.
//!
//! Every key docker prints is here, so that scripts find it; the engine acts on those whose doc says so. The command
//! line refuses flags whose field nothing acts on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::devices::DeviceMapping;
use crate::joining;
use crate::mount_spec::MountSpec;

/// The host's side of a container's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// Bind mounts and named volumes, `/host:/container[:mode]` and `name:/container[:mode]`.
    pub binds: Option<Vec<String>>,
    /// The file `--cidfile` named; only shown.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// The log driver and its options.
    pub log_config: LogConfig,
    /// `host` or `none`; empty and `default` mean `host`.
    pub network_mode: String,
    /// Published ports (none: there is no bridge network yet).
    pub port_bindings: BTreeMap<String, Value>,
    /// When the monitor starts it again.
    pub restart_policy: RestartPolicy,
    /// `--rm`: the monitor removes the container when it has ended.
    pub auto_remove: bool,
    /// Only shown.
    pub volume_driver: String,
    /// Other containers whose mounts this one has too, `NAME[:ro|rw]`.
    pub volumes_from: Option<Vec<String>>,
    /// Capabilities beyond the default set, with or without `CAP_`, any case; `ALL`.
    pub cap_add: Option<Vec<String>>,
    /// Capabilities taken from the default set; `ALL`.
    pub cap_drop: Option<Vec<String>>,
    /// `private` or `host`.
    pub cgroupns_mode: String,
    /// Name servers for /etc/resolv.conf in place of the host's.
    pub dns: Vec<String>,
    /// Resolver options for /etc/resolv.conf in place of the host's.
    pub dns_options: Vec<String>,
    /// Search domains for /etc/resolv.conf in place of the host's.
    pub dns_search: Vec<String>,
    /// Lines for /etc/hosts, `name:address`.
    pub extra_hosts: Option<Vec<String>>,
    /// Supplementary groups, names of the image's /etc/group or numbers.
    pub group_add: Option<Vec<String>>,
    /// `private`, `shareable` (which others may join), `none` (without /dev/shm), `host` or `container:ID`.
    pub ipc_mode: String,
    /// Only shown.
    pub cgroup: String,
    /// Only shown.
    pub links: Option<Vec<String>>,
    /// How likely the kernel is to kill it for memory, -1000 to 1000; 0 leaves it alone.
    pub oom_score_adj: i64,
    /// Empty (an own pid namespace), `host` or `container:ID`.
    pub pid_mode: String,
    /// All capabilities, nothing masked.
    pub privileged: bool,
    /// Only shown.
    pub publish_all_ports: bool,
    /// The root file system is mounted read-only.
    pub readonly_rootfs: bool,
    /// `no-new-privileges` is acted on.
    pub security_opt: Option<Vec<String>>,
    /// Temporary file systems: mount point to options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// Empty (an own host name) or `host`.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// Empty or `host`, which are the same: where containers have a user namespace of their own, it is there for an
    /// ordinary user, who has no other.
    pub userns_mode: String,
    /// Size of /dev/shm in bytes.
    pub shm_size: i64,
    /// Kernel parameters of the container's own namespaces.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Always `mille`.
    pub runtime: String,
    /// Rows and columns at creation.
    pub console_size: [u16; 2],
    /// Only shown.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Only shown.
    pub isolation: String,
    /// Limits and devices.
    #[serde(flatten)]
    pub resources: Resources,
    /// Mounts in the form of `--mount`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountSpec>,
    /// Paths hidden inside; `None` takes the default list.
    pub masked_paths: Option<Vec<String>>,
    /// Paths made read-only inside; `None` takes the default list.
    pub readonly_paths: Option<Vec<String>>,
    /// `--init`: the first process is a reaper, the command its child.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

impl HostConfig {
    /// Returns the containers whose namespaces it joins, as they were typed.
    #[must_use]
    pub fn donors(&self) -> Vec<String> {
        joining::donors(self).map(str::to_owned).collect()
    }
}

/// The limits part of [`HostConfig`], in docker's order. Acted on: memory, CPU, cpuset, pids, blkio, ulimits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(
    missing_docs,
    reason = "docker's own keys, kept for inspect; their meaning is docker's"
)]
pub struct Resources {
    pub cpu_shares: i64,
    pub memory: i64,
    pub nano_cpus: i64,
    pub cgroup_parent: String,
    pub blkio_weight: u16,
    pub blkio_weight_device: Vec<WeightDevice>,
    pub blkio_device_read_bps: Vec<ThrottleDevice>,
    pub blkio_device_write_bps: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Vec<ThrottleDevice>,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: Vec<DeviceMapping>,
    pub device_cgroup_rules: Option<Vec<String>>,
    pub device_requests: Option<Vec<Value>>,
    pub kernel_memory: i64,
    #[serde(rename = "KernelMemoryTCP")]
    pub kernel_memory_tcp: i64,
    pub memory_reservation: i64,
    pub memory_swap: i64,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub pids_limit: Option<i64>,
    pub ulimits: Vec<Ulimit>,
    pub cpu_count: i64,
    pub cpu_percent: i64,
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
}

/// The share one device has for a container: `--blkio-weight-device`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WeightDevice {
    /// Its node on the host.
    pub path: String,
    /// 10 to 1000; 0 takes it back.
    pub weight: u16,
}

/// The most a container may ask of one device in a second: `--device-read-bps` and its like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ThrottleDevice {
    /// Its node on the host.
    pub path: String,
    /// Bytes or requests; 0 is no limit.
    pub rate: u64,
}

/// One `--ulimit`; acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ulimit {
    /// `nofile`, `nproc`, `core`, …
    pub name: String,
    /// -1 is unlimited.
    pub hard: i64,
    /// -1 is unlimited.
    pub soft: i64,
}

/// The log driver and its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LogConfig {
    /// `json-file` or `none`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `max-size` and `max-file` for `json-file`.
    pub config: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            kind: "json-file".to_owned(),
            config: BTreeMap::new(),
        }
    }
}

/// When a container is started again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped` or `on-failure`.
    pub name: String,
    /// Limit for `on-failure`; 0 means none.
    pub maximum_retry_count: i64,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            name: "no".to_owned(),
            maximum_retry_count: 0,
        }
    }
}

/// Size of /dev/shm when nothing is said: 64 MiB, as docker.
pub const DEFAULT_SHM_SIZE_BYTES: i64 = 64 << 20;

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            binds: None,
            container_id_file: String::new(),
            log_config: LogConfig::default(),
            network_mode: "host".to_owned(),
            port_bindings: BTreeMap::new(),
            restart_policy: RestartPolicy::default(),
            auto_remove: false,
            volume_driver: String::new(),
            volumes_from: None,
            cap_add: None,
            cap_drop: None,
            cgroupns_mode: "private".to_owned(),
            dns: Vec::new(),
            dns_options: Vec::new(),
            dns_search: Vec::new(),
            extra_hosts: None,
            group_add: None,
            ipc_mode: "private".to_owned(),
            cgroup: String::new(),
            links: None,
            oom_score_adj: 0,
            pid_mode: String::new(),
            privileged: false,
            publish_all_ports: false,
            readonly_rootfs: false,
            security_opt: None,
            tmpfs: BTreeMap::new(),
            uts_mode: String::new(),
            userns_mode: String::new(),
            shm_size: DEFAULT_SHM_SIZE_BYTES,
            sysctls: BTreeMap::new(),
            runtime: "mille".to_owned(),
            console_size: [0, 0],
            annotations: BTreeMap::new(),
            isolation: String::new(),
            resources: Resources {
                oom_kill_disable: Some(false),
                ..Resources::default()
            },
            mounts: Vec::new(),
            masked_paths: Some(strings(&DEFAULT_MASKED_PATHS)),
            readonly_paths: Some(strings(&DEFAULT_READONLY_PATHS)),
            init: None,
        }
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&path| path.to_owned()).collect()
}

/// Paths that leak or endanger the host: hidden in every container that is not privileged. One list, for inspect and
/// for the sandbox.
pub const DEFAULT_MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths through which the host could be changed: read-only in every container that is not privileged.
pub const DEFAULT_READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_dockers_order() {
        let text = serde_json::to_string(&HostConfig::default()).unwrap();
        let order = [
            "Binds",
            "ContainerIDFile",
            "LogConfig",
            "UTSMode",
            "ShmSize",
            "CpuShares",
            "BlkioDeviceReadIOps",
        ];
        let places: Vec<_> = order
            .iter()
            .map(|key| text.find(&format!("\"{key}\":")).unwrap())
            .collect();
        assert!(places.is_sorted(), "{text}");
        assert!(text.ends_with("\"/proc/sysrq-trigger\"]}"), "{text}");
    }

    #[test]
    fn survives_a_round_trip() {
        let given = HostConfig {
            auto_remove: true,
            binds: Some(vec!["/a:/b:ro".into()]),
            ..HostConfig::default()
        };
        let text = serde_json::to_string(&given).unwrap();
        assert_eq!(serde_json::from_str::<HostConfig>(&text).unwrap(), given);
    }
}
