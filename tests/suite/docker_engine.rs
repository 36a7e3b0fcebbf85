//! Against a real docker engine: it loads what we save, we run what it saves, and both say the same of a change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mille_tests::docker::Docker;
use mille_tests::program::shell;
use mille_tests::tree::{self, Object};
use mille_tests::{Store, Who};

use crate::peers::{exported, store_with_changes, without_stubs};

/// The tree that `docker export` gives of a container.
fn docker_exported(docker: &Docker, container: &str) -> BTreeMap<PathBuf, Object> {
    let directory = docker.path().join("exported");
    docker.ok(&format!("export {container} -o exported.tar"));
    shell(&format!(
        "rm -rf {0} && mkdir {0} && tar -C {0} --numeric-owner -xpf {0}.tar",
        directory.display()
    ));
    without_stubs(tree::read(&directory))
}

#[test]
fn ci_root_fuse_docker_loads_what_we_save() {
    let store = store_with_changes(Who::Root);
    let docker = Docker::start();
    let archive = store.file("t.tar");
    let archive = archive.to_str().unwrap();
    store.mille(["save", "-o", archive, "bb:test"]).ok();
    let loaded = docker.ok(&format!("load -i {archive}"));
    assert_eq!(loaded.lines().last(), Some("Loaded image: bb:test"));
    let inspect = "{{.Id}} {{json .RootFS.Layers}}";
    assert_eq!(
        docker.ok(&format!("inspect -f '{inspect}' bb:test")),
        store.mille(["inspect", "-f", inspect, "bb:test"]).ok()
    );
    let seen = docker.ok("run --rm --network none bb:test cat /test.txt");
    assert_eq!(seen, "hello");
    docker.ok("create --name look --network none bb:test true");
    let want = exported(&store, "work");
    tree::assert_same(
        &without_stubs(tree::read(want.path())),
        &docker_exported(&docker, "look"),
    );
}

/// What is done to both roots where both must give the same answer. No hard link of a lower file is changed: docker's
/// overlay breaks them, ours keeps them.
const SAME_CHANGES: &str = "mv /t/dir2 /t/moved; chmod 600 /t/e; rm -r /t/dir; mkdir /t/dir; echo n > /t/dir/new; \
     rm /t/g; mv /t/a /t/dir/a; chown 5:6 /t/c; echo hello > /test.txt; mkfifo /t/fifo; ln -s /nowhere /t/broken; \
     rm -r /usr/share/doc; touch /t/dir3/x/z; echo x > /t/emptydir/x; rmdir /data; ln -sf b /t/sl";

#[test]
fn ci_root_fuse_docker_and_we_say_the_same_of_changes() {
    let store = Store::with_busybox(Who::Root);
    let docker = Docker::start();
    docker.ok(&format!("import {} bb", store.file("bb.tar").display()));
    docker.ok(&format!(
        "run --name work --network none bb sh -c '{SAME_CHANGES}'"
    ));
    store
        .mille(["run", "--name", "work", "bb", "sh", "-c", SAME_CHANGES])
        .ok();
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        lines.sort();
        lines
    };
    assert_eq!(
        sorted(docker.ok("diff work")),
        sorted(store.line("diff work").ok())
    );
    let want = docker_exported(&docker, "work");
    let got = exported(&store, "work");
    let untimed = |mut tree: BTreeMap<PathBuf, Object>| {
        // The two runs were not at the same second.
        tree.values_mut().for_each(|object| object.mtime = 0);
        without_stubs(tree)
    };
    tree::assert_same(&untimed(want), &untimed(tree::read(got.path())));
}

#[test]
fn ci_root_fuse_docker_saves_what_we_run() {
    let tar = Store::with_busybox(Who::Root);
    let docker = Docker::start();
    docker.ok(&format!("import {} bb", tar.file("bb.tar").display()));
    docker.ok(&format!(
        "run --name work --network none bb sh -c '{SAME_CHANGES}'"
    ));
    docker.ok("commit -a me -m 'add test.txt' -c 'CMD [\"cat\", \"/test.txt\"]' work bb:test");
    docker.ok("save -o saved.tar bb:test");
    let want = docker_exported(&docker, "work");
    for who in [Who::Root, Who::Ordinary] {
        loads_and_runs(who, &docker, &want);
    }
}

fn loads_and_runs(who: Who, docker: &Docker, want: &BTreeMap<PathBuf, Object>) {
    let store = Store::new(who);
    let archive = store.file("saved.tar");
    std::fs::copy(docker.path().join("saved.tar"), &archive).unwrap();
    who.own(&archive);
    let loaded = store.mille(["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(loaded.lines().last(), Some("Loaded image: bb:test"));
    let inspect = "{{.Id}} {{.Author}} {{json .RootFS.Layers}} {{json .Config.Cmd}}";
    assert_eq!(
        docker.ok(&format!("inspect -f '{inspect}' bb:test")),
        store.mille(["inspect", "-f", inspect, "bb:test"]).ok()
    );
    assert_eq!(store.line("run --name look bb:test").ok(), "hello");
    let got = exported(&store, "look");
    tree::assert_same(want, &without_stubs(tree::read(got.path())));
    history_is_the_same(docker, &store);
    assert_eq!(store.line("fsck").code, 0);
}

fn history_is_the_same(docker: &Docker, store: &Store) {
    let format = "{{.ID}}|{{.CreatedBy}}|{{.Size}}|{{.Comment}}";
    let ours = store
        .mille(["history", "--format", format, "--no-trunc", "bb:test"])
        .ok();
    let theirs = docker.ok(&format!("history --format '{format}' --no-trunc bb:test"));
    // docker knows the image below by its own id when it is in the same store; after a load there is none.
    let without_ids = |text: &str| -> Vec<String> {
        let rest = |line: &str| line.split_once('|').map(|(_, rest)| rest.to_string());
        text.lines().filter_map(rest).collect()
    };
    assert_eq!(without_ids(&ours), without_ids(&theirs));
    assert!(Path::new(&ours).as_os_str().len() > 1);
}
