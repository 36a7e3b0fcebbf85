//! Copying a file's bytes.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Most bytes of one copy call, so that a killed server ends soon.
const STEP: usize = 64 << 20;

/// Buffer of the last resort.
const BUFFER: usize = 256 * 1024;

/// Copies the first `length` bytes of one file into another that is empty. Shares the blocks where the file system can;
/// holes stay holes.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: u64) -> Result<(), Errno> {
    if length == 0 {
        return Ok(());
    }
    if share(from, to) {
        // The whole file was shared; it may be longer than what is wanted.
        return rustix::fs::ftruncate(to, length);
    }
    let mut offset = 0;
    while let Some((start, end)) = next_data(from, offset, length)? {
        copy_range(from, to, start, end)?;
        offset = end;
    }
    rustix::fs::ftruncate(to, length)
}

/// Shares all blocks of one file with another that is empty; false if the file system cannot.
pub(super) fn share(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

/// The next piece of data between two offsets, from its start to its end.
pub(super) fn next_data(
    file: BorrowedFd<'_>,
    offset: u64,
    length: u64,
) -> Result<Option<(u64, u64)>, Errno> {
    if offset >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) if start < length => start,
        // A hole up to the end.
        Ok(_) | Err(Errno::NXIO) => return Ok(None),
        // No knowledge of holes: all is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => offset,
        Err(errno) => return Err(errno),
    };
    let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
        Ok(end) if end > start => end.min(length),
        Ok(_) | Err(_) => length,
    };
    Ok(Some((start, end)))
}

/// Copies the bytes between two offsets to the same place.
pub(super) fn copy_range(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    end: u64,
) -> Result<(), Errno> {
    let mut at = start;
    let mut by_kernel = true;
    while by_kernel && at < end {
        let step = usize::try_from(end - at).unwrap_or(STEP).min(STEP);
        let (mut source, mut target) = (at, at);
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), step) {
            // The file has become shorter, or the file system pretends: the plain way finds out.
            Ok(0) => by_kernel = false,
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                by_kernel = false;
            }
            Err(errno) => return Err(errno),
        }
    }
    if at < end {
        copy_by_hand(from.as_fd(), to.as_fd(), at, end)?;
    }
    Ok(())
}

fn copy_by_hand(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    start: u64,
    end: u64,
) -> Result<(), Errno> {
    let mut buffer = vec![0u8; BUFFER];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        let got = match rustix::io::pread(from, &mut buffer[..want], at) {
            Ok(0) => return Ok(()),
            Ok(got) => got,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut done = 0;
        while done < got {
            match rustix::io::pwrite(to, &buffer[done..got], at + done as u64) {
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        at += got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom as StdSeek, Write};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn holes_stay_and_bytes_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("from");
        let mut from = std::fs::File::create_new(&path).unwrap();
        from.write_all(b"head").unwrap();
        from.seek(StdSeek::Start(3 << 20)).unwrap();
        from.write_all(b"middle").unwrap();
        from.set_len(8 << 20).unwrap();
        let from = std::fs::File::open(&path).unwrap();
        let to = tempfile::tempfile_in(dir.path()).unwrap();
        copy(from.as_fd(), to.as_fd(), 8 << 20).unwrap();
        let (a, b) = (from.metadata().unwrap(), to.metadata().unwrap());
        assert_eq!(a.len(), b.len());
        assert!(
            b.blocks() <= a.blocks() + 16,
            "{} blocks of {}",
            b.blocks(),
            a.blocks()
        );
        let mut bytes = vec![0; 6];
        std::os::unix::fs::FileExt::read_exact_at(&to, &mut bytes, 3 << 20).unwrap();
        assert_eq!(bytes, b"middle");
    }

    #[test]
    fn a_cut_copy_ends_where_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("from");
        std::fs::write(&path, vec![7u8; 100_000]).unwrap();
        let from = std::fs::File::open(&path).unwrap();
        let to = tempfile::tempfile_in(dir.path()).unwrap();
        copy(from.as_fd(), to.as_fd(), 70_001).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 70_001);
        let copied = std::fs::read(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&to)
        ));
        assert_eq!(copied.unwrap(), vec![7u8; 70_001]);
    }
}
