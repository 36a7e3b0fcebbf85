//! The engine's front: one method per thing a container's life has.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mille_store::{ImageId, Store};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::ids::ContainerId;
use crate::inspect::Inspect;
use crate::logs::LogLine;
use crate::options::{
    ClientIo, CommitOptions, CreateOptions, EngineOptions, ExecOptions, LogOptions, MountSource,
    RemoveImageOptions, RemoveOptions, StartOptions, StopOptions, Streams,
};
use crate::session::Session;

/// How the program runs on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As root: no user namespace.
    Root,
    /// As an ordinary user with a range of subordinate ids.
    Range,
    /// As an ordinary user with one id: owners are kept beside the files.
    OneId,
}

/// One difference between a container and its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What happened.
    pub kind: DifferenceKind,
    /// Absolute path inside, raw bytes.
    pub path: PathBuf,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// `A`
    Added,
    /// `C`
    Changed,
    /// `D`
    Deleted,
}

/// What `rmi` did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or a layer is gone (`sha256:…`).
    Deleted(String),
}

/// How much a container's files take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the files it wrote itself.
    pub read_write_bytes: u64,
    /// That and its image's.
    pub root_fs_bytes: u64,
}

/// The engine over one store root.
#[derive(Debug)]
pub struct Engine {
    pub(crate) root: PathBuf,
    pub(crate) store: Store,
    pub(crate) mode: Mode,
}

const NOT_YET: &str = "not implemented yet";

fn not_yet<T>() -> Result<T> {
    Err(Error::Invalid(NOT_YET.to_owned()))
}

impl Engine {
    /// Opens the engine: finds the mode, enters the user namespace where [`crate::Access::Layers`] asks for it, opens
    /// the store and clears away what dead monitors left.
    ///
    /// # Errors
    /// An unusable root or run-time directory; no way into a user namespace.
    pub fn open(_options: EngineOptions) -> Result<Self> {
        not_yet()
    }

    /// Returns the store's root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the store of images and layers.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns how the program runs on this machine.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Makes a container and returns its id.
    ///
    /// # Errors
    /// Unknown image, bad or used name, no command, a bad option: docker's texts.
    pub fn create(&self, _options: CreateOptions) -> Result<ContainerId> {
        not_yet()
    }

    /// Starts a container; with `attach`, returns the session to be run. Starting one that runs does nothing (and
    /// attaches, where asked).
    ///
    /// # Errors
    /// [`Error::Start`] with docker's text and the recorded exit code.
    pub fn start(&self, _id: &ContainerId, _options: StartOptions) -> Result<Option<Session>> {
        not_yet()
    }

    /// Attaches to a running container.
    ///
    /// # Errors
    /// [`Error::AttachStopped`].
    pub fn attach(&self, _id: &ContainerId, _streams: Streams) -> Result<Session> {
        not_yet()
    }

    /// Waits until the container has ended and returns its exit code; at once if it does not run.
    ///
    /// # Errors
    /// The container went away meanwhile without leaving a code.
    pub fn wait(&self, _id: &ContainerId) -> Result<i32> {
        not_yet()
    }

    /// Ends a running container: its stop signal, then SIGKILL. One that does not run is left alone.
    ///
    /// # Errors
    /// A monitor that does not answer.
    pub fn stop(&self, _id: &ContainerId, _options: &StopOptions) -> Result<()> {
        not_yet()
    }

    /// Sends a signal (`KILL`, `SIGKILL`, `9`) to a running container's first process; `name` as it was typed.
    ///
    /// # Errors
    /// [`Error::InvalidSignal`], [`Error::CannotKill`].
    pub fn kill(&self, _name: &str, _signal: &str) -> Result<()> {
        not_yet()
    }

    /// Removes a container with everything it wrote.
    ///
    /// # Errors
    /// [`Error::RemoveRunning`] unless forced.
    pub fn remove(&self, _id: &ContainerId, _options: RemoveOptions) -> Result<()> {
        not_yet()
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`Error::SameName`], [`Error::Rename`].
    pub fn rename(&self, _id: &ContainerId, _new_name: &str) -> Result<()> {
        not_yet()
    }

    /// Runs a command in a running container and returns its exit code.
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::Exec`] when the command cannot be started (docker: on stdout, code 126).
    pub fn exec(
        &self,
        _id: &ContainerId,
        _options: &ExecOptions,
        _io: &ClientIo<'_>,
    ) -> Result<i32> {
        not_yet()
    }

    /// Returns all containers, newest first.
    ///
    /// # Errors
    /// An unreadable or damaged record.
    pub fn containers(&self) -> Result<Vec<Container>> {
        not_yet()
    }

    /// Finds a container by full id, exact name (with or without a slash) or unambiguous id prefix, in this order.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::AmbiguousPrefix`].
    pub fn find(&self, _typed: &str) -> Result<Container> {
        not_yet()
    }

    /// Returns what inspect shows of a container; with `sizes`, how much it takes as well.
    ///
    /// # Errors
    /// An unreadable upper directory.
    pub fn inspect(&self, _container: &Container, _sizes: bool) -> Result<Inspect> {
        not_yet()
    }

    /// Returns how much a container's files take.
    ///
    /// # Errors
    /// An unreadable upper directory.
    pub fn sizes(&self, _container: &Container) -> Result<Sizes> {
        not_yet()
    }

    /// Gives the container's log line by line.
    ///
    /// # Errors
    /// [`Error::LogNotReadable`]; an error of the sink ends it.
    pub fn logs(
        &self,
        _id: &ContainerId,
        _options: &LogOptions,
        _sink: &mut dyn FnMut(&LogLine) -> io::Result<()>,
    ) -> Result<()> {
        not_yet()
    }

    /// Returns what differs from the image (and the init layer), parents included, as docker lists it.
    ///
    /// # Errors
    /// An unreadable layer.
    pub fn diff(&self, _id: &ContainerId) -> Result<Vec<Difference>> {
        not_yet()
    }

    /// Makes an image of a container.
    ///
    /// # Errors
    /// A bad change (docker's text); a full disk, in which case nothing is left.
    pub fn commit(&self, _id: &ContainerId, _options: &CommitOptions) -> Result<ImageId> {
        not_yet()
    }

    /// Writes the container's whole tree as one tar.
    ///
    /// # Errors
    /// [`Error::HostBase`] for a container on `@host` unless `flatten`.
    pub fn export(&self, _id: &ContainerId, _flatten: bool, _out: &mut dyn Write) -> Result<()> {
        not_yet()
    }

    /// Mounts an image or a container's root at an existing directory, read-only, served in the background until
    /// [`Engine::umount`].
    ///
    /// # Errors
    /// No directory, no /dev/fuse, no permission.
    pub fn mount(&self, _source: &MountSource, _directory: &Path) -> Result<()> {
        not_yet()
    }

    /// Ends what [`Engine::mount`] began.
    ///
    /// # Errors
    /// Nothing of ours is mounted there; it is in use.
    pub fn umount(&self, _directory: &Path) -> Result<()> {
        not_yet()
    }

    /// Removes an image's name or the image, as docker's rmi.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::Conflict`] with docker's texts.
    pub fn remove_image(&self, _typed: &str, _options: RemoveImageOptions) -> Result<Vec<Removed>> {
        not_yet()
    }
}
