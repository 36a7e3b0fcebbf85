//! The launcher's own program, out of reach of what it starts.
//!
//! A process is the launcher's program until it executes its command, and an image can make it so once more (a script
//! whose interpreter is `/proc/self/exe`). Whoever gets hold of that file could write to it once nobody runs it any more
//! (CVE-2019-5736). So what starts containers runs from a read-only clone of the mount its file is on, which no path
//! leads to; where mounts may not be cloned, from a sealed copy in memory.

use crate::sys::{self, SetAttr};
use crate::weaken::{self, Hole};
use nix::unistd::{Uid, execve};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;

/// The program of this process.
const PROGRAM: &str = "/proc/self/exe";
/// Set to the number of a process that has tried already: a second try would be the same.
const MARK: &str = "MILLE_SEALED";

/// Makes sure that nothing this process starts can write to its program: executes it again from a sealed place, unless it
/// runs from one or belongs to somebody whose files no container of this user can change. To be called before there are
/// threads.
///
/// # Errors
/// Neither way is allowed here. As long as the program runs its file cannot be written nevertheless (`ETXTBSY`), and the
/// monitor of a container runs as long as its processes do.
pub fn run_sealed() -> Result<(), Errno> {
    let own = std::process::id().to_string();
    let tried = std::env::var_os(MARK).is_some_and(|mark| mark == own.as_str());
    if tried {
        // After an execution by descriptor its number would be the name.
        return rustix::thread::set_name(c"mille");
    }
    if weaken::is_open(Hole::Seal) || is_out_of_reach()? {
        return Ok(());
    }
    let sealed = match cloned() {
        Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => copied()?,
        other => other?,
    };
    let mut env: Vec<OsString> = std::env::vars_os()
        .filter(|(name, _)| name != MARK)
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        })
        .collect();
    env.push(format!("{MARK}={own}").into());
    let path = format!("/proc/self/fd/{}", sealed.as_raw_fd());
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    match execve(&path, &c_strings(std::env::args_os())?, &c_strings(env)?) {
        Ok(never) => match never {},
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

fn c_strings(texts: impl IntoIterator<Item = OsString>) -> Result<Vec<CString>, Errno> {
    texts
        .into_iter()
        .map(|text| CString::new(text.into_vec()).map_err(|_| Errno::INVAL))
        .collect()
}

/// Whether the file is on a read-only mount, or somebody else's whom this user's containers cannot act for.
fn is_out_of_reach() -> Result<bool, Errno> {
    let mount = rustix::fs::statvfs(PROGRAM)?;
    if mount.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(true);
    }
    let owner = rustix::fs::stat(PROGRAM)?.st_uid;
    let user = Uid::effective();
    let writable = rustix::fs::accessat(CWD, PROGRAM, Access::WRITE_OK, AtFlags::EACCESS).is_ok();
    Ok(!user.is_root() && owner != user.as_raw() && !writable)
}

/// The program's file on a mount of its own that is read-only and attached nowhere.
fn cloned() -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::open(PROGRAM, flags, Mode::empty())?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = rustix::mount::open_tree(&file, "", flags)?;
    let attributes = SetAttr::set(SetAttr::RDONLY | SetAttr::NOSUID | SetAttr::NODEV);
    sys::set_mount_attributes(tree.as_fd(), attributes, false)?;
    Ok(tree)
}

/// A copy of the program in memory that can never be changed.
fn copied() -> Result<OwnedFd, Errno> {
    let file = rustix::fs::open(PROGRAM, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let copy = rustix::fs::memfd_create("mille", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(0o755))?;
    while rustix::fs::sendfile(&copy, &file, None, 1 << 30)? > 0 {}
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy)
}
