//! Carrying out an operation on one tree, with a result that can be compared with another tree's.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, RenameFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use super::op::{Op, SLOTS};

/// What an operation answered: a description of the result, or the errno.
pub type Answer = Result<String, i32>;

/// One tree and the descriptors a sequence holds in it.
#[derive(Debug)]
pub struct Hand {
    root: PathBuf,
    slots: Vec<Option<File>>,
}

impl Hand {
    /// Works below `root`.
    pub fn new(root: PathBuf) -> Self {
        Hand {
            root,
            slots: (0..SLOTS).map(|_| None).collect(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Carries out one operation.
    pub fn apply(&mut self, operation: &Op) -> Answer {
        match operation {
            Op::Open { .. }
            | Op::ReadHandle(_)
            | Op::WriteHandle { .. }
            | Op::TruncateHandle { .. }
            | Op::ChmodHandle { .. }
            | Op::MapWrite { .. }
            | Op::Close(_) => self.with_handle(operation),
            Op::Stat(_) | Op::Read(_) | Op::List(_) => self.look(operation),
            Op::Rename { .. }
            | Op::RenameNoReplace { .. }
            | Op::Exchange { .. }
            | Op::Link { .. }
            | Op::CopyRange { .. } => self.two_paths(operation),
            Op::Chmod { .. }
            | Op::Chown { .. }
            | Op::Utimes { .. }
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. } => self.attributes(operation),
            _ => self.one_path(operation),
        }
    }

    fn with_handle(&mut self, operation: &Op) -> Answer {
        match operation {
            Op::Open { slot, path, write } => {
                let file = open(OpenOptions::new().read(true).write(*write), &self.at(path))?;
                self.slots[*slot] = Some(file);
            }
            Op::Close(slot) => self.slots[*slot] = None,
            Op::ReadHandle(slot) => {
                let Some(file) = &mut self.slots[*slot] else {
                    return done();
                };
                let mut content = Vec::new();
                file.seek(SeekFrom::Start(0)).map_err(number)?;
                file.read_to_end(&mut content).map_err(number)?;
                return Ok(summary(&content));
            }
            Op::WriteHandle { slot, at, fill } => {
                let Some(file) = &self.slots[*slot] else {
                    return done();
                };
                file.write_all_at(&[*fill; 100], *at).map_err(number)?;
            }
            Op::TruncateHandle { slot, size } => {
                let Some(file) = &self.slots[*slot] else {
                    return done();
                };
                file.set_len(*size).map_err(number)?;
            }
            Op::ChmodHandle { slot, mode } => {
                let Some(file) = &self.slots[*slot] else {
                    return done();
                };
                rustix::fs::fchmod(file, Mode::from_raw_mode(*mode)).map_err(errno)?;
            }
            Op::MapWrite { slot, fill } => {
                let Some(file) = &self.slots[*slot] else {
                    return done();
                };
                super::act::map_write(file, *fill)?;
            }
            _ => unreachable!("not an operation on a handle"),
        }
        done()
    }

    fn look(&self, operation: &Op) -> Answer {
        match operation {
            Op::Stat(path) => {
                let meta = self.at(path).symlink_metadata().map_err(number)?;
                let size = if meta.is_dir() { 0 } else { meta.size() };
                let nlink = if meta.is_dir() { 0 } else { meta.nlink() };
                Ok(format!(
                    "{:o} {}:{} {size} {nlink} {:?}",
                    meta.mode(),
                    meta.uid(),
                    meta.gid(),
                    xattrs(&self.at(path))
                ))
            }
            Op::Read(path) => {
                let path = self.at(path);
                if path.metadata().is_ok_and(|meta| {
                    meta.file_type().is_fifo() || meta.file_type().is_char_device()
                }) {
                    return done();
                }
                std::fs::read(path)
                    .map(|content| summary(&content))
                    .map_err(number)
            }
            Op::List(path) => {
                let mut names = Vec::new();
                for entry in std::fs::read_dir(self.at(path)).map_err(number)? {
                    let entry = entry.map_err(number)?;
                    names.push(format!(
                        "{:?} {:?}",
                        entry.file_name(),
                        entry.file_type().map_err(number)?
                    ));
                }
                names.sort();
                Ok(names.join(", "))
            }
            _ => unreachable!("not a look"),
        }
    }

    fn one_path(&self, operation: &Op) -> Answer {
        match operation {
            Op::Create {
                path,
                exclusive,
                mode,
            } => {
                let mut options = OpenOptions::new();
                options
                    .write(true)
                    .mode(*mode)
                    .create(true)
                    .create_new(*exclusive);
                open(&mut options, &self.at(path))?;
            }
            Op::Write {
                path,
                at,
                len,
                fill,
            } => {
                open(OpenOptions::new().write(true), &self.at(path))?
                    .write_all_at(&vec![*fill; *len], *at)
                    .map_err(number)?;
            }
            Op::Append { path, len, fill } => {
                let file = open(OpenOptions::new().append(true), &self.at(path))?;
                std::io::Write::write_all(&mut &file, &vec![*fill; *len]).map_err(number)?;
            }
            Op::Truncate { path, size } => {
                nix::unistd::truncate(&self.at(path), i64::try_from(*size).unwrap())
                    .map_err(|e| e as i32)?
            }
            Op::OpenTrunc(path) => drop(open(
                OpenOptions::new().write(true).truncate(true),
                &self.at(path),
            )?),
            Op::Punch { path, at, len } => {
                let file = open(OpenOptions::new().write(true), &self.at(path))?;
                rustix::fs::fallocate(
                    &file,
                    FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
                    *at,
                    *len,
                )
                .map_err(errno)?;
            }
            Op::Unlink(path) => rustix::fs::unlink(self.at(path)).map_err(errno)?,
            Op::Mkdir(path) => {
                rustix::fs::mkdir(self.at(path), Mode::from_raw_mode(0o755)).map_err(errno)?
            }
            Op::Rmdir(path) => rustix::fs::rmdir(self.at(path)).map_err(errno)?,
            Op::Symlink { target, path } => {
                rustix::fs::symlink(target.as_str(), self.at(path)).map_err(errno)?
            }
            Op::Mkfifo(path) => rustix::fs::mknodat(
                CWD,
                self.at(path),
                rustix::fs::FileType::Fifo,
                Mode::from_raw_mode(0o644),
                0,
            )
            .map_err(errno)?,
            Op::Mknod { path, minor } => {
                // A number that belongs to no driver: major 1 has the machine's memory and endless zeros.
                let device = rustix::fs::makedev(240, u32::try_from(*minor).unwrap());
                rustix::fs::mknodat(
                    CWD,
                    self.at(path),
                    rustix::fs::FileType::CharacterDevice,
                    Mode::from_raw_mode(0o600),
                    device,
                )
                .map_err(errno)?;
            }
            Op::RemoveTree(path) => std::fs::remove_dir_all(self.at(path)).map_err(number)?,
            _ => unreachable!("not an operation on one path"),
        }
        done()
    }

    fn two_paths(&self, operation: &Op) -> Answer {
        let rename = |from: &str, to: &str, flags| {
            rustix::fs::renameat_with(CWD, self.at(from), CWD, self.at(to), flags).map_err(errno)
        };
        match operation {
            Op::Rename { from, to } => rename(from, to, RenameFlags::empty())?,
            Op::RenameNoReplace { from, to } => rename(from, to, RenameFlags::NOREPLACE)?,
            Op::Exchange { from, to } => rename(from, to, RenameFlags::EXCHANGE)?,
            Op::Link { from, to } => {
                rustix::fs::linkat(CWD, self.at(from), CWD, self.at(to), AtFlags::empty())
                    .map_err(errno)?
            }
            Op::CopyRange { from, to } => {
                let source = open(OpenOptions::new().read(true), &self.at(from))?;
                let target = open(OpenOptions::new().write(true), &self.at(to))?;
                let copied = rustix::fs::copy_file_range(&source, None, &target, None, 3000)
                    .map_err(errno)?;
                return Ok(format!("{copied}"));
            }
            _ => unreachable!("not an operation on two paths"),
        }
        done()
    }

    fn attributes(&self, operation: &Op) -> Answer {
        match operation {
            Op::Chmod { path, mode } => {
                rustix::fs::chmod(self.at(path), Mode::from_raw_mode(*mode)).map_err(errno)?
            }
            Op::Chown { path, uid, gid } => {
                std::os::unix::fs::lchown(self.at(path), Some(*uid), Some(*gid)).map_err(number)?
            }
            Op::Utimes { path, seconds } => {
                let time = Timespec {
                    tv_sec: *seconds,
                    tv_nsec: 5,
                };
                let times = Timestamps {
                    last_access: time,
                    last_modification: time,
                };
                rustix::fs::utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(errno)?;
            }
            Op::SetXattr { path, name, value } => {
                rustix::fs::lsetxattr(self.at(path), *name, &[*value; 3], XattrFlags::empty())
                    .map_err(errno)?
            }
            Op::RemoveXattr { path, name } => {
                rustix::fs::lremovexattr(self.at(path), *name).map_err(errno)?
            }
            _ => unreachable!("not a change of attributes"),
        }
        done()
    }
}

fn done() -> Answer {
    Ok(String::new())
}

fn errno(error: Errno) -> i32 {
    error.raw_os_error()
}

fn number(error: std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(-1)
}

/// Opens without ever waiting for the other end of a fifo.
fn open(options: &mut OpenOptions, path: &Path) -> Result<File, i32> {
    options.custom_flags(libc_nonblock());
    options.open(path).map_err(number)
}

fn libc_nonblock() -> i32 {
    nix::fcntl::OFlag::O_NONBLOCK.bits()
}

/// Writes through a shared mapping of the first page.
fn map_write(file: &File, fill: u8) -> Result<(), i32> {
    let size = file.metadata().map_err(number)?.size();
    if size == 0 {
        return Ok(());
    }
    mille_tests::mapping::write_first(file, fill).map_err(|error| error as i32)
}

fn summary(content: &[u8]) -> String {
    let sum = content.iter().fold(1469598103934665603u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(1099511628211)
    });
    format!("{} bytes, {sum:x}", content.len())
}

fn xattrs(path: &Path) -> Vec<String> {
    let mut buffer = [0u8; 4096];
    let Ok(length) = rustix::fs::llistxattr(path, &mut buffer) else {
        return Vec::new();
    };
    let mut names: Vec<_> = buffer[..length]
        .split(|byte| *byte == 0)
        .filter(|name| name.starts_with(b"user."))
        .collect();
    names.sort_unstable();
    let value = |name: &[u8]| {
        let mut value = [0u8; 64];
        let length =
            rustix::fs::lgetxattr(path, CString::new(name).unwrap().as_c_str(), &mut value)
                .unwrap_or(0);
        format!(
            "{}={}",
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(&value[..length])
        )
    };
    names.into_iter().map(value).collect()
}
