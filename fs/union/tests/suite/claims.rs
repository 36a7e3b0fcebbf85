//! Rows of the feature table in README.md that no other test is about.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, inotify, renameat_with};
use rustix::io::Errno;

use crate::kit::{Stage, require_root};

#[test]
fn root_fuse_three_dialects_of_whiteout_in_one_mount() {
    require_root();
    let mut stage = Stage::new(
        4,
        "for f in device file attribute stays; do echo x > l1/$f; done; mkdir l1/d l1/o; touch l1/d/low l1/o/low
         mknod l2/device c 0 0; touch l3/.wh.file; mkdir l3/o; touch l3/o/.wh..wh..opq l3/o/new
         setfattr -n trusted.overlay.opaque -v x l4; touch l4/attribute; setfattr -n trusted.overlay.whiteout l4/attribute
         mkdir l4/d; setfattr -n trusted.overlay.opaque -v y l4/d; touch l4/d/new",
    );
    stage.aufs = true;
    let _mounted = stage.mount();
    assert_eq!(
        stage.shell("cd m; ls -A . | xargs; ls d o | xargs"),
        "d o stays\nd: new o: new\n"
    );
    assert_eq!(
        stage.shell(
            "for f in device file attribute; do test ! -e m/$f; echo y > m/$f; cat m/$f; done"
        ),
        "y\ny\ny\n"
    );
}

#[test]
fn root_fuse_holes_and_ranges() {
    require_root();
    let stage = Stage::new(
        1,
        "truncate -s 10M l1/sparse; printf end >> l1/sparse; head -c 1000000 /dev/urandom > l1/full",
    );
    let _mounted = stage.mount();
    stage.shell(
        "cd m; echo more >> sparse; test $(stat -c %b sparse) -lt 100; cmp -n 10485763 sparse ../l1/sparse
         fallocate -p -o 0 -l 500000 full; test $(stat -c %s full) = 1000000; cmp -i 500000 full ../l1/full
         fallocate -l 2000000 full; test $(stat -c %s full) = 2000000; test $(stat -f -c %b .) = $(stat -f -c %b ../u)",
    );
    let sparse = File::open(stage.path("m/sparse")).unwrap();
    let data = rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Data(0)).unwrap();
    assert!(data > 10_000_000, "{data}");
    assert_eq!(
        rustix::fs::seek(&sparse, rustix::fs::SeekFrom::Hole(0)),
        Ok(0)
    );
}

#[test]
fn root_fuse_flags_of_rename() {
    require_root();
    let stage = Stage::new(1, "echo a > l1/a; echo b > l1/b");
    let _mounted = stage.mount();
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, stage.path(from), CWD, stage.path(to), flags)
    };
    assert_eq!(
        rename("m/a", "m/b", RenameFlags::NOREPLACE),
        Err(Errno::EXIST)
    );
    assert_eq!(rename("m/a", "m/b", RenameFlags::EXCHANGE), Ok(()));
    assert_eq!(stage.shell("cat m/a m/b"), "b\na\n");
    assert_eq!(
        rename("m/a", "m/c", RenameFlags::WHITEOUT),
        Err(Errno::INVAL)
    );
}

#[test]
fn root_fuse_numbers_outlive_copy_up_and_remount() {
    require_root();
    let stage = Stage::new(1, "echo f > l1/f; ln l1/f l1/g; mkdir l1/d");
    let numbers =
        || ["f", "g", "d"].map(|name| std::fs::metadata(stage.path("m").join(name)).unwrap().ino());
    let mounted = stage.mount();
    let before = numbers();
    assert_eq!(before[0], before[1]);
    stage.shell("echo more >> m/f; chmod 700 m/d; touch m/d/x");
    assert_eq!(numbers(), before);
    drop(mounted);
    let _mounted = stage.mount();
    assert_eq!(numbers(), before);
    assert_eq!(
        stage.shell("stat -c %h m/g; stat -c %d m m/f m/d | sort -u | wc -l"),
        "2\n1\n"
    );
}

/// True if nobody else holds the lock.
fn lockable(path: &Path) -> bool {
    let file = File::open(path).unwrap();
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Locks and watches belong to the kernel's inode. A small lower file keeps its own over a copy-up; a large one that
/// somebody reads by passthrough at that moment gets another. The second half is a deviation.
#[test]
fn root_fuse_locks_and_watches_over_a_copy_up() {
    require_root();
    let stage = Stage::new(
        1,
        "echo x > l1/small; for f in large idle; do head -c 1000000 /dev/zero > l1/$f; done",
    );
    let _mounted = stage.mount();
    let watch = |name: &str| {
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(
            &watch,
            stage.path("m").join(name),
            inotify::WatchFlags::MODIFY,
        )
        .unwrap();
        watch
    };
    for (name, read, kept) in [
        ("small", true, true),
        ("idle", false, true),
        ("large", true, false),
    ] {
        let path = stage.path("m").join(name);
        let watch = watch(name);
        let reader = read.then(|| File::open(&path).unwrap());
        if let Some(reader) = &reader {
            flock(reader, FlockOperation::LockExclusive).unwrap();
            assert!(!lockable(&path), "{name}");
        }
        stage.shell(&format!("echo more >> m/{name}; echo more >> m/{name}"));
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let seen = inotify::Reader::new(&watch, &mut buffer).next().is_ok();
        assert_eq!(seen, kept, "{name}: the watch");
        if read {
            assert_eq!(!lockable(&path), kept, "{name}: the lock");
        }
    }
}
