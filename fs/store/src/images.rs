//! Images: configurations kept verbatim, found by name, id or the beginning of an id.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;

use serde::{Deserialize, Serialize};

use crate::config::ImageConfig;
use crate::digest::{DiffId, Digest, ImageId};
use crate::error::{At, Error, ResolveError};
use crate::image::{HistoryLine, Image};
use crate::layers::hex_names;
use crate::names::Name;
use crate::reference::Reference;
use crate::store::Store;

/// What is kept beside a configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct ImageMeta {
    /// The image this one was made from.
    parent: Option<String>,
}

/// Ids shown of those an ambiguous prefix fits.
const FITS_SHOWN: usize = 4;

impl Store {
    /// Adds an image by its configuration, which is kept byte for byte; its id is their digest. Holds the shared lock.
    ///
    /// # Errors
    /// [`Error::Config`] for something that is no image configuration, [`Error::NoSuchLayer`].
    pub fn add_image(&self, config: &[u8], parent: Option<&ImageId>) -> Result<ImageId, Error> {
        let _lock = self.lock_shared()?;
        let id = ImageId::from(Digest::of(config));
        let parsed = ImageConfig::parse(config).map_err(|source| Error::Config {
            item: format!("image {}", id.short()),
            source,
        })?;
        if let Some(missing) = parsed.layers().iter().find(|layer| !self.has_layer(layer)) {
            return Err(Error::NoSuchLayer(*missing));
        }
        let home = self.image_home(&id);
        if home.exists() {
            if self.read_config(&id).is_ok() {
                return Ok(id);
            }
            // A damaged one is replaced.
            self.take_away(&home)?.remove()?;
        }
        let staged = self.stage()?;
        let meta = ImageMeta {
            parent: parent.map(ToString::to_string),
        };
        for (name, bytes) in [
            ("config.json", config),
            ("meta.json", &serde_json::to_vec(&meta).unwrap_or_default()),
        ] {
            let path = staged.path().join(name);
            fs::write(&path, bytes).at("write", &path)?;
            File::open(&path)
                .and_then(|file| file.sync_all())
                .at("sync", &path)?;
        }
        staged.sync_names()?;
        staged.place(&home)?;
        Ok(id)
    }

    /// Records which image another one was made from, if that can be: it begins with all of its layers.
    ///
    /// # Errors
    /// One of them cannot be read, or the record not written.
    pub(crate) fn set_parent(&self, image: &ImageId, parent: &ImageId) -> Result<(), Error> {
        if image == parent
            || !self
                .image(image)?
                .layers
                .starts_with(&self.image(parent)?.layers)
        {
            return Ok(());
        }
        let meta = ImageMeta {
            parent: Some(parent.to_string()),
        };
        let bytes = serde_json::to_vec(&meta).unwrap_or_default();
        self.write_whole(&self.image_home(image).join("meta.json"), &bytes)
    }

    /// Returns all images, the newest first. One that is damaged is left out: it must not hide the others, and
    /// [`Store::fsck`] lists it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        let names = self.all_names()?;
        let mut sizes = BTreeMap::new();
        let mut images = Vec::new();
        for id in self.all_images()? {
            match self.read_image(&id, &names, &mut sizes) {
                // Removed between the listing and now.
                Err(Error::NoSuchImage(_)) => {}
                Err(error @ (Error::Config { .. } | Error::Damaged { .. })) => {
                    log::warn!("{error}");
                }
                image => images.push(image?),
            }
        }
        images.sort_by_key(|image| (std::cmp::Reverse(image.created()), image.id));
        Ok(images)
    }

    /// Returns one image.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; a damaged record.
    pub fn image(&self, id: &ImageId) -> Result<Image, Error> {
        self.read_image(id, &self.all_names()?, &mut BTreeMap::new())
    }

    pub(crate) fn all_images(&self) -> Result<std::collections::BTreeSet<ImageId>, Error> {
        hex_names(&self.images_dir(), |hex| ImageId::from_hex(hex).ok())
    }

    fn read_image(
        &self,
        id: &ImageId,
        names: &[Name],
        sizes: &mut BTreeMap<DiffId, u64>,
    ) -> Result<Image, Error> {
        let (raw, config) = self.read_config(id)?;
        let layers = config.layers().to_vec();
        let mut size = 0;
        for layer in &layers {
            size += match sizes.get(layer) {
                Some(size) => *size,
                // fsck says what is missing; a listing goes on without it.
                None => *sizes
                    .entry(*layer)
                    .or_insert(self.layer_size(layer).unwrap_or(0)),
            };
        }
        let own: Vec<_> = names.iter().filter(|name| name.image == *id).collect();
        Ok(Image {
            id: *id,
            config,
            raw,
            names: own.iter().map(|name| name.reference.clone()).collect(),
            size,
            layers,
            parent: self
                .parent(id)
                .filter(|parent| self.image_home(parent).exists()),
            last_tagged: own.iter().filter_map(|name| name.tagged).max(),
        })
    }

    /// Reads a configuration; its bytes must still be those of its id.
    pub(crate) fn read_config(&self, id: &ImageId) -> Result<(Vec<u8>, ImageConfig), Error> {
        let path = self.image_home(id).join("config.json");
        let raw = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoSuchImage(*id));
            }
            other => other.at("read", &path)?,
        };
        let found = Digest::of(&raw);
        if found != id.digest() {
            let reason = format!("it has the digest {found}; load the image again");
            return Err(Error::Damaged { path, reason });
        }
        let config = ImageConfig::parse(&raw).map_err(|source| Error::Config {
            item: path.display().to_string(),
            source,
        })?;
        Ok((raw, config))
    }

    /// A parent is a help for people; an unreadable one is none.
    pub(crate) fn parent(&self, id: &ImageId) -> Option<ImageId> {
        let bytes = fs::read(self.image_home(id).join("meta.json")).ok()?;
        let meta: ImageMeta = serde_json::from_slice(&bytes).ok()?;
        meta.parent?.parse().ok()
    }

    /// What is wrong with what is kept beside a configuration.
    pub(crate) fn damaged_meta(&self, id: &ImageId) -> Option<String> {
        match fs::read(self.image_home(id).join("meta.json")) {
            Ok(bytes) => serde_json::from_slice::<ImageMeta>(&bytes)
                .err()
                .map(|error| format!("is damaged: {error}")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("is missing".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        }
    }

    /// Finds an image by complete id, name (`:latest` if no tag), or unambiguous beginning of an id, in this order.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub fn resolve(&self, text: &str) -> Result<ImageId, ResolveError> {
        self.resolve_kind(text).map(|(id, _)| id)
    }

    /// As [`Store::resolve`], and the name if it was one.
    pub(crate) fn resolve_kind(
        &self,
        text: &str,
    ) -> Result<(ImageId, Option<Reference>), ResolveError> {
        let broken = |error: Error| ResolveError::Store(error.to_string());
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(id) = ImageId::from_hex(hex) {
            let here = self.image_home(&id).exists();
            return if here {
                Ok((id, None))
            } else {
                Err(ResolveError::NotFound(format!("sha256:{hex}")))
            };
        }
        let looks_like_id = !hex.is_empty()
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let name = match Reference::parse(text) {
            Ok(name) => Some(name.or_latest()),
            Err(_) if looks_like_id => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(name) = &name
            && let Some(id) = self.named(name).map_err(broken)?
        {
            return Ok((id, Some(name.clone())));
        }
        let missing = || {
            ResolveError::NotFound(
                name.as_ref()
                    .map_or_else(|| text.to_owned(), Reference::familiar),
            )
        };
        if !looks_like_id {
            return Err(missing());
        }
        let all = self.all_images().map_err(broken)?;
        let fits: Vec<_> = all
            .into_iter()
            .filter(|id| id.hex().starts_with(hex))
            .collect();
        match fits.as_slice() {
            [] => Err(missing()),
            [id] => Ok((*id, None)),
            several => Err(ResolveError::Ambiguous {
                text: text.to_owned(),
                fits: several
                    .iter()
                    .take(FITS_SHOWN)
                    .map(ImageId::short)
                    .collect(),
            }),
        }
    }

    /// Returns how an image came to be, newest step first.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; a damaged record.
    pub fn history(&self, id: &ImageId) -> Result<Vec<HistoryLine>, Error> {
        let image = self.image(id)?;
        let names = self.all_names()?;
        let mut layers = image.layers.iter();
        let mut lines = Vec::new();
        for step in &image.config.history {
            let layer = if step.empty_layer {
                None
            } else {
                layers.next()
            };
            lines.push(HistoryLine {
                id: None,
                created: step.created.parse().ok(),
                created_by: step.created_by.clone(),
                size: layer
                    .map_or(Ok(0), |layer| self.layer_size(layer))
                    .unwrap_or(0),
                comment: step.comment.clone(),
                tags: Vec::new(),
            });
        }
        lines.reverse();
        // Which image each step ended in: known for those that were made here.
        let mut step = Some(*id);
        for line in &mut lines {
            let Some(id) = step else { break };
            line.id = Some(id);
            line.tags = names
                .iter()
                .filter(|name| name.image == id)
                .map(|name| name.reference.familiar())
                .collect();
            step = self
                .parent(&id)
                .filter(|parent| self.image_home(parent).exists());
        }
        Ok(lines)
    }
}
