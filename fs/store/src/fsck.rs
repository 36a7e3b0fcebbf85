//! `fsck`: everything the store has, checked against the digests it is kept under.

use std::fs;
use std::io;
use std::path::Path;

use mille_layer::index::{self, Rejected};

use crate::digest::{DiffId, ImageId};
use crate::discard::remove_tree;
use crate::error::{At, Error};
use crate::layers::with_causes;
use crate::progress::{Phase, Step};
use crate::store::Store;
use crate::types::{Finding, FsckReport, Severity};

/// What to do about a damaged image. Loading alone does not replace one whose configuration is whole.
const LOAD_AGAIN: &str = "remove the image and load it again";

impl Store {
    /// Checks every image and layer: configurations are hashed, the tars of layers are made again and hashed,
    /// their directories compared with what the tars unpack to, names must name an image that is here, and a layer that
    /// neither an image nor `pinned` needs is left over. A merged index that is damaged is removed: whoever mounts its
    /// layers next makes it anew. Holds the shared lock.
    ///
    /// # Errors
    /// The store's directories cannot be read; what is wrong inside them is in the report.
    pub fn fsck(&self, pinned: &[DiffId]) -> Result<FsckReport, Error> {
        let _lock = self.lock_shared()?;
        let mut report = FsckReport::default();
        self.check_images(&mut report)?;
        self.check_layers(pinned, &mut report)?;
        self.check_names(&mut report)?;
        self.check_indexes(&mut report)?;
        for (directory, is_id) in [
            (
                self.images_dir(),
                &(|name: &str| ImageId::from_hex(name).is_ok()) as &dyn Fn(&str) -> bool,
            ),
            (self.layers(), &|name| DiffId::from_hex(name).is_ok()),
        ] {
            self.check_strangers(&directory, is_id, &mut report)?;
        }
        for path in self.leftovers()? {
            let detail = "of an operation that was killed; the next command removes it";
            report.leftover(self.relative(&path), detail);
        }
        Ok(report)
    }

    fn check_images(&self, report: &mut FsckReport) -> Result<(), Error> {
        for id in self.all_images()? {
            report.images += 1;
            match self.read_config(&id) {
                Ok((raw, config)) => {
                    report.bytes += raw.len() as u64;
                    for missing in config
                        .layers()
                        .iter()
                        .filter(|layer| !self.has_layer(layer))
                    {
                        let detail = format!("layer {missing} is not here; load the image again");
                        report.damage(id.to_string(), detail);
                    }
                }
                Err(Error::NoSuchImage(_)) => {
                    let detail = format!("its config.json is missing; {LOAD_AGAIN}");
                    report.damage(id.to_string(), detail);
                }
                Err(error) => report.damage(id.to_string(), self.said(&error)),
            }
            if let Some(wrong) = self.damaged_meta(&id) {
                let detail = format!("its meta.json {wrong}; {LOAD_AGAIN}");
                report.damage(id.to_string(), detail);
            }
        }
        Ok(())
    }

    fn check_layers(&self, pinned: &[DiffId], report: &mut FsckReport) -> Result<(), Error> {
        // Images that cannot be read are reported above; what they need is not known then.
        let needed = self.needed(pinned.iter().copied()).ok();
        for layer in self.all_layers()? {
            report.layers += 1;
            let meta = match self.layer_meta(&layer) {
                Ok(meta) => meta,
                Err(Error::NoSuchLayer(_)) => {
                    let detail = "its meta.json is missing; load the images that use it again";
                    report.damage(layer.to_string(), detail.to_owned());
                    continue;
                }
                Err(error) => {
                    report.damage(layer.to_string(), self.said(&error));
                    continue;
                }
            };
            let item = layer.short();
            let step = |done| {
                self.progress.step(Step {
                    phase: Phase::Verify,
                    item: &item,
                    done,
                    total: Some(meta.tar_bytes),
                });
            };
            step(0);
            match self.check_layer(&layer) {
                Ok(()) => report.bytes += meta.tar_bytes,
                Err(error) => report.damage(layer.to_string(), with_causes(&error)),
            }
            step(meta.tar_bytes);
            if needed
                .as_ref()
                .is_some_and(|needed| !needed.contains(&layer))
            {
                report.leftover(layer.to_string(), "nothing uses this layer");
            }
        }
        Ok(())
    }

    fn check_names(&self, report: &mut FsckReport) -> Result<(), Error> {
        let (names, damage) = self.names_and_damage()?;
        for name in names {
            if !self.image_home(&name.image).exists() {
                let detail = format!(
                    "names {}, which is not here; rmi it or load the image again",
                    name.image
                );
                report.damage(name.reference.familiar(), detail);
            }
        }
        for error in damage {
            let (subject, reason) = match &error {
                Error::Damaged { path, reason } => (self.relative(path), reason.clone()),
                other => ("a name".to_owned(), with_causes(other)),
            };
            let detail = format!(
                "a name that cannot be read: {reason}; remove the file and tag the image again"
            );
            report.damage(subject, detail);
        }
        Ok(())
    }

    fn check_indexes(&self, report: &mut FsckReport) -> Result<(), Error> {
        for chain in self.all_indexes()? {
            let path = self.chain_index(&chain);
            let bytes = match fs::read(&path) {
                // A collection has just taken it away.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.at("read", &path)?,
            };
            report.bytes += bytes.len() as u64;
            match index::verify(&bytes) {
                // One of another version is no damage: it is replaced by the first to look at it.
                Ok(()) | Err(Rejected::Version(_)) => {}
                Err(wrong) => {
                    remove_tree(&path)?;
                    let detail = format!("{wrong}; removed, the next mount makes it anew");
                    report.damage(self.relative(&path), detail);
                }
            }
        }
        Ok(())
    }

    /// Things among ids that are none: nobody here made them, so nobody here removes them.
    fn check_strangers(
        &self,
        directory: &Path,
        is_id: &dyn Fn(&str) -> bool,
        report: &mut FsckReport,
    ) -> Result<(), Error> {
        for entry in fs::read_dir(directory).at("read directory", directory)? {
            let path = entry.at("read directory", directory)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if !name.is_some_and(is_id) {
                report.leftover(self.relative(&path), "not made by this program");
            }
        }
        Ok(())
    }

    /// An error in the words of this list.
    fn said(&self, error: &Error) -> String {
        match error {
            Error::Damaged { path, reason } => {
                format!("{} is damaged: {reason}", self.relative(path))
            }
            other => with_causes(other),
        }
    }

    fn relative(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.root()).unwrap_or(path);
        path.display().to_string()
    }
}

impl FsckReport {
    fn damage(&mut self, subject: String, detail: String) {
        self.findings.push(Finding {
            severity: Severity::Damage,
            subject,
            detail,
        });
    }

    fn leftover(&mut self, subject: String, detail: &str) {
        self.findings.push(Finding {
            severity: Severity::Leftover,
            subject,
            detail: detail.to_owned(),
        });
    }
}
