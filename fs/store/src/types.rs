//! What the store is asked and what it answers.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use crate::digest::{DiffId, ImageId};
use crate::reference::Reference;

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
    /// Bytes the tar has as it comes, compressed or not, if that is known: for the progress.
    pub bytes: Option<u64>,
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
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Stream(_) => f.write_str("Stream"),
            Source::Dir(path) => f.debug_tuple("Dir").field(path).finish(),
        }
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

impl fmt::Display for LoadEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadEvent::Renamed { name, old } => write!(
                f,
                "The image {} already exists, renaming the old one with ID {old} to empty string",
                name.familiar()
            ),
            LoadEvent::Loaded(name) => write!(f, "Loaded image: {}", name.familiar()),
            LoadEvent::LoadedId(id) => write!(f, "Loaded image ID: {id}"),
        }
    }
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

/// Who uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// A container, by its full id.
    Container(String),
    /// A mount of somebody's own, by its directory.
    Mount(PathBuf),
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Container(id) => write!(f, "container {}", id.get(..12).unwrap_or(id)),
            User::Mount(directory) => write!(f, "the mount at {}", directory.display()),
        }
    }
}

/// An image in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// Who uses it.
    pub user: User,
    /// The image; none if only layers are used.
    pub image: Option<ImageId>,
    /// The image's layers, bottom first, which must stay even if the image goes.
    pub layers: Vec<DiffId>,
    /// Whether the user is alive: a running container, a mount.
    pub running: bool,
}

/// How an image is removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions<'a> {
    /// `--force`.
    pub force: bool,
    /// `--no-prune`: parents without a name stay.
    pub keep_parents: bool,
    /// What all containers and mounts use.
    pub uses: &'a [ImageUse],
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
    /// Why no layer was collected: an image that cannot be read might need any of them.
    pub withheld: Option<String>,
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
