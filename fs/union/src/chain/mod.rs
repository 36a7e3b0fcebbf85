//! The merged index of a chain of layers, as a view uses it.
//!
//! The layers at the bottom of a view that an index speaks of are seen as one: a directory of them is one part of a merged
//! directory, known by its number in the index. Names, attributes, targets of symbolic links and whether there are
//! extended attributes come from the index without a system call; a layer's own directory is opened when something in it
//! is read, and not before.
//!
//! Invariant: answers are the same with and without an index, because an index is what a view without one has answered
//! ([`Chain::build`]).

mod answers;
mod build;
mod stamp;

pub(crate) use answers::{Met, is_listed_family};

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use mille_layer::index::{DirNumber, Index, Moment, Record};
use mille_layer::{Dialects, MarkSpace, Ownership};
use parking_lot::Mutex;
use rustix::fs::Stat;
use rustix::io::Errno;

use crate::bounded;
use crate::error::{Context, Error, Result};
use crate::node::DirPlace;
use crate::sys::map::Map;
use stamp::Stamp;

/// A chain of immutable layers as extraction makes them: in overlay form, none refers to another.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a> {
    /// Their directories, the topmost first.
    pub layers: &'a [PathBuf],
    /// As in [`Config`](crate::Config).
    pub space: MarkSpace,
    /// As in [`Config`](crate::Config).
    pub ownership: Ownership,
}

/// An index that has been found to be of a chain. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct ChainIndex {
    index: Arc<Index>,
    /// How the layers were read.
    pub(crate) dialects: Dialects,
    /// `stat` of each layer's root.
    pub(crate) roots: Arc<[Stat]>,
}

impl Chain<'_> {
    /// Opens the chain's index, a file that is only ever replaced by renaming another one over it. Costs one system call
    /// for each layer, which tells whether the directory is still the one that the index was made of; the rest costs the
    /// same for every size, so a change of the file that left its length is met, if ever, when it is asked.
    ///
    /// # Errors
    /// The file or a layer cannot be opened; the index is cut off, of another version or of something else: it is to be
    /// made anew.
    pub fn open(&self, index: &Path) -> Result<ChainIndex> {
        let stamp = Stamp::of(self)?;
        let file = File::open(index).on("open", index)?;
        let map = Map::open(&file).on("map", index)?;
        let opened = Index::open(map, &stamp.bytes).map_err(|source| Error::Index {
            index: index.to_owned(),
            source,
        })?;
        Ok(ChainIndex {
            index: Arc::new(opened),
            dialects: stamp.dialects,
            roots: stamp.roots,
        })
    }
}

/// Most places of directories that are remembered: enough for those that are being walked.
const PLACES: usize = 1024;

/// An index at the bottom of a view.
#[derive(Debug)]
pub(crate) struct Indexed {
    index: Arc<Index>,
    /// The view's layer that is the topmost of the chain; all below belong to it.
    pub(crate) first: u16,
    /// How many layers belong to it.
    layers: u16,
    /// What an answer has that no index holds: above all the device, whose number may be another after a reboot.
    template: Stat,
    /// So that the files of a directory share one.
    places: Mutex<LruCache<(DirNumber, u16), Arc<DirPlace>>>,
}

impl Indexed {
    /// `None` for a chain without layers.
    pub(crate) fn new(chain: ChainIndex, first: u16) -> Option<Self> {
        let size = NonZeroUsize::new(PLACES).unwrap_or(NonZeroUsize::MIN);
        Some(Self {
            template: *chain.roots.first()?,
            index: chain.index,
            first,
            layers: u16::try_from(chain.roots.len()).ok()?,
            places: Mutex::new(bounded::cache(size)),
        })
    }

    /// `stat` of an object as its layer would give it.
    fn stat(&self, record: &Record) -> Stat {
        let mut stat = self.template;
        stat.st_ino = record.ino;
        stat.st_mode = record.mode;
        stat.st_uid = record.uid;
        stat.st_gid = record.gid;
        stat.st_nlink = record.nlink.into();
        stat.st_rdev = record.rdev;
        stat.st_size = record.size.try_into().unwrap_or(i64::MAX);
        stat.st_blocks = record.blocks.try_into().unwrap_or(i64::MAX);
        stat.st_blksize = record.blksize.into();
        (stat.st_atime, stat.st_atime_nsec) = time(record.atime);
        (stat.st_mtime, stat.st_mtime_nsec) = time(record.mtime);
        (stat.st_ctime, stat.st_ctime_nsec) = time(record.ctime);
        stat
    }

    /// The place of what a record speaks of in the directory `dir`, of which it is.
    fn place(&self, dir: &Arc<DirPlace>, number: DirNumber, layer: u16) -> Result<Arc<DirPlace>> {
        let layer = self.layer(layer)?;
        if layer == dir.layer {
            return Ok(dir.clone());
        }
        let mut places = self.places.lock();
        let make = || DirPlace::indexed(layer, dir.path.clone(), number);
        Ok(places.get_or_insert((number, layer), make).clone())
    }

    /// The view's number of a layer of the chain.
    fn layer(&self, layer: u16) -> Result<u16> {
        if layer >= self.layers {
            return Err(damaged());
        }
        self.first.checked_add(layer).ok_or(damaged())
    }
}

fn time(moment: Moment) -> (i64, u64) {
    (moment.sec, moment.nsec.into())
}

/// An index that looked right and does not hold together.
fn damaged() -> Error {
    Error::refused("read merged index", Errno::IO)
}
