//! A large file that is written to while it is still being copied up.
//!
//! The copy is built in the work directory as every copy is, and enters the upper by one rename when it is whole: what is
//! in the upper is never a part of a file. Until then its bytes are in two places, and a map tells which are where. The
//! file is cut into granules, each in one of three states:
//!
//! ```text
//!          claim               copied
//!  Below ---------> Copying ---------> Here         Copying -> Below if reading the lower fails
//! ```
//!
//! - A granule in a hole of the lower is `Here` from the beginning: the copy has a hole there too.
//! - Who wants to write brings the granules that it touches and then writes into the copy; the thread that copies the rest
//!   takes one granule after another. Both claim a granule before they copy it, so bytes of the lower are put into the copy
//!   once, and never over something written.
//! - Granules are of the lower's length: what is written beyond it touches none.
//! - Who reads takes `Here` from the copy and everything else from the lower. Only the lock of the map is shared, and it is
//!   held while states change, not while bytes move.
//!
//! Room for all the data that will be copied is reserved before the first write is taken. The whole has a [`Phase`]. It
//! changes once, with the gate held for writing; a write holds it for reading. So whoever writes either does so before the
//! copy gets its times and its name, or is told that it has got them.
//!
//! While a file grows, its node is claimed ([`crate::node::Claims`]) and has no upper object. Whatever needs one (a change of
//! attributes, a rename, a truncation, a flush) waits for the claim, as it does for every copy-up.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
use rustix::fs::{FallocateFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::data;
use crate::data as bytes;
use crate::error::{Context, Error, Result};
use crate::node::{Link, NodeId, NodeRef};
use crate::sys::object;

/// So much is copied at a time: what a small write waits for, a fraction of a millisecond where the lower is in memory.
const GRANULE: u64 = 256 * 1024;

/// A lower of more pieces than this is not reserved piece by piece, but copied as a whole.
const MOST_PIECES: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Granule {
    Below,
    Copying,
    Here,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Growing,
    /// The node has its upper object.
    Whole,
    /// The copy is gone, and with it what was written.
    Failed(Errno),
}

#[derive(Debug)]
struct Map {
    granules: Vec<Granule>,
    phase: Phase,
    /// The numbers under which it has been opened to write meanwhile.
    numbers: Vec<NodeId>,
}

/// The bytes of a file that is being copied up.
#[derive(Debug)]
pub(crate) struct Growing {
    pub(crate) node: NodeRef,
    pub(crate) link: Link,
    /// The copy's name in the work directory.
    pub(crate) name: OsString,
    /// The copy, for reading and writing.
    pub(crate) file: Arc<OwnedFd>,
    lower: OwnedFd,
    /// Of the lower: what the map is about.
    length: u64,
    /// The pieces of data in it, in order. To ask for the end of one takes some file systems as long as it is.
    pieces: Vec<(u64, u64)>,
    kept: Timestamps,
    map: Mutex<Map>,
    changed: Condvar,
    gate: RwLock<()>,
    written: Mutex<Times>,
}

/// What stat shows meanwhile.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// Of the last write, if there was one.
    mtime: Option<Timespec>,
    ctime: Timespec,
}

impl Growing {
    /// Reserves room in an empty copy. `None` if the file system cannot, or the file has too many pieces.
    ///
    /// # Errors
    /// No space, or a failed system call.
    pub(super) fn plant(
        (node, link): (&NodeRef, Link),
        name: OsString,
        (lower, file): (OwnedFd, OwnedFd),
        stat: &Stat,
    ) -> Result<Option<Self>> {
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        let Some(pieces) = pieces(&lower, length).op("copy up data")? else {
            return Ok(None);
        };
        rustix::fs::ftruncate(&file, length).op("copy up data")?;
        let count = usize::try_from(length.div_ceil(GRANULE)).unwrap_or(usize::MAX);
        let mut granules = vec![Granule::Here; count];
        for &(start, end) in &pieces {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), start, end - start) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(errno).op("copy up data"),
            }
            granules[touched(start, end)].fill(Granule::Below);
        }
        let made = rustix::fs::fstat(&file).op("copy up data")?;
        Ok(Some(Self {
            node: node.clone(),
            link,
            name,
            file: Arc::new(file),
            lower,
            length,
            pieces,
            kept: object::times_of(stat),
            map: Mutex::new(Map {
                granules,
                phase: Phase::Growing,
                numbers: Vec::new(),
            }),
            changed: Condvar::new(),
            gate: RwLock::new(()),
            written: Mutex::new(Times {
                mtime: None,
                ctime: ctime_of(&made),
            }),
        }))
    }

    /// Notes a number under which it is about to be opened to write; false if it no longer grows.
    pub(crate) fn join(&self, id: NodeId) -> bool {
        let mut map = self.map.lock();
        if !map.numbers.contains(&id) {
            map.numbers.push(id);
        }
        map.phase == Phase::Growing
    }

    /// The numbers under which it was opened to write.
    pub(crate) fn numbers(&self) -> Vec<NodeId> {
        self.map.lock().numbers.clone()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.map.lock().phase
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// What made it fail.
    pub(crate) fn wait(&self) -> Result<()> {
        let mut map = self.map.lock();
        loop {
            match map.phase {
                Phase::Growing => self.changed.wait(&mut map),
                Phase::Whole => return Ok(()),
                Phase::Failed(errno) => return Err(Error::refused("copy up data", errno)),
            }
        }
    }

    /// Copies everything that is not here yet; `pause` is called before each step, and at the end.
    ///
    /// # Errors
    /// A failed system call on one of the files.
    pub(super) fn grow(&self, pause: impl Fn()) -> Result<()> {
        let granules = self.map.lock().granules.len();
        for granule in 0..granules {
            pause();
            self.bring(granule)?;
        }
        pause();
        Ok(())
    }

    /// Reads; `None` if it is not growing (any longer) and the bytes are where they always are.
    ///
    /// # Errors
    /// A failed system call.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<Option<usize>> {
        if self.phase() != Phase::Growing {
            return Ok(None);
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (here, end) = self.run(at);
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX);
            let wanted = wanted.min(buffer.len() - done);
            let part = &mut buffer[done..done + wanted];
            let got = match here {
                true => bytes::read_at(&self.file, part, at),
                false => bytes::read_at(&self.lower, part, at),
            };
            match got {
                Ok(got) => done += got,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            if done < buffer.len() && offset + (done as u64) < at + wanted as u64 {
                // The end of the file.
                break;
            }
        }
        Ok(Some(done))
    }

    /// Whether the bytes at an offset are in the copy, and where the granule ends.
    fn run(&self, at: u64) -> (bool, u64) {
        if at >= self.length {
            return (true, u64::MAX);
        }
        let granule = index(at);
        let here = self.map.lock().granules[granule] == Granule::Here;
        let end = (granule as u64 + 1) * GRANULE;
        (here, end.min(self.length))
    }

    /// Writes; `None` if it has become whole meanwhile and is to be written like any other file.
    ///
    /// # Errors
    /// A failed system call, or what made it fail as a whole.
    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> Result<Option<usize>> {
        let _gate = self.gate.read();
        match self.phase() {
            Phase::Growing => {}
            Phase::Whole => return Ok(None),
            Phase::Failed(errno) => return Err(Error::refused("copy up data", errno)),
        }
        let end = offset.saturating_add(data.len() as u64).min(self.length);
        if offset < end {
            for granule in touched(offset, end) {
                self.bring(granule)?;
            }
        }
        let written = bytes::write_at(&self.file, data, offset)?;
        let now = rustix::fs::fstat(&*self.file).op("write")?;
        *self.written.lock() = Times {
            mtime: Some(object::times_of(&now).last_modification),
            ctime: ctime_of(&now),
        };
        Ok(Some(written))
    }

    /// Sees to it that a granule is here.
    fn bring(&self, granule: usize) -> Result<()> {
        let mut map = self.map.lock();
        loop {
            match map.granules[granule] {
                Granule::Here => return Ok(()),
                Granule::Copying => self.changed.wait(&mut map),
                Granule::Below => break,
            }
        }
        map.granules[granule] = Granule::Copying;
        drop(map);
        let start = granule as u64 * GRANULE;
        let end = (start + GRANULE).min(self.length);
        let copied = self.copy(start, end);
        self.map.lock().granules[granule] = match copied {
            Ok(()) => Granule::Here,
            Err(_) => Granule::Below,
        };
        self.changed.notify_all();
        copied.op("copy up data")
    }

    /// Copies the data between two offsets.
    fn copy(&self, from: u64, to: u64) -> std::result::Result<(), Errno> {
        let (lower, file) = (self.lower.as_fd(), self.file.as_fd());
        let first = self.pieces.partition_point(|&(_, end)| end <= from);
        let pieces = self.pieces[first..].iter();
        for &(start, end) in pieces.take_while(|&&(start, _)| start < to) {
            data::copy_range(lower, file, start.max(from), end.min(to))?;
        }
        Ok(())
    }

    /// `stat` of the lower, with what has been written shown.
    ///
    /// # Errors
    /// A failed system call.
    pub(crate) fn shown(&self, lower: Stat) -> Result<Stat> {
        let now = rustix::fs::fstat(&*self.file).op("stat")?;
        let times = *self.written.lock();
        let mut stat = lower;
        stat.st_size = now.st_size;
        stat.st_blocks = now.st_blocks;
        if let Some(mtime) = times.mtime {
            stat.st_mtime = mtime.tv_sec;
            stat.st_mtime_nsec = nanoseconds(mtime);
        }
        stat.st_ctime = times.ctime.tv_sec;
        stat.st_ctime_nsec = nanoseconds(times.ctime);
        Ok(stat)
    }

    /// Keeps writers away for the last step: nobody is writing, and nobody begins.
    pub(super) fn shut(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write()
    }

    /// The times that the finished file is to have.
    pub(super) fn times(&self) -> Timestamps {
        let mut times = self.kept.clone();
        if let Some(mtime) = self.written.lock().mtime {
            times.last_modification = mtime;
        }
        times
    }

    /// The end. The gate is shut.
    pub(super) fn end(&self, phase: Phase) {
        self.map.lock().phase = phase;
        self.changed.notify_all();
    }
}

fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn ctime_of(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_ctime,
        tv_nsec: i64::try_from(stat.st_ctime_nsec).unwrap_or(0),
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset / GRANULE).unwrap_or(usize::MAX)
}

/// The granules that a range which is not empty lies in.
fn touched(start: u64, end: u64) -> std::ops::Range<usize> {
    index(start)..index(end - 1) + 1
}

/// The pieces of data of a file, from start to end; `None` if there are too many.
fn pieces(file: &OwnedFd, length: u64) -> std::result::Result<Option<Vec<(u64, u64)>>, Errno> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some((start, end)) = data::next_data(file.as_fd(), at, length)? {
        if pieces.len() >= MOST_PIECES {
            return Ok(None);
        }
        pieces.push((start, end));
        at = end;
    }
    Ok(Some(pieces))
}
