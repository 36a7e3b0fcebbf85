//! Handles of a node's objects, and its attributes.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mille_layer::marks::apply_override;
use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use crate::attr::Attr;
use crate::dirs::DirKey;
use crate::error::{Context, Error, Result};
use crate::node::{DirPlace, LowerDir, LowerFile, Node, NodeRef, Stack, UpperObject};
use crate::sys::ids::Owner;
use crate::sys::open;
use crate::view::View;

/// A handle (`O_PATH`) of one object, held or borrowed from the cache.
#[derive(Debug)]
pub(crate) enum Handle {
    Own(OwnedFd),
    Shared(Arc<OwnedFd>),
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) => fd.as_fd(),
            Self::Shared(fd) => fd.as_fd(),
        }
    }
}

impl View {
    /// Attributes of a node.
    ///
    /// # Errors
    /// A failed system call on a layer.
    pub fn attr(&self, node: &NodeRef) -> Result<Attr> {
        self.attr_of(node, &self.object_stat(node)?)
    }

    /// The same, from `stat` of the object that gives the node its attributes.
    pub(crate) fn attr_of(&self, node: &NodeRef, stat: &Stat) -> Result<Attr> {
        let mut attr = Attr::from_stat(stat, node.ino);
        attr.kind = node.kind;
        let state = node.state.read();
        let (in_upper, metacopy, removed) = match &state.upper {
            Some(upper) => (true, upper.metacopy, state.is_removed()),
            None => (false, false, state.is_removed()),
        };
        drop(state);
        if node.is_dir() {
            let parts = self.parts(node.stack.dirs())? + usize::from(in_upper);
            if removed {
                attr.nlink = 0;
            } else if parts > 1 {
                // Counting the merged subdirectories would cost a listing: 1 says that nobody did.
                attr.nlink = 1;
            }
        } else if !in_upper && removed {
            attr.nlink = 0;
        }
        if metacopy && let Some(file) = node.stack.file() {
            let data = self.lower_stat(file.data_owner())?;
            attr.blocks = u64::try_from(data.st_blocks).unwrap_or(0);
        }
        Ok(attr)
    }

    /// `stat` of the object that gives a node its attributes, overrides applied.
    pub(crate) fn object_stat(&self, node: &NodeRef) -> Result<Stat> {
        // Asked first: who has left it by then is in the upper.
        let growing = self.growth.of(node);
        if let Some(stat) = self.upper_stat(node)? {
            return Ok(stat);
        }
        match &node.stack {
            Stack::File(file) => {
                let stat = self.lower_stat(file)?;
                growing.map_or(Ok(stat), |growing| growing.shown(stat))
            }
            other => match attribute_place(other.dirs()) {
                Some(dir) => self.lower_dir_stat(dir),
                None => Err(Error::refused("stat", Errno::STALE)),
            },
        }
    }

    /// `stat` of a node's object that was found while it was looked up, or that of the object which has taken its place.
    pub(crate) fn up_to_date(&self, node: &NodeRef, found: Stat) -> Result<Stat> {
        let is = |upper: &UpperObject| (upper.dev, upper.ino) == (found.st_dev, found.st_ino);
        let replaced = node.kind == FileType::RegularFile
            && (self.growth.of(node).is_some()
                || node
                    .state
                    .read()
                    .upper
                    .as_deref()
                    .is_some_and(|upper| !is(upper)));
        if replaced {
            return self.object_stat(node);
        }
        Ok(found)
    }

    /// `stat` of a node's upper object, if it has one.
    pub(crate) fn upper_stat(&self, node: &NodeRef) -> Result<Option<Stat>> {
        let dialects = self.upper_dialects();
        let through = |handle: BorrowedFd<'_>| {
            let mut stat = rustix::fs::fstat(handle).op("stat")?;
            apply_override(handle, None, &mut stat, dialects).op("stat")?;
            Ok(stat)
        };
        // The kernel asks for a directory's attributes after every change of a name in it, for which it was opened.
        if node.is_dir()
            && let Some(handle) = self.dirs.get(&DirKey::Upper(node.serial()))
        {
            return through(handle.as_fd()).map(Some);
        }
        self.at_upper(
            node,
            |orphan| through(orphan.as_fd()),
            |parent, name, upper| {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                let mut stat = rustix::fs::statat(parent, name, flags).op("stat in upper")?;
                require_same(&stat, upper)?;
                apply_override(parent, Some(name), &mut stat, dialects).op("stat")?;
                Ok(stat)
            },
        )
    }

    /// A handle of the object that gives a node its attributes.
    pub(crate) fn object(&self, node: &NodeRef) -> Result<Handle> {
        if let Some(handle) = self.upper_object(node)? {
            return Ok(handle);
        }
        match &node.stack {
            Stack::File(file) => self.lower_handle(file).map(Handle::Own),
            other => {
                let dir = attribute_place(other.dirs());
                let dir = dir.ok_or(Error::refused("open", Errno::STALE))?;
                let handle = self.lower_dir(&self.attribute_dir(dir)?)?;
                handle
                    .map(Handle::Shared)
                    .ok_or(Error::refused("open", Errno::XDEV))
            }
        }
    }

    /// A handle of a node's upper object, if it has one; certainly that object and no other of its name.
    pub(crate) fn upper_object(&self, node: &Node) -> Result<Option<Handle>> {
        self.at_upper(
            node,
            |orphan| Ok(Handle::Shared(orphan.clone())),
            |parent, name, upper| {
                let handle = self
                    .retry_short_of_fds(|| open::handle(parent, name))
                    .op("open in upper")?;
                let stat = rustix::fs::fstat(&handle).op("stat in upper")?;
                require_same(&stat, upper)?;
                Ok(Handle::Own(handle))
            },
        )
    }

    /// Does something with a node's upper object, if it has one: with the handle that is `held` because no name leads to
    /// it, or with its name in its directory. The name is true while `named` runs.
    fn at_upper<T>(
        &self,
        node: &Node,
        held: impl Fn(&Arc<OwnedFd>) -> Result<T>,
        named: impl Fn(BorrowedFd<'_>, &OsStr, &UpperObject) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut parent_handle: Option<(NodeRef, Arc<OwnedFd>)> = None;
        loop {
            // The kept names are true while the state is held: whoever moves a name holds it for writing meanwhile.
            let state = node.state.read();
            let Some(upper) = &state.upper else {
                return Ok(None);
            };
            if let Some(orphan) = &upper.orphan {
                return held(orphan).map(Some);
            }
            let link = state
                .first_link(&node.stack)
                .ok_or(Error::refused("open in upper", Errno::STALE))?;
            let parent = parent_handle
                .take_if(|(parent, _)| Arc::ptr_eq(parent, link.parent))
                .map(|(_, handle)| handle)
                .or_else(|| self.dirs.get(&DirKey::Upper(link.parent.serial())));
            let Some(parent) = parent else {
                // Opening the parent takes the tree lock, which comes before any state.
                let link_parent = link.parent.clone();
                drop(state);
                let handle = self
                    .upper_dir(&link_parent)?
                    .ok_or(Error::refused("open in upper", Errno::STALE))?;
                parent_handle = Some((link_parent, handle));
                continue;
            };
            return named(parent.as_fd(), link.name, upper).map(Some);
        }
    }

    /// A handle of a lower object that is no directory.
    pub(crate) fn lower_handle(&self, file: &LowerFile) -> Result<OwnedFd> {
        let dir = self
            .lower_dir(&file.place)?
            .ok_or(Error::refused("open in lower", Errno::STALE))?;
        self.retry_short_of_fds(|| open::handle(dir.as_fd(), &file.name))
            .op("open in lower")
    }

    /// `stat` of a lower object that is no directory, overrides applied.
    pub(crate) fn lower_stat(&self, file: &LowerFile) -> Result<Stat> {
        if let Some(mut stat) = self.indexed_stat(file)? {
            self.show_owner(file.layer(), &mut stat);
            return Ok(stat);
        }
        let dir = self
            .lower_dir(&file.place)?
            .ok_or(Error::refused("stat in lower", Errno::STALE))?;
        let mut stat = open::stat_name(dir.as_fd(), &file.name)
            .op("stat in lower")?
            .ok_or(Error::refused("stat in lower", Errno::STALE))?;
        let lower = &self.lowers[usize::from(file.layer())];
        apply_override(dir.as_fd(), Some(&file.name), &mut stat, &lower.dialects)
            .op("stat in lower")?;
        self.show_owner(file.layer(), &mut stat);
        Ok(stat)
    }

    /// `stat` of a lower directory, overrides applied.
    pub(crate) fn lower_dir_stat(&self, dir: &LowerDir) -> Result<Stat> {
        if let Some(mut stat) = self.indexed_dir_stat(dir)? {
            self.show_owner(dir.layer(), &mut stat);
            return Ok(stat);
        }
        let lower = &self.lowers[usize::from(dir.layer())];
        let mut stat = match self.lower_dir(&dir.place)? {
            Some(handle) => {
                let mut stat = rustix::fs::fstat(&handle).op("stat in lower")?;
                apply_override(handle.as_fd(), None, &mut stat, &lower.dialects)
                    .op("stat in lower")?;
                stat
            }
            // Covered by another mount: what is mounted there lends its attributes.
            None => self.covered_stat(dir)?,
        };
        self.show_owner(dir.layer(), &mut stat);
        Ok(stat)
    }

    fn covered_stat(&self, dir: &LowerDir) -> Result<Stat> {
        let path = dir.path();
        let (parent, name) = match path.iter().rposition(|&b| b == b'/') {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&[][..], path),
        };
        let stale = Error::refused("stat in lower", Errno::STALE);
        let Some(handle) = self.lower_dir(&DirPlace::new(dir.layer(), parent))? else {
            return Err(stale);
        };
        let name = std::os::unix::ffi::OsStrExt::from_bytes(name);
        open::stat_name(handle.as_fd(), name)
            .op("stat in lower")?
            .ok_or(stale)
    }

    /// The owner that counts: one that the user namespace does not know is root where a layer is the machine's own.
    pub(crate) fn show_owner(&self, layer: u16, stat: &mut Stat) {
        let Owner { uid, gid } = self.owners.of_lower(Owner {
            uid: stat.st_uid,
            gid: stat.st_gid,
        });
        (stat.st_uid, stat.st_gid) = (uid, gid);
        if self.lowers[usize::from(layer)].mutable {
            if stat.st_uid == self.overflow.0 {
                stat.st_uid = 0;
            }
            if stat.st_gid == self.overflow.1 {
                stat.st_gid = 0;
            }
        }
    }

    /// True for a node whose kind is a regular file.
    pub(crate) fn require_file(node: &Node, op: &'static str) -> Result<()> {
        match node.kind {
            FileType::RegularFile => Ok(()),
            FileType::Directory => Err(Error::refused(op, Errno::ISDIR)),
            _ => Err(Error::refused(op, Errno::INVAL)),
        }
    }
}

/// Refuses what stands under an upper object's name and is not that object: somebody works on the upper behind our back.
fn require_same(stat: &Stat, upper: &UpperObject) -> Result<()> {
    if (stat.st_dev, stat.st_ino) == (upper.dev, upper.ino) {
        Ok(())
    } else {
        Err(Error::refused("open in upper", Errno::STALE))
    }
}

/// The lower directory whose attributes count: the topmost that has some of its own.
pub(crate) fn attribute_place(dirs: &[LowerDir]) -> Option<&LowerDir> {
    dirs.iter().find(|dir| !dir.implied).or(dirs.first())
}
