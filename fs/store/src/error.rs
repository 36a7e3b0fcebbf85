//! What can go wrong with the store as a whole.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{ChangeError, ConfigError};
use crate::digest::{DiffId, Digest, ImageId};
use crate::reference::ReferenceError;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call about a file did not work.
    #[error("{operation} {path}: {source}", path = path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// The directory has other things in it.
    #[error("{path} is not empty and not a mille store (it has {found:?}): choose another --root", path = .path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One of the other things.
        found: String,
    },
    /// The store was written by another version.
    #[error("{path}: store format {found:?} is not known to this version (it knows {known:?})", path = .path.display())]
    Format {
        /// The format file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What this program writes.
        known: &'static str,
    },
    /// There are layers, and nothing says how they are kept: nothing may be done to them on a guess.
    #[error(
        "{path}: missing from a store that has layers, so that their format is not known: put the file back; if no other \
         version of mille has used this store, `echo '{known}' > {path}` is what was in it",
        path = .path.display()
    )]
    FormatMissing {
        /// The format file.
        path: PathBuf,
        /// What this program writes.
        known: &'static str,
    },
    /// The store is on a file system that nobody can write.
    #[error("open {path}: {reason}: choose another place with --root or MILLE_ROOT", path = path.display())]
    ReadOnly {
        /// The file of the store that was to be written.
        path: PathBuf,
        /// The system's word for it.
        reason: io::Error,
    },
    /// A record in the store is damaged.
    #[error("{path} is damaged: {reason}; `fsck` lists all damage", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A thread that holds the shared lock asks for the exclusive one, and would wait for itself.
    #[error("the exclusive lock of {path} was asked for under the shared one", path = .0.display())]
    LockUpgrade(PathBuf),
    /// A reader that the caller handed in gave an error.
    #[error("read {item}: {source}")]
    Read {
        /// What was read.
        item: String,
        /// Why it did not work.
        source: io::Error,
    },
    /// The writer that the caller handed in gave an error.
    #[error("write {item}: {source}")]
    Write {
        /// What was written.
        item: String,
        /// Why it did not work.
        source: io::Error,
    },
    /// A layer's tar could not be unpacked.
    #[error("Error processing tar file({item}): {source}")]
    Layer {
        /// Which one: a member of an archive, or a stream.
        item: String,
        /// What its tar has wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A layer's tar ends in the middle of something.
    #[error(
        "Error processing tar file({item}): unexpected EOF: {detail}: it is cut off; fetch or save it again"
    )]
    LayerTruncated {
        /// Which one: a member of an archive, or a stream.
        item: String,
        /// Where it ends.
        detail: String,
    },
    /// A layer's tar is not the one that was announced.
    #[error("invalid diffID for {item}: expected \"{expected}\", got \"{found}\"")]
    DiffIdMismatch {
        /// Which layer.
        item: String,
        /// The announced id.
        expected: DiffId,
        /// The id of what came.
        found: DiffId,
    },
    /// The bytes of a stored layer can no longer be made again.
    #[error(
        "layer {layer} is damaged: {reason}; remove the images that use it and load them again"
    )]
    LayerDamaged {
        /// The layer.
        layer: DiffId,
        /// What is wrong.
        reason: String,
    },
    /// A layer is not in the store.
    #[error("layer {0} is not in the store")]
    NoSuchLayer(DiffId),
    /// An image is not in the store.
    #[error("No such image: {0}")]
    NoSuchImage(ImageId),
    /// Nothing by that name.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Not a name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A name that may not be given.
    #[error("{0}")]
    RefusedName(&'static str),
    /// A configuration is not an image's.
    #[error("{item}: {source}")]
    Config {
        /// Which one.
        item: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// A `--change` is not accepted.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// An archive is not what it should be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An image is in use.
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// Nothing by that name; the text is the complete name.
    #[error("No such image: {0}")]
    NotFound(String),
    /// The text is the beginning of several ids.
    #[error("No such image: {text}: the id prefix is ambiguous, it fits {}", .fits.join(" and "))]
    Ambiguous {
        /// The prefix.
        text: String,
        /// Short ids of (some of) the images it fits.
        fits: Vec<String>,
    },
    /// The text is no reference at all.
    #[error(transparent)]
    Invalid(#[from] ReferenceError),
    /// The names of the store cannot be read.
    #[error("{0}")]
    Store(String),
}

/// What an archive has wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The archive ends too early.
    #[error("{item}: unexpected EOF: it is cut off; fetch or save it again")]
    Truncated {
        /// Where in the archive.
        item: String,
    },
    /// The archive's own tar is malformed.
    #[error("Error processing tar file({item}): {reason}")]
    Tar {
        /// Where.
        item: String,
        /// What is wrong.
        reason: String,
    },
    /// Compressed by a method that is not known here.
    #[error(
        "{item} is compressed by {method}, which is not supported: decompress it first ({hint})"
    )]
    Compression {
        /// Which one.
        item: String,
        /// The method.
        method: &'static str,
        /// A command that decompresses it.
        hint: &'static str,
    },
    /// There is no image in it.
    #[error("not an image archive: it has neither manifest.json nor index.json{0}")]
    NotAnArchive(&'static str),
    /// A member that another member names is missing.
    #[error("open {member}: no such file or directory (named by {by})")]
    Missing {
        /// The missing one.
        member: String,
        /// The one that names it.
        by: String,
    },
    /// A name in a manifest points outside of the archive.
    #[error("{by}: {member:?} is not in the archive")]
    Escape {
        /// The name.
        member: String,
        /// Where it stands.
        by: String,
    },
    /// A member is not what it is used as.
    #[error("{member}: {reason}")]
    Member {
        /// Which one.
        member: String,
        /// What is wrong.
        reason: String,
    },
    /// A JSON member cannot be read.
    #[error("{member}: {source}")]
    Json {
        /// Which one.
        member: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A blob's bytes are not those its name says.
    #[error("{member}: wrong digest: expected {expected}, got {found}")]
    Digest {
        /// Which one.
        member: String,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// A blob has another size than its descriptor says.
    #[error("{member}: wrong size: expected {expected} bytes, got {found}")]
    Size {
        /// Which one.
        member: String,
        /// The size it should have.
        expected: u64,
        /// The size it has.
        found: u64,
    },
    /// The manifest and the configuration disagree.
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {found}")]
    LayerCount {
        /// Layers of the manifest.
        expected: usize,
        /// Diff ids of the configuration.
        found: usize,
    },
    /// A name in the manifest has no tag.
    #[error("invalid tag \"{0}\"")]
    Tag(String),
    /// No image for the platform.
    #[error("no image for platform {wanted} in {member}: it offers {offered}")]
    Platform {
        /// The platform.
        wanted: String,
        /// The index.
        member: String,
        /// What there is.
        offered: String,
    },
    /// More of something than the limit.
    #[error("{member}: more than the limit of {limit}")]
    Limit {
        /// Which member.
        member: String,
        /// The limit, with its unit.
        limit: String,
    },
}

/// Why an image cannot be removed, in docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The only name of an image that is in use.
    #[error(
        "conflict: unable to remove repository reference {name:?} (must force) - {user} is \
         using its referenced image {image}"
    )]
    Reference {
        /// The name as it was typed.
        name: String,
        /// Who uses it: a container, a mount.
        user: String,
        /// The image's short id.
        image: String,
    },
    /// The image cannot go.
    #[error("conflict: unable to delete {image} ({}) - {reason}", if *.hard { "cannot be forced" } else { "must be forced" })]
    Image {
        /// The image's short id.
        image: String,
        /// Whether force would not help.
        hard: bool,
        /// Whether a container is the reason.
        used: bool,
        /// The reason.
        reason: String,
    },
}

/// Attaches operation and path to an error of the system.
pub(crate) trait At<T> {
    fn at(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, operation: &'static str, path: impl AsRef<Path>) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            operation,
            path: path.as_ref().to_owned(),
            source: source.into(),
        })
    }
}
