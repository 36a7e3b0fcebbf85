//! Listing merged directories.
//!
//! An entry's cookie (its place in the listing, which a reader comes back with) is a hash of its name. So a listing needs
//! no state that belongs to one reader: whoever asks for what comes after a cookie gets every entry that is there all the
//! time exactly once, however often the listing was thrown away, rebuilt or changed in between.

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
use crate::node::NodeRef;
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
    names: BTreeMap<u64, Box<OsStr>>,
}

impl Listing {
    fn cookie(name: &OsStr) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(name.as_bytes());
        (hasher.finish() & COOKIE_MASK).max(FIRST_COOKIE)
    }

    fn add(&mut self, name: &OsStr) {
        let mut cookie = Self::cookie(name);
        while let Some(other) = self.names.get(&cookie) {
            if **other == *name {
                return;
            }
            cookie += 1;
        }
        self.names.insert(cookie, name.into());
    }

    fn remove(&mut self, name: &OsStr) {
        let mut cookie = Self::cookie(name);
        while let Some(other) = self.names.get(&cookie) {
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
            listing.lock().add(name);
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
    /// Up to `most` names of a directory that come after a cookie, with their cookies.
    pub(crate) fn names_after(
        &self,
        dir: &NodeRef,
        cookie: u64,
        most: usize,
    ) -> Result<Vec<(u64, OsString)>> {
        let listing = self.listing(dir)?;
        let names: Vec<(u64, OsString)> = listing
            .lock()
            .names
            .range(cookie.saturating_add(1)..)
            .take(most)
            .map(|(cookie, name)| (*cookie, (**name).to_owned()))
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
        Ok(listing.names.into_values().map(OsString::from).collect())
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
        let mut listing = Listing::default();
        if !dir.is_dir() {
            return Err(Error::refused("list", Errno::NOTDIR));
        }
        if dir.is_removed() {
            return Ok(listing);
        }
        let mut hidden: HashSet<OsString> = HashSet::new();
        let mut merge = |entries: Vec<Listed>, more_below: bool| {
            // Names of this layer hide those below, not one another.
            let mut here = Vec::new();
            for entry in entries {
                if matches!(entry.kind, ListedKind::Object(_)) && !hidden.contains(&entry.name) {
                    listing.add(&entry.name);
                }
                if more_below {
                    here.push(entry.name);
                }
            }
            hidden.extend(here);
        };
        let lowers = dir.stack.dirs();
        if let Some(handle) = self.upper_dir(dir)? {
            let entries =
                list(handle.as_fd(), Opaque::No, self.upper_dialects()).op("list upper")?;
            merge(entries, !lowers.is_empty());
        }
        let mut collected = self.collect_whereabouts(&dir.stack);
        for (index, lower) in lowers.iter().enumerate() {
            if let (Some(chain), Some(number)) = (&self.chain, lower.place.number()) {
                let names = chain.names(number)?.into_iter();
                merge(names.map(indexed_entry).collect(), false);
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
            merge(entries, index + 1 < lowers.len());
        }
        if let Some(names) = collected {
            self.keep_whereabouts(&dir.stack, names);
        }
        Ok(listing)
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
        listing.names.insert(cookie, OsStr::new("b").into());
        listing.add(OsStr::new("a"));
        listing.add(OsStr::new("a"));
        assert_eq!(listing.names.len(), 2);
        listing.remove(OsStr::new("a"));
        assert_eq!(
            listing.names.get(&cookie).map(|name| &**name),
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
