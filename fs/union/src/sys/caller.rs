//! What may be known of the process behind a request.

/// Bit of `CAP_FSETID` in a capability mask.
const CAP_FSETID: u32 = 4;

/// Bit of `CAP_MKNOD`.
const CAP_MKNOD: u32 = 27;

/// Bit of `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u32 = 21;

/// True if the process keeps set-id bits when it writes or truncates (`CAP_FSETID`). The FUSE library does not pass the
/// kernel's own verdict on; asked only for files that carry such bits. Without a visible process: root keeps them.
pub(crate) fn may_keep_set_id(pid: u32, uid: u32) -> bool {
    effective_capabilities(pid).map_or(uid == 0, |mask| mask & (1 << CAP_FSETID) != 0)
}

/// True if this process can make device nodes that work: with `CAP_MKNOD` in the first user namespace.
pub(crate) fn makes_devices() -> bool {
    let mask = effective_capabilities(std::process::id()).unwrap_or_default();
    is_first_namespace() && mask & (1 << CAP_MKNOD) != 0
}

fn is_first_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// True if `trusted.` attributes are listed to the process (`CAP_SYS_ADMIN`). Without a visible process: to root.
pub(crate) fn may_see_trusted(pid: u32, uid: u32) -> bool {
    effective_capabilities(pid).map_or(uid == 0, |mask| mask & (1 << CAP_SYS_ADMIN) != 0)
}

/// True if a supplementary group of the process is this one.
pub(crate) fn is_in_group(pid: u32, gid: u32) -> bool {
    let groups = status_line(pid, "Groups:").unwrap_or_default();
    groups
        .split_whitespace()
        .any(|group| group.parse() == Ok(gid))
}

fn effective_capabilities(pid: u32) -> Option<u64> {
    u64::from_str_radix(status_line(pid, "CapEff:")?.trim(), 16).ok()
}

fn status_line(pid: u32, key: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.to_owned())
}
