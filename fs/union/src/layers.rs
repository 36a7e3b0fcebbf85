//! The directories a view is made of, opened once.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use mille_layer::{Dialects, MarkSpace, Ownership};
use rustix::fs::{CWD, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::config::{Lower, LowerOwnership, LowerSource};
use crate::error::{Context, Error, Result};
use crate::sys;

/// A lower layer, held open.
#[derive(Debug)]
pub(crate) struct LowerLayer {
    root: OnceLock<Arc<OwnedFd>>,
    /// Where to open it when it is needed; the others are open.
    path: Option<PathBuf>,
    pub(crate) stat: Stat,
    pub(crate) dialects: Dialects,
    pub(crate) mutable: bool,
    pub(crate) plain: bool,
    pub(crate) data_only: bool,
}

impl LowerLayer {
    /// A layer of a chain that has an index: its directory is opened when something in it is read.
    pub(crate) fn indexed(lower: Lower, stat: Stat, dialects: Dialects) -> Result<Self> {
        let usual = lower.plain && !(lower.mutable || lower.aufs || lower.data_only);
        let LowerSource::Path(path) = lower.dir else {
            return Err(foreign_chain());
        };
        if !usual || lower.ownership != LowerOwnership::AsUpper {
            return Err(foreign_chain());
        }
        Ok(Self {
            root: OnceLock::new(),
            path: Some(path),
            stat,
            dialects,
            mutable: false,
            plain: true,
            data_only: false,
        })
    }

    /// Where it is, if it is opened only when it is needed.
    pub(crate) fn unopened(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The handle of its root.
    ///
    /// # Errors
    /// It is opened now and cannot be; `ESTALE` if another directory has taken its place.
    pub(crate) fn root(&self) -> Result<Arc<OwnedFd>> {
        if let Some(root) = self.root.get() {
            return Ok(root.clone());
        }
        let path = self.unopened().ok_or(foreign_chain())?;
        let place = Place::open(path)?;
        if (place.stat.st_dev, place.stat.st_ino) != (self.stat.st_dev, self.stat.st_ino) {
            return Err(Error::refused("open layer", Errno::STALE));
        }
        let root = Arc::new(private(&place)?);
        Ok(self.root.get_or_init(|| root).clone())
    }
}

/// An index was given with layers of another kind.
pub(crate) fn foreign_chain() -> Error {
    Error::Config("these layers are not those of the merged index".to_owned())
}

/// The upper layer, held open.
#[derive(Debug)]
pub(crate) struct UpperLayer {
    pub(crate) root: Arc<OwnedFd>,
    pub(crate) stat: Stat,
    /// The private mount it is reached through, where there is one.
    pub(crate) _tree: Option<OwnedFd>,
}

/// A place that takes part in a view, as messages and overlap checks need it.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) fd: OwnedFd,
    pub(crate) stat: Stat,
}

impl Place {
    /// Opens a directory by path.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).on("open directory", path)?;
        let stat = rustix::fs::fstat(&fd).on("stat", path)?;
        Ok(Self {
            path: path.to_owned(),
            fd,
            stat,
        })
    }
}

/// Opens a lower layer; returns it and the place it was found at.
pub(crate) fn open_lower(
    lower: Lower,
    space: MarkSpace,
    ownership: Ownership,
) -> Result<(LowerLayer, Place)> {
    let place = match lower.dir {
        LowerSource::Path(path) => Place::open(&path)?,
        LowerSource::Fd(fd) => {
            let path = PathBuf::from("(descriptor)");
            let stat = rustix::fs::fstat(&fd).on("stat", &path)?;
            Place { path, fd, stat }
        }
    };
    let root = private(&place)?;
    let ownership = match lower.ownership {
        // The machine's own files carry no marks of ours.
        _ if lower.mutable => Ownership::Real,
        LowerOwnership::AsUpper => ownership,
        LowerOwnership::AsItsRootSays => told_by_root(&place)?,
    };
    let mut dialects = dialects(space, ownership);
    dialects.aufs = lower.aufs;
    dialects.overrides &= !lower.mutable;
    dialects.null_devices &= !lower.mutable;
    let layer = LowerLayer {
        root: OnceLock::from(Arc::new(root)),
        path: None,
        stat: place.stat,
        dialects,
        mutable: lower.mutable,
        plain: lower.plain,
        data_only: lower.data_only,
    };
    Ok((layer, place))
}

/// A handle of a layer's root that leads to that layer alone, and only for reading, where the system allows such a thing.
fn private(place: &Place) -> Result<OwnedFd> {
    match sys::mount::read_only_clone(place.fd.as_fd()) {
        Ok(clone) => Ok(clone),
        Err(errno) => {
            // An ordinary user, or mounts below that the namespace may not uncover: walk the original, never crossing
            // a mount.
            log::debug!(
                "lower layer {} is read without a private mount: {errno}",
                place.path.display()
            );
            let copy = place.fd.try_clone();
            copy.on("duplicate descriptor of", &place.path)
        }
    }
}

/// How a layer is read. Where device nodes can be made they are not taken from an attribute that every owner of a file
/// can set, unless the mount asks for it: the device would work, whoever wrote the attribute.
pub(crate) fn dialects(space: MarkSpace, ownership: Ownership) -> Dialects {
    let mut dialects = Dialects::new(space, ownership);
    if ownership == Ownership::Real && sys::caller::makes_devices() {
        dialects.overrides = false;
        dialects.null_devices = true;
    }
    dialects
}

fn told_by_root(place: &Place) -> Result<Ownership> {
    let told = mille_layer::OverrideStat::get(place.fd.as_fd(), None);
    Ok(match told.on("read owner of", &place.path)? {
        Some(_) => Ownership::Override,
        None => Ownership::Real,
    })
}
