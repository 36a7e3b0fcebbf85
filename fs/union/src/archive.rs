//! Tars of the merged view: the layer that a container's changes make, and the whole tree as one.
//!
//! What is written stands by itself: a renamed directory comes with everything below it, a file whose upper part is
//! metadata only comes with its data, the names of one inode are hard links of the first of them. Sockets are left out,
//! since a tar has no form for them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use mille_layer::encode::{Encoder, Entry, Kind, Time};
use rustix::fs::{FileType, major, minor};

use crate::attr::Attr;
use crate::changes::changes;
use crate::error::{Error, Result};
use crate::node::{NodeRef, join};
use crate::view::View;

/// Extended attributes that belong to the machine and not to the tree: labels and measurements of its security modules.
const OF_THE_MACHINE: &[&str] = &[
    "security.selinux",
    "security.ima",
    "security.evm",
    "security.apparmor",
];

/// Writes what `merged` has over `base` (the same lowers without the upper) as a layer's tar: a whiteout for everything
/// deleted, redirected directories in full, metadata-only files with their data, hard-link groups with all their names.
///
/// # Errors
/// A failed system call on a layer, or a failed write; the tar is then unusable.
pub fn write_changes<W: Write>(merged: &View, base: &View, to: &mut Encoder<W>) -> Result<()> {
    let mut writer = Writer {
        view: merged,
        tar: to,
        first_names: HashMap::new(),
    };
    for change in changes(merged, base)? {
        match &change.node {
            Some(node) => writer.object(&change.path, node)?,
            None => writer.tar.append_whiteout(&change.path)?,
        }
    }
    Ok(())
}

/// Writes the whole merged tree as one tar: parents first, names in bytewise order, paths without leading `./`.
///
/// # Errors
/// A failed system call on a layer, or a failed write; the tar is then unusable.
pub fn write_tree<W: Write>(view: &View, to: &mut Encoder<W>) -> Result<()> {
    let mut writer = Writer {
        view,
        tar: to,
        first_names: HashMap::new(),
    };
    // An explicit stack of listings instead of recursion: depth is the tree's, and trees may be hostile.
    let mut open = vec![(Vec::new(), writer.sorted(&view.root(), &[])?)];
    while let Some((path, names)) = open.last_mut() {
        let Some((name, node)) = names.next() else {
            open.pop();
            continue;
        };
        let path = join(path, &name);
        writer.object(&path, &node)?;
        if node.is_dir() {
            let names = writer.sorted(&node, &path)?;
            open.push((path, names));
        }
    }
    Ok(())
}

struct Writer<'a, W: Write> {
    view: &'a View,
    tar: &'a mut Encoder<W>,
    /// Inode number of a file with several names → path under which it was written.
    first_names: HashMap<u64, Vec<u8>>,
}

impl<W: Write> Writer<'_, W> {
    fn sorted(
        &self,
        dir: &NodeRef,
        path: &[u8],
    ) -> Result<std::vec::IntoIter<(OsString, NodeRef)>> {
        let listed = self.view.list(dir).map_err(at(path))?;
        let mut names: Vec<_> = listed
            .into_iter()
            .map(|entry| (entry.name, entry.node))
            .collect();
        names.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(names.into_iter())
    }

    fn object(&mut self, path: &[u8], node: &NodeRef) -> Result<()> {
        let attr = self.view.attr(node).map_err(at(path))?;
        let several_names = attr.nlink > 1 && !attr.is_dir();
        if several_names && let Some(first) = self.first_names.get(&attr.ino).cloned() {
            return self.append(path, node, &attr, Kind::Hardlink(&first), io::empty());
        }
        let (major, minor) = (major(attr.rdev), minor(attr.rdev));
        let kind = match attr.kind {
            FileType::RegularFile => Kind::File { size: attr.size },
            FileType::Symlink => {
                let target = self.view.read_link(node).map_err(at(path))?;
                return self.append(
                    path,
                    node,
                    &attr,
                    Kind::Symlink(target.as_bytes()),
                    io::empty(),
                );
            }
            FileType::Directory => Kind::Dir,
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::Char { major, minor },
            FileType::BlockDevice => Kind::Block { major, minor },
            FileType::Socket | FileType::Unknown => {
                log::info!(
                    "{} is a socket and not archived",
                    String::from_utf8_lossy(path)
                );
                return Ok(());
            }
        };
        if several_names {
            self.first_names.insert(attr.ino, path.to_vec());
        }
        if attr.kind != FileType::RegularFile || attr.size == 0 {
            return self.append(path, node, &attr, kind, io::empty());
        }
        let data = self.view.open_read(node).map_err(at(path))?;
        // The header has promised a size; a file that shrinks meanwhile is filled up, as tar(1) does.
        self.append(
            path,
            node,
            &attr,
            kind,
            data.take(attr.size).chain(io::repeat(0)),
        )
    }

    fn append(
        &mut self,
        path: &[u8],
        node: &NodeRef,
        attr: &Attr,
        kind: Kind<'_>,
        data: impl Read,
    ) -> Result<()> {
        let xattrs = match kind {
            Kind::Hardlink(_) => Vec::new(),
            _ => self.xattrs(path, node)?,
        };
        let mtime = Time {
            sec: attr.mtime.sec,
            nsec: attr.mtime.nsec,
        };
        let Attr { mode, uid, gid, .. } = *attr;
        let entry = Entry {
            path,
            kind,
            mode,
            uid,
            gid,
            mtime,
            xattrs: &xattrs,
        };
        Ok(self.tar.append(&entry, data)?)
    }

    fn xattrs(&self, path: &[u8], node: &NodeRef) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let all = self.view.xattrs(node).map_err(at(path))?.into_iter();
        let travels = all.filter(|(name, _)| !OF_THE_MACHINE.iter().any(|local| name == local));
        Ok(travels
            .map(|(name, value)| (name.as_bytes().to_vec(), value))
            .collect())
    }
}

/// Adds the path to an error of the view.
fn at(path: &[u8]) -> impl FnOnce(Error) -> Error {
    move |source| Error::Archive {
        path: Path::new(OsStr::from_bytes(path)).to_owned(),
        source: Box::new(source),
    }
}
