//! The root of a container to copy from and to: as the container itself sees it while it runs, mounted for the copy when
//! it does not.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mille_union::Access;
use mille_union::fuse::{MountOptions, Mounted};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::lock::Lock;
use crate::{exec, fuse_device, open, process, records, removal};

/// How long to wait for a command that is using the container's files.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Largest passwd or group file that is read.
const MAX_ACCOUNT_BYTES: u64 = 1 << 20;

/// A directory that is mounted in the container.
#[derive(Debug)]
struct Bind {
    source: OwnedFd,
    target: PathBuf,
    writable: bool,
}

/// A container's root.
#[derive(Debug)]
pub(super) struct Root {
    fd: OwnedFd,
    /// Mounts of the user, which a container that does not run has not got.
    binds: Vec<Bind>,
    readonly: bool,
    /// Dropped in this order.
    mounted: Option<Mounted>,
    _lock: Option<Lock>,
}

impl Root {
    /// Opens the root of a container.
    ///
    /// # Errors
    /// It is restarting, or another command uses its files.
    pub(super) fn open(engine: &Engine, container: &Container) -> Result<Self> {
        if container.state.restarting {
            return Err(Error::Restarting(container.id.to_string()));
        }
        if container.is_running() {
            Self::of_running(engine, container)
        } else {
            Self::of_stopped(engine, container)
        }
    }

    fn of_running(engine: &Engine, container: &Container) -> Result<Self> {
        let not_running = || Error::NotRunning(container.id.to_string());
        let state = records::read_state(&engine.layout.container(&container.id))?;
        // The descriptor keeps the number from being given to another process while it is used.
        let first = process::open(state.state.pid, state.init_start).ok_or_else(not_running)?;
        exec::join(engine, &container.id)?;
        let entrance = process::entrance(state.state.pid);
        let path = PathBuf::from(format!("/proc/{}/root", entrance.pid));
        let fd = directory(&path)?;
        if process::ends_within(&first, Duration::ZERO) {
            return Err(not_running());
        }
        Ok(Self {
            fd,
            binds: Vec::new(),
            readonly: container.host_config.readonly_rootfs,
            mounted: None,
            _lock: None,
        })
    }

    fn of_stopped(engine: &Engine, container: &Container) -> Result<Self> {
        let mut binds = Vec::new();
        if engine.mode != crate::Mode::Root && !engine.inside {
            open::go_inside_for(engine)?;
        }
        for mount in container.mounts.iter().map(|mount| &mount.point) {
            // What is not there is made at the next start, not now; a memory file system has no source.
            if let Ok(source) = directory(Path::new(&mount.source)) {
                binds.push(Bind {
                    source,
                    target: PathBuf::from(&mount.destination),
                    writable: mount.rw,
                });
            }
        }
        let paths = engine.layout.container(&container.id);
        let Some(lock) = Lock::take_within(&paths.lock(), LOCK_PATIENCE)? else {
            return Err(Error::Busy(container.id.to_string()));
        };
        let view = engine
            .stack(container)?
            .open(&engine.writable(&container.id), Access::Exclusive)?;
        let merged = paths.merged();
        // A predecessor that was killed may have left its mount.
        removal::unmount_all(&merged)?;
        let options = MountOptions {
            fsname: "mille".to_owned(),
            subtype: crate::mounts::SUBTYPE.to_owned(),
            ..MountOptions::default()
        };
        let mounted =
            mille_union::fuse::mount(view, &merged, &options).map_err(fuse_device::explain)?;
        Ok(Self {
            fd: directory(&merged)?,
            binds,
            readonly: container.host_config.readonly_rootfs,
            mounted: Some(mounted),
            _lock: Some(lock),
        })
    }

    /// Returns the tree in which a path of the container lies, and the path in it.
    pub(super) fn locate(&self, path: &str) -> (BorrowedFd<'_>, String) {
        match self.bind(path) {
            Some((bind, rest)) => {
                // A slash or dot at the end keeps its meaning.
                let end = path.rfind('/').map_or("", |at| &path[at..]);
                let end = if matches!(end, "/" | "/.") { end } else { "" };
                (bind.source.as_fd(), format!("/{rest}{end}"))
            }
            None => (self.fd.as_fd(), path.to_owned()),
        }
    }

    /// The mount in which a path lies, and the path in it.
    fn bind(&self, path: &str) -> Option<(&Bind, String)> {
        let path = Path::new("/").join(path);
        let inside = self.binds.iter().filter_map(|bind| {
            let rest = path.strip_prefix(&bind.target).ok()?;
            Some((bind, rest.to_str()?.to_owned()))
        });
        inside.max_by_key(|(bind, _)| bind.target.as_os_str().len())
    }

    /// Checks that a container that does not run could write there.
    ///
    /// # Errors
    /// Docker's texts.
    pub(super) fn check_writable(&self, path: &str) -> Result<()> {
        let text = match self.bind(path) {
            Some((bind, _)) if bind.writable => return Ok(()),
            Some(_) => "mounted volume is marked read-only",
            None if !self.readonly || self.mounted.is_none() => return Ok(()),
            None => "container rootfs is marked read-only",
        };
        Err(Error::Invalid(text.to_owned()))
    }

    /// Gives an error of the system the words docker has for it.
    pub(super) fn explain(&self, error: Error) -> Error {
        match error {
            Error::Io { source, .. }
                if source.raw_os_error() == Some(libc::EROFS) && self.readonly =>
            {
                Error::Invalid("container rootfs is marked read-only".to_owned())
            }
            Error::Io { source, .. } if source.raw_os_error() == Some(libc::EROFS) => {
                Error::Invalid("mounted volume is marked read-only".to_owned())
            }
            error => error,
        }
    }

    /// Reads a small file of the container; what cannot be read is empty.
    pub(super) fn read(&self, path: &str) -> Vec<u8> {
        use std::io::Read;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut bytes = Vec::new();
        if let Ok(fd) = rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
            let file = std::fs::File::from(fd);
            if let Err(error) = file.take(MAX_ACCOUNT_BYTES).read_to_end(&mut bytes) {
                log::debug!("read {path}: {error}");
            }
        }
        bytes
    }

    /// Takes the root down again.
    ///
    /// # Errors
    /// The mount of a container that does not run cannot be taken away.
    pub(super) fn close(self) -> Result<()> {
        let Self {
            fd,
            binds,
            mounted,
            _lock,
            ..
        } = self;
        drop((fd, binds));
        match mounted {
            Some(mounted) => mounted.unmount().map_err(Error::Union),
            None => Ok(()),
        }
    }
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| Error::io("open", path)(errno.into()))
}
