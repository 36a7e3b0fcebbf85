//! Copying between a container's files and the machine's: `cp`.
//!
//! Everything goes from descriptor to descriptor: a path of the container is resolved by `openat2` within its root, each
//! name below is opened without following links. A container that changes its files meanwhile can spoil its own copy,
//! never reach a file outside of itself.

mod archive;
mod place;
mod root;
mod tree;

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::FileType;

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Subject;
use place::{Destination, Source};
use root::Root;
use tree::{Copier, Owners};

/// How files are copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Into a container: everything belongs to the user the container runs as.
    pub archive: bool,
    /// A link as the source stands for what it points at.
    pub follow_link: bool,
}

/// Copies from the machine into a container; returns the bytes of the files.
pub(crate) fn copy_in(
    engine: &Engine,
    (container, typed): (&Container, &str),
    source: &Path,
    destination: &str,
    options: CopyOptions,
) -> Result<u64> {
    // Before any namespace is entered: the path is the caller's.
    let source = Source::of_machine(source, options.follow_link)?;
    let root = Root::open(engine, container)?;
    let (tree, path) = root.locate(destination);
    let copied = root
        .check_writable(destination)
        .and_then(|()| Destination::in_container(tree, &path, typed))
        .and_then(|place| {
            let owners = owners(&root, container, options)?;
            into(&source, &place, owners, Path::new(destination))
        })
        .map_err(|error| root.explain(error));
    root.close()?;
    let copied = copied?;
    Subject::from(container).note(&engine.layout, "extract-to-dir", &[]);
    Ok(copied)
}

/// Copies from a container to the machine; returns the bytes of the files.
pub(crate) fn copy_out(
    engine: &Engine,
    (container, typed): (&Container, &str),
    source: &str,
    destination: &Path,
    options: CopyOptions,
) -> Result<u64> {
    let place = Destination::on_machine(destination)?;
    let absolute = std::path::absolute(destination).map_err(Error::io("resolve", destination))?;
    let root = Root::open(engine, container)?;
    let (tree, path) = root.locate(source);
    let copied = Source::in_container(tree, &path, typed, options.follow_link)
        .and_then(|source| into(&source, &place, Owners::Caller, &absolute));
    root.close()?;
    let copied = copied?;
    Subject::from(container).note(&engine.layout, "archive-path", &[]);
    Ok(copied)
}

/// Writes a tar of something in a container.
pub(crate) fn stream_out(
    engine: &Engine,
    (container, typed): (&Container, &str),
    source: &str,
    options: CopyOptions,
    out: &mut dyn Write,
) -> Result<()> {
    let root = Root::open(engine, container)?;
    let (tree, path) = root.locate(source);
    let written = Source::in_container(tree, &path, typed, options.follow_link)
        .and_then(|source| archive::write(&source, out));
    root.close()?;
    written?;
    Subject::from(container).note(&engine.layout, "archive-path", &[]);
    Ok(())
}

/// Unpacks a tar into an existing directory of a container.
pub(crate) fn stream_in(
    engine: &Engine,
    (container, typed): (&Container, &str),
    destination: &str,
    options: CopyOptions,
    input: &mut (dyn Read + Send),
) -> Result<()> {
    let root = Root::open(engine, container)?;
    let (tree, path) = root.locate(destination);
    let unpacked = root
        .check_writable(destination)
        .and_then(|()| Destination::in_container(tree, &path, typed))
        .and_then(|place| {
            let Some(directory) = place.existing_directory() else {
                return Err(Error::Client(format!(
                    "destination \"{typed}:{destination}\" must be a directory"
                )));
            };
            let owners = owners(&root, container, options)?;
            archive::unpack(engine, input, |staged| {
                Copier::new(directory, owners, Path::new(destination))
                    .contents(staged)
                    .map(drop)
            })
        })
        .map_err(|error| root.explain(error));
    root.close()?;
    unpacked?;
    Subject::from(container).note(&engine.layout, "extract-to-dir", &[]);
    Ok(())
}

/// Puts a source where a destination says, by docker's table of rules.
fn into(source: &Source, place: &Destination, owners: Owners, typed: &Path) -> Result<u64> {
    let is_directory = source.kind == FileType::Directory;
    let client = |text: &str| Err(Error::Client(text.to_owned()));
    match place {
        Destination::Directory(directory) => {
            let mut copier = Copier::new(directory.as_fd(), owners, typed);
            if source.contents_only {
                copier.contents(source.object.as_fd())
            } else {
                copier.object(source.object.as_fd(), &source.name)
            }
        }
        Destination::Other { asserted, .. } if !is_directory && *asserted => {
            client("no such directory")
        }
        Destination::Other { exists: true, .. } if is_directory => client("cannot copy directory"),
        Destination::Other { parent, name, .. } => {
            let above = typed.parent().unwrap_or(typed);
            Copier::new(parent.as_fd(), owners, above).object(source.object.as_fd(), name)
        }
    }
}

/// Whose the files in the container become.
fn owners(root: &Root, container: &Container, options: CopyOptions) -> Result<Owners> {
    let user = container.config.user.as_str();
    if !options.archive || user.is_empty() {
        return Ok(Owners::Keep);
    }
    let (passwd, group) = (root.read("etc/passwd"), root.read("etc/group"));
    mille_sandbox::ids_of(user, &passwd, &group)
        .map(|(uid, gid)| Owners::Fixed(uid, gid))
        .map_err(|failure| Error::Invalid(failure.to_string()))
}

/// A name as texts show it.
fn shown(name: &OsStr) -> std::borrow::Cow<'_, str> {
    name.to_string_lossy()
}
