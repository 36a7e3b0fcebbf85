//! Mounts that an image or a volume tries to lead astray.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use mille_tests::Store;
use mille_tests::program::require;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::Verdict;
use crate::attack::{image, sh};

/// A directory of the host into which nothing may ever come.
fn canary(store: &Store) -> PathBuf {
    let directory = store.file("canary");
    std::fs::create_dir(&directory).unwrap();
    directory
}

fn is_untouched(canary: &Path) -> Verdict {
    let found: Vec<_> = std::fs::read_dir(canary).unwrap().flatten().collect();
    Verdict::of(found.is_empty(), format!("on the host: {found:?}"))
}

/// CVE-2019-19921, CVE-2023-27561, CVE-2025-52881: labels and parameters were written to a made-up /proc.
pub(crate) fn mount_point_is_a_link(store: &Store) -> Verdict {
    image(store, "rm -rf proc; ln -s data proc", &[]);
    let script = "[ ! -L /proc ] || echo link; [ ! -e /data/self ] || echo elsewhere";
    let seen = store
        .mille(["run", "--rm", "evil", "sh", "-c", script])
        .out();
    Verdict::of(seen.is_empty(), seen)
}

/// CVE-2023-28642, CVE-2019-16884: a volume in place of procfs.
pub(crate) fn volume_over_proc(store: &Store) -> Verdict {
    std::fs::create_dir(store.file("volume")).unwrap();
    let volume = store.file("volume").display().to_string();
    let mut verdict = Verdict::Holds;
    for target in ["/proc", "/proc/self", "/data/../proc/sys"] {
        verdict = verdict.and(|| {
            let ran = sh(store, &format!("-v {volume}:{target}"), "echo ran");
            Verdict::of(ran.is_empty(), format!("{target}: {ran}"))
        });
    }
    verdict
}

/// CVE-2024-45310 and CVE-2022-23648: what is made for a mount is made in the container.
pub(crate) fn links_to_the_host(store: &Store) -> Verdict {
    let canary = canary(store);
    std::fs::write(store.file("file"), "").unwrap();
    image(store, &format!("ln -s {} out", canary.display()), &[]);
    let (file, directory) = (store.file("file"), store.file(""));
    let binds = format!(
        "-v {}:/out/file -v {}:/out/directory --tmpfs /out/tmpfs",
        file.display(),
        directory.display()
    );
    store.line(&format!("run --rm {binds} evil true"));
    is_untouched(&canary).and(|| kernel_directories_are_links(store, &canary))
}

/// CVE-2024-45310, CVE-2026-41579, CVE-2026-47766: what is made at every start is made where the image's /dev, /dev/pts,
/// /sys, /etc or /run lead.
fn kernel_directories_are_links(store: &Store, canary: &std::path::Path) -> Verdict {
    let canary = canary.display();
    for (image, links) in [
        (
            "links",
            "for name in dev sys etc run; do rm -rf $name; ln -s $out $name; done",
        ),
        (
            "pts",
            "rm -rf dev; mkdir dev; ln -s $out dev/pts; ln -s $out dev/shm; ln -s $out/null dev/null",
        ),
    ] {
        let script = format!(
            "set -e; out={canary}; mkdir {image}; tar -C {image} -xf bb.tar; (cd {image}; {links}); \
             tar -C {image} --numeric-owner -cf {image}.tar .; \"$mille\" import {image}.tar {image}"
        );
        store.script(&script).ok();
        store.line(&format!(
            "run --rm -d -t --device /dev/null:/dev/made -w /run/made {image} true"
        ));
        store.line(&format!(
            "run --rm --tmpfs /run/x -v vol:/dev/vol {image} true"
        ));
    }
    is_untouched(std::path::Path::new(&canary.to_string()))
}

/// CVE-2021-30465: a volume in which a directory turns into a link to the host and back while another volume is mounted
/// in it.
pub(crate) fn links_that_are_swapped(store: &Store) -> Verdict {
    let canary = canary(store);
    let volume = store.file("volume");
    let (a, b) = (volume.join("a"), volume.join("b"));
    std::fs::create_dir_all(&a).unwrap();
    std::os::unix::fs::symlink(&canary, &b).unwrap();
    let binds = format!(
        "-v {}:/vol -v {}:/vol/a/x",
        volume.display(),
        store.file("tree").display()
    );
    std::fs::create_dir(store.file("tree")).unwrap();
    let stop = AtomicBool::new(false);
    let tries = if store.is_weakened() { 200 } else { 10 };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let mut verdict = Verdict::Holds;
        for _ in 0..tries {
            verdict = verdict.and(|| {
                store.line(&format!("run --rm {binds} bb true"));
                is_untouched(&canary)
            });
            if matches!(verdict, Verdict::Broken(_)) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        verdict
    })
}

/// CVE-2026-55686: a WORKDIR below a link.
pub(crate) fn working_directory_is_a_link(store: &Store) -> Verdict {
    let canary = canary(store);
    // The image has a directory of that name too.
    let script = format!("ln -s {0} out; mkdir -p .{0}", canary.display());
    image(store, &script, &["WORKDIR /out/work"]);
    store.line("run --rm evil true");
    is_untouched(&canary)
}

/// CVE-2025-31133: what hides a file is the host's null device, and not what the container calls so; its mode is not the
/// container's to change.
pub(crate) fn mask_of_the_container(store: &Store) -> Verdict {
    let device = store.file("device");
    std::fs::create_dir(&device).unwrap();
    std::os::unix::fs::symlink("/etc/issue", device.join("null")).unwrap();
    let kinds = sh(
        store,
        &format!("-v {}:/dev", device.display()),
        // The mode it has anyway: should the node be the host's, nothing happens to it.
        "for f in /proc/keys /proc/kcore /proc/interrupts; do \
         [ ! -e $f ] || stat -c %t:%T $f; chmod 666 $f 2>/dev/null && echo $f can be changed; done",
    );
    let kinds: BTreeSet<_> = kinds.lines().collect();
    Verdict::of(kinds == BTreeSet::from(["1:3"]), format!("{kinds:?}"))
}

/// Where file systems are mounted in a container that is started while a system call fails once.
fn mount_points(store: &Store, failing: Option<&str>) -> Option<BTreeSet<String>> {
    let inject = failing
        .map(|rule| format!("strace -f -qq -o /dev/null -e trace=move_mount -e inject={rule}"))
        .unwrap_or_default();
    let outcome = store.script(&format!("{inject} \"$mille\" run --rm bb cat /proc/mounts"));
    let points = outcome.out();
    let points = points.lines().filter_map(|line| line.split(' ').nth(1));
    (outcome.code == 0).then(|| points.map(str::to_owned).collect())
}

/// crun's issues 2262 and 2264: a mount failed, and a container with another tree ran.
pub(crate) fn failing_mounts(store: &Store) -> Verdict {
    require("strace", "strace");
    let whole = mount_points(store, None).unwrap();
    let mut verdict = Verdict::Holds;
    // The first attaches the root; those that follow are devices and control groups.
    for number in [1, 2, 7, 10] {
        let rule = format!("move_mount:error=ELOOP:when={number}");
        verdict = verdict.and(|| match mount_points(store, Some(&rule)) {
            Some(points) => Verdict::of(points == whole, format!("{rule}: {points:?}")),
            None => Verdict::Holds,
        });
    }
    verdict
}
