//! The store's directory: opening it, and where everything lies.
//!
//! ```text
//! format                     what wrote it
//! lock                       shared by whoever adds or reads, exclusive for whoever removes
//! layers/HEX/tree            a layer, as its tar unpacks
//! layers/HEX/headers         its header stream (zstd)
//! layers/HEX/meta.json       sizes
//! images/HEX/config.json     an image's configuration, verbatim: its digest is HEX
//! images/HEX/meta.json       its parent
//! names/HEX.json             one name; HEX is the digest of the name, which may be longer than a file name
//! indexes/HEX                a chain's merged index, made by the engine, kept and collected here
//! staging/…                  what is being made or removed, each piece of work locked by its process; the rest is dead
//! ```

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use mille_layer::{MarkSpace, Ownership};

use crate::digest::{ChainId, DiffId, ImageId};
use crate::error::{At, Error};
use crate::lock::{Locks, StoreLock};
use crate::progress::{Progress, Silent};
use crate::staging;

/// How layers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// Which extended attributes hold overlay marks.
    pub space: MarkSpace,
    /// Where owners and modes are kept.
    pub ownership: Ownership,
}

/// A store; cheap to clone. Clones share their locks.
#[derive(Clone)]
pub struct Store {
    root: Arc<PathBuf>,
    pub(crate) options: StoreOptions,
    pub(crate) progress: Arc<dyn Progress>,
    locks: Arc<Locks>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("root", &self.root)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Content of the format file.
const FORMAT: &str = "mille store 1\n";
/// Directories of the store itself.
const DIRECTORIES: &[&str] = &["layers", "images", "names", "staging"];
/// What may stand beside them before there is a format file: the engine's, and what mkfs leaves.
const NEIGHBOURS: &[&str] = &[
    "containers",
    "container-names",
    "id-map",
    "indexes",
    "init-layer",
    "host-mask",
    "mode",
    "lock",
    "lost+found",
];

impl Store {
    /// Opens the store at `root`, which is made if it is not there (mode 0700: layers hold set-id programs).
    ///
    /// # Errors
    /// The directory cannot be made or written, holds other things ([`Error::NotAStore`]), was written by another
    /// version ([`Error::Format`]), or does not say by which ([`Error::FormatMissing`]).
    pub fn open(root: &Path, options: StoreOptions) -> Result<Store, Error> {
        let format = root.join("format");
        match fs::read_to_string(&format) {
            Ok(text) if text == FORMAT => {}
            Ok(found) => {
                let found = found.trim_end().to_owned();
                return Err(Error::Format {
                    path: format,
                    found,
                    known: FORMAT.trim_end(),
                });
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // Another command may be making the store: then there is a format file before there is a layer.
                if has_layers(root) && !format.exists() {
                    return Err(Error::FormatMissing {
                        path: format,
                        known: FORMAT.trim_end(),
                    });
                }
                make(root)?;
            }
            Err(error) => return Err(error).at("read", &format),
        }
        Ok(Store {
            locks: Arc::new(Locks::new(root.join("lock"))),
            root: Arc::new(root.to_owned()),
            options,
            progress: Arc::new(Silent),
        })
    }

    /// Returns the same store, reporting long operations to `progress`.
    #[must_use]
    pub fn with_progress(&self, progress: Arc<dyn Progress>) -> Store {
        Store {
            progress,
            ..self.clone()
        }
    }

    /// Returns the store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the lock under which things are added: nothing is collected meanwhile. May be taken again by the holder.
    ///
    /// # Errors
    /// The lock file cannot be opened.
    pub fn lock_shared(&self) -> Result<StoreLock, Error> {
        self.locks.shared()
    }

    /// Takes the lock under which things are removed: waits until nobody else adds or removes.
    ///
    /// # Errors
    /// The lock file cannot be opened; the caller holds the shared lock ([`Error::LockUpgrade`]).
    pub fn lock_exclusive(&self) -> Result<StoreLock, Error> {
        self.locks.exclusive()
    }

    /// As [`Store::lock_exclusive`], but `None` instead of waiting for another process.
    ///
    /// # Errors
    /// As [`Store::lock_exclusive`].
    pub fn try_lock_exclusive(&self) -> Result<Option<StoreLock>, Error> {
        self.locks.try_exclusive()
    }

    /// Returns whether killed processes left something; [`Store::collect`] clears it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn has_leftovers(&self) -> Result<bool, Error> {
        Ok(!self.leftovers()?.is_empty())
    }

    /// Returns the directory a layer has (or would have).
    #[must_use]
    pub fn layer_dir(&self, layer: &DiffId) -> PathBuf {
        self.layer_home(layer).join("tree")
    }

    /// Returns the file a chain's merged index has (or would have). The engine has it built
    /// ([`Store::put_chain_index`]); the store collects it.
    #[must_use]
    pub fn chain_index(&self, chain: &ChainId) -> PathBuf {
        self.indexes().join(chain.hex())
    }

    /// Gives a chain's merged index its name; one that is there already is replaced. It is on the disk before it has the
    /// name, since those who map it look only at its header: after a full disk or a crash of the machine there is a whole
    /// one or none.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_chain_index(&self, chain: &ChainId, bytes: &[u8]) -> Result<(), Error> {
        let directory = self.indexes();
        match staging::make_directory(&directory) {
            Err(_) if directory.is_dir() => {}
            other => other?,
        }
        self.write_whole(&self.chain_index(chain), bytes)
    }

    pub(crate) fn indexes(&self) -> PathBuf {
        self.root.join("indexes")
    }

    pub(crate) fn layer_home(&self, layer: &DiffId) -> PathBuf {
        self.layers().join(layer.hex())
    }

    pub(crate) fn image_home(&self, image: &ImageId) -> PathBuf {
        self.images_dir().join(image.hex())
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn images_dir(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn names_dir(&self) -> PathBuf {
        self.root.join("names")
    }

    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
}

/// Whether layers have been put into the store: not before its maker has written the format file.
fn has_layers(root: &Path) -> bool {
    fs::read_dir(root.join("layers")).is_ok_and(|mut entries| entries.next().is_some())
}

fn make(root: &Path) -> Result<(), Error> {
    let private = |path: &Path| {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .at("create directory", path)
    };
    private(root)?;
    for entry in fs::read_dir(root).at("read directory", root)? {
        let name = entry.at("read directory", root)?.file_name();
        let found = name.to_string_lossy().into_owned();
        let known = DIRECTORIES.contains(&found.as_str()) || NEIGHBOURS.contains(&found.as_str());
        if !known && !found.starts_with("format.") {
            return Err(Error::NotAStore {
                path: root.to_owned(),
                found,
            });
        }
    }
    for directory in DIRECTORIES {
        private(&root.join(directory))?;
    }
    // Whoever opens it at the same time writes the same.
    let aside = root.join(format!("format.{}", std::process::id()));
    fs::write(&aside, FORMAT).at("write", &aside)?;
    File::open(&aside)
        .and_then(|file| file.sync_all())
        .at("sync", &aside)?;
    fs::rename(&aside, root.join("format")).at("rename into place", &aside)?;
    staging::sync_directory(root)
}
