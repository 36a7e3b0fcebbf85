//! Collecting what nothing refers to, and what killed processes left.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::digest::{ChainId, DiffId};
use crate::discard::remove_tree;
use crate::error::{At, Error};
use crate::layers::hex_names;
use crate::staging::is_live;
use crate::store::Store;
use crate::types::Collected;

impl Store {
    /// Removes layers that neither an image nor `pinned` needs, indexes of stacks that are gone, and what killed processes
    /// left. Holds the exclusive lock.
    ///
    /// With an image that cannot be read no layer is removed: it might be one of its own ([`Collected::withheld`]).
    ///
    /// # Errors
    /// Something cannot be read or removed.
    pub fn collect(&self, pinned: &[DiffId]) -> Result<Collected, Error> {
        let _lock = self.lock_exclusive()?;
        let mut collected = Collected::default();
        let leftovers = self.leftovers()?;
        match self.needed(pinned.iter().copied()) {
            Ok(needed) => {
                for layer in self.all_layers()?.difference(&needed) {
                    collected.bytes += self.layer_size(layer).unwrap_or(0);
                    self.delete_layer(layer)?;
                    collected.layers.push(*layer);
                }
                self.collect_indexes()?;
            }
            Err(error) => collected.withheld = Some(error.to_string()),
        }
        // Last: as long as they are there, whoever comes after a killed collection knows that it was not finished.
        for path in leftovers {
            remove_tree(&path)?;
            collected.staging += 1;
        }
        Ok(collected)
    }

    /// An index can be made again at any time, and one that is in use stays readable: those of images are kept.
    fn collect_indexes(&self) -> Result<(), Error> {
        let mut chains = BTreeSet::new();
        for id in self.all_images()? {
            chains.extend(ChainId::chain(self.read_config(&id)?.1.layers()));
        }
        for chain in self.all_indexes()?.difference(&chains) {
            remove_tree(&self.chain_index(chain))?;
        }
        Ok(())
    }

    /// The chains that have an index.
    pub(crate) fn all_indexes(&self) -> Result<BTreeSet<ChainId>, Error> {
        let directory = self.indexes();
        if !directory.exists() {
            return Ok(BTreeSet::new());
        }
        hex_names(&directory, |hex| ChainId::from_hex(hex).ok())
    }

    /// What was being made or removed when a process was killed.
    pub(crate) fn leftovers(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        let staging = self.staging();
        for entry in fs::read_dir(&staging).at("read directory", &staging)? {
            let path = entry.at("read directory", &staging)?.path();
            if !is_live(&path)? {
                found.push(path);
            }
        }
        Ok(found)
    }
}
