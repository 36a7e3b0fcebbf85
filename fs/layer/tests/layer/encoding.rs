//! The writer: fields at their limits, PAX only where needed, and back through the extractor.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use mille_layer::encode::{EncodeError, Encoder, Entry, Kind, Time};
use proptest::prelude::*;

use crate::kit::{as_root, get_xattr, plain, round_trip};

fn entry<'a>(path: &'a [u8], kind: Kind<'a>) -> Entry<'a> {
    Entry {
        path,
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time {
            sec: 1_700_000_000,
            nsec: 0,
        },
        xattrs: &[],
    }
}

fn encode(list: &[(Entry<'_>, &[u8])]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    for (entry, data) in list {
        encoder.append(entry, *data).unwrap();
    }
    encoder.finish().unwrap()
}

fn one(entry: Entry<'_>) -> Vec<u8> {
    encode(&[(entry, b"")])
}

/// Type flags of all headers, assuming that no content looks like one.
fn flags(tar: &[u8]) -> String {
    tar.chunks(512)
        .filter(|block| &block[257..262] == b"ustar")
        .map(|block| char::from(block[156]))
        .collect()
}

#[test]
fn pax_is_used_only_where_needed() {
    let file = Kind::File { size: 0 };
    let plain = entry(b"a", file);
    let split = ["d".repeat(99), "e".repeat(50), "n".repeat(100)].join("/");
    let unsplittable = "n".repeat(101);
    let long_prefix = ["d".repeat(156), "n".into()].join("/");
    let xattrs = [(b"user.a".to_vec(), b"b".to_vec())];
    let internal = [(b"trusted.overlay.opaque".to_vec(), b"y".to_vec())];
    let target = [b't'; 101];
    for (name, entry, want) in [
        ("plain", plain, "0"),
        ("100 bytes", entry(&[b'n'; 100], file), "0"),
        ("split", entry(split.as_bytes(), file), "0"),
        ("unsplittable", entry(unsplittable.as_bytes(), file), "x0"),
        ("prefix of 156", entry(long_prefix.as_bytes(), file), "x0"),
        ("directory of 100", entry(&[b'n'; 100], Kind::Dir), "x5"),
        ("odd bytes", entry(b"\xff\n", file), "0"),
        ("link", entry(b"a", Kind::Symlink(&target[..100])), "2"),
        ("long link", entry(b"a", Kind::Symlink(&target)), "x2"),
        ("hard link", entry(b"a", Kind::Hardlink(b"b")), "1"),
        (
            "largest octal ids",
            Entry {
                uid: 0o7_777_777,
                gid: 0o7_777_777,
                ..plain
            },
            "0",
        ),
        (
            "large uid",
            Entry {
                uid: 0o10_000_000,
                ..plain
            },
            "x0",
        ),
        (
            "large gid",
            Entry {
                gid: u32::MAX - 1,
                ..plain
            },
            "x0",
        ),
        (
            "sub-second",
            Entry {
                mtime: Time { sec: 1, nsec: 1 },
                ..plain
            },
            "x0",
        ),
        (
            "negative",
            Entry {
                mtime: Time { sec: -1, nsec: 0 },
                ..plain
            },
            "x0",
        ),
        (
            "latest octal time",
            Entry {
                mtime: Time {
                    sec: 0o77_777_777_777,
                    nsec: 0,
                },
                ..plain
            },
            "0",
        ),
        (
            "late",
            Entry {
                mtime: Time {
                    sec: 0o100_000_000_000,
                    nsec: 0,
                },
                ..plain
            },
            "x0",
        ),
        (
            "xattr",
            Entry {
                xattrs: &xattrs,
                ..plain
            },
            "x0",
        ),
        (
            "internal xattr",
            Entry {
                xattrs: &internal,
                ..plain
            },
            "0",
        ),
        (
            "device",
            entry(
                b"a",
                Kind::Char {
                    major: 0xfff,
                    minor: 0xfffff,
                },
            ),
            "3",
        ),
        (
            "block device",
            entry(b"a", Kind::Block { major: 8, minor: 1 }),
            "4",
        ),
        ("fifo", entry(b"a", Kind::Fifo), "6"),
        ("root", entry(b".", Kind::Dir), "5"),
    ] {
        assert_eq!(flags(&one(entry)), want, "{name}");
    }
}

#[test]
fn sizes_beyond_eight_gibibytes_are_records() {
    let size = (8u64 << 30) + 1;
    let mut encoder = Encoder::new(Count(0, Vec::new()));
    encoder
        .append(&entry(b"huge", Kind::File { size }), io::repeat(0))
        .unwrap();
    let count = encoder.finish().unwrap();
    assert_eq!(count.0, 1536 + size.next_multiple_of(512) + 1024);
    let head = String::from_utf8_lossy(&count.1[..1536]).into_owned();
    assert!(head.contains("19 size=8589934593\n"), "{head}");
    let mut encoder = Encoder::new(Count(0, Vec::new()));
    let fits = entry(
        b"a",
        Kind::File {
            size: (8 << 30) - 1,
        },
    );
    encoder.append(&fits, io::repeat(0)).unwrap();
    assert_eq!(encoder.finish().unwrap().0, 512 + (8 << 30) + 1024);
}

/// Counts bytes and keeps the first few.
struct Count(u64, Vec<u8>);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = 4096usize.saturating_sub(self.1.len());
        self.1.extend(&bytes[..bytes.len().min(room)]);
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn markers_are_dockers() {
    let mut encoder = Encoder::new(Vec::new());
    encoder.append_whiteout(b"d/gone").unwrap();
    encoder.append_whiteout(b"gone").unwrap();
    encoder.append_opaque(b"d").unwrap();
    encoder.append_opaque(b".").unwrap();
    let bytes = encoder.finish().unwrap();
    for (index, (name, mode)) in [
        ("d/.wh.gone", "0000600"),
        (".wh.gone", "0000600"),
        ("d/.wh..wh..opq", "0000755"),
        (".wh..wh..opq", "0000755"),
    ]
    .iter()
    .enumerate()
    {
        let block = &bytes[512 * index..512 * (index + 1)];
        assert_eq!(&block[..name.len() + 1], [name.as_bytes(), b"\0"].concat());
        assert_eq!(&block[100..107], mode.as_bytes());
        assert_eq!(&block[136..147], b"00000000000");
        assert_eq!(block[156], b'0');
    }
    let (layer, _) = round_trip(&bytes, &plain());
    assert_eq!(
        get_xattr(&layer.path("d"), "user.overlay.opaque").unwrap(),
        b"y"
    );
}

#[test]
fn what_no_tar_can_hold_is_refused() {
    let fails =
        |entry: Entry<'_>, data: &[u8]| Encoder::new(Vec::new()).append(&entry, data).unwrap_err();
    let file = Kind::File { size: 0 };
    let bad_xattr = [(b"user.a=b".to_vec(), b"".to_vec())];
    for entry in [
        entry(b"", file),
        entry(b"/a", file),
        entry(b"a\0", file),
        entry(b"a", Kind::Symlink(b"")),
        entry(b"a", Kind::Symlink(b"a\0")),
        entry(
            b"a",
            Kind::Char {
                major: 1 << 30,
                minor: 0,
            },
        ),
        Entry {
            xattrs: &bad_xattr,
            ..entry(b"a", file)
        },
    ] {
        assert!(
            matches!(fails(entry, b""), EncodeError::Invalid { .. }),
            "{entry:?}"
        );
    }
    let short = fails(entry(b"a", Kind::File { size: 10 }), b"123");
    assert_eq!(short.to_string(), "content of \"a\" ended 7 bytes early");
}

#[test]
fn longer_content_is_cut_at_its_size() {
    let bytes = encode(&[
        (entry(b"a", Kind::File { size: 3 }), b"12345"),
        (entry(b"b", Kind::File { size: 0 }), b"x"),
    ]);
    let (layer, _) = round_trip(&bytes, &plain());
    assert_eq!(std::fs::read(layer.path("a")).unwrap(), b"123");
    assert_eq!(std::fs::read(layer.path("b")).unwrap(), b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn root_every_entry_survives_the_way_through_a_tar(
        name in prop::collection::vec(prop::collection::vec(1u8..=255, 1..255), 1..4),
        mode in 0u32..0o10000,
        uid in 0..u32::MAX,
        gid in 0..u32::MAX,
        // What ext4 can hold.
        sec in -2_147_483_648i64..15_032_385_535,
        nsec in 0u32..1_000_000_000,
        value in prop::collection::vec(any::<u8>(), 0..300),
        content in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        let name: Vec<Vec<u8>> = name
            .into_iter()
            .map(|part| part.into_iter().map(|byte| if byte == b'/' || byte == b'.' { b'_' } else { byte }).collect())
            .collect();
        let path = name.join(&b'/');
        let xattrs = [(b"trusted.test".to_vec(), value.clone())];
        let kind = Kind::File { size: content.len() as u64 };
        let entry = Entry { path: &path, kind, mode, uid, gid, mtime: Time { sec, nsec }, xattrs: &xattrs };
        let (layer, _) = round_trip(&encode(&[(entry, &content)]), &as_root());
        let file = layer.path(std::path::Path::new(std::os::unix::ffi::OsStrExt::from_bytes(path.as_slice()) as &std::ffi::OsStr));
        let meta = file.symlink_metadata().unwrap();
        prop_assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (mode, uid, gid));
        prop_assert_eq!(get_xattr(&file, "trusted.test").unwrap(), value);
        prop_assert_eq!((meta.mtime(), meta.mtime_nsec()), (sec, i64::from(nsec)));
        prop_assert_eq!(std::fs::read(&file).unwrap(), content);
    }
}
