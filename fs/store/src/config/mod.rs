//! Image configurations: docker's and OCI's JSON, read tolerantly and written in docker's order.
//!
//! The bytes of a configuration are what an image *is*, so the store keeps them verbatim; these types are a
//! view of them. Unknown fields are kept, `null` stands for any absent value.

mod changes;
mod commit;
mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use changes::{ChangeError, apply_changes};
pub use commit::{Commit, commit_config, import_config, merge};

use crate::digest::DiffId;

/// Fields this crate does not know, kept as they are.
pub type Extra = BTreeMap<String, Value>;

/// An image configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The processor, as Go names it (`amd64`).
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// Who made the image.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// What was said at its making.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// How containers of this image run.
    #[serde(default)]
    pub config: Option<ContainerConfig>,
    /// The container this image was committed from.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub container: String,
    /// The configuration of that container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_config: Option<ContainerConfig>,
    /// When the image was made, RFC 3339; empty if not known.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created: String,
    /// The docker that made it.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub docker_version: String,
    /// How each layer came to be, bottom first.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<History>,
    /// The operating system, as Go names it (`linux`).
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// Features the operating system must have.
    #[serde(
        default,
        rename = "os.features",
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// The version of the operating system.
    #[serde(
        default,
        rename = "os.version",
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub os_version: String,
    /// The layers.
    #[serde(default)]
    pub rootfs: Option<RootFs>,
    /// The variant of the processor (`v8`).
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub variant: String,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The layers of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(default, rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// The diff ids, bottom first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<DiffId>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One step in the making of an image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339; empty if not known.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created: String,
    /// By whom.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// By which command.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// What was said.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// Whether this step made no layer.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_false"
    )]
    pub empty_layer: bool,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How a container runs: the `Config` of images and of containers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// Host name.
    #[serde(deserialize_with = "or_default")]
    pub hostname: String,
    /// Domain name.
    #[serde(deserialize_with = "or_default")]
    pub domainname: String,
    /// `user`, `uid`, `user:group`, `uid:gid` or nothing.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Whether standard input is attached.
    #[serde(deserialize_with = "or_default")]
    pub attach_stdin: bool,
    /// Whether standard output is attached.
    #[serde(deserialize_with = "or_default")]
    pub attach_stdout: bool,
    /// Whether standard error is attached.
    #[serde(deserialize_with = "or_default")]
    pub attach_stderr: bool,
    /// Ports the image listens on (`80/tcp`).
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Value>,
    /// Whether a terminal is made.
    #[serde(deserialize_with = "or_default")]
    pub tty: bool,
    /// Whether standard input stays open.
    #[serde(deserialize_with = "or_default")]
    pub open_stdin: bool,
    /// Whether standard input closes after one client.
    #[serde(deserialize_with = "or_default")]
    pub stdin_once: bool,
    /// Environment as written, malformed entries included; see [`ContainerConfig::environment`].
    pub env: Option<Vec<String>>,
    /// The command, or the arguments of the entry point.
    #[serde(deserialize_with = "words_or_text")]
    pub cmd: Option<Vec<String>>,
    /// How health is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Windows only.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// The image's name as it was typed.
    #[serde(deserialize_with = "or_default")]
    pub image: String,
    /// Paths that are volumes; whatever the keys are, they are kept.
    pub volumes: Option<BTreeMap<String, Value>>,
    /// Working directory.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// The program that gets the command as its arguments.
    #[serde(deserialize_with = "words_or_text")]
    pub entrypoint: Option<Vec<String>>,
    /// Whether there is no network.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_false")]
    pub network_disabled: bool,
    /// Ethernet address.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub mac_address: String,
    /// Instructions for images built on this one.
    pub on_build: Option<Vec<String>>,
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// The signal that stops a container.
    #[serde(
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Seconds between that signal and SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// The shell of shell-form instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ContainerConfig {
    /// Returns the well-formed `NAME=value` entries of the environment. Entries without `=`, without a name
    /// or with a NUL byte are left out, so that they never reach a process.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env
            .iter()
            .flatten()
            .filter(|entry| !entry.contains('\0'))
            .filter_map(|entry| entry.split_once('='))
            .filter(|(name, _)| !name.is_empty())
    }
}

/// How the health of a container is checked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]`, `["CMD-SHELL", text]`; empty inherits.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Nanoseconds between probes; 0 inherits.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// Nanoseconds a probe may take; 0 inherits.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// Nanoseconds in which failures do not count; 0 inherits.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Nanoseconds between probes in the start period; 0 inherits.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row that make a container unhealthy; 0 inherits.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Everything else.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Why bytes are not a usable image configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or a field has the wrong type.
    #[error("invalid image JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// There is no `rootfs`.
    #[error("invalid image JSON, no RootFS key")]
    NoRootFs,
    /// `rootfs.type` is not `layers`.
    #[error("invalid image JSON, rootfs type is {0:?} instead of \"layers\"")]
    RootFsType(String),
    /// The image is for another operating system.
    #[error("cannot load {0} image on linux")]
    OperatingSystem(String),
    /// More layers than any mount could stack.
    #[error("invalid image JSON, {0} layers are more than the limit of {LAYER_LIMIT}")]
    TooManyLayers(usize),
}

/// The most layers of one image. docker stops at 127; overlayfs could stack 500.
pub const LAYER_LIMIT: usize = 500;

impl ImageConfig {
    /// Reads a configuration and checks what an image must have: a rootfs of type `layers`, an operating
    /// system this program runs. A history that does not fit is only a history.
    ///
    /// # Errors
    /// [`ConfigError`], in docker's words where docker has some.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_slice(bytes)?;
        let rootfs = config.rootfs.as_ref().ok_or(ConfigError::NoRootFs)?;
        if rootfs.kind != "layers" {
            return Err(ConfigError::RootFsType(rootfs.kind.clone()));
        }
        if !config.os.is_empty() && config.os != "linux" {
            return Err(ConfigError::OperatingSystem(config.os));
        }
        let layers = rootfs.diff_ids.len();
        if layers > LAYER_LIMIT {
            return Err(ConfigError::TooManyLayers(layers));
        }
        Ok(config)
    }

    /// Returns the diff ids, bottom first.
    pub fn layers(&self) -> &[DiffId] {
        self.rootfs.as_ref().map_or(&[], |rootfs| &rootfs.diff_ids)
    }

    /// Returns when the image was made, if that is known.
    pub fn created(&self) -> Option<jiff::Timestamp> {
        self.created.parse().ok()
    }

    /// Returns the comment: the image's own, else that of its last step.
    pub fn comment(&self) -> &str {
        match self.history.last() {
            Some(last) if self.comment.is_empty() => &last.comment,
            _ => &self.comment,
        }
    }
}

/// The processor this program was built for, as Go names it.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// Prints a time as docker records it: RFC 3339 in UTC with nanoseconds.
pub fn timestamp(time: jiff::Timestamp) -> String {
    time.to_string()
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Reads `null` as the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a list of words, or one text standing for a list of one word.
fn words_or_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Words(Vec<String>),
        Text(String),
    }
    Ok(Option::deserialize(deserializer)?.map(|form| match form {
        Form::Words(words) => words,
        Form::Text(text) => vec![text],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "sha256:35af1370c877dafc9c0a4bf6a3cd800f9834788b8e11ee588c44e1b4225e75fe";

    #[test]
    fn a_configuration_keeps_what_it_does_not_know() {
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","moby.buildkit":1,"os.version":null,
              "config":{{"Env":null,"Cmd":"ls","Volumes":{{"":{{}},"rel":null}},"Odd":[1]}},
              "rootfs":{{"type":"layers","diff_ids":["{LAYER}"],"x":2}},"history":null}}"#
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.extra["moby.buildkit"], 1);
        assert_eq!(config.layers().len(), 1);
        let container = config.config.clone().unwrap();
        assert_eq!(container.cmd, Some(vec!["ls".to_owned()]));
        assert_eq!(container.volumes.as_ref().unwrap().len(), 2);
        assert_eq!(container.extra["Odd"], serde_json::json!([1]));
        let again = serde_json::to_vec(&config).unwrap();
        assert_eq!(ImageConfig::parse(&again).unwrap(), config);
    }

    #[test]
    fn what_is_not_an_image_is_refused() {
        for (text, want) in [
            ("{}", "invalid image JSON, no RootFS key"),
            (r#"{"rootfs":null}"#, "invalid image JSON, no RootFS key"),
            (
                r#"{"rootfs":{}}"#,
                "invalid image JSON, rootfs type is \"\" instead of \"layers\"",
            ),
            (
                r#"{"os":"windows","rootfs":{"type":"layers"}}"#,
                "cannot load windows image on linux",
            ),
            ("x", "invalid image JSON: expected value at line 1 column 1"),
        ] {
            assert_eq!(
                ImageConfig::parse(text.as_bytes()).unwrap_err().to_string(),
                want
            );
        }
    }

    #[test]
    fn malformed_environment_never_leaks() {
        let config = ContainerConfig {
            env: Some(
                ["A=1", "B", "=C", "", "D=", "E=a=b", "F=\0"]
                    .map(String::from)
                    .to_vec(),
            ),
            ..Default::default()
        };
        let got: Vec<_> = config.environment().collect();
        assert_eq!(got, [("A", "1"), ("D", ""), ("E", "a=b")]);
    }

    #[test]
    fn an_empty_configuration_prints_as_docker_s() {
        let text = serde_json::to_string(&ContainerConfig::default()).unwrap();
        assert_eq!(
            text,
            r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}"#
        );
    }
}
