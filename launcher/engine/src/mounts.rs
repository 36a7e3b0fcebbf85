//! Looking into an image or a container through a mount of one's own, with no container around it.
//!
//! A process of its own serves the mount until it is unmounted; it belongs to no container and holds nothing but the
//! layers it reads.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mille_sandbox::outer;
use mille_union::fuse::{MountOptions, Mounted};
use mille_union::{Access, View};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use rustix::thread::LinkNameSpaceType;

use crate::channel::Channel;
use crate::engine::{Engine, Mode};
use crate::error::{Error, Result};
use crate::monitor::{Outcome, Reporter, descriptors, detach, receive};
use crate::options::MountSource;
use crate::served::{self, Served};
use crate::{fuse_device, open, sys};

/// How long the server of a mount that was taken away may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the mount table shows as type of our mounts.
pub(crate) const SUBTYPE: &str = "mille";

/// Mounts an image or a container's root at a directory.
pub(crate) fn mount(engine: &Engine, source: &MountSource, directory: &Path) -> Result<()> {
    if engine.inside {
        let reason = "a mount made inside the user namespace would be seen by nobody: open the engine for records";
        return Err(Error::Invalid(reason.to_owned()));
    }
    let directory = fs::canonicalize(directory).map_err(Error::io("mount at", directory))?;
    if !directory.is_dir() {
        let error = std::io::Error::from(std::io::ErrorKind::NotADirectory);
        return Err(Error::io("mount at", &directory)(error));
    }
    let (reporter, reader) = Reporter::pipe().map_err(Error::system("make a pipe"))?;
    match sys::fork().map_err(Error::system("fork the server"))? {
        sys::Side::Child => serve(engine, source, &directory, reporter),
        sys::Side::Parent(_) => drop(reporter),
    }
    match receive(reader).map_err(Error::system("read from the server"))? {
        Outcome::Running | Outcome::Busy => Ok(()),
        Outcome::Failed { text, .. } => {
            if engine.mode != Mode::Root && is_ours(&directory)? {
                umount(engine, &directory)?;
            }
            Err(Error::Invalid(text))
        }
        Outcome::Lost => Err(Error::Invalid(format!(
            "the server of the mount at {} was killed",
            directory.display()
        ))),
    }
}

/// Is the server: never returns.
fn serve(engine: &Engine, source: &MountSource, directory: &Path, reporter: Reporter) -> ! {
    let log = engine.layout.run.join("mounts.log");
    let begun = detach(&log, &[reporter.as_fd()]).and_then(|()| {
        // Held until the record is in place and the layers are open: from then on they are kept.
        let _store = engine.store.lock_shared()?;
        let served = Served::note(&engine.layout, &record(engine, source, directory)?)?;
        let mounted = if engine.mode == Mode::Root {
            begin(engine, source, directory)?
        } else {
            begin_outside(engine, source, directory)?
        };
        Ok((served, mounted))
    });
    let code = match begun {
        Ok((served, mounted)) => {
            reporter.send(&Outcome::Running);
            let ended = mounted.wait().map_err(Error::Union);
            match ended.and_then(|()| served.forget()) {
                Ok(()) => 0,
                Err(error) => {
                    log::error!("serve {}: {error}", directory.display());
                    1
                }
            }
        }
        Err(error) => {
            reporter.send(&Outcome::Failed {
                text: error.to_string(),
                exit_code: 1,
            });
            1
        }
    };
    sys::exit_now(code)
}

/// What the mount uses.
fn record(engine: &Engine, source: &MountSource, directory: &Path) -> Result<served::Mount> {
    let (image, layers) = match source {
        MountSource::Host => (None, Vec::new()),
        MountSource::Image(id) => (Some(*id), engine.store.image(id)?.layers),
        MountSource::Container(id) => {
            let container = engine.load(id)?;
            (engine.image_of(&container), container.layers)
        }
    };
    Ok(served::Mount {
        directory: directory.to_owned(),
        image,
        layers,
    })
}

fn options() -> MountOptions {
    MountOptions {
        fsname: "mille".to_owned(),
        subtype: SUBTYPE.to_owned(),
        read_only: true,
        ..MountOptions::default()
    }
}

fn begin(engine: &Engine, source: &MountSource, directory: &Path) -> Result<Mounted> {
    mille_union::fuse::mount(view(engine, source)?, directory, &options())
        .map_err(fuse_device::explain)
}

/// As an ordinary user: a mount made in our user namespace would be seen there only. So fusermount3 mounts outside, and
/// only then this process enters the user namespace, where it can read what belongs to the other ids.
fn begin_outside(engine: &Engine, source: &MountSource, directory: &Path) -> Result<Mounted> {
    let device = fusermount(directory)?;
    let served = become_inner_root(engine).and_then(|()| {
        let view = view(engine, source)?;
        let options = MountOptions {
            // With ACLs the kernel checks permissions, and what only the container's root may read would be closed to
            // the user whose container it is. Nobody else can use the mount.
            acl: false,
            ..options()
        };
        mille_union::fuse::serve(view, device, directory, &options).map_err(Error::Union)
    });
    if let Err(error) = &served {
        log::error!("serve {}: {error}", directory.display());
    }
    served
}

/// Enters a user namespace with the user's ids, but no mount namespace: that would hold a copy of the new mount, locked,
/// and keep it alive for ever. A child makes both and hands over the one.
fn become_inner_root(engine: &Engine) -> Result<()> {
    let (ours, theirs) = Channel::pair().map_err(Error::system("make a socket pair"))?;
    let child = match sys::fork().map_err(Error::system("fork"))? {
        sys::Side::Child => {
            sys::exit_now(i32::from(hand_over_namespaces(engine, &theirs).is_err()))
        }
        sys::Side::Parent(child) => child,
    };
    drop(theirs);
    let received = descriptors::receive(&ours);
    nix::sys::wait::waitpid(child, None).map_err(|errno| Error::system("wait")(errno.into()))?;
    let namespaces = received.map_err(Error::system("make a user namespace"))?;
    let Some(outer::Namespaces { user, .. }) = namespaces else {
        return Ok(());
    };
    let failed = |errno: rustix::io::Errno| Error::system("enter the user namespace")(errno.into());
    rustix::thread::move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))
        .map_err(failed)?;
    let (uid, gid) = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)
}

fn hand_over_namespaces(engine: &Engine, socket: &OwnedFd) -> Result<()> {
    open::go_inside_for(engine).inspect_err(|error| log::error!("{error}"))?;
    let namespaces = outer::namespaces()?;
    descriptors::send(socket.as_fd(), Some(&namespaces))
        .map_err(Error::system("hand over a namespace"))
}

/// Mounts by fusermount3 and returns the descriptor it sends back.
fn fusermount(directory: &Path) -> Result<OwnedFd> {
    let failed =
        |reason: String| Error::Invalid(format!("mount at {}: {reason}", directory.display()));
    let (ours, theirs) = Channel::pair().map_err(Error::system("make a socket pair"))?;
    // The one descriptor that must survive the execution; its number is told by the environment, as libfuse does.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())
        .map_err(|errno| Error::system("hand over a socket")(errno.into()))?;
    let output = Command::new("fusermount3")
        // In one word: of several only the last counts.
        .arg("-o")
        .arg(format!("ro,nosuid,nodev,fsname=mille,subtype={SUBTYPE}"))
        .arg("--")
        .arg(directory)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                failed("fusermount3 is not installed (`sudo apt-get install fuse3`)".to_owned())
            }
            _ => failed(format!("fusermount3: {error}")),
        })?;
    drop(theirs);
    if !output.status.success() {
        return Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    descriptors::receive_one(&ours)
        .map_err(|error| failed(format!("fusermount3 sent nothing: {error}")))
}

fn view(engine: &Engine, source: &MountSource) -> Result<Arc<View>> {
    match source {
        MountSource::Host => engine.host_stack()?.open_base(),
        MountSource::Image(id) => {
            let mut stack = engine.image_stack(id)?;
            let layers = engine.store.image(id)?.layers;
            engine.chain(&layers, stack.on_host).ensure(&mut stack);
            stack.open_base()
        }
        MountSource::Container(id) => {
            let container = engine.load(id)?;
            engine
                .stack(&container)?
                .open(&engine.writable(id), Access::Observe)
        }
    }
}

/// Takes a mount of ours away.
pub(crate) fn umount(engine: &Engine, directory: &Path) -> Result<()> {
    let absolute = place_of(directory).map_err(Error::io("unmount", directory))?;
    if !is_ours(&absolute)? {
        return Err(Error::Invalid(format!(
            "{}: nothing of mille's is mounted there",
            directory.display()
        )));
    }
    let before = served::at(&engine.layout, &absolute)?;
    let busy = || {
        Error::Invalid(format!(
            "{} is in use: somebody's working directory or open file is in it",
            directory.display()
        ))
    };
    if engine.mode != Mode::Root {
        let output = Command::new("fusermount3")
            .args(["-u", "--"])
            .arg(&absolute)
            .output();
        let output = output.map_err(Error::io("run fusermount3 for", &absolute))?;
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.success() {
            true => {}
            false if text.contains("busy") => return Err(busy()),
            false => return Err(Error::Invalid(text)),
        }
    } else {
        match umount2(&absolute, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EBUSY) => return Err(busy()),
            Err(errno) => return Err(Error::io("unmount", &absolute)(errno.into())),
        }
    }
    // Its server hears of it a moment later: only then is the image free to be removed.
    let start = Instant::now();
    while served::at(&engine.layout, &absolute)? >= before.max(1) && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Most links that are followed, as in the kernel (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The path by which the kernel lists a mount: links and `..` resolved, but the mount itself not entered, since one whose
/// server died answers nothing.
fn place_of(directory: &Path) -> std::io::Result<PathBuf> {
    let mut path = directory.to_path_buf();
    for _ in 0..MOST_LINKS {
        let Some(name) = path.file_name() else {
            // "..", or the root: what is meant is above.
            return fs::canonicalize(&path);
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => fs::canonicalize(parent)?,
            _ => std::env::current_dir()?,
        };
        path = parent.join(name);
        match fs::read_link(&path) {
            Ok(target) => path = parent.join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::from_raw_os_error(libc::ELOOP))
}

/// Takes away a mount whose server is gone: nobody can be using it.
pub(crate) fn detach_dead(mode: Mode, directory: &Path) -> Result<()> {
    if mode == Mode::Root {
        return umount2(directory, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
            .map_err(|errno| Error::io("unmount", directory)(errno.into()));
    }
    let output = Command::new("fusermount3")
        .args(["-u", "-z", "--"])
        .arg(directory)
        .output()
        .map_err(Error::io("run fusermount3 for", directory))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Invalid(text))
}

pub(crate) fn is_ours(directory: &Path) -> Result<bool> {
    let path = Path::new("/proc/self/mountinfo");
    let mounts = fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(mounts.lines().any(|line| is_mount_of_ours(line, directory)))
}

/// Reads one line of mountinfo(5): field 5 is the mount point with blanks as \040, the type follows the dash.
fn is_mount_of_ours(line: &str, directory: &Path) -> bool {
    let Some((before, after)) = line.split_once(" - ") else {
        return false;
    };
    let point = before.split(' ').nth(4).map(unescape);
    let kind = after.split(' ').next();
    point.as_deref() == Some(directory) && kind == Some("fuse.mille")
}

fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) if byte == b'\\' => {
                bytes.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_matched() {
        let line = "87 54 0:41 / /mnt/a\\040b rw,relatime - fuse.mille mille rw";
        assert!(is_mount_of_ours(line, Path::new("/mnt/a b")));
        assert!(!is_mount_of_ours(line, Path::new("/mnt/a")));
        assert!(!is_mount_of_ours(
            "87 54 0:41 / /mnt rw - ext4 x rw",
            Path::new("/mnt")
        ));
    }
}
