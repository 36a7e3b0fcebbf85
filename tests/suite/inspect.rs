//! Output that scripts depend on: templates, tables, ids, life cycle.

use std::time::{Duration, Instant};

use mille_tests::{Store, Who};

#[test]
fn root_fuse_life_cycle() {
    life_cycle(Who::Root);
}

#[test]
fn user_fuse_life_cycle() {
    life_cycle(Who::Ordinary);
}

fn life_cycle(who: Who) {
    let store = Store::with_busybox(who);
    // No name that could be the beginning of an image's id as well.
    let id = store
        .mille([
            "create",
            "--name",
            "work",
            "-e",
            "A=1",
            "bb",
            "sh",
            "-c",
            "echo out; echo err >&2; trap 'exit 3' TERM; while :; do sleep 0.1; done",
        ])
        .ok();
    assert_eq!(id.len(), 64);
    assert_eq!(
        store
            .mille(["ps", "-a", "--format", "{{.ID}} {{.Names}} {{.Status}}"])
            .ok(),
        format!("{} work Created", &id[..12])
    );
    assert_eq!(store.line("start work").ok(), "work");
    assert_eq!(
        store
            .mille([
                "inspect",
                "-f",
                "{{.State.Status}} {{.Name}} {{index .Config.Env 0}}",
                &id[..6]
            ])
            .ok(),
        "running /work A=1"
    );
    assert_eq!(
        store
            .mille(["exec", "-e", "B=2", "work", "sh", "-c", "echo $A$B; exit 5"])
            .code(5)
            .out(),
        "12"
    );
    assert!(
        store
            .line("ps")
            .ok()
            .lines()
            .nth(1)
            .unwrap()
            .contains("Up ")
    );
    assert_eq!(store.line("rm work").code(1).stdout, b"");
    assert_eq!(store.line("stop work").ok(), "work");
    assert_eq!(store.line("wait work").ok(), "3");
    let logs = store.line("logs work").code(0);
    assert_eq!((logs.out().as_str(), logs.err().as_str()), ("out", "err\n"));
    assert_eq!(store.line("start work").ok(), "work");
    assert_eq!(store.line("kill work").ok(), "work");
    assert_eq!(store.line("wait work").ok(), "137");
    assert_eq!(store.line("rm work").ok(), "work");
    assert_eq!(store.line("ps -aq").ok(), "");
    let unknown = store.line("inspect work").code(1);
    assert_eq!(unknown.out(), "[]");
    assert!(
        unknown
            .err()
            .to_lowercase()
            .contains("no such object: work"),
        "{}",
        unknown.err()
    );
}

#[test]
fn root_fuse_inside_a_container() {
    let store = Store::with_busybox(Who::Root);
    let caps = store
        .line("run --rm bb grep -E Cap(Inh|Eff|Bnd|Amb) /proc/self/status")
        .ok();
    for line in caps.lines() {
        let want = if line.starts_with("CapInh") || line.starts_with("CapAmb") {
            "0000000000000000"
        } else {
            "00000000a80425fb"
        };
        assert!(line.ends_with(want), "{caps}");
    }
    assert_eq!(
        store.line("run --rm --hostname box bb hostname").ok(),
        "box"
    );
    assert_eq!(
        store.line("run --rm -u alice bb id").ok(),
        "uid=1000(alice) gid=1000(alice) groups=10(wheel),1000(alice)"
    );
    assert_eq!(
        store.line("run --rm -w /made/here bb pwd").ok(),
        "/made/here"
    );
    assert_eq!(store.line("run --rm bb sh -c ps").ok().lines().count(), 2);
    assert_eq!(
        store
            .line("run --rm --network none bb ls /sys/class/net")
            .ok(),
        "lo"
    );
    assert_eq!(
        store
            .line("run --rm bb ls /proc/self/fd")
            .ok()
            .lines()
            .count(),
        4,
        "0, 1, 2 and the listing's own"
    );
    store
        .mille([
            "run",
            "--rm",
            "--read-only",
            "bb",
            "sh",
            "-c",
            "echo x > /x",
        ])
        .code(1)
        .says("Read-only file system");
    store
        .mille([
            "run",
            "--rm",
            "bb",
            "sh",
            "-c",
            "echo 1 > /proc/sys/kernel/panic",
        ])
        .code(1);
}

#[test]
fn root_image_commands() {
    let store = Store::with_busybox(Who::Root);
    store.line("tag bb other:v1").ok();
    let images = store
        .mille(["images", "--format", "{{.Repository}}:{{.Tag}}"])
        .ok();
    let mut names: Vec<_> = images.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["bb:latest", "other:v1"]);
    assert_eq!(store.line("rmi other:v1").ok(), "Untagged: other:v1");
    let gone = store.line("rmi bb").ok();
    assert!(
        gone.contains("Untagged: bb:latest") && gone.contains("Deleted: sha256:"),
        "{gone}"
    );
    assert_eq!(
        std::fs::read_dir(store.root().join("layers"))
            .unwrap()
            .count(),
        0
    );
    assert_eq!(store.line("images -q").ok(), "");
}

#[test]
fn root_fuse_exec_ids_are_those_that_run() {
    exec_ids(Who::Root);
}

#[test]
fn user_fuse_exec_ids_are_those_that_run() {
    exec_ids(Who::Ordinary);
}

fn exec_ids(who: Who) {
    let store = Store::with_busybox(who);
    store.line("run -d --name c1 bb sleep 1000").ok();
    let ids = || {
        let outcome = store
            .mille(["inspect", "-f", "{{json .ExecIDs}}", "c1"])
            .ok();
        serde_json::from_str::<Option<Vec<String>>>(&outcome).unwrap()
    };
    assert_eq!(ids(), None);
    store.line("exec -d c1 sleep 1000").ok();
    let one = ids().unwrap();
    assert!(one.len() == 1 && one[0].len() == 64, "{one:?}");
    store.line("exec c1 true").ok();
    assert_eq!(ids().unwrap(), one);
    store.line("exec c1 killall sleep").ok();
    // Whoever waits for the command takes its record away: soon after.
    let deadline = Instant::now() + Duration::from_secs(20);
    while ids().is_some() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(ids(), None);
    store.line("rm -f c1").ok();
}

#[test]
fn root_fuse_a_layer_that_only_a_container_uses_is_not_left_over() {
    let store = Store::with_busybox(Who::Root);
    let layer = store
        .mille(["inspect", "-f", "{{index .RootFS.Layers 0}}", "bb"])
        .ok();
    let image = store.line("images -q --no-trunc bb").ok();
    store.line("create --name c1 bb true").ok();
    store.line("rmi -f bb").ok();
    store.line(&format!("inspect {image}")).code(1);
    assert!(
        store
            .line("fsck")
            .ok()
            .ends_with("0 images, 1 layers: clean")
    );
    assert_eq!(store.line("fsck").ok().lines().count(), 1);
    store.line("start -a c1").ok();
    store.line("rm c1").ok();
    let found = store.line("fsck").ok();
    assert!(found.contains(&format!("left over: {layer}")), "{found}");
}
