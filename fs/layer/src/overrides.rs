//! Ownership, mode and type kept in an extended attribute, where the real ones cannot be.
//!
//! The format is that of containers/storage: `uid:gid:0mode`, followed by `:type` for what is stored as an empty
//! regular file: `char-MAJOR-MINOR`, `block-MAJOR-MINOR`, `pipe`, `socket` (also read: `dir`, `file`, `symlink`).

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Stat, makedev};

use crate::marks::OVERRIDE_STAT;
use crate::xattr;

/// What the object is, in place of the empty regular file that stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverrideKind {
    /// Character device with major and minor number.
    Char(u32, u32),
    /// Block device with major and minor number.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
    /// Socket.
    Socket,
}

/// The value of `user.containers.override_stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverrideStat {
    /// Owner as the container sees it.
    pub uid: u32,
    /// Group as the container sees it.
    pub gid: u32,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// `None`: the object is what it is stored as.
    pub kind: Option<OverrideKind>,
}

impl OverrideStat {
    /// Reads the attribute's text; `None` when it is malformed.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<OverrideStat> {
        let mut parts = std::str::from_utf8(value).ok()?.split(':');
        let uid = decimal(parts.next()?)?;
        let gid = decimal(parts.next()?)?;
        let mode = parts.next()?;
        if mode.is_empty() || !mode.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
            return None;
        }
        // Writers exist that include the type bits; only permissions are meant.
        let mode = u32::from_str_radix(mode, 8).ok()? & 0o7777;
        let kind = match parts.next() {
            None => None,
            Some(text) => parse_kind(text)?,
        };
        if parts.next().is_some() {
            return None;
        }
        Some(OverrideStat {
            uid,
            gid,
            mode,
            kind,
        })
    }

    /// Returns the attribute of `name` in `dir` (of `dir` itself for `None`), if it has a well-formed one.
    ///
    /// # Errors
    /// Reading the attribute fails for another reason than its absence, or its value is malformed (`InvalidData`).
    pub fn get(dir: BorrowedFd<'_>, name: Option<&OsStr>) -> io::Result<Option<OverrideStat>> {
        let Some(value) = xattr::get(dir, name, OVERRIDE_STAT)? else {
            return Ok(None);
        };
        match OverrideStat::parse(&value) {
            Some(found) => Ok(Some(found)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "malformed user.containers.override_stat: {:?}",
                    String::from_utf8_lossy(&value)
                ),
            )),
        }
    }

    /// Writes the attribute on `name` in `dir` (on `dir` itself for `None`), a directory or regular file.
    ///
    /// # Errors
    /// Whatever setting the attribute gives.
    pub fn set(&self, dir: BorrowedFd<'_>, name: Option<&OsStr>) -> io::Result<()> {
        xattr::set(dir, name, OVERRIDE_STAT, self.to_string().as_bytes())
    }

    /// Puts owner, mode and type into `stat`, which becomes what the container sees.
    pub fn apply(&self, stat: &mut Stat) {
        stat.st_uid = self.uid;
        stat.st_gid = self.gid;
        let mut file_type = FileType::from_raw_mode(stat.st_mode);
        if let Some(kind) = self.kind {
            let rdev = match kind {
                OverrideKind::Char(major, minor) | OverrideKind::Block(major, minor) => {
                    makedev(major, minor)
                }
                OverrideKind::Fifo | OverrideKind::Socket => 0,
            };
            stat.st_rdev = rdev;
            file_type = kind.file_type();
        }
        stat.st_mode = file_type.as_raw_mode() | (self.mode & 0o7777);
    }
}

impl OverrideKind {
    /// Returns the type bits that the container sees.
    #[must_use]
    pub fn file_type(self) -> FileType {
        match self {
            OverrideKind::Char(..) => FileType::CharacterDevice,
            OverrideKind::Block(..) => FileType::BlockDevice,
            OverrideKind::Fifo => FileType::Fifo,
            OverrideKind::Socket => FileType::Socket,
        }
    }
}

impl fmt::Display for OverrideStat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:0{:o}", self.uid, self.gid, self.mode & 0o7777)?;
        match self.kind {
            None => Ok(()),
            Some(OverrideKind::Char(major, minor)) => write!(out, ":char-{major}-{minor}"),
            Some(OverrideKind::Block(major, minor)) => write!(out, ":block-{major}-{minor}"),
            Some(OverrideKind::Fifo) => out.write_str(":pipe"),
            Some(OverrideKind::Socket) => out.write_str(":socket"),
        }
    }
}

/// A decimal number of digits only (`u32::from_str` would take a sign).
fn decimal(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// `Some(None)`: a known type that needs no other storage.
fn parse_kind(text: &str) -> Option<Option<OverrideKind>> {
    match text {
        "pipe" => return Some(Some(OverrideKind::Fifo)),
        "socket" => return Some(Some(OverrideKind::Socket)),
        "dir" | "file" | "symlink" => return Some(None),
        _ => {}
    }
    let mut parts = text.split('-');
    let word = parts.next()?;
    let major = decimal(parts.next()?)?;
    let minor = decimal(parts.next()?)?;
    if parts.next().is_some() {
        return None;
    }
    match word {
        "char" => Some(Some(OverrideKind::Char(major, minor))),
        "block" => Some(Some(OverrideKind::Block(major, minor))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_what_containers_storage_writes() {
        let plain = |kind| OverrideStat {
            uid: 0,
            gid: 42,
            mode: 0o4755,
            kind,
        };
        for (text, want) in [
            ("0:42:04755", plain(None)),
            ("0:42:04755:char-1-3", plain(Some(OverrideKind::Char(1, 3)))),
            (
                "0:42:04755:block-8-17",
                plain(Some(OverrideKind::Block(8, 17))),
            ),
            ("0:42:04755:pipe", plain(Some(OverrideKind::Fifo))),
            ("0:42:04755:socket", plain(Some(OverrideKind::Socket))),
        ] {
            assert_eq!(OverrideStat::parse(text.as_bytes()), Some(want), "{text}");
            assert_eq!(want.to_string(), text);
        }
        assert_eq!(OverrideStat::parse(b"0:42:0104755:file"), Some(plain(None)));
    }

    #[test]
    fn refuses_malformed_values() {
        for text in [
            "",
            "0",
            "0:0",
            "0:0:",
            "0:0:0888",
            "-1:0:0755",
            "+1:0:0755",
            "0:0:0755:",
            "0:0:0755:char-1",
            "0:0:0755:char-1-2-3",
            "0:0:0755:disk-1-2",
            "0:0:0755:pipe:x",
            "4294967296:0:0755",
        ] {
            assert_eq!(OverrideStat::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(OverrideStat::parse(b"\xff:0:0755"), None);
    }
}
