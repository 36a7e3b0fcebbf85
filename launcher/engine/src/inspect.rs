//! `docker inspect` of a container: docker's keys in docker's order.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use mille_store::config::ContainerConfig;

use crate::container::Container;
use crate::container_mounts::MountPoint;
use crate::engine::Engine;
use crate::error::Result;
use crate::host_config::HostConfig;
use crate::state::{NEVER, State};
use crate::{changes, exec_records, joining};

/// Everything `inspect` shows of a container; serialise it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "docker's own keys; their meaning is docker's")]
pub struct Inspect {
    pub id: String,
    pub created: String,
    pub path: String,
    pub args: Vec<String>,
    pub state: State,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: u32,
    pub driver: &'static str,
    pub platform: &'static str,
    pub mount_label: &'static str,
    pub process_label: &'static str,
    pub app_armor_profile: &'static str,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    pub host_config: HostConfig,
    pub graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    pub mounts: Vec<MountPoint>,
    pub config: ContainerConfig,
    pub network_settings: NetworkSettings,
}

/// Where the container's file system lies.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "docker's own keys; their meaning is docker's")]
pub struct GraphDriver {
    pub data: GraphData,
    pub name: &'static str,
}

/// The directories of the union.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "docker's own keys; their meaning is docker's")]
pub struct GraphData {
    pub lower_dir: String,
    pub merged_dir: String,
    pub upper_dir: String,
    pub work_dir: String,
}

/// Collects what inspect shows of a container.
pub(crate) fn inspect(engine: &Engine, container: &Container, sizes: bool) -> Result<Inspect> {
    let paths = engine.layout.container(&container.id);
    let show = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    // As docker: these files are there from the first start on.
    let started = container.state.started_at != NEVER || container.state.exit_code != 0;
    let file = |name: &str| {
        if started {
            show(paths.etc(name))
        } else {
            String::new()
        }
    };
    let sizes = sizes
        .then(|| changes::sizes(engine, container))
        .transpose()?;
    let lowers: Vec<_> = engine
        .stack(container)?
        .layers
        .into_iter()
        .map(show)
        .collect();
    let keeps_log = container.host_config.log_config.kind == "json-file";
    Ok(Inspect {
        id: container.id.to_string(),
        created: container.created.clone(),
        path: container.path.clone(),
        args: container.args.clone(),
        state: container.state.clone(),
        image: container.image_id(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: if started && keeps_log {
            show(paths.log())
        } else {
            String::new()
        },
        name: format!("/{}", container.name),
        restart_count: container.restart_count,
        driver: "mille",
        platform: "linux",
        mount_label: "",
        process_label: "",
        app_armor_profile: "",
        exec_ids: Some(exec_records::list(&paths)?).filter(|ids| !ids.is_empty()),
        host_config: container.host_config.clone(),
        graph_driver: GraphDriver {
            data: GraphData {
                lower_dir: lowers.join(":"),
                merged_dir: show(paths.merged()),
                upper_dir: show(paths.upper()),
                work_dir: show(paths.work()),
            },
            name: "mille",
        },
        size_rw: sizes.map(|sizes| sizes.read_write_bytes),
        size_root_fs: sizes.map(|sizes| sizes.root_fs_bytes),
        mounts: container
            .mounts
            .iter()
            .map(|mount| mount.point.clone())
            .collect(),
        config: container.config.clone(),
        network_settings: network_settings(&container.host_config.network_mode),
    })
}

/// A container's networks: keys in docker's order.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "docker's own keys; their meaning is docker's")]
pub struct NetworkSettings {
    pub bridge: String,
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    pub hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: u8,
    pub ports: BTreeMap<String, Value>,
    pub sandbox_key: String,
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<String>>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<String>>,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    pub mac_address: String,
    pub networks: BTreeMap<String, Endpoint>,
}

/// A container in one network: keys in docker's order.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "docker's own keys; their meaning is docker's")]
pub struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<Value>,
    pub links: Option<Vec<String>>,
    pub aliases: Option<Vec<String>>,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    pub mac_address: String,
    pub driver_opts: Option<BTreeMap<String, String>>,
}

/// Returns what there is to say of the host's network, of none or of another container's.
fn network_settings(mode: &str) -> NetworkSettings {
    let own = joining::named(mode).is_none();
    NetworkSettings {
        networks: own
            .then(|| (mode.to_owned(), Endpoint::default()))
            .into_iter()
            .collect(),
        ..NetworkSettings::default()
    }
}
