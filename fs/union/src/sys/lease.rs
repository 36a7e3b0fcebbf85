//! Finding out whether anybody has a file open for writing.
#![allow(
    unsafe_code,
    reason = "F_SETLEASE and F_SETSIG have no wrapper in the libraries used"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

/// `F_SETSIG` of fcntl(2) (linux/fcntl.h).
const F_SETSIG: i32 = 10;

/// True if some process, or a mapping, has the file open for writing. The kernel grants a read lease only if nobody has;
/// it is asked for and given back at once. `None` if the file system knows no leases or we may not take one.
///
/// The descriptor must be open for reading only.
pub(crate) fn open_for_writing(file: BorrowedFd<'_>) -> Option<bool> {
    // Should somebody open the file in the moment that the lease is held, a signal is sent to us: make it one that does
    // nothing by default, instead of SIGIO, which kills.
    if set(file, F_SETSIG, libc::SIGURG).is_err() {
        return None;
    }
    match set(file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            if set(file, libc::F_SETLEASE, libc::F_UNLCK).is_err() {
                // Closing the descriptor, which follows, gives it back as well.
                log::debug!("a lease was not given back");
            }
            Some(false)
        }
        Err(libc::EAGAIN) => Some(true),
        Err(_) => None,
    }
}

fn set(file: BorrowedFd<'_>, command: i32, argument: i32) -> Result<(), i32> {
    // SAFETY: the descriptor is open while it is borrowed, and these commands take an integer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, argument) };
    if result == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}
