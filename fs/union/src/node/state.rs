//! What changes in the life of a node: its names, and its object in the upper.
//!
//! There are as many of these as the kernel knows files, so the usual case (one name, the same as in the layer) is kept
//! in as few bytes as can be.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{NodeRef, Stack};

/// What changes in the life of a node.
#[derive(Debug, Default)]
pub(crate) struct State {
    names: Names,
    /// The object in the upper, once there is one.
    pub(crate) upper: Option<Box<UpperObject>>,
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

/// A name of a node.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) parent: NodeRef,
    pub(crate) name: OsString,
}

/// A name of a node, as its state lends it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkRef<'a> {
    pub(crate) parent: &'a NodeRef,
    pub(crate) name: &'a OsStr,
}

impl LinkRef<'_> {
    pub(crate) fn to_owned(self) -> Link {
        Link {
            parent: self.parent.clone(),
            name: self.name.to_owned(),
        }
    }

    fn is(self, parent: &NodeRef, name: &OsStr) -> bool {
        Arc::ptr_eq(self.parent, parent) && self.name == name
    }
}

#[derive(Debug)]
struct Kept {
    parent: NodeRef,
    /// `None`: as in the layer.
    name: Option<Box<OsStr>>,
}

impl Kept {
    fn new(stack: &Stack, link: Link) -> Self {
        let name = (stack.own_name() != Some(&*link.name)).then(|| link.name.into_boxed_os_str());
        Self {
            parent: link.parent,
            name,
        }
    }

    fn lend<'a>(&'a self, stack: &'a Stack) -> LinkRef<'a> {
        let own = || stack.own_name().unwrap_or(OsStr::new(""));
        LinkRef {
            parent: &self.parent,
            name: self.name.as_deref().unwrap_or_else(own),
        }
    }
}

/// Known names in the merged view. A directory has one; the root has none.
#[derive(Debug)]
enum Names {
    One(Kept),
    Many(Box<Many>),
}

#[derive(Debug, Default)]
struct Many {
    links: Vec<Kept>,
    /// No name is left: the node lives only for those who hold it.
    removed: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl Names {
    fn all(&self) -> &[Kept] {
        match self {
            Self::One(kept) => std::slice::from_ref(kept),
            Self::Many(many) => &many.links,
        }
    }

    fn take(&mut self) -> Vec<Kept> {
        match std::mem::take(self) {
            Self::One(kept) => vec![kept],
            Self::Many(many) => many.links,
        }
    }

    fn set(&mut self, mut links: Vec<Kept>, removed: bool) {
        *self = match links.pop() {
            Some(only) if links.is_empty() => Self::One(only),
            last => {
                links.extend(last);
                Self::Many(Box::new(Many { links, removed }))
            }
        };
    }
}

/// The stack of a method's argument is always that of the node whose state it is.
impl State {
    /// Of a node with one name.
    pub(crate) fn named(stack: &Stack, link: Link, upper: Option<UpperObject>) -> Self {
        Self {
            names: Names::One(Kept::new(stack, link)),
            upper: upper.map(Box::new),
        }
    }

    /// Of a node without a name.
    pub(crate) fn nameless(upper: Option<UpperObject>) -> Self {
        Self {
            names: Names::default(),
            upper: upper.map(Box::new),
        }
    }

    /// One of the names, always the same as long as it stays.
    pub(crate) fn first_link<'a>(&'a self, stack: &'a Stack) -> Option<LinkRef<'a>> {
        self.names.all().first().map(|kept| kept.lend(stack))
    }

    /// The directory of that name.
    pub(crate) fn first_parent(&self) -> Option<&NodeRef> {
        self.names.all().first().map(|kept| &kept.parent)
    }

    /// All names.
    pub(crate) fn links(&self, stack: &Stack) -> Vec<Link> {
        let all = self.names.all().iter();
        all.map(|kept| kept.lend(stack).to_owned()).collect()
    }

    /// True if no known name leads to the node.
    pub(crate) fn is_nameless(&self) -> bool {
        self.names.all().is_empty()
    }

    /// True if the node has this name.
    pub(crate) fn has_link(&self, stack: &Stack, parent: &NodeRef, name: &OsStr) -> bool {
        let mut all = self.names.all().iter();
        all.any(|kept| kept.lend(stack).is(parent, name))
    }

    /// One more name; a name leads to the upper object again, so that need not be held.
    pub(crate) fn add_link(&mut self, stack: &Stack, link: Link) {
        let mut links = self.names.take();
        links.push(Kept::new(stack, link));
        self.names.set(links, false);
        if let Some(upper) = &mut self.upper {
            upper.orphan = None;
        }
    }

    /// One name less.
    pub(crate) fn remove_link(&mut self, stack: &Stack, parent: &NodeRef, name: &OsStr) {
        let removed = self.is_removed();
        let mut links = self.names.take();
        links.retain(|kept| !kept.lend(stack).is(parent, name));
        self.names.set(links, removed);
    }

    /// These names and no others.
    pub(crate) fn set_links(&mut self, stack: &Stack, links: Vec<Link>) {
        let links = links.into_iter().map(|link| Kept::new(stack, link));
        self.names.set(links.collect(), false);
    }

    /// No name is left: the node lives only for those who hold it.
    pub(crate) fn set_removed(&mut self) {
        self.names.set(Vec::new(), true);
    }

    pub(crate) fn is_removed(&self) -> bool {
        matches!(&self.names, Names::Many(many) if many.removed)
    }

    /// Takes the directories of all names, at the node's end.
    pub(super) fn take_parents(&mut self) -> impl Iterator<Item = NodeRef> {
        self.names.take().into_iter().map(|kept| kept.parent)
    }
}
