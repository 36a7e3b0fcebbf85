//! The lock that says a container's monitor lives.
//!
//! Open-file-description locks: they end with the last descriptor, so a killed monitor frees its lock at once, and
//! `F_OFD_GETLK` can ask whether one is held without taking it (a flock would have to be taken to be asked, and the
//! asker would then be in a starter's way).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::error::{Error, Result};

/// An exclusive lock; freed when dropped (and with it every inherited copy of the descriptor).
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl Lock {
    /// Tries to take the lock; creates the file, also when it is removed between being opened and locked. `None` when
    /// somebody holds it.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(Error::io("open", path))?;
            match Self::acquire(file, path)? {
                Some(lock) if lock.is_removed(path)? => {}
                taken => return Ok(taken),
            }
        }
    }

    fn is_removed(&self, path: &Path) -> Result<bool> {
        let meta = self.file.metadata().map_err(Error::io("stat", path))?;
        Ok(meta.nlink() == 0)
    }

    /// As [`Lock::try_take`], but leaves a missing file missing: `None` for that too.
    pub(crate) fn try_take_existing(path: &Path) -> Result<Option<Self>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Self::acquire(file, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    fn acquire(file: File, path: &Path) -> Result<Option<Self>> {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => Ok(Some(Self { file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(Error::io("lock", path)(errno.into())),
        }
    }

    /// Takes the lock, waiting up to `patience`. `None` when somebody held it all the time.
    pub(crate) fn take_within(path: &Path, patience: Duration) -> Result<Option<Self>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(Some(lock));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Takes the lock of a file that exists, however long somebody else holds it. `None` when the file is not there, or no
    /// longer when it is our turn.
    pub(crate) fn wait_existing(path: &Path) -> Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole_file(libc::F_WRLCK))) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("lock", path)(errno.into())),
            }
        }
        let lock = Self { file };
        // Removed, or moved out of the way to be removed, while we waited: what is there now is another file.
        let ours = lock.file.metadata().map_err(Error::io("stat", path))?;
        let is_here = std::fs::metadata(path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        Ok(is_here.then_some(lock))
    }

    /// Returns whether somebody holds the lock; a missing file is not locked.
    pub(crate) fn is_held(path: &Path) -> Result<bool> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        // A read lock is asked about: the descriptor is read-only, and any exclusive holder conflicts with it.
        let mut question = whole_file(libc::F_RDLCK);
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut question))
            .map_err(|errno| Error::io("query lock", path)(errno.into()))?;
        Ok(i32::from(question.l_type) != libc::F_UNLCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_asking_takes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(!Lock::is_held(&path).unwrap());
        let lock = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::is_held(&path).unwrap());
        assert!(Lock::try_take(&path).unwrap().is_none());
        assert!(
            Lock::take_within(&path, Duration::from_millis(20))
                .unwrap()
                .is_none()
        );
        drop(lock);
        assert!(!Lock::is_held(&path).unwrap());
        assert!(Lock::take_within(&path, Duration::ZERO).unwrap().is_some());
    }
}
