//! Beginning and ending the copy-up of a file that is written to meanwhile; see [`super::growing`].

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use super::growing::{Growing, Phase};
use super::{CAPABILITY, data};
use crate::error::{Context, Error, Result};
use crate::node::{Claims, Link, Node, NodeRef, UpperObject};
use crate::sys::{object, xattr};
use crate::view::View;
use crate::work::Work;

/// More files than this do not grow at a time; others are copied before they are opened.
const MOST: usize = 16;

const SET_ID: u32 = 0o6000;

/// The files of a view that grow, by the address of their node, which each of them holds.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    count: AtomicUsize,
    files: Mutex<HashMap<usize, Arc<Growing>>>,
    ended: Condvar,
    /// Held for reading while a granule is copied in the background.
    held: RwLock<()>,
}

/// Files grow no further while this lives.
#[derive(Debug)]
#[must_use]
pub struct Held<'a> {
    _held: RwLockWriteGuard<'a, ()>,
}

impl Growth {
    fn key(node: &Node) -> usize {
        std::ptr::from_ref(node).addr()
    }

    /// The bytes of a node, if it grows.
    pub(crate) fn of(&self, node: &Node) -> Option<Arc<Growing>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.files.lock().get(&Self::key(node)).cloned()
    }

    fn add(&self, growing: &Arc<Growing>) {
        let mut files = self.files.lock();
        files.insert(Self::key(&growing.node), growing.clone());
        self.count.store(files.len(), Ordering::Release);
    }

    fn remove(&self, growing: &Growing) {
        let mut files = self.files.lock();
        files.remove(&Self::key(&growing.node));
        self.count.store(files.len(), Ordering::Release);
        self.ended.notify_all();
    }

    /// Waits until none grows.
    pub(crate) fn wait(&self) {
        let mut files = self.files.lock();
        while !files.is_empty() {
            self.ended.wait(&mut files);
        }
    }
}

/// How a copy-up that may be written to before it is finished has begun.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is not to be had so: the file is to be copied first.
    Whole,
    /// Somebody else's, or it is finished already.
    Known,
    /// This one, which the caller must bring to its end by [`View::grow`].
    Growing(Arc<Growing>),
}

impl View {
    /// Begins to copy up a file of at least `least` bytes that is to be written.
    ///
    /// # Errors
    /// No space, or a failed system call.
    pub(crate) fn begin_growing(&self, node: &NodeRef, least: u64) -> Result<Begun> {
        if self.growth.of(node).is_some() {
            return Ok(Begun::Known);
        }
        if !self.may_grow(node, least)? || self.growth.count.load(Ordering::Acquire) >= MOST {
            return Ok(Begun::Whole);
        }
        self.require_changeable(node, "open for writing")?;
        self.copy_up_parents(node)?;
        let work = self.require_writable("copy up")?;
        let known = || self.growth.of(node).is_some() || node.in_upper();
        let Some(claim) = self.table.claims.claim_unless(node, known) else {
            return Ok(Begun::Known);
        };
        let link = {
            let state = node.state.read();
            let links = state.links(&node.stack);
            let alone = state.upper.is_none() && !state.is_removed() && links.len() == 1;
            links.into_iter().next().filter(|_| alone)
        };
        let Some(link) = link else {
            return Ok(Begun::Whole);
        };
        let Some(growing) = self.plant(work, node, link)? else {
            return Ok(Begun::Whole);
        };
        let growing = Arc::new(growing);
        self.growth.add(&growing);
        claim.leave();
        Ok(Begun::Growing(growing))
    }

    /// Only what has one name, its data in one immutable file, and no privilege that a write would take away.
    fn may_grow(&self, node: &NodeRef, least: u64) -> Result<bool> {
        let Some(file) = node.stack.file() else {
            return Ok(false);
        };
        let simple = node.kind == FileType::RegularFile
            && !node.in_upper()
            && file.id().is_none()
            && std::ptr::eq(file.data_owner(), file)
            && !self.lowers[usize::from(file.layer())].mutable
            && !self.whereabouts.distrusted.load(Ordering::Relaxed);
        if !simple {
            return Ok(false);
        }
        let stat = self.lower_stat(file)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(size >= least.max(1) && stat.st_mode & SET_ID == 0)
    }

    /// Makes the copy, with everything but data. `None` if it cannot be, or need not be, filled little by little.
    fn plant(&self, work: &Work, node: &NodeRef, link: Link) -> Result<Option<Growing>> {
        let stat: Stat = self.object_stat(node)?;
        let lower = self.open_data(node, OFlags::RDONLY)?.fd;
        let privileged = xattr::get(lower.as_fd(), CAPABILITY.as_ref()).op("copy up")?;
        if privileged.is_some() {
            return Ok(None);
        }
        let temp = work.growing_temp();
        let file = self.make_private(work, &temp.name)?;
        if data::share(lower.as_fd(), file.as_fd()) {
            // Copied in no time: once more, in the usual way.
            return Ok(None);
        }
        crate::work::hold(file.as_fd());
        let file = self.copy_open_attributes(file, node, &stat)?;
        let planted = Growing::plant((node, link), temp.name.clone(), (lower, file), &stat)?;
        if planted.is_some() {
            temp.keep();
        }
        Ok(planted)
    }

    /// Brings a copy-up to its end: the rest is copied, and the file gets its name. If that cannot be, `failed` is called
    /// before anybody else can begin anew.
    ///
    /// # Errors
    /// A failed system call; the node then is as it was before, and who has written is told so.
    pub(crate) fn grow(&self, growing: &Growing, failed: impl FnOnce()) -> Result<()> {
        let claims: &Claims = &self.table.claims;
        let _claim = claims.resume(&growing.node);
        let pause = || drop(self.growth.held.read());
        let grown = growing.grow(pause).and_then(|()| self.enter(growing));
        if let Err(error) = &grown {
            {
                let _gate = growing.shut();
                growing.end(Phase::Failed(told(error)));
            }
            failed();
            drop(
                self.work
                    .as_ref()
                    .map(|work| work.adopt(growing.name.clone())),
            );
        }
        crate::work::release(growing.file.as_fd());
        self.growth.remove(growing);
        grown
    }

    fn enter(&self, growing: &Growing) -> Result<()> {
        let work = self.require_writable("copy up")?;
        if !self.features.volatile {
            rustix::fs::fsync(&*growing.file).op("copy up data")?;
        }
        let _gate = growing.shut();
        object::set_times(growing.file.as_fd(), &growing.times()).op("copy up times")?;
        let made = rustix::fs::fstat(&*growing.file).op("copy up")?;
        let copy = UpperObject {
            dev: made.st_dev,
            ino: made.st_ino,
            metacopy: false,
            orphan: None,
        };
        let temp = work.adopt(growing.name.clone());
        self.place_one(work, &growing.node, &growing.link, temp, copy)?;
        growing.end(Phase::Whole);
        Ok(())
    }

    /// Waits for the end of a file's growth, if it grows.
    pub(crate) fn settle(&self, node: &Node) {
        if let Some(growing) = self.growth.of(node)
            && let Err(error) = growing.wait()
        {
            // Whoever asked for the file's object finds that there is none, and tries by itself.
            log::debug!("{error}");
        }
    }

    /// Holds the copying of files that have been opened to write before they are copied; what is written is copied all the
    /// same. For tests, which need not be quick then to see such files.
    pub fn hold_growth(&self) -> Held<'_> {
        Held {
            _held: self.growth.held.write(),
        }
    }

    /// Waits until no file grows: what has been written is in the upper afterwards.
    pub fn settle_all(&self) {
        self.growth.wait();
    }
}

/// What a flush is answered: the reasons that a flush may have, else that something went wrong.
fn told(error: &Error) -> Errno {
    match Errno::from_raw_os_error(error.errno()) {
        known @ (Errno::NOSPC | Errno::DQUOT) => known,
        _ => Errno::IO,
    }
}

/// Why a write to a file is lost that had been taken.
pub(crate) fn lost(op: &'static str) -> Error {
    Error::refused(op, Errno::IO)
}
