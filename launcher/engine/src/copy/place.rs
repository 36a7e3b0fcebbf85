//! What the two ends of a copy mean: paths of the machine and of a container, by docker's rules for trailing slashes,
//! dots and links.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::shown;
use crate::error::{Error, Result};

/// Links that are followed at most to find a destination that is not there.
const MAX_LINKS: usize = 10;
/// `openat2` may say EAGAIN while something is being renamed; each try is a whole walk.
const MAX_TRIES: usize = 128;

/// What is to be copied.
#[derive(Debug)]
pub(super) struct Source {
    /// The thing itself, opened for nothing but its place.
    pub(super) object: OwnedFd,
    pub(super) kind: FileType,
    /// Its name in a directory it is copied into.
    pub(super) name: OsString,
    /// The name that a link led to which was to be followed.
    pub(super) followed: Option<OsString>,
    /// `dir/.`: what is in it, not it.
    pub(super) contents_only: bool,
}

/// Where it is to go.
#[derive(Debug)]
pub(super) enum Destination {
    /// A directory that is there.
    Directory(OwnedFd),
    /// Something else, or nothing yet, in a directory that is there.
    Other {
        parent: OwnedFd,
        name: OsString,
        exists: bool,
        /// It was typed with a slash at its end: it is to be a directory.
        asserted: bool,
    },
}

/// Whose paths are resolved.
#[derive(Clone, Copy)]
enum World<'r> {
    Machine,
    Container(BorrowedFd<'r>),
}

impl World<'_> {
    fn open(self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let World::Container(root) = self else {
            return rustix::fs::open(path, flags, Mode::empty());
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
                other => return other,
            }
        }
    }
}

fn kind_of(fd: impl AsFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// What was typed, taken apart.
struct Typed {
    /// Cleaned by its text, absolute.
    path: PathBuf,
    /// It ends with a slash or a dot: a link at its end is followed, and it has to be a directory.
    asserted: bool,
    /// It ends with `/.`.
    contents_only: bool,
}

impl Typed {
    fn new(text: &[u8], base: &Path) -> Self {
        let dot = text == b"." || text.ends_with(b"/.");
        let mut path = base.to_path_buf();
        for component in Path::new(OsStr::from_bytes(text)).components() {
            match component {
                Component::Normal(name) => path.push(name),
                Component::ParentDir => drop(path.pop()),
                Component::RootDir => path = PathBuf::from("/"),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Self {
            asserted: dot || text.ends_with(b"/") || text.ends_with(b".."),
            contents_only: dot || path == Path::new("/"),
            path,
        }
    }

    fn name(&self) -> OsString {
        self.path.file_name().unwrap_or(OsStr::new(".")).to_owned()
    }

    fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }
}

impl Source {
    /// Finds something of the machine's.
    pub(super) fn of_machine(path: &Path, follow: bool) -> Result<Self> {
        let base = std::env::current_dir().map_err(Error::system("find the current directory"))?;
        let typed = Typed::new(path.as_os_str().as_bytes(), &base);
        let missing = |path: &Path, errno: Errno| {
            Error::Client(format!("lstat {}: {}", path.display(), go(errno)))
        };
        let found = find(World::Machine, &typed, follow);
        let (object, kind, _) = found.map_err(|(path, errno)| missing(&path, errno))?;
        if typed.asserted && kind != FileType::Directory {
            return Err(Error::Client("not a directory".to_owned()));
        }
        Ok(Self {
            object,
            kind,
            name: typed.name(),
            followed: None,
            contents_only: typed.contents_only,
        })
    }

    /// Finds something in a container.
    pub(super) fn in_container(
        root: BorrowedFd<'_>,
        text: &str,
        container: &str,
        follow: bool,
    ) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::Invalid(
                "bad parameter: pathcannot be empty".to_owned(),
            ));
        }
        let typed = Typed::new(text.as_bytes(), Path::new("/"));
        let missing = |path: &Path, errno: Errno| match errno {
            Errno::NOENT => not_found(path, container),
            errno => Error::Invalid(format!("lstat {}: {}", path.display(), go(errno))),
        };
        let found = find(World::Container(root), &typed, follow);
        let (object, kind, followed) = found.map_err(|(path, errno)| missing(&path, errno))?;
        if typed.asserted && kind != FileType::Directory {
            return Err(Error::Invalid(format!("lstat {text}: not a directory")));
        }
        if is_kernels(object.as_fd()) {
            return Err(not_found(&typed.path, container));
        }
        Ok(Self {
            object,
            kind,
            name: typed.name(),
            followed,
            contents_only: typed.contents_only,
        })
    }
}

/// Opens what is typed: a link itself, unless it is to be followed, when the name it leads to comes with it. Errors name
/// what is not there.
fn find(
    world: World<'_>,
    typed: &Typed,
    follow: bool,
) -> Result<(OwnedFd, FileType, Option<OsString>), (PathBuf, Errno)> {
    let at = |path: &Path| {
        let path = path.to_path_buf();
        move |errno| (path, errno)
    };
    let object = world
        .open(&typed.path, OFlags::NOFOLLOW)
        .map_err(at(&typed.path))?;
    let kind = kind_of(&object).map_err(at(&typed.path))?;
    if kind != FileType::Symlink || !(follow || typed.asserted) {
        return Ok((object, kind, None));
    }
    let target = target_of(object.as_fd(), &typed.path).map_err(at(&typed.path))?;
    let object = world
        .open(&typed.path, OFlags::empty())
        .map_err(at(&target))?;
    let kind = kind_of(&object).map_err(at(&target))?;
    // A slash at the end follows the link, too, and its name stays.
    let name = target.file_name().filter(|_| follow);
    let name = name.map(OsStr::to_os_string);
    Ok((object, kind, name))
}

/// Where the link at `path` points, cleaned by its text.
fn target_of(link: BorrowedFd<'_>, path: &Path) -> Result<PathBuf, Errno> {
    let target = rustix::fs::readlinkat(link, c"", Vec::new())?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(Typed::new(target.as_bytes(), parent).path)
}

impl Destination {
    /// Finds a place in a container.
    pub(super) fn in_container(root: BorrowedFd<'_>, text: &str, container: &str) -> Result<Self> {
        let typed = Typed::new(text.as_bytes(), Path::new("/"));
        if text.is_empty() {
            return Err(Error::Client("no such directory".to_owned()));
        }
        let found = Self::find(World::Container(root), typed, text.ends_with("/."));
        let place = found.map_err(|(path, errno)| match errno {
            Errno::NOENT => not_found(&path, container),
            errno => Error::Invalid(format!("lstat {}: {}", path.display(), go(errno))),
        })?;
        let directory = match &place {
            Self::Directory(directory) => directory,
            Self::Other { parent, .. } => parent,
        };
        if is_kernels(directory.as_fd()) {
            return Err(not_found(Path::new(text), container));
        }
        Ok(place)
    }

    /// Finds a place on the machine.
    pub(super) fn on_machine(path: &Path) -> Result<Self> {
        let base = std::env::current_dir().map_err(Error::system("find the current directory"))?;
        let typed = Typed::new(path.as_os_str().as_bytes(), &base);
        if typed.asserted
            && let Ok(object) = World::Machine.open(&typed.path, OFlags::empty())
            && kind_of(&object).is_ok_and(|kind| kind != FileType::Directory)
        {
            let shown = typed.path.display();
            return Err(Error::Client(format!("stat {shown}/: not a directory")));
        }
        Self::find(World::Machine, typed, false).map_err(|(path, errno)| match errno {
            Errno::NOENT => Error::Client(format!(
                "invalid output path: directory {:?} does not exist",
                path.display().to_string()
            )),
            errno => Error::Client(format!("stat {}: {}", path.display(), go(errno))),
        })
    }

    /// Follows links to what is there, or to where it would be; then its directory must be there.
    fn find(world: World<'_>, mut typed: Typed, within: bool) -> Result<Self, (PathBuf, Errno)> {
        for _ in 0..MAX_LINKS {
            let object = match world.open(&typed.path, OFlags::NOFOLLOW) {
                Ok(object) => object,
                // `/new/.` wants /new to be there already.
                Err(Errno::NOENT) if !within => return Self::other(world, &typed, false),
                Err(errno) => return Err((typed.path, errno)),
            };
            let kind = kind_of(&object).map_err(|errno| (typed.path.clone(), errno))?;
            match kind {
                FileType::Directory => return Ok(Self::Directory(object)),
                // What it names is written to, or made where it leads nowhere.
                FileType::Symlink => {
                    let target = target_of(object.as_fd(), &typed.path);
                    typed.path = target.map_err(|errno| (typed.path.clone(), errno))?;
                }
                _ => return Self::other(world, &typed, true),
            }
        }
        Err((typed.path, Errno::LOOP))
    }

    fn other(world: World<'_>, typed: &Typed, exists: bool) -> Result<Self, (PathBuf, Errno)> {
        let parent = world.open(typed.parent(), OFlags::DIRECTORY);
        Ok(Self::Other {
            parent: parent.map_err(|errno| (typed.parent().to_path_buf(), errno))?,
            name: typed.name(),
            exists,
            asserted: typed.asserted,
        })
    }

    /// The directory, if it is one that is there.
    pub(super) fn existing_directory(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Directory(directory) => Some(directory.as_fd()),
            Self::Other { .. } => None,
        }
    }
}

fn not_found(path: &Path, container: &str) -> Error {
    Error::Invalid(format!(
        "Could not find the file {} in container {container}",
        shown(path.as_os_str())
    ))
}

/// Whether something lies on a file system of the kernel's own, which `cp` does not see: /proc, /sys.
pub(super) fn is_kernels(fd: BorrowedFd<'_>) -> bool {
    /// proc, sysfs, cgroup, cgroup2, devpts, mqueue (`linux/magic.h`).
    const MAGIC: [i64; 6] = [
        0x9fa0,
        0x6265_6572,
        0x0027_e0eb,
        0x6367_7270,
        0x1cd1,
        0x1980_0202,
    ];
    // Of a descriptor that was opened for its place only, fstatfs knows this too.
    rustix::fs::fstatfs(fd).is_ok_and(|stat| MAGIC.contains(&stat.f_type))
}

/// An error in Go's words.
pub(super) fn go(errno: Errno) -> String {
    let text = nix::errno::Errno::from_raw(errno.raw_os_error()).desc();
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Opens a name of a directory for its place, without following it.
pub(super) fn open_entry(directory: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}

/// Opens for reading what has been opened for its place: a regular file or a directory.
pub(super) fn reopen(object: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", object.as_raw_fd());
    rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_taken_apart() {
        for (text, path, asserted, contents_only) in [
            ("/d/new", "/d/new", false, false),
            ("/d/new/", "/d/new", true, false),
            ("/d/new/.", "/d/new", true, true),
            ("d/new", "/base/d/new", false, false),
            ("../../../s/file", "/s/file", false, false),
            ("/", "/", true, true),
            (".", "/base", true, true),
        ] {
            let typed = Typed::new(text.as_bytes(), Path::new("/base"));
            assert_eq!(
                (typed.path.as_path(), typed.asserted, typed.contents_only),
                (Path::new(path), asserted, contents_only),
                "{text}"
            );
        }
    }
}
