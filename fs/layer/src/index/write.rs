//! Making a merged index.

use super::record::{ENTRY, Text, encode};
use super::{DIGEST, DIRECTORY, DirNumber, HEADER, MAGIC, Record, VERSION, digest};

/// The tree has more than the format can hold: four thousand million directories, entries or bytes of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tree is too large for a merged index")]
pub struct TooLarge;

/// One name of a directory that is being written.
#[derive(Debug, Clone)]
pub struct Item {
    /// The name.
    pub name: Vec<u8>,
    /// The object. Its number as a directory is the writer's to give: whether it has one says whether it is one.
    pub record: Record,
    /// Of a symbolic link: its target.
    pub target: Vec<u8>,
}

/// Writes an index, directory by directory.
#[derive(Debug)]
pub struct Writer {
    stamp: Vec<u8>,
    directories: Vec<[u32; 3]>,
    entries: Vec<u8>,
    text: Vec<u8>,
}

impl Writer {
    /// Begins with the root. The stamp says what the index is made of.
    #[must_use]
    pub fn new(stamp: Vec<u8>, root: &Record) -> Writer {
        let root = Record {
            directory: Some(DirNumber::ROOT),
            ..*root
        };
        Writer {
            stamp,
            directories: vec![[0, 0, 0]],
            entries: encode(Text::default(), &root).to_vec(),
            text: Vec::new(),
        }
    }

    /// Writes all names of a directory, once. Returns the numbers of the directories among them, in bytewise order of
    /// their names.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn directory(
        &mut self,
        number: DirNumber,
        mut items: Vec<Item>,
    ) -> Result<Vec<DirNumber>, TooLarge> {
        items.sort_by(|a, b| a.name.cmp(&b.name));
        let first = self.next_entry()?;
        let count = u32::try_from(items.len()).map_err(|_| TooLarge)?;
        let mut children = Vec::new();
        for item in items {
            let own = self.next_entry()?;
            let mut record = item.record;
            if record.directory.is_some() {
                let child = u32::try_from(self.directories.len()).map_err(|_| TooLarge)?;
                self.directories.push([0, 0, own]);
                record.directory = Some(DirNumber(child));
                children.push(DirNumber(child));
            } else {
                record.target = self.put(&item.target)?;
            }
            let name = self.put(&item.name)?;
            self.entries.extend_from_slice(&encode(name, &record));
        }
        let which = usize::try_from(number.0).map_err(|_| TooLarge)?;
        if let Some([old_first, old_count, _]) = self.directories.get_mut(which) {
            (*old_first, *old_count) = (first, count);
        }
        Ok(children)
    }

    /// Returns the finished file.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn finish(self) -> Result<Vec<u8>, TooLarge> {
        let directories = self.directories.len();
        let entries = self.entries.len() / ENTRY;
        let mut all = Vec::with_capacity(
            HEADER
                + self.stamp.len()
                + directories * DIRECTORY
                + self.entries.len()
                + self.text.len(),
        );
        all.extend_from_slice(MAGIC);
        all.extend_from_slice(&VERSION.to_le_bytes());
        for count in [self.stamp.len(), directories, entries] {
            let count = u32::try_from(count).map_err(|_| TooLarge)?;
            all.extend_from_slice(&count.to_le_bytes());
        }
        let text = u64::try_from(self.text.len()).map_err(|_| TooLarge)?;
        all.extend_from_slice(&text.to_le_bytes());
        all.extend_from_slice(&[0; 32]);
        all.extend_from_slice(&self.stamp);
        for number in self.directories.iter().flatten() {
            all.extend_from_slice(&number.to_le_bytes());
        }
        all.extend_from_slice(&self.entries);
        all.extend_from_slice(&self.text);
        let digest = digest(&all);
        if let Some(place) = all.get_mut(DIGEST) {
            place.copy_from_slice(&digest);
        }
        Ok(all)
    }

    fn next_entry(&self) -> Result<u32, TooLarge> {
        u32::try_from(self.entries.len() / ENTRY).map_err(|_| TooLarge)
    }

    fn put(&mut self, text: &[u8]) -> Result<Text, TooLarge> {
        let offset = u32::try_from(self.text.len()).map_err(|_| TooLarge)?;
        let length = u16::try_from(text.len()).map_err(|_| TooLarge)?;
        self.text.extend_from_slice(text);
        Ok(Text { offset, length })
    }
}
