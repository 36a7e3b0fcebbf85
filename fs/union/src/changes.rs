//! What differs between a view and the layers below its upper.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use mille_layer::{ListedKind, Opaque, list};
use rustix::io::Errno;

use crate::attr::Attr;
use crate::error::{Context, Result};
use crate::node::{NodeRef, join};
use crate::view::View;

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

/// Lists what differs between `merged` and `base`, the same lowers without the upper, as docker's `diff` has it: by
/// metadata, not by content. A directory comes before what is in it, and counts as modified if anything in it changed;
/// siblings come in bytewise order of their names, those deleted after the others. The root is never listed.
///
/// The upper may be in use by another process meanwhile: what vanishes during the walk is left out.
///
/// # Errors
/// A failed system call on a layer.
pub fn changes(merged: &View, base: &View) -> Result<Vec<Change>> {
    let mut list = Vec::new();
    walk(merged, base, &mut |found| {
        list.push(match found {
            Found::Object {
                path,
                node,
                attr,
                below,
                ..
            } => Change {
                kind: compare(merged, base, node, attr, below)?,
                path: path.to_vec(),
                node: Some(node.clone()),
            },
            Found::Deleted { path } => Change {
                kind: ChangeKind::Deleted,
                path: path.to_vec(),
                node: None,
            },
        });
        Ok(())
    })?;
    mark_parents(&mut list);
    Ok(list)
}

/// Makes every directory that contains a change modified. Directories come before what is in them.
fn mark_parents(list: &mut [Change]) {
    // The places of the directories that lead to the present entry.
    let mut way: Vec<usize> = Vec::new();
    for at in 0..list.len() {
        while let Some(&last) = way.last() {
            if is_inside(&list[at].path, &list[last].path) {
                break;
            }
            way.pop();
        }
        if list[at].kind != ChangeKind::Touched {
            for &dir in &way {
                if list[dir].kind == ChangeKind::Touched {
                    list[dir].kind = ChangeKind::Modified;
                }
            }
        }
        if list[at].node.as_ref().is_some_and(|node| node.is_dir()) {
            way.push(at);
        }
    }
}

fn is_inside(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.starts_with(b"/"))
}

/// The same object as the layers below have it.
pub(crate) struct Below {
    pub(crate) node: NodeRef,
    pub(crate) attr: Attr,
}

/// What a walk finds.
pub(crate) enum Found<'a> {
    /// Something that the upper has, or that shows in another place because of it.
    Object {
        path: &'a [u8],
        node: &'a NodeRef,
        attr: &'a Attr,
        below: Option<&'a Below>,
        /// A directory that hides what the layers below have under this path: everything in it is found.
        replaced: bool,
    },
    /// A name that only the layers below have.
    Deleted { path: &'a [u8] },
}

/// Takes what a walk finds.
type Visit<'a> = dyn FnMut(Found<'_>) -> Result<()> + 'a;

/// Goes through everything that `merged` has over `base`.
pub(crate) fn walk(merged: &View, base: &View, visit: &mut Visit<'_>) -> Result<()> {
    let dir = Pair {
        merged: merged.root(),
        base: Some(base.root()),
    };
    Walk {
        merged,
        base,
        visit,
    }
    .run(dir)
}

/// One directory in both views.
struct Pair {
    merged: NodeRef,
    base: Option<NodeRef>,
}

struct Walk<'a, 'v> {
    merged: &'a View,
    base: &'a View,
    visit: &'a mut Visit<'v>,
}

impl Walk<'_, '_> {
    /// Goes through a directory and all below it. An explicit stack: how deep a tree is decides who makes it.
    fn run(&mut self, top: Pair) -> Result<()> {
        let mut open = vec![self.frame(top, Vec::new(), false)?];
        while let Some(frame) = open.last_mut() {
            let Some(name) = frame.present.next() else {
                for name in &frame.gone {
                    (self.visit)(Found::Deleted {
                        path: &join(&frame.path, name),
                    })?;
                }
                open.pop();
                continue;
            };
            let (dir, whole) = (&frame.dir, frame.whole);
            let Some(node) = vanished_ok(self.merged.lookup(&dir.merged, &name))?.flatten() else {
                continue;
            };
            let Some(attr) = vanished_ok(self.merged.attr(&node))? else {
                continue;
            };
            let below = below(self.base, dir, &name)?;
            let path = join(&frame.path, &name);
            let base_dir = below
                .as_ref()
                .map(|below| &below.node)
                .filter(|node| node.is_dir());
            let hides = node.is_dir() && base_dir.is_some_and(|base| !same_parts(&node, base));
            let replaced = node.is_dir() && base_dir.is_some() && (whole || hides);
            let found = Found::Object {
                path: &path,
                node: &node,
                attr: &attr,
                below: below.as_ref(),
                replaced,
            };
            (self.visit)(found)?;
            if node.is_dir() {
                let inner_whole = whole || hides || base_dir.is_none();
                let pair = Pair {
                    base: base_dir.cloned(),
                    merged: node,
                };
                open.push(self.frame(pair, path, inner_whole)?);
            }
        }
        Ok(())
    }

    fn frame(&self, dir: Pair, path: Vec<u8>, whole: bool) -> Result<Frame> {
        let (present, gone) = self.names(&dir, whole)?;
        Ok(Frame {
            dir,
            path,
            whole,
            present: present.into_iter(),
            gone,
        })
    }

    /// The names that are to be looked at, and those that are gone, each in order.
    fn names(&self, dir: &Pair, whole: bool) -> Result<(Vec<OsString>, Vec<OsString>)> {
        let mut present = Vec::new();
        let mut gone = Vec::new();
        if whole {
            present = vanished_ok(self.merged.listed_names(&dir.merged))?.unwrap_or_default();
            present.sort_unstable();
            if let Some(base) = &dir.base {
                gone = self.base.listed_names(base)?;
                gone.retain(|name| present.binary_search(name).is_err());
            }
        } else if let Some(handle) = vanished_ok(self.merged.upper_dir(&dir.merged))?.flatten() {
            for entry in
                list(handle.as_fd(), Opaque::No, self.merged.upper_dialects()).op("list upper")?
            {
                match entry.kind {
                    ListedKind::Object(_) => present.push(entry.name),
                    ListedKind::Whiteout => {
                        if below(self.base, dir, &entry.name)?.is_some() {
                            gone.push(entry.name);
                        }
                    }
                }
            }
            present.sort_unstable();
        }
        gone.sort_unstable();
        Ok((present, gone))
    }
}

/// A directory on the way.
struct Frame {
    dir: Pair,
    path: Vec<u8>,
    /// All entries are new here, not only those of the upper.
    whole: bool,
    present: std::vec::IntoIter<OsString>,
    gone: Vec<OsString>,
}

/// What the layers below have under a name.
fn below(base: &View, dir: &Pair, name: &OsStr) -> Result<Option<Below>> {
    let Some(parent) = &dir.base else {
        return Ok(None);
    };
    let Some(node) = base.lookup(parent, name)? else {
        return Ok(None);
    };
    let attr = base.attr(&node)?;
    Ok(Some(Below { node, attr }))
}

/// True if two directories consist of the same lower directories.
fn same_parts(merged: &NodeRef, base: &NodeRef) -> bool {
    let (merged, base) = (merged.stack.dirs(), base.stack.dirs());
    for (a, b) in merged.iter().zip(base) {
        if a.place != b.place {
            return false;
        }
        if a.place.number().is_some() || b.place.number().is_some() {
            // This part stands for all that follow in one view, perhaps not in the other. Which these are depends on the
            // first of them alone: layers with an index do not refer to one another.
            return true;
        }
    }
    merged.len() == base.len()
}

/// What another process took away between two looks is not there.
fn vanished_ok<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is(Errno::NOENT) || error.is(Errno::STALE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Compares by metadata: what `diff` shows is what a tar of the two would show, not whether bytes are equal.
pub(crate) fn compare(
    merged: &View,
    base: &View,
    node: &NodeRef,
    attr: &Attr,
    below: Option<&Below>,
) -> Result<ChangeKind> {
    let Some(below) = below else {
        return Ok(ChangeKind::Added);
    };
    let old = &below.attr;
    let same = attr.kind == old.kind
        && attr.mode == old.mode
        && (attr.uid, attr.gid) == (old.uid, old.gid)
        && attr.rdev == old.rdev
        // A directory's size and times say nothing about itself.
        && (attr.is_dir() || attr.size == old.size && attr.mtime == old.mtime);
    if !same || capability(merged, node)? != capability(base, &below.node)? {
        return Ok(ChangeKind::Modified);
    }
    Ok(ChangeKind::Touched)
}

fn capability(view: &View, node: &NodeRef) -> Result<Option<Vec<u8>>> {
    match view.get_xattr(node, OsStr::new("security.capability")) {
        Err(error) if error.is(Errno::NOENT) || error.is(Errno::STALE) => Ok(None),
        other => other,
    }
}

impl Change {
    /// The path as the caller's kind of string, with a leading slash.
    pub fn absolute_path(&self) -> OsString {
        let mut path = Vec::with_capacity(self.path.len() + 1);
        path.push(b'/');
        path.extend_from_slice(&self.path);
        OsString::from_vec(path)
    }

    /// The last component of the path.
    pub fn name(&self) -> &OsStr {
        let start = self
            .path
            .iter()
            .rposition(|&b| b == b'/')
            .map_or(0, |slash| slash + 1);
        OsStr::from_bytes(&self.path[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_changes_are_modified_and_others_are_not() {
        let change = |kind, path: &str| Change {
            kind,
            path: path.into(),
            node: None,
        };
        assert!(is_inside(b"a/b", b"a"));
        assert!(!is_inside(b"ab", b"a"));
        let mut list = vec![change(ChangeKind::Deleted, "a/b")];
        mark_parents(&mut list);
        assert_eq!(list[0].kind, ChangeKind::Deleted);
    }
}
