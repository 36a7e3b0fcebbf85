//! What callers ask of the engine: one plain struct per operation.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use mille_store::config::ContainerConfig;
use mille_store::{ImageId, Reference};

use crate::host_config::HostConfig;

/// How much of the store a command touches.
///
/// An ordinary user's process must enter a user and mount namespace before it may touch files of several owners; it
/// costs a millisecond or two, and whoever is inside can no longer join the namespaces of a running container. So a
/// command says at [`crate::Engine::open`] what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Only records and metadata: ps, logs, inspect, images, history, tag, wait, stop, kill, attach, exec.
    Records,
    /// Layers and root file systems: import, load, save, create, run, start, rm, rmi, diff, commit, export, mount,
    /// fsck. As an ordinary user the process must have one thread.
    #[default]
    Layers,
}

/// Where the engine works and how.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// The store's root; `None` takes `MILLE_ROOT`, else /var/lib/mille for root and `$XDG_DATA_HOME/mille` (or
    /// ~/.local/share/mille) for others.
    pub root: Option<PathBuf>,
    /// How much of it the command touches.
    pub access: Access,
    /// Containers, as they were typed, whose namespaces a new one will join: an ordinary user's process then goes where
    /// their monitors are, since it could not get there later.
    pub joins: Vec<String>,
    /// Containers, as they were typed, that will be started: what they join counts as well.
    pub starts: Vec<String>,
}

/// The pseudo image that stands for the machine's own root directory.
pub const HOST_BASE: &str = "@host";

/// What a new container is to be.
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// Its name; `None` or empty draws one.
    pub name: Option<String>,
    /// The image as it was typed, or [`HOST_BASE`].
    pub image: String,
    /// What the user said about it. Fields left empty are taken from the image, by docker's rules.
    pub config: ContainerConfig,
    /// What the host gives it.
    pub host_config: HostConfig,
}

/// Which streams a client is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// Sends its standard input.
    pub stdin: bool,
    /// Receives standard output.
    pub stdout: bool,
    /// Receives standard error.
    pub stderr: bool,
}

/// How a container is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Attach to it before its first byte of output.
    pub attach: Option<Streams>,
}

/// The client's end of an attached container or exec: the caller's own descriptors.
#[derive(Debug, Clone)]
pub struct ClientIo<'fd> {
    /// Read and sent until its end; `None` sends nothing.
    pub stdin: Option<BorrowedFd<'fd>>,
    /// Gets standard output (with a terminal inside: everything); `None` drops it.
    pub stdout: Option<BorrowedFd<'fd>>,
    /// Gets standard error; `None` drops it.
    pub stderr: Option<BorrowedFd<'fd>>,
    /// The container has a terminal: the client's own (when `stdin` or `stdout` is one) is put in raw mode and its
    /// size is passed on.
    pub terminal: bool,
    /// Keys that leave without ending the container, e.g. ctrl-p ctrl-q; empty switches them off. Only with
    /// `terminal`.
    pub detach_keys: Vec<u8>,
    /// Signals the caller gets are passed on (`--sig-proxy`); never with `terminal`, where the keys do it.
    pub forward_signals: bool,
}

/// Docker's default detach keys: ctrl-p, ctrl-q.
pub const DEFAULT_DETACH_KEYS: [u8; 2] = [16, 17];

/// How an attached session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The process ended with this code (128 + n for signal n).
    Exited(i32),
    /// The detach keys were typed; the process goes on.
    Detached,
    /// A signal came that is not passed on (or nobody reads the client's output any more: SIGPIPE); the process goes
    /// on.
    Interrupted(i32),
}

/// How `stop` ends a container.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// The signal sent first; `None` takes the container's own, else SIGTERM.
    pub signal: Option<String>,
    /// Seconds until SIGKILL; negative waits for ever; `None` takes the container's own, else 10.
    pub timeout_seconds: Option<i64>,
}

/// How `rm` treats what it removes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it first if it runs.
    pub force: bool,
    /// Remove its anonymous volumes too, unless another container has them.
    pub volumes: bool,
}

/// A command for a running container.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// `NAME=value` on top of the container's own.
    pub env: Vec<OsString>,
    /// Directory inside; `None` takes the container's own.
    pub workdir: Option<PathBuf>,
    /// User inside, any of docker's forms; `None` takes the container's own.
    pub user: Option<String>,
    /// Give it a terminal.
    pub terminal: bool,
    /// All capabilities.
    pub privileged: bool,
    /// Leave it alone once it has been started; the code returned is 0.
    pub detach: bool,
}

/// Which lines `logs` gives.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Only the last so many lines; `None` gives all.
    pub tail: Option<u64>,
    /// Not before this moment (inclusive).
    pub since: Option<jiff::Timestamp>,
    /// Not after this moment (inclusive).
    pub until: Option<jiff::Timestamp>,
    /// Go on with new lines until the container ends.
    pub follow: bool,
}

/// What `commit` makes of a container.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The name of the new image.
    pub reference: Option<Reference>,
    /// `--author`.
    pub author: String,
    /// `--message`.
    pub message: String,
    /// `--change`, Dockerfile instructions.
    pub changes: Vec<String>,
    /// Hold the container's processes still meanwhile, where this machine can.
    pub pause: bool,
}

/// How `rmi` treats what it removes.
#[derive(Debug, Clone, Copy)]
pub struct RemoveImageOptions {
    /// Untag and delete although stopped containers or several names refer to it.
    pub force: bool,
    /// Delete untagged parents too.
    pub prune: bool,
}

/// What `mount` looks into.
#[derive(Debug, Clone)]
pub enum MountSource {
    /// The machine's own root ([`HOST_BASE`]) as a container sees it, read-only.
    Host,
    /// An image, read-only.
    Image(ImageId),
    /// A container's root as it is now, read-only.
    Container(crate::ids::ContainerId),
}
