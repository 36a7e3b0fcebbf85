//! How a command fails: what is printed, and the exit code, as docker's client has them.

use std::fmt::Display;
use std::process::ExitCode;

use crate::commands::Verb;
use crate::output;

/// Exit code of docker's client for a wrong flag, and of `run` for a failure that is not the command's own.
pub(crate) const CLIENT_ERROR: u8 = 125;

/// Why a command ended without doing what it was asked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A flag that is unknown or has a wrong value: code 125.
    Flag {
        /// The command.
        verb: &'static Verb,
        /// What is wrong.
        text: String,
    },
    /// A wrong number of arguments: code 1.
    Arity {
        /// The command.
        verb: &'static Verb,
        /// What is wrong.
        text: String,
    },
    /// A command that starts containers failed before the container ran: `mille: TEXT` and where to look.
    Run {
        /// The command.
        verb: &'static Verb,
        /// What is wrong.
        text: String,
        /// Exit code.
        code: u8,
    },
    /// The engine refused: `Error response from daemon: TEXT`, code 1.
    Daemon(String),
    /// A text by itself.
    Plain {
        /// What is wrong.
        text: String,
        /// Exit code.
        code: u8,
    },
    /// Everything has been said; code 1.
    Said,
}

impl Failure {
    /// A text by itself, code 1.
    pub(crate) fn plain(text: impl Display) -> Self {
        Failure::Plain {
            text: text.to_string(),
            code: 1,
        }
    }

    /// The same text with the exit code of a client that could not even ask.
    pub(crate) fn before_running(self) -> Self {
        match self {
            Failure::Plain { text, .. } => Failure::Plain {
                text,
                code: CLIENT_ERROR,
            },
            other => other,
        }
    }

    /// Prints the failure on standard error and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if output::is_unread() {
            return ExitCode::from(output::BROKEN_PIPE);
        }
        let (text, code) = match self {
            Failure::Flag { verb, text } => (
                format!("{text}\n\n{}", verb.usage_tail("Run")),
                CLIENT_ERROR,
            ),
            Failure::Arity { verb, text } => {
                // docker's own inconsistency, which scripts that compare texts know.
                let word = if text.contains("at least") && !text.contains("at most") {
                    "See"
                } else {
                    "Run"
                };
                (
                    format!(
                        "mille: 'mille {}' {text}\n\n{}",
                        verb.name,
                        verb.usage_tail(word)
                    ),
                    1,
                )
            }
            Failure::Run { verb, text, code } => (
                format!(
                    "mille: {text}\n\nRun 'mille {} --help' for more information",
                    verb.name
                ),
                code,
            ),
            Failure::Daemon(text) => (daemon(&text), 1),
            Failure::Plain { text, code } => (text, code),
            Failure::Said => return ExitCode::FAILURE,
        };
        output::complain(&text);
        ExitCode::from(code)
    }
}

/// The prefix scripts look for.
pub(crate) fn daemon(text: impl Display) -> String {
    format!("Error response from daemon: {text}")
}

/// A library error with its causes, as one line: `open layer: /x: permission denied`.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut full = is_full(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // A transparent variant or a Display that already shows its source says the same twice.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        full |= is_full(error);
        cause = error.source();
    }
    if full {
        text.push_str(FULL);
    }
    text
}

/// What helps when the disk of the store is full.
const FULL: &str = ": the disk of the store is full: remove containers (`mille rm`) and images (`mille rmi`), or use \
                    another place (--root)";

/// Whether this is the system's own word for a full disk. An archive's destination that is full names itself instead.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let code = match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.raw_os_error(),
        None => error
            .downcast_ref::<rustix::io::Errno>()
            .map(|errno| errno.raw_os_error()),
    };
    let full = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT];
    full.iter().any(|errno| Some(errno.raw_os_error()) == code)
}

impl From<mille_engine::Error> for Failure {
    fn from(error: mille_engine::Error) -> Self {
        match error {
            mille_engine::Error::Output { stream, source } => {
                let why = output::go_io_error(&source);
                Failure::plain(format!("write {stream}: {why}"))
            }
            mille_engine::Error::Client(text) => Failure::plain(text),
            error => Failure::Daemon(chain(&error)),
        }
    }
}

impl From<mille_store::Error> for Failure {
    fn from(error: mille_store::Error) -> Self {
        Failure::Daemon(chain(&error))
    }
}

impl From<mille_store::ResolveError> for Failure {
    fn from(error: mille_store::ResolveError) -> Self {
        Failure::Daemon(chain(&error))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::plain(error)
    }
}

/// Does something for each argument: good ones go on and are echoed as they were typed, errors come one a line on
/// standard error, and the command then ends with 1.
pub(crate) fn each<'a>(
    arguments: impl IntoIterator<Item = &'a String>,
    mut act: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<ExitCode, Failure> {
    let mut failed = false;
    let mut errors = Vec::new();
    for argument in arguments {
        match act(argument) {
            Ok(()) => output::emit(&format!("{argument}\n"))?,
            Err(failure) => errors.push(failure),
        }
    }
    for failure in errors {
        failed = true;
        failure.report();
    }
    if failed {
        Err(Failure::Said)
    } else {
        Ok(ExitCode::SUCCESS)
    }
}
