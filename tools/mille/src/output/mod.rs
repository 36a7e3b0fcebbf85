//! What commands show: tables, templates, JSON, sizes and times in docker's form, progress; where archives go.

pub(crate) mod destination;
pub(crate) mod filter;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod rows;
pub(crate) mod table;
pub(crate) mod template;

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::Failure;

/// Exit code of a program that SIGPIPE ended, as a shell shows it.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Set once nobody reads standard output any more.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Writes to standard output. When nobody reads any more (`| head`) the command ends silently, as one that SIGPIPE ends.
pub(crate) fn emit(text: &str) -> Result<(), Failure> {
    emit_bytes(text.as_bytes())
}

/// The same for what need not be UTF-8.
pub(crate) fn emit_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = Watched(std::io::stdout().lock());
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) => Err(Failure::plain(format!(
            "write /dev/stdout: {}",
            go_io_error(&error)
        ))),
    }
}

/// Whether a write found standard output closed: the command then ends silently, whatever else went wrong by it.
pub(crate) fn is_unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// Writes a line to standard error. Where that is closed nobody can be told, so an error is of no use to anyone.
pub(crate) fn complain(text: &str) {
    let line = format!("{text}\n");
    if std::io::stderr().lock().write_all(line.as_bytes()).is_err() {
        log::debug!("{text}");
    }
}

/// Standard output, remembering that nobody reads it.
#[derive(Debug)]
pub(crate) struct Watched<W>(pub(crate) W);

impl<W: Write> Watched<W> {
    fn watch<T>(result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == ErrorKind::BrokenPipe
        {
            UNREAD.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<W: Write> Write for Watched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::watch(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::watch(self.0.flush())
    }
}

/// An I/O error in Go's words, which scripts look for: lower case, no "os error".
pub(crate) fn go_io_error(error: &std::io::Error) -> String {
    if let Some(number) = error.raw_os_error() {
        let mut letters = nix::errno::Errno::from_raw(number).desc().chars();
        let first = letters.next().map(|first| first.to_ascii_lowercase());
        return first.into_iter().chain(letters).collect();
    }
    match error.kind() {
        ErrorKind::NotFound => "no such file or directory".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "is a directory".to_owned(),
        ErrorKind::NotADirectory => "not a directory".to_owned(),
        ErrorKind::StorageFull => "no space left on device".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_are_gos() {
        for (error, want) in [
            (
                std::io::Error::from_raw_os_error(2),
                "no such file or directory",
            ),
            (std::io::Error::from_raw_os_error(21), "is a directory"),
            (ErrorKind::IsADirectory.into(), "is a directory"),
        ] {
            assert_eq!(go_io_error(&error), want);
        }
    }
}
