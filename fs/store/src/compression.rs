//! Compressed streams, told by their first bytes and never by a name or a media type.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::error::LoadError;

/// Buffer in front of a decoder, in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// The longest magic number, in bytes.
const MAGIC_BYTES: usize = 6;

/// Returns a reader of the uncompressed bytes of `input`; `item` names it in errors.
///
/// # Errors
/// See [`Refused`]: the input cannot be read, or is compressed by a method that is not known here.
pub(crate) fn decompressed<'a>(
    input: impl Read + Send + 'a,
    item: &str,
) -> Result<Box<dyn Read + Send + 'a>, Refused> {
    let mut input = input;
    let mut first = Vec::with_capacity(MAGIC_BYTES);
    input
        .by_ref()
        .take(MAGIC_BYTES as u64)
        .read_to_end(&mut first)
        .map_err(Refused::Read)?;
    let input = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(first.clone()).chain(input));
    let unsupported = |method, hint| {
        Err(Refused::Method(LoadError::Compression {
            item: item.to_owned(),
            method,
            hint,
        }))
    };
    match first.as_slice() {
        // RFC 1952; several members one after the other are one stream, as pigz and eStargz write them.
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(input))),
        // RFC 8878; a stream may begin with a skippable frame.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Box::new(
            zstd::stream::read::Decoder::with_buffer(input).map_err(Refused::Read)?,
        )),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => unsupported("xz", "xz -dc"),
        [b'B', b'Z', b'h', ..] => unsupported("bzip2", "bzip2 -dc"),
        _ => Ok(Box::new(input)),
    }
}

/// Why a stream cannot be read.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Its first bytes do not come.
    Read(io::Error),
    /// Its compression is not known.
    Method(LoadError),
}
