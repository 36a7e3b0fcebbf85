//! What is in a directory, in a form in which two can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::fixture::LONG_AGO;

/// Path below the directory (empty for itself) to object.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    objects: BTreeMap<String, Object>,
}

#[derive(Debug)]
struct Object {
    ino: u64,
    /// Kind, mode, owner, links, content.
    text: String,
    /// Whether its mtime is what it had been given.
    old: bool,
}

impl Snapshot {
    /// Reads a directory.
    pub(super) fn of(dir: &Path) -> Self {
        let mut snapshot = Self::default();
        snapshot.read(dir, "");
        snapshot
    }

    fn read(&mut self, root: &Path, relative: &str) {
        let path = root.join(relative);
        let meta = path.symlink_metadata().unwrap();
        let mut text = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
        if !meta.is_dir() {
            text += &format!(" x{}", meta.nlink());
        }
        if meta.is_file() {
            text += &format!(" {:?}", fs::read(&path).unwrap().escape_ascii().to_string());
        } else if meta.is_symlink() {
            text += &format!(" -> {}", fs::read_link(&path).unwrap().display());
        }
        let object = Object {
            ino: meta.ino(),
            text,
            // A write into a pipe sends nothing to a server of FUSE, nor to an overlayfs: the pipe's time stays.
            old: meta.mtime() == LONG_AGO || meta.file_type().is_fifo(),
        };
        self.objects.insert(relative.to_owned(), object);
        if meta.is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                let below = if relative.is_empty() {
                    name
                } else {
                    format!("{relative}/{name}")
                };
                self.read(root, &below);
                // What a listing says of its entries must be what stat says.
                if let Some(object) = self.objects.get_mut(&below)
                    && object.ino != entry.ino()
                {
                    object.text += " LISTED BY ANOTHER NUMBER";
                }
            }
        }
    }

    /// One line for each object. Who it is, is told by where it was at first.
    pub(super) fn lines(&self, at_first: &Self) -> Vec<String> {
        let mut names: BTreeMap<u64, &str> = BTreeMap::new();
        for (path, object) in at_first.objects.iter().rev() {
            names.insert(object.ino, path);
        }
        let line = |(path, object): (&String, &Object)| {
            let who = names
                .get(&object.ino)
                .map_or("new".to_owned(), |first| format!("was {first:?}"));
            let when = if object.old { "old" } else { "changed" };
            format!("{path:?}: {} {when} ({who})", object.text)
        };
        self.objects.iter().map(line).collect()
    }

    /// Path and number of every object.
    pub(super) fn numbers(&self) -> BTreeMap<&str, u64> {
        self.objects
            .iter()
            .map(|(path, object)| (path.as_str(), object.ino))
            .collect()
    }

    /// Holds every object, so that no number is used again while the calls are made.
    pub(super) fn hold(&self, root: &Path) -> Vec<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = |path: &String| rustix::fs::openat(CWD, root.join(path), flags, Mode::empty());
        self.objects
            .keys()
            .map(|path| open(path).unwrap())
            .collect()
    }
}
