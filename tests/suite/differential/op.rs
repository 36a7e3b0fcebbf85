//! Operations and their random choice.

/// A small deterministic generator (xorshift64*), so that a seed names a sequence for ever.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from any seed.
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_add(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// Names of the lower layers and a few that exist nowhere; few, so that operations meet.
const NAMES: &[&str] = &[
    "a", "b", "c", "d", "e", "f", "dir", "sub", "new", "gone", "hl", "hl2", "opq", "red",
];

/// A path relative to the mount.
pub type Path = String;

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
    Unlink(Path),
    Mkdir(Path),
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
    Link {
        from: Path,
        to: Path,
    },
    Symlink {
        target: String,
        path: Path,
    },
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
    Mkfifo(Path),
    Mknod {
        path: Path,
        minor: u64,
    },
    Open {
        slot: usize,
        path: Path,
        write: bool,
    },
    ReadHandle(usize),
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
    MapWrite {
        slot: usize,
        fill: u8,
    },
    Close(usize),
    CopyRange {
        from: Path,
        to: Path,
    },
    Stat(Path),
    Read(Path),
    List(Path),
    RemoveTree(Path),
}

/// Open descriptors a sequence may hold at once.
pub const SLOTS: u64 = 3;

const XATTRS: &[&str] = &["user.one", "user.two"];

impl Op {
    /// Chooses an operation; changes are commoner than looks.
    pub fn any(random: &mut Random) -> Op {
        match random.below(44) {
            0..=1 => Op::Create {
                path: path(random),
                exclusive: random.below(2) == 0,
                mode: mode(random),
            },
            2..=4 => Op::Write {
                path: path(random),
                at: random.below(9000),
                len: len(random),
                fill: fill(random),
            },
            5 => Op::Append {
                path: path(random),
                len: len(random),
                fill: fill(random),
            },
            6 => Op::Truncate {
                path: path(random),
                size: random.below(12000),
            },
            7 => Op::OpenTrunc(path(random)),
            8 => Op::Punch {
                path: path(random),
                at: random.below(8000),
                len: 1 + random.below(4096),
            },
            9..=11 => Op::Unlink(path(random)),
            12..=13 => Op::Mkdir(path(random)),
            14..=15 => Op::Rmdir(path(random)),
            16..=20 => Op::Rename {
                from: path(random),
                to: path(random),
            },
            21 => Op::RenameNoReplace {
                from: path(random),
                to: path(random),
            },
            22 => Op::Exchange {
                from: path(random),
                to: path(random),
            },
            23..=24 => Op::Link {
                from: path(random),
                to: path(random),
            },
            25 => Op::Symlink {
                target: path(random),
                path: path(random),
            },
            26 => Op::Chmod {
                path: path(random),
                mode: mode(random),
            },
            27 => Op::Chown {
                path: path(random),
                uid: id(random),
                gid: id(random),
            },
            28 => Op::Utimes {
                path: path(random),
                seconds: 1_600_000_000 + i64::try_from(random.below(1000)).unwrap(),
            },
            29 => Op::SetXattr {
                path: path(random),
                name: xattr(random),
                value: fill(random),
            },
            30 => Op::RemoveXattr {
                path: path(random),
                name: xattr(random),
            },
            31 => Op::Mkfifo(path(random)),
            32 => Op::Mknod {
                path: path(random),
                minor: 1 + random.below(5),
            },
            33..=34 => Op::Open {
                slot: slot(random),
                path: path(random),
                write: random.below(2) == 0,
            },
            35 => Op::ReadHandle(slot(random)),
            36 => Op::WriteHandle {
                slot: slot(random),
                at: random.below(6000),
                fill: fill(random),
            },
            37 => handle_change(random),
            38 => Op::Close(slot(random)),
            39 => Op::CopyRange {
                from: path(random),
                to: path(random),
            },
            40 => Op::Stat(path(random)),
            41 => Op::Read(path(random)),
            42 => Op::List(path(random)),
            _ => Op::RemoveTree(path(random)),
        }
    }
}

fn handle_change(random: &mut Random) -> Op {
    let slot = slot(random);
    match random.below(3) {
        0 => Op::TruncateHandle {
            slot,
            size: random.below(5000),
        },
        1 => Op::ChmodHandle {
            slot,
            mode: mode(random),
        },
        _ => Op::MapWrite {
            slot,
            fill: fill(random),
        },
    }
}

fn path(random: &mut Random) -> Path {
    let depth = 1 + random.below(3);
    (0..depth)
        .map(|_| random.pick(NAMES))
        .collect::<Vec<_>>()
        .join("/")
}

fn mode(random: &mut Random) -> u32 {
    [0o644, 0o600, 0o755, 0o4755, 0o2755, 0o1777, 0o000, 0o444]
        [usize::try_from(random.below(8)).unwrap()]
}

fn id(random: &mut Random) -> u32 {
    [0, 1000, 77][usize::try_from(random.below(3)).unwrap()]
}

fn len(random: &mut Random) -> usize {
    [1, 7, 512, 4096, 5000][usize::try_from(random.below(5)).unwrap()]
}

fn fill(random: &mut Random) -> u8 {
    b'A' + u8::try_from(random.below(26)).unwrap()
}

fn slot(random: &mut Random) -> usize {
    usize::try_from(random.below(SLOTS)).unwrap()
}

fn xattr(random: &mut Random) -> &'static str {
    XATTRS[usize::try_from(random.below(XATTRS.len() as u64)).unwrap()]
}
