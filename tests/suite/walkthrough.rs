//! The walk-through of the README, on a busybox tree (quick) and on a Debian tree (CI), as root and as an ordinary user.

use std::path::Path;

use mille_tests::{Store, Who, rootfs, tree};
use serde_json::Value;

#[test]
fn root_fuse_walkthrough_on_busybox() {
    walk_through(&Store::with_busybox(Who::Root));
}

#[test]
fn user_fuse_walkthrough_on_busybox() {
    walk_through(&Store::with_busybox(Who::Ordinary));
}

fn import_debian(store: &Store) {
    let tar = rootfs::debian_tar();
    let imported = store
        .script(&format!("\"$mille\" import - bb < {}", tar.display()))
        .ok();
    assert!(imported.starts_with("sha256:"), "{imported}");
}

#[test]
fn ci_root_fuse_walkthrough_on_debian() {
    let store = Store::new(Who::Root);
    import_debian(&store);
    walk_through(&store);
}

#[test]
fn ci_user_fuse_walkthrough_on_debian() {
    let store = Store::new(Who::Ordinary);
    import_debian(&store);
    walk_through(&store);
}

/// Steps 2 to 6, on an image `bb` that has /etc/issue and /usr/share/doc.
fn walk_through(store: &Store) {
    let base = layers(store, "bb");
    let before = layer_fingerprints(store);
    change(store);
    isolated(store);
    assert_eq!(before, layer_fingerprints(store), "a layer was written to");
    commit(store, &base);
    elsewhere(store);
    flat(store);
    assert_eq!(
        before,
        layer_fingerprints(store)
            .into_iter()
            .take(before.len())
            .collect::<Vec<_>>()
    );
}

fn change(store: &Store) {
    let script = "echo hello > /test.txt; echo changed >> /etc/issue; rm -r /usr/share/doc";
    store
        .mille(["run", "--name", "work", "bb", "sh", "-c", script])
        .ok();
    let diff = store.line("diff work").ok();
    let mut lines: Vec<_> = diff.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "A /test.txt",
            "C /etc",
            "C /etc/issue",
            "C /usr",
            "C /usr/share",
            "D /usr/share/doc"
        ]
    );
}

fn isolated(store: &Store) {
    store
        .mille([
            "run",
            "--name",
            "one",
            "bb",
            "sh",
            "-c",
            "echo mine > /one; echo x > /etc/issue",
        ])
        .ok();
    store
        .mille([
            "run",
            "--name",
            "two",
            "bb",
            "sh",
            "-c",
            "test ! -e /one && ! grep -qx x /etc/issue",
        ])
        .ok();
    assert_eq!(store.line("diff two").ok(), "");
    store.line("rm one two").ok();
}

fn commit(store: &Store, base: &[String]) {
    let id = store
        .mille([
            "commit",
            "-a",
            "me",
            "-m",
            "add test.txt",
            "work",
            "bb:test",
        ])
        .ok();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let layers = layers(store, "bb:test");
    assert_eq!(layers.len(), base.len() + 1);
    assert_eq!(&layers[..base.len()], base);
    let history = store.line("history bb:test").ok();
    assert!(
        history.lines().nth(1).unwrap().contains("add test.txt"),
        "{history}"
    );
    let images = store.line("images").ok();
    assert_eq!(
        images
            .lines()
            .filter(|line| line.starts_with("bb "))
            .count(),
        2,
        "{images}"
    );
    assert_eq!(
        store
            .mille([
                "inspect",
                "-f",
                "{{.Author}} {{len .RootFS.Layers}}",
                "bb:test"
            ])
            .ok(),
        format!("me {}", layers.len())
    );
    let seen = store.line("run --rm bb:test cat /test.txt").ok();
    assert_eq!(seen, "hello");
    store
        .mille([
            "run",
            "--rm",
            "bb:test",
            "sh",
            "-c",
            "test ! -e /usr/share/doc && grep -q changed /etc/issue",
        ])
        .ok();
}

/// Saved here, loaded on another root: same ids, runs, and saves to the same bytes.
fn elsewhere(store: &Store) {
    let archive = store.file("t.tar");
    store
        .mille(["save", "-o", archive.to_str().unwrap(), "bb:test"])
        .ok();
    let other = Store::new(store.who);
    let loaded = other.mille(["load", "-i", archive.to_str().unwrap()]).ok();
    assert_eq!(loaded.lines().last(), Some("Loaded image: bb:test"));
    let ids = |store: &Store| {
        store
            .mille([
                "inspect",
                "-f",
                "{{.Id}} {{json .RootFS.Layers}}",
                "bb:test",
            ])
            .ok()
    };
    assert_eq!(ids(store), ids(&other));
    assert_eq!(other.line("run --rm bb:test cat /test.txt").ok(), "hello");
    let again = other.file("again.tar");
    other
        .mille(["save", "-o", again.to_str().unwrap(), "bb:test"])
        .ok();
    let bytes = |path: &Path| std::fs::read(path).unwrap();
    assert!(
        bytes(&archive) == bytes(&again),
        "a saved image differs after load and save"
    );
    assert_eq!(other.line("fsck").code, 0);
}

fn flat(store: &Store) {
    let archive = store.file("e.tar");
    store
        .mille(["export", "work", "-o", archive.to_str().unwrap()])
        .ok();
    store
        .mille(["import", archive.to_str().unwrap(), "bb:flat"])
        .ok();
    assert_eq!(layers(store, "bb:flat").len(), 1);
    store
        .mille([
            "run",
            "--rm",
            "bb:flat",
            "sh",
            "-c",
            "test -e /test.txt && test ! -e /usr/share/doc",
        ])
        .ok();
    store.line("rm work").ok();
}

fn layers(store: &Store, image: &str) -> Vec<String> {
    let json = store
        .mille(["inspect", "-f", "{{json .RootFS.Layers}}", image])
        .ok();
    let layers: Vec<Value> = serde_json::from_str(&json).unwrap();
    layers
        .iter()
        .map(|layer| layer.as_str().unwrap().to_string())
        .collect()
}

fn layer_fingerprints(store: &Store) -> Vec<String> {
    let mut layers: Vec<_> = std::fs::read_dir(store.root().join("layers"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    layers.sort_by_key(|layer| layer.metadata().unwrap().created().unwrap());
    layers
        .iter()
        .map(|layer| tree::fingerprint(&layer.path().join("tree")))
        .collect()
}

#[test]
fn root_fuse_a_lone_static_binary_runs() {
    lone_binary(Who::Root);
}

#[test]
fn user_fuse_a_lone_static_binary_runs() {
    lone_binary(Who::Ordinary);
}

/// An image of one static binary and nothing else, not even a directory.
fn lone_binary(who: Who) {
    let store = Store::new(who);
    let tar = store.file("hello.tar");
    mille_tests::program::require("busybox", "busybox-static");
    // busybox answers to the name of the applet it is called by: `echo` alone makes a hello program.
    mille_tests::program::shell(&format!(
        "d=$(mktemp -d); cp $(command -v busybox) $d/echo; tar -C $d -cf {} echo; rm -r $d",
        tar.display()
    ));
    store
        .mille([
            "import",
            "-c",
            "CMD [\"/echo\",\"hello\"]",
            tar.to_str().unwrap(),
            "hello",
        ])
        .ok();
    assert_eq!(store.line("run --rm hello").ok(), "hello");
}

#[test]
fn root_fuse_interactive_terminal() {
    let store = Store::with_busybox(Who::Root);
    let script = "script -qec '\"$mille\" run -it --rm --name tty bb sh -c \"tty; test -t 0 && test -t 1 && echo yes\"' /dev/null";
    let out = store.script(script).ok();
    assert!(out.contains("/dev/pts/0") && out.contains("yes"), "{out}");
}

#[test]
fn root_fuse_the_working_directory_is_made_with_the_container() {
    working_directory(Who::Root);
}

#[test]
fn user_fuse_the_working_directory_is_made_with_the_container() {
    working_directory(Who::Ordinary);
}

fn working_directory(who: Who) {
    let store = Store::with_busybox(who);
    store
        .line("create --name c1 -w /t/dir/../new/deep bb pwd")
        .ok();
    assert_eq!(store.line("diff c1").ok(), "C /t\nA /t/new\nA /t/new/deep");
    assert_eq!(store.line("start -a c1").ok(), "/t/new/deep");
    store.line("create --name c2 -w /t/sl/x bb pwd").code(1);
    store
        .line("create --name c2 -w /t/a bb pwd")
        .code(1)
        .says("Cannot mkdir: /t/a is not a directory");
    store.line("create --name c2 -w /t/dir bb pwd").ok();
    assert_eq!(store.line("diff c2").ok(), "");
    assert_eq!(
        store.line("run --rm -w /x bb stat -c %a:%u:%g .").ok(),
        "755:0:0"
    );
}
