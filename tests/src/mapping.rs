//! Shared memory mappings, for tests that read and write through them.
#![allow(
    unsafe_code,
    reason = "a mapping is raw memory; nothing safer maps a file here"
)]

use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};

/// A shared mapping of a file's first byte, and with it of its first page.
#[derive(Debug)]
pub struct Mapping {
    at: NonNull<u8>,
}

const LENGTH: NonZeroUsize = NonZeroUsize::MIN;

impl Mapping {
    /// Maps a file that is not empty, to be written if `write`.
    pub fn new(file: &File, write: bool) -> Result<Self, Errno> {
        let mut protection = ProtFlags::PROT_READ;
        protection.set(ProtFlags::PROT_WRITE, write);
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases no Rust object.
        let at = unsafe { mmap(None, LENGTH, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Mapping { at: at.cast() })
    }

    /// The first byte as it is now. The file must not have become empty.
    pub fn byte(&self) -> u8 {
        // SAFETY: the mapping holds the file's first page as long as `self` lives.
        unsafe { self.at.read_volatile() }
    }

    /// Changes the first byte, and waits until the file has it.
    pub fn store(&self, byte: u8) -> Result<(), Errno> {
        // SAFETY: as above, and the mapping was made to be written.
        unsafe { self.at.write_volatile(byte) };
        // SAFETY: the range is the mapping.
        unsafe { msync(self.at.cast(), LENGTH.get(), MsFlags::MS_SYNC) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping any more.
        unsafe { munmap(self.at.cast(), LENGTH.get()) }.ok();
    }
}

/// Writes one byte at the start of `file` through a shared mapping, and syncs it.
pub fn write_first(file: &File, fill: u8) -> Result<(), Errno> {
    Mapping::new(file, true)?.store(fill)
}
