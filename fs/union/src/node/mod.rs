//! Nodes: the objects of the merged view.
//!
//! What a node is made of in the lower layers never changes: layers are immutable, so a lower part is known by its layer
//! and its fixed path there ([`Stack`]). Where it is in the merged view, and whether the upper has it, does change:
//! that is the node's [`State`]. A node keeps its inode number over copy-up and rename.

mod copying;
mod identity;
mod table;

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use rustix::fs::FileType;

pub(crate) use copying::Copying;
pub(crate) use identity::{InoPlan, Key};
pub(crate) use table::{Blueprint, Table};

use mille_layer::Opaque;

/// A node's number towards the kernel. Usually equal to the inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root of every view.
    pub const ROOT: Self = Self(1);
}

/// A held node. Cloning is cheap; the node lives as long as somebody holds it.
pub type NodeRef = Arc<Node>;

/// One object of the merged view. Opaque to callers, who pass it back to the [`View`](crate::View).
#[derive(Debug)]
pub struct Node {
    /// Unique for the life of the view, never reused: orders locks and keys caches.
    pub(crate) serial: u64,
    pub(crate) ino: u64,
    pub(crate) kind: FileType,
    pub(crate) stack: Stack,
    pub(crate) state: RwLock<State>,
    /// Of a directory: held for writing while its names change, for reading while they are looked up.
    pub(crate) names: RwLock<()>,
    pub(crate) copying: Copying,
    /// It entered the upper since it was last flushed.
    pub(crate) unsynced: AtomicBool,
    /// The number under which the kernel is told of this node now; see `View::renumber`.
    kernel_id: AtomicU64,
    table: Weak<Table>,
}

/// A node's lower parts.
#[derive(Debug)]
pub(crate) enum Stack {
    /// Only in the upper.
    None,
    /// A directory: its directories in the lowers, the topmost first, never empty.
    Dirs(Box<[LowerDir]>),
    /// Anything else: the one object that shows.
    File(Box<LowerFile>),
}

impl Stack {
    /// The lower directories; none for anything else.
    pub(crate) fn dirs(&self) -> &[LowerDir] {
        match self {
            Self::Dirs(dirs) => dirs,
            Self::None | Self::File(_) => &[],
        }
    }

    /// The lower object of something that is no directory.
    pub(crate) fn file(&self) -> Option<&LowerFile> {
        match self {
            Self::File(file) => Some(file),
            Self::None | Self::Dirs(_) => None,
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// One directory of one lower layer that takes part in a merged directory.
#[derive(Clone, Debug)]
pub(crate) struct LowerDir {
    /// Index into the view's lowers, 0 the topmost.
    pub(crate) layer: u16,
    /// Path in that layer, without leading slash; empty for its root.
    pub(crate) path: Arc<[u8]>,
    pub(crate) opaque: Opaque,
    /// Made by extraction for want of an entry of its own: its attributes do not count.
    pub(crate) implied: bool,
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

/// One object of one lower layer that is no directory.
#[derive(Clone, Debug)]
pub(crate) struct LowerFile {
    /// Index into the view's lowers, 0 the topmost.
    pub(crate) layer: u16,
    /// Path of its directory in that layer.
    pub(crate) dir: Arc<[u8]>,
    pub(crate) name: Box<OsStr>,
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// More than one name in its layer.
    pub(crate) linked: bool,
    /// Set when this object carries only metadata: where its data is.
    pub(crate) data: Option<Box<LowerFile>>,
}

impl LowerFile {
    /// The object whose bytes are read.
    pub(crate) fn data_owner(&self) -> &Self {
        self.data.as_deref().map_or(self, Self::data_owner)
    }

    /// Path in its layer.
    pub(crate) fn path(&self) -> Vec<u8> {
        join(&self.dir, &self.name)
    }
}

/// Joins a layer path and a name.
pub(crate) fn join(dir: &[u8], name: &OsStr) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_encoded_bytes());
    path
}

/// What changes in the life of a node.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Known names in the merged view. A directory has one; the root has none.
    pub(crate) links: Vec<Link>,
    /// The object in the upper, once there is one.
    pub(crate) upper: Option<UpperObject>,
    /// No name is left: it lives only for those who hold it.
    pub(crate) removed: bool,
}

impl State {
    /// True if the node has this name.
    pub(crate) fn has_link(&self, parent: &Node, name: &OsStr) -> bool {
        self.links
            .iter()
            .any(|link| link.parent.serial == parent.serial && link.name == name)
    }
}

/// A name of a node.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) parent: NodeRef,
    pub(crate) name: OsString,
}

/// A node's object in the upper.
#[derive(Clone, Debug)]
pub(crate) struct UpperObject {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// It has no data of its own yet: that of the lower counts.
    pub(crate) metacopy: bool,
    /// Held when no known name leads to it.
    pub(crate) orphan: Option<Arc<OwnedFd>>,
}

impl Node {
    /// The node's inode number, constant for the life of the view.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// The number under which the kernel is to know the node.
    pub fn id(&self) -> NodeId {
        NodeId(self.kernel_id.load(Ordering::Acquire))
    }

    pub(crate) fn set_id(&self, id: NodeId) {
        self.kernel_id.store(id.0, Ordering::Release);
    }

    /// Kind of object; never changes.
    pub fn kind(&self) -> FileType {
        self.kind
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// True if the upper layer has an object for it.
    pub(crate) fn in_upper(&self) -> bool {
        self.state.read().upper.is_some()
    }

    /// True if its data (not only its attributes) is in the upper.
    pub(crate) fn data_in_upper(&self) -> bool {
        self.state
            .read()
            .upper
            .as_ref()
            .is_some_and(|upper| !upper.metacopy)
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.state.read().removed
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if let Some(table) = self.table.upgrade() {
            let upper = state.upper.as_ref().map(|upper| (upper.dev, upper.ino));
            table.forget_dropped(self.ino, upper, &self.stack);
        }
        // Parents that nobody else holds go with their last child. Not by recursion: how deep a tree is decides who
        // makes it.
        let mut parents: Vec<NodeRef> = Vec::new();
        parents.extend(
            std::mem::take(&mut state.links)
                .into_iter()
                .map(|link| link.parent),
        );
        while let Some(parent) = parents.pop() {
            if let Some(mut node) = Arc::into_inner(parent) {
                let links = std::mem::take(&mut node.state.get_mut().links);
                parents.extend(links.into_iter().map(|link| link.parent));
            }
        }
    }
}

/// Takes the name locks of several directories, each once, in an order that everybody keeps.
pub(crate) fn lock_names<'a>(dirs: &[&'a NodeRef]) -> Vec<parking_lot::RwLockWriteGuard<'a, ()>> {
    let mut order: Vec<&'a NodeRef> = dirs.to_vec();
    order.sort_by_key(|node| node.serial);
    order.dedup_by_key(|node| node.serial);
    order.into_iter().map(|node| node.names.write()).collect()
}
