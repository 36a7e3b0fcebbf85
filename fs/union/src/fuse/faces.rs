//! How the kernel holds files open.
//!
//! The kernel's rules, measured: all opens of one node go either through its page cache or to one backing file, until the
//! last is closed. So the way is chosen at the first open and kept. A node's bytes may meanwhile have moved from a lower to
//! the upper; then the node must get a second number, under which it can be opened anew (see `open` in `files.rs`).

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::BackingId;
use lru::LruCache;
use parking_lot::Mutex;

use crate::bounded;
use crate::node::NodeId;

/// Numbers are spread over this many locks.
const SHARDS: usize = 16;

/// Backing files kept registered beyond the last close. Each pins one `struct file` and one inode in the kernel, about
/// 2 KiB together; a thousand cover a busy tree's shared libraries and tools.
const BACKINGS: usize = 1024;

/// The way in which the open files of one number go.
#[derive(Clone, Debug, Default)]
pub(crate) enum Way {
    /// None is open.
    #[default]
    Closed,
    /// Through the kernel's page cache and the server.
    Cached,
    /// To a backing file.
    Direct(Backing),
}

/// A registered backing file.
#[derive(Clone, Debug)]
pub(crate) struct Backing {
    pub(crate) id: Arc<BackingId>,
    /// It is the upper's, so that writers may have it.
    pub(crate) in_upper: bool,
}

/// What is open under one number.
#[derive(Debug, Default)]
pub(crate) struct Face {
    pub(crate) opens: u32,
    pub(crate) writers: u32,
    /// Opened to be executed.
    pub(crate) programs: u32,
    pub(crate) way: Way,
    /// It has been open to a backing file: the kernel's cached pages may be old.
    pub(crate) pages_stale: bool,
    /// The kernel has been given its bytes.
    pub(crate) given: bool,
    /// It was open for writing to a backing file, and a mapping may still be.
    pub(crate) maybe_mapped: bool,
    /// Something is lost that was written by who has it open.
    pub(crate) lost: bool,
    /// The server's own descriptors.
    pub(crate) files: Files,
}

/// The server's descriptors of a node's bytes, opened when a request needs them; by a server that must obey the permission
/// bits, when the file is opened: they may have changed by the time of the request.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) read: Option<Arc<OwnedFd>>,
    pub(crate) write: Option<Arc<OwnedFd>>,
    /// `write` cannot be read from.
    pub(crate) write_only: bool,
    /// `read` is the upper's.
    pub(crate) in_upper: bool,
}

/// All faces, and the backing files kept for later.
#[derive(Debug)]
pub(crate) struct Faces {
    shards: [Mutex<HashMap<u64, Arc<Mutex<Face>>>>; SHARDS],
    kept: Mutex<LruCache<u64, Backing>>,
}

impl Faces {
    pub(crate) fn new() -> Self {
        let size = NonZeroUsize::new(BACKINGS).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            kept: Mutex::new(bounded::cache(size)),
        }
    }

    fn shard(&self, id: NodeId) -> &Mutex<HashMap<u64, Arc<Mutex<Face>>>> {
        &self.shards[usize::try_from(id.0 % SHARDS as u64).unwrap_or(0)]
    }

    /// The face of a number, made if needed.
    pub(crate) fn of(&self, id: NodeId) -> Arc<Mutex<Face>> {
        self.shard(id).lock().entry(id.0).or_default().clone()
    }

    /// The face of a number that has been open since the kernel learned it.
    pub(crate) fn known(&self, id: NodeId) -> Option<Arc<Mutex<Face>>> {
        self.shard(id).lock().get(&id.0).cloned()
    }

    /// The kernel has forgotten the number. What was kept for it is the caller's to drop.
    pub(crate) fn forget(&self, id: NodeId) -> (Option<Arc<Mutex<Face>>>, Option<Backing>) {
        let face = self.shard(id).lock().remove(&id.0);
        let backing = self.kept.lock().pop(&id.0);
        (face, backing)
    }

    /// Closes the server's own descriptors of open files; the next request opens what it needs. A face that is in use just
    /// now keeps its own.
    pub(crate) fn close_files(&self) {
        for shard in &self.shards {
            let faces: Vec<Arc<Mutex<Face>>> = shard.lock().values().cloned().collect();
            for face in faces {
                let files = face
                    .try_lock()
                    .map(|mut face| std::mem::take(&mut face.files));
                drop(files);
            }
        }
    }

    /// A backing file kept from an earlier open.
    pub(crate) fn kept(&self, id: NodeId) -> Option<Backing> {
        self.kept.lock().get(&id.0).cloned()
    }

    /// Keeps a backing file for later opens.
    pub(crate) fn keep(&self, id: NodeId, backing: Backing) {
        let _evicted = self.kept.lock().push(id.0, backing);
    }
}
