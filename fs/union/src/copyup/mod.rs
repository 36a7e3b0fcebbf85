//! Bringing lower objects into the upper.
//!
//! The copy is built in the work directory, complete with owner, mode, attributes and times, and then enters the upper by
//! one rename (or, with all its hard links, by links that an intent record makes recoverable). A server killed at any
//! point leaves the view as it was before or as it is after. No lock is held while data is copied, only the claim on the
//! one node that is copied; who needs that node waits for it, nobody else does.

mod build;
mod data;
mod grow;
mod growing;
mod links;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FileType, OFlags, RenameFlags, Stat, Timestamps, XattrFlags};
use rustix::io::Errno;

pub use grow::Held;
pub(crate) use grow::{Begun, Growth, lost};
pub(crate) use growing::Growing;
pub(crate) use links::LinkIndex;

use crate::error::{Context, Error, Result};
use crate::getattr::Handle;
use crate::node::{Link, LowerFile, NodeRef, State, UpperObject};
use crate::sys::{object, open, xattr};
use crate::view::View;
use crate::work::{Temp, Work};

/// How much of a node must be in the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// An object with its attributes; the data may stay below if the features allow it.
    Attributes,
    /// The data too, up to this length: what is beyond will be cut off.
    Data(u64),
}

impl Need {
    /// All the data.
    pub(crate) const ALL: Self = Self::Data(u64::MAX);

    fn met_by(self, upper: &UpperObject) -> bool {
        !upper.metacopy || self == Self::Attributes
    }
}

impl View {
    /// Refuses a change of a view that cannot be written.
    pub(crate) fn require_writable(&self, op: &'static str) -> Result<&Work> {
        self.work.as_ref().ok_or(Error::refused(op, Errno::ROFS))
    }

    /// The upper object of a node whose attributes are about to change.
    pub(crate) fn upper_for_change(&self, node: &NodeRef) -> Result<Handle> {
        self.require_writable("change attributes")?;
        self.require_changeable(node, "change attributes")?;
        self.copy_up(node, Need::Attributes)?;
        self.upper_object(node)?
            .ok_or(Error::refused("copy up", Errno::STALE))
    }

    /// Makes a file ready to be written; with `truncate` it is empty afterwards.
    ///
    /// # Errors
    /// `EROFS`, `EISDIR` or `EINVAL` for anything but a regular file, or a failed copy-up.
    pub fn prepare_write(&self, node: &NodeRef, truncate: bool) -> Result<()> {
        Self::require_file(node, "open for writing")?;
        self.require_writable("open for writing")?;
        self.require_changeable(node, "open for writing")?;
        if !truncate {
            return self.copy_up(node, Need::ALL);
        }
        self.copy_up(node, Need::Data(0))?;
        // Also of a copy that is empty already: truncating sets the times.
        let file = self.open_data(node, OFlags::WRONLY)?;
        rustix::fs::ftruncate(&file.fd, 0).op("truncate")
    }

    /// Sees to it that a node is in the upper as far as needed; waits if somebody else is at it.
    pub(crate) fn copy_up(&self, node: &NodeRef, need: Need) -> Result<()> {
        let met = |state: &State| state.upper.as_ref().is_some_and(|upper| need.met_by(upper));
        if met(&node.state.read()) {
            return Ok(());
        }
        self.copy_up_parents(node)?;
        let work = self.require_writable("copy up")?;
        let _claim = self.table.claims.claim(node);
        let (present, links, removed) = {
            let state = node.state.read();
            if met(&state) {
                return Ok(());
            }
            let links = state.links(&node.stack);
            (state.upper.is_some(), links, state.is_removed())
        };
        if present {
            return self.bring_data(node, need);
        }
        if removed || links.is_empty() {
            return self.copy_up_nameless(work, node, need);
        }
        if let Some(file) = node.stack.file()
            && file.id().is_some()
            && !self.lowers[usize::from(file.layer())].mutable
        {
            return self.copy_up_group(work, node, need);
        }
        self.copy_up_one(work, node, need, &links[0])
    }

    /// Copies up the directories above a node, from the top down. Not by recursion: how deep a tree is decides who makes
    /// it.
    fn copy_up_parents(&self, node: &NodeRef) -> Result<()> {
        let mut missing = Vec::new();
        let mut here = node.parent();
        while let Some(dir) = here.take_if(|dir| !dir.in_upper()) {
            here = dir.parent();
            missing.push(dir);
        }
        for dir in missing.into_iter().rev() {
            self.copy_up(&dir, Need::Attributes)?;
        }
        Ok(())
    }

    /// Copies up an object with one name.
    fn copy_up_one(&self, work: &Work, node: &NodeRef, need: Need, link: &Link) -> Result<()> {
        self.copy_up(&link.parent, Need::Attributes)?;
        let (temp, copy) = self.build_copy(work, node, need)?;
        self.place_one(work, node, link, temp, copy)
    }

    /// Gives a finished copy its name, or who holds the node if that has been taken away meanwhile.
    fn place_one(
        &self,
        work: &Work,
        node: &NodeRef,
        link: &Link,
        temp: Temp<'_>,
        copy: UpperObject,
    ) -> Result<()> {
        let parent = self.upper_dir(&link.parent);
        let _names = link.parent.names().write();
        if !node
            .state
            .read()
            .has_link(&node.stack, &link.parent, &link.name)
        {
            // Unlinked meanwhile: only those who hold it see it.
            return self.hold_nameless(node, temp, copy);
        }
        let parent = parent?.ok_or(Error::refused("copy up", Errno::STALE))?;
        let times = KeptTimes::of(parent.as_fd())?;
        if node.is_dir() || copy.metacopy {
            self.mark_impure(&link.parent, parent.as_fd())?;
        }
        self.table.add_upper(node, copy.dev, copy.ino, true);
        let flags = RenameFlags::NOREPLACE;
        let placed = rustix::fs::renameat_with(work.fd(), &temp.name, &parent, &link.name, flags);
        if let Err(errno) = placed {
            self.table.release_upper(copy.dev, copy.ino);
            return Err(errno).op("copy up");
        }
        temp.keep();
        times.restore(parent.as_fd());
        node.unsynced.store(true, Ordering::Relaxed);
        node.state.write().upper = Some(Box::new(copy));
        Ok(())
    }

    /// Marks an upper directory that is about to hold something with a lower part (a merged directory, or attributes
    /// without data), as the kernel does: only in such directories does its overlayfs give that the same number in a
    /// listing as in stat. We need no such mark ourselves.
    pub(crate) fn mark_impure(&self, dir: &NodeRef, upper: BorrowedFd<'_>) -> Result<()> {
        if dir.is_impure() {
            return Ok(());
        }
        let name = self.space.os_name(mille_layer::Mark::Impure);
        xattr::set(upper, name, b"y", XattrFlags::empty()).op("copy up")?;
        dir.note_impure();
        Ok(())
    }

    /// Copies up an object that has lost its names, for those who hold it open.
    fn copy_up_nameless(&self, work: &Work, node: &NodeRef, need: Need) -> Result<()> {
        if node.is_dir() {
            return Err(Error::refused("copy up", Errno::NOENT));
        }
        let (temp, copy) = self.build_copy(work, node, need)?;
        self.hold_nameless(node, temp, copy)
    }

    fn hold_nameless(&self, node: &NodeRef, temp: Temp<'_>, copy: UpperObject) -> Result<()> {
        if node.is_dir() {
            return Err(Error::refused("copy up", Errno::NOENT));
        }
        let work = self.require_writable("copy up")?;
        let handle = open::handle(work.fd(), &temp.name).op("copy up")?;
        // The name in the work directory goes; the handle keeps the object.
        drop(temp);
        let orphan = Some(Arc::new(handle));
        node.state.write().upper = Some(Box::new(UpperObject { orphan, ..copy }));
        Ok(())
    }

    /// Gives an upper file that has only attributes its data. The mark that sends readers below goes last, so that a
    /// file half filled is never read.
    fn bring_data(&self, node: &NodeRef, need: Need) -> Result<()> {
        let Need::Data(limit) = need else {
            return Ok(());
        };
        let handle = self
            .upper_object(node)?
            .ok_or(Error::refused("copy up", Errno::STALE))?;
        let stat = rustix::fs::fstat(&handle).op("copy up")?;
        let lower = node
            .stack
            .file()
            .ok_or(Error::refused("copy up", Errno::IO))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0).min(limit);
        let target = self.open_for_filling(handle.as_fd())?;
        let privileges = KeptPrivileges::of(handle.as_fd(), &stat)?;
        let filled = self.fill(lower, target.as_fd(), size);
        if filled.is_err() {
            // What was copied is not read by anybody, but takes space.
            let whole = u64::try_from(stat.st_size).unwrap_or(0);
            let emptied = rustix::fs::ftruncate(&target, 0);
            if let Err(errno) = emptied.and_then(|()| rustix::fs::ftruncate(&target, whole)) {
                log::error!("copy up: half-copied data stays: {errno}");
            }
        }
        privileges.restore(handle.as_fd())?;
        object::set_times(handle.as_fd(), &object::times_of(&stat)).op("copy up")?;
        filled?;
        for mark in [mille_layer::Mark::Metacopy, mille_layer::Mark::Redirect] {
            let name = self.space.os_name(mark);
            xattr::remove_if_present(handle.as_fd(), name).op("copy up")?;
        }
        node.unsynced.store(true, Ordering::Relaxed);
        if let Some(upper) = &mut node.state.write().upper {
            upper.metacopy = false;
        }
        Ok(())
    }

    /// Copies the first bytes of a lower file into an upper one.
    fn fill(&self, lower: &LowerFile, target: BorrowedFd<'_>, size: u64) -> Result<()> {
        if size == 0 {
            return rustix::fs::ftruncate(target, 0).op("copy up data");
        }
        let source = self.lower_handle(lower.data_owner())?;
        let source = open::reopen(source.as_fd(), OFlags::RDONLY).op("copy up")?;
        data::copy(source.as_fd(), target, size).op("copy up data")?;
        if self.features.volatile {
            return Ok(());
        }
        rustix::fs::fsync(target).op("copy up data")
    }

    /// Opens an upper file of ours for writing, whatever its permission bits say.
    fn open_for_filling(&self, handle: BorrowedFd<'_>) -> Result<OwnedFd> {
        self.retry_short_of_fds(|| open::reopen(handle, OFlags::WRONLY))
            .op("copy up")
    }

    /// The upper directory into which names are about to be put.
    pub(crate) fn upper_parent(&self, dir: &NodeRef) -> Result<Arc<OwnedFd>> {
        if !dir.is_dir() {
            return Err(Error::refused("change directory", Errno::NOTDIR));
        }
        self.require_changeable(dir, "change directory")?;
        self.copy_up(dir, Need::Attributes)?;
        self.upper_dir(dir)?
            .ok_or(Error::refused("change directory", Errno::NOENT))
    }

    /// Flushes a node's upper object; and, if it came up since the last flush, the directories through which it did, so
    /// that a crash of the machine cannot bring the lower one back.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self, node: &NodeRef, data_only: bool) -> Result<()> {
        self.sync_through(node, data_only, None)
    }

    /// As [`Self::sync`], through a descriptor that is open already, if there is one: the object's mode need not allow to
    /// open it once more.
    pub(crate) fn sync_through(
        &self,
        node: &NodeRef,
        data_only: bool,
        mut held: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        if !matches!(node.kind, FileType::RegularFile | FileType::Directory) {
            return Ok(());
        }
        let mut here = node.clone();
        let mut data_only = data_only;
        loop {
            let fresh = here.unsynced.swap(false, Ordering::Relaxed);
            let Some(handle) = self.upper_object(&here)? else {
                return Ok(());
            };
            let data_only_here = data_only && !fresh;
            let synced = match held.take() {
                Some(file) => object::sync_open(file, data_only_here),
                None => object::sync(handle.as_fd(), data_only_here),
            };
            let synced = match synced {
                // An ordinary user's server may no longer open it. Flushing more than was asked for will do.
                Err(Errno::ACCESS) => self.require_writable("fsync")?.flush_file_system(),
                other => other,
            };
            if let Err(errno) = synced {
                here.unsynced.fetch_or(fresh, Ordering::Relaxed);
                return Err(errno).op("fsync");
            }
            match here.parent() {
                Some(parent) if fresh => here = parent,
                _ => return Ok(()),
            }
            data_only = false;
        }
    }
}

/// What a write takes from a file, but must not when the write is a copy-up or a mapping's: its capability, and its set-id
/// bits where the server is an ordinary user.
pub(crate) struct KeptPrivileges {
    mode: u32,
    capability: Option<Vec<u8>>,
}

impl KeptPrivileges {
    pub(crate) fn of(file: BorrowedFd<'_>, stat: &Stat) -> Result<Self> {
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            capability: xattr::get(file, CAPABILITY.as_ref()).op("copy up")?,
        })
    }

    pub(crate) fn restore(&self, file: BorrowedFd<'_>) -> Result<()> {
        let now = rustix::fs::fstat(file).op("copy up")?;
        if now.st_mode & 0o7777 != self.mode {
            object::set_mode(file, self.mode).op("copy up mode")?;
        }
        if let Some(value) = &self.capability {
            xattr::set(file, CAPABILITY.as_ref(), value, XattrFlags::empty()).op("copy up")?;
        }
        Ok(())
    }
}

const CAPABILITY: &str = "security.capability";

/// The times of a directory that a copy-up inside it must not change.
pub(crate) struct KeptTimes(Timestamps);

impl KeptTimes {
    pub(crate) fn of(dir: BorrowedFd<'_>) -> Result<Self> {
        let stat = rustix::fs::fstat(dir).op("stat directory")?;
        Ok(Self(object::times_of(&stat)))
    }

    pub(crate) fn restore(&self, dir: BorrowedFd<'_>) {
        if let Err(errno) = object::set_times(dir, &self.0) {
            log::warn!("copy up: cannot restore a directory's times: {errno}");
        }
    }
}
