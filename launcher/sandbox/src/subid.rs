//! /etc/subuid and /etc/subgid: the ranges of ids an ordinary user may give away. Pure.

use crate::IdMap;

/// The kernel takes no more lines than this in one id map (`UID_GID_MAP_MAX_EXTENTS`).
const MAX_RANGES: usize = 340;

/// Returns the `(first, count)` ranges of a user, who is listed by name or by number, in the file's order.
pub(crate) fn ranges(file: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let of_user = |owner: &str| Some(owner) == name || owner == number;
    file.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let first = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            let fits = count > 0 && u32::checked_add(first, count).is_some();
            (of_user(owner) && fits).then_some((first, count))
        })
        .take(MAX_RANGES - 1)
        .collect()
}

/// Returns the map in which `own` is root and the ranges follow from 1 on.
pub(crate) fn map(own: u32, ranges: &[(u32, u32)]) -> Vec<IdMap> {
    let mut maps = vec![IdMap {
        inside: 0,
        outside: own,
        count: 1,
    }];
    let mut next: u32 = 1;
    for &(first, count) in ranges {
        let count = count.min(u32::MAX - next);
        if count == 0 {
            break;
        }
        maps.push(IdMap {
            inside: next,
            outside: first,
            count,
        });
        next += count;
    }
    maps
}

/// Returns the first start of a range of 65536 ids that nobody in the file has, for advice.
pub(crate) fn free_start(file: &str) -> u32 {
    /// Where shadow's useradd begins (`SUB_UID_MIN`).
    const FIRST: u32 = 100_000;
    file.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':').skip(1);
            let first: u32 = fields.next()?.parse().ok()?;
            let count: u32 = fields.next()?.parse().ok()?;
            first.checked_add(count)
        })
        .fold(FIRST, u32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "alice:100000:65536\nbob:165536:65536\n1000:300000:10\n# c\nalice:400000:5\nbad:x:1\nalice:4294967295:2\n\
                        alice:5:0\n";

    #[test]
    fn ranges_by_name_and_number() {
        for (name, uid, want) in [
            (
                Some("alice"),
                1000,
                vec![(100_000, 65536), (300_000, 10), (400_000, 5)],
            ),
            (Some("bob"), 1001, vec![(165_536, 65536)]),
            (None, 1000, vec![(300_000, 10)]),
            (Some("carol"), 1003, vec![]),
        ] {
            assert_eq!(ranges(FILE, name, uid), want, "{name:?}");
        }
    }

    #[test]
    fn maps_start_with_the_user() {
        let got: Vec<_> = map(1000, &[(100_000, 65536), (300_000, 10)])
            .iter()
            .map(|m| (m.inside, m.outside, m.count))
            .collect();
        assert_eq!(
            got,
            [(0, 1000, 1), (1, 100_000, 65536), (65537, 300_000, 10)]
        );
        assert_eq!(map(7, &[]).len(), 1);
    }

    #[test]
    fn free_ranges() {
        assert_eq!(free_start(""), 100_000);
        assert_eq!(free_start(FILE), 400_005);
    }
}
