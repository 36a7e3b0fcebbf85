//! Copies as a stream: a tar out of a container, a tar into one.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use mille_layer::encode::{EncodeError, Encoder, Entry, Kind, Time};
use mille_layer::extract::{ExtractOptions, Owners, extract};
use mille_layer::{MarkSpace, Ownership};
use rustix::fs::{FileType, OFlags, Stat, major, minor};
use rustix::io::Errno;

use super::place::{Source, is_kernels, open_entry, reopen};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::ContainerId;
use crate::{files, removal};

/// Size of the buffer before the writer.
const BUFFER_BYTES: usize = 256 * 1024;

/// Writes a tar of something, under its own name.
pub(super) fn write(source: &Source, out: &mut dyn Write) -> Result<()> {
    let mut writer = Writer {
        encoder: Encoder::new(BufWriter::with_capacity(BUFFER_BYTES, out)),
        links: HashMap::new(),
    };
    let name = if source.contents_only {
        OsStr::new(".")
    } else {
        // Where it is copied into a directory it keeps the link's name, in a stream it has its own: as docker has it.
        source.followed.as_ref().unwrap_or(&source.name)
    };
    let written = writer.one(source.object.as_fd(), name.as_bytes().to_vec());
    let written = written.and_then(|()| {
        let finished = writer.encoder.finish();
        finished.map(drop).map_err(Trouble::Output)
    });
    written.map_err(|trouble| match trouble {
        Trouble::Output(source) => Error::Output {
            stream: "/dev/stdout",
            source,
        },
        Trouble::File(errno) => Error::system("read the container's files")(errno.into()),
        Trouble::Entry(error) => Error::Invalid(error.to_string()),
    })
}

enum Trouble {
    Output(io::Error),
    File(Errno),
    Entry(EncodeError),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Trouble::File(errno)
    }
}

struct Writer<W: Write> {
    encoder: Encoder<W>,
    /// Files with several names: under which the first of them was written.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Writer<W> {
    fn one(&mut self, object: BorrowedFd<'_>, path: Vec<u8>) -> Result<(), Trouble> {
        let stat = rustix::fs::fstat(object)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                self.append(&stat, &path, Kind::Dir, None)?;
                if is_kernels(object) {
                    return Ok(());
                }
                for name in names(object)? {
                    let child = match open_entry(object, &name) {
                        // Removed meanwhile.
                        Err(Errno::NOENT) => continue,
                        child => child?,
                    };
                    let below = [&path[..], b"/", name.as_bytes()].concat();
                    self.one(child.as_fd(), below)?;
                }
                Ok(())
            }
            FileType::RegularFile => self.file(object, &stat, path),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(object, c"", Vec::new())?;
                self.append(&stat, &path, Kind::Symlink(target.as_bytes()), None)
            }
            FileType::Fifo => self.append(&stat, &path, Kind::Fifo, None),
            kind @ (FileType::CharacterDevice | FileType::BlockDevice) => {
                let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
                let kind = match kind {
                    FileType::BlockDevice => Kind::Block { major, minor },
                    _ => Kind::Char { major, minor },
                };
                self.append(&stat, &path, kind, None)
            }
            // No tar holds a socket.
            _ => Ok(()),
        }
    }

    fn file(&mut self, object: BorrowedFd<'_>, stat: &Stat, path: Vec<u8>) -> Result<(), Trouble> {
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&key).cloned() {
            return self.append(stat, &path, Kind::Hardlink(&first), None);
        }
        let readable: OwnedFd = reopen(object, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.append(stat, &path, Kind::File { size }, Some(File::from(readable)))?;
        if stat.st_nlink > 1 {
            self.links.insert(key, path);
        }
        Ok(())
    }

    fn append(
        &mut self,
        stat: &Stat,
        path: &[u8],
        kind: Kind<'_>,
        data: Option<File>,
    ) -> Result<(), Trouble> {
        let entry = Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time {
                sec: stat.st_mtime,
                nsec: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
            },
            xattrs: &[],
        };
        let written = match data {
            Some(data) => self.encoder.append(&entry, data),
            None => self.encoder.append(&entry, io::empty()),
        };
        written.map_err(|error| match error {
            EncodeError::Write { source, .. } => Trouble::Output(source),
            error => Trouble::Entry(error),
        })
    }
}

fn names(directory: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    let readable = reopen(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(readable)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Unpacks a tar beside the containers, where a killed command's leftovers are cleared, and gives the directory to `take`.
/// The tar is nobody's: it goes through the one extractor for such.
pub(super) fn unpack(
    engine: &Engine,
    input: &mut (dyn Read + Send),
    take: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    let id = ContainerId::random()?;
    let staged = engine.layout.staged(&id);
    let _lock = removal::stage(&engine.layout, &id)?;
    let taken = extract_into(engine, &staged.upper(), input).and_then(|directory| {
        // An empty stream is an empty archive.
        take(directory.as_fd())
    });
    let cleared = removal::remove_staged(&staged);
    taken.and(cleared)
}

fn extract_into(
    engine: &Engine,
    path: &std::path::Path,
    input: &mut (dyn Read + Send),
) -> Result<OwnedFd> {
    files::make_directory(path, 0o700)?;
    let directory = files::open_directory(path)?;
    let mut options = ExtractOptions::new(MarkSpace::User, Ownership::Real);
    if engine.mode == crate::Mode::OneId {
        options.owners = Owners::Ignore;
    }
    let input = mille_store::decompressed(input)?;
    extract(input, directory.as_fd(), &options, io::sink()).map_err(|error| {
        Error::Invalid(format!("Error processing tar file(exit status 1): {error}"))
    })?;
    Ok(directory)
}
