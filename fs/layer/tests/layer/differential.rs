//! The same tree through other people's tars: what they write we extract as they do and replay byte for byte; what we
//! write they read.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use mille_layer::encode::Encoder;
use mille_layer::walk::write_tar;
use mille_layer::{Dialects, MarkSpace, Ownership};

use crate::kit::{Layer, as_root, describe, get_xattr, plain, round_trip};

fn run(command: &mut Command) -> Vec<u8> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {} {said}", output.status);
    output.stdout
}

/// A tree with something of everything; special files and owners need root.
fn make_tree(root: &Path) {
    let dir = |path: &str, mode: u32| {
        fs::create_dir(root.join(path)).unwrap();
        fs::set_permissions(root.join(path), Permissions::from_mode(mode)).unwrap();
    };
    let file = |path: &str, content: &[u8], mode: u32| {
        fs::write(root.join(path), content).unwrap();
        fs::set_permissions(root.join(path), Permissions::from_mode(mode)).unwrap();
    };
    dir("usr", 0o755);
    dir("usr/bin", 0o755);
    dir("tmp", 0o1777);
    dir("private", 0o700);
    file("usr/bin/tool", &vec![0xfe; 100_000], 0o755);
    file("usr/bin/suid", b"#!", 0o4755);
    file("empty", b"", 0o600);
    file("exactly512", &[b'x'; 512], 0o644);
    file("private/secret", b"s", 0o400);
    fs::write(
        root.join(std::ffi::OsStr::from_bytes(b"odd \xff\n\t name")),
        "odd",
    )
    .unwrap();
    let long = format!("private/{}", "long-".repeat(50));
    dir(&long, 0o755);
    file(&format!("{long}/{}", "n".repeat(250)), b"long", 0o644);
    fs::hard_link(root.join("usr/bin/tool"), root.join("usr/bin/tool2")).unwrap();
    symlink("../usr/bin/tool", root.join("tmp/link")).unwrap();
    symlink("t".repeat(180), root.join("tmp/longlink")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 2 << 20).unwrap();
    run(Command::new("mkfifo").arg(root.join("tmp/fifo")));
    let past = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 0);
    fs::File::open(root.join("empty"))
        .unwrap()
        .set_modified(past)
        .unwrap();
}

fn make_root_tree(root: &Path) {
    make_tree(root);
    run(Command::new("mknod")
        .arg(root.join("tmp/null"))
        .args(["c", "1", "3"]));
    std::os::unix::fs::chown(root.join("private/secret"), Some(1000), Some(2_500_000)).unwrap();
    std::os::unix::fs::lchown(root.join("tmp/link"), Some(12), Some(34)).unwrap();
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(
        root.join("usr/bin/tool"),
        "security.capability",
        capability,
        flags,
    )
    .unwrap();
    rustix::fs::setxattr(root.join("usr"), "user.comment", b"a\nb", flags).unwrap();
}

/// Tree lines without what the format at hand does not carry: `nsec`, and a directory's time, which the reader's own
/// way of extracting may have changed.
fn comparable(root: &Path, whole_seconds: bool) -> Vec<String> {
    describe(root)
        .into_iter()
        .map(|line| {
            let (head, tail) = line
                .split_once('.')
                .filter(|_| whole_seconds)
                .unwrap_or((&line, ""));
            let tail = if whole_seconds {
                tail.get(9..).unwrap_or_default()
            } else {
                tail
            };
            format!("{head}{tail}")
        })
        .collect()
}

#[test]
fn root_gnu_tar_in_every_format_extracts_alike_and_replays() {
    let tree = tempfile::tempdir().unwrap();
    make_root_tree(tree.path());
    fs::set_permissions(tree.path(), Permissions::from_mode(0o755)).unwrap();
    for (format, sub_second, options) in [
        ("gnu", false, vec!["--format=gnu", "--sparse"]),
        ("oldgnu", false, vec!["--format=oldgnu", "--sparse"]),
        (
            "posix",
            true,
            vec![
                "--format=posix",
                "--xattrs",
                "--xattrs-include=*",
                "--sparse",
            ],
        ),
        (
            "posix 0.0",
            true,
            vec!["--format=posix", "--sparse", "--sparse-version=0.0"],
        ),
        (
            "posix 0.1",
            true,
            vec!["--format=posix", "--sparse", "--sparse-version=0.1"],
        ),
        ("one block records", false, vec!["-b1"]),
    ] {
        let mut tar = Command::new("tar");
        let bytes = run(tar
            .args(["-c", "--numeric-owner"])
            .args(options)
            .arg("-C")
            .arg(tree.path())
            .arg("."));
        let (layer, _) = round_trip(&bytes, &as_root());
        assert_eq!(
            comparable(&layer.root(), !sub_second),
            comparable(tree.path(), !sub_second),
            "{format}"
        );
        if format == "posix" {
            assert!(get_xattr(&layer.path("usr/bin/tool"), "security.capability").is_some());
            assert_eq!(
                get_xattr(&layer.path("usr"), "user.comment").unwrap(),
                b"a\nb"
            );
        }
        use std::os::unix::fs::MetadataExt as _;
        if format != "one block records" {
            assert!(
                layer.path("sparse").metadata().unwrap().blocks() < 100,
                "{format}: holes"
            );
        }
    }
}

const PYTHON_WRITES: &str = "
import sys, tarfile, os
formats = {'ustar': tarfile.USTAR_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}
with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=formats[sys.argv[1]]) as t:
    os.chdir(sys.argv[2])
    t.add('.')
";

#[test]
fn root_python_and_busybox_extract_alike_and_replay() {
    let tree = tempfile::tempdir().unwrap();
    make_root_tree(tree.path());
    for format in ["gnu", "pax"] {
        let bytes = run(Command::new("python3")
            .args(["-c", PYTHON_WRITES, format])
            .arg(tree.path()));
        let (layer, _) = round_trip(&bytes, &as_root());
        let whole = format != "pax";
        // Python rounds times to what its floats hold.
        if whole {
            assert_eq!(
                comparable(&layer.root(), whole),
                comparable(tree.path(), whole),
                "{format}"
            );
        } else {
            assert_eq!(describe(&layer.root()).len(), describe(tree.path()).len());
        }
    }
    let bytes = run(Command::new("busybox")
        .args(["tar", "-c", "-f", "-", "-C"])
        .arg(tree.path())
        .arg("."));
    let (layer, _) = round_trip(&bytes, &as_root());
    let paths = |root: &Path| -> Vec<String> {
        let first = |line: String| line.split(' ').next().map(str::to_owned);
        describe(root).into_iter().filter_map(first).collect()
    };
    assert_eq!(paths(&layer.root()), paths(tree.path()));
}

/// Extracts with another program into a fresh directory.
fn extracted_by(bytes: &[u8], command: &mut Command) -> tempfile::TempDir {
    use std::io::Write as _;
    let out = tempfile::tempdir().unwrap();
    let mut child = command
        .current_dir(out.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.is_empty(),
        "{command:?}: {said}"
    );
    out
}

const PYTHON_READS: &str = "
import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode='r|').extractall('.', numeric_owner=True)
";

#[test]
fn root_what_we_write_others_read() {
    let mut tree = Layer::new();
    make_root_tree(&tree.root());
    let dialects = Dialects::new(MarkSpace::Trusted, Ownership::Real);
    let encode = |layer: &Layer| {
        let mut encoder = Encoder::new(Vec::new());
        write_tar(layer.fd(), &dialects, &mut encoder).unwrap();
        encoder.finish().unwrap()
    };
    let bytes = encode(&tree);
    assert!(encode(&tree) == bytes, "deterministic");
    let want = describe(&tree.root());

    let gnu = extracted_by(
        &bytes,
        Command::new("tar").args(["-xp", "--numeric-owner", "--xattrs", "--xattrs-include=*"]),
    );
    assert_eq!(describe(gnu.path()), want);
    assert!(get_xattr(&gnu.path().join("usr/bin/tool"), "security.capability").is_some());
    assert_eq!(
        get_xattr(&gnu.path().join("usr"), "user.comment").unwrap(),
        b"a\nb"
    );

    let python = extracted_by(&bytes, Command::new("python3").args(["-c", PYTHON_READS]));
    assert_eq!(describe(python.path()).len(), want.len());
    let content = |root: &Path| fs::read(root.join("usr/bin/tool2")).unwrap();
    assert!(content(python.path()) == content(&tree.root()));

    // And so do we: the same tree, the same tar.
    let (ours, _) = round_trip(&bytes, &as_root());
    assert_eq!(describe(&ours.root()), want);
    assert!(encode(&ours) == bytes);
    tree.stream.clear();
}

#[test]
fn gnu_incremental_archives_are_read() {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("d")).unwrap();
    fs::write(tree.path().join("d/f"), "x").unwrap();
    let bytes = run(Command::new("tar")
        .args(["-c", "-G", "-C"])
        .arg(tree.path())
        .arg("."));
    let (layer, _) = round_trip(&bytes, &plain());
    assert_eq!(fs::read(layer.path("d/f")).unwrap(), b"x");
}
