//! Ownership kept in an extended attribute, where the real one cannot be had.

use mille_layer::OverrideKind;
use rustix::fs::FileType;

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
