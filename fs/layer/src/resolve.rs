//! The pure rules by which a stack of layers resolves one name of a merged directory. No I/O.
//!
//! A merged directory is a list of *places* (layer and path in that layer), top first. [`Lookup`] says where to look
//! next, its caller looks there and tells what it found, until [`Lookup::next`] returns `None`; [`Lookup::finish`]
//! then gives the answer. The rules are the kernel's (`Documentation/filesystems/overlayfs.rst`, `fs/overlayfs/namei.c`
//! as described there):
//!
//! 1. The topmost layer that has the name decides what it is. What is not a directory hides everything below.
//! 2. A whiteout hides everything below; it is not an object itself.
//! 3. Directories merge downwards until one is opaque or something else stands in the way.
//! 4. A redirect says under which name (same parent) or path (from the layers' root) the layers *below* know the object.
//!    An opaque directory's redirect is not followed.
//! 5. A metacopy file takes its data from the next regular file below that is not one.
//!    Below the merged layers there may be *data-only* ones: they are searched for such data alone, along an absolute
//!    redirect.
//! 6. A merged directory has its attributes from its topmost place that is not *implied*.

/// One directory or object in one layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index in the stack, 0 is the top.
    pub layer: usize,
    /// Path from the layer's root: no leading slash, no empty component, empty for the root itself.
    pub path: Vec<u8>,
}

/// Where the layers below know an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redirect {
    /// Under this name, in the same parent.
    Sibling(Vec<u8>),
    /// Under these names from the root of the layers; never empty.
    Absolute(Vec<Vec<u8>>),
}

/// What the caller found where [`Lookup::next`] sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Nothing there.
    Absent,
    /// A whiteout.
    Whiteout,
    /// A directory.
    Dir {
        /// It hides what is below.
        opaque: bool,
        /// Its redirect, if any.
        redirect: Option<Redirect>,
        /// It was made by extraction, not by its tar.
        implied: bool,
    },
    /// A regular file.
    File {
        /// Its data is below.
        metacopy: bool,
        /// Its redirect; read only for metacopy files.
        redirect: Option<Redirect>,
    },
    /// Any other object.
    Other,
}

/// Which marks may be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follow {
    /// Redirects; otherwise meeting one refuses the lookup.
    pub redirect: bool,
    /// Metacopy files; otherwise meeting one refuses the lookup.
    pub metacopy: bool,
}

impl Follow {
    /// Everything is followed.
    pub const ALL: Follow = Follow {
        redirect: true,
        metacopy: true,
    };
}

/// Where to look next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// Under `name` in the parent's place number `place`.
    Child {
        /// Index into the places given to [`Lookup::new`].
        place: usize,
        /// One component.
        name: &'a [u8],
    },
    /// At the path of `components` from the root of `layer`. The last component is to be looked at; the ones before it
    /// have been found to be directories.
    Path {
        /// The layer.
        layer: usize,
        /// At least one component.
        components: &'a [Vec<u8>],
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// No such name, or deleted.
    Absent,
    /// A directory merged of these places.
    Dir {
        /// Top first, at least one.
        places: Vec<Place>,
        /// Index in `places` of the one that gives owner, mode, times and xattrs.
        attributes: usize,
    },
    /// Any other object.
    Object {
        /// Where it is.
        place: Place,
        /// Where its data is: the same place unless it is a metacopy file; `None` for a metacopy file whose data is
        /// missing (EIO to a reader).
        data: Option<Place>,
    },
    /// A redirect or metacopy mark stands in the way that may not be followed (EPERM).
    Refused {
        /// The object that carries the mark.
        place: Place,
    },
}

impl Place {
    /// The root of a layer.
    #[must_use]
    pub fn root(layer: usize) -> Place {
        Place {
            layer,
            path: Vec::new(),
        }
    }

    /// The place of `name` in this directory.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> Place {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Place {
            layer: self.layer,
            path,
        }
    }
}

impl Redirect {
    /// Reads a redirect's xattr value; `None` when it is not legal: empty, with an empty, `.` or `..` component, with a
    /// NUL, or relative with more than one component.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Redirect> {
        let legal =
            |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        match value.strip_prefix(b"/") {
            Some(path) => {
                let parts: Vec<Vec<u8>> = path
                    .split(|&byte| byte == b'/')
                    .map(<[u8]>::to_vec)
                    .collect();
                parts
                    .iter()
                    .all(|part| legal(part))
                    .then_some(Redirect::Absolute(parts))
            }
            None if legal(value) && !value.contains(&b'/') => {
                Some(Redirect::Sibling(value.to_vec()))
            }
            None => None,
        }
    }

    /// Returns the xattr value.
    #[must_use]
    pub fn to_value(&self) -> Vec<u8> {
        match self {
            Redirect::Sibling(name) => name.clone(),
            Redirect::Absolute(parts) => {
                let mut value = Vec::new();
                for part in parts {
                    value.push(b'/');
                    value.extend_from_slice(part);
                }
                value
            }
        }
    }
}

/// How the current layer is searched.
#[derive(Debug)]
enum Course {
    /// In the parent's places, from this index on, under this name.
    Places { index: usize, name: Vec<u8> },
    /// From the root of a layer. Once a redirect is absolute, the lookup stays so in all layers below.
    Root(Path),
    /// Finished.
    Done,
}

/// A walk along an absolute path in one layer.
#[derive(Debug)]
struct Path {
    layer: usize,
    components: Vec<Vec<u8>>,
    /// The component being looked at.
    at: usize,
    /// What the layers below call `components[..at]`: the same, unless directories on the way are redirected.
    below: Vec<Vec<u8>>,
    /// An opaque directory on the way ends the search below this layer.
    last_layer: bool,
}

/// One lookup in progress.
#[derive(Debug)]
pub struct Lookup<'a> {
    parent: &'a [Place],
    layers: usize,
    /// Layers below the merged ones that hold nothing but data.
    data_layers: usize,
    /// What is looked up is the data of a file known already.
    seeks_data: bool,
    follow: Follow,
    course: Course,
    found: Vec<Place>,
    /// Index of the first place in `found` that is not implied.
    attributes: Option<usize>,
    is_dir: bool,
    /// The first place is a metacopy file that still needs its data.
    wants_data: bool,
    data: Option<Place>,
    refused: Option<Place>,
}

impl<'a> Lookup<'a> {
    /// Starts to look up `name` (one component) in the merged directory of `parent` (top first, layers ascending) in a
    /// stack of `layers` layers.
    #[must_use]
    pub fn new(parent: &'a [Place], name: &[u8], layers: usize, follow: Follow) -> Lookup<'a> {
        let course = if parent.is_empty() {
            Course::Done
        } else {
            Course::Places {
                index: 0,
                name: name.to_vec(),
            }
        };
        Lookup {
            parent,
            layers,
            data_layers: 0,
            seeks_data: false,
            follow,
            course,
            found: Vec::new(),
            attributes: None,
            is_dir: false,
            wants_data: false,
            data: None,
            refused: None,
        }
    }

    /// Starts to look up the path of `components` (none: the root itself) from the roots of the layers from `layer` on.
    #[must_use]
    pub fn from_root(
        components: Vec<Vec<u8>>,
        layer: usize,
        layers: usize,
        follow: Follow,
    ) -> Lookup<'static> {
        let mut lookup = Lookup::new(&[], b"", layers, follow);
        if components.is_empty() {
            lookup.found = (layer..layers).map(Place::root).collect();
            lookup.is_dir = !lookup.found.is_empty();
        } else if layer < layers {
            lookup.course = Course::Root(Path::new(layer, components));
        }
        lookup
    }

    /// The same with data-only layers below the merged ones. `seeks_data`: what is looked up is the data of a metacopy
    /// file that has been found already.
    #[must_use]
    pub fn with_data_layers(mut self, data_layers: usize, seeks_data: bool) -> Lookup<'a> {
        self.data_layers = data_layers;
        self.seeks_data = seeks_data;
        self
    }

    /// Returns where to look next; `None` when the answer is known. Does not advance by itself.
    #[must_use]
    pub fn next(&self) -> Option<Next<'_>> {
        match &self.course {
            Course::Places { index, name } => Some(Next::Child {
                place: *index,
                name,
            }),
            Course::Root(path) => {
                let components = path.components.get(..=path.at)?;
                Some(Next::Path {
                    layer: path.layer,
                    components,
                })
            }
            Course::Done => None,
        }
    }

    /// Tells what was found where [`Lookup::next`] points, and advances.
    pub fn found(&mut self, finding: Finding) {
        match &self.course {
            Course::Root(path) if path.at + 1 < path.components.len() => {
                self.found_on_the_way(finding);
            }
            Course::Done => {}
            _ => self.found_last(finding),
        }
    }

    /// Returns the answer; to be called when [`Lookup::next`] is `None`.
    #[must_use]
    pub fn finish(self) -> Resolution {
        if let Some(place) = self.refused {
            return Resolution::Refused { place };
        }
        if self.is_dir {
            // All implied: there is nothing better than the topmost.
            let attributes = self.attributes.unwrap_or(0);
            return Resolution::Dir {
                places: self.found,
                attributes,
            };
        }
        match self.found.into_iter().next() {
            Some(place) => Resolution::Object {
                place,
                data: self.data,
            },
            None => Resolution::Absent,
        }
    }

    /// An intermediate component of an absolute path.
    fn found_on_the_way(&mut self, finding: Finding) {
        let Finding::Dir {
            opaque, redirect, ..
        } = finding
        else {
            if finding == Finding::Absent {
                self.descend();
            } else {
                self.course = Course::Done;
            }
            return;
        };
        // An opaque directory's redirect means nothing.
        let redirect = redirect.filter(|_| !opaque);
        if redirect.is_some() && self.refuses_redirect() {
            return;
        }
        if let Course::Root(path) = &mut self.course {
            path.last_layer |= opaque;
            path.pass(redirect);
        }
    }

    /// The name itself in one layer.
    fn found_last(&mut self, finding: Finding) {
        let occupied = self.is_dir || self.wants_data;
        match finding {
            Finding::Absent => self.descend(),
            Finding::Whiteout => self.course = Course::Done,
            Finding::Other if !occupied => {
                let place = self.place();
                self.data = Some(place.clone());
                self.found.push(place);
                self.course = Course::Done;
            }
            Finding::File { metacopy, redirect } if !self.is_dir => {
                self.found_file(metacopy, redirect);
            }
            Finding::Dir {
                opaque,
                redirect,
                implied,
            } if !self.wants_data => {
                if !implied && self.attributes.is_none() {
                    self.attributes = Some(self.found.len());
                }
                self.found.push(self.place());
                self.is_dir = true;
                if opaque {
                    self.course = Course::Done;
                } else {
                    self.go_below(redirect);
                }
            }
            // Something else than what has been found above: it is hidden, and so is all below it.
            Finding::Other | Finding::File { .. } | Finding::Dir { .. } => {
                self.course = Course::Done;
            }
        }
    }

    fn found_file(&mut self, metacopy: bool, redirect: Option<Redirect>) {
        let place = self.place();
        if self.found.is_empty() {
            self.found.push(place.clone());
        }
        if !metacopy {
            self.data = Some(place);
            self.course = Course::Done;
        } else if self.follow.metacopy {
            self.wants_data = true;
            self.go_below(redirect);
        } else {
            self.refused = Some(place);
            self.course = Course::Done;
        }
    }

    /// Goes on below the object just found, along its redirect if there is one.
    fn go_below(&mut self, redirect: Option<Redirect>) {
        if redirect.is_some() && self.refuses_redirect() {
            return;
        }
        let layer = self.place().layer;
        match (&mut self.course, redirect) {
            (Course::Places { .. }, Some(Redirect::Absolute(components))) => {
                self.course = Course::Root(Path::new(layer, components));
            }
            (Course::Places { name, .. }, Some(Redirect::Sibling(sibling))) => *name = sibling,
            (Course::Root(path), redirect) => path.pass(redirect),
            (Course::Places { .. } | Course::Done, _) => {}
        }
        self.descend();
    }

    /// Refuses the lookup if redirects may not be followed and this one would matter.
    fn refuses_redirect(&mut self) -> bool {
        let place = self.place();
        if self.follow.redirect || place.layer + 1 >= self.end() {
            return false;
        }
        self.refused = Some(place);
        self.course = Course::Done;
        true
    }

    /// The layer at which an absolute path ends.
    fn end(&self) -> usize {
        if self.wants_data || self.seeks_data {
            self.layers + self.data_layers
        } else {
            self.layers
        }
    }

    /// Moves to the next layer.
    fn descend(&mut self) {
        let end = self.end();
        let ended = match &mut self.course {
            Course::Places { index, .. } => {
                *index += 1;
                *index >= self.parent.len()
            }
            Course::Root(path) => {
                path.descend();
                path.last_layer || path.layer >= end
            }
            Course::Done => true,
        };
        if ended {
            self.course = Course::Done;
        }
    }

    /// The place that is being looked at.
    fn place(&self) -> Place {
        match &self.course {
            Course::Places { index, name } => match self.parent.get(*index) {
                Some(parent) => parent.child(name),
                None => Place::root(self.layers),
            },
            Course::Root(path) => Place {
                layer: path.layer,
                path: path
                    .components
                    .get(..=path.at)
                    .unwrap_or_default()
                    .join(&b'/'),
            },
            Course::Done => Place::root(self.layers),
        }
    }
}

impl Path {
    fn new(layer: usize, components: Vec<Vec<u8>>) -> Path {
        Path {
            layer,
            components,
            at: 0,
            below: Vec::new(),
            last_layer: false,
        }
    }

    /// The current component is a directory or the metacopy file looked for: notes what the layers below call it.
    fn pass(&mut self, redirect: Option<Redirect>) {
        match redirect {
            None => self.below.extend(self.components.get(self.at).cloned()),
            Some(Redirect::Sibling(name)) => self.below.push(name),
            Some(Redirect::Absolute(components)) => {
                // Reaches past opaque directories on the way to where it was found.
                self.last_layer = false;
                self.below = components;
            }
        }
        self.at += 1;
    }

    /// Starts anew in the next layer, where what has been passed may have other names.
    fn descend(&mut self) {
        let rest = self.components.get(self.at..).unwrap_or_default();
        let mut components = std::mem::take(&mut self.below);
        components.extend_from_slice(rest);
        self.components = components;
        self.at = 0;
        self.layer += 1;
    }
}

#[cfg(test)]
mod tests;
