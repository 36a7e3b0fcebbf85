//! `@host`: commands on a copy-on-write view of the machine's own root.

use mille_tests::{Store, Who};

#[test]
fn root_fuse_host_view_shows_changes_and_leaves_the_host_alone() {
    host_view(Who::Root);
}

#[test]
fn user_fuse_host_view_shows_changes_and_leaves_the_host_alone() {
    host_view(Who::Ordinary);
}

fn host_view(who: Who) {
    let store = Store::new(who);
    let passwd = std::fs::read("/etc/passwd").unwrap();
    let script =
        "echo x:x:77:77::/:/bin/sh >> /etc/passwd && echo hello > /mille-was-here && rm /etc/issue";
    store
        .mille(["run", "--name", "t1", "@host", "sh", "-c", script])
        .ok();
    let diff = store.line("diff t1").ok();
    let mut lines: Vec<_> = diff.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "A /mille-was-here",
            "C /etc",
            "C /etc/passwd",
            "D /etc/issue"
        ]
    );
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), passwd);
    assert!(!std::path::Path::new("/mille-was-here").exists());
    assert!(std::path::Path::new("/etc/issue").exists());

    store.line("commit t1 changed").ok();
    assert_eq!(
        store.line("run --rm changed cat /mille-was-here").ok(),
        "hello"
    );
    store
        .mille([
            "run",
            "--rm",
            "changed",
            "sh",
            "-c",
            "test ! -e /etc/issue && grep -q ^x:x:77 /etc/passwd",
        ])
        .ok();
    assert_eq!(
        store
            .mille([
                "inspect",
                "-f",
                "{{index .Config.Labels \"io.mille.base\"}}",
                "changed"
            ])
            .ok(),
        "@host"
    );
    let refused = store.mille([
        "save",
        "-o",
        store.file("s.tar").to_str().unwrap(),
        "changed",
    ]);
    assert_ne!(refused.code, 0);
    assert!(refused.err().contains("--flatten"), "{}", refused.err());
}

/// What is no image says so, and what can be done with it is done.
fn not_an_image(who: Who) {
    let store = Store::with_busybox(who);
    let says = "@host is the root of this machine, not an image";
    for line in [
        "tag @host mine",
        "rmi @host",
        "history @host",
        "inspect @host",
        "image inspect @host",
    ] {
        store.line(line).code(1).says(says);
    }
    let directory = store.file("look");
    std::fs::create_dir(&directory).unwrap();
    who.own(&directory);
    let directory = directory.to_str().unwrap();
    store.mille(["mount", "@host", directory]).ok();
    let same = store
        .script("cmp look/etc/passwd /etc/passwd && ! touch look/etc/new 2>/dev/null && echo same");
    store.mille(["umount", directory]).ok();
    assert_eq!(same.ok(), "same");
}

#[test]
fn root_fuse_host_is_mounted_but_no_image() {
    not_an_image(Who::Root);
}

#[test]
fn user_fuse_host_is_mounted_but_no_image() {
    not_an_image(Who::Ordinary);
}

#[test]
fn root_fuse_a_change_of_the_host_is_seen_by_a_running_view() {
    let store = Store::new(Who::Root);
    let probe = tempfile::Builder::new()
        .prefix("mille-probe-")
        .tempdir_in("/var/tmp")
        .unwrap();
    let file = probe.path().join("f");
    std::fs::write(&file, "one").unwrap();
    let path = file.to_str().unwrap();
    store
        .mille(["run", "-d", "--name", "live", "@host", "sleep", "60"])
        .ok();
    assert_eq!(store.mille(["exec", "live", "cat", path]).ok(), "one");
    std::fs::write(&file, "second").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1200));
    assert_eq!(store.mille(["exec", "live", "cat", path]).ok(), "second");
    store.line("rm -f live").ok();
}
