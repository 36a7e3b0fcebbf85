//! Mounts. Every target is a descriptor that was resolved in the container's root; every bind is a cloned tree that gets
//! its flags before anybody can see it.

use super::{Context, Executor};
use crate::host::{Cgroups, Hierarchy};
use crate::message::Message;
use crate::plan;
use crate::rootfs::{PROC_MAGIC, Rootfs, filesystem_magic, is_char_device};
use crate::sys::{self, SetAttr};
use crate::weaken::{self, Hole};
use crate::{Failure, Mount, MountKind, MountOptions, Propagation, Warning};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

/// `nosuid,nodev,noexec`: what every filesystem of the kernel gets.
pub(super) const KERNEL_FLAGS: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Where the trees are that are made on the stage and then attached to the root.
const KERNEL_TREES: [&str; 3] = ["/proc", "/dev", "/sys"];

/// Mounts a new filesystem on the directory `target` stands for. The working directory is changed.
pub(super) fn mount_on(
    target: BorrowedFd<'_>,
    source: &str,
    kind: &str,
    flags: MountFlags,
    data: Option<&CStr>,
) -> Result<(), Errno> {
    rustix::process::fchdir(target)?;
    rustix::mount::mount(source, ".", kind, flags, data)
}

/// Clones the mount at `path` (below `dir`, or `dir` itself when empty), detached from everything.
pub(super) fn clone_tree(
    dir: BorrowedFd<'_>,
    path: &Path,
    recursive: bool,
) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
    rustix::mount::open_tree(dir, path, flags)
}

/// Attaches a detached tree at a target, both by descriptor.
pub(super) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    match rustix::mount::move_mount(tree, "", target, "", flags) {
        Err(_) if weaken::is_open(Hole::MountErrors) => Ok(()),
        other => other,
    }
}

/// Opens the host's null device and makes sure that it is that: it hides files, so it must not be something else.
pub(super) fn host_null() -> Result<OwnedFd, Failure> {
    let path = Path::new("/dev/null");
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).during_at("open", path)?;
    let stat = rustix::fs::fstat(&fd).during_at("inspect", path)?;
    if is_char_device(&stat, 1, 3) {
        Ok(fd)
    } else {
        Err(Failure::MountTarget {
            target: path.to_owned(),
            reason: "the host's /dev/null is not the null device".to_owned(),
        })
    }
}

/// Cuts this mount namespace off, so that no mount made here reaches the host.
pub(super) fn detach(propagation: Propagation) -> Result<(), Failure> {
    let how = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave | Propagation::Shared => MountPropagationFlags::DOWNSTREAM,
    };
    rustix::mount::mount_change("/", how | MountPropagationFlags::REC)
        .during("make the mounts private")
}

/// Says in what way a link on the way to a mount point of ours is a problem.
fn strict_target_error(target: &str, errno: Errno) -> Failure {
    match errno {
        Errno::LOOP | Errno::NOTDIR => Failure::MountTarget {
            target: target.into(),
            reason: "must be a directory of the image and no symbolic link".to_owned(),
        },
        errno => Failure::system("make the mount point", Some(target.into()), errno),
    }
}

impl Executor {
    pub(super) fn make_stage(&mut self, path: &Path) -> Result<(), Failure> {
        let data = Some(c"mode=755");
        rustix::mount::mount("tmpfs", path, "tmpfs", KERNEL_FLAGS, data)
            .during_at("mount the stage on", path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let stage = rustix::fs::open(path, flags, Mode::empty()).during_at("open", path)?;
        self.root = Some(Rootfs::new(stage));
        Ok(())
    }

    /// The stage stays below the root, and goes with the host's tree.
    pub(super) fn attach_root(&mut self, path: &Path, nodev: bool) -> Result<(), Failure> {
        let tree = self.wait_for(&Message::Root).ok_or(Failure::Vanished)?;
        let mut attributes = SetAttr::propagation(libc::MS_PRIVATE);
        attributes.set = if nodev { SetAttr::NODEV } else { 0 };
        sys::set_mount_attributes(tree.as_fd(), attributes, true)
            .during_at("make the root private", path)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(&tree, "", CWD, path, flags)
            .during_at("attach the root", path)?;
        let stage = self.root.replace(Rootfs::new(tree));
        let stage = stage.ok_or(Failure::Vanished)?;
        for name in KERNEL_TREES {
            let staged = Path::new(name);
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let made = stage.open_strict(staged, flags).during_at("open", staged)?;
            // A clone is younger than the root, so that the container's table of mounts begins with the root's.
            let tree = clone_tree(made.as_fd(), Path::new(""), true)
                .during_at("clone the mount", staged)?;
            let target = self.strict_target(name)?;
            attach(tree.as_fd(), target.as_fd()).during_at("attach", staged)?;
        }
        Ok(())
    }

    /// Opens, and makes where missing, a mount point that must be a plain directory.
    pub(super) fn strict_target(&mut self, target: &str) -> Result<OwnedFd, Failure> {
        let root = self.root()?;
        let made = if weaken::is_open(Hole::ProcLink) {
            root.make_directory(Path::new(target))
        } else {
            root.make_directory_strict(Path::new(target))
        };
        made.map_err(|errno| strict_target_error(target, errno))
    }

    pub(super) fn mount_proc(&mut self) -> Result<(), Failure> {
        let target = self.strict_target("/proc")?;
        let refused = |errno| matches!(errno, Errno::PERM | Errno::BUSY);
        let mount = |data| mount_on(target.as_fd(), "proc", "proc", KERNEL_FLAGS, data);
        match mount(None) {
            Err(errno) if refused(errno) => {}
            other => return other.during_at("mount", Path::new("/proc")),
        }
        match mount(Some(c"subset=pid")) {
            Ok(()) => {
                self.warn(Warning::Proc {
                    fallback: "one that shows processes only".to_owned(),
                });
                return Ok(());
            }
            Err(errno) if refused(errno) || errno == Errno::INVAL => {}
            other => return other.during_at("mount", Path::new("/proc")),
        }
        let tree = clone_tree(CWD, Path::new("/proc"), true)
            .during_at("clone the mount", Path::new("/proc"))?;
        sys::set_mount_attributes(tree.as_fd(), kernel_attributes(false), true)
            .during_at("set the flags of", Path::new("/proc"))?;
        attach(tree.as_fd(), target.as_fd()).during_at("bind", Path::new("/proc"))?;
        self.warn(Warning::Proc {
            fallback: "the host's, whose process numbers are not the container's".to_owned(),
        });
        Ok(())
    }

    pub(super) fn mount_sys(&mut self, readonly: bool) -> Result<(), Failure> {
        let path = Path::new("/sys");
        let target = self.strict_target("/sys")?;
        let mut flags = KERNEL_FLAGS;
        flags.set(MountFlags::RDONLY, readonly);
        match mount_on(target.as_fd(), "sysfs", "sysfs", flags, None) {
            // The network namespace is not the container's: its sysfs may be bound, not mounted.
            Err(Errno::PERM) => {}
            other => return other.during_at("mount", path),
        }
        let tree = clone_tree(CWD, path, true).during_at("clone the mount", path)?;
        let attributes = kernel_attributes(readonly);
        sys::set_mount_attributes(tree.as_fd(), attributes, true)
            .during_at("set the flags of", path)?;
        attach(tree.as_fd(), target.as_fd()).during_at("bind", path)
    }

    pub(super) fn mount_cgroups(
        &mut self,
        layout: &Cgroups,
        readonly: bool,
    ) -> Result<(), Failure> {
        let path = Path::new("/sys/fs/cgroup");
        let mut flags = KERNEL_FLAGS;
        flags.set(MountFlags::RDONLY, readonly);
        if *layout == Cgroups::None {
            return Ok(());
        }
        let target = match self
            .root()?
            .open_strict(path, OFlags::PATH | OFlags::DIRECTORY)
        {
            Ok(target) => target,
            Err(Errno::NOENT) => {
                self.warn(Warning::Cgroup {
                    reason: "the mount point is missing".to_owned(),
                });
                return Ok(());
            }
            Err(errno) => return Err(strict_target_error("/sys/fs/cgroup", errno)),
        };
        let result = match layout {
            Cgroups::V2 => mount_cgroup2(target.as_fd(), readonly),
            Cgroups::V1 { hierarchies, .. } => {
                self.mount_hierarchies(target.as_fd(), hierarchies, flags)
            }
            Cgroups::None => Ok(()),
        };
        match result {
            // In a user namespace version 1 may be refused; what is there then is read-only.
            Err(Errno::PERM | Errno::BUSY | Errno::INVAL) => {
                self.warn(Warning::Cgroup {
                    reason: "the kernel refused the mount".to_owned(),
                });
                Ok(())
            }
            other => other.during_at("mount", path),
        }
    }

    /// Mounts version 1: a small filesystem with one mount per tree. Trees that are refused are left out.
    fn mount_hierarchies(
        &mut self,
        target: BorrowedFd<'_>,
        hierarchies: &[Hierarchy],
        flags: MountFlags,
    ) -> Result<(), Errno> {
        mount_on(target, "tmpfs", "tmpfs", KERNEL_FLAGS, Some(c"mode=755"))?;
        let path = Path::new("/sys/fs/cgroup");
        let open = OFlags::PATH | OFlags::DIRECTORY;
        let Ok(Ok(root)) = self.root().map(|root| root.open_strict(path, open)) else {
            return Err(Errno::NOENT);
        };
        rustix::process::fchdir(&root)?;
        let mut mounted = 0;
        for Hierarchy { directory, options } in hierarchies {
            let Ok(data) = CString::new(options.as_str()) else {
                continue;
            };
            rustix::fs::mkdir(directory.as_str(), Mode::from_raw_mode(0o755))?;
            match rustix::mount::mount("cgroup", directory.as_str(), "cgroup", flags, &*data) {
                Ok(()) => mounted += 1,
                Err(_) => rustix::fs::rmdir(directory.as_str())?,
            }
            if directory.contains(',') {
                for alias in directory.split(',') {
                    rustix::fs::symlink(directory.as_str(), alias)?;
                }
            }
        }
        if flags.contains(MountFlags::RDONLY) {
            sys::set_mount_attributes(root.as_fd(), SetAttr::set(SetAttr::RDONLY), false)?;
        }
        if mounted == 0 {
            Err(Errno::PERM)
        } else {
            Ok(())
        }
    }

    pub(super) fn mount_for_user(&mut self, mount: &Mount) -> Result<(), Failure> {
        match &mount.kind {
            MountKind::Bind {
                source,
                recursive,
                propagation,
            } => self.bind_for_user(mount, source, *recursive, *propagation),
            MountKind::Tmpfs {
                size_bytes,
                mode,
                data,
            } => self.tmpfs_for_user(mount, *size_bytes, *mode, data),
        }
    }

    /// Clones the sources that stay shared.
    pub(super) fn clone_shared(&mut self, mounts: &[Mount]) -> Result<(), Failure> {
        for mount in mounts {
            if let MountKind::Bind {
                source, recursive, ..
            } = &mount.kind
            {
                let tree = clone_tree(CWD, source, *recursive).during_at("bind", source)?;
                self.shared.push((mount.target.clone(), tree));
            }
        }
        Ok(())
    }

    fn bind_for_user(
        &mut self,
        mount: &Mount,
        source: &Path,
        recursive: bool,
        propagation: Propagation,
    ) -> Result<(), Failure> {
        let at_hand = self.shared.iter().position(|(at, _)| *at == mount.target);
        let tree = match at_hand {
            Some(place) => self.shared.swap_remove(place).1,
            None => clone_tree(CWD, source, recursive).during_at("bind", source)?,
        };
        let stat = rustix::fs::fstat(&tree).during_at("inspect", source)?;
        let mut options = mount.options;
        // What every container has may also be put elsewhere: `-v /dev/null:/etc/motd`.
        options.nodev &= !is_usual_device(&stat);
        let mut attributes = SetAttr::set(attribute_bits(options));
        if propagation == Propagation::Private {
            attributes.propagation = libc::MS_PRIVATE;
        }
        sys::set_mount_attributes(tree.as_fd(), attributes, recursive)
            .during_at("set the flags of", source)?;
        let root = self.root()?;
        let target = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            root.make_directory(&mount.target)
        } else {
            root.make_file(&mount.target)
        };
        let target = target.map_err(|errno| user_target_error(&mount.target, errno))?;
        refuse_proc(root, target.as_fd(), &mount.target)?;
        attach(tree.as_fd(), target.as_fd())
            .map_err(|errno| user_target_error(&mount.target, errno))
    }

    fn tmpfs_for_user(
        &mut self,
        mount: &Mount,
        size_bytes: Option<u64>,
        mode: Option<u32>,
        data: &[String],
    ) -> Result<(), Failure> {
        let failed = |errno| user_target_error(&mount.target, errno);
        let root = self.root()?;
        let covered = match root.open(&mount.target, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(fd) => Some(fd),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(errno)),
        };
        let covered_mode = match &covered {
            Some(fd) => rustix::fs::fstat(fd).map_err(failed)?.st_mode & 0o7777,
            None => 0o1777,
        };
        let target = match covered {
            Some(fd) => fd,
            None => root.make_directory(&mount.target).map_err(failed)?,
        };
        refuse_proc(root, target.as_fd(), &mount.target)?;
        let mut options = vec![format!("mode={:o}", mode.unwrap_or(covered_mode))];
        options.extend(size_bytes.map(|size| format!("size={size}")));
        options.extend(data.iter().cloned());
        let options = CString::new(options.join(",")).map_err(|_| failed(Errno::INVAL))?;
        let flags = flags_of(mount.options);
        mount_on(target.as_fd(), "tmpfs", "tmpfs", flags, Some(&options)).map_err(failed)
    }

    pub(super) fn make_cwd(&mut self, path: &Path) -> Result<(), Failure> {
        match self.root()?.make_directory(path) {
            Ok(_) => Ok(()),
            Err(Errno::NOTDIR) => Err(Failure::CwdNotADirectory {
                cwd: path.to_owned(),
            }),
            Err(errno) => Err(Failure::Chdir {
                cwd: path.to_owned(),
                errno: errno.raw_os_error(),
            }),
        }
    }

    pub(super) fn make_readonly(&mut self, paths: &[PathBuf]) -> Result<(), Failure> {
        for path in paths {
            let Some(target) = self.existing(path)? else {
                continue;
            };
            let tree = clone_tree(target.as_fd(), Path::new(""), true)
                .during_at("clone the mount", path)?;
            sys::set_mount_attributes(tree.as_fd(), SetAttr::set(SetAttr::RDONLY), true)
                .during_at("make read-only", path)?;
            attach(tree.as_fd(), target.as_fd()).during_at("attach", path)?;
        }
        Ok(())
    }

    /// Opens a path to be masked or made read-only; `None`: it does not exist. Anything else fails: a path that cannot be
    /// reached here might be reached by the container.
    fn existing(&mut self, path: &Path) -> Result<Option<OwnedFd>, Failure> {
        match self.root()?.open(path, OFlags::PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(Failure::system("open", Some(path.to_owned()), errno)),
        }
    }

    pub(super) fn mask(&mut self, paths: &[PathBuf]) -> Result<(), Failure> {
        let null = if weaken::is_open(Hole::MaskSource) {
            let path = Path::new("/dev/null");
            self.root()?
                .open(path, OFlags::PATH)
                .during_at("open", path)?
        } else {
            host_null()?
        };
        // One empty directory hides all directories.
        let mut empty: Option<OwnedFd> = None;
        for path in paths {
            let Some(target) = self.existing(path)? else {
                continue;
            };
            let stat = rustix::fs::fstat(&target).during_at("inspect", path)?;
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let tree = match (is_directory, &empty) {
                (false, _) => clone_tree(null.as_fd(), Path::new(""), false).and_then(|tree| {
                    // The device can be written to, but the node is the host's: its mode and owner are not to be changed.
                    let attributes = SetAttr::set(SetAttr::RDONLY);
                    sys::set_mount_attributes(tree.as_fd(), attributes, false).map(|()| tree)
                }),
                (true, Some(empty)) => clone_tree(empty.as_fd(), Path::new(""), false),
                (true, None) => empty_directory(),
            }
            .during_at("make a mask for", path)?;
            attach(tree.as_fd(), target.as_fd()).during_at("mask", path)?;
            if is_directory && empty.is_none() {
                empty = Some(tree);
            }
        }
        Ok(())
    }

    pub(super) fn make_root_readonly(&mut self) -> Result<(), Failure> {
        let attributes = SetAttr::set(SetAttr::RDONLY);
        sys::set_mount_attributes(self.root()?.as_fd(), attributes, false)
            .during("make the root read-only")
    }

    /// Makes the container's root `/`. The old root ends on top of it and is dropped with everything below.
    pub(super) fn pivot(&mut self) -> Result<(), Failure> {
        rustix::process::fchdir(self.root()?).during("enter the root")?;
        rustix::process::pivot_root(".", ".").during("pivot_root")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH).during("drop the old root")?;
        rustix::process::chdir("/").during("enter the root")?;
        self.dev = None;
        Ok(())
    }
}

/// Makes a new filesystem that is attached nowhere yet.
fn new_filesystem(
    kind: &str,
    mode: Option<&str>,
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(mode) = mode {
        rustix::mount::fsconfig_set_string(&context, "mode", mode)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// `nosuid,nodev,noexec`, and `ro` when asked.
fn kernel_attribute_flags(readonly: bool) -> MountAttrFlags {
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, readonly);
    flags
}

/// Makes a detached, empty, read-only directory.
fn empty_directory() -> Result<OwnedFd, Errno> {
    new_filesystem("tmpfs", Some("555"), kernel_attribute_flags(true))
}

/// Mounts version 2. Under a bound /sys the host's lies at the same place, and mount(2) refuses a filesystem on top of
/// itself; attaching a detached one is allowed.
fn mount_cgroup2(target: BorrowedFd<'_>, readonly: bool) -> Result<(), Errno> {
    let tree = new_filesystem("cgroup2", None, kernel_attribute_flags(readonly))?;
    attach(tree.as_fd(), target)
}

/// Whether this is one of the harmless character devices every container has.
fn is_usual_device(stat: &rustix::fs::Stat) -> bool {
    let number = stat.st_rdev;
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && plan::is_usual_device(rustix::fs::major(number), rustix::fs::minor(number))
}

/// A volume on /proc would put a made-up procfs where programs, and we, look for the kernel's.
fn refuse_proc(root: &Rootfs, target: BorrowedFd<'_>, path: &Path) -> Result<(), Failure> {
    let in_root = root.is_on_its_filesystem(target);
    let on_proc = !in_root.during_at("inspect", path)?
        && filesystem_magic(target).during_at("inspect", path)? == PROC_MAGIC;
    if on_proc && !weaken::is_open(Hole::ProcVolume) {
        return Err(Failure::MountTarget {
            target: path.to_owned(),
            reason: "cannot be mounted because it is inside /proc".to_owned(),
        });
    }
    Ok(())
}

fn user_target_error(target: &Path, errno: Errno) -> Failure {
    Failure::Mount {
        target: target.to_owned(),
        errno: errno.raw_os_error(),
    }
}

fn kernel_attributes(readonly: bool) -> SetAttr {
    let base = SetAttr::NOSUID | SetAttr::NODEV | SetAttr::NOEXEC;
    SetAttr::set(if readonly {
        base | SetAttr::RDONLY
    } else {
        base
    })
}

fn attribute_bits(options: MountOptions) -> u64 {
    [
        (options.readonly, SetAttr::RDONLY),
        (options.nosuid, SetAttr::NOSUID),
        (options.nodev, SetAttr::NODEV),
        (options.noexec, SetAttr::NOEXEC),
    ]
    .iter()
    .filter(|(is_set, _)| *is_set)
    .fold(0, |bits, (_, bit)| bits | bit)
}

fn flags_of(options: MountOptions) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.readonly);
    flags.set(MountFlags::NOSUID, options.nosuid);
    flags.set(MountFlags::NODEV, options.nodev);
    flags.set(MountFlags::NOEXEC, options.noexec);
    flags
}
