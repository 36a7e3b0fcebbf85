//! The caller's terminal while a container's is shown in it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, Winsize};

/// A terminal in raw mode; put back when dropped.
#[derive(Debug)]
pub(crate) struct Raw {
    fd: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Puts the terminal behind `fd` in raw mode; `None` when it is not a terminal.
    pub(crate) fn enter(fd: impl AsFd) -> io::Result<Option<Self>> {
        let Ok(before) = rustix::termios::tcgetattr(&fd) else {
            return Ok(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&fd, OptionalActions::Drain, &raw)?;
        let fd = rustix::io::fcntl_dupfd_cloexec(&fd, 3)?;
        Ok(Some(Self { fd, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Err(errno) =
            rustix::termios::tcsetattr(&self.fd, OptionalActions::Drain, &self.before)
        {
            log::warn!("restore terminal: {errno}");
        }
    }
}

/// Returns rows and columns of a terminal; `None` when it is not one or does not know.
pub(crate) fn size(fd: impl AsFd) -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(fd).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Returns rows and columns of the terminal behind `fd`, for [`crate::HostConfig::console_size`]; `None` when it is not
/// a terminal or does not know.
#[must_use]
pub fn terminal_size(fd: BorrowedFd<'_>) -> Option<[u16; 2]> {
    size(fd).map(|(rows, columns)| [rows, columns])
}

/// Tells a terminal its size; its foreground processes get SIGWINCH.
pub(crate) fn resize(fd: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(fd, size)?)
}
