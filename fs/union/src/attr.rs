//! Attributes of a node.

use rustix::fs::{FileType, Stat};

/// Seconds and nanoseconds since 1970, as `stat` gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Whole seconds, rounded down; negative before 1970.
    pub sec: i64,
    /// Nanoseconds after `sec`, below one thousand million.
    pub nsec: u32,
}

/// What `stat` shows of a node of the merged view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number: constant for the life of the view, also over copy-up.
    pub ino: u64,
    /// Kind of object.
    pub kind: FileType,
    /// Permission bits with set-id and sticky bits (07777).
    pub mode: u32,
    /// Number of names; 1 for a directory means "not counted".
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, in the kernel's `dev_t` encoding of `stat`.
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    /// Preferred block size in bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the attributes.
    pub ctime: Time,
}

impl Attr {
    /// The attributes of one layer's object, under the merged view's inode number.
    pub(crate) fn from_stat(stat: &Stat, ino: u64) -> Self {
        Self {
            ino,
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            blksize: u32::try_from(stat.st_blksize).unwrap_or(4096),
            atime: Time {
                sec: stat.st_atime,
                nsec: nanoseconds(stat.st_atime_nsec),
            },
            mtime: Time {
                sec: stat.st_mtime,
                nsec: nanoseconds(stat.st_mtime_nsec),
            },
            ctime: Time {
                sec: stat.st_ctime,
                nsec: nanoseconds(stat.st_ctime_nsec),
            },
        }
    }

    /// Of something that cannot be looked at.
    pub(crate) fn unknown(ino: u64) -> Self {
        Self {
            ino,
            kind: FileType::RegularFile,
            mode: 0,
            nlink: 0,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 0,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
        }
    }

    /// Type and permission bits together, as in `st_mode`.
    pub fn st_mode(&self) -> u32 {
        self.kind.as_raw_mode() | self.mode
    }

    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }
}

fn nanoseconds(raw: u64) -> u32 {
    u32::try_from(raw).unwrap_or(0)
}
