//! A store in a directory of the test's own, and small tars to put into it.

use std::path::Path;

use mille_store::{Error, MarkSpace, Ownership, Store, StoreOptions};

/// Opens the store, with the marks that this user can set.
pub(crate) fn store(directory: &Path) -> Store {
    try_store(directory).unwrap()
}

/// As [`store`], where that may fail.
pub(crate) fn try_store(directory: &Path) -> Result<Store, Error> {
    let space = if nix::unistd::geteuid().is_root() {
        MarkSpace::Trusted
    } else {
        MarkSpace::User
    };
    let options = StoreOptions {
        space,
        ownership: Ownership::Real,
    };
    Store::open(directory, options)
}

/// A tar of regular files that belong to this user.
pub(crate) fn tar_of(files: &[(&str, impl AsRef<[u8]>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let content = content.as_ref();
        let mut header = tar::Header::new_ustar();
        header.set_path(path).unwrap();
        header.set_mode(0o644);
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}
