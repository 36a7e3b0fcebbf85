//! Random tars: legal ones replay byte for byte, broken ones give an error, none panics or touches anything outside.

use mille_layer::replay::replay;
use proptest::prelude::*;

use crate::kit::{Layer, Raw, checksum, dir, file, hardlink, plain, raw, symlink, tar};

/// Few names, so that entries collide.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec!["a", "b", "c", "d", "\u{e9}"]);
    (
        prop::collection::vec(part, 1..4),
        prop::sample::select(vec!["", "./", "/"]),
        any::<bool>(),
        0..20u8,
    )
        .prop_map(|(parts, lead, slash, long)| {
            let mut name = format!("{lead}{}", parts.join("/"));
            if long == 0 {
                name.push_str(&"l".repeat(150));
            }
            if slash {
                name.push('/');
            }
            name.into_bytes()
        })
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![
        Just(0usize),
        1usize..20,
        500usize..530,
        Just(1024),
        2000usize..6000
    ];
    (length, any::<u8>()).prop_map(|(length, seed)| {
        (0..length)
            .map(|index| {
                if index % 3 == 0 {
                    seed
                } else {
                    (index % 7) as u8 * (seed & 1)
                }
            })
            .collect()
    })
}

fn sparse(name: Vec<u8>, parts: Vec<(u16, u16)>, replaced_name: &str) -> Raw {
    let (mut end, mut map, mut content) = (0u64, Vec::new(), Vec::new());
    for (gap, length) in parts {
        let offset = end + u64::from(gap);
        end = offset + u64::from(length % 2000);
        map.push(format!("{offset},{}", length % 2000));
        content.resize(content.len() + usize::from(length % 2000), 7u8);
    }
    file(replaced_name, content)
        .pax("GNU.sparse.name", name)
        .pax("GNU.sparse.size", (end + 100).to_string())
        .pax("GNU.sparse.map", map.join(","))
}

fn entry() -> impl Strategy<Value = Raw> {
    let fill = prop_oneof![4 => Just(0u8), 1 => any::<u8>()];
    let kind = prop_oneof![
        6 => (name(), content()).prop_map(|(name, content)| {
            // A slash at the end of a file's name is legal; what is left is a file.
            file(name, content)
        }),
        3 => name().prop_map(dir),
        2 => (name(), name()).prop_map(|(name, target)| symlink(name, target)),
        3 => (name(), name()).prop_map(|(name, target)| hardlink(name, target)),
        1 => name().prop_map(|name| raw(name, b'6')),
        1 => (name(), content()).prop_map(|(name, content)| Raw { content, ..raw(name, b'V') }),
        2 => (prop::sample::select(vec!["a", "b", "a/b", "c/d"]), content()).prop_map(|(hidden, content)| {
            let (dir, name) = hidden.rsplit_once('/').unwrap_or((".", hidden));
            file(format!("{dir}/.wh.{name}"), content)
        }),
        1 => prop::sample::select(vec!["a", "a/b", "."]).prop_map(|dir| file(format!("{dir}/.wh..wh..opq"), "")),
        2 => (name(), prop::collection::vec(any::<(u16, u16)>(), 1..5))
            .prop_map(|(name, parts)| sparse(name, parts, "GNUSparseFile/x")),
    ];
    (kind, fill, 0u32..0o10000, any::<bool>()).prop_map(|(raw, fill, mode, pax)| {
        let raw = Raw { fill, mode, ..raw };
        if pax {
            raw.pax("mtime", "12.25")
                .pax("SCHILY.xattr.user.x", b"a\n\0b")
        } else {
            raw
        }
    })
}

/// Extracts; on success replay must give the same bytes, in any case nothing outside changes.
fn check(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let mut layer = Layer::new();
    let outcome = layer.extract(bytes, &plain());
    layer.open_up();
    if outcome.is_ok() {
        prop_assert!(layer.replayed() == bytes, "replay differs");
    }
    layer.assert_outside_untouched();
    Ok(outcome.is_ok())
}

proptest! {
    // Each case extracts up to 26 times.
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn legal_tars_replay(entries in prop::collection::vec(entry(), 0..25), tail in prop::collection::vec(any::<u8>(), 0..700)) {
        // Entries that are refused (links to nothing, paths below files) are left out, one after the other.
        let mut accepted: Vec<Raw> = Vec::new();
        for entry in entries {
            accepted.push(entry);
            let mut layer = Layer::new();
            if layer.extract(&tar(&accepted), &plain()).is_err() {
                accepted.pop();
            }
            layer.open_up();
        }
        let bytes = [tar(&accepted), tail].concat();
        prop_assert!(check(&bytes)?);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn mutated_tars_never_panic(
        entries in prop::collection::vec(entry(), 1..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        fix in any::<bool>(),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = tar(&entries);
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
            // With a checksum that is right, deeper code sees the change.
            let block = at / 512 * 512;
            if fix && &bytes[block + 257..block + 262] == b"ustar" {
                let mut header: [u8; 512] = bytes[block..block + 512].try_into().unwrap();
                checksum(&mut header);
                bytes[block..block + 512].copy_from_slice(&header);
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        check(&bytes)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        check(&bytes)?;
    }

    #[test]
    fn arbitrary_header_streams_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let layer = Layer::new();
        let stream = if magic { [b"millehs\x01".to_vec(), bytes].concat() } else { bytes };
        // Zero runs of any length are legal: the reader of the tar sets the bound.
        let result = replay(layer.fd(), stream.as_slice(), Bounded(1 << 20));
        prop_assert!(result.is_err() || stream.len() > 8);
    }
}

struct Bounded(usize);

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self
            .0
            .checked_sub(bytes.len())
            .ok_or(std::io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
