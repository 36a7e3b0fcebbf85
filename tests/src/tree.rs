//! Two trees compared, and small file helpers.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Sets permission bits.
pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// What is compared of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u64,
    /// Modification time, seconds.
    pub mtime: i64,
    /// Size of a regular file and sha256 of its content; target of a link.
    pub content: String,
    /// An earlier path (in order) that shares the inode, for regular files with several names.
    pub same_as: Option<PathBuf>,
}

/// Reads a whole tree: relative path to object. Directory times are left out: a directory that gained an entry has a
/// new one in every implementation.
pub fn read(root: &Path) -> BTreeMap<PathBuf, Object> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    visit(root, Path::new(""), &mut found, &mut inodes);
    // A file whose other names are hidden is alone in this tree, whatever its link count says.
    let shared = |path: &PathBuf| {
        found
            .values()
            .filter(|object| object.same_as.as_ref() == Some(path))
            .count()
            > 1
    };
    let alone: Vec<PathBuf> = found
        .values()
        .filter_map(|object| object.same_as.clone())
        .filter(|first| !shared(first))
        .collect();
    for first in alone {
        if let Some(object) = found.get_mut(&first) {
            object.same_as = None;
        }
    }
    found
}

fn visit(
    root: &Path,
    relative: &Path,
    found: &mut BTreeMap<PathBuf, Object>,
    inodes: &mut BTreeMap<(u64, u64), PathBuf>,
) {
    let mut names: Vec<_> = std::fs::read_dir(root.join(relative))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let path = relative.join(&name);
        let full = root.join(&path);
        let meta = full.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let content = if kind.is_file() {
            let bytes = std::fs::read(&full).unwrap();
            format!("{} {}", bytes.len(), hex(&Sha256::digest(&bytes)))
        } else if kind.is_symlink() {
            std::fs::read_link(&full)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .escape_ascii()
                .to_string()
        } else {
            String::new()
        };
        // The link count alone does not tell: a name may be hidden by a layer above.
        let same_as = if kind.is_file() && meta.nlink() > 1 {
            let first: &mut PathBuf = inodes
                .entry((meta.dev(), meta.ino()))
                .or_insert_with(|| path.clone());
            Some(first.clone()).filter(|first| *first != path)
        } else {
            None
        };
        let device = kind.is_char_device() || kind.is_block_device();
        let object = Object {
            mode: meta.mode(),
            uid: meta.uid(),
            gid: meta.gid(),
            rdev: if device { meta.rdev() } else { 0 },
            mtime: if kind.is_dir() { 0 } else { meta.mtime() },
            content,
            same_as,
        };
        found.insert(path.clone(), object);
        if kind.is_dir() {
            visit(root, &path, found, inodes);
        }
    }
}

/// Requires that two trees are the same, and names the first few differences.
#[track_caller]
pub fn assert_same(left: &BTreeMap<PathBuf, Object>, right: &BTreeMap<PathBuf, Object>) {
    let mut differences = Vec::new();
    for path in left
        .keys()
        .chain(right.keys().filter(|path| !left.contains_key(*path)))
    {
        if left.get(path) != right.get(path) {
            differences.push(format!(
                "{}: {:?} / {:?}",
                path.display(),
                left.get(path),
                right.get(path)
            ));
        }
    }
    differences.truncate(12);
    assert!(
        differences.is_empty(),
        "trees differ:\n{}",
        differences.join("\n")
    );
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Digest over names, attributes and contents of a directory tree: unchanged means untouched.
pub fn fingerprint(root: &Path) -> String {
    hex(&Sha256::digest(format!("{:?}", read(root)).as_bytes()))
}
