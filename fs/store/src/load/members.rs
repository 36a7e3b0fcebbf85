//! The members of an archive, opened by the names that other members give: never outside of it.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::de::DeserializeOwned;

use crate::error::{At, Error, LoadError};

/// Longest JSON member, in bytes: manifests and configurations are kilobytes.
const SMALL_BYTES: u64 = 16 << 20;

/// An open archive.
#[derive(Debug)]
pub(super) struct Members {
    root: OwnedFd,
}

impl Members {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Members {
            root: rustix::fs::open(path, flags, Mode::empty()).at("open", path)?,
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.open_file(name, "").is_ok()
    }

    /// Opens a regular file and returns its size. Links in the archive are followed inside it (skopeo writes them).
    pub(super) fn open_file(&self, name: &str, by: &str) -> Result<(File, u64), Error> {
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

    /// Reads a whole member of bounded size.
    pub(super) fn read_small(&self, name: &str, by: &str) -> Result<Vec<u8>, Error> {
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

    /// Reads a JSON member.
    pub(super) fn json<T: DeserializeOwned>(&self, name: &str, by: &str) -> Result<T, Error> {
        let bytes = self.read_small(name, by)?;
        let parsed = serde_json::from_slice(&bytes);
        parsed.map_err(|source| {
            LoadError::Json {
                member: name.to_owned(),
                source,
            }
            .into()
        })
    }
}
