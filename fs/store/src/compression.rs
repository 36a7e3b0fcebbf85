//! Compressed streams, told by their first bytes and never by a name or a media type.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, LoadError};

/// Buffer in front of a decoder, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// The longest magic number, in bytes.
const MAGIC_BYTES: usize = 6;

/// A stream of uncompressed bytes.
pub(crate) enum Opened<'a> {
    /// It was not compressed.
    Plain(Box<dyn Read + Send + 'a>),
    /// It is decompressed while it is read.
    Packed(Box<dyn Read + Send + 'a>),
}

impl<'a> Opened<'a> {
    pub(crate) fn into_reader(self) -> Box<dyn Read + Send + 'a> {
        match self {
            Opened::Plain(reader) | Opened::Packed(reader) => reader,
        }
    }
}

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

/// Tells the method by the first bytes of a stream.
pub(crate) fn method(first: &[u8]) -> Method {
    match first {
        // RFC 1952.
        [0x1f, 0x8b, ..] => Method::Gzip,
        // RFC 8878; a stream may begin with a skippable frame.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Method::Zstd,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Method::Xz,
        [b'B', b'Z', b'h', ..] => Method::Bzip2,
        _ => Method::Plain,
    }
}

/// Returns the bytes of a stream that may be compressed by gzip or zstd.
///
/// # Errors
/// As of an archive that is loaded.
pub fn decompressed<'a>(input: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>, Error> {
    opened(input, "the stream").map(Opened::into_reader)
}

/// Returns the uncompressed bytes of `input`; `item` names it in errors.
///
/// # Errors
/// The input cannot be read, or is compressed by a method that is not known here.
pub(crate) fn opened<'a>(input: impl Read + Send + 'a, item: &str) -> Result<Opened<'a>, Error> {
    let unreadable = |source| Error::Read {
        item: item.to_owned(),
        source,
    };
    let mut input = input;
    let mut first = Vec::with_capacity(MAGIC_BYTES);
    input
        .by_ref()
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut first)
        .map_err(unreadable)?;
    let method = method(&first);
    let input = io::Cursor::new(first).chain(input);
    let buffered = |input| BufReader::with_capacity(BUFFER_BYTES, input);
    let unsupported = |method, hint| {
        Err(LoadError::Compression {
            item: item.to_owned(),
            method,
            hint,
        }
        .into())
    };
    match method {
        Method::Plain => Ok(Opened::Plain(Box::new(input))),
        // Several members one after the other are one stream, as pigz and eStargz write them.
        Method::Gzip => Ok(Opened::Packed(Box::new(MultiGzDecoder::new(buffered(
            input,
        ))))),
        Method::Zstd => Ok(Opened::Packed(Box::new(
            zstd::stream::read::Decoder::with_buffer(buffered(input)).map_err(unreadable)?,
        ))),
        Method::Xz => unsupported("xz", "xz -dc"),
        Method::Bzip2 => unsupported("bzip2", "bzip2 -dc"),
    }
}
