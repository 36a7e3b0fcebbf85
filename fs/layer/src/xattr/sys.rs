//! The system call behind those on extended attributes that no library knows yet.

use std::ffi::{CStr, c_int, c_long};

use rustix::io::Errno;

use super::at::Words;

/// Makes a call: its number, the descriptor of a directory, a path from there, flags, and what follows them.
///
/// # Errors
/// Those of the call.
#[expect(unsafe_code, reason = "no library knows these calls yet")]
pub(super) fn enter(
    number: c_long,
    dir: c_int,
    path: &CStr,
    flags: c_int,
    words: Words,
) -> Result<usize, Errno> {
    // SAFETY: path ends with its zero byte; the words are what the callers make of them: the name of an attribute, and a
    // buffer that they hold with its length, borrowed mutably where the kernel writes to it, or a place that tells of one.
    let result =
        unsafe { libc::syscall(number, dir, path.as_ptr(), flags, words.0, words.1, words.2) };
    usize::try_from(result).map_err(|_negative| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::IO)
    })
}
