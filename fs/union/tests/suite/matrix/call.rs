//! The calls, and what they answer.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use super::fixture::USER;

/// A call on names in the directory of a case.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Open(&'static str, OFlags),
    Stat(&'static str),
    Unlink(&'static str),
    Rmdir(&'static str),
    Mkdir(&'static str),
    Fifo(&'static str),
    Symlink(&'static str, &'static str),
    Readlink(&'static str),
    List(&'static str),
    Truncate(&'static str, u64),
    Chmod(&'static str, u32),
    /// To another owner and group; the links themselves or what they lead to.
    Chown(&'static str, bool),
    Times(&'static str, bool),
    SetXattr(&'static str),
    GetXattr(&'static str),
    Access(&'static str),
    /// Links followed or not.
    Link(&'static str, &'static str, bool),
    Rename(&'static str, &'static str, RenameFlags),
}

/// All openings of `o`.
pub(super) fn opens(thorough: bool) -> Vec<Call> {
    let extra = [OFlags::CREATE, OFlags::EXCL, OFlags::TRUNC, OFlags::APPEND];
    let ways = [OFlags::empty(), OFlags::DIRECTORY, OFlags::NOFOLLOW];
    let mut calls = Vec::new();
    for name in ["o", "o/"] {
        for access in [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR] {
            for bits in 0..1 << extra.len() {
                for way in ways {
                    let chosen = (0..extra.len()).filter(|bit| bits & (1 << bit) != 0);
                    let flags = chosen.fold(access | way, |flags, bit| flags | extra[bit]);
                    let odd = flags.contains(OFlags::APPEND) || name == "o/" || !way.is_empty();
                    if thorough || !odd || bits <= 1 {
                        calls.push(Call::Open(name, flags));
                    }
                }
            }
        }
    }
    calls
}

type Answer = Result<String, Errno>;

impl Call {
    /// Makes the call in a directory.
    pub(super) fn make(&self, dir: &Path) -> Answer {
        let at = |name: &str| format!("{}/{name}", dir.display());
        match *self {
            Self::Open(name, flags) => open(&at(name), flags),
            Self::Stat(name) => {
                let follow = rustix::fs::stat(at(name)).map(|stat| describe(&stat))?;
                let link = rustix::fs::lstat(at(name)).map(|stat| describe(&stat))?;
                Ok(format!("{follow} {link}"))
            }
            Self::Unlink(name) => done(rustix::fs::unlink(at(name))),
            Self::Rmdir(name) => done(rustix::fs::rmdir(at(name))),
            Self::Mkdir(name) => done(rustix::fs::mkdir(at(name), Mode::from_raw_mode(0o750))),
            Self::Fifo(name) => {
                let mode = Mode::from_raw_mode(0o640);
                done(rustix::fs::mknodat(CWD, at(name), FileType::Fifo, mode, 0))
            }
            Self::Symlink(target, name) => done(rustix::fs::symlink(target, at(name))),
            Self::Readlink(name) => rustix::fs::readlink(at(name), Vec::new())
                .map(|target| target.to_string_lossy().into_owned()),
            Self::List(name) => list(&at(name)),
            Self::Link(from, to, yes) => {
                let flags = if yes {
                    AtFlags::SYMLINK_FOLLOW
                } else {
                    AtFlags::empty()
                };
                done(rustix::fs::linkat(CWD, at(from), CWD, at(to), flags))
            }
            Self::Rename(from, to, flags) => {
                done(rustix::fs::renameat_with(CWD, at(from), CWD, at(to), flags))
            }
            _ => self.change_attributes(&at),
        }
    }

    fn change_attributes(&self, at: &dyn Fn(&str) -> String) -> Answer {
        let follow = |yes: bool| {
            if yes {
                AtFlags::empty()
            } else {
                AtFlags::SYMLINK_NOFOLLOW
            }
        };
        match *self {
            Self::Truncate(name, size) => {
                // truncate(2) itself: it opens nothing.
                let path = at(name);
                done(
                    nix::unistd::truncate(path.as_str(), size.cast_signed())
                        .map_err(|errno| Errno::from_raw_os_error(errno as i32)),
                )
            }
            Self::Chmod(name, mode) => done(rustix::fs::chmod(at(name), Mode::from_raw_mode(mode))),
            Self::Chown(name, yes) => {
                let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
                let flags = follow(yes);
                done(rustix::fs::chownat(
                    CWD,
                    at(name),
                    Some(uid),
                    Some(gid),
                    flags,
                ))
            }
            Self::Times(name, yes) => {
                let time = Timespec {
                    tv_sec: 5,
                    tv_nsec: 7,
                };
                let times = Timestamps {
                    last_access: time,
                    last_modification: time,
                };
                done(rustix::fs::utimensat(CWD, at(name), &times, follow(yes)))
            }
            Self::SetXattr(name) => {
                let flags = XattrFlags::empty();
                done(rustix::fs::setxattr(at(name), "user.mine", b"value", flags))
            }
            Self::GetXattr(name) => {
                let mut value = [0_u8; 16];
                rustix::fs::getxattr(at(name), "user.mine", &mut value[..])
                    .map(|length| length.to_string())
            }
            Self::Access(name) => {
                let ask = |access| match rustix::fs::access(at(name), access) {
                    Ok(()) => "yes".to_owned(),
                    Err(errno) => errno.to_string(),
                };
                Ok([Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK]
                    .map(ask)
                    .join(", "))
            }
            ref other => panic!("{other:?} changes no attributes"),
        }
    }
}

fn done(result: Result<(), Errno>) -> Answer {
    result.map(|()| String::new())
}

fn open(path: &str, flags: OFlags) -> Answer {
    // A fifo would wait for its other end.
    let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?;
    let stat = rustix::fs::fstat(&fd)?;
    let mut said = describe(&stat);
    let mut file = File::from(fd);
    let mut content = Vec::new();
    said += &match file.read_to_end(&mut content) {
        Ok(_) => format!(" read {}", content.escape_ascii()),
        Err(error) => format!(" read: {error}"),
    };
    said += &match file.write(b"written") {
        Ok(length) => format!(" wrote {length}"),
        Err(error) => format!(" write: {error}"),
    };
    said += &match file.stream_position() {
        Ok(position) => format!(" at {position}"),
        Err(error) => format!(" seek: {error}"),
    };
    let after = rustix::fs::fstat(OwnedFd::from(file))?;
    Ok(format!("{said}, then {}", describe(&after)))
}

fn list(path: &str) -> Answer {
    let fd = rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(fd)? {
        let entry = entry?;
        names.push(format!("{:?} {:?}", entry.file_name(), entry.file_type()));
    }
    names.sort();
    Ok(names.join(", "))
}

/// What must be the same wherever the object is. A directory's size and link count are the file system's own affair.
fn describe(stat: &rustix::fs::Stat) -> String {
    let (mode, uid, gid) = (stat.st_mode, stat.st_uid, stat.st_gid);
    if FileType::from_raw_mode(mode) == FileType::Directory {
        return format!("{mode:o} {uid}:{gid}");
    }
    format!("{mode:o} {uid}:{gid} x{} {}B", stat.st_nlink, stat.st_size)
}
