//! Many callers at once.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mille_union::fuse::{MountOptions, Passthrough};

use crate::kit::{Random, Stage, require_root};

const LAYERS: &str = "
    mkdir -p l1/a/b/c l1/b l2/a/b l2/c; for d in a a/b a/b/c b; do for f in a b c d; do [ -e l1/$d/$f ] || echo $d > l1/$d/$f; done; done
    ln l1/b/d l1/d; ln l1/b/d l1/a/e; head -c 700000 /dev/urandom > l1/a/big; cp l1/a/big l1/b/big; mknod l2/a/d c 0 0; echo 2 > l2/c/x
    setfattr -n trusted.overlay.opaque -v y l2/c";

/// A random path below a directory.
fn random_path(random: &mut Random, root: &Path) -> PathBuf {
    let mut path = root.to_owned();
    for _ in 0..=random.below(3) {
        path.push(["a", "b", "c", "d", "e", "big", "x"][random.index(7)]);
    }
    path
}

/// One random operation; an error that no order of operations explains is a failure.
fn act(random: &mut Random, root: &Path) {
    let (path, other) = (random_path(random, root), random_path(random, root));
    let chosen = random.below(14);
    let result = match chosen {
        0 => fs::create_dir(&path),
        1 => fs::remove_dir(&path),
        2 | 3 => fs::remove_file(&path),
        4 | 5 => fs::rename(&path, &other),
        6 => fs::hard_link(&path, &other),
        7 => fs::set_permissions(&path, PermissionsExt::from_mode(0o700)),
        8 => File::create(&path).map(drop),
        9 | 10 => OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.write_all_at(b"written", random.below(3000))),
        11 => fs::read(&path).map(drop),
        12 => fs::read_dir(&path).map(|entries| entries.map(Result::unwrap).map(drop).collect()),
        _ => OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_len(random.below(5000))),
    };
    if let Err(error) = result {
        let usual = [
            libc::ENOENT,
            libc::EEXIST,
            libc::ENOTDIR,
            libc::EISDIR,
            libc::ENOTEMPTY,
            libc::EINVAL,
            libc::EPERM,
        ];
        let errno = error.raw_os_error().unwrap_or(0);
        // Directories may move so that one ends inside the other: the kernel tells of it as ELOOP or EXDEV to nobody.
        let (path, other) = (path.display(), other.display());
        assert!(
            usual.contains(&errno),
            "{error}: {path} {other} at {chosen}"
        );
    }
}

/// Names, kinds, modes, sizes, link counts and contents of a tree.
fn picture(stage: &Stage) -> String {
    stage.shell(
        "set -o pipefail; cd m; find . -mindepth 1 \\( -type d -printf '%p %y %m %i\\n' -o -printf '%p %y %m %s %n %i %l\\n' \\) | sort; find . -type f | sort | xargs -d '\\n' -r sha256sum",
    )
}

fn crowd(options: &MountOptions, seed: u64) {
    let stage = Stage::new(2, LAYERS);
    let before = stage.lowers_fingerprint();
    let mounted = stage.mount_with(options);
    let root = stage.path("m");
    // A deadlock is a failure, not a test that hangs.
    let done = Arc::new(AtomicBool::new(false));
    let watched = done.clone();
    let abort = stage.path("m").display().to_string();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(120));
        if !watched.load(Ordering::Relaxed) {
            eprintln!("{abort}: stuck");
            std::process::abort();
        }
    });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let root = &root;
            scope.spawn(move || {
                let mut random = Random(seed * 1000 + thread + 1);
                for _ in 0..400 {
                    act(&mut random, root);
                }
            });
        }
    });
    let seen = picture(&stage);
    drop(mounted);
    let mounted = stage.mount();
    let again = picture(&stage);
    let only = |left: &str, right: &str| -> Vec<String> {
        left.lines()
            .filter(|line| !right.lines().any(|other| other == *line))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(
        only(&again, &seen),
        only(&seen, &again),
        "after the next mount, seed {seed}"
    );
    drop(mounted);
    assert_eq!(stage.lowers_fingerprint(), before);
    assert_eq!(
        stage.shell("find w/work -mindepth 1 ! -name '#whiteout'"),
        ""
    );
    done.store(true, Ordering::Relaxed);
}

#[test]
fn root_fuse_a_crowd_leaves_what_each_of_them_saw() {
    require_root();
    for seed in 1..5 {
        crowd(&MountOptions::default(), seed);
        crowd(
            &MountOptions {
                passthrough: Passthrough::Off,
                ..MountOptions::default()
            },
            seed,
        );
    }
}

/// A file with many names comes up by a change of one of them, while somebody looks at the others.
#[test]
fn root_fuse_names_in_the_work_directory_count_for_nobody() {
    const DIRECTORIES: usize = 5;
    const NAMES: usize = 2000;
    require_root();
    let stage = Stage::new(1, "mkdir l1/0 l1/1 l1/2 l1/3 l1/4; echo 1 > l1/0/0");
    let name = |number: usize| format!("{}/{number}", number % DIRECTORIES);
    for number in 1..NAMES {
        fs::hard_link(stage.path("l1/0/0"), stage.path("l1").join(name(number))).unwrap();
    }
    let mounted = stage.mount();
    let links = |number| {
        fs::metadata(stage.path("m").join(name(number)))
            .unwrap()
            .nlink()
    };
    let coming = AtomicBool::new(true);
    let looked_at: Vec<(usize, u64)> = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            // The directory of the change is locked by the kernel.
            (1..NAMES)
                .filter(|number| number % DIRECTORIES != 0)
                .take_while(|_| coming.load(Ordering::Relaxed))
                .map(|number| (number, links(number)))
                .collect()
        });
        fs::rename(stage.path("m/0/0"), stage.path("m/0/other")).unwrap();
        coming.store(false, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    for (number, then) in looked_at {
        assert_eq!((then, links(number)), (NAMES as u64, NAMES as u64));
    }
    drop(mounted);
}

#[test]
fn root_fuse_a_slow_copy_up_stops_nobody_else() {
    require_root();
    let stage = Stage::new(
        1,
        "head -c 400000000 /dev/zero | tr '\\0' x > l1/big; echo 1 > l1/small",
    );
    let mounted = stage.mount_with(&MountOptions {
        grows_from: None,
        ..MountOptions::default()
    });
    let copying = AtomicBool::new(true);
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        // More writers of one file than there are serving threads.
        let writers: Vec<_> = (0..6)
            .map(|at| {
                let path = stage.path("m/big");
                scope.spawn(move || {
                    OpenOptions::new()
                        .write(true)
                        .open(path)
                        .unwrap()
                        .write_all_at(b"y", at)
                        .unwrap();
                })
            })
            .collect();
        let (stage, copying) = (&stage, &copying);
        let watcher = scope.spawn(move || {
            let mut slowest = Duration::ZERO;
            let mut looks = 0;
            while copying.load(Ordering::Relaxed) {
                let start = std::time::Instant::now();
                fs::write(stage.path("m/other"), b"x").unwrap();
                fs::read(stage.path("m/small")).unwrap();
                fs::remove_file(stage.path("m/other")).unwrap();
                slowest = slowest.max(start.elapsed());
                looks += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(
                looks > 3,
                "the copy was too quick to tell anything: {looks}"
            );
            slowest
        });
        for writer in writers {
            writer.join().unwrap();
        }
        copying.store(false, Ordering::Relaxed);
        slowest = watcher.join().unwrap();
    });
    // The disk is shared, the server is not: without threads of its own for the copy this was its whole duration.
    assert!(slowest < Duration::from_millis(900), "{slowest:?}");
    assert_eq!(&fs::read(stage.path("m/big")).unwrap()[..8], b"yyyyyyxx");
    drop(mounted);
}
