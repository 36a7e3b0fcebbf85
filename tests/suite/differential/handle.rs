//! Operations on what is open already.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};

use super::hand::{Answer, described, done, errno, listed, number, summary};
use super::op::Op;

/// The slot that an operation is on.
pub fn slot(operation: &Op) -> usize {
    match operation {
        Op::ReadHandle(slot)
        | Op::StatHandle(slot)
        | Op::WriteHandle { slot, .. }
        | Op::TruncateHandle { slot, .. }
        | Op::ChmodHandle { slot, .. }
        | Op::ChownHandle { slot, .. }
        | Op::XattrHandle { slot, .. }
        | Op::Seek { slot, .. }
        | Op::MapWrite { slot, .. }
        | Op::Sync(slot)
        | Op::ListHandle(slot)
        | Op::CreateBelow { slot, .. }
        | Op::UnlinkBelow { slot, .. } => *slot,
        other => unreachable!("not an operation on a handle: {other:?}"),
    }
}

/// Carries out an operation on an open file or directory.
pub fn apply(file: &mut File, operation: &Op) -> Answer {
    let meta = file.metadata().map_err(number)?;
    // A directory where a file is meant, and the reverse: what the kernel says to that is not ours.
    match operation {
        Op::ListHandle(_) if meta.is_dir() => return listed(&file),
        Op::CreateBelow { name, .. } if meta.is_dir() => {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::openat(&file, *name, flags, mode).map_err(errno)?;
        }
        Op::UnlinkBelow { name, .. } if meta.is_dir() => {
            rustix::fs::unlinkat(&file, *name, AtFlags::empty()).map_err(errno)?;
        }
        Op::StatHandle(_) => return Ok(described(&meta)),
        Op::Sync(_) => file.sync_all().map_err(number)?,
        Op::ChmodHandle { mode, .. } if meta.is_file() => {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode)).map_err(errno)?;
        }
        Op::ChownHandle { uid, .. } => {
            std::os::unix::fs::fchown(&file, Some(*uid), None).map_err(number)?;
        }
        Op::XattrHandle { value, .. } => {
            let flags = XattrFlags::empty();
            rustix::fs::fsetxattr(&file, "user.one", &[*value; 2], flags).map_err(errno)?;
        }
        Op::Seek { at, hole, .. } if meta.is_file() => return sought(file, *at, *hole),
        Op::ReadHandle(_) if meta.is_file() => {
            let mut content = Vec::new();
            file.seek(SeekFrom::Start(0)).map_err(number)?;
            file.read_to_end(&mut content).map_err(number)?;
            return Ok(summary(&content));
        }
        Op::WriteHandle { at, fill, .. } if meta.is_file() => {
            file.write_all_at(&[*fill; 100], *at).map_err(number)?;
        }
        Op::TruncateHandle { size, .. } if meta.is_file() => {
            file.set_len(*size).map_err(number)?;
        }
        Op::MapWrite { fill, .. } if meta.is_file() && meta.size() > 0 => {
            mille_tests::mapping::write_first(file, *fill).map_err(|error| error as i32)?;
        }
        _ => {}
    }
    done()
}

/// What [`sought`] answers where a hole or data was found that is one.
pub const RIGHT: &str = "right";

/// Looks for data or a hole. Where a file system keeps its holes is its own affair, so the answer tells only whether what
/// was passed over is as it must be.
fn sought(file: &mut File, at: u64, hole: bool) -> Answer {
    let what = if hole {
        rustix::fs::SeekFrom::Hole(at)
    } else {
        rustix::fs::SeekFrom::Data(at)
    };
    let found = rustix::fs::seek(&file, what);
    let mut content = Vec::new();
    file.seek(SeekFrom::Start(at)).map_err(number)?;
    file.read_to_end(&mut content).map_err(number)?;
    let size = at + content.len() as u64;
    let zeros = |end: u64| {
        let end = usize::try_from(end.saturating_sub(at)).unwrap();
        content.iter().take(end).all(|byte| *byte == 0)
    };
    let right = match found {
        Ok(found) if hole => found >= at && found <= size,
        Ok(found) => found >= at && zeros(found),
        // No data up to the end.
        Err(rustix::io::Errno::NXIO) if !content.is_empty() => !hole && zeros(size),
        Err(error) => return Err(errno(error)),
    };
    Ok(if right { RIGHT } else { "wrong" }.to_owned())
}
