//! Restart, pause and unpause, with docker's words for what cannot be done.

use std::time::{Duration, Instant};

use mille_tests::{Store, Who};

#[test]
fn root_fuse_a_paused_container_stands_still() {
    paused(Who::Root);
}

#[test]
fn user_fuse_a_paused_container_stands_still() {
    paused(Who::Ordinary);
}

/// The CPU time a container's processes have used and that they still count, seen in a file they write.
fn counted(store: &Store) -> u64 {
    let lines = store.line("logs --tail 1 c1").ok();
    lines.trim().parse().unwrap_or_default()
}

fn wait_for_count(store: &Store, above: u64) -> u64 {
    let start = Instant::now();
    loop {
        let now = counted(store);
        if now > above {
            return now;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it does not run");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn paused(who: Who) {
    let store = Store::with_busybox(who);
    // A child of the first process counts: both must stand still.
    let script = "(i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done) & wait";
    let id = store
        .mille(["run", "-d", "--name", "c1", "bb", "sh", "-c", script])
        .ok();
    wait_for_count(&store, 0);
    let daemon = "Error response from daemon:";
    store
        .line("unpause c1")
        .code(1)
        .says(&format!("{daemon} Container {id} is not paused"));
    assert_eq!(store.line("pause c1").ok(), "c1");
    // What was in the pipe is logged before it is looked at.
    std::thread::sleep(Duration::from_millis(200));
    let still = counted(&store);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counted(&store), still, "it goes on while paused");
    let state = "{{.State.Status}} {{.State.Running}} {{.State.Paused}}";
    let of = |name: &str| store.mille(["inspect", "-f", state, name]).ok();
    assert_eq!(of("c1"), "paused true true");
    let status = store.line("ps --format {{.Status}}|{{.State}}").ok();
    assert!(
        status.starts_with("Up ") && status.ends_with(" (Paused)|paused"),
        "{status}"
    );
    for (line, code, says) in [
        (
            "pause c1",
            1,
            format!("{daemon} Container {id} is already paused"),
        ),
        (
            "exec c1 true",
            1,
            format!("{daemon} Container c1 is paused, unpause the container before exec"),
        ),
        (
            "start c1",
            1,
            format!(
                "{daemon} cannot start a paused container, try unpause instead\nError: failed to start containers: c1"
            ),
        ),
        (
            "attach c1",
            1,
            "You cannot attach to a paused container, unpause it first".to_owned(),
        ),
        (
            "rm c1",
            1,
            format!(
                "{daemon} You cannot remove a paused container {id}. Unpause and then stop the container before \
                 attempting removal or force remove"
            ),
        ),
        (
            "pause nosuch",
            1,
            format!("{daemon} No such container: nosuch"),
        ),
    ] {
        store.line(line).code(code).says(&says);
    }
    // A commit holds a container still and lets it go again; a paused one stays paused.
    store.line("commit c1 still").ok();
    assert_eq!(of("c1"), "paused true true");
    assert_eq!(store.line("unpause c1").ok(), "c1");
    assert_eq!(of("c1"), "running true false");
    wait_for_count(&store, still);
    // Stopped and killed while paused: it ends, as under docker.
    store.line("pause c1").ok();
    store.line("kill c1").ok();
    let ended = "{{.State.Status}} {{.State.Paused}} {{.State.ExitCode}}";
    assert_eq!(
        store.mille(["inspect", "-f", ended, "c1"]).ok(),
        "exited false 137"
    );
    store
        .line("pause c1")
        .code(1)
        .says(&format!("{daemon} Container {id} is not running"));
    store.line("start c1").ok();
    store.line("pause c1").ok();
    assert_eq!(store.line("restart -t 0 c1").ok(), "c1");
    assert_eq!(of("c1"), "running true false");
    store.line("pause c1").ok();
    assert_eq!(store.line("rm -f c1").ok(), "c1");
}

#[test]
fn root_fuse_restart_stops_and_starts() {
    restarted(Who::Root);
}

#[test]
fn user_fuse_restart_stops_and_starts() {
    restarted(Who::Ordinary);
}

fn restarted(who: Who) {
    let store = Store::with_busybox(who);
    let script = "echo up; trap 'echo down; exit 3' TERM; while :; do sleep 0.05; done";
    store
        .mille(["run", "-d", "--name", "c1", "bb", "sh", "-c", script])
        .ok();
    let up = |count: usize| {
        let start = Instant::now();
        while store.line("logs c1").ok().matches("up").count() < count {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    up(1);
    assert_eq!(store.line("restart c1").ok(), "c1");
    up(2);
    assert_eq!(store.line("logs c1").ok(), "up\ndown\nup");
    let facts = "{{.State.Status}} {{.RestartCount}}";
    assert_eq!(
        store.mille(["inspect", "-f", facts, "c1"]).ok(),
        "running 0"
    );
    // One that does not run is started; good ones go on, and what is wrong comes after.
    store.line("stop -t 0 c1").ok();
    let both = store.line("restart -t 0 nosuch c1").code(1);
    assert_eq!(both.out(), "c1");
    both.says("Error response from daemon: No such container: nosuch");
    up(3);
    store.line("rm -f c1").ok();
    // A container of --rm outlives its restart, and not its end.
    store.line("run -d --rm --name c2 bb sleep 1000").ok();
    assert_eq!(store.line("restart -t 0 c2").ok(), "c2");
    assert_eq!(store.line("ps --format {{.Names}}").ok(), "c2");
    store.line("kill c2").ok();
    assert_eq!(store.line("ps -aq").ok(), "");
    let usage = store.line("restart").code(1);
    usage.says(
        "mille: 'mille restart' requires at least 1 argument\n\nUsage:  mille restart [OPTIONS] CONTAINER \
         [CONTAINER...]\n\nSee 'mille restart --help' for more information",
    );
}
