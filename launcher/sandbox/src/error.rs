//! What can go wrong, in the words scripts know.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Which of the two ways to a process failed; the wording differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A container's first process.
    Create,
    /// One more command in a running container.
    Exec,
}

/// A process that could not be made.
///
/// `Display` is the whole text as docker words it after `Error response from daemon: `; [`SpawnError::failure`] is the
/// bare reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnError {
    /// What was tried.
    pub verb: Verb,
    /// Why it failed.
    pub failure: Failure,
}

/// The reason why a process could not be made. It crosses from the new process to its maker, so errors of the system are
/// numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The command is in no directory of `PATH`.
    NotInPath {
        /// As it was given.
        command: String,
    },
    /// The command's path names nothing.
    NoSuchCommand {
        /// As it was given.
        command: String,
        /// Number of the system's error.
        errno: i32,
    },
    /// The command is a directory or must not be executed.
    NotExecutable {
        /// As it was given.
        command: String,
    },
    /// The command leads through a link of the kernel's (`/proc/self/exe`), which could name a file of the host.
    MagicLink {
        /// As it was given.
        command: String,
    },
    /// The kernel refused to execute the file.
    Execute {
        /// The resolved path.
        path: PathBuf,
        /// Number of the system's error.
        errno: i32,
    },
    /// The user is not known.
    NoSuchUser {
        /// The user part as it was given.
        user: String,
    },
    /// The group is not known.
    NoSuchGroup {
        /// The group part as it was given.
        group: String,
    },
    /// A group to be added is not known.
    NoSuchExtraGroup {
        /// As it was given.
        group: String,
    },
    /// An id is outside 0-2147483647.
    IdOutOfRange,
    /// An id is not in the id map.
    IdNotMapped {
        /// `uid` or `gid`.
        kind: String,
        /// The id.
        id: u32,
    },
    /// The account file is no regular file, or is too large.
    AccountFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The working directory is relative.
    RelativeCwd {
        /// As it was given.
        cwd: PathBuf,
    },
    /// The working directory cannot be made, since something else stands there.
    CwdNotADirectory {
        /// As it was given.
        cwd: PathBuf,
    },
    /// The working directory cannot be entered.
    Chdir {
        /// As it was given.
        cwd: PathBuf,
        /// Number of the system's error.
        errno: i32,
    },
    /// The working directory lies outside the container's root.
    CwdOutside {
        /// As it was given.
        cwd: PathBuf,
    },
    /// A mount of the user cannot be made.
    Mount {
        /// Where.
        target: PathBuf,
        /// Number of the system's error.
        errno: i32,
    },
    /// A mount target is not as it must be.
    MountTarget {
        /// Where.
        target: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A system call of the set-up failed.
    System {
        /// What was being done: a verb and its object.
        operation: String,
        /// With which file.
        path: Option<PathBuf>,
        /// Number of the system's error.
        errno: i32,
    },
    /// The process ended before it had said anything.
    Vanished,
    /// The plan could not be made.
    Plan(PlanError),
    /// The container is gone.
    NotRunning,
}

/// How a command line should end after a failed start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 127.
    NotFound,
    /// Exit code 126.
    NotExecutable,
    /// Exit code 125.
    Other,
}

/// A [`crate::Spec`] that no plan can be made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PlanError {
    /// No command.
    #[error("no command specified")]
    NoCommand,
    /// A path that must be absolute is not.
    #[error("{what} {path:?} is not an absolute path")]
    Relative {
        /// Which one.
        what: String,
        /// As it was given.
        path: PathBuf,
    },
    /// The working directory is relative.
    #[error("the working directory '{}' is invalid, it needs to be an absolute path", path.display())]
    RelativeCwd {
        /// As it was given.
        path: PathBuf,
    },
    /// A namespace of another container with a user namespace of one's own.
    #[error("a namespace of another container is joined together with its user namespace")]
    JoinNested,
    /// A mount on the root itself.
    #[error("invalid mount: destination can't be '/'")]
    MountOnRoot,
    /// An argument or variable contains a NUL byte.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which one.
        what: String,
    },
    /// A required capability is not available.
    #[error(
        "capability {name} is not available on this host (it is not in the bounding set of this process)"
    )]
    Capability {
        /// With its prefix.
        name: String,
    },
    /// An unknown resource limit.
    #[error("invalid ulimit type: {name}")]
    Rlimit {
        /// As it was given.
        name: String,
    },
    /// A kernel parameter that does not belong to a namespace of the container.
    #[error("sysctl {name:?} is not in a separate kernel namespace")]
    Sysctl {
        /// As it was given.
        name: String,
    },
    /// A host name the kernel would refuse.
    #[error("invalid hostname {name:?}: longer than 64 bytes")]
    Hostname {
        /// As it was given.
        name: String,
    },
    /// The kernel is too old.
    #[error("kernel {release} is too old: 5.12 or newer is needed")]
    Kernel {
        /// Release of the running kernel.
        release: String,
    },
}

/// Something that was left out or done in a second-best way; the container runs all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Warning {
    /// A hard limit could not be raised.
    #[error(
        "ulimit {name}: hard limit {wanted} is above {got} and CAP_SYS_RESOURCE is missing: using {got}"
    )]
    RlimitClamped {
        /// Docker's name.
        name: String,
        /// What was asked for.
        wanted: u64,
        /// What is set.
        got: u64,
    },
    /// /proc is not a full new one.
    #[error("/proc: a new one was refused, using {fallback}")]
    Proc {
        /// What is used instead.
        fallback: String,
    },
    /// No cgroup filesystem could be mounted.
    #[error("/sys/fs/cgroup is left empty: {reason}")]
    Cgroup {
        /// Why.
        reason: String,
    },
    /// The session keyring could not be made.
    #[error("no session keyring of its own: {}", errno_text(*errno))]
    Keyring {
        /// Number of the system's error.
        errno: i32,
    },
    /// Supplementary groups cannot be set under a one-id map.
    #[error("supplementary groups were not set: setgroups is denied in this user namespace")]
    Groups,
}

/// Returns the system's text for an error number the way Go programs word it: first letter small, no number.
/// Not for the new process: the C library takes a lock for it.
pub(crate) fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_lowercase().chain(chars).collect())
        .unwrap_or_default()
}

impl Failure {
    /// Makes a [`Failure::System`].
    pub(crate) fn system(
        operation: impl Into<String>,
        path: Option<PathBuf>,
        errno: rustix::io::Errno,
    ) -> Self {
        Self::System {
            operation: operation.into(),
            path,
            errno: errno.raw_os_error(),
        }
    }

    /// Whether docker's engine itself says this, without naming the runtime.
    fn is_bare(&self) -> bool {
        matches!(
            self,
            Self::NoSuchUser { .. }
                | Self::NoSuchGroup { .. }
                | Self::NoSuchExtraGroup { .. }
                | Self::IdOutOfRange
                | Self::CwdNotADirectory { .. }
                | Self::Plan(_)
                | Self::NotRunning
        )
    }

    /// Whether the runtime says this before it has started a process.
    fn is_before_process(&self) -> bool {
        matches!(self, Self::RelativeCwd { .. })
    }
}

impl Failure {
    /// Writes what concerns the command and the working directory.
    fn fmt_command(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInPath { command } => {
                write!(f, "exec: {command:?}: executable file not found in $PATH")
            }
            Self::NoSuchCommand { command, errno } => {
                write!(
                    f,
                    "exec: {command:?}: stat {command}: {}",
                    errno_text(*errno)
                )
            }
            Self::NotExecutable { command } => write!(f, "exec: {command:?}: permission denied"),
            Self::MagicLink { command } => {
                write!(
                    f,
                    "exec: {command:?}: permission denied (leads through a link of procfs)"
                )
            }
            Self::Execute { path, errno } => {
                write!(f, "exec {}: {}", path.display(), errno_text(*errno))
            }
            Self::RelativeCwd { .. } => f.write_str("Cwd must be an absolute path"),
            Self::CwdNotADirectory { cwd } => {
                write!(f, "Cannot mkdir: {} is not a directory", cwd.display())
            }
            Self::Chdir { cwd, errno } => {
                let text = errno_text(*errno);
                write!(
                    f,
                    "chdir to cwd ({cwd:?}) set in config.json failed: {text}"
                )
            }
            Self::CwdOutside { .. } => f.write_str(
                "current working directory is outside of container mount namespace root",
            ),
            other => other.fmt_user(f),
        }
    }

    /// Writes what concerns users and groups.
    fn fmt_user(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchUser { user } => {
                write!(
                    f,
                    "unable to find user {user}: no matching entries in passwd file"
                )
            }
            Self::NoSuchGroup { group } => {
                write!(
                    f,
                    "unable to find group {group}: no matching entries in group file"
                )
            }
            Self::NoSuchExtraGroup { group } => {
                write!(
                    f,
                    "Unable to find group {group}: no matching entries in group file"
                )
            }
            Self::IdOutOfRange => f.write_str("uids and gids must be in range 0-2147483647"),
            Self::IdNotMapped { kind, id } => write!(
                f,
                "{kind} {id} is not in the id map of this user namespace: give the user a (larger) range in \
                 /etc/sub{kind}"
            ),
            Self::AccountFile { path, reason } => write!(f, "{}: {reason}", path.display()),
            _ => f.write_str("unknown failure"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { target, errno } => {
                write!(f, "error mounting to {target:?}: {}", errno_text(*errno))
            }
            Self::MountTarget { target, reason } => {
                write!(f, "error mounting to {target:?}: {reason}")
            }
            Self::System {
                operation,
                path: Some(path),
                errno,
            } => {
                write!(f, "{operation} {}: {}", path.display(), errno_text(*errno))
            }
            Self::System {
                operation,
                path: None,
                errno,
            } => {
                write!(f, "{operation}: {}", errno_text(*errno))
            }
            Self::Vanished => f.write_str("the new process ended before it was ready"),
            Self::Plan(error) => error.fmt(f),
            Self::NotRunning => f.write_str("container is not running"),
            other => other.fmt_command(f),
        }
    }
}

/// Docker adds this to every text with "not a directory" in it.
const MOUNT_HINT: &str = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified \
                          host path exists and is the expected type";

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.failure.is_bare() {
            return self.failure.fmt(f);
        }
        f.write_str(match self.verb {
            Verb::Create => {
                "failed to create shim task: OCI runtime create failed: runc create failed: "
            }
            Verb::Exec => "OCI runtime exec failed: exec failed: ",
        })?;
        if !self.failure.is_before_process() {
            f.write_str("unable to start container process: ")?;
        }
        let text = self.failure.to_string();
        write!(f, "{text}: unknown")?;
        if text.contains("not a directory") {
            f.write_str(MOUNT_HINT)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.failure {
            Failure::Plan(error) => Some(error),
            _ => None,
        }
    }
}

impl SpawnError {
    pub(crate) fn new(verb: Verb, failure: Failure) -> Self {
        Self { verb, failure }
    }

    /// Returns which of the three exit codes fits.
    ///
    /// docker decides by the text: "executable file not found" and "no such file or directory" are 127, "permission
    /// denied" and "is a directory" 126, anything else 125, also where the file meant is not the command. A file the
    /// kernel cannot execute is 126, as in a shell.
    pub fn outcome(&self) -> Outcome {
        if let Failure::Execute {
            errno: libc::ENOEXEC,
            ..
        } = self.failure
        {
            return Outcome::NotExecutable;
        }
        let text = self.failure.to_string();
        if text.contains("executable file not found") || text.contains("no such file or directory")
        {
            Outcome::NotFound
        } else if text.contains("permission denied") || text.contains("is a directory") {
            Outcome::NotExecutable
        } else {
            Outcome::Other
        }
    }

    /// Returns the exit code: 125, 126 or 127 for a container, always 126 for a command in a running one (docker's two
    /// rules).
    pub fn exit_code(&self) -> i32 {
        match (self.verb, self.outcome()) {
            (Verb::Exec, _) | (Verb::Create, Outcome::NotExecutable) => 126,
            (Verb::Create, Outcome::NotFound) => 127,
            (Verb::Create, Outcome::Other) => 125,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(failure: Failure) -> SpawnError {
        SpawnError::new(Verb::Create, failure)
    }

    fn exec(failure: Failure) -> SpawnError {
        SpawnError::new(Verb::Exec, failure)
    }

    const CREATE: &str = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start \
                          container process: ";
    const EXEC: &str = "OCI runtime exec failed: exec failed: unable to start container process: ";

    #[test]
    fn texts_and_codes_of_a_container() {
        let nosuch = || "nosuchcmd".to_owned();
        for (failure, want, code) in [
            (
                Failure::NotInPath { command: nosuch() },
                format!("{CREATE}exec: \"nosuchcmd\": executable file not found in $PATH: unknown"),
                127,
            ),
            (
                Failure::NoSuchCommand {
                    command: "/nosuch/cmd".to_owned(),
                    errno: libc::ENOENT,
                },
                format!(
                    "{CREATE}exec: \"/nosuch/cmd\": stat /nosuch/cmd: no such file or directory: unknown"
                ),
                127,
            ),
            (
                Failure::NotExecutable {
                    command: "/etc".to_owned(),
                },
                format!("{CREATE}exec: \"/etc\": permission denied: unknown"),
                126,
            ),
            (
                Failure::NoSuchUser {
                    user: "nosuch".to_owned(),
                },
                "unable to find user nosuch: no matching entries in passwd file".to_owned(),
                125,
            ),
            (
                Failure::IdOutOfRange,
                "uids and gids must be in range 0-2147483647".to_owned(),
                125,
            ),
            (
                Failure::CwdNotADirectory {
                    cwd: "/etc/passwd".into(),
                },
                "Cannot mkdir: /etc/passwd is not a directory".to_owned(),
                125,
            ),
            (
                Failure::Execute {
                    path: "/bin/x".into(),
                    errno: libc::ENOEXEC,
                },
                format!("{CREATE}exec /bin/x: exec format error: unknown"),
                126,
            ),
        ] {
            let error = create(failure);
            assert_eq!(error.to_string(), want);
            assert_eq!(error.exit_code(), code, "{want}");
        }
    }

    #[test]
    fn texts_of_exec() {
        for (failure, want) in [
            (
                Failure::NotInPath {
                    command: "--".to_owned(),
                },
                format!("{EXEC}exec: \"--\": executable file not found in $PATH: unknown"),
            ),
            (
                Failure::Chdir {
                    cwd: "/nosuch".into(),
                    errno: libc::ENOENT,
                },
                format!(
                    "{EXEC}chdir to cwd (\"/nosuch\") set in config.json failed: no such file or directory: unknown"
                ),
            ),
            (
                Failure::RelativeCwd { cwd: "rel".into() },
                "OCI runtime exec failed: exec failed: Cwd must be an absolute path: unknown"
                    .to_owned(),
            ),
            (
                Failure::Chdir {
                    cwd: "/etc/passwd".into(),
                    errno: libc::ENOTDIR,
                },
                format!(
                    "{EXEC}chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory: unknown: Are \
                     you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path \
                     exists and is the expected type"
                ),
            ),
        ] {
            let error = exec(failure);
            assert_eq!(error.to_string(), want);
            assert_eq!(error.exit_code(), 126);
        }
    }
}
