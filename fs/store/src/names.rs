//! Names: one small file each, so that giving one is one rename.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ImageId};
use crate::error::{At, Error};
use crate::reference::Reference;
use crate::staging;
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
        if name.familiar_name() == DIGEST_ALGORITHM {
            return Err(Error::RefusedName(
                "refusing to create an ambiguous tag using digest algorithm as name",
            ));
        }
        let name = name.clone().or_latest();
        let before = self.named(&name)?;
        let record = Record {
            name: name.to_string(),
            image: image.to_string(),
            tagged: jiff::Timestamp::now().to_string(),
        };
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        staging::write_whole(&self.name_file(&name), &bytes)?;
        Ok(before.filter(|before| before != image))
    }

    /// Takes a name away and returns the image that had it. Holds the shared lock.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn untag(&self, name: &Reference) -> Result<Option<ImageId>, Error> {
        let _lock = self.lock_shared()?;
        let name = name.clone().or_latest();
        let before = self.named(&name)?;
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

    /// Returns all names, in order.
    pub(crate) fn all_names(&self) -> Result<Vec<Name>, Error> {
        let directory = self.names_dir();
        let mut names = Vec::new();
        for entry in fs::read_dir(&directory).at("read directory", &directory)? {
            let path = entry.at("read directory", &directory)?.path();
            // Anything else is a file that a killed process was about to rename.
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                match fs::read(&path) {
                    Ok(bytes) => names.push(parse(path, &bytes)?),
                    // Untagged between the listing and now.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error).at("read", &path),
                }
            }
        }
        names.sort_by_key(|name| {
            (
                name.reference.digest().is_some(),
                name.reference.to_string(),
            )
        });
        Ok(names)
    }

    fn name_file(&self, name: &Reference) -> PathBuf {
        self.names_dir().join(format!(
            "{}.json",
            Digest::of(name.to_string().as_bytes()).hex()
        ))
    }
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
