//! Volumes and bind mounts: what a container finds in them, what is left of them, and what they cannot be led to.

use mille_tests::{Store, Who};

#[test]
fn root_fuse_a_volume_is_filled_once_and_outlives_its_container() {
    named(Who::Root);
}

#[test]
fn user_fuse_a_volume_is_filled_once_and_outlives_its_container() {
    named(Who::Ordinary);
}

fn named(who: Who) {
    let store = Store::with_busybox(who);
    store
        .script(
            "set -e; mkdir -p t/dir; echo x > t/own; ln t/own t/again; ln -s own t/link; echo cap > t/setid; \
             tar -rf bb.tar --owner=1000 --group=100 --mode=0750 t/dir t/own t/again t/link; \
             tar -rf bb.tar --owner=0 --group=0 --mode=04755 t/setid; $mille import bb.tar image",
        )
        .ok();
    // Owners, modes, hard links and times are the image's.
    let look = "cd /t; stat -c '%n %a %u:%g %h' dir own again setid; readlink link; [ a -ot own ] && echo older";
    let seen = store
        .mille(["run", "--rm", "-v", "vol1:/t", "image", "sh", "-c", look])
        .ok();
    let want = "dir 750 1000:100 3\nown 750 1000:100 2\nagain 750 1000:100 2\nsetid 4755 0:0 1\nown\nolder";
    assert_eq!(seen, want);
    // What one container writes the next finds; nothing is copied again, and nothing is in the container's own layer.
    store
        .mille([
            "run",
            "--name",
            "c1",
            "-v",
            "vol1:/t",
            "bb",
            "sh",
            "-c",
            "rm /t/a; echo new > /t/new",
        ])
        .ok();
    assert_eq!(store.line("diff c1").ok(), "");
    let seen = store
        .mille([
            "run",
            "--rm",
            "-v",
            "vol1:/v:ro",
            "bb",
            "sh",
            "-c",
            "cat /v/new; ls /v/a; echo x > /v/y",
        ])
        .code(1)
        .says("/v/a: No such file")
        .says("Read-only file system");
    assert_eq!(seen.out(), "new");
    let exported = store.script("$mille export c1 | tar -t t/new").code(2);
    assert!(exported.err().contains("Not found"), "{}", exported.err());
    let mounts = store.mille([
        "inspect",
        "-f",
        "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}",
        "c1",
    ]);
    assert_eq!(mounts.ok(), "volume vol1 /t true");
    // In use until its last container is gone.
    let id = store.line("ps -aq --no-trunc").ok();
    store.line("volume rm vol1").code(1).says(&format!(
        "Error response from daemon: remove vol1: volume is in use - [{id}]"
    ));
    store.line("rm -v c1").ok();
    assert_eq!(store.line("volume ls -q").ok(), "vol1");
    assert_eq!(store.line("volume rm vol1").ok(), "vol1");
    assert_eq!(store.line("volume ls").ok(), "DRIVER    VOLUME NAME");
}

#[test]
fn root_fuse_anonymous_volumes_go_with_their_container_when_asked() {
    anonymous(Who::Root);
}

#[test]
fn user_fuse_anonymous_volumes_go_with_their_container_when_asked() {
    anonymous(Who::Ordinary);
}

fn anonymous(who: Who) {
    let store = Store::with_busybox(who);
    store
        .mille(["import", "-c", "VOLUME /t/dir /new", "bb.tar", "image"])
        .ok();
    let volumes = || store.line("volume ls -q").ok().lines().count();
    let seen = store
        .line("run --rm -v /anon image sh -c mount;ls${IFS}/t/dir")
        .ok();
    assert!(
        seen.contains(" /anon ") && seen.contains(" /t/dir ") && seen.ends_with("p\nq\nr\nsub"),
        "{seen}"
    );
    assert_eq!(volumes(), 0);
    store.line("create --name c1 image true").ok();
    assert_eq!(volumes(), 2);
    // Another container takes them over: they stay for it.
    store
        .line("create --name c2 --volumes-from c1:ro bb true")
        .ok();
    store.line("rm -v c1").ok();
    assert_eq!(volumes(), 2);
    let seen = store
        .line("run --rm --volumes-from c2 bb sh -c ls${IFS}/t/dir;echo>/new/x")
        .code(1);
    assert!(seen.out().starts_with("p\n"), "{}", seen.out());
    store.line("rm c2").ok();
    assert_eq!(volumes(), 2);
    let pruned = store.line("volume prune -f").ok();
    assert!(
        pruned.starts_with("Deleted Volumes:\n") && pruned.contains("Total reclaimed space: "),
        "{pruned}"
    );
    assert_eq!(volumes(), 0);
    // A container that cannot be made leaves none.
    store
        .mille(["create", "-v", "/anon", "-w", "/bin/sh/x", "bb", "true"])
        .code(1);
    assert_eq!(volumes(), 0);
}

#[test]
fn root_fuse_volumes_are_listed_and_refused_in_dockers_words() {
    let store = Store::with_busybox(Who::Root);
    assert_eq!(store.line("volume create --label a=b vol1").ok(), "vol1");
    assert_eq!(store.line("volume create vol1").ok(), "vol1");
    assert_eq!(store.line("volume create").ok().len(), 64);
    for (line, want) in [
        ("volume create x", "create x: volume name is too short"),
        (
            "volume create -d frob v3",
            "create v3: error looking up volume plugin frob: plugin \"frob\" not found",
        ),
        ("volume rm nosuch", "get nosuch: no such volume"),
        ("volume inspect nosuch", "get nosuch: no such volume"),
        ("volume ls -f frob=1", "Invalid filter 'frob'"),
    ] {
        store
            .line(line)
            .code(1)
            .says(&format!("Error response from daemon: {want}"));
    }
    assert_eq!(store.line("volume rm -f nosuch").ok(), "nosuch");
    assert_eq!(store.line("volume ls -q -f label=a=b").ok(), "vol1");
    assert_eq!(store.line("volume ls -q -f name=ol1").ok(), "vol1");
    store.line("create --name c1 -v vol1:/v bb true").ok();
    assert_eq!(store.line("volume ls -q -f dangling=false").ok(), "vol1");
    assert_eq!(
        store
            .line("ps -a --format {{.Mounts}}:{{.LocalVolumes}} -f volume=vol1")
            .ok(),
        "vol1:1"
    );
    assert_eq!(store.line("inspect -f {{.Labels.a}} vol1").ok(), "b");
    // Named volumes are only pruned when all are asked for.
    store.line("rm c1").ok();
    let asked = store.mille_with(["volume", "prune"], b"n\n").ok();
    assert!(
        asked.starts_with("WARNING! This will remove anonymous local volumes"),
        "{asked}"
    );
    store.line("volume prune -f").ok();
    assert_eq!(store.line("volume ls -q").ok(), "vol1");
    let pruned = store.line("volume prune -af").ok();
    assert_eq!(
        pruned,
        "Deleted Volumes:\nvol1\n\nTotal reclaimed space: 0B"
    );
    for (args, want) in [
        (
            &["-v", "vol1:/x:rshared"][..],
            "field BindOptions must not be specified",
        ),
        (
            &["-v", "/tmp:/x", "-v", "/etc:/x/"],
            "Duplicate mount point: /x",
        ),
        (&["--volumes-from", "nosuch"], "No such container: nosuch"),
        (
            &["-v", "vol1:/bin/sh"],
            "cannot mount volume over existing file, file exists /bin/sh",
        ),
        (
            &["--mount", "type=bind,source=/nosuch1,target=/x"],
            "bind source path does not exist: /nosuch1",
        ),
    ] {
        let words = ["run"].iter().chain(args).chain(&["bb", "true"]);
        store.mille(words).code(125).says(want);
    }
}

#[test]
fn root_fuse_mounts_are_what_was_asked_for() {
    let store = Store::with_busybox(Who::Root);
    let host = store.file("host");
    std::fs::create_dir_all(host.join("sub")).unwrap();
    std::fs::write(host.join("f"), "theirs").unwrap();
    let bind = format!("type=bind,src={},dst=/b,ro", host.display());
    let line = "cat /b/f; echo x > /b/f; grep -E ' /(tm|dev/shm) ' /proc/mounts";
    let seen = store.mille([
        "run",
        "--rm",
        "--mount",
        &bind,
        "--mount",
        "type=tmpfs,dst=/tm,tmpfs-size=1m,tmpfs-mode=700",
        "--shm-size",
        "10m",
        "bb",
        "sh",
        "-c",
        line,
    ]);
    let seen = seen.says("Read-only file system");
    assert_eq!(
        seen.out(),
        "theirsshm /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=10240k 0 0\n\
         tmpfs /tm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=700 0 0"
    );
    // A volume that is a directory of the host.
    let device = format!("device={}", host.display());
    store
        .mille([
            "volume",
            "create",
            "-o",
            "type=none",
            "-o",
            "o=bind",
            "-o",
            &device,
            "hv",
        ])
        .ok();
    assert_eq!(store.line("run --rm -v hv:/x bb cat /x/f").ok(), "theirs");
    store.line("volume rm hv").ok();
    assert!(host.join("f").exists());
}

#[test]
fn root_fuse_shared_and_slave_mounts_pass_what_they_should() {
    let store = Store::with_busybox(Who::Root);
    let host = store.file("host");
    std::fs::create_dir_all(host.join("a")).unwrap();
    std::fs::create_dir_all(host.join("b")).unwrap();
    let path = host.to_str().unwrap();
    let refused = format!("run --rm -v {path}:/h:rshared bb true");
    store
        .line(&refused)
        .code(125)
        .says("but it is not a shared mount");
    // In a mount namespace of its own, so that nothing of it reaches the machine.
    let script = format!(
        "mount --bind {path} {path}; mount --make-shared {path}; \
         $mille run -d --name c1 --cap-add SYS_ADMIN --security-opt seccomp=unconfined -v {path}:/sh:rshared -v \
         {path}:/sl:rslave -v {path}:/pr bb sleep 1000 > /dev/null; \
         mount -t tmpfs outer {path}/a; $mille exec c1 mount -t tmpfs inner /sh/b; \
         grep -c ' {path}/b ' /proc/mounts; $mille exec c1 grep -E ' /(sh|sl|pr)/[ab] ' /proc/mounts | cut -d' ' -f1,2; \
         $mille rm -f c1 >/dev/null; umount {path}/a {path}/b {path}"
    );
    let mut command = std::process::Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "bash", "-euc", &script])
        .env("mille", mille_tests::program::built("mille"))
        .env("MILLE_ROOT", store.root())
        .env("XDG_RUNTIME_DIR", store.file(""));
    let seen = mille_tests::program::run(command, b"").ok();
    let mut lines: Vec<_> = seen.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "1",
            "inner /sh/b",
            "inner /sl/b",
            "outer /sh/a",
            "outer /sl/a"
        ]
    );
}

#[test]
fn root_fuse_a_volume_s_place_cannot_lead_out_of_the_container() {
    let store = Store::with_busybox(Who::Root);
    let canary = store.file("canary");
    std::fs::create_dir(&canary).unwrap();
    // The image has links where volumes are to be, to a directory that is there on the host as well.
    store
        .script(&format!(
            "set -e; mkdir -p image{0} image/x; ln -s {0} image/x/absolute; ln -s ../../../../../../..{0} image/x/dots; \
             ln -s /nowhere image/x/dangling; tar -rf bb.tar -C image .; $mille import bb.tar hostile",
            canary.display()
        ))
        .ok();
    for place in ["/x/absolute", "/x/dots"] {
        let mount = format!("v1:{place}/deep");
        let line = "grep -c canary/deep /proc/mounts";
        let seen = store.mille(["run", "--rm", "-v", &mount, "hostile", "sh", "-c", line]);
        assert_eq!(seen.ok(), "1");
    }
    store
        .line("run --rm -v v1:/x/dangling/deep hostile true")
        .code(127)
        .says("no such file or directory");
    assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
    // A made-up procfs is no place for a volume.
    store
        .line("run --rm -v v1:/proc hostile true")
        .code(125)
        .says("inside /proc");
    store.line("volume rm v1").ok();
}

#[test]
fn root_fuse_a_killed_fill_is_completed_by_the_next_container() {
    let store = Store::with_busybox(Who::Root);
    store.line("run --rm -v v1:/t bb rm -r /t/a /t/dir").ok();
    // As a command leaves it that was killed while it filled the volume.
    let place = store.root().join("volumes/v1");
    std::fs::write(place.join("filling"), "").unwrap();
    std::fs::write(place.join("_data/.mille-filling"), "half").unwrap();
    let seen = store.line("run --rm -v v1:/t bb cat /t/a /t/dir/p").ok();
    assert_eq!(seen, "a\np");
    assert!(!place.join("filling").exists() && !place.join("_data/.mille-filling").exists());
    store.line("volume rm v1").ok();
}
