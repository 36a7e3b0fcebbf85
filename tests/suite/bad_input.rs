//! Bad input gets a clear error and loses nothing.

use mille_tests::{Store, Who};

/// Requires an intact store in which `bb` still runs.
#[track_caller]
fn intact(store: &Store) {
    store.line("fsck").code(0);
    assert_eq!(store.line("run --rm bb echo fine").ok(), "fine");
}

#[test]
fn root_fuse_unknown_and_ambiguous_names() {
    let store = Store::with_busybox(Who::Root);
    store
        .line("run --rm --pull never nosuch true")
        .code(125)
        .says("No such image: nosuch:latest");
    store
        .line("rmi nosuch")
        .code(1)
        .says("No such image: nosuch:latest");
    store
        .line("diff nosuch")
        .code(1)
        .says("No such container: nosuch");
    store.line("create --name twin bb true").ok();
    store
        .line("create --name twin bb true")
        .code(1)
        .says("The container name \"/twin\" is already in use by container");
    // Two of the containers must share a first hexadecimal digit once there are seventeen.
    for _ in 0..17 {
        store.line("create bb true").ok();
    }
    let ids = store.line("ps -aq --no-trunc").ok();
    let mut firsts: Vec<_> = ids.lines().map(|id| &id[..1]).collect();
    firsts.sort_unstable();
    let shared = firsts.windows(2).find(|pair| pair[0] == pair[1]).unwrap()[0];
    store
        .line(&format!("diff {shared}"))
        .code(1)
        .says("Multiple IDs found with provided prefix");
    intact(&store);
}

#[test]
fn root_fuse_commands_that_do_not_start() {
    let store = Store::with_busybox(Who::Root);
    store
        .line("run --rm bb nosuchcmd")
        .code(127)
        .says("executable file not found in $PATH");
    store
        .line("run --rm bb /etc/passwd")
        .code(126)
        .says("permission denied");
    store.line("run --rm bb /etc").code(126);
    store
        .line("run --rm --frob bb true")
        .code(125)
        .says("unknown flag: --frob");
    store
        .mille(["run", "--rm", "bb", "sh", "-c", "exit 7"])
        .code(7);
    store
        .mille([
            "run",
            "--rm",
            "bb",
            "sh",
            "-c",
            // The outer shell must stay: process 1 itself takes no signal from inside, as under docker.
            "sh -c 'kill -9 $$'; exit $?",
        ])
        .code(137);
    intact(&store);
}

#[test]
fn root_fuse_archives_that_are_broken() {
    let store = Store::with_busybox(Who::Root);
    let good = store.file("good.tar");
    store
        .mille(["save", "-o", good.to_str().unwrap(), "bb"])
        .ok();
    let bytes = std::fs::read(&good).unwrap();
    let layer = bytes
        .windows(13)
        .position(|window| window == b"readme\n\0\0\0\0\0\0")
        .unwrap();
    let mut flipped = bytes.clone();
    flipped[layer] ^= 1;
    let cases: &[(&str, Vec<u8>)] = &[
        ("empty", Vec::new()),
        (
            "noise",
            (0..4096u32)
                .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
                .collect(),
        ),
        ("truncated", bytes[..bytes.len() / 2].to_vec()),
        ("corrupt", flipped),
    ];
    // A layer that is there already is not read again, so the store must not have it.
    let other = Store::new(Who::Root);
    for (name, content) in cases {
        let file = other.file(name);
        std::fs::write(&file, content).unwrap();
        let outcome = other.mille(["load", "-i", file.to_str().unwrap()]);
        assert_ne!(outcome.code, 0, "{name} was accepted");
        assert!(outcome.err().len() > 10, "{name}: no message");
        other.line("fsck").code(0);
        assert_eq!(other.line("images -aq").ok(), "", "{name}");
    }
    other.mille(["load", "-i", good.to_str().unwrap()]).ok();
    intact(&other);
    other
        .line("load -i /nosuch/archive.tar")
        .code(1)
        .says("no such file or directory");
}

#[test]
fn root_a_tar_that_climbs_out_is_refused() {
    let store = Store::with_busybox(Who::Root);
    let script = r#"
import io, tarfile, sys
def tar(path, members):
    with tarfile.open(path, "w") as t:
        for name, kind, link in members:
            m = tarfile.TarInfo(name); m.type = kind; m.linkname = link or ""
            t.addfile(m, io.BytesIO(b""))
D, F, S, H = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
tar("dotdot.tar", [("../../canary", F, None)])
tar("symlink.tar", [("etc", S, sys.argv[1]), ("etc/canary", F, None)])
tar("hardlink.tar", [("up", S, sys.argv[1]), ("x", H, "up/secret")])
"#;
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    std::fs::write(store.file("make.py"), script).unwrap();
    store
        .script(&format!("python3 make.py {}", outside.path().display()))
        .ok();
    for (file, entry) in [("dotdot.tar", "canary"), ("hardlink.tar", "x")] {
        let outcome = store.line(&format!("import {file} evil"));
        assert_ne!(outcome.code, 0, "{file} was accepted");
        assert!(
            outcome.err().contains(entry),
            "{file}: the message does not name the entry: {}",
            outcome.err()
        );
    }
    // What a later entry does below an earlier symlink may be refused or stay inside; it never lands outside.
    store.line("import symlink.tar evil");
    let names: Vec<_> = std::fs::read_dir(outside.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["secret"]);
    assert_eq!(
        std::fs::symlink_metadata(outside.path().join("secret"))
            .map(|m| std::os::unix::fs::MetadataExt::nlink(&m))
            .unwrap(),
        1
    );
    store.line("fsck").code(0);
}

#[test]
fn user_an_unwritable_root_and_a_foreign_root_are_explained() {
    let store = Store::new(Who::Ordinary);
    let mut command = Who::Ordinary.command(&mille_tests::program::built("mille"));
    command.args(["--root", "/etc/mille-cannot", "images"]);
    let outcome = mille_tests::program::run(command, b"");
    assert_ne!(outcome.code, 0);
    assert!(
        outcome.err().contains("/etc/mille-cannot")
            && outcome.err().to_lowercase().contains("permission denied"),
        "{}",
        outcome.err()
    );
    drop(store);
}

#[test]
fn root_places_that_cannot_be_a_store_are_explained() {
    let store = Store::with_busybox(Who::Root);
    let file = store.file("file");
    std::fs::write(&file, "x").unwrap();
    std::fs::create_dir(store.file("strange")).unwrap();
    std::fs::write(store.file("strange/x"), "x").unwrap();
    for (root, reason) in [
        ("file", "not a directory"),
        ("file/below", "create directory"),
        ("strange", "not a mille store"),
    ] {
        let root = store.file(root);
        let mut command = Who::Root.command(&mille_tests::program::built("mille"));
        command.arg("--root").arg(&root).arg("images");
        let outcome = mille_tests::program::run(command, b"");
        outcome.code(1).says(reason).says("--root");
    }
    // A store on a file system that has become read-only can be looked at.
    let script = "mount --bind . . && cd . && mount -o remount,ro,bind . && $mille images -q && $mille ps && \
                  $mille run --rm bb true";
    let outcome = store.script(&format!("unshare -m bash -c 'cd $PWD; {script}'"));
    outcome.code(125).says("Read-only file system");
    intact(&store);
}

#[test]
fn root_fuse_a_missing_or_wrong_device_is_explained() {
    device(Who::Root);
}

#[test]
fn user_fuse_a_missing_closed_or_wrong_device_is_explained() {
    device(Who::Ordinary);
}

/// Runs in a mount namespace in which something else stands at /dev/fuse.
fn device(who: Who) {
    let store = Store::with_busybox(who);
    let run = |line: &str| {
        let mille = store.command(["run", "--rm", "bb", "true"]);
        let mut command = std::process::Command::new("unshare");
        command.args(["-m", "bash", "-ec", &format!("{line}; exec \"$@\""), "bash"]);
        command.arg(mille.get_program()).args(mille.get_args());
        command.current_dir(store.file(""));
        command.env("XDG_RUNTIME_DIR", store.file(""));
        mille_tests::program::run(command, b"")
    };
    run("mount --bind /dev/null /dev/fuse")
        .code(125)
        .says("mknod -m 666 /dev/fuse c 10 229");
    run("mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3")
        .code(125)
        .says("sudo modprobe fuse");
    if who == Who::Ordinary {
        run("mount -t tmpfs none /mnt; mknod -m 600 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse")
            .code(125)
            .says("sudo chmod 666 /dev/fuse");
    }
    assert_eq!(store.line("ps -aq").ok(), "");
    intact(&store);
}

/// In the archive of a commit `.wh.a` says that `a` is deleted: the image would lose a file that nobody removed.
#[test]
fn root_fuse_names_that_an_archive_takes_for_whiteouts_are_refused() {
    let store = Store::with_busybox(Who::Root);
    let script = "touch /t/.wh.a; mkdir /t/.wh.dir; ln -s x /t/.wh..wh..opq; mv /t/b /t/.wh.c; ln /t/b /t/.wh.d; touch /t/.whx";
    store
        .mille(["run", "--name", "work", "bb", "sh", "-c", script])
        .code(0)
        .says("touch: /t/.wh.a: Operation not permitted");
    assert_eq!(store.line("diff work").ok(), "C /t\nA /t/.whx");
    store.line("commit work after").ok();
    store
        .line("run --rm after ls /t/a /t/b /t/c /t/d /t/dir/p /t/.whx")
        .ok();
}

/// What cannot be written is the caller's own output, in docker's words: no disk of the store is full.
#[test]
fn root_fuse_a_full_standard_output_is_named() {
    let store = Store::with_busybox(Who::Root);
    store.line("run -d --name work bb sleep 100").ok();
    for line in [
        "run --rm bb echo hi",
        "exec work echo hi",
        "save bb",
        "export work",
        "images",
    ] {
        let outcome = store.script(&format!("$mille {line} >/dev/full")).code(1);
        let want = "write /dev/stdout: no space left on device";
        assert_eq!(outcome.err().trim_end(), want, "{line}");
    }
    let outcome = store.script("$mille export -o /dev/full work").code(1);
    let text = outcome.err();
    assert_eq!(text.trim_end(), "write /dev/full: no space left on device");
    store.line("rm -f work").ok();
}
