//! In which layers a name can be met at all.
//!
//! A name of a directory that is merged of many lowers has to be looked for in each of them, from the top down, and most of
//! them have not got it. Once a few names have been looked for, or the directory has been listed, the names of all its lower
//! parts are known; from then on only those parts are asked that have the name. Layers do not change, so what is known
//! stays true; where some layer may change, nothing is kept.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use mille_layer::list_names;
use parking_lot::Mutex;

use crate::bounded;
use crate::error::{Context, Result};
use crate::node::{LowerDir, Node, Stack};
use crate::view::View;

/// Directories of which something is kept.
const DIRECTORIES: usize = 128;

/// Most names of one directory, in all its parts together: 256 KiB.
const NAMES: usize = 16 * 1024;

/// Lookups in a directory after which its names are read. To read them costs as much as a few lookups, unless the
/// directory is long.
const PATIENCE: u32 = 8;

/// What is known of directories, by their serial numbers.
#[derive(Debug)]
pub(crate) struct Whereabouts {
    known: Mutex<LruCache<u64, Known>>,
    hasher: RandomState,
    /// Layers may change behind our back: nothing is kept.
    pub(crate) distrusted: AtomicBool,
}

#[derive(Clone, Debug)]
enum Known {
    /// Nothing, but so many have asked.
    Asked(u32),
    Names(Arc<Names>),
    /// There are too many of them.
    TooMany,
}

/// The names of all parts of a directory: hashes with the number of the part, in order.
#[derive(Debug)]
struct Names(Box<[(u64, u16)]>);

impl Names {
    /// The parts in which a name with this hash may be.
    fn parts(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = self.0.partition_point(|(other, _)| *other < hash);
        let same = self.0[start..].iter();
        same.take_while(move |(other, _)| *other == hash)
            .map(|(_, part)| usize::from(*part))
    }
}

/// Collects the names of a directory's parts while they are being listed.
pub(crate) struct Collector<'a> {
    of: &'a Whereabouts,
    found: Option<Vec<(u64, u16)>>,
}

impl Collector<'_> {
    /// One name of a part.
    pub(crate) fn add(&mut self, part: usize, name: &OsStr) {
        let (Some(found), Ok(part)) = (&mut self.found, u16::try_from(part)) else {
            return;
        };
        found.push((self.of.hash(name), part));
        if found.len() > NAMES {
            self.found = None;
        }
    }

    fn finish(self) -> Known {
        match self.found {
            Some(mut found) => {
                found.sort_unstable();
                Known::Names(Arc::new(Names(found.into())))
            }
            None => Known::TooMany,
        }
    }
}

impl Whereabouts {
    pub(crate) fn new() -> Self {
        let size = NonZeroUsize::new(DIRECTORIES).unwrap_or(NonZeroUsize::MIN);
        Self {
            known: Mutex::new(bounded::cache(size)),
            hasher: RandomState::new(),
            distrusted: AtomicBool::new(false),
        }
    }

    fn hash(&self, name: &OsStr) -> u64 {
        self.hasher.hash_one(name)
    }

    /// What is known of a directory, in which a name is about to be looked for.
    fn ask(&self, serial: u64) -> Known {
        let mut known = self.known.lock();
        let entry = known.get_or_insert_mut(serial, || Known::Asked(0));
        if let Known::Asked(times) = entry {
            *times += 1;
        }
        entry.clone()
    }
}

impl View {
    /// The lower parts of a directory in which a name may be, in order; `None`: in all of them.
    pub(crate) fn parts_with(&self, parent: &Stack, name: &OsStr) -> Result<Option<Vec<usize>>> {
        let parts = parent.dirs();
        if !self.is_worth_knowing(parts) {
            return Ok(None);
        }
        let serial = parent.serial();
        let known = match self.whereabouts.ask(serial) {
            Known::Asked(times) if times > PATIENCE => self.read_whereabouts(serial, parts)?,
            known => known,
        };
        let Known::Names(names) = known else {
            return Ok(None);
        };
        let mut found: Vec<usize> = names.parts(self.whereabouts.hash(name)).collect();
        // The part that an index answers for is the last, and asking it costs nothing.
        let last = parts.len() - 1;
        if parts[last].place.number().is_some() {
            found.push(last);
        }
        Ok(Some(found))
    }

    /// True unless a node's object may change behind our back.
    pub(crate) fn changes_by_us_alone(&self, node: &Node) -> bool {
        !self.whereabouts.distrusted.load(Ordering::Relaxed)
            && (node.in_upper() || !self.has_mutable_lower())
    }

    /// True if the parts never change and are so many that one look at each costs more than to remember.
    fn is_worth_knowing(&self, parts: &[LowerDir]) -> bool {
        let to_be_asked = parts.iter().filter(|part| part.place.number().is_none());
        to_be_asked.count() > 1
            && !self.whereabouts.distrusted.load(Ordering::Relaxed)
            && !parts
                .iter()
                .any(|part| self.lowers[usize::from(part.layer())].mutable)
    }

    fn read_whereabouts(&self, serial: u64, parts: &[LowerDir]) -> Result<Known> {
        let mut names = self.collector();
        for (index, part) in parts.iter().enumerate() {
            if part.place.number().is_some() {
                continue;
            }
            // Covered by another mount: nothing of it shows.
            let Some(handle) = self.lower_dir(&part.place)? else {
                continue;
            };
            let dialects = &self.lowers[usize::from(part.layer())].dialects;
            let mut add = |name: &OsStr| {
                names.add(index, name);
                names.found.is_some()
            };
            list_names(handle.as_fd(), dialects, &mut add).op("list lower")?;
        }
        let known = names.finish();
        self.whereabouts.known.lock().put(serial, known.clone());
        Ok(known)
    }

    fn collector(&self) -> Collector<'_> {
        Collector {
            of: &self.whereabouts,
            found: Some(Vec::new()),
        }
    }

    /// For somebody who lists a directory: takes the names of its lower parts, if they are worth to be known and are not
    /// known yet.
    pub(crate) fn collect_whereabouts(&self, dir: &Stack) -> Option<Collector<'_>> {
        let unknown = || {
            let known = self.whereabouts.known.lock();
            matches!(known.peek(&dir.serial()), None | Some(Known::Asked(_)))
        };
        (self.is_worth_knowing(dir.dirs()) && unknown()).then(|| self.collector())
    }

    /// Keeps what has been collected of all parts of a directory.
    pub(crate) fn keep_whereabouts(&self, dir: &Stack, collected: Collector<'_>) {
        let known = collected.finish();
        self.whereabouts.known.lock().put(dir.serial(), known);
    }
}
