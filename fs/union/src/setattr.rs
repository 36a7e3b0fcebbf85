//! Changing attributes.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};

use mille_layer::{OverrideStat, Ownership};
use rustix::fs::{FileType, OFlags, Stat, StatVfs, Timespec, Timestamps};
use rustix::io::Errno;

use crate::attr::Time;
use crate::copyup::Need;
use crate::error::{Context, Error, Result};
use crate::node::NodeRef;
use crate::ownership::told_kind;
use crate::sys::{lease, object, xattr};
use crate::view::View;

/// Changes of attributes; `None` leaves one as it is.
#[derive(Clone, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length of a regular file.
    pub size: Option<u64>,
    /// The length is set as ftruncate(2) does, which renews the times even if it stays the same.
    pub by_handle: bool,
    /// Time of last access.
    pub atime: Option<SetTime>,
    /// Time of last change.
    pub mtime: Option<SetTime>,
}

/// A time to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present.
    Now,
    /// This one.
    To(Time),
}

impl SetAttr {
    pub(crate) fn is_empty(&self) -> bool {
        self.mode.is_none()
            && self.uid.is_none()
            && self.gid.is_none()
            && self.size.is_none()
            && self.atime.is_none()
            && self.mtime.is_none()
    }
}

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const GROUP_EXEC: u32 = 0o0010;

impl View {
    /// Changes attributes.
    ///
    /// # Errors
    /// `EROFS`, a failed copy-up, or a failed system call.
    pub fn set_attr(&self, node: &NodeRef, change: &SetAttr) -> Result<()> {
        self.require_writable("setattr")?;
        // Of no user: system calls take it for "leave it", and their wrappers for a mistake.
        if [change.uid, change.gid].contains(&Some(u32::MAX)) {
            return Err(Error::refused("chown", Errno::INVAL));
        }
        if let Some(size) = change.size {
            self.set_size(node, size, change.by_handle)?;
        }
        let SetAttr {
            mode,
            uid,
            gid,
            atime,
            mtime,
            ..
        } = *change;
        if mode.is_none() && uid.is_none() && gid.is_none() && atime.is_none() && mtime.is_none() {
            return Ok(());
        }
        let handle = self.upper_for_change(node)?;
        let handle = handle.as_fd();
        if self.ownership == Ownership::Override || self.stands_for_another(node, handle)? {
            self.tell(node, handle, mode, uid, gid)?;
        } else {
            if uid.is_some() || gid.is_some() {
                object::set_owner(handle, uid, gid).op("chown")?;
            }
            if let Some(mode) = mode {
                if node.kind == FileType::Symlink {
                    return Err(Error::refused("chmod", Errno::OPNOTSUPP));
                }
                object::set_mode(handle, mode).op("chmod")?;
            }
        }
        if atime.is_some() || mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(atime),
                last_modification: timespec(mtime),
            };
            object::set_times(handle, &times).op("utimensat")?;
        }
        Ok(())
    }

    fn set_size(&self, node: &NodeRef, size: u64, by_handle: bool) -> Result<()> {
        Self::require_file(node, "truncate")?;
        let Ok(length) = i64::try_from(size) else {
            return Err(Error::refused("truncate", Errno::INVAL));
        };
        self.require_changeable(node, "truncate")?;
        let stays = u64::try_from(self.object_stat(node)?.st_size) == Ok(size);
        self.copy_up(node, Need::Data(size))?;
        let file = self.open_data(node, OFlags::WRONLY)?;
        if stays && !by_handle {
            // Sets times on some file systems and not on others.
            object::truncate(file.fd.as_fd(), length).op("truncate")
        } else {
            rustix::fs::ftruncate(&file.fd, size).op("truncate")
        }
    }

    /// True if the upper object is an empty file that stands for a device.
    fn stands_for_another(&self, node: &NodeRef, object: BorrowedFd<'_>) -> Result<bool> {
        if !self.dialects.overrides || node.kind == FileType::RegularFile || node.is_dir() {
            return Ok(false);
        }
        let stored = rustix::fs::fstat(object).op("setattr")?;
        Ok(FileType::from_raw_mode(stored.st_mode) != node.kind)
    }

    /// Changes owner and mode where they are kept in an attribute.
    fn tell(
        &self,
        node: &NodeRef,
        object: BorrowedFd<'_>,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<()> {
        if node.kind == FileType::Symlink {
            // Nothing can be kept there: links belong to root.
            return Ok(());
        }
        let now: Stat = self.object_stat(node)?;
        let mut kept = now.st_mode & 0o7777;
        if (uid.is_some() || gid.is_some()) && !node.is_dir() {
            kept = without_set_id(kept, Membership::Inside);
        }
        let told = OverrideStat {
            uid: uid.unwrap_or(now.st_uid),
            gid: gid.unwrap_or(now.st_gid),
            mode: mode.unwrap_or(kept),
            kind: told_kind(node.kind, now.st_rdev),
        };
        told.set(object, None).op("chown")
    }

    /// Clears set-id bits and the file capability of a file that somebody without the right to keep them changes. True
    /// if that changed the mode.
    ///
    /// # Errors
    /// A failed system call.
    pub(crate) fn strip_set_id(&self, node: &NodeRef, changer: Membership) -> Result<bool> {
        if node.kind != FileType::RegularFile || !node.in_upper() {
            return Ok(false);
        }
        let Some(handle) = self.upper_object(node)? else {
            return Ok(false);
        };
        let mode = self.object_stat(node)?.st_mode & 0o7777;
        let stripped = without_set_id(mode, changer);
        if stripped != mode {
            if self.ownership == Ownership::Override {
                self.tell(node, handle.as_fd(), Some(stripped), None, None)?;
            } else {
                object::set_mode(handle.as_fd(), stripped).op("clear set-id bits")?;
            }
        }
        let capability = OsStr::new("security.capability");
        // Looked for first: to remove it is a privilege even if it is not there.
        if xattr::get(handle.as_fd(), capability)
            .op("clear file capability")?
            .is_some()
        {
            xattr::remove_if_present(handle.as_fd(), capability).op("clear file capability")?;
        }
        Ok(stripped != mode)
    }

    /// Clears the set-group-id bit, after somebody outside of the group has changed the ACL.
    ///
    /// # Errors
    /// A failed system call.
    pub(crate) fn clear_set_gid(&self, node: &NodeRef) -> Result<()> {
        let mode = self.object_stat(node)?.st_mode & 0o7777 & !SET_GID;
        self.set_attr(
            node,
            &SetAttr {
                mode: Some(mode),
                ..SetAttr::default()
            },
        )
    }

    /// Size and free space: those of the upper's file system, or of the topmost layer's.
    ///
    /// # Errors
    /// A failed system call.
    pub fn statfs(&self) -> Result<StatVfs> {
        let root = match &self.upper {
            Some(upper) => upper.root.clone(),
            None => self.lower_root(0)?,
        };
        rustix::fs::fstatvfs(root).op("statfs")
    }

    /// True if the upper is in memory, where a flush has nothing to wait for.
    pub(crate) fn upper_is_in_memory(&self) -> bool {
        /// `TMPFS_MAGIC` of linux/magic.h.
        const TMPFS: u64 = 0x0102_1994;
        let Some(upper) = &self.upper else {
            return false;
        };
        // A number of 32 bits, whatever its type here.
        rustix::fs::fstatfs(&upper.root).is_ok_and(|fs| fs.f_type as u64 == TMPFS)
    }

    /// True if some process or mapping has the file's bytes open for writing; `None` if that cannot be found out.
    pub(crate) fn data_open_for_writing(&self, node: &NodeRef) -> Option<bool> {
        let file = self.open_data(node, OFlags::RDONLY).ok()?;
        lease::open_for_writing(file.fd.as_fd())
    }

    /// True if some lower may change below us.
    pub(crate) fn has_mutable_lower(&self) -> bool {
        self.lowers.iter().any(|lower| lower.mutable)
    }
}

/// Whether who changes a file is in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    Inside,
    Outside,
}

/// The mode after a write by somebody who may not keep set-id bits. Set-group-id without group execution, which once
/// marked mandatory locking, stays for the members of the group.
fn without_set_id(mode: u32, changer: Membership) -> u32 {
    let mut mode = mode & !SET_UID;
    if mode & GROUP_EXEC != 0 || changer == Membership::Outside {
        mode &= !SET_GID;
    }
    mode
}

fn timespec(time: Option<SetTime>) -> Timespec {
    /// `UTIME_NOW` and `UTIME_OMIT` of utimensat(2).
    const NOW: i64 = (1 << 30) - 1;
    const OMIT: i64 = (1 << 30) - 2;
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: OMIT,
        },
        Some(SetTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: NOW,
        },
        Some(SetTime::To(Time { sec, nsec })) => Timespec {
            tv_sec: sec,
            tv_nsec: i64::from(nsec),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_id_bits_go_as_the_kernel_has_it() {
        for (mode, inside, outside) in [
            (0o6755, 0o755, 0o755),
            (0o2644, 0o2644, 0o644),
            (0o4644, 0o644, 0o644),
            (0o1777, 0o1777, 0o1777),
        ] {
            assert_eq!(without_set_id(mode, Membership::Inside), inside);
            assert_eq!(without_set_id(mode, Membership::Outside), outside);
        }
    }
}
