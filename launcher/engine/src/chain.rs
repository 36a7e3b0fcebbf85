//! The merged index of an image's layers: made when the layers are first mounted, believed as long as they stay what they
//! are. Whatever is wrong with it, everything works without; only more slowly.

use std::path::PathBuf;

use mille_store::{ChainId, DiffId, Store};
use mille_union::{Chain, ChainIndex};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::init_layer::Dialect;
use crate::rootfs::Stack;

/// The layers of an image, and the store that keeps their index.
pub(crate) struct Indexing<'a> {
    store: &'a Store,
    dialect: Dialect,
    /// None for a stack that has no index.
    id: Option<ChainId>,
    /// Topmost first.
    layers: Vec<PathBuf>,
}

impl Engine {
    /// The chain of an image's layers, the lowest first. On the machine's own root, which changes, there is no index.
    pub(crate) fn chain(&self, layers: &[DiffId], on_host: bool) -> Indexing<'_> {
        let id = if on_host {
            None
        } else {
            ChainId::chain(layers).pop()
        };
        let layers = layers.iter().rev();
        Indexing {
            store: &self.store,
            dialect: self.dialect(),
            id,
            layers: layers.map(|layer| self.store.layer_dir(layer)).collect(),
        }
    }
}

impl Indexing<'_> {
    fn chain(&self) -> Chain<'_> {
        Chain {
            layers: &self.layers,
            space: self.dialect.space,
            ownership: self.dialect.ownership,
        }
    }

    /// The index, if there is one and it is right.
    pub(crate) fn open(&self) -> Option<ChainIndex> {
        let path = self.store.chain_index(self.id.as_ref()?);
        match self.chain().open(&path) {
            Ok(index) => Some(index),
            Err(error) => {
                log::debug!("layers are read without an index: {error}");
                None
            }
        }
    }

    /// Makes the index if the stack has none. The layers must be kept from being collected meanwhile.
    pub(crate) fn ensure(&self, stack: &mut Stack) {
        let Some(id) = self.id.as_ref().filter(|_| stack.index.is_none()) else {
            return;
        };
        match self.make(id) {
            Ok(()) => stack.index = self.open(),
            Err(error) => log::warn!("layers are read without an index: {error}"),
        }
    }

    fn make(&self, id: &ChainId) -> Result<()> {
        let bytes = self.chain().build().map_err(Error::Union)?;
        Ok(self.store.put_chain_index(id, &bytes)?)
    }
}
