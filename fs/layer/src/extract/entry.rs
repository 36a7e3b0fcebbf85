//! One entry of a tar, decoded and checked, before anything is done with it.

use tar_core::SparseEntry;
use tar_core::parse::ParsedEntry;

use super::Limits;
use crate::encode::Time;
use crate::marks::{AUFS_META_PREFIX, AUFS_OPAQUE, AUFS_PREFIX};
use crate::path::{join, normalise, split};
use crate::pax;
use crate::stream::Range;
use crate::xattr::Xattrs;

/// Tar's unit of space, in bytes.
pub(super) const BLOCK: u64 = 512;

/// What an entry is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    File,
    Sparse {
        ranges: Vec<Range>,
        size: u64,
    },
    Dir,
    Symlink(Vec<u8>),
    /// Normalised path of the other name.
    Hardlink(Vec<u8>),
    Node(Node),
    /// The name below is deleted: normalised path.
    Whiteout(Vec<u8>),
    /// Everything below this directory is hidden: normalised path.
    Opaque(Vec<u8>),
    /// Leaves nothing on disk.
    Ignore,
}

/// A special file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Owner, mode, times, attributes.
#[derive(Debug, Default, Clone)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) xattrs: Xattrs,
}

/// A decoded entry.
#[derive(Debug)]
pub(super) struct Entry {
    /// Normalised; empty for the root.
    pub(super) path: Vec<u8>,
    pub(super) action: Action,
    pub(super) attributes: Attributes,
    /// Bytes of content that follow in the tar, without padding.
    pub(super) content: u64,
}

/// What the parser found besides the entry itself.
pub(super) struct Framing {
    /// Regions and logical size of a sparse file.
    pub(super) sparse: Option<(Vec<SparseEntry>, u64)>,
    /// Bytes between the entry's own header and its content (sparse maps).
    pub(super) map_bytes: u64,
}

/// What the type flag says.
enum Flag {
    File,
    Sparse,
    Dir,
    Symlink,
    Hardlink,
    Node(Node),
    /// Has content that means nothing to us.
    Ignore,
    /// A directory with a listing as its content (GNU incremental archives).
    DirWithListing,
}

impl Entry {
    /// Decodes an entry.
    ///
    /// # Errors
    /// The reason for which it is refused.
    pub(super) fn decode(
        parsed: &ParsedEntry<'_>,
        framing: Framing,
        limits: &Limits,
    ) -> Result<Entry, String> {
        let records = pax::parse(parsed.pax.unwrap_or_default())?;
        let header = parsed.header.as_bytes();
        check_size_field(&header[124..136])?;
        let flag = flag(header[156], parsed)?;
        let path = normalise(&parsed.path)?;
        let content = match flag {
            Flag::File | Flag::Sparse | Flag::Ignore | Flag::DirWithListing => {
                content_size(parsed.size, &records, framing.map_bytes)?
            }
            // Whatever size these claim, no content follows: so docker and Python read them.
            Flag::Dir | Flag::Symlink | Flag::Hardlink | Flag::Node(_) => 0,
        };
        if framing.sparse.is_some() && !matches!(flag, Flag::File | Flag::Sparse) {
            return Err("sparse map on what is not a file".into());
        }
        let attributes = Attributes {
            mode: parsed.mode & 0o7777,
            uid: id(parsed.uid, "owner")?,
            gid: id(parsed.gid, "group")?,
            mtime: match records.mtime {
                Some(time) => time,
                None => Time {
                    sec: header_time(&header[136..148], parsed.mtime)?,
                    nsec: 0,
                },
            },
            xattrs: xattrs(parsed)?,
        };
        let action = match classify(&path)? {
            Some(action) => action,
            None => action(flag, parsed, framing.sparse, content, limits)?,
        };
        if path.is_empty() && !matches!(action, Action::Dir | Action::Ignore) {
            return Err("only a directory can be the root".into());
        }
        Ok(Entry {
            path,
            action,
            attributes,
            content,
        })
    }

    /// Bytes that fill the last block of the content.
    pub(super) fn padding(&self) -> u64 {
        (BLOCK - self.content % BLOCK) % BLOCK
    }
}

/// What the names beginning with `.wh.` ask for; `None` for a path without one.
fn classify(path: &[u8]) -> Result<Option<Action>, String> {
    let (dir, name) = split(path);
    let in_dir = |prefix: &[u8]| {
        !dir.is_empty()
            && dir
                .split(|&byte| byte == b'/')
                .any(|part| part.starts_with(prefix))
    };
    if in_dir(AUFS_META_PREFIX) {
        return Ok(Some(Action::Ignore));
    }
    if in_dir(AUFS_PREFIX) {
        return Err("a directory's name may not begin with .wh.".into());
    }
    if name == AUFS_OPAQUE {
        return Ok(Some(Action::Opaque(dir.to_vec())));
    }
    if name.starts_with(AUFS_META_PREFIX) {
        return Ok(Some(Action::Ignore));
    }
    match name.strip_prefix(AUFS_PREFIX) {
        None => Ok(None),
        Some(b"" | b"." | b"..") => Err("whiteout of no name".into()),
        Some(hidden) => Ok(Some(Action::Whiteout(join(dir, hidden)))),
    }
}

fn flag(byte: u8, parsed: &ParsedEntry<'_>) -> Result<Flag, String> {
    let major = parsed.dev_major.unwrap_or(0);
    let minor = parsed.dev_minor.unwrap_or(0);
    Ok(match byte {
        // Archives older than the directory type mark directories by a slash.
        0 if parsed.path.ends_with(b"/") => Flag::Dir,
        0 | b'0' | b'7' => Flag::File,
        b'S' => Flag::Sparse,
        b'1' => Flag::Hardlink,
        b'2' => Flag::Symlink,
        b'3' => Flag::Node(Node::Char(major, minor)),
        b'4' => Flag::Node(Node::Block(major, minor)),
        b'5' => Flag::Dir,
        b'6' => Flag::Node(Node::Fifo),
        b'D' => Flag::DirWithListing,
        // Volume labels, old long names, Solaris attributes: about other entries or about nothing here.
        b'V' | b'N' | b'A' | b'E' | b'I' | b'X' => Flag::Ignore,
        other => return Err(format!("unsupported entry type {:?}", char::from(other))),
    })
}

/// The action of an entry whose name is no whiteout.
fn action(
    flag: Flag,
    parsed: &ParsedEntry<'_>,
    sparse: Option<(Vec<SparseEntry>, u64)>,
    content: u64,
    limits: &Limits,
) -> Result<Action, String> {
    let target = || match parsed.link_target.as_deref() {
        None => Err("link without a target".to_string()),
        Some(target) if target.contains(&0) => Err("link target with a NUL byte".to_string()),
        Some(target) if target.len() > limits.path_bytes as usize => Err(format!(
            "link target longer than {} bytes",
            limits.path_bytes
        )),
        Some(target) => Ok(target),
    };
    Ok(match flag {
        Flag::File | Flag::Sparse => match sparse {
            Some((map, size)) => sparse_action(map, size, content)?,
            None if matches!(flag, Flag::Sparse) => {
                return Err("sparse file without a map".into());
            }
            None => Action::File,
        },
        Flag::Dir | Flag::DirWithListing => Action::Dir,
        Flag::Symlink => Action::Symlink(target()?.to_vec()),
        Flag::Hardlink => {
            let target = normalise(target()?).map_err(|why| format!("hard link target: {why}"))?;
            Action::Hardlink(target)
        }
        // The kernel's own whiteout.
        Flag::Node(Node::Char(0, 0)) => Action::Whiteout(normalise(&parsed.path)?),
        Flag::Node(node) => Action::Node(node),
        Flag::Ignore => Action::Ignore,
    })
}

/// Checks a sparse map: ascending, inside the file, and as long as the content.
fn sparse_action(map: Vec<SparseEntry>, size: u64, content: u64) -> Result<Action, String> {
    if i64::try_from(size).is_err() {
        return Err(format!("sparse file of {size} bytes"));
    }
    let mut ranges = Vec::with_capacity(map.len());
    let (mut end, mut sum) = (0u64, 0u64);
    for SparseEntry { offset, length } in map {
        let this_end = offset
            .checked_add(length)
            .filter(|&this_end| this_end <= size);
        let Some(this_end) = this_end.filter(|_| offset >= end) else {
            return Err("sparse regions overlap or lie outside the file".into());
        };
        end = this_end;
        // Cannot overflow: the regions do not overlap.
        sum += length;
        if length > 0 {
            ranges.push(Range { offset, length });
        }
    }
    if sum != content {
        return Err(format!(
            "sparse regions hold {sum} bytes, the entry has {content}"
        ));
    }
    Ok(Action::Sparse { ranges, size })
}

/// Bytes of content after the headers and any sparse map.
fn content_size(parsed: u64, records: &pax::Records, map_bytes: u64) -> Result<u64, String> {
    let size = match records.size {
        // The parser has taken the map off the header's size, but not off this one.
        Some(size) if records.sparse_map_in_content => size
            .checked_sub(map_bytes)
            .ok_or("sparse map longer than the entry")?,
        _ => parsed,
    };
    if size > u64::MAX / 2 {
        return Err(format!("entry of {size} bytes"));
    }
    Ok(size)
}

/// The parser drops the upper bits of binary sizes beyond 64 bits, and their sign.
fn check_size_field(field: &[u8]) -> Result<(), String> {
    match field {
        [first, rest @ ..] if first & 0x80 != 0 => {
            if *first == 0x80 && rest.iter().take(3).all(|&byte| byte == 0) {
                Ok(())
            } else {
                Err("entry size out of range".into())
            }
        }
        _ => Ok(()),
    }
}

/// A header's time: binary ones are signed, which the parser does not know.
fn header_time(field: &[u8], parsed: u64) -> Result<i64, String> {
    let out_of_range = || "modification time out of range".to_string();
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            // 95 bits, the highest of which is the sign.
            let sign = if first & 0x40 != 0 { -1i128 } else { 0 };
            let value = field
                .iter()
                .enumerate()
                .fold(sign, |value, (index, &byte)| {
                    let bits = if index == 0 { byte & 0x7f } else { byte };
                    let width = if index == 0 { 7 } else { 8 };
                    (value << width) | i128::from(bits)
                });
            i64::try_from(value).map_err(|_| out_of_range())
        }
        _ => i64::try_from(parsed).map_err(|_| out_of_range()),
    }
}

/// An owner or group; the highest number means "unchanged" to the kernel.
fn id(number: u64, what: &str) -> Result<u32, String> {
    match u32::try_from(number) {
        Ok(number) if number != u32::MAX => Ok(number),
        _ => Err(format!("{what} {number} out of range")),
    }
}

/// The entry's attributes; of several records with one name the last counts.
fn xattrs(parsed: &ParsedEntry<'_>) -> Result<Xattrs, String> {
    let mut list: Xattrs = Vec::with_capacity(parsed.xattrs.len());
    for (name, value) in &parsed.xattrs {
        if name.is_empty() || name.contains(&0) {
            return Err("extended attribute with an empty name, or one with a NUL byte".into());
        }
        list.push((name.to_vec(), value.to_vec()));
    }
    // Stable, so that equal names keep their order; then the last of each is kept.
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list.reverse();
    list.dedup_by(|later, earlier| later.0 == earlier.0);
    list.reverse();
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteout_names_are_classified() {
        let whiteout = |path: &[u8]| Ok(Some(Action::Whiteout(path.to_vec())));
        for (path, want) in [
            (&b"a/b"[..], Ok(None)),
            (b"a/.whx", Ok(None)),
            (b"a/.wh.b", whiteout(b"a/b")),
            (b".wh.b", whiteout(b"b")),
            (b".wh.....", whiteout(b"....")),
            (b"a/.wh..wh..opq", Ok(Some(Action::Opaque(b"a".to_vec())))),
            (b".wh..wh..opq", Ok(Some(Action::Opaque(Vec::new())))),
            (b"a/.wh..wh.plnk", Ok(Some(Action::Ignore))),
            (b".wh..wh.plnk/123.4", Ok(Some(Action::Ignore))),
            (b".wh..wh.plnk/.wh..wh..opq", Ok(Some(Action::Ignore))),
        ] {
            assert_eq!(classify(path), want, "{:?}", String::from_utf8_lossy(path));
        }
        for path in [
            &b".wh."[..],
            b"a/.wh.",
            b".wh..",
            b"x/.wh...",
            b".wh.a/b",
            b".wh.a/.wh.b",
        ] {
            assert!(
                classify(path).is_err(),
                "{:?}",
                String::from_utf8_lossy(path)
            );
        }
    }

    #[test]
    fn binary_times_are_signed() {
        let field = |value: i128| {
            let mut bytes: [u8; 12] = value.to_be_bytes()[4..].try_into().unwrap();
            bytes[0] |= 0x80;
            bytes
        };
        for value in [0i64, 1, -1, -86400, i64::MAX, i64::MIN, 1 << 40] {
            assert_eq!(header_time(&field(i128::from(value)), 0), Ok(value));
        }
        assert!(header_time(&field(1 << 70), 0).is_err());
        assert_eq!(header_time(b"00000000017\0", 15), Ok(15));
    }

    #[test]
    fn sparse_maps_are_checked() {
        let map = |list: &[(u64, u64)]| {
            list.iter()
                .map(|&(offset, length)| SparseEntry { offset, length })
                .collect::<Vec<_>>()
        };
        assert!(sparse_action(map(&[(0, 5), (10, 5), (20, 0)]), 20, 10).is_ok());
        for (list, size, content) in [
            (&[(0, 5), (4, 5)][..], 20, 10),
            (&[(10, 5), (0, 5)], 20, 10),
            (&[(0, 21)], 20, 21),
            (&[(u64::MAX, 2)], 20, 2),
            (&[(0, 5)], 20, 6),
            (&[], u64::MAX, 0),
        ] {
            assert!(sparse_action(map(list), size, content).is_err(), "{list:?}");
        }
    }
}
