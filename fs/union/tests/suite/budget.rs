//! How many requests a piece of work costs its caller: the mount's speed, in numbers that no machine's noise touches.
//!
//! Two columns: with passthrough, as root has it, and without, as in a user namespace. Where a request is left that a
//! native file system would not have, the reason stands beside it.

use std::ffi::OsString;
use std::fs::{DirEntry, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mille_union::fuse::{MountOptions, Mounted, Passthrough, mount};

use crate::kit::{Stage, require_root};
use crate::mounted::without_passthrough;

type Cost = Vec<(&'static str, u64)>;

/// Directory `d` with files that passthrough serves, one that the page cache of the mount serves, and a program.
const LAYER: &str = "mkdir l1/d; for i in 1 2 3; do head -c 300000 /dev/zero > l1/d/$i; done; echo s > l1/d/small; \
                     cp /bin/true l1/d/true; cp /bin/busybox l1/d/busybox";

/// Requests that a piece of work costs its caller, by kind. Nobody waits for RELEASE and FORGET.
fn cost(mounted: &Mounted, work: impl Fn()) -> Cost {
    let before = mounted.requests();
    work();
    let after = mounted.requests().into_iter().zip(before);
    after
        .map(|((kind, after), (_, before))| (kind, after - before))
        .filter(|(kind, n)| *n > 0 && !["release", "forget"].contains(kind))
        .collect()
}

fn sorted(mut cost: Cost) -> Cost {
    cost.sort_unstable();
    cost
}

/// What a piece of work costs must come down to this, on a busy machine after a while. Tried over and over, each time after
/// `prepare`: whoever shares the machine may make the kernel drop what it has cached, at any moment, and then it has to ask
/// again; and as long as the server has not been told that a file was closed, it vouches for nothing.
fn costs(
    mounted: &Mounted,
    want: &[(&'static str, u64)],
    prepare: impl Fn(u32),
    work: impl Fn(u32),
) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let want = sorted(want.to_vec());
    let start = Instant::now();
    for attempt in 0.. {
        prepare(attempt);
        let last = sorted(cost(mounted, || work(attempt)));
        if last == want {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{last:?} instead of {want:?}");
        std::thread::sleep(Duration::from_millis(u64::from(attempt.min(20)) * 10));
    }
}

/// Of work that can be done over and over: what the kernel knows from the time before costs nothing.
fn costs_warm(mounted: &Mounted, want: &[(&'static str, u64)], work: impl Fn()) {
    costs(mounted, want, |_| work(), |_| work());
}

fn stat(path: &Path) {
    std::fs::metadata(path).unwrap();
}

/// open, read, close: no stat in between, as `std::fs::read` has it.
fn read(path: &Path) {
    let mut buffer = vec![0; 1 << 20];
    let mut file = File::open(path).unwrap();
    while file.read(&mut buffer).unwrap() > 0 {}
}

fn walk(dir: &Path) -> u64 {
    let mut dirs = 1;
    for entry in dir.read_dir().unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().is_dir() {
            dirs += walk(&entry.path());
        }
    }
    dirs
}

fn execute(program: &Path) {
    assert!(
        Command::new(program)
            .arg("true")
            .status()
            .unwrap()
            .success()
    );
}

fn reading(options: &MountOptions) {
    let stage = Stage::new(1, LAYER);
    let mounted = stage.mount_with(options);
    let at = |name: &str| stage.path(&format!("m/d/{name}"));
    costs_warm(&mounted, &[], || stat(&at("1")));
    costs_warm(&mounted, &[], || assert!(!at("missing").exists()));
    costs_warm(&mounted, &[], || assert_eq!(walk(&at("")), 1));
    costs_warm(&mounted, &[("open", 1)], || read(&at("2")));
    costs_warm(&mounted, &[("open", 1)], || read(&at("small")));
    // The kernel looks for a file capability at every exec, and remembers nothing.
    let exec = [("open", 1), ("getxattr", 1)];
    for program in ["true", "busybox"] {
        costs_warm(&mounted, &exec, || execute(&at(program)));
    }
}

#[test]
fn root_fuse_budget_of_reading() {
    require_root();
    reading(&MountOptions::default());
    reading(&without_passthrough());
}

/// The first reader of a small lower file gets its bytes with the answer to OPEN, and afterwards the access time need not be
/// asked for.
#[test]
fn root_fuse_budget_of_small_files() {
    require_root();
    let script = "for i in $(seq 0 99); do head -c $((i * 500)) /dev/urandom > l1/$i; done; touch l1/{0..99}";
    for options in [MountOptions::default(), without_passthrough()] {
        let stage = Stage::new(1, script);
        let mounted = stage.mount_with(&options);
        let at = |n: u32| stage.path(&format!("m/{}", n % 100));
        costs(&mounted, &[("open", 1)], |n| stat(&at(n)), |n| read(&at(n)));
        costs(&mounted, &[], |n| read(&at(n)), |n| stat(&at(n)));
        stage.shell("diff -r l1 m");
        // What is written replaces it, be it longer or shorter.
        stage.shell("cd m; for i in {0..99}; do head -c $i /dev/zero > $i; cmp -n $i $i /dev/zero; test $(stat -c %s $i) = $i; done");
    }
}

/// `per_write`: what one write costs.
fn writing(options: &MountOptions, per_write: &[(&'static str, u64)]) {
    let stage = Stage::new(1, LAYER);
    let mounted = stage.mount_with(options);
    let at = |name: &str, n: u32| stage.path(&format!("m/d/{name}{n}"));
    // The kernel drops a directory's attributes whenever a name in it changes, and needs them (default_permissions) at
    // the next step into it.
    let settle = || stat(&stage.path("m/d/1"));
    // A name that was never asked for is looked up first; the capability is asked for once, before the first write.
    let made = [("lookup", 1), ("getxattr", 1), ("create", 1)];
    let made = [&made, per_write].concat();
    let write = |n| std::fs::write(at("new", n), b"x").unwrap();
    costs(&mounted, &made, |_| settle(), write);
    // Names known to be missing are not looked up again.
    let miss = |n| assert!(!at("next", n).exists());
    let create = |n| drop(File::create(at("next", n)).unwrap());
    let prepare = |n| {
        settle();
        miss(n);
    };
    costs(&mounted, &[("create", 1)], prepare, create);

    let file = OpenOptions::new().write(true).open(at("new", 0)).unwrap();
    let write = || file.write_all_at(b"1", 0).unwrap();
    costs_warm(&mounted, per_write, write);

    let make = |n| {
        std::fs::write(at("gone", n), b"x").unwrap();
        stat(&at("gone", n));
    };
    let remove = |n| std::fs::remove_file(at("gone", n)).unwrap();
    costs(&mounted, &[("unlink", 1)], make, remove);
    let make_and_remove = |n| {
        make(n + 100);
        remove(n + 100);
    };
    costs(&mounted, &[("getattr", 1)], make_and_remove, |_| settle());
}

#[test]
fn root_fuse_budget_of_writing() {
    require_root();
    writing(&MountOptions::default(), &[]);
    writing(&without_passthrough(), &[("write", 1)]);
}

/// What was written and closed is known to the kernel like anything else, once it has asked.
#[test]
fn root_fuse_budget_of_stat_after_writing() {
    require_root();
    for options in [MountOptions::default(), without_passthrough()] {
        let stage = Stage::new(1, LAYER);
        let mounted = stage.mount_with(&options);
        let path = stage.path("m/d/new");
        std::fs::write(&path, b"x").unwrap();
        costs_warm(&mounted, &[], || stat(&path));
    }
}

#[test]
fn root_fuse_budget_of_a_cold_walk() {
    require_root();
    let script = "for i in $(seq 100); do mkdir l1/$i; touch l1/$i/{a,b,c,d,e}; done; mkdir u/1; touch u/1/f";
    for options in [MountOptions::default(), without_passthrough()] {
        let stage = Stage::new(2, script);
        let mounted = stage.mount_with(&options);
        let walk = || assert_eq!(walk(&stage.path("m")), 101);
        let cold: u64 = cost(&mounted, walk).iter().map(|(_, n)| n).sum();
        assert!(cold * 10 <= 21 * 101, "{cold} requests");
        costs_warm(&mounted, &[], walk);
    }
}

/// A listing of 32 KiB buffers, each of which holds 195 entries with their attributes.
#[test]
fn root_fuse_budget_of_a_long_listing() {
    require_root();
    let stage = Stage::new(
        1,
        "mkdir l1/d; cd l1/d; seq -f 'name-%04g' 2000 | xargs touch",
    );
    let mounted = stage.mount();
    let cold = cost(&mounted, || assert_eq!(walk(&stage.path("m/d")), 1));
    let listing = cold.iter().find(|(kind, _)| *kind == "readdirplus");
    // The last one says that there is no more.
    assert_eq!(listing.unwrap().1, 2000_u64.div_ceil(195) + 1, "{cold:?}");
    assert!(!cold.contains(&("lookup", 2000)), "{cold:?}");
}

/// Names as a listing tells them, with number and kind.
fn names(dir: &Path) -> Vec<(OsString, u64, FileType)> {
    let told = |entry: io::Result<DirEntry>| {
        let entry = entry.unwrap();
        (entry.file_name(), entry.ino(), entry.file_type().unwrap())
    };
    dir.read_dir().unwrap().map(told).collect()
}

/// Of a directory of thousands only the names are looked for by those who want no more; what is told of them is right.
#[test]
fn root_fuse_budget_of_names_alone() {
    require_root();
    let script = "mkdir l1/d l2/d u/d; cd l1/d; seq -f 'name-%04g' 5000 | xargs touch; for i in {1..300}; do ln -s x link-$i; mkdir dir-$i; done
        ln name-0001 other; cd ../../l2/d; for i in 20{00..99}; do mknod name-$i c 0 0; done; echo 2 | tee name-21{00..99} > /dev/null
        touch ../../u/d/new-{1..300}; cp -r ../../l1/d ../../l1/e";
    for options in [MountOptions::default(), without_passthrough()] {
        let stage = Stage::new(2, script);
        let mounted = stage.mount_with(&options);
        let (dir, other) = (stage.path("m/d"), stage.path("m/e"));
        let reader = || {
            let told = names(&dir);
            assert_eq!(told.len(), 5000 - 100 + 600 + 1 + 300);
            let count = |kind: &str| {
                let cost = cost(&mounted, || {
                    for (name, ino, kind) in &told {
                        let stat = dir.join(name).symlink_metadata().unwrap();
                        assert_eq!((stat.ino(), stat.file_type()), (*ino, *kind), "{name:?}");
                    }
                });
                cost.iter()
                    .find(|(other, _)| *other == kind)
                    .map_or(0, |(_, n)| *n)
            };
            // Nobody asked for what they are before.
            assert!(count("lookup") > 4000);
            // Who asks after the names is told at once the next time.
            let mut last = 0;
            for (name, _, _) in names(&other) {
                last += cost(&mounted, || stat_link(&other.join(&name))).len();
            }
            // The kernel may have dropped some meanwhile.
            assert!(last < 1000, "{last}");
        };
        // A thread that has asked for nothing yet.
        std::thread::scope(|scope| scope.spawn(reader).join().unwrap());
    }
}

fn stat_link(path: &Path) {
    std::fs::symlink_metadata(path).unwrap();
}

/// Layers alone, mounted to be read.
fn mount_image(stage: &Stage, options: MountOptions) -> Mounted {
    let options = MountOptions {
        read_only: true,
        ..options
    };
    mount(stage.base(), &stage.path("m"), &options).unwrap()
}

#[test]
fn root_fuse_budget_of_a_read_only_image() {
    require_root();
    for passthrough in [Passthrough::Auto, Passthrough::Off] {
        let stage = Stage::new(2, LAYER);
        let options = MountOptions {
            passthrough,
            ..MountOptions::default()
        };
        let mounted = mount_image(&stage, options);
        let at = |name: &str| stage.path(&format!("m/d/{name}"));
        for name in ["1", "small", "true"] {
            costs_warm(&mounted, &[], || read(&at(name)));
            costs_warm(&mounted, &[], || stat(&at(name)));
        }
        costs_warm(&mounted, &[("getxattr", 1)], || execute(&at("true")));
        // Asked often enough, the server finds out that there are none.
        ask_for_attributes(&at("1"));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !cost(&mounted, || execute(&at("true"))).is_empty() {
            assert!(
                Instant::now() < deadline,
                "capabilities are still asked for"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// As often as makes the server look whether there are any.
fn ask_for_attributes(path: &Path) {
    let mut value = [0; 16];
    for _ in 0..=1000 {
        assert!(rustix::fs::getxattr(path, "user.none", &mut value).is_err());
    }
}

#[test]
fn root_fuse_attributes_of_a_read_only_image_stay_where_there_are_some() {
    require_root();
    let stage = Stage::new(
        2,
        &format!("{LAYER}; mkdir l2/deep; touch l2/deep/f; setfattr -n user.a -v 1 l2/deep/f"),
    );
    let mounted = mount_image(&stage, MountOptions::default());
    ask_for_attributes(&stage.path("m/d/1"));
    // The search takes a moment.
    std::thread::sleep(Duration::from_millis(300));
    ask_for_attributes(&stage.path("m/d/1"));
    stage.shell("test $(getfattr --only-values -n user.a m/deep/f) = 1");
    drop(mounted);
}

/// Without an OPEN there is nobody to say that a file cannot be written.
#[test]
fn root_fuse_a_read_only_image_remounted_stays_read_only() {
    require_root();
    let stage = Stage::new(2, LAYER);
    let before = stage.lowers_fingerprint();
    let mounted = mount_image(&stage, MountOptions::default());
    stage.shell(
        "cat m/d/small; mount -i -o remount,rw m; no cp /dev/null m/d/small; no sh -c 'echo x >> m/d/small'; no rm m/d/small; \
         no sh -c 'echo x 1<>m/d/1'; test $(cat m/d/small) = s; no truncate -s 1 m/d/1; test $(stat -c %s m/d/1) = 300000",
    );
    drop(mounted);
    assert_eq!(stage.lowers_fingerprint(), before);
}
