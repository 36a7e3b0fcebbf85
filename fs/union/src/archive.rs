//! Views as tar archives.

use std::io::Write;

use mille_layer::encode::Encoder;
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::view::View;

/// Writes what `merged` has over `base` (the same lowers without the upper) as a layer's tar: whiteouts and opaque marks
/// in their archive form, redirected directories in full, metadata-only files with their data, hard-link groups with all
/// their names.
///
/// # Errors
/// A failed system call on a layer, or a failed write.
pub fn write_changes<W: Write>(merged: &View, base: &View, to: &mut Encoder<W>) -> Result<()> {
    let _ = (merged, base, to);
    Err(Error::refused("write changes", Errno::NOSYS))
}

/// Writes the whole merged tree as one tar.
///
/// # Errors
/// A failed system call on a layer, or a failed write.
pub fn write_tree<W: Write>(view: &View, to: &mut Encoder<W>) -> Result<()> {
    let _ = (view, to);
    Err(Error::refused("write tree", Errno::NOSYS))
}
