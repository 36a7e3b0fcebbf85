//! The outer tar of an archive, read once from front to end.

use std::io::{self, Read};

use tar_core::EntryType;
use tar_core::parse::{Limits, ParseEvent, ParsedEntry, Parser};

use crate::error::{Error, LoadError};

/// Read in steps of so many bytes.
const STEP_BYTES: usize = 256 << 10;
/// A tar is padded to whole blocks of so many bytes.
const BLOCK_BYTES: u64 = 512;
/// Longest name or link target, in bytes.
const PATH_BYTES: u32 = 4096;
/// What messages call the archive itself.
pub(super) const ARCHIVE: &str = "archive";

/// One member, as its header says.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Content of so many bytes follows.
    File(u64),
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// Another name of a member.
    Hardlink(Vec<u8>),
    Directory,
    /// Something that no archive of images has.
    Other,
}

/// A tar and where its reader stands.
pub(super) struct TarStream<'a> {
    input: Box<dyn Read + Send + 'a>,
    parser: Parser,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    ended: bool,
    /// Bytes of the member's content not yet read.
    left: u64,
    padding: u64,
    /// Name of the member, for errors.
    member: String,
    /// Why content stopped too early; its reader has seen a copy.
    fault: Option<io::Error>,
}

enum Parsed {
    More(usize),
    Skip(usize),
    End,
    Entry {
        consumed: usize,
        entry: Entry,
        size: u64,
    },
}

impl<'a> TarStream<'a> {
    pub(super) fn new(input: Box<dyn Read + Send + 'a>) -> Self {
        TarStream {
            input,
            parser: Parser::new(Limits {
                max_path_len: Some(PATH_BYTES),
                ..Limits::default()
            }),
            buffer: vec![0; STEP_BYTES],
            start: 0,
            end: 0,
            ended: false,
            left: 0,
            padding: 0,
            member: ARCHIVE.to_owned(),
            fault: None,
        }
    }

    /// Goes on to the next member, over what is left of this one; `None` at the end mark.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Error> {
        self.skip_content()?;
        loop {
            match self.parse()? {
                Parsed::More(wanted) => {
                    let had = self.end - self.start;
                    self.fill(wanted)?;
                    if self.end - self.start == had {
                        return Err(LoadError::Truncated {
                            item: self.member.clone(),
                        }
                        .into());
                    }
                }
                Parsed::Skip(consumed) => self.start += consumed,
                Parsed::End => return Ok(None),
                Parsed::Entry {
                    consumed,
                    entry,
                    size,
                } => {
                    self.start += consumed;
                    self.left = size;
                    self.padding = size.next_multiple_of(BLOCK_BYTES) - size;
                    self.member = String::from_utf8_lossy(&entry.path).into_owned();
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Reads to the end of the input, so that whoever writes it can finish.
    pub(super) fn drain(mut self) -> Result<(), Error> {
        let drained = io::copy(&mut self.input, &mut io::sink());
        drained
            .map(|_| ())
            .map_err(|source| self.unreadable(source))
    }

    fn parse(&mut self) -> Result<Parsed, Error> {
        let window = &self.buffer[self.start..self.end];
        let event = self.parser.parse(window).map_err(|error| LoadError::Tar {
            item: match self.member.as_str() {
                ARCHIVE => ARCHIVE.to_owned(),
                member => format!("{ARCHIVE}, after {member}"),
            },
            reason: error.to_string(),
        })?;
        Ok(match event {
            ParseEvent::NeedData { min_bytes } => Parsed::More(min_bytes),
            ParseEvent::GlobalExtensions { consumed, .. } => Parsed::Skip(consumed),
            ParseEvent::End { .. } => Parsed::End,
            ParseEvent::Entry { consumed, entry } => Parsed::Entry {
                consumed,
                size: entry.size,
                entry: described(&entry),
            },
            ParseEvent::SparseEntry {
                consumed, entry, ..
            } => Parsed::Entry {
                consumed,
                size: entry.size,
                entry: Entry {
                    path: entry.path.to_vec(),
                    kind: Kind::Other,
                },
            },
        })
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        let copied = io::copy(&mut Content(self), &mut io::sink());
        self.check(copied)?;
        while self.padding > 0 {
            if self.start == self.end {
                self.fill(1)?;
            }
            let step = self.padding.min((self.end - self.start) as u64);
            if step == 0 {
                return Err(LoadError::Truncated {
                    item: self.member.clone(),
                }
                .into());
            }
            self.start += usize::try_from(step).unwrap_or(0);
            self.padding -= step;
        }
        Ok(())
    }

    /// Turns what a reader of content has met into an error of the archive, if it is one.
    pub(super) fn check<T>(&mut self, outcome: io::Result<T>) -> Result<(), Error> {
        match self.fault.take() {
            Some(fault) => Err(self.unreadable(fault)),
            // Without a fault of the archive nothing else can have failed here: the other side is a sink or memory.
            None => outcome.map(|_| ()).map_err(|source| Error::Read {
                item: self.member.clone(),
                source,
            }),
        }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        let item = self.member.clone();
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return LoadError::Truncated { item }.into();
        }
        Error::Read { item, source }
    }

    /// Reads until `wanted` bytes are in the window, or the input has ended.
    fn fill(&mut self, wanted: usize) -> Result<(), Error> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        while self.end < wanted && !self.ended {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.ended = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        Ok(())
    }
}

/// The content of the member that was found last.
pub(super) struct Content<'s, 'a>(pub(super) &'s mut TarStream<'a>);

impl Read for Content<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = &mut *self.0;
        let wanted = usize::try_from(stream.left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let buffered = stream.end - stream.start;
        let outcome = if buffered > 0 {
            let count = wanted.min(buffered);
            buffer[..count].copy_from_slice(&stream.buffer[stream.start..stream.start + count]);
            stream.start += count;
            Ok(count)
        } else {
            stream.input.read(&mut buffer[..wanted])
        };
        let fault = match outcome {
            Ok(0) => io::Error::from(io::ErrorKind::UnexpectedEof),
            Ok(count) => {
                stream.left -= count as u64;
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => error,
        };
        let copy = io::Error::new(fault.kind(), fault.to_string());
        stream.fault.get_or_insert(fault);
        Err(copy)
    }
}

fn described(entry: &ParsedEntry<'_>) -> Entry {
    let target = || {
        entry
            .link_target
            .as_ref()
            .map(|target| target.to_vec())
            .unwrap_or_default()
    };
    let kind = match entry.entry_type {
        EntryType::Regular | EntryType::Continuous => Kind::File(entry.size),
        EntryType::Symlink => Kind::Symlink(target()),
        EntryType::Link => Kind::Hardlink(target()),
        EntryType::Directory => Kind::Directory,
        _ => Kind::Other,
    };
    Entry {
        path: entry.path.to_vec(),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, size) in [("one", 700), ("two", 0), ("three", 512)] {
            let mut header = tar::Header::new_ustar();
            header.set_path(name).unwrap();
            header.set_size(size);
            header.set_cksum();
            builder
                .append(&header, io::repeat(b'x').take(size))
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Gives one byte at a time: what a slow pipe does.
    struct Drip<R>(R);

    impl<R: Read> Read for Drip<R> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    fn walk(mut stream: TarStream<'_>, take: u64) -> Result<Vec<(String, usize)>, Error> {
        let mut found = Vec::new();
        while let Some(entry) = stream.next()? {
            let mut content = Vec::new();
            let read = Content(&mut stream).take(take).read_to_end(&mut content);
            stream.check(read)?;
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            found.push((name, content.len()));
        }
        stream.drain()?;
        Ok(found)
    }

    #[test]
    fn members_are_found_however_much_of_them_is_read() {
        let archive = archive();
        for (take, want) in [(0, [0, 0, 0]), (100, [100, 0, 100]), (9999, [700, 0, 512])] {
            let names = ["one", "two", "three"].map(str::to_owned);
            let want: Vec<_> = names.into_iter().zip(want).collect();
            let whole = TarStream::new(Box::new(&archive[..]));
            assert_eq!(walk(whole, take).unwrap(), want);
            let slow = TarStream::new(Box::new(Drip(&archive[..])));
            assert_eq!(walk(slow, take).unwrap(), want);
        }
    }

    #[test]
    fn a_member_that_ends_early_is_named() {
        let archive = archive();
        for (end, member) in [
            (300, "archive"),
            (512 + 300, "one"),
            (512 + 1000, "one"),
            (2048, "two"),
        ] {
            for take in [0, 9999] {
                let cut = TarStream::new(Box::new(&archive[..end]));
                let error = walk(cut, take).unwrap_err().to_string();
                assert!(error.contains(member), "{end}: {error}");
            }
        }
    }
}
