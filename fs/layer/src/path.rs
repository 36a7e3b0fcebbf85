//! Paths of tar entries and of layer objects, and the one way they are opened.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// Nothing outside, no symbolic link on the way or at the end, no magic link of /proc.
const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Opens `path` (empty: the root itself) below `root` without following any symbolic link.
///
/// # Errors
/// ELOOP for a symbolic link anywhere, ENOTDIR, ENOENT and whatever else the kernel says.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    openat2(
        root,
        path,
        flags | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        CONFINED,
    )
}

/// Flags for a directory descriptor that is only a base for `*at` calls.
pub(crate) const BASE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

/// Returns a tar's path as the layer knows it: no leading slash, no empty or `.` component; empty for the root.
///
/// # Errors
/// The reason for which the path is refused.
pub(crate) fn normalise(raw: &[u8]) -> Result<Vec<u8>, &'static str> {
    if raw.is_empty() {
        return Err("empty path");
    }
    if raw.contains(&0) {
        return Err("path with a NUL byte");
    }
    let mut path = Vec::with_capacity(raw.len());
    for component in raw.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err("path with a .. component"),
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    Ok(path)
}

/// Splits a normalised path into parent (empty: the root) and name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Joins a normalised directory path and a name.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        name.to_vec()
    } else {
        [dir, b"/", name].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_or_refused() {
        for (raw, want) in [
            (&b"a/b"[..], Ok(&b"a/b"[..])),
            (b"./a//b/", Ok(b"a/b")),
            (b"/etc/passwd", Ok(b"etc/passwd")),
            (b"./", Ok(b"")),
            (b"...", Ok(b"...")),
            (b"\xff/\n", Ok(b"\xff/\n")),
            (b"", Err("empty path")),
            (b"a/../b", Err("path with a .. component")),
            (b"..", Err("path with a .. component")),
            (b"a\0b", Err("path with a NUL byte")),
        ] {
            assert_eq!(normalise(raw).as_deref(), want.as_deref(), "{raw:?}");
        }
    }

    #[test]
    fn paths_split_and_join() {
        for (path, dir, name) in [(&b"a"[..], &b""[..], &b"a"[..]), (b"a/b/c", b"a/b", b"c")] {
            assert_eq!(split(path), (dir, name));
            assert_eq!(join(dir, name), path);
        }
    }
}
