//! Requests served, by kind.

use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of request that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Lookup,
    Forget,
    Getattr,
    Setattr,
    Readlink,
    Mknod,
    Mkdir,
    Unlink,
    Rmdir,
    Symlink,
    Rename,
    Link,
    Open,
    Read,
    Write,
    Statfs,
    Release,
    Fsync,
    Setxattr,
    Getxattr,
    Listxattr,
    Removexattr,
    Flush,
    Opendir,
    Readdir,
    Readdirplus,
    Fsyncdir,
    Access,
    Create,
    Ioctl,
    Poll,
    Fallocate,
    Lseek,
    CopyFileRange,
}

const NAMES: [&str; 34] = [
    "lookup",
    "forget",
    "getattr",
    "setattr",
    "readlink",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "open",
    "read",
    "write",
    "statfs",
    "release",
    "fsync",
    "setxattr",
    "getxattr",
    "listxattr",
    "removexattr",
    "flush",
    "opendir",
    "readdir",
    "readdirplus",
    "fsyncdir",
    "access",
    "create",
    "ioctl",
    "poll",
    "fallocate",
    "lseek",
    "copy_file_range",
];

/// The counters of one mount.
#[derive(Debug)]
pub(crate) struct Counters {
    counts: [AtomicU64; NAMES.len()],
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; NAMES.len()],
        }
    }

    pub(crate) fn count(&self, op: Op) {
        self.counts[op as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// All kinds with their numbers.
    pub(crate) fn snapshot(&self) -> Vec<(&'static str, u64)> {
        NAMES
            .iter()
            .zip(&self.counts)
            .map(|(name, count)| (*name, count.load(Ordering::Relaxed)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_name() {
        let counters = Counters::new();
        counters.count(Op::Lookup);
        counters.count(Op::CopyFileRange);
        counters.count(Op::CopyFileRange);
        let counted: Vec<_> = counters
            .snapshot()
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .collect();
        assert_eq!(counted, [("lookup", 1), ("copy_file_range", 2)]);
    }
}
