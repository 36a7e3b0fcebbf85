//! Archives between us and the others: what we write opens in skopeo, podman and umoci, what they write runs here.

use std::path::Path;

use mille_tests::program::{require, shell};
use mille_tests::{Store, Who, tree};

/// Storage of a podman that touches nothing of the machine's, in a directory of the test's own.
fn podman(directory: &Path) -> String {
    require("podman", "podman");
    let directory = directory.display();
    format!(
        "podman --root {directory}/p --runroot {directory}/pr --tmpdir {directory}/pt --storage-driver vfs \
         --cgroup-manager cgroupfs --events-backend none --runtime runc"
    )
}

/// Options that podman needs where CAP_SYS_RESOURCE is missing.
const PODMAN_RUN: &str =
    "run --rm --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

/// Every case that a layer can get wrong: a renamed directory, a chmod-only change of a large file, a write to one of two
/// hard links, a directory deleted and made again, a new file, a deletion.
pub(crate) const CHANGES: &str = "mv /t/dir2 /t/moved; chmod 600 /t/large; echo more >> /t/m; rm -r /t/dir; mkdir /t/dir; echo n > /t/dir/new; \
     rm /t/g; mv /t/a /t/dir/a; ln /t/b /t/b2; chown 5:6 /t/c; echo hello > /test.txt; mkfifo /t/fifo; ln -s /nowhere /t/broken";

/// A store with the image `bb`, a container `work` in which [`CHANGES`] was run, and `bb:test`, its commit.
pub(crate) fn store_with_changes(who: Who) -> Store {
    let store = Store::new(who);
    let tar = store.file("big.tar");
    std::fs::write(store.file("bb.tar"), mille_tests::rootfs::busybox_tar()).unwrap();
    shell(&format!(
        "cd $(mktemp -d) && tar -xf {0} && truncate -s 24M t/large && printf tail >> t/large && tar --numeric-owner -cf {1} . && rm -r \"$PWD\"",
        store.file("bb.tar").display(),
        tar.display()
    ));
    store.mille(["import", tar.to_str().unwrap(), "bb"]).ok();
    store
        .mille(["run", "--name", "work", "bb", "sh", "-c", CHANGES])
        .ok();
    store.line("commit work bb:test").ok();
    store
}

/// The container's own tree, as `export` gives it.
pub(crate) fn exported(store: &Store, container: &str) -> tempfile::TempDir {
    let tar = store.file("exported.tar");
    store
        .mille(["export", container, "-o", tar.to_str().unwrap()])
        .ok();
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    shell(&format!(
        "tar -C {} --numeric-owner -xpf {}",
        directory.path().display(),
        tar.display()
    ));
    directory
}

/// Drops what engines add to a root of their own.
pub(crate) fn without_stubs(
    mut tree: std::collections::BTreeMap<std::path::PathBuf, tree::Object>,
) -> std::collections::BTreeMap<std::path::PathBuf, tree::Object> {
    let stubs = [
        "dev",
        "proc",
        "sys",
        "run",
        ".dockerenv",
        "etc/mtab",
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
    ];
    tree.retain(|path, _| !stubs.iter().any(|stub| path.starts_with(stub)));
    tree
}

#[test]
fn ci_root_fuse_peer_what_we_save_opens_everywhere() {
    let store = store_with_changes(Who::Root);
    opens_everywhere(&store);
}

#[test]
fn ci_user_fuse_peer_what_we_save_opens_everywhere() {
    let store = store_with_changes(Who::Ordinary);
    opens_everywhere(&store);
}

fn opens_everywhere(store: &Store) {
    let archive = store.file("t.tar");
    store
        .mille(["save", "-o", archive.to_str().unwrap(), "bb:test"])
        .ok();
    let ours = store
        .mille(["inspect", "-f", "{{join .RootFS.Layers \" \"}}", "bb:test"])
        .ok();
    let id = store.mille(["inspect", "-f", "{{.Id}}", "bb:test"]).ok();
    let want = exported(store, "work");
    let want = without_stubs(tree::read(want.path()));
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    skopeo_agrees(&archive, &ours);
    umoci_agrees(&archive, work.path(), &want);
    podman_agrees(&archive, work.path(), &id, &want);
}

fn skopeo_agrees(archive: &Path, layers: &str) {
    require("skopeo", "skopeo");
    for transport in ["docker-archive", "oci-archive"] {
        let seen = shell(&format!(
            "skopeo inspect --config {transport}:{}",
            archive.display()
        ));
        let config: serde_json::Value = serde_json::from_str(&seen).unwrap();
        let seen: Vec<_> = config["rootfs"]["diff_ids"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| id.as_str().unwrap())
            .collect();
        assert_eq!(seen.join(" "), layers, "{transport}");
    }
}

fn umoci_agrees(
    archive: &Path,
    work: &Path,
    want: &std::collections::BTreeMap<std::path::PathBuf, tree::Object>,
) {
    require("umoci", "umoci");
    let layout = work.join("layout");
    shell(&format!(
        "mkdir {0} && tar -C {0} -xf {1} && umoci unpack --image {0}:test {2}/bundle",
        layout.display(),
        archive.display(),
        work.display()
    ));
    tree::assert_same(
        want,
        &without_stubs(tree::read(&work.join("bundle/rootfs"))),
    );
}

fn podman_agrees(
    archive: &Path,
    work: &Path,
    id: &str,
    want: &std::collections::BTreeMap<std::path::PathBuf, tree::Object>,
) {
    let podman = podman(work);
    shell(&format!("{podman} load -q -i {}", archive.display()));
    let seen = shell(&format!("{podman} inspect -f '{{{{.Id}}}}' bb:test"));
    assert_eq!(format!("sha256:{seen}"), id);
    assert_eq!(
        shell(&format!("{podman} {PODMAN_RUN} bb:test cat /test.txt")),
        "hello"
    );
    shell(&format!(
        "{podman} create --name c --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 bb:test true"
    ));
    let flat = work.join("flat");
    shell(&format!(
        "mkdir {0} && {podman} export c | tar -C {0} --numeric-owner -xp",
        flat.display()
    ));
    tree::assert_same(want, &without_stubs(tree::read(&flat)));
    shell(&format!("{podman} rm -f c && {podman} rmi -f bb:test"));
}

#[test]
fn ci_root_fuse_peer_what_others_write_runs_here() {
    others(Who::Root);
}

#[test]
fn ci_user_fuse_peer_what_others_write_runs_here() {
    others(Who::Ordinary);
}

fn others(who: Who) {
    let store = store_with_changes(Who::Root);
    let archive = store.file("t.tar");
    store
        .mille(["save", "-o", archive.to_str().unwrap(), "bb:test"])
        .ok();
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    tree::set_mode(work.path(), 0o755);
    let directory = work.path().display();
    let policy = format!("{directory}/policy.json");
    std::fs::write(
        &policy,
        r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
    )
    .unwrap();
    let archive = archive.display();
    shell(&format!(
        "skopeo --policy {policy} copy -q docker-archive:{archive} docker-archive:{directory}/sd.tar:bb:sd"
    ));
    shell(&format!(
        "skopeo --policy {policy} copy -q docker-archive:{archive} oci-archive:{directory}/so.tar:bb:so"
    ));
    let podman = podman(work.path());
    shell(&format!(
        "{podman} load -q -i {archive} && {podman} tag bb:test localhost/bb:pd && {podman} save -q -o {directory}/pd.tar localhost/bb:pd"
    ));
    shell(&format!(
        "{podman} save -q --format oci-archive -o {directory}/po.tar localhost/bb:pd; {podman} rmi -f bb:test localhost/bb:pd"
    ));
    shell(&format!(
        "cd {directory} && skopeo --policy {policy} copy -q docker-archive:{archive} oci:um:base && umoci unpack --image um:base b && echo umoci > b/rootfs/umoci && \
         rm b/rootfs/test.txt && umoci repack --image um:new b && tar -C um -cf uo.tar . && chmod -R a+rX ."
    ));
    runs_here(who, work.path());
}

fn runs_here(who: Who, work: &Path) {
    let store = Store::new(who);
    for (file, probe, want) in [
        ("sd.tar", "cat /test.txt", "hello"),
        ("so.tar", "cat /test.txt", "hello"),
        ("pd.tar", "cat /test.txt", "hello"),
        ("po.tar", "cat /test.txt", "hello"),
    ] {
        let loaded = store
            .mille(["load", "-q", "-i", work.join(file).to_str().unwrap()])
            .ok();
        let name = loaded
            .lines()
            .last()
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .to_string();
        let seen = store.line(&format!("run --rm {name} {probe}")).ok();
        assert_eq!(seen, want, "{file}");
        store
            .line(&format!("run --rm {name} ls /t/moved/p /t/dir/new"))
            .ok();
        assert_ne!(
            store.line(&format!("run --rm {name} ls /t/dir/p")).code,
            0,
            "{file}: a deleted directory came back"
        );
    }
    let loaded = store
        .mille(["load", "-i", work.join("uo.tar").to_str().unwrap()])
        .ok();
    assert!(loaded.contains("new"), "{loaded}");
    let name = loaded
        .lines()
        .find(|line| line.ends_with(" new:latest"))
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_string();
    assert_eq!(
        store.line(&format!("run --rm {name} cat /umoci")).ok(),
        "umoci"
    );
    assert_ne!(
        store.line(&format!("run --rm {name} cat /test.txt")).code,
        0
    );
    assert_eq!(store.line("fsck").code, 0);
}
