//! What can go wrong in the life of a container, in docker's words.
//!
//! `Display` gives exactly the text docker prints after `Error response from daemon: `; the command line adds that
//! prefix and its own tails. Faults of this machine (a file that cannot be written, a mount that fails) name the
//! operation and the path and keep their source.

use std::io;
use std::path::{Path, PathBuf};

/// A result of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation on a container or an image was refused or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No container has this id, name or id prefix.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// An id prefix fits several containers.
    #[error("Multiple IDs found with provided prefix: {0}")]
    AmbiguousPrefix(String),
    /// No image has this name or id, or several have the prefix.
    #[error(transparent)]
    Resolve(#[from] mille_store::ResolveError),
    /// A name outside `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidName(String),
    /// The name belongs to another container.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{id}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    )]
    NameInUse {
        /// The name that was asked for, without a slash.
        name: String,
        /// Full id of the container that has it.
        id: String,
    },
    /// `rename` to the name the container has already.
    #[error("Renaming a container with the same name as its current name")]
    SameName,
    /// `rename` could not take the new name.
    #[error("Error when allocating new name: {0}")]
    Rename(#[source] Box<Error>),
    /// Neither the image nor the user names a command.
    #[error("No command specified")]
    NoCommand,
    /// The container must run for this (full id).
    #[error("Container {0} is not running")]
    NotRunning(String),
    /// `kill` of something unknown or not running.
    #[error("Cannot kill container: {name}: {source}")]
    CannotKill {
        /// The container as it was typed.
        name: String,
        /// Why.
        #[source]
        source: Box<Error>,
    },
    /// Not a signal's name or number.
    #[error("Invalid signal: {0}")]
    InvalidSignal(String),
    /// A number beyond the last real-time signal.
    #[error("The linux daemon does not support signal {0}")]
    UnsupportedSignal(i64),
    /// `rm` without force of a running container.
    #[error(
        "You cannot remove a {state} container {id}. {}",
        removal_advice(state)
    )]
    RemoveRunning {
        /// Full id.
        id: String,
        /// `running`, `paused` or `restarting`.
        state: &'static str,
    },
    /// `pause` of a container that is (full id).
    #[error("Container {0} is already paused")]
    AlreadyPaused(String),
    /// `unpause` of a container that is not (full id).
    #[error("Container {0} is not paused")]
    NotPaused(String),
    /// `pause` could not hold it still.
    #[error("Cannot pause container {id}: {reason}")]
    CannotPause {
        /// Full id.
        id: String,
        /// What the monitor says.
        reason: String,
    },
    /// `exec` in a paused container: nothing would ever run.
    #[error("Container {0} is paused, unpause the container before exec")]
    ExecPaused(String),
    /// The container waits to be started again by its policy (full id, or as it was typed).
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(String),
    /// Attaching to a container that waits to be started again.
    #[error("You cannot attach to a restarting container, wait until it is running")]
    AttachRestarting,
    /// `start` of a paused container.
    #[error("cannot start a paused container, try unpause instead")]
    StartPaused,
    /// Attaching to a paused container.
    #[error("You cannot attach to a paused container, unpause it first")]
    AttachPaused,
    /// Another command is using the files of this container (a commit or an export of a stopped one).
    #[error("container {0} is in use by another command")]
    Busy(String),
    /// Another command is removing this container.
    #[error("removal of container {0} is already in progress")]
    RemovalInProgress(String),
    /// The container could not be started; the text is the runtime's own, and it is kept in `State.Error`.
    #[error("{text}")]
    Start {
        /// The text, as docker words it.
        text: String,
        /// The exit code that is recorded: 125, 126 or 127.
        exit_code: i32,
    },
    /// `exec` could not start its command; docker prints this text on stdout and exits with 126.
    #[error("{0}")]
    Exec(String),
    /// A relative working directory.
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    RelativeWorkdir(String),
    /// Something wrong with what was asked for (an option, a value); the text is docker's.
    #[error("{0}")]
    Invalid(String),
    /// Something that docker's client says itself, without asking the engine.
    #[error("{0}")]
    Client(String),
    /// The log driver keeps nothing that could be read.
    #[error("configured logging driver does not support reading")]
    LogNotReadable,
    /// Attaching to a container that is not running.
    #[error("You cannot attach to a stopped container, start it first")]
    AttachStopped,
    /// The host network belongs to the machine and cannot be named otherwise.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// Only root and the owner of an `@host` container's machine can use it; or `save`/`export` would lose its base.
    #[error("{0}")]
    HostBase(String),
    /// No volume has this name.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// Containers have this volume (their full ids).
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    VolumeInUse {
        /// The volume.
        name: String,
        /// Full ids.
        users: Vec<String>,
    },
    /// The run-time directory cannot be trusted.
    #[error("{path}: {reason}")]
    RunDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// A record on disk does not parse.
    #[error("{path}: damaged record")]
    Record {
        /// The file.
        path: PathBuf,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// The monitor of the container broke the protocol or went away.
    #[error("monitor of container {id}: {reason}")]
    Monitor {
        /// Full id.
        id: String,
        /// What happened.
        reason: String,
    },
    /// The union refused.
    #[error(transparent)]
    Union(mille_union::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] mille_store::Error),
    /// The user namespace could not be entered.
    #[error(transparent)]
    Outer(#[from] mille_sandbox::outer::OuterError),
    /// A system call on a file of ours failed.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried, a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The caller's own standard output or error cannot be written.
    #[error("write {stream}: {source}")]
    Output {
        /// Its path.
        stream: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A system call without a path failed.
    #[error("{operation}: {source}")]
    System {
        /// What was tried, a verb.
        operation: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Returns a closure that dresses an I/O error with what was tried and on which path.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io {
            operation,
            path,
            source,
        }
    }

    /// Returns a closure that dresses a system error that has no path.
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::System { operation, source }
    }

    /// Returns the exit code `docker run` gives for this error: docker decides by the text.
    #[must_use]
    pub fn run_exit_code(&self) -> i32 {
        exit_code_of(&self.to_string())
    }
}

fn removal_advice(state: &str) -> &'static str {
    if state == "paused" {
        "Unpause and then stop the container before attempting removal or force remove"
    } else {
        "Stop the container before attempting removal or force remove"
    }
}

/// Returns 127, 126 or 125 for the text of a start failure, as the docker client does.
pub(crate) fn exit_code_of(text: &str) -> i32 {
    if text.contains("executable file not found") || text.contains("no such file or directory") {
        127
    } else if text.contains("permission denied") || text.contains("is a directory") {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_follow_the_text() {
        for (text, want) in [
            (
                "exec: \"x\": executable file not found in $PATH: unknown",
                127,
            ),
            (
                "exec: \"/x\": stat /x: no such file or directory: unknown",
                127,
            ),
            ("exec: \"/etc\": permission denied: unknown", 126),
            ("No command specified", 125),
        ] {
            assert_eq!(exit_code_of(text), want, "{text}");
        }
    }
}
