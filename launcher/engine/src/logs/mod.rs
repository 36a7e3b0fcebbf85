//! The container's log: docker's json-file.

pub(crate) mod read;
pub(crate) mod write;

/// One line (or a piece of one longer than 16 KiB) of a container's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Where it was written.
    pub stream: LogStream,
    /// When, as the file has it: RFC 3339, UTC, trailing zeros of the fraction cut.
    pub time: String,
    /// The text with its newline, if it had one; invalid UTF-8 is already replaced.
    pub text: String,
}

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output (with a terminal: everything).
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// Returns the name the file has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        }
    }
}
