//! How far a long operation is.

use std::fmt;
use std::io::{self, Read};

/// What a long operation does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reads an archive.
    Read,
    /// Unpacks a layer.
    Extract,
    /// Waits until the disk has everything.
    Sync,
    /// Writes an archive.
    Write,
    /// Checks what is stored.
    Verify,
    /// Removes files.
    Remove,
}

/// One report.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// What is done.
    pub phase: Phase,
    /// To what: a member of an archive, a short layer id, an image.
    pub item: &'a str,
    /// Bytes done of this item.
    pub done: u64,
    /// Bytes this item has, if that is known.
    pub total: Option<u64>,
}

/// Takes reports, on whatever thread does the work, at most one for every [`STRIDE`] bytes and one when an
/// item begins and ends.
pub trait Progress: Send + Sync {
    /// Takes one report; must be quick.
    fn step(&self, step: Step<'_>);
}

/// Bytes between two reports.
pub const STRIDE: u64 = 1 << 20;

/// Takes no notice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: Step<'_>) {}
}

/// A reader that reports what passes through it.
pub(crate) struct Counted<'a, R> {
    inner: R,
    progress: &'a dyn Progress,
    phase: Phase,
    item: String,
    total: Option<u64>,
    done: u64,
    reported: u64,
}

impl<R> fmt::Debug for Counted<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted")
            .field("item", &self.item)
            .field("done", &self.done)
            .finish()
    }
}

impl<'a, R> Counted<'a, R> {
    pub(crate) fn new(
        inner: R,
        progress: &'a dyn Progress,
        phase: Phase,
        item: &str,
        total: Option<u64>,
    ) -> Self {
        progress.step(Step {
            phase,
            item,
            done: 0,
            total,
        });
        Self {
            inner,
            progress,
            phase,
            item: item.to_owned(),
            total,
            done: 0,
            reported: 0,
        }
    }
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        if self.done - self.reported >= STRIDE || count == 0 && self.done != self.reported {
            self.reported = self.done;
            let Self {
                phase, done, total, ..
            } = *self;
            self.progress.step(Step {
                phase,
                item: &self.item,
                done,
                total,
            });
        }
        Ok(count)
    }
}
