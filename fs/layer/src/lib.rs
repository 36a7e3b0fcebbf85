//! One layer on disk, and its tar.
//!
//! Owns: the marks that make a directory an overlay layer (whiteouts, opaque directories, redirects, internal
//! extended attributes), the pure rules by which a stack of lowers resolves a name, the hostile-proof extractor, the
//! header stream that re-creates the very bytes of an extracted tar, and the deterministic tar writer.
//!
//! Never: knows an image, mounts anything, keeps state between calls, prints.
//!
//! Invariant: every access below a layer's root is relative to a held descriptor and follows no symbolic link, so
//! nothing that a layer contains can make this crate touch anything outside of it.

pub mod compare;
pub mod encode;
pub mod extract;
pub mod index;
pub mod marks;
mod overrides;
mod path;
mod pax;
pub mod replay;
pub mod resolve;
mod stream;
pub mod walk;
pub mod xattr;

pub use marks::{
    Dialects, DirMarks, FileMarks, Listed, ListedKind, Mark, MarkSpace, OVERRIDE_STAT, Opaque,
    Ownership, Probe, dir_marks, file_marks, is_internal_xattr, is_reserved_name,
    is_whiteout_device, list, list_names, opaque, probe, shown_xattr, stored_xattr,
};
pub use overrides::{OverrideKind, OverrideStat};
