//! Listing merged directories.
//!
//! An entry's cookie (its place in the listing, which a reader comes back with) is a hash of its name. So a listing needs
//! no state that belongs to one reader: whoever asks for what comes after a cookie gets every entry that is there all the
//! time exactly once, however often the listing was thrown away, rebuilt or changed in between.
//!
//! Most objects of a lower can be listed without a look at them: their layer's own listing tells kind and number.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hasher};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use lru::LruCache;
use mille_layer::{Listed, ListedKind, Opaque, list};
use parking_lot::Mutex;
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::bounded;
use crate::error::{Context, Error, Result};
use crate::node::{LowerDir, NodeRef};
use crate::view::View;

/// How many directories' listings are kept while they are being read.
const KEPT: usize = 64;

/// Cookies of entries start here: smaller ones are for `.`, `..` and the start.
pub(crate) const FIRST_COOKIE: u64 = 16;

/// The kernel's offsets are signed.
const COOKIE_MASK: u64 = (1 << 62) - 1;

/// Listings of directories that somebody is reading.
#[derive(Debug)]
pub(crate) struct Listings {
    kept: Mutex<LruCache<u64, Arc<Mutex<Listing>>>>,
}

/// The names of one merged directory, by cookie.
#[derive(Debug, Default)]
struct Listing {
    names: BTreeMap<u64, (Box<OsStr>, Option<Plain>)>,
}

/// What the listing of a lower tells of an object that is certainly that one: no directory, which might merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) kind: FileType,
    pub(crate) ino: u64,
}

/// One name of a directory.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) cookie: u64,
    pub(crate) name: OsString,
    pub(crate) plain: Option<Plain>,
}

impl Listing {
    fn cookie(name: &OsStr) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(name.as_bytes());
        (hasher.finish() & COOKIE_MASK).max(FIRST_COOKIE)
    }

    fn of(names: Vec<(OsString, Option<Plain>)>) -> Self {
        let with_cookie = |(name, plain): (OsString, _)| {
            let cookie = Self::cookie(&name);
            (cookie, (name.into_boxed_os_str(), plain))
        };
        let mut names: Vec<_> = names.into_iter().map(with_cookie).collect();
        names.sort_unstable_by_key(|(cookie, _)| *cookie);
        if names.is_sorted_by(|(a, _), (b, _)| a < b) {
            // In order: this fills the map in one go.
            let names = names.into_iter().collect();
            return Self { names };
        }
        let mut this = Self::default();
        for (_, (name, plain)) in names {
            this.add(&name, plain);
        }
        this
    }

    fn add(&mut self, name: &OsStr, plain: Option<Plain>) {
        let mut cookie = Self::cookie(name);
        while let Some((other, _)) = self.names.get(&cookie) {
            if **other == *name {
                return;
            }
            cookie += 1;
        }
        self.names.insert(cookie, (name.into(), plain));
    }

    fn remove(&mut self, name: &OsStr) {
        let mut cookie = Self::cookie(name);
        while let Some((other, _)) = self.names.get(&cookie) {
            if **other == *name {
                self.names.remove(&cookie);
                return;
            }
            cookie += 1;
        }
    }
}

impl Listings {
    pub(crate) fn new() -> Self {
        let size = NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN);
        Self {
            kept: Mutex::new(bounded::cache(size)),
        }
    }

    fn get(&self, dir: &NodeRef) -> Option<Arc<Mutex<Listing>>> {
        self.kept.lock().get(&dir.serial()).cloned()
    }

    /// A name has appeared. Called with the directory's name lock held for writing.
    pub(crate) fn added(&self, dir: &NodeRef, name: &OsStr) {
        if let Some(listing) = self.get(dir) {
            listing.lock().add(name, None);
        }
    }

    /// A name has gone. Called with the directory's name lock held for writing.
    pub(crate) fn removed(&self, dir: &NodeRef, name: &OsStr) {
        if let Some(listing) = self.get(dir) {
            listing.lock().remove(name);
        }
    }

    fn drop_listing(&self, dir: &NodeRef) {
        let _gone = self.kept.lock().pop(&dir.serial());
    }
}

impl View {
    /// How many names a directory has.
    pub(crate) fn count_names(&self, dir: &NodeRef) -> Result<usize> {
        let listing = self.listing(dir)?;
        let count = listing.lock().names.len();
        Ok(count)
    }

    /// Up to `most` names of a directory that come after a cookie.
    pub(crate) fn names_after(&self, dir: &NodeRef, cookie: u64, most: usize) -> Result<Vec<Name>> {
        let listing = self.listing(dir)?;
        let names: Vec<Name> = listing
            .lock()
            .names
            .range(cookie.saturating_add(1)..)
            .take(most)
            .map(|(cookie, (name, plain))| Name {
                cookie: *cookie,
                name: (**name).to_owned(),
                plain: *plain,
            })
            .collect();
        // At the end nobody needs it any more, or will soon have it built again.
        if names.is_empty() || self.lowers.iter().any(|lower| lower.mutable) {
            self.listings.drop_listing(dir);
        }
        Ok(names)
    }

    /// All names of a directory in the order of a listing.
    pub(crate) fn listed_names(&self, dir: &NodeRef) -> Result<Vec<OsString>> {
        let _names = dir.names().read();
        let listing = self.read_listing(dir)?;
        let names = listing.names.into_values();
        Ok(names.map(|(name, _)| OsString::from(name)).collect())
    }

    /// True if the merged directory has no entry. The caller holds its name lock.
    pub(crate) fn is_empty_locked(&self, dir: &NodeRef) -> Result<bool> {
        Ok(self.read_listing(dir)?.names.is_empty())
    }

    fn listing(&self, dir: &NodeRef) -> Result<Arc<Mutex<Listing>>> {
        if let Some(listing) = self.listings.get(dir) {
            return Ok(listing);
        }
        // Kept while nobody can change the directory, so that no change is missed.
        let _names = dir.names().read();
        let listing = Arc::new(Mutex::new(self.read_listing(dir)?));
        let _evicted = self
            .listings
            .kept
            .lock()
            .push(dir.serial(), listing.clone());
        Ok(listing)
    }

    fn read_listing(&self, dir: &NodeRef) -> Result<Listing> {
        let mut found: Vec<(OsString, Option<Plain>)> = Vec::new();
        if !dir.is_dir() {
            return Err(Error::refused("list", Errno::NOTDIR));
        }
        if dir.is_removed() {
            return Ok(Listing::default());
        }
        let mut hidden: HashSet<OsString> = HashSet::new();
        let mut merge = |entries: Vec<Listed>, lower: Option<&LowerDir>, more_below: bool| {
            // Names of this layer hide those below, not one another.
            let mut here = Vec::new();
            for entry in entries {
                if more_below {
                    here.push(entry.name.clone());
                }
                if let ListedKind::Object(kind) = entry.kind
                    && !hidden.contains(&entry.name)
                {
                    let plain = lower.and_then(|dir| self.plain(dir, kind, entry.ino));
                    found.push((entry.name, plain));
                }
            }
            hidden.extend(here);
        };
        let lowers = dir.stack.dirs();
        if let Some(handle) = self.upper_dir(dir)? {
            let entries =
                list(handle.as_fd(), Opaque::No, self.upper_dialects()).op("list upper")?;
            merge(entries, None, !lowers.is_empty());
        }
        let mut collected = self.collect_whereabouts(&dir.stack);
        for (index, lower) in lowers.iter().enumerate() {
            if let (Some(chain), Some(number)) = (&self.chain, lower.place.number()) {
                let names = chain.names(number)?.into_iter();
                merge(names.map(indexed_entry).collect(), None, false);
                continue;
            }
            let Some(handle) = self.lower_dir(&lower.place)? else {
                continue;
            };
            let dialects = &self.lowers[usize::from(lower.layer())].dialects;
            let entries = list(handle.as_fd(), lower.opaque, dialects).op("list lower")?;
            if let Some(names) = &mut collected {
                entries
                    .iter()
                    .for_each(|entry| names.add(index, &entry.name));
            }
            merge(entries, Some(lower), index + 1 < lowers.len());
        }
        if let Some(names) = collected {
            self.keep_whereabouts(&dir.stack, names);
        }
        Ok(Listing::of(found))
    }

    /// What a lower's listing tells of an entry.
    fn plain(&self, dir: &LowerDir, kind: FileType, ino: u64) -> Option<Plain> {
        let told = !matches!(kind, FileType::Directory | FileType::Unknown);
        let settled = told && !self.lowers[usize::from(dir.layer())].mutable;
        let ino = settled.then(|| self.table.number_of(dir.dev, ino))??;
        Some(Plain { kind, ino })
    }
}

/// A name that an index has; what it is was not asked.
fn indexed_entry(name: &OsStr) -> Listed {
    Listed {
        name: name.to_owned(),
        ino: 0,
        kind: ListedKind::Object(FileType::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_one_cookie_are_kept_apart() {
        let mut listing = Listing::default();
        let cookie = Listing::cookie(OsStr::new("a"));
        listing.names.insert(cookie, (OsStr::new("b").into(), None));
        listing.add(OsStr::new("a"), None);
        listing.add(OsStr::new("a"), None);
        assert_eq!(listing.names.len(), 2);
        listing.remove(OsStr::new("a"));
        assert_eq!(
            listing.names.get(&cookie).map(|(name, _)| &**name),
            Some(OsStr::new("b"))
        );
        assert_eq!(listing.names.len(), 1);
    }

    #[test]
    fn cookies_leave_room_and_fit_an_offset() {
        for name in ["", "a", "usr", "x".repeat(255).as_str()] {
            let cookie = Listing::cookie(OsStr::new(name));
            assert!((FIRST_COOKIE..=i64::MAX as u64).contains(&cookie));
        }
    }
}
