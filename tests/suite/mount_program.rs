//! `millefs` where fuse-overlayfs stands: as the mount program of podman and buildah, and under mount(8).

use std::path::{Path, PathBuf};
use std::process::Command;

use mille_tests::program::{self, Outcome, built, require};
use mille_tests::{Who, leftovers, rootfs, tree};

/// A storage of podman and buildah in a directory of its own, mounted by `millefs`.
struct Storage {
    who: Who,
    directory: tempfile::TempDir,
    /// Further options of the storage.
    options: &'static str,
}

/// How containers of podman are run here: its own words for a host without CAP_SYS_RESOURCE.
const RUN: &str = "--network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

impl Storage {
    fn new(who: Who) -> Self {
        for program in ["podman", "buildah", "runc"] {
            require(program, program);
        }
        let directory = tempfile::Builder::new()
            .prefix("mille-p-")
            .tempdir_in("/var/tmp")
            .unwrap();
        tree::set_mode(directory.path(), 0o700);
        let tar = directory.path().join("bb.tar");
        std::fs::write(&tar, rootfs::busybox_tar()).unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        tree::set_mode(&directory.path().join("run"), 0o700);
        for path in ["", "bb.tar", "run"] {
            who.own(&directory.path().join(path));
        }
        Storage {
            who,
            directory,
            options: "",
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a script in the directory, with `$podman` and `$buildah` set to command lines with this storage, and `$run`,
    /// `$change` and `$see` as below.
    fn script(&self, script: &str) -> Outcome {
        let mut command = self.who.command(Path::new("/bin/bash"));
        let storage = format!(
            "--root {0}/p --runroot {0}/pr --storage-driver overlay --storage-opt overlay.mount_program={1} {2}",
            self.directory.path().display(),
            built("millefs").display(),
            self.options
        );
        let podman = format!(
            "podman {storage} --tmpdir {}/pt --cgroup-manager cgroupfs --events-backend none --runtime runc",
            self.directory.path().display()
        );
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.directory.path())
            .env("HOME", self.directory.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("podman", podman)
            .env("buildah", format!("buildah {storage}"))
            .env("run", RUN)
            .env("change", CHANGE)
            .env("see", SEE);
        program::run(command, b"")
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // The pause process of an ordinary user's podman holds its namespace, and is meant to stay.
        self.script("$podman rm -fa; $podman system migrate; true");
        leftovers::clear_pause(self.directory.path());
        // podman mounts its directory on itself, and leaves that.
        nix::mount::umount(&self.path("p/overlay")).ok();
        let found = leftovers::below(self.directory.path());
        leftovers::clear(self.directory.path());
        if !found.is_empty() && !std::thread::panicking() {
            panic!("left behind: {found:#?}");
        }
    }
}

/// Every change that an overlay can get wrong, made in a container.
const CHANGE: &str = "mv /t/dir2 /t/moved; echo more >> /t/m; rm -r /t/dir; mkdir /t/dir; echo n > /t/dir/new; rm /t/g; \
                      mv /t/a /t/dir/a; chown 5:6 /t/c; chmod 4711 /t/d; mkfifo /t/fifo; ln -s nowhere /t/broken";

/// Says what is there afterwards.
const SEE: &str = "cat /t/m /t/m2; ls /t/dir /t/moved; stat -c '%n %a %u:%g %F' /t/c /t/d /t/fifo /t/broken; \
                   for gone in /t/dir2 /t/g /t/a /t/dir/p; do ! ls $gone 2>/dev/null; done";

const SEEN: &str = "m\nmore\nm\nmore\n/t/dir:\na\nnew\n\n/t/moved:\np\nq\nr\n/t/c 644 5:6 regular file\n\
                    /t/d 4711 0:0 regular file\n/t/fifo 644 0:0 fifo\n/t/broken 777 0:0 symbolic link";

/// Imports an image, changes it in a container, commits a second layer, runs and removes it.
fn podman_lives(who: Who) {
    let storage = Storage::new(who);
    let mounted = storage
        .script(
            "$podman import -q bb.tar bb:1; \
             $podman run --name c1 $run bb:1 sh -c \"$change; grep ' / ' /proc/mounts\"",
        )
        .ok();
    assert!(mounted.contains(" / fuse.millefs "), "{mounted}");
    let diff = storage.script("$podman diff c1").ok();
    for line in [
        "A /t/moved",
        "D /t/dir2",
        "D /t/g",
        "C /t/m",
        "A /t/dir/new",
    ] {
        assert!(diff.lines().any(|seen| seen == line), "{line}: {diff}");
    }
    let seen = storage
        .script("$podman commit -q c1 bb:2 >&2; $podman run --rm $run bb:2 sh -c \"$see\"")
        .ok();
    assert_eq!(seen, SEEN);
    // A second container of the same image, and the first once more.
    let again = storage
        .script("$podman run --rm $run bb:2 true; $podman start -a c1 2>/dev/null")
        .ok();
    assert_eq!(again, mounted.lines().last().unwrap());
    let left = storage
        .script("$podman rm c1 >&2; $podman rmi bb:2 bb:1 >&2; $podman images -q; ls p/overlay | grep -vxE 'l|.*lock.*' || true")
        .ok();
    assert_eq!(left, "");
}

#[test]
fn ci_root_fuse_podman_builds_runs_commits_and_removes() {
    podman_lives(Who::Root);
}

#[test]
fn ci_user_fuse_podman_builds_runs_commits_and_removes() {
    podman_lives(Who::Ordinary);
}

/// podman shifts owners by `uidmapping` and `gidmapping` of its mount program, and for root hands us layers that an
/// idmapped mount has shifted already.
fn podman_shifts_owners(who: Who, map: &str) {
    let storage = Storage::new(who);
    let seen = storage
        .script(&format!(
            "$podman import -q bb.tar bb:1; $podman run --name c1 {map} $run bb:1 sh -c \
             'touch /x && chown 5:6 /x && echo more >> /t/b && chown 7:8 /t/c && stat -c \"%n %u:%g\" / /x /t/a /t/b /t/c'"
        ))
        .ok();
    let owners = "/ 0:0\n/x 5:6\n/t/a 0:0\n/t/b 0:0\n/t/c 7:8";
    assert!(seen.ends_with(owners), "{seen}");
    let committed = storage
        .script("$podman commit -q c1 bb:2 >&2; $podman run --rm $run bb:2 stat -c '%n %u:%g' / /x /t/a /t/b /t/c")
        .ok();
    assert_eq!(committed, owners);
}

#[test]
fn ci_root_fuse_podman_shifts_owners() {
    podman_shifts_owners(Who::Root, "--uidmap 0:300000:65536 --gidmap 0:300000:65536");
}

#[test]
fn ci_user_fuse_podman_shifts_owners() {
    podman_shifts_owners(Who::Ordinary, "--uidmap 0:1:1000 --gidmap 0:1:1000");
}

#[test]
fn ci_user_fuse_podman_keeps_its_user_id() {
    let storage = Storage::new(Who::Ordinary);
    let uid = program::ordinary_user().uid;
    let seen = storage
        .script(
            "$podman import -q bb.tar bb:1 >&2; $podman run --rm --userns keep-id $run bb:1 sh -c \
             'id -u; echo mine > /tmp/x; stat -c %u /tmp/x /t/a; ! echo x 2>/dev/null > /t/a'",
        )
        .ok();
    assert_eq!(seen, format!("{uid}\n{uid}\n0"));
}

/// A storage with `force_mask` keeps owners and modes in attributes, of layers and of what a container writes.
#[test]
fn ci_user_fuse_podman_keeps_owners_in_attributes() {
    let mut storage = Storage::new(Who::Ordinary);
    storage.options = "--storage-opt overlay.force_mask=700 --storage-opt overlay.mountopt=nodev,fsync=0,volatile";
    let seen = storage
        .script(
            "$podman import -q bb.tar bb:1 >&2; $podman run --name c1 $run bb:1 sh -ec \
             'stat -c \"%n %a %u:%g\" /t /t/a; echo x >> /t/b; chown 5:6 /t/b; chmod 751 /t/b; mv /t/dir /t/moved; \
              chown 7 /t/moved; mkfifo /t/fifo; stat -c \"%n %a %u:%g\" /t/b /t/moved /t/fifo; rm /t/fifo'; \
             $podman unshare stat -c '%a %u:%g' p/overlay/*/diff/t/b | sort",
        )
        .ok();
    let owners = "/t/b 751 5:6\n/t/moved 755 7:0\n/t/fifo 644 0:0";
    let stored = "600 0:0\n700 0:0";
    assert_eq!(
        seen,
        format!("/t 755 0:0\n/t/a 644 0:0\n{owners}\n{stored}")
    );
    let committed = storage
        .script(
            "$podman commit -q c1 bb:2 >&2; \
             $podman run --rm $run bb:2 stat -c '%n %a %u:%g' /t/b /t/moved",
        )
        .ok();
    assert_eq!(committed, "/t/b 751 5:6\n/t/moved 755 7:0");
}

/// A build with a layer of files and one of changes, in buildah's own way of running (chroot).
fn buildah_builds(who: Who) {
    let storage = Storage::new(who);
    let context = storage.path("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("bb.tar"), rootfs::busybox_tar()).unwrap();
    let recipe = format!("FROM scratch\nADD bb.tar /\nRUN {CHANGE}\n");
    std::fs::write(context.join("Dockerfile"), recipe).unwrap();
    tree::set_mode(&context, 0o755);
    storage
        .script("$buildah bud --layers --isolation chroot --network host -t bb:built context")
        .ok();
    let seen = storage
        .script(
            "c=$($buildah from bb:built); $buildah run --isolation chroot $c -- sh -c \"$see\"; \
             $buildah run --isolation chroot $c -- sh -c 'echo ran > /ran; rm /t/dir/new'; \
             m=$($buildah commit -q $c bb:3); $buildah rm $c >&2; test -n $m",
        )
        .ok();
    assert_eq!(seen, SEEN);
    let again = storage
        .script(
            "c=$($buildah from bb:3); $buildah run --isolation chroot $c -- sh -c 'cat /ran; ls /t/dir'; \
             $buildah rm $c >&2; $buildah rmi -a >&2; $buildah images -q",
        )
        .ok();
    assert_eq!(again, "ran\na");
}

#[test]
fn ci_root_fuse_buildah_builds_commits_and_removes() {
    buildah_builds(Who::Root);
}

#[test]
fn ci_user_fuse_buildah_builds_commits_and_removes() {
    buildah_builds(Who::Ordinary);
}

/// Runs a script as root in a directory with layers `a` over `b`, `u`, `w` and `m`, on mounts of its own in which
/// `millefs` is installed where mount(8) looks for it.
fn installed(script: &str) -> Outcome {
    require("mount.fuse3", "fuse3");
    let directory = tempfile::Builder::new()
        .prefix("mille-p-")
        .tempdir_in("/var/tmp")
        .unwrap();
    // mount.fuse3 has a search path of its own, so the machine's root is shown once more with the program added. Mounts
    // of other tests are in the copied table too, and would live on in it; one inside another goes with that.
    let script = format!(
        "for m in $(grep -o ' /var/tmp/mille-[^ ]*' /proc/mounts); do umount -l $m || true; done; mkdir a b u w m root; echo top > a/both; echo bottom > b/both; echo low > b/low; \
         mount --rbind / root; mount -t tmpfs none root/usr/local/sbin; \
         cp {} root/usr/local/sbin/millefs; export D=$PWD; chroot root bash -euc 'cd $D; {script}'",
        built("millefs").display()
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .args(["bash", "-euo", "pipefail", "-c", &script])
        .current_dir(directory.path());
    let outcome = program::run(command, b"");
    assert_eq!(leftovers::below(directory.path()), Vec::<String>::new());
    outcome
}

#[test]
fn root_fuse_mount_8_mounts_it() {
    let seen = installed(
        "mount -t fuse.millefs src $D/m -o lowerdir=$D/a:$D/b,upperdir=$D/u,workdir=$D/w,nosuid; \
         cat m/both m/low; echo new > m/new; rm m/low; grep \" $D/m \" /proc/mounts; umount $D/m; cat u/new; \
         mount -t fuse.millefs src $D/m -o ro,lowerdir=u:b; ls m; ! touch m/x 2>/dev/null; umount m",
    )
    .ok();
    let mut lines = seen.lines();
    assert_eq!(lines.next(), Some("top"));
    assert_eq!(lines.next(), Some("low"));
    let mount = lines.next().unwrap();
    assert!(mount.starts_with("src "), "{mount}");
    assert!(mount.contains(" fuse.millefs rw,nosuid,"), "{mount}");
    assert_eq!(lines.collect::<Vec<_>>(), ["new", "both", "new"]);
}

#[test]
fn root_fuse_mount_8_tells_what_is_wrong() {
    let outcome = installed("mount -t fuse.millefs src $D/m -o lowerdir=$D/a,wombat=1; umount m");
    outcome
        .code(0)
        .says("option wombat=1 is not known and ignored");
    installed("mount -t fuse.millefs src $D/m -o lowerdir=$D/missing")
        .code(1)
        .says("missing");
}
