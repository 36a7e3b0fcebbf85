//! Which names are the overlay's own, and how another overlay's names pass through one.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::{AUFS_PREFIX, MarkSpace, OVERRIDE_STAT};

/// What is put after a family's prefix for an overlay that uses ours as a layer: its marks are not ours.
const ESCAPE: &[u8] = b"overlay.";

/// Whether the attribute `name` of a layer's object belongs to the overlay and not to the container:
/// `trusted.overlay.*`, `user.overlay.*` (with the dot: `user.overlayfoo` is the container's), also when escaped for an
/// overlay inside of it, `user.containers.override_stat`, and `user.fuseoverlayfs.*` of the program of that name.
#[must_use]
pub fn is_internal_xattr(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    split(bytes).is_some()
        || bytes == OVERRIDE_STAT.to_bytes()
        || bytes.starts_with(b"user.fuseoverlayfs.")
}

/// Whether a file of this name could not be told from a whiteout or its kin in an archive.
#[must_use]
pub fn is_reserved_name(name: &OsStr) -> bool {
    name.as_bytes().starts_with(AUFS_PREFIX)
}

/// Returns the name under which callers of a mount see the attribute `stored`; `None` if they do not see it. As with the
/// kernel, `trusted.overlay.overlay.opaque` is their `trusted.overlay.opaque`.
#[must_use]
pub fn shown_xattr(stored: &OsStr) -> Option<Cow<'_, OsStr>> {
    if let Some((prefix, short)) = split(stored.as_bytes()) {
        let inner = short.strip_prefix(ESCAPE)?;
        return Some(Cow::Owned(OsString::from_vec([prefix, inner].concat())));
    }
    (!is_internal_xattr(stored)).then_some(Cow::Borrowed(stored))
}

/// Returns the name under which the attribute that callers of a mount call `shown` is stored; `None` for one they cannot
/// have. The inverse of [`shown_xattr`].
#[must_use]
pub fn stored_xattr(shown: &OsStr) -> Option<Cow<'_, OsStr>> {
    if let Some((prefix, short)) = split(shown.as_bytes()) {
        let name = [prefix, ESCAPE, short].concat();
        return Some(Cow::Owned(OsString::from_vec(name)));
    }
    (!is_internal_xattr(shown)).then_some(Cow::Borrowed(shown))
}

/// The family's prefix of an overlay attribute's name, and what follows.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    [MarkSpace::Trusted, MarkSpace::User]
        .iter()
        .find(|space| name.starts_with(space.prefix().as_bytes()))
        .map(|space| name.split_at(space.prefix().len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_overlays_names_pass_through() {
        for (shown, stored) in [
            ("user.mime", Some("user.mime")),
            ("user.overlayfoo", Some("user.overlayfoo")),
            (
                "trusted.overlay.opaque",
                Some("trusted.overlay.overlay.opaque"),
            ),
            (
                "user.overlay.overlay.x",
                Some("user.overlay.overlay.overlay.x"),
            ),
            ("user.containers.override_stat", None),
        ] {
            let found = stored_xattr(OsStr::new(shown));
            assert_eq!(found.as_deref(), stored.map(OsStr::new), "{shown}");
            if let Some(stored) = stored {
                let back = shown_xattr(OsStr::new(stored));
                assert_eq!(back.as_deref(), Some(OsStr::new(shown)), "{stored}");
            }
        }
    }

    #[test]
    fn our_own_names_are_not_shown() {
        for stored in [
            "trusted.overlay.opaque",
            "user.overlay.mille.ino",
            "user.containers.override_stat",
        ] {
            assert_eq!(shown_xattr(OsStr::new(stored)), None, "{stored}");
            assert!(is_internal_xattr(OsStr::new(stored)), "{stored}");
        }
    }

    #[test]
    fn reserved_names_are_those_of_the_archive_dialect() {
        for (name, reserved) in [
            (".wh.x", true),
            (".wh.", true),
            (".wh", false),
            ("a.wh.x", false),
        ] {
            assert_eq!(is_reserved_name(OsStr::new(name)), reserved, "{name}");
        }
    }
}
