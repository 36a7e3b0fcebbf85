//! Walking a layer, and writing it as a tar without a header stream.

use mille_layer::encode::Encoder;
use mille_layer::walk::{TarError, Walk, What, open_file, write_tar};
use mille_layer::{Dialects, Mark, MarkSpace, Ownership};

use crate::kit::{Layer, Raw, dir, file, hardlink, plain, raw, round_trip, symlink, tar};

const USER: Dialects = Dialects {
    space: MarkSpace::User,
    aufs: false,
    ownership: Ownership::Real,
    overrides: true,
    null_devices: false,
};

fn entries() -> Vec<Raw> {
    vec![
        dir("b").pax("SCHILY.xattr.user.x", "y"),
        file("b/z", "zz"),
        hardlink("b/a", "b/z"),
        file("b/.wh.m", ""),
        file("a.txt", "first"),
        dir("a"),
        file("a/.wh..wh..opq", ""),
        file("i/f", "under implied"),
        symlink("l", "a"),
        raw("p", b'6'),
    ]
}

fn lines(layer: &Layer, dialects: &Dialects) -> Vec<String> {
    Walk::new(layer.fd(), dialects)
        .map(|item| {
            let item = item.unwrap();
            let path = String::from_utf8(item.path).unwrap();
            match item.what {
                What::Whiteout => format!("{path} whiteout"),
                What::Object(object) => {
                    let mut line = format!("{path} {:o}", object.stat.st_mode >> 12);
                    for (flag, word) in [(object.opaque, " opaque"), (object.implied, " implied")] {
                        line.push_str(if flag { word } else { "" });
                    }
                    for (name, value) in &object.xattrs {
                        line += &format!(
                            " {}={}",
                            String::from_utf8_lossy(name),
                            String::from_utf8_lossy(value)
                        );
                    }
                    if let Some(target) = &object.target {
                        line += &format!(" -> {}", String::from_utf8_lossy(target));
                    }
                    line
                }
            }
        })
        .collect()
}

#[test]
fn walks_in_order_without_internal_marks() {
    let (layer, _) = round_trip(&tar(&entries()), &plain());
    assert_eq!(
        lines(&layer, &USER),
        [
            " 4 implied",
            "a 4 opaque",
            "a.txt 10",
            "b 4 user.x=y",
            "b/a 10",
            "b/m whiteout",
            "b/z 10",
            "i 4 implied",
            "i/f 10",
            "l 12 -> a",
            "p 1",
        ]
    );
}

#[test]
fn a_layer_becomes_a_tar_that_extracts_alike() {
    let (layer, _) = round_trip(&tar(&entries()), &plain());
    let encode = |layer: &Layer| {
        let mut encoder = Encoder::new(Vec::new());
        write_tar(layer.fd(), &USER, &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let bytes = encode(&layer);
    let (again, _) = round_trip(&bytes, &plain());
    assert_eq!(lines(&again, &USER), lines(&layer, &USER));
    assert!(encode(&again) == bytes);
    let read = |path: &str| {
        std::io::read_to_string(open_file(again.fd(), path.as_bytes()).unwrap()).unwrap()
    };
    assert_eq!(
        (read("b/a"), read("i/f")),
        ("zz".into(), "under implied".into())
    );
    assert!(open_file(again.fd(), b"l").is_err(), "no link is followed");
    assert!(open_file(again.fd(), b"a").is_err());
    assert!(open_file(again.fd(), b"p").is_err());
    assert!(open_file(again.fd(), b"../probe").is_err());
}

#[test]
fn aufs_layers_are_walked_and_written_in_oci_form() {
    let layer = Layer::new();
    std::fs::create_dir(layer.path("d")).unwrap();
    for name in [".wh.x", "d/.wh..wh..opq", "d/f"] {
        std::fs::write(layer.path(name), "").unwrap();
    }
    assert_eq!(
        lines(&layer, &USER.with_aufs()),
        [" 4", "d 4 opaque", "d/f 10", "x whiteout"]
    );
}

#[test]
fn a_layer_that_needs_others_is_refused() {
    let layer = Layer::new();
    std::fs::create_dir(layer.path("d")).unwrap();
    let name = Some(std::ffi::OsStr::new("d"));
    mille_layer::marks::set_mark(layer.fd(), name, MarkSpace::User, Mark::Redirect, b"e").unwrap();
    let error = write_tar(layer.fd(), &USER, &mut Encoder::new(Vec::new())).unwrap_err();
    assert!(matches!(error, TarError::NotAlone { .. }));
    assert_eq!(
        error.to_string(),
        "layer entry \"d\" refers to a layer below"
    );
}

#[test]
fn overridden_devices_are_written_as_devices() {
    let mut options = plain();
    options.ownership = Ownership::Override;
    let (layer, _) = round_trip(
        &tar(&[Raw {
            device: (1, 5),
            ..raw("zero", b'3').mode(0o666)
        }]),
        &options,
    );
    let dialects = Dialects::new(MarkSpace::User, Ownership::Override);
    let mut encoder = Encoder::new(Vec::new());
    write_tar(layer.fd(), &dialects, &mut encoder).unwrap();
    let bytes = encoder.finish().unwrap();
    assert_eq!(
        (bytes[156], &bytes[329..336], &bytes[337..344]),
        (b'3', &b"0000001"[..], &b"0000005"[..])
    );
}

#[test]
fn an_unreadable_directory_ends_the_walk_with_an_error() {
    let layer = Layer::new();
    std::fs::create_dir(layer.path("d")).unwrap();
    let mut walk = Walk::new(layer.fd(), &USER);
    assert!(walk.next().unwrap().is_ok());
    std::fs::remove_dir(layer.path("d")).unwrap();
    assert!(walk.next().unwrap().is_ok());
    let error = walk.next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "layer entry \"d\": open directory");
    assert!(walk.next().is_none());
}
