//! The marks that make a directory an overlay layer.
//!
//! Three dialects of whiteout are read:
//! * character device 0:0 (kernel overlay's own; the only one written),
//! * AUFS/OCI files: `.wh.NAME` hides NAME, `.wh..wh..opq` makes its directory opaque, other `.wh..wh.*` mean nothing,
//! * empty regular file with xattr `overlay.whiteout`, in a directory whose `overlay.opaque` is `x`.
//!
//! Marks live in `trusted.overlay.*` (root) or `user.overlay.*` (user namespaces): one [`MarkSpace`] per mount, the
//! other family is never believed, but both are hidden and never exported.

mod names;
mod object;

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, mknodat, openat, statat};
use rustix::io::Errno;

use crate::overrides::OverrideStat;
use crate::resolve::Redirect;
use crate::xattr;

pub use names::{is_internal_xattr, is_reserved_name, shown_xattr, stored_xattr};
pub use object::{DirMarks, FileMarks, dir_marks, file_marks};

/// Attribute that carries ownership, mode and type where the real ones cannot (see [`OverrideStat`]).
pub const OVERRIDE_STAT: &CStr = c"user.containers.override_stat";

/// Prefix of AUFS/OCI whiteout files.
pub(crate) const AUFS_PREFIX: &[u8] = b".wh.";
/// Prefix of AUFS's own bookkeeping, not whiteouts.
pub(crate) const AUFS_META_PREFIX: &[u8] = b".wh..wh.";
/// AUFS/OCI opaque marker.
pub(crate) const AUFS_OPAQUE: &[u8] = b".wh..wh..opq";

/// Which xattr family holds the overlay marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MarkSpace {
    /// `trusted.overlay.*`: needs CAP_SYS_ADMIN in the first user namespace.
    Trusted,
    /// `user.overlay.*`: as kernel overlay with `userxattr`.
    User,
}

/// One overlay mark; its xattr name depends on the [`MarkSpace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// `y`: nothing below this directory shows through; `x`: it may hold xattr whiteouts.
    Opaque,
    /// Where the layers below know this object.
    Redirect,
    /// The file's data is in a layer below.
    Metacopy,
    /// File handle of the lower object this one was copied from.
    Origin,
    /// The directory holds copied-up entries.
    Impure,
    /// This empty regular file is a whiteout.
    Whiteout,
    /// Difference of link counts between union and upper.
    Nlink,
    /// This empty regular file is the character device 0:0, which would be a whiteout if it were stored as itself.
    NullDevice,
    /// `y`: made by extraction because the tar lacked it; attributes come from the layer below.
    Implied,
    /// Decimal digits: the inode number a mount of the union has shown for this object, from before its copy-up.
    Ino,
}

impl Mark {
    /// The mark with this name after the family's prefix.
    fn of_short_name(name: &[u8]) -> Option<Mark> {
        Some(match name {
            b"opaque" => Mark::Opaque,
            b"redirect" => Mark::Redirect,
            b"metacopy" => Mark::Metacopy,
            b"origin" => Mark::Origin,
            b"impure" => Mark::Impure,
            b"whiteout" => Mark::Whiteout,
            b"nlink" => Mark::Nlink,
            b"implied" => Mark::Implied,
            b"mille.ino" => Mark::Ino,
            _ => return None,
        })
    }
}

impl MarkSpace {
    /// Returns the prefix of the family, with its final dot.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            MarkSpace::Trusted => "trusted.overlay.",
            MarkSpace::User => "user.overlay.",
        }
    }

    /// Returns the full xattr name of `mark`.
    #[must_use]
    pub fn name(self, mark: Mark) -> &'static CStr {
        match (self, mark) {
            (MarkSpace::Trusted, Mark::Opaque) => c"trusted.overlay.opaque",
            (MarkSpace::Trusted, Mark::Redirect) => c"trusted.overlay.redirect",
            (MarkSpace::Trusted, Mark::Metacopy) => c"trusted.overlay.metacopy",
            (MarkSpace::Trusted, Mark::Origin) => c"trusted.overlay.origin",
            (MarkSpace::Trusted, Mark::Impure) => c"trusted.overlay.impure",
            (MarkSpace::Trusted, Mark::Whiteout) => c"trusted.overlay.whiteout",
            (MarkSpace::Trusted, Mark::Nlink) => c"trusted.overlay.nlink",
            (MarkSpace::Trusted, Mark::NullDevice) => c"trusted.overlay.mille.null",
            (MarkSpace::Trusted, Mark::Implied) => c"trusted.overlay.implied",
            (MarkSpace::Trusted, Mark::Ino) => c"trusted.overlay.mille.ino",
            (MarkSpace::User, Mark::Opaque) => c"user.overlay.opaque",
            (MarkSpace::User, Mark::Redirect) => c"user.overlay.redirect",
            (MarkSpace::User, Mark::Metacopy) => c"user.overlay.metacopy",
            (MarkSpace::User, Mark::Origin) => c"user.overlay.origin",
            (MarkSpace::User, Mark::Impure) => c"user.overlay.impure",
            (MarkSpace::User, Mark::Whiteout) => c"user.overlay.whiteout",
            (MarkSpace::User, Mark::Nlink) => c"user.overlay.nlink",
            (MarkSpace::User, Mark::NullDevice) => c"user.overlay.mille.null",
            (MarkSpace::User, Mark::Implied) => c"user.overlay.implied",
            (MarkSpace::User, Mark::Ino) => c"user.overlay.mille.ino",
        }
    }

    /// As [`Self::name`], as the name of a file has it.
    #[must_use]
    pub fn os_name(self, mark: Mark) -> &'static OsStr {
        OsStr::from_bytes(self.name(mark).to_bytes())
    }
}

/// Where ownership, mode and type of a layer's objects are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// In the objects themselves.
    Real,
    /// In [`OVERRIDE_STAT`] of files and directories (one-id maps). Symbolic links cannot carry it: they belong to
    /// 0:0 there.
    Override,
}

/// How one layer's directory is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialects {
    /// The family of marks that is believed.
    pub space: MarkSpace,
    /// `.wh.` files may occur and mean whiteouts; otherwise they are ordinary names.
    pub aufs: bool,
    /// Where ownership is kept.
    pub ownership: Ownership,
    /// Regular files may stand for devices, fifos and sockets by [`OVERRIDE_STAT`].
    pub overrides: bool,
    /// Empty regular files may stand for the character device 0:0 by [`Mark::NullDevice`]. Only where no `overrides`
    /// say so: that attribute is one that every owner of a file can set.
    pub null_devices: bool,
}

impl Dialects {
    /// The dialects of layers made by this crate: no `.wh.` files; overrides wherever device nodes cannot be made.
    #[must_use]
    pub fn new(space: MarkSpace, ownership: Ownership) -> Dialects {
        let overrides = space == MarkSpace::User || ownership == Ownership::Override;
        Dialects {
            space,
            aufs: false,
            ownership,
            overrides,
            null_devices: !overrides,
        }
    }

    /// The same, with `.wh.` files read as whiteouts.
    #[must_use]
    pub fn with_aufs(mut self) -> Dialects {
        self.aufs = true;
        self
    }
}

/// Whether a directory hides the layers below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Opaque {
    /// No.
    #[default]
    No,
    /// Yes.
    Yes,
    /// No, but empty files in it with the whiteout xattr are whiteouts.
    XattrWhiteouts,
}

impl Opaque {
    /// What the value of the mark says.
    fn of(value: Option<&[u8]>) -> Opaque {
        match value {
            Some(b"y") => Opaque::Yes,
            Some(b"x") => Opaque::XattrWhiteouts,
            _ => Opaque::No,
        }
    }
}

/// What a layer says about one name.
#[derive(Debug, Clone, Copy)]
pub enum Probe {
    /// Nothing: look further below.
    Absent,
    /// The name is deleted here: look no further.
    Whiteout,
    /// This object, with overrides applied (owner, mode, type as the container sees them).
    Object(Stat),
}

/// One entry of a layer's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name as the container knows it (`x` for `.wh.x`).
    pub name: OsString,
    /// Inode number in the layer's filesystem.
    pub ino: u64,
    /// What stands there.
    pub kind: ListedKind,
}

/// What a directory entry of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedKind {
    /// The name is deleted in this layer.
    Whiteout,
    /// An object of this type, overrides applied; what stands for the device 0:0 is not told from an empty file here.
    Object(FileType),
}

/// Looks up `name` in the layer directory `dir` (any kind of descriptor, `O_PATH` too), in all whiteout dialects.
///
/// An object wins over an AUFS whiteout of the same name beside it: whiteouts act on lower layers only.
///
/// # Errors
/// Whatever the kernel says, except that the name is missing.
pub fn probe(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    opaque_of_dir: Opaque,
    dialects: &Dialects,
) -> io::Result<Probe> {
    if dialects.aufs && name.as_bytes().starts_with(AUFS_PREFIX) {
        return Ok(Probe::Absent);
    }
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(mut stat) => {
            if is_whiteout(dir, name, &stat, opaque_of_dir, dialects.space)? {
                return Ok(Probe::Whiteout);
            }
            apply_override(dir, Some(name), &mut stat, dialects)?;
            Ok(Probe::Object(stat))
        }
        Err(Errno::NOENT) if dialects.aufs && aufs_whiteout_exists(dir, name)? => {
            Ok(Probe::Whiteout)
        }
        Err(Errno::NOENT) => Ok(Probe::Absent),
        Err(error) => Err(error.into()),
    }
}

/// Whether `stat` is of a character device 0:0, the form of whiteout that is written.
#[must_use]
pub fn is_whiteout_device(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether `stat`, found as `name` in `dir`, is a whiteout of the two forms that use the name itself.
fn is_whiteout(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
    opaque_of_dir: Opaque,
    space: MarkSpace,
) -> io::Result<bool> {
    if is_whiteout_device(stat) {
        return Ok(true);
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if stat.st_size == 0 && opaque_of_dir == Opaque::XattrWhiteouts => {
            Ok(xattr::get(dir, Some(name), space.name(Mark::Whiteout))?.is_some())
        }
        _ => Ok(false),
    }
}

/// Whether `.wh.NAME` stands in `dir`; names too long to have one do not.
fn aufs_whiteout_exists(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    let marker = aufs_whiteout_name(name.as_bytes());
    match statat(dir, marker.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns `.wh.NAME`.
pub(crate) fn aufs_whiteout_name(name: &[u8]) -> Vec<u8> {
    [AUFS_PREFIX, name].concat()
}

/// Replaces owner, mode and type in `stat` by what [`OVERRIDE_STAT`] of `name` in `dir` (of `dir` itself for `None`)
/// says, where the dialects have it; and the type by what [`Mark::NullDevice`] says.
///
/// With [`Ownership::Real`] only empty regular files are looked at, since only devices are stored so; with
/// [`Ownership::Override`] files and directories, and everything without the attribute belongs to 0:0.
///
/// # Errors
/// The attribute cannot be read or is malformed.
pub fn apply_override(
    dir: BorrowedFd<'_>,
    name: Option<&OsStr>,
    stat: &mut Stat,
    dialects: &Dialects,
) -> io::Result<()> {
    let file_type = FileType::from_raw_mode(stat.st_mode);
    if !dialects.overrides {
        let may_stand = file_type == FileType::RegularFile && stat.st_size == 0;
        if dialects.null_devices
            && may_stand
            && get_mark(dir, name, dialects.space, Mark::NullDevice)?.is_some()
        {
            stat.st_mode = FileType::CharacterDevice.as_raw_mode() | (stat.st_mode & 0o7777);
            stat.st_rdev = 0;
        }
        return Ok(());
    }
    let may_have = match dialects.ownership {
        Ownership::Real => file_type == FileType::RegularFile && stat.st_size == 0,
        Ownership::Override => matches!(file_type, FileType::RegularFile | FileType::Directory),
    };
    if may_have && let Some(found) = OverrideStat::get(dir, name)? {
        found.apply(stat);
    } else if dialects.ownership == Ownership::Override {
        stat.st_uid = 0;
        stat.st_gid = 0;
    }
    Ok(())
}

/// Returns whether the layer directory `dir` is opaque.
///
/// # Errors
/// The attribute cannot be read.
pub fn opaque(dir: BorrowedFd<'_>, dialects: &Dialects) -> io::Result<Opaque> {
    let value = xattr::get(dir, None, dialects.space.name(Mark::Opaque))?;
    match Opaque::of(value.as_deref()) {
        Opaque::Yes => Ok(Opaque::Yes),
        _ if dialects.aufs && object::has_aufs_opaque(dir)? => Ok(Opaque::Yes),
        other => Ok(other),
    }
}

/// Lists the layer directory `dir` (any kind of descriptor) without `.` and `..`, in the order of the filesystem;
/// AUFS names are translated, AUFS bookkeeping is left out.
///
/// # Errors
/// Whatever the kernel says.
pub fn list(
    dir: BorrowedFd<'_>,
    opaque_of_dir: Opaque,
    dialects: &Dialects,
) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let mut hidden: HashMap<Vec<u8>, u64> = HashMap::new();
    for entry in Dir::new(readable(dir)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if dialects.aufs && name.starts_with(AUFS_PREFIX) {
            if !name.starts_with(AUFS_META_PREFIX) {
                hidden.insert(name[AUFS_PREFIX.len()..].to_vec(), entry.ino());
            }
            continue;
        }
        let name = OsStr::from_bytes(name);
        let Some(kind) = listed_kind(dir, name, entry.file_type(), opaque_of_dir, dialects)? else {
            continue;
        };
        listed.push(Listed {
            name: name.to_owned(),
            ino: entry.ino(),
            kind,
        });
    }
    add_aufs_whiteouts(&mut listed, hidden);
    Ok(listed)
}

/// Calls with every name of which the layer directory `dir` (any kind of descriptor) says something, be it that it is
/// deleted; a name may come twice. Ends when `more` returns false. Unlike [`list`] it looks at no object.
///
/// # Errors
/// Whatever the kernel says.
pub fn list_names(
    dir: BorrowedFd<'_>,
    dialects: &Dialects,
    more: &mut dyn FnMut(&OsStr) -> bool,
) -> io::Result<()> {
    for entry in Dir::new(readable(dir)?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let name = match name.strip_prefix(AUFS_PREFIX).filter(|_| dialects.aufs) {
            Some(_) if name.starts_with(AUFS_META_PREFIX) => continue,
            Some(hidden) => hidden,
            None => name,
        };
        if !more(OsStr::from_bytes(name)) {
            break;
        }
    }
    Ok(())
}

/// A descriptor of its own to read a directory: `O_PATH` ones cannot be read, and others share their offset.
fn readable(dir: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(dir, c".", flags, Mode::empty())
}

/// Adds the names that only a `.wh.` file speaks of.
fn add_aufs_whiteouts(listed: &mut Vec<Listed>, mut hidden: HashMap<Vec<u8>, u64>) {
    if hidden.is_empty() {
        return;
    }
    let present: HashSet<&[u8]> = listed.iter().map(|entry| entry.name.as_bytes()).collect();
    hidden.retain(|name, _| !name.is_empty() && !present.contains(name.as_slice()));
    listed.extend(hidden.into_iter().map(|(name, ino)| Listed {
        name: OsString::from_vec(name),
        ino,
        kind: ListedKind::Whiteout,
    }));
}

/// Decides what one directory entry is, with a stat only where its type leaves doubt; `None` if it has just gone.
fn listed_kind(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    file_type: FileType,
    opaque_of_dir: Opaque,
    dialects: &Dialects,
) -> io::Result<Option<ListedKind>> {
    let doubtful = match file_type {
        FileType::CharacterDevice | FileType::Unknown => true,
        FileType::RegularFile => opaque_of_dir == Opaque::XattrWhiteouts || dialects.overrides,
        _ => false,
    };
    if !doubtful {
        return Ok(Some(ListedKind::Object(file_type)));
    }
    let mut stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if is_whiteout(dir, name, &stat, opaque_of_dir, dialects.space)? {
        return Ok(Some(ListedKind::Whiteout));
    }
    // Only empty files stand for something else, so that only they cost another call.
    if stat.st_size == 0 && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        apply_override(dir, Some(name), &mut stat, dialects)?;
    }
    Ok(Some(ListedKind::Object(FileType::from_raw_mode(
        stat.st_mode,
    ))))
}

/// Returns the redirect of `name` in `dir` (of `dir` itself for `None`).
///
/// # Errors
/// The attribute cannot be read, or its value is not a legal redirect (`InvalidData`).
pub fn redirect(
    dir: BorrowedFd<'_>,
    name: Option<&OsStr>,
    space: MarkSpace,
) -> io::Result<Option<Redirect>> {
    let Some(value) = get_mark(dir, name, space, Mark::Redirect)? else {
        return Ok(None);
    };
    parse_redirect(&value).map(Some)
}

fn parse_redirect(value: &[u8]) -> io::Result<Redirect> {
    Redirect::parse(value).ok_or_else(|| {
        let text = String::from_utf8_lossy(value).into_owned();
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("malformed redirect: {text:?}"),
        )
    })
}

/// Whether the data of the file `name` in `dir` is in a layer below.
///
/// # Errors
/// The attribute cannot be read.
pub fn metacopy(dir: BorrowedFd<'_>, name: Option<&OsStr>, space: MarkSpace) -> io::Result<bool> {
    Ok(get_mark(dir, name, space, Mark::Metacopy)?.is_some())
}

/// Whether the directory `name` in `dir` (or `dir` itself) was made by extraction, not by its tar.
///
/// # Errors
/// The attribute cannot be read.
pub fn implied(dir: BorrowedFd<'_>, name: Option<&OsStr>, space: MarkSpace) -> io::Result<bool> {
    Ok(get_mark(dir, name, space, Mark::Implied)?.as_deref() == Some(b"y"))
}

/// Returns the raw value of a mark.
///
/// # Errors
/// The attribute cannot be read.
pub fn get_mark(
    dir: BorrowedFd<'_>,
    name: Option<&OsStr>,
    space: MarkSpace,
    mark: Mark,
) -> io::Result<Option<Vec<u8>>> {
    xattr::get(dir, name, space.name(mark))
}

/// Sets a mark to a raw value.
///
/// # Errors
/// Whatever setting the attribute gives; EPERM for the trusted family outside the first user namespace.
pub fn set_mark(
    dir: BorrowedFd<'_>,
    name: Option<&OsStr>,
    space: MarkSpace,
    mark: Mark,
    value: &[u8],
) -> io::Result<()> {
    xattr::set(dir, name, space.name(mark), value)
}

/// Removes a mark; not having it is no error.
///
/// # Errors
/// Whatever removing the attribute gives.
pub fn clear_mark(
    dir: BorrowedFd<'_>,
    name: Option<&OsStr>,
    space: MarkSpace,
    mark: Mark,
) -> io::Result<()> {
    xattr::remove(dir, name, space.name(mark))
}

/// Makes `name` in `dir` a whiteout (character device 0:0). Allowed to every user since Linux 5.8.
///
/// # Errors
/// EEXIST when the name is taken, and whatever else the kernel says.
pub fn write_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)?;
    Ok(())
}

/// Makes the directory `name` in `dir` (or `dir` itself for `None`) opaque.
///
/// # Errors
/// Whatever setting the attribute gives.
pub fn set_opaque(dir: BorrowedFd<'_>, name: Option<&OsStr>, space: MarkSpace) -> io::Result<()> {
    set_mark(dir, name, space, Mark::Opaque, b"y")
}
