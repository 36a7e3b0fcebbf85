//! Requests that read and change attributes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use fuser::{Errno, INodeNo, ReplyAttr, ReplyEmpty, ReplyXattr};
use rustix::fs::XattrFlags;
use rustix::io::Errno as Os;

use super::convert;
use super::faces::Way;
use super::files::Caller;
use super::server::Server;
use crate::error::{Context, Error, Result};
use crate::node::{NodeId, NodeRef};
use crate::setattr::SetAttr;
use crate::sys::xattr::is_acl;

/// The ACL that has the mode in it.
const ACCESS_ACL: &str = "system.posix_acl_access";

impl Server {
    pub(crate) fn setattr(
        &self,
        caller: Caller,
        ino: INodeNo,
        node: &NodeRef,
        change: SetAttr,
        by_path: bool,
        reply: ReplyAttr,
    ) {
        let id = convert::node_id(ino);
        let result = self.try_setattr(caller, node, id, &change);
        if result.is_ok() && change.size.is_some() && by_path && self.reads_old_bytes(node, id) {
            // Readers keep the old bytes under this number; the new size belongs to the new one.
            self.renumber(node, id);
            return reply.error(Errno::ESTALE);
        }
        let attr = result.and_then(|()| self.view.attr(node));
        self.attr_reply(node, id, reply, attr);
    }

    fn try_setattr(
        &self,
        caller: Caller,
        node: &NodeRef,
        id: NodeId,
        change: &SetAttr,
    ) -> Result<()> {
        if change.is_empty() {
            // The kernel's way of asking that set-id bits go: somebody is about to write.
            return self.strip_set_id(caller, node, id);
        }
        let mut stored = SetAttr {
            uid: self
                .view
                .owners
                .chown_uid(change.uid)
                .ok_or(unknown_owner())?,
            gid: self
                .view
                .owners
                .chown_gid(change.gid)
                .ok_or(unknown_owner())?,
            ..change.clone()
        };
        if stored.size.is_some() {
            self.view.settle(node);
            self.refuse_lost(id, "truncate")?;
        }
        if let Some(file) = self.held_for_writing(id).filter(|_| change.by_handle)
            && let Some(size) = stored.size.take()
        {
            // Through what was opened: the mode may have changed since.
            rustix::fs::ftruncate(&file, size).op("truncate")?;
        }
        if !stored.is_empty() {
            self.view.set_attr(node, &stored)?;
        }
        if change.size.is_some() {
            self.strip_set_id(caller, node, id)?;
        }
        Ok(())
    }

    /// True if a number has readers of the lower's bytes while the upper has its own.
    fn reads_old_bytes(&self, node: &NodeRef, id: NodeId) -> bool {
        self.faces.known(id).is_some_and(|face| {
            matches!(&face.lock().way, Way::Direct(backing) if backing.in_upper != node.data_in_upper())
        })
    }

    pub(crate) fn setxattr(
        self: &Arc<Self>,
        caller: Caller,
        (ino, name): (INodeNo, &OsStr),
        value: &[u8],
        flags: XattrFlags,
        reply: ReplyEmpty,
    ) {
        let node = match self.node(ino) {
            Ok(node) => node,
            Err(error) => return reply.error(self.refusal("setxattr", &error)),
        };
        if is_acl(name) && !self.acl {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let (name, mut value) = (name.to_owned(), value.to_vec());
        if is_acl(&name) {
            match self.view.owners.stored_acl(value) {
                Some(stored) => value = stored,
                None => return reply.error(self.refusal("setxattr", &unknown_owner())),
            }
        }
        let slow = self.is_slow(&node, false);
        self.run(slow, move |server| {
            let set = server.try_set_xattr(caller, &node, (&name, &value), flags);
            server.xattr_changed(&node, &name, convert::node_id(ino));
            server.empty_reply("setxattr", set, reply);
        });
    }

    fn try_set_xattr(
        &self,
        caller: Caller,
        node: &NodeRef,
        (name, value): (&OsStr, &[u8]),
        flags: XattrFlags,
    ) -> Result<()> {
        self.view.set_xattr(node, name, value, flags)?;
        // The kernel's verdict (FUSE_SETXATTR_ACL_KILL_SGID) does not reach us through the library.
        if name == ACCESS_ACL && !caller.keeps_set_gid(&self.view, node)? {
            self.view.clear_set_gid(node)?;
        }
        Ok(())
    }

    pub(crate) fn removexattr(self: &Arc<Self>, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let node = match self.node(ino) {
            Ok(node) => node,
            Err(error) => return reply.error(self.refusal("removexattr", &error)),
        };
        let name = name.to_owned();
        let slow = self.is_slow(&node, false);
        self.run(slow, move |server| {
            let removed = server.view.remove_xattr(&node, &name);
            server.xattr_changed(&node, &name, convert::node_id(ino));
            server.empty_reply("removexattr", removed, reply);
        });
    }

    /// An access ACL changes the mode as well.
    fn xattr_changed(&self, _node: &NodeRef, name: &OsStr, id: NodeId) {
        if is_acl(name) {
            self.attributes_changed(id);
        }
    }

    pub(crate) fn getxattr(&self, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        if is_acl(name) && !self.acl {
            return reply.error(Errno::EOPNOTSUPP);
        }
        if self.bareness.asked(&self.view) {
            // Once: the kernel does not ask again.
            return reply.error(Errno::ENOSYS);
        }
        match self
            .node(ino)
            .and_then(|node| self.view.get_xattr(&node, name))
        {
            Ok(Some(value)) if is_acl(name) => {
                sized(&self.view.owners.shown_acl(value), size, reply);
            }
            Ok(Some(value)) => sized(&value, size, reply),
            Ok(None) => reply.error(Errno::NO_XATTR),
            Err(error) => reply.error(self.refusal("getxattr", &error)),
        }
    }

    pub(crate) fn listxattr(&self, caller: Caller, ino: INodeNo, size: u32, reply: ReplyXattr) {
        match self.node(ino).and_then(|node| self.view.list_xattr(&node)) {
            Ok(names) => {
                let trusted = |name: &OsString| name.as_bytes().starts_with(b"trusted.");
                // Asked only where it matters: it is read from /proc.
                let all = !names.iter().any(trusted) || caller.sees_trusted();
                let shown = names
                    .iter()
                    .filter(|name| (self.acl || !is_acl(name)) && (all || !trusted(name)));
                let mut list = Vec::new();
                for name in shown {
                    list.extend_from_slice(name.as_bytes());
                    list.push(0);
                }
                sized(&list, size, reply);
            }
            Err(error) => reply.error(self.refusal("listxattr", &error)),
        }
    }
}

/// The layers have no id for whom the caller names.
fn unknown_owner() -> Error {
    Error::refused("store owner", Os::OVERFLOW)
}

/// Answers with the value, or with its size if the caller asks for that first.
fn sized(value: &[u8], size: u32, reply: ReplyXattr) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    if size == 0 {
        reply.size(length);
    } else if length > size {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}
