//! The view: opening it, and what library callers read from it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::ancestry::Ancestry;
use crate::attr::Attr;
use crate::chain::{ChainIndex, Indexed};
use crate::config::{Access, Config, Features, Lower};
use crate::copyup::{Growth, LinkIndex};
use crate::dirs::{DirCache, DirKey};
use crate::error::{Context, Error, Result};
use crate::layers::{LowerLayer, Place, UpperLayer, dialects, foreign_chain, open_lower};
use crate::node::{DirPlace, InoPlan, LowerDir, NodeRef, Stack, State, Table, UpperObject};
use crate::owners::Owners;
use crate::readdir::Listings;
use crate::whereabouts::Whereabouts;
use crate::work::{Work, wait_for_growth};
use crate::{MarkSpace, Ownership, Upper, sys, traces};
use mille_layer::{Dialects, Opaque, dir_marks};

/// A merged view of layers.
///
/// All methods may be called from several threads at once; operations on different directories and copy-ups of different
/// files do not wait for each other.
#[derive(Debug)]
pub struct View {
    pub(crate) lowers: Box<[LowerLayer]>,
    /// How many of them make the merged tree; the rest only holds data.
    pub(crate) merged: usize,
    pub(crate) upper: Option<UpperLayer>,
    /// Present when the upper may be written.
    pub(crate) work: Option<Work>,
    pub(crate) space: MarkSpace,
    pub(crate) dialects: Dialects,
    pub(crate) ownership: Ownership,
    pub(crate) owners: Owners,
    pub(crate) features: Features,
    pub(crate) table: Arc<Table>,
    pub(crate) dirs: DirCache,
    /// Who else holds descriptors that can be opened again.
    pub(crate) spare: OnceLock<Spare>,
    /// Answers for the last of the lowers.
    pub(crate) chain: Option<Indexed>,
    /// Held for writing around the system call that renames an upper directory, for reading while a directory of the
    /// upper is opened by walking down from its parents.
    pub(crate) tree: RwLock<()>,
    /// Held for reading by a rename of a directory, for writing while all names of a hard-linked file are searched for: a
    /// directory that moves during the search could be missed in its old place and in its new one. Taken before every
    /// other lock of the view.
    pub(crate) moving: RwLock<()>,
    pub(crate) listings: Listings,
    pub(crate) whereabouts: Whereabouts,
    pub(crate) links: LinkIndex,
    pub(crate) growth: Growth,
    /// Unmapped owners are reported by the kernel under this number.
    pub(crate) overflow: (u32, u32),
    /// A redirect was met or made, so a lower path and a merged path may differ.
    pub(crate) redirects_met: AtomicBool,
    root: NodeRef,
}

/// Gives descriptors back that can be opened again.
pub(crate) struct Spare(pub(crate) Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Spare {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Spare")
    }
}

/// One entry of a directory of the view.
#[derive(Clone, Debug)]
pub struct ListedEntry {
    /// The name.
    pub name: OsString,
    /// The object.
    pub node: NodeRef,
    /// Its attributes.
    pub attr: Attr,
}

/// How deep symbolic links may lead into one another, as the kernel has it.
const MAX_LINKS_FOLLOWED: usize = 40;

impl View {
    /// Opens the layers, takes the upper's lock and finishes what a killed predecessor left.
    ///
    /// # Errors
    /// [`Error::Busy`] if another mount holds the upper, [`Error::Overlap`], [`Error::Unfit`], or a system call that
    /// failed on one of the directories.
    pub fn open(config: Config) -> Result<Arc<Self>> {
        let Config {
            lowers,
            upper,
            space,
            ownership,
            owners,
            features,
            chain,
        } = config;
        if lowers.is_empty() && upper.is_none() {
            return Err(Error::Config("a view needs at least one layer".to_owned()));
        }
        if lowers.len() >= usize::from(u16::MAX) {
            return Err(Error::Config(format!(
                "{} layers are too many",
                lowers.len()
            )));
        }
        let (layers, places, chain) = open_lowers(lowers, chain, space, ownership)?;
        let merged = merged_layers(&layers)?;
        if chain.is_some() && merged < layers.len() {
            return Err(foreign_chain());
        }
        let (upper_layer, work, aufs) = match upper {
            Some(upper) => open_upper(upper, &layers, &places, space, features)?,
            None => (None, None, false),
        };
        let devices = upper_layer
            .iter()
            .map(|upper| upper.stat.st_dev)
            .chain(layers.iter().rev().map(|layer| layer.stat.st_dev));
        let mutable = layers.iter().map(|layer| layer.mutable).collect();
        let table = Table::new(InoPlan::new(devices), mutable);
        let stack = root_stack(&layers[..merged], chain.as_ref())?;
        let state = State::nameless(upper_layer.as_ref().map(|upper| UpperObject {
            dev: upper.stat.st_dev,
            ino: upper.stat.st_ino,
            metacopy: false,
            orphan: Some(upper.root.clone()),
        }));
        let root = Table::make_root(stack, state);
        let view = Arc::new(Self {
            lowers: layers.into(),
            upper: upper_layer,
            work,
            space,
            merged,
            dialects: Dialects {
                aufs,
                ..dialects(space, ownership)
            },
            ownership,
            owners,
            features,
            chain,
            table,
            dirs: DirCache::new(),
            spare: OnceLock::new(),
            tree: RwLock::new(()),
            moving: RwLock::new(()),
            listings: Listings::new(),
            whereabouts: Whereabouts::new(),
            links: LinkIndex::default(),
            growth: Growth::default(),
            overflow: (overflow_id("overflowuid"), overflow_id("overflowgid")),
            redirects_met: AtomicBool::new(false),
            root,
        });
        view.replay_intents()?;
        Ok(view)
    }

    /// The root directory.
    pub fn root(&self) -> NodeRef {
        self.root.clone()
    }

    /// True if changes are possible at all.
    pub fn is_writable(&self) -> bool {
        self.work.is_some()
    }

    /// The entries of a directory, without `.` and `..`, in the order of a listing.
    ///
    /// # Errors
    /// `ENOTDIR`, or a failed system call on a layer.
    pub fn list(&self, dir: &NodeRef) -> Result<Vec<ListedEntry>> {
        let names = self.listed_names(dir)?;
        let mut entries = Vec::with_capacity(names.len());
        for name in names {
            if let Some(node) = self.lookup(dir, &name)? {
                let attr = self.attr(&node)?;
                entries.push(ListedEntry { name, node, attr });
            }
        }
        Ok(entries)
    }

    /// Opens the bytes of a regular file for reading.
    ///
    /// # Errors
    /// `EISDIR` or `EINVAL` for anything else than a regular file, or a failed system call.
    pub fn open_read(&self, node: &NodeRef) -> Result<File> {
        Ok(File::from(self.open_data(node, OFlags::RDONLY)?.fd))
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` if the node is no symbolic link, or a failed system call.
    pub fn read_link(&self, node: &NodeRef) -> Result<OsString> {
        if node.kind != FileType::Symlink {
            return Err(Error::refused("readlink", Errno::INVAL));
        }
        if let Some(target) = self.indexed_target(node)? {
            return Ok(target);
        }
        let handle = self.object(node)?;
        let target = rustix::fs::readlinkat(&handle, c"", Vec::new()).op("readlink")?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// All extended attributes that callers may see, in the file system's order.
    ///
    /// # Errors
    /// A failed system call.
    pub fn xattrs(&self, node: &NodeRef) -> Result<Vec<(OsString, Vec<u8>)>> {
        let mut all = Vec::new();
        for name in self.list_xattr(node)? {
            if let Some(value) = self.get_xattr(node, &name)? {
                all.push((name, value));
            }
        }
        Ok(all)
    }

    /// The handle of a directory of a lower; `None` where another mount covers it.
    pub(crate) fn lower_dir(&self, place: &Arc<DirPlace>) -> Result<Option<Arc<OwnedFd>>> {
        let lower = &self.lowers[usize::from(place.layer)];
        if place.path.is_empty() {
            return self.lower_root(place.layer).map(Some);
        }
        let key = DirKey::Lower(place.clone());
        // A directory of a mutable layer may be replaced at any time: its handle is not kept.
        if !lower.mutable
            && let Some(handle) = self.dirs.get(&key)
        {
            return Ok(Some(handle));
        }
        let root = self.lower_root(place.layer)?;
        match self.retry_short_of_fds(|| sys::open::dir_beneath(root.as_fd(), &place.path)) {
            Ok(handle) => {
                let handle = Arc::new(handle);
                if !lower.mutable {
                    self.dirs.put(key, handle.clone());
                }
                Ok(Some(handle))
            }
            Err(Errno::XDEV) => Ok(None),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if lower.mutable => Ok(None),
            Err(errno) => Err(errno).op("open lower directory"),
        }
    }

    /// The handle of a lower's root.
    pub(crate) fn lower_root(&self, layer: u16) -> Result<Arc<OwnedFd>> {
        let lower = self.lowers.get(usize::from(layer));
        let lower = lower.ok_or(Error::refused("open lower", Errno::IO))?;
        match lower.root() {
            Err(error) if error.is(Errno::MFILE) || error.is(Errno::NFILE) => {
                self.give_descriptors_back();
                lower.root()
            }
            other => other,
        }
    }

    /// The handle of a directory's part in the upper; `None` if it has none (yet).
    pub(crate) fn upper_dir(&self, node: &NodeRef) -> Result<Option<Arc<OwnedFd>>> {
        let key = DirKey::Upper(node.serial());
        if let Some(handle) = self.dirs.get(&key) {
            return Ok(Some(handle));
        }
        let _tree = self.tree.read();
        self.upper_dir_walk(node)
    }

    /// As [`Self::upper_dir`], with the tree lock held: climbs to the nearest cached ancestor and opens downwards.
    fn upper_dir_walk(&self, node: &NodeRef) -> Result<Option<Arc<OwnedFd>>> {
        let mut missing: Vec<NodeRef> = Vec::new();
        let mut here = node.clone();
        let mut handle = loop {
            if let Some(handle) = self.dirs.get(&DirKey::Upper(here.serial())) {
                break handle;
            }
            let state = here.state.read();
            let Some(upper) = &state.upper else {
                return Ok(None);
            };
            if let Some(orphan) = &upper.orphan {
                break orphan.clone();
            }
            let Some(parent) = state.first_parent() else {
                return Err(Error::refused("open upper directory", Errno::NOENT));
            };
            let parent = parent.clone();
            drop(state);
            missing.push(std::mem::replace(&mut here, parent));
        };
        for node in missing.into_iter().rev() {
            let state = node.state.read();
            let link = state.first_link(&node.stack);
            let (Some(link), Some(upper)) = (link, &state.upper) else {
                return Err(Error::refused("open upper directory", Errno::NOENT));
            };
            let fd = self
                .retry_short_of_fds(|| sys::open::dir_handle(handle.as_fd(), link.name))
                .op("open upper directory")?;
            let stat = rustix::fs::fstat(&fd).op("stat upper directory")?;
            if (stat.st_dev, stat.st_ino) != (upper.dev, upper.ino) {
                return Err(Error::refused("open upper directory", Errno::STALE));
            }
            drop(state);
            handle = Arc::new(fd);
            self.dirs.put(DirKey::Upper(node.serial()), handle.clone());
        }
        Ok(Some(handle))
    }

    /// Runs a call that opens a descriptor; if there are no more, gives back those that are only kept for speed and tries
    /// once more.
    pub(crate) fn retry_short_of_fds<T>(
        &self,
        open: impl Fn() -> std::result::Result<T, Errno>,
    ) -> std::result::Result<T, Errno> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.give_descriptors_back();
                open()
            }
            other => other,
        }
    }

    fn give_descriptors_back(&self) {
        self.dirs.clear();
        if let Some(spare) = self.spare.get() {
            (spare.0)();
        }
    }

    /// How the upper is read.
    pub(crate) fn upper_dialects(&self) -> &Dialects {
        &self.dialects
    }

    /// Whether a layer's root may hold whiteouts of the attribute form.
    pub(crate) fn root_opaque(&self, layer: usize) -> Opaque {
        let dirs = self.root.stack.dirs();
        dirs.iter()
            .find(|dir| usize::from(dir.layer()) == layer)
            .map_or(Opaque::No, |dir| dir.opaque)
    }
}

/// The number of layers that make the merged tree.
fn merged_layers(layers: &[LowerLayer]) -> Result<usize> {
    let merged = layers.iter().take_while(|layer| !layer.data_only).count();
    if merged < layers.len() && (merged == 0 || !layers[merged..].iter().all(|l| l.data_only)) {
        let what = "data-only layers come last, below at least one that is not";
        return Err(Error::Config(what.to_owned()));
    }
    Ok(merged)
}

/// Opens the lowers; those that an index answers for only by name.
fn open_lowers(
    lowers: Vec<Lower>,
    chain: Option<ChainIndex>,
    space: MarkSpace,
    ownership: Ownership,
) -> Result<(Vec<LowerLayer>, Vec<Place>, Option<Indexed>)> {
    let dialects = dialects(space, ownership);
    if chain
        .as_ref()
        .is_some_and(|chain| chain.dialects != dialects)
    {
        return Err(foreign_chain());
    }
    let indexed = chain.as_ref().map_or(0, |chain| chain.roots.len());
    let first = lowers.len().checked_sub(indexed).ok_or(foreign_chain())?;
    let mut layers = Vec::with_capacity(lowers.len());
    let mut places = Vec::with_capacity(first);
    let mut lowers = lowers.into_iter();
    for lower in lowers.by_ref().take(first) {
        let (layer, place) = open_lower(lower, space, ownership)?;
        layers.push(layer);
        places.push(place);
    }
    for (lower, root) in lowers.zip(chain.iter().flat_map(|chain| &*chain.roots)) {
        layers.push(LowerLayer::indexed(lower, *root, dialects)?);
    }
    let first = u16::try_from(first).unwrap_or(u16::MAX);
    let chain = chain.and_then(|chain| Indexed::new(chain, first));
    Ok((layers, places, chain))
}

fn root_stack(layers: &[LowerLayer], chain: Option<&Indexed>) -> Result<Stack> {
    let mut dirs = Vec::new();
    for (layer, index) in layers.iter().zip(0u16..) {
        if dirs
            .last()
            .is_some_and(|above: &LowerDir| above.opaque == Opaque::Yes)
        {
            break;
        }
        if let Some(chain) = chain.filter(|chain| chain.first == index) {
            dirs.push(chain.root()?);
            break;
        }
        let marks = dir_marks(layer.root()?.as_fd(), &layer.dialects).op("read marks")?;
        dirs.push(LowerDir {
            place: DirPlace::new(index, []),
            opaque: marks.opaque,
            implied: marks.implied,
            dev: layer.stat.st_dev,
            ino: layer.stat.st_ino,
        });
    }
    Ok(Stack::of_dir(dirs, b""))
}

/// Also says whether `.wh.` files may occur in the upper.
fn open_upper(
    upper: Upper,
    layers: &[LowerLayer],
    lowers: &[Place],
    space: MarkSpace,
    features: Features,
) -> Result<(Option<UpperLayer>, Option<Work>, bool)> {
    let mut place = Place::open(&upper.dir)?;
    // Nobody else writes to an upper that we have locked, and we make no such names: an empty one will never have any.
    let ours = upper.access == Access::Exclusive && features.reserve_wh_names;
    let aufs = upper.aufs && !(ours && traces::is_empty(&place).on("read", &place.path)?);
    let mut tree = None;
    let mut ancestry = Ancestry::default();
    for (lower, layer) in lowers.iter().zip(layers) {
        if layer.mutable {
            ancestry.refuse_containing(&place, lower, "upper and lower layer")?;
        } else {
            ancestry.refuse_overlap(&place, lower, "upper and lower layer")?;
        }
    }
    ancestry.refuse_overlap_unopened(&place, layers, "upper and lower layer")?;
    let work = match upper.access {
        Access::Observe => {
            let seen = Place::open(&upper.work)
                .and_then(|work| wait_for_growth(work.fd.as_fd()).on("read", &upper.work));
            if let Err(error) = seen {
                log::debug!("files may be growing: {error}");
            }
            None
        }
        Access::Exclusive => {
            let mut work = Place::open(&upper.work)?;
            ancestry.refuse_overlap(&work, &place, "work and upper directory")?;
            for (lower, layer) in lowers.iter().zip(layers) {
                if layer.mutable {
                    ancestry.refuse_containing(&work, lower, "work directory and lower layer")?;
                } else {
                    ancestry.refuse_overlap(&work, lower, "work directory and lower layer")?;
                }
            }
            ancestry.refuse_overlap_unopened(&work, layers, "work directory and lower layer")?;
            match sys::mount::clone_pair(place.fd.as_fd(), work.fd.as_fd()) {
                Ok(pair) => {
                    (place.fd, work.fd) = (pair.first, pair.second);
                    tree = Some(pair.tree);
                }
                Err(errno) => {
                    log::debug!("upper layer without a private mount: {errno}");
                }
            }
            Some(Work::open(&place, &work, space, features, upper.fit)?)
        }
    };
    let layer = UpperLayer {
        stat: place.stat,
        root: Arc::new(place.fd),
        _tree: tree,
    };
    Ok((Some(layer), work, aufs))
}

fn overflow_id(which: &str) -> u32 {
    /// What the kernel has unless told otherwise.
    const USUAL: u32 = 65534;
    std::fs::read_to_string(format!("/proc/sys/kernel/{which}"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(USUAL)
}

/// Resolves a path inside a view. Symbolic links on the way are followed inside the view's root, also absolute ones and
/// `..`; a link at the end only with `follow`. The host's tree is never touched.
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `ELOOP`, or a failed system call on a layer.
pub fn resolve_path(view: &View, path: &Path, follow: bool) -> Result<NodeRef> {
    let mut trail = vec![view.root()];
    let mut todo: VecDeque<OsString> = components(path.as_os_str());
    let mut followed = 0;
    while let Some(name) = todo.pop_front() {
        let here = trail.last().cloned().unwrap_or_else(|| view.root());
        if name == "." {
            if !here.is_dir() {
                return Err(Error::refused("resolve", Errno::NOTDIR));
            }
            continue;
        }
        if name == ".." {
            if trail.len() > 1 {
                trail.pop();
            }
            continue;
        }
        let node = view
            .lookup(&here, &name)?
            .ok_or(Error::refused("resolve", Errno::NOENT))?;
        if node.kind() == FileType::Symlink && (follow || !todo.is_empty()) {
            followed += 1;
            if followed > MAX_LINKS_FOLLOWED {
                return Err(Error::refused("resolve", Errno::LOOP));
            }
            let target = view.read_link(&node)?;
            if target.as_bytes().starts_with(b"/") {
                trail.truncate(1);
            }
            let mut ahead = components(&target);
            ahead.append(&mut todo);
            todo = ahead;
        } else if node.is_dir() || todo.is_empty() {
            trail.push(node);
        } else {
            return Err(Error::refused("resolve", Errno::NOTDIR));
        }
    }
    Ok(trail.pop().unwrap_or_else(|| view.root()))
}

/// The names of a path; a trailing slash becomes a last `.`, which only a directory has.
fn components(path: &OsStr) -> VecDeque<OsString> {
    let bytes = path.as_bytes();
    let mut names: VecDeque<OsString> = bytes
        .split(|&b| b == b'/')
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect();
    if bytes.ends_with(b"/") && !names.is_empty() {
        names.push_back(OsString::from("."));
    }
    names
}
