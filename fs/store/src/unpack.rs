//! From a stream to a layer that only waits for its name.
//!
//! Decompression and hashing each have a thread of their own beside the unpacking, so that none waits for another.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mille_layer::extract::{ExtractError, ExtractOptions, Extracted, extract};

use crate::compression::{Opened, opened};
use crate::digest::{DiffId, Digest, Hashing};
use crate::error::{At, Error, LoadError};
use crate::layers::{LayerMeta, with_causes};
use crate::staging::{self, Staged};
use crate::store::Store;
use crate::types::LayerInfo;

/// Blocks on their way to another thread; bounds the memory, not the speed.
const BLOCKS_AHEAD: usize = 16;
/// Size of a block that is read ahead, in bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// zstd level of header streams: they are small, and written while somebody waits.
const HEADERS_LEVEL: i32 = 1;

/// An unpacked layer in the staging area.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) staged: Staged,
    pub(crate) diff_id: DiffId,
    pub(crate) meta: LayerMeta,
    /// Its tar said itself where it ends.
    ended: bool,
}

impl Pending {
    pub(crate) fn info(&self) -> LayerInfo {
        LayerInfo {
            diff_id: self.diff_id,
            size: self.meta.size,
        }
    }

    /// Refuses another tar than the announced one, and one that nobody announced and that may be cut off.
    pub(crate) fn check(&self, expected: Option<&DiffId>, item: &str) -> Result<(), Error> {
        match expected {
            Some(&expected) if expected != self.diff_id => Err(Error::DiffIdMismatch {
                item: item.to_owned(),
                expected,
                found: self.diff_id,
            }),
            // A stream of nothing is an empty layer.
            None if !self.ended && self.meta.tar_bytes > 0 => Err(LoadError::Truncated {
                item: item.to_owned(),
            }
            .into()),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Unpacks a layer's tar, which may be compressed; `item` names it in errors. Needs no lock.
    pub(crate) fn unpack(&self, tar: impl Read + Send, item: &str) -> Result<Pending, Error> {
        match opened(tar, item)? {
            Opened::Plain(tar) => self.unpack_plain(tar, item),
            Opened::Packed(tar) => ahead(tar, |tar| self.unpack_plain(tar, item)),
        }
    }

    fn unpack_plain(&self, tar: impl Read, item: &str) -> Result<Pending, Error> {
        let staged = self.stage()?;
        let tree = staged.path().join("tree");
        staging::make_directory(&tree)?;
        // The root of a layer that says nothing about it is everybody's to read, as docker's is.
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755)).at("chmod", &tree)?;
        let directory = File::open(&tree).at("open", &tree)?;
        let path = staged.path().join("headers");
        let headers = File::create(&path).at("create", &path)?;
        let mut headers = zstd::stream::write::Encoder::new(BufWriter::new(headers), HEADERS_LEVEL)
            .at("write", &path)?;
        let options = ExtractOptions::new(self.options.space, self.options.ownership);
        let (extracted, digest) = hashed(tar, |tar| {
            extract(tar, directory.as_fd(), &options, &mut headers)
        });
        let extracted = extracted.map_err(|error| refused(error, item))?;
        headers
            .finish()
            .and_then(|mut out| out.flush())
            .at("write", &path)?;
        describe(staged, &extracted, digest)
    }
}

fn describe(staged: Staged, extracted: &Extracted, digest: Digest) -> Result<Pending, Error> {
    let meta = LayerMeta {
        size: extracted.bytes,
        tar_bytes: extracted.tar_bytes,
        entries: extracted.entries,
    };
    let path = staged.path().join("meta.json");
    fs::write(&path, serde_json::to_vec(&meta).unwrap_or_default()).at("write", &path)?;
    Ok(Pending {
        staged,
        diff_id: digest.into(),
        meta,
        ended: extracted.end_marker,
    })
}

fn refused(error: ExtractError, item: &str) -> Error {
    let item = item.to_owned();
    match error {
        ExtractError::Truncated { .. } => Error::LayerTruncated {
            item,
            detail: with_causes(&error),
        },
        error => Error::Layer {
            item,
            source: error.into(),
        },
    }
}

/// Runs `read` on a reader whose bytes are hashed by another thread meanwhile.
fn hashed<T>(input: impl Read, read: impl FnOnce(&mut dyn Read) -> T) -> (T, Digest) {
    std::thread::scope(|scope| {
        let (blocks, received) = sync_channel::<Vec<u8>>(BLOCKS_AHEAD);
        let hashing = scope.spawn(move || {
            let mut hasher = Hashing::new(io::sink());
            for block in received {
                // A sink takes everything.
                if hasher.write_all(&block).is_err() {
                    break;
                }
            }
            hasher.finish().0
        });
        let mut tee = Tee { input, blocks };
        let done = read(&mut tee);
        drop(tee);
        // The hashing thread has nothing in it that could panic.
        let digest = hashing.join().unwrap_or_else(|_| Digest::of(b""));
        (done, digest)
    })
}

struct Tee<R> {
    input: R,
    blocks: SyncSender<Vec<u8>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        if count > 0 {
            let sent = self.blocks.send(buffer[..count].to_vec());
            sent.map_err(|_| io::Error::other("the hashing thread has ended"))?;
        }
        Ok(count)
    }
}

/// Runs `use_it` on a reader of what another thread reads ahead from `input`.
fn ahead<T>(input: impl Read + Send, use_it: impl FnOnce(&mut dyn Read) -> T) -> T {
    std::thread::scope(|scope| {
        let (blocks, received) = sync_channel::<io::Result<Vec<u8>>>(BLOCKS_AHEAD);
        scope.spawn(move || read_ahead(input, &blocks));
        let mut reader = Ahead {
            received,
            block: Vec::new(),
            at: 0,
        };
        use_it(&mut reader)
    })
}

/// Ends with the input, with its first error, or when nobody wants more.
fn read_ahead(mut input: impl Read, blocks: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        let read = input
            .by_ref()
            .take(BLOCK_BYTES as u64)
            .read_to_end(&mut block);
        let ended = block.len() < BLOCK_BYTES;
        if !block.is_empty() && blocks.send(Ok(block)).is_err() {
            return;
        }
        match read {
            Err(error) => {
                // A receiver that is gone has an error of its own.
                blocks.send(Err(error)).unwrap_or_default();
                return;
            }
            Ok(_) if ended => return,
            Ok(_) => {}
        }
    }
}

struct Ahead {
    received: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    at: usize,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() {
            match self.received.recv() {
                Ok(block) => {
                    self.block = block?;
                    self.at = 0;
                }
                // The other thread has read everything.
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.block[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many zeros and then an error.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the cable was cut"));
            }
            let count = buffer.len().min(self.0);
            self.0 -= count;
            buffer[..count].fill(0);
            Ok(count)
        }
    }

    #[test]
    fn what_is_read_ahead_is_what_was_there_and_its_error_comes_in_place() {
        for size in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 20 * BLOCK_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let mut got = Vec::new();
            ahead(&bytes[..], |reader| reader.read_to_end(&mut got)).unwrap();
            assert!(got == bytes, "{size}");
            let mut got = Vec::new();
            let error = ahead(Broken(size), |reader| reader.read_to_end(&mut got)).unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), got.len()),
                ("the cable was cut", size)
            );
        }
        // A reader that wants no more ends the other thread.
        ahead(io::repeat(0), |reader| reader.read_exact(&mut [0; 9])).unwrap();
    }

    #[test]
    fn the_digest_is_of_everything_that_was_read() {
        let bytes = vec![7; 3 * BLOCK_BYTES];
        let (count, digest) = hashed(&bytes[..], |reader| io::copy(reader, &mut io::sink()));
        assert_eq!(count.unwrap(), bytes.len() as u64);
        assert_eq!(digest, Digest::of(&bytes));
        let ((), digest) = hashed(&bytes[..], |reader| reader.read_exact(&mut [0; 9]).unwrap());
        assert_eq!(digest, Digest::of(&bytes[..9]));
    }
}
