//! What a container changed: the merged view compared with the same view without its upper layer.
//!
//! The comparison is docker's: a change of content, owner, mode, device number, size or (of anything but a directory)
//! modification time counts; a directory that was only touched does not. It compares two trees and not the upper
//! directory, so a file created and removed again, or a directory removed and made again as it was, is no change. Parts
//! that the upper does not have and that come from the same lower directories are skipped without being read.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use crate::attr::Attr;
use crate::error::Result;
use crate::node::{Node, NodeRef, Stack, join};
use crate::view::View;

/// How a path differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// Not there below.
    Added,
    /// There, with other metadata or content; or something below a directory differs.
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
/// as modified; in one directory deletions come last, otherwise names are in bytewise order; the root is never listed.
///
/// # Errors
/// A failed system call on a layer.
pub fn changes(merged: &View, base: &View) -> Result<Vec<Change>> {
    let mut comparison = Comparison {
        merged,
        base,
        found: Vec::new(),
    };
    comparison.directory(&[], &merged.root(), &base.root())?;
    Ok(comparison.found)
}

struct Comparison<'a> {
    merged: &'a View,
    base: &'a View,
    found: Vec<Change>,
}

type Names = BTreeMap<OsString, (NodeRef, Attr)>;

fn names(view: &View, dir: &NodeRef) -> Result<Names> {
    Ok(view
        .list(dir)?
        .into_iter()
        .map(|entry| (entry.name, (entry.node, entry.attr)))
        .collect())
}

impl Comparison<'_> {
    /// Compares two directories of the same path; true if anything in them shows in a diff.
    fn directory(&mut self, path: &[u8], here: &NodeRef, before: &NodeRef) -> Result<bool> {
        if untouched(here, before) {
            return Ok(false);
        }
        let (now, then) = (names(self.merged, here)?, names(self.base, before)?);
        let mut differs = false;
        for (name, (node, attr)) in &now {
            let path = join(path, name);
            differs |= match then.get(name) {
                None => self.added(path, node)?,
                Some(old) => self.both(path, (node, attr), (&old.0, &old.1))?,
            };
        }
        for name in then.keys().filter(|name| !now.contains_key(*name)) {
            self.push(ChangeKind::Deleted, join(path, name), None);
            differs = true;
        }
        Ok(differs)
    }

    fn both(
        &mut self,
        path: Vec<u8>,
        (node, attr): (&NodeRef, &Attr),
        (old, old_attr): (&NodeRef, &Attr),
    ) -> Result<bool> {
        if untouched(node, old) {
            return Ok(false);
        }
        let place = self.found.len();
        self.push(ChangeKind::Touched, path.clone(), Some(node.clone()));
        let mut differs = differ(attr, old_attr) || self.capability(node, old)?;
        if attr.is_dir() && old_attr.is_dir() {
            differs |= self.directory(&path, node, old)?;
        } else if attr.is_dir() {
            self.contents_added(&path, node)?;
        }
        if differs {
            self.found[place].kind = ChangeKind::Modified;
        }
        Ok(differs)
    }

    /// Everything below and including `node` is new.
    fn added(&mut self, path: Vec<u8>, node: &NodeRef) -> Result<bool> {
        self.push(ChangeKind::Added, path.clone(), Some(node.clone()));
        if node.is_dir() {
            self.contents_added(&path, node)?;
        }
        Ok(true)
    }

    fn contents_added(&mut self, path: &[u8], dir: &NodeRef) -> Result<()> {
        for (name, (node, _)) in names(self.merged, dir)? {
            self.added(join(path, &name), &node)?;
        }
        Ok(())
    }

    /// True if the file capabilities of two objects differ.
    fn capability(&self, node: &NodeRef, old: &NodeRef) -> Result<bool> {
        let name = OsStr::new("security.capability");
        Ok(self.merged.get_xattr(node, name)? != self.base.get_xattr(old, name)?)
    }

    fn push(&mut self, kind: ChangeKind, path: Vec<u8>, node: Option<NodeRef>) {
        self.found.push(Change { kind, path, node });
    }
}

/// True if the upper has no part in `here` and both come from the same places of the same layers.
fn untouched(here: &Node, before: &Node) -> bool {
    !here.in_upper() && same_stack(&here.stack, &before.stack)
}

fn same_stack(left: &Stack, right: &Stack) -> bool {
    match (left, right) {
        (Stack::Dirs(left), Stack::Dirs(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(a, b)| (a.layer, &a.path) == (b.layer, &b.path))
        }
        (Stack::File(left), Stack::File(right)) => {
            (left.layer, &left.dir, &left.name) == (right.layer, &right.dir, &right.name)
        }
        (Stack::None, Stack::None) => true,
        _ => false,
    }
}

fn differ(now: &Attr, then: &Attr) -> bool {
    let what = |attr: &Attr| (attr.kind, attr.mode, attr.uid, attr.gid, attr.rdev);
    what(now) != what(then) || (!now.is_dir() && (now.size, now.mtime) != (then.size, then.mtime))
}
