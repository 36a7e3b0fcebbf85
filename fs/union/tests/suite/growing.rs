//! Large files that are written to while they are still being copied up.
//!
//! The copy is held wherever a test wants something to happen before it is finished, so nothing depends on how fast it is.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mille_union::fuse::{MountOptions, Mounted, Passthrough, mount};
use mille_union::{Access, View};

use crate::kit::{Random, Stage, require_root};
use crate::mapping::Mapping;

const SIZE: usize = 3 << 20;

/// A file with data everywhere, one of a few pieces, and one that ends in the middle of a block.
const LAYER: &str = "head -c 3145728 /dev/urandom > l1/big; truncate -s 3145728 l1/sparse
    dd if=/dev/urandom of=l1/sparse bs=1000 count=3 seek=1500 conv=notrunc status=none
    head -c 3000001 /dev/urandom > l1/odd";

struct Mount {
    stage: Stage,
    view: Arc<View>,
    mounted: Mounted,
}

impl Mount {
    fn new(passthrough: Passthrough) -> Self {
        Self::of(Stage::new(1, LAYER), passthrough)
    }

    fn of(stage: Stage, passthrough: Passthrough) -> Self {
        require_root();
        let view = stage.view();
        let options = MountOptions {
            passthrough,
            grows_from: Some(1),
            ..MountOptions::default()
        };
        let mounted = mount(view.clone(), &stage.path("m"), &options).unwrap();
        Self {
            stage,
            view,
            mounted,
        }
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.stage.path(path)).unwrap()
    }

    fn open(&self, name: &str) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(self.stage.path(name)).unwrap()
    }

    /// Nothing of a file that grows is in the upper.
    fn is_growing(&self, name: &str) -> bool {
        !self.stage.path(name).exists()
    }
}

const BOTH: [Passthrough; 2] = [Passthrough::Auto, Passthrough::Off];

#[test]
fn root_fuse_a_file_is_written_before_it_is_copied() {
    for passthrough in BOTH {
        let it = Mount::new(passthrough);
        let lowers = it.stage.lowers_fingerprint();
        let mut wanted = it.read("l1/odd");
        let before = fs::metadata(it.stage.path("m/odd")).unwrap();
        let held = it.view.hold_growth();
        let file = OpenOptions::new()
            .append(true)
            .read(true)
            .open(it.stage.path("m/odd"))
            .unwrap();
        use std::io::Write;
        (&file).write_all(b"appended").unwrap();
        wanted.extend_from_slice(b"appended");
        let second = it.open("m/odd");
        second.write_all_at(b"middle", 1_234_567).unwrap();
        wanted[1_234_567..1_234_573].copy_from_slice(b"middle");
        assert!(it.is_growing("u/odd"));
        assert!(it.read("m/odd") == wanted, "while it grows");
        drop((file, second));
        assert!(it.read("m/odd") == wanted, "closed");
        let shown = fs::metadata(it.stage.path("m/odd")).unwrap();
        assert_eq!(
            (shown.len(), shown.ino()),
            (wanted.len() as u64, before.ino())
        );
        assert!(shown.modified().unwrap() > before.modified().unwrap());
        drop(held);
        File::open(it.stage.path("m/odd"))
            .unwrap()
            .sync_all()
            .unwrap();
        assert!(it.read("u/odd") == wanted && it.read("m/odd") == wanted);
        let after = fs::metadata(it.stage.path("m/odd")).unwrap();
        assert_eq!(
            (after.len(), after.ino(), after.modified().unwrap()),
            (shown.len(), shown.ino(), shown.modified().unwrap())
        );
        assert_eq!(it.stage.lowers_fingerprint(), lowers);
    }
}

#[test]
fn root_fuse_a_file_that_is_opened_and_not_written_keeps_its_time() {
    let it = Mount::new(Passthrough::Auto);
    let before = fs::metadata(it.stage.path("m/sparse")).unwrap();
    drop(it.open("m/sparse"));
    it.view.settle_all();
    let after = fs::metadata(it.stage.path("u/sparse")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert!(after.blocks() <= before.blocks() + 16, "holes are kept");
    assert!(it.read("u/sparse") == it.read("l1/sparse"));
}

#[test]
fn root_fuse_who_reads_the_lower_goes_on_and_who_comes_sees_what_is_written() {
    for passthrough in BOTH {
        let it = Mount::new(passthrough);
        let old = it.read("l1/big");
        let reader = File::open(it.stage.path("m/big")).unwrap();
        let mapping = Mapping::new(&reader, false);
        assert_eq!(mapping.byte(0), old[0]);
        let held = it.view.hold_growth();
        let writer = it.open("m/big");
        let map = Mapping::new(&writer, true);
        map.store(5, !old[5]);
        writer.write_all_at(&[!old[0]], 0).unwrap();
        writer
            .write_all_at(&[!old[SIZE - 1]], SIZE as u64 - 1)
            .unwrap();
        assert_eq!(map.byte(0), !old[0]);
        let new = File::open(it.stage.path("m/big")).unwrap();
        let mut seen = vec![0; 6];
        new.read_exact_at(&mut seen, 0).unwrap();
        assert_eq!((seen[0], seen[1], seen[5]), (!old[0], old[1], !old[5]));
        let direct = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(it.stage.path("m/big"));
        drop(direct.unwrap());
        assert!(it.is_growing("u/big"));
        drop(held);
        writer.sync_all().unwrap();
        let whole = it.read("u/big");
        assert_eq!((whole[0], whole[1], whole[5]), (!old[0], old[1], !old[5]));
        assert!(it.read("m/big") == whole && it.read("l1/big") == old);
        let mut seen = [0];
        reader.read_exact_at(&mut seen, 0).unwrap();
        let coherent = passthrough == Passthrough::Off;
        assert_eq!(seen[0], if coherent { !old[0] } else { old[0] });
    }
}

/// What needs the whole file waits for it, and what does not does not.
#[test]
fn root_fuse_what_needs_the_whole_file_waits_for_it() {
    type Act = fn(&Path, &File);
    let waiting: [(&str, Act); 9] = [
        ("fsync", |_, file| file.sync_all().unwrap()),
        ("fdatasync", |_, file| file.sync_data().unwrap()),
        ("chmod", |path, _| {
            fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
        }),
        ("truncate", |_, file| file.set_len(100).unwrap()),
        ("open truncated", |path, _| {
            drop(
                OpenOptions::new()
                    .write(true)
                    .truncate(true)
                    .open(path)
                    .unwrap(),
            );
        }),
        ("rename", |path, _| {
            fs::rename(path, path.with_file_name("new")).unwrap();
        }),
        ("link", |path, _| {
            fs::hard_link(path, path.with_file_name("new")).unwrap();
        }),
        ("utimes", |_, file| {
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        }),
        ("fallocate", |_, file| {
            rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, 9 << 20).unwrap();
        }),
    ];
    for (what, act) in waiting {
        let it = Mount::new(Passthrough::Auto);
        let path = it.stage.path("m/big");
        let mut wanted = it.read("l1/big");
        let held = it.view.hold_growth();
        let file = it.open("m/big");
        file.write_all_at(b"written", 1 << 20).unwrap();
        wanted[1 << 20..(1 << 20) + 7].copy_from_slice(b"written");
        std::thread::scope(|scope| {
            let (path, file) = (&path, &file);
            let acting = scope.spawn(move || act(path, file));
            // Looking and reading go on meanwhile.
            let until = Instant::now() + Duration::from_millis(50);
            while Instant::now() < until {
                assert_eq!(fs::metadata(path).unwrap().len(), SIZE as u64, "{what}");
                let mut part = [0; 7];
                file.read_exact_at(&mut part, 1 << 20).unwrap();
                assert_eq!(&part, b"written", "{what}");
            }
            assert!(!acting.is_finished(), "{what}");
            drop(held);
        });
        it.view.settle_all();
        let name = if what == "rename" { "u/new" } else { "u/big" };
        let now = it.read(name);
        let length = match what {
            "truncate" => 100,
            "open truncated" => 0,
            _ => SIZE,
        };
        assert!(now[..length] == wanted[..length], "{what}");
        let rest = if what == "fallocate" { 9 << 20 } else { length };
        assert_eq!(now.len(), rest, "{what}");
    }
}

#[test]
fn root_fuse_a_growing_file_can_be_removed_and_replaced() {
    for replace in [false, true] {
        let it = Mount::new(Passthrough::Auto);
        let mut wanted = it.read("l1/big");
        let held = it.view.hold_growth();
        let file = it.open("m/big");
        file.write_all_at(b"written", 77).unwrap();
        wanted[77..84].copy_from_slice(b"written");
        if replace {
            fs::write(it.stage.path("m/other"), "other").unwrap();
            fs::rename(it.stage.path("m/other"), it.stage.path("m/big")).unwrap();
        } else {
            fs::remove_file(it.stage.path("m/big")).unwrap();
        }
        drop(held);
        file.sync_all().unwrap();
        file.write_all_at(b"more", 99).unwrap();
        wanted[99..103].copy_from_slice(b"more");
        let mut seen = vec![0; SIZE];
        file.read_exact_at(&mut seen, 0).unwrap();
        assert!(seen == wanted);
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        drop(file);
        let found = fs::read(it.stage.path("m/big"));
        match replace {
            true => assert_eq!(found.unwrap(), b"other"),
            false => assert_eq!(found.unwrap_err().kind(), std::io::ErrorKind::NotFound),
        }
        assert_eq!(it.stage.shell("ls w/work").trim(), "#whiteout");
    }
}

/// Random reads and writes by two openers, against the same in memory, while the copy goes on and is held by turns.
#[test]
fn root_fuse_random_writes_to_growing_files_are_all_there() {
    for (seed, passthrough) in BOTH.into_iter().enumerate() {
        let it = Mount::new(passthrough);
        let mut random = Random(seed as u64 + 71);
        for name in ["big", "sparse", "odd"] {
            let mut wanted = it.read(&format!("l1/{name}"));
            let mut held = Some(it.view.hold_growth());
            let files = [it.open(&format!("m/{name}")), it.open(&format!("m/{name}"))];
            for _ in 0..300 {
                let file = &files[random.index(2)];
                let at = random.index(wanted.len() + 5000);
                let most = [300_000, 5000, 5000, 5000][random.index(4)];
                let length = 1 + random.index(most);
                match random.below(20) {
                    0 => held = None,
                    1 if held.is_none() => held = Some(it.view.hold_growth()),
                    2..=9 => {
                        let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
                        file.write_all_at(&bytes, at as u64).unwrap();
                        wanted.resize(wanted.len().max(at + length), 0);
                        wanted[at..at + length].copy_from_slice(&bytes);
                    }
                    _ => {
                        let mut bytes = vec![0; length];
                        let got = file.read_at(&mut bytes, at as u64).unwrap();
                        let end = wanted.len().min(at + length);
                        assert_eq!(got, end.saturating_sub(at));
                        assert!(got == 0 || bytes[..got] == wanted[at..end]);
                        assert_eq!(file.metadata().unwrap().len(), wanted.len() as u64);
                    }
                }
            }
            drop(held);
            drop(files);
            assert!(it.read(&format!("m/{name}")) == wanted, "{name}");
            it.view.settle_all();
            assert!(it.read(&format!("u/{name}")) == wanted, "{name}");
            assert!(it.read(&format!("m/{name}")) == wanted, "{name}");
        }
    }
}

#[test]
fn root_fuse_no_room_for_the_copy_is_said_when_it_is_opened() {
    require_root();
    let stage = Stage::new(1, LAYER);
    stage.shell("mkdir small; mount -t tmpfs -o size=2m none small; rmdir u w; mkdir small/u small/w; ln -s small/u u; ln -s small/w w");
    let it = Mount::of(stage, Passthrough::Auto);
    let opened = OpenOptions::new().write(true).open(it.stage.path("m/big"));
    assert_eq!(opened.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    assert!(it.read("m/big") == it.read("l1/big"));
    assert_eq!(
        it.stage.shell("ls u w/work").trim(),
        "u:\n\nw/work:\n#whiteout"
    );
    // What fits is written, and takes no more room then.
    let file = it.open("m/sparse");
    file.write_all_at(b"written", 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    drop(it.mounted);
    drop(it.view);
}

#[test]
fn root_fuse_an_unmount_waits_for_what_grows() {
    let it = Mount::new(Passthrough::Auto);
    let mut wanted = it.read("l1/big");
    let holder = it.view.clone();
    let held = holder.hold_growth();
    let file = it.open("m/big");
    file.write_all_at(b"written", 7).unwrap();
    wanted[7..14].copy_from_slice(b"written");
    drop(file);
    let Mount {
        stage,
        view,
        mounted,
    } = it;
    std::thread::scope(|scope| {
        let gone = scope.spawn(move || drop(mounted));
        // So does who wants to look at the upper, or to take it over.
        let looks = scope.spawn(|| {
            let view = stage.try_view(Access::Observe).unwrap();
            crate::kit::bytes(&view, "big")
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!gone.is_finished() && !looks.is_finished());
        assert!(!stage.path("u/big").exists());
        drop(held);
        assert!(looks.join().unwrap() == wanted);
    });
    drop((view, holder));
    assert!(fs::read(stage.path("u/big")).unwrap() == wanted);
    let again = stage.mount();
    assert!(fs::read(stage.path("m/big")).unwrap() == wanted);
    drop(again);
}

/// A lower that can no longer be read: who has written is told, and the file is as it was.
#[test]
fn root_fuse_a_copy_that_fails_is_told_to_who_has_written() {
    let it = Mount::new(Passthrough::Off);
    let old = it.read("l1/big");
    let held = it.view.hold_growth();
    let file = it.open("m/big");
    file.write_all_at(b"written", 7).unwrap();
    // Somebody takes the name's place in the upper, so that the copy cannot enter it.
    fs::write(it.stage.path("u/big"), "foreign").unwrap();
    drop(held);
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    fs::remove_file(it.stage.path("u/big")).unwrap();
    assert_eq!(
        file.write_at(b"more", 0).unwrap_err().raw_os_error(),
        Some(libc::EIO)
    );
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    let anew = OpenOptions::new().write(true).open(it.stage.path("m/big"));
    assert_eq!(anew.unwrap_err().raw_os_error(), Some(libc::EIO));
    drop(file);
    assert!(it.read("m/big") == old, "as in the layer");
    let until = Instant::now() + Duration::from_secs(30);
    // Who has written is told before the rest of the copy is gone.
    while it.stage.shell("ls w/work").trim() != "#whiteout" {
        assert!(Instant::now() < until, "the copy stays");
    }
    // The kernel tells of the last close when it has time.
    let again = loop {
        match OpenOptions::new().write(true).open(it.stage.path("m/big")) {
            Ok(again) => break again,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    };
    again.write_all_at(b"written", 7).unwrap();
    again.sync_all().unwrap();
    assert_eq!(&it.read("u/big")[7..14], b"written");
}

/// What a killed server leaves is what is on the disk at that moment: a copy of it is looked at later, by the kernel's
/// overlayfs and by a server that takes it over.
#[test]
fn root_fuse_whoever_finds_an_unfinished_copy_finds_the_old_file() {
    let it = Mount::new(Passthrough::Auto);
    let mut wanted = it.read("l1/big");
    let held = it.view.hold_growth();
    let file = it.open("m/big");
    file.write_all_at(b"written", 7).unwrap();
    wanted[7..14].copy_from_slice(b"written");
    it.stage
        .shell("ls w/work | grep -q growing; cp -a u u.killed; cp -a w w.killed");
    drop(held);
    file.sync_all().unwrap();
    it.stage.shell("cp -a u u.flushed; cp -a w w.flushed");
    drop(file);
    let Mount {
        stage,
        view,
        mounted,
    } = it;
    drop((mounted, view));
    let old = fs::read(stage.path("l1/big")).unwrap();
    for (which, content) in [("killed", &old), ("flushed", &wanted)] {
        stage.shell(&format!("rm -r u w; mv u.{which} u; mv w.{which} w; mkdir -p w.kernel
            mount -t overlay -o lowerdir=l1,upperdir=u,workdir=w.kernel,redirect_dir=on,metacopy=on overlay m"));
        let kernels = fs::read(stage.path("m/big")).unwrap();
        stage.shell("umount m; rm -r w.kernel");
        assert!(kernels == *content, "{which}");
        let again = stage.mount();
        assert!(
            fs::read(stage.path("m/big")).unwrap() == *content,
            "{which}"
        );
        assert!(!stage.shell("ls w/work").contains("growing"), "{which}");
        drop(again);
    }
}
