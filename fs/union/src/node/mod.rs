//! Nodes: the objects of the merged view.
//!
//! What a node is made of in the lower layers never changes: layers are immutable, so a lower part is known by its layer
//! and its fixed path there ([`Stack`]). Where it is in the merged view, and whether the upper has it, does change:
//! that is the node's [`State`]. A node keeps its inode number over copy-up and rename.

mod copying;
mod identity;
mod stack;
mod state;
mod table;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use rustix::fs::FileType;

pub(crate) use copying::Claims;
pub(crate) use identity::{InoPlan, Key};
pub(crate) use stack::{DirPlace, LowerDir, LowerFile, Stack, join};
pub(crate) use state::{Link, LinkRef, State, UpperObject};
pub(crate) use table::{Blueprint, Table};

pub(crate) use identity::EXTRA_IDS;

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
    pub(crate) ino: u64,
    pub(crate) stack: Stack,
    pub(crate) state: RwLock<State>,
    table: Weak<Table>,
    /// How the kernel is told of this node now: 0 by its inode number, else by one of the extra numbers.
    renumbered: AtomicU32,
    pub(crate) kind: FileType,
    /// It entered the upper since it was last flushed.
    pub(crate) unsynced: AtomicBool,
    /// [`FROM_LOWER`] and those that follow it: one byte more would be eight.
    flags: AtomicU8,
}

/// Met in the lowers first, so that it is known by its lower part.
const FROM_LOWER: u8 = 1;

/// Somebody copies it up.
const COPYING: u8 = 2;

/// The attribute that is asked for over and over has been found to be absent: see [`Node::often_asked`].
const LACKS: u8 = 4;

/// It has been set since the node was made, so what was found is not believed: a finding may be older and come later.
const MAY_HAVE: u8 = 8;

/// The memory of a mount is mostly this, once for every file that the kernel has heard of.
const _: () = assert!(size_of::<Node>() <= 104);

/// A directory whose upper part has been marked as one that holds something with a lower part.
const IMPURE: u8 = 16;

impl Node {
    /// The node's inode number, constant for the life of the view.
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// The number under which the kernel is to know the node.
    pub fn id(&self) -> NodeId {
        match self.renumbered.load(Ordering::Acquire) {
            0 => NodeId(self.ino),
            extra => NodeId(EXTRA_IDS | u64::from(extra)),
        }
    }

    /// Gives the node a number under which the kernel knows nothing of it yet. When all are used up it keeps the one it
    /// has, and who needs another is refused.
    pub(crate) fn renumber(&self) {
        let extra = self.table.upgrade().and_then(|table| table.extra_number());
        if let Some(extra) = extra {
            self.renumbered.store(extra, Ordering::Release);
        }
    }

    /// Kind of object; never changes.
    pub fn kind(&self) -> FileType {
        self.kind
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Of a directory: never used for another one, so that caches may be keyed by it.
    pub(crate) fn serial(&self) -> u64 {
        self.stack.serial()
    }

    /// Of a directory: held for writing while its names change, for reading while they are looked up.
    pub(crate) fn names(&self) -> &RwLock<()> {
        self.stack.names()
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

    /// True if only its attributes are in the upper.
    pub(crate) fn is_metacopy(&self) -> bool {
        let state = self.state.read();
        state.upper.as_ref().is_some_and(|upper| upper.metacopy)
    }

    /// No name is left: it lives only for those who hold it.
    pub(crate) fn is_removed(&self) -> bool {
        self.state.read().is_removed()
    }

    /// The directory it is in, if it has a name.
    pub(crate) fn parent(&self) -> Option<NodeRef> {
        self.state.read().first_parent().cloned()
    }

    /// True while somebody copies it up.
    pub(crate) fn is_copying(&self) -> bool {
        self.flags.load(Ordering::Acquire) & COPYING != 0
    }

    /// What was set before.
    fn set_copying(&self, copying: bool) -> bool {
        let before = if copying {
            self.flags.fetch_or(COPYING, Ordering::AcqRel)
        } else {
            self.flags.fetch_and(!COPYING, Ordering::AcqRel)
        };
        before & COPYING != 0
    }

    /// The extended attribute that is asked for at nearly every request: a file's capability, before it is written or
    /// executed, and a directory's default ACL, before something is made in it.
    pub(crate) fn often_asked(&self) -> &'static str {
        if self.is_dir() {
            "system.posix_acl_default"
        } else {
            "security.capability"
        }
    }

    /// True if that attribute is known to be absent.
    pub(crate) fn lacks_often_asked(&self) -> bool {
        self.flags.load(Ordering::Acquire) & (LACKS | MAY_HAVE) == LACKS
    }

    /// It is absent.
    pub(crate) fn note_lack(&self) {
        self.flags.fetch_or(LACKS, Ordering::AcqRel);
    }

    /// It is about to be set.
    pub(crate) fn doubt_lack(&self) {
        self.flags.fetch_or(MAY_HAVE, Ordering::AcqRel);
    }

    /// True if the directory's upper part carries the mark "impure".
    pub(crate) fn is_impure(&self) -> bool {
        self.flags.load(Ordering::Acquire) & IMPURE != 0
    }

    /// It carries it now, and keeps it.
    pub(crate) fn note_impure(&self) {
        self.flags.fetch_or(IMPURE, Ordering::AcqRel);
    }

    fn is_from_lower(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & FROM_LOWER != 0
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
        let mut parents: Vec<NodeRef> = state.take_parents().collect();
        while let Some(parent) = parents.pop() {
            if let Some(mut node) = Arc::into_inner(parent) {
                parents.extend(node.state.get_mut().take_parents());
            }
        }
    }
}

/// Takes the name locks of several directories, each once, in an order that everybody keeps.
pub(crate) fn lock_names<'a>(dirs: &[&'a NodeRef]) -> Vec<parking_lot::RwLockWriteGuard<'a, ()>> {
    let mut order: Vec<&'a RwLock<()>> = dirs.iter().map(|node| node.names()).collect();
    order.sort_by_key(|lock| std::ptr::from_ref(*lock).addr());
    order.dedup_by_key(|lock| std::ptr::from_ref(*lock).addr());
    order.into_iter().map(RwLock::write).collect()
}
