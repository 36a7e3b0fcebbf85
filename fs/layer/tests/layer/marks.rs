//! Reading layers in all dialects.

use std::ffi::{OsStr, OsString};
use std::fs;

use mille_layer::marks::{
    clear_mark, get_mark, implied, metacopy, redirect, set_mark, set_opaque, write_whiteout,
};
use mille_layer::resolve::Redirect;
use mille_layer::{
    Dialects, ListedKind, Mark, MarkSpace, Opaque, OverrideKind, OverrideStat, Ownership, Probe,
    is_internal_xattr, list, opaque, probe,
};
use rustix::fs::FileType;

use crate::kit::Layer;

const USER: Dialects = Dialects {
    space: MarkSpace::User,
    aufs: false,
    ownership: Ownership::Real,
    overrides: true,
    null_devices: false,
};

/// `name` → `-` absent, `w` whiteout, `o` object; sorted listing in the same letters.
fn look(layer: &Layer, names: &[&str], dialects: &Dialects) -> (String, Vec<String>) {
    let state = opaque(layer.fd(), dialects).unwrap();
    let probed = names
        .iter()
        .map(
            |name| match probe(layer.fd(), OsStr::new(name), state, dialects).unwrap() {
                Probe::Absent => '-',
                Probe::Whiteout => 'w',
                Probe::Object(_) => 'o',
            },
        )
        .collect();
    let mut listed: Vec<String> = list(layer.fd(), state, dialects)
        .unwrap()
        .into_iter()
        .map(|entry| match entry.kind {
            ListedKind::Whiteout => format!("w {}", entry.name.display()),
            ListedKind::Object(_) => format!("o {}", entry.name.display()),
        })
        .collect();
    listed.sort();
    (probed, listed)
}

#[test]
fn character_devices_are_whiteouts() {
    let layer = Layer::new();
    write_whiteout(layer.fd(), OsStr::new("gone")).unwrap();
    fs::write(layer.path("here"), "").unwrap();
    assert_eq!(
        look(&layer, &["gone", "here", "nothing"], &USER),
        ("wo-".into(), vec!["o here".into(), "w gone".into()])
    );
    let error = write_whiteout(layer.fd(), OsStr::new("here")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
}

#[test]
fn aufs_files_are_whiteouts_where_they_may_occur() {
    let layer = Layer::new();
    for name in [
        ".wh.gone",
        ".wh.both",
        "both",
        ".wh..wh.plnk",
        ".wh.",
        "plain",
    ] {
        fs::write(layer.path(name), "").unwrap();
    }
    let names = ["gone", "both", "plain", ".wh.gone", ".wh..wh.plnk"];
    let aufs = USER.with_aufs();
    assert_eq!(
        look(&layer, &names, &aufs),
        (
            "woo--".into(),
            vec!["o both".into(), "o plain".into(), "w gone".into()]
        )
    );
    let (probed, listed) = look(&layer, &names, &USER);
    assert_eq!((probed.as_str(), listed.len()), ("-oooo", 6));
    assert_eq!(opaque(layer.fd(), &aufs).unwrap(), Opaque::No);
    fs::write(layer.path(".wh..wh..opq"), "").unwrap();
    assert_eq!(opaque(layer.fd(), &aufs).unwrap(), Opaque::Yes);
    assert_eq!(opaque(layer.fd(), &USER).unwrap(), Opaque::No);
    // A name that is too long to have a whiteout.
    let long = OsString::from("n".repeat(255));
    assert!(matches!(
        probe(layer.fd(), &long, Opaque::No, &aufs).unwrap(),
        Probe::Absent
    ));
}

#[test]
fn xattr_whiteouts_count_only_in_marked_directories() {
    let layer = Layer::new();
    for name in ["marked", "plain"] {
        fs::write(layer.path(name), "").unwrap();
    }
    fs::write(layer.path("full"), "x").unwrap();
    for name in ["marked", "full"] {
        set_mark(
            layer.fd(),
            Some(OsStr::new(name)),
            MarkSpace::User,
            Mark::Whiteout,
            b"",
        )
        .unwrap();
    }
    let names = ["marked", "plain", "full"];
    assert_eq!(look(&layer, &names, &USER).0, "ooo");
    set_mark(layer.fd(), None, MarkSpace::User, Mark::Opaque, b"x").unwrap();
    assert_eq!(opaque(layer.fd(), &USER).unwrap(), Opaque::XattrWhiteouts);
    let want: Vec<String> = vec!["o full".into(), "o plain".into(), "w marked".into()];
    assert_eq!(look(&layer, &names, &USER), ("woo".into(), want));
}

#[test]
fn root_only_the_spaces_own_marks_are_believed() {
    let layer = Layer::new();
    set_opaque(layer.fd(), None, MarkSpace::User).unwrap();
    let trusted = Dialects::new(MarkSpace::Trusted, Ownership::Real);
    assert_eq!(opaque(layer.fd(), &trusted).unwrap(), Opaque::No);
    assert_eq!(opaque(layer.fd(), &USER).unwrap(), Opaque::Yes);
    set_opaque(layer.fd(), None, MarkSpace::Trusted).unwrap();
    clear_mark(layer.fd(), None, MarkSpace::User, Mark::Opaque).unwrap();
    clear_mark(layer.fd(), None, MarkSpace::User, Mark::Opaque).unwrap();
    assert_eq!(opaque(layer.fd(), &trusted).unwrap(), Opaque::Yes);
    assert_eq!(opaque(layer.fd(), &USER).unwrap(), Opaque::No);
}

#[test]
fn marks_of_entries_are_read() {
    let layer = Layer::new();
    fs::create_dir(layer.path("d")).unwrap();
    let (name, space) = (Some(OsStr::new("d")), MarkSpace::User);
    assert_eq!(redirect(layer.fd(), name, space).unwrap(), None);
    assert!(
        !implied(layer.fd(), name, space).unwrap() && !metacopy(layer.fd(), name, space).unwrap()
    );
    for mark in [Mark::Redirect, Mark::Implied, Mark::Metacopy] {
        let value: &[u8] = if mark == Mark::Redirect {
            b"/a/b"
        } else {
            b"y"
        };
        set_mark(layer.fd(), name, space, mark, value).unwrap();
    }
    let want = Redirect::Absolute(vec![b"a".to_vec(), b"b".to_vec()]);
    assert_eq!(redirect(layer.fd(), name, space).unwrap(), Some(want));
    assert!(
        implied(layer.fd(), name, space).unwrap() && metacopy(layer.fd(), name, space).unwrap()
    );
    set_mark(layer.fd(), name, space, Mark::Redirect, b"../x").unwrap();
    let error = redirect(layer.fd(), name, space).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    set_mark(layer.fd(), name, space, Mark::Origin, &[7; 3000]).unwrap();
    assert_eq!(
        get_mark(layer.fd(), name, space, Mark::Origin)
            .unwrap()
            .unwrap(),
        [7; 3000]
    );
}

#[test]
fn overrides_change_what_is_seen() {
    let layer = Layer::new();
    let name = OsStr::new("null");
    fs::write(layer.path(name), "").unwrap();
    fs::write(layer.path("full"), "x").unwrap();
    let kind = Some(OverrideKind::Char(1, 3));
    OverrideStat {
        uid: 5,
        gid: 6,
        mode: 0o620,
        kind,
    }
    .set(layer.fd(), Some(name))
    .unwrap();
    let full = OverrideStat {
        uid: 7,
        gid: 8,
        mode: 0o4711,
        kind: None,
    };
    full.set(layer.fd(), Some(OsStr::new("full"))).unwrap();
    let object =
        |name: &OsStr, dialects: &Dialects| match probe(layer.fd(), name, Opaque::No, dialects)
            .unwrap()
        {
            Probe::Object(stat) => stat,
            other => panic!("{other:?}"),
        };
    let seen = object(name, &USER);
    assert_eq!(
        (seen.st_mode, seen.st_rdev, seen.st_uid, seen.st_gid),
        (0o20620, 0x103, 5, 6)
    );
    let kinds: Vec<_> = list(layer.fd(), Opaque::No, &USER)
        .unwrap()
        .into_iter()
        .map(|entry| entry.kind)
        .collect();
    assert!(kinds.contains(&ListedKind::Object(FileType::CharacterDevice)));
    // With real ownership only what stands for a device is overridden.
    assert_eq!(
        object(OsStr::new("full"), &USER).st_mode & 0o7777,
        fs::Permissions::mode_of(&layer.path("full"))
    );
    let overriding = Dialects::new(MarkSpace::User, Ownership::Override);
    let seen = object(OsStr::new("full"), &overriding);
    assert_eq!((seen.st_mode, seen.st_uid, seen.st_gid), (0o104711, 7, 8));
    let trusted = Dialects::new(MarkSpace::Trusted, Ownership::Real);
    assert_eq!(
        FileType::from_raw_mode(object(name, &trusted).st_mode),
        FileType::RegularFile
    );
}

trait ModeOf {
    fn mode_of(path: &std::path::Path) -> u32;
}

impl ModeOf for fs::Permissions {
    fn mode_of(path: &std::path::Path) -> u32 {
        use std::os::unix::fs::PermissionsExt as _;
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }
}

#[test]
fn internal_names_are_known_by_prefix_with_dot() {
    for (name, internal) in [
        ("trusted.overlay.opaque", true),
        ("trusted.overlay.overlay.opaque", true),
        ("user.overlay.", true),
        ("user.containers.override_stat", true),
        ("user.containers.override_stat2", false),
        ("trusted.overlay", false),
        ("trusted.overlayfs.x", false),
        ("user.overlaY.x", false),
        ("security.capability", false),
    ] {
        assert_eq!(is_internal_xattr(OsStr::new(name)), internal, "{name}");
    }
}
