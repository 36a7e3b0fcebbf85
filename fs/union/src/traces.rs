//! Which features have left marks in an upper, so that a mount that has one of them off refuses the upper as a whole
//! instead of one name after another.
//!
//! The record is an attribute of the directory `work` inside the work directory. The kernel's overlayfs makes that
//! directory anew at each of its mounts, so a record that is there tells that nobody but us has used the work directory
//! since; without one, the upper is searched once, and only if some feature is off. A record that names a feature is only a
//! hint too: the marks may have gone since, and a search makes sure.
//!
//! Invariant: a record that does not name a feature is true, because the record is written before the first mark is.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use mille_layer::{Mark, MarkSpace};
use parking_lot::Mutex;
use rustix::fs::{Dir, FileType, OFlags, XattrFlags};
use rustix::io::Errno;

use crate::config::Features;
use crate::error::{Context, Error, Result};
use crate::layers::Place;
use crate::sys::{open, xattr};

/// Name of the record, after the family's prefix.
const RECORD: &str = "mille.features";

/// A feature that leaves marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trace {
    Redirect,
    Metacopy,
}

impl Trace {
    const ALL: [Self; 2] = [Self::Redirect, Self::Metacopy];

    /// As the mount option is called, and as the record has it.
    fn word(self) -> &'static str {
        match self {
            Self::Redirect => "redirect_dir",
            Self::Metacopy => "metacopy",
        }
    }

    fn is_on(self, features: Features) -> bool {
        match self {
            Self::Redirect => features.redirect_dir,
            Self::Metacopy => features.metacopy,
        }
    }

    /// The mark, on an object of this kind.
    fn mark(self, kind: FileType) -> Option<Mark> {
        match (self, kind) {
            (Self::Redirect, FileType::Directory) => Some(Mark::Redirect),
            (Self::Metacopy, FileType::RegularFile) => Some(Mark::Metacopy),
            _ => None,
        }
    }
}

/// What is known of the marks in an upper.
#[derive(Debug)]
pub(crate) struct Traces {
    name: OsString,
    /// The features that the record names; `None` while there is no record.
    recorded: Mutex<Option<Vec<Trace>>>,
}

impl Traces {
    /// Reads the record of an upper and refuses the upper if it has marks of a feature that is off.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], or a failed system call on the upper or the work directory.
    pub(crate) fn open(
        work: BorrowedFd<'_>,
        upper: &Place,
        space: MarkSpace,
        features: Features,
    ) -> Result<Self> {
        let name = OsString::from(format!("{}{RECORD}", space.prefix()));
        let record = xattr::get(work, &name).on("read record of features of", &upper.path)?;
        let mut recorded = record.map(|record| parse(&record));
        let off = Trace::ALL.map(|trace| (trace, !trace.is_on(features)));
        let suspect = off.into_iter().any(|(trace, off)| {
            off && recorded
                .as_ref()
                .is_none_or(|recorded| recorded.contains(&trace))
        });
        let fresh = recorded.is_none() && is_empty(upper).on("read", &upper.path)?;
        if suspect && !fresh {
            let found = search(upper, space, features)?;
            recorded = Some(found);
        } else if fresh {
            recorded = Some(Vec::new());
        } else {
            return Ok(Self::with(name, recorded));
        }
        let this = Self::with(name, None);
        if let Some(recorded) = recorded {
            // Only a hint for the next mount: where it cannot be kept, that one searches.
            match this.write(work, &recorded) {
                Ok(()) => *this.recorded.lock() = Some(recorded),
                Err(errno) => log::debug!("features of {}: {errno}", upper.path.display()),
            }
        }
        Ok(this)
    }

    fn with(name: OsString, recorded: Option<Vec<Trace>>) -> Self {
        Self {
            name,
            recorded: Mutex::new(recorded),
        }
    }

    /// Notes that a mark of a feature is about to be written. Costs something only the first time.
    pub(crate) fn note(&self, work: BorrowedFd<'_>, trace: Trace) -> Result<()> {
        let mut recorded = self.recorded.lock();
        let Some(known) = recorded.as_mut() else {
            return Ok(());
        };
        if known.contains(&trace) {
            return Ok(());
        }
        let more: Vec<Trace> = known.iter().copied().chain([trace]).collect();
        self.write(work, &more).op("record a feature")?;
        *known = more;
        Ok(())
    }

    fn write(&self, work: BorrowedFd<'_>, traces: &[Trace]) -> std::result::Result<(), Errno> {
        let words: Vec<&str> = traces.iter().map(|trace| trace.word()).collect();
        xattr::set(
            work,
            &self.name,
            words.join(" ").as_bytes(),
            XattrFlags::empty(),
        )
    }
}

fn parse(record: &[u8]) -> Vec<Trace> {
    let words = || record.split(|&byte| byte == b' ');
    let named = |trace: &Trace| words().any(|word| word == trace.word().as_bytes());
    Trace::ALL.into_iter().filter(named).collect()
}

/// True if there is nothing in an upper.
pub(crate) fn is_empty(upper: &Place) -> std::result::Result<bool, Errno> {
    Ok(entries(upper.fd.as_fd())?.is_empty())
}

fn entries(dir: BorrowedFd<'_>) -> std::result::Result<Vec<(OsString, FileType)>, Errno> {
    let readable = open::reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut found = Vec::new();
    for entry in Dir::new(readable)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

/// Looks at every directory and regular file of an upper. Returns the features that are on and have left marks.
///
/// # Errors
/// [`Error::FeatureOff`] at the first mark of one that is off.
fn search(upper: &Place, space: MarkSpace, features: Features) -> Result<Vec<Trace>> {
    let mut found = Vec::new();
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let dir = open::dir_beneath(upper.fd.as_fd(), &path).on("search", &upper.path)?;
        for (name, kind) in entries(dir.as_fd()).on("search", &upper.path)? {
            let object = open::handle(dir.as_fd(), &name).on("search", &upper.path)?;
            let kind = match kind {
                FileType::Unknown => {
                    let stat = rustix::fs::fstat(&object).on("search", &upper.path)?;
                    FileType::from_raw_mode(stat.st_mode)
                }
                known => known,
            };
            let path = crate::node::join(&path, &name);
            for trace in marked(object.as_fd(), kind, space).on("search", &upper.path)? {
                if !trace.is_on(features) {
                    return Err(Error::FeatureOff {
                        upper: upper.path.clone(),
                        feature: trace.word(),
                        at: PathBuf::from(OsStr::from_bytes(&path)),
                    });
                }
                if !found.contains(&trace) {
                    found.push(trace);
                }
            }
            if kind == FileType::Directory {
                todo.push(path);
            }
        }
    }
    Ok(found)
}

fn marked(
    object: BorrowedFd<'_>,
    kind: FileType,
    space: MarkSpace,
) -> std::result::Result<Vec<Trace>, Errno> {
    let mut found = Vec::new();
    for trace in Trace::ALL {
        if let Some(mark) = trace.mark(kind)
            && xattr::get(object, space.os_name(mark))?.is_some()
        {
            found.push(trace);
        }
    }
    Ok(found)
}
