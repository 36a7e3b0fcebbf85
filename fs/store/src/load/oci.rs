//! An OCI image layout: `index.json`, indexes in it, manifests, blobs by digest.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Found;
use super::members::{Blob, Members};
use crate::config::host_architecture;
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
/// On what is no image but says something about one.
const ABOUT_ANOTHER: &str = "vnd.docker.reference.type";

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: Option<String>,
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
    variant: Option<String>,
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
pub(super) fn find(
    members: &mut Members,
    platform: Option<&Platform>,
) -> Result<Vec<Found>, Error> {
    let index: Index = members.json(&Blob::named(INDEX), "the archive")?;
    let mut found: Vec<(String, Found)> = Vec::new();
    for (name, descriptors) in groups(index.manifests.unwrap_or_default())? {
        let descriptor = choose(&descriptors, platform, INDEX)?;
        let pin = name.as_ref().and_then(Reference::digest);
        // The same image under several names is listed once for each.
        if let Some((_, known)) = found
            .iter_mut()
            .find(|(digest, _)| *digest == descriptor.digest)
        {
            check_pin(pin, &descriptor, known)?;
            known.names.extend(name);
            continue;
        }
        let names = name.into_iter().collect();
        let image = image(members, &descriptor, names, platform)?;
        check_pin(pin, &descriptor, &image)?;
        found.push((descriptor.digest, image));
    }
    Ok(found.into_iter().map(|(_, image)| image).collect())
}

/// Refuses the digest in a name that is neither that of what the index lists nor of the manifest that was chosen below
/// it: whoever asks for a digest must get what has it.
fn check_pin(
    pin: Option<crate::Digest>,
    listed: &Descriptor,
    image: &Found,
) -> Result<(), LoadError> {
    match pin {
        Some(pin) if pin.to_string() != listed.digest && blob_path(&pin) != image.by => {
            Err(LoadError::Member {
                member: INDEX.to_owned(),
                reason: format!(
                    "a name has the digest {pin}, but what it names has {}",
                    listed.digest
                ),
            })
        }
        _ => Ok(()),
    }
}

fn blob_path(digest: &crate::Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// One image: its name, and its manifests.
type Group = (Option<Reference>, Vec<Descriptor>);

/// Puts together what is one image for several platforms: what has the same name, and all that has none, if each says
/// for which platform it is.
fn groups(all: Vec<Descriptor>) -> Result<Vec<Group>, Error> {
    let images: Vec<_> = all.into_iter().filter(|d| !d.is_about_another()).collect();
    let mut groups: Vec<Group> = Vec::new();
    for descriptor in images {
        let name = descriptor.name()?;
        let same = groups.iter_mut().find(|(other, members)| {
            *other == name
                && (name.is_some()
                    || descriptor.platform.is_some()
                        && members.iter().all(|member| member.platform.is_some()))
        });
        match same {
            Some((_, members)) => members.push(descriptor),
            None => groups.push((name, vec![descriptor])),
        }
    }
    Ok(groups)
}

impl Descriptor {
    fn annotation(&self, key: &str) -> Option<&str> {
        let found = self.annotations.as_ref()?.get(key)?;
        Some(found.as_str()).filter(|text| !text.is_empty())
    }

    /// The complete name must be one; the other annotation may be any text, and often is a bare tag.
    fn name(&self) -> Result<Option<Reference>, Error> {
        if let Some(name) = self.annotation(FULL_NAME) {
            return Ok(Some(Reference::parse(name)?.or_latest()));
        }
        let name = self.annotation(REF_NAME);
        Ok(name.and_then(|name| Reference::parse(name).ok().map(Reference::or_latest)))
    }

    fn is_about_another(&self) -> bool {
        let unknown = self
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown");
        unknown || self.annotation(ABOUT_ANOTHER).is_some()
    }

    fn blob(&self, by: &str) -> Result<Blob, Error> {
        let digest: crate::Digest = self.digest.parse().map_err(|error| LoadError::Member {
            member: by.to_owned(),
            reason: format!("{error}"),
        })?;
        Ok(Blob {
            member: blob_path(&digest),
            digest: Some(digest),
            size: Some(self.size),
        })
    }
}

fn image(
    members: &mut Members,
    descriptor: &Descriptor,
    names: Vec<Reference>,
    platform: Option<&Platform>,
) -> Result<Found, Error> {
    let mut blob = descriptor.blob(INDEX)?;
    let mut by = INDEX.to_owned();
    for _ in 0..DEPTH_LIMIT {
        let manifest: Manifest = members.json(&blob, &by)?;
        by.clone_from(&blob.member);
        if let Some(inner) = manifest.manifests {
            let inner: Vec<_> = inner
                .into_iter()
                .filter(|d| !d.is_about_another())
                .collect();
            blob = choose(&inner, platform, &by)?.blob(&by)?;
            continue;
        }
        let Some(config) = manifest.config else {
            let kind = descriptor.media_type.as_deref().unwrap_or("no media type");
            return Err(LoadError::Member {
                member: by,
                reason: format!("neither a manifest nor an index ({kind})"),
            }
            .into());
        };
        let layers = manifest.layers.unwrap_or_default();
        return Ok(Found {
            config: config.blob(&by)?,
            layers: layers
                .iter()
                .map(|layer| layer.blob(&by))
                .collect::<Result<_, _>>()?,
            names,
            parent: None,
            by,
        });
    }
    let limit = format!("{DEPTH_LIMIT} indexes in one another");
    Err(LoadError::Limit { member: by, limit }.into())
}

/// The one for the wanted platform, else for this machine's. One that does not say for which it is is anybody's, and
/// a single one is taken as it is unless another is asked for.
fn choose(
    descriptors: &[Descriptor],
    wanted: Option<&Platform>,
    member: &str,
) -> Result<Descriptor, Error> {
    if let ([only], None) = (descriptors, wanted) {
        return Ok(only.clone());
    }
    let (os, architecture, variant) = wanted.map_or(("linux", host_architecture(), ""), |p| {
        (p.os.as_str(), p.architecture.as_str(), p.variant.as_str())
    });
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        None => true,
        Some(p) => {
            p.os == os
                && p.architecture == architecture
                && (variant.is_empty() || p.variant.as_deref() == Some(variant))
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
    let offered = if offered.is_empty() {
        "none".to_owned()
    } else {
        offered.join(", ")
    };
    Err(LoadError::Platform {
        wanted,
        member: member.to_owned(),
        offered,
    }
    .into())
}
