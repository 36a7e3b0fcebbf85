//! What a new monitor tells the command that forked it, over a pipe: that the container runs, or why not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// How a start went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    /// The command has been executed.
    Running,
    /// Another monitor has the container.
    Busy,
    /// It could not be started; recorded with this text and exit code.
    Failed { text: String, exit_code: i32 },
    /// The monitor said nothing: it was killed.
    Lost,
}

/// The monitor's end. One report is made; dropping it without one reads as [`Outcome::Lost`].
#[derive(Debug)]
pub(crate) struct Reporter(File);

impl Reporter {
    /// Makes the pipe: the reader is the command's.
    pub(crate) fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        Ok((Self(writer.into()), reader))
    }

    /// Reports and closes. The command may have been killed meanwhile: that changes nothing for the container.
    pub(crate) fn send(mut self, outcome: &Outcome) {
        let written = serde_json::to_vec(outcome)
            .map_err(io::Error::from)
            .and_then(|bytes| self.0.write_all(&bytes));
        if let Err(error) = written {
            log::debug!("report: {error}");
        }
    }
}

impl AsFd for Reporter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits for the report.
pub(crate) fn receive(reader: OwnedFd) -> io::Result<Outcome> {
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes).unwrap_or(Outcome::Lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_arrives_and_silence_is_lost() {
        let (reporter, reader) = Reporter::pipe().unwrap();
        let outcome = Outcome::Failed {
            text: "no".into(),
            exit_code: 127,
        };
        reporter.send(&outcome);
        assert_eq!(receive(reader).unwrap(), outcome);
        let (reporter, reader) = Reporter::pipe().unwrap();
        drop(reporter);
        assert_eq!(receive(reader).unwrap(), Outcome::Lost);
    }
}
