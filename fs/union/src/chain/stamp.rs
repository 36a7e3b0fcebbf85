//! What an index is made of. If any of it changes, the index is made anew.

use std::path::Path;
use std::sync::Arc;

use mille_layer::{Dialects, MarkSpace, Ownership};
use rustix::fs::{AtFlags, CWD, FileType, Stat};
use rustix::io::Errno;

use super::Chain;
use crate::error::{Context, Error, Result};
use crate::layers::dialects;

/// How a chain is read, who reads it, and which directories it is at present.
pub(super) struct Stamp {
    pub(super) bytes: Vec<u8>,
    pub(super) dialects: Dialects,
    /// `stat` of each layer's root.
    pub(super) roots: Arc<[Stat]>,
}

impl Stamp {
    /// Looks at every layer's root: a directory that was extracted again is another one, with other inode numbers in it.
    ///
    /// # Errors
    /// A layer is missing; `EXDEV` if they are on more than one device, of which an index cannot tell.
    pub(super) fn of(chain: &Chain<'_>) -> Result<Self> {
        let dialects = dialects(chain.space, chain.ownership);
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&reading(&dialects));
        // Owners are told as the reader's user namespace knows them.
        for map in ["uid_map", "gid_map"] {
            let path = Path::new("/proc/self").join(map);
            let text = std::fs::read(&path).on("read", &path)?;
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&text);
        }
        let mut roots: Vec<Stat> = Vec::with_capacity(chain.layers.len());
        for layer in chain.layers {
            let stat = rustix::fs::statat(CWD, layer, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.on("stat", layer)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Err(Error::refused("index layer", Errno::NOTDIR));
            }
            if roots
                .first()
                .is_some_and(|first| first.st_dev != stat.st_dev)
            {
                return Err(Error::refused("index layers of two devices", Errno::XDEV));
            }
            bytes.extend_from_slice(&stat.st_ino.to_le_bytes());
            bytes.extend_from_slice(&stat.st_ctime.to_le_bytes());
            bytes.extend_from_slice(&stat.st_ctime_nsec.to_le_bytes());
            roots.push(stat);
        }
        Ok(Self {
            bytes,
            dialects,
            roots: roots.into(),
        })
    }
}

fn reading(dialects: &Dialects) -> [u8; 5] {
    [
        u8::from(dialects.space == MarkSpace::Trusted),
        u8::from(dialects.ownership == Ownership::Override),
        u8::from(dialects.aufs),
        u8::from(dialects.overrides),
        u8::from(dialects.null_devices),
    ]
}
