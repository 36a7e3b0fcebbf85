//! Tars made to get out of the directory, to be misread, or to exhaust us. Each must fail with an error that names the
//! entry, or do no harm; nothing outside may change.

use std::io::Read;

use mille_layer::extract::{ExtractError, Limits};

use crate::kit::{
    Layer, Raw, as_root, chain, checksum, dir, file, get_xattr, hardlink, plain, raw, round_trip,
    symlink, tar,
};

/// Extracts and returns the error's text; nothing outside may have changed.
fn refused(bytes: &[u8]) -> String {
    let mut layer = Layer::new();
    std::fs::write(layer.base.path().join("victim"), "untouched").unwrap();
    let error = layer.extract(bytes, &plain()).expect_err("must be refused");
    assert_eq!(
        std::fs::read(layer.base.path().join("victim")).unwrap(),
        b"untouched"
    );
    std::fs::remove_file(layer.base.path().join("victim")).unwrap();
    layer.assert_outside_untouched();
    chain(&error)
}

#[test]
fn escapes_are_refused_and_named() {
    let out = "../probe";
    let cases: Vec<(&str, Vec<Raw>, &str)> = vec![
        (
            "dot dot",
            vec![file("../probe/x", "x")],
            "\"../probe/x\": path with a .. component",
        ),
        (
            "dot dot inside",
            vec![dir("a"), file("a/../b", "x")],
            "path with a .. component",
        ),
        ("dot dot alone", vec![dir("..")], ".."),
        (
            "whiteout of dot dot",
            vec![file("a/.wh...", "")],
            "whiteout of no name",
        ),
        (
            "whiteout of dot",
            vec![file(".wh..", "")],
            "whiteout of no name",
        ),
        (
            "whiteout of nothing",
            vec![file("a/.wh.", "")],
            "whiteout of no name",
        ),
        (
            "file through link",
            vec![symlink("l", out), file("l/x", "x")],
            "its parent \"l\" is a symbolic link",
        ),
        (
            "file through link inside",
            vec![dir("d"), symlink("l", "d"), file("l/x", "x")],
            "symbolic link",
        ),
        (
            "file through deep link",
            vec![
                dir("a"),
                symlink("a/l", "../../probe"),
                file("a/l/b/x", "x"),
            ],
            "symbolic link",
        ),
        (
            "directory through link",
            vec![symlink("l", out), dir("l/d")],
            "symbolic link",
        ),
        (
            "link through link",
            vec![symlink("l", out), symlink("l/x", "y")],
            "symbolic link",
        ),
        (
            "hard link through link",
            vec![file("f", "x"), symlink("l", out), hardlink("l/x", "f")],
            "symbolic link",
        ),
        (
            "whiteout through link",
            vec![symlink("l", ".."), file("l/.wh.victim", "")],
            "symbolic link",
        ),
        (
            "opaque through link",
            vec![symlink("l", out), file("l/.wh..wh..opq", "")],
            "symbolic link",
        ),
        (
            "fifo through link",
            vec![symlink("l", out), raw("l/p", b'6')],
            "symbolic link",
        ),
        (
            "hard link target beyond link",
            vec![symlink("l", ".."), hardlink("x", "l/victim")],
            "not in this layer",
        ),
        (
            "hard link target deep beyond link",
            vec![symlink("l", ".."), hardlink("x", "l/a/victim")],
            "beyond a symbolic link",
        ),
        (
            "hard link target dot dot",
            vec![hardlink("x", "../victim")],
            "path with a .. component",
        ),
        (
            "hard link target absolute",
            vec![hardlink("x", "/etc/passwd")],
            "not in this layer",
        ),
        (
            "hard link target missing",
            vec![hardlink("x", "nothing")],
            "not in this layer",
        ),
        (
            "hard link to directory",
            vec![dir("d"), hardlink("x", "d")],
            "is a directory",
        ),
        (
            "hard link to root",
            vec![hardlink("x", "./")],
            "hard link to the root",
        ),
        (
            "hard link to whiteout",
            vec![file(".wh.w", ""), hardlink("x", "w")],
            "not in this layer",
        ),
        (
            "hard link to itself",
            vec![hardlink("x", "x")],
            "not in this layer",
        ),
        (
            "file as root",
            vec![file("./", "x")],
            "only a directory can be the root",
        ),
        (
            "below a file",
            vec![file("a", "x"), file("a/b", "y")],
            "its parent \"a\" is not a directory",
        ),
        (
            "below a whiteout name",
            vec![file(".wh.a/b", "x")],
            "may not begin with .wh.",
        ),
        (
            "NUL in PAX path",
            vec![file("a", "").pax("path", b"a\0b")],
            "NUL",
        ),
        (
            "NUL in PAX link",
            vec![symlink("a", "x").pax("linkpath", b"a\0b")],
            "NUL",
        ),
        (
            "unknown type",
            vec![raw("a", b'~')],
            "unsupported entry type '~'",
        ),
        (
            "multi volume",
            vec![raw("a", b'M')],
            "unsupported entry type 'M'",
        ),
    ];
    for (name, entries, want) in cases {
        let text = refused(&tar(&entries));
        assert!(text.contains(want), "{name}: {text}");
    }
}

#[test]
fn a_link_that_is_replaced_is_not_followed() {
    let entries = [
        symlink("l", "../probe/x"),
        file("l", "mine"),
        symlink("d", "../probe"),
        dir("d"),
        file("d/y", "z"),
    ];
    let (layer, _) = round_trip(&tar(&entries), &plain());
    assert_eq!(std::fs::read(layer.path("l")).unwrap(), b"mine");
    assert!(layer.path("l").symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read(layer.path("d/y")).unwrap(), b"z");
}

#[test]
fn attributes_are_not_applied_through_links() {
    let mut layer = Layer::new();
    let victim = layer.base.path().join("victim");
    std::fs::write(&victim, "x").unwrap();
    let before = std::fs::metadata(&victim).unwrap();
    let link = symlink("l", "../victim")
        .mode(0o777)
        .pax("SCHILY.xattr.user.a", "b");
    layer
        .extract(&tar(&[link, hardlink("h", "l")]), &plain())
        .unwrap();
    let after = std::fs::metadata(&victim).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!(before.permissions(), after.permissions());
    assert_eq!(get_xattr(&victim, "user.a"), None);
    assert!(layer.path("h").symlink_metadata().unwrap().is_symlink());
}

#[test]
fn a_path_may_be_absolute_and_stays_inside() {
    let (layer, _) = round_trip(
        &tar(&[file("/etc/x", "x"), hardlink("/y", "/etc/x")]),
        &plain(),
    );
    assert_eq!(std::fs::read(layer.path("etc/x")).unwrap(), b"x");
    assert_eq!(std::fs::read(layer.path("y")).unwrap(), b"x");
}

#[test]
fn pax_records_smuggle_nothing() {
    // Split at newlines, the value would hold a record of its own.
    let carrier = file("carrier", "").pax("SCHILY.xattr.user.x", "a\n12 size=512\nb");
    let (layer, done) = round_trip(&tar(&[carrier, file("after", "x")]), &plain());
    assert_eq!(done.entries, 2);
    assert_eq!(
        get_xattr(&layer.path("carrier"), "user.x").unwrap(),
        b"a\n12 size=512\nb"
    );

    let body = |body: &[u8]| {
        let header = Raw {
            content: body.to_vec(),
            ..raw("PaxHeaders/x", b'x')
        };
        [header.bytes(), tar(&[file("a", "x")])].concat()
    };
    for (name, pax) in [
        ("garbage after a record", &b"6 a=b\ngarbage"[..]),
        ("signed length", b"+6 a=b\n"),
        ("length too long", b"60 a=b\n"),
        ("length too short", b"4 a=b\n"),
        ("no equals", b"5 ab\n"),
        ("negative size", b"11 size=-1\n"),
        ("signed size", b"11 size=+1\n"),
        ("size not a number", b"12 size=0x1\n"),
        ("bad time", b"13 mtime=now\n"),
        ("bad owner", b"9 uid=-1\n"),
        ("owner too large", b"18 uid=4294967295\n"),
        ("NUL padding", b"6 a=b\n\0\0"),
    ] {
        let text = refused(&body(pax));
        assert!(
            text.contains("PAX")
                || text.contains("pax")
                || text.contains("owner")
                || text.contains("malformed"),
            "{name}: {text}"
        );
    }
}

#[test]
fn ambiguous_framing_is_refused() {
    let global = Raw {
        content: b"18 comment=xxxxxx\n".to_vec(),
        ..raw("g", b'g')
    };
    let mut body = Vec::new();
    crate::kit::push_pax(&mut body, b"path", b"renamed");
    let extension = Raw {
        content: body,
        ..raw("x", b'x')
    };
    let text = refused(&tar(&[extension.clone(), global, file("a", "")]));
    assert!(text.contains("before a global one"), "{text}");
    let text = refused(&tar(&[extension.clone(), extension, file("a", "")]));
    assert!(text.contains("duplicate"), "{text}");

    // A size beyond 64 bits: the parser would drop the upper ones.
    let mut header = file("a", "").header();
    header[124..136].copy_from_slice(b"\x80\0\0\x01\0\0\0\0\0\0\0\0");
    checksum(&mut header);
    let text = refused(&[&header[..], &[0; 1024]].concat());
    assert!(text.contains("size out of range"), "{text}");
    // A long-name header without a magic is another type to some readers.
    let mut header = Raw {
        content: vec![],
        ..raw("a", b'L')
    }
    .header();
    header[257..265].fill(0);
    checksum(&mut header);
    let text = refused(&[&header[..], &[0; 1024]].concat());
    assert!(text.contains("unsupported entry type 'L'"), "{text}");
}

#[test]
fn sparse_maps_out_of_bounds_are_refused() {
    let v0 = |map: &str, size: &str| {
        file("s", "0123456789")
            .pax("GNU.sparse.map", map)
            .pax("GNU.sparse.size", size)
            .pax("GNU.sparse.name", "s")
    };
    for (map, size) in [
        ("0,5,3,5", "20"),
        ("15,10", "20"),
        ("0,5", "20"),
        ("18446744073709551615,10", "20"),
        ("0,10", "9223372036854775808"),
        ("0,10,20", "30"),
    ] {
        let text = refused(&tar(&[v0(map, size)]));
        assert!(text.contains("sparse"), "{map}: {text}");
    }
    let on_link = Raw {
        ..symlink("l", "t")
    }
    .pax("GNU.sparse.map", "0,0")
    .pax("GNU.sparse.size", "5");
    assert!(refused(&tar(&[on_link])).contains("sparse map on what is not a file"));
}

#[test]
fn truncation_anywhere_is_an_error() {
    let long = "n".repeat(150);
    let entries = [
        dir("d"),
        file("d/f", vec![7; 1500]).pax("SCHILY.xattr.user.a", "b"),
        file(long, "x"),
        file("last", vec![1; 600]),
    ];
    let whole = tar(&entries);
    let mut boundaries = vec![0];
    for entry in &entries {
        boundaries.push(boundaries.last().unwrap() + entry.bytes().len());
    }
    let end = *boundaries.last().unwrap();
    for cut in (1..end).step_by(97).chain([end - 1, end - 1024]) {
        let mut layer = Layer::new();
        let outcome = layer.extract(&whole[..cut], &plain());
        if boundaries.contains(&cut) {
            assert!(!outcome.unwrap().end_marker);
        } else {
            let error = outcome.expect_err("cut");
            assert!(
                matches!(error, ExtractError::Truncated { .. }),
                "{cut}: {}",
                chain(&error)
            );
        }
    }
    let mut layer = Layer::new();
    assert!(!layer.extract(&whole[..end], &plain()).unwrap().end_marker);
    assert!(
        layer.extract(&whole[..end], &plain()).is_ok(),
        "again, over itself"
    );
}

#[test]
fn read_errors_are_passed_on_with_their_place() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other("unplugged"));
            }
            let step = self.0.min(buffer.len());
            buffer[..step].copy_from_slice(&tar(&[file("a", vec![1; 4096])])[..step]);
            self.0 -= step;
            Ok(step)
        }
    }
    let layer = Layer::new();
    let error = mille_layer::extract::extract(Broken(1000), layer.fd(), &plain(), std::io::sink())
        .unwrap_err();
    assert_eq!(chain(&error), "read tar at byte 1000: unplugged");
}

#[test]
fn limits_hold() {
    let limited = |limits: Limits, bytes: &[u8]| {
        let mut options = plain();
        options.limits = limits;
        let error = Layer::new().extract(bytes, &options).expect_err("limit");
        assert!(
            matches!(
                error,
                ExtractError::Limit { .. } | ExtractError::Header { .. }
            ),
            "{}",
            chain(&error)
        );
        chain(&error)
    };
    let many: Vec<Raw> = (0..20).map(|index| dir(format!("d{index}"))).collect();
    let text = limited(
        Limits {
            entries: 10,
            ..Limits::default()
        },
        &tar(&many),
    );
    assert_eq!(text, "entry \"d10\": more than 10 entries in the archive");
    limited(
        Limits {
            deferred_bytes: 500,
            ..Limits::default()
        },
        &tar(&many),
    );
    limited(
        Limits {
            header_bytes: 5000,
            ..Limits::default()
        },
        &tar(&many),
    );
    limited(
        Limits {
            content_bytes: 99,
            ..Limits::default()
        },
        &tar(&[file("a", [1; 100])]),
    );
    limited(
        Limits {
            path_bytes: 120,
            ..Limits::default()
        },
        &tar(&[file("p".repeat(121), "")]),
    );
    let large = file("a", "").pax("comment", vec![b'x'; 5000]);
    limited(
        Limits {
            entry_metadata_bytes: 4096,
            ..Limits::default()
        },
        &tar(&[large]),
    );
    // An endless tail is bounded, too.
    let endless = tar(&[])
        .into_iter()
        .chain(std::iter::repeat_n(0, 1 << 20))
        .collect::<Vec<u8>>();
    limited(
        Limits {
            header_bytes: 1 << 19,
            ..Limits::default()
        },
        &endless,
    );
    // So is a chain of sparse extension blocks, or a map without end.
    let sparse = file("s", "")
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.realsize", "5");
    let digits = [&sparse.bytes()[..], &vec![b'1'; 4 << 20]].concat();
    limited(
        Limits {
            entry_metadata_bytes: 4096,
            sparse_regions: 100,
            ..Limits::default()
        },
        &digits,
    );
    let mut block = [0u8; 512];
    block[504] = 1;
    let mut header = raw("s", b'S').header();
    header[257..265].copy_from_slice(b"ustar  \0");
    header[345..508].fill(0);
    header[482] = 1;
    checksum(&mut header);
    let chained = [&header[..], &block.repeat(1 << 14)].concat();
    limited(
        Limits {
            entry_metadata_bytes: 4096,
            sparse_regions: 100,
            ..Limits::default()
        },
        &chained,
    );
}

#[test]
fn bombs_of_holes_cost_nothing() {
    let bomb = file("s", "x")
        .pax("GNU.sparse.map", "1099511627775,1")
        .pax("GNU.sparse.size", "1099511627776")
        .pax("GNU.sparse.name", "s");
    let (layer, done) = round_trip(&tar(&[bomb]), &plain());
    assert_eq!(done.bytes, 1 << 40);
    use std::os::unix::fs::MetadataExt as _;
    assert!(layer.path("s").metadata().unwrap().blocks() < 64);
}

#[test]
fn paths_at_and_beyond_the_kernels_limits() {
    let component = "c".repeat(255);
    let (layer, _) = round_trip(&tar(&[file(&component, "x")]), &plain());
    assert!(layer.path(&component).exists());
    let text = refused(&tar(&[file("c".repeat(256), "x")]));
    assert!(text.contains("name too long"), "{}", text.to_lowercase());
    // 1000 directories deep: no recursion, no descriptor per level. Then replaced by a file.
    let deep = vec!["d"; 1000].join("/");
    let (layer, _) = round_trip(
        &tar(&[file(format!("{deep}/f"), "x"), file("d", "instead")]),
        &plain(),
    );
    assert_eq!(std::fs::read(layer.path("d")).unwrap(), b"instead");
}

#[test]
fn root_overlay_marks_of_the_tar_take_no_effect() {
    let marked = |entry: Raw| {
        [
            ("trusted.overlay.opaque", "y"),
            ("user.overlay.opaque", "y"),
            ("trusted.overlay.redirect", "/etc"),
            ("user.overlay.redirect", "/etc"),
            ("trusted.overlay.metacopy", ""),
            ("user.overlay.metacopy", ""),
            ("trusted.overlay.whiteout", "y"),
            ("trusted.overlay.overlay.opaque", "y"),
            ("trusted.overlay.implied", "y"),
            ("user.containers.override_stat", "0:0:04755:block-8-0"),
            ("user.overlayfoo", "kept"),
        ]
        .into_iter()
        .fold(entry, |entry, (key, value)| {
            entry.pax(&format!("SCHILY.xattr.{key}"), value)
        })
    };
    let entries = [
        marked(dir("d")),
        marked(file("f", "x")),
        marked(symlink("l", "t")),
        marked(raw("p", b'6')),
        marked(dir("./")),
    ];
    let (layer, done) = round_trip(&tar(&entries), &as_root());
    for path in ["d", "f", "l", "p", ""] {
        let mut list = vec![0u8; 4096];
        let length = rustix::fs::llistxattr(layer.path(path), &mut list[..]).unwrap();
        let names = String::from_utf8_lossy(&list[..length]).into_owned();
        assert!(
            !names.contains("overlay.") && !names.contains("override_stat"),
            "{path}: {names}"
        );
    }
    assert_eq!(
        get_xattr(&layer.path("f"), "user.overlayfoo").unwrap(),
        b"kept"
    );
    assert_eq!(
        done.skipped_xattrs, 2,
        "user.overlayfoo on a symbolic link and on a fifo"
    );
}

#[test]
fn the_tree_is_not_opened_up_beyond_the_tar() {
    use std::os::unix::fs::PermissionsExt as _;
    let entries = [
        dir("./").mode(0o700),
        dir("secret").mode(0o700),
        file("secret/f", "x").mode(0o600),
        file("other/f", "x"),
    ];
    let (layer, _) = round_trip(&tar(&entries), &plain());
    for (path, mode) in [
        ("", 0o700),
        ("secret", 0o700),
        ("secret/f", 0o600),
        ("other", 0o755),
    ] {
        assert_eq!(
            layer.path(path).metadata().unwrap().permissions().mode() & 0o7777,
            mode,
            "{path}"
        );
    }
}
