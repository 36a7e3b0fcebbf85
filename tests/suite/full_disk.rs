//! A full disk: the message says what did not fit and what helps, nothing half-made stays, and removing needs no room.

use std::path::PathBuf;

use mille_tests::{Outcome, Store, Who};

#[test]
fn root_fuse_a_full_disk_is_said_and_survived() {
    let store = Store::new(Who::Root);
    let small = store.file("small");
    std::fs::create_dir(&small).unwrap();
    mille_tests::program::shell(&format!(
        "mount -t tmpfs -o size=24m none {}",
        small.display()
    ));
    let unmount = Unmount(small.clone());
    let root = small.join("root");
    let mille = |args: &[&str]| {
        let mut all = vec!["--root", root.to_str().unwrap()];
        all.extend(args);
        let mut command = Who::Root.command(&mille_tests::program::built("mille"));
        command.args(all).env("XDG_RUNTIME_DIR", &small);
        mille_tests::program::run(command, b"")
    };
    std::fs::write(store.file("bb.tar"), mille_tests::rootfs::busybox_tar()).unwrap();
    mille(&["import", store.file("bb.tar").to_str().unwrap(), "bb"]).ok();
    // Copy-up and plain writes.
    let full = mille(&[
        "run",
        "--name",
        "fill",
        "bb",
        "sh",
        "-c",
        // The kernel tells the server of the last close when it has time: only then is the space free again.
        "dd if=/dev/zero of=/fill bs=1M count=64 2>&1; echo x >> /t/a; echo code $?; rm /fill; sleep 1; echo y >> /t/b && cat /t/b",
    ]);
    assert!(
        full.out().contains("No space left on device"),
        "{}",
        full.out()
    );
    assert!(full.out().ends_with("b\ny"), "{}", full.out());
    // Load of more than fits.
    let big = store.file("big.tar");
    mille_tests::program::shell(&format!(
        "cd $(mktemp -d) && head -c 40M /dev/urandom > big && tar -cf {} big && rm -r \"$PWD\"",
        big.display()
    ));
    mille(&["import", big.to_str().unwrap(), "big"])
        .code(1)
        .says("No space left on device");
    mille(&["fsck"]).code(0);
    assert_eq!(mille(&["run", "--rm", "bb", "echo", "fine"]).ok(), "fine");
    // Commit of a layer that no longer fits beside its upper.
    mille(&[
        "run",
        "--name",
        "half",
        "bb",
        "sh",
        "-c",
        "head -c 14m /dev/urandom > /half",
    ])
    .ok();
    let commit = mille(&["commit", "half", "half"]);
    assert_ne!(commit.code, 0);
    assert!(
        commit.err().contains("No space left on device"),
        "{}",
        commit.err()
    );
    mille(&["fsck"]).code(0);
    mille(&["rm", "fill", "half"]).ok();
    drop(unmount);
}

/// Unmounts when dropped.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

/// A store on a small file system of its own.
struct Small {
    /// First: what is below the store's directory must be gone when that goes.
    _unmount: Unmount,
    store: Store,
    mount: PathBuf,
}

impl Small {
    fn new(size: &str) -> Self {
        let store = Store::new(Who::Root);
        let mount = store.file("small");
        std::fs::create_dir(&mount).unwrap();
        let at = mount.display();
        mille_tests::program::shell(&format!("mount -t tmpfs -o size={size} none {at}"));
        std::fs::write(store.file("bb.tar"), mille_tests::rootfs::busybox_tar()).unwrap();
        let small = Small {
            _unmount: Unmount(mount.clone()),
            store,
            mount,
        };
        let tar = small.store.file("bb.tar");
        small.mille(&["import", tar.to_str().unwrap(), "bb"]).ok();
        small
    }

    fn mille(&self, args: &[&str]) -> Outcome {
        let mut command = Who::Root.command(&mille_tests::program::built("mille"));
        command
            .arg("--root")
            .arg(self.mount.join("root"))
            .args(args);
        mille_tests::program::run(command, b"")
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let path = self.mount.join("fill");
        mille_tests::program::shell(&format!(
            "cat /dev/zero > {} 2>/dev/null || true",
            path.display()
        ));
    }

    /// Nothing is in the making, and everything that is there is whole.
    #[track_caller]
    fn clean(&self) {
        let report = self.mille(&["fsck"]).ok();
        assert_eq!(report.lines().count(), 1, "{report}");
        for directory in ["root/staging", "root/containers/.staging"] {
            let left = std::fs::read_dir(self.mount.join(directory)).unwrap();
            assert_eq!(left.count(), 0, "{directory}");
        }
    }
}

#[test]
fn root_fuse_every_command_that_makes_something_says_that_the_disk_is_full() {
    let small = Small::new("16m");
    small
        .mille(&["create", "--name", "made", "bb", "true"])
        .ok();
    let archive = small.store.file("image.tar");
    let archive = archive.to_str().unwrap();
    small.mille(&["save", "-o", archive, "bb"]).ok();
    small.mille(&["rm", "made"]).ok();
    small.fill();
    let inside = small.mount.join("out.tar");
    let tar = small.store.file("bb.tar");
    for args in [
        &["create", "--name", "made", "bb", "true"][..],
        &["run", "--name", "made", "bb", "true"],
        &["run", "-d", "--name", "made", "bb", "true"],
        &["import", "-c", "ENV A=1", tar.to_str().unwrap(), "other"],
        &["tag", "bb", "other"],
    ] {
        let outcome = small.mille(args);
        assert_ne!(outcome.code, 0, "{args:?}");
        outcome
            .says("No space left on device")
            .says("remove containers (`mille rm`)");
        small.clean();
        assert_eq!(small.mille(&["ps", "-aq"]).ok(), "", "{args:?}");
    }
    small
        .mille(&["save", "-o", inside.to_str().unwrap(), "bb"])
        .code(1)
        .says("out.tar: no space left on device");
    assert!(!inside.exists());
    // Removing needs no room, and gives some.
    small.mille(&["rmi", "bb"]).ok();
    small.clean();
    small.mille(&["load", "-i", archive]).ok();
    std::fs::remove_file(small.mount.join("fill")).unwrap();
    assert_eq!(
        small.mille(&["run", "--rm", "bb", "echo", "fine"]).ok(),
        "fine"
    );
}

#[test]
fn root_fuse_the_exit_code_is_kept_when_the_container_filled_the_disk() {
    let small = Small::new("16m");
    let script = "cat /dev/zero > /fill; exit 3";
    small
        .mille(&["run", "--name", "filler", "bb", "sh", "-c", script])
        .code(3)
        .says("No space left on device");
    let state = small.mille(&[
        "inspect",
        "-f",
        "{{.State.Status}} {{.State.ExitCode}}{{.State.Error}}",
        "filler",
    ]);
    assert_eq!(state.ok(), "exited 3");
    small.mille(&["rm", "filler"]).ok();
    assert_eq!(
        small.mille(&["run", "--rm", "bb", "echo", "fine"]).ok(),
        "fine"
    );
    small.clean();
}
