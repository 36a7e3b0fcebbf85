//! A container's layers as a union: what lies below, what is written, and what it is compared with.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use mille_union::{
    Access, ChainIndex, Config, Features, Lower, LowerOwnership, LowerSource, Owners, Ownership,
    Upper, View,
};

use crate::error::{Error, Result};
use crate::init_layer::Dialect;

/// The layers of one container (or image), ready to be opened any number of times.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    /// Directories, topmost first, without the host's root.
    pub(crate) layers: Vec<PathBuf>,
    /// Below them all lies the machine's own root.
    pub(crate) on_host: bool,
    pub(crate) dialect: Dialect,
    /// The merged index of the lowest of the layers.
    pub(crate) index: Option<ChainIndex>,
}

/// The writable part of a container.
#[derive(Debug, Clone)]
pub(crate) struct Writable {
    pub(crate) upper: PathBuf,
    pub(crate) work: PathBuf,
    /// The file system below them has been tried out (see [`Upper::fit`]).
    pub(crate) fit: bool,
}

/// What mille's own containers use: directories are renamed and attributes changed without copying.
const FEATURES: Features = Features {
    redirect_dir: true,
    metacopy: true,
    // The upper of a container is worth as much as its host: nothing waits for the disk on its behalf, but its own
    // fsync calls are honoured.
    volatile: false,
    // A file of this name could not be told from a whiteout in the archive of a commit.
    reserve_wh_names: true,
    null_devices: false,
};

impl Stack {
    fn lowers(&self) -> Result<Vec<Lower>> {
        let mut lowers: Vec<Lower> = self
            .layers
            .iter()
            // A stored layer is what extracting its tar gives: it refers to no other.
            .map(|layer| Lower {
                plain: true,
                ..Lower::at(layer)
            })
            .collect();
        if self.on_host {
            let root = crate::files::open_directory(std::path::Path::new("/"))?;
            lowers.push(Lower {
                dir: LowerSource::Fd(root),
                mutable: true,
                aufs: false,
                plain: true,
                ownership: LowerOwnership::AsUpper,
                data_only: false,
            });
        }
        Ok(lowers)
    }

    /// Opens the stack with something written on it.
    pub(crate) fn open(&self, writable: &Writable, access: Access) -> Result<Arc<View>> {
        let upper = Upper {
            dir: writable.upper.clone(),
            work: writable.work.clone(),
            access,
            aufs: false,
            fit: writable.fit,
        };
        self.view(Some(upper))
    }

    /// Opens the stack alone: what a container is compared with.
    pub(crate) fn open_base(&self) -> Result<Arc<View>> {
        self.view(None)
    }

    /// A user namespace with one id shows every other as nobody, whose files not even its root may touch. What is stored
    /// is kept for commit and export, but shown as root's.
    fn owners(&self) -> Owners {
        match self.dialect.ownership {
            Ownership::Real => Owners::default(),
            Ownership::Override => Owners {
                squash_uid: Some(0),
                squash_gid: Some(0),
                ..Owners::default()
            },
        }
    }

    fn view(&self, upper: Option<Upper>) -> Result<Arc<View>> {
        let config = Config {
            lowers: self.lowers()?,
            upper,
            space: self.dialect.space,
            ownership: self.dialect.ownership,
            owners: self.owners(),
            features: FEATURES,
            chain: self.index.clone(),
        };
        View::open(config).map_err(damaged)
    }
}

/// Says of a layer whose directory is gone what helps.
fn damaged(error: mille_union::Error) -> Error {
    match &error {
        mille_union::Error::Path { path, source, .. }
            if source.kind() == io::ErrorKind::NotFound && path.ends_with("tree") =>
        {
            Error::Invalid(format!(
                "{error}: the store is damaged: `mille fsck` lists all damage; remove the images that use this layer and load them again"
            ))
        }
        _ => Error::Union(error),
    }
}
