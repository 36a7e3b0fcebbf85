//! What a node is made of in the lower layers. Fixed for its life: layers are immutable.

use std::ffi::OsStr;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mille_layer::Opaque;
use mille_layer::index::DirNumber;
use parking_lot::RwLock;

/// A directory of a lower layer. Shared by all that is known of it and in it.
#[derive(Debug)]
pub(crate) struct DirPlace {
    /// Index into the view's lowers, 0 the topmost.
    pub(crate) layer: u16,
    /// The directory's number in the merged index that answers for it; [`NOT_INDEXED`] if none does.
    number: u32,
    /// Path in that layer, without leading slash; empty for its root.
    pub(crate) path: Box<[u8]>,
}

/// More than any index has.
const NOT_INDEXED: u32 = u32::MAX;

impl PartialEq for DirPlace {
    fn eq(&self, other: &Self) -> bool {
        (self.layer, &self.path) == (other.layer, &other.path)
    }
}

impl Eq for DirPlace {}

impl Hash for DirPlace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.layer, &self.path).hash(state);
    }
}

impl DirPlace {
    pub(crate) fn new(layer: u16, path: impl Into<Box<[u8]>>) -> Arc<Self> {
        Self::indexed(layer, path, DirNumber(NOT_INDEXED))
    }

    /// Of a directory that an index answers for.
    pub(crate) fn indexed(
        layer: u16,
        path: impl Into<Box<[u8]>>,
        DirNumber(number): DirNumber,
    ) -> Arc<Self> {
        let path = path.into();
        Arc::new(Self {
            layer,
            number,
            path,
        })
    }

    /// Its number in the merged index, if that answers for it.
    pub(crate) fn number(&self) -> Option<DirNumber> {
        (self.number != NOT_INDEXED).then_some(DirNumber(self.number))
    }
}

/// A node's lower parts.
#[derive(Debug)]
pub(crate) enum Stack {
    /// Only in the upper, and no directory.
    None,
    /// A directory.
    Dirs(Box<Dirs>),
    /// Anything else: the one object that shows.
    File(LowerFile),
}

/// What only directories have.
#[derive(Debug)]
pub(crate) struct Dirs {
    /// Never used twice: keys caches that outlive the node.
    serial: u64,
    /// Held for writing while names of the directory change, for reading while they are looked up.
    names: RwLock<()>,
    /// Its directories in the lowers, the topmost first; none if it is only in the upper.
    parts: Box<[LowerDir]>,
    /// Where the lowers together know it, if that is not the path of its topmost directory.
    known_as: Option<Box<[u8]>>,
    /// The upper's part has become opaque.
    cut: AtomicBool,
}

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// Stands for the names of everything that can have none.
static NO_NAMES: RwLock<()> = RwLock::new(());

impl Stack {
    /// Of a directory that is only in the upper.
    pub(crate) fn of_new_dir() -> Self {
        Self::of_dir([], &[])
    }

    /// Of a directory with these lower parts. `path`: where the lowers together know it; see [`Self::known_as`].
    pub(crate) fn of_dir(parts: impl Into<Box<[LowerDir]>>, path: &[u8]) -> Self {
        let parts = parts.into();
        let own = parts.first().is_none_or(|top| top.path() == path);
        Self::Dirs(Box::new(Dirs {
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            names: RwLock::new(()),
            known_as: (!own).then(|| path.into()),
            parts,
            cut: AtomicBool::new(false),
        }))
    }

    /// The path that leads to this directory from the lowers' roots: what a redirect has to say. A redirect of a lower
    /// makes it another than the directory has in its own layer. `None` if it has no lower parts.
    pub(crate) fn known_as(&self) -> Option<&[u8]> {
        match self {
            Self::Dirs(dirs) => dirs
                .known_as
                .as_deref()
                .or_else(|| dirs.parts.first().map(LowerDir::path)),
            Self::None | Self::File(_) => None,
        }
    }

    /// The lower directories; none for anything else.
    pub(crate) fn dirs(&self) -> &[LowerDir] {
        match self {
            Self::Dirs(dirs) if !dirs.cut.load(Ordering::Acquire) => &dirs.parts,
            Self::Dirs(_) | Self::None | Self::File(_) => &[],
        }
    }

    /// The lower directories take part no longer: the upper's has been made opaque. Called with the directory's name lock
    /// held, when none of their names shows.
    pub(crate) fn cut(&self) {
        if let Self::Dirs(dirs) = self {
            dirs.cut.store(true, Ordering::Release);
        }
    }

    /// What it was made from: as [`Self::dirs`], also after a cut.
    pub(super) fn origin_dirs(&self) -> &[LowerDir] {
        match self {
            Self::Dirs(dirs) => &dirs.parts,
            Self::None | Self::File(_) => &[],
        }
    }

    /// The lower object of something that is no directory.
    pub(crate) fn file(&self) -> Option<&LowerFile> {
        match self {
            Self::File(file) => Some(file),
            Self::None | Self::Dirs(_) => None,
        }
    }

    /// True for what is only in the upper.
    pub(crate) fn is_none(&self) -> bool {
        self.file().is_none() && self.dirs().is_empty()
    }

    /// The directory's number for caches; 0 for anything else.
    pub(crate) fn serial(&self) -> u64 {
        match self {
            Self::Dirs(dirs) => dirs.serial,
            Self::None | Self::File(_) => 0,
        }
    }

    pub(super) fn names(&self) -> &RwLock<()> {
        match self {
            Self::Dirs(dirs) => &dirs.names,
            Self::None | Self::File(_) => &NO_NAMES,
        }
    }

    /// The last component of where the object is in its layer: usually the name it has in the view.
    pub(super) fn own_name(&self) -> Option<&OsStr> {
        match self {
            Self::None => None,
            Self::File(file) => Some(&file.name),
            Self::Dirs(dirs) => {
                let path = &dirs.parts.first()?.place.path;
                let start = path.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
                Some(OsStr::from_bytes(&path[start..])).filter(|name| !name.is_empty())
            }
        }
    }

    /// True if both are the same lower object. On a mutable layer (`by_name`) that is for the path to say: the hard links
    /// of such a layer are broken by a change, so each name is an object.
    pub(super) fn is_same(&self, other: &Self, by_name: impl Fn(u16) -> bool) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => {
                a.is_at(b)
                    || a.id().is_some()
                        && a.id() == b.id()
                        && !by_name(a.layer())
                        && a.layer() == b.layer()
            }
            (Self::Dirs(a), Self::Dirs(b)) => match (a.parts.first(), b.parts.first()) {
                (Some(a), Some(b)) if by_name(a.layer()) => a.place == b.place,
                (Some(a), Some(b)) => (a.layer(), a.dev, a.ino) == (b.layer(), b.dev, b.ino),
                _ => false,
            },
            _ => false,
        }
    }
}

/// One directory of one lower layer that takes part in a merged directory.
#[derive(Clone, Debug)]
pub(crate) struct LowerDir {
    pub(crate) place: Arc<DirPlace>,
    pub(crate) opaque: Opaque,
    /// Made by extraction for want of an entry of its own: its attributes do not count.
    pub(crate) implied: bool,
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl LowerDir {
    /// Index into the view's lowers, 0 the topmost.
    pub(crate) fn layer(&self) -> u16 {
        self.place.layer
    }

    /// Path in that layer.
    pub(crate) fn path(&self) -> &[u8] {
        &self.place.path
    }

    /// False if nothing that a layer has in this directory can be met in this part of it.
    pub(crate) fn may_show(&self, layer: u16) -> bool {
        if self.place.number().is_some() {
            layer >= self.layer()
        } else {
            layer == self.layer()
        }
    }
}

/// One object of one lower layer that is no directory.
#[derive(Clone, Debug)]
pub(crate) struct LowerFile {
    /// Where its directory is.
    pub(crate) place: Arc<DirPlace>,
    pub(crate) name: Box<OsStr>,
    /// What few files have.
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default)]
struct More {
    /// Device and inode, of a file with more than one name in its layer.
    id: Option<(u64, u64)>,
    /// Where the data is, if this object carries only metadata.
    data: Option<LowerFile>,
}

impl LowerFile {
    /// `id`: device and inode if the file has more than one name.
    pub(crate) fn new(place: Arc<DirPlace>, name: &OsStr, id: Option<(u64, u64)>) -> Self {
        let more = id.map(|id| {
            Box::new(More {
                id: Some(id),
                data: None,
            })
        });
        Self {
            place,
            name: name.into(),
            more,
        }
    }

    /// Index into the view's lowers, 0 the topmost.
    pub(crate) fn layer(&self) -> u16 {
        self.place.layer
    }

    /// Device and inode of a file that has more than one name in its layer.
    pub(crate) fn id(&self) -> Option<(u64, u64)> {
        self.more.as_ref()?.id
    }

    /// The object carries only metadata; its data is there.
    pub(crate) fn set_data(&mut self, data: Self) {
        self.more.get_or_insert_default().data = Some(data);
    }

    /// The object whose bytes are read.
    pub(crate) fn data_owner(&self) -> &Self {
        let data = self.more.as_ref().and_then(|more| more.data.as_ref());
        data.map_or(self, Self::data_owner)
    }

    fn is_at(&self, other: &Self) -> bool {
        self.place == other.place && self.name == other.name
    }

    /// Path in its layer.
    pub(crate) fn path(&self) -> Vec<u8> {
        join(&self.place.path, &self.name)
    }
}

/// Joins a layer path and a name.
pub(crate) fn join(dir: &[u8], name: &OsStr) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    path
}
