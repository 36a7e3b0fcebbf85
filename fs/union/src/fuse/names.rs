//! Requests that make, remove and move names.

use std::ffi::OsStr;
use std::sync::Arc;

use fuser::{INodeNo, ReplyCreate, ReplyEmpty, ReplyEntry, Request};
use rustix::fs::RenameFlags;
use rustix::io::Errno as Os;

use super::files::{Caller, Created};
use super::server::Server;
use crate::create::{Make, Opening};
use crate::error::{Error, Result};
use crate::node::{NodeId, NodeRef};

/// A copy-up of a file up to this size takes no longer than a request's own cost.
const QUICK_COPY: u64 = 256 * 1024;

impl Server {
    pub(crate) fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        what: Make<'_>,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.node(parent).and_then(|parent| {
            let owner = self.owner(request);
            self.view.make(&parent, name, what, umask, owner)
        });
        self.entry_reply(made, reply);
    }

    pub(crate) fn create(
        &self,
        request: &Request,
        (parent, name): (INodeNo, &OsStr),
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let caller = Caller::from(request);
        let made = self.node(parent).and_then(|parent| {
            let owner = self.owner(request);
            // Who writes past us needs no descriptor of ours.
            let opening = match self.passthrough() {
                true => Opening::Handle,
                false => Opening::ReadWrite,
            };
            let made = self
                .view
                .create(&parent, name, (mode, umask), owner, opening);
            match made {
                Err(error) if error.is(Os::EXIST) && flags & libc::O_EXCL == 0 => {
                    self.open_instead(&parent, name, caller, flags)
                }
                made => made.map(|made| (made.node.clone(), Created::New(made))),
            }
        });
        match made {
            Ok((node, file)) => self.created(&node, file, flags, reply),
            Err(error) => reply.error(self.refusal("create", &error)),
        }
    }

    /// Somebody else made the file since the kernel asked: what CREATE without O_EXCL finds it opens.
    fn open_instead(
        &self,
        parent: &NodeRef,
        name: &OsStr,
        caller: Caller,
        flags: i32,
    ) -> Result<(NodeRef, Created)> {
        let node = self
            .view
            .lookup(parent, name)?
            .filter(|node| node.kind == rustix::fs::FileType::RegularFile)
            // Anything else is for the kernel to look at again.
            .ok_or(Error::refused("create", Os::STALE))?;
        let truncate = flags & libc::O_TRUNC != 0;
        self.view.prepare_write(&node, truncate)?;
        if truncate {
            self.strip_set_id(caller, &node, node.id())?;
        }
        let (handle, _) = self.view.data_handle(&node)?;
        Ok((node, Created::Found(handle)))
    }

    pub(crate) fn remove(
        self: &Arc<Self>,
        parent: INodeNo,
        name: &OsStr,
        dir: bool,
        reply: ReplyEmpty,
    ) {
        let op = if dir { "rmdir" } else { "unlink" };
        let parent = match self.node(parent) {
            Ok(parent) => parent,
            Err(error) => return reply.error(self.refusal(op, &error)),
        };
        let removed = if dir {
            self.view.rmdir(&parent, name)
        } else {
            self.view.unlink(&parent, name)
        };
        self.empty_reply(op, removed, reply);
    }

    pub(crate) fn rename(
        self: &Arc<Self>,
        (parent, name): (INodeNo, &OsStr),
        (newparent, newname): (INodeNo, &OsStr),
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let nodes = self
            .node(parent)
            .and_then(|parent| self.node(newparent).map(|newparent| (parent, newparent)));
        let (parent, newparent) = match nodes {
            Ok(nodes) => nodes,
            Err(error) => return reply.error(self.refusal("rename", &error)),
        };
        let is_slow = |parent: &NodeRef, name: &OsStr| {
            let node = self.view.lookup(parent, name);
            node.is_ok_and(|node| node.is_some_and(|node| self.is_slow(&node, true)))
        };
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let slow = is_slow(&parent, name) || exchange && is_slow(&newparent, newname);
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.run(slow, move |server| {
            let renamed = server
                .view
                .rename(&parent, &name, &newparent, &newname, flags);
            server.empty_reply("rename", renamed, reply);
        });
    }

    pub(crate) fn link(
        self: &Arc<Self>,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let nodes = self
            .node(ino)
            .and_then(|node| self.node(newparent).map(|parent| (node, parent)));
        let (node, parent) = match nodes {
            Ok(nodes) => nodes,
            Err(error) => return reply.error(self.refusal("link", &error)),
        };
        let newname = newname.to_owned();
        let slow = self.is_slow(&node, true);
        self.run(slow, move |server| {
            let linked = server.view.link(&node, &parent, &newname);
            server.entry_reply(linked.map(|()| node), reply);
        });
    }

    pub(crate) fn forget(&self, id: NodeId, count: u64) {
        if id == NodeId::ROOT {
            return;
        }
        let gone = self.view.table.forget(id, count, || self.faces.forget(id));
        if let Some(gone) = gone {
            drop(gone);
            self.tidy.forgotten();
        }
    }

    /// True if changing a node may mean copying much, or waiting for somebody who does.
    pub(crate) fn is_slow(&self, node: &NodeRef, data: bool) -> bool {
        if node.kind != rustix::fs::FileType::RegularFile || node.data_in_upper() {
            return false;
        }
        if node.is_copying() {
            return true;
        }
        let copies = data || !self.view.features.metacopy;
        copies
            && self
                .view
                .object_stat(node)
                .is_ok_and(|stat| u64::try_from(stat.st_size).unwrap_or(0) > QUICK_COPY)
    }
}
