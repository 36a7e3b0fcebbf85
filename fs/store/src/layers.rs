//! Layers: from a tar to a directory under its diff id, and back to the very bytes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use mille_layer::replay::replay;
use serde::{Deserialize, Serialize};

use crate::digest::{DiffId, Hashing};
use crate::error::{At, Error};
use crate::progress::{Counted, Phase, Step};
use crate::store::Store;
use crate::types::LayerInfo;
use crate::unpack::Pending;

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
    /// With `expected`, another tar than that one's is refused. Hold the shared lock until an image refers to the layer:
    /// nobody knows of it before.
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
        let tar = Counted::new(tar, &*self.progress, Phase::Extract, &item, None);
        let pending = self.unpack(tar, &item)?;
        pending.check(expected, &item)?;
        let info = pending.info();
        self.place_layers(vec![pending])?;
        Ok(info)
    }

    /// Adds a layer from a tar that `write` writes. As with [`Store::add_layer`], hold the shared lock.
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
        let item = "layer";
        let counted = Counted::new(&mut *input, &*self.progress, Phase::Extract, item, None);
        let unpacked = self.unpack(counted, item);
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
        let pending = unpacked?;
        pending.check(expected, item)?;
        let info = pending.info();
        self.place_layers(vec![pending])?;
        Ok(info)
    }

    /// Gives unpacked layers their names, after one sync for all of them. Holds the shared lock.
    pub(crate) fn place_layers(&self, pending: Vec<Pending>) -> Result<(), Error> {
        let _lock = self.lock_shared()?;
        let new: Vec<_> = pending
            .into_iter()
            .filter(|layer| !self.has_layer(&layer.diff_id))
            .collect();
        let Some(first) = new.first() else {
            return Ok(());
        };
        self.progress.step(Step {
            phase: Phase::Sync,
            item: "layers",
            done: 0,
            total: None,
        });
        first.staged.sync()?;
        for layer in new {
            let home = self.layer_home(&layer.diff_id);
            if home.exists() && !self.has_layer(&layer.diff_id) {
                // Something took a part of it away from under us: what is left is of no use.
                self.take_away(&home)?.remove()?;
            }
            layer.staged.place(&home)?;
        }
        Ok(())
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
        let damaged = |reason: String| Error::LayerDamaged {
            layer: *layer,
            reason,
        };
        let directory = match File::open(&tree) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged(format!("{} is gone", tree.display())));
            }
            opened => opened.at("open", &tree)?,
        };
        let path = self.layer_home(layer).join("headers");
        let headers = File::open(&path).at("open", &path)?;
        let headers = zstd::stream::read::Decoder::new(headers).at("read", &path)?;
        let mut out = Hashing::new(out);
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
