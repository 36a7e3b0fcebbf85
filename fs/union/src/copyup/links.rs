//! Hard links of lower files.
//!
//! The first change to any name of a lower file brings up all its names in the view, as names of one upper file: so the
//! upper stays meaningful without any index, and links are never broken. Several names cannot enter the upper by one
//! system call; so a record of what is to be done is written first, and a mount that finds one finishes the work.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::build::same_object;
use super::{KeptTimes, Need};
use crate::error::{Context, Error, Result};
use crate::node::{Link, LinkRef, LowerFile, NodeRef, UpperObject, join};
use crate::sys::{object, open, xattr};
use crate::view::View;
use crate::work::{INTENT_PREFIX, Temp, Work};

/// All names of every file of a layer that has more than one.
type Groups = HashMap<(u64, u64), Vec<Vec<u8>>>;

/// Hard links of the lowers, found by one walk of a layer when first needed.
#[derive(Debug, Default)]
pub(crate) struct LinkIndex {
    layers: Mutex<HashMap<u16, Arc<Groups>>>,
    redirects_looked_for: Mutex<bool>,
}

/// Ends of the names of an intent: the finished copy, and the names it is to have, each ended by a NUL.
const COPY: &str = ".copy";
const NAMES: &str = ".names";

impl View {
    /// Copies up a file with all its names in the view.
    pub(super) fn copy_up_group(&self, work: &Work, node: &NodeRef, need: Need) -> Result<()> {
        let links = self.union_links(node)?;
        let [_, _, ..] = &links[..] else {
            return self.copy_up_one(work, node, need, &links[0]);
        };
        for link in &links {
            self.copy_up(&link.parent, Need::Attributes)?;
        }
        let (temp, copy) = self.build_copy(work, node, need)?;
        let intent = self.write_intent(work, &temp, &links)?;
        self.table.add_upper(node, copy.dev, copy.ino, true);
        let placed = self.place_links(work, node, &intent.copy, &copy, &links);
        let placed = match placed {
            Ok(placed) => placed,
            Err(error) => {
                self.table.release_upper(copy.dev, copy.ino);
                return Err(error);
            }
        };
        node.unsynced.store(true, Ordering::Relaxed);
        if placed.is_empty() {
            return self.hold_nameless(node, intent.copy, copy);
        }
        // All names are there; those in the work directory must not be counted by anybody.
        drop(intent);
        drop(temp);
        let mut state = node.state.write();
        state.set_links(&node.stack, placed);
        state.upper = Some(Box::new(copy));
        Ok(())
    }

    /// Gives the copy its names; takes them away again if one cannot be given.
    fn place_links(
        &self,
        work: &Work,
        node: &NodeRef,
        temp: &Temp<'_>,
        copy: &UpperObject,
        links: &[Link],
    ) -> Result<Vec<Link>> {
        let mut placed: Vec<Link> = Vec::new();
        for link in links {
            match self.place_link(work, node, temp, link, copy.metacopy) {
                Ok(true) => placed.push(link.clone()),
                Ok(false) => {}
                Err(error) => {
                    for link in &placed {
                        self.unplace_link(copy, link);
                    }
                    return Err(error);
                }
            }
        }
        Ok(placed)
    }

    /// Gives the copy one name; false if the name has become something else meanwhile.
    fn place_link(
        &self,
        work: &Work,
        node: &NodeRef,
        temp: &Temp<'_>,
        link: &Link,
        metacopy: bool,
    ) -> Result<bool> {
        let parent = self.upper_dir(&link.parent)?;
        let parent = parent.ok_or(Error::refused("copy up", Errno::STALE))?;
        let _names = link.parent.names().write();
        let now = self.lookup_locked(&link.parent, &link.name)?;
        if !now.is_some_and(|now| Arc::ptr_eq(&now, node)) {
            return Ok(false);
        }
        let times = KeptTimes::of(parent.as_fd())?;
        if metacopy {
            self.mark_impure(&link.parent, parent.as_fd())?;
        }
        rustix::fs::linkat(work.fd(), &temp.name, &parent, &link.name, AtFlags::empty())
            .op("copy up hard link")?;
        times.restore(parent.as_fd());
        link.parent.unsynced.store(true, Ordering::Relaxed);
        Ok(true)
    }

    fn unplace_link(&self, copy: &UpperObject, link: &Link) {
        let undo = || -> Result<()> {
            let parent = self.upper_dir(&link.parent)?;
            let parent = parent.ok_or(Error::refused("undo copy up", Errno::STALE))?;
            let _names = link.parent.names().write();
            if same_object(parent.as_fd(), &link.name, copy.dev, copy.ino).op("undo copy up")? {
                let times = KeptTimes::of(parent.as_fd())?;
                rustix::fs::unlinkat(&parent, &link.name, AtFlags::empty()).op("undo copy up")?;
                times.restore(parent.as_fd());
            }
            Ok(())
        };
        if let Err(error) = undo() {
            log::error!("{}: {error}", link.name.display());
        }
    }

    /// Records the names that the copy is to have, so that a successor can finish.
    fn write_intent<'w>(
        &self,
        work: &'w Work,
        temp: &Temp<'_>,
        links: &[Link],
    ) -> Result<Intent<'w>> {
        let number = work.fresh_name();
        let number = number.as_bytes().strip_prefix(b"#").unwrap_or_default();
        let named = |end: &str| {
            let mut name = OsString::from(INTENT_PREFIX);
            name.push(OsStr::from_bytes(number));
            name.push(end);
            name
        };
        let mut record = Vec::new();
        for link in links {
            record.extend_from_slice(&upper_path(link));
            record.push(0);
        }
        let (copy_name, names_name) = (named(COPY), named(NAMES));
        rustix::fs::linkat(
            work.fd(),
            &temp.name,
            work.fd(),
            &copy_name,
            AtFlags::empty(),
        )
        .op("record hard links")?;
        let copy = work.adopt(copy_name);
        let aside = work.fresh_temp();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(work.fd(), &aside.name, flags, Mode::RUSR | Mode::WUSR)
            .op("record hard links")?;
        let mut rest = &record[..];
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest).op("record hard links")?;
            rest = &rest[written..];
        }
        if !self.features.volatile {
            rustix::fs::fsync(&file).op("record hard links")?;
        }
        rustix::fs::renameat(work.fd(), &aside.name, work.fd(), &names_name)
            .op("record hard links")?;
        aside.keep();
        Ok(Intent {
            names: work.adopt(names_name),
            copy,
        })
    }

    /// Finishes what killed predecessors had begun.
    pub(crate) fn replay_intents(&self) -> Result<()> {
        let (Some(work), Some(upper)) = (&self.work, &self.upper) else {
            return Ok(());
        };
        let mut names = Vec::new();
        let readable = open::reopen(work.fd(), OFlags::RDONLY | OFlags::DIRECTORY)
            .op("look for unfinished work")?;
        for entry in Dir::new(readable).op("look for unfinished work")? {
            let entry = entry.op("look for unfinished work")?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if name.as_bytes().starts_with(INTENT_PREFIX.as_bytes()) {
                names.push(name);
            }
        }
        for name in &names {
            if let Some(number) = name.as_bytes().strip_suffix(NAMES.as_bytes()) {
                let mut copy = OsStr::from_bytes(number).to_owned();
                copy.push(COPY);
                replay(work, upper.root.as_fd(), name, &copy)?;
            }
        }
        for name in names {
            drop(work.adopt(name));
        }
        Ok(())
    }

    /// Every name that a lower file has in the view.
    fn union_links(&self, node: &NodeRef) -> Result<Vec<Link>> {
        let _still = self.moving.write();
        let mut links = node.state.read().links(&node.stack);
        let Some(file) = node.stack.file() else {
            return Ok(links);
        };
        let groups = self.groups(file.layer())?;
        let Some(paths) = file.id().and_then(|id| groups.get(&id)) else {
            return Ok(links);
        };
        for path in paths {
            add_link(&mut links, self.link_at(path, node)?);
        }
        if links.len() < paths.len() && self.redirects_possible(file)? {
            for link in self.links_anywhere(file.layer(), paths, node)? {
                add_link(&mut links, Some(link));
            }
        }
        Ok(links)
    }

    /// The name at a path of the view, if it is one of this node.
    fn link_at(&self, path: &[u8], node: &NodeRef) -> Result<Option<Link>> {
        let mut parent = self.root();
        let mut names = path.split(|&b| b == b'/').map(OsStr::from_bytes).peekable();
        while let Some(name) = names.next() {
            let Some(found) = self.lookup(&parent, name)? else {
                return Ok(None);
            };
            if names.peek().is_none() {
                let link = Link {
                    parent,
                    name: name.to_owned(),
                };
                return Ok(Arc::ptr_eq(&found, node).then_some(link));
            }
            if !found.is_dir() {
                return Ok(None);
            }
            parent = found;
        }
        Ok(None)
    }

    /// Searches the whole view for directories that a redirect has moved away from the paths of their layer.
    fn links_anywhere(&self, layer: u16, paths: &[Vec<u8>], node: &NodeRef) -> Result<Vec<Link>> {
        let dir_of = |path: &[u8]| -> Vec<u8> {
            path.iter()
                .rposition(|&b| b == b'/')
                .map_or(Vec::new(), |cut| path[..cut].to_vec())
        };
        let wanted: HashSet<Vec<u8>> = paths.iter().map(|path| dir_of(path)).collect();
        let mut found = Vec::new();
        let mut todo = vec![self.root()];
        while let Some(dir) = todo.pop() {
            let here = dir
                .stack
                .dirs()
                .iter()
                .any(|part| part.may_show(layer) && wanted.contains(part.path()));
            for name in self.listed_names(&dir)? {
                let Some(child) = self.lookup(&dir, &name)? else {
                    continue;
                };
                if child.is_dir() {
                    // A file of this layer is where the layer takes part, or where something was moved to.
                    let parts = child.stack.dirs();
                    if child.in_upper() || parts.iter().any(|part| part.may_show(layer)) {
                        todo.push(child);
                    }
                } else if here && Arc::ptr_eq(&child, node) {
                    found.push(Link {
                        parent: dir.clone(),
                        name,
                    });
                }
            }
        }
        Ok(found)
    }

    /// True if some directory above a layer may have been moved by a redirect.
    fn redirects_possible(&self, file: &LowerFile) -> Result<bool> {
        if self.redirects_met.load(Ordering::Relaxed) {
            return Ok(true);
        }
        if !self.features.redirect_dir {
            return Ok(false);
        }
        let mut looked = self.links.redirects_looked_for.lock();
        if *looked {
            return Ok(false);
        }
        let upper = self.upper.iter().map(|upper| upper.root.as_fd());
        let above = self.lowers[..usize::from(file.layer())].iter();
        let above: Vec<_> = above
            .filter(|lower| !lower.plain)
            .map(|lower| lower.root())
            .collect::<Result<_>>()?;
        for root in upper.chain(above.iter().map(|root| root.as_fd())) {
            if self.has_redirect(root)? {
                self.redirects_met.store(true, Ordering::Relaxed);
                return Ok(true);
            }
        }
        // Only a lookup or a rename of ours can find or make one from now on; both are noticed. Layers below the ones
        // looked at cannot be above a file of a later question unless that lies deeper: then the flag stays unset.
        *looked = usize::from(file.layer()) + 1 >= self.merged;
        Ok(false)
    }

    fn has_redirect(&self, root: BorrowedFd<'_>) -> Result<bool> {
        let name = self.space.os_name(mille_layer::Mark::Redirect);
        let mut found = false;
        visit_dirs(root, &mut |dir, _| {
            found |= xattr::get(dir, name).op("look for redirects")?.is_some();
            Ok(!found)
        })?;
        Ok(found)
    }

    /// The hard links of a layer.
    fn groups(&self, layer: u16) -> Result<Arc<Groups>> {
        // The lock is held during the walk: others who need it would only walk as well.
        let mut layers = self.links.layers.lock();
        if let Some(groups) = layers.get(&layer) {
            return Ok(groups.clone());
        }
        let groups = Arc::new(collect(self.lower_root(layer)?.as_fd())?);
        layers.insert(layer, groups.clone());
        Ok(groups)
    }
}

fn add_link(links: &mut Vec<Link>, link: Option<Link>) {
    let Some(link) = link else { return };
    let same = |old: &Link| Arc::ptr_eq(&old.parent, &link.parent) && old.name == link.name;
    if !links.iter().any(same) {
        links.push(link);
    }
}

/// An intent on disk; removed when dropped, the record before the copy it speaks of.
struct Intent<'w> {
    #[expect(dead_code, reason = "held for its removal")]
    names: Temp<'w>,
    copy: Temp<'w>,
}

/// Path of a name in the upper, which is its path in the view.
fn upper_path(link: &Link) -> Vec<u8> {
    let mut names = vec![link.name.clone()];
    let mut dir = link.parent.clone();
    loop {
        let up = dir
            .state
            .read()
            .first_link(&dir.stack)
            .map(LinkRef::to_owned);
        match up {
            Some(link) => {
                names.push(link.name);
                dir = link.parent;
            }
            None => break,
        }
    }
    names.reverse();
    let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
    names.join(&b'/')
}

fn replay(work: &Work, upper: BorrowedFd<'_>, record: &OsStr, copy: &OsStr) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(work.fd(), record, flags, Mode::empty()).op("read intent")?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::fs::File::from(file), &mut bytes).op("read intent")?;
    let copy = match open::handle(work.fd(), copy) {
        Ok(copy) => copy,
        // The record goes first when the work is done; without a copy there is nothing to do.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno).op("finish hard links"),
    };
    for path in bytes.split(|&b| b == 0).filter(|path| !path.is_empty()) {
        let cut = path.iter().rposition(|&b| b == b'/');
        let (dir, name) = match cut {
            Some(cut) => (&path[..cut], &path[cut + 1..]),
            None => (&[][..], path),
        };
        let name = OsStr::from_bytes(name);
        let dir = match open::dir_beneath(upper, dir) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            Err(errno) => return Err(errno).op("finish hard links"),
        };
        let times = KeptTimes::of(dir.as_fd())?;
        match object::link(copy.as_fd(), dir.as_fd(), name) {
            // Placed before the crash.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).op("finish hard links"),
        }
        times.restore(dir.as_fd());
    }
    Ok(())
}

/// Collects the files of a layer that have more than one name.
fn collect(root: BorrowedFd<'_>) -> Result<Groups> {
    let mut groups = Groups::new();
    visit_dirs(root, &mut |dir, path| {
        for (name, kind) in entries(dir)? {
            if kind == FileType::Directory {
                continue;
            }
            let Some(stat) = open::stat_name(dir, &name).op("index hard links")? else {
                continue;
            };
            if stat.st_nlink > 1 && !mille_layer::is_whiteout_device(&stat) {
                groups
                    .entry((stat.st_dev, stat.st_ino))
                    .or_default()
                    .push(join(path, &name));
            }
        }
        Ok(true)
    })?;
    Ok(groups)
}

/// Visits every directory of a layer with its path, until told to stop.
fn visit_dirs(
    root: BorrowedFd<'_>,
    visit: &mut dyn FnMut(BorrowedFd<'_>, &[u8]) -> Result<bool>,
) -> Result<()> {
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let dir = match open::dir_beneath(root, &path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::XDEV) => continue,
            Err(errno) => return Err(errno).op("walk layer"),
        };
        if !visit(dir.as_fd(), &path)? {
            return Ok(());
        }
        for (name, kind) in entries(dir.as_fd())? {
            if kind == FileType::Directory {
                todo.push(join(&path, &name));
            }
        }
    }
    Ok(())
}

/// Names and kinds in a directory of a layer.
fn entries(dir: BorrowedFd<'_>) -> Result<Vec<(OsString, FileType)>> {
    let readable = open::reopen(dir, OFlags::RDONLY | OFlags::DIRECTORY).op("read layer")?;
    let mut entries = Vec::new();
    for entry in Dir::new(readable).op("read layer")? {
        let entry = entry.op("read layer")?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let name = OsStr::from_bytes(name).to_owned();
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            let Some(stat) = open::stat_name(dir, &name).op("read layer")? else {
                continue;
            };
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        entries.push((name, kind));
    }
    Ok(entries)
}
