//! The view mounted, as programs see it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use mille_union::fuse::{MountOptions, Passthrough};

use crate::kit::{Stage, require_root};
use crate::mapping::Mapping;

fn open_rw(path: &Path) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

pub(crate) fn without_passthrough() -> MountOptions {
    MountOptions {
        passthrough: Passthrough::Off,
        ..MountOptions::default()
    }
}

/// The first regression test of the design: a reader holds a lower file, with a descriptor and a mapping, and a writer
/// comes. The layer must not change, the writer and all new readers must see what is written, the number must stay.
fn reader_then_writer(size: usize, options: &MountOptions) {
    let stage = Stage::new(
        1,
        &format!("head -c {size} /dev/zero | tr '\\0' a > l1/f; ln l1/f l1/g"),
    );
    let before = stage.lowers_fingerprint();
    let mounted = stage.mount_with(options);
    let path = stage.path("m/f");
    let reader = File::open(&path).unwrap();
    let mapping = Mapping::new(&reader, false);
    assert_eq!(mapping.byte(0), b'a');
    let ino = reader.metadata().unwrap().ino();

    let writer = open_rw(&path);
    writer.write_all_at(b"B", 0).unwrap();
    writer.write_all_at(b"C", size as u64).unwrap();
    writer.sync_all().unwrap();
    let writer_map = Mapping::new(&writer, true);
    writer_map.store(1, b'D');
    assert_eq!(
        std::fs::read(stage.path("l1/f")).unwrap(),
        vec![b'a'; size],
        "the layer"
    );

    for name in ["m/f", "m/g"] {
        let mut seen = Vec::new();
        File::open(stage.path(name))
            .unwrap()
            .read_to_end(&mut seen)
            .unwrap();
        assert_eq!(seen.len(), size + 1, "{name}");
        assert_eq!((seen[0], seen[1], seen[size]), (b'B', b'D', b'C'), "{name}");
        let meta = std::fs::metadata(stage.path(name)).unwrap();
        assert_eq!(
            (meta.ino(), meta.len(), meta.nlink()),
            (ino, size as u64 + 1, 2),
            "{name}"
        );
    }
    // The old reader sees the old bytes or the new ones, never an error.
    let mut byte = [0];
    assert_eq!(reader.read_at(&mut byte, 0).unwrap(), 1);
    assert!(matches!(byte[0], b'a' | b'B'));
    assert!(matches!(mapping.byte(0), b'a' | b'B'));
    assert_eq!(reader.metadata().unwrap().ino(), ino);
    // A second writer, with the first and the reader still there.
    let second = open_rw(&stage.path("m/g"));
    second.write_all_at(b"E", 2).unwrap();
    assert_eq!(writer.read_at(&mut byte, 2).unwrap(), 1);
    assert_eq!(byte[0], b'E');
    // Truncated, replaced and removed under the readers.
    File::create(&path).unwrap();
    assert_eq!(std::fs::metadata(stage.path("m/g")).unwrap().len(), 0);
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(stage.path("m/g")).unwrap();
    assert_eq!(reader.metadata().unwrap().ino(), ino);
    drop((reader, mapping, writer, writer_map, second));
    drop(mounted);
    assert_eq!(stage.lowers_fingerprint(), before);
}

#[test]
fn root_fuse_a_writer_after_a_reader_never_reaches_the_layer() {
    require_root();
    for size in [100, 4 << 20] {
        reader_then_writer(size, &MountOptions::default());
        reader_then_writer(size, &without_passthrough());
    }
}

#[test]
fn root_fuse_a_running_program_is_replaced() {
    require_root();
    let stage = Stage::new(
        1,
        "cp /bin/sleep l1/sleep; head -c 300000 /dev/zero >> l1/sleep",
    );
    let before = stage.lowers_fingerprint();
    let mounted = stage.mount();
    let path = stage.path("m/sleep");
    let mut running = Command::new(&path).arg("100").spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    // As package managers do it.
    std::fs::copy(&path, stage.path("m/sleep.new")).unwrap();
    std::fs::rename(stage.path("m/sleep.new"), &path).unwrap();
    assert!(running.try_wait().unwrap().is_none());
    assert!(Command::new(&path).arg("0").status().unwrap().success());
    running.kill().unwrap();
    running.wait().unwrap();
    drop(mounted);
    assert_eq!(stage.lowers_fingerprint(), before);
}

#[test]
fn root_fuse_direct_io_and_append_go_to_the_upper() {
    require_root();
    for options in [MountOptions::default(), without_passthrough()] {
        let stage = Stage::new(
            1,
            "head -c 1000000 /dev/zero > l1/big; echo small > l1/small",
        );
        let before = stage.lowers_fingerprint();
        let mounted = stage.mount_with(&options);
        let reader = File::open(stage.path("m/big")).unwrap();
        stage.shell(
            "dd if=/dev/urandom of=m/big bs=4096 count=1 oflag=direct conv=notrunc status=none",
        );
        let mut append = OpenOptions::new()
            .append(true)
            .open(stage.path("m/small"))
            .unwrap();
        append.write_all(b"more\n").unwrap();
        assert_eq!(
            std::fs::read(stage.path("m/small")).unwrap(),
            b"small\nmore\n"
        );
        let mut head = [0; 4096];
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(stage.path("m/big"))
            .unwrap();
        direct.read_exact_at(&mut head, 0).unwrap();
        assert_ne!(head, [0; 4096]);
        drop((reader, direct, append));
        drop(mounted);
        assert_eq!(stage.lowers_fingerprint(), before);
    }
}

#[test]
fn root_fuse_an_unlinked_file_lives_for_those_who_hold_it() {
    require_root();
    let stage = Stage::new(1, "echo low > l1/a; echo low > l1/b; mkdir l1/d");
    let mounted = stage.mount();
    for (name, change) in [("m/a", false), ("m/b", true), ("m/new", true)] {
        let path = stage.path(name);
        let file = if name == "m/new" {
            let file = File::create_new(&path).unwrap();
            file.write_all_at(b"low\n", 0).unwrap();
            drop(file);
            open_rw(&path)
        } else if change {
            open_rw(&path)
        } else {
            File::open(&path).unwrap()
        };
        std::fs::remove_file(&path).unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!((meta.nlink(), meta.len()), (0, 4), "{name}");
        file.set_permissions(PermissionsExt::from_mode(0o600))
            .unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{name}");
        if change {
            file.write_all_at(b"HIGH", 0).unwrap();
            file.set_len(2).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 2);
        }
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(byte[0], if change { b'H' } else { b'l' }, "{name}");
        assert!(!path.exists());
        File::create_new(&path).unwrap();
    }
    // A directory that is somebody's working directory.
    stage.shell("cd m/d; rmdir ../d; test $(stat -c %h .) = 0; ls -A . ; no touch x 2>/dev/null; no mkdir y 2>/dev/null");
    drop(mounted);
    assert_eq!(stage.shell("find w/work -name '#[0-9a-f]*' | wc -l"), "0\n");
}

#[test]
fn root_fuse_numbers_of_a_listing_are_those_of_stat() {
    require_root();
    let stage = Stage::new(
        2,
        "mkdir -p l1/d/s l2/d; for i in a b c; do echo $i > l1/d/$i; done; echo 2 > l2/d/b; ln l1/d/a l1/d/aa; ln -s x l2/d/l",
    );
    let mounted = stage.mount();
    stage.shell("cd m/d; chmod 600 a; echo n > n; mv c cc; mkdir nd; echo x >> b; mv s s2");
    let print = "find m -printf '%p %i\\n' | sort > A; find m -mindepth 1 -exec stat -c '%n %i' {} + | sort > B; grep -v '^m ' A | diff - B";
    stage.shell(print);
    let first = stage.shell("cat B");
    drop(mounted);
    let mounted = stage.mount();
    stage.shell("ls -fR m > /dev/null");
    stage.shell(print);
    // What cannot carry its number keeps it only during a mount: here that is nothing, as root.
    assert_eq!(stage.shell("cat B"), first);
    drop(mounted);
}

#[test]
fn ci_root_fuse_a_large_directory_is_listed_once_and_emptied() {
    require_root();
    let stage = Stage::new(
        1,
        "mkdir l1/d; cd l1/d; seq -f 'low%g' 1 5000 | xargs touch",
    );
    let mounted = stage.mount();
    stage.shell(
        "cd m/d; seq -f 'new%g' 1 5000 | xargs touch; ls -f | sort | uniq -d | grep . && exit 1; \
         test $(ls | wc -l) = 10000; rm low1??; test $(ls | wc -l) = 9900; cd ..; rm -r d; test ! -e d",
    );
    drop(mounted);
    let mounted = stage.mount();
    stage.shell("test -z \"$(ls -A m)\"");
    drop(mounted);
}

#[test]
fn root_fuse_new_objects_belong_to_their_makers() {
    require_root();
    let stage = Stage::new(
        1,
        "mkdir -m 1777 l1/t; mkdir -m 2775 l1/sg; chown 0:50 l1/sg; mkdir l1/acl; touch l1/t/gone; mkdir l1/t/gonedir; setfacl -d -m u:1234:rwx,g::rx,o::- l1/acl; touch l1/acl/over",
    );
    let mounted = stage.mount();
    stage.shell(
        "chmod 755 .; rm m/t/gone m/acl/over; rmdir m/t/gonedir
         as() { setpriv --reuid 1000 --regid 77 --clear-groups bash -euc \"umask 027; $1\"; }
         as 'cd m/t; touch f; mkdir d; ln -s x l; mkfifo p; touch gone; mkdir gonedir'
         for x in f d l p gone gonedir; do test $(stat -c %u:%g m/t/$x) = 1000:77; done
         test $(stat -c %a m/t/f m/t/gone m/t/d m/t/gonedir | xargs | tr ' ' ,) = 640,640,750,750
         chmod 777 m/sg; chmod g+s m/sg; as 'cd m/sg; touch f; mkdir d'
         test $(stat -c %u:%g:%a m/sg/f m/sg/d | xargs | tr ' ' ,) = 1000:50:640,1000:50:2750
         chmod 777 m/acl; as 'cd m/acl; touch new over; mkdir d'
         for x in new over; do getfacl -cn m/acl/$x | grep -q '^user:1234:rwx'; getfacl -cn m/acl/$x | grep -q '^mask::rw-'; done
         getfacl -cn m/acl/d | grep -q '^default:user:1234:rwx'
         setfacl -m u:1000:r m/t/f; chown 0:0 m/t/f; chmod 640 m/t/f; as 'cat m/t/f'",
    );
    drop(mounted);
}

#[test]
fn root_fuse_set_id_bits_and_capabilities_go_when_written_by_others() {
    require_root();
    for options in [MountOptions::default(), without_passthrough()] {
        let stage = Stage::new(
            1,
            "echo x > l1/a; echo x > l1/b; chmod 6777 l1/a l1/b; echo x > l1/c; chmod 777 l1/c; setcap cap_net_raw+ep l1/c",
        );
        let mounted = stage.mount_with(&options);
        stage.shell(
            "chmod 755 .
             as() { setpriv --reuid 1000 --regid 77 --clear-groups bash -euc \"$1\"; }
             as 'echo y >> m/a'; test $(stat -c %a m/a) = 777
             as ': > m/b'; test $(stat -c %a m/b) = 777
             getcap m/c | grep -q net_raw; as 'echo y >> m/c'; test -z \"$(getcap m/c)\"
             touch m/r; chmod 6777 m/r; echo root >> m/r; test $(stat -c %a m/r) = 6777
             chown 5 m/r; test $(stat -c %a m/r) = 777",
        );
        drop(mounted);
    }
}

#[test]
fn root_fuse_internal_marks_are_neither_seen_nor_made() {
    require_root();
    let mut stage = Stage::new(
        1,
        "mkdir l1/d; echo x > l1/d/f; setfattr -n user.overlayx -v 1 l1/d/f",
    );
    stage.features.reserve_wh_names = true;
    let mounted = stage.mount();
    stage.shell(
        "cd m; mv d e; chmod 600 e/f; rm -r e; mkdir e; mv e d; touch g
         test -z \"$(getfattr -Rd -m 'overlay' . 2>/dev/null)\"
         no setfattr -n user.containers.override_stat -v 5:5:0777 d 2>/dev/null; test $(stat -c %u d) = 0
         setfattr -n user.overlayx -v y d
         no mknod w c 0 0 2>/dev/null; no touch .wh.x 2>/dev/null; no mv g .wh.g 2>/dev/null; no ln g .wh.g 2>/dev/null; touch .whx",
    );
    drop(mounted);
}

/// An overlay that has our mount as one of its layers marks it as it marks any: its marks are not ours.
#[test]
fn root_fuse_marks_of_another_overlay_are_stored_under_other_names() {
    require_root();
    let stage = Stage::new(
        1,
        "mkdir -p l1/d l1/e; touch l1/d/f; setfattr -n trusted.overlay.overlay.opaque -v y l1/e; touch l1/e/g",
    );
    let mounted = stage.mount();
    stage.shell(
        "cd m; setfattr -n trusted.overlay.opaque -v y d; setfattr -n user.overlay.redirect -v /x d
         setfattr -n trusted.overlay.overlay.metacopy -v '' d/f
         attr() { getfattr -h --absolute-names --only-values -n $1 $2; }
         test $(attr trusted.overlay.opaque d) = y; test $(attr trusted.overlay.opaque e) = y; ls d/f e/g
         getfattr -m overlay d/f | grep -x trusted.overlay.overlay.metacopy; touch e/h
         setfattr -x user.overlay.redirect d; no getfattr -n user.overlay.redirect d 2>/dev/null",
    );
    drop(mounted);
    stage.shell(
        "cd u; getfattr -n trusted.overlay.overlay.opaque d; no getfattr -n trusted.overlay.opaque d 2>/dev/null
         getfattr -n trusted.overlay.overlay.overlay.metacopy d/f; getfattr -n trusted.overlay.overlay.opaque e",
    );
    let _mounted = stage.mount();
    stage.shell("ls m/d/f m/e/g m/e/h");
}

#[test]
fn root_fuse_disk_full_leaves_no_trace() {
    require_root();
    let stage = Stage::new(
        1,
        "head -c 3000000 /dev/urandom > l1/big; ln l1/big l1/link; mkdir small; mount -t tmpfs -o size=1m none small; mkdir small/u small/w; rmdir u w; ln -s small/u u; ln -s small/w w",
    );
    let mounted = stage.mount();
    stage.shell(
        "no bash -c 'echo x >> m/big' 2>/dev/null; cmp m/big l1/big; cmp m/link l1/big; test -z \"$(ls -A small/u)\"; test \"$(ls -A small/w/work)\" = '#whiteout'
         chmod 600 m/big; test $(stat -c %a:%h m/link) = 600:2; no truncate -s 2999999 m/big 2>/dev/null; cmp m/link l1/big; echo ok > m/f; cat m/f",
    );
    drop(mounted);
    stage.shell("umount small");
}
