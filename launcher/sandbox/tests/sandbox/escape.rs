//! Hostile trees and commands: nothing of the host is reached, written or mounted over.

use crate::inside::bind;
use crate::kit::{Running, Tree, need_root, run};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn root_no_descriptor_leaks() {
    let tree = Tree::new();
    // Fifty descriptors that are inherited over exec, a directory of the host among them.
    let leaks: Vec<OwnedFd> = (0..50)
        .map(|_| {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            rustix::fs::open("/", flags, rustix::fs::Mode::empty()).unwrap()
        })
        .collect();
    // 3 is the directory ls itself reads.
    assert_eq!(tree.sh("ls /proc/self/fd").out, "0\n1\n2\n3\n");
    let running = Running::start(&tree.command(&["sleep", "100"]));
    assert_eq!(running.exec("ls /proc/self/fd").out, "0\n1\n2\n3\n");
    assert_eq!(running.exec("ls /proc/1/fd").out, "0\n1\n2\n");
    drop(leaks);
}

#[test]
fn root_working_directory_is_no_descriptor() {
    let tree = Tree::new();
    let running = Running::start(&tree.command(&["sleep", "100"]));
    for number in 0..20 {
        let mut spec = tree.command(&["pwd"]);
        spec.cwd = format!("/proc/self/fd/{number}").into();
        assert_eq!(run(&spec).out, "", "run {number}");
        let mut exec = crate::kit::exec_spec(&["pwd"]);
        exec.cwd = format!("/proc/self/fd/{number}").into();
        assert_eq!(running.exec_spec(&exec).out, "", "exec {number}");
    }
    std::os::unix::fs::symlink("/proc/1/root", tree.path("out")).unwrap();
    let mut spec = tree.command(&["pwd"]);
    spec.cwd = "/out".into();
    assert_ne!(run(&spec).code, 0);
}

#[test]
fn root_links_for_mount_points_are_refused() {
    for name in ["proc", "sys", "dev"] {
        let (tree, canary) = (Tree::new(), tempfile::tempdir().unwrap());
        for target in [canary.path(), Path::new("/data")] {
            tree.replace_by_link(name, target);
            let got = tree.sh("echo ran");
            assert_eq!((got.code, got.out.as_str()), (125, ""), "{name} {got:?}");
            assert!(got.err.contains("no symbolic link"), "{got:?}");
        }
        assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(tree.path("data")).unwrap().count(), 0);
    }
}

#[test]
fn root_links_never_lead_to_the_host() {
    for name in ["etc", "run", "opt", "tmp"] {
        let (tree, canary) = (Tree::new(), tempfile::tempdir().unwrap());
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("f"), "volume").unwrap();
        tree.replace_by_link(name, canary.path());
        let mut spec = tree.spec("echo ran");
        spec.cwd = format!("/{name}/cwd").into();
        spec.mounts = vec![
            bind(source.path(), &format!("/{name}/dir"), false),
            bind(&source.path().join("f"), &format!("/{name}/file"), false),
        ];
        run(&spec);
        assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0, "{name}");
        let text = format!(" {}", canary.path().display());
        assert!(
            !fs::read_to_string("/proc/self/mountinfo")
                .unwrap()
                .contains(&text)
        );
    }
}

#[test]
fn root_volumes_over_proc_are_refused() {
    let (tree, source) = (Tree::new(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink("/proc", tree.path("sneaky")).unwrap();
    for target in ["/proc", "/proc/self", "/sneaky/sys", "/data/../proc/1"] {
        let mut spec = tree.spec("echo ran");
        spec.mounts = vec![bind(source.path(), target, false)];
        let got = run(&spec);
        assert_eq!((got.code, got.out.as_str()), (125, ""), "{target}");
        assert!(
            got.err
                .contains("cannot be mounted because it is inside /proc"),
            "{got:?}"
        );
    }
}

/// The null device that hides files is the host's, whatever the image calls /dev/null.
#[test]
fn root_masks_do_not_come_from_the_image() {
    let tree = Tree::new();
    tree.write("secret", "secret");
    let target = Path::new("/proc/sys/kernel/core_pattern");
    std::os::unix::fs::symlink(target, tree.path("dev/null")).unwrap();
    let mut spec = tree.spec("stat -c %t:%T /secret /proc/keys; echo x > /secret; wc -c < /secret");
    spec.masked_paths.push("/secret".into());
    let before = fs::read_to_string(target).unwrap();
    assert_eq!(run(&spec).out, "1:3\n1:3\n0\n");
    assert_eq!(fs::read_to_string(target).unwrap(), before);
}

#[test]
fn root_account_files_are_bounded() {
    need_root();
    let tree = Tree::new();
    let passwd = tree.path("etc/passwd");
    let expect = |what: &str, text: &str| {
        let got = tree.sh("echo ran");
        assert_eq!((got.code, got.out.as_str()), (125, ""), "{what}: {got:?}");
        assert!(got.err.contains(text), "{what}: {got:?}");
    };
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    expect("fifo", "/etc/passwd: not a regular file");
    tree.replace_by_link("etc/passwd", Path::new("/dev/zero"));
    expect("device", "/etc/passwd: not a regular file");
    tree.replace_by_link("etc/passwd", Path::new("/proc/self/fd/0"));
    expect("magic link", "/etc/passwd");
    fs::remove_file(&passwd).unwrap();
    fs::create_dir(&passwd).unwrap();
    expect("directory", "/etc/passwd: not a regular file");
    fs::remove_dir(&passwd).unwrap();
    fs::File::create(&passwd).unwrap().set_len(1 << 30).unwrap();
    expect("huge", "/etc/passwd: larger than 4 MiB");
    // The host's own file is not the container's.
    tree.replace_by_link("etc/passwd", Path::new("/../../../etc/passwd"));
    expect("loop", "/etc/passwd");
}

/// A volume in which a directory turns into a link to the root and back, all the time.
#[test]
fn root_swapped_links_in_a_volume() {
    need_root();
    let (tree, volume, canary) = (
        Tree::new(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let source = tempfile::tempdir().unwrap();
    fs::create_dir(volume.path().join("a")).unwrap();
    std::os::unix::fs::symlink(canary.path(), volume.path().join("b")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (a, b) = (volume.path().join("a"), volume.path().join("b"));
            while !stop.load(Ordering::Relaxed) {
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &a, cwd, &b, rustix::fs::RenameFlags::EXCHANGE)
                    .unwrap();
            }
        });
        for _ in 0..150 {
            let mut spec = tree.command(&["true"]);
            spec.mounts = vec![
                bind(volume.path(), "/vol", false),
                bind(source.path(), "/vol/a/x", false),
            ];
            run(&spec);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(canary.path()).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*canary.path().to_string_lossy()));
}

/// Nothing of a launch shows up in the mount table of the host.
#[test]
fn root_no_mount_reaches_the_host() {
    let tree = Tree::new();
    let marks = |pid: &str| {
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        table
            .lines()
            .filter(|line| line.contains(&*tree.path("").to_string_lossy()))
            .count()
    };
    let running = Running::start(&tree.command(&["sleep", "100"]));
    assert_eq!(marks("self"), 0);
    assert_eq!(marks("1"), 0);
    let table = running
        .exec("grep -c . /proc/self/mountinfo; grep -cE 'vda /|/home|/usr' /proc/mounts")
        .out;
    assert!(
        table.lines().next().unwrap().parse::<u32>().unwrap() < 60,
        "{table}"
    );
}

/// A process that joins a container must not be looked into by the container before it is the command.
#[test]
fn root_joining_process_cannot_be_traced() {
    let tree = Tree::new();
    let watcher = "while :; do for p in /proc/[0-9]*; do readlink $p/exe; readlink $p/fd/3 $p/fd/4 $p/cwd; done; \
                   done > /data/seen 2>/dev/null";
    let running = Running::start(&tree.spec(watcher));
    for _ in 0..60 {
        assert_eq!(running.exec("true").code, 0);
    }
    let seen = fs::read_to_string(tree.path("data/seen")).unwrap();
    assert!(seen.contains("/bin/busybox"), "the watcher works");
    let exe = std::env::current_exe().unwrap();
    let name = exe.file_name().unwrap().to_string_lossy();
    for leak in [&*name, "socket:", "unreachable", "pidfd"] {
        let line = seen
            .lines()
            .find(|line| line.contains(leak) && !line.starts_with("/bin"));
        assert_eq!(line, None, "{leak}");
    }
}
