//! Making an index: what a view without one answers is written down.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::Ordering;

use mille_layer::index::{DirNumber, Item, Moment, Record, TooLarge, Writer};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::{Chain, Stamp};
use crate::config::{Config, Features, Lower};
use crate::error::{Error, Result};
use crate::getattr::attribute_place;
use crate::node::{NodeRef, Stack};
use crate::owners::Owners;
use crate::view::View;

/// An attribute of each family that an index may say is absent. None need exist.
const PROBES: [&str; 3] = [
    "user.mille.none",
    "trusted.mille.none",
    "security.capability",
];

impl Chain<'_> {
    /// Reads all layers and returns the bytes of their index.
    ///
    /// # Errors
    /// The layers cannot be read, refer to one another, change meanwhile, or have what an index cannot tell: then there is
    /// none, and a view does without.
    pub fn build(&self) -> Result<Vec<u8>> {
        let stamp = Stamp::of(self)?;
        let before = stamp.bytes.clone();
        let device = stamp.roots.first().map_or(0, |root| root.st_dev);
        let view = View::open(Config {
            lowers: self.lowers(),
            upper: None,
            space: self.space,
            ownership: self.ownership,
            owners: Owners::default(),
            // A mark that refers to another layer is refused.
            features: Features {
                redirect_dir: false,
                ..Features::default()
            },
            chain: None,
        })?;
        let scribe = Scribe {
            xattrs_known: knows_xattrs(&view)?,
            view: &view,
            device,
        };
        let bytes = scribe.write(stamp.bytes)?;
        if view.redirects_met.load(Ordering::Relaxed) {
            return Err(Error::refused("index a layer with redirects", Errno::PERM));
        }
        if Stamp::of(self)?.bytes != before {
            return Err(Error::refused("index layers that change", Errno::STALE));
        }
        Ok(bytes)
    }

    /// The layers as a view is to be given them.
    pub fn lowers(&self) -> Vec<Lower> {
        let layers = self.layers.iter();
        layers
            .map(|layer| Lower {
                plain: true,
                ..Lower::at(layer)
            })
            .collect()
    }
}

/// True if asking for an attribute that is not there has the same answer on every object.
fn knows_xattrs(view: &View) -> Result<bool> {
    for name in PROBES {
        match view.get_xattr(&view.root(), OsStr::new(name)) {
            Ok(_) => {}
            Err(error) if error.is(Errno::OPNOTSUPP) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

struct Scribe<'a> {
    view: &'a View,
    device: u64,
    xattrs_known: bool,
}

impl Scribe<'_> {
    fn write(&self, stamp: Vec<u8>) -> Result<Vec<u8>> {
        let root = self.view.root();
        let mut writer = Writer::new(stamp, &self.record(&root)?);
        let mut todo = VecDeque::from([(root, DirNumber::ROOT)]);
        while let Some((dir, number)) = todo.pop_front() {
            let mut names = self.view.listed_names(&dir)?;
            names.sort_unstable();
            let mut items = Vec::with_capacity(names.len());
            let mut dirs = Vec::new();
            for name in names {
                let Some(node) = self.view.lookup(&dir, &name)? else {
                    continue;
                };
                let record = self.record(&node)?;
                let target = match node.kind() {
                    FileType::Symlink => self.view.read_link(&node)?.into_vec(),
                    _ => Vec::new(),
                };
                items.push(Item {
                    name: name.as_bytes().to_vec(),
                    record,
                    target,
                });
                if node.is_dir() {
                    dirs.push(node);
                }
            }
            let numbers = writer.directory(number, items).map_err(too_large)?;
            todo.extend(dirs.into_iter().zip(numbers));
        }
        writer.finish().map_err(too_large)
    }

    fn record(&self, node: &NodeRef) -> Result<Record> {
        let stat = self.view.object_stat(node)?;
        let xattrs = !self.xattrs_known || !self.view.list_xattr(node)?.is_empty();
        let record = match &node.stack {
            Stack::File(file) => Record {
                layer: file.layer(),
                ino: stat.st_ino,
                ..attributes(&stat)
            },
            other => {
                let dirs = other.dirs();
                let stale = Error::refused("index directory", Errno::STALE);
                let (Some(top), Some(lender)) = (dirs.first(), attribute_place(dirs)) else {
                    return Err(stale);
                };
                if dirs.iter().any(|dir| dir.dev != self.device) {
                    return Err(Error::refused("index layers of two devices", Errno::XDEV));
                }
                Record {
                    layer: top.layer(),
                    attributes_layer: lender.layer(),
                    parts: u16::try_from(dirs.len()).unwrap_or(u16::MAX),
                    implied: dirs.iter().all(|dir| dir.implied),
                    directory: Some(DirNumber::ROOT),
                    ino: top.ino,
                    ..attributes(&stat)
                }
            }
        };
        if stat.st_dev != self.device {
            return Err(Error::refused("index layers of two devices", Errno::XDEV));
        }
        Ok(Record { xattrs, ..record })
    }
}

fn attributes(stat: &Stat) -> Record {
    let moment = |sec, nsec: u64| Moment {
        sec,
        nsec: u32::try_from(nsec).unwrap_or(0),
    };
    Record {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
        rdev: stat.st_rdev,
        atime: moment(stat.st_atime, stat.st_atime_nsec),
        mtime: moment(stat.st_mtime, stat.st_mtime_nsec),
        ctime: moment(stat.st_ctime, stat.st_ctime_nsec),
        ..Record::default()
    }
}

fn too_large(_: TooLarge) -> Error {
    Error::refused("index a tree of this size", Errno::FBIG)
}
