//! Owners as the layers have them and as callers see them.
//!
//! The view works with the owners that are stored. Only the FUSE server exchanges them, where answers leave and requests
//! come in, so that a copy-up keeps what is stored and nothing inside needs to know.

use crate::sys::acl;
use crate::sys::ids::Owner;

/// A range of ids: what is stored as `stored..` is shown as `shown..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the layers.
    pub stored: u32,
    /// First id that callers see and give.
    pub shown: u32,
    /// How many.
    pub length: u32,
}

/// Ids of one kind; without ranges every id is shown as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(pub Vec<IdRange>);

impl IdMap {
    /// What callers see; `None` for an id in no range.
    fn shown(&self, stored: u32) -> Option<u32> {
        translate(&self.0, stored, |range| (range.stored, range.shown))
    }

    /// The stored id for the one found in a lower layer.
    ///
    /// What is no stored id but one that callers see is taken for that: podman gives us lower layers whose ids an idmapped
    /// mount has translated already, together with the same ranges.
    fn of_lower(&self, found: u32) -> u32 {
        match self.shown(found) {
            Some(_) => found,
            None => self.stored(found).unwrap_or(found),
        }
    }

    /// What the layers have; `None` for an id in no range.
    fn stored(&self, shown: u32) -> Option<u32> {
        translate(&self.0, shown, |range| (range.shown, range.stored))
    }
}

fn translate(ranges: &[IdRange], id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
    if ranges.is_empty() {
        return Some(id);
    }
    ranges.iter().find_map(|range| {
        let (from, to) = ends(range);
        let offset = id
            .checked_sub(from)
            .filter(|&offset| offset < range.length)?;
        to.checked_add(offset)
    })
}

/// How owners are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Users.
    pub uids: IdMap,
    /// Groups.
    pub gids: IdMap,
    /// Everything belongs to this user, whatever is stored; new objects are stored as the server's own.
    pub squash_uid: Option<u32>,
    /// Everything belongs to this group.
    pub squash_gid: Option<u32>,
}

/// What is shown for an id that is in no range, as the kernel does for what a user namespace does not know.
const NOBODY: u32 = 65534;

impl Owners {
    /// The stored owner for the one found in a lower layer.
    pub(crate) fn of_lower(&self, found: Owner) -> Owner {
        Owner {
            uid: self.uids.of_lower(found.uid),
            gid: self.gids.of_lower(found.gid),
        }
    }

    /// What callers see of an owner.
    pub(crate) fn shown(&self, stored: Owner) -> Owner {
        let uid = || self.uids.shown(stored.uid).unwrap_or(NOBODY);
        let gid = || self.gids.shown(stored.gid).unwrap_or(NOBODY);
        Owner {
            uid: self.squash_uid.unwrap_or_else(uid),
            gid: self.squash_gid.unwrap_or_else(gid),
        }
    }

    /// Who a new object is stored as. Somebody the layers have no id for is nobody there: podman's own user, who is in no
    /// range, makes the mount points of a container through its mount and gives them away afterwards.
    pub(crate) fn maker(&self, caller: Owner) -> Owner {
        let uid = match self.squash_uid {
            Some(_) => rustix::process::geteuid().as_raw(),
            None => self.uids.stored(caller.uid).unwrap_or(NOBODY),
        };
        let gid = match self.squash_gid {
            Some(_) => rustix::process::getegid().as_raw(),
            None => self.gids.stored(caller.gid).unwrap_or(NOBODY),
        };
        Owner { uid, gid }
    }

    /// The user that a chown stores: `Some(None)` if nothing is to change, `None` if the layers have no id for it.
    pub(crate) fn chown_uid(&self, uid: Option<u32>) -> Option<Option<u32>> {
        chown(uid, self.squash_uid, &self.uids)
    }

    /// As [`Self::chown_uid`], of the group.
    pub(crate) fn chown_gid(&self, gid: Option<u32>) -> Option<Option<u32>> {
        chown(gid, self.squash_gid, &self.gids)
    }

    /// An access control list as callers see it.
    pub(crate) fn shown_acl(&self, stored: Vec<u8>) -> Vec<u8> {
        self.exchange_acl(stored, |map, id| Some(map.shown(id).unwrap_or(NOBODY)))
            .unwrap_or_default()
    }

    /// An access control list as the layers have it; `None` if they have no id for somebody in it.
    pub(crate) fn stored_acl(&self, shown: Vec<u8>) -> Option<Vec<u8>> {
        self.exchange_acl(shown, IdMap::stored)
    }

    fn exchange_acl(
        &self,
        list: Vec<u8>,
        exchange: impl Fn(&IdMap, u32) -> Option<u32>,
    ) -> Option<Vec<u8>> {
        if self.uids.0.is_empty() && self.gids.0.is_empty() {
            return Some(list);
        }
        acl::with_ids(
            list,
            |uid| exchange(&self.uids, uid),
            |gid| exchange(&self.gids, gid),
        )
    }
}

fn chown(id: Option<u32>, squash: Option<u32>, map: &IdMap) -> Option<Option<u32>> {
    match (id, squash) {
        (None, _) | (_, Some(_)) => Some(None),
        (Some(id), None) => map.stored(id).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[(u32, u32, u32)]) -> IdMap {
        let range = |&(stored, shown, length)| IdRange {
            stored,
            shown,
            length,
        };
        IdMap(ranges.iter().map(range).collect())
    }

    #[test]
    fn ranges_lead_there_and_back() {
        let map = map(&[(0, 1000, 1), (1, 110_000, 65536)]);
        for (stored, shown) in [
            (0, Some(1000)),
            (1, Some(110_000)),
            (65536, Some(175_535)),
            (65537, None),
            (u32::MAX, None),
        ] {
            assert_eq!(map.shown(stored), shown, "{stored}");
            if let Some(shown) = shown {
                assert_eq!(map.stored(shown), Some(stored), "{shown}");
            }
        }
        assert_eq!(map.stored(0), None);
        assert_eq!(map.of_lower(120_000), 10_001, "translated already");
        assert_eq!(map.of_lower(5), 5);
        assert_eq!(map.of_lower(u32::MAX), u32::MAX);
    }

    #[test]
    fn a_range_at_the_end_of_the_ids_does_not_overflow() {
        let map = map(&[(10, u32::MAX - 1, 5)]);
        assert_eq!(map.shown(11), Some(u32::MAX));
        assert_eq!(map.shown(12), None);
    }

    #[test]
    fn squashed_owners_are_one_and_stay() {
        let owners = Owners {
            squash_uid: Some(7),
            uids: map(&[(0, 5, 1)]),
            ..Owners::default()
        };
        let seen = owners.shown(Owner { uid: 1, gid: 1 });
        assert_eq!((seen.uid, seen.gid), (7, 1));
        assert_eq!(owners.chown_uid(Some(3)), Some(None));
        assert_eq!(owners.chown_gid(Some(3)), Some(Some(3)));
    }
}
