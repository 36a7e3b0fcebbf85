//! Where everything of a container lies, on disk and at run time.

use std::path::{Path, PathBuf};

use crate::ids::ContainerId;

/// Paths below one store root and its run-time directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The store's root.
    pub(crate) root: PathBuf,
    /// The run-time directory of this root.
    pub(crate) run: PathBuf,
}

/// Digits of the root's hash in the name of its run-time directory.
pub(crate) const HASH_DIGITS: usize = 12;

impl Layout {
    /// Directory of all containers.
    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Containers being made or removed: whatever lies here unlocked is a leftover.
    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("containers").join(".staging")
    }

    /// One symbolic link per container name, pointing at the id: making one is the claim.
    pub(crate) fn names(&self) -> PathBuf {
        self.root.join("container-names")
    }

    /// What happened, one line each.
    pub(crate) fn events(&self) -> PathBuf {
        self.run.join("events")
    }

    /// What happened before that.
    pub(crate) fn old_events(&self) -> PathBuf {
        self.run.join("events.old")
    }

    /// Held while one becomes the other.
    pub(crate) fn events_lock(&self) -> PathBuf {
        self.run.join("events.lock")
    }

    /// Compiled seccomp filters.
    pub(crate) fn seccomp(&self) -> PathBuf {
        self.run.join("seccomp")
    }

    /// Says that uppers on a file system hold what they have to.
    pub(crate) fn fit_mark(&self, device: u64) -> PathBuf {
        self.run.join(format!("fit-{device:x}"))
    }

    /// One file per mount of people's own.
    pub(crate) fn served(&self) -> PathBuf {
        self.run.join("mounts")
    }

    /// One directory per volume.
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The layer with mount points and stubs that all containers have between image and upper.
    pub(crate) fn init_layer(&self) -> PathBuf {
        self.root.join("init-layer")
    }

    /// The paths of one container.
    pub(crate) fn container(&self, id: &ContainerId) -> ContainerPaths {
        ContainerPaths {
            directory: self.containers().join(id.as_str()),
            run: self.run.join(id.as_str()),
            log_name: format!("{id}-json.log"),
        }
    }

    /// The lock of a container that is about to be made, before it has a directory.
    pub(crate) fn staging_lock(&self, id: &ContainerId) -> PathBuf {
        self.staging().join(format!(".{id}.lock"))
    }

    /// The paths of one container while it is being made.
    pub(crate) fn staged(&self, id: &ContainerId) -> ContainerPaths {
        ContainerPaths {
            directory: self.staging().join(id.as_str()),
            ..self.container(id)
        }
    }
}

/// Paths of one container.
#[derive(Debug, Clone)]
pub(crate) struct ContainerPaths {
    /// Its directory below the store root.
    pub(crate) directory: PathBuf,
    /// Its directory at run time; exists while its monitor lives.
    pub(crate) run: PathBuf,
    log_name: String,
}

impl ContainerPaths {
    /// Name of the record file.
    pub(crate) const RECORD: &'static str = "container.json";
    /// Name of the state file.
    pub(crate) const STATE: &'static str = "state.json";

    pub(crate) fn record(&self) -> PathBuf {
        self.directory.join(Self::RECORD)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.join(Self::STATE)
    }

    /// Held by the monitor for its life, and by whoever makes or removes the container.
    pub(crate) fn lock(&self) -> PathBuf {
        self.directory.join("lock")
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.directory.join("work")
    }

    pub(crate) fn merged(&self) -> PathBuf {
        self.directory.join("merged")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory.join(&self.log_name)
    }

    /// What monitors of this container had to say.
    pub(crate) fn monitor_log(&self) -> PathBuf {
        self.directory.join("monitor.log")
    }

    /// What the monitor that lives now has to say: most have nothing, and a file in memory costs nothing.
    pub(crate) fn monitor_notes(&self) -> PathBuf {
        self.run.join("monitor.log")
    }

    /// A file of /etc that is written at each start: in memory, since it is of no use after the run.
    pub(crate) fn etc(&self, file: &str) -> PathBuf {
        self.run.join(file)
    }

    /// Is there if the container was given limits while it ran.
    pub(crate) fn limited(&self) -> PathBuf {
        self.run.join("limited")
    }

    /// One file per further command that runs in it.
    pub(crate) fn execs(&self) -> PathBuf {
        self.run.join("execs")
    }

    /// The monitor's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run.join("sock")
    }
}

/// Returns whether the longest path the engine makes below `base` still fits into a socket address (108 bytes with the
/// closing NUL).
pub(crate) fn fits_socket(base: &Path) -> bool {
    // base / hash / 64 digits / "sock" NUL
    base.as_os_str().len() + 1 + HASH_DIGITS + 1 + 64 + 1 + 4 < 108
}
