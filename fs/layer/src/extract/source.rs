//! The tar as it comes: a window of bytes over any reader.

use std::io::{self, Read};

use super::ExtractError;

/// Read in steps of this many bytes: large enough that system calls do not count.
const WINDOW_BYTES: usize = 1 << 20;

/// A reader with a window that can be looked at before it is consumed.
pub(super) struct Source<R> {
    reader: R,
    window: Vec<u8>,
    start: usize,
    end: usize,
    /// Offset in the tar of the first byte of the window.
    position: u64,
    ended: bool,
}

impl<R: Read> Source<R> {
    pub(super) fn new(reader: R) -> Source<R> {
        Source {
            reader,
            window: vec![0u8; WINDOW_BYTES],
            start: 0,
            end: 0,
            position: 0,
            ended: false,
        }
    }

    /// What has been read and not consumed.
    pub(super) fn available(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    /// Offset in the tar of what is available.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Forgets the first `count` available bytes.
    pub(super) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "only what is available");
        self.start = (self.start + count).min(self.end);
        self.position += count as u64;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Reads until at least `wanted` bytes are available or the tar has ended.
    pub(super) fn fill(&mut self, wanted: usize) -> Result<(), ExtractError> {
        if self.end - self.start >= wanted {
            return Ok(());
        }
        if self.start > 0 {
            self.window.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.window.len() < wanted {
            self.window.resize(wanted, 0);
        }
        while self.end < wanted && !self.ended {
            match self.reader.read(&mut self.window[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let position = self.position + self.end as u64;
                    return Err(ExtractError::Read { position, source });
                }
            }
        }
        Ok(())
    }

    /// Gives at most `left` bytes of content to `take`, step by step until all are given; the tar must not end before.
    pub(super) fn each_chunk(
        &mut self,
        mut left: u64,
        inside: impl Fn() -> String,
        mut take: impl FnMut(&[u8]) -> Result<(), ExtractError>,
    ) -> Result<(), ExtractError> {
        while left > 0 {
            self.fill(1)?;
            let available = self.available();
            let step = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(available.len());
            if step == 0 {
                return Err(ExtractError::Truncated {
                    position: self.position,
                    inside: inside(),
                });
            }
            take(&available[..step])?;
            self.consume(step);
            left -= step as u64;
        }
        Ok(())
    }
}
