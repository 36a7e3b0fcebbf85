//! docker's part of an archive: `manifest.json`, of every age since 1.10 and of skopeo's and podman's make.

use serde::Deserialize;

use super::Found;
use super::members::{Blob, Members};
use crate::digest::Digest;
use crate::error::{Error, LoadError};
use crate::reference::Reference;

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
pub(super) fn find(members: &mut Members) -> Result<Vec<Found>, Error> {
    let items: Vec<Item> = members.json(&Blob::named(MANIFEST), "the archive")?;
    items.into_iter().map(found).collect()
}

fn found(item: Item) -> Result<Found, Error> {
    let names = item.repo_tags.unwrap_or_default();
    let layers = item.layers.unwrap_or_default();
    Ok(Found {
        config: blob(item.config),
        layers: layers.into_iter().map(blob).collect(),
        names: names
            .iter()
            .map(|name| tagged(name))
            .collect::<Result<_, _>>()?,
        // It says nothing that cannot be loaded without.
        parent: item.parent.and_then(|id| id.parse().ok()),
        by: MANIFEST.to_owned(),
    })
}

/// Only `blobs/sha256/HEX` promises a digest. Older archives have made-up names of layers, and docker itself does not
/// mind a configuration that was written anew under its old name: its id is what its bytes say.
fn blob(member: String) -> Blob {
    let digest = member
        .strip_prefix("blobs/sha256/")
        .and_then(|hex| Digest::from_hex(hex).ok());
    Blob {
        member,
        digest,
        size: None,
    }
}

fn tagged(text: &str) -> Result<Reference, Error> {
    let name = Reference::parse(text)?;
    if name.tag().is_none() {
        return Err(LoadError::Tag(text.to_owned()).into());
    }
    // Nothing here has the digest that it speaks of.
    if name.digest().is_some() {
        return Err(Error::RefusedName(
            "refusing to create a tag with a digest reference",
        ));
    }
    Ok(name)
}
