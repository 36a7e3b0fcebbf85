//! Views as tar archives.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use mille_layer::encode::{Encoder, Entry, Kind, Time};
use rustix::fs::FileType;

use crate::attr::Attr;
use crate::changes::{Found, walk};
use crate::error::{Error, Result};
use crate::node::{NodeRef, join};
use crate::view::View;

/// Writes what `merged` has over `base` (the same lowers without the upper) as a layer's tar: whiteouts and opaque marks
/// in their archive form, redirected directories in full, metadata-only files with their data, hard-link groups with all
/// their names. Nothing in the tar refers to another layer by anything but its path.
///
/// # Errors
/// A failed system call on a layer, or a failed write; the tar is then unusable.
pub fn write_changes<W: Write>(merged: &View, base: &View, to: &mut Encoder<W>) -> Result<()> {
    let mut writer = Writer {
        view: merged,
        to,
        first_names: HashMap::new(),
    };
    // What lies in a directory that hides everything below needs no whiteouts.
    let mut opaque: Option<Vec<u8>> = None;
    walk(merged, base, &mut |found| match found {
        Found::Object {
            path,
            node,
            attr,
            replaced,
            ..
        } => {
            leave(&mut opaque, path);
            writer.append(path, node, attr)?;
            if replaced && opaque.is_none() {
                writer.to.append_opaque(path)?;
                opaque = Some(path.to_vec());
            }
            Ok(())
        }
        Found::Deleted { path } => {
            leave(&mut opaque, path);
            if opaque.is_some() {
                return Ok(());
            }
            Ok(writer.to.append_whiteout(path)?)
        }
    })
}

/// Forgets the opaque directory when the walk has left it.
fn leave(opaque: &mut Option<Vec<u8>>, path: &[u8]) {
    let inside = opaque.as_ref().is_some_and(|dir| {
        path.strip_prefix(&dir[..])
            .is_some_and(|rest| rest.starts_with(b"/"))
    });
    if !inside {
        *opaque = None;
    }
}

/// Writes the whole merged tree as one tar, without an entry for the root, siblings in bytewise order.
///
/// # Errors
/// A failed system call on a layer, or a failed write; the tar is then unusable.
pub fn write_tree<W: Write>(view: &View, to: &mut Encoder<W>) -> Result<()> {
    let mut writer = Writer {
        view,
        to,
        first_names: HashMap::new(),
    };
    writer.tree(view.root())
}

struct Writer<'a, W: Write> {
    view: &'a View,
    to: &'a mut Encoder<W>,
    /// Of objects with several names: the first that was written.
    first_names: HashMap<u64, Vec<u8>>,
}

impl<W: Write> Writer<'_, W> {
    /// Writes all that is below a directory. An explicit stack: how deep a tree is decides who makes it.
    fn tree(&mut self, top: NodeRef) -> Result<()> {
        let names = self.sorted(&top, b"")?;
        let mut open = vec![(top, Vec::new(), names)];
        while let Some((dir, path, names)) = open.last_mut() {
            let Some(name) = names.next() else {
                open.pop();
                continue;
            };
            let path = join(path, &name);
            let Some(node) = self.view.lookup(dir, &name).map_err(at(&path))? else {
                continue;
            };
            let attr = self.view.attr(&node).map_err(at(&path))?;
            self.append(&path, &node, &attr)?;
            if node.is_dir() {
                let names = self.sorted(&node, &path)?;
                open.push((node, path, names));
            }
        }
        Ok(())
    }

    fn sorted(&self, dir: &NodeRef, path: &[u8]) -> Result<std::vec::IntoIter<OsString>> {
        let mut names = self.view.listed_names(dir).map_err(at(path))?;
        names.sort_unstable();
        Ok(names.into_iter())
    }

    /// Writes one object. Sockets are left out: no tar can hold them, and they mean nothing without their listener.
    fn append(&mut self, path: &[u8], node: &NodeRef, attr: &Attr) -> Result<()> {
        let linked = attr.kind != FileType::Directory && attr.nlink > 1;
        let first = if linked {
            self.first_names.get(&attr.ino).cloned()
        } else {
            None
        };
        if let Some(first) = first {
            return self.entry(path, attr, Kind::Hardlink(&first), &[], io::empty());
        }
        if linked {
            self.first_names.insert(attr.ino, path.to_vec());
        }
        let xattrs = self.xattrs(node).map_err(at(path))?;
        let (major, minor) = (rustix::fs::major(attr.rdev), rustix::fs::minor(attr.rdev));
        let target;
        let kind = match attr.kind {
            FileType::RegularFile => {
                let size = attr.size;
                let file = self.view.open_read(node).map_err(at(path))?;
                // The header promises a size; a file that shrinks meanwhile is filled up, as tar(1) does.
                let data = file.take(size).chain(io::repeat(0));
                return self.entry(path, attr, Kind::File { size }, &xattrs, data);
            }
            FileType::Directory => Kind::Dir,
            FileType::Symlink => {
                target = self.view.read_link(node).map_err(at(path))?.into_vec();
                Kind::Symlink(&target)
            }
            FileType::CharacterDevice => Kind::Char { major, minor },
            FileType::BlockDevice => Kind::Block { major, minor },
            FileType::Fifo => Kind::Fifo,
            _ => {
                let path = OsStr::from_bytes(path).display();
                log::warn!("{path}: a socket is left out of the archive");
                return Ok(());
            }
        };
        self.entry(path, attr, kind, &xattrs, io::empty())
    }

    fn entry(
        &mut self,
        path: &[u8],
        attr: &Attr,
        kind: Kind<'_>,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        data: impl Read,
    ) -> Result<()> {
        let Attr { mode, uid, gid, .. } = *attr;
        let mtime = Time {
            sec: attr.mtime.sec,
            nsec: attr.mtime.nsec,
        };
        let entry = Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime,
            xattrs,
        };
        Ok(self.to.append(&entry, data)?)
    }

    /// The extended attributes that belong into an archive: labels are the host's policy, not the object's.
    fn xattrs(&self, node: &NodeRef) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut kept = Vec::new();
        for (name, value) in self.view.xattrs(node)? {
            let bytes = name.as_bytes();
            if !bytes.starts_with(b"security.") || bytes == b"security.capability" {
                kept.push((name.into_vec(), value));
            }
        }
        Ok(kept)
    }
}

/// Adds the path to an error of the view.
fn at(path: &[u8]) -> impl FnOnce(Error) -> Error {
    let path = Path::new(OsStr::from_bytes(path)).to_owned();
    move |source| Error::Archive {
        path,
        source: Box::new(source),
    }
}
