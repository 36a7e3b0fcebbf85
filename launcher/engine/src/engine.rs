//! The engine's front: one method per thing a container's life has.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use mille_store::{ImageId, Removed, Store};

use crate::container::{Container, Ground};
use crate::copy::{self, CopyOptions};
use crate::error::{Error, Result};
use crate::events::{Event, EventOptions, Subject};
use crate::ids::ContainerId;
use crate::init_layer::{self, Dialect};
use crate::inspect::Inspect;
use crate::layout::Layout;
use crate::logs::LogLine;
use crate::options::{
    ClientIo, CommitOptions, CreateOptions, EngineOptions, ExecOptions, HOST_BASE, LogOptions,
    MountSource, RemoveImageOptions, RemoveOptions, StartOptions, StopOptions, Streams,
};
use crate::rootfs::{Stack, Writable};
use crate::session::Session;
use crate::update::UpdateOptions;
use crate::usage::Usage;
use crate::{
    changes, commit, create, events, exec, images, inspect, logs, mounts, open, records, signals,
    start, update,
};

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
    pub(crate) layout: Layout,
    pub(crate) store: Store,
    pub(crate) mode: Mode,
    /// This process is in the user namespace of an ordinary user.
    pub(crate) inside: bool,
}

impl Engine {
    /// Opens the engine: finds the mode, enters the user namespace where [`crate::Access::Layers`] asks for it, opens
    /// the store and clears away what dead monitors left.
    ///
    /// # Errors
    /// An unusable root or run-time directory; no way into a user namespace.
    pub fn open(options: EngineOptions) -> Result<Self> {
        open::open(&options)
    }

    /// Returns the store's root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.layout.root
    }

    /// Returns the run-time directory of this root.
    #[must_use]
    pub fn run_directory(&self) -> &Path {
        &self.layout.run
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
    pub fn create(&self, options: CreateOptions) -> Result<ContainerId> {
        create::create(self, options)
    }

    /// Starts a container; with `attach`, returns the session to be run. Starting one that runs does nothing (and
    /// attaches, where asked). The process should have one thread: the monitor is forked from it.
    ///
    /// # Errors
    /// [`Error::Start`] with docker's text and the recorded exit code.
    pub fn start(&self, id: &ContainerId, options: StartOptions) -> Result<Option<Session>> {
        match start::start(self, id, options) {
            // The monitor's own word: it held the container meanwhile, and takes one of `--rm` away itself.
            Err(error @ Error::Start { .. }) => Err(error),
            outcome => self.unless_removed(id, outcome),
        }
    }

    /// What a command on a container came to. Whatever failed in one that was removed meanwhile: it is not there any more.
    fn unless_removed<T>(&self, id: &ContainerId, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| match records::read(&self.layout, id) {
            Ok(None) => Error::NoSuchContainer(id.to_string()),
            _ => error,
        })
    }

    /// Attaches to a running container.
    ///
    /// # Errors
    /// [`Error::AttachStopped`].
    pub fn attach(&self, id: &ContainerId, streams: Streams) -> Result<Session> {
        self.unless_removed(id, start::attach(self, id, streams))
    }

    /// Waits until the container has ended and returns its exit code; at once if it does not run.
    ///
    /// # Errors
    /// The container went away meanwhile without leaving a code.
    pub fn wait(&self, id: &ContainerId) -> Result<i32> {
        self.wait_container(id)
    }

    /// Ends a running container: its stop signal, then SIGKILL. One that does not run is left alone.
    ///
    /// # Errors
    /// A monitor that does not answer.
    pub fn stop(&self, id: &ContainerId, options: &StopOptions) -> Result<()> {
        let container = self.load(id)?;
        if container.is_running() {
            self.stop_container(&container, options)?;
            Subject::from(&container).note(&self.layout, "stop", &[]);
        }
        Ok(())
    }

    /// Stops a container if it runs and starts it. One of `--rm` is not removed in between.
    ///
    /// # Errors
    /// Those of [`Engine::stop`] and [`Engine::start`].
    pub fn restart(&self, id: &ContainerId, options: &StopOptions) -> Result<()> {
        let container = self.load(id)?;
        if container.is_running() {
            if container.host_config.auto_remove {
                self.keep(&container)?;
            }
            self.unless_removed(id, self.stop_container(&container, options))?;
            Subject::from(&container).note(&self.layout, "stop", &[]);
        }
        self.start(id, StartOptions { attach: None })?;
        Subject::from(&container).note(&self.layout, "restart", &[]);
        Ok(())
    }

    /// Holds all processes of a running container still.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::AlreadyPaused`], [`Error::CannotPause`].
    pub fn pause(&self, id: &ContainerId) -> Result<()> {
        let container = self.load(id)?;
        self.unless_removed(id, self.set_paused(&container, true))?;
        Subject::from(&container).note(&self.layout, "pause", &[]);
        Ok(())
    }

    /// Lets the processes of a paused container go on.
    ///
    /// # Errors
    /// [`Error::NotPaused`].
    pub fn unpause(&self, id: &ContainerId) -> Result<()> {
        let container = self.load(id)?;
        self.unless_removed(id, self.set_paused(&container, false))?;
        Subject::from(&container).note(&self.layout, "unpause", &[]);
        Ok(())
    }

    /// Sends a signal (`KILL`, `SIGKILL`, `9`) to a running container's first process; `name` as it was typed.
    ///
    /// # Errors
    /// [`Error::InvalidSignal`], [`Error::CannotKill`].
    pub fn kill(&self, name: &str, signal: &str) -> Result<()> {
        let number = signals::parse(signal)?;
        self.find(name)
            .and_then(|container| self.send_signal(&container, number))
            .map_err(|source| match source {
                Error::AmbiguousPrefix(_) => source,
                source => Error::CannotKill {
                    name: name.to_owned(),
                    source: Box::new(source),
                },
            })
    }

    /// Changes a container that exists.
    ///
    /// # Errors
    /// A value that cannot be; docker's texts.
    pub fn update(&self, id: &ContainerId, options: &UpdateOptions) -> Result<()> {
        self.unless_removed(id, update::update(self, id, options))
    }

    /// Returns what a running container uses: its processes, processor time, memory, disks.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn usage(&self, id: &ContainerId) -> Result<Usage> {
        self.unless_removed(id, update::usage(self, id))
    }

    /// Returns the processes of a running container as the host numbers them, 6000 at most.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn processes(&self, id: &ContainerId) -> Result<Vec<i32>> {
        let usage = self.usage(id)?;
        Subject::from(&self.load(id)?).note(&self.layout, "top", &[]);
        Ok(usage.processes)
    }

    /// Gives what happened to containers and images, one by one; without an end in time, for ever.
    ///
    /// # Errors
    /// An error of the sink ends it.
    pub fn events(
        &self,
        options: EventOptions,
        sink: &mut dyn FnMut(&Event) -> io::Result<()>,
    ) -> Result<()> {
        events::read(&self.layout, options, sink)
    }

    /// Notes what was done to an image through [`Engine::store`]: `tag`, `load`, `import`, `save`.
    pub fn note_image(&self, action: &str, id: &ImageId, name: &str) {
        let image = self.store.image(id).ok();
        let labels = image.and_then(|image| image.config.config?.labels);
        let mut attributes = labels.unwrap_or_default();
        attributes.insert("name".to_owned(), name.to_owned());
        events::note(&self.layout, "image", action, id.to_string(), attributes);
    }

    /// Finds an image by what was typed.
    ///
    /// # Errors
    /// None or several fit; [`Error::HostBase`] for [`crate::HOST_BASE`], which is no image.
    pub fn resolve_image(&self, typed: &str) -> Result<ImageId> {
        if typed == HOST_BASE {
            return Err(Error::HostBase(format!(
                "{HOST_BASE} is the root of this machine, not an image: it can be run, created from and mounted"
            )));
        }
        Ok(self.store.resolve(typed)?)
    }

    /// Notes that a client has left a container by the detach keys.
    ///
    /// # Errors
    /// The container's record cannot be read.
    pub fn note_detached(&self, id: &ContainerId) -> Result<()> {
        Subject::from(&self.load(id)?).note(&self.layout, "detach", &[]);
        Ok(())
    }

    /// Notes that what was not needed of a kind (`container`, `image`) has been removed, and how many bytes it took.
    pub fn note_prune(&self, kind: &str, bytes: u64) {
        events::note_prune(&self.layout, kind, bytes);
    }

    /// Returns the images that containers and mounts stand on, once for each use.
    ///
    /// # Errors
    /// An unreadable record.
    pub fn images_in_use(&self) -> Result<Vec<ImageId>> {
        update::images_in_use(self)
    }

    /// Removes a container with everything it wrote.
    ///
    /// # Errors
    /// [`Error::RemoveRunning`] unless forced.
    pub fn remove(&self, id: &ContainerId, options: RemoveOptions) -> Result<()> {
        create::remove(self, id, options)
    }

    /// Removes a container whose record cannot be read, found as by [`Engine::find`], killing it first; its
    /// volumes stay. Returns whether there was one: a container whose record can be read is none.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove_damaged(&self, typed: &str) -> Result<bool> {
        let Some(id) = records::find_damaged(&self.layout, typed)? else {
            return Ok(false);
        };
        crate::removal::remove_damaged(&self.layout, &id)?;
        Ok(true)
    }

    /// Gives a container another name.
    ///
    /// # Errors
    /// [`Error::SameName`], [`Error::Rename`].
    pub fn rename(&self, id: &ContainerId, new_name: &str) -> Result<()> {
        self.unless_removed(id, create::rename(self, id, new_name))
    }

    /// Runs a command in a running container and returns its exit code. As an ordinary user the engine must have been
    /// opened with [`crate::Access::Records`].
    ///
    /// # Errors
    /// [`Error::NotRunning`]; [`Error::Exec`] when the command cannot be started (docker: on stdout, code 126).
    pub fn exec(&self, id: &ContainerId, options: &ExecOptions, io: &ClientIo<'_>) -> Result<i32> {
        exec::exec(self, id, options, io)
    }

    /// Returns all containers, newest first.
    ///
    /// # Errors
    /// An unreadable or damaged record.
    pub fn containers(&self) -> Result<Vec<Container>> {
        records::load_all(&self.layout)
    }

    /// Finds a container by full id, exact name (with or without a slash) or unambiguous id prefix, in this order.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::AmbiguousPrefix`].
    pub fn find(&self, typed: &str) -> Result<Container> {
        records::find(&self.layout, typed)
    }

    /// Returns what inspect shows of a container; with `sizes`, how much it takes as well.
    ///
    /// # Errors
    /// An unreadable upper directory.
    pub fn inspect(&self, container: &Container, sizes: bool) -> Result<Inspect> {
        inspect::inspect(self, container, sizes)
    }

    /// Returns how much a container's files take.
    ///
    /// # Errors
    /// An unreadable upper directory.
    pub fn sizes(&self, container: &Container) -> Result<Sizes> {
        changes::sizes(self, container)
    }

    /// Gives the container's log line by line.
    ///
    /// # Errors
    /// [`Error::LogNotReadable`]; an error of the sink ends it.
    pub fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        sink: &mut dyn FnMut(&LogLine) -> io::Result<()>,
    ) -> Result<()> {
        let container = self.load(id)?;
        if logs::write::rotation(&container.host_config.log_config)?.is_none() {
            return Err(Error::LogNotReadable);
        }
        let ended =
            || Ok(records::load(&self.layout, id)?.is_none_or(|container| !container.is_running()));
        logs::read::read(&self.layout.container(id).log(), options, ended, sink)
    }

    /// Returns what differs from the image (and the init layer), parents included, as docker lists it.
    ///
    /// # Errors
    /// An unreadable layer.
    pub fn diff(&self, id: &ContainerId) -> Result<Vec<Difference>> {
        self.unless_removed(id, changes::diff(self, id))
    }

    /// Copies a file or a directory of the machine's into a container, running or not; returns the bytes of the files.
    /// `typed` is the container as texts name it. The process should have one thread, and is spoiled for other work on
    /// paths: as an ordinary user it stands in the container's namespaces afterwards.
    ///
    /// # Errors
    /// Docker's texts; [`Error::Client`] for those without its prefix.
    pub fn copy_in(
        &self,
        typed: &str,
        source: &Path,
        destination: &str,
        options: CopyOptions,
    ) -> Result<u64> {
        let container = self.find(typed)?;
        copy::copy_in(self, (&container, typed), source, destination, options)
    }

    /// Copies a file or a directory of a container to the machine; see [`Engine::copy_in`].
    ///
    /// # Errors
    /// As of [`Engine::copy_in`].
    pub fn copy_out(
        &self,
        typed: &str,
        source: &str,
        destination: &Path,
        options: CopyOptions,
    ) -> Result<u64> {
        let container = self.find(typed)?;
        copy::copy_out(self, (&container, typed), source, destination, options)
    }

    /// Unpacks a tar, compressed or not, into a directory of a container; see [`Engine::copy_in`].
    ///
    /// # Errors
    /// As of [`Engine::copy_in`], or no tar.
    pub fn copy_stream_in(
        &self,
        typed: &str,
        destination: &str,
        options: CopyOptions,
        input: &mut (dyn Read + Send),
    ) -> Result<()> {
        let container = self.find(typed)?;
        copy::stream_in(self, (&container, typed), destination, options, input)
    }

    /// Writes a tar of a file or a directory of a container; see [`Engine::copy_in`].
    ///
    /// # Errors
    /// As of [`Engine::copy_in`].
    pub fn copy_stream_out(
        &self,
        typed: &str,
        source: &str,
        options: CopyOptions,
        out: &mut dyn Write,
    ) -> Result<()> {
        let container = self.find(typed)?;
        copy::stream_out(self, (&container, typed), source, options, out)
    }

    /// Makes an image of a container.
    ///
    /// # Errors
    /// A bad change (docker's text); a full disk, in which case nothing is left.
    pub fn commit(&self, id: &ContainerId, options: &CommitOptions) -> Result<ImageId> {
        self.unless_removed(id, commit::commit(self, id, options))
    }

    /// Writes the container's whole tree as one tar.
    ///
    /// # Errors
    /// [`Error::HostBase`] for a container on `@host` unless `flatten`.
    pub fn export(
        &self,
        id: &ContainerId,
        flatten: bool,
        out: &mut (dyn Write + Send),
    ) -> Result<()> {
        self.unless_removed(id, changes::export(self, id, flatten, out))?;
        Subject::from(&self.load(id)?).note(&self.layout, "export", &[]);
        Ok(())
    }

    /// Makes sure that an image can leave this machine.
    ///
    /// # Errors
    /// [`Error::HostBase`] for an image that stands on `@host`: only [`Engine::flatten`] makes it whole.
    pub fn check_portable(&self, id: &ImageId) -> Result<()> {
        commit::check_portable(self, id)
    }

    /// Makes an image of one layer that holds all an image shows, also what comes from `@host`.
    ///
    /// # Errors
    /// An unreadable file of the host's; a full disk.
    pub fn flatten(&self, id: &ImageId) -> Result<ImageId> {
        commit::flatten(self, id)
    }

    /// Mounts an image or a container's root at an existing directory, read-only, served in the background until
    /// [`Engine::umount`].
    ///
    /// # Errors
    /// No directory, no /dev/fuse, no permission.
    pub fn mount(&self, source: &MountSource, directory: &Path) -> Result<()> {
        mounts::mount(self, source, directory)
    }

    /// Ends what [`Engine::mount`] began.
    ///
    /// # Errors
    /// Nothing of ours is mounted there; it is in use.
    pub fn umount(&self, directory: &Path) -> Result<()> {
        mounts::umount(self, directory)
    }

    /// Removes an image's name or the image, as docker's rmi.
    ///
    /// # Errors
    /// The store's, with docker's texts: no such image, or a conflict with containers that use it.
    pub fn remove_image(&self, typed: &str, options: RemoveImageOptions) -> Result<Vec<Removed>> {
        images::remove(self, typed, options)
    }

    /// Removes layers that no image and no container needs, and what killed commands left in the store.
    ///
    /// # Errors
    /// The store's.
    pub fn collect(&self) -> Result<mille_store::Collected> {
        images::collect(self)
    }

    /// Checks everything in the store against its digests.
    ///
    /// # Errors
    /// The store's directories or the containers' records cannot be read; what is wrong inside is in the report.
    pub fn fsck(&self) -> Result<mille_store::FsckReport> {
        images::fsck(self)
    }
}

impl Engine {
    /// Loads one container.
    pub(crate) fn load(&self, id: &ContainerId) -> Result<Container> {
        records::load(&self.layout, id)?.ok_or_else(|| Error::NoSuchContainer(id.to_string()))
    }

    pub(crate) fn dialect(&self) -> Dialect {
        open::dialect(self.mode)
    }

    /// Returns the layers of a container, the init layer on top.
    pub(crate) fn stack(&self, container: &Container) -> Result<Stack> {
        let mut layers = vec![self.layout.init_layer()];
        if container.on_host {
            layers.extend(init_layer::ensure_host_mask(&self.layout, self.dialect())?);
        }
        layers.extend(
            container
                .layers
                .iter()
                .rev()
                .map(|layer| self.store.layer_dir(layer)),
        );
        Ok(Stack {
            layers,
            on_host: container.on_host,
            dialect: self.dialect(),
            index: self.chain(&container.layers, container.on_host).open(),
        })
    }

    /// Returns what [`crate::HOST_BASE`] stands for, without an init layer.
    pub(crate) fn host_stack(&self) -> Result<Stack> {
        let mask = init_layer::ensure_host_mask(&self.layout, self.dialect())?;
        Ok(Stack {
            layers: mask.into_iter().collect(),
            on_host: true,
            dialect: self.dialect(),
            index: None,
        })
    }

    /// Returns the layers of an image as they are, without an init layer.
    pub(crate) fn image_stack(&self, id: &ImageId) -> Result<Stack> {
        let image = self.store.image(id)?;
        let on_host = create::is_on_host(&image);
        let mut layers = Vec::new();
        if on_host {
            layers.extend(init_layer::ensure_host_mask(&self.layout, self.dialect())?);
        }
        layers.extend(
            image
                .layers
                .iter()
                .rev()
                .map(|layer| self.store.layer_dir(layer)),
        );
        Ok(Stack {
            layers,
            on_host,
            dialect: self.dialect(),
            index: self.chain(&image.layers, on_host).open(),
        })
    }

    pub(crate) fn writable(&self, id: &ContainerId) -> Writable {
        let paths = self.layout.container(id);
        Writable {
            upper: paths.upper(),
            work: paths.work(),
            fit: false,
        }
    }

    /// Returns the image a container stands on.
    pub(crate) fn image_of(&self, container: &Container) -> Option<ImageId> {
        match container.ground {
            Ground::Image(id) => Some(id),
            Ground::Host => None,
        }
    }
}
