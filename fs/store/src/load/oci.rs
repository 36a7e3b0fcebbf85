//! An OCI image layout: `index.json`, indexes in it, manifests, blobs by digest.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::members::Members;
use super::{Blob, Found, check_digest, reference};
use crate::config::host_architecture;
use crate::digest::Digest;
use crate::error::{Error, LoadError};
use crate::reference::Reference;
use crate::types::Platform;

const INDEX: &str = "index.json";
/// Indexes may lie in indexes; deeper ones than this are nobody's.
const DEPTH_LIMIT: usize = 4;
/// Complete name, as containerd and docker write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// Name or tag, as the specification has it.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<OciPlatform>,
}

#[derive(Debug, Clone, Deserialize)]
struct OciPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// Reads the layout: every image the top index lists; of one for several platforms the wanted one.
pub(super) fn find(members: &Members, platform: Option<&Platform>) -> Result<Vec<Found>, Error> {
    let index: Index = members.json(INDEX, "the archive")?;
    let descriptors = index.manifests.unwrap_or_default();
    let several_platforms = descriptors.len() > 1
        && descriptors
            .iter()
            .all(|d| d.platform.is_some() && d.name().is_none());
    let descriptors = if several_platforms {
        vec![choose(&descriptors, platform, INDEX)?]
    } else {
        descriptors
    };
    let mut found: Vec<(String, Found)> = Vec::new();
    for descriptor in descriptors {
        let names: Vec<_> = descriptor
            .name()
            .map(reference)
            .transpose()?
            .into_iter()
            .collect();
        // The same image under several names is listed once for each.
        if let Some((_, known)) = found
            .iter_mut()
            .find(|(digest, _)| *digest == descriptor.digest)
        {
            known.names.extend(names);
            continue;
        }
        let image = image(members, &descriptor, names, platform, 0)?;
        found.push((descriptor.digest, image));
    }
    Ok(found.into_iter().map(|(_, image)| image).collect())
}

impl Descriptor {
    fn name(&self) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        annotations
            .get(FULL_NAME)
            .or_else(|| annotations.get(REF_NAME))
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }

    fn parsed(&self, by: &str) -> Result<Digest, Error> {
        let parsed = self.digest.parse();
        parsed.map_err(|_| {
            LoadError::Escape {
                member: self.digest.clone(),
                by: by.to_owned(),
            }
            .into()
        })
    }

    fn blob(&self, by: &str) -> Result<Blob, Error> {
        let digest = self.parsed(by)?;
        Ok(Blob {
            member: format!("blobs/sha256/{}", digest.hex()),
            digest: Some(digest),
            size: Some(self.size),
        })
    }
}

fn image(
    members: &Members,
    descriptor: &Descriptor,
    names: Vec<Reference>,
    platform: Option<&Platform>,
    depth: usize,
) -> Result<Found, Error> {
    let blob = descriptor.blob(INDEX)?;
    let bytes = members.read_small(&blob.member, INDEX)?;
    check_digest(&blob.member, descriptor.parsed(INDEX)?, Digest::of(&bytes))?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|source| LoadError::Json {
        member: blob.member.clone(),
        source,
    })?;
    if let Some(inner) = &manifest.manifests {
        if depth == DEPTH_LIMIT {
            let limit = format!("{DEPTH_LIMIT} indexes in one another");
            return Err(LoadError::Limit {
                member: blob.member,
                limit,
            }
            .into());
        }
        let chosen = choose(inner, platform, &blob.member)?;
        return image(members, &chosen, names, platform, depth + 1);
    }
    let Some(config) = manifest.config else {
        let reason = format!(
            "neither a manifest nor an index ({})",
            descriptor.media_type
        );
        return Err(LoadError::Member {
            member: blob.member,
            reason,
        }
        .into());
    };
    let config_blob = config.blob(&blob.member)?;
    let layers = manifest.layers.unwrap_or_default();
    Ok(Found {
        config: config_blob.member,
        config_digest: config_blob.digest,
        layers: layers
            .iter()
            .map(|layer| layer.blob(&blob.member))
            .collect::<Result<_, _>>()?,
        names,
        parent: None,
        by: blob.member,
    })
}

/// The manifest for the wanted platform, else for this machine's; one without a platform is anybody's.
fn choose(
    descriptors: &[Descriptor],
    wanted: Option<&Platform>,
    member: &str,
) -> Result<Descriptor, Error> {
    let (os, architecture, variant) = wanted.map_or(("linux", host_architecture(), ""), |p| {
        (p.os.as_str(), p.architecture.as_str(), p.variant.as_str())
    });
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        None => true,
        Some(p) => {
            p.os == os
                && p.architecture == architecture
                && (variant.is_empty() || p.variant == variant)
        }
    };
    if let Some(found) = descriptors.iter().find(fits) {
        return Ok(found.clone());
    }
    let offered: Vec<_> = descriptors
        .iter()
        .filter_map(|descriptor| descriptor.platform.as_ref())
        .map(|p| format!("{}/{}", p.os, p.architecture))
        .collect();
    let wanted = format!("{os}/{architecture}");
    Err(LoadError::Platform {
        wanted,
        member: member.to_owned(),
        offered: offered.join(", "),
    }
    .into())
}
