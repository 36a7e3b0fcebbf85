//! What can go wrong, and the one place that turns it into an errno.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation of the merged view or of its mount.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call on a known path failed while a view was opened, mounted or examined.
    #[error("{op} {}: {source}", path.display())]
    Path {
        /// What was attempted.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An operation on the view was refused, by its rules or by a system call below it.
    #[error("{op}: {source}")]
    Os {
        /// What was attempted.
        op: &'static str,
        /// The reason, as the caller of the operation gets it.
        source: Errno,
    },
    /// Another process holds the upper layer.
    #[error("upper layer {} is in use by another mount (its work directory is locked)", upper.display())]
    Busy {
        /// The upper's directory.
        upper: PathBuf,
    },
    /// Two of upper, work and the lowers contain one another.
    #[error("{what} {} and {} overlap", a.display(), b.display())]
    Overlap {
        /// Which two roles.
        what: &'static str,
        /// The first directory.
        a: PathBuf,
        /// The second directory.
        b: PathBuf,
    },
    /// The upper holds state that a feature left behind which is off now.
    #[error("upper layer {} was written with {feature}=on, which is off now, and cannot be shown without it (first met at {}): mount it with {feature}=on", upper.display(), at.display())]
    FeatureOff {
        /// The upper's directory.
        upper: PathBuf,
        /// The feature, as its mount option is called.
        feature: &'static str,
        /// An object that has its mark, relative to the upper.
        at: PathBuf,
    },
    /// The file system of the upper cannot hold what an upper needs.
    #[error("{} cannot be an upper layer: {why}", upper.display())]
    Unfit {
        /// The upper's directory.
        upper: PathBuf,
        /// What is missing.
        why: String,
    },
    /// The merged index of a chain of layers cannot be used; views do without.
    #[error("merged index {}: {source}", index.display())]
    Index {
        /// The file.
        index: PathBuf,
        /// Why it is not believed.
        source: mille_layer::index::Rejected,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// An object of the view could not be put into an archive.
    #[error("archive {}: {source}", path.display())]
    Archive {
        /// Its path in the view.
        path: PathBuf,
        /// Why its part of the view could not be read.
        source: Box<Error>,
    },
    /// An archive could not be written.
    #[error(transparent)]
    Encode(#[from] mille_layer::encode::EncodeError),
    /// A layer or an archive could not be read or written.
    #[error("{op}: {source}")]
    Io {
        /// What was attempted.
        op: &'static str,
        /// What failed.
        source: io::Error,
    },
}

impl Error {
    /// A refusal by the rules of the view.
    pub(crate) fn refused(op: &'static str, source: Errno) -> Self {
        Self::Os { op, source }
    }

    /// The errno that a caller of the operation is answered. Chosen here and nowhere else.
    pub fn errno(&self) -> i32 {
        let raw = match self {
            Self::Os { source, .. } => Some(source.raw_os_error()),
            Self::Path { source, .. } | Self::Io { source, .. } => source.raw_os_error(),
            Self::Archive { source, .. } => Some(source.errno()),
            Self::Encode(mille_layer::encode::EncodeError::Write { source, .. }) => {
                source.raw_os_error()
            }
            Self::Encode(_) | Self::Index { .. } => None,
            Self::Busy { .. } => Some(libc::EBUSY),
            Self::Overlap { .. } | Self::Config(_) => Some(libc::EINVAL),
            Self::FeatureOff { .. } => Some(libc::ESTALE),
            Self::Unfit { .. } => Some(libc::EOPNOTSUPP),
        };
        raw.filter(|&raw| raw > 0).unwrap_or(libc::EIO)
    }

    /// True if the errno is this one.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        self.errno() == errno.raw_os_error()
    }
}

/// Says what a failed system call was for.
pub(crate) trait Context<T> {
    /// Names the operation.
    fn op(self, op: &'static str) -> Result<T>;
    /// Names the operation and the path.
    fn on(self, op: &'static str, path: &Path) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn op(self, op: &'static str) -> Result<T> {
        self.map_err(|source| Error::Os { op, source })
    }

    fn on(self, op: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Path {
            op,
            path: path.to_owned(),
            source: source.into(),
        })
    }
}

impl<T> Context<T> for io::Result<T> {
    fn op(self, op: &'static str) -> Result<T> {
        self.map_err(|source| match Errno::from_io_error(&source) {
            Some(source) => Error::Os { op, source },
            None => Error::Io { op, source },
        })
    }

    fn on(self, op: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Path {
            op,
            path: path.to_owned(),
            source,
        })
    }
}
