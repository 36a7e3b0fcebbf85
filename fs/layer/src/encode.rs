//! A deterministic tar writer: the same entries give the same bytes.
//!
//! Plain ustar where an entry fits it, PAX records where it does not (long or odd names, sub-second or negative times,
//! sizes from 8 GiB, large ids, extended attributes). No user or group names, no times of its own.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;

use crate::extract::EntryName;
use crate::marks::{AUFS_OPAQUE, aufs_whiteout_name, is_internal_xattr};
use crate::path::{join, split};
use crate::pax::{format_time, push_record};

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
    buffer: Vec<u8>,
}

/// A tar's unit of space.
const BLOCK: usize = 512;
/// Content is copied in steps of this many bytes.
const COPY_BYTES: usize = 256 << 10;
/// Largest size that eleven octal digits hold.
const MAX_OCTAL_11: u64 = 0o77_777_777_777;
/// Largest id or device number that seven octal digits hold.
const MAX_OCTAL_7: u64 = 0o7_777_777;

impl<W: Write> Encoder<W> {
    /// Starts a tar on `out`, best a buffered one.
    pub fn new(out: W) -> Encoder<W> {
        Encoder {
            out,
            buffer: vec![0u8; COPY_BYTES],
        }
    }

    /// Writes one entry; `data` gives the content of a [`Kind::File`] (exactly `size` bytes are read) and is not
    /// touched otherwise.
    ///
    /// # Errors
    /// See [`EncodeError`]; the tar is then unusable.
    pub fn append(&mut self, entry: &Entry<'_>, data: impl Read) -> Result<(), EncodeError> {
        let head = head(entry)?;
        let failed = |source| EncodeError::Write {
            entry: name(entry),
            source,
        };
        self.out.write_all(&head).map_err(failed)?;
        let Kind::File { size } = entry.kind else {
            return Ok(());
        };
        self.copy(entry, size, data)?;
        let failed = |source| EncodeError::Write {
            entry: name(entry),
            source,
        };
        self.out.write_all(padding(size)).map_err(failed)
    }

    /// Writes the OCI whiteout of `path`: an empty file `.wh.NAME`, mode 0600, 0:0, time 0.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn append_whiteout(&mut self, path: &[u8]) -> Result<(), EncodeError> {
        let (dir, name) = split(path);
        let marker = join(dir, &aufs_whiteout_name(name));
        self.append_marker(&marker, 0o600)
    }

    /// Writes the OCI opaque marker of the directory `path` (empty or `.` for the root): an empty file
    /// `.wh..wh..opq`, mode 0755, 0:0, time 0.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn append_opaque(&mut self, path: &[u8]) -> Result<(), EncodeError> {
        let dir: &[u8] = if path == b"." { b"" } else { path };
        self.append_marker(&join(dir, AUFS_OPAQUE), 0o755)
    }

    /// Writes the end marker (two zero blocks) and gives the writer back, flushed.
    ///
    /// # Errors
    /// Writing gave an error.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0u8; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn append_marker(&mut self, path: &[u8], mode: u32) -> Result<(), EncodeError> {
        let kind = Kind::File { size: 0 };
        let mtime = Time::default();
        self.append(
            &Entry {
                path,
                kind,
                mode,
                uid: 0,
                gid: 0,
                mtime,
                xattrs: &[],
            },
            io::empty(),
        )
    }

    fn copy(
        &mut self,
        entry: &Entry<'_>,
        size: u64,
        mut data: impl Read,
    ) -> Result<(), EncodeError> {
        let mut left = size;
        while left > 0 {
            let step = left.min(COPY_BYTES as u64) as usize;
            match data.read(&mut self.buffer[..step]) {
                Ok(0) => {
                    return Err(EncodeError::Short {
                        entry: name(entry),
                        missing: left,
                    });
                }
                Ok(got) => {
                    let failed = |source| EncodeError::Write {
                        entry: name(entry),
                        source,
                    };
                    self.out.write_all(&self.buffer[..got]).map_err(failed)?;
                    left -= got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(EncodeError::Read {
                        entry: name(entry),
                        source,
                    });
                }
            }
        }
        Ok(())
    }
}

fn name(entry: &Entry<'_>) -> EntryName {
    EntryName(entry.path.to_vec())
}

/// What fills the last block after `size` bytes.
fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { &[] } else { &ZEROS[over..] }
}

/// All headers of an entry: the PAX one, if needed, and its own.
fn head(entry: &Entry<'_>) -> Result<Vec<u8>, EncodeError> {
    let invalid = |reason| EncodeError::Invalid {
        entry: name(entry),
        reason,
    };
    let path = tar_path(entry).map_err(invalid)?;
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));

    let mut header = Header::new();
    if !header.set_path(&path) {
        add("path", path.clone());
    }
    let (flag, size) = match entry.kind {
        Kind::File { size } => (b'0', size),
        Kind::Hardlink(_) => (b'1', 0),
        Kind::Symlink(_) => (b'2', 0),
        Kind::Char { .. } => (b'3', 0),
        Kind::Block { .. } => (b'4', 0),
        Kind::Dir => (b'5', 0),
        Kind::Fifo => (b'6', 0),
    };
    header.bytes[156] = flag;
    if let Kind::Symlink(target) | Kind::Hardlink(target) = entry.kind {
        if target.is_empty() || target.contains(&0) {
            return Err(invalid("empty link target, or one with a NUL byte"));
        }
        if !header.set_link(target) {
            add("linkpath", target.to_vec());
        }
    }
    if let Kind::Char { major, minor } | Kind::Block { major, minor } = entry.kind {
        let (major, minor) = (u64::from(major), u64::from(minor));
        if major > MAX_OCTAL_7 || minor > MAX_OCTAL_7 {
            return Err(invalid("device number too large for a tar"));
        }
        header.octal(329, 8, major);
        header.octal(337, 8, minor);
    }
    header.octal(100, 8, u64::from(entry.mode & 0o7777));
    for (key, offset, id) in [("uid", 108, entry.uid), ("gid", 116, entry.gid)] {
        if !header.octal_or_zero(offset, 8, u64::from(id), MAX_OCTAL_7) {
            add(key, id.to_string().into_bytes());
        }
    }
    if !header.octal_or_zero(124, 12, size, MAX_OCTAL_11) {
        add("size", size.to_string().into_bytes());
    }
    let seconds = u64::try_from(entry.mtime.sec).unwrap_or(0);
    let fits = header.octal_or_zero(136, 12, seconds, MAX_OCTAL_11);
    if !fits || entry.mtime.sec < 0 || entry.mtime.nsec != 0 {
        add("mtime", format_time(entry.mtime).into_bytes());
    }
    for (key, value) in entry.xattrs {
        if key.is_empty() || key.contains(&b'=') || key.contains(&0) {
            return Err(invalid(
                "extended attribute whose name is empty or has = or NUL in it",
            ));
        }
        if !is_internal_xattr(OsStr::from_bytes(key)) {
            records.push(([b"SCHILY.xattr.", key.as_slice()].concat(), value.clone()));
        }
    }
    header.finish();
    let mut head = pax_entry(&path, records);
    head.extend_from_slice(&header.bytes);
    Ok(head)
}

/// The path as tars write it: directories end in a slash, the root is `./`.
fn tar_path(entry: &Entry<'_>) -> Result<Vec<u8>, &'static str> {
    let mut path = entry.path.to_vec();
    if path.is_empty() || path.starts_with(b"/") || path.contains(&0) {
        return Err("path is empty, absolute or has a NUL byte");
    }
    if entry.kind == Kind::Dir && !path.ends_with(b"/") {
        path.push(b'/');
    }
    Ok(path)
}

/// The PAX header with these records, or nothing without any.
fn pax_entry(path: &[u8], mut records: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    records.sort();
    let mut body = Vec::new();
    for (key, value) in &records {
        push_record(&mut body, key, value);
    }
    let mut header = Header::new();
    // Only seen by readers that do not know PAX: any name will do that is short.
    let base = split(path.strip_suffix(b"/").unwrap_or(path)).1;
    let shown = [b"PaxHeaders/", &base[..base.len().min(80)]].concat();
    header.set_path(&shown);
    header.bytes[156] = b'x';
    header.octal(100, 8, 0o644);
    header.octal(108, 8, 0);
    header.octal(116, 8, 0);
    header.octal(124, 12, body.len() as u64);
    header.octal(136, 12, 0);
    header.finish();
    let mut out = header.bytes.to_vec();
    let pad = padding(body.len() as u64);
    out.append(&mut body);
    out.extend_from_slice(pad);
    out
}

/// One ustar header block.
struct Header {
    bytes: [u8; BLOCK],
}

impl Header {
    fn new() -> Header {
        let mut bytes = [0u8; BLOCK];
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        Header { bytes }
    }

    /// Puts the path into name and prefix; if it does not fit, a part of it, and `false` is returned.
    fn set_path(&mut self, path: &[u8]) -> bool {
        if path.len() <= 100 {
            self.bytes[..path.len()].copy_from_slice(path);
            return true;
        }
        // Split at a slash so that both parts fit; a name must not be empty.
        let earliest = path.len().saturating_sub(101);
        let slash = (earliest..path.len().min(156))
            .find(|&index| path[index] == b'/' && index > 0 && index + 1 < path.len());
        if let Some(slash) = slash {
            let (prefix, name) = (&path[..slash], &path[slash + 1..]);
            self.bytes[..name.len()].copy_from_slice(name);
            self.bytes[345..345 + prefix.len()].copy_from_slice(prefix);
            return true;
        }
        self.bytes[..100].copy_from_slice(&path[..100]);
        false
    }

    fn set_link(&mut self, target: &[u8]) -> bool {
        let shown = &target[..target.len().min(100)];
        self.bytes[157..157 + shown.len()].copy_from_slice(shown);
        shown.len() == target.len()
    }

    /// Writes a number as octal digits with a final NUL into `width` bytes; it must fit.
    fn octal(&mut self, offset: usize, width: usize, mut number: u64) {
        for index in (offset..offset + width - 1).rev() {
            // Three bits: the cast cuts nothing off.
            self.bytes[index] = b'0' + (number & 7) as u8;
            number >>= 3;
        }
        debug_assert_eq!(number, 0, "fits its field");
    }

    /// The same; zero, and `false`, if it is larger than `max`.
    fn octal_or_zero(&mut self, offset: usize, width: usize, number: u64, max: u64) -> bool {
        let fits = number <= max;
        self.octal(offset, width, if fits { number } else { 0 });
        fits
    }

    /// Fills in the checksum: the sum of all bytes with the field itself as blanks.
    fn finish(&mut self) {
        self.bytes[148..156].fill(b' ');
        let sum: u64 = self.bytes.iter().map(|&byte| u64::from(byte)).sum();
        self.octal(148, 7, sum);
    }
}
