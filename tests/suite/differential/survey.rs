//! A whole tree as it can be seen from outside, and what is different between two.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsStr};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, FileType, StatxFlags};

/// What is seen of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object {
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    size: u64,
    nlink: u64,
    ino: u64,
    /// With `ino`, tells objects apart that had one number one after the other.
    birth: (i64, u32),
    mtime: Duration,
    xattrs: Vec<(String, Vec<u8>)>,
    /// Sum of the bytes, or target of a link.
    content: String,
}

/// A tree: path to object.
pub type Survey = BTreeMap<PathBuf, Object>;

/// Which times may differ, and by how much.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Times before are of the layers, and equal in all trees.
    pub start: SystemTime,
    /// The longest that one step took in all trees together.
    pub longest_step: Duration,
}

/// The kernel's clock for files runs behind by up to a tick; one of 10 ms is the longest there is.
pub const CLOCK_LAG: Duration = Duration::from_millis(10);

/// What the clock may be behind by besides, when a virtual processor is taken away and misses ticks: 19 ms were seen.
const MISSED_TICKS: Duration = Duration::from_millis(50);

/// Reads a tree; `Err` tells a listing that does not agree with stat, or what cannot be read.
pub fn survey(root: &Path) -> Result<Survey, String> {
    let mut found = Survey::new();
    found.insert(PathBuf::new(), object(root)?);
    visit(root, Path::new(""), &mut found)?;
    Ok(found)
}

fn visit(root: &Path, relative: &Path, found: &mut Survey) -> Result<(), String> {
    let complain = |path: &Path, error: &dyn std::fmt::Display| {
        format!("{}: {error}", root.join(path).display())
    };
    let dir = match std::fs::File::open(root.join(relative)) {
        Ok(dir) => dir,
        // An ordinary user may have shut himself out; then he is in all trees alike.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let object = found.get_mut(relative).unwrap();
            object.content = "may not be listed".into();
            return Ok(());
        }
        Err(error) => return Err(complain(relative, &error)),
    };
    let mut entries = Vec::new();
    for entry in Dir::new(dir).map_err(|error| complain(relative, &error))? {
        let entry = entry.map_err(|error| complain(relative, &error))?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
        entries.push((name, entry.file_type(), entry.ino()));
    }
    let mut subdirectories = 0;
    let mut unseen = false;
    for (name, kind, ino) in entries {
        if name == "." || name == ".." {
            continue;
        }
        let path = relative.join(&name);
        let seen = root.join(&path).symlink_metadata();
        if seen.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
            found.insert(path, Object::default());
            unseen = true;
            continue;
        }
        let object = object(&root.join(&path))?;
        if kind != FileType::from_raw_mode(object.mode) || ino != object.ino {
            let (mode, number) = (object.mode, object.ino);
            let text = format!("listed as {kind:?} {ino}, but stat says {mode:o} {number}");
            return Err(complain(&path, &text));
        }
        if found.insert(path.clone(), object).is_some() {
            return Err(complain(&path, &"listed twice"));
        }
        if kind == FileType::Directory {
            subdirectories += 1;
            visit(root, &path, found)?;
        }
    }
    let links = found[relative].nlink;
    // 1 says that nobody counted, as in btrfs and many others.
    if !unseen && links != 1 && links != 2 + subdirectories {
        let text = format!("a directory of {subdirectories} directories has {links} links");
        return Err(complain(relative, &text));
    }
    Ok(())
}

fn object(path: &Path) -> Result<Object, String> {
    let complain = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let meta = path.symlink_metadata().map_err(|error| complain(&error))?;
    let kind = meta.file_type();
    let content = if kind.is_file() {
        match std::fs::read(path) {
            Ok(bytes) if bytes.len() as u64 == meta.len() => format!("{:x}", sum(&bytes)),
            Ok(bytes) => {
                let text = format!("{} bytes of {}", bytes.len(), meta.len());
                return Err(complain(&text));
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => "may not be read".into(),
            Err(error) => return Err(complain(&error)),
        }
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path).map_err(|error| complain(&error))?;
        target.as_os_str().as_bytes().escape_ascii().to_string()
    } else {
        String::new()
    };
    let device = kind.is_char_device() || kind.is_block_device();
    let birth = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME)
        .map(|statx| (statx.stx_btime.tv_sec, statx.stx_btime.tv_nsec))
        .unwrap_or_default();
    let seconds = u64::try_from(meta.mtime()).unwrap_or(0);
    Ok(Object {
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: if device { meta.rdev() } else { 0 },
        size: if kind.is_dir() { 0 } else { meta.size() },
        nlink: meta.nlink(),
        ino: meta.ino(),
        birth,
        mtime: Duration::new(seconds, u32::try_from(meta.mtime_nsec()).unwrap_or(0)),
        xattrs: xattrs(path),
        content,
    })
}

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut buffer = [0u8; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut buffer) else {
        return Vec::new();
    };
    let names = buffer[..length].split(|byte| *byte == 0);
    let mut found: Vec<_> = names
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = [0u8; 256];
            let c_name = CString::new(name).unwrap();
            let length = rustix::fs::lgetxattr(path, c_name.as_c_str(), &mut value).unwrap_or(0);
            let name = String::from_utf8_lossy(name).into_owned();
            (name, value[..length].to_vec())
        })
        .collect();
    found.sort();
    found
}

/// A short sum over bytes, eight at a time.
pub fn sum(content: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325u64 ^ content.len() as u64;
    let mut words = content.chunks_exact(8);
    for word in words.by_ref() {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
        sum = (sum ^ word)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29);
    }
    for byte in words.remainder() {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    sum
}

/// Which object of ours is which of the plain tree, for as long as a sequence goes: numbers must stay.
#[derive(Debug, Default)]
pub struct Identity {
    known: HashMap<(u64, (i64, u32)), u64>,
}

impl Identity {
    /// Takes in two trees of the same names; `Err` tells an object whose number changed, or two that have become one.
    pub fn check(&mut self, ours: &Survey, plain: &Survey) -> Result<(), String> {
        let mut taken = HashMap::new();
        for (path, object) in ours {
            let Some(other) = plain.get(path).filter(|other| other.ino != 0) else {
                continue;
            };
            let key = (other.ino, other.birth);
            let before = *self.known.entry(key).or_insert(object.ino);
            if before != object.ino {
                return Err(format!(
                    "{}: was number {before}, is {}",
                    path.display(),
                    object.ino
                ));
            }
            if *taken.entry(object.ino).or_insert(key) != key {
                let number = object.ino;
                return Err(format!("{}: number {number} is another's", path.display()));
            }
        }
        Ok(())
    }
}

/// The first difference of two trees.
pub fn difference(ours: &Survey, plain: &Survey, times: Times) -> Option<String> {
    let all = ours
        .keys()
        .chain(plain.keys().filter(|path| !ours.contains_key(*path)));
    for path in all {
        let (left, right) = (ours.get(path), plain.get(path));
        let same = match (left, right) {
            (Some(left), Some(right)) => left.is_like(right, times),
            _ => false,
        };
        if !same {
            let name = path.display();
            return Some(format!(
                "at the end, {name}:\n  ours  {left:?}\n  plain {right:?}"
            ));
        }
    }
    None
}

/// The first difference of one upper shown by two overlays: all but the numbers, which only hard links have in common.
pub fn differing_names(left: &Survey, right: &Survey) -> Option<String> {
    let never = Times {
        start: SystemTime::now() + Duration::from_secs(3600),
        longest_step: Duration::ZERO,
    };
    difference(left, right, never)
}

impl Object {
    fn is_like(&self, other: &Object, times: Times) -> bool {
        let directory = self.mode & 0o170_000 == 0o040_000;
        let normal = |object: &Object| Object {
            nlink: if directory { 0 } else { object.nlink },
            ino: 0,
            birth: (0, 0),
            mtime: Duration::ZERO,
            ..object.clone()
        };
        normal(self) == normal(other) && times.agree(self.mtime, other.mtime)
    }
}

impl Times {
    fn agree(&self, ours: Duration, plain: Duration) -> bool {
        let start = self
            .start
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if plain + CLOCK_LAG < start {
            return ours == plain;
        }
        ours.abs_diff(plain) <= self.longest_step + CLOCK_LAG + MISSED_TICKS
    }
}
