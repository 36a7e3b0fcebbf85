//! One copy-up per inode, without a lock held while data is copied.

use parking_lot::{Condvar, Mutex};

use super::Node;

/// The copy-ups under way. That a node is being copied is one bit of it; who waits, waits here.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    changing: Mutex<()>,
    ended: Condvar,
}

impl Claims {
    /// Waits until no copy-up of the node runs, and becomes the one that runs.
    pub(crate) fn claim<'a>(&'a self, node: &'a Node) -> Claim<'a> {
        let mut changing = self.changing.lock();
        while node.set_copying(true) {
            self.ended.wait(&mut changing);
        }
        Claim { of: self, node }
    }

    /// As [`Self::claim`]; `None` as soon as something is true, which may be while somebody else has it.
    pub(crate) fn claim_unless<'a>(
        &'a self,
        node: &'a Node,
        known: impl Fn() -> bool,
    ) -> Option<Claim<'a>> {
        let mut changing = self.changing.lock();
        loop {
            if known() {
                return None;
            }
            if !node.set_copying(true) {
                return Some(Claim { of: self, node });
            }
            self.ended.wait(&mut changing);
        }
    }

    /// Takes a claim over that was left.
    pub(crate) fn resume<'a>(&'a self, node: &'a Node) -> Claim<'a> {
        Claim { of: self, node }
    }

    /// As [`Self::claim`]; `None` if somebody else has it.
    pub(crate) fn try_claim<'a>(&'a self, node: &'a Node) -> Option<Claim<'a>> {
        let _changing = self.changing.lock();
        if node.set_copying(true) {
            return None;
        }
        Some(Claim { of: self, node })
    }
}

/// The right to copy a node up; given back when dropped, whether the copy-up succeeded or not.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    of: &'a Claims,
    node: &'a Node,
}

impl Claim<'_> {
    /// Leaves the claim to somebody who will [`Claims::resume`] it; those who wait look at what has become of the node.
    pub(crate) fn leave(self) {
        let _changing = self.of.changing.lock();
        self.of.ended.notify_all();
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let _changing = self.of.changing.lock();
        self.node.set_copying(false);
        self.of.ended.notify_all();
    }
}
