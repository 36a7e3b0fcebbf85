//! How a view is mounted.

use std::time::Duration;

/// Smaller files are copied before they are opened to write: that takes some hundredths of a second, and who then writes
/// much does so past the server.
const GROWS_FROM: u64 = 64 << 20;

/// Options of a mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What the mount table shows as source.
    pub fsname: String,
    /// What the mount table shows after `fuse.`.
    pub subtype: String,
    /// Everybody may use the mount, not only the user who mounted it.
    pub allow_other: bool,
    /// Refuse changes in the kernel already.
    pub read_only: bool,
    /// Serving threads; 0: as many as the machine has processors, at least two and at most four.
    pub threads: usize,
    /// Whether the kernel may read and write the layers' files by itself.
    pub passthrough: Passthrough,
    /// Lower files of at least this length can be written to as soon as they are opened, and are copied up meanwhile; `None`:
    /// an open waits for the copy.
    pub grows_from: Option<u64>,
    /// Who mounts.
    pub via: Via,
    /// POSIX ACLs are checked and kept.
    pub acl: bool,
    /// Every directory is said to have one name, as if nobody had counted.
    pub static_nlink: bool,
    /// Longest time for which the kernel believes names and attributes without asking again; `None`: for ever, since
    /// every change comes through the mount.
    pub timeout: Option<Duration>,
    /// Further words for the kernel: `nosuid`, `nodev`, `noexec`, `noatime`, `context=…`.
    pub kernel_options: Vec<String>,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            fsname: "millefs".to_owned(),
            subtype: "millefs".to_owned(),
            allow_other: true,
            read_only: false,
            threads: 0,
            passthrough: Passthrough::Auto,
            grows_from: Some(GROWS_FROM),
            via: Via::Direct,
            acl: true,
            static_nlink: false,
            timeout: None,
            kernel_options: Vec::new(),
        }
    }
}

/// Passthrough of file data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passthrough {
    /// Where the kernel grants it (it does to root of the first user namespace).
    Auto,
    /// Never: all data goes through the server.
    Off,
}

/// The way a mount is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By mount(2): root, or the root of a user namespace.
    Direct,
    /// By `fusermount3`: an ordinary user outside any namespace.
    Fusermount,
}
