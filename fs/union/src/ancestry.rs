//! Which directories lie inside which. Every directory on the way to the root is asked for once, however many layers
//! there are: they mostly share their ancestors.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, Statx, StatxFlags, major, minor};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::layers::{LowerLayer, Place};
use crate::sys;

/// A directory as reached through one mount: the parent of a mount's root depends on the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Spot {
    mount: u64,
    device: (u32, u32),
    inode: u64,
}

/// What a spot is told by.
const WANTED: StatxFlags = StatxFlags::INO.union(StatxFlags::MNT_ID);

impl From<Statx> for Spot {
    fn from(stat: Statx) -> Self {
        Spot {
            mount: stat.stx_mnt_id,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
        }
    }
}

impl Spot {
    fn of(fd: BorrowedFd<'_>) -> std::result::Result<Self, Errno> {
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED).map(Self::from)
    }

    fn at(path: &Path) -> std::result::Result<Self, Errno> {
        rustix::fs::statx(CWD, path, AtFlags::empty(), WANTED).map(Self::from)
    }

    /// True if `stat` speaks of it.
    fn is_of(&self, stat: &Stat) -> bool {
        let device = (major(stat.st_dev), minor(stat.st_dev));
        self.device == device && self.inode == stat.st_ino
    }

    /// The same directory, through whatever mount.
    fn is(&self, other: &Self) -> bool {
        self.device == other.device && self.inode == other.inode
    }
}

/// What is known of parents so far.
#[derive(Debug, Default)]
pub(crate) struct Ancestry {
    /// The parent of each directory seen; none for the last one that can be reached.
    parents: HashMap<Spot, Option<Spot>>,
}

impl Ancestry {
    /// Refuses two directories of which one contains the other.
    ///
    /// # Errors
    /// [`Error::Overlap`]; a failed system call on the way to the root.
    pub(crate) fn refuse_overlap(
        &mut self,
        a: &Place,
        b: &Place,
        what: &'static str,
    ) -> Result<()> {
        if self.is_within(a, b)? || self.is_within(b, a)? {
            return Err(overlap(&a.path, &b.path, what));
        }
        Ok(())
    }

    /// Refuses an upper or work directory in the way of a mutable lower: it may lie inside it (a view of the machine's
    /// root whose upper is somewhere on that machine), but not be it or contain it.
    ///
    /// # Errors
    /// As [`Ancestry::refuse_overlap`].
    pub(crate) fn refuse_containing(
        &mut self,
        writable: &Place,
        lower: &Place,
        what: &'static str,
    ) -> Result<()> {
        if self.is_within(lower, writable)? {
            return Err(overlap(&writable.path, &lower.path, what));
        }
        Ok(())
    }

    /// As [`Ancestry::refuse_overlap`] with layers that are known by path and `stat` and not open: one system call for each,
    /// as long as they lie two below a common directory, as those of a store do.
    ///
    /// # Errors
    /// As [`Ancestry::refuse_overlap`].
    pub(crate) fn refuse_overlap_unopened(
        &mut self,
        writable: &Place,
        layers: &[LowerLayer],
        what: &'static str,
    ) -> Result<()> {
        let start = self.climb(writable)?;
        let line = self.line(start);
        for (layer, path) in layers
            .iter()
            .filter_map(|layer| Some((layer, layer.unopened()?)))
        {
            let is_above = line.iter().any(|spot| spot.is_of(&layer.stat));
            if is_above || self.is_unopened_within(path, &line, writable)? {
                return Err(overlap(&writable.path, path, what));
            }
        }
        Ok(())
    }

    /// True if what is at the path lies below a place, given with its ancestors.
    fn is_unopened_within(&mut self, path: &Path, line: &[Spot], outer: &Place) -> Result<bool> {
        if let (Ok(two_up), [target, parent, ..]) = (Spot::at(&path.join("../..")), line)
            && self.parents.contains_key(&two_up)
            // Only then can the directory between be the one in question.
            && !parent.is(&two_up)
        {
            return Ok(self.line(two_up).iter().any(|spot| spot.is(target)));
        }
        self.is_within(&Place::open(path)?, outer)
    }

    /// A directory whose ancestors are known, and these.
    fn line(&self, from: Spot) -> Vec<Spot> {
        let parent = |spot: &Spot| self.parents.get(spot).copied().flatten();
        std::iter::successors(Some(from), parent).collect()
    }

    /// True if `inner` is `outer` or lies somewhere below it.
    fn is_within(&mut self, inner: &Place, outer: &Place) -> Result<bool> {
        let target = Spot::of(outer.fd.as_fd()).on("stat", &outer.path)?;
        let start = self.climb(inner)?;
        Ok(self.line(start).iter().any(|spot| spot.is(&target)))
    }

    /// Learns the ancestors of a place, up to the first that is known already.
    fn climb(&mut self, place: &Place) -> Result<Spot> {
        let start = Spot::of(place.fd.as_fd()).on("stat", &place.path)?;
        let mut here = start;
        let mut reached: Option<OwnedFd> = None;
        while !self.parents.contains_key(&here) {
            let from = reached.as_ref().map_or(place.fd.as_fd(), |fd| fd.as_fd());
            let flags = sys::open::HANDLE | OFlags::DIRECTORY;
            let parent = match rustix::fs::openat(from, c"..", flags, Mode::empty()) {
                Ok(parent) => parent,
                // An ancestor we may not search: what is above it cannot be one of our directories that we opened
                // through it.
                Err(Errno::ACCESS) => {
                    self.parents.insert(here, None);
                    break;
                }
                Err(errno) => return Err(errno).on("open parent of", &place.path),
            };
            let above = Spot::of(parent.as_fd()).on("stat parent of", &place.path)?;
            let is_root = above.is(&here);
            self.parents.insert(here, (!is_root).then_some(above));
            here = above;
            reached = Some(parent);
        }
        Ok(start)
    }
}

fn overlap(a: &Path, b: &Path, what: &'static str) -> Error {
    Error::Overlap {
        what,
        a: a.to_owned(),
        b: b.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_directory_and_what_is_below_it_are_within_it() -> Result<()> {
        let temporary = tempfile::tempdir().on("make", std::path::Path::new("tmp"))?;
        for name in ["a", "a/deep", "a/deep/er", "b"] {
            let path = temporary.path().join(name);
            std::fs::create_dir(&path).on("make", &path)?;
        }
        let open = |name: &str| Place::open(&temporary.path().join(name));
        let (a, deep, deeper, b) = (open("a")?, open("a/deep")?, open("a/deep/er")?, open("b")?);
        let mut ancestry = Ancestry::default();
        assert!(ancestry.is_within(&deep, &a)?);
        assert!(ancestry.is_within(&a, &a)?);
        // Its ancestors are known by now.
        assert!(ancestry.is_within(&deeper, &a)?);
        assert!(!ancestry.is_within(&a, &deep)?);
        assert!(!ancestry.is_within(&b, &a)?);
        assert!(ancestry.refuse_overlap(&a, &deeper, "test").is_err());
        assert!(ancestry.refuse_overlap(&b, &deeper, "test").is_ok());
        assert!(ancestry.refuse_containing(&deeper, &a, "test").is_ok());
        assert!(ancestry.refuse_containing(&a, &deeper, "test").is_err());
        Ok(())
    }
}
