//! Opening, reading and writing files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuser::{BackingId, Errno, FileHandle, FopenFlags, INodeNo, ReplyCreate, ReplyOpen, Request};
use parking_lot::Mutex;
use rustix::fs::OFlags;
use rustix::io::Errno as Os;

use super::convert;
use super::faces::{Backing, Face, Files, Way};
use super::server::{GENERATION, Server};
use crate::attr::Attr;
use crate::copyup::lost;
use crate::create::Made;
use crate::error::{Context, Error, Result};
use crate::getattr::Handle;
use crate::node::{NodeId, NodeRef};
use crate::setattr::Membership;
use crate::sys::open;
use crate::view::View;
use mille_layer::Ownership;

/// Lower files up to this size are read through the page cache of the mount. Then a reader who holds one open and a
/// writer who makes it be copied up share one node and see each other's bytes, which a passthrough open could not offer.
/// 128 KiB is what the kernel reads ahead, so such a file costs one READ once; and small files (scripts, configuration,
/// locks, small databases) are the ones that are read and rewritten in place. Larger ones are mostly programs and
/// libraries, whose pages are worth sharing between mounts.
const CACHED_UP_TO: u64 = 128 * 1024;

/// Of lower files up to this size the kernel is given the bytes before their first OPEN is answered: a message, where a READ
/// would be a request that the reader waits for, and would make the kernel ask for the access time after it. Who opens a
/// larger one may well want only its head.
const GIVEN_UP_TO: u64 = 64 * 1024;

/// How an open file is to be answered.
enum Opened {
    Cached {
        keep: bool,
    },
    Direct(Arc<BackingId>),
    /// Under this number it can no longer be opened that way: the kernel is to look the name up again.
    Elsewhere,
}

/// Registers a backing file with the kernel.
trait Register {
    fn register(&self, fd: BorrowedFd<'_>) -> std::io::Result<BackingId>;
}

impl Register for ReplyOpen {
    fn register(&self, fd: BorrowedFd<'_>) -> std::io::Result<BackingId> {
        self.open_backing(fd)
    }
}

impl Register for ReplyCreate {
    fn register(&self, fd: BorrowedFd<'_>) -> std::io::Result<BackingId> {
        self.open_backing(fd)
    }
}

/// True if the flags of an open ask for more than reading.
pub(crate) fn is_writing(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0
}

/// What the kernel is told as the handle of an open file: all it serves for is to know, when it is closed, whether it was
/// opened to write, with truncation or to be executed, which the flags given then no longer tell.
const READER: FileHandle = FileHandle(0);
const WRITER: FileHandle = FileHandle(1);
const PROGRAM: FileHandle = FileHandle(2);

/// Bit of an OPEN's flags that says execve(2); the kernel's `__FMODE_EXEC`. Such a file is open until the last process
/// that runs it has ended.
const TO_EXECUTE: i32 = 0o40;

fn handle(flags: i32) -> FileHandle {
    if is_writing(flags) {
        WRITER
    } else if flags & TO_EXECUTE != 0 {
        PROGRAM
    } else {
        READER
    }
}

impl Server {
    /// OPEN of an existing file.
    pub(crate) fn open(
        self: &Arc<Self>,
        caller: Caller,
        ino: INodeNo,
        flags: i32,
        reply: ReplyOpen,
    ) {
        match self.try_open(caller, ino, flags, &reply) {
            Ok(Opened::Cached { keep }) => {
                reply.opened(handle(flags), cached_flags(keep));
            }
            Ok(Opened::Direct(id)) => {
                reply.opened_passthrough(handle(flags), FopenFlags::FOPEN_NOFLUSH, &id);
            }
            Ok(Opened::Elsewhere) => reply.error(Errno::ESTALE),
            Err(error) => reply.error(self.refusal("open", &error)),
        }
    }

    fn try_open(
        self: &Arc<Self>,
        caller: Caller,
        ino: INodeNo,
        flags: i32,
        register: &dyn Register,
    ) -> Result<Opened> {
        let node = self.node(ino)?;
        View::require_file(&node, "open")?;
        if is_writing(flags) {
            let truncate = flags & libc::O_TRUNC != 0;
            if truncate && flags & libc::O_ACCMODE == libc::O_RDONLY {
                self.refuse_running(convert::node_id(ino))?;
            }
            let was_up = node.data_in_upper();
            self.prepare_write(&node, convert::node_id(ino), truncate)?;
            if !was_up {
                // The ctime is that of the copy now, whether it will be written to or not.
                self.attributes_changed(convert::node_id(ino));
            }
            if truncate {
                self.strip_set_id(caller, &node, convert::node_id(ino))?;
            }
        }
        let id = convert::node_id(ino);
        let face = self.faces.of(id);
        let mut face = face.lock();
        if face.opens == 0 {
            face.lost = false;
        }
        // Read with the face locked: either an open below sees the upper's bytes, or the writer who brought them there
        // sees this open. What no longer grows is in the upper.
        let growing = self.view.growth.of(&node);
        let in_upper = node.data_in_upper();
        let growing = growing.filter(|_| !in_upper);
        if is_writing(flags) && (face.lost || !in_upper && growing.is_none()) {
            return Err(lost("open"));
        }
        let opened = match &face.way {
            Way::Cached => Opened::Cached {
                keep: !face.pages_stale && !self.mutable,
            },
            Way::Direct(backing) if backing.in_upper == in_upper && growing.is_none() => {
                Opened::Direct(backing.id.clone())
            }
            Way::Direct(_) => {
                drop(face);
                self.renumber(&node, id);
                return Ok(Opened::Elsewhere);
            }
            // An old number of a file that has pages under its new one.
            Way::Closed if self.is_elsewhere(&node, id, growing.is_some()) => {
                return Ok(Opened::Elsewhere);
            }
            Way::Closed if growing.is_some() => self.go_cached(&mut face),
            Way::Closed => self.choose_way(&mut face, &node, id, register)?,
        };
        if let Some(growing) = &growing {
            if self.ordinary {
                // The mode need not allow to open it later.
                face.files.write = Some(growing.file.clone());
            }
        } else if self.ordinary && matches!(opened, Opened::Cached { .. }) {
            self.open_in(&mut face, &node, is_writing(flags))?;
        }
        face.opens += 1;
        if is_writing(flags) {
            face.writers += 1;
        } else if handle(flags) == PROGRAM {
            face.programs += 1;
        }
        Ok(opened)
    }

    /// The kernel keeps writers away from a running program, but looks for one only after OPEN where a file is opened to
    /// be read and truncated.
    fn refuse_running(&self, id: NodeId) -> Result<()> {
        match self.faces.known(id) {
            Some(face) if face.lock().programs > 0 => Err(Error::refused("truncate", Os::TXTBSY)),
            _ => Ok(()),
        }
    }

    /// After a write or truncation that the kernel did not announce as one that clears set-id bits.
    pub(crate) fn strip_set_id(&self, caller: Caller, node: &NodeRef, id: NodeId) -> Result<()> {
        if !caller.keeps_set_id(&self.view, node)? {
            self.take_set_id(caller, node, id)?;
        }
        Ok(())
    }

    /// Before a write by somebody of whom the kernel says that set-id bits go.
    pub(crate) fn take_set_id(&self, caller: Caller, node: &NodeRef, id: NodeId) -> Result<()> {
        if self
            .view
            .strip_set_id(node, caller.membership(&self.view, node)?)?
        {
            self.attributes_changed(id);
        }
        Ok(())
    }

    /// Decides how a file that is not open yet is opened.
    fn choose_way(
        &self,
        face: &mut Face,
        node: &NodeRef,
        id: NodeId,
        register: &dyn Register,
    ) -> Result<Opened> {
        let in_upper = node.data_in_upper();
        let size = match in_upper {
            true => None,
            false => Some(self.view.lower_data_size(node)?),
        };
        if self.passthrough() {
            if let Some(backing) = self.faces.kept(id).filter(|kept| kept.in_upper == in_upper) {
                return Ok(Self::go_direct(face, backing));
            }
            if self.mutable || size.is_none_or(|size| size > CACHED_UP_TO) {
                let (handle, in_upper) = self.view.data_handle(node)?;
                if let Some(backing) = self.register(handle.as_fd(), in_upper, register) {
                    self.faces.keep(id, backing.clone());
                    return Ok(Self::go_direct(face, backing));
                }
            }
        }
        let opened = self.go_cached(face);
        let keep = matches!(opened, Opened::Cached { keep: true });
        if let Some(size) = size.filter(|size| keep && (1..=GIVEN_UP_TO).contains(size))
            && !std::mem::replace(&mut face.given, true)
        {
            self.give_bytes(node, id, size);
        }
        Ok(opened)
    }

    fn go_cached(&self, face: &mut Face) -> Opened {
        let keep = !face.pages_stale && !self.mutable;
        face.pages_stale = false;
        face.way = Way::Cached;
        Opened::Cached { keep }
    }

    /// True if a number is not the one under which the kernel is to cache a file's pages.
    fn is_elsewhere(&self, node: &NodeRef, id: NodeId, growing: bool) -> bool {
        let now = node.id();
        if now == id || !self.passthrough() {
            return false;
        }
        let cached = |face: Arc<Mutex<Face>>| matches!(face.lock().way, Way::Cached);
        growing || self.faces.known(now).is_some_and(cached)
    }

    /// Puts the bytes of a lower file into the kernel's page cache. Nobody has it open under this number: a reader who waits
    /// for a READ has pages locked, on which this would wait in turn.
    fn give_bytes(&self, node: &NodeRef, id: NodeId, size: u64) {
        let Some(notifier) = self.notifier.get() else {
            return;
        };
        // While the claim is held nobody can copy the file up and cut it, after which these bytes would be wrong.
        let Some(_claim) = self.view.table.claims.try_claim(node) else {
            return;
        };
        let given = self.view.lower_bytes(node, size, |bytes| {
            notifier.store(INodeNo(id.0), 0, bytes).op("give bytes")
        });
        if let Err(error) = given {
            // They are asked for when they are wanted.
            log::debug!("{id:?}: {error}");
        }
    }

    fn go_direct(face: &mut Face, backing: Backing) -> Opened {
        let id = backing.id.clone();
        face.pages_stale = true;
        face.way = Way::Direct(backing);
        Opened::Direct(id)
    }

    fn register(
        &self,
        file: BorrowedFd<'_>,
        in_upper: bool,
        register: &dyn Register,
    ) -> Option<Backing> {
        match register.register(file) {
            Ok(id) => Some(Backing {
                id: Arc::new(id),
                in_upper,
            }),
            Err(error) => {
                if error.raw_os_error() == Some(libc::EPERM) || in_upper {
                    // No right to it, or not for this upper; readers of lowers must then not have it either, or a
                    // copied-up file would be known under two numbers with a page cache each.
                    log::info!("file data goes through the server: passthrough refused: {error}");
                    self.passthrough.store(false, Ordering::Relaxed);
                } else {
                    log::debug!("passthrough refused for one file: {error}");
                }
                None
            }
        }
    }

    /// Registers the file of a CREATE: not the descriptor it was made with, which would count as open for writing, and
    /// its attributes as uncertain, as long as the registration is kept.
    fn register_created(&self, file: &Created, reply: &ReplyCreate) -> Option<Backing> {
        if let Created::New(Made {
            fd,
            is_handle: true,
            ..
        }) = file
        {
            return self.register(fd.as_fd(), true, reply);
        }
        match open::reopen(file.handle(), OFlags::PATH) {
            Ok(handle) => self.register(handle.as_fd(), true, reply),
            Err(errno) => {
                log::debug!("a created file goes through the server: {errno}");
                None
            }
        }
    }

    /// Answers CREATE with a file just made.
    pub(crate) fn created(&self, node: &NodeRef, file: Created, flags: i32, reply: ReplyCreate) {
        let id = node.id();
        let attr = match &file {
            // Nobody else knows it yet, and it has no name that anything else could have taken.
            Created::New(made) if self.view.ownership == Ownership::Real => {
                Ok(Attr::from_stat(&made.stat, node.ino))
            }
            _ => self.view.attr(node),
        };
        let attr = match attr {
            Ok(attr) => self.shown(&attr, id.0),
            Err(error) => return reply.error(self.refusal("create", &error)),
        };
        let face = self.faces.of(id);
        let mut face = face.lock();
        let backing = match &face.way {
            Way::Closed if self.passthrough() => self.register_created(&file, &reply),
            // Somebody else's file after all, and open.
            Way::Direct(backing) if backing.in_upper => Some(backing.clone()),
            Way::Direct(_) => {
                drop(face);
                self.renumber(node, id);
                return reply.error(Errno::ESTALE);
            }
            Way::Closed | Way::Cached => None,
        };
        face.opens += 1;
        if is_writing(flags) {
            face.writers += 1;
        }
        self.view.table.remember(id, node);
        // The lifetime covers name and attributes. It is right for the attributes too: an empty file cannot be changed
        // through a mapping before a request or a write(2) has made it longer, and these renew the attributes.
        let ttl = self.entry_ttl();
        let fh = handle(flags);
        match backing {
            Some(backing) => {
                self.faces.keep(id, backing.clone());
                let id = backing.id.clone();
                Self::go_direct(&mut face, backing);
                let flags = FopenFlags::FOPEN_NOFLUSH;
                reply.created_passthrough(&ttl, &attr, GENERATION, fh, flags, &id);
            }
            None => {
                face.way = Way::Cached;
                match file {
                    // Writing comes next, and the mode of a new file need not allow us to open it again.
                    Created::New(made) => face.files.write = writable(made),
                    Created::Found(_) if self.ordinary => {
                        if let Err(error) = self.open_in(&mut face, node, is_writing(flags)) {
                            log::debug!("create: {error}");
                        }
                    }
                    Created::Found(_) => {}
                }
                reply.created(&ttl, &attr, GENERATION, fh, cached_flags(true));
            }
        }
    }

    /// RELEASE: one open less.
    pub(crate) fn release(&self, ino: INodeNo, fh: FileHandle) {
        let id = convert::node_id(ino);
        let Some(face) = self.faces.known(id) else {
            return;
        };
        let mut face = face.lock();
        face.opens = face.opens.saturating_sub(1);
        if fh == WRITER {
            face.writers = face.writers.saturating_sub(1);
            face.maybe_mapped |= matches!(face.way, Way::Direct(_));
        } else if fh == PROGRAM {
            face.programs = face.programs.saturating_sub(1);
        }
        if face.opens == 0 {
            let way = std::mem::take(&mut face.way);
            let files = std::mem::take(&mut face.files);
            drop(face);
            drop((way, files));
        }
    }

    /// The server's own descriptor of a file's bytes.
    pub(crate) fn data(&self, ino: INodeNo, write: bool) -> Result<(NodeRef, Arc<OwnedFd>)> {
        let node = self.node(ino)?;
        let face = self.faces.of(convert::node_id(ino));
        let file = self.data_of(&node, &face, write)?;
        Ok((node, file))
    }

    /// The descriptor that the opens of a number write through, if there is one.
    pub(crate) fn held_for_writing(&self, id: NodeId) -> Option<Arc<OwnedFd>> {
        self.faces.known(id)?.lock().files.write.clone()
    }

    fn data_of(&self, node: &NodeRef, face: &Mutex<Face>, write: bool) -> Result<Arc<OwnedFd>> {
        let mut face = face.lock();
        let file = self.open_in(&mut face, node, write)?;
        if face.opens == 0 {
            // Nobody will close it.
            face.files = Files::default();
        }
        Ok(file)
    }

    /// The server's descriptor among those of a face, opened if it is not there.
    fn open_in(&self, face: &mut Face, node: &NodeRef, write: bool) -> Result<Arc<OwnedFd>> {
        let files = &mut face.files;
        if write {
            if let Some(file) = &files.write {
                return Ok(file.clone());
            }
            if !self.view.is_writable() {
                // Mounted without an upper, and remounted to be written.
                return Err(Error::refused("write", Os::ROFS));
            }
            if !node.data_in_upper() {
                // Opened for writing means copied up: nothing else may be written. Or it could not be.
                return Err(lost("write"));
            }
            let both = self.view.open_data(node, OFlags::RDWR);
            files.write_only = both.as_ref().is_err_and(|error| error.is(Os::ACCESS));
            let data = if files.write_only {
                self.view.open_data(node, OFlags::WRONLY)?
            } else {
                both?
            };
            return Ok(files.write.insert(Arc::new(data.fd)).clone());
        }
        // A reader under the old number goes on seeing the lower's bytes, as its mappings do.
        let reads_old = matches!(&face.way, Way::Direct(backing) if !backing.in_upper);
        if let Some(file) = &files.write
            && !files.write_only
            && !reads_old
        {
            return Ok(file.clone());
        }
        let in_upper = node.data_in_upper() && !reads_old;
        if let Some(file) = &files.read
            && files.in_upper == in_upper
        {
            return Ok(file.clone());
        }
        let data = match reads_old {
            true => self.view.open_old_data(node),
            false => self.view.open_data(node, OFlags::RDONLY),
        };
        match (data, &files.read) {
            // Copied up, and the mode has changed: nobody has written, or there would be a descriptor for that.
            (Err(error), Some(file)) if error.is(Os::ACCESS) => Ok(file.clone()),
            (data, _) => {
                let data = data?;
                files.in_upper = data.in_upper;
                Ok(files.read.insert(Arc::new(data.fd)).clone())
            }
        }
    }
}

/// The file that CREATE answers with.
pub(crate) enum Created {
    /// Made just now.
    New(Made),
    /// Somebody else's; a handle of it.
    Found(Handle),
}

impl Created {
    fn handle(&self) -> BorrowedFd<'_> {
        match self {
            Self::New(made) => made.fd.as_fd(),
            Self::Found(handle) => handle.as_fd(),
        }
    }
}

/// The descriptor through which a new file is written.
fn writable(made: Made) -> Option<Arc<OwnedFd>> {
    if !made.is_handle {
        return Some(Arc::new(made.fd));
    }
    // The kernel would not have it to itself after all.
    let opened = open::reopen(made.fd.as_fd(), OFlags::RDWR);
    opened.map(Arc::new).ok()
}

fn cached_flags(keep: bool) -> FopenFlags {
    let flags = FopenFlags::FOPEN_NOFLUSH;
    if keep {
        flags | FopenFlags::FOPEN_KEEP_CACHE
    } else {
        flags
    }
}

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl From<&Request> for Caller {
    fn from(request: &Request) -> Self {
        Self {
            pid: request.pid(),
            uid: request.uid(),
            gid: request.gid(),
        }
    }
}

impl Caller {
    /// True unless this caller's change of an ACL must clear the set-group-id bit.
    pub(crate) fn keeps_set_gid(self, view: &View, node: &NodeRef) -> Result<bool> {
        Ok(self.membership(view, node)? == Membership::Inside
            || crate::sys::caller::may_keep_set_id(self.pid, self.uid))
    }

    /// Whether this caller is in the group of a file; of one without a set-group-id bit nobody needs to know.
    fn membership(self, view: &View, node: &NodeRef) -> Result<Membership> {
        const SET_GID: u32 = 0o2000;
        let stat = view.object_stat(node)?;
        let inside = stat.st_mode & SET_GID == 0
            || stat.st_gid == self.gid
            || crate::sys::caller::is_in_group(self.pid, stat.st_gid);
        Ok(if inside {
            Membership::Inside
        } else {
            Membership::Outside
        })
    }

    /// True if this caller may know of `trusted.` attributes.
    pub(crate) fn sees_trusted(self) -> bool {
        crate::sys::caller::may_see_trusted(self.pid, self.uid)
    }

    /// True unless the file has set-id bits that this caller's write must clear.
    pub(crate) fn keeps_set_id(self, view: &View, node: &NodeRef) -> Result<bool> {
        const SET_ID: u32 = 0o6000;
        let mode = view.object_stat(node)?.st_mode;
        Ok(mode & SET_ID == 0 || crate::sys::caller::may_keep_set_id(self.pid, self.uid))
    }
}
