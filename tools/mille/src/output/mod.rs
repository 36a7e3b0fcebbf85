//! What commands show: tables, templates, JSON, sizes and times in docker's form, progress; where archives go.

pub(crate) mod destination;
pub(crate) mod filter;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod rows;
pub(crate) mod table;
pub(crate) mod template;

use std::io::{ErrorKind, Write};

use crate::failure::Failure;

/// Exit code of a program that SIGPIPE ended, as a shell shows it.
pub(crate) const BROKEN_PIPE: u8 = 141;

/// Writes to standard output. When nobody reads any more (`| head`) the command ends silently, as one that SIGPIPE ends.
pub(crate) fn emit(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            std::process::exit(i32::from(BROKEN_PIPE))
        }
        Err(error) => Err(Failure::plain(format!(
            "write /dev/stdout: {}",
            go_io_error(&error)
        ))),
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
