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
    let store = Store::with_busybox(Who::Root);
    let run = "run -d --network none --hostname donor --add-host box:10.0.0.1 --ipc shareable --name donor bb sleep 1000";
    let id = store.line(run).ok();
    store.line("exec donor sh -c touch${IFS}/dev/shm/mark").ok();
    let look = "readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc; hostname; grep box /etc/hosts; ls /dev/shm";
    let of_donor = store.mille(["exec", "donor", "sh", "-c", look]).ok();
    let joined = [
        "run",
        "--rm",
        "--network",
        "container:donor",
        "--pid",
        "container:donor",
        "--ipc",
        "container:donor",
        "bb",
        "sh",
        "-c",
        look,
    ];
    assert_eq!(store.mille(joined).ok(), of_donor);
    assert!(
        of_donor.ends_with("donor\n10.0.0.1\tbox\nmark"),
        "{of_donor}"
    );
    // The one that joined ends, and only it.
    let run = "run -d --init --pid container:donor --name guest bb sh -c sleep${IFS}2001&exec${IFS}sleep${IFS}2000";
    store.line(run).ok();
    assert_eq!(
        store.line("inspect -f {{.HostConfig.PidMode}} guest").ok(),
        format!("container:{id}")
    );
    store.line("exec donor pidof mille-init").ok();
    store.line("pause guest").ok();
    store.line("exec donor true").ok();
    store.line("unpause guest").ok();
    store.line("kill guest").ok();
    assert_eq!(
        store.line("inspect -f {{.State.Running}} donor").ok(),
        "true"
    );
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
    store.line("rm -f donor").ok();
    store
        .line("start guest")
        .code(1)
        .says(&format!("{daemon} No such container: {id}"));
}

#[test]
fn user_fuse_namespaces_of_another_container_are_refused() {
    let store = Store::with_busybox(Who::Ordinary);
    store
        .line("run -d --ipc shareable --name donor bb sleep 1000")
        .ok();
    // The host's network is the host's.
    store
        .line("run --rm --network container:donor bb true")
        .ok();
    store
        .line("run --rm --pid container:donor bb true")
        .code(125)
        .says("the namespaces of another container can be joined by root only");
}
