//! One layer checked as a whole: its tar against its diff id, its directory against what unpacking that tar makes.

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::AsFd;

use mille_layer::Dialects;
use mille_layer::compare::{CompareError, compare};
use mille_layer::extract::{ExtractOptions, extract};

use crate::digest::DiffId;
use crate::error::{At, Error};
use crate::layers::with_causes;
use crate::staging::{self, Staged};
use crate::store::Store;

type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Store {
    /// Checks the bytes of a layer's tar, and everything in its directory. The tar is unpacked once more into the staging
    /// area for that, without the content of files; where there is no room for it, that half is left out, and told.
    ///
    /// # Errors
    /// [`Error::LayerDamaged`].
    pub(crate) fn check_layer(&self, layer: &DiffId) -> Result<(), Error> {
        let unpacked = self.stage().and_then(|staged| {
            let pipe = io::pipe().at("make a pipe", self.root())?;
            Ok((staged, pipe))
        });
        let (staged, (mut reader, writer)) = match unpacked {
            Ok(ready) => ready,
            Err(error) => {
                not_compared(layer, &error);
                return self.write_layer_tar(layer, io::sink());
            }
        };
        let (written, unpacked) = std::thread::scope(|scope| {
            let unpacking = scope.spawn(|| {
                let outcome = self.unpack_bare(&staged, &mut reader);
                // The digest is made of the whole tar, whatever becomes of this half.
                if outcome.is_err()
                    && let Err(error) = io::copy(&mut reader, &mut io::sink())
                {
                    log::debug!("rest of a tar: {error}");
                }
                outcome
            });
            let out = BufWriter::with_capacity(1 << 16, writer);
            let written = self.write_layer_tar(layer, out);
            let unpacked = unpacking.join();
            (
                written,
                unpacked.unwrap_or_else(|_| Err("it panicked".into())),
            )
        });
        written?;
        let outcome = match unpacked {
            Ok(fresh) => {
                let tree = self.layer_dir(layer);
                let tree = File::open(&tree).at("open", &tree)?;
                let dialects = Dialects::new(self.options.space, self.options.ownership);
                compare(tree.as_fd(), fresh.as_fd(), &dialects)
            }
            Err(error) => {
                not_compared(layer, &*error);
                return Ok(());
            }
        };
        let damaged = |reason: String| {
            Err(Error::LayerDamaged {
                layer: *layer,
                reason,
            })
        };
        match outcome {
            Ok(None) => Ok(()),
            Ok(Some(difference)) => damaged(format!("in its directory, {difference}")),
            Err(error @ CompareError::Tree(_)) => damaged(with_causes(&error)),
            Err(error) => {
                not_compared(layer, &error);
                Ok(())
            }
        }
    }

    /// Unpacks a tar without the content of files; returns the directory.
    fn unpack_bare(&self, staged: &Staged, tar: &mut impl io::Read) -> Result<File, Cause> {
        let tree = staged.path().join("tree");
        staging::make_directory(&tree)?;
        let directory = File::open(&tree)?;
        let mut options = ExtractOptions::new(self.options.space, self.options.ownership);
        options.content = false;
        extract(tar, directory.as_fd(), &options, io::sink())?;
        Ok(directory)
    }
}

/// That nothing could be compared says nothing about the layer.
fn not_compared(layer: &DiffId, error: &(dyn std::error::Error + 'static)) {
    let (layer, error) = (layer.short(), with_causes(error));
    log::warn!("layer {layer}: only its content is checked, its directory is not: {error}");
}
