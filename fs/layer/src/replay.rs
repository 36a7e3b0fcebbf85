//! The very bytes of a layer's tar, made again of its directory and its header stream.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FileType, OFlags, SeekFrom, fstat, seek};
use rustix::io::Errno;

use crate::extract::EntryName;
use crate::path::open_beneath;
use crate::stream::{MAGIC, Range, Segment};

/// For file content and for the header stream.
const BUFFER_BYTES: usize = 256 << 10;

/// Why a tar could not be made again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// Reading the header stream gave an error.
    #[error("read header stream")]
    Stream(#[source] io::Error),
    /// The header stream is not one, of an unknown version, cut short or damaged.
    #[error("header stream: {0}")]
    Damaged(&'static str),
    /// A file of the layer is missing, of another type or size, or unreadable.
    #[error("layer file {path}: {reason}")]
    File {
        /// Its path in the layer.
        path: EntryName,
        /// What is wrong.
        reason: String,
        /// Cause, if a system call gave it.
        #[source]
        source: Option<io::Error>,
    },
    /// Writing the tar gave an error.
    #[error("write tar")]
    Write(#[source] io::Error),
}

/// Writes the tar from which `layer` was extracted to `out`; returns its length in bytes.
///
/// Changed content of the same size is not noticed here: the caller compares the digest of what comes out.
///
/// # Errors
/// See [`ReplayError`]; a part of the tar may have been written.
pub fn replay(
    layer: BorrowedFd<'_>,
    header_stream: impl Read,
    out: impl Write,
) -> Result<u64, ReplayError> {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, header_stream);
    let mut magic = [0u8; MAGIC.len()];
    input.read_exact(&mut magic).map_err(stream_error)?;
    if magic != *MAGIC {
        return Err(ReplayError::Damaged(
            "not a header stream of a known version",
        ));
    }
    let mut output = Output {
        out,
        written: 0,
        buffer: vec![0u8; BUFFER_BYTES],
    };
    loop {
        match Segment::read(&mut input).map_err(stream_error)? {
            Segment::Raw(bytes) => output.write(&bytes)?,
            Segment::Zeros(count) => output.zeros(count)?,
            Segment::File { path, size } => {
                let file = open(layer, &path, size)?;
                output.part(
                    &file,
                    &path,
                    Range {
                        offset: 0,
                        length: size,
                    },
                )?;
            }
            Segment::Ranges { path, size, ranges } => {
                let file = open(layer, &path, size)?;
                output.holes(&file, &path, &ranges, size)?;
                for range in ranges {
                    output.part(&file, &path, range)?;
                }
            }
            Segment::End { length } if length == output.written => break,
            Segment::End { .. } => return Err(ReplayError::Damaged("wrong length")),
        }
    }
    output.out.flush().map_err(ReplayError::Write)?;
    Ok(output.written)
}

/// A cut or malformed stream is damaged; anything else is the reader's error.
fn stream_error(error: io::Error) -> ReplayError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReplayError::Damaged("cut short"),
        io::ErrorKind::InvalidData => ReplayError::Damaged("malformed segment"),
        _ => ReplayError::Stream(error),
    }
}

/// Opens a file of the layer and checks its type and size.
fn open(layer: BorrowedFd<'_>, path: &[u8], size: u64) -> Result<File, ReplayError> {
    let fault = |reason: String, source: Option<io::Error>| ReplayError::File {
        path: EntryName(path.to_vec()),
        reason,
        source,
    };
    // Not blocking: a fifo in its place must not stop us.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = open_beneath(layer, path, flags)
        .map_err(|error| fault("cannot be opened".into(), Some(error.into())))?;
    let stat = fstat(&fd).map_err(|error| fault("stat".into(), Some(error.into())))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(fault("is not a regular file".into(), None));
    }
    if u64::try_from(stat.st_size) != Ok(size) {
        let reason = format!("has {} bytes, its tar entry has {size}", stat.st_size);
        return Err(fault(reason, None));
    }
    Ok(File::from(fd))
}

/// The tar being written.
struct Output<W> {
    out: W,
    written: u64,
    buffer: Vec<u8>,
}

impl<W: Write> Output<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), ReplayError> {
        self.out.write_all(bytes).map_err(ReplayError::Write)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, mut count: u64) -> Result<(), ReplayError> {
        const ZEROS: [u8; 8192] = [0; 8192];
        while count > 0 {
            let step = count.min(ZEROS.len() as u64);
            // At most the length of ZEROS.
            self.write(&ZEROS[..step as usize])?;
            count -= step;
        }
        Ok(())
    }

    /// Requires that nothing but zeros is outside of `ranges`.
    fn holes(
        &mut self,
        file: &File,
        path: &[u8],
        ranges: &[Range],
        size: u64,
    ) -> Result<(), ReplayError> {
        let fault = |reason: &str, source| ReplayError::File {
            path: EntryName(path.to_vec()),
            reason: reason.into(),
            source,
        };
        let cannot = |error: io::Error| fault("cannot be read", Some(error));
        let begins =
            std::iter::once(0).chain(ranges.iter().map(|range| range.offset + range.length));
        let ends = ranges.iter().map(|range| range.offset).chain([size]);
        for (mut at, end) in begins.zip(ends) {
            while at < end {
                at = match seek(file, SeekFrom::Data(at)) {
                    Ok(data) => data,
                    // Nothing but a hole to the end of the file.
                    Err(Errno::NXIO) => break,
                    // A filesystem that cannot tell: all of it is looked at.
                    Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
                    Err(error) => return Err(cannot(error.into())),
                };
                let step = end.saturating_sub(at).min(self.buffer.len() as u64) as usize;
                let got = match file.read_at(&mut self.buffer[..step], at) {
                    Ok(0) => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other.map_err(cannot)?,
                };
                if self.buffer[..got].iter().any(|&byte| byte != 0) {
                    return Err(fault("has content in a hole", None));
                }
                at += got as u64;
            }
        }
        Ok(())
    }

    /// Copies a part of a file; a shorter file than a moment ago is an error.
    fn part(&mut self, file: &File, path: &[u8], range: Range) -> Result<(), ReplayError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let Range {
            mut offset,
            length: mut left,
        } = range;
        while left > 0 {
            let step = left.min(buffer.len() as u64) as usize;
            let outcome = match file.read_at(&mut buffer[..step], offset) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            let got = match outcome {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(ReplayError::File {
                        path: EntryName(path.to_vec()),
                        reason: "cannot be read".into(),
                        source: Some(error),
                    });
                }
            };
            self.write(&buffer[..got])?;
            offset += got as u64;
            left -= got as u64;
        }
        self.buffer = buffer;
        Ok(())
    }
}
