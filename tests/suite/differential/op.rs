//! Operations and their random choice.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::random::Random;

/// Names of the lower layers and a few that exist nowhere; few, so that operations meet. The first are mostly files, the
/// others mostly directories.
const FILES: &[&str] = &["a", "b", "c", "d", "f", "hl", "hl2", "new"];
const DIRS: &[&str] = &["dir", "dir", "sub", "e", "opq", "red", "gone"];

/// A path relative to the mount. Static, so that a printed sequence can be pasted as a regression.
pub type Path = &'static str;

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each variant is a system call and its arguments"
)]
pub enum Op {
    Create {
        path: Path,
        exclusive: bool,
        mode: u32,
    },
    Write {
        path: Path,
        at: u64,
        len: usize,
        fill: u8,
    },
    Append {
        path: Path,
        len: usize,
        fill: u8,
    },
    Truncate {
        path: Path,
        size: u64,
    },
    OpenTrunc(Path),
    Punch {
        path: Path,
        at: u64,
        len: u64,
    },
    Allocate {
        path: Path,
        at: u64,
        len: u64,
        keep_size: bool,
    },
    Unlink(Path),
    Mkdir {
        path: Path,
        mode: u32,
    },
    Rmdir(Path),
    Rename {
        from: Path,
        to: Path,
    },
    RenameNoReplace {
        from: Path,
        to: Path,
    },
    Exchange {
        from: Path,
        to: Path,
    },
    /// With RENAME_WHITEOUT, which no overlay does.
    RenameWhiteout {
        from: Path,
        to: Path,
    },
    Link {
        from: Path,
        to: Path,
    },
    Symlink {
        target: Path,
        path: Path,
    },
    ReadLink(Path),
    Chmod {
        path: Path,
        mode: u32,
    },
    Chown {
        path: Path,
        uid: u32,
        gid: u32,
    },
    Utimes {
        path: Path,
        seconds: i64,
    },
    SetXattr {
        path: Path,
        name: &'static str,
        value: u8,
    },
    RemoveXattr {
        path: Path,
        name: &'static str,
    },
    /// An ACL that names uid 1000 with `bits`.
    SetAcl {
        path: Path,
        default: bool,
        bits: u16,
    },
    RemoveAcl {
        path: Path,
        default: bool,
    },
    /// Sets both times to now, for which one must only be allowed to write.
    Touch(Path),
    /// A file capability, which goes with the next write.
    SetCapability(Path),
    /// A nameless file that gets a name when it is filled.
    Tmpfile {
        dir: Path,
        to: Path,
    },
    Mkfifo(Path),
    MkSocket(Path),
    Mknod {
        path: Path,
        block: bool,
        minor: u32,
    },
    Open {
        slot: usize,
        path: Path,
        write: bool,
        append: bool,
    },
    /// Makes a file and keeps it open.
    OpenNew {
        slot: usize,
        path: Path,
        mode: u32,
    },
    ReadHandle(usize),
    StatHandle(usize),
    WriteHandle {
        slot: usize,
        at: u64,
        fill: u8,
    },
    TruncateHandle {
        slot: usize,
        size: u64,
    },
    ChmodHandle {
        slot: usize,
        mode: u32,
    },
    ChownHandle {
        slot: usize,
        uid: u32,
    },
    XattrHandle {
        slot: usize,
        value: u8,
    },
    /// Another name for what is open, through /proc/self/fd.
    LinkHandle {
        slot: usize,
        to: Path,
    },
    /// Where data or a hole is.
    Seek {
        slot: usize,
        at: u64,
        hole: bool,
    },
    MapWrite {
        slot: usize,
        fill: u8,
    },
    Sync(usize),
    Close(usize),
    /// Keeps a directory open, also while it is moved or removed.
    OpenDir {
        slot: usize,
        path: Path,
    },
    ListHandle(usize),
    CreateBelow {
        slot: usize,
        name: Path,
    },
    UnlinkBelow {
        slot: usize,
        name: Path,
    },
    CopyRange {
        from: Path,
        to: Path,
    },
    Stat(Path),
    Access {
        path: Path,
        mode: u32,
    },
    Read(Path),
    List(Path),
    RemoveTree(Path),
    /// The same as uid 1000, gid 1000, without privileges.
    AsUser(Box<Op>),
    /// The operation of this number, by a process of a crew.
    By {
        member: usize,
        number: u64,
        operation: Box<Op>,
    },
}

/// Open descriptors a sequence may hold at once.
pub const SLOTS: usize = 4;

const XATTRS: &[&str] = &["user.one", "user.two"];
const MODES: &[u32] = &[0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o000, 0o444];
const IDS: &[u32] = &[0, 1000, 77];
const LENGTHS: &[usize] = &[1, 7, 512, 4096, 5000, 140_000];

impl Op {
    /// The operation that this number names.
    pub fn numbered(number: u64) -> Op {
        Self::any(&mut Random::new(number))
    }

    /// The operation that a number names, by a member of a crew.
    pub fn by(member: usize, number: u64) -> Op {
        Op::By {
            member,
            number,
            operation: Box::new(Self::numbered(number)),
        }
    }

    /// Chooses an operation; changes are commoner than looks.
    pub fn any(random: &mut Random) -> Op {
        if random.below(8) == 0 {
            return Op::AsUser(Box::new(Self::by_somebody(random)));
        }
        Self::by_somebody(random)
    }

    fn by_somebody(random: &mut Random) -> Op {
        match random.below(56) {
            0..=15 => content(random),
            16..=33 => names(random),
            34..=42 => attributes(random),
            43..=50 => handles(random),
            _ => look(random),
        }
    }

    /// What is done, by whomever.
    pub fn act(&self) -> &Op {
        match self {
            Op::AsUser(inner)
            | Op::By {
                operation: inner, ..
            } => inner.act(),
            other => other,
        }
    }

    /// Which process of a crew does it.
    pub fn member(&self) -> Option<usize> {
        match self {
            Op::By { member, .. } => Some(*member),
            _ => None,
        }
    }

    /// The paths it names.
    pub fn paths(&self) -> Vec<Path> {
        match self.act() {
            Op::Rename { from, to }
            | Op::RenameNoReplace { from, to }
            | Op::Exchange { from, to }
            | Op::Link { from, to }
            | Op::CopyRange { from, to } => vec![from, to],
            Op::Tmpfile { dir, to } => vec![dir, to],
            Op::LinkHandle { to, .. } => vec![to],
            Op::Create { path, .. }
            | Op::Write { path, .. }
            | Op::Append { path, .. }
            | Op::Truncate { path, .. }
            | Op::OpenTrunc(path)
            | Op::Punch { path, .. }
            | Op::Allocate { path, .. }
            | Op::Unlink(path)
            | Op::Mkdir { path, .. }
            | Op::Rmdir(path)
            | Op::Symlink { path, .. }
            | Op::ReadLink(path)
            | Op::Chmod { path, .. }
            | Op::Chown { path, .. }
            | Op::Utimes { path, .. }
            | Op::SetXattr { path, .. }
            | Op::RemoveXattr { path, .. }
            | Op::SetAcl { path, .. }
            | Op::RemoveAcl { path, .. }
            | Op::Touch(path)
            | Op::SetCapability(path)
            | Op::Mkfifo(path)
            | Op::MkSocket(path)
            | Op::Mknod { path, .. }
            | Op::Open { path, .. }
            | Op::OpenNew { path, .. }
            | Op::OpenDir { path, .. }
            | Op::Stat(path)
            | Op::Access { path, .. }
            | Op::Read(path)
            | Op::List(path)
            | Op::RemoveTree(path) => vec![path],
            _ => Vec::new(),
        }
    }

    /// Whether it reads what a file or directory holds, which may set an atime.
    pub fn reads(&self) -> bool {
        matches!(
            self.act(),
            Op::Read(_)
                | Op::List(_)
                | Op::ReadLink(_)
                | Op::ReadHandle(_)
                | Op::ListHandle(_)
                | Op::Seek { .. }
                | Op::CopyRange { .. }
                | Op::RemoveTree(_)
        )
    }
}

fn content(random: &mut Random) -> Op {
    match random.below(17) {
        16 => Op::Tmpfile {
            dir: dir(random),
            to: file(random),
        },
        0..=2 => Op::Create {
            path: file(random),
            exclusive: random.coin(),
            mode: random.pick(MODES),
        },
        3..=6 => Op::Write {
            path: file(random),
            at: random.below(9000),
            len: random.pick(LENGTHS),
            fill: fill(random),
        },
        7..=8 => Op::Append {
            path: file(random),
            len: random.pick(LENGTHS),
            fill: fill(random),
        },
        9..=10 => Op::Truncate {
            path: file(random),
            size: random.below(12000),
        },
        11 => Op::OpenTrunc(file(random)),
        12 => Op::Punch {
            path: file(random),
            at: random.below(8000),
            len: 1 + random.below(4096),
        },
        13 => Op::Allocate {
            path: file(random),
            at: random.below(8000),
            len: 1 + random.below(9000),
            keep_size: random.coin(),
        },
        14 => Op::CopyRange {
            from: file(random),
            to: file(random),
        },
        _ => Op::Symlink {
            target: path(random),
            path: file(random),
        },
    }
}

fn names(random: &mut Random) -> Op {
    match random.below(25) {
        0..=2 => Op::Unlink(file(random)),
        3..=6 => Op::Mkdir {
            path: dir(random),
            mode: random.pick(&[0o755, 0o777, 0o2775, 0o1777, 0o700]),
        },
        7..=8 => Op::Rmdir(dir(random)),
        9..=14 => Op::Rename {
            from: path(random),
            to: path(random),
        },
        15 if random.below(3) == 0 => Op::RenameWhiteout {
            from: path(random),
            to: path(random),
        },
        15 => Op::RenameNoReplace {
            from: path(random),
            to: path(random),
        },
        16 | 24 => Op::Exchange {
            from: path(random),
            to: path(random),
        },
        17..=20 => Op::Link {
            from: file(random),
            to: path(random),
        },
        21 if random.coin() => Op::MkSocket(path(random)),
        21 => Op::Mkfifo(path(random)),
        22 => Op::Mknod {
            path: path(random),
            block: random.coin(),
            minor: 1 + u32::try_from(random.below(5)).unwrap(),
        },
        _ if random.below(3) == 0 => Op::RemoveTree(dir(random)),
        _ => Op::Mkdir {
            path: dir(random),
            mode: 0o755,
        },
    }
}

fn attributes(random: &mut Random) -> Op {
    match random.below(11) {
        9 => Op::Touch(path(random)),
        10 => Op::SetCapability(file(random)),
        0..=1 => Op::Chmod {
            path: path(random),
            mode: random.pick(MODES),
        },
        2..=3 => Op::Chown {
            path: path(random),
            uid: random.pick(IDS),
            gid: random.pick(IDS),
        },
        4 => Op::Utimes {
            path: path(random),
            seconds: 1_600_000_000 + i64::try_from(random.below(1000)).unwrap(),
        },
        5 => Op::SetXattr {
            path: path(random),
            name: random.pick(XATTRS),
            value: fill(random),
        },
        6 => Op::RemoveXattr {
            path: path(random),
            name: random.pick(XATTRS),
        },
        7 => Op::SetAcl {
            path: path(random),
            default: random.coin(),
            bits: u16::try_from(random.below(8)).unwrap(),
        },
        _ => Op::RemoveAcl {
            path: path(random),
            default: random.coin(),
        },
    }
}

fn handles(random: &mut Random) -> Op {
    let slot = usize::try_from(random.below(SLOTS as u64)).unwrap();
    match random.below(27) {
        20..=21 => Op::OpenNew {
            slot,
            path: file(random),
            mode: random.pick(MODES),
        },
        22 => Op::ChownHandle {
            slot,
            uid: random.pick(IDS),
        },
        23 => Op::XattrHandle {
            slot,
            value: fill(random),
        },
        24 => Op::LinkHandle {
            slot,
            to: file(random),
        },
        25..=26 => Op::Seek {
            slot,
            at: random.below(9000),
            hole: random.coin(),
        },
        0..=4 => {
            let write = random.coin();
            Op::Open {
                slot,
                path: file(random),
                write,
                append: write && random.below(4) == 0,
            }
        }
        5 => Op::OpenDir {
            slot,
            path: dir(random),
        },
        6..=7 => Op::ReadHandle(slot),
        8..=9 => Op::StatHandle(slot),
        10..=11 => Op::WriteHandle {
            slot,
            at: random.below(6000),
            fill: fill(random),
        },
        12 => Op::TruncateHandle {
            slot,
            size: random.below(5000),
        },
        13 => Op::ChmodHandle {
            slot,
            mode: random.pick(MODES),
        },
        14 => Op::MapWrite {
            slot,
            fill: fill(random),
        },
        15 => Op::Sync(slot),
        16 => Op::ListHandle(slot),
        17 => Op::CreateBelow {
            slot,
            name: random.pick(FILES),
        },
        18 => Op::UnlinkBelow {
            slot,
            name: random.pick(FILES),
        },
        _ => Op::Close(slot),
    }
}

fn look(random: &mut Random) -> Op {
    match random.below(5) {
        0 => Op::Stat(path(random)),
        1 => Op::Read(file(random)),
        2 => Op::List(dir(random)),
        3 => Op::ReadLink(path(random)),
        _ => Op::Access {
            path: path(random),
            mode: u32::try_from(random.below(8)).unwrap(),
        },
    }
}

/// A path, mostly short, through names of directories, since what ends in ENOENT tells little.
fn path(random: &mut Random) -> Path {
    if random.below(3) == 0 {
        dir(random)
    } else {
        file(random)
    }
}

/// A path that is likely to be a file's, if anything's.
fn file(random: &mut Random) -> Path {
    below_dirs(random, FILES)
}

/// A path that is likely to be a directory's.
fn dir(random: &mut Random) -> Path {
    below_dirs(random, DIRS)
}

fn below_dirs(random: &mut Random, names: &[Path]) -> Path {
    let depth = random.pick(&[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3]);
    let mut components: Vec<_> = (0..depth).map(|_| random.pick(DIRS)).collect();
    // Now and then a name of the other kind, for all the errors of type.
    let odd = random.below(8) == 0;
    components.push(random.pick(match odd {
        true if names == FILES => DIRS,
        true => FILES,
        false => names,
    }));
    interned(&components.join("/"))
}

/// The one copy of a path; there are a few thousand.
fn interned(path: &str) -> Path {
    static KNOWN: Mutex<Option<HashSet<Path>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    match known.get(path) {
        Some(path) => path,
        None => {
            let path: Path = Box::leak(path.into());
            known.insert(path);
            path
        }
    }
}

fn fill(random: &mut Random) -> u8 {
    b'A' + u8::try_from(random.below(26)).unwrap()
}
