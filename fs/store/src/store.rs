//! The store: signatures; bodies follow.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::{ChainId, DiffId, ImageId};
use crate::error::{Error, ResolveError};
use crate::image::{HistoryLine, Image};
use crate::progress::Progress;
use crate::reference::Reference;

pub use mille_layer::{MarkSpace, Ownership};
/// How layers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Which extended attributes hold overlay marks.
    pub space: MarkSpace,
    /// Where owners and modes are kept.
    pub ownership: Ownership,
}

/// A store; cheap to clone.
#[derive(Clone)]
pub struct Store {
    root: Arc<PathBuf>,
}
impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.root).finish()
    }
}

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct StoreLock {
    _p: (),
}

/// What became of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInfo {
    /// The digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// Bytes of file content.
    pub size: u64,
}

/// How a root filesystem is imported.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// `--change`.
    pub changes: Vec<String>,
    /// `--message`; `Imported from -` if not given.
    pub message: Option<String>,
    /// `--platform`; the host's if not given.
    pub platform: Option<Platform>,
    /// The time of the image; now if not given.
    pub created: Option<jiff::Timestamp>,
    /// The name it gets, in the same step.
    pub name: Option<Reference>,
}

/// An operating system and a processor, as Go names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v8`; may be empty.
    pub variant: String,
}

/// Where an archive comes from.
pub enum Source {
    /// A tar, which may be compressed and may be a pipe.
    Stream(Box<dyn Read + Send>),
    /// An unpacked archive or OCI layout.
    Dir(PathBuf),
}
impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}

/// How an archive is loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `--platform`; the host's if not given.
    pub platform: Option<Platform>,
}

/// What happens during a load; `Display` is docker's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadEvent {
    /// A name moved here from another image.
    Renamed {
        /// The name.
        name: Reference,
        /// The image that had it.
        old: ImageId,
    },
    /// An image came with a name.
    Loaded(Reference),
    /// An image came without a name.
    LoadedId(ImageId),
}

/// One image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub id: ImageId,
    /// The names the archive gave it.
    pub names: Vec<Reference>,
}

/// One thing to save.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveItem {
    /// The image.
    pub id: ImageId,
    /// The name it is saved under; none if it was asked for by id.
    pub reference: Option<Reference>,
}

/// What a container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUse {
    /// The container's full id.
    pub id: String,
    /// Its image.
    pub image: ImageId,
    /// The image's layers, bottom first, which must stay even if the image goes.
    pub layers: Vec<DiffId>,
    /// Whether it runs.
    pub running: bool,
}

/// How an image is removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions<'a> {
    /// `--force`.
    pub force: bool,
    /// `--no-prune`: parents without a name stay.
    pub keep_parents: bool,
    /// What all containers use.
    pub uses: &'a [ContainerUse],
}

/// One line of what a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name, as people read it.
    Untagged(String),
    /// An image's id, or a chain id.
    Deleted(String),
}

/// What a collection removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers that nothing referred to.
    pub layers: Vec<DiffId>,
    /// Bytes of file content in them.
    pub bytes: u64,
    /// Leftovers of operations that were killed.
    pub staging: usize,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Images checked.
    pub images: usize,
    /// Layers checked.
    pub layers: usize,
    /// Bytes hashed.
    pub bytes: u64,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether something is lost, or only left over.
    pub severity: Severity,
    /// Which file or object.
    pub subject: String,
    /// What is wrong with it, and what to do.
    pub detail: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Unused; the next collection removes it.
    Leftover,
    /// Something that was stored is lost.
    Damage,
}

#[allow(missing_docs, unused_variables, reason = "bodies and words follow")]
impl Store {
    pub fn open(root: &Path, options: StoreOptions) -> Result<Store, Error> {
        todo()
    }
    pub fn with_progress(&self, progress: Arc<dyn Progress>) -> Store {
        self.clone()
    }
    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn lock_shared(&self) -> Result<StoreLock, Error> {
        todo()
    }
    pub fn lock_exclusive(&self) -> Result<StoreLock, Error> {
        todo()
    }
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        todo()
    }
    pub fn image(&self, id: &ImageId) -> Result<Image, Error> {
        todo()
    }
    pub fn history(&self, id: &ImageId) -> Result<Vec<HistoryLine>, Error> {
        todo()
    }
    pub fn resolve(&self, text: &str) -> Result<ImageId, ResolveError> {
        Err(ResolveError::NotFound(text.to_owned()))
    }
    pub fn tag(&self, image: &ImageId, name: &Reference) -> Result<Option<ImageId>, Error> {
        todo()
    }
    pub fn untag(&self, name: &Reference) -> Result<Option<ImageId>, Error> {
        todo()
    }
    pub fn remove_image(
        &self,
        text: &str,
        options: &RemoveOptions<'_>,
    ) -> Result<Vec<Removed>, Error> {
        todo()
    }
    pub fn layer_dir(&self, layer: &DiffId) -> PathBuf {
        self.root.join("layers").join(layer.hex()).join("tree")
    }
    pub fn layer_size(&self, layer: &DiffId) -> Result<u64, Error> {
        todo()
    }
    pub fn has_layer(&self, layer: &DiffId) -> bool {
        self.layer_dir(layer).exists()
    }
    pub fn chain_index(&self, chain: &ChainId) -> PathBuf {
        self.root.join("indexes").join(chain.hex())
    }
    pub fn add_layer(
        &self,
        tar: impl Read + Send,
        expected: Option<&DiffId>,
    ) -> Result<LayerInfo, Error> {
        todo()
    }
    pub fn add_layer_written<F>(
        &self,
        expected: Option<&DiffId>,
        write: F,
    ) -> Result<LayerInfo, Error>
    where
        F: FnOnce(&mut dyn Write) -> Result<(), Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        todo()
    }
    pub fn add_image(&self, config: &[u8], parent: Option<&ImageId>) -> Result<ImageId, Error> {
        todo()
    }
    pub fn import(&self, tar: impl Read + Send, options: &ImportOptions) -> Result<ImageId, Error> {
        todo()
    }
    pub fn load(
        &self,
        source: Source,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, Error> {
        self.load_with(source, &LoadOptions::default(), events)
    }
    pub fn load_with(
        &self,
        source: Source,
        options: &LoadOptions,
        events: &mut dyn FnMut(LoadEvent),
    ) -> Result<Vec<Loaded>, Error> {
        todo()
    }
    /// Turns what `save` was given on the command line into items: a bare repository means all its tags.
    pub fn save_items(&self, names: &[&str]) -> Result<Vec<SaveItem>, Error> {
        todo()
    }
    pub fn save(&self, items: &[SaveItem], out: &mut dyn Write) -> Result<(), Error> {
        todo()
    }
    pub fn collect(&self, pinned: &[DiffId]) -> Result<Collected, Error> {
        todo()
    }
    pub fn fsck(&self) -> Result<FsckReport, Error> {
        todo()
    }
    pub fn write_layer_tar(&self, layer: &DiffId, out: impl Write) -> Result<(), Error> {
        todo()
    }
}

fn todo<T>() -> Result<T, Error> {
    Err(Error::RefusedName("not there yet"))
}
