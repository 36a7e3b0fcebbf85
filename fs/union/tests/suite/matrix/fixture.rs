//! Objects of every kind, put into the layers and into the plain directory.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Absent,
    File,
    Empty,
    /// A file with another name `….l` beside it.
    Linked,
    Fifo,
    /// Symbolic links, to an object `….t` beside them.
    ToFile,
    ToEmpty,
    ToDir,
    ToLink,
    Dangling,
    EmptyDir,
    /// With a file `c`, a directory `s` and a file in it.
    FullDir,
    /// The same, its parts spread over layers.
    MergedDir,
    /// Nothing: a file below and a whiteout above.
    GoneFile,
    GoneDir,
    /// An empty directory that hides a full one.
    HidingDir,
    /// A file that hides a directory.
    HidingFile,
}

impl Kind {
    pub(super) const ALL: &[Self] = &[
        Self::Absent,
        Self::File,
        Self::Empty,
        Self::Linked,
        Self::Fifo,
        Self::ToFile,
        Self::ToEmpty,
        Self::ToDir,
        Self::ToLink,
        Self::Dangling,
        Self::EmptyDir,
        Self::FullDir,
        Self::MergedDir,
        Self::GoneFile,
        Self::GoneDir,
        Self::HidingDir,
        Self::HidingFile,
    ];

    pub(super) const SOME: &[Self] = &[
        Self::Absent,
        Self::File,
        Self::Linked,
        Self::ToDir,
        Self::EmptyDir,
        Self::FullDir,
        Self::MergedDir,
        Self::GoneFile,
        Self::GoneDir,
        Self::HidingDir,
    ];

    /// What the plain directory has for it.
    fn plainly(self) -> Self {
        match self {
            Self::MergedDir => Self::FullDir,
            Self::GoneFile | Self::GoneDir => Self::Absent,
            Self::HidingDir => Self::EmptyDir,
            Self::HidingFile => Self::File,
            other => other,
        }
    }
}

/// Where the layers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Below; what hides it, in the lower above that one.
    Lower,
    /// In the upper (what it hides, or is merged with, in the lower).
    Upper,
    /// In the lower, and copied up.
    Copied,
}

/// Who calls, and whose the objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Root,
    /// An ordinary user, in a directory with objects of his own.
    User,
    /// An ordinary user, with root's objects in his directory.
    Stranger,
    /// The same in a directory where only owners may remove names.
    Sticky,
}

pub(super) const USER: u32 = 54321;

impl Caller {
    pub(super) fn is_root(self) -> bool {
        self == Self::Root
    }
}

/// An object of a fixture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) place: Place,
}

/// Layers in which a fixture is built: the two lowers and the upper.
pub(super) struct Layers<'a> {
    pub(super) bottom: &'a Path,
    pub(super) top: &'a Path,
    pub(super) upper: &'a Path,
}

impl Part {
    pub(super) fn new(name: &'static str, kind: Kind, place: Place) -> Self {
        Self { name, kind, place }
    }

    /// Makes what the plain directory has.
    pub(super) fn build_plain(&self, dir: &Path) {
        make(dir, self.name, self.kind.plainly());
    }

    /// Makes what the layers have.
    pub(super) fn build(&self, layers: &Layers<'_>) {
        let above = match self.place {
            Place::Upper => layers.upper,
            Place::Lower | Place::Copied => layers.top,
        };
        let (bottom, name) = (layers.bottom, self.name);
        match self.kind {
            Kind::MergedDir => {
                fs::create_dir_all(bottom.join(name).join("s")).unwrap();
                write(&bottom.join(name).join("s/f"), b"content of f\n");
                fs::create_dir_all(above.join(name).join("s")).unwrap();
                write(&above.join(name).join("c"), b"content of c\n");
                // As the kernel has it where a directory holds merged ones.
                mark(above, "impure");
                mark(&above.join(name), "impure");
            }
            Kind::GoneFile => {
                make(bottom, name, Kind::File);
                whiteout(above, name);
            }
            Kind::GoneDir => {
                make(bottom, name, Kind::FullDir);
                whiteout(above, name);
            }
            Kind::HidingDir => {
                make(bottom, name, Kind::FullDir);
                fs::create_dir(above.join(name)).unwrap();
                mark(&above.join(name), "opaque");
            }
            Kind::HidingFile => {
                make(bottom, name, Kind::FullDir);
                make(above, name, Kind::File);
            }
            kind if self.place == Place::Upper => make(above, name, kind),
            kind => make(bottom, name, kind),
        }
    }

    /// Has it copied up, by a change that changes nothing.
    pub(super) fn touch(&self, dir: &Path) {
        let path = dir.join(self.name);
        if self.place == Place::Copied
            && let Ok(meta) = path.symlink_metadata()
        {
            let uid = std::os::unix::fs::MetadataExt::uid(&meta);
            lchown(&path, Some(uid), None).unwrap();
            let child = path.join("c");
            if meta.is_dir() && child.exists() {
                lchown(&child, Some(uid), None).unwrap();
            }
        }
    }
}

fn make(dir: &Path, name: &str, kind: Kind) {
    let path = dir.join(name);
    let target = format!("{name}.t");
    match kind {
        Kind::File => write(&path, format!("content of {name}\n").as_bytes()),
        Kind::Empty => write(&path, b""),
        Kind::Linked => {
            write(&path, format!("content of {name}\n").as_bytes());
            fs::hard_link(&path, dir.join(format!("{name}.l"))).unwrap();
        }
        Kind::Fifo => {
            let mode = Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
        }
        Kind::ToFile | Kind::ToEmpty | Kind::ToDir | Kind::ToLink => {
            let goal = match kind {
                Kind::ToFile => Kind::File,
                Kind::ToEmpty => Kind::Empty,
                Kind::ToDir => Kind::FullDir,
                _ => Kind::ToFile,
            };
            make(dir, &target, goal);
            symlink(target, path).unwrap();
        }
        Kind::Dangling => symlink(target, path).unwrap(),
        Kind::EmptyDir => fs::create_dir(path).unwrap(),
        Kind::FullDir => {
            fs::create_dir_all(path.join("s")).unwrap();
            write(&path.join("c"), b"content of c\n");
            write(&path.join("s/f"), b"content of f\n");
        }
        Kind::Absent => {}
        Kind::MergedDir | Kind::GoneFile | Kind::GoneDir | Kind::HidingDir | Kind::HidingFile => {
            panic!("{kind:?} needs layers")
        }
    }
}

fn write(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}

fn mark(dir: &Path, mark: &str) {
    let name = format!("trusted.overlay.{mark}");
    rustix::fs::setxattr(dir, name, b"y", XattrFlags::empty()).unwrap();
}

fn whiteout(dir: &Path, name: &str) {
    let kind = FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, dir.join(name), kind, Mode::empty(), 0).unwrap();
}

/// The time that everything has before the calls.
pub(super) const LONG_AGO: i64 = 1_000_000_000;

/// Gives everything in a directory, and itself, its owner and an old time.
pub(super) fn settle(dir: &Path, caller: Caller, top: bool) {
    let owner = |top: bool| match caller {
        Caller::Root => 0,
        Caller::User => USER,
        Caller::Stranger => u32::from(top) * USER,
        Caller::Sticky => 0,
    };
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            settle(&path, caller, false);
        } else {
            lchown(&path, Some(owner(false)), Some(owner(false))).unwrap();
            set_old(&path);
        }
    }
    lchown(dir, Some(owner(top)), Some(owner(top))).unwrap();
    if top && caller == Caller::Sticky {
        let mode = Mode::from_raw_mode(0o1777);
        rustix::fs::chmod(dir, mode).unwrap();
    }
    set_old(dir);
}

pub(super) fn set_old(path: &Path) {
    let old = Timespec {
        tv_sec: LONG_AGO,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: old,
        last_modification: old,
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
