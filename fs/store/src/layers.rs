//! Layers: from a tar to a directory under its diff id, and back to the very bytes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use mille_layer::extract::{ExtractOptions, Extracted, extract};
use mille_layer::replay::replay;
use serde::{Deserialize, Serialize};

use crate::compression::{Refused, decompressed};
use crate::digest::{DiffId, Digest, Hashing};
use crate::error::{At, Error, LoadError};
use crate::progress::{Counted, Phase};
use crate::staging::{self, Staged};
use crate::store::Store;
use crate::types::LayerInfo;

/// What is kept beside a layer.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct LayerMeta {
    /// Bytes of file content.
    pub(crate) size: u64,
    /// Length of the tar.
    pub(crate) tar_bytes: u64,
    /// Entries of the tar.
    pub(crate) entries: u64,
}

/// Blocks on their way to the hashing thread; bounds the memory, not the speed.
const BLOCKS_AHEAD: usize = 16;
/// zstd level of header streams: they are small, and written while somebody waits.
const HEADERS_LEVEL: i32 = 1;

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Store {
    /// Returns whether a layer is here.
    #[must_use]
    pub fn has_layer(&self, layer: &DiffId) -> bool {
        self.layer_home(layer).join("meta.json").exists()
    }

    /// Returns the bytes of file content in a layer.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`]; a damaged record.
    pub fn layer_size(&self, layer: &DiffId) -> Result<u64, Error> {
        Ok(self.layer_meta(layer)?.size)
    }

    pub(crate) fn layer_meta(&self, layer: &DiffId) -> Result<LayerMeta, Error> {
        let path = self.layer_home(layer).join("meta.json");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NoSuchLayer(*layer));
            }
            other => other.at("read", &path)?,
        };
        serde_json::from_slice(&bytes).map_err(|error| Error::Damaged {
            path,
            reason: error.to_string(),
        })
    }

    /// Adds a layer from its tar, which may be compressed by gzip or zstd. One that is here already is left as it is.
    /// With `expected`, another tar than that one's is refused. Holds the shared lock.
    ///
    /// # Errors
    /// The tar cannot be read or unpacked, is cut off, or is another one; nothing is left then.
    pub fn add_layer(
        &self,
        tar: impl Read + Send,
        expected: Option<&DiffId>,
    ) -> Result<LayerInfo, Error> {
        let item = expected.map_or_else(
            || "layer".to_owned(),
            |layer| format!("layer {}", layer.short()),
        );
        self.add_layer_named(tar, expected, &item)
    }

    pub(crate) fn add_layer_named(
        &self,
        tar: impl Read + Send,
        expected: Option<&DiffId>,
        item: &str,
    ) -> Result<LayerInfo, Error> {
        let _lock = self.lock_shared()?;
        let tar = decompressed(tar, item).map_err(|refused| match refused {
            Refused::Read(source) => Error::Read {
                item: item.to_owned(),
                source,
            },
            Refused::Method(error) => error.into(),
        })?;
        let tar = Counted::new(tar, &*self.progress, Phase::Extract, item, None);
        self.stage_layer(tar, expected, item)
    }

    /// Adds a layer from a tar that `write` writes. Holds the shared lock.
    ///
    /// # Errors
    /// As [`Store::add_layer`]; the error of `write` as [`Error::Layer`].
    pub fn add_layer_written<F>(
        &self,
        expected: Option<&DiffId>,
        write: F,
    ) -> Result<LayerInfo, Error>
    where
        F: FnOnce(&mut dyn Write) -> Result<(), Cause> + Send,
    {
        let (reader, writer) = io::pipe().at("make a pipe", self.root())?;
        std::thread::scope(|scope| {
            let writing = scope.spawn(move || {
                let mut out = BufWriter::with_capacity(1 << 16, writer);
                write(&mut out)?;
                out.flush().map_err(Cause::from)
            });
            let mut input = Cut(Some(reader));
            let added = self.add_written(&mut input, expected, || writing.join());
            drop(input);
            added
        })
    }

    /// Unpacks what comes out of the pipe; only if its writer succeeded does it become a layer.
    fn add_written(
        &self,
        input: &mut Cut,
        expected: Option<&DiffId>,
        written: impl FnOnce() -> std::thread::Result<Result<(), Cause>>,
    ) -> Result<LayerInfo, Error> {
        let _lock = self.lock_shared()?;
        let item = "layer";
        let staged = Staged::new(&self.staging())?;
        let unpacked = self.unpack(&mut *input, &staged, item);
        if unpacked.is_err() {
            // The writer must not wait for a reader that has given up.
            input.close();
        }
        match written() {
            Ok(Ok(())) => {}
            Ok(Err(source)) => {
                // A writer that was cut off by our own failure says only that; the failure says why.
                unpacked?;
                return Err(Error::Layer {
                    item: item.to_owned(),
                    source,
                });
            }
            Err(_) => {
                return Err(Error::Layer {
                    item: item.to_owned(),
                    source: "its writer panicked".into(),
                });
            }
        }
        let (extracted, digest) = unpacked?;
        self.place_layer(staged, &extracted, digest, expected, item)
    }

    fn stage_layer(
        &self,
        tar: impl Read,
        expected: Option<&DiffId>,
        item: &str,
    ) -> Result<LayerInfo, Error> {
        let staged = Staged::new(&self.staging())?;
        let (extracted, digest) = self.unpack(tar, &staged, item)?;
        self.place_layer(staged, &extracted, digest, expected, item)
    }

    fn unpack(
        &self,
        tar: impl Read,
        staged: &Staged,
        item: &str,
    ) -> Result<(Extracted, Digest), Error> {
        let tree = staged.path().join("tree");
        staging::make_directory(&tree)?;
        // The root of a layer that says nothing about it is everybody's to read, as docker's is.
        fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .at("chmod", &tree)?;
        let directory = File::open(&tree).at("open", &tree)?;
        let path = staged.path().join("headers");
        let headers = File::create(&path).at("create", &path)?;
        let mut headers = zstd::stream::write::Encoder::new(BufWriter::new(headers), HEADERS_LEVEL)
            .at("write", &path)?;
        let options = ExtractOptions::new(self.options.space, self.options.ownership);
        let (extracted, digest) = hashed(tar, |tar| {
            extract(tar, directory.as_fd(), &options, &mut headers)
        });
        let extracted = extracted.map_err(|error| Error::Layer {
            item: item.to_owned(),
            source: error.into(),
        })?;
        headers
            .finish()
            .and_then(|mut out| out.flush())
            .at("write", &path)?;
        Ok((extracted, digest))
    }

    fn place_layer(
        &self,
        staged: Staged,
        extracted: &Extracted,
        digest: Digest,
        expected: Option<&DiffId>,
        item: &str,
    ) -> Result<LayerInfo, Error> {
        let found = DiffId::from(digest);
        match expected {
            Some(&expected) if expected != found => {
                return Err(Error::DiffIdMismatch {
                    item: item.to_owned(),
                    expected,
                    found,
                });
            }
            // Nobody vouches for its length, so it must say itself where it ends. A stream of nothing is an empty layer.
            None if !extracted.end_marker && extracted.tar_bytes > 0 => {
                return Err(LoadError::Truncated {
                    item: item.to_owned(),
                }
                .into());
            }
            _ => {}
        }
        let info = LayerInfo {
            diff_id: found,
            size: extracted.bytes,
        };
        if self.has_layer(&found) {
            return Ok(info);
        }
        let meta = LayerMeta {
            size: extracted.bytes,
            tar_bytes: extracted.tar_bytes,
            entries: extracted.entries,
        };
        let path = staged.path().join("meta.json");
        fs::write(&path, serde_json::to_vec(&meta).unwrap_or_default()).at("write", &path)?;
        staged.place(&self.layer_home(&found))?;
        Ok(info)
    }

    /// Writes the very bytes of a layer's tar, and checks them against its diff id.
    ///
    /// # Errors
    /// [`Error::LayerDamaged`] if they can no longer be made; the writer's error.
    pub fn write_layer_tar(&self, layer: &DiffId, out: impl Write) -> Result<(), Error> {
        if !self.has_layer(layer) {
            return Err(Error::NoSuchLayer(*layer));
        }
        let tree = self.layer_dir(layer);
        let directory = File::open(&tree).at("open", &tree)?;
        let path = self.layer_home(layer).join("headers");
        let headers = File::open(&path).at("open", &path)?;
        let headers = zstd::stream::read::Decoder::new(headers).at("read", &path)?;
        let mut out = Hashing::new(out);
        let damaged = |reason: String| Error::LayerDamaged {
            layer: *layer,
            reason,
        };
        replay(directory.as_fd(), headers, &mut out).map_err(|error| match error {
            mille_layer::replay::ReplayError::Write(source) => Error::Write {
                item: format!("layer {}", layer.short()),
                source,
            },
            other => damaged(with_causes(&other)),
        })?;
        let (digest, _) = out.finish();
        if DiffId::from(digest) == *layer {
            Ok(())
        } else {
            Err(damaged(format!("its content now has the digest {digest}")))
        }
    }

    /// Returns the layers that are here.
    pub(crate) fn all_layers(&self) -> Result<BTreeSet<DiffId>, Error> {
        hex_names(&self.layers(), |hex| DiffId::from_hex(hex).ok())
    }
}

/// The names of a directory that are ids.
pub(crate) fn hex_names<T: Ord>(
    directory: &Path,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<BTreeSet<T>, Error> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).at("read directory", directory)? {
        let name = entry.at("read directory", directory)?.file_name();
        found.extend(name.to_str().and_then(&parse));
    }
    Ok(found)
}

/// An error with its causes, as one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
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

/// The reading end of a pipe that can be closed before it is dropped.
struct Cut(Option<io::PipeReader>);

impl Cut {
    fn close(&mut self) {
        self.0 = None;
    }
}

impl Read for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(0), |reader| reader.read(buffer))
    }
}
