//! Removing names, and giving objects more of them.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use mille_layer::{Dialects, Mark, is_reserved_name};
use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use crate::copyup::Need;
use crate::create::{is_whiteout, place};
use crate::dirs::DirKey;
use crate::error::{Context, Error, Result};
use crate::getattr::Handle;
use crate::node::{Link, NodeRef, State, join, lock_names};
use crate::sys::{object, open, xattr};
use crate::view::View;
use crate::work::Work;

impl View {
    /// Removes a name of something that is no directory.
    ///
    /// # Errors
    /// `ENOENT`, `EISDIR`, `EROFS`, or a failed system call.
    pub fn unlink(&self, parent: &NodeRef, name: &OsStr) -> Result<()> {
        let work = self.require_writable("unlink")?;
        if parent.in_upper() {
            let dir = self.upper_parent(parent)?;
            let _names = parent.names().write();
            let node = self.lookup_locked(parent, name)?;
            let node = node.ok_or(Error::refused("unlink", Errno::NOENT))?;
            self.require_removable(&node)?;
            // Nothing has to come up first: one look at the name is enough.
            if !self.has_links_below(&node) {
                return self.unlink_locked(work, (parent, name), dir.as_fd(), &node);
            }
        }
        loop {
            let node = self.existing(parent, name, "unlink")?;
            self.require_removable(&node)?;
            self.keep_other_links(&node)?;
            let dir = self.upper_parent(parent)?;
            let _names = parent.names().write();
            if !self.still(parent, name, &node)? || self.has_links_below(&node) {
                continue;
            }
            return self.unlink_locked(work, (parent, name), dir.as_fd(), &node);
        }
    }

    fn require_removable(&self, node: &NodeRef) -> Result<()> {
        if node.is_dir() {
            return Err(Error::refused("unlink", Errno::ISDIR));
        }
        self.require_changeable(node, "unlink")
    }

    /// Removes a name that leads to a node. The caller holds the parent's name lock.
    fn unlink_locked(
        &self,
        work: &Work,
        (parent, name): (&NodeRef, &OsStr),
        dir: BorrowedFd<'_>,
        node: &NodeRef,
    ) -> Result<()> {
        // The name has just been found to lead to this object; where that is not the upper's, it is one below.
        let (kept, whiteout) = if node.in_upper() {
            let kept = match self.retry_short_of_fds(|| open::handle(dir, name)) {
                Ok(handle) => Some(Arc::new(handle)),
                // It is there under other names alone.
                Err(Errno::NOENT) => self.keep_object(node)?,
                Err(errno) => return Err(errno).op("unlink"),
            };
            (kept, self.lower_has(parent, name)?)
        } else {
            (None, true)
        };
        let mut state = node.state.write();
        remove_name(work, dir, name, whiteout, state.upper.is_some())?;
        self.name_lost(node, &mut state, parent, name, kept)?;
        drop(state);
        self.listings.removed(parent, name);
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EROFS`, or a failed system call.
    pub fn rmdir(&self, parent: &NodeRef, name: &OsStr) -> Result<()> {
        let work = self.require_writable("rmdir")?;
        loop {
            let node = self.existing(parent, name, "rmdir")?;
            if !node.is_dir() {
                return Err(Error::refused("rmdir", Errno::NOTDIR));
            }
            self.require_changeable(&node, "rmdir")?;
            let dir = self.upper_parent(parent)?;
            let own = self.upper_dir(&node)?;
            let _names = lock_names(&[parent, &node]);
            if !self.still(parent, name, &node)? || own.is_some() != node.in_upper() {
                continue;
            }
            if !self.is_empty_locked(&node)? {
                return Err(Error::refused("rmdir", Errno::NOTEMPTY));
            }
            let whiteout = self.lower_has(parent, name)?;
            let mut state = node.state.write();
            remove_dir_name(work, dir.as_fd(), name, whiteout, own.is_some())?;
            self.dir_lost(&node, &mut state, own);
            drop(state);
            self.listings.removed(parent, name);
            return Ok(());
        }
    }

    /// Gives an object one more name.
    ///
    /// # Errors
    /// `EPERM` for a directory, `EEXIST`, `EROFS`, `EMLINK`, or a failed system call.
    pub fn link(&self, node: &NodeRef, parent: &NodeRef, name: &OsStr) -> Result<()> {
        let work = self.require_writable("link")?;
        if node.is_dir() {
            return Err(Error::refused("link", Errno::PERM));
        }
        self.check_new_name(name)?;
        if node.is_removed() && !node.in_upper() {
            return Err(Error::refused("link", Errno::NOENT));
        }
        self.require_changeable(node, "link")?;
        self.copy_up(node, Need::Attributes)?;
        self.fix_data_place(node)?;
        let dir = self.upper_parent(parent)?;
        let _names = parent.names().write();
        let spot = self.free_spot(parent, dir.as_fd(), name)?;
        let object = self
            .upper_object(node)?
            .ok_or(Error::refused("link", Errno::STALE))?;
        if node.is_metacopy() {
            self.mark_impure(parent, dir.as_fd())?;
        }
        if spot.whiteout {
            let temp = work.fresh_temp();
            object::link(object.as_fd(), work.fd(), &temp.name).op("link")?;
            place(work, temp, &spot, false)?;
        } else {
            object::link(object.as_fd(), spot.dir, spot.name).op("link")?;
        }
        let link = Link {
            parent: parent.clone(),
            name: name.to_owned(),
        };
        node.state.write().add_link(&node.stack, link);
        self.listings.added(parent, name);
        Ok(())
    }

    /// The node of a name that must be there.
    pub(crate) fn existing(
        &self,
        parent: &NodeRef,
        name: &OsStr,
        op: &'static str,
    ) -> Result<NodeRef> {
        self.lookup(parent, name)?
            .ok_or(Error::refused(op, Errno::NOENT))
    }

    /// True if a name still leads to a node. The caller holds the parent's name lock.
    pub(crate) fn still(&self, parent: &NodeRef, name: &OsStr, node: &NodeRef) -> Result<bool> {
        let now = self.lookup_locked(parent, name)?;
        Ok(now.is_some_and(|now| Arc::ptr_eq(&now, node)))
    }

    /// Before one of several names of a lower file goes: brings the file up with all of them, so that those which stay
    /// are right in number, also after the next mount.
    pub(crate) fn keep_other_links(&self, node: &NodeRef) -> Result<()> {
        if self.has_links_below(node) {
            self.copy_up(node, Need::Attributes)
        } else {
            Ok(())
        }
    }

    pub(crate) fn has_links_below(&self, node: &NodeRef) -> bool {
        node.stack.file().is_some_and(|file| {
            file.id().is_some() && !self.lowers[usize::from(file.layer())].mutable
        }) && !node.in_upper()
    }

    /// A handle that keeps the upper object of a node that may be about to lose its last name.
    pub(crate) fn keep_object(&self, node: &NodeRef) -> Result<Option<Arc<OwnedFd>>> {
        Ok(match self.upper_object(node)? {
            Some(Handle::Own(fd)) => Some(Arc::new(fd)),
            Some(Handle::Shared(fd)) => Some(fd),
            None => None,
        })
    }

    /// Notes in a node's state that a name has gone.
    pub(crate) fn name_lost(
        &self,
        node: &NodeRef,
        state: &mut State,
        parent: &NodeRef,
        name: &OsStr,
        kept: Option<Arc<OwnedFd>>,
    ) -> Result<()> {
        state.remove_link(&node.stack, parent, name);
        let nameless = state.is_nameless();
        let Some(upper) = &mut state.upper else {
            if nameless {
                state.set_removed();
            }
            return Ok(());
        };
        if let Some(kept) = kept {
            let links = rustix::fs::fstat(&kept).op("unlink")?.st_nlink;
            if links == 0 {
                self.table.release_upper(upper.dev, upper.ino);
            }
            if links == 0 || nameless {
                upper.orphan = Some(kept);
            }
            if links == 0 {
                state.set_removed();
            }
        }
        Ok(())
    }

    /// Notes in a directory's state that it has gone.
    pub(crate) fn dir_lost(&self, node: &NodeRef, state: &mut State, own: Option<Arc<OwnedFd>>) {
        state.set_removed();
        if let Some(upper) = &mut state.upper {
            self.table.release_upper(upper.dev, upper.ino);
            upper.orphan = own;
        }
        self.dirs.remove(&DirKey::Upper(node.serial()));
    }

    /// An upper file whose data is still below is found there by its path: before it gets another name or place, that
    /// path is written down with it; or the data comes up, where redirects may not be written.
    pub(crate) fn fix_data_place(&self, node: &NodeRef) -> Result<()> {
        let metacopy = node
            .state
            .read()
            .upper
            .as_ref()
            .is_some_and(|upper| upper.metacopy);
        if !metacopy {
            return Ok(());
        }
        let object = self
            .upper_object(node)?
            .ok_or(Error::refused("rename", Errno::STALE))?;
        let mark = self.space.os_name(Mark::Redirect);
        let present = xattr::get(object.as_fd(), mark).op("rename")?;
        if present
            .as_ref()
            .is_some_and(|value| value.starts_with(b"/"))
        {
            return Ok(());
        }
        let path = known_path(node, present);
        let Some(path) = path.filter(|path| path.len() <= crate::rename::REDIRECT_LIMIT) else {
            return self.copy_up(node, Need::ALL);
        };
        if !self.features.redirect_dir {
            return self.copy_up(node, Need::ALL);
        }
        self.set_redirect(object.as_fd(), &path)
    }
}

/// Where the lowers together know a file whose upper object has no absolute redirect: under the name it has, or under that
/// of a relative one, in the lower parts of its directory.
fn known_path(node: &NodeRef, redirect: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let state = node.state.read();
    let link = state.first_link(&node.stack)?;
    let parent = link.parent.stack.known_as()?;
    let name = redirect.unwrap_or_else(|| link.name.as_bytes().to_vec());
    Some([b"/", &*join(parent, OsStr::from_bytes(&name))].concat())
}

/// Removes a name of an upper directory, leaving a whiteout if something below would show.
fn remove_name(
    work: &Work,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    whiteout: bool,
    present: bool,
) -> Result<()> {
    if !present {
        // Only below: the whiteout is all there is to make.
        return work.link_whiteout(dir, name).op("unlink");
    }
    if !whiteout {
        return rustix::fs::unlinkat(dir, name, AtFlags::empty()).op("unlink");
    }
    let temp = work.whiteout()?;
    rustix::fs::renameat(work.fd(), &temp.name, dir, name).op("unlink")?;
    temp.keep();
    Ok(())
}

/// As [`remove_name`] for a directory that is empty in the view; its upper part may still hold whiteouts.
fn remove_dir_name(
    work: &Work,
    dir: BorrowedFd<'_>,
    name: &OsStr,
    whiteout: bool,
    present: bool,
) -> Result<()> {
    if !present {
        return work.link_whiteout(dir, name).op("rmdir");
    }
    if whiteout {
        let temp = work.whiteout()?;
        // They change places; what was the directory goes with `temp`.
        let flags = RenameFlags::EXCHANGE;
        return rustix::fs::renameat_with(work.fd(), &temp.name, dir, name, flags).op("rmdir");
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            let temp = work.fresh_temp();
            rustix::fs::renameat(dir, name, work.fd(), &temp.name).op("rmdir")
        }
        other => other.op("rmdir"),
    }
}

/// Removes the whiteouts from an upper directory that is empty in the view. It must not let anything show through.
pub(crate) fn clear_whiteouts(dir: BorrowedFd<'_>, dialects: &Dialects) -> Result<()> {
    let readable = open::reopen(
        dir,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY,
    )
    .op("clear directory")?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(readable).op("clear directory")? {
        let entry = entry.op("clear directory")?;
        let name = entry.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    for name in names {
        let name: &OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name.as_bytes());
        let whiteout = dialects.aufs && is_reserved_name(name)
            || is_whiteout(dir, name).op("clear directory")?;
        if !whiteout {
            return Err(Error::refused("clear directory", Errno::NOTEMPTY));
        }
        rustix::fs::unlinkat(dir, name, AtFlags::empty()).op("clear directory")?;
    }
    Ok(())
}
