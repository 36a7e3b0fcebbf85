//! The header stream while it is made.
//!
//! Whether a file's content will still be in the directory at the end is not known when it is written: a later entry
//! may take its name. So segments are spooled, content that is about to be lost is saved aside, and the stream is put
//! together when the tar has ended.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::stream::{self, MAGIC, Range, Segment};

/// Raw bytes are gathered up to here before they become segments.
const PENDING_BYTES: usize = 1 << 15;
/// A spool goes to disk when it grows beyond this.
const SPOOL_MEMORY_BYTES: usize = 8 << 20;
/// Copies of content are made in steps of this many bytes.
const COPY_BYTES: usize = 64 << 10;

/// Number of a content segment, in their order in the stream.
pub(super) type ContentId = u32;

/// Which part of a file's inode is content of the tar.
#[derive(Debug)]
pub(super) enum Content {
    Whole(u64),
    Parts(Vec<Range>),
}

/// Collects the header stream.
pub(super) struct Recorder<'a> {
    /// Segments in final form, unless their content has been saved.
    segments: Spool<'a>,
    /// Raw bytes not yet in a segment.
    pending: Vec<u8>,
    /// Saved contents, one after the other.
    saved: Spool<'a>,
    /// Where in `saved` the content of a segment is.
    places: HashMap<ContentId, Range>,
    contents: ContentId,
    /// Bytes of the tar accounted for.
    length: u64,
}

impl<'a> Recorder<'a> {
    /// Starts; what does not fit into memory is spooled into nameless files in `dir`.
    pub(super) fn new(dir: BorrowedFd<'a>) -> Recorder<'a> {
        Recorder {
            segments: Spool::new(dir),
            pending: Vec::new(),
            saved: Spool::new(dir),
            places: HashMap::new(),
            contents: 0,
            length: 0,
        }
    }

    /// Bytes of the tar recorded so far.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Records bytes of the tar as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.length += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PENDING_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Records that the content of the file at `path` comes next.
    pub(super) fn file(&mut self, path: &[u8], size: u64) -> io::Result<ContentId> {
        self.length += size;
        self.content(&Segment::File {
            path: path.to_vec(),
            size,
        })
    }

    /// Records that these parts of the file at `path`, of this size, come next.
    pub(super) fn parts(
        &mut self,
        path: &[u8],
        size: u64,
        ranges: &[Range],
    ) -> io::Result<ContentId> {
        self.length += ranges.iter().map(|range| range.length).sum::<u64>();
        self.content(&Segment::Ranges {
            path: path.to_vec(),
            size,
            ranges: ranges.to_vec(),
        })
    }

    fn content(&mut self, segment: &Segment) -> io::Result<ContentId> {
        self.flush()?;
        segment.write(&mut self.segments)?;
        let id = self.contents;
        self.contents = id.checked_add(1).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(id)
    }

    fn flush(&mut self) -> io::Result<()> {
        stream::write_raw(&mut self.segments, &self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Saves the content of a segment from `file`, which is about to lose its name.
    pub(super) fn save(&mut self, id: ContentId, file: &File, content: &Content) -> io::Result<()> {
        let whole;
        let ranges = match content {
            Content::Whole(size) => {
                whole = [Range {
                    offset: 0,
                    length: *size,
                }];
                &whole[..]
            }
            Content::Parts(ranges) => ranges,
        };
        let begin = self.saved.length;
        let mut buffer = vec![0u8; COPY_BYTES];
        for range in ranges {
            let Range {
                mut offset,
                length: mut left,
            } = *range;
            while left > 0 {
                let step = left.min(COPY_BYTES as u64) as usize;
                file.read_exact_at(&mut buffer[..step], offset)?;
                self.saved.write_all(&buffer[..step])?;
                offset += step as u64;
                left -= step as u64;
            }
        }
        let place = Range {
            offset: begin,
            length: self.saved.length - begin,
        };
        self.places.insert(id, place);
        Ok(())
    }

    /// Writes the stream.
    pub(super) fn finish(mut self, mut out: impl Write) -> io::Result<()> {
        self.flush()?;
        out.write_all(MAGIC)?;
        if self.places.is_empty() {
            self.segments.copy_to(&mut out)?;
        } else {
            self.put_together(&mut out)?;
        }
        Segment::End {
            length: self.length,
        }
        .write(&mut out)?;
        out.flush()
    }

    /// Copies the segments, saved contents in place of those that refer to them.
    fn put_together(&self, out: &mut impl Write) -> io::Result<()> {
        let mut reader = io::BufReader::new(SpoolReader {
            spool: &self.segments,
            offset: 0,
        });
        let mut id = 0;
        while !io::BufRead::fill_buf(&mut reader)?.is_empty() {
            let segment = Segment::read(&mut reader)?;
            let is_content = matches!(segment, Segment::File { .. } | Segment::Ranges { .. });
            match self.places.get(&id).filter(|_| is_content) {
                Some(place) => self.saved.part_as_raw(*place, out)?,
                None => segment.write(out)?,
            }
            id += ContentId::from(is_content);
        }
        Ok(())
    }
}

/// Bytes in memory, or in a nameless file when there are many.
struct Spool<'a> {
    dir: BorrowedFd<'a>,
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
}

impl<'a> Spool<'a> {
    fn new(dir: BorrowedFd<'a>) -> Spool<'a> {
        Spool {
            dir,
            memory: Vec::new(),
            file: None,
            length: 0,
        }
    }

    /// Empties the memory into the file. The memory is always what comes after the file's content.
    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            slot => slot.insert(nameless_file(self.dir)?),
        };
        file.write_all(&self.memory)?;
        self.memory.clear();
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let in_file = self.length - self.memory.len() as u64;
        if let Some(file) = self.file.as_ref().filter(|_| offset < in_file) {
            let limit = usize::try_from(in_file - offset).unwrap_or(usize::MAX);
            let step = buffer.len().min(limit);
            return file.read_at(&mut buffer[..step], offset);
        }
        let begin = usize::try_from(offset - in_file).unwrap_or(usize::MAX);
        let mut rest = self.memory.get(begin..).unwrap_or_default();
        rest.read(buffer)
    }

    fn copy_to(&self, out: &mut impl Write) -> io::Result<()> {
        io::copy(
            &mut SpoolReader {
                spool: self,
                offset: 0,
            },
            out,
        )?;
        Ok(())
    }

    fn part_as_raw(&self, part: Range, out: &mut impl Write) -> io::Result<()> {
        let mut reader = SpoolReader {
            spool: self,
            offset: part.offset,
        }
        .take(part.length);
        let mut buffer = vec![0u8; stream::MAX_RAW_BYTES];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(()),
                got => stream::write_raw(out, &buffer[..got])?,
            }
        }
    }
}

impl Write for Spool<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.memory.len() + bytes.len() > SPOOL_MEMORY_BYTES {
            self.spill()?;
        }
        self.memory.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct SpoolReader<'s, 'a> {
    spool: &'s Spool<'a>,
    offset: u64,
}

impl Read for SpoolReader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.spool.read_at(buffer, self.offset)?;
        self.offset += got as u64;
        Ok(got)
    }
}

/// Makes a file in `dir` that has no name, and so leaves nothing behind.
fn nameless_file(dir: BorrowedFd<'_>) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match openat(dir, c".", flags | OFlags::TMPFILE, mode) {
        Ok(fd) => return Ok(File::from(fd)),
        // Not every filesystem has such files: then one that loses its name at once.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    for attempt in 0..100u32 {
        let name = format!(".mille-spool-{}-{attempt}", std::process::id());
        let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        match openat(dir, name.as_str(), flags, mode) {
            Ok(fd) => {
                unlinkat(dir, name.as_str(), AtFlags::empty())?;
                return Ok(File::from(fd));
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_spool_gives_back_what_it_took_in_memory_and_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let handle = File::open(dir.path()).unwrap();
        let mut spool = Spool::new(handle.as_fd());
        let mut want = Vec::new();
        for step in 0..40u32 {
            let chunk: Vec<u8> = (0..700_000u32)
                .map(|index| ((index ^ step) % 251) as u8)
                .collect();
            spool.write_all(&chunk).unwrap();
            want.extend(chunk);
        }
        assert!(spool.file.is_some());
        let mut got = Vec::new();
        spool.copy_to(&mut got).unwrap();
        assert!(got == want);
        let mut got = Vec::new();
        let middle = Range {
            offset: 8_000_000,
            length: 9_000_000,
        };
        spool.part_as_raw(middle, &mut got).unwrap();
        let mut raw = Vec::new();
        let mut input = got.as_slice();
        while !input.is_empty() {
            match Segment::read(&mut input).unwrap() {
                Segment::Raw(bytes) => raw.extend(bytes),
                Segment::Zeros(count) => raw.resize(raw.len() + count as usize, 0),
                other => panic!("{other:?}"),
            }
        }
        assert!(raw == want[8_000_000..17_000_000]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
