//! Removing: names, images, layers that nothing needs any more, and what killed processes left.

use std::collections::BTreeSet;
use std::fs;

use crate::digest::{ChainId, DiffId, ImageId};
use crate::error::{At, Conflict, Error};
use crate::image::Image;
use crate::reference::Reference;
use crate::staging::{self, Staged};
use crate::store::Store;
use crate::types::{Collected, ContainerUse, RemoveOptions, Removed};

impl Store {
    /// Removes a name, or an image with all that only it needs, as docker's `rmi` does. Holds the exclusive lock.
    ///
    /// # Errors
    /// No such image; [`Conflict`] with docker's texts.
    pub fn remove_image(
        &self,
        text: &str,
        options: &RemoveOptions<'_>,
    ) -> Result<Vec<Removed>, Error> {
        let _lock = self.lock_exclusive()?;
        let (id, name) = self.resolve_kind(text)?;
        let image = self.image(&id)?;
        let removal = Removal {
            store: self,
            options,
            image: &image,
        };
        let mut removed = Vec::new();
        let delete = match name {
            Some(name) => removal.by_name(&name, text, &mut removed)?,
            None => removal.by_id(&mut removed)?,
        };
        if delete {
            self.delete_image(&image, options, &mut removed)?;
        }
        Ok(removed)
    }

    /// Deletes an image without names, its layers, and parents that were kept for its sake.
    fn delete_image(
        &self,
        image: &Image,
        options: &RemoveOptions<'_>,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let parent = image.parent;
        Staged::taken(&self.staging(), &self.image_home(&image.id))?.remove()?;
        removed.push(Removed::Deleted(image.id.to_string()));
        let pinned = options
            .uses
            .iter()
            .flat_map(|container| container.layers.iter().copied());
        let needed = self.needed(pinned)?;
        let chain = ChainId::chain(&image.layers);
        for (layer, chain) in image.layers.iter().zip(&chain).rev() {
            if needed.contains(layer) {
                break;
            }
            self.delete_layer(layer)?;
            removed.push(Removed::Deleted(chain.to_string()));
        }
        let Some(parent) = parent.filter(|_| !options.keep_parents) else {
            return Ok(());
        };
        let parent = self.image(&parent)?;
        let used = options
            .uses
            .iter()
            .any(|container| container.image == parent.id);
        if parent.is_dangling() && !used && !self.has_children(&parent.id)? {
            return self.delete_image(&parent, options, removed);
        }
        Ok(())
    }

    fn has_children(&self, id: &ImageId) -> Result<bool, Error> {
        Ok(self
            .all_images()?
            .iter()
            .any(|other| self.parent(other) == Some(*id)))
    }

    /// The layers that some image or `pinned` needs.
    pub(crate) fn needed(
        &self,
        pinned: impl Iterator<Item = DiffId>,
    ) -> Result<BTreeSet<DiffId>, Error> {
        let mut needed: BTreeSet<_> = pinned.collect();
        needed.extend(self.images()?.into_iter().flat_map(|image| image.layers));
        Ok(needed)
    }

    fn delete_layer(&self, layer: &DiffId) -> Result<(), Error> {
        let home = self.layer_home(layer);
        if home.exists() {
            Staged::taken(&self.staging(), &home)?.remove()
        } else {
            Ok(())
        }
    }

    /// Removes layers that neither an image nor `pinned` needs, and what killed processes left. Holds the exclusive lock.
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn collect(&self, pinned: &[DiffId]) -> Result<Collected, Error> {
        let _lock = self.lock_exclusive()?;
        let mut collected = Collected::default();
        for path in self.leftovers()? {
            if path.is_dir() {
                staging::remove_tree(&path)?;
            } else {
                fs::remove_file(&path).at("remove", &path)?;
            }
            collected.staging += 1;
        }
        let needed = self.needed(pinned.iter().copied())?;
        for layer in self.all_layers()?.difference(&needed) {
            collected.bytes += self.layer_size(layer).unwrap_or(0);
            self.delete_layer(layer)?;
            collected.layers.push(*layer);
        }
        Ok(collected)
    }

    /// What was being made or removed when a process was killed. Only who holds the exclusive lock knows that nobody
    /// is still at it.
    pub(crate) fn leftovers(&self) -> Result<Vec<std::path::PathBuf>, Error> {
        let mut found = Vec::new();
        for (directory, all) in [(self.staging(), true), (self.names_dir(), false)] {
            for entry in fs::read_dir(&directory).at("read directory", &directory)? {
                let path = entry.at("read directory", &directory)?.path();
                if all || path.extension().is_none_or(|extension| extension != "json") {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }
}

struct Removal<'a> {
    store: &'a Store,
    options: &'a RemoveOptions<'a>,
    image: &'a Image,
}

impl Removal<'_> {
    /// Takes one name away; true if the image has to go with it.
    fn by_name(
        &self,
        name: &Reference,
        typed: &str,
        removed: &mut Vec<Removed>,
    ) -> Result<bool, Error> {
        let only = self.image.names.len() == 1;
        if only
            && !self.options.force
            && let Some(container) = self.container(|_| true)
        {
            return Err(Conflict::Reference {
                name: typed.to_owned(),
                container: short(container),
                image: self.image.id.short(),
            }
            .into());
        }
        self.store.untag(name)?;
        removed.push(Removed::Untagged(name.familiar()));
        let stays = !only
            || self.container(|container| container.running).is_some()
            || self.store.has_children(&self.image.id)?;
        Ok(!stays)
    }

    /// Takes all names away, if nothing speaks against it.
    fn by_id(&self, removed: &mut Vec<Removed>) -> Result<bool, Error> {
        let force = self.options.force;
        let repositories: BTreeSet<_> = self
            .image
            .names
            .iter()
            .map(Reference::familiar_name)
            .collect();
        if let Some(container) = self.container(|container| container.running) {
            let reason = format!(
                "image is being used by running container {}",
                short(container)
            );
            return Err(self.conflict(true, true, &reason));
        }
        if self.store.has_children(&self.image.id)? {
            return Err(self.conflict(true, false, "image has dependent child images"));
        }
        if repositories.len() > 1 && !force {
            return Err(self.conflict(
                false,
                false,
                "image is referenced in multiple repositories",
            ));
        }
        if let Some(container) = self.container(|_| !force) {
            let reason = format!(
                "image is being used by stopped container {}",
                short(container)
            );
            return Err(self.conflict(false, true, &reason));
        }
        for name in &self.image.names {
            self.store.untag(name)?;
            removed.push(Removed::Untagged(name.familiar()));
        }
        Ok(true)
    }

    fn container(&self, wanted: impl Fn(&ContainerUse) -> bool) -> Option<&ContainerUse> {
        self.options
            .uses
            .iter()
            .find(|container| container.image == self.image.id && wanted(container))
    }

    fn conflict(&self, hard: bool, used: bool, reason: &str) -> Error {
        Conflict::Image {
            image: self.image.id.short(),
            hard,
            used,
            reason: reason.to_owned(),
        }
        .into()
    }
}

fn short(container: &ContainerUse) -> String {
    container.id.chars().take(12).collect()
}
