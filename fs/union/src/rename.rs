//! Moving names.
//!
//! Both ends are first brought into the upper; then everything is decided under the locks of the directories concerned, and
//! the move itself is one system call. Marks that the moved directory needs in its new place (a redirect to its lower
//! parts, or opaqueness against what lies below the new name) are set before: in the old place they change nothing, so a
//! server killed in between leaves the view as it was.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mille_layer::Mark;
use mille_layer::marks::set_opaque;
use parking_lot::RwLockWriteGuard;
use rustix::fs::{AtFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::copyup::Need;
use crate::create::is_whiteout;
use crate::error::{Context, Error, Result};
use crate::node::{Link, NodeRef, State, lock_names};
use crate::remove::clear_whiteouts;
use crate::sys::xattr;
use crate::traces::Trace;
use crate::view::View;

/// Longest redirect written, in bytes: what the kernel writes by default (its module parameter redirect_max), so that it
/// can go on renaming what we have renamed. It reads longer ones.
pub(crate) const REDIRECT_LIMIT: usize = 256;

/// One end of a rename.
struct End<'a> {
    parent: &'a NodeRef,
    name: &'a OsStr,
}

impl End<'_> {
    fn link(&self) -> Link {
        Link {
            parent: self.parent.clone(),
            name: self.name.to_owned(),
        }
    }
}

/// What is moved and what is in its way.
struct Move<'a> {
    from: End<'a>,
    to: End<'a>,
    source: NodeRef,
    target: Option<NodeRef>,
    exchange: bool,
}

/// Directories and decisions, valid under the name locks.
struct Ready {
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    /// Something below the old name would show when it is gone.
    leaves_whiteout: bool,
    /// A whiteout is in the new place.
    onto_whiteout: bool,
    /// Keeps a replaced object for those who hold it.
    kept: Option<Arc<OwnedFd>>,
}

impl View {
    /// Renames; with `NOREPLACE` only onto a free name, with `EXCHANGE` two names change places.
    ///
    /// # Errors
    /// As rename(2); `EXDEV` for a directory with lower parts where redirects are off, so that callers copy it.
    pub fn rename(
        &self,
        parent: &NodeRef,
        name: &OsStr,
        newparent: &NodeRef,
        newname: &OsStr,
        flags: RenameFlags,
    ) -> Result<()> {
        self.require_writable("rename")?;
        let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
        if !known.contains(flags) || flags == known {
            return Err(Error::refused("rename", Errno::INVAL));
        }
        self.check_new_name(newname)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        loop {
            let source = self.existing(parent, name, "rename")?;
            let target = self.lookup(newparent, newname)?;
            let movement = Move {
                from: End { parent, name },
                to: End {
                    parent: newparent,
                    name: newname,
                },
                source,
                target,
                exchange,
            };
            if movement.is_settled(flags)? {
                return Ok(());
            }
            self.bring_up(&movement)?;
            if self.try_move(&movement)? {
                return Ok(());
            }
        }
    }

    /// Copies up what a rename needs in the upper.
    fn bring_up(&self, movement: &Move<'_>) -> Result<()> {
        // Before anything is copied up: what is refused leaves no trace, not even in a ctime.
        let bound = |node: &NodeRef| node.is_dir() && !node.stack.is_none();
        if !self.features.redirect_dir && movement.moved().any(bound) {
            return Err(Error::refused("rename", Errno::XDEV));
        }
        for node in movement.moved() {
            self.require_changeable(node, "rename")?;
            self.copy_up(node, Need::Attributes)?;
            self.fix_data_place(node)?;
        }
        if let Some(target) = &movement.target
            && !movement.exchange
        {
            self.require_changeable(target, "rename")?;
            self.keep_other_links(target)?;
        }
        self.upper_parent(movement.from.parent)?;
        self.upper_parent(movement.to.parent)?;
        Ok(())
    }

    /// Moves if everything is still as it was found; false if not.
    fn try_move(&self, movement: &Move<'_>) -> Result<bool> {
        let Move {
            from,
            to,
            source,
            target,
            exchange,
        } = movement;
        let from_dir = self.upper_parent(from.parent)?;
        let to_dir = self.upper_parent(to.parent)?;
        let replaced_dir = target
            .as_ref()
            .filter(|target| target.is_dir() && !exchange);
        let own = match replaced_dir {
            Some(dir) => self.upper_dir(dir)?,
            None => None,
        };
        let moves_dir = movement.moved().any(|node| node.is_dir());
        let _moving = moves_dir.then(|| self.moving.read());
        let mut locked = vec![from.parent, to.parent];
        locked.extend(replaced_dir);
        let _names = lock_names(&locked);
        let target_now = self.lookup_locked(to.parent, to.name)?;
        let same_target = match (&target_now, target) {
            (None, None) => true,
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            _ => false,
        };
        if to.parent.is_removed() {
            return Err(Error::refused("rename", Errno::NOENT));
        }
        if !same_target
            || !self.still(from.parent, from.name, source)?
            || movement.moved().any(|node| !node.in_upper())
            || target
                .as_ref()
                .is_some_and(|target| self.has_links_below(target))
            || replaced_dir.is_some_and(|dir| own.is_some() != dir.in_upper())
        {
            return Ok(false);
        }
        if let Some(dir) = replaced_dir {
            if !self.is_empty_locked(dir)? {
                return Err(Error::refused("rename", Errno::NOTEMPTY));
            }
            if let Some(own) = &own {
                self.empty_for_good(dir, own.as_fd())?;
            }
        }
        let kept = match target {
            Some(target) if target.is_dir() => own.clone(),
            Some(target) => self.keep_object(target)?,
            None => None,
        };
        self.mark_for_move(source, from, to)?;
        self.mark_new_parent(source, to.parent, &to_dir)?;
        if *exchange && let Some(target) = target {
            self.mark_for_move(target, to, from)?;
            self.mark_new_parent(target, from.parent, &from_dir)?;
        }
        let ready = Ready {
            leaves_whiteout: !exchange && self.lower_has(from.parent, from.name)?,
            onto_whiteout: is_whiteout(to_dir.as_fd(), to.name).op("rename")?,
            from: from_dir,
            to: to_dir,
            kept,
        };
        self.commit(movement, &ready)?;
        Ok(true)
    }

    /// Takes the whiteouts out of a directory that is empty in the view. Also if what they make room for fails after all, it
    /// stays empty.
    fn empty_for_good(&self, dir: &NodeRef, own: BorrowedFd<'_>) -> Result<()> {
        // Opaque first: then nothing shows through.
        set_opaque(own, None, self.space).op("rename")?;
        dir.stack.cut();
        clear_whiteouts(own, self.upper_dialects())
    }

    /// Sets the mark that a directory needs in its new place.
    fn mark_for_move(&self, node: &NodeRef, from: &End<'_>, to: &End<'_>) -> Result<()> {
        if !node.is_dir() {
            return Ok(());
        }
        let object = self
            .upper_object(node)?
            .ok_or(Error::refused("rename", Errno::STALE))?;
        let Some(known_as) = node.stack.known_as().filter(|_| !node.stack.is_none()) else {
            if self.lower_has(to.parent, to.name)? {
                set_opaque(object.as_fd(), None, self.space).op("rename")?;
            }
            return Ok(());
        };
        let name = self.space.os_name(Mark::Redirect);
        let present = xattr::get(object.as_fd(), name).op("rename")?;
        let same_parent = Arc::ptr_eq(from.parent, to.parent);
        let redirect = match present {
            // Independent of the place, or still relative to the same parent.
            Some(value) if same_parent || value.starts_with(b"/") => return Ok(()),
            None if same_parent => from.name.as_bytes().to_vec(),
            _ => [b"/", known_as].concat(),
        };
        if redirect.len() > REDIRECT_LIMIT {
            return Err(Error::refused("rename", Errno::XDEV));
        }
        self.set_redirect(object.as_fd(), &redirect)
    }

    fn mark_new_parent(&self, node: &NodeRef, parent: &NodeRef, upper: &OwnedFd) -> Result<()> {
        if node.stack.dirs().is_empty() && !node.is_metacopy() {
            return Ok(());
        }
        self.mark_impure(parent, upper.as_fd())
    }

    pub(crate) fn set_redirect(&self, object: BorrowedFd<'_>, redirect: &[u8]) -> Result<()> {
        self.require_writable("rename")?.note(Trace::Redirect)?;
        let name = self.space.os_name(Mark::Redirect);
        xattr::set(object, name, redirect, XattrFlags::empty()).op("rename")?;
        self.redirects_met.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The move itself, and what the nodes know of their names.
    fn commit(&self, movement: &Move<'_>, ready: &Ready) -> Result<()> {
        let Move {
            from,
            to,
            source,
            target,
            exchange,
        } = movement;
        // A directory's path is about to change: nobody may be walking along it.
        let moves_dir = movement.moved().any(|node| node.is_dir());
        let _tree = moves_dir.then(|| self.tree.write());
        let (mut source_state, mut target_state) = lock_states(source, target.as_ref());
        self.move_names(movement, ready)?;
        source_state.remove_link(&source.stack, from.parent, from.name);
        source_state.add_link(&source.stack, to.link());
        if let (Some(target), Some(state)) = (target, &mut target_state) {
            if *exchange {
                state.remove_link(&target.stack, to.parent, to.name);
                state.add_link(&target.stack, from.link());
            } else if target.is_dir() {
                self.dir_lost(target, state, ready.kept.clone());
            } else {
                self.name_lost(target, state, to.parent, to.name, ready.kept.clone())?;
            }
        }
        if !exchange {
            self.listings.removed(from.parent, from.name);
            self.listings.added(to.parent, to.name);
        }
        Ok(())
    }

    fn move_names(&self, movement: &Move<'_>, ready: &Ready) -> Result<()> {
        let Move {
            from, to, source, ..
        } = movement;
        let rename = |flags| {
            rustix::fs::renameat_with(&ready.from, from.name, &ready.to, to.name, flags)
                .op("rename")
        };
        if movement.exchange {
            return rename(RenameFlags::EXCHANGE);
        }
        if source.is_dir() && ready.onto_whiteout {
            // A directory cannot be renamed over a device: they change places, and the whiteout is where one is wanted,
            // or hides nothing and goes.
            rename(RenameFlags::EXCHANGE)?;
            if !ready.leaves_whiteout
                && let Err(errno) = rustix::fs::unlinkat(&ready.from, from.name, AtFlags::empty())
            {
                // The move is made and stays made: the whiteout hides nothing.
                log::warn!(
                    "rename: a whiteout stays at {}: {errno}",
                    from.name.display()
                );
            }
            return Ok(());
        }
        if ready.leaves_whiteout {
            return rename(RenameFlags::WHITEOUT);
        }
        rename(RenameFlags::empty())
    }
}

impl Move<'_> {
    /// The nodes that get another name.
    fn moved(&self) -> impl Iterator<Item = &NodeRef> {
        std::iter::once(&self.source).chain(self.target.iter().filter(|_| self.exchange))
    }

    /// Refuses what the flags and kinds forbid. True if there is nothing to do.
    fn is_settled(&self, flags: RenameFlags) -> Result<bool> {
        let refuse = |errno| Err(Error::refused("rename", errno));
        let Some(target) = &self.target else {
            return if self.exchange {
                refuse(Errno::NOENT)
            } else {
                Ok(false)
            };
        };
        if flags.contains(RenameFlags::NOREPLACE) {
            return refuse(Errno::EXIST);
        }
        if Arc::ptr_eq(&self.source, target) {
            // Two names of one object: nothing happens, says POSIX.
            return Ok(true);
        }
        if self.exchange {
            return Ok(false);
        }
        match (self.source.is_dir(), target.is_dir()) {
            (true, false) => refuse(Errno::NOTDIR),
            (false, true) => refuse(Errno::ISDIR),
            _ => Ok(false),
        }
    }
}

/// Takes the states of both nodes, in an order that everybody keeps.
fn lock_states<'a>(
    source: &'a NodeRef,
    target: Option<&'a NodeRef>,
) -> (
    RwLockWriteGuard<'a, State>,
    Option<RwLockWriteGuard<'a, State>>,
) {
    match target {
        Some(target) if Arc::as_ptr(target) < Arc::as_ptr(source) => {
            let target = target.state.write();
            (source.state.write(), Some(target))
        }
        Some(target) => {
            let source = source.state.write();
            (source, Some(target.state.write()))
        }
        None => (source.state.write(), None),
    }
}
