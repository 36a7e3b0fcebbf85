//! kill -9 of the command line and of monitors at any moment: the store stays whole, the next command sweeps.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mille_tests::{Store, Who, leftovers};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Runs `command`, kills it with SIGKILL after `delay` if it still lives, and reaps it.
fn kill_after(mut command: Command, delay: Duration) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Delays spread over the whole length of a command, so that each of its steps is hit by some of them.
fn delays(whole: Duration, count: u32) -> impl Iterator<Item = Duration> {
    (0..count).map(move |step| whole * step / count)
}

fn length(store: &Store, args: &[&str]) -> Duration {
    let start = Instant::now();
    store.mille(args).ok();
    start.elapsed()
}

/// After the next command: store whole, nothing mounted, no process.
#[track_caller]
fn recovered(store: &Store) {
    store.line("ps -a").ok();
    store.line("fsck").code(0);
    assert!(
        !store.root().join("staging").exists() || empty(&store.root().join("staging")),
        "staging is not empty"
    );
}

fn empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn ci_root_killed_during_import_and_load() {
    let store = Store::with_busybox(Who::Root);
    let archive = store.file("t.tar");
    store
        .mille(["save", "-o", archive.to_str().unwrap(), "bb"])
        .ok();
    let other = Store::new(Who::Root);
    let args = ["load", "-i", archive.to_str().unwrap()];
    let whole = length(&other, &args);
    other.line("rmi bb").ok();
    for delay in delays(whole * 3 / 2, 24) {
        kill_after(other.command(args), delay);
        recovered(&other);
        other.line("rmi bb");
    }
    other.mille(args).ok();
    assert_eq!(other.line("run --rm bb echo fine").ok(), "fine");
}

#[test]
fn ci_root_fuse_killed_during_run() {
    killed_during_run(Who::Root);
}

#[test]
fn ci_user_fuse_killed_during_run() {
    killed_during_run(Who::Ordinary);
}

fn killed_during_run(who: Who) {
    let store = Store::with_busybox(who);
    let args = ["run", "--rm", "bb", "true"];
    let whole = length(&store, &args);
    for delay in delays(whole * 3 / 2, 24) {
        kill_after(store.command(args), delay);
    }
    // The containers themselves go on without their command line and remove themselves.
    let start = Instant::now();
    while !store.line("ps -q").ok().is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{}",
            store.line("ps -a").out()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    recovered(&store);
}

#[test]
fn root_fuse_a_killed_monitor_takes_its_container_along() {
    killed_monitor(Who::Root);
}

#[test]
fn user_fuse_a_killed_monitor_takes_its_container_along() {
    killed_monitor(Who::Ordinary);
}

/// Whoever makes a mount namespace (a service manager, another container's launcher) has a copy of every mount in it. That
/// must not keep a monitor from ending.
#[test]
fn root_fuse_a_copy_of_the_mount_elsewhere_holds_nobody_up() {
    let store = Store::with_busybox(Who::Root);
    store.line("run -d --name work bb sleep 1000").ok();
    let mut elsewhere = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sleep", "60"])
        .spawn()
        .unwrap();
    let copies = |pid: u32| {
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap_or_default();
        mounts.contains(store.root().to_str().unwrap())
    };
    let start = Instant::now();
    while std::fs::read_link(format!("/proc/{}/ns/mnt", elsewhere.id())).ok()
        == std::fs::read_link("/proc/self/ns/mnt").ok()
    {
        assert!(start.elapsed() < Duration::from_secs(10), "no namespace");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        copies(elsewhere.id()),
        "nothing is copied: the test shows nothing"
    );
    let start = Instant::now();
    store.line("rm -f work").ok();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(store.line("ps -aq").ok(), "");
    elsewhere.kill().unwrap();
    elsewhere.wait().unwrap();
}

fn killed_monitor(who: Who) {
    let store = Store::with_busybox(who);
    store.line("run -d --name victim bb sleep 1000").ok();
    let init: i32 = store
        .mille(["inspect", "-f", "{{.State.Pid}}", "victim"])
        .ok()
        .parse()
        .unwrap();
    kill(monitor_of(init), Signal::SIGKILL).unwrap();
    let start = Instant::now();
    while Path::new(&format!("/proc/{init}")).exists() {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "the container outlives its monitor"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(
        store
            .mille(["inspect", "-f", "{{.State.Status}}", "victim"])
            .ok(),
        "exited"
    );
    assert!(
        leftovers::below(store.root()).is_empty(),
        "{:?}",
        leftovers::below(store.root())
    );
    // It starts again on the same upper layer.
    store.line("start victim").ok();
    assert_eq!(store.line("exec victim echo back").ok(), "back");
    store.line("rm -f victim").ok();
    store.line("fsck").code(0);
}

/// The nearest ancestor of a container's init that is not part of the container: its monitor.
fn monitor_of(init: i32) -> Pid {
    let mut pid = init;
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let parent: i32 = stat
            .rsplit_once(") ")
            .unwrap()
            .1
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        assert!(parent > 1, "no monitor above {init}");
        let same = |file: &str| {
            std::fs::read_link(format!("/proc/{pid}/ns/{file}")).ok()
                == std::fs::read_link(format!("/proc/{parent}/ns/{file}")).ok()
        };
        if !same("pid") {
            return Pid::from_raw(parent);
        }
        pid = parent;
    }
}

#[test]
fn ci_root_fuse_killed_during_commit() {
    let store = Store::with_busybox(Who::Root);
    store
        .mille([
            "run",
            "--name",
            "work",
            "bb",
            "sh",
            "-c",
            "head -c 4m /dev/urandom > /data/noise; rm -r /t/dir",
        ])
        .ok();
    let args = ["commit", "work", "done"];
    let whole = length(&store, &args);
    for delay in delays(whole * 3 / 2, 16) {
        kill_after(store.command(args), delay);
        recovered(&store);
    }
    store.mille(args).ok();
    store
        .mille([
            "run",
            "--rm",
            "done",
            "sh",
            "-c",
            "test -e /data/noise && test ! -e /t/dir",
        ])
        .ok();
}

#[test]
fn ci_root_fuse_killed_while_copying_up() {
    let store = Store::new(Who::Root);
    let tar = store.file("big.tar");
    std::fs::write(store.file("bb.tar"), mille_tests::rootfs::busybox_tar()).unwrap();
    mille_tests::program::shell(&format!(
        "cd $(mktemp -d) && tar -xf {} && head -c 48M /dev/urandom > t/large && tar --numeric-owner -cf {} . && rm -r \"$PWD\"",
        store.file("bb.tar").display(),
        tar.display()
    ));
    store.mille(["import", tar.to_str().unwrap(), "bb"]).ok();
    let want = store
        .mille(["run", "--rm", "bb", "sha256sum", "/t/large"])
        .ok();
    for delay in [0u64, 2, 5, 10, 20, 40, 80, 160] {
        let name = format!("victim{delay}");
        store
            .mille([
                "run",
                "-d",
                "--name",
                &name,
                "bb",
                "sh",
                "-c",
                "sleep 0.2; chmod 600 /t/large; echo x >> /t/large; sleep 60",
            ])
            .ok();
        let init: i32 = store
            .mille(["inspect", "-f", "{{.State.Pid}}", &name])
            .ok()
            .parse()
            .unwrap();
        std::thread::sleep(Duration::from_millis(200 + delay));
        kill(monitor_of(init), Signal::SIGKILL).unwrap();
        store.line("ps -a").ok();
        // Old content, or new content whole: never a torn file, never work left over.
        let export = store.file("victim.tar");
        store
            .mille(["export", &name, "-o", export.to_str().unwrap()])
            .ok();
        let seen = mille_tests::program::shell(&format!(
            "tar -xOf {} t/large | head -c 48M | sha256sum",
            export.display()
        ));
        assert_eq!(
            seen.split(' ').next(),
            want.split(' ').next(),
            "after {delay} ms"
        );
        store.line(&format!("rm {name}")).ok();
    }
}
