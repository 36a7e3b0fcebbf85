//! The server's state, shared by all requests.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{Errno, INodeNo, Notifier, Request};
use rustix::io::Errno as Os;

use super::bare::Bareness;
use super::convert;
use super::counters::{Counters, Op};
use super::faces::Faces;
use super::options::{MountOptions, Passthrough};
use super::pace::Pace;
use super::pool::Pool;
use super::readers::Readers;
use super::tidy::Tidy;
use crate::attr::Attr;
use crate::error::{Error, Result};
use crate::node::{NodeId, NodeRef};
use crate::sys::ids::Owner;
use crate::view::{Spare, View};
use mille_layer::Ownership;

/// For ever, as far as anybody will notice: ten years.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86400);

/// How long what is known of a layer that may change below us is believed.
const MUTABLE: Duration = Duration::from_secs(1);

/// Serves one mount.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) view: Arc<View>,
    pub(crate) faces: Arc<Faces>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) pool: Pool,
    pub(crate) tidy: Arc<Tidy>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) bareness: Arc<Bareness>,
    pub(crate) notifier: OnceLock<Notifier>,
    /// The kernel's end, for answers that the library does not know.
    pub(crate) device: OnceLock<OwnedFd>,
    pub(crate) readers: Readers,
    /// Whether the kernel may be given backing files; cleared when it turns out that it will not take them.
    pub(crate) passthrough: AtomicBool,
    pub(crate) acl: bool,
    /// See [`MountOptions::grows_from`].
    pub(crate) grows_from: Option<u64>,
    /// Some layer may change below us.
    pub(crate) mutable: bool,
    static_nlink: bool,
    timeout: Duration,
    /// The kernel opens files by itself and caches what it reads of them: nothing here can change, so there is nothing that
    /// an OPEN could tell.
    pub(crate) opens_unseen: bool,
    /// A flush has to wait for a disk.
    pub(crate) flushes_wait: bool,
    /// The server is subject to permission bits like anybody else.
    pub(crate) ordinary: bool,
}

impl Server {
    pub(crate) fn new(view: Arc<View>, counters: Arc<Counters>, options: &MountOptions) -> Self {
        let mutable = view.has_mutable_lower();
        let view_is_writable = view.is_writable();
        // Whoever limits the kernel's belief changes layers behind our back.
        let distrusted = options.timeout.is_some();
        view.whereabouts
            .distrusted
            .store(distrusted, Ordering::Relaxed);
        let ordinary = !rustix::process::geteuid().is_root();
        let ownership = view.ownership;
        let flushes_wait = !view.upper_is_in_memory();
        let faces = Arc::new(Faces::new());
        let held = Arc::downgrade(&faces);
        if view
            .spare
            .set(Spare(Box::new(move || {
                if let Some(faces) = held.upgrade() {
                    faces.close_files();
                }
            })))
            .is_err()
        {
            log::debug!("a view mounted twice: only the first mount makes room for descriptors");
        }
        Self {
            view,
            faces,
            counters,
            pool: Pool::new(),
            tidy: Arc::default(),
            pace: Arc::new(Pace::new(super::threads(options.threads))),
            bareness: Arc::default(),
            opens_unseen: options.read_only && !view_is_writable && !mutable && !ordinary,
            notifier: OnceLock::new(),
            device: OnceLock::new(),
            readers: Readers::new(),
            passthrough: AtomicBool::new(options.passthrough == Passthrough::Auto),
            // Where modes are told by an attribute, a list would limit another mode than the one told.
            acl: options.acl && ownership == Ownership::Real,
            grows_from: options.grows_from,
            mutable,
            static_nlink: options.static_nlink,
            timeout: options.timeout.unwrap_or(FOREVER),
            ordinary,
            flushes_wait,
        }
    }

    /// Notes that a request is about to be served, and when what is returned goes that it has been.
    #[must_use]
    pub(crate) fn serve(&self, request: &Request, op: Op) -> Serving<'_> {
        self.counters.count(op);
        let moves_data = matches!(op, Op::Read | Op::Write | Op::CopyFileRange);
        self.pace.asked(request.pid(), moves_data);
        Serving(self)
    }

    /// The node a request is about.
    pub(crate) fn node(&self, ino: INodeNo) -> Result<NodeRef> {
        let id = convert::node_id(ino);
        if id == NodeId::ROOT {
            return Ok(self.view.root());
        }
        self.view
            .table
            .known(id)
            .ok_or(Error::refused("find node", Os::STALE))
    }

    /// How long a name stays true.
    pub(crate) fn entry_ttl(&self) -> Duration {
        if self.mutable {
            self.timeout.min(MUTABLE)
        } else {
            self.timeout
        }
    }

    /// How long attributes told under `id` stay true.
    pub(crate) fn attr_ttl(&self, node: &NodeRef, id: NodeId) -> Duration {
        if node.id() != id && id != NodeId::ROOT || (id.0 != node.ino) {
            // Known to the kernel under two numbers: what changes under one it does not see under the other.
            return Duration::ZERO;
        }
        if node.kind == rustix::fs::FileType::RegularFile && self.written_past_us(node, id) {
            return Duration::ZERO;
        }
        if self.mutable && !node.in_upper() {
            self.timeout.min(MUTABLE)
        } else {
            self.timeout
        }
    }

    /// True while what the kernel knows of a file's attributes may be wrong without its noticing: above all through a
    /// shared mapping of a backing file, for which no request is ever sent.
    fn written_past_us(&self, node: &NodeRef, id: NodeId) -> bool {
        let Some(face) = self.faces.known(id) else {
            return false;
        };
        let mut face = face.lock();
        if face.writers > 0 {
            // Also where all writes pass through us: an open with truncation sets the kernel's idea of the length to 0 once
            // more after we have answered it, perhaps after others have written.
            return true;
        }
        if !face.maybe_mapped {
            return false;
        }
        // Closed: only a mapping that outlived its descriptor may still write. While one lives the backing file counts
        // as open for writing.
        let open = self.view.data_open_for_writing(node).unwrap_or(true);
        face.maybe_mapped = open;
        open
    }

    /// Attributes, as an answer to GETATTR and SETATTR has them.
    pub(crate) fn attr_reply(
        &self,
        node: &NodeRef,
        id: NodeId,
        reply: fuser::ReplyAttr,
        attr: Result<Attr>,
    ) {
        match attr {
            Ok(attr) => {
                let ttl = self.attr_ttl(node, id);
                reply.attr(&ttl, &self.shown(&attr, attr.ino));
            }
            Err(error) => reply.error(self.refusal("getattr", &error)),
        }
    }

    /// Gives the kernel a node as the answer to a request for a name.
    pub(crate) fn entry_reply(&self, found: Result<NodeRef>, reply: fuser::ReplyEntry) {
        let found = found.and_then(|node| {
            let attr = self.view.attr(&node)?;
            Ok(Some((node, attr)))
        });
        self.lookup_reply(found, reply);
    }

    /// The same with what is known of it already; `None` is a name that is not there.
    pub(crate) fn lookup_reply(
        &self,
        found: Result<Option<(NodeRef, Attr)>>,
        reply: fuser::ReplyEntry,
    ) {
        match found {
            Ok(Some((node, attr))) => {
                let id = node.id();
                let ttl = self.attr_ttl(&node, id);
                // Before the answer: the kernel may forget the node at once.
                self.view.table.remember(id, &node);
                let attr = self.shown(&attr, id.0);
                reply.entry_with_ttls(&ttl, &self.entry_ttl(), &attr, GENERATION);
            }
            Ok(None) => reply.entry(&self.entry_ttl(), &convert::negative(), GENERATION),
            Err(error) => reply.error(self.refusal("entry", &error)),
        }
    }

    pub(crate) fn empty_reply(
        &self,
        op: &'static str,
        result: Result<()>,
        reply: fuser::ReplyEmpty,
    ) {
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.refusal(op, &error)),
        }
    }

    /// The errno of a failed request; failures that no caller can have caused are logged.
    pub(crate) fn refusal(&self, op: &'static str, error: &Error) -> Errno {
        if matches!(
            error.errno(),
            libc::EIO | libc::EBADF | libc::ENFILE | libc::EMFILE
        ) {
            log::error!("{op}: {error}");
        } else {
            log::debug!("{op}: {error}");
        }
        convert::errno(error)
    }

    /// Tells the kernel that what it knows of a node's attributes is old. Never waits.
    pub(crate) fn attributes_changed(&self, id: NodeId) {
        let Some(notifier) = self.notifier.get() else {
            return;
        };
        // A negative offset leaves the cached pages alone.
        if let Err(error) = notifier.inval_inode(INodeNo(id.0), -1, 0) {
            log::debug!("invalidate attributes of {}: {error}", id.0);
        }
    }

    /// Gives the node another number, under which the kernel knows nothing of it yet.
    pub(crate) fn renumber(&self, node: &NodeRef, old: NodeId) {
        if node.id() == old {
            node.renumber();
        }
        self.attributes_changed(old);
    }

    pub(crate) fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// Runs a request here, or on a thread of its own if it may take long.
    pub(crate) fn run(self: &Arc<Self>, slow: bool, job: impl FnOnce(&Arc<Self>) + Send + 'static) {
        if slow {
            let this = self.clone();
            self.pool.run(Box::new(move || job(&this)));
        } else {
            job(self);
        }
    }

    /// Who the maker of a new object is in the layers.
    pub(crate) fn owner(&self, request: &Request) -> Owner {
        self.view.owners.maker(Owner {
            uid: request.uid(),
            gid: request.gid(),
        })
    }

    /// Attributes as callers see them, under a number.
    pub(crate) fn shown(&self, attr: &Attr, ino: u64) -> fuser::FileAttr {
        let Owner { uid, gid } = self.view.owners.shown(Owner {
            uid: attr.uid,
            gid: attr.gid,
        });
        let nlink = if self.static_nlink && attr.is_dir() {
            attr.nlink.min(1)
        } else {
            attr.nlink
        };
        let shown = Attr {
            uid,
            gid,
            nlink,
            ..*attr
        };
        convert::attr(&shown, ino)
    }
}

/// A request that this thread serves.
pub(crate) struct Serving<'a>(&'a Server);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        self.0.pace.served(self.0.device.get());
    }
}

/// Numbers are not reused while the kernel knows them, so one generation is enough.
pub(crate) const GENERATION: fuser::Generation = fuser::Generation(0);
