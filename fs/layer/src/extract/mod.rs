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

mod entry;
mod record;
mod source;
mod tree;

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use tar_core::parse::{ParseEvent, Parser};

use self::entry::{Action, Attributes, BLOCK, Entry, Framing};
use self::record::{Content, ContentId, Recorder};
use self::source::Source;
use self::tree::{Fault, Tree};
use crate::marks::{MarkSpace, Ownership};
use crate::stream::Range;

/// Room for the headers of one entry besides its extension data: tar-core takes up to sixteen extensions.
const HEADERS_BYTES: usize = 64 << 10;

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
    /// Whether files get their content; without it they are holes of the right size, and nothing can be replayed.
    pub content: bool,
    /// Bounds.
    pub limits: Limits,
}

impl ExtractOptions {
    /// Owners and content kept, default limits.
    #[must_use]
    pub fn new(space: MarkSpace, ownership: Ownership) -> ExtractOptions {
        ExtractOptions {
            space,
            ownership,
            owners: Owners::Keep,
            content: true,
            limits: Limits::default(),
        }
    }
}

/// What an extraction has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries of the tar, ignored ones included.
    pub entries: u64,
    /// Sum of the sizes of regular files (holes included; hard links count once) and of the lengths of symbolic links'
    /// targets, as docker's overlay2 driver counts a layer.
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

impl EntryName {
    /// Where something is that comes after this entry; before the first one there is nothing to name.
    fn as_predecessor(&self) -> String {
        if self.0.is_empty() {
            String::new()
        } else {
            format!(", after entry {self}")
        }
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
    #[error("malformed tar header at byte {position}{}", after.as_predecessor())]
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
    let mut extraction = Extraction {
        source: Source::new(tar),
        parser: parser(&options.limits),
        record: Recorder::new(into),
        tree: Tree::new(into, options),
        keep_content: options.content,
        limits: &options.limits,
        done: Extracted::default(),
        header_bytes: 0,
        content_bytes: 0,
        last: EntryName(Vec::new()),
    };
    while extraction.step()? {}
    extraction.drain()?;
    extraction
        .tree
        .finish()
        .map_err(|(path, fault)| at(&EntryName(path), fault))?;
    let mut done = extraction.done;
    done.skipped_xattrs = extraction.tree.skipped_xattrs;
    done.tar_bytes = extraction.source.position();
    debug_assert_eq!(
        done.tar_bytes,
        extraction.record.length(),
        "every byte is accounted for"
    );
    extraction
        .record
        .finish(header_stream)
        .map_err(ExtractError::Stream)?;
    Ok(done)
}

fn parser(limits: &Limits) -> Parser {
    let mut parser = Parser::new(tar_core::parse::Limits {
        max_metadata_size: limits.entry_metadata_bytes,
        max_path_len: Some(limits.path_bytes),
        max_sparse_entries: limits.sparse_regions,
        ..tar_core::parse::Limits::default()
    });
    // It knows no negative times. What it passes over, `pax::parse` does not.
    parser.set_ignore_pax_errors(true);
    parser
}

/// One run of [`extract`].
struct Extraction<'a, R> {
    source: Source<R>,
    parser: Parser,
    record: Recorder<'a>,
    tree: Tree<'a>,
    keep_content: bool,
    limits: &'a Limits,
    done: Extracted,
    header_bytes: u64,
    content_bytes: u64,
    /// The entry before, to say where a malformed header stands.
    last: EntryName,
}

/// What the parser says, free of its borrow.
enum Step {
    More(usize),
    Global(usize),
    End(usize),
    Entry {
        consumed: usize,
        name: EntryName,
        entry: Result<Entry, String>,
    },
}

impl<R: Read> Extraction<'_, R> {
    /// Takes the next entry; `false` at the end of the archive.
    fn step(&mut self) -> Result<bool, ExtractError> {
        match self.parse()? {
            Step::More(wanted) => return self.more(wanted),
            Step::Global(consumed) => {
                self.count_entry()?;
                self.done.ignored += 1;
                self.headers(consumed)?;
            }
            Step::End(consumed) => {
                self.headers(consumed)?;
                self.done.end_marker = true;
                return Ok(false);
            }
            Step::Entry {
                consumed,
                name,
                entry,
            } => {
                self.last = name;
                self.count_entry()?;
                let entry = entry.map_err(|reason| self.refused(reason))?;
                self.headers(consumed)?;
                self.place(entry)?;
            }
        }
        Ok(true)
    }

    fn parse(&mut self) -> Result<Step, ExtractError> {
        let window = self.source.available();
        let limits = self.limits;
        let event = self
            .parser
            .parse(window)
            .map_err(|source| ExtractError::Header {
                position: self.source.position(),
                after: self.last.clone(),
                source: Box::new(source),
            })?;
        Ok(match event {
            ParseEvent::NeedData { min_bytes } => Step::More(min_bytes),
            ParseEvent::End { consumed } => Step::End(consumed),
            ParseEvent::GlobalExtensions { consumed, pax_data } => {
                // Readers differ on whom an extension before a global one belongs to.
                let before = offset_in(window, pax_data.as_ptr()).saturating_sub(BLOCK as usize);
                if window
                    .get(..before)
                    .is_some_and(|bytes| bytes.iter().any(|&byte| byte != 0))
                {
                    return Err(self.malformed("extension header before a global one"));
                }
                Step::Global(consumed)
            }
            ParseEvent::Entry { consumed, entry } => {
                let framing = Framing {
                    sparse: None,
                    map_bytes: 0,
                };
                let name = EntryName(entry.path.to_vec());
                Step::Entry {
                    consumed,
                    name,
                    entry: Entry::decode(&entry, framing, limits),
                }
            }
            ParseEvent::SparseEntry {
                consumed,
                entry,
                sparse_map,
                real_size,
            } => {
                let header_end =
                    offset_in(window, entry.header.as_bytes().as_ptr()) + BLOCK as usize;
                let map_bytes = consumed.saturating_sub(header_end) as u64;
                let framing = Framing {
                    sparse: Some((sparse_map, real_size)),
                    map_bytes,
                };
                let name = EntryName(entry.path.to_vec());
                Step::Entry {
                    consumed,
                    name,
                    entry: Entry::decode(&entry, framing, limits),
                }
            }
        })
    }

    /// Reads more of the tar for the parser; `false` if it has ended where it may.
    fn more(&mut self, wanted: usize) -> Result<bool, ExtractError> {
        let had = self.source.available().len();
        let bound = 2 * self.limits.entry_metadata_bytes as usize
            + 64 * self.limits.sparse_regions
            + HEADERS_BYTES;
        if wanted > bound || had > bound {
            let limit = u64::from(self.limits.entry_metadata_bytes);
            return Err(self.limit("bytes of extension headers", limit));
        }
        // At least twice as much: the parser starts anew each time.
        self.source.fill(wanted.max(2 * had).min(2 * bound))?;
        let available = self.source.available();
        if available.len() >= wanted && available.len() > had {
            return Ok(true);
        }
        // A lone zero block, or nothing at all, ends an archive, too.
        if available.iter().all(|&byte| byte == 0) {
            self.done.end_marker = available.len() >= BLOCK as usize;
            return Ok(false);
        }
        Err(ExtractError::Truncated {
            position: self.source.position() + available.len() as u64,
            inside: format!("a header{}", self.last.as_predecessor()),
        })
    }

    /// Records header bytes.
    fn headers(&mut self, count: usize) -> Result<(), ExtractError> {
        self.count_header_bytes(count as u64)?;
        let bytes = self.source.available().get(..count).unwrap_or_default();
        self.record.raw(bytes).map_err(ExtractError::Stream)?;
        self.source.consume(count);
        Ok(())
    }

    /// Does what an entry asks for, and takes its content from the tar.
    fn place(&mut self, entry: Entry) -> Result<(), ExtractError> {
        self.content_bytes = self.content_bytes.saturating_add(entry.content);
        if self.content_bytes > self.limits.content_bytes {
            return Err(self.limit("bytes of content in the archive", self.limits.content_bytes));
        }
        let padding = entry.padding();
        let Entry {
            path,
            action,
            attributes,
            content,
        } = entry;
        let record = &mut self.record;
        let outcome = match action {
            Action::File => {
                let range = Range {
                    offset: 0,
                    length: content,
                };
                self.write_file(&path, &attributes, content, &[range], false)?;
                return self.raw_bytes(padding);
            }
            Action::Sparse { ranges, size } => {
                self.write_file(&path, &attributes, size, &ranges, true)?;
                return self.raw_bytes(padding);
            }
            Action::Dir => self.tree.place_directory(&path, attributes, record),
            Action::Symlink(target) => {
                self.done.bytes = self.done.bytes.saturating_add(target.len() as u64);
                self.tree.place_symlink(&path, &target, &attributes, record)
            }
            Action::Hardlink(target) => self.tree.place_hardlink(&path, &target, record),
            Action::Node(node) => self.tree.place_node(&path, node, &attributes, record),
            Action::Whiteout(hidden) => self.tree.place_whiteout(&hidden),
            Action::Opaque(dir) => self.tree.place_opaque(&dir),
            Action::Ignore => {
                self.done.ignored += 1;
                Ok(())
            }
        };
        outcome.map_err(|fault| at(&self.last, fault))?;
        self.raw_bytes(content + padding)
    }

    /// Writes a file of `size` bytes, its content into `ranges`; the rest is holes.
    fn write_file(
        &mut self,
        path: &[u8],
        attributes: &Attributes,
        size: u64,
        ranges: &[Range],
        sparse: bool,
    ) -> Result<(), ExtractError> {
        let last = &self.last;
        let io_error = |operation| {
            move |source| ExtractError::Io {
                entry: last.clone(),
                operation,
                source,
            }
        };
        let created = self.tree.create_file(path, &mut self.record);
        let file = created.map_err(|fault| at(last, fault))?;
        let keep = self.keep_content;
        if sparse || !keep {
            file.set_len(size).map_err(io_error("set size of file"))?;
        }
        for range in ranges {
            let mut offset = range.offset;
            self.source.each_chunk(
                range.length,
                || format!("the content of entry {last}"),
                |bytes| {
                    if keep {
                        file.write_all_at(bytes, offset)
                            .map_err(io_error("write file"))?;
                    }
                    offset += bytes.len() as u64;
                    Ok(())
                },
            )?;
        }
        let content = self
            .record_content(path, size, ranges, sparse)?
            .filter(|_| keep);
        let finished = self.tree.finish_file(&file, attributes, content);
        finished.map_err(|fault| at(&self.last, fault))?;
        self.done.bytes = self.done.bytes.saturating_add(size);
        Ok(())
    }

    /// Refers to a file's content in the header stream, if it has any.
    fn record_content(
        &mut self,
        path: &[u8],
        size: u64,
        ranges: &[Range],
        sparse: bool,
    ) -> Result<Option<(ContentId, Content)>, ExtractError> {
        let recorded = if sparse && !ranges.is_empty() {
            let id = self
                .record
                .parts(path, size, ranges)
                .map_err(ExtractError::Stream)?;
            Some((id, Content::Parts(ranges.to_vec())))
        } else if !sparse && size > 0 {
            let id = self.record.file(path, size).map_err(ExtractError::Stream)?;
            Some((id, Content::Whole(size)))
        } else {
            None
        };
        Ok(recorded)
    }

    /// Records so many bytes of the tar as they are: padding, content that leaves nothing on disk.
    fn raw_bytes(&mut self, count: u64) -> Result<(), ExtractError> {
        self.count_header_bytes(count)?;
        let (record, last) = (&mut self.record, &self.last);
        self.source.each_chunk(
            count,
            || format!("entry {last}"),
            |bytes| record.raw(bytes).map_err(ExtractError::Stream),
        )
    }

    /// Records what follows the end of the archive.
    fn drain(&mut self) -> Result<(), ExtractError> {
        loop {
            self.source.fill(1)?;
            let count = self.source.available().len();
            if count == 0 {
                return Ok(());
            }
            self.headers(count)?;
        }
    }

    fn count_entry(&mut self) -> Result<(), ExtractError> {
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(self.limit("entries in the archive", self.limits.entries));
        }
        Ok(())
    }

    fn count_header_bytes(&mut self, count: u64) -> Result<(), ExtractError> {
        self.header_bytes = self.header_bytes.saturating_add(count);
        if self.header_bytes > self.limits.header_bytes {
            return Err(self.limit("bytes of headers in the archive", self.limits.header_bytes));
        }
        Ok(())
    }

    fn limit(&self, what: &'static str, limit: u64) -> ExtractError {
        ExtractError::Limit {
            entry: self.last.clone(),
            what,
            limit,
        }
    }

    fn refused(&self, reason: String) -> ExtractError {
        ExtractError::Refused {
            entry: self.last.clone(),
            reason,
        }
    }

    fn malformed(&self, reason: &'static str) -> ExtractError {
        ExtractError::Header {
            position: self.source.position(),
            after: self.last.clone(),
            source: reason.into(),
        }
    }
}

/// Where in `window` something lies that the parser borrowed from it.
fn offset_in(window: &[u8], part: *const u8) -> usize {
    (part as usize).saturating_sub(window.as_ptr() as usize)
}

/// Names the entry at which something went wrong.
fn at(entry: &EntryName, fault: Fault) -> ExtractError {
    let entry = entry.clone();
    match fault {
        Fault::Refused(reason) => ExtractError::Refused { entry, reason },
        Fault::Io(operation, source) => ExtractError::Io {
            entry,
            operation,
            source,
        },
        Fault::Limit(what, limit) => ExtractError::Limit { entry, what, limit },
    }
}
