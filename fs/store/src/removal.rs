//! Removing names and images, by docker's rules.

use std::collections::BTreeSet;

use crate::digest::{ChainId, DiffId, ImageId};
use crate::error::{Conflict, Error};
use crate::reference::Reference;
use crate::store::Store;
use crate::types::{ImageUse, RemoveOptions, Removed, User};

impl Store {
    /// Removes a name, or an image with all that only it needs, as docker's `rmi` does. Holds the exclusive lock.
    ///
    /// A damaged image can be removed as well; so can a name whose image is gone.
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
        let removal = Removal {
            store: self,
            options,
        };
        let mut removed = Vec::new();
        match name {
            Some(name) => removal.by_name(&id, &name, text, &mut removed)?,
            None => removal.by_id(&id, &mut removed)?,
        }
        Ok(removed)
    }

    /// Returns whether some image was made from this one.
    fn has_children(&self, id: &ImageId) -> Result<bool, Error> {
        Ok(self
            .all_images()?
            .iter()
            .any(|other| self.parent(other) == Some(*id)))
    }

    /// The layers that some image or `pinned` needs.
    ///
    /// # Errors
    /// An image that cannot be read: nobody knows what it needs.
    pub(crate) fn needed(
        &self,
        pinned: impl Iterator<Item = DiffId>,
    ) -> Result<BTreeSet<DiffId>, Error> {
        let mut needed: BTreeSet<_> = pinned.collect();
        for id in self.all_images()? {
            needed.extend(self.read_config(&id)?.1.layers());
        }
        Ok(needed)
    }

    pub(crate) fn delete_layer(&self, layer: &DiffId) -> Result<(), Error> {
        let home = self.layer_home(layer);
        if home.exists() {
            self.take_away(&home)?.remove()
        } else {
            Ok(())
        }
    }
}

struct Removal<'a> {
    store: &'a Store,
    options: &'a RemoveOptions<'a>,
}

/// Whether a name speaks against deleting an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Objections {
    Names,
    NoNames,
}

impl Removal<'_> {
    /// Takes a name away, and the image with its last one, unless it is needed.
    fn by_name(
        &self,
        id: &ImageId,
        name: &Reference,
        typed: &str,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        let names = self.store.names_of(id)?;
        if !self.options.force
            && is_single(&names)
            && let Some(found) = self.found_use(id, |_| true)
        {
            return Err(Conflict::Reference {
                name: typed.to_owned(),
                user: found.user.to_string(),
                image: id.short(),
            }
            .into());
        }
        self.untag(name, removed)?;
        let mut left = self.store.names_of(id)?;
        // Digests of a repository stand by its tags: with the last tag they go too.
        let tagged = |other: &&Reference| {
            other.digest().is_none() && other.repository() == name.repository()
        };
        if name.digest().is_none() && !left.iter().any(|other| tagged(&other)) {
            let (gone, kept) = left
                .into_iter()
                .partition(|other| other.repository() == name.repository());
            for other in Vec::<Reference>::from_iter(gone) {
                self.untag(&other, removed)?;
            }
            left = kept;
        }
        if !left.is_empty() || !self.store.image_home(id).exists() {
            return Ok(());
        }
        match self.delete(id, Objections::Names, removed) {
            // The name is gone, as was asked; what is still needed stays without one.
            Err(Error::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    /// Takes all names away and deletes the image, if nothing speaks against it.
    fn by_id(&self, id: &ImageId, removed: &mut Vec<Removed>) -> Result<(), Error> {
        let objections = if is_single(&self.store.names_of(id)?) {
            Objections::NoNames
        } else {
            Objections::Names
        };
        self.delete(id, objections, removed)
    }

    /// Deletes an image with its names, its layers, and parents that were kept for its sake.
    fn delete(
        &self,
        id: &ImageId,
        objections: Objections,
        removed: &mut Vec<Removed>,
    ) -> Result<(), Error> {
        self.check(id, objections)?;
        let mut id = *id;
        loop {
            let parent = self.store.parent(&id);
            for name in self.store.names_of(&id)? {
                self.untag(&name, removed)?;
            }
            self.delete_one(&id, removed)?;
            let Some(parent) = parent.filter(|_| !self.options.keep_parents) else {
                return Ok(());
            };
            if !self.store.image_home(&parent).exists() {
                return Ok(());
            }
            match self.check_parent(&parent) {
                // Parents go quietly or not at all.
                Err(Error::Conflict(_)) => return Ok(()),
                other => other?,
            }
            id = parent;
        }
    }

    fn delete_one(&self, id: &ImageId, removed: &mut Vec<Removed>) -> Result<(), Error> {
        // One that cannot be read has no layers that anybody could tell.
        let layers = self
            .store
            .read_config(id)
            .map(|(_, config)| config.layers().to_vec())
            .unwrap_or_default();
        // It stays in the staging area until its layers are gone: should this process be killed, they are collected.
        let gone = self.store.take_away(&self.store.image_home(id))?;
        removed.push(Removed::Deleted(id.to_string()));
        // Another image that cannot be read may need any of them.
        let Ok(needed) = self.store.needed(self.pinned()) else {
            return gone.remove();
        };
        let chains = self.chains_in_use()?;
        for chain in ChainId::chain(&layers).iter().rev() {
            if !chains.contains(chain) {
                removed.push(Removed::Deleted(chain.to_string()));
            }
        }
        for layer in layers.iter().filter(|layer| !needed.contains(*layer)) {
            self.store.delete_layer(layer)?;
        }
        gone.remove()
    }

    fn pinned(&self) -> impl Iterator<Item = DiffId> {
        let uses = self.options.uses.iter();
        uses.flat_map(|used| used.layers.iter().copied())
    }

    /// The stacks that images and containers are made of.
    fn chains_in_use(&self) -> Result<BTreeSet<ChainId>, Error> {
        let mut chains = BTreeSet::new();
        for id in self.store.all_images()? {
            chains.extend(ChainId::chain(self.store.read_config(&id)?.1.layers()));
        }
        for used in self.options.uses {
            chains.extend(ChainId::chain(&used.layers));
        }
        Ok(chains)
    }

    /// In docker's order: what no force helps against comes first.
    fn check(&self, id: &ImageId, objections: Objections) -> Result<(), Error> {
        let conflict = |hard, used, reason: String| {
            Err(Conflict::Image {
                image: id.short(),
                hard,
                used,
                reason,
            }
            .into())
        };
        if self.store.has_children(id)? {
            return conflict(true, false, "image has dependent child images".to_owned());
        }
        if let Some(found) = self.found_use(id, |used| used.running) {
            let reason = match &found.user {
                User::Container(_) => format!("image is being used by running {}", found.user),
                User::Mount(_) => format!("image is being used by {}", found.user),
            };
            return conflict(true, true, reason);
        }
        if self.options.force {
            return Ok(());
        }
        if objections == Objections::Names && !self.store.names_of(id)?.is_empty() {
            let reason = "image is referenced in multiple repositories".to_owned();
            return conflict(false, false, reason);
        }
        if let Some(found) = self.found_use(id, |_| true) {
            let reason = format!("image is being used by stopped {}", found.user);
            return conflict(false, true, reason);
        }
        Ok(())
    }

    /// A parent is never removed by force: only if it has no name and nobody uses it.
    fn check_parent(&self, id: &ImageId) -> Result<(), Error> {
        let options = RemoveOptions {
            force: false,
            ..*self.options
        };
        Removal {
            store: self.store,
            options: &options,
        }
        .check(id, Objections::Names)
    }

    fn untag(&self, name: &Reference, removed: &mut Vec<Removed>) -> Result<(), Error> {
        self.store.untag(name)?;
        removed.push(Removed::Untagged(name.familiar()));
        Ok(())
    }

    fn found_use(&self, id: &ImageId, wanted: impl Fn(&ImageUse) -> bool) -> Option<&ImageUse> {
        let mut uses = self.options.uses.iter();
        uses.find(|used| used.image == Some(*id) && wanted(used))
    }
}

/// Whether an image has one tag at most, beside digests of the same repository.
fn is_single(names: &[Reference]) -> bool {
    let tags: Vec<_> = names
        .iter()
        .filter(|name| name.digest().is_none())
        .collect();
    let repositories: BTreeSet<_> = names.iter().map(Reference::repository).collect();
    names.len() <= 1 || tags.len() <= 1 && repositories.len() == 1
}
