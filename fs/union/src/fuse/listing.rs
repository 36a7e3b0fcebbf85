//! Listings.
//!
//! Entries come with their attributes, so that whoever looks at them asks no more. In a directory of thousands of names that
//! is most of the work, and done for nothing where only names are wanted; so there the first thousand entries come with
//! attributes, one of which says that it is to be asked for again. Who does not ask wants names, and gets nothing else from
//! then on, until somebody asks for entries of the directory; and a thread that asks after it has read the names gets
//! attributes with every listing.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{Errno, INodeNo, ReplyDirectory, ReplyDirectoryPlus, Request};
use rustix::fs::FileType;
use rustix::io::{Errno as Os, IoSlice};

use super::convert;
use super::readers::{LONG, Wanted};
use super::server::{GENERATION, Server};
use crate::attr::Attr;
use crate::error::{Context, Error, Result};
use crate::node::{EXTRA_IDS, NodeId, NodeRef};
use crate::readdir::Name;

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
    pub(crate) fn readdirplus(
        &self,
        request: &Request,
        ino: INodeNo,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let reading = match self.reading(request, ino, offset) {
            Ok(reading) => reading,
            Err(error) => return reply.error(self.refusal("readdir", &error)),
        };
        if reading == Some(Wanted::Names) {
            return self.answer_names(request, ino, offset, reply);
        }
        let mut told = 0;
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
            let probe = reading == Some(Wanted::Unknown) && offset == 0 && told == 0;
            let entry_ttl = if probe { Duration::ZERO } else { entry_ttl };
            told += 1;
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
            Ok(()) => {
                if reading.is_some() {
                    self.readers.told(ino, told);
                }
                reply.ok();
            }
            Err(error) => reply.error(self.refusal("readdir", &error)),
        }
    }

    /// What a reader of a long directory wants; `None` of any other directory.
    fn reading(&self, request: &Request, ino: INodeNo, offset: u64) -> Result<Option<Wanted>> {
        if self.mutable || self.device.get().is_none() {
            return Ok(None);
        }
        if offset != 0 {
            return Ok(self.readers.goes_on(ino, request.pid()));
        }
        let long = self.view.count_names(&self.node(ino)?)? > LONG;
        Ok(long.then(|| self.readers.begins(ino, request.pid())))
    }

    /// Answers with names alone, past the library, which has no such entries: each of its entries has the same number as
    /// node and as inode, so that one without a node would have none that programs see.
    fn answer_names(
        &self,
        request: &Request,
        ino: INodeNo,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let room = room(&mut reply);
        let answered = self.names(ino, offset, room).and_then(|entries| {
            let device = self.device.get().ok_or(Error::refused("list", Os::NODEV))?;
            let length = HEADER + entries.len();
            let mut header = Vec::with_capacity(HEADER);
            header.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
            header.extend(0_i32.to_ne_bytes());
            header.extend(u64::from(request.unique()).to_ne_bytes());
            let message = [IoSlice::new(&header), IoSlice::new(&entries)];
            rustix::io::writev(device.as_fd(), &message).op("list")
        });
        match answered {
            // The library has to say something as well; the kernel, which has its answer, does not hear it.
            Ok(_) => reply.error(Errno::EIO),
            Err(error) => reply.error(self.refusal("readdir", &error)),
        }
    }

    /// Entries without attributes after an offset, as many as there is room for.
    fn names(&self, ino: INodeNo, offset: u64, room: usize) -> Result<Vec<u8>> {
        let dir = self.node(ino)?;
        let mut entries = Vec::with_capacity(room);
        let mut offset = offset.max(DOT_DOT);
        loop {
            let batch = self.view.names_after(&dir, offset, BATCH)?;
            if batch.is_empty() {
                return Ok(entries);
            }
            for name in batch {
                offset = name.cookie;
                let Some((number, kind)) = self.number_and_kind(&dir, &name) else {
                    continue;
                };
                if !add_name(&mut entries, room, &name, number, kind) {
                    return Ok(entries);
                }
            }
        }
    }

    fn number_and_kind(&self, dir: &NodeRef, name: &Name) -> Option<(u64, FileType)> {
        if let Some(plain) = name.plain {
            return Some((plain.ino, plain.kind));
        }
        match self.view.lookup(dir, &name.name) {
            Ok(found) => found.map(|node| (node.ino, node.kind)),
            Err(error) => {
                log::error!("list {}: {error}", name.name.display());
                Some((unknown_number(name.cookie), FileType::RegularFile))
            }
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
            let batch = self.view.names_after(&dir, offset, BATCH)?;
            if batch.is_empty() {
                return Ok(());
            }
            for Name { cookie, name, .. } in batch {
                offset = cookie;
                let full = match self.view.lookup_attr(&dir, &name) {
                    Ok(Some((node, attr))) => add(cookie, &name, Some(&node), &attr),
                    // Gone since the listing was taken: left out.
                    Ok(None) => continue,
                    // Who asks for it by name is told why; the others can be listed.
                    Err(error) => {
                        log::error!("list {}: {error}", name.display());
                        add(cookie, &name, None, &Attr::unknown(unknown_number(cookie)))
                    }
                };
                if full {
                    return Ok(());
                }
            }
        }
    }
}

/// A number for what cannot be looked at: programs take 0 for "no entry".
fn unknown_number(cookie: u64) -> u64 {
    UNKNOWN_IDS | cookie & (UNKNOWN - 1)
}

/// Sizes of `fuse_out_header`, `fuse_entry_out` and `fuse_dirent` (linux/fuse.h).
const HEADER: usize = 16;
const ENTRY: usize = 128;
const DIRENT: usize = 24;

/// How many bytes an answer may have. The library keeps that to itself, so its answer, which nobody will see, is filled.
fn room(reply: &mut ReplyDirectoryPlus) -> usize {
    /// Buffers are of whole pages.
    const STEP: usize = 4096;
    let name = OsString::from("x".repeat(STEP - ENTRY - DIRENT));
    let attr = convert::negative();
    let mut room = 0;
    while !reply.add(INodeNo(0), 0, &name, &Duration::ZERO, &attr, GENERATION) {
        room += STEP;
    }
    room
}

/// Adds an entry without a node, which says that there is no more to know; false if there is no room for it.
fn add_name(entries: &mut Vec<u8>, room: usize, name: &Name, number: u64, kind: FileType) -> bool {
    let bytes = name.name.as_bytes();
    let length = (ENTRY + DIRENT + bytes.len()).next_multiple_of(size_of::<u64>());
    let end = entries.len() + length;
    if end > room {
        return false;
    }
    entries.resize(entries.len() + ENTRY, 0);
    entries.extend(number.to_ne_bytes());
    entries.extend(name.cookie.to_ne_bytes());
    entries.extend(u32::try_from(bytes.len()).unwrap_or(0).to_ne_bytes());
    entries.extend((kind.as_raw_mode() >> 12).to_ne_bytes());
    entries.extend(bytes);
    entries.resize(end, 0);
    true
}
