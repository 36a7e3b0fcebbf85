//! `fsck`: everything the store has, checked against the digests it is kept under.

use std::fs;
use std::io;

use crate::config::ImageConfig;
use crate::digest::{Digest, ImageId};
use crate::error::{At, Error};
use crate::layers::with_causes;
use crate::progress::{Phase, Step};
use crate::store::Store;
use crate::types::{Finding, FsckReport, Severity};

impl Store {
    /// Checks every image and layer: configurations are hashed, the tars of layers are made again and hashed, names
    /// must name an image that is here. Holds the shared lock.
    ///
    /// # Errors
    /// The store's directories cannot be read; what is wrong inside them is in the report.
    pub fn fsck(&self) -> Result<FsckReport, Error> {
        let _lock = self.lock_shared()?;
        let mut report = FsckReport::default();
        for id in self.all_images()? {
            report.images += 1;
            if let Err(detail) = self.check_image(&id) {
                report.damage(id.to_string(), detail);
            }
        }
        self.check_layers(&mut report)?;
        match self.all_names() {
            Ok(names) => {
                for name in names
                    .iter()
                    .filter(|name| !self.image_home(&name.image).exists())
                {
                    let detail = format!(
                        "names {}, which is not here; rmi it or load the image again",
                        name.image
                    );
                    report.damage(name.reference.familiar(), detail);
                }
            }
            Err(error) => report.damage("names".to_owned(), error.to_string()),
        }
        for path in self.leftovers()? {
            let subject = path
                .strip_prefix(self.root())
                .unwrap_or(&path)
                .display()
                .to_string();
            report.leftover(
                subject,
                "of an operation that was killed, or that another process is at",
            );
        }
        Ok(report)
    }

    fn check_image(&self, id: &ImageId) -> Result<(), String> {
        let path = self.image_home(id).join("config.json");
        let raw = fs::read(&path)
            .at("read", &path)
            .map_err(|error| error.to_string())?;
        let found = Digest::of(&raw);
        if found != id.digest() {
            return Err(format!(
                "its configuration has the digest {found}; load the image again"
            ));
        }
        let config = ImageConfig::parse(&raw).map_err(|error| error.to_string())?;
        match config.layers().iter().find(|layer| !self.has_layer(layer)) {
            Some(missing) => Err(format!("layer {missing} is not here; load the image again")),
            None => Ok(()),
        }
    }

    fn check_layers(&self, report: &mut FsckReport) -> Result<(), Error> {
        // Images that cannot be read are reported above; what they need is not known then.
        let needed = self.needed(std::iter::empty()).ok();
        for layer in self.all_layers()? {
            report.layers += 1;
            let item = layer.short();
            self.progress.step(Step {
                phase: Phase::Verify,
                item: &item,
                done: 0,
                total: None,
            });
            match self.layer_meta(&layer) {
                Ok(meta) => report.bytes += meta.tar_bytes,
                Err(error) => report.damage(layer.to_string(), error.to_string()),
            }
            match self.write_layer_tar(&layer, io::sink()) {
                Ok(()) => {}
                Err(error) => report.damage(layer.to_string(), with_causes(&error)),
            }
            if needed
                .as_ref()
                .is_some_and(|needed| !needed.contains(&layer))
            {
                report.leftover(
                    layer.to_string(),
                    "no image uses this layer (a container may)",
                );
            }
        }
        Ok(())
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
