//! What differs between a view and the layers below its upper.

use crate::error::{Error, Result};
use crate::node::NodeRef;
use crate::view::View;
use rustix::io::Errno;

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Not there below.
    Added,
    /// There, with other metadata or content.
    Modified,
    /// No longer there.
    Deleted,
    /// In the upper with the same metadata as below: no difference for `diff`, but part of the committed layer.
    Touched,
}

/// One difference.
#[derive(Clone, Debug)]
pub struct Change {
    /// How it differs.
    pub kind: ChangeKind,
    /// Path without leading slash.
    pub path: Vec<u8>,
    /// The merged object; none for something deleted.
    pub node: Option<NodeRef>,
}

/// Lists what differs between `merged` and `base`, the same lowers without the upper. Parents of a change come before it
/// as modified, siblings in bytewise order of their names, the root is never listed.
///
/// # Errors
/// A failed system call on a layer.
pub fn changes(merged: &View, base: &View) -> Result<Vec<Change>> {
    let _ = (merged, base);
    Err(Error::refused("list changes", Errno::NOSYS))
}
