//! Shared mappings of files.
#![allow(unsafe_code, reason = "mapping a file is what is tested")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// A shared mapping of a whole file.
#[derive(Debug)]
pub(crate) struct Mapping {
    at: *mut u8,
    length: usize,
}

impl Mapping {
    pub(crate) fn new(file: &File, write: bool) -> Self {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        let protection = libc::PROT_READ | if write { libc::PROT_WRITE } else { 0 };
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping of an open file, at a place of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self {
            at: at.cast(),
            length,
        }
    }

    fn place(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.length);
        self.at.wrapping_add(offset)
    }

    pub(crate) fn byte(&self, offset: usize) -> u8 {
        // SAFETY: inside the mapping, which lives as long as `self`.
        unsafe { std::ptr::read_volatile(self.place(offset)) }
    }

    pub(crate) fn store(&self, offset: usize, byte: u8) {
        // SAFETY: inside the mapping, which the test has made writable and which lives as long as `self`.
        unsafe { std::ptr::write_volatile(self.place(offset), byte) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made by `new`.
        unsafe { libc::munmap(self.at.cast(), self.length) };
    }
}
