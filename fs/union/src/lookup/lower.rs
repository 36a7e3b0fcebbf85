//! The lower layers' part of a lookup.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mille_layer::resolve::{Finding, Follow, Lookup, Next, Place, Resolution};
use mille_layer::{DirMarks, Opaque, Probe, dir_marks, file_marks, probe};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::{has_no_marks, refused_mark};
use crate::chain::Met;
use crate::error::{Context, Error, Result};
use crate::node::{DirPlace, LowerDir, LowerFile, Stack, join};
use crate::sys::open;
use crate::view::View;

/// What the lowers have under one name, and `stat` of the topmost object.
pub(super) type LowerFound = (Stack, Stat);

/// An object met on the way through the lowers.
enum Seen {
    Dir(LowerDir, Stat),
    File(LowerFile, Stat),
}

impl Seen {
    fn is_at(&self, place: &Place, view: &View) -> bool {
        match self {
            Self::Dir(dir, _) => {
                view.tier(dir.layer()) == place.layer && *dir.path() == *place.path
            }
            Self::File(file, _) => {
                view.tier(file.layer()) == place.layer && file.path() == place.path
            }
        }
    }
}

/// Where the lowers are searched.
pub(super) enum Course {
    /// Under this name in the lower parts of the parent.
    Under(Vec<u8>),
    /// Under these names from the layers' roots.
    Path(Vec<Vec<u8>>),
}

impl Course {
    /// The path from the lowers' roots that leads to the same.
    fn known_as(&self, parent: &Stack) -> Vec<u8> {
        match self {
            Self::Under(name) => join(
                parent.known_as().unwrap_or_default(),
                OsStr::from_bytes(name),
            ),
            Self::Path(components) => components.join(&b'/'),
        }
    }
}

/// What is searched for below an upper object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Whatever shows.
    Any,
    /// Directories that merge with one above.
    Dirs,
    /// The regular file with the data of one above that has only metadata.
    Data,
}

impl View {
    fn follow(&self) -> Follow {
        Follow {
            redirect: self.features.redirect_dir,
            metacopy: self.features.metacopy,
        }
    }

    /// Leads a lookup through the lowers.
    pub(super) fn find_lower(
        &self,
        parent: &Stack,
        course: Course,
        want: Want,
    ) -> Result<Option<LowerFound>> {
        let all: Vec<&LowerDir> = parent.dirs().iter().collect();
        let known_as = course.known_as(parent);
        if let Course::Under(name) = &course
            && let Some(parts) = self.parts_with(parent, OsStr::from_bytes(name))?
        {
            let parts: Vec<&LowerDir> = parts.into_iter().map(|part| all[part]).collect();
            let (found, redirected) = self.search(&parts, &course, want, &known_as)?;
            // Below a redirect another name counts.
            if !redirected {
                return found;
            }
        }
        self.search(&all, &course, want, &known_as)?.0
    }

    /// Leads a lookup through some parts of a directory; also says whether it met a redirect.
    fn search(
        &self,
        parents: &[&LowerDir],
        course: &Course,
        want: Want,
        known_as: &[u8],
    ) -> Result<(Result<Option<LowerFound>>, bool)> {
        let places: Vec<Place>;
        let mut lookup = match course {
            Course::Under(name) => {
                places = parents
                    .iter()
                    .map(|dir| Place {
                        layer: self.tier(dir.layer()),
                        path: dir.path().to_vec(),
                    })
                    .collect();
                Lookup::new(&places, name, self.tiers(), self.follow())
            }
            Course::Path(path) => Lookup::from_root(path.clone(), 0, self.tiers(), self.follow()),
        }
        .with_data_layers(self.lowers.len() - self.merged, want == Want::Data);
        let mut seen = Vec::new();
        let mut redirected = false;
        // Of the last directory passed on an absolute path.
        let mut passed = Opaque::No;
        while let Some(next) = lookup.next() {
            let (dir, opaque, name) = match next {
                Next::Child { place, name } => {
                    let base = parents[place];
                    (base.place.clone(), base.opaque, name.to_vec())
                }
                Next::Path { layer, components } => {
                    let (name, way) = components.split_last().ok_or(no_name())?;
                    if way.is_empty() {
                        passed = self.root_opaque(layer);
                    }
                    (self.place_at(layer, way)?, passed, name.clone())
                }
            };
            let finding = self.look(&dir, opaque, OsStr::from_bytes(&name), &mut seen)?;
            if let Some(Seen::Dir(found, _)) = seen.last() {
                passed = found.opaque;
            }
            redirected |= matches!(
                &finding,
                Finding::Dir {
                    redirect: Some(_),
                    ..
                } | Finding::File {
                    redirect: Some(_),
                    ..
                }
            );
            lookup.found(finding);
        }
        let found = self.assemble(lookup.finish(), seen, want, known_as);
        Ok((found, redirected))
    }

    /// How many layers a lookup goes through: those with an index count as one, the last.
    fn tiers(&self) -> usize {
        match &self.chain {
            Some(chain) => usize::from(chain.first) + 1,
            None => self.merged,
        }
    }

    /// The place of a layer among them.
    fn tier(&self, layer: u16) -> usize {
        let first = self.chain.as_ref().map_or(layer, |chain| chain.first);
        usize::from(layer.min(first))
    }

    /// The directory at a path that has been found to lead to one.
    fn place_at(&self, tier: usize, way: &[Vec<u8>]) -> Result<Arc<DirPlace>> {
        let layer = u16::try_from(tier).unwrap_or(u16::MAX);
        match &self.chain {
            Some(chain) if chain.first == layer => chain.directory_at(way)?.ok_or(no_name()),
            _ => Ok(DirPlace::new(layer, way.join(&b'/'))),
        }
    }

    /// Looks at one name in one directory of one lower.
    fn look(
        &self,
        dir: &Arc<DirPlace>,
        opaque: Opaque,
        name: &OsStr,
        seen: &mut Vec<Seen>,
    ) -> Result<Finding> {
        if let (Some(chain), Some(number)) = (&self.chain, dir.number()) {
            return Ok(met(chain.look(dir, number, name)?, seen));
        }
        let lower = &self.lowers[usize::from(dir.layer)];
        let Some(handle) = self.lower_dir(dir)? else {
            return Ok(Finding::Absent);
        };
        let stat =
            match probe(handle.as_fd(), name, opaque, &lower.dialects).op("look up in lower")? {
                Probe::Absent => return Ok(Finding::Absent),
                Probe::Whiteout => return Ok(Finding::Whiteout),
                Probe::Object(stat) => stat,
            };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let place = DirPlace::new(dir.layer, join(&dir.path, name));
            return self.look_at_dir(place, stat, seen);
        }
        let id = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
        let file = LowerFile::new(dir.clone(), name, id);
        let finding = self.file_finding(handle.as_fd(), name, &stat, lower.plain)?;
        seen.push(Seen::File(file, stat));
        Ok(finding)
    }

    fn look_at_dir(
        &self,
        place: Arc<DirPlace>,
        stat: Stat,
        seen: &mut Vec<Seen>,
    ) -> Result<Finding> {
        let dialects = &self.lowers[usize::from(place.layer)].dialects;
        let marks = match self.lower_dir(&place)? {
            Some(handle) => dir_marks(handle.as_fd(), dialects).op("read marks")?,
            // Covered by another mount: an empty directory.
            None => DirMarks::default(),
        };
        let DirMarks {
            opaque,
            redirect,
            implied,
        } = marks;
        if redirect.is_some() {
            self.redirects_met.store(true, Ordering::Relaxed);
        }
        let (dev, ino) = (stat.st_dev, stat.st_ino);
        seen.push(Seen::Dir(
            LowerDir {
                place,
                opaque,
                implied,
                dev,
                ino,
            },
            stat,
        ));
        Ok(Finding::Dir {
            opaque: opaque == Opaque::Yes,
            redirect,
            implied,
        })
    }

    fn file_finding(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        plain: bool,
    ) -> Result<Finding> {
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Finding::Other);
        }
        if plain || has_no_marks(dir, name) {
            return Ok(Finding::File {
                metacopy: false,
                redirect: None,
            });
        }
        let object = self
            .retry_short_of_fds(|| open::handle(dir, name))
            .op("open in lower")?;
        let marks = file_marks(object.as_fd(), self.space).op("read marks")?;
        let redirect = marks.redirect.filter(|_| marks.metacopy);
        Ok(Finding::File {
            metacopy: marks.metacopy,
            redirect,
        })
    }

    /// Turns the answer of a lookup into what a node is made of.
    fn assemble(
        &self,
        resolution: Resolution,
        mut seen: Vec<Seen>,
        want: Want,
        known_as: &[u8],
    ) -> Result<Option<LowerFound>> {
        let mut take = |place: &Place| {
            let index = seen.iter().position(|seen| seen.is_at(place, self));
            index.map(|index| seen.swap_remove(index)).ok_or(no_name())
        };
        match resolution {
            Resolution::Absent => Ok(None),
            Resolution::Refused { .. } => Err(refused_mark("redirect_dir or metacopy")),
            Resolution::Dir { places, .. } => {
                if want == Want::Data {
                    return Ok(None);
                }
                let mut dirs = Vec::with_capacity(places.len());
                let mut top = None;
                for place in &places {
                    if let Seen::Dir(dir, stat) = take(place)? {
                        dirs.push(dir);
                        top.get_or_insert(stat);
                    }
                }
                Ok(top.map(|stat| (Stack::of_dir(dirs, known_as), stat)))
            }
            Resolution::Object { place, data } => {
                if want == Want::Dirs {
                    return Ok(None);
                }
                let Seen::File(mut file, stat) = take(&place)? else {
                    return Err(no_name());
                };
                let data = data.ok_or(Error::refused("find data of file", Errno::IO))?;
                if data != place {
                    let Seen::File(owner, owner_stat) = take(&data)? else {
                        return Err(no_name());
                    };
                    require_regular(&owner_stat)?;
                    file.set_data(owner);
                } else if want == Want::Data {
                    require_regular(&stat)?;
                }
                Ok(Some((Stack::File(file), stat)))
            }
        }
    }
}

/// What an index has under a name, as a lookup is told of it.
fn met(found: Option<Met>, seen: &mut Vec<Seen>) -> Finding {
    match found {
        None => Finding::Absent,
        Some(Met::Dir(dir, stat)) => {
            let implied = dir.implied;
            seen.push(Seen::Dir(dir, stat));
            Finding::Dir {
                opaque: false,
                redirect: None,
                implied,
            }
        }
        Some(Met::File(file, stat)) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            seen.push(Seen::File(file, stat));
            if kind == FileType::RegularFile {
                Finding::File {
                    metacopy: false,
                    redirect: None,
                }
            } else {
                Finding::Other
            }
        }
    }
}

fn require_regular(stat: &Stat) -> Result<()> {
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        Ok(())
    } else {
        Err(Error::refused("find data of file", Errno::IO))
    }
}

/// A lookup that contradicts itself; the layer changed meanwhile.
fn no_name() -> Error {
    Error::refused("lookup", Errno::IO)
}
