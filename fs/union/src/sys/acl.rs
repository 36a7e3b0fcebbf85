//! POSIX access control lists: what a new object inherits, and whom they name.
//!
//! The format is that of the `system.posix_acl_*` attributes: a 32-bit version 2, then entries of a 16-bit tag, 16-bit
//! permissions and a 32-bit id, all little-endian (linux/posix_acl_xattr.h).

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x08;
const GROUP_OBJ: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// What a new object gets from its directory's default ACL.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// Its permission bits.
    pub(crate) mode: u32,
    /// Its access ACL, unless the permission bits say it all.
    pub(crate) access: Option<Vec<u8>>,
}

/// Applies a default ACL to the mode asked for; the umask does not count then. `None` if the ACL is not understood.
pub(crate) fn inherit(default: &[u8], mode: u32) -> Option<Inherited> {
    let version = default
        .get(..HEADER)?
        .try_into()
        .ok()
        .map(u32::from_le_bytes)?;
    if version != VERSION || !(default.len() - HEADER).is_multiple_of(ENTRY) {
        return None;
    }
    let mut access = default.to_vec();
    let mut mode = mode;
    let mut group = None;
    let mut mask = None;
    let mut more_than_mode = false;
    for at in (HEADER..default.len()).step_by(ENTRY) {
        match tag(&access, at)? {
            USER_OBJ => mode = limit(&mut access, at, mode, 6)?,
            OTHER => mode = limit(&mut access, at, mode, 0)?,
            GROUP_OBJ => group = Some(at),
            MASK => {
                mask = Some(at);
                more_than_mode = true;
            }
            _ => more_than_mode = true,
        }
    }
    // With a mask the group bits of the mode are the mask.
    let mode = limit(&mut access, mask.or(group)?, mode, 3)?;
    Some(Inherited {
        mode,
        access: more_than_mode.then_some(access),
    })
}

/// Exchanges the users and groups that a list names; `None` if one has no other name. What is no such list is left alone.
pub(crate) fn with_ids(
    mut list: Vec<u8>,
    uid: impl Fn(u32) -> Option<u32>,
    gid: impl Fn(u32) -> Option<u32>,
) -> Option<Vec<u8>> {
    if list.len() < HEADER || !(list.len() - HEADER).is_multiple_of(ENTRY) {
        return Some(list);
    }
    for at in (HEADER..list.len()).step_by(ENTRY) {
        let named = tag(&list, at)?;
        let place = list.get_mut(at + 4..at + ENTRY)?;
        let id = u32::from_le_bytes((&*place).try_into().ok()?);
        let other = match named {
            USER => uid(id)?,
            GROUP => gid(id)?,
            _ => id,
        };
        place.copy_from_slice(&other.to_le_bytes());
    }
    Some(list)
}

fn tag(acl: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(acl.get(at..at + 2)?.try_into().ok()?))
}

/// Cuts an entry's permissions down to those of the mode at `shift`, and the mode down to the entry's.
fn limit(acl: &mut [u8], at: usize, mode: u32, shift: u32) -> Option<u32> {
    let place = acl.get_mut(at + 2..at + 4)?;
    let allowed = u16::from_le_bytes((&*place).try_into().ok()?);
    let asked = u16::try_from((mode >> shift) & 0o7).ok()?;
    let both = allowed & asked & 0o7;
    place.copy_from_slice(&both.to_le_bytes());
    Some(mode & !(0o7 << shift) | u32::from(both) << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut acl = VERSION.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            acl.extend_from_slice(&tag.to_le_bytes());
            acl.extend_from_slice(&perm.to_le_bytes());
            acl.extend_from_slice(&id.to_le_bytes());
        }
        acl
    }

    const NONE: u32 = u32::MAX;

    #[test]
    fn plain_default_only_limits_the_mode() {
        let default = acl(&[(USER_OBJ, 7, NONE), (GROUP_OBJ, 5, NONE), (OTHER, 0, NONE)]);
        let made = inherit(&default, 0o666).unwrap();
        assert_eq!(
            made,
            Inherited {
                mode: 0o640,
                access: None
            }
        );
    }

    #[test]
    fn named_entries_become_an_access_list_with_its_mask_cut() {
        let default = acl(&[
            (USER_OBJ, 7, NONE),
            (2, 7, 1000),
            (GROUP_OBJ, 5, NONE),
            (MASK, 7, NONE),
            (OTHER, 5, NONE),
        ]);
        let made = inherit(&default, 0o640).unwrap();
        assert_eq!(made.mode, 0o640);
        let want = acl(&[
            (USER_OBJ, 6, NONE),
            (2, 7, 1000),
            (GROUP_OBJ, 5, NONE),
            (MASK, 4, NONE),
            (OTHER, 0, NONE),
        ]);
        assert_eq!(made.access, Some(want));
    }

    #[test]
    fn named_users_and_groups_are_exchanged_and_nobody_else() {
        let list = acl(&[(USER_OBJ, 7, NONE), (USER, 7, 5), (GROUP, 5, 6)]);
        let other = with_ids(list.clone(), |uid| Some(uid + 100), |gid| Some(gid + 200));
        let want = acl(&[(USER_OBJ, 7, NONE), (USER, 7, 105), (GROUP, 5, 206)]);
        assert_eq!(other, Some(want));
        assert_eq!(with_ids(list, |_| None, Some), None);
        assert_eq!(with_ids(vec![2, 0], |_| None, |_| None), Some(vec![2, 0]));
    }

    #[test]
    fn nonsense_is_not_understood() {
        for bad in [&b""[..], b"\x01\0\0\0", b"\x02\0\0\0\x01", b"\x02\0\0\0"] {
            assert_eq!(inherit(bad, 0o644), None, "{bad:?}");
        }
    }
}
