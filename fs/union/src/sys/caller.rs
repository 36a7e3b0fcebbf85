//! What may be known of the process behind a request.

use rustix::process::Pid;
use rustix::thread::{CapabilitySet, capabilities};

/// True if the process keeps set-id bits when it writes or truncates (`CAP_FSETID`). The FUSE library does not pass the
/// kernel's own verdict on; asked only for files that carry such bits. Without a visible process: root keeps them.
pub(crate) fn may_keep_set_id(pid: u32, uid: u32) -> bool {
    has(pid, CapabilitySet::FSETID).unwrap_or(uid == 0)
}

/// True if this process can make device nodes that work: with `CAP_MKNOD` in the first user namespace.
pub(crate) fn makes_devices() -> bool {
    has(std::process::id(), CapabilitySet::MKNOD).unwrap_or_default() && is_first_namespace()
}

fn is_first_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// True if `trusted.` attributes are listed to the process (`CAP_SYS_ADMIN`). Without a visible process: to root.
pub(crate) fn may_see_trusted(pid: u32, uid: u32) -> bool {
    has(pid, CapabilitySet::SYS_ADMIN).unwrap_or(uid == 0)
}

/// True if a supplementary group of the process is this one.
pub(crate) fn is_in_group(pid: u32, gid: u32) -> bool {
    let groups = status_line(pid, "Groups:").unwrap_or_default();
    groups
        .split_whitespace()
        .any(|group| group.parse() == Ok(gid))
}

/// Whether a capability of the process is in effect; `None`: there is no such process to be seen from here (a number of 0
/// stands for one).
fn has(pid: u32, capability: CapabilitySet) -> Option<bool> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let sets = capabilities(Some(pid)).ok()?;
    Some(sets.effective.contains(capability))
}

fn status_line(pid: u32, key: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.to_owned())
}
