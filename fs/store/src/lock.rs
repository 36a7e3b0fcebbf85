//! The store's lock: one file, locked by flock(2), which a killed process lets go by itself.
//!
//! Within one process it is counted, so that an operation may be part of a larger one that holds the lock already.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{At, Error};

/// The lock of one opened store.
#[derive(Debug)]
pub(crate) struct Locks {
    path: PathBuf,
    held: Arc<Mutex<Option<Held>>>,
}

#[derive(Debug)]
struct Held {
    _file: File,
    exclusive: bool,
    count: usize,
}

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct StoreLock {
    held: Arc<Mutex<Option<Held>>>,
}

impl Locks {
    pub(crate) fn new(path: PathBuf) -> Self {
        Locks {
            path,
            held: Arc::new(Mutex::new(None)),
        }
    }

    pub(crate) fn shared(&self) -> Result<StoreLock, Error> {
        self.take(false)
    }

    pub(crate) fn exclusive(&self) -> Result<StoreLock, Error> {
        self.take(true)
    }

    /// As [`Locks::exclusive`], but `None` instead of waiting for another process.
    pub(crate) fn try_exclusive(&self) -> Result<Option<StoreLock>, Error> {
        let mut held = guard(&self.held);
        if held.is_some() {
            drop(held);
            return self.take(true).map(Some);
        }
        let file = self.open()?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).at("lock", &self.path),
        }
        *held = Some(Held {
            _file: file,
            exclusive: true,
            count: 1,
        });
        Ok(Some(StoreLock {
            held: Arc::clone(&self.held),
        }))
    }

    fn open(&self) -> Result<File, Error> {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path);
        match file {
            Err(reason) if reason.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                let path = self.path.clone();
                Err(Error::ReadOnly { path, reason })
            }
            file => file.at("open", &self.path),
        }
    }

    fn take(&self, exclusive: bool) -> Result<StoreLock, Error> {
        let mut held = guard(&self.held);
        match held.as_mut() {
            Some(lock) if exclusive && !lock.exclusive => {
                return Err(Error::LockUpgrade(self.path.clone()));
            }
            Some(lock) => lock.count += 1,
            None => {
                let file = self.open()?;
                if exclusive {
                    file.lock()
                } else {
                    file.lock_shared()
                }
                .at("lock", &self.path)?;
                *held = Some(Held {
                    _file: file,
                    exclusive,
                    count: 1,
                });
            }
        }
        Ok(StoreLock {
            held: Arc::clone(&self.held),
        })
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        let mut held = guard(&self.held);
        if let Some(lock) = held.as_mut() {
            lock.count -= 1;
            if lock.count == 0 {
                *held = None;
            }
        }
    }
}

/// The counter is whole at any moment: a panic elsewhere does not spoil it.
fn guard(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_within_a_process_and_refuses_an_upgrade() {
        let directory = tempfile::tempdir().unwrap();
        let locks = Locks::new(directory.path().join("lock"));
        let shared = locks.shared().unwrap();
        let again = locks.shared().unwrap();
        assert!(matches!(locks.exclusive(), Err(Error::LockUpgrade(_))));
        drop(shared);
        assert!(matches!(locks.exclusive(), Err(Error::LockUpgrade(_))));
        drop(again);
        let exclusive = locks.exclusive().unwrap();
        let inside = locks.shared().unwrap();
        drop(exclusive);
        drop(inside);
        locks.shared().unwrap();
    }
}
