//! Many layers seen as one: the merged view of a stack of read-only layers and one writable layer on top.
//!
//! The same [`View`] serves two kinds of callers: programs that only want to look (walk a tree, read a file, list what
//! changed, write an archive), with no mount at all, and the FUSE adapter in [`fuse`], which puts the view into the
//! file system. The modules outside [`fuse`] hold the policy and know nothing of FUSE.
//!
//! # Words
//!
//! *Lower*: a read-only layer. *Upper*: the writable layer. *Work*: a scratch directory on the file system of the upper
//! in which everything is built before it enters the upper by one rename or link. *Copy-up*: bringing an object of a
//! lower into the upper because it is about to change. *Whiteout*: the mark that hides a name of the layers below.
//! *Opaque*: a directory below which the layers further down do not contribute. *Node*: one object of the merged view.

mod ancestry;
pub mod archive;
mod attr;
pub mod awake;
mod bare;
mod bounded;
mod chain;
pub mod changes;
mod config;
mod copyup;
mod create;
mod data;
mod dirs;
mod error;
mod flags;
pub mod fuse;
mod getattr;
mod layers;
mod lookup;
mod node;
mod owners;
mod ownership;
mod readdir;
mod remove;
mod rename;
mod setattr;
mod sys;
mod traces;
mod view;
mod whereabouts;
mod work;
mod xattr;

pub use attr::{Attr, Time};
pub use chain::{Chain, ChainIndex};
pub use config::{Access, Config, Features, Lower, LowerOwnership, LowerSource, Upper};
pub use copyup::Held;
pub use create::Make;
pub use error::{Error, Result};
pub use mille_layer::{MarkSpace, Ownership};
pub use node::{Node, NodeId, NodeRef};
pub use owners::{IdMap, IdRange, Owners};
pub use setattr::{SetAttr, SetTime};
pub use sys::ids::Owner;
pub use view::{ListedEntry, View, resolve_path};
