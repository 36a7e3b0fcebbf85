//! The configuration of a committed and of an imported image.

use std::collections::BTreeMap;

use super::{
    ChangeError, ContainerConfig, Healthcheck, History, ImageConfig, RootFs, apply_changes,
    timestamp,
};
use crate::digest::DiffId;
use crate::image::Image;

/// What a commit is made of.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// The image of the container.
    pub base: &'a Image,
    /// The container's full id.
    pub container_id: &'a str,
    /// The container's configuration, as `inspect` shows it.
    pub container: &'a ContainerConfig,
    /// `--change`.
    pub changes: &'a [String],
    /// The layer of the changes; `None`, or the empty tar, if nothing changed.
    pub layer: Option<DiffId>,
    /// `--author`.
    pub author: &'a str,
    /// `--message`.
    pub comment: &'a str,
    /// Now.
    pub created: jiff::Timestamp,
}

/// Returns the configuration of a commit: the base's, with the container's configuration under the changes,
/// one more layer (if there is one) and one more step of history.
///
/// # Errors
/// [`ChangeError`] for a change that docker refuses.
pub fn commit_config(commit: &Commit<'_>) -> Result<Vec<u8>, ChangeError> {
    let base = &commit.base.config;
    let mut config = commit.container.clone();
    apply_changes(&mut config, commit.changes)?;
    merge(&mut config, commit.container);
    let layer = commit.layer.filter(|layer| !layer.is_empty_tar());
    let mut rootfs = base.rootfs.clone().unwrap_or_default();
    rootfs.kind = "layers".to_owned();
    rootfs.diff_ids.extend(layer);
    let mut history = history_of(base);
    let created = timestamp(commit.created);
    history.push(History {
        created: created.clone(),
        author: commit.author.to_owned(),
        created_by: commit
            .container
            .cmd
            .as_deref()
            .unwrap_or_default()
            .join(" "),
        comment: commit.comment.to_owned(),
        empty_layer: layer.is_none(),
        ..History::default()
    });
    let image = ImageConfig {
        architecture: base.architecture.clone(),
        author: commit.author.to_owned(),
        config: Some(config),
        container: commit.container_id.to_owned(),
        container_config: Some(commit.container.clone()),
        created,
        history,
        os: if base.os.is_empty() {
            "linux".to_owned()
        } else {
            base.os.clone()
        },
        os_features: base.os_features.clone(),
        os_version: base.os_version.clone(),
        rootfs: Some(rootfs),
        variant: base.variant.clone(),
        ..ImageConfig::default()
    };
    Ok(encode(&image))
}

/// Returns the base's history. One that tells of fewer layers than there are gets bare steps below, since the steps of
/// the new image must account for all of them.
fn history_of(base: &ImageConfig) -> Vec<History> {
    let told = base.history.iter().filter(|step| !step.empty_layer).count();
    let untold = base.layers().len().saturating_sub(told);
    let bare = History {
        created: base.created.clone(),
        ..History::default()
    };
    let mut history = vec![bare; untold];
    history.extend(base.history.iter().cloned());
    history
}

/// Returns the configuration of an imported image.
pub fn import_config(
    config: ContainerConfig,
    layer: DiffId,
    comment: &str,
    (os, architecture, variant): (&str, &str, &str),
    created: jiff::Timestamp,
) -> Vec<u8> {
    let created = timestamp(created);
    encode(&ImageConfig {
        architecture: architecture.to_owned(),
        comment: comment.to_owned(),
        config: Some(config),
        container_config: Some(ContainerConfig::default()),
        created: created.clone(),
        history: vec![History {
            created,
            comment: comment.to_owned(),
            ..History::default()
        }],
        os: os.to_owned(),
        rootfs: Some(RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![layer],
            ..RootFs::default()
        }),
        variant: variant.to_owned(),
        ..ImageConfig::default()
    })
}

fn encode(image: &ImageConfig) -> Vec<u8> {
    // These types have text keys only and no failing serializer: nothing here can fail.
    serde_json::to_vec(image).unwrap_or_default()
}

/// Fills what `config` leaves open from `from`, by docker's rules for a commit.
pub fn merge(config: &mut ContainerConfig, from: &ContainerConfig) {
    inherit_text(&mut config.user, &from.user);
    inherit_text(&mut config.working_dir, &from.working_dir);
    inherit_text(&mut config.stop_signal, &from.stop_signal);
    inherit_map(&mut config.exposed_ports, &from.exposed_ports);
    inherit_map(
        config.labels.get_or_insert_default(),
        &from.labels.clone().unwrap_or_default(),
    );
    if let Some(volumes) = from.volumes.as_ref().filter(|volumes| !volumes.is_empty()) {
        inherit_map(config.volumes.get_or_insert_default(), volumes);
    }
    inherit_env(config, from);
    // A given entry point stands alone: the other's command would be arguments it does not expect.
    if config.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd.clone_from(&from.cmd);
            config.args_escaped = from.args_escaped;
        }
        if config.entrypoint.is_none() {
            config.entrypoint.clone_from(&from.entrypoint);
        }
    }
    match (&mut config.healthcheck, &from.healthcheck) {
        (Some(own), Some(other)) => inherit_health(own, other),
        (own @ None, Some(other)) => *own = Some(other.clone()),
        (_, None) => {}
    }
}

fn inherit_text(own: &mut String, other: &str) {
    if own.is_empty() {
        other.clone_into(own);
    }
}

fn inherit_map<V: Clone>(own: &mut BTreeMap<String, V>, other: &BTreeMap<String, V>) {
    for (key, value) in other {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

fn inherit_env(config: &mut ContainerConfig, from: &ContainerConfig) {
    if config.env.as_ref().is_none_or(Vec::is_empty) {
        config.env.clone_from(&from.env);
        return;
    }
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let own = config.env.get_or_insert_default();
    for entry in from.env.iter().flatten() {
        if !own.iter().any(|mine| key(mine) == key(entry)) {
            own.push(entry.clone());
        }
    }
}

fn inherit_health(own: &mut Healthcheck, other: &Healthcheck) {
    if own.test.is_empty() {
        own.test.clone_from(&other.test);
    }
    for (mine, theirs) in [
        (&mut own.interval, other.interval),
        (&mut own.timeout, other.timeout),
        (&mut own.start_period, other.start_period),
        (&mut own.start_interval, other.start_interval),
        (&mut own.retries, other.retries),
    ] {
        if *mine == 0 {
            *mine = theirs;
        }
    }
}
