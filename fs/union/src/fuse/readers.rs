//! Who lists long directories, and whether for more than the names; see `listing`.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};

use fuser::INodeNo;
use lru::LruCache;
use parking_lot::Mutex;

use crate::bounded;

/// Entries of a directory that are told with their attributes in any case: all, of most directories.
pub(crate) const LONG: usize = 1000;

/// Directories being read, and threads that are known to ask after entries.
const KEPT: usize = 64;

/// What the reader of a long directory wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Not known yet: attributes, one of which it has to ask for.
    Unknown,
    Attributes,
    Names,
}

/// The long directories that are being read.
#[derive(Debug)]
pub(crate) struct Readers {
    /// There has been one.
    any: AtomicBool,
    reading: Mutex<LruCache<u64, Reading>>,
    curious: Mutex<LruCache<u32, ()>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    /// Entries told with attributes.
    told: usize,
    /// Somebody has asked for an entry.
    asked: bool,
    /// Names alone have been told.
    names: bool,
}

impl Readers {
    pub(crate) fn new() -> Self {
        let size = NonZeroUsize::new(KEPT).unwrap_or(NonZeroUsize::MIN);
        Self {
            any: AtomicBool::new(false),
            reading: Mutex::new(bounded::cache(size)),
            curious: Mutex::new(bounded::cache(size)),
        }
    }

    /// A thread begins to read a long directory.
    pub(crate) fn begins(&self, INodeNo(dir): INodeNo, thread: u32) -> Wanted {
        self.any.store(true, Ordering::Relaxed);
        let mut reading = self.reading.lock();
        // What was asked for after the last reading tells of the next one as well.
        let asked = reading.get(&dir).is_some_and(|last| last.asked);
        reading.put(
            dir,
            Reading {
                asked,
                ..Reading::default()
            },
        );
        drop(reading);
        if asked || self.curious.lock().contains(&thread) {
            Wanted::Attributes
        } else {
            Wanted::Unknown
        }
    }

    /// A thread goes on reading a directory; `None` if it is not known to be a long one.
    pub(crate) fn goes_on(&self, INodeNo(dir): INodeNo, thread: u32) -> Option<Wanted> {
        if !self.any.load(Ordering::Relaxed) {
            return None;
        }
        let curious = self.curious.lock().contains(&thread);
        let mut reading = self.reading.lock();
        let here = reading.get_mut(&dir)?;
        Some(if curious || here.asked {
            Wanted::Attributes
        } else if here.told < LONG {
            Wanted::Unknown
        } else {
            here.names = true;
            Wanted::Names
        })
    }

    /// So many entries more have been told with attributes.
    pub(crate) fn told(&self, INodeNo(dir): INodeNo, entries: usize) {
        if let Some(here) = self.reading.lock().get_mut(&dir) {
            here.told += entries;
        }
    }

    /// A thread asks for an entry of a directory.
    pub(crate) fn asks(&self, INodeNo(dir): INodeNo, thread: u32) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        let mut reading = self.reading.lock();
        let Some(here) = reading.get_mut(&dir) else {
            return;
        };
        here.asked = true;
        let after_names = here.names;
        drop(reading);
        if after_names {
            self.curious.lock().put(thread, ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: INodeNo = INodeNo(7);

    fn read_names(readers: &Readers, dir: INodeNo, thread: u32) {
        assert_eq!(readers.begins(dir, thread), Wanted::Unknown);
        readers.told(dir, LONG - 1);
        assert_eq!(readers.goes_on(dir, thread), Some(Wanted::Unknown));
        readers.told(dir, 1);
        assert_eq!(readers.goes_on(dir, thread), Some(Wanted::Names));
    }

    #[test]
    fn who_asks_gets_attributes() {
        let readers = Readers::new();
        assert_eq!(readers.goes_on(DIR, 1), None);
        read_names(&readers, DIR, 1);
        // Asks only now: its next directory is told whole.
        readers.asks(DIR, 1);
        assert_eq!(readers.goes_on(DIR, 1), Some(Wanted::Attributes));
        assert_eq!(readers.begins(INodeNo(8), 1), Wanted::Attributes);
        // So is this directory to everybody, but no other.
        assert_eq!(readers.begins(DIR, 2), Wanted::Attributes);
        read_names(&readers, INodeNo(9), 2);
        // Asks while it reads.
        assert_eq!(readers.begins(INodeNo(10), 3), Wanted::Unknown);
        readers.asks(INodeNo(10), 3);
        readers.told(INodeNo(10), LONG);
        assert_eq!(readers.goes_on(INodeNo(10), 3), Some(Wanted::Attributes));
        read_names(&readers, INodeNo(11), 3);
    }
}
