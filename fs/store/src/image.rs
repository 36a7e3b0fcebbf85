//! An image as it lies in the store.

use crate::config::ImageConfig;
use crate::digest::{ChainId, DiffId, ImageId};
use crate::reference::Reference;

/// An image: its configuration, its names, its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of `raw`.
    pub id: ImageId,
    /// The configuration.
    pub config: ImageConfig,
    /// The configuration's bytes, as they came.
    pub raw: Vec<u8>,
    /// All names, tags before digests, in order.
    pub names: Vec<Reference>,
    /// Bytes of file content in all layers.
    pub size: u64,
    /// The layers, bottom first.
    pub layers: Vec<DiffId>,
    /// The image this one was made from, if that is here.
    pub parent: Option<ImageId>,
    /// When the image was last given a name it still has.
    pub last_tagged: Option<jiff::Timestamp>,
}

impl Image {
    /// Returns the tags as people read them (`debian:12`).
    pub fn repo_tags(&self) -> Vec<String> {
        self.names
            .iter()
            .filter(|name| name.digest().is_none())
            .map(Reference::familiar)
            .collect()
    }

    /// Returns the digest names as people read them (`debian@sha256:…`).
    pub fn repo_digests(&self) -> Vec<String> {
        self.names
            .iter()
            .filter(|name| name.digest().is_some())
            .map(Reference::familiar)
            .collect()
    }

    /// Returns whether the image has no name.
    pub fn is_dangling(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the id of the whole stack of layers; `None` for an image without any.
    pub fn chain_id(&self) -> Option<ChainId> {
        ChainId::of(&self.layers)
    }

    /// Returns when the image was made, if that is known.
    pub fn created(&self) -> Option<jiff::Timestamp> {
        self.config.created()
    }
}

/// One line of `history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The image as it was after this step, if it is here; docker shows `<missing>` otherwise.
    pub id: Option<ImageId>,
    /// When, if that is known.
    pub created: Option<jiff::Timestamp>,
    /// By which command.
    pub created_by: String,
    /// Bytes of file content in the step's layer.
    pub size: u64,
    /// What was said.
    pub comment: String,
    /// The names of that image.
    pub tags: Vec<String>,
}
