//! Images, their layers and their names, in a directory.
//!
//! *Layers* are directories keyed by diff id, shared by every image that has them; a header stream beside
//! each re-creates the very bytes of its tar. *Images* are configurations, kept verbatim; an image's id is the
//! digest of those bytes. *Names* point at images. *Archives* (docker's and OCI's) come in by
//! [`Store::load`] and go out by [`Store::save`]; a bare root filesystem comes in by [`Store::import`].
//!
//! Truth is files: whatever becomes visible was written aside, made durable and renamed. Several processes
//! share a store by two file locks. Nothing here knows what a container is; what containers use is handed
//! in by the caller.

mod collection;
mod compression;
pub mod config;
pub mod digest;
mod discard;
mod error;
mod fsck;
mod image;
mod images;
mod import;
mod layers;
mod load;
mod lock;
mod names;
mod progress;
pub mod reference;
mod removal;
mod save;
mod staging;
mod store;
mod types;
mod unpack;
mod verify;

pub use compression::decompressed;
pub use config::{Commit, ContainerConfig, ImageConfig, apply_changes, commit_config};
pub use digest::{ChainId, DiffId, Digest, DigestError, ImageId};
pub use error::{Conflict, Error, LoadError, ResolveError};
pub use image::{HistoryLine, Image};
pub use load::is_unpacked;
pub use lock::StoreLock;
pub use progress::{Phase, Progress, STRIDE, Silent, Step};
pub use reference::{Reference, ReferenceError};
pub use staging::Work;
pub use store::{MarkSpace, Ownership, Store, StoreOptions};
pub use types::{
    Collected, Finding, FsckReport, ImageUse, ImportOptions, LayerInfo, LoadEvent, LoadOptions,
    Loaded, Platform, RemoveOptions, Removed, SaveItem, Severity, Source, User,
};
