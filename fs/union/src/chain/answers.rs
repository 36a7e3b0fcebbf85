//! What a view answers from an index.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use mille_layer::Opaque;
use mille_layer::index::{DirNumber, Record};
use rustix::fs::{FileType, Stat};

use super::{Indexed, damaged};
use crate::error::Result;
use crate::node::{DirPlace, LowerDir, LowerFile, Node, Stack, join};
use crate::sys::xattr::is_acl;
use crate::view::View;

/// What an index has under a name.
pub(crate) enum Met {
    Dir(LowerDir, Stat),
    File(LowerFile, Stat),
}

impl Indexed {
    /// The root of the chain, as a part of the view's root.
    pub(crate) fn root(&self) -> Result<LowerDir> {
        let record = self.index.directory(DirNumber::ROOT);
        let record = record.map_err(|_| damaged())?;
        let layer = self.layer(record.layer)?;
        Ok(self.part(DirPlace::indexed(layer, [], DirNumber::ROOT), &record))
    }

    fn part(&self, place: Arc<DirPlace>, record: &Record) -> LowerDir {
        LowerDir {
            place,
            // What the layers below it would add is in the index already.
            opaque: Opaque::No,
            implied: record.implied,
            dev: self.template.st_dev,
            ino: record.ino,
        }
    }

    fn find(&self, number: DirNumber, name: &[u8]) -> Result<Option<Record>> {
        self.index.find(number, name).map_err(|_| damaged())
    }

    /// True if a directory has a name.
    pub(crate) fn has(&self, number: DirNumber, name: &OsStr) -> Result<bool> {
        Ok(self.find(number, name.as_bytes())?.is_some())
    }

    /// Looks a name of a directory up.
    pub(crate) fn look(
        &self,
        dir: &Arc<DirPlace>,
        number: DirNumber,
        name: &OsStr,
    ) -> Result<Option<Met>> {
        let Some(record) = self.find(number, name.as_bytes())? else {
            return Ok(None);
        };
        let stat = self.stat(&record);
        if let Some(child) = record.directory {
            let path = join(&dir.path, name);
            let place = DirPlace::indexed(self.layer(record.layer)?, path, child);
            return Ok(Some(Met::Dir(self.part(place, &record), stat)));
        }
        let place = self.place(dir, number, record.layer)?;
        let id = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        Ok(Some(Met::File(LowerFile::new(place, name, id), stat)))
    }

    /// The directory at a path from the root; `None` if there is none.
    pub(crate) fn directory_at(&self, names: &[Vec<u8>]) -> Result<Option<Arc<DirPlace>>> {
        let (mut number, mut layer) = (DirNumber::ROOT, 0);
        for name in names {
            let record = self.find(number, name)?;
            let Some((child, top)) = record.and_then(|found| Some((found.directory?, found.layer)))
            else {
                return Ok(None);
            };
            (number, layer) = (child, top);
        }
        let path = names.join(&b'/');
        Ok(Some(DirPlace::indexed(self.layer(layer)?, path, number)))
    }

    /// The names in a directory.
    pub(crate) fn names(&self, number: DirNumber) -> Result<Vec<&OsStr>> {
        let names = self.index.names(number).map_err(|_| damaged())?;
        Ok(names.into_iter().map(OsStr::from_bytes).collect())
    }

    fn directory(&self, number: DirNumber) -> Result<Record> {
        self.index.directory(number).map_err(|_| damaged())
    }
}

impl View {
    /// What an index knows of a lower object that is no directory; `None` if no index speaks of it.
    fn file_record(&self, file: &LowerFile) -> Result<Option<(&Indexed, Record)>> {
        let (Some(chain), Some(number)) = (&self.chain, file.place.number()) else {
            return Ok(None);
        };
        let record = chain.find(number, file.name.as_bytes())?;
        Ok(Some((chain, record.ok_or(damaged())?)))
    }

    /// The same of a part of a merged directory.
    fn dir_record(&self, dir: &LowerDir) -> Result<Option<(&Indexed, Record)>> {
        let (Some(chain), Some(number)) = (&self.chain, dir.place.number()) else {
            return Ok(None);
        };
        Ok(Some((chain, chain.directory(number)?)))
    }

    /// `stat` of a lower object that is no directory, if an index knows it.
    pub(crate) fn indexed_stat(&self, file: &LowerFile) -> Result<Option<Stat>> {
        let found = self.file_record(file)?;
        Ok(found.map(|(chain, record)| chain.stat(&record)))
    }

    /// `stat` of a lower directory, if an index knows it.
    pub(crate) fn indexed_dir_stat(&self, dir: &LowerDir) -> Result<Option<Stat>> {
        let found = self.dir_record(dir)?;
        Ok(found.map(|(chain, record)| chain.stat(&record)))
    }

    /// How many layers have a part of a merged directory, the upper not counted.
    pub(crate) fn parts(&self, dirs: &[LowerDir]) -> Result<usize> {
        let mut parts = dirs.len();
        if let Some(last) = dirs.last()
            && let Some((_, record)) = self.dir_record(last)?
        {
            parts += usize::from(record.parts).saturating_sub(1);
        }
        Ok(parts)
    }

    /// The directory whose attributes are those of a part of a merged directory.
    pub(crate) fn attribute_dir(&self, dir: &LowerDir) -> Result<Arc<DirPlace>> {
        match self.dir_record(dir)? {
            Some((chain, record)) => {
                let number = record.directory.ok_or(damaged())?;
                chain.place(&dir.place, number, record.attributes_layer)
            }
            None => Ok(dir.place.clone()),
        }
    }

    /// What an index knows of a node that has no object in the upper.
    fn record(&self, node: &Node) -> Result<Option<(&Indexed, Record)>> {
        if self.chain.is_none() || node.in_upper() {
            return Ok(None);
        }
        match &node.stack {
            Stack::File(file) => self.file_record(file),
            other => match crate::getattr::attribute_place(other.dirs()) {
                Some(dir) => self.dir_record(dir),
                None => Ok(None),
            },
        }
    }

    /// The target of a symbolic link, if an index knows it.
    pub(crate) fn indexed_target(&self, node: &Node) -> Result<Option<OsString>> {
        let Some((chain, record)) = self.record(node)? else {
            return Ok(None);
        };
        if FileType::from_raw_mode(record.mode) != FileType::Symlink {
            return Ok(None);
        }
        let target = chain.index.target(&record).map_err(|_| damaged())?;
        Ok(Some(OsString::from_vec(target.to_vec())))
    }

    /// True if an index says that a node has no extended attribute at all.
    pub(crate) fn has_no_xattrs(&self, node: &Node) -> Result<bool> {
        Ok(self.record(node)?.is_some_and(|(_, record)| !record.xattrs))
    }
}

/// True for names that are either listed or absent. Of others only the file system itself can tell: it may not know them,
/// or make their values up.
pub(crate) fn is_listed_family(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    bytes.starts_with(b"user.")
        || bytes.starts_with(b"trusted.")
        || bytes == b"security.capability"
        || is_acl(name)
}
