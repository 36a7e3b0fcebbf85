//! One copy-up per inode, without a lock held while data is copied.

use parking_lot::{Condvar, Mutex};

/// Whether a copy-up of a node is under way.
#[derive(Debug, Default)]
pub(crate) struct Copying {
    running: Mutex<bool>,
    ended: Condvar,
}

impl Copying {
    /// Waits until no copy-up of the node runs, and becomes the one that runs.
    pub(crate) fn claim(&self) -> Claim<'_> {
        let mut running = self.running.lock();
        while *running {
            self.ended.wait(&mut running);
        }
        *running = true;
        Claim { of: self }
    }

    /// True while somebody copies.
    pub(crate) fn is_running(&self) -> bool {
        *self.running.lock()
    }
}

/// The right to copy a node up; given back when dropped, whether the copy-up succeeded or not.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    of: &'a Copying,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        *self.of.running.lock() = false;
        self.of.ended.notify_all();
    }
}
