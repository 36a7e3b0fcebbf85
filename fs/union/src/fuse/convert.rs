//! Between our words and the FUSE library's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, INodeNo, TimeOrNow};
use rustix::fs::FileType;

use crate::attr::{Attr, Time};
use crate::error::Error;
use crate::node::NodeId;

/// The number a request is about.
pub(crate) fn node_id(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

/// What the caller is told.
pub(crate) fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}

/// Kind of object in the library's words.
pub(crate) fn kind(kind: FileType) -> fuser::FileType {
    match kind {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharacterDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        _ => fuser::FileType::RegularFile,
    }
}

/// Attributes under a number of the caller's choice.
pub(crate) fn attr(attr: &Attr, ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind),
        perm: u16::try_from(attr.mode & 0o7777).unwrap_or(0),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: encode_device(attr.rdev),
        blksize: attr.blksize,
        flags: 0,
    }
}

/// The answer "there is no such name", which the kernel remembers.
pub(crate) fn negative() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn system_time(time: Time) -> SystemTime {
    let part = Duration::from_nanos(u64::from(time.nsec));
    let whole = Duration::from_secs(time.sec.unsigned_abs());
    let seconds = if time.sec >= 0 {
        UNIX_EPOCH.checked_add(whole)
    } else {
        UNIX_EPOCH.checked_sub(whole)
    };
    seconds
        .and_then(|seconds| seconds.checked_add(part))
        .unwrap_or(UNIX_EPOCH)
}

/// A time of a request: `None` stands for "now".
///
/// The library reads a time before 1970 with its nanoseconds subtracted instead of added; the inverse is taken here, so
/// that the time arrives as it was sent.
pub(crate) fn requested_time(time: TimeOrNow) -> Option<Time> {
    let TimeOrNow::SpecificTime(time) = time else {
        return None;
    };
    Some(match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time {
            sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nsec: since.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Time {
                sec: -i64::try_from(before.as_secs()).unwrap_or(i64::MAX),
                nsec: before.subsec_nanos(),
            }
        }
    })
}

/// A device number as FUSE sends it: 12 bits of major, 20 of minor, the low 8 of the minor at the bottom.
fn encode_device(rdev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The inverse of [`encode_device`].
pub(crate) fn decode_device(rdev: u32) -> u64 {
    let major = (rdev & 0xf_ff00) >> 8;
    let minor = (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00);
    rustix::fs::makedev(major, minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_survive_the_way_there_and_back() {
        for (major, minor) in [(1, 3), (8, 17), (259, 4097), (4095, 0xf_ffff)] {
            let rdev = rustix::fs::makedev(major, minor);
            assert_eq!(decode_device(encode_device(rdev)), rdev);
        }
    }

    #[test]
    fn times_before_1970() {
        let time = Time {
            sec: -2,
            nsec: 750_000_000,
        };
        let made = system_time(time);
        assert_eq!(
            UNIX_EPOCH.duration_since(made).unwrap(),
            Duration::from_millis(1250)
        );
        // As the library makes it of (-2 s, 750 000 000 ns).
        let read = UNIX_EPOCH - Duration::new(2, 750_000_000);
        assert_eq!(requested_time(TimeOrNow::SpecificTime(read)), Some(time));
    }
}
