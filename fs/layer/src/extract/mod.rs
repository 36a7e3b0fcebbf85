//! A tar, of any origin, becomes a layer directory.
//!
//! The tar is untrusted. Nothing is ever written, linked, removed or changed outside of the target directory; no
//! symbolic link is followed, not even one that points inside; `..` is refused. Whiteouts of the tar (`.wh.x`,
//! `.wh..wh..opq`) act on lower layers only, wherever they stand in the tar, and become overlay marks. Overlay marks
//! that the tar brings as xattrs are not written. What the directory cannot keep goes into the header stream, from
//! which [`crate::replay`] makes the very bytes of the tar again.
//!
//! Nothing is synced: the caller does so once, with `syncfs`, before the layer is believed. After an error the
//! directory holds a part of the tar: the caller removes it.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

use crate::marks::{MarkSpace, Ownership};

/// Bounds of one extraction. Exceeding one is an error that names the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Entries, ignored ones included. Default 4,000,000.
    pub entries: u64,
    /// Extension headers (long names, PAX records, sparse maps) of one entry, in bytes. Default 1 MiB.
    pub entry_metadata_bytes: u32,
    /// Path or link target, in bytes. Default 4095: the kernel takes no longer one.
    pub path_bytes: u32,
    /// Regions of one sparse file. Default 100,000.
    pub sparse_regions: usize,
    /// All bytes of the tar that are not file content: headers, padding, what follows the end. Default 8 GiB.
    pub header_bytes: u64,
    /// All file content as stored in the tar, in bytes. Default 256 GiB.
    pub content_bytes: u64,
    /// Memory for what is applied at the end: directories' paths and attributes, in bytes. Default 512 MiB.
    pub deferred_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            entries: 4_000_000,
            entry_metadata_bytes: 1 << 20,
            path_bytes: 4095,
            sparse_regions: 100_000,
            header_bytes: 8 << 30,
            content_bytes: 256 << 30,
            deferred_bytes: 512 << 20,
        }
    }
}

/// What becomes of the owners in the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Kept as [`Ownership`] says.
    Keep,
    /// Ignored: everything belongs to the caller. For looking into an archive, not for layers.
    Ignore,
}

/// How a tar is extracted.
#[derive(Debug, Clone)]
pub struct ExtractOptions {
    /// Family of marks to write.
    pub space: MarkSpace,
    /// Where owner, mode and type go. With [`Ownership::Real`], devices that may not be made (no CAP_MKNOD) are stored
    /// as empty files with [`crate::OVERRIDE_STAT`] all the same.
    pub ownership: Ownership,
    /// Whether owners are kept.
    pub owners: Owners,
    /// Bounds.
    pub limits: Limits,
}

impl ExtractOptions {
    /// Owners kept, default limits.
    #[must_use]
    pub fn new(space: MarkSpace, ownership: Ownership) -> ExtractOptions {
        ExtractOptions {
            space,
            ownership,
            owners: Owners::Keep,
            limits: Limits::default(),
        }
    }
}

/// What an extraction has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries of the tar, ignored ones included.
    pub entries: u64,
    /// Sum of the sizes of regular files (holes included; hard links count once), as docker counts a layer.
    pub bytes: u64,
    /// Length of the tar to its true end, in bytes.
    pub tar_bytes: u64,
    /// Entries that leave nothing on disk: volume labels, AUFS bookkeeping, vendor types.
    pub ignored: u64,
    /// Extended attributes that the filesystem or the caller's rights do not allow; they are in the header stream only.
    pub skipped_xattrs: u64,
    /// The tar had its end marker. Without one it may have been cut between two entries.
    pub end_marker: bool,
}

/// A path of the tar, shown with everything unprintable escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct EntryName(pub Vec<u8>);

impl fmt::Display for EntryName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Why a tar was not extracted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// Reading the tar gave an error.
    #[error("read tar at byte {position}")]
    Read {
        /// Offset in the tar.
        position: u64,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Writing the header stream gave an error.
    #[error("write header stream")]
    Stream(#[source] io::Error),
    /// The tar ends in the middle of something.
    #[error("tar ends early at byte {position}, in {inside}")]
    Truncated {
        /// Offset in the tar.
        position: u64,
        /// What was being read.
        inside: String,
    },
    /// A header that cannot be understood.
    #[error("malformed tar header at byte {position}, after entry {after}")]
    Header {
        /// Offset of the header in the tar.
        position: u64,
        /// The entry before it.
        after: EntryName,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An entry that may not or cannot be extracted.
    #[error("entry {entry}: {reason}")]
    Refused {
        /// Its path.
        entry: EntryName,
        /// Why.
        reason: String,
    },
    /// A limit is exceeded.
    #[error("entry {entry}: more than {limit} {what}")]
    Limit {
        /// Path of the entry.
        entry: EntryName,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A system call gave an error.
    #[error("entry {entry}: {operation}")]
    Io {
        /// Path of the entry.
        entry: EntryName,
        /// What was tried.
        operation: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Extracts `tar` into the empty directory `into`, and writes what the directory does not keep to `header_stream`.
///
/// Reads to the end of `tar`, beyond its end marker. `into` itself takes the attributes of the tar's root entry (`./`);
/// without one it becomes 0755 and implied.
///
/// # Errors
/// See [`ExtractError`]; `into` then holds a part of the tar.
pub fn extract(
    tar: impl Read,
    into: BorrowedFd<'_>,
    options: &ExtractOptions,
    header_stream: impl Write,
) -> Result<Extracted, ExtractError> {
    drop((tar, into, options, header_stream));
    Err(ExtractError::Read {
        position: 0,
        source: io::ErrorKind::Unsupported.into(),
    })
}
