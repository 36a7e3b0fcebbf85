//! docker's part of an archive: `manifest.json`, of every age since 1.10 and of skopeo's and podman's make.

use serde::Deserialize;

use super::members::Members;
use super::{Blob, Found, reference};
use crate::digest::Digest;
use crate::error::Error;

const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
    /// Id of the image it was made from, if that one is in the archive too.
    parent: Option<String>,
}

/// Reads the manifest.
pub(super) fn find(members: &Members) -> Result<Vec<Found>, Error> {
    let items: Vec<Item> = members.json(MANIFEST, "the archive")?;
    items.into_iter().map(found).collect()
}

fn found(item: Item) -> Result<Found, Error> {
    let names = item.repo_tags.unwrap_or_default();
    let blob = |member: String| Blob {
        digest: digest_in(&member, ""),
        member,
        size: None,
    };
    Ok(Found {
        config_digest: digest_in(&item.config, ".json"),
        config: item.config,
        layers: item
            .layers
            .unwrap_or_default()
            .into_iter()
            .map(blob)
            .collect(),
        names: names
            .iter()
            .map(|name| reference(name))
            .collect::<Result<_, _>>()?,
        // It says nothing that cannot be loaded without.
        parent: item.parent.and_then(|id| id.parse().ok()),
        by: MANIFEST.to_owned(),
    })
}

/// The digest that a member's name says: `HEX.json` of a configuration, `blobs/sha256/HEX` of any blob. The names of
/// layers in older archives are made up, and say none.
fn digest_in(member: &str, suffix: &str) -> Option<Digest> {
    let hex = match member.strip_prefix("blobs/sha256/") {
        Some(hex) => hex,
        None if !suffix.is_empty() => member.strip_suffix(suffix)?,
        None => return None,
    };
    Digest::from_hex(hex).ok()
}
