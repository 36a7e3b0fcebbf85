//! Making new objects.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use mille_layer::marks::set_opaque;
use mille_layer::{
    Opaque, OverrideStat, Ownership, Probe, is_reserved_name, is_whiteout_device, probe,
};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::lookup::NAME_MAX;
use crate::node::NodeRef;
use crate::ownership::{is_null_device, stored_mode, told_kind};
use crate::sys::acl::{Inherited, inherit};
use crate::sys::ids::{Owner, as_owner};
use crate::sys::{object, open, xattr};
use crate::view::View;
use crate::work::Work;

/// What is to be made. Modes are permission bits, before the umask.
#[derive(Clone, Copy, Debug)]
pub enum Make<'a> {
    /// A directory.
    Dir {
        /// Its mode.
        mode: u32,
    },
    /// A file, fifo, socket or device.
    Node {
        /// Which.
        kind: FileType,
        /// Its mode.
        mode: u32,
        /// Device number.
        rdev: u64,
    },
    /// A symbolic link to this target.
    Symlink(&'a OsStr),
}

/// A name under which something is to appear.
pub(crate) struct Spot<'a> {
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// The name is deleted in the upper: something below must not show through again.
    pub(crate) whiteout: bool,
    /// The whiteout is in the place itself and will be replaced.
    pub(crate) taken: bool,
}

/// How a new file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// As a handle.
    Handle,
    /// Open for reading and writing; its mode need not allow to open it again.
    ReadWrite,
}

/// A new object.
pub(crate) struct Made {
    pub(crate) node: NodeRef,
    pub(crate) stat: Stat,
    /// A handle or, of a file, perhaps open for reading and writing.
    pub(crate) fd: OwnedFd,
    pub(crate) is_handle: bool,
}

const DEFAULT_ACL: &str = "system.posix_acl_default";
const ACCESS_ACL: &str = "system.posix_acl_access";
const SET_GID: u32 = 0o2000;

impl View {
    /// Makes a new object other than an open file.
    ///
    /// # Errors
    /// `EEXIST`, `EPERM` for what would be a whiteout or a reserved name, `EROFS`, or a failed system call.
    pub fn make(
        &self,
        parent: &NodeRef,
        name: &OsStr,
        what: Make<'_>,
        umask: u32,
        owner: Owner,
    ) -> Result<NodeRef> {
        if let Make::Node {
            kind: FileType::CharacterDevice,
            rdev: 0,
            ..
        } = what
            && !self.features.null_devices
        {
            // It would hide a name instead of being one.
            return Err(Error::refused("mknod", Errno::PERM));
        }
        self.make_with(parent, name, what, umask, owner, Opening::Handle)
            .map(|made| made.node)
    }

    /// Makes a new empty regular file.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub(crate) fn create(
        &self,
        parent: &NodeRef,
        name: &OsStr,
        (mode, umask): (u32, u32),
        owner: Owner,
        opening: Opening,
    ) -> Result<Made> {
        let what = Make::Node {
            kind: FileType::RegularFile,
            mode,
            rdev: 0,
        };
        self.make_with(parent, name, what, umask, owner, opening)
    }

    fn make_with(
        &self,
        parent: &NodeRef,
        name: &OsStr,
        what: Make<'_>,
        umask: u32,
        owner: Owner,
        opening: Opening,
    ) -> Result<Made> {
        let work = self.require_writable("create")?;
        self.check_new_name(name)?;
        let dir = self.upper_parent(parent)?;
        let _names = parent.names().write();
        let null = matches!(what, Make::Node { kind, rdev, .. } if is_null_device(kind, rdev));
        let always_aside = null || self.ownership == Ownership::Override;
        let place = NewPlace {
            work,
            parent,
            opening,
        };
        let mut aside = false;
        let fd =
            match self.make_if_free(&place, dir.as_fd(), name, what, umask, owner, always_aside)? {
                Some(fd) => fd,
                None => {
                    let spot = self.free_spot(parent, dir.as_fd(), name)?;
                    aside = spot.whiteout || always_aside;
                    if aside {
                        self.make_aside(work, &spot, what, umask, owner)?
                    } else {
                        self.make_in_place(&place, &spot, what, umask, owner)?
                    }
                }
            };
        // Nothing older has this inode number any more.
        let stat = rustix::fs::fstat(&fd).op("create")?;
        self.table.release_upper(stat.st_dev, stat.st_ino);
        let file = matches!(
            what,
            Make::Node {
                kind: FileType::RegularFile,
                ..
            }
        );
        let device = matches!(what, Make::Node { .. }) && !file;
        let node = if aside || device {
            self.lookup_locked(parent, name)?
                .ok_or(Error::refused("create", Errno::IO))?
        } else {
            self.node_made(parent, name, stat)
        };
        if file {
            // A capability is given, not inherited.
            node.note_lack();
        }
        self.listings.added(parent, name);
        Ok(Made {
            node,
            stat,
            fd,
            is_handle: !(file && (aside || opening == Opening::ReadWrite)),
        })
    }

    /// Makes the object where it is to be, if there certainly is nothing below: whether the upper has the name tells the
    /// system call itself. `None` if it has, or that cannot be told so.
    #[expect(clippy::too_many_arguments, reason = "those of a creation")]
    fn make_if_free(
        &self,
        place: &NewPlace<'_>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        what: Make<'_>,
        umask: u32,
        owner: Owner,
        always_aside: bool,
    ) -> Result<Option<OwnedFd>> {
        let parent = place.parent;
        if always_aside
            || parent.is_removed()
            || self.upper_dialects().aufs
            || self.lower_has(parent, name)?
        {
            return Ok(None);
        }
        let spot = Spot {
            dir,
            name,
            whiteout: false,
            taken: false,
        };
        match self.make_in_place(place, &spot, what, umask, owner) {
            Err(error) if error.is(Errno::EXIST) => Ok(None),
            made => made.map(Some),
        }
    }

    /// Refuses names that cannot be made.
    pub(crate) fn check_new_name(&self, name: &OsStr) -> Result<()> {
        let bytes = name.as_bytes();
        if bytes.len() > NAME_MAX {
            return Err(Error::refused("create", Errno::NAMETOOLONG));
        }
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Error::refused("create", Errno::INVAL));
        }
        if self.features.reserve_wh_names && is_reserved_name(name) {
            return Err(Error::refused("create", Errno::PERM));
        }
        Ok(())
    }

    /// The place for a new name, which must be free. The caller holds the parent's name lock.
    pub(crate) fn free_spot<'a>(
        &self,
        parent: &NodeRef,
        dir: BorrowedFd<'a>,
        name: &'a OsStr,
    ) -> Result<Spot<'a>> {
        if parent.is_removed() {
            return Err(Error::refused("create", Errno::NOENT));
        }
        let whiteout = match probe(dir, name, Opaque::No, self.upper_dialects()).op("create")? {
            Probe::Object(_) => return Err(Error::refused("create", Errno::EXIST)),
            Probe::Whiteout => true,
            Probe::Absent => false,
        };
        if !whiteout && self.lower_has(parent, name)? {
            return Err(Error::refused("create", Errno::EXIST));
        }
        Ok(Spot {
            dir,
            name,
            whiteout,
            taken: whiteout && is_whiteout(dir, name).op("create")?,
        })
    }

    /// Makes the object where it is to be, as its owner: the file system itself applies the directory's default ACL and
    /// set-group-id bit.
    fn make_in_place(
        &self,
        place: &NewPlace<'_>,
        spot: &Spot<'_>,
        what: Make<'_>,
        umask: u32,
        owner: Owner,
    ) -> Result<OwnedFd> {
        let (dir, name) = (spot.dir, spot.name);
        let masked = |mode: u32| -> Result<Mode> {
            // A default ACL replaces the umask.
            let inherits = mode & umask != 0 && self.default_acl(place.parent, dir)?.is_some();
            Ok(Mode::from_raw_mode(if inherits {
                mode
            } else {
                mode & !umask
            }))
        };
        match what {
            Make::Dir { mode } => {
                let mode = masked(mode)?;
                as_owner(owner, || rustix::fs::mkdirat(dir, name, mode)).op("mkdir")?;
            }
            Make::Symlink(target) => {
                as_owner(owner, || rustix::fs::symlinkat(target, dir, name)).op("symlink")?;
            }
            Make::Node {
                kind: FileType::RegularFile,
                mode,
                ..
            } => {
                let mode = masked(mode)?;
                if place.opening == Opening::Handle {
                    as_owner(owner, || {
                        rustix::fs::mknodat(dir, name, FileType::RegularFile, mode, 0)
                    })
                    .op("create")?;
                    return self
                        .retry_short_of_fds(|| open::handle(dir, name))
                        .op("create");
                }
                return self
                    .retry_short_of_fds(|| as_owner(owner, || create_file(dir, name, mode)))
                    .op("create");
            }
            Make::Node { kind, mode, rdev } => {
                let masked = masked(mode)?;
                let made = as_owner(owner, || rustix::fs::mknodat(dir, name, kind, masked, rdev));
                match made {
                    Err(Errno::PERM) if self.dialects.overrides => {
                        return self.make_aside(place.work, spot, what, umask, owner);
                    }
                    other => other.op("mknod")?,
                }
            }
        }
        open::handle(dir, name).op("create")
    }

    /// The default ACL of a directory, which has this upper part.
    fn default_acl(&self, parent: &NodeRef, dir: BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
        if parent.lacks_often_asked() {
            return Ok(None);
        }
        let value = xattr::get(dir, DEFAULT_ACL.as_ref()).op("create")?;
        if value.is_none() && self.changes_by_us_alone(parent) {
            parent.note_lack();
        }
        Ok(value)
    }

    /// Makes the object in the work directory and moves it to its place when it is complete.
    fn make_aside(
        &self,
        work: &Work,
        spot: &Spot<'_>,
        what: Make<'_>,
        umask: u32,
        owner: Owner,
    ) -> Result<OwnedFd> {
        let temp = work.fresh_temp();
        let (kind, mode, rdev) = match what {
            Make::Dir { mode } => (FileType::Directory, mode, 0),
            Make::Node { kind, mode, rdev } => (kind, mode, rdev),
            Make::Symlink(_) => (FileType::Symlink, 0o777, 0),
        };
        let inherited = self.inherited(spot.dir, kind, mode, umask, owner)?;
        let owner = inherited.owner;
        let wanted = Mode::from_raw_mode(inherited.mode);
        let real = self.ownership == Ownership::Real;
        let handle = match what {
            Make::Dir { .. } => {
                let stored = if real {
                    wanted
                } else {
                    Mode::from_raw_mode(stored_mode(kind))
                };
                self.as_stored(owner, || rustix::fs::mkdirat(work.fd(), &temp.name, stored))?;
                open::dir_handle(work.fd(), &temp.name).op("mkdir")?
            }
            Make::Symlink(target) => {
                self.as_stored(owner, || {
                    rustix::fs::symlinkat(target, work.fd(), &temp.name)
                })?;
                open::handle(work.fd(), &temp.name).op("symlink")?
            }
            Make::Node {
                kind: FileType::RegularFile,
                ..
            } => {
                let stored = if real {
                    wanted
                } else {
                    Mode::from_raw_mode(stored_mode(kind))
                };
                self.as_stored(owner, || create_file(work.fd(), &temp.name, stored))?
            }
            Make::Node { .. } => {
                self.make_special(work.fd(), &temp.name, kind, rdev)?;
                let handle = open::handle(work.fd(), &temp.name).op("mknod")?;
                if real {
                    object::set_owner(handle.as_fd(), Some(owner.uid), Some(owner.gid))
                        .op("mknod")?;
                    object::set_mode(handle.as_fd(), inherited.mode).op("mknod")?;
                }
                handle
            }
        };
        self.tell_ownership(handle.as_fd(), kind, rdev, &inherited)?;
        if real {
            for (name, value) in [
                (ACCESS_ACL, &inherited.access),
                (DEFAULT_ACL, &inherited.default),
            ] {
                if let Some(value) = value {
                    xattr::set(handle.as_fd(), name.as_ref(), value, XattrFlags::empty())
                        .op("create")?;
                }
            }
            if kind == FileType::Directory && inherited.mode & SET_GID != 0 {
                object::set_mode(handle.as_fd(), inherited.mode).op("mkdir")?;
            }
        }
        if kind == FileType::Directory && spot.whiteout {
            // Before it appears: what the whiteout hid must not show through, not even after a crash.
            set_opaque(handle.as_fd(), None, self.space).op("mkdir")?;
        }
        place(work, temp, spot, kind == FileType::Directory)?;
        Ok(handle)
    }

    /// Runs a call that makes an object as its owner, or as ourselves where ownership is kept elsewhere.
    fn as_stored<T>(
        &self,
        owner: Owner,
        make: impl FnOnce() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        match self.ownership {
            Ownership::Real => as_owner(owner, make).op("create"),
            Ownership::Override => make().op("create"),
        }
    }

    /// Writes the attribute that tells ownership, where there is one.
    fn tell_ownership(
        &self,
        object: BorrowedFd<'_>,
        kind: FileType,
        rdev: u64,
        told: &Told,
    ) -> Result<()> {
        let stat = rustix::fs::fstat(object).op("create")?;
        let stored = FileType::from_raw_mode(stat.st_mode);
        if stored == FileType::Symlink || (self.ownership == Ownership::Real && stored == kind) {
            return Ok(());
        }
        let stat = OverrideStat {
            uid: told.owner.uid,
            gid: told.owner.gid,
            mode: told.mode,
            kind: told_kind(kind, rdev),
        };
        self.stand_for(object, &stat).op("create")
    }

    /// What a new object gets from its directory, worked out here for objects that are made elsewhere.
    fn inherited(
        &self,
        dir: BorrowedFd<'_>,
        kind: FileType,
        mode: u32,
        umask: u32,
        owner: Owner,
    ) -> Result<Told> {
        let mut stat = rustix::fs::fstat(dir).op("create")?;
        mille_layer::marks::apply_override(dir, None, &mut stat, self.upper_dialects())
            .op("create")?;
        let mut told = Told {
            owner,
            mode: mode & !umask,
            access: None,
            default: None,
        };
        if stat.st_mode & SET_GID != 0 {
            told.owner.gid = stat.st_gid;
            if kind == FileType::Directory {
                told.mode |= SET_GID;
            }
        }
        if kind == FileType::Symlink || self.ownership == Ownership::Override {
            return Ok(told);
        }
        if let Some(default) = xattr::get(dir, DEFAULT_ACL.as_ref()).op("create")?
            && let Some(Inherited {
                mode: limited,
                access,
            }) = inherit(&default, mode)
        {
            told.mode = limited | told.mode & 0o7000;
            told.access = access;
            told.default = (kind == FileType::Directory).then_some(default);
        }
        Ok(told)
    }
}

/// In which directory something is made, and how it is wanted.
struct NewPlace<'a> {
    work: &'a Work,
    parent: &'a NodeRef,
    opening: Opening,
}

/// Owner, mode and ACLs of an object about to appear.
struct Told {
    owner: Owner,
    mode: u32,
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
}

fn create_file(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    mode: Mode,
) -> std::result::Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, mode)
}

/// Moves a finished object from the work directory to its place by one system call.
pub(crate) fn place(
    work: &Work,
    temp: crate::work::Temp<'_>,
    spot: &Spot<'_>,
    is_dir: bool,
) -> Result<()> {
    let rename = |flags| {
        rustix::fs::renameat_with(work.fd(), &temp.name, spot.dir, spot.name, flags).op("create")
    };
    if !spot.taken {
        rename(RenameFlags::NOREPLACE)?;
        temp.keep();
    } else if is_dir {
        // A directory cannot be renamed over a device: they change places, and the whiteout goes with `temp`.
        rename(RenameFlags::EXCHANGE)?;
    } else {
        rename(RenameFlags::empty())?;
        temp.keep();
    }
    Ok(())
}

/// True if an upper directory has a whiteout in the place of a name.
pub(crate) fn is_whiteout(dir: BorrowedFd<'_>, name: &OsStr) -> std::result::Result<bool, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(is_whiteout_device(&stat)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}
