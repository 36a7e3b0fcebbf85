//! The members of an archive, found by the names that other members give: never outside of it.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::de::DeserializeOwned;

use super::spool::Spool;
use crate::digest::{DiffId, Digest, Hashing};
use crate::error::{At, Error, LoadError};
use crate::progress::{Counted, Phase};
use crate::store::Store;
use crate::unpack::Pending;

/// Longest member that is no layer, in bytes: manifests and configurations are kilobytes.
pub(super) const SMALL_BYTES: u64 = 16 << 20;

/// A member, and what a descriptor promises of it.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) member: String,
    pub(super) digest: Option<Digest>,
    pub(super) size: Option<u64>,
}

/// An archive.
#[derive(Debug)]
pub(super) enum Members {
    /// That lies unpacked.
    Directory(Directory),
    /// That came as a stream.
    Spool(Spool),
}

impl Members {
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Members::Directory(directory) => directory.open_file(name, "").is_ok(),
            Members::Spool(spool) => spool.has(name),
        }
    }

    /// Reads a whole member of bounded size, and checks what is promised of it.
    pub(super) fn small(&mut self, blob: &Blob, by: &str) -> Result<Vec<u8>, Error> {
        let bytes = match self {
            Members::Directory(directory) => directory.small(&blob.member, by)?,
            Members::Spool(spool) => spool.small(&blob.member, by)?,
        };
        check_size(blob, bytes.len() as u64)?;
        check_digest(blob, Digest::of(&bytes))?;
        Ok(bytes)
    }

    /// Reads a JSON member.
    pub(super) fn json<T: DeserializeOwned>(&mut self, blob: &Blob, by: &str) -> Result<T, Error> {
        let bytes = self.small(blob, by)?;
        let parsed = serde_json::from_slice(&bytes);
        parsed.map_err(|source| {
            LoadError::Json {
                member: blob.member.clone(),
                source,
            }
            .into()
        })
    }

    /// Unpacks a layer (its name for errors, and its diff id), and checks what is promised of it.
    pub(super) fn layer(
        &mut self,
        store: &Store,
        blob: &Blob,
        layer: (&str, &DiffId),
        by: &str,
    ) -> Result<Pending, Error> {
        match self {
            Members::Directory(directory) => directory.layer(store, blob, layer, by),
            Members::Spool(spool) => spool.layer(store, blob, layer, by),
        }
    }
}

impl Members {
    /// Checks what is promised of a layer that is in the store already, as far as that needs no unpacking.
    pub(super) fn check_layer(
        &mut self,
        blob: &Blob,
        layer: (&str, &DiffId),
        by: &str,
    ) -> Result<(), Error> {
        match self {
            Members::Directory(directory) => directory.check_layer(blob, by).map(|_| ()),
            Members::Spool(spool) => spool.check_layer(blob, layer, by),
        }
    }
}

impl Blob {
    /// A member of which nothing is promised.
    pub(super) fn named(member: &str) -> Self {
        Blob {
            member: member.to_owned(),
            digest: None,
            size: None,
        }
    }
}

pub(super) fn check_size(blob: &Blob, found: u64) -> Result<(), LoadError> {
    match blob.size {
        Some(expected) if expected != found => Err(LoadError::Size {
            member: blob.member.clone(),
            expected,
            found,
        }),
        _ => Ok(()),
    }
}

pub(super) fn check_digest(blob: &Blob, found: Digest) -> Result<(), LoadError> {
    match blob.digest {
        Some(expected) if expected != found => Err(LoadError::Digest {
            member: blob.member.clone(),
            expected,
            found,
        }),
        _ => Ok(()),
    }
}

/// An archive that lies unpacked, or an OCI layout.
#[derive(Debug)]
pub(super) struct Directory {
    root: OwnedFd,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Directory {
            root: rustix::fs::open(path, flags, Mode::empty()).at("open", path)?,
        })
    }

    /// Opens a regular file and returns its size. Links in the archive are followed inside it (skopeo writes them).
    fn open_file(&self, name: &str, by: &str) -> Result<(File, u64), Error> {
        let escape = || LoadError::Escape {
            member: name.to_owned(),
            by: by.to_owned(),
        };
        if name.is_empty() || name.starts_with('/') || name.split('/').any(|part| part == "..") {
            return Err(escape().into());
        }
        // NONBLOCK: a fifo is refused below instead of waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        let opened = rustix::fs::openat2(&self.root, name, flags, Mode::empty(), resolve);
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                return Err(LoadError::Missing {
                    member: name.to_owned(),
                    by: by.to_owned(),
                }
                .into());
            }
            Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => return Err(escape().into()),
            Err(errno) => return Err(errno).at("open", name),
        };
        let meta = file.metadata().at("stat", name)?;
        if !meta.is_file() {
            let reason = "not a regular file".to_owned();
            return Err(LoadError::Member {
                member: name.to_owned(),
                reason,
            }
            .into());
        }
        Ok((file, meta.len()))
    }

    fn small(&self, name: &str, by: &str) -> Result<Vec<u8>, Error> {
        let (file, size) = self.open_file(name, by)?;
        if size > SMALL_BYTES {
            let limit = format!("{SMALL_BYTES} bytes");
            return Err(LoadError::Limit {
                member: name.to_owned(),
                limit,
            }
            .into());
        }
        let mut bytes = Vec::new();
        file.take(SMALL_BYTES)
            .read_to_end(&mut bytes)
            .at("read", name)?;
        Ok(bytes)
    }

    /// Opens a layer whose bytes are those that are promised.
    fn check_layer(&self, blob: &Blob, by: &str) -> Result<(File, u64), Error> {
        let name = &blob.member;
        let (mut file, size) = self.open_file(name, by)?;
        check_size(blob, size)?;
        if blob.digest.is_some() {
            let mut hashing = Hashing::new(io::sink());
            io::copy(&mut file, &mut hashing).at("read", name)?;
            check_digest(blob, hashing.finish().0)?;
            file.rewind().at("rewind", name)?;
        }
        Ok((file, size))
    }

    fn layer(
        &self,
        store: &Store,
        blob: &Blob,
        (item, expected): (&str, &DiffId),
        by: &str,
    ) -> Result<Pending, Error> {
        let name = &blob.member;
        let (file, size) = if blob.digest == Some(expected.digest()) {
            // An uncompressed blob's digest is its diff id, which is checked below.
            let (file, size) = self.open_file(name, by)?;
            check_size(blob, size)?;
            (file, size)
        } else {
            self.check_layer(blob, by)?
        };
        let content = Counted::new(file, &*store.progress, Phase::Extract, name, Some(size));
        let pending = store.unpack(content, name)?;
        pending.check(Some(expected), item)?;
        Ok(pending)
    }
}
