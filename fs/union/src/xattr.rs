//! Extended attributes as callers see them: the overlay's own are not there, and those of an overlay that uses the mount
//! as one of its layers are stored under other names.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;

use mille_layer::{shown_xattr, stored_xattr};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::chain::is_listed_family;
use crate::error::{Context, Error, Result};
use crate::node::NodeRef;
use crate::sys::xattr;
use crate::view::View;

impl View {
    /// The value of an extended attribute; `None` if there is none.
    ///
    /// # Errors
    /// `EOPNOTSUPP` for a name of which the file system knows nothing, or a failed system call.
    pub fn get_xattr(&self, node: &NodeRef, name: &OsStr) -> Result<Option<Vec<u8>>> {
        let often = name == node.often_asked();
        if often && node.lacks_often_asked() {
            return Ok(None);
        }
        let value = self.read_xattr(node, name)?;
        if often && value.is_none() && self.changes_by_us_alone(node) {
            node.note_lack();
        }
        Ok(value)
    }

    fn read_xattr(&self, node: &NodeRef, name: &OsStr) -> Result<Option<Vec<u8>>> {
        let Some(stored) = stored_xattr(name) else {
            return Ok(None);
        };
        if is_listed_family(&stored) && self.has_no_xattrs(node)? {
            return Ok(None);
        }
        let handle = self.object(node)?;
        if xattr::is_acl(&stored) {
            // The kernel asks for these by itself: where there can be none, there is none.
            return xattr::get(handle.as_fd(), &stored).op("getxattr");
        }
        xattr::ask(handle.as_fd(), &stored).op("getxattr")
    }

    /// The names of the extended attributes.
    ///
    /// # Errors
    /// A failed system call.
    pub fn list_xattr(&self, node: &NodeRef) -> Result<Vec<OsString>> {
        if self.has_no_xattrs(node)? {
            return Ok(Vec::new());
        }
        let handle = self.object(node)?;
        let names = xattr::list(handle.as_fd()).op("listxattr")?;
        Ok(names
            .iter()
            .filter_map(|name| shown_xattr(name).map(Cow::into_owned))
            .collect())
    }

    /// Sets an extended attribute; `flags` as of setxattr(2): create only, or replace only.
    ///
    /// # Errors
    /// `EPERM` for the overlay's own names, `EEXIST`, `ENODATA`, or a failed system call.
    pub fn set_xattr(
        &self,
        node: &NodeRef,
        name: &OsStr,
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        let stored = stored_xattr(name).ok_or(Error::refused("setxattr", Errno::PERM))?;
        // Refusals come before the copy-up they would make useless.
        let present = self.get_xattr(node, name)?.is_some();
        if flags.contains(XattrFlags::CREATE) && present {
            return Err(Error::refused("setxattr", Errno::EXIST));
        }
        if flags.contains(XattrFlags::REPLACE) && !present {
            return Err(Error::refused("setxattr", Errno::NODATA));
        }
        let handle = self.upper_for_change(node)?;
        if name == node.often_asked() {
            node.doubt_lack();
        }
        xattr::set(handle.as_fd(), &stored, value, flags).op("setxattr")
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// `ENODATA` if there is none, `EPERM` for the overlay's own names, or a failed system call.
    pub fn remove_xattr(&self, node: &NodeRef, name: &OsStr) -> Result<()> {
        let stored = stored_xattr(name).ok_or(Error::refused("removexattr", Errno::PERM))?;
        self.require_writable("removexattr")?;
        if self.get_xattr(node, name)?.is_none() {
            return Err(Error::refused("removexattr", Errno::NODATA));
        }
        let handle = self.upper_for_change(node)?;
        xattr::remove(handle.as_fd(), &stored).op("removexattr")
    }
}
