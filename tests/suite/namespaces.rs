//! Namespaces that containers share, and the process that is the first in one.

use mille_tests::{Store, Who};

#[test]
fn root_fuse_an_init_that_may_be_traced_gives_nothing_away() {
    let store = Store::with_busybox(Who::Root);
    let traced = |script: &str| {
        let shell = ["bb", "sh", "-c", script];
        store.mille(
            ["run", "--rm", "--init", "--cap-add", "SYS_PTRACE"]
                .iter()
                .chain(&shell),
        )
    };
    // The variables of whoever typed the command are not the container's.
    assert_eq!(traced("tr -d '\\0' < /proc/1/environ").ok(), "");
    assert_eq!(traced("tr -d '\\0' < /proc/1/cmdline").ok(), "mille-init");
    // Its program can be opened, but never written.
    traced(": < /proc/1/exe").ok();
    traced("touch -c /proc/1/exe")
        .code(1)
        .says("touch: /proc/1/exe: Read-only file system");
}

#[test]
fn root_fuse_namespaces_of_another_container_are_joined() {
    joined(Who::Root);
}

#[test]
fn user_fuse_namespaces_of_another_container_are_joined() {
    joined(Who::Ordinary);
}

#[test]
fn user_fuse_namespaces_of_another_container_are_joined_with_one_id() {
    let store = Store::with_busybox(Who::OneId);
    store.line("run -d --name donor bb sleep 2003").ok();
    let seen = store
        .line("run --rm --pid container:donor bb pidof sleep")
        .ok();
    assert_eq!(seen, "1");
}

fn joined(who: Who) {
    let store = Store::with_busybox(who);
    let run = "run -d --network none --hostname donor --add-host box:10.0.0.1 --ipc shareable --name donor bb sleep 1000";
    let id = store.line(run).ok();
    store.line("exec donor sh -c touch${IFS}/dev/shm/mark").ok();
    let look = "for kind in net pid ipc user; do readlink /proc/self/ns/$kind; done; hostname; grep box /etc/hosts; ls /dev/shm; \
                ps | grep -c 'sleep 100[0]'; touch /made";
    let of_donor = store.mille(["exec", "donor", "sh", "-c", look]).ok();
    let join = "--network container:donor --pid container:donor --ipc container:donor bb sh -c";
    let joined = |verb: &str| {
        let words = verb.split(' ').chain(join.split(' '));
        store.mille(words.chain([look]))
    };
    assert_eq!(joined("run --rm").ok(), of_donor);
    assert!(
        of_donor.ends_with("donor\n10.0.0.1\tbox\nmark\n1"),
        "{of_donor}"
    );
    // Made by one command, started by others.
    joined("create --name later").ok();
    assert_eq!(store.line("start -a later").ok(), of_donor);
    store.line("restart -t 0 later").ok();
    the_guest_is_its_own(&store, &id);
    let daemon = "Error response from daemon:";
    store.line("run -d --name private bb sleep 1000").ok();
    for (line, says) in [
        (
            "run --rm --pid container:nosuch bb true",
            "No such container: nosuch".to_owned(),
        ),
        (
            "run --rm --network container:donor --hostname x bb true",
            "conflicting options: hostname and the network mode".to_owned(),
        ),
        (
            "run --rm --ipc container:private bb true",
            "non-shareable IPC (hint: use IpcMode:shareable for the donor container)".to_owned(),
        ),
    ] {
        store.line(line).code(125).says(&says);
    }
    if who != Who::Root {
        store
            .line("run --rm --network container:donor --pid container:private bb true")
            .code(125)
            .says("cannot join namespaces of both donor and private: an ordinary user's containers have a user namespace each");
    }
    store.line("stop -t 0 donor").ok();
    for (flag, says) in [
        ("--pid", format!("daemon: container {id} is not running")),
        (
            "--ipc",
            format!("can't join IPC of container {id}: container {id} is not running"),
        ),
        (
            "--network",
            format!("cannot join network of a non running container: {id}"),
        ),
    ] {
        let run = format!("run --rm {flag} container:donor bb true");
        store.line(&run).code(125).says(&says);
    }
    store.line("rm -f donor").ok();
    store
        .line("start guest")
        .code(1)
        .says(&format!("{daemon} No such container: {id}"));
}

/// What happens to the one that joined happens to it alone.
fn the_guest_is_its_own(store: &Store, donor: &str) {
    let run = "run -d --init --pid container:donor --name guest bb sh -c sleep${IFS}2001&exec${IFS}sleep${IFS}2000";
    store.line(run).ok();
    assert_eq!(
        store.line("inspect -f {{.HostConfig.PidMode}} guest").ok(),
        format!("container:{donor}")
    );
    store.line("exec donor pidof mille-init").ok();
    store.line("exec guest pidof mille-init").ok();
    store.line("pause guest").ok();
    store.line("exec donor true").ok();
    store.line("unpause guest").ok();
    store.line("kill guest").ok();
    store.line("wait guest").ok();
    assert_eq!(
        store.line("inspect -f {{.State.Running}} donor").ok(),
        "true"
    );
    // Nothing of it goes on, although it was not the first of its namespace.
    let alive = "grep -l '^sleep.200' /proc/[0-9]*/cmdline | wc -l";
    assert_eq!(store.mille(["exec", "donor", "sh", "-c", alive]).ok(), "0");
}
