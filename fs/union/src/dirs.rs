//! Handles of directories, cached. Everything in a layer is reached from one of them by a single name.

use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::bounded;
use crate::node::DirPlace;

/// Most handles ever kept. A directory handle costs the kernel about 256 bytes; a thousand cover the directories that a
/// busy tree touches at one time.
const MOST: u64 = 1024;

/// The part of the process's descriptor limit that the cache may use: a quarter, the rest is for open files.
const SHARE: u64 = 4;

/// Which directory a handle names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DirKey {
    /// The upper directory of the node with this serial number.
    Upper(u64),
    /// A directory of a lower layer.
    Lower(Arc<DirPlace>),
}

/// The least recently used handles go first.
#[derive(Debug)]
pub(crate) struct DirCache {
    handles: Mutex<LruCache<DirKey, Arc<OwnedFd>>>,
}

impl DirCache {
    /// A cache sized by the process's descriptor limit.
    pub(crate) fn new() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let size = limit
            .map_or(MOST, |limit| (limit / SHARE).min(MOST))
            .max(16);
        let size = usize::try_from(size).ok().and_then(NonZeroUsize::new);
        Self {
            handles: Mutex::new(bounded::cache(size.unwrap_or(NonZeroUsize::MIN))),
        }
    }

    pub(crate) fn get(&self, key: &DirKey) -> Option<Arc<OwnedFd>> {
        self.handles.lock().get(key).cloned()
    }

    pub(crate) fn put(&self, key: DirKey, handle: Arc<OwnedFd>) {
        // The handle that falls out is closed after the lock is released.
        let _evicted = self.handles.lock().push(key, handle);
    }

    pub(crate) fn remove(&self, key: &DirKey) {
        let _removed = self.handles.lock().pop(key);
    }

    /// Gives every handle back: the process is short of descriptors.
    pub(crate) fn clear(&self) {
        let mut handles = self.handles.lock();
        let size = handles.cap();
        let old = std::mem::replace(&mut *handles, bounded::cache(size));
        drop(handles);
        drop(old);
    }
}
