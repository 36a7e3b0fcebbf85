//! A deterministic tar writer: the same entries give the same bytes.
//!
//! Plain ustar where an entry fits it, PAX records where it does not (long or odd names, sub-second or negative times,
//! sizes from 8 GiB, large ids, extended attributes). No user or group names, no times of its own.

use std::io::{self, Read, Write};

use crate::extract::EntryName;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Time {
    /// Seconds since 1970, rounded down.
    pub sec: i64,
    /// Nanoseconds to add, below 1,000,000,000.
    pub nsec: u32,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// Regular file with so many bytes of content.
    File {
        /// Length of the content in bytes.
        size: u64,
    },
    /// Directory.
    Dir,
    /// Symbolic link with this target.
    Symlink(&'a [u8]),
    /// Another name of the entry with this path, written before.
    Hardlink(&'a [u8]),
    /// Character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Named pipe.
    Fifo,
}

/// One entry to be written.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Path without leading slash; `.` for the root; directories without trailing slash.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits; others are cut off.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes; written sorted by name. Internal ones are left out.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

/// Why an entry was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// Writing the tar gave an error.
    #[error("write tar entry {entry}")]
    Write {
        /// Path of the entry.
        entry: EntryName,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Reading the content gave an error.
    #[error("read content of {entry}")]
    Read {
        /// Path of the entry.
        entry: EntryName,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The content ended early: the file has shrunk.
    #[error("content of {entry} ended {missing} bytes early")]
    Short {
        /// Path of the entry.
        entry: EntryName,
        /// Missing bytes.
        missing: u64,
    },
    /// No tar can hold this.
    #[error("tar entry {entry}: {reason}")]
    Invalid {
        /// Path of the entry.
        entry: EntryName,
        /// Why.
        reason: &'static str,
    },
}

/// Writes a tar, entry by entry.
#[derive(Debug)]
pub struct Encoder<W: Write> {
    out: W,
}

impl<W: Write> Encoder<W> {
    /// Starts a tar on `out`, best a buffered one.
    pub fn new(out: W) -> Encoder<W> {
        Encoder { out }
    }

    /// Writes one entry; `data` gives the content of a [`Kind::File`] (exactly `size` bytes are read) and is not
    /// touched otherwise.
    ///
    /// # Errors
    /// See [`EncodeError`]; the tar is then unusable.
    pub fn append(&mut self, entry: &Entry<'_>, data: impl Read) -> Result<(), EncodeError> {
        drop(data);
        Err(EncodeError::Invalid {
            entry: EntryName(entry.path.to_vec()),
            reason: "not yet",
        })
    }

    /// Writes the OCI whiteout of `path`: an empty file `.wh.NAME`, mode 0600, 0:0, time 0.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn append_whiteout(&mut self, path: &[u8]) -> Result<(), EncodeError> {
        Err(EncodeError::Invalid {
            entry: EntryName(path.to_vec()),
            reason: "not yet",
        })
    }

    /// Writes the OCI opaque marker of the directory `path`: an empty file `.wh..wh..opq`, mode 0755, 0:0, time 0.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn append_opaque(&mut self, path: &[u8]) -> Result<(), EncodeError> {
        Err(EncodeError::Invalid {
            entry: EntryName(path.to_vec()),
            reason: "not yet",
        })
    }

    /// Writes the end marker (two zero blocks) and gives the writer back, flushed.
    ///
    /// # Errors
    /// Writing gave an error.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}
