//! `load`: images from archives, docker's and OCI's, as a tar or as a directory.
//!
//! A tar may come from a pipe and names what it needs at its end, so it is spooled into the staging area first, by the
//! same bounded extractor that unpacks layers. Nothing becomes visible before every digest has been checked.

mod docker;
mod members;
mod oci;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use mille_layer::extract::{ExtractError, ExtractOptions, Limits, Owners, extract};

use crate::compression::{Refused, decompressed};
use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::{At, Error, LoadError};
use crate::layers::with_causes;
use crate::progress::{Counted, Phase};
use crate::reference::Reference;
use crate::staging::{self, Staged};
use crate::store::Store;
use crate::types::{LoadEvent, LoadOptions, Loaded, Source};
use members::Members;

/// Members an archive may have.
const MEMBER_LIMIT: u64 = 100_000;

/// One image as an archive describes it.
#[derive(Debug)]
struct Found {
    /// Member with the configuration.
    config: String,
    /// Digest the configuration must have, if its name says one.
    config_digest: Option<Digest>,
    /// Members with the layers, bottom first.
    layers: Vec<Blob>,
    /// Its names.
    names: Vec<Reference>,
    /// The image it was made from.
    parent: Option<ImageId>,
    /// The member that says all this, for messages.
    by: String,
}

/// A member, and what a descriptor promises of it.
#[derive(Debug)]
struct Blob {
    member: String,
    digest: Option<Digest>,
    size: Option<u64>,
}

impl Store {
    /// Loads every image of an archive for this machine's platform. Holds the shared lock.
    ///
    /// # Errors
    /// [`LoadError`], which says what is wrong where; images that were whole before that stay.
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
        let _lock = self.lock_shared()?;
        match source {
            Source::Dir(path) => self.load_directory(&path, options, events),
            Source::Stream(stream) => {
                let staged = Staged::new(&self.staging())?;
                let archive = staged.path().join("archive");
                staging::make_directory(&archive)?;
                self.spool(stream, &archive)?;
                self.load_directory(&archive, options, events)
            }
        }
    }

    fn spool(&self, stream: Box<dyn Read + Send>, archive: &Path) -> Result<(), Error> {
        const ITEM: &str = "archive";
        let tar = decompressed(stream, ITEM).map_err(|refused| match refused {
            Refused::Read(source) => Error::Read {
                item: ITEM.to_owned(),
                source,
            },
            Refused::Method(error) => error.into(),
        })?;
        let tar = Counted::new(tar, &*self.progress, Phase::Read, ITEM, None);
        let directory = File::open(archive).at("open", archive)?;
        let mut options = ExtractOptions::new(self.options.space, self.options.ownership);
        options.owners = Owners::Ignore;
        options.limits = Limits {
            entries: MEMBER_LIMIT,
            ..Limits::default()
        };
        let extracted = extract(tar, directory.as_fd(), &options, io::sink())
            .map_err(|error| spool_error(&error))?;
        if extracted.entries == 0 {
            return Err(LoadError::NotAnArchive(": it is empty").into());
        }
        if !extracted.end_marker {
            return Err(LoadError::Truncated {
                item: ITEM.to_owned(),
            }
            .into());
        }
        Ok(())
    }

    fn load_directory(
        &self,
        path: &Path,
        options: &LoadOptions,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, Error> {
        let members = Members::open(path)?;
        // An archive that is both says the same twice; docker's part has the complete names.
        let found = if members.has("manifest.json") {
            docker::find(&members)?
        } else if members.has("index.json") {
            oci::find(&members, options.platform.as_ref())?
        } else if members.has("repositories") {
            return Err(LoadError::NotAnArchive(
                " (it is of docker's format before 1.10, which has no digests)",
            )
            .into());
        } else {
            return Err(LoadError::NotAnArchive("").into());
        };
        let mut loaded: Vec<Loaded> = Vec::new();
        let mut families = Vec::new();
        for image in found {
            let parent = image.parent;
            let taken = self.take(&members, image, events)?;
            families.extend(parent.map(|parent| (taken.id, parent)));
            loaded.push(taken);
        }
        // A parent may come after its child.
        for (child, parent) in families {
            if loaded.iter().any(|image| image.id == parent) {
                self.set_parent(&child, &parent)?;
            }
        }
        Ok(loaded)
    }

    /// Adds one image: layers first, so that its record never names one that is not there.
    fn take(
        &self,
        members: &Members,
        found: Found,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Loaded, Error> {
        let raw = members.read_small(&found.config, &found.by)?;
        if let Some(expected) = found.config_digest {
            check_digest(&found.config, expected, Digest::of(&raw))?;
        }
        let config = ImageConfig::parse(&raw).map_err(|source| Error::Config {
            item: found.config.clone(),
            source,
        })?;
        let expected = config.layers();
        if expected.len() != found.layers.len() {
            let mismatch = LoadError::LayerCount {
                expected: found.layers.len(),
                found: expected.len(),
            };
            return Err(mismatch.into());
        }
        for (blob, diff_id) in found.layers.iter().zip(expected) {
            if !self.has_layer(diff_id) {
                self.take_layer(members, blob, diff_id, &found.by)?;
            }
        }
        let id = self.add_image(&raw, None)?;
        self.name(&id, &found.names, events)?;
        Ok(Loaded {
            id,
            names: found.names,
        })
    }

    fn take_layer(
        &self,
        members: &Members,
        blob: &Blob,
        diff_id: &crate::DiffId,
        by: &str,
    ) -> Result<(), Error> {
        let (file, size) = members.open_file(&blob.member, by)?;
        if let Some(expected) = blob.size.filter(|expected| *expected != size) {
            return Err(LoadError::Size {
                member: blob.member.clone(),
                expected,
                found: size,
            }
            .into());
        }
        // An uncompressed blob's digest is its diff id, which is checked in any case.
        if let Some(expected) = blob.digest.filter(|digest| *digest != diff_id.digest()) {
            let mut hashing = crate::digest::Hashing::new(io::sink());
            io::copy(&mut &file, &mut hashing).at("read", &blob.member)?;
            check_digest(&blob.member, expected, hashing.finish().0)?;
            io::Seek::rewind(&mut &file).at("rewind", &blob.member)?;
        }
        self.add_layer_named(file, Some(diff_id), &blob.member)?;
        Ok(())
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
        if names.is_empty() {
            events(LoadEvent::LoadedId(*id));
        }
        Ok(())
    }
}

fn check_digest(member: &str, expected: Digest, found: Digest) -> Result<(), LoadError> {
    if expected == found {
        return Ok(());
    }
    Err(LoadError::Digest {
        member: member.to_owned(),
        expected,
        found,
    })
}

/// A name in an archive; docker wants a tag, others write complete names.
fn reference(text: &str) -> Result<Reference, Error> {
    let name = Reference::parse(text).map_err(|_| LoadError::Tag(text.to_owned()))?;
    Ok(name.or_latest())
}

/// The archive's own tar is at fault, or our disk.
fn spool_error(error: &ExtractError) -> Error {
    let reason = with_causes(error);
    let full = reason.contains("No space left on device");
    let item = "archive".to_owned();
    if full {
        return Error::Layer {
            item,
            source: reason.into(),
        };
    }
    LoadError::Tar { item, reason }.into()
}

/// True for a directory that is an unpacked archive or layout.
#[must_use]
pub fn is_unpacked(path: &Path) -> bool {
    ["manifest.json", "index.json"]
        .iter()
        .any(|name| fs::metadata(path.join(name)).is_ok_and(|meta| meta.is_file()))
}
