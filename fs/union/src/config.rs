//! What a view is made of.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use mille_layer::{MarkSpace, Ownership};

use crate::chain::ChainIndex;
use crate::owners::Owners;

/// Everything [`View::open`](crate::View::open) needs to know.
#[derive(Debug)]
pub struct Config {
    /// The read-only layers, the topmost first. At least one unless there is an upper.
    pub lowers: Vec<Lower>,
    /// The writable layer. Without one every change is refused with `EROFS`.
    pub upper: Option<Upper>,
    /// The extended-attribute family of overlay marks: `trusted.` for root, `user.` for everybody else.
    pub space: MarkSpace,
    /// Where owner and mode of the upper's objects are kept.
    pub ownership: Ownership,
    /// How owners are shown to the callers of a mount.
    pub owners: Owners,
    /// What the view may write and follow.
    pub features: Features,
    /// The merged index of the last of the lowers, which must be given by path as [`Chain::lowers`](crate::Chain::lowers)
    /// has them. They are opened when something in them is read, and whoever opened the index vouches that neither upper
    /// nor work lies in them.
    pub chain: Option<ChainIndex>,
}

/// One read-only layer.
#[derive(Debug)]
pub struct Lower {
    /// Where it is.
    pub dir: LowerSource,
    /// The layer is not ours and may change below us (the machine's own root): short lifetimes, identity checked again at
    /// copy-up, hard links broken by a change, owners that the user namespace does not map shown as 0:0.
    pub mutable: bool,
    /// AUFS/OCI `.wh.` files may occur in it and are whiteouts.
    pub aufs: bool,
    /// No file in it carries metadata only: true of a layer that is just what extracting its tar gives. Spares a look
    /// at the marks of every file.
    pub plain: bool,
    /// Where owner and mode of its objects are kept.
    pub ownership: LowerOwnership,
    /// It is no part of the merged tree: it only holds data that absolute redirects of metadata-only files lead to. Such
    /// layers come last.
    pub data_only: bool,
}

/// Where a lower layer's owners and modes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowerOwnership {
    /// Where the upper's are; those of a mutable layer always in the objects themselves.
    AsUpper,
    /// In attributes if the layer's root directory has one, else in the objects themselves.
    AsItsRootSays,
}

impl Lower {
    /// An immutable layer in overlay form at a path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            dir: LowerSource::Path(path.into()),
            mutable: false,
            aufs: false,
            plain: false,
            ownership: LowerOwnership::AsUpper,
            data_only: false,
        }
    }
}

/// How a lower layer is reached.
#[derive(Debug)]
pub enum LowerSource {
    /// By path, opened once.
    Path(PathBuf),
    /// By a directory descriptor.
    Fd(OwnedFd),
}

/// The writable layer.
#[derive(Clone, Debug)]
pub struct Upper {
    /// The directory that receives every change.
    pub dir: PathBuf,
    /// A scratch directory of ours alone, on the same mount as `dir`.
    pub work: PathBuf,
    /// Whether we write or only look.
    pub access: Access,
    /// AUFS/OCI `.wh.` files may occur in it and are whiteouts: another program wrote it before.
    pub aufs: bool,
    /// Its file system is known to hold all that an upper needs (devices, attributes, exchanges), so it is not tried out once
    /// more.
    pub fit: bool,
}

/// How an upper is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Take the lock, finish what a killed predecessor left, and write.
    Exclusive,
    /// Look, while another process may be writing: no lock, nothing is changed, every change is refused with `EROFS`.
    Observe,
}

/// Abilities that leave traces in the upper layer or weaken a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Rename a directory that has lower parts by a redirect mark instead of refusing with `EXDEV`.
    pub redirect_dir: bool,
    /// Changing only the metadata of a lower file copies no data.
    pub metacopy: bool,
    /// Never wait for the disk: `fsync` succeeds at once, copied data is not flushed. A crash of the machine may lose
    /// the upper.
    pub volatile: bool,
    /// Refuse to create names that begin with `.wh.`: they could not be told from whiteouts in an archive of the layer.
    pub reserve_wh_names: bool,
    /// Make character devices 0:0, which are whiteouts to everybody else, as empty files with a mark; otherwise they are
    /// refused with `EPERM`. They are shown in any case.
    pub null_devices: bool,
}

impl Default for Features {
    /// Redirects on, metadata-only copy-up off, durable, every name allowed.
    fn default() -> Self {
        Self {
            redirect_dir: true,
            metacopy: false,
            volatile: false,
            reserve_wh_names: false,
            null_devices: false,
        }
    }
}
