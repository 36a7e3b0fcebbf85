//! A layer's directory against its tar: every change is found, and nothing is found where there is none.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink as link_to};
use std::time::{Duration, SystemTime};

use mille_layer::replay::replay;
use rustix::fs::{XattrFlags, lsetxattr};

use crate::kit::{
    Layer, as_root, chain, dir, file, hardlink, plain, raw, round_trip, symlink, tar,
};

fn entries() -> Vec<u8> {
    tar(&[
        dir("d"),
        file("d/full", "content").pax("SCHILY.xattr.user.x", "y"),
        file("d/empty", ""),
        hardlink("d/other", "d/full"),
        file("d/.wh.gone", ""),
        dir("e"),
        dir("o"),
        file("o/.wh..wh..opq", ""),
        file("implied/f", "f"),
        symlink("l", "d/full"),
        raw("p", b'6'),
    ])
}

#[test]
fn any_change_of_a_layers_directory_is_found() {
    type Change = fn(&Layer);
    let cases: [(&str, Change, &str); 17] = [
        (
            "symlink away",
            |l| fs::remove_file(l.path("l")).unwrap(),
            "\"l\" is missing",
        ),
        (
            "symlink redirected",
            |l| {
                fs::remove_file(l.path("l")).unwrap();
                link_to("elsewher", l.path("l")).unwrap();
            },
            "\"l\" ",
        ),
        (
            "whiteout away",
            |l| fs::remove_file(l.path("d/gone")).unwrap(),
            "\"d/gone\" is missing",
        ),
        (
            "whiteout replaced",
            |l| {
                fs::remove_file(l.path("d/gone")).unwrap();
                File::create(l.path("d/gone")).unwrap();
            },
            "\"d/gone\" is no longer marked as deleted",
        ),
        (
            "empty file away",
            |l| fs::remove_file(l.path("d/empty")).unwrap(),
            "\"d/empty\" is missing",
        ),
        (
            "empty directory away",
            |l| fs::remove_dir(l.path("e")).unwrap(),
            "\"e\" is missing",
        ),
        (
            "second name away",
            |l| fs::remove_file(l.path("d/other")).unwrap(),
            "\"d/other\" is missing",
        ),
        (
            "second name is a copy",
            |l| {
                let (full, other) = (l.path("d/full"), l.path("d/other"));
                fs::remove_file(&other).unwrap();
                fs::copy(&full, &other).unwrap();
                lsetxattr(&other, c"user.x", b"y", XattrFlags::empty()).unwrap();
                touch(l, "d/other", 1_700_000_000);
                touch(l, "d", 1_700_000_000);
            },
            "\"d/other\" is a file of its own",
        ),
        (
            "two files are one",
            |l| {
                fs::remove_file(l.path("d/empty")).unwrap();
                fs::hard_link(l.path("d/full"), l.path("d/empty")).unwrap();
                touch(l, "d", 1_700_000_000);
            },
            "\"d/empty\" ",
        ),
        (
            "file added",
            |l| {
                File::create(l.path("d/new")).unwrap();
                touch(l, "d", 1_700_000_000);
            },
            "\"d/new\" is in none of its entries",
        ),
        (
            "last file added",
            |l| {
                File::create(l.path("zz")).unwrap();
                touch(l, "", 0);
            },
            "\"zz\" is in none of its entries",
        ),
        (
            "chmod",
            |l| {
                fs::set_permissions(l.path("d/empty"), Permissions::from_mode(0o600)).unwrap();
            },
            "\"d/empty\" has another mode",
        ),
        (
            "mtime",
            |l| touch(l, "d/empty", 5),
            "\"d/empty\" has another modification time",
        ),
        (
            "mtime of a directory",
            |l| touch(l, "e", 5),
            "\"e\" has another modification time",
        ),
        (
            "xattr changed",
            |l| {
                lsetxattr(l.path("d/full"), c"user.x", b"z", XattrFlags::empty()).unwrap();
            },
            "\"d/full\" has other extended attributes",
        ),
        (
            "xattr added",
            |l| {
                lsetxattr(l.path("e"), c"user.new", b"", XattrFlags::empty()).unwrap();
            },
            "\"e\" has other extended attributes",
        ),
        (
            "opaque mark away",
            |l| {
                rustix::fs::lremovexattr(l.path("o"), c"user.overlay.opaque").unwrap();
            },
            "\"o\" has lost or gained a mark",
        ),
    ];
    let tar = entries();
    for (what, change, wanted) in cases {
        let (layer, _) = round_trip(&tar, &plain());
        change(&layer);
        let found = layer.difference(&tar, &plain()).expect(what);
        let directory = found.starts_with("\"d\" has another modification time")
            || found.starts_with("its root has another modification time");
        assert!(
            found.starts_with(wanted) || (directory && !what.contains("time")),
            "{what}: {found}"
        );
    }
}

fn touch(layer: &Layer, path: &str, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let times = FileTimes::new().set_modified(time);
    File::open(layer.path(path))
        .unwrap()
        .set_times(times)
        .unwrap();
}

#[test]
fn root_a_changed_owner_device_or_capability_is_found() {
    let capability: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut device = raw("n", b'3');
    device.device = (1, 3);
    let tar = tar(&[
        device,
        file("f", "x").pax("SCHILY.xattr.security.capability", capability),
    ]);
    type Change = fn(&Layer);
    let cases: [(Change, &str); 3] = [
        (
            |l| std::os::unix::fs::lchown(l.path("n"), Some(7), None).unwrap(),
            "\"n\" has another owner",
        ),
        (
            |l| rustix::fs::lremovexattr(l.path("f"), c"security.capability").unwrap(),
            "\"f\" has other extended attributes",
        ),
        (
            |l| {
                fs::remove_file(l.path("n")).unwrap();
                let path = std::ffi::CString::new(l.path("n").as_os_str().as_bytes()).unwrap();
                let mode = rustix::fs::Mode::from_raw_mode(0o644);
                let kind = rustix::fs::FileType::CharacterDevice;
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &path,
                    kind,
                    mode,
                    rustix::fs::makedev(1, 5),
                )
                .unwrap();
                rustix::fs::chmod(&path, mode).unwrap();
                // Its time is another one, too, which is said first.
            },
            "\"n\" ",
        ),
    ];
    for (change, wanted) in cases {
        let (layer, _) = round_trip(&tar, &as_root());
        change(&layer);
        let mut found = layer.difference(&tar, &as_root()).expect(wanted);
        if found.starts_with("its root has another") {
            touch(&layer, "", 0);
            found = layer.difference(&tar, &as_root()).expect(wanted);
        }
        assert!(found.starts_with(wanted), "{found}");
    }
}

/// Bytes in a hole are in no range of the tar.
#[test]
fn content_in_the_hole_of_a_sparse_file_is_found() {
    let tar = tar(&[
        file("s", [&b"1\n1048576\n4\n"[..], &[0; 500], b"data"].concat())
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "s")
            .pax("GNU.sparse.realsize", "2097152"),
    ]);
    let (layer, _) = round_trip(&tar, &plain());
    use std::os::unix::fs::FileExt as _;
    let file = File::options().write(true).open(layer.path("s")).unwrap();
    for at in [0, 1_048_580, 2_097_151] {
        file.write_all_at(b"\0", at).unwrap();
        assert_eq!(layer.replayed(), tar, "zeros are no content");
        file.write_all_at(b"x", at).unwrap();
        let error = replay(layer.fd(), layer.stream.as_slice(), std::io::sink()).unwrap_err();
        assert!(
            chain(&error).contains("has content in a hole"),
            "{}",
            chain(&error)
        );
        file.write_all_at(b"\0", at).unwrap();
    }
}
