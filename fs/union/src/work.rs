//! The work directory: where everything is built before it enters the upper.
//!
//! As with the kernel's overlayfs the things of one mount live in a directory `work` inside the work directory, and
//! whatever is found there at the next mount was left by a predecessor that was killed.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mille_layer::{Mark, MarkSpace};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::config::Features;
use crate::error::{Context, Error, Result};
use crate::layers::Place;
use crate::sys::{object, open, xattr};
use crate::traces::{Trace, Traces};

/// How long the lock of an upper is tried for: a predecessor's umount may return before its server has gone, and that can
/// take seconds where it closes removed files and the disk is busy.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The directory inside the work directory, as the kernel names it.
const INNER: &str = "work";

/// The whiteout inode that all whiteouts of this mount are links of.
const WHITEOUT: &str = "#whiteout";

/// Prefix of intent records, which outlive a crash until they are replayed.
pub(crate) const INTENT_PREFIX: &str = "intent-";

/// Prefix of files that are being copied up and have perhaps been written to; each is locked until it has left.
const GROWING_PREFIX: &str = "growing-";

/// Where the mark of a volatile mount lies, as the kernel has it: its presence after a reboot tells that data may be lost.
const INCOMPAT: &str = "incompat";
const VOLATILE: &str = "volatile";

/// The work directory of a writable view.
#[derive(Debug)]
pub(crate) struct Work {
    /// The inner directory.
    pub(crate) dir: OwnedFd,
    next: AtomicU64,
    whiteout: Mutex<bool>,
    traces: Traces,
    /// Locks on the upper and the work directory, held by being open.
    locks: [OwnedFd; 2],
}

impl Work {
    /// Takes the locks, removes what a killed predecessor left (except its intents), and makes sure that the file system
    /// can hold an upper, unless that is known ([`crate::Upper::fit`]).
    pub(crate) fn open(
        upper: &Place,
        work: &Place,
        space: MarkSpace,
        features: Features,
        fit: bool,
    ) -> Result<Self> {
        let locks = [lock(upper, upper, work)?, lock(work, upper, work)?];
        if upper.stat.st_dev != work.stat.st_dev {
            return Err(Error::Unfit {
                upper: upper.path.clone(),
                why: format!(
                    "the work directory {} is on another file system",
                    work.path.display()
                ),
            });
        }
        match rustix::fs::mkdirat(&work.fd, INNER, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).on("make work directory in", &work.path),
        }
        let dir = open::dir_handle(work.fd.as_fd(), INNER.as_ref()).on("open", &work.path)?;
        // What is built here must not inherit from here.
        xattr::remove_if_present(dir.as_fd(), OsStr::new("system.posix_acl_default"))
            .on("prepare work directory", &work.path)?;
        refuse_after_crash(dir.as_fd(), upper)?;
        clear(dir.as_fd(), &|name| {
            name.as_encoded_bytes()
                .starts_with(INTENT_PREFIX.as_bytes())
                || name == INCOMPAT
        })
        .on("clean work directory", &work.path)?;
        let traces = Traces::open(dir.as_fd(), upper, space, features)?;
        let this = Self {
            traces,
            dir,
            next: AtomicU64::new(0),
            whiteout: Mutex::new(false),
            locks,
        };
        if !fit {
            this.probe(upper, space)?;
        }
        if features.volatile {
            this.mark_volatile().on("mark volatile", &work.path)?;
        }
        Ok(this)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Flushes everything in the file system that the upper is in.
    pub(crate) fn flush_file_system(&self) -> std::result::Result<(), Errno> {
        rustix::fs::syncfs(&self.locks[0])
    }

    /// Notes that a mark of a feature is about to enter the upper.
    pub(crate) fn note(&self, trace: Trace) -> Result<()> {
        self.traces.note(self.fd(), trace)
    }

    /// A name in the work directory that nobody uses.
    pub(crate) fn fresh_name(&self) -> OsString {
        OsString::from(format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// A name for something about to be made; what has been made under it goes when this is dropped.
    pub(crate) fn fresh_temp(&self) -> Temp<'_> {
        Temp {
            work: self,
            name: self.fresh_name(),
        }
    }

    /// As [`Self::fresh_temp`], for a file that is written to before it is whole, and that others [`wait_for_growth`].
    pub(crate) fn growing_temp(&self) -> Temp<'_> {
        let mut name = OsString::from(GROWING_PREFIX);
        name.push(self.fresh_name());
        Temp { work: self, name }
    }

    /// Takes charge of something that is in the work directory.
    pub(crate) fn adopt(&self, name: OsString) -> Temp<'_> {
        Temp { work: self, name }
    }

    /// Makes a whiteout under a fresh name: one more link of the shared whiteout inode.
    pub(crate) fn whiteout(&self) -> Result<Temp<'_>> {
        let temp = Temp {
            work: self,
            name: self.fresh_name(),
        };
        self.link_whiteout(self.fd(), &temp.name)
            .op("make whiteout")?;
        Ok(temp)
    }

    /// Makes a whiteout under a name that is free.
    pub(crate) fn link_whiteout(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> std::result::Result<(), Errno> {
        let mut made = self.whiteout.lock();
        if *made {
            match self.link_shared(dir, name) {
                // No more links on this inode, or somebody cleaned up: a new one.
                Err(Errno::MLINK | Errno::NOENT) => {
                    rustix::fs::unlinkat(&self.dir, WHITEOUT, AtFlags::empty())
                        .or_else(absent_ok)?;
                    *made = false;
                }
                other => return other,
            }
        }
        let device = FileType::CharacterDevice;
        rustix::fs::mknodat(&self.dir, WHITEOUT, device, Mode::empty(), 0)?;
        *made = true;
        match self.link_shared(dir, name) {
            // A file system without hard links on devices: every whiteout is an inode.
            Err(Errno::MLINK | Errno::PERM | Errno::OPNOTSUPP) => {
                rustix::fs::mknodat(dir, name, device, Mode::empty(), 0)
            }
            other => other,
        }
    }

    fn link_shared(&self, dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<(), Errno> {
        rustix::fs::linkat(&self.dir, WHITEOUT, dir, name, AtFlags::empty())
    }

    /// Finds out at mount, not in the middle of an operation, that something is missing.
    fn probe(&self, upper: &Place, space: MarkSpace) -> Result<()> {
        let unfit = |what: &str, errno: Errno| Error::Unfit {
            upper: upper.path.clone(),
            why: format!("{what}: {errno}"),
        };
        let temp = self.whiteout().map_err(|error| Error::Unfit {
            upper: upper.path.clone(),
            why: format!("whiteouts (character device 0:0) cannot be made: {error}"),
        })?;
        let opaque = space.name(Mark::Opaque);
        let name = OsStr::from_bytes(opaque.to_bytes());
        xattr::set(self.fd(), name, b"y", XattrFlags::empty())
            .and_then(|()| xattr::remove_if_present(self.fd(), name))
            .map_err(|errno| {
                let what = format!("the extended attribute {} cannot be set", name.display());
                unfit(&what, errno)
            })?;
        // Not a directory: removing one gives a block back, for which some file systems wait for the disk.
        let other = self.adopt(self.fresh_name());
        let device = FileType::CharacterDevice;
        rustix::fs::mknodat(&self.dir, &other.name, device, Mode::empty(), 0)
            .map_err(|errno| unfit("device nodes cannot be made", errno))?;
        rustix::fs::renameat_with(
            &self.dir,
            &temp.name,
            &self.dir,
            &other.name,
            RenameFlags::EXCHANGE,
        )
        .map_err(|errno| unfit("names cannot be exchanged atomically", errno))?;
        // Into the upper and back again: upper and work may be two mounts of one file system.
        let probe = OsString::from(format!("#mille-probe-{}", std::process::id()));
        rustix::fs::renameat_with(
            &self.dir,
            &temp.name,
            &upper.fd,
            &probe,
            RenameFlags::NOREPLACE,
        )
        .and_then(|()| rustix::fs::renameat(&upper.fd, &probe, &self.dir, &temp.name))
        .map_err(|errno| unfit("renaming from the work directory into it fails", errno))?;
        // The upper's root is the view's: a mount changes nothing in it.
        object::set_times(upper.fd.as_fd(), &object::times_of(&upper.stat))
            .on("restore times of", &upper.path)
    }

    fn mark_volatile(&self) -> std::result::Result<(), Errno> {
        let make = |dir: BorrowedFd<'_>, name: &str| {
            rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)).or_else(exists_ok)
        };
        make(self.fd(), INCOMPAT)?;
        let incompat = open::dir_handle(self.fd(), INCOMPAT.as_ref())?;
        make(incompat.as_fd(), VOLATILE)?;
        let volatile = open::dir_handle(incompat.as_fd(), VOLATILE.as_ref())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&volatile, BOOT_ID, flags, Mode::from_raw_mode(0o600))?;
        rustix::io::write(&file, boot_id().as_bytes())?;
        Ok(())
    }
}

/// In the volatile mark: during which boot of the machine the upper was written. As long as the machine has not gone
/// down since, nothing is lost.
const BOOT_ID: &str = "boot_id";

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn refuse_after_crash(work: BorrowedFd<'_>, upper: &Place) -> Result<()> {
    let path = PathBuf::from(INCOMPAT).join(VOLATILE);
    let flags = open::HANDLE | OFlags::DIRECTORY;
    let mark = match rustix::fs::openat(work, &path, flags, Mode::empty()) {
        Ok(mark) => mark,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).on("look for volatile mark of", &upper.path),
    };
    let mut text = [0u8; 64];
    let read = rustix::fs::openat(
        &mark,
        BOOT_ID,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .and_then(|file| rustix::io::read(&file, &mut text));
    let length = read.unwrap_or(0);
    if length > 0 && text[..length] == *boot_id().as_bytes() {
        return Ok(());
    }
    Err(Error::Unfit {
        upper: upper.path.clone(),
        why: format!(
            "it was written without flushing (volatile) and the machine has gone down since, so data may be lost; \
             remove {INNER}/{INCOMPAT}/{VOLATILE} in the work directory to use it nevertheless"
        ),
    })
}

/// Says that a file grows.
pub(crate) fn hold(file: BorrowedFd<'_>) {
    if let Err(errno) = rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        log::debug!("a growing file is not locked: {errno}");
    }
}

/// Says that it no longer does.
pub(crate) fn release(file: BorrowedFd<'_>) {
    if let Err(errno) = rustix::fs::flock(file, FlockOperation::Unlock) {
        log::debug!("a grown file stays locked: {errno}");
    }
}

/// Waits for the files that grow just now in the view which writes to an upper: what has been written to them is in the
/// upper afterwards. Those that a killed server has left are not waited for.
///
/// # Errors
/// The work directory cannot be read.
pub(crate) fn wait_for_growth(work: BorrowedFd<'_>) -> std::result::Result<bool, Errno> {
    let inner = match open::dir_handle(work, INNER.as_ref()) {
        Ok(inner) => inner,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let readable = open::reopen(inner.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut waited = false;
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_bytes().starts_with(GROWING_PREFIX.as_bytes()) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&inner, name, flags, Mode::empty()) {
            Ok(file) => file,
            // It has left.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno),
        };
        waited |= rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err();
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockShared))?;
    }
    Ok(waited)
}

fn lock(place: &Place, upper: &Place, work: &Place) -> Result<OwnedFd> {
    let fd = open::reopen(place.fd.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)
        .on("open", &place.path)?;
    let mut start = Instant::now();
    let mut grown = false;
    loop {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(fd),
            Err(Errno::WOULDBLOCK) if start.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(Errno::WOULDBLOCK) => {
                // Unmounted, but not yet done with what was written to it.
                if !std::mem::replace(&mut grown, true)
                    && wait_for_growth(work.fd.as_fd()).is_ok_and(|waited| waited)
                {
                    start = Instant::now();
                    continue;
                }
                return Err(Error::Busy {
                    upper: upper.path.clone(),
                });
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).on("lock", &place.path),
        }
    }
}

/// Something in the work directory; removed when dropped unless it has left by then.
#[derive(Debug)]
pub(crate) struct Temp<'a> {
    work: &'a Work,
    pub(crate) name: OsString,
}

impl Temp<'_> {
    /// It has left the work directory, or is to stay there.
    pub(crate) fn keep(mut self) {
        self.name = OsString::new();
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if self.name.is_empty() {
            return;
        }
        if let Err(errno) = remove_tree(self.work.fd(), &self.name)
            && errno != Errno::NOENT
        {
            log::warn!(
                "work directory: cannot remove {}: {errno}",
                self.name.display()
            );
        }
    }
}

/// Removes an object and, of a directory, all below it.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let inner = open::dir_handle(dir, name)?;
    clear(inner.as_fd(), &|_| false)?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes what is in a directory, except names that are to stay.
fn clear(dir: BorrowedFd<'_>, stays: &dyn Fn(&OsStr) -> bool) -> std::result::Result<(), Errno> {
    let readable = open::reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for entry in Dir::new(readable)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(OsString::from_vec(name.into_bytes()));
        }
    }
    for name in names {
        if !stays(&name) {
            remove_tree(dir, &name)?;
        }
    }
    Ok(())
}

fn exists_ok(errno: Errno) -> std::result::Result<(), Errno> {
    if errno == Errno::EXIST {
        Ok(())
    } else {
        Err(errno)
    }
}

fn absent_ok(errno: Errno) -> std::result::Result<(), Errno> {
    if errno == Errno::NOENT {
        Ok(())
    } else {
        Err(errno)
    }
}
