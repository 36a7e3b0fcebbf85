//! Creating objects as somebody else.
//!
//! A new object must belong to its creator, from its first moment: so the thread takes the creator's file system ids
//! around the one system call, and keeps the capabilities that switching them takes away, since the kernel has already
//! judged whether the creator may do this.

use std::cell::Cell;
use std::sync::OnceLock;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

/// Who makes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// File system user id, as the server's user namespace sees it.
    pub uid: u32,
    /// File system group id.
    pub gid: u32,
}

/// File system capabilities that the kernel drops when the file system user id leaves 0.
const FS_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::LINUX_IMMUTABLE);

thread_local! {
    static PRIVATE_UMASK: Cell<bool> = const { Cell::new(false) };
}

/// Runs `make` with the file system ids of `owner` and an empty umask. `EPERM` if this process may not act for them.
///
/// The umask belongs to a thread group's shared file system state, so a thread that creates objects first takes its own
/// copy of that state (its own umask and working directory) and keeps it.
pub(crate) fn as_owner<T>(
    owner: Owner,
    make: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    take_private_umask()?;
    let own = own();
    if owner == own {
        return make();
    }
    let _restore = Borrowed::take(owner, Uid::from_raw(own.uid), Gid::from_raw(own.gid))?;
    make()
}

/// The process's own ids, which it keeps once it makes objects.
fn own() -> Owner {
    static OWN: OnceLock<Owner> = OnceLock::new();
    *OWN.get_or_init(|| Owner {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    })
}

fn take_private_umask() -> Result<(), Errno> {
    PRIVATE_UMASK.with(|done| {
        if done.get() {
            return Ok(());
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)
            .map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        rustix::process::umask(rustix::fs::Mode::empty());
        done.set(true);
        Ok(())
    })
}

/// The thread's file system ids, taken on behalf of another; given back when dropped.
struct Borrowed {
    uid: Uid,
    gid: Gid,
}

impl Borrowed {
    fn take(owner: Owner, uid: Uid, gid: Gid) -> Result<Self, Errno> {
        let guard = Self { uid, gid };
        // The group first: leaving user 0 gives up the right to change it.
        let wanted_gid = Gid::from_raw(owner.gid);
        setfsgid(wanted_gid);
        let wanted_uid = Uid::from_raw(owner.uid);
        setfsuid(wanted_uid);
        // These calls report no failure; asking for an impossible id returns the present one.
        let now_gid = setfsgid(Gid::from_raw(u32::MAX));
        let now_uid = setfsuid(Uid::from_raw(u32::MAX));
        if now_gid != wanted_gid || now_uid != wanted_uid {
            return Err(Errno::PERM);
        }
        raise_fs_capabilities()?;
        Ok(guard)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // Going back to the effective ids is always allowed; the kernel raises the capabilities again with it.
        setfsuid(self.uid);
        setfsgid(self.gid);
    }
}

fn raise_fs_capabilities() -> Result<(), Errno> {
    let mut sets = rustix::thread::capabilities(None)?;
    let wanted = sets.effective | (FS_CAPABILITIES & sets.permitted);
    if wanted != sets.effective {
        sets.effective = wanted;
        rustix::thread::set_capabilities(None, sets)?;
    }
    Ok(())
}
