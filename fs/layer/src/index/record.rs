//! One entry of a merged index.

use super::Damaged;

/// Bytes of an entry.
pub(super) const ENTRY: usize = 112;

/// Flags of an entry.
const IMPLIED: u16 = 1;
const XATTRS: u16 = 2;
const DIRECTORY: u16 = 4;

/// A directory of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DirNumber(pub u32);

impl DirNumber {
    /// The root.
    pub const ROOT: DirNumber = DirNumber(0);
}

/// Seconds and nanoseconds as `stat` has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970.
    pub sec: i64,
    /// Nanoseconds after them.
    pub nsec: u32,
}

/// Where in an index's text something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Text {
    pub(super) offset: u32,
    pub(super) length: u16,
}

/// What an index knows of one object of the merged tree. Attributes are as `stat` of the layer gives them, overrides
/// applied; of a merged directory those of the layer that lends them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Record {
    /// The layer of the chain, 0 the topmost, that has the object; of a directory the topmost one.
    pub layer: u16,
    /// Of a directory: the layer that gives the attributes.
    pub attributes_layer: u16,
    /// Of a directory: how many layers have a part of it.
    pub parts: u16,
    /// Of a directory: extraction made all its parts, none is from a tar.
    pub implied: bool,
    /// It may have extended attributes that are shown.
    pub xattrs: bool,
    /// Of a directory: its number.
    pub directory: Option<DirNumber>,
    /// Kind and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names in the layer.
    pub nlink: u32,
    /// Preferred block size.
    pub blksize: u32,
    /// Inode number in the layer named by `layer`.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Allocated 512-byte blocks.
    pub blocks: u64,
    /// Device number of a device.
    pub rdev: u64,
    /// Last access.
    pub atime: Moment,
    /// Last change of the content.
    pub mtime: Moment,
    /// Last change of the attributes.
    pub ctime: Moment,
    /// Of a symbolic link: where its target is. The writer's to set.
    pub target: Text,
}

impl Default for DirNumber {
    fn default() -> Self {
        Self::ROOT
    }
}

/// Takes numbers one after the other.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, Damaged> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Damaged> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damaged> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<Text, Damaged> {
        Ok(Text {
            offset: self.u32()?,
            length: self.u16()?,
        })
    }

    fn moment(&mut self) -> Result<Moment, Damaged> {
        Ok(Moment {
            sec: self.take().map(i64::from_le_bytes)?,
            nsec: self.u32()?,
        })
    }
}

/// The bytes of an entry.
#[derive(Clone, Copy)]
pub(super) struct Slot<'a> {
    bytes: &'a [u8],
    name: Text,
}

impl<'a> Slot<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Damaged> {
        let mut reader = Reader(bytes);
        let name = reader.text()?;
        Ok(Slot { bytes, name })
    }

    /// Where in the text the name is.
    pub(super) fn name(self) -> Text {
        self.name
    }

    pub(super) fn record(self) -> Result<Record, Damaged> {
        let mut from = Reader(self.bytes);
        let _name = from.text()?;
        let length = from.u16()?;
        let reference = from.u32()?;
        let (layer, attributes_layer) = (from.u16()?, from.u16()?);
        let (parts, flags) = (from.u16()?, from.u16()?);
        let is_dir = flags & DIRECTORY != 0;
        Ok(Record {
            layer,
            attributes_layer,
            parts,
            implied: flags & IMPLIED != 0,
            xattrs: flags & XATTRS != 0,
            directory: is_dir.then_some(DirNumber(reference)),
            mode: from.u32()?,
            uid: from.u32()?,
            gid: from.u32()?,
            nlink: from.u32()?,
            blksize: from.u32()?,
            ino: from.u64()?,
            size: from.u64()?,
            blocks: from.u64()?,
            rdev: from.u64()?,
            atime: from.moment()?,
            mtime: from.moment()?,
            ctime: from.moment()?,
            target: if is_dir {
                Text::default()
            } else {
                Text {
                    offset: reference,
                    length,
                }
            },
        })
    }
}

/// The bytes of an entry, as [`Slot`] reads them.
pub(super) fn encode(name: Text, record: &Record) -> [u8; ENTRY] {
    let reference = record
        .directory
        .map_or(record.target.offset, |number| number.0);
    let flags = [
        (record.implied, IMPLIED),
        (record.xattrs, XATTRS),
        (record.directory.is_some(), DIRECTORY),
    ];
    let flags = flags.iter().filter(|(set, _)| *set);
    let flags = flags.fold(0, |all, (_, flag)| all | flag);
    let mut bytes = Vec::with_capacity(ENTRY);
    let mut put = |part: &[u8]| bytes.extend_from_slice(part);
    put(&name.offset.to_le_bytes());
    put(&name.length.to_le_bytes());
    put(&record.target.length.to_le_bytes());
    put(&reference.to_le_bytes());
    for number in [record.layer, record.attributes_layer, record.parts, flags] {
        put(&number.to_le_bytes());
    }
    for number in [
        record.mode,
        record.uid,
        record.gid,
        record.nlink,
        record.blksize,
    ] {
        put(&number.to_le_bytes());
    }
    for number in [record.ino, record.size, record.blocks, record.rdev] {
        put(&number.to_le_bytes());
    }
    for moment in [record.atime, record.mtime, record.ctime] {
        put(&moment.sec.to_le_bytes());
        put(&moment.nsec.to_le_bytes());
    }
    let mut entry = [0; ENTRY];
    for (to, from) in entry.iter_mut().zip(bytes) {
        *to = from;
    }
    entry
}
