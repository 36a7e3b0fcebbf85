//! Which object a name of a merged directory is.

mod lower;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;

use mille_layer::resolve::Redirect;
use mille_layer::{Opaque, Probe, dir_marks, file_marks, probe};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::attr::Attr;
use crate::error::{Context, Error, Result};
use crate::node::{Blueprint, Key, Link, LowerFile, Node, NodeRef, Stack, State, UpperObject};
use crate::sys::open;
use crate::view::View;
use lower::{Course, Want};

/// The longest name, as everywhere in Linux.
pub(crate) const NAME_MAX: usize = 255;

/// A node, and `stat` of the object that gives it its attributes where the search has come by it.
type Known = (NodeRef, Option<Stat>);

/// What the layers have under one name.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) upper: Option<UpperFound>,
    pub(crate) stack: Stack,
    /// Of the topmost object, overrides applied.
    pub(crate) stat: Stat,
}

/// The upper's part of a finding.
#[derive(Debug)]
pub(crate) struct UpperFound {
    metacopy: bool,
    /// The inode number the object had before it was copied up.
    origin: Option<u64>,
}

impl View {
    /// The node a name of a directory leads to; `None` if there is none.
    ///
    /// # Errors
    /// `ENOTDIR` if the parent is no directory, `ENAMETOOLONG`, or a failed system call on a layer.
    pub fn lookup(&self, parent: &NodeRef, name: &OsStr) -> Result<Option<NodeRef>> {
        let _names = parent.names().read();
        self.lookup_locked(parent, name)
    }

    /// As [`Self::lookup`], with the node's attributes: what was looked at is not looked at again.
    pub(crate) fn lookup_attr(
        &self,
        parent: &NodeRef,
        name: &OsStr,
    ) -> Result<Option<(NodeRef, Attr)>> {
        let found = {
            let _names = parent.names().read();
            self.look_up(parent, name)?
        };
        let Some((node, stat)) = found else {
            return Ok(None);
        };
        let attr = match stat {
            Some(stat) => self.attr_of(&node, &self.up_to_date(&node, stat)?)?,
            None => self.attr(&node)?,
        };
        Ok(Some((node, attr)))
    }

    /// As [`Self::lookup`], with the parent's name lock held by the caller.
    pub(crate) fn lookup_locked(&self, parent: &NodeRef, name: &OsStr) -> Result<Option<NodeRef>> {
        let found = self.look_up(parent, name)?;
        Ok(found.map(|(node, _)| node))
    }

    fn look_up(&self, parent: &NodeRef, name: &OsStr) -> Result<Option<Known>> {
        if !parent.is_dir() {
            return Err(Error::refused("lookup", Errno::NOTDIR));
        }
        if name.len() > NAME_MAX {
            return Err(Error::refused("lookup", Errno::NAMETOOLONG));
        }
        if parent.is_removed() {
            return Ok(None);
        }
        self.find(parent, name)
    }

    /// Asks the layers.
    fn find(&self, parent: &NodeRef, name: &OsStr) -> Result<Option<Known>> {
        if let Some(dir) = self.upper_dir(parent)? {
            match probe(dir.as_fd(), name, Opaque::No, self.upper_dialects())
                .op("look up in upper")?
            {
                Probe::Whiteout => return Ok(None),
                Probe::Object(stat) => {
                    let key = Key::Upper {
                        dev: stat.st_dev,
                        ino: stat.st_ino,
                    };
                    if let Some(node) = self.table.get(&key) {
                        // Its marks need not be read, and must not: they may be changing.
                        note_link(
                            &node,
                            Link {
                                parent: parent.clone(),
                                name: name.to_owned(),
                            },
                        );
                        // While a file comes up with all its names, those in the work directory count, too.
                        let whole = node.is_dir() || stat.st_nlink <= 1;
                        return Ok(Some((node, whole.then_some(stat))));
                    }
                    let found = self.find_below_upper(dir.as_fd(), name, stat, parent)?;
                    return Ok(found.map(|found| (self.node_for(parent, name, found), Some(stat))));
                }
                Probe::Absent => {}
            }
        }
        let course = Course::Under(name.as_bytes().to_vec());
        let found = self.find_lower(&parent.stack, course, Want::Any)?;
        let Some((stack, mut stat)) = found else {
            return Ok(None);
        };
        let layer = stack.file().map(LowerFile::layer);
        let found = Found {
            upper: None,
            stack,
            stat,
        };
        let node = self.node_for(parent, name, found);
        // Another of its names may have brought it up; what a directory shows may be another layer's.
        let Some(layer) = layer.filter(|_| !node.in_upper()) else {
            return Ok(Some((node, None)));
        };
        self.show_owner(layer, &mut stat);
        Ok(Some((node, Some(stat))))
    }

    /// True if a name would show were the upper empty. What cannot be found out counts as there.
    pub(crate) fn lower_has(&self, parent: &NodeRef, name: &OsStr) -> Result<bool> {
        if parent.stack.is_none() {
            return Ok(false);
        }
        match self.shows_below(parent, name) {
            Err(error) if error.is(Errno::PERM) || error.is(Errno::IO) => Ok(true),
            other => other,
        }
    }

    /// The first layer that knows the name decides: whatever it has there shows, unless it is a whiteout.
    fn shows_below(&self, parent: &NodeRef, name: &OsStr) -> Result<bool> {
        let parts = parent.stack.dirs();
        let some = self.parts_with(&parent.stack, name)?;
        let some = some.unwrap_or_else(|| (0..parts.len()).collect());
        for dir in some.into_iter().map(|part| &parts[part]) {
            if let (Some(chain), Some(number)) = (&self.chain, dir.place.number()) {
                // The lowest of all, and without whiteouts.
                return chain.has(number, name);
            }
            let lower = &self.lowers[usize::from(dir.layer())];
            let Some(handle) = self.lower_dir(&dir.place)? else {
                continue;
            };
            match probe(handle.as_fd(), name, dir.opaque, &lower.dialects).op("look up in lower")? {
                Probe::Object(_) => return Ok(true),
                Probe::Whiteout => return Ok(false),
                Probe::Absent => {}
            }
        }
        Ok(false)
    }

    fn find_below_upper(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        stat: Stat,
        parent: &NodeRef,
    ) -> Result<Option<Found>> {
        let mut found = UpperFound {
            metacopy: false,
            origin: None,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && has_no_marks(dir, name) {
            let stack = Stack::None;
            let upper = Some(found);
            return Ok(Some(Found { upper, stack, stat }));
        }
        let handle = match self.retry_short_of_fds(|| open::handle(dir, name)) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.op("open in upper")?,
        };
        let below = if kind == FileType::Directory {
            let marks = dir_marks(handle.as_fd(), self.upper_dialects()).op("read marks")?;
            if marks.opaque == Opaque::Yes {
                None
            } else {
                let course = self.redirected(name, marks.redirect)?;
                self.find_lower(&parent.stack, course, Want::Dirs)?
            }
        } else {
            let marks = file_marks(handle.as_fd(), self.space).op("read marks")?;
            found.origin = marks.ino;
            found.metacopy = marks.metacopy && kind == FileType::RegularFile;
            if found.metacopy {
                if !self.features.metacopy {
                    return Err(refused_mark("metacopy"));
                }
                let course = self.redirected(name, marks.redirect)?;
                let data = self.find_lower(&parent.stack, course, Want::Data)?;
                Some(data.ok_or(Error::refused("find data of file", Errno::IO))?)
            } else {
                None
            }
        };
        let stack = match below {
            Some((stack, _)) => stack,
            None if kind == FileType::Directory => Stack::of_new_dir(),
            None => Stack::None,
        };
        Ok(Some(Found {
            upper: Some(found),
            stack,
            stat,
        }))
    }

    /// Where the lowers know what the upper has under a name: along its redirect.
    fn redirected(&self, name: &OsStr, redirect: Option<Redirect>) -> Result<Course> {
        let Some(redirect) = redirect else {
            return Ok(Course::Under(name.as_bytes().to_vec()));
        };
        if !self.features.redirect_dir {
            // As the kernel: what was moved is not shown without its lower part.
            return Err(refused_mark("redirect_dir"));
        }
        self.redirects_met.store(true, Ordering::Relaxed);
        Ok(match redirect {
            Redirect::Sibling(sibling) => Course::Under(sibling),
            Redirect::Absolute(path) => Course::Path(path),
        })
    }

    /// The node of an object just made in its place in the upper, which has no marks and hides nothing.
    pub(crate) fn node_made(&self, parent: &NodeRef, name: &OsStr, stat: Stat) -> NodeRef {
        let stack = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Stack::of_new_dir(),
            _ => Stack::None,
        };
        let upper = Some(UpperFound {
            metacopy: false,
            origin: None,
        });
        self.node_for(parent, name, Found { upper, stack, stat })
    }

    /// The node of a finding: the one that is known already, or a new one.
    fn node_for(&self, parent: &NodeRef, name: &OsStr, found: Found) -> NodeRef {
        let Found { upper, stack, stat } = found;
        let link = Link {
            parent: parent.clone(),
            name: name.to_owned(),
        };
        let object = upper.as_ref().map(|upper| UpperObject {
            dev: stat.st_dev,
            ino: stat.st_ino,
            metacopy: upper.metacopy,
            orphan: None,
        });
        let (dev, ino) = (stat.st_dev, stat.st_ino);
        // A merged directory keeps the number it had before it was copied up.
        let number_from = stack
            .dirs()
            .first()
            .map_or((dev, ino), |top| (top.dev, top.ino));
        let key = object.as_ref().map(|_| Key::Upper { dev, ino });
        let blueprint = Blueprint {
            kind: FileType::from_raw_mode(stat.st_mode),
            state: State::named(&stack, link.clone(), object),
            stack,
            number_from,
            wanted: upper.and_then(|upper| upper.origin),
        };
        let node = self.table.get_or_make(key, blueprint);
        note_link(&node, link);
        node
    }
}

/// Records that a node has this name.
pub(crate) fn note_link(node: &Node, link: Link) {
    let known = |state: &State| state.has_link(&node.stack, &link.parent, &link.name);
    if known(&node.state.read()) {
        return;
    }
    let mut state = node.state.write();
    if !known(&state) {
        state.add_link(&node.stack, link);
    }
}

/// True if a name certainly leads to an object without any extended attribute, as most have none: one call instead of an
/// open, a look and a close. A failure is met again by whoever takes the longer way.
fn has_no_marks(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    mille_layer::xattr::names(dir, Some(name)).is_ok_and(|names| names.is_empty())
}

/// What an object with a mark of a feature that is off is answered. Said aloud once: the errno does not tell what to do.
fn refused_mark(feature: &str) -> Error {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| {
        log::warn!(
            "an object was written with {feature}=on, which is off, and is answered EPERM: mount with {feature}=on"
        );
    });
    Error::refused("follow mark", Errno::PERM)
}
