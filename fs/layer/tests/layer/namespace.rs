//! Extraction inside a user namespace, where devices cannot be made and only mapped owners exist.

use std::os::unix::fs::FileTypeExt as _;
use std::process::Command;

use mille_layer::extract::ExtractOptions;
use mille_layer::{Dialects, ListedKind, MarkSpace, Opaque, Ownership, list};
use rustix::fs::FileType;

use crate::kit::{Layer, Raw, chain, file, get_xattr, raw, round_trip, symlink, tar};

/// Runs one of the tests below, which are ignored otherwise, as root of a new user namespace with a one-id map.
fn inside(test: &str) {
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("1 passed"), "{said}{complained}");
}

#[test]
fn devices_are_stored_where_they_cannot_be_made() {
    inside("namespace::stored_devices");
}

#[test]
#[ignore = "run inside a user namespace by devices_are_stored_where_they_cannot_be_made"]
fn stored_devices() {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let entries = [
        Raw {
            device: (1, 3),
            ..raw("null", b'3').mode(0o666)
        },
        Raw {
            device: (8, 1),
            ..raw("disk", b'4').mode(0o660)
        }
        .pax("SCHILY.xattr.user.x", "y"),
        raw("pipe", b'6'),
        file("d/.wh.gone", ""),
        file("d/.wh..wh..opq", ""),
        file("cap", "x").pax("SCHILY.xattr.security.capability", capability),
        file("t", "x").pax("SCHILY.xattr.trusted.x", "y"),
        symlink("l", "t"),
    ];
    let options = ExtractOptions::new(MarkSpace::User, Ownership::Real);
    let (layer, done) = round_trip(&tar(&entries), &options);
    assert_eq!(done.skipped_xattrs, 1, "trusted.x only");
    for (path, want) in [
        ("null", "0:0:0666:char-1-3"),
        ("disk", "0:0:0660:block-8-1"),
    ] {
        let value = get_xattr(&layer.path(path), "user.containers.override_stat").unwrap();
        assert_eq!(String::from_utf8(value).unwrap(), want);
    }
    assert_eq!(get_xattr(&layer.path("disk"), "user.x").unwrap(), b"y");
    assert!(get_xattr(&layer.path("cap"), "security.capability").is_some());
    assert!(
        layer
            .path("pipe")
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert!(
        layer
            .path("d/gone")
            .symlink_metadata()
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert_eq!(
        get_xattr(&layer.path("d"), "user.overlay.opaque").unwrap(),
        b"y"
    );
    let dialects = Dialects::new(MarkSpace::User, Ownership::Real);
    let kinds: Vec<_> = list(layer.fd(), Opaque::No, &dialects)
        .unwrap()
        .into_iter()
        .filter(|entry| entry.name == "null" || entry.name == "disk")
        .map(|entry| entry.kind)
        .collect();
    assert!(kinds.contains(&ListedKind::Object(FileType::CharacterDevice)));
    assert!(kinds.contains(&ListedKind::Object(FileType::BlockDevice)));
}

#[test]
fn owners_that_do_not_exist_are_an_error_that_says_so() {
    inside("namespace::unmapped_owner");
}

#[test]
#[ignore = "run inside a user namespace by owners_that_do_not_exist_are_an_error_that_says_so"]
fn unmapped_owner() {
    let options = ExtractOptions::new(MarkSpace::User, Ownership::Real);
    let entries = [Raw {
        ids: (1000, 5),
        ..file("home/f", "x")
    }];
    let error = Layer::new().extract(&tar(&entries), &options).unwrap_err();
    assert_eq!(
        chain(&error),
        "entry \"home/f\": owner 1000:5 does not exist in this user namespace (too few subordinate ids)"
    );
    // Under a one-id map ownership goes into the attribute.
    let options = ExtractOptions::new(MarkSpace::User, Ownership::Override);
    let (layer, _) = round_trip(&tar(&entries), &options);
    let value = get_xattr(&layer.path("home/f"), "user.containers.override_stat").unwrap();
    assert_eq!(value, b"1000:5:0644");
}
