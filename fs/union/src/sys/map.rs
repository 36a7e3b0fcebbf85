//! Files mapped for reading.
#![allow(unsafe_code, reason = "a mapping is memory that the kernel fills")]

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use rustix::io::Errno;

/// A private, read-only mapping of a whole file, which must not be changed or made shorter while it is mapped: files are
/// mapped only that are replaced by renaming another one over them. Taking its name away does no harm.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

// SAFETY: the memory is only read, and belongs to this value alone until it is unmapped by its end.
unsafe impl Send for Map {}
// SAFETY: as above; reading from several threads is no race.
unsafe impl Sync for Map {}

impl Map {
    /// Maps a file as long as it is now.
    ///
    /// # Errors
    /// `ENODATA` for an empty file, what the kernel refuses the mapping with.
    pub(crate) fn open(file: &File) -> Result<Self, Errno> {
        let length = rustix::fs::fstat(file)?.st_size;
        let length = usize::try_from(length).map_err(|_| Errno::FBIG)?;
        let length = NonZeroUsize::new(length).ok_or(Errno::NODATA)?;
        let flags = MapFlags::MAP_PRIVATE;
        // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
        let start = unsafe { mmap(None, length, ProtFlags::PROT_READ, flags, file.as_fd(), 0) };
        let start = start.map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        Ok(Self {
            start: start.cast(),
            length,
        })
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the mapping is this long, readable, and lives as long as `self`; nobody writes the file.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length.get()) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `open` with this length, and nobody borrows it any more.
        let unmapped = unsafe { munmap(self.start.cast(), self.length.get()) };
        if let Err(errno) = unmapped {
            log::error!("unmap an index: {errno}");
        }
    }
}
