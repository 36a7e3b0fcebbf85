//! Names: one small file each, so that giving one is one rename.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ImageId};
use crate::error::{At, Error};
use crate::reference::Reference;
use crate::store::Store;

/// `sha256:x` is the beginning of an id, never a name.
const DIGEST_ALGORITHM: &str = "sha256";

/// What a name's file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The complete name.
    name: String,
    /// The image it names.
    image: String,
    /// When it was given, RFC 3339.
    tagged: String,
}

/// One name.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) reference: Reference,
    pub(crate) image: ImageId,
    pub(crate) tagged: Option<jiff::Timestamp>,
}

impl Store {
    /// Gives an image a name (`:latest` if it has no tag) and returns the image that had it, if it was another one.
    /// Holds the shared lock.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`]; [`Error::RefusedName`] for a repository `sha256`, which would read like a digest; the
    /// file cannot be written.
    pub fn tag(&self, image: &ImageId, name: &Reference) -> Result<Option<ImageId>, Error> {
        let _lock = self.lock_shared()?;
        if !self.image_home(image).exists() {
            return Err(Error::NoSuchImage(*image));
        }
        check_name(name)?;
        let name = name.clone().or_latest();
        let before = self.before(&name)?;
        let record = Record {
            name: name.to_string(),
            image: image.to_string(),
            tagged: jiff::Timestamp::now().to_string(),
        };
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        self.write_whole(&self.name_file(&name), &bytes)?;
        Ok(before.filter(|before| before != image))
    }

    /// Takes a name away and returns the image that had it. Holds the shared lock.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn untag(&self, name: &Reference) -> Result<Option<ImageId>, Error> {
        let _lock = self.lock_shared()?;
        let name = name.clone().or_latest();
        let before = self.before(&name)?;
        let path = self.name_file(&name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            _ => Ok(before),
        }
    }

    /// Returns the image of a complete name.
    pub(crate) fn named(&self, name: &Reference) -> Result<Option<ImageId>, Error> {
        let path = self.name_file(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(parse(path, &bytes)?.image)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// As [`Store::named`], for who replaces the record: a damaged one says nothing.
    fn before(&self, name: &Reference) -> Result<Option<ImageId>, Error> {
        match self.named(name) {
            Err(Error::Damaged { .. }) => Ok(None),
            other => other,
        }
    }

    /// Returns all names, in order: tags, then digests.
    pub(crate) fn all_names(&self) -> Result<Vec<Name>, Error> {
        self.names_and_damage().map(|(names, _)| names)
    }

    /// Returns the names of one image.
    pub(crate) fn names_of(&self, image: &ImageId) -> Result<Vec<Reference>, Error> {
        let names = self.all_names()?.into_iter();
        Ok(names
            .filter(|name| name.image == *image)
            .map(|name| name.reference)
            .collect())
    }

    /// Returns all names, and what is wrong with the records of others: one damaged name must not hide the rest.
    pub(crate) fn names_and_damage(&self) -> Result<(Vec<Name>, Vec<Error>), Error> {
        let directory = self.names_dir();
        let (mut names, mut damage) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&directory).at("read directory", &directory)? {
            let path = entry.at("read directory", &directory)?.path();
            match fs::read(&path) {
                Ok(bytes) => match parse(path, &bytes) {
                    Ok(name) => names.push(name),
                    Err(error) => damage.push(error),
                },
                // Untagged between the listing and now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("read", &path),
            }
        }
        names.sort_by_key(|name| {
            (
                name.reference.digest().is_some(),
                name.reference.to_string(),
            )
        });
        Ok((names, damage))
    }

    fn name_file(&self, name: &Reference) -> PathBuf {
        self.names_dir().join(format!(
            "{}.json",
            Digest::of(name.to_string().as_bytes()).hex()
        ))
    }
}

/// Refuses names that would read like something else.
pub(crate) fn check_name(name: &Reference) -> Result<(), Error> {
    if name.familiar_name() == DIGEST_ALGORITHM {
        return Err(Error::RefusedName(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    Ok(())
}

fn parse(path: PathBuf, bytes: &[u8]) -> Result<Name, Error> {
    let damaged = |reason: String| Error::Damaged {
        path: path.clone(),
        reason,
    };
    let record: Record =
        serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    Ok(Name {
        reference: Reference::parse(&record.name).map_err(|error| damaged(error.to_string()))?,
        image: record
            .image
            .parse()
            .map_err(|_| damaged(format!("{:?} is no image id", record.image)))?,
        tagged: record.tagged.parse().ok(),
    })
}
