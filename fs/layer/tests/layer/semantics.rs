//! What a tar means: attributes, whiteouts, duplicates, links, sparse files, devices.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use mille_layer::replay::{ReplayError, replay};
use mille_layer::{MarkSpace, Ownership};

use crate::kit::{
    Layer, Raw, as_root, chain, checksum, dir, file, get_xattr, hardlink, plain, raw, round_trip,
    symlink, tar,
};

const OPAQUE: &str = "user.overlay.opaque";
const IMPLIED: &str = "user.overlay.implied";

fn is_whiteout(path: &std::path::Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|meta| meta.file_type().is_char_device() && meta.rdev() == 0)
}

#[test]
fn root_attributes_are_kept() {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0";
    let entries = [
        dir("./").mode(0o1777),
        Raw {
            ids: (5, 6),
            mtime: 12,
            ..dir("d").mode(0o2750)
        }
        .pax("SCHILY.xattr.user.dir", "on directory"),
        Raw {
            ids: (1000, 1001),
            ..file("d/suid", "x").mode(0o6755)
        }
        .pax("mtime", "1234567890.123456789"),
        file("cap", "x")
            .pax("SCHILY.xattr.security.capability", capability)
            .pax("SCHILY.xattr.user.nl", "a\nb=c\n"),
        file("old", "x").pax("mtime", "-1.5"),
        Raw {
            ids: (7, 8),
            ..symlink("l", "\u{e9}/target").pax("SCHILY.xattr.trusted.x", "y")
        },
        Raw {
            ids: (9, 9),
            device: (1, 3),
            ..raw("null", b'3').mode(0o666)
        },
        Raw {
            device: (8, 17),
            ..raw("disk", b'4').mode(0o660)
        },
        raw("pipe", b'6').mode(0o4600),
        file("big", "x")
            .pax("uid", "4000000000")
            .pax("gid", "3000000"),
    ];
    let (layer, done) = round_trip(&tar(&entries), &as_root());
    assert_eq!(
        (
            done.entries,
            done.bytes,
            done.skipped_xattrs,
            done.end_marker
        ),
        (10, 13, 0, true)
    );
    let meta = |path: &str| layer.path(path).symlink_metadata().unwrap();
    let mode = |path: &str| meta(path).mode() & 0o7777;
    assert_eq!(mode(""), 0o1777);
    assert_eq!(
        (
            mode("d"),
            meta("d").uid(),
            meta("d").gid(),
            meta("d").mtime()
        ),
        (0o2750, 5, 6, 12)
    );
    assert_eq!(
        get_xattr(&layer.path("d"), "user.dir").unwrap(),
        b"on directory"
    );
    assert_eq!(
        (mode("d/suid"), meta("d/suid").uid(), meta("d/suid").gid()),
        (0o6755, 1000, 1001)
    );
    assert_eq!(
        (meta("d/suid").mtime(), meta("d/suid").mtime_nsec()),
        (1_234_567_890, 123_456_789)
    );
    assert_eq!(
        get_xattr(&layer.path("cap"), "security.capability").unwrap(),
        capability
    );
    assert_eq!(
        get_xattr(&layer.path("cap"), "user.nl").unwrap(),
        b"a\nb=c\n"
    );
    assert_eq!(
        (meta("old").mtime(), meta("old").mtime_nsec()),
        (-2, 500_000_000)
    );
    assert_eq!(
        (meta("l").uid(), meta("l").gid(), meta("l").mtime()),
        (7, 8, 1_700_000_000)
    );
    assert_eq!(get_xattr(&layer.path("l"), "trusted.x").unwrap(), b"y");
    assert!(meta("null").file_type().is_char_device());
    assert_eq!(
        (meta("null").rdev(), mode("null"), meta("null").uid()),
        (0x103, 0o666, 9)
    );
    assert!(meta("disk").file_type().is_block_device());
    assert_eq!((meta("disk").rdev(), mode("disk")), (0x811, 0o660));
    assert!(meta("pipe").file_type().is_fifo());
    assert_eq!(
        (mode("pipe"), meta("pipe").mtime()),
        (0o4600, 1_700_000_000)
    );
    assert_eq!(
        (meta("big").uid(), meta("big").gid()),
        (4_000_000_000, 3_000_000)
    );
}

#[test]
fn overridden_ownership_is_in_the_attribute() {
    let mut options = plain();
    options.ownership = Ownership::Override;
    options.owners = mille_layer::extract::Owners::Keep;
    let entries = [
        Raw {
            ids: (5, 6),
            ..dir("d").mode(0o2050)
        },
        Raw {
            ids: (1000, 1001),
            ..file("d/f", "x").mode(0o4111)
        },
        Raw {
            ids: (3, 4),
            device: (1, 3),
            ..raw("null", b'3').mode(0o666)
        },
        raw("pipe", b'6').mode(0o600),
    ];
    let (layer, _) = round_trip(&tar(&entries), &options);
    for (path, mode, want) in [
        ("d", 0o40750, "5:6:02050"),
        ("d/f", 0o100711, "1000:1001:04111"),
        ("null", 0o100666, "3:4:0666:char-1-3"),
        ("pipe", 0o100600, "0:0:0600:pipe"),
    ] {
        let value = get_xattr(&layer.path(path), "user.containers.override_stat").unwrap();
        assert_eq!(String::from_utf8(value).unwrap(), want);
        assert_eq!(layer.path(path).metadata().unwrap().mode(), mode, "{path}");
    }
}

#[test]
fn missing_parents_are_implied() {
    let (layer, _) = round_trip(
        &tar(&[file("a/b/c", "x"), dir("a/b").mode(0o700)]),
        &plain(),
    );
    assert_eq!(get_xattr(&layer.path("a"), IMPLIED).unwrap(), b"y");
    assert_eq!(get_xattr(&layer.path("a/b"), IMPLIED), None);
    assert_eq!(get_xattr(&layer.root(), IMPLIED).unwrap(), b"y");
    assert_eq!(layer.path("a").metadata().unwrap().mode() & 0o7777, 0o755);
    assert_eq!(layer.path("a").metadata().unwrap().mtime(), 0);
    assert_eq!(layer.path("a/b").metadata().unwrap().mode() & 0o7777, 0o700);
    let (layer, _) = round_trip(&tar(&[dir("./").mode(0o711)]), &plain());
    assert_eq!(get_xattr(&layer.root(), IMPLIED), None);
}

#[test]
fn whiteouts_take_overlay_form() {
    let entries = [
        file("d/.wh.gone", ""),
        dir("d"),
        dir("o"),
        file("o/kept", "x"),
        file("o/.wh..wh..opq", ""),
        file("p/.wh..wh..opq", ""),
        file("p/kept", "x"),
        hardlink("d/.wh.linked", ".wh..wh.aufs"),
        file(".wh..wh.plnk/1.2", "bookkeeping"),
        raw("d/device", b'3'),
    ];
    let (layer, done) = round_trip(&tar(&entries), &plain());
    for gone in ["d/gone", "d/linked", "d/device"] {
        assert!(is_whiteout(&layer.path(gone)), "{gone}");
    }
    for opaque in ["o", "p"] {
        assert_eq!(get_xattr(&layer.path(opaque), OPAQUE).unwrap(), b"y");
        assert_eq!(
            std::fs::read(layer.path(opaque).join("kept")).unwrap(),
            b"x"
        );
    }
    assert_eq!(get_xattr(&layer.path("d"), OPAQUE), None);
    assert_eq!(done.ignored, 1);
    let left: Vec<_> = std::fs::read_dir(layer.root()).unwrap().collect();
    assert_eq!(left.len(), 3, "no .wh. name on disk");
    // A whole layer may be opaque.
    let (layer, _) = round_trip(&tar(&[file(".wh..wh..opq", ""), file("x", "")]), &plain());
    assert_eq!(get_xattr(&layer.root(), OPAQUE).unwrap(), b"y");
}

#[test]
fn a_whiteout_never_removes_what_its_own_layer_has() {
    for entries in [
        [file("x", "mine"), file(".wh.x", "")],
        [file(".wh.x", ""), file("x", "mine")],
    ] {
        let (layer, _) = round_trip(&tar(&entries), &plain());
        assert_eq!(std::fs::read(layer.path("x")).unwrap(), b"mine");
    }
    // A directory beside its whiteout hides the lower one: opaque, in whatever order, explicit or implied.
    let with_parent =
        |order: [usize; 2], entries: [Raw; 2]| tar(&order.map(|index| entries[index].clone()));
    for order in [[0, 1], [1, 0]] {
        for child in [dir("x"), file("x/y", "z")] {
            let (layer, _) = round_trip(&with_parent(order, [child, file(".wh.x", "")]), &plain());
            assert_eq!(get_xattr(&layer.path("x"), OPAQUE).unwrap(), b"y");
            assert!(layer.path("x").is_dir());
        }
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let entries = [
        file("f", "first"),
        file("f", "second"),
        dir("d").mode(0o700).pax("SCHILY.xattr.user.a", "old"),
        file("d/kept", "x"),
        dir("d").mode(0o711).pax("SCHILY.xattr.user.b", "new"),
        file("t", "file"),
        dir("t"),
        file("t/in", "x"),
        dir("u"),
        file("u/a", "lost a"),
        dir("u/v/w"),
        file("u/v/w/b", "lost b"),
        symlink("u/v/l", "x"),
        file("u/.wh.gone", ""),
        file("u", "file now"),
        symlink("s", "a"),
        symlink("s", "b"),
    ];
    let (layer, done) = round_trip(&tar(&entries), &plain());
    assert_eq!(std::fs::read(layer.path("f")).unwrap(), b"second");
    assert_eq!(std::fs::read(layer.path("d/kept")).unwrap(), b"x");
    assert_eq!(layer.path("d").metadata().unwrap().mode() & 0o777, 0o711);
    assert_eq!(get_xattr(&layer.path("d"), "user.a"), None);
    assert_eq!(get_xattr(&layer.path("d"), "user.b").unwrap(), b"new");
    assert!(layer.path("t/in").is_file());
    assert_eq!(
        get_xattr(&layer.path("t"), OPAQUE).unwrap(),
        b"y",
        "what a file hid stays hidden"
    );
    assert_eq!(std::fs::read(layer.path("u")).unwrap(), b"file now");
    assert_eq!(
        std::fs::read_link(layer.path("s")).unwrap().to_str(),
        Some("b")
    );
    assert_eq!(done.entries, 17);
}

#[test]
fn hard_links_stay_links_and_their_replaced_targets_replay() {
    let entries = [
        file("a", "content"),
        hardlink("b", "./a"),
        hardlink("sub/c", "a"),
        hardlink("b", "a"),
        symlink("l", "a"),
        hardlink("m", "l"),
        file("a", "new"),
        file("x", "1"),
        hardlink("y", "x"),
        file("y", "2"),
    ];
    let (layer, _) = round_trip(&tar(&entries), &plain());
    let meta = |path: &str| layer.path(path).symlink_metadata().unwrap();
    assert_eq!(meta("b").ino(), meta("sub/c").ino());
    assert_eq!(meta("b").nlink(), 2);
    assert_eq!(std::fs::read(layer.path("b")).unwrap(), b"content");
    assert_eq!(std::fs::read(layer.path("a")).unwrap(), b"new");
    assert!(meta("m").is_symlink() && meta("m").ino() == meta("l").ino());
    assert_eq!(std::fs::read(layer.path("x")).unwrap(), b"1");
    assert_eq!(std::fs::read(layer.path("y")).unwrap(), b"2");
}

fn old_gnu_sparse() -> Vec<u8> {
    let mut header = Raw {
        size: Some(1024),
        ..raw("old", b'S')
    }
    .header();
    header[257..265].copy_from_slice(b"ustar  \0");
    header[345..508].fill(0);
    for (index, (offset, length)) in [(4096u64, 512u64), (1 << 20, 512), (2 << 20, 0)]
        .iter()
        .enumerate()
    {
        let at = 386 + 24 * index;
        header[at..at + 12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
        header[at + 12..at + 24].copy_from_slice(format!("{length:011o}\0").as_bytes());
    }
    header[483..495].copy_from_slice(format!("{:011o}\0", 2u64 << 20).as_bytes());
    checksum(&mut header);
    [&header[..], &[1; 512], &[2; 512]].concat()
}

#[test]
fn sparse_files_become_holes_again() {
    let map = "2\n4096\n512\n1048576\n512\n";
    let mut content = map.as_bytes().to_vec();
    content.resize(512, 0);
    content.extend([[1u8; 512], [2; 512]].concat());
    let v1 = file("GNUSparseFile.0/v1", content)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "v1")
        .pax("GNU.sparse.realsize", "2097152");
    let v0 = file("x", [[1u8; 512], [2; 512]].concat())
        .pax("GNU.sparse.size", "2097152")
        .pax("GNU.sparse.numblocks", "2")
        .pax("GNU.sparse.offset", "4096")
        .pax("GNU.sparse.numbytes", "512")
        .pax("GNU.sparse.offset", "1048576")
        .pax("GNU.sparse.numbytes", "512")
        .pax("path", "v0");
    // The record of the size counts the map.
    let sized = Raw {
        name: b"GNUSparseFile.0/sized".to_vec(),
        ..v1.clone()
    };
    let sized = Raw {
        pax: sized
            .pax
            .iter()
            .filter(|(key, _)| key != b"GNU.sparse.name")
            .cloned()
            .collect(),
        ..sized
    };
    let sized = sized.pax("GNU.sparse.name", "sized").pax("size", "1536");
    let bytes = [
        &v1.bytes()[..],
        &old_gnu_sparse(),
        &v0.bytes(),
        &sized.bytes(),
        &tar(&[file("after", "x")]),
    ]
    .concat();
    let (layer, done) = round_trip(&bytes, &plain());
    for name in ["v1", "v0", "old", "sized"] {
        let content = std::fs::read(layer.path(name)).unwrap();
        assert_eq!(content.len(), 2 << 20, "{name}");
        assert!(content[4096..4608].iter().all(|&byte| byte == 1), "{name}");
        assert!(
            content[1 << 20..(1 << 20) + 512]
                .iter()
                .all(|&byte| byte == 2),
            "{name}"
        );
        assert_eq!(
            content.iter().filter(|&&byte| byte != 0).count(),
            1024,
            "{name}"
        );
        assert!(
            layer.path(name).metadata().unwrap().blocks() < 64,
            "{name} has holes"
        );
    }
    assert_eq!(done.bytes, 4 * (2 << 20) + 1);
    // Replaced sparse files replay as well.
    round_trip(
        &[
            &old_gnu_sparse()[..],
            &v1.bytes(),
            &tar(&[file("old", "x"), dir("v1")]),
        ]
        .concat(),
        &plain(),
    );
}

#[test]
fn oddities_are_read_and_kept() {
    // Padding that is not zero, a lone zero block inside, blanks in numbers, garbage after the end.
    let padded = Raw {
        fill: b'#',
        ..file("padded", "x")
    };
    let mut spaced = file("spaced", "yy").header();
    spaced[124..136].copy_from_slice(b"         2 \0");
    spaced[100..108].copy_from_slice(b"   644 \0");
    checksum(&mut spaced);
    let mut spaced_entry = spaced.to_vec();
    spaced_entry.extend(b"yy");
    spaced_entry.resize(1024, 0);
    let v7_dir = {
        let mut header = raw("v7dir/", 0).header();
        header[257..265].fill(0);
        header[329..345].fill(0);
        checksum(&mut header);
        header.to_vec()
    };
    let label = raw("LABEL", b'V');
    let global = Raw {
        content: b"18 comment=xxxxxx\n".to_vec(),
        ..raw("pax_global_header", b'g')
    };
    let link_with_size = Raw {
        size: Some(12345),
        ..symlink("sized", "t")
    };
    let bytes = [
        &padded.bytes()[..],
        &[0; 512],
        &spaced_entry,
        &v7_dir,
        &label.bytes(),
        &global.bytes(),
        &link_with_size.header(),
        &file(b"\xff\xfe/\n\t", "odd name").bytes(),
        &file("long/".to_string() + &"n".repeat(200), "long").bytes(),
        &symlink("longlink", "t".repeat(300)).bytes(),
        &[0; 1024],
        b"garbage after the end",
        &[0; 10000],
        &[1; 3],
    ]
    .concat();
    let (layer, done) = round_trip(&bytes, &plain());
    assert_eq!((done.entries, done.ignored, done.end_marker), (9, 2, true));
    assert!(layer.path("v7dir").is_dir());
    assert_eq!(std::fs::read(layer.path("spaced")).unwrap(), b"yy");
    assert_eq!(
        std::fs::read_link(layer.path("longlink"))
            .unwrap()
            .as_os_str()
            .len(),
        300
    );
    assert!(!layer.path("LABEL").exists());
    // No tar at all is an empty one.
    let (_, done) = round_trip(b"", &plain());
    assert!(!done.end_marker);
    round_trip(&[0; 512], &plain());
    round_trip(&[0; 10240], &plain());
}

#[test]
fn many_replacements_spill_to_disk_and_replay() {
    let entries: Vec<Raw> = (0..40u8)
        .map(|index| file("same", vec![index; 700_000]))
        .collect();
    let (layer, _) = round_trip(&tar(&entries), &plain());
    assert_eq!(std::fs::read(layer.path("same")).unwrap()[0], 39);
    assert_eq!(std::fs::read_dir(layer.root()).unwrap().count(), 1);
}

#[test]
fn replay_notices_what_has_changed() {
    let bytes = tar(&[file("d/a", vec![1; 5000]), file("d/b", "x")]);
    let failing = |damage: &dyn Fn(&Layer)| {
        let (layer, _) = round_trip(&bytes, &plain());
        damage(&layer);
        let error =
            replay(layer.fd(), layer.stream.as_slice(), std::io::sink()).expect_err("damage");
        assert!(
            matches!(error, ReplayError::File { .. }),
            "{}",
            chain(&error)
        );
        chain(&error)
    };
    let text = failing(&|layer| std::fs::remove_file(layer.path("d/a")).unwrap());
    assert!(
        text.starts_with("layer file \"d/a\": cannot be opened: "),
        "{text}"
    );
    let text = failing(&|layer| std::fs::write(layer.path("d/a"), [1; 4999]).unwrap());
    assert_eq!(
        text,
        "layer file \"d/a\": has 4999 bytes, its tar entry has 5000"
    );
    failing(&|layer| std::fs::write(layer.path("d/a"), [1; 5001]).unwrap());
    failing(&|layer| {
        std::fs::rename(layer.path("d"), layer.path("e")).unwrap();
        std::os::unix::fs::symlink("e", layer.path("d")).unwrap();
    });
    failing(&|layer| {
        std::fs::remove_file(layer.path("d/b")).unwrap();
        std::fs::create_dir(layer.path("d/b")).unwrap();
    });
    // A damaged stream is told as such, at every cut.
    let (layer, _) = round_trip(&bytes, &plain());
    for cut in 0..layer.stream.len() {
        let error = replay(layer.fd(), &layer.stream[..cut], std::io::sink()).expect_err("cut");
        assert!(
            matches!(error, ReplayError::Damaged(_)),
            "{cut}: {}",
            chain(&error)
        );
    }
}

#[test]
fn root_trusted_marks_are_written_for_root() {
    let (layer, _) = round_trip(
        &tar(&[file("a/.wh..wh..opq", ""), file("a/x", "")]),
        &as_root(),
    );
    let space = MarkSpace::Trusted;
    for mark in [mille_layer::Mark::Opaque, mille_layer::Mark::Implied] {
        let name = space.name(mark).to_str().unwrap();
        assert_eq!(get_xattr(&layer.path("a"), name).unwrap(), b"y", "{name}");
    }
}
