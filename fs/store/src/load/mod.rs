//! `load`: images from archives, docker's and OCI's, as a tar or as a directory.
//!
//! Everything is read, unpacked aside and checked first; then all of it becomes visible. An archive with one fault in
//! it leaves the store as it was.

mod docker;
mod members;
mod oci;
mod spool;
mod tar_stream;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::config::ImageConfig;
use crate::digest::{DiffId, ImageId};
use crate::error::{Error, LoadError};
use crate::names::check_name;
use crate::reference::Reference;
use crate::store::Store;
use crate::types::{LoadEvent, LoadOptions, Loaded, Source};
use crate::unpack::Pending;
use members::{Blob, Directory, Members};
use spool::Spool;

/// One image as an archive describes it.
#[derive(Debug)]
struct Found {
    config: Blob,
    /// The layers, bottom first.
    layers: Vec<Blob>,
    /// Its names.
    names: Vec<Reference>,
    /// The image it was made from.
    parent: Option<ImageId>,
    /// The member that says all this, for messages.
    by: String,
}

/// One image that is checked and whose layers are unpacked.
#[derive(Debug)]
struct Checked {
    raw: Vec<u8>,
    names: Vec<Reference>,
    parent: Option<ImageId>,
}

impl Store {
    /// Loads every image of an archive for this machine's platform. Holds the shared lock once a stream has been read.
    ///
    /// # Errors
    /// [`LoadError`], which says what is wrong where; the store is then as it was.
    pub fn load(
        &self,
        source: Source,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, Error> {
        self.load_with(source, &LoadOptions::default(), events)
    }

    /// As [`Store::load`], with options.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_with(
        &self,
        source: Source,
        options: &LoadOptions,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, Error> {
        let mut members = match source {
            Source::Dir(path) => Members::Directory(Directory::open(&path)?),
            // Whoever writes the stream may be slow; nobody else shall wait for that.
            Source::Stream(stream) => Members::Spool(Spool::read(self, stream)?),
        };
        let _lock = self.lock_shared()?;
        // An archive that is both says the same twice; docker's part has the complete names.
        let found = if members.has("manifest.json") {
            docker::find(&mut members)?
        } else if members.has("index.json") {
            oci::find(&mut members, options.platform.as_ref())?
        } else if members.has("repositories") {
            return Err(LoadError::NotAnArchive(
                " (it is of docker's format before 1.10, which has no digests)",
            )
            .into());
        } else {
            return Err(LoadError::NotAnArchive("").into());
        };
        let mut layers = BTreeMap::new();
        let mut images = Vec::with_capacity(found.len());
        for image in found {
            images.push(self.check(&mut members, image, &mut layers)?);
        }
        // What nobody asked for goes before the disk is asked to keep the rest.
        drop(members);
        let _work = self.begin()?;
        self.place_layers(layers.into_values().collect())?;
        self.publish(images, events)
    }

    /// Checks one image, and unpacks those of its layers that are neither here nor unpacked yet.
    fn check(
        &self,
        members: &mut Members,
        found: Found,
        layers: &mut BTreeMap<DiffId, Pending>,
    ) -> Result<Checked, Error> {
        let raw = members.small(&found.config, &found.by)?;
        let config = ImageConfig::parse(&raw).map_err(|source| Error::Config {
            item: found.config.member.clone(),
            source,
        })?;
        let diff_ids = config.layers();
        if diff_ids.len() != found.layers.len() {
            let mismatch = LoadError::LayerCount {
                expected: found.layers.len(),
                found: diff_ids.len(),
            };
            return Err(mismatch.into());
        }
        for (index, (blob, diff_id)) in found.layers.iter().zip(diff_ids).enumerate() {
            let item = format!("layer {index}");
            let layer = (item.as_str(), diff_id);
            if layers.contains_key(diff_id) || self.has_layer(diff_id) {
                members.check_layer(blob, layer, &found.by)?;
            } else {
                let pending = members.layer(self, blob, layer, &found.by)?;
                layers.insert(*diff_id, pending);
            }
        }
        for name in &found.names {
            check_name(name)?;
        }
        Ok(Checked {
            raw,
            names: found.names,
            parent: found.parent,
        })
    }

    /// Adds images whose layers are here.
    fn publish(
        &self,
        images: Vec<Checked>,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, Error> {
        let mut loaded: Vec<Loaded> = Vec::with_capacity(images.len());
        let mut families = Vec::new();
        for image in images {
            let id = self.add_image(&image.raw, None)?;
            self.name(&id, &image.names, events)?;
            families.extend(image.parent.map(|parent| (id, parent)));
            loaded.push(Loaded {
                id,
                names: image.names,
            });
        }
        // As docker: ids are told only of an archive in which nothing has a name.
        if loaded.iter().all(|image| image.names.is_empty()) {
            for image in &loaded {
                events(LoadEvent::LoadedId(image.id));
            }
        }
        // A parent may come after its child.
        for (child, parent) in families {
            if loaded.iter().any(|image| image.id == parent) {
                self.set_parent(&child, &parent)?;
            }
        }
        Ok(loaded)
    }

    fn name(
        &self,
        id: &ImageId,
        names: &[Reference],
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<(), Error> {
        for name in names {
            if let Some(old) = self.tag(id, name)? {
                events(LoadEvent::Renamed {
                    name: name.clone(),
                    old,
                });
            }
            events(LoadEvent::Loaded(name.clone()));
        }
        Ok(())
    }
}

/// True for a directory that is an unpacked archive or layout.
#[must_use]
pub fn is_unpacked(path: &Path) -> bool {
    ["manifest.json", "index.json"]
        .iter()
        .any(|name| fs::metadata(path.join(name)).is_ok_and(|meta| meta.is_file()))
}
