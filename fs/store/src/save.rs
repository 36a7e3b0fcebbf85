//! `save`: one archive that is both a docker archive and an OCI image layout.
//!
//! Layers are uncompressed tars named by their diff ids, made again from the store while they are written, and checked.
//! The same images give the same bytes: no time and no owner of this machine is in it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::digest::{DiffId, Digest, ImageId};
use crate::error::Error;
use crate::image::Image;
use crate::progress::{Phase, STRIDE, Step};
use crate::reference::Reference;
use crate::store::Store;
use crate::types::SaveItem;

/// A tar is padded to whole blocks of so many bytes.
const BLOCK_BYTES: u64 = 512;

impl Store {
    /// Turns what `save` was given on the command line into items: a bare repository means all its tags, an id means
    /// the image without a name.
    ///
    /// # Errors
    /// Something names no image.
    pub fn save_items(&self, names: &[&str]) -> Result<Vec<SaveItem>, Error> {
        let mut items: Vec<SaveItem> = Vec::new();
        for text in names {
            let found = match Reference::parse(text) {
                Ok(name) if name.is_name_only() => self.all_tags(&name)?,
                _ => Vec::new(),
            };
            let found = if found.is_empty() {
                let (id, reference) = self.resolve_kind(text)?;
                vec![SaveItem { id, reference }]
            } else {
                found
            };
            items.extend(
                found
                    .into_iter()
                    .filter(|item| !items.contains(item))
                    .collect::<Vec<_>>(),
            );
        }
        Ok(items)
    }

    fn all_tags(&self, name: &Reference) -> Result<Vec<SaveItem>, Error> {
        let names = self.all_names()?.into_iter();
        let own = names.filter(|other| {
            other.reference.repository() == name.repository() && other.reference.tag().is_some()
        });
        Ok(own
            .map(|name| SaveItem {
                id: name.image,
                reference: Some(name.reference),
            })
            .collect())
    }

    /// Writes an archive of images. Holds the shared lock.
    ///
    /// # Errors
    /// A damaged layer; the writer's error. The archive is then incomplete.
    pub fn save(&self, items: &[SaveItem], out: &mut dyn Write) -> Result<(), Error> {
        let _lock = self.lock_shared()?;
        let mut images: BTreeMap<ImageId, Image> = BTreeMap::new();
        let mut order = Vec::new();
        for item in items {
            if let Entry::Vacant(place) = images.entry(item.id) {
                place.insert(self.image(&item.id)?);
                order.push(item.id);
            }
        }
        let mut archive = Archive {
            store: self,
            tar: tar::Builder::new(out),
            manifests: Vec::new(),
            docker: Vec::new(),
            repositories: BTreeMap::new(),
        };
        archive.directory("blobs")?;
        archive.directory("blobs/sha256")?;
        let mut written = BTreeSet::new();
        for id in &order {
            if let Some(image) = images.get(id) {
                let parent = self.nearest_parent(image, &images)?;
                let names: Vec<_> = items
                    .iter()
                    .filter(|item| item.id == *id)
                    // A digest was that of another manifest than the one that is written here.
                    .filter_map(|item| item.reference.as_ref()?.only_tag())
                    .collect();
                archive.image(image, &names, parent, &mut written)?;
            }
        }
        archive.finish()
    }

    /// The nearest ancestor that is in the same archive.
    fn nearest_parent(
        &self,
        image: &Image,
        images: &BTreeMap<ImageId, Image>,
    ) -> Result<Option<ImageId>, Error> {
        let mut seen = BTreeSet::from([image.id]);
        let mut parent = image.parent;
        while let Some(id) = parent.filter(|id| seen.insert(*id)) {
            if images.contains_key(&id) {
                return Ok(Some(id));
            }
            parent = self.image(&id)?.parent;
        }
        Ok(None)
    }
}

struct Archive<'a> {
    store: &'a Store,
    tar: tar::Builder<&'a mut dyn Write>,
    manifests: Vec<Value>,
    docker: Vec<Value>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl Archive<'_> {
    fn image(
        &mut self,
        image: &Image,
        names: &[Reference],
        parent: Option<ImageId>,
        written: &mut BTreeSet<Digest>,
    ) -> Result<(), Error> {
        let mut layers = Vec::new();
        for layer in &image.layers {
            let size = self.store.layer_meta(layer)?.tar_bytes;
            layers.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer.to_string(), "size": size,
            }));
            if written.insert(layer.digest()) {
                self.layer(layer, size)?;
            }
        }
        self.blob(&image.raw, written)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": image.id.to_string(),
                "size": image.raw.len(),
            },
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = self.blob(&manifest, written)?;
        self.list(image, names, &digest, manifest.len());
        if let (Some(parent), Some(Value::Object(item))) = (parent, self.docker.last_mut()) {
            item.insert("Parent".to_owned(), json!(parent.to_string()));
        }
        Ok(())
    }

    /// Enters the image into the lists that stand at the end of the archive.
    fn list(&mut self, image: &Image, names: &[Reference], manifest: &Digest, size: usize) {
        let descriptor = |annotations: Option<Value>| {
            let mut descriptor = json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.to_string(), "size": size,
            });
            if let Some(annotations) = annotations {
                descriptor["annotations"] = annotations;
            }
            descriptor
        };
        for name in names {
            let tag = name.tag().unwrap_or("latest");
            self.manifests.push(descriptor(Some(json!({
                "io.containerd.image.name": name.to_string(), "org.opencontainers.image.ref.name": tag,
            }))));
            if let (Some(tag), Some(top)) = (name.tag(), image.layers.last()) {
                let tags = self.repositories.entry(name.familiar_name()).or_default();
                tags.insert(tag.to_owned(), top.hex());
            }
        }
        if names.is_empty() {
            self.manifests.push(descriptor(None));
        }
        let tags: Vec<_> = names.iter().map(Reference::familiar).collect();
        self.docker.push(json!({
            "Config": format!("blobs/sha256/{}", image.id.hex()),
            "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
            "Layers": image.layers.iter().map(|layer| format!("blobs/sha256/{}", layer.hex())).collect::<Vec<_>>(),
        }));
    }

    fn finish(mut self) -> Result<(), Error> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": std::mem::take(&mut self.manifests),
        });
        let docker = Value::Array(std::mem::take(&mut self.docker));
        self.file("index.json", index.to_string().as_bytes())?;
        self.file("manifest.json", docker.to_string().as_bytes())?;
        self.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if !self.repositories.is_empty() {
            let repositories = json!(self.repositories).to_string();
            self.file("repositories", repositories.as_bytes())?;
        }
        let out = self
            .tar
            .into_inner()
            .map_err(|source| failed("archive", source))?;
        out.flush().map_err(|source| failed("archive", source))
    }

    fn blob(&mut self, bytes: &[u8], written: &mut BTreeSet<Digest>) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if written.insert(digest) {
            self.file(&format!("blobs/sha256/{}", digest.hex()), bytes)?;
        }
        Ok(digest)
    }

    fn layer(&mut self, layer: &DiffId, size: u64) -> Result<(), Error> {
        let path = format!("blobs/sha256/{}", layer.hex());
        let item = layer.short();
        self.header(&path, tar::EntryType::Regular, size)?;
        let progress = Arc::clone(&self.store.progress);
        let report = move |done| {
            progress.step(Step {
                phase: Phase::Write,
                item: &item,
                done,
                total: Some(size),
            });
        };
        report(0);
        let mut out = Exactly {
            out: self.tar.get_mut(),
            size,
            left: size,
            reported: 0,
            report: &report,
        };
        self.store.write_layer_tar(layer, &mut out)?;
        let left = out.left;
        if left > 0 {
            return Err(Error::LayerDamaged {
                layer: *layer,
                reason: format!("its tar is {left} bytes short"),
            });
        }
        report(size);
        self.pad(&path, size)
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.header(path, tar::EntryType::Regular, bytes.len() as u64)?;
        self.tar
            .get_mut()
            .write_all(bytes)
            .map_err(|source| failed(path, source))?;
        self.pad(path, bytes.len() as u64)
    }

    fn directory(&mut self, path: &str) -> Result<(), Error> {
        self.header(&format!("{path}/"), tar::EntryType::Directory, 0)
    }

    fn header(&mut self, path: &str, kind: tar::EntryType, size: u64) -> Result<(), Error> {
        let mut header = tar::Header::new_ustar();
        header
            .set_path(path)
            .map_err(|source| failed(path, source))?;
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.tar
            .get_mut()
            .write_all(header.as_bytes())
            .map_err(|source| failed(path, source))
    }

    fn pad(&mut self, path: &str, size: u64) -> Result<(), Error> {
        let padding = (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
        let zeros = vec![0; usize::try_from(padding).unwrap_or(0)];
        self.tar
            .get_mut()
            .write_all(&zeros)
            .map_err(|source| failed(path, source))
    }
}

fn failed(item: &str, source: io::Error) -> Error {
    Error::Write {
        item: item.to_owned(),
        source,
    }
}

/// A writer that takes no more than the header has promised, and reports how far it is.
struct Exactly<'a> {
    out: &'a mut dyn Write,
    size: u64,
    left: u64,
    reported: u64,
    report: &'a dyn Fn(u64),
}

impl Write for Exactly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("the layer's tar is longer than recorded"));
        }
        let count = self.out.write(bytes)?;
        self.left -= count as u64;
        let done = self.size - self.left;
        if done - self.reported >= STRIDE {
            self.reported = done;
            (self.report)(done);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
