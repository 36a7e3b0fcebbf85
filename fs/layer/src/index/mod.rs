//! The merged index of a chain of layers: one file that answers what the layers' directories would, names and attributes
//! of the merged tree, whatever the number of layers. The bytes are usually a mapping of a file.
//!
//! # Format
//!
//! All numbers little-endian, all offsets from the start of their section.
//!
//! ```text
//! 0    8   magic
//! 8    4   version
//! 12   4   length of the stamp
//! 16   4   number of directories
//! 20   4   number of entries
//! 24   8   length of the text
//! 32   32  SHA-256 of the bytes before it and of all bytes after it
//! 64       the stamp: what the index was made of, in its maker's words
//!          directories, 12 bytes each: first entry, number of entries, the entry that describes the directory itself
//!          entries, 112 bytes each (see `Record`); those of one directory lie together, sorted by name
//!          text: names and targets of symbolic links
//! ```
//!
//! Directory 0 is the root, described by entry 0, which has no name and is in no directory.
//!
//! An index is believed if version, lengths and stamp are right ([`Index::open`]), which costs the same for every size. The
//! digest is for those who have the time to read all of it ([`verify`]), as with the files of the layers themselves. Nothing
//! is ever read outside of the bytes: an answer that they do not hold is [`Damaged`].

mod record;
mod write;

use std::fmt;

use sha2::{Digest, Sha256};

pub use record::{DirNumber, Moment, Record, Text};
use record::{ENTRY, Slot};
pub use write::{Item, TooLarge, Writer};

const MAGIC: &[u8; 8] = b"milleidx";

/// Raised with every change of the format, or of what an entry means: an older index is made anew then.
const VERSION: u32 = 1;

/// Where the digest lies.
const DIGEST: std::ops::Range<usize> = 32..64;

const HEADER: usize = 64;

/// Bytes of a directory.
const DIRECTORY: usize = 12;

/// Why an index is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Too short for a header, or without the magic.
    #[error("it is no merged index")]
    Foreign,
    /// Made by another version.
    #[error("it has version {0}, not {VERSION}")]
    Version(u32),
    /// Not as long as its header says.
    #[error("it is cut off or has something behind its end")]
    Length,
    /// Changed since it was made.
    #[error("its digest does not match")]
    Digest,
    /// Made of other layers, or the same ones read in another way.
    #[error("it was made of something else")]
    Stamp,
}

/// The index does not hold together, though it looked right when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the merged index is damaged")]
pub struct Damaged;

type Bytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// A merged index that may be asked. Every question is answered from the bytes alone.
pub struct Index {
    bytes: Bytes,
    directories: Section,
    entries: Section,
    text: Section,
}

impl fmt::Debug for Index {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Index")
            .field("directories", &self.directories)
            .field("entries", &self.entries)
            .field("text", &self.text)
            .finish_non_exhaustive()
    }
}

/// Where a part of the file begins, and its length in bytes.
#[derive(Debug, Clone, Copy)]
struct Section {
    start: usize,
    length: usize,
}

impl Section {
    /// The bytes of a range inside the section.
    fn get(self, bytes: &[u8], offset: usize, length: usize) -> Result<&[u8], Damaged> {
        let end = offset.checked_add(length).ok_or(Damaged)?;
        if end > self.length {
            return Err(Damaged);
        }
        let start = self.start.checked_add(offset).ok_or(Damaged)?;
        let end = self.start.checked_add(end).ok_or(Damaged)?;
        bytes.get(start..end).ok_or(Damaged)
    }
}

/// Checks a whole index, whatever it was made of.
///
/// # Errors
/// What is wrong with it.
pub fn verify(all: &[u8]) -> Result<(), Rejected> {
    let (header, _) = outline(all)?;
    if header.get(DIGEST) != Some(&digest(all)[..]) {
        return Err(Rejected::Digest);
    }
    Ok(())
}

impl Index {
    /// Believes an index that was made with this stamp. Its digest is not looked at.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
        stamp: &[u8],
    ) -> Result<Index, Rejected> {
        let all = bytes.as_ref();
        let (_, [stamped, directories, entries, text]) = outline(all)?;
        let told = stamped.get(all, 0, stamped.length);
        if told.map_err(|_| Rejected::Length)? != stamp {
            return Err(Rejected::Stamp);
        }
        Ok(Index {
            bytes: Box::new(bytes),
            directories,
            entries,
            text,
        })
    }

    /// Looks a name of a directory up.
    ///
    /// # Errors
    /// [`Damaged`], also for a directory that there is not.
    pub fn find(&self, directory: DirNumber, name: &[u8]) -> Result<Option<Record>, Damaged> {
        let (first, count) = self.extent(directory)?;
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            let slot = self.slot(first, middle)?;
            match self.text(slot.name())?.cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return slot.record().map(Some),
            }
        }
        Ok(None)
    }

    /// What is known of a directory itself.
    ///
    /// # Errors
    /// As [`Index::find`].
    pub fn directory(&self, directory: DirNumber) -> Result<Record, Damaged> {
        let own = number(self.directory_bytes(directory)?, 8).ok_or(Damaged)?;
        self.slot(own, 0)?.record()
    }

    /// The names in a directory, in bytewise order.
    ///
    /// # Errors
    /// As [`Index::find`].
    pub fn names(&self, directory: DirNumber) -> Result<Vec<&[u8]>, Damaged> {
        let (first, count) = self.extent(directory)?;
        let mut names = Vec::new();
        for place in 0..count {
            names.push(self.text(self.slot(first, place)?.name())?);
        }
        Ok(names)
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// As [`Index::find`].
    pub fn target(&self, record: &Record) -> Result<&[u8], Damaged> {
        self.text(record.target)
    }

    fn directory_bytes(&self, directory: DirNumber) -> Result<&[u8], Damaged> {
        let offset = place(directory.0)?.checked_mul(DIRECTORY).ok_or(Damaged)?;
        self.directories.get(self.all(), offset, DIRECTORY)
    }

    /// First entry and number of entries.
    fn extent(&self, directory: DirNumber) -> Result<(u32, u32), Damaged> {
        let bytes = self.directory_bytes(directory)?;
        let first = number(bytes, 0).ok_or(Damaged)?;
        Ok((first, number(bytes, 4).ok_or(Damaged)?))
    }

    fn slot(&self, first: u32, after: u32) -> Result<Slot<'_>, Damaged> {
        let which = place(first.checked_add(after).ok_or(Damaged)?)?;
        let offset = which.checked_mul(ENTRY).ok_or(Damaged)?;
        Slot::new(self.entries.get(self.all(), offset, ENTRY)?)
    }

    fn text(&self, Text { offset, length }: Text) -> Result<&[u8], Damaged> {
        self.text
            .get(self.all(), place(offset)?, usize::from(length))
    }

    fn all(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}

/// The header, and where the sections are.
fn outline(all: &[u8]) -> Result<(&[u8], [Section; 4]), Rejected> {
    let header = all.get(..HEADER).ok_or(Rejected::Foreign)?;
    if !header.starts_with(MAGIC) {
        return Err(Rejected::Foreign);
    }
    let version = number(header, 8).ok_or(Rejected::Foreign)?;
    if version != VERSION {
        return Err(Rejected::Version(version));
    }
    let sections = sections(header, all.len()).ok_or(Rejected::Length)?;
    Ok((header, sections))
}

/// Stamp, directories, entries and text; `None` unless they fill the file exactly.
fn sections(header: &[u8], length: usize) -> Option<[Section; 4]> {
    let count = |at| usize::try_from(number(header, at)?).ok();
    let text = u64::from_le_bytes(header.get(24..32)?.try_into().ok()?);
    let lengths = [
        count(12)?,
        count(16)?.checked_mul(DIRECTORY)?,
        count(20)?.checked_mul(ENTRY)?,
        usize::try_from(text).ok()?,
    ];
    let mut start = HEADER;
    let mut sections = [Section { start, length: 0 }; 4];
    for (section, length) in sections.iter_mut().zip(lengths) {
        *section = Section { start, length };
        start = start.checked_add(length)?;
    }
    (start == length).then_some(sections)
}

/// Of everything but the digest itself.
fn digest(all: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(all.get(..DIGEST.start).unwrap_or_default());
    hasher.update(all.get(DIGEST.end..).unwrap_or_default());
    hasher.finalize().into()
}

fn place(number: u32) -> Result<usize, Damaged> {
    usize::try_from(number).map_err(|_| Damaged)
}

/// The number at an offset.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
