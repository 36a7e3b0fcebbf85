//! Ownership kept in an extended attribute, where the real one cannot be had.

use std::os::fd::BorrowedFd;

use mille_layer::marks::set_mark;
use mille_layer::{Mark, OverrideKind, OverrideStat};
use rustix::fs::FileType;

use crate::view::View;

/// Permission bits of the stored object: the server must be able to read and write it whatever the mode told is.
pub(crate) fn stored_mode(kind: FileType) -> u32 {
    if kind == FileType::Directory {
        0o700
    } else {
        0o600
    }
}

/// What an empty regular file stands for; `None` for what is stored as itself.
pub(crate) fn told_kind(kind: FileType, rdev: u64) -> Option<OverrideKind> {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    match kind {
        FileType::CharacterDevice => Some(OverrideKind::Char(major, minor)),
        FileType::BlockDevice => Some(OverrideKind::Block(major, minor)),
        FileType::Fifo => Some(OverrideKind::Fifo),
        FileType::Socket => Some(OverrideKind::Socket),
        _ => None,
    }
}

/// True for the device that is a whiteout where it is stored as itself.
pub(crate) fn is_null_device(kind: FileType, rdev: u64) -> bool {
    kind == FileType::CharacterDevice && rdev == 0
}

impl View {
    /// Marks an empty file as what it stands for.
    pub(crate) fn stand_for(
        &self,
        object: BorrowedFd<'_>,
        told: &OverrideStat,
    ) -> std::io::Result<()> {
        if self.dialects.null_devices && told.kind == Some(OverrideKind::Char(0, 0)) {
            return set_mark(object, None, self.space, Mark::NullDevice, b"");
        }
        told.set(object, None)
    }
}
