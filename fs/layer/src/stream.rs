//! The header stream: what of a tar its layer directory does not keep.
//!
//! ```text
//! stream   = "millehs" version(u8 = 1) segment* end
//! segment  = 1 length bytes              raw bytes of the tar, at most MAX_RAW_BYTES of them
//!          | 2 count                     so many zero bytes
//!          | 3 path size                 the content of a file of the layer, which must have this size
//!          | 4 path size n (offset length)*n   these parts of a file of the layer, which must have this size
//! end      = 0 length                    length of the whole tar
//! path     = length bytes                from the layer's root, no leading slash
//! ```
//! Numbers are unsigned LEB128. Content that the directory no longer holds when extraction ends is in raw segments.

use std::io::{self, Read, Write};

/// Identifies a header stream and its version.
pub(crate) const MAGIC: &[u8; 8] = b"millehs\x01";
/// Most bytes in one raw segment, so that a reader's buffer is bounded.
pub(crate) const MAX_RAW_BYTES: usize = 1 << 16;
/// Most bytes in a path: more the kernel does not take.
const MAX_PATH_BYTES: u64 = 4096;
/// Most parts of one file.
const MAX_RANGES: u64 = 1 << 24;
/// Zero runs shorter than this are not worth two segments.
const MIN_ZERO_RUN: usize = 24;

const END: u8 = 0;
const RAW: u8 = 1;
const ZEROS: u8 = 2;
const FILE: u8 = 3;
const RANGES: u8 = 4;

/// A part of a file: offset and length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One segment of a header stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Raw(Vec<u8>),
    Zeros(u64),
    File {
        path: Vec<u8>,
        size: u64,
    },
    Ranges {
        path: Vec<u8>,
        size: u64,
        ranges: Vec<Range>,
    },
    End {
        length: u64,
    },
}

impl Segment {
    /// Writes the segment; a raw one must not be longer than [`MAX_RAW_BYTES`].
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Segment::Raw(bytes) => write_raw_segment(out, bytes),
            Segment::Zeros(count) => {
                out.write_all(&[ZEROS])?;
                write_number(out, *count)
            }
            Segment::File { path, size } => {
                out.write_all(&[FILE])?;
                write_bytes(out, path)?;
                write_number(out, *size)
            }
            Segment::Ranges { path, size, ranges } => {
                out.write_all(&[RANGES])?;
                write_bytes(out, path)?;
                write_number(out, *size)?;
                write_number(out, ranges.len() as u64)?;
                for range in ranges {
                    write_number(out, range.offset)?;
                    write_number(out, range.length)?;
                }
                Ok(())
            }
            Segment::End { length } => {
                out.write_all(&[END])?;
                write_number(out, *length)
            }
        }
    }

    /// Reads one segment.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof` for what is not one; otherwise the reader's own.
    pub(crate) fn read(input: &mut impl Read) -> io::Result<Segment> {
        match read_byte(input)? {
            RAW => Ok(Segment::Raw(read_bytes(input, MAX_RAW_BYTES as u64)?)),
            ZEROS => Ok(Segment::Zeros(read_number(input)?)),
            FILE => Ok(Segment::File {
                path: read_bytes(input, MAX_PATH_BYTES)?,
                size: read_number(input)?,
            }),
            RANGES => {
                let path = read_bytes(input, MAX_PATH_BYTES)?;
                let size = read_number(input)?;
                let count = read_number(input)?;
                if count > MAX_RANGES {
                    return Err(invalid("too many parts"));
                }
                let mut ranges = Vec::new();
                for _ in 0..count {
                    let (offset, length) = (read_number(input)?, read_number(input)?);
                    ranges.push(Range { offset, length });
                }
                Ok(Segment::Ranges { path, size, ranges })
            }
            END => Ok(Segment::End {
                length: read_number(input)?,
            }),
            _ => Err(invalid("unknown segment")),
        }
    }
}

/// Writes raw bytes of any length as raw and zero segments.
pub(crate) fn write_raw(out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        if zeros >= MIN_ZERO_RUN {
            Segment::Zeros(zeros as u64).write(out)?;
            bytes = &bytes[zeros..];
            continue;
        }
        let length = next_zero_run(bytes, zeros).min(MAX_RAW_BYTES);
        write_raw_segment(out, &bytes[..length])?;
        bytes = &bytes[length..];
    }
    Ok(())
}

/// Returns where the next long zero run begins, searched from `from`; the length if there is none.
fn next_zero_run(bytes: &[u8], from: usize) -> usize {
    let mut run = 0;
    for (index, &byte) in bytes.iter().enumerate().skip(from) {
        run = if byte == 0 { run + 1 } else { 0 };
        if run == MIN_ZERO_RUN {
            return index + 1 - MIN_ZERO_RUN;
        }
    }
    bytes.len()
}

fn write_raw_segment(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&[RAW])?;
    write_bytes(out, bytes)
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write_number(out, bytes.len() as u64)?;
    out.write_all(bytes)
}

fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    let mut encoded = [0u8; 10];
    let mut length = 0;
    for slot in &mut encoded {
        length += 1;
        // Seven bits at a time: the cast cuts nothing off.
        *slot = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            break;
        }
        *slot |= 0x80;
    }
    out.write_all(&encoded[..length])
}

fn read_byte(input: &mut impl Read) -> io::Result<u8> {
    let mut byte = [0u8];
    input.read_exact(&mut byte)?;
    Ok(byte[0])
}

fn read_number(input: &mut impl Read) -> io::Result<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = read_byte(input)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(invalid("number out of range"))
}

fn read_bytes(input: &mut impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let length = read_number(input)?;
    if length > limit {
        return Err(invalid("too long"));
    }
    let mut bytes = Vec::new();
    input.by_ref().take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            match Segment::read(&mut bytes).unwrap() {
                Segment::Raw(raw) => out.extend(raw),
                Segment::Zeros(count) => out.resize(out.len() + count as usize, 0),
                other => panic!("{other:?}"),
            }
        }
        out
    }

    #[test]
    fn raw_bytes_come_back() {
        let mut cases: Vec<Vec<u8>> = vec![
            vec![],
            vec![1],
            vec![0],
            vec![0; 23],
            vec![0; 24],
            vec![7; 200_000],
        ];
        for zeros in [1, 23, 24, 25, 511] {
            cases.push([vec![1; 3], vec![0; zeros], vec![2; 2]].concat());
            cases.push([vec![0; zeros], vec![2; 2], vec![0; zeros]].concat());
        }
        for case in cases {
            let mut out = Vec::new();
            write_raw(&mut out, &case).unwrap();
            assert_eq!(decode(&out), case);
        }
    }

    #[test]
    fn segments_come_back() {
        let path = b"a/\xffb".to_vec();
        let ranges = vec![
            Range {
                offset: 0,
                length: 512,
            },
            Range {
                offset: u64::MAX,
                length: 0,
            },
        ];
        for segment in [
            Segment::Zeros(u64::MAX),
            Segment::File {
                path: path.clone(),
                size: 1 << 40,
            },
            Segment::Ranges {
                path,
                size: 3,
                ranges,
            },
            Segment::End { length: 127 },
            Segment::End { length: 128 },
        ] {
            let mut out = Vec::new();
            segment.write(&mut out).unwrap();
            assert_eq!(Segment::read(&mut out.as_slice()).unwrap(), segment);
            for cut in 0..out.len() {
                assert!(Segment::read(&mut &out[..cut]).is_err());
            }
        }
    }

    #[test]
    fn damaged_segments_are_errors() {
        for bytes in [
            &b"\x09"[..],
            b"\x01\xff\xff\xff\xff\x0f",
            b"\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"",
        ] {
            assert!(Segment::read(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }
}
