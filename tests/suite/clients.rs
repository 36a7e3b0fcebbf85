//! Clients that go away, stop or never read: the container goes on as under docker, and its monitor neither waits for
//! ever nor collects what nobody takes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use mille_tests::{Store, Who};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn root_fuse_a_pipe_that_closes_ends_the_client_and_not_the_container() {
    pipe_that_closes(Who::Root);
}

#[test]
fn user_fuse_a_pipe_that_closes_ends_the_client_and_not_the_container() {
    pipe_that_closes(Who::Ordinary);
}

fn pipe_that_closes(who: Who) {
    let store = Store::with_busybox(who);
    let script = r#"$mille run ARGS --name c1 bb sh -c \
        'for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; echo whole > /data/end' | head -n 1
        echo "client: ${PIPESTATUS[0]}""#;
    let outcome = store.script(&script.replace("ARGS", ""));
    assert_eq!(outcome.out(), "1\nclient: 141", "{}", outcome.err());
    assert_eq!(store.line("ps -q").ok().lines().count(), 1, "it has ended");
    assert_eq!(store.line("wait c1").ok(), "0");
    assert_eq!(store.line("logs c1").ok(), "1\n2\n3\n4\n5\n6");
    assert!(store.line("diff c1").ok().contains("A /data/end"));
    store.line("rm c1").ok();
    store.script(&script.replace("ARGS", "--rm"));
    assert_eq!(store.line("ps -q").ok().lines().count(), 1, "it has ended");
    let start = Instant::now();
    while !store.line("ps -aq").ok().is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "it is not removed"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a monitor may hold for one client that takes nothing, and all that it is itself.
const MOST_KIB: u64 = 48 * 1024;

/// Lets a container write `mebibytes` to a client that stops reading, and is killed after a while.
fn stopped_client(mebibytes: u32) {
    let store = Store::with_busybox(Who::Root);
    let script =
        format!("dd if=/dev/zero bs=1M count={mebibytes} 2>/dev/null; echo whole > /data/end");
    let mut command = store.command([
        "run",
        "--log-driver",
        "none",
        "--name",
        "c1",
        "bb",
        "sh",
        "-c",
    ]);
    command
        .arg(script)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let number = store.mille(["inspect", "-f", "{{.State.Pid}}", "c1"]);
    let mut running = number;
    let start = Instant::now();
    while running.code != 0 || running.out() == "0" {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{}",
            running.err()
        );
        running = store.mille(["inspect", "-f", "{{.State.Pid}}", "c1"]);
    }
    // Nobody reads its output: it is stuck as a stopped one is, and then really stopped.
    kill(Pid::from_raw(client.id().cast_signed()), Signal::SIGSTOP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let monitor = monitor(&store);
    assert!(
        memory_kib(monitor) < MOST_KIB,
        "{} KiB",
        memory_kib(monitor)
    );
    // Others are served meanwhile.
    let asked = Instant::now();
    assert_eq!(store.line("exec c1 echo here").ok(), "here");
    store.line("diff c1").ok();
    assert!(asked.elapsed() < Duration::from_secs(10));
    client.kill().unwrap();
    client.wait().unwrap();
    while store.line("ps -q").ok() != "" {
        assert!(
            memory_kib(monitor) < MOST_KIB,
            "{} KiB",
            memory_kib(monitor)
        );
        assert!(
            start.elapsed() < Duration::from_secs(200),
            "it does not go on"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(store.line("diff c1").ok().contains("A /data/end"));
}

/// The monitor of the only container.
fn monitor(store: &Store) -> i32 {
    let id = store.line("ps -q --no-trunc").ok();
    let state = store.root().join("containers").join(id).join("state.json");
    let state: serde_json::Value = serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
    i32::try_from(state["monitor"].as_i64().unwrap()).unwrap()
}

/// The most memory a process ever had, 0 when it is gone.
fn memory_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    line.map_or(0, |line| {
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    })
}

#[test]
fn root_fuse_a_stopped_client_does_not_grow_the_monitor() {
    stopped_client(64);
}

#[test]
fn ci_root_fuse_a_gibibyte_that_nobody_reads_does_not_grow_the_monitor() {
    stopped_client(1024);
}

#[test]
fn ci_root_fuse_a_client_that_takes_nothing_for_a_minute_is_cut_off() {
    let store = Store::with_busybox(Who::Root);
    let script = "dd if=/dev/zero bs=1M count=8 2>/dev/null; exit 5";
    let mut command = store.command(["run", "--name", "c1", "bb", "sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut client = command.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    kill(Pid::from_raw(client.id().cast_signed()), Signal::SIGSTOP).unwrap();
    let start = Instant::now();
    while store.line("ps -q").ok() != "" {
        assert!(
            start.elapsed() < Duration::from_secs(180),
            "it waits for ever"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(store.line("wait c1").ok(), "5");
    client.kill().unwrap();
    client.wait().unwrap();
}
