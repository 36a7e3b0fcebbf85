//! Shared memory mappings, for tests that write through them.
#![allow(
    unsafe_code,
    reason = "a mapping is raw memory; nothing safer maps a file here"
)]

use std::fs::File;
use std::num::NonZeroUsize;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};

/// Writes one byte at the start of `file` through a shared mapping, and syncs it.
pub fn write_first(file: &File, fill: u8) -> Result<(), Errno> {
    let length = NonZeroUsize::new(1).ok_or(Errno::EINVAL)?;
    // SAFETY: a fresh mapping at an address of the kernel's choice aliases no Rust object.
    let address = unsafe {
        mmap(
            None,
            length,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
            file,
            0,
        )
    }?;
    // SAFETY: the mapping holds the file's first page, and the caller's file is not empty.
    unsafe { address.cast::<u8>().write_volatile(fill) };
    // SAFETY: the range is the mapping just made.
    let synced = unsafe { msync(address, length.get(), MsFlags::MS_SYNC) };
    // SAFETY: nothing refers to the mapping any more.
    unsafe { munmap(address, length.get()) }?;
    synced
}
