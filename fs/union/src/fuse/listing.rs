//! Listings.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::convert;
use super::server::{GENERATION, Server};
use crate::attr::Attr;
use crate::error::Result;
use crate::node::{EXTRA_IDS, NodeId, NodeRef};

/// Offset of `.`, and of `..` after it.
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// Numbers under which nothing is known: for entries that cannot be looked at. Above those that nodes have.
const UNKNOWN: u64 = 1 << 61;
const UNKNOWN_IDS: u64 = EXTRA_IDS | UNKNOWN;

/// Names taken from a listing at a time: a 32 KiB buffer holds about 200 entries with attributes.
const BATCH: usize = 256;

/// Takes an entry (cookie, name, node unless it is `.` or `..`, attributes); true if there was no room for it.
type Add<'a> = dyn FnMut(u64, &OsStr, Option<&NodeRef>, &Attr) -> bool + 'a;

impl Server {
    pub(crate) fn readdirplus(&self, ino: INodeNo, offset: u64, mut reply: ReplyDirectoryPlus) {
        let mut add = |cookie: u64, name: &OsStr, node: Option<&NodeRef>, attr: &Attr| {
            let Some(node) = node else {
                // Of `.` and `..` the kernel takes only the number; what cannot be looked at is not believed.
                let attr = self.shown(attr, attr.ino);
                return reply.add(attr.ino, cookie, name, &Duration::ZERO, &attr, GENERATION);
            };
            // The library tells number and inode number as one, so an object with two numbers is told under the first,
            // with no lifetime: the next user asks again.
            let id = NodeId(node.ino);
            let ttl = self.attr_ttl(node, id);
            let entry_ttl = if node.id() == id {
                self.entry_ttl()
            } else {
                Duration::ZERO
            };
            let attr = self.shown(attr, id.0);
            self.view.table.remember(id, node);
            let full = reply.add(
                attr.ino,
                cookie,
                name,
                &ttl.min(entry_ttl),
                &attr,
                GENERATION,
            );
            if full {
                self.forget(id, 1);
            }
            full
        };
        match self.walk(ino, offset, &mut add) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.refusal("readdir", &error)),
        }
    }

    pub(crate) fn readdir(&self, ino: INodeNo, offset: u64, mut reply: ReplyDirectory) {
        let mut add = |cookie: u64, name: &OsStr, _: Option<&NodeRef>, attr: &Attr| {
            reply.add(INodeNo(attr.ino), cookie, convert::kind(attr.kind), name)
        };
        match self.walk(ino, offset, &mut add) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.refusal("readdir", &error)),
        }
    }

    /// Gives the entries after an offset to `add` until that says that there is no more room.
    fn walk(&self, ino: INodeNo, offset: u64, add: &mut Add<'_>) -> Result<()> {
        let dir = self.node(ino)?;
        if offset < DOT && add(DOT, OsStr::new("."), None, &self.view.attr(&dir)?) {
            return Ok(());
        }
        if offset < DOT_DOT {
            let parent = dir.parent();
            let attr = self.view.attr(&parent.unwrap_or_else(|| dir.clone()))?;
            if add(DOT_DOT, OsStr::new(".."), None, &attr) {
                return Ok(());
            }
        }
        let mut offset = offset.max(DOT_DOT);
        loop {
            let batch: Vec<(u64, OsString)> = self.view.names_after(&dir, offset, BATCH)?;
            if batch.is_empty() {
                return Ok(());
            }
            for (cookie, name) in batch {
                offset = cookie;
                let full = match self.view.lookup_attr(&dir, &name) {
                    Ok(Some((node, attr))) => add(cookie, &name, Some(&node), &attr),
                    // Gone since the listing was taken: left out.
                    Ok(None) => continue,
                    // Who asks for it by name is told why; the others can be listed.
                    Err(error) => {
                        log::error!("list {}: {error}", name.display());
                        // Programs take the number 0 for "no entry".
                        let number = UNKNOWN_IDS | cookie & (UNKNOWN - 1);
                        add(cookie, &name, None, &Attr::unknown(number))
                    }
                };
                if full {
                    return Ok(());
                }
            }
        }
    }
}
