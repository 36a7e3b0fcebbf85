//! /dev and what is in it.
//!
//! The filesystem on /dev is new and nobody else's until the command runs, so its entries are made by plain names
//! relative to it. Devices the user puts elsewhere are resolved in the root like everything else.

use super::mounts::{KERNEL_FLAGS, attach, clone_tree, mount_on};
use super::{Context, Executor};
use crate::plan::{IpcFrom, Nodes};
use crate::sys::{self, SetAttr};
use crate::{Device, DeviceKind, Failure};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::ffi::{CString, OsStr};
use std::path::Path;

/// The links docker makes. `core` is left out where the kernel has no /proc/kcore.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

impl Executor {
    pub(super) fn mount_dev(&mut self, nodev: bool) -> Result<(), Failure> {
        let path = Path::new("/dev");
        let target = self.strict_target("/dev")?;
        let mut flags = MountFlags::NOSUID | MountFlags::STRICTATIME;
        flags.set(MountFlags::NODEV, nodev);
        mount_on(
            target.as_fd(),
            "tmpfs",
            "tmpfs",
            flags,
            Some(c"mode=755,size=65536k"),
        )
        .during_at("mount", path)?;
        let open = OFlags::PATH | OFlags::DIRECTORY;
        self.dev = Some(
            self.root()?
                .open_strict(path, open)
                .during_at("open", path)?,
        );
        Ok(())
    }

    fn dev(&self) -> Result<BorrowedFd<'_>, Failure> {
        let missing = || Failure::system("open", Some("/dev".into()), Errno::BADF);
        self.dev.as_ref().map(OwnedFd::as_fd).ok_or_else(missing)
    }

    pub(super) fn make_devices(&mut self, devices: &[Device], nodes: Nodes) -> Result<(), Failure> {
        for device in devices {
            self.make_device(device, nodes)
                .during_at("make the device", &device.path)?;
        }
        Ok(())
    }

    fn make_device(&mut self, device: &Device, nodes: Nodes) -> Result<(), Errno> {
        let path = crate::rootfs::clean(&device.path);
        let Some(name) = path.file_name() else {
            return Err(Errno::INVAL);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent == Path::new("dev") {
            let Ok(dev) = self.dev() else {
                return Err(Errno::BADF);
            };
            return make_node(dev, name, device, nodes);
        }
        let Ok(root) = self.root() else {
            return Err(Errno::BADF);
        };
        let parent = root.make_directory(parent)?;
        make_node(parent.as_fd(), name, device, nodes)
    }

    pub(super) fn make_dev_links(&mut self) -> Result<(), Failure> {
        let dev = self.dev()?;
        let core = [("/proc/kcore", "core")];
        let has_core = rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok();
        for (target, name) in LINKS.iter().chain(core.iter().filter(|_| has_core)) {
            rustix::fs::symlinkat(*target, dev, *name)
                .during_at("make the link", &Path::new("/dev").join(name))?;
        }
        Ok(())
    }

    /// Makes a directory in /dev and returns it.
    fn dev_directory(&self, name: &str, mode: u32) -> Result<OwnedFd, Failure> {
        let path = Path::new("/dev").join(name);
        let dev = self.dev()?;
        rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(mode)).during_at("make", &path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dev, name, flags, Mode::empty()).during_at("open", &path)
    }

    pub(super) fn mount_pts(&mut self, gid: Option<u32>) -> Result<(), Failure> {
        let target = self.dev_directory("pts", 0o755)?;
        let gid = gid.map(|gid| format!(",gid={gid}")).unwrap_or_default();
        let data = CString::new(format!("newinstance,ptmxmode=0666,mode=0620{gid}"))
            .map_err(|_| Failure::system("mount", Some("/dev/pts".into()), Errno::INVAL))?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount_on(target.as_fd(), "devpts", "devpts", flags, Some(&data))
            .during_at("mount", Path::new("/dev/pts"))
    }

    pub(super) fn mount_ipc(&mut self, shm_size_bytes: u64, from: IpcFrom) -> Result<(), Failure> {
        let mqueue = self.dev_directory("mqueue", 0o1777)?;
        let (shm_path, mqueue_path) = (Path::new("/dev/shm"), Path::new("/dev/mqueue"));
        let shm = match from {
            IpcFrom::WithoutShm => None,
            _ => Some(self.dev_directory("shm", 0o1777)?),
        };
        if from == IpcFrom::Host {
            if let Some(shm) = &shm {
                bind_host(shm_path, shm.as_fd())?;
            }
            return bind_host(mqueue_path, mqueue.as_fd());
        }
        if let Some(shm) = &shm {
            self.mount_shm(shm.as_fd(), shm_size_bytes, from)
                .during_at("mount", shm_path)?;
        }
        mount_on(mqueue.as_fd(), "mqueue", "mqueue", KERNEL_FLAGS, None)
            .during_at("mount", mqueue_path)
    }

    fn mount_shm(
        &mut self,
        target: BorrowedFd<'_>,
        size_bytes: u64,
        from: IpcFrom,
    ) -> Result<(), Errno> {
        if from == IpcFrom::Container {
            let tree = self.shm.take().ok_or(Errno::NOENT)?;
            return attach(tree.as_fd(), target);
        }
        let data =
            CString::new(format!("mode=1777,size={size_bytes}")).map_err(|_| Errno::INVAL)?;
        mount_on(target, "shm", "tmpfs", KERNEL_FLAGS, Some(&data))
    }
}

/// Binds a directory of the host where it has one.
fn bind_host(path: &Path, target: BorrowedFd<'_>) -> Result<(), Failure> {
    match clone_tree(CWD, path, true) {
        Ok(tree) => attach(tree.as_fd(), target).during_at("bind", path),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Failure::system("bind", Some(path.to_owned()), errno)),
    }
}

fn make_node(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    device: &Device,
    nodes: Nodes,
) -> Result<(), Errno> {
    match nodes {
        Nodes::Make => make_own_node(parent, name, device),
        Nodes::MakeAndMount => {
            make_own_node(parent, name, device)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            let tree = clone_tree(node.as_fd(), Path::new(""), false)?;
            let devices = SetAttr::change(SetAttr::NOSUID | SetAttr::NOEXEC, SetAttr::NODEV);
            sys::set_mount_attributes(tree.as_fd(), devices, false)?;
            attach(tree.as_fd(), node.as_fd())
        }
        Nodes::Bind => {
            let flags =
                OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o666))?;
            let tree = clone_tree(CWD, &device.host_path, false)?;
            attach(tree.as_fd(), file.as_fd())
        }
    }
}

/// Makes a node with the numbers, mode and owner of a device.
fn make_own_node(parent: BorrowedFd<'_>, name: &OsStr, device: &Device) -> Result<(), Errno> {
    let kind = match device.kind {
        DeviceKind::Char => FileType::CharacterDevice,
        DeviceKind::Block => FileType::BlockDevice,
    };
    let number = rustix::fs::makedev(device.major, device.minor);
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(device.mode), number)?;
    if (device.uid, device.gid) == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), flags)
}
