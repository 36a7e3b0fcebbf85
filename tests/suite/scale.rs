//! Many containers at once: all run, all stop, and nothing of them is left; and what is left by a machine that stopped.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mille_tests::{Store, Who, leftovers};

/// Calls `work` with every number below `count`, by `at_once` callers.
fn shared_out(count: usize, at_once: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    work(number);
                }
            });
        }
    });
}

fn many(who: Who, count: usize, at_once: usize) {
    let store = Store::with_busybox(who);
    let name = |number: usize| format!("many{number}");
    shared_out(count, at_once, |number| {
        let (name, line) = (name(number), "sh -c 'echo $$; exec sleep 1000'");
        let script = format!("\"$mille\" run -d --name {name} bb {line}");
        assert_eq!(store.script(&script).ok().len(), 64);
    });
    let ids = store.line("ps -q --no-trunc").ok();
    assert_eq!(ids.lines().count(), count, "not all run");
    shared_out(count, at_once, |number| {
        let name = name(number);
        assert_eq!(store.line(&format!("exec {name} echo {name}")).ok(), name);
        assert_eq!(store.line(&format!("logs {name}")).ok(), "1");
    });
    let names: Vec<_> = (0..count).map(name).collect();
    let all = |words: &[&str]| {
        let names = names.iter().map(String::as_str);
        store.mille(words.iter().copied().chain(names)).ok()
    };
    assert_eq!(all(&["stop", "-t", "0"]), names.join("\n"));
    assert_eq!(store.line("ps -q").ok(), "");
    assert_eq!(store.line("ps -aq").ok().lines().count(), count);
    assert_eq!(all(&["rm"]), names.join("\n"));
    nothing_is_left(&store, &ids);
}

/// No mount, no process, no control group, no file of any of these containers.
fn nothing_is_left(store: &Store, ids: &str) {
    assert_eq!(store.line("ps -aq").ok(), "");
    let found = leftovers::below(&store.file(""));
    assert!(found.is_empty(), "{found:#?}");
    // Others work there at the same time, so what is listed may be gone when it is looked at.
    let script = format!(
        "(find /tmp /run {} -maxdepth 4; find /sys/fs/cgroup -type d) 2>/dev/null || true",
        store.root().display()
    );
    let names = mille_tests::program::shell(&script);
    for id in ids.lines() {
        let left: Vec<_> = names.lines().filter(|name| name.contains(id)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn ci_root_fuse_many_containers_leave_nothing() {
    many(Who::Root, 24, 8);
}

#[test]
fn ci_user_fuse_many_containers_leave_nothing() {
    many(Who::Ordinary, 12, 6);
}

#[test]
fn soak_root_fuse_two_hundred_containers() {
    many(Who::Root, 200, 16);
}

#[test]
fn soak_user_fuse_two_hundred_containers() {
    many(Who::Ordinary, 200, 16);
}

/// A machine that stops takes processes, mounts and everything in /run with it.
fn reboot(who: Who) {
    let store = Store::with_busybox(who);
    store.line("run -d --name up bb sleep 1000").ok();
    store.line("run --name done bb true").ok();
    store.line("create --name new bb echo new").ok();
    let ids = store.line("ps -aq --no-trunc").ok();
    leftovers::clear(&store.file(""));
    let run = store.run_directory();
    assert!(run.is_dir(), "{}", run.display());
    std::fs::remove_dir_all(&run).unwrap();
    // A killed monitor can hold its lock until the kernel has taken down the last of it.
    let states = || store.line("ps -a --format {{.Names}}={{.State}}").ok();
    let start = Instant::now();
    while states().contains("running") && start.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(states(), "new=created\ndone=exited\nup=exited");
    let code = store.line("inspect -f {{.State.ExitCode}} up").ok();
    assert_ne!(code, "0", "it did not end by itself");
    store.line("start up").ok();
    assert_eq!(store.line("exec up echo again").ok(), "again");
    assert_eq!(store.line("start -a new").ok(), "new");
    store.line("rm -f up done new").ok();
    nothing_is_left(&store, &ids);
}

#[test]
fn root_fuse_a_reboot_is_recovered_from() {
    reboot(Who::Root);
}

#[test]
fn user_fuse_a_reboot_is_recovered_from() {
    reboot(Who::Ordinary);
}
