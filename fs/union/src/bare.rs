//! Whether layers have any extended attribute at all.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use mille_layer::shown_xattr;
use rustix::fs::{Dir, OFlags};

use crate::error::{Context, Result};
use crate::layers::LowerLayer;
use crate::sys::{open, xattr};
use crate::view::View;

impl View {
    /// True if it is certain that no object of the view has an extended attribute which callers may see, and that none
    /// can get one: the view is read-only, no layer of it can change, and every object of every layer has been looked at.
    ///
    /// # Errors
    /// A failed system call: then nothing is certain.
    pub(crate) fn is_bare(&self) -> Result<bool> {
        if self.is_writable() || self.has_mutable_lower() || self.upper.is_some() {
            return Ok(false);
        }
        for layer in &self.lowers {
            if !is_bare(layer)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn is_bare(layer: &LowerLayer) -> Result<bool> {
    let root = layer.root()?;
    if shows_attribute(root.as_fd())? {
        return Ok(false);
    }
    let mut dirs: Vec<OsString> = vec![OsString::new()];
    while let Some(path) = dirs.pop() {
        // A directory that another mount covers is an error here, and nothing is certain.
        let dir = open::dir_beneath(root.as_fd(), path.as_bytes()).op("search layer")?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let readable = open::reopen(dir.as_fd(), flags).op("search layer")?;
        for entry in Dir::new(readable).op("search layer")? {
            let entry = entry.op("search layer")?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let object = open::handle(dir.as_fd(), name).op("search layer")?;
            if shows_attribute(object.as_fd())? {
                return Ok(false);
            }
            if entry.file_type() == rustix::fs::FileType::Directory {
                dirs.push(OsStr::from_bytes(&crate::node::join(path.as_bytes(), name)).to_owned());
            }
        }
    }
    Ok(true)
}

fn shows_attribute(object: BorrowedFd<'_>) -> Result<bool> {
    let names = xattr::list(object).op("search layer")?;
    Ok(names.iter().any(|name| shown_xattr(name).is_some()))
}
