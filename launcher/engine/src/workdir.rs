//! The working directory, which docker makes together with the container.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use mille_union::{Access, Make, Owner, View, resolve_path};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::rootfs::{Stack, Writable};

/// Makes sure that a container has its working directory: what is missing of it is made in the upper, 0755 and root's.
///
/// # Errors
/// Something on the way is no directory, in docker's words; the upper cannot be written.
pub(crate) fn ensure(stack: &Stack, writable: &Writable, typed: &str) -> Result<()> {
    let path = clean(Path::new(typed));
    if path == Path::new("/") || is_there(&*stack.open_base()?, &path)? {
        return Ok(());
    }
    let view = stack.open(writable, Access::Exclusive)?;
    let mut parent = view.root();
    let mut here = PathBuf::from("/");
    for name in path.components().filter_map(normal) {
        here.push(name);
        parent = if is_there(&view, &here)? {
            resolve_path(&view, &here, true).map_err(Error::Union)?
        } else {
            let what = Make::Dir { mode: 0o755 };
            let root = Owner { uid: 0, gid: 0 };
            view.make(&parent, name, what, 0, root)
                .map_err(Error::Union)?
        };
    }
    Ok(())
}

/// Returns whether a directory is there; whatever else is there is an error.
fn is_there(view: &View, path: &Path) -> Result<bool> {
    let not_a_directory = || {
        Error::Invalid(format!(
            "Cannot mkdir: {} is not a directory",
            path.display()
        ))
    };
    match resolve_path(view, path, true) {
        Ok(node) if node.is_dir() => Ok(true),
        Ok(_) => Err(not_a_directory()),
        Err(mille_union::Error::Os { source, .. }) if source == Errno::NOENT => Ok(false),
        Err(mille_union::Error::Os { source, .. }) if source == Errno::NOTDIR => {
            Err(not_a_directory())
        }
        Err(error) => Err(Error::Union(error)),
    }
}

/// The path from the root without `.` and `..`, by its letters alone, as docker cleans it.
pub(crate) fn clean(typed: &Path) -> PathBuf {
    let mut path = PathBuf::from("/");
    for component in typed.components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    path
}

fn normal(component: Component<'_>) -> Option<&OsStr> {
    match component {
        Component::Normal(name) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_their_letters() {
        for (typed, want) in [
            ("", "/"),
            ("/", "/"),
            ("/a/./b/../c/", "/a/c"),
            ("/../a", "/a"),
            ("a//b", "/a/b"),
        ] {
            assert_eq!(clean(Path::new(typed)), Path::new(want), "{typed}");
        }
    }
}
